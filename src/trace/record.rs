//! What a trace tells. Serialised, times are numbers whose unit is in their name.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::client_id::ClientId;
use crate::metrics::ErrorType;
use crate::ws::MessageKind;

/// Spans of one trace; more are left out and counted.
pub const MAX_SPANS: usize = 64;
/// Bytes of each text in a trace that comes from outside; longer ones are cut.
pub(super) const MAX_TEXT: usize = 256;

/// How one inbound message was handled. Never its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Trace {
    /// Rises with each trace of the process.
    pub id: u64,
    /// Whose message it was.
    pub client: ClientId,
    /// The path of the client's upgrade request, without the query.
    pub endpoint: String,
    /// The message's event, if a [`Router`](crate::router::Router), a protocol or the application has named it.
    pub event: Option<String>,
    /// Text or binary.
    pub kind: MessageKind,
    /// Payload bytes of the message.
    pub bytes: usize,
    /// When handling began, by the wall clock; as JSON `started_us`, microseconds since 1970.
    #[serde(rename = "started_us", serialize_with = "unix_micros")]
    pub started_at: SystemTime,
    /// How long handling took, by the monotonic clock; as JSON `duration_ns`.
    #[serde(rename = "duration_ns", serialize_with = "nanos")]
    pub duration: Duration,
    /// What ran, in the order in which it began; at most [`MAX_SPANS`].
    pub spans: Vec<Span>,
    /// Spans over [`MAX_SPANS`] that are not listed.
    pub spans_left_out: usize,
    /// How it ended.
    pub outcome: Outcome,
}

/// A part of the handling of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Span {
    /// What ran: the name of a middleware, a hook or a span of the application's; `handler`; `send`.
    pub name: Cow<'static, str>,
    /// What kind of thing that is.
    #[serde(flatten)]
    pub kind: SpanKind,
    /// The index of the span around this one; `None` directly below the trace.
    pub parent: Option<usize>,
    /// When it began, from the beginning of the trace; as JSON `start_ns`.
    #[serde(rename = "start_ns", serialize_with = "nanos")]
    pub start: Duration,
    /// How long it took; as JSON `duration_ns`.
    #[serde(rename = "duration_ns", serialize_with = "nanos")]
    pub duration: Duration,
}

/// What a [`Span`] stands for; as JSON the field `kind`, for sends with further fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum SpanKind {
    /// A hook, such as `before_message`.
    Hook,
    /// A middleware, with all that stands further in.
    Middleware,
    /// A message handler: `on_message`, or what is innermost in a [`Chain`](crate::middleware::Chain).
    Handler,
    /// A [`span`](super::span) of the application's.
    Custom,
    /// A send.
    Send(SendSpan),
}

/// Whom a send was for, and what became of it, as in [`Delivery`](crate::Delivery). All counts are 0 when it failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct SendSpan {
    /// The target, such as `room "lobby"`.
    pub target: String,
    /// Connections into whose socket or queue the message went.
    pub queued: usize,
    /// Messages that were dropped.
    pub dropped: usize,
    /// Connections that cannot carry the message.
    pub refused: usize,
    /// The message was queued for the other nodes of the cluster.
    pub published: bool,
}

/// How the handling of a message ended. Texts of errors are the application's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// Without an error.
    Ok,
    /// A hook or handler has returned an error, or the message was over the rate; the connection stays.
    Error {
        /// As what it counts.
        #[serde(rename = "type")]
        error: ErrorType,
        /// What it says.
        text: String,
    },
    /// This connection's closing was begun.
    Closed {
        /// The close code.
        code: u16,
        /// The reason sent with it.
        reason: String,
    },
    /// A hook or handler has panicked.
    Panic {
        /// What panicked, or what a [`Recovery`](crate::middleware::Recovery) has made of it.
        text: String,
    },
}

impl Outcome {
    /// What is worse hides what is less bad.
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
