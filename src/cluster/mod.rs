//! Connects several hubs over a message bus so that they act as one. Feature `cluster`.
//!
//! ```text
//! hub.send ── queue ── publisher ── Adapter::publish ──▶ bus ──▶ Adapter::subscribe ── subscriber ── hub delivers
//!             bounded  one thread                               one thread            to its own clients
//! ```
//!
//! [`Cluster`] configures a hub's link to the bus. An [`Adapter`] carries envelopes over one kind of bus. Adapters for
//! Redis, NATS and an in-process bus are included. The [guide](crate::guide::cluster) shows how to run a cluster and
//! what it promises.
//!
//! The cluster handles envelopes and knows no clients. It reaches them through the trait `Node`, which the hub
//! implements.

mod adapter;
mod backoff;
mod batch;
mod beat;
mod envelope;
mod fields;
mod gojson;
mod heartbeat;
mod memory;
#[cfg(feature = "nats")]
mod nats;
mod presence;
mod publisher;
mod queue;
#[cfg(feature = "redis")]
mod redis;
mod settings;
mod shared;
mod state;
mod subscriber;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

pub use adapter::{Adapter, AdapterError, AdapterState, Inbox};
pub use envelope::{Envelope, EnvelopeError, EnvelopeKind};
pub use fields::{EnvelopeEvent, Presence, Recipient};
pub use memory::{MemoryAdapter, MemoryBus};
#[cfg(feature = "nats")]
pub use nats::NatsAdapter;
pub use presence::ClusterNode;
#[cfg(feature = "redis")]
pub use redis::{RedisAdapter, RedisStore};
pub use settings::Cluster;

pub(crate) use presence::Counts;
pub(crate) use queue::Outgoing;
pub(crate) use shared::Node;

use crate::guard::record;
use crate::lock::Leaf;
use crate::log_limit::LogLimit;
use crate::message::Message;
use publisher::Publisher;
use shared::LinkCore;

/// Client id that marks messages between nodes of this crate. No client has this id, so nodes that do not know the
/// convention deliver such a message to no client.
const CONTROL: &str = "wshub.control";
/// Time for the publisher to publish waiting messages when the link ends; then time for both threads to return from the
/// adapter before they are left behind.
const FLUSH: Duration = Duration::from_secs(1);
/// Stack size of the two threads, in bytes; only the used part takes memory. The threads run the adapter, user metrics
/// and hooks. A broker client that parses nested responses recursively can need more than 1 MiB for a hundred levels.
const STACK: usize = 4 * 1024 * 1024;

/// Why a control message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotQueued {
    /// The queue is full, or the link ends, or there is no link.
    Full,
    /// No envelope of the bus can hold it.
    TooLarge,
}

/// A hub's link to the bus: a queue, a table of nodes and two threads. The link ends when it is stopped or dropped.
pub(crate) struct Link {
    shared: Arc<LinkCore>,
    threads: Leaf<Vec<JoinHandle<()>>>,
}

impl Link {
    pub(crate) fn new(settings: Cluster, node: impl Node) -> Self {
        Self { shared: Arc::new(LinkCore::new(settings, Box::new(node))), threads: Leaf::default() }
    }

    /// Starts the threads.
    pub(crate) fn start(&self) -> io::Result<()> {
        let publisher = Publisher::new(Arc::clone(&self.shared));
        let subscriber = Arc::clone(&self.shared);
        self.spawn("wshub-publish", move || publisher.run())?;
        self.spawn("wshub-subscribe", move || subscriber::run(&subscriber))
    }

    fn spawn(&self, name: &str, code: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let ended = Ended(Arc::clone(&self.shared));
        self.shared.state.lock().live += 1;
        let run = move || {
            let _ended = ended;
            code();
        };
        // If spawning fails, the closure is dropped and `ended` with it.
        let thread = thread::Builder::new().name(name.into()).stack_size(STACK).spawn(run)?;
        self.threads.lock().push(thread);
        Ok(())
    }

    pub(crate) fn node_id(&self) -> &str {
        &self.shared.settings.node_id
    }

    pub(crate) fn state(&self) -> AdapterState {
        self.shared.state.lock().halves.state()
    }

