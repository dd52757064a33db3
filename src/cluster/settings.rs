//! Settings of a hub's part in a cluster.

use std::fmt;
use std::time::Duration;

use super::adapter::Adapter;
use super::envelope::EnvelopeError;
use crate::bounds::{GIB, MILLISECOND, YEAR, check, check_finite};
use crate::error::ConfigError;
use crate::random;

/// Minimum heartbeat interval. A shorter one would leave no time for messages.
const MIN_PRESENCE: Duration = Duration::from_millis(10);
/// Minimum of `max_envelope`: enough for a message of about one byte to a client.
const MIN_ENVELOPE: usize = 128;

type OnDecodeError = dyn Fn(&EnvelopeError, &[u8]) + Send + Sync;

/// Settings of a hub in a cluster: the bus, the node id, presence and queue limits.
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
    /// Joins a cluster over this bus, with a random id (UUID) and without presence.
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

    /// Sets the node id; a host or pod name makes logs easier to read. 1 to 256 bytes. **No two nodes may have the same
    /// id**: they would ignore each other's messages. A node that replaces another with the same id may start before
    /// the old one has ended. Default: a random UUID.
    pub fn node_id(mut self, id: impl Into<String>) -> Self {
        self.node_id = id.into();
        self
    }

    /// Turns presence on and sets its interval: this node then reports its client counts to the other nodes and adds up
    /// theirs. Use the same interval on all nodes: a node that is silent for three intervals counts as gone. 10 ms to
    /// 366 days; 0 means 5 s. Default: no presence, and [`Hub::global_client_count`](crate::Hub::global_client_count)
    /// counts this node alone.
    pub fn presence(mut self, interval: Duration) -> Self {
        self.presence = Some(if interval.is_zero() { Duration::from_secs(5) } else { interval });
        self
    }

    /// Maximum number of messages that wait to be published; default 4096. Further messages are delivered on this node
    /// only and counted as dropped. 1 to 16,777,216.
    pub fn queue_messages(mut self, messages: usize) -> Self {
        self.queue_messages = messages;
        self
    }

    /// Maximum size of the messages that wait to be published, in bytes; default 16 MiB. A single message above the
    /// maximum is accepted only into an empty queue. 1 byte to 1 GiB.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Maximum time that a message waits to be published, for instance while the bus is down; default 5 s. An older
    /// message is dropped and counted: clients on other nodes get it soon or never. 1 ms to 366 days.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Maximum envelope size, in bytes, to publish or accept; default 16 MiB. Base64 makes a payload a third larger. A
    /// larger heartbeat is sent in parts. 128 bytes to 1 GiB.
    pub fn max_envelope(mut self, bytes: usize) -> Self {
        self.max_envelope = bytes;
        self
    }

    /// Sets the first and the longest wait before a failed connection is retried; default 1 s and 30 s. The wait
    /// doubles with each failure, and each wait is shortened by up to half at random. Both are 1 ms to 366 days, and
    /// the first must not exceed the longest.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = (first, longest);
        self
    }

    /// Sets a hook that gets each malformed or oversized envelope. It runs on the subscriber's thread, so keep it fast.
    /// Default: such envelopes are only counted and logged.
    pub fn on_decode_error(mut self, hook: impl Fn(&EnvelopeError, &[u8]) + Send + Sync + 'static) -> Self {
        self.on_decode_error = Some(Box::new(hook));
        self
    }

    pub(crate) fn id(&self) -> &str {
        &self.node_id
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let id = self.node_id.len();
        if id == 0 || id > 256 {
            let bound = format!("must have 1 to 256 bytes, not {id}");
            return Err(ConfigError::because("node_id", bound));
        }
        self.adapter.validate()?;
        check("queue_messages", self.queue_messages, 1..=1 << 24)?;
        check("queue_bytes", self.queue_bytes, 1..=GIB)?;
        check("max_envelope", self.max_envelope, MIN_ENVELOPE..=GIB)?;
        check_finite("max_age", self.max_age, &(MILLISECOND..=YEAR))?;
        check_finite("presence", self.presence.unwrap_or(MIN_PRESENCE), &(MIN_PRESENCE..=YEAR))?;
        let (first, longest) = self.backoff;
        check_finite("backoff", first, &(MILLISECOND..=YEAR))?;
        check_finite("backoff", longest, &(MILLISECOND..=YEAR))?;
        if first > longest {
            let bound = format!("must not exceed the longest wait {longest:?}");
            return Err(ConfigError::out_of_bounds("backoff", first, bound));
        }
        Ok(())
    }
}

/// Checks the durations of a broker's adapter.
#[cfg(any(feature = "redis", feature = "nats"))]
pub(super) fn check_broker(connect: Duration, response: Duration, idle: Duration) -> Result<(), ConfigError> {
    [("connect_timeout", connect), ("response_timeout", response), ("idle", idle)]
        .into_iter()
        .try_for_each(|(setting, value)| check_finite(setting, value, &(MILLISECOND..=YEAR)))
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}
