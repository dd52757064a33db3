//! The thread that receives: it subscribes, and again with backoff whenever that has ended.

use std::sync::Arc;
use std::time::Instant;

use super::adapter::{AdapterError, Inbox};
use super::backoff::Backoff;
use super::shared::Shared;
use super::state::Half;

pub(super) fn run(shared: &Arc<Shared>) {
    let (first, longest) = shared.settings.backoff;
    let mut backoff = Backoff::new(first, longest);
    let inbox = Inbox(Arc::clone(shared) as _);
    while !inbox.is_closed() {
        let result = shared.call(|| shared.settings.adapter.subscribe(&inbox));
        if inbox.is_closed() {
            return;
        }
        if shared.desk.lock().halves.is_subscribed() {
            backoff.reset();
        }
        let error = result.err().unwrap_or_else(|| AdapterError::unavailable("it ended"));
        shared.report(Half::Subscribe, Err(&error));
        wait(shared, Instant::now() + backoff.next());
    }
}

fn wait(shared: &Shared, until: Instant) {
    let mut desk = shared.desk.lock();
    // What broke the subscription may have broken the other connection as well.
    desk.check = true;
    shared.work.notify_one();
    while !desk.closed && !shared.over.wait_until(&mut desk, until).timed_out() {}
}
