//! Metrics: the trait for sinks, an in-memory sink, and exports for scrapes.
//!
//! A hub reports to the sink set by [`HubBuilder::metrics`](crate::HubBuilder::metrics). Without a sink it counts
//! nothing, at no cost. [`DebugMetrics`] counts in memory, `PrometheusMetrics` (feature `prometheus`) in a registry,
//! and [`MetricsPair`] feeds two sinks. The guide to [observability](crate::guide::observability) lists the metrics.

mod debug;

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

pub use debug::{DebugMetrics, DebugStats, Timing};

pub use crate::observe::{Gauges, MetricsPair};
#[cfg(feature = "prometheus")]
pub use crate::observe::{PrometheusBuilder, PrometheusMetrics};
/// The `prometheus` crate in the version that [`PrometheusMetrics`] uses in its interface.
#[cfg(feature = "prometheus")]
pub use prometheus;

use crate::guard::{self, record_limited};

/// The type of an error in [`Metrics::increment_errors`]. [`as_str`](ErrorType::as_str) returns its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ErrorType {
    /// `on_upgrade` refused an upgrade.
    ConnectionRejected,
    /// The hub refused an upgrade because it drains or is stopped.
    ConnectionRejectedDraining,
    /// A limit refused an upgrade.
    ConnectionLimit,
    /// An upgrade request was malformed, or the connection broke during the handshake.
    UpgradeFailed,
    /// The origin policy refused an upgrade.
    OriginRejected,
    /// An inbound message exceeded the message rate.
    RateLimitExceeded,
    /// Reading from a connection failed.
    ReadError,
    /// A peer sent nothing for `pong_timeout`.
    ReadDeadlineError,
    /// A write made no progress for `write_timeout`.
    WriteDeadlineError,
    /// Writing to a connection failed.
    WriteError,
    /// A ping could not be sent.
    PingError,
    /// The cluster adapter could not subscribe, or a message was lost because messages arrived faster than the hub
    /// processed them.
    AdapterSubscribe,
    /// The cluster adapter could not publish.
    AdapterPublish,
    /// An invalid envelope arrived from the cluster.
    AdapterDecode,
    /// A message handler returned an error.
    MessageHandling,
    /// User code panicked.
    Panic,
    /// A peer violated the WebSocket protocol.
    ProtocolError,
    /// An error type of the application. The name is the label.
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

/// Serialises as the name.
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

/// A sink for the hub's metrics. By default every method does nothing.
///
/// The hub calls the methods on the threads of connections, senders and the cluster, never with a hub lock held. Keep
/// them fast. A panic is caught and logged.
pub trait Metrics: Send + Sync {
    /// A client has connected.
    fn increment_connections(&self) {}
    /// A client has disconnected.
    fn decrement_connections(&self) {}
    /// A complete message has arrived.
    fn increment_messages_received(&self) {}
    /// A message was queued for `count` clients.
    fn increment_messages_sent(&self, count: usize) {
        let _ = count;
    }
    /// The payload bytes of a queued message, counted once for each client.
    fn increment_bytes_sent(&self, bytes: usize) {
        let _ = bytes;
    }
    /// A message was dropped for one client.
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
    /// A room has begun.
    fn increment_rooms(&self) {}
    /// A room has ended.
    fn decrement_rooms(&self) {}
    /// A client misses publications of a room with a history and is told of the gap.
    fn increment_history_gaps(&self) {}
    /// A room without members was removed early because of
    /// [`Limits::history_bytes`](crate::Limits#structfield.history_bytes).
    fn increment_history_evictions(&self) {}
    /// A message was published to the other nodes of the cluster.
    fn increment_adapter_published(&self) {}
    /// A message arrived from another node.
    fn increment_adapter_received(&self) {}
    /// A message was not published: the queue was full, the message waited too long, or publishing failed.
    fn increment_adapter_dropped(&self) {}
    /// A client answered a call that is no longer pending: the call has timed out, was already answered, or was never
    /// made.
    fn increment_late_replies(&self) {}
    /// A call has timed out: its caller, on this node, has had no answer in time.
    fn increment_call_timeouts(&self) {}
    /// The hub can publish and is subscribed, for the first time or again.
    fn increment_adapter_connects(&self) {}
    /// The hub can no longer publish or is no longer subscribed.
    fn increment_adapter_disconnects(&self) {}
    /// The counts, if the sink contains a [`DebugMetrics`]. The dashboard shows them. Default: `None`.
    fn debug_stats(&self) -> Option<DebugStats> {
        None
    }
    /// An error occurred.
    fn increment_errors(&self, error: ErrorType) {
        let _ = error;
    }
}

impl fmt::Debug for dyn Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Calls into user metrics, catching panics. A panic is logged and not counted, because the metrics themselves
/// panicked.
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
