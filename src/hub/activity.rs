//! When a client last did something: noted while its hub drains, because nothing else asks.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Hub;
use super::client::Client;

/// Values of a client's `last_message`. It is Relaxed: it stands for itself, and a drain that misses the newest value is
/// a moment early.
const NEVER: u64 = 0;
/// A message is being handled.
const NOW: u64 = u64::MAX;

/// A message that is being handled, until this drops.
#[derive(Debug)]
pub(crate) struct Handling<'a>(Option<&'a Client>);

impl Client {
    /// Notes that this connection's thread handles a message.
    #[inline]
    pub(crate) fn handling(&self) -> Handling<'_> {
        let client = self.hub().is_draining().then_some(self);
        if let Some(client) = client {
            client.last_message().store(NOW, Ordering::Relaxed);
        }
        Handling(client)
    }

    /// Since when this client has been idle, `begun` at the earliest; `None` while it is busy.
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
