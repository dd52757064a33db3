//! The receiving thread. It subscribes, and subscribes again with backoff whenever a subscription has ended.

use std::sync::Arc;
use std::time::Instant;

use super::adapter::{AdapterError, Inbox};
use super::backoff::Backoff;
use super::shared::LinkCore;
use super::state::Half;
use crate::guard;

/// Runs until the adapter is closed. A panic, for instance in the user's logger, ends one subscription but not the
/// thread.
pub(super) fn run(shared: &Arc<LinkCore>) {
    let (first, longest) = shared.settings.backoff;
    let mut backoff = Backoff::new(first, longest);
    let inbox = Inbox(Arc::clone(shared) as _);
    while !inbox.is_closed() {
        guard::catch(|| subscribe(shared, &inbox, &mut backoff));
        wait(shared, Instant::now() + backoff.next());
    }
}

/// Runs one subscription to its end.
fn subscribe(shared: &LinkCore, inbox: &Inbox, backoff: &mut Backoff) {
    let result = shared.call(|| shared.settings.adapter.subscribe(inbox));
    if inbox.is_closed() {
        return;
    }
    if shared.state.lock().halves.is_subscribed() {
        backoff.reset();
    }
    let error = result.err().unwrap_or_else(|| AdapterError::unavailable("it ended"));
    shared.report(Half::Subscribe, Err(&error));
}

fn wait(shared: &LinkCore, until: Instant) {
    let mut state = shared.state.lock();
    // The cause may have broken the other connection as well.
    state.check = true;
    shared.work.notify_one();
    while !state.closed && !shared.over.wait_until(&mut state, until) {}
}
