//! Metrics: the trait that receives counts, a sink in memory, and exports for scrapes.
//!
//! A hub reports to the sink that its builder was given ([`HubBuilder::metrics`](crate::HubBuilder::metrics)); without one,
//! nothing is counted, at no cost. [`DebugMetrics`] counts in memory, `PrometheusMetrics` (feature `prometheus`) in a
//! registry, and [`MetricsPair`] feeds two sinks. The guide to [observability](crate::guide::observability) lists what
//! is counted.

mod debug;

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

pub use debug::{DebugMetrics, DebugStats, Timing};

pub use crate::observe::{Gauges, MetricsPair};
#[cfg(feature = "prometheus")]
pub use crate::observe::{PrometheusBuilder, PrometheusMetrics};
/// The crate whose types [`PrometheusMetrics`] shows, in the right version.
#[cfg(feature = "prometheus")]
pub use prometheus;

use crate::guard::{self, record_limited};

/// What went wrong, in [`Metrics::increment_errors`]; [`as_str`](ErrorType::as_str) gives the label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ErrorType {
    /// An upgrade was refused by `on_upgrade`.
    ConnectionRejected,
    /// An upgrade was refused because the hub drains or is stopped.
    ConnectionRejectedDraining,
    /// An upgrade was refused by a limit.
    ConnectionLimit,
    /// An upgrade request was malformed, or the connection broke during the handshake.
    UpgradeFailed,
    /// An upgrade was refused by the origin policy.
    OriginRejected,
    /// An inbound message was over the message rate.
    RateLimitExceeded,
    /// Reading from a connection failed.
    ReadError,
    /// A peer sent nothing for the pong timeout.
    ReadDeadlineError,
    /// A write made no progress for the write timeout.
    WriteDeadlineError,
    /// Writing to a connection failed.
    WriteError,
    /// A ping could not be sent.
    PingError,
    /// The cluster adapter could not subscribe, or a message came faster than the hub took it and is lost.
    AdapterSubscribe,
    /// The cluster adapter could not publish.
    AdapterPublish,
    /// Something arrived from the cluster that is no envelope.
    AdapterDecode,
    /// A message handler returned an error.
    MessageHandling,
    /// User code panicked.
    Panic,
    /// A peer broke the WebSocket protocol.
    ProtocolError,
    /// The application's own; the name is the label.
    Custom(&'static str),
}

impl ErrorType {
    /// The stable name, such as `rate_limit_exceeded`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionRejected => "connection_rejected",
            Self::ConnectionRejectedDraining => "connection_rejected_draining",
            Self::ConnectionLimit => "connection_limit",
            Self::UpgradeFailed => "upgrade_failed",
            Self::OriginRejected => "origin_rejected",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::ReadError => "read_error",
            Self::ReadDeadlineError => "read_deadline_error",
            Self::WriteDeadlineError => "write_deadline_error",
            Self::WriteError => "write_error",
            Self::PingError => "ping_error",
            Self::AdapterSubscribe => "adapter_subscribe",
            Self::AdapterPublish => "adapter_publish",
            Self::AdapterDecode => "adapter_decode",
            Self::MessageHandling => "message_handling",
            Self::Panic => "panic",
            Self::ProtocolError => "protocol_error",
            Self::Custom(name) => name,
        }
    }
}

/// As its name.
impl Serialize for ErrorType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Receives what the hub counts. Every method does nothing by default.
///
/// Called on the threads of connections, senders and the cluster, never under a hub lock; keep it fast. A panic is caught and logged.
pub trait Metrics: Send + Sync {
    /// A client has connected.
    fn increment_connections(&self) {}
    /// A client has disconnected.
    fn decrement_connections(&self) {}
    /// A whole message has arrived.
    fn increment_messages_received(&self) {}
    /// A message has been queued for `count` clients.
    fn increment_messages_sent(&self, count: usize) {
        let _ = count;
    }
    /// The payload bytes of a message that has been queued, once for each client.
    fn increment_bytes_sent(&self, bytes: usize) {
        let _ = bytes;
    }
    /// A message has been dropped for one client.
    fn increment_messages_dropped(&self) {}
    /// The payload size of a received message, in bytes.
    fn record_message_size(&self, size: usize) {
        let _ = size;
    }
    /// How long the handlers of one message took.
    fn record_latency(&self, duration: Duration) {
        let _ = duration;
    }
    /// How long a send to more than a single client took.
    fn record_broadcast_duration(&self, duration: Duration) {
        let _ = duration;
    }
    /// A client has joined a room.
    fn increment_room_joins(&self) {}
    /// A client has left a room.
    fn increment_room_leaves(&self) {}
    /// A room has come into being.
    fn increment_rooms(&self) {}
    /// A room has become empty and is gone.
    fn decrement_rooms(&self) {}
    /// A client misses publications of a room with a history, and is told.
    fn increment_history_gaps(&self) {}
    /// A room without members was forgotten before its time, because of
    /// [`Limits::history_bytes`](crate::Limits#structfield.history_bytes).
    fn increment_history_evictions(&self) {}
    /// A message has been published to the other nodes of the cluster.
    fn increment_adapter_published(&self) {}
    /// A message has come from another node.
    fn increment_adapter_received(&self) {}
    /// A message has not been published: too much waits, it has waited too long, or publishing failed.
    fn increment_adapter_dropped(&self) {}
    /// A client has answered a call that nobody waits for: it has timed out, was answered, or was never made.
    fn increment_late_replies(&self) {}
    /// The hub publishes and is subscribed, for the first time or again.
    fn increment_adapter_connects(&self) {}
    /// The hub no longer publishes or is no longer subscribed.
    fn increment_adapter_disconnects(&self) {}
    /// What has been counted, where a [`DebugMetrics`] counts: then the dashboard shows it. Default `None`.
    fn debug_stats(&self) -> Option<DebugStats> {
        None
    }
    /// Something went wrong.
    fn increment_errors(&self, error: ErrorType) {
        let _ = error;
    }
}

impl fmt::Debug for dyn Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Calls into user metrics, catching panics. A panic is logged and not counted, because the metrics are what panicked.
#[inline]
pub(crate) fn guarded(count: impl FnOnce()) {
    if guard::catch(count).is_none() {
        panicked();
    }
}

#[cold]
fn panicked() {
    record_limited!(Error, "wshub::hub", "the metrics panicked");
}
