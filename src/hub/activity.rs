//! The time of a client's last activity. Recorded only while its hub drains, because nothing else reads it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Hub;
use super::client::Client;

/// Special values of a client's `last_message`. The atomic is Relaxed because no other data depends on it: a drain that
/// misses the newest value is only a moment early.
const NEVER: u64 = 0;
/// A message is being handled.
const NOW: u64 = u64::MAX;

/// A guard that marks a message as being handled until it is dropped.
#[derive(Debug)]
pub(crate) struct Handling<'a>(Option<&'a Client>);

impl Client {
    /// Records that this connection's thread handles a message.
    #[inline]
    pub(crate) fn handling(&self) -> Handling<'_> {
        let client = self.hub().is_draining().then_some(self);
        if let Some(client) = client {
            client.last_message().store(NOW, Ordering::Relaxed);
        }
        Handling(client)
    }

    /// When this client became idle, `begun` at the earliest; `None` while it is busy.
    pub(super) fn idle_since(&self, begun: Instant) -> Option<Instant> {
        let message = match self.last_message().load(Ordering::Relaxed) {
            NOW => return None,
            NEVER => None,
            nanos => self.hub().built().checked_add(Duration::from_nanos(nanos)),
        };
        let outbox = self.outbox()?;
        let output = if outbox.is_idle() { outbox.unblocked_at() } else { return None };
        Some([message, output].into_iter().flatten().fold(begun, Instant::max))
    }
}

impl Drop for Handling<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.0 {
            client.last_message().store(now(client.hub()), Ordering::Relaxed);
        }
    }
}

fn now(hub: &Hub) -> u64 {
    let nanos = u64::try_from(hub.built().elapsed().as_nanos()).unwrap_or(NOW - 1);
    nanos.clamp(NEVER + 1, NOW - 1)
}
