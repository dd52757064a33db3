//! A bus inside one process, for several hubs in one program and for tests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::adapter::{Adapter, AdapterError, Inbox};
use crate::atomic::AtomicU64;
use crate::lock::Leaf;

/// Maximum number of envelopes that wait for one subscriber.
const CAPACITY: usize = 256;
/// Total time that a publisher waits for subscribers with full queues.
const PATIENCE: Duration = Duration::from_secs(1);
/// Maximum number of envelopes delivered at once.
const BATCH: usize = 64;

/// Connects the hubs of one process. A cheap handle that can be cloned.
///
/// ```
/// use wshub::{Hub, cluster::{Cluster, MemoryBus}};
///
/// let bus = MemoryBus::new();
/// let one = Hub::builder().cluster(Cluster::new(bus.adapter()).node_id("one")).build()?;
/// let two = Hub::builder().cluster(Cluster::new(bus.adapter()).node_id("two")).build()?;
/// # assert_ne!(one.node_id(), two.node_id());
/// # Ok::<(), wshub::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryBus(Arc<Leaf<Vec<Subscriber>>>);

#[derive(Debug, Clone)]
struct Subscriber {
    adapter: u64,
    queue: Sender<Bytes>,
}

impl MemoryBus {
    /// Creates a bus without hubs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an adapter for one hub. While subscribed, the hub gets the other hubs' messages, in each publisher's
    /// order. A hub with 256 waiting envelopes delays a publisher by at most a second per envelope and then loses that
    /// envelope.
    pub fn adapter(&self) -> MemoryAdapter {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Relaxed: the ids must only be unique.
        MemoryAdapter { bus: self.clone(), id: NEXT.fetch_add(1, Ordering::Relaxed), closed: AtomicBool::new(false) }
    }
}

/// A hub's connection to a [`MemoryBus`].
pub struct MemoryAdapter {
    bus: MemoryBus,
    id: u64,
    /// Set before the queue is removed from the bus and read before it is added, both under the bus's lock.
    closed: AtomicBool,
}

impl MemoryAdapter {
    fn open(&self) -> Result<Receiver<Bytes>, AdapterError> {
        let (queue, receiver) = bounded(CAPACITY);
        let mut subscribers = self.bus.0.lock();
        if self.closed.load(Ordering::Relaxed) {
            return Err(AdapterError::unavailable("closed"));
        }
        subscribers.retain(|s| s.adapter != self.id);
        subscribers.push(Subscriber { adapter: self.id, queue });
        Ok(receiver)
    }
}

impl Adapter for MemoryAdapter {
    fn publish(&self, envelope: &[u8]) -> Result<(), AdapterError> {
        let others: Vec<_> = self.bus.0.lock().iter().filter(|s| s.adapter != self.id).cloned().collect();
        let envelope = Bytes::copy_from_slice(envelope);
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut full = 0;
        for other in others {
            // A disconnected subscriber needs no envelope, so only timeouts count.
            let sent = other.queue.send_deadline(envelope.clone(), deadline);
            full += usize::from(matches!(sent, Err(crossbeam_channel::SendTimeoutError::Timeout(_))));
        }
        if full == 0 { Ok(()) } else { Err(AdapterError::rejected(format!("{full} nodes take no more"))) }
    }

    fn subscribe(&self, inbox: &Inbox) -> Result<(), AdapterError> {
        let queue = self.open()?;
        inbox.subscribed();
        // Ends when the sending half is removed from the bus.
        while let Ok(first) = queue.recv() {
            let batch: Vec<Bytes> = std::iter::once(first).chain(queue.try_iter().take(BATCH - 1)).collect();
            inbox.receive_all(batch.iter().map(|b| &b[..]));
        }
        Ok(())
    }

    fn close(&self) {
        let mut subscribers = self.bus.0.lock();
        self.closed.store(true, Ordering::Relaxed);
        subscribers.retain(|s| s.adapter != self.id);
    }
}

impl fmt::Debug for MemoryAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryAdapter").field("id", &self.id).finish_non_exhaustive()
    }
}
