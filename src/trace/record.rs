//! The contents of a trace. In serialised form, times are numbers whose unit is in their name.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::client_id::ClientId;
use crate::metrics::ErrorType;
use crate::ws::MessageKind;

/// Maximum number of spans in one trace; more are counted but not listed.
pub const MAX_SPANS: usize = 64;
/// Maximum size of each external text in a trace, in bytes; longer texts are cut.
pub(super) const MAX_TEXT: usize = 256;

/// How one inbound message was handled. It never holds the content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Trace {
    /// Increases with each trace of the process.
    pub id: u64,
    /// The client that sent the message.
    pub client: ClientId,
    /// The path of the client's upgrade request, without the query.
    pub endpoint: String,
    /// The message's event, if a [`Router`](crate::router::Router), a protocol or the application has named it.
    pub event: Option<String>,
    /// Text or binary.
    pub kind: MessageKind,
    /// Payload bytes of the message.
    pub bytes: usize,
    /// When handling began, by the system clock; in JSON `started_us`, microseconds since 1970.
    #[serde(rename = "started_us", serialize_with = "unix_micros")]
    pub started_at: SystemTime,
    /// How long handling took, by the monotonic clock; in JSON `duration_ns`.
    #[serde(rename = "duration_ns", serialize_with = "nanos")]
    pub duration: Duration,
    /// The spans, in the order in which they began; at most [`MAX_SPANS`].
    pub spans: Vec<Span>,
    /// Number of spans over [`MAX_SPANS`], which are not listed.
    pub spans_left_out: usize,
    /// The outcome.
    pub outcome: Outcome,
}

/// A part of the handling of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Span {
    /// The name of a middleware, a hook or an application span; or `handler`; or `send`.
    pub name: Cow<'static, str>,
    /// The kind of span.
    #[serde(flatten)]
    pub kind: SpanKind,
    /// The index of the enclosing span; `None` at the top level of the trace.
    pub parent: Option<usize>,
    /// The start, relative to the beginning of the trace; in JSON `start_ns`.
    #[serde(rename = "start_ns", serialize_with = "nanos")]
    pub start: Duration,
    /// The duration; in JSON `duration_ns`.
    #[serde(rename = "duration_ns", serialize_with = "nanos")]
    pub duration: Duration,
}

/// What a [`Span`] represents; in JSON the field `kind`, for sends with further fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum SpanKind {
    /// A hook, such as `before_message`.
    Hook,
    /// A middleware, including the rest of the chain.
    Middleware,
    /// A message handler: `on_message`, or the innermost handler of a [`Chain`](crate::middleware::Chain).
    Handler,
    /// A [`span`](super::span) of the application.
    Custom,
    /// A send.
    Send(SendSpan),
}

/// The target and result of a send, as in [`Delivery`](crate::Delivery). All counts are 0 if it failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct SendSpan {
    /// The target, such as `room "lobby"`.
    pub target: String,
    /// Connections whose socket or queue took the message.
    pub queued: usize,
    /// Messages that were dropped.
    pub dropped: usize,
    /// Connections that cannot carry the message.
    pub refused: usize,
    /// The message was queued for the other nodes of the cluster.
    pub published: bool,
}

/// The outcome of a message's handling. Error texts come from the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// Success.
    Ok,
    /// A hook or handler has returned an error, or the message exceeded the rate limit; the connection stays open.
    Error {
        /// The error type that it counts as.
        #[serde(rename = "type")]
        error: ErrorType,
        /// The error text.
        text: String,
    },
    /// The closing of this connection has begun.
    Closed {
        /// The close code.
        code: u16,
        /// The reason sent with it.
        reason: String,
    },
    /// A hook or handler has panicked.
    Panic {
        /// The text of the panic, or of the error that a [`Recovery`](crate::middleware::Recovery) made of it.
        text: String,
    },
}

impl Outcome {
    /// More severe outcomes take precedence.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Error { .. } => 1,
            Self::Closed { .. } => 2,
            Self::Panic { .. } => 3,
        }
    }
}

/// A copy of at most [`MAX_TEXT`] bytes.
pub(super) fn cut(text: &str) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

fn nanos<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

fn unix_micros<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_u64(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"é".repeat(200)), "é".repeat(128));
        assert_eq!(cut(&format!("x{}", "é".repeat(200))).len(), 255);
    }
}
