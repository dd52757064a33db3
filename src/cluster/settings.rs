//! How a hub takes part in a cluster.

use std::fmt;
use std::time::Duration;

use super::adapter::Adapter;
use super::envelope::EnvelopeError;
use crate::error::ConfigError;
use crate::random;

/// The shortest interval of heartbeats: a shorter one would leave no time for messages.
const MIN_PRESENCE: Duration = Duration::from_millis(10);
/// The least that envelopes must be able to hold: about a message of one byte to a client.
const MIN_ENVELOPE: usize = 128;
const MAX_BYTES: usize = 1 << 30;

type OnDecodeError = dyn Fn(&EnvelopeError, &[u8]) + Send + Sync;

/// A hub's place in a cluster: over which bus, under which name, how much may wait.
///
/// ```
/// use std::time::Duration;
/// use wshub::{Hub, cluster::{Cluster, MemoryBus}};
///
/// let bus = MemoryBus::new();
/// let cluster = Cluster::new(bus.adapter()).node_id("web-1").presence(Duration::from_secs(5));
/// let hub = Hub::builder().cluster(cluster).build()?;
/// assert_eq!(hub.node_id(), "web-1");
/// # Ok::<(), wshub::ConfigError>(())
/// ```
#[must_use = "settings do nothing until a hub is built with them"]
pub struct Cluster {
    pub(super) adapter: Box<dyn Adapter>,
    pub(super) node_id: String,
    pub(super) presence: Option<Duration>,
    pub(super) queue_messages: usize,
    pub(super) queue_bytes: usize,
    pub(super) max_age: Duration,
    pub(super) max_envelope: usize,
    pub(super) backoff: (Duration, Duration),
    pub(super) on_decode_error: Option<Box<OnDecodeError>>,
}

impl Cluster {
    /// Takes part over this bus, under a random id (UUID), without presence.
    pub fn new(adapter: impl Adapter) -> Self {
        Self {
            adapter: Box::new(adapter),
            node_id: random::uuid().to_string(),
            presence: None,
            queue_messages: 4096,
            queue_bytes: 16 * 1024 * 1024,
            max_age: Duration::from_secs(5),
            max_envelope: 16 * 1024 * 1024,
            backoff: (Duration::from_secs(1), Duration::from_secs(30)),
            on_decode_error: None,
        }
    }

    /// The node's name: a host or pod name makes logs easier to read. 1 to 256 bytes, and **no two nodes may have the same**:
    /// they would not hear each other. A node that replaces an earlier one of that name may begin before the earlier one
    /// has ended. Default: a random UUID.
    pub fn node_id(mut self, id: impl Into<String>) -> Self {
        self.node_id = id.into();
        self
    }

    /// Tells the other nodes this often how many clients this one has, and counts theirs. All nodes should have the same
    /// interval: one that is not heard of for three of them counts as gone. 10 ms to a year; 0 = 5 s. Default: no presence,
    /// and [`Hub::global_client_count`](crate::Hub::global_client_count) counts this node alone.
    pub fn presence(mut self, interval: Duration) -> Self {
        self.presence = Some(if interval.is_zero() { Duration::from_secs(5) } else { interval });
        self
    }

    /// Messages that may wait to be published; default 4096. Further ones are delivered here, not published, and counted
    /// as dropped. 1 to 16,777,216.
    pub fn queue_messages(mut self, messages: usize) -> Self {
        self.queue_messages = messages;
        self
    }

    /// Bytes that may wait to be published; default 16 MiB. A larger single message is accepted only into an empty queue.
    /// 1 byte to 1 GiB.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// How long a message may wait to be published, for instance while the bus is away; default 5 s. An older one is
    /// dropped and counted: clients elsewhere get it soon or never. 1 ms to a year.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Largest envelope in bytes that is published or accepted; default 16 MiB. A payload takes a third more than its own
    /// length; a heartbeat that would be larger is sent in parts. 128 bytes to 1 GiB.
    pub fn max_envelope(mut self, bytes: usize) -> Self {
        self.max_envelope = bytes;
        self
    }

    /// The first and the longest wait before a failed connection is tried again; default 1 s and 30 s. The wait doubles
    /// with each failure; each is shortened by up to half at random. Not 0, at most a year, and the first not above the longest.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = (first, longest);
        self
    }

    /// Called with whatever arrives and is no envelope of a cluster. On the subscriber's thread: keep it fast. Default:
    /// counted and logged only.
    pub fn on_decode_error(mut self, hook: impl Fn(&EnvelopeError, &[u8]) + Send + Sync + 'static) -> Self {
        self.on_decode_error = Some(Box::new(hook));
        self
    }

    pub(crate) fn id(&self) -> &str {
        &self.node_id
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        // Beyond it the clock could not hold what they are added to.
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        const MILLISECOND: Duration = Duration::from_millis(1);
        let (first, longest) = self.backoff;
        let presence = self.presence.unwrap_or(MIN_PRESENCE);
        let checks = [
            (self.node_id.is_empty(), "node_id", "must not be empty"),
            (self.node_id.len() > 256, "node_id", "must not be longer than 256 bytes"),
            (self.queue_messages == 0, "queue_messages", "must not be 0"),
            (self.queue_messages > 1 << 24, "queue_messages", "must not be above 16,777,216"),
            (self.queue_bytes == 0, "queue_bytes", "must not be 0"),
            (self.queue_bytes > MAX_BYTES, "queue_bytes", "must not be above 1 GiB"),
            (self.max_age.is_zero(), "max_age", "must not be 0"),
            (self.max_age < MILLISECOND, "max_age", "must not be below 1 ms"),
            (self.max_envelope == 0, "max_envelope", "must not be 0"),
            (self.max_envelope < MIN_ENVELOPE, "max_envelope", "must not be below 128 bytes"),
            (self.max_envelope > MAX_BYTES, "max_envelope", "must not be above 1 GiB"),
            (first.is_zero(), "backoff", "the first wait must not be 0"),
            (first > longest, "backoff", "the first wait is above the longest"),
            (longest > YEAR, "backoff", "must not be above a year"),
            (self.max_age > YEAR, "max_age", "must not be above a year"),
            (presence < MIN_PRESENCE, "presence", "must not be below 10 ms"),
            (presence > YEAR, "presence", "must not be above a year"),
        ];
        let wrong = checks.into_iter().find(|(is_wrong, ..)| *is_wrong);
        wrong.map_or(Ok(()), |(_, field, reason)| Err(ConfigError::new(field, reason)))
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}
