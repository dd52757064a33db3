//! Subscriptions to traces.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::atomic::AtomicU64;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::record::Trace;

/// The tracer's end of a subscription.
#[derive(Debug)]
pub(super) struct Subscriber {
    sender: Sender<Arc<Trace>>,
    /// Relaxed: a count that orders nothing.
    lost: Arc<AtomicU64>,
}

impl Subscriber {
    /// Delivers a trace, or counts it as lost. Returns false if the subscription is gone.
    pub(super) fn deliver(&self, trace: &Arc<Trace>) -> bool {
        match self.sender.try_send(Arc::clone(trace)) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

/// Receives traces as they end; created by [`Tracer::subscribe`](super::Tracer::subscribe). Dropping it unsubscribes.
///
/// It holds a bounded number of traces. While it is full, it loses further ones, and [`lost`](Subscription::lost)
/// returns how many. A slow reader blocks no connection.
#[derive(Debug)]
pub struct Subscription {
    receiver: Receiver<Arc<Trace>>,
    lost: Arc<AtomicU64>,
}

/// Why [`Subscription::recv_timeout`] returns no trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvTimeoutError {
    /// No trace has ended within the timeout.
    Timeout,
    /// All handles of the tracer are gone, so no more traces will arrive.
    Ended,
}

impl fmt::Display for RecvTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "no trace ended within the timeout",
            Self::Ended => "the tracer is gone",
        })
    }
}

impl std::error::Error for RecvTimeoutError {}

impl Subscription {
    /// The next trace. Blocks for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`RecvTimeoutError`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Arc<Trace>, RecvTimeoutError> {
        self.receiver.recv_timeout(timeout).map_err(|error| match error {
            crossbeam_channel::RecvTimeoutError::Timeout => RecvTimeoutError::Timeout,
            crossbeam_channel::RecvTimeoutError::Disconnected => RecvTimeoutError::Ended,
        })
    }

    /// The traces that have ended and have not been read. Does not block.
    pub fn try_iter(&self) -> impl Iterator<Item = Arc<Trace>> {
        self.receiver.try_iter()
    }

    /// The number of traces that this subscription has lost since the last call.
    pub fn lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

pub(super) fn subscription(capacity: usize) -> (Subscriber, Subscription) {
    let (sender, receiver) = bounded(capacity);
    let lost = Arc::new(AtomicU64::new(0));
    (Subscriber { sender, lost: Arc::clone(&lost) }, Subscription { receiver, lost })
}