    /// Queues a message for the other nodes and returns whether it fits. Never blocks.
    pub(crate) fn publish(&self, outgoing: Outgoing) -> bool {
        static FULL: LogLimit = LogLimit::seldom();
        // Dropped after the lock is released: the payload may be a user type.
        let refused;
        {
            let mut state = self.shared.state.lock();
            if state.stop.is_some() {
                return false;
            }
            refused = state.queue.push(outgoing, Instant::now());
            if refused.is_ok() {
                self.shared.work.notify_one();
                return true;
            }
        }
        self.shared.node.count(&|m| m.increment_adapter_dropped());
        if let Some(suppressed) = FULL.pass() {
            let Cluster { node_id, queue_messages, queue_bytes, .. } = &self.shared.settings;
            record!(
                Warn,
                "wshub::cluster",
                "{node_id}: the queue for the bus is full: queue_messages {queue_messages}, queue_bytes {queue_bytes} \
                 ({suppressed} more not logged)",
            );
        }
        drop(refused);
        false
    }

    /// Queues a message from this crate to the same crate on other nodes.
    pub(crate) fn publish_control(&self, json: String) -> Result<(), NotQueued> {
        static TOO_LARGE: LogLimit = LogLimit::seldom();
        let (len, max) = (json.len(), self.shared.max_control());
        if len > max {
            self.shared.node.count(&|m| m.increment_adapter_dropped());
            if let Some(suppressed) = TOO_LARGE.pass() {
                record!(
                    Warn,
                    "wshub::cluster",
                    "{}: a message to other nodes of {len} bytes exceeds {max}, the maximum of max_envelope or of the \
                     bus ({suppressed} more not logged)",
                    self.node_id(),
                );
            }
            return Err(NotQueued::TooLarge);
        }
        let to = vec![Recipient::Client(CONTROL.to_owned())];
        let is_queued = self.publish(Outgoing { to, except: Vec::new(), message: Message::raw_json(json) });
        if is_queued { Ok(()) } else { Err(NotQueued::Full) }
    }

    /// Maximum size of a part of a control message, in bytes: it fits into an envelope, and leaves the bus time for
    /// other messages.
    pub(crate) fn control_limit(&self) -> usize {
        self.shared.max_control().clamp(1, 24 * 1024)
    }

    /// Returns whether presence is on, so that the other nodes are known.
    pub(crate) fn has_presence(&self) -> bool {
        self.shared.table.is_some()
    }

    /// Returns the number of clients on the other nodes.
    pub(crate) fn remote_clients(&self) -> usize {
        self.shared.table.as_ref().map_or(0, |table| table.lock().clients(Instant::now()))
    }

    /// Returns the number of clients on the other nodes in a room.
    pub(crate) fn remote_room(&self, name: &str) -> usize {
        self.shared.table.as_ref().map_or(0, |table| table.lock().room(name, Instant::now()))
    }

    /// Returns the other nodes.
    pub(crate) fn remote_nodes(&self) -> Vec<ClusterNode> {
        self.shared.table.as_ref().map_or_else(Vec::new, |table| table.lock().nodes(Instant::now()))
    }

    /// Publishes waiting messages, sends the farewell, closes the adapter and joins the threads, all within about two
    /// seconds. A thread that does not return from the adapter is left behind. A call on one of the two threads does
    /// not wait.
    pub(crate) fn stop(&self) {
        let until = Instant::now() + FLUSH;
        {
            let mut state = self.shared.state.lock();
            state.stop.get_or_insert(until);
            self.shared.work.notify_one();
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        let own: ThreadId = thread::current().id();
        if threads.is_empty() || threads.iter().any(|t| t.thread().id() == own) {
            // The publisher closes the adapter, and both threads then end.
            return;
        }
        if !self.wait_ended(until) {
            self.shared.close();
            if !self.wait_ended(Instant::now() + FLUSH) {
                record!(Warn, "wshub::cluster", "{}: the adapter did not stop in time", self.node_id());
                return;
            }
        }
        for thread in threads {
            // Panics in an adapter or hook are caught, so the thread has none to report.
            let _ = thread.join();
        }
    }

    fn wait_ended(&self, until: Instant) -> bool {
        let mut state = self.shared.state.lock();
        while state.live > 0 && !self.shared.over.wait_until(&mut state, until) {}
        state.live == 0
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Decrements the number of live threads when a thread ends, normally or by a panic.
struct Ended(Arc<LinkCore>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.state.lock().live -= 1;
        self.0.over.notify_all();
    }
}
