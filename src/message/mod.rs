//! A message, its wire forms, which are each encoded once for all recipients, and the error that returns a message.

mod encoded;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

#[cfg(feature = "deflate")]
pub(crate) use encoded::Window;
pub(crate) use encoded::{Compressed, Encoded, Encodings, WireFormat};

use crate::http::EventFields;
use crate::ws::MessageKind;

/// A text or binary message. Clones share the payload: cloning copies a pointer.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    kind: MessageKind,
    payload: Bytes,
    /// Behind a pointer, because few messages have such fields.
    event: Option<Arc<EventFields>>,
}

impl Message {
    /// Creates a text message.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(MessageKind::Text, Bytes::from(text.into()))
    }

    /// A binary message.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self::new(MessageKind::Binary, bytes.into())
    }

    /// Creates a text message that contains `value` as JSON.
    ///
    /// # Errors
    ///
    /// Fails if the value's `Serialize` implementation fails.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_string(value).map(Self::text)
    }

    /// Creates a text message from existing JSON, which is sent unchanged.
    pub fn raw_json(json: impl Into<String>) -> Self {
        Self::text(json)
    }

    /// A received message. A text payload is already validated as UTF-8.
    pub(crate) fn received(kind: MessageKind, payload: Vec<u8>) -> Self {
        Self::new(kind, Bytes::from(payload))
    }

    const fn new(kind: MessageKind, payload: Bytes) -> Self {
        Self { kind, payload, event: None }
    }

    /// Sets the event name for clients on an event stream (the field `event`). Without it, browsers dispatch the
    /// message as `message`. WebSocket clients do not see the name. Line ends and NUL become spaces.
    pub fn with_event_name(self, name: impl Into<String>) -> Self {
        self.with_event(|fields| fields.name = Some(one_line(&name.into())))
    }

    /// Sets the message's id for clients on an event stream (the field `id`). A browser that reconnects sends the last
    /// id that it received as `Last-Event-ID`. WebSocket clients do not see the id. Line ends and NUL become spaces.
    pub fn with_event_id(self, id: impl Into<String>) -> Self {
        self.with_event(|fields| fields.id = Some(one_line(&id.into())))
    }

    /// Sets how long clients on an event stream wait before they reconnect (the field `retry`, in whole milliseconds).
    /// WebSocket clients do not see it.
    pub fn with_retry(self, pause: Duration) -> Self {
        self.with_event(|fields| fields.retry = Some(pause))
    }

    /// A message that contains only an id, for clients on an event stream. A browser stores the id and dispatches no
    /// event.
    pub(crate) fn event_id_only(id: impl Into<String>) -> Self {
        Self::text("").with_event(|fields| {
            fields.id = Some(one_line(&id.into()));
            fields.is_bare = true;
        })
    }

    fn with_event(mut self, change: impl FnOnce(&mut EventFields)) -> Self {
        change(Arc::make_mut(self.event.get_or_insert_default()));
        self
    }

    /// The fields for clients on an event stream, besides the text.
    #[cfg(feature = "cluster")]
    pub(crate) fn event_fields(&self) -> Option<&EventFields> {
        self.event.as_deref()
    }

    /// Text or binary.
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// Whether this is a text message.
    pub fn is_text(&self) -> bool {
        self.kind == MessageKind::Text
    }

    /// The payload's bytes.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The text of a text message, or `None` for a binary message.
    pub fn as_text(&self) -> Option<&str> {
        // A second validation costs one pass over a hot buffer and needs no unsafe code.
        if self.is_text() { std::str::from_utf8(&self.payload).ok() } else { None }
    }

    /// The payload's length in bytes.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Parses the payload as JSON.
    ///
    /// # Errors
    ///
    /// Fails if the payload is not JSON or does not match the type `T`.
    pub fn parse_json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.payload)
    }
}

/// Makes a string valid as a field of an event stream.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n', '\0'], " ")
}

impl fmt::Debug for Message {
    /// Shows the kind and the length but not the content, because messages appear in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({:?}, {} bytes)", self.kind, self.payload.len())
    }
}

impl From<&Message> for Message {
    fn from(message: &Message) -> Self {
        message.clone()
    }
}

impl From<Arc<str>> for Message {
    fn from(text: Arc<str>) -> Self {
        Self::text(&*text)
    }
}

/// A binary message.
impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::binary(bytes)
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(bytes)
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::binary(bytes.to_vec())
    }
}

/// Why a message was not queued. Every variant returns the message.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SendError {
    /// The client is closing or closed.
    Closed(Message),
    /// The client's queue is full, and the drop policy has dropped this message.
    Full(Message),
    /// The queue stayed full for the timeout of a `…_timeout` call.
    Timeout(Message),
    /// No client with this id is connected.
    ClientNotFound(Message),
    /// The message is binary, but the client is on an event stream, which carries only text.
    Binary(Message),
}

impl SendError {
    /// The message that was not sent.
    pub fn into_message(self) -> Message {
        match self {
            Self::Closed(m) | Self::Full(m) | Self::Timeout(m) | Self::ClientNotFound(m) | Self::Binary(m) => m,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => "the client is closed",
            Self::Full(_) => "the client's send queue is full",
            Self::Timeout(_) => "the client's send queue stayed full",
            Self::ClientNotFound(_) => "no such client",
            Self::Binary(_) => "an event stream carries no binary messages",
        })
    }
}

impl Error for SendError {}

/// Why a value was not sent as JSON.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendJsonError {
    /// The value's `Serialize` implementation has failed. There is no message.
    Serialize(serde_json::Error),
    /// The message was not queued; the error returns it.
    Send(SendError),
}

impl SendJsonError {
    /// The message that was not sent; `None` if the value could not be serialised.
    pub fn into_message(self) -> Option<Message> {
        match self {
            Self::Serialize(_) => None,
            Self::Send(error) => Some(error.into_message()),
        }
    }
}

impl fmt::Display for SendJsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serialize(_) => f.write_str("the value could not be serialised as JSON"),
            Self::Send(_) => f.write_str("the message could not be sent"),
        }
    }
}

impl Error for SendJsonError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Serialize(error) => Some(error),
            Self::Send(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn send_errors_stay_small() {
        assert!(size_of::<SendError>() <= 56, "{}", size_of::<SendError>());
    }

    #[test]
    fn json_and_debug() {
        let message = Message::json(&serde_json::json!({"a": 1})).expect("json");
        assert_eq!(message.as_text(), Some(r#"{"a":1}"#));
        let back: serde_json::Value = message.parse_json().expect("json");
        assert_eq!(back["a"], 1);
        assert_eq!(format!("{message:?}"), "Message(Text, 7 bytes)");
        assert_eq!(Message::binary(vec![1]).as_text(), None);
    }

    #[test]
    fn a_clone_keeps_its_own_event_fields() {
        let first = Message::text("x").with_event_id("1").with_event_name("a\nb");
        let second = first.clone().with_event_id("2");
        let fields = |m: &Message| m.event.as_deref().map(|e| (e.id.clone(), e.name.clone())).expect("set");
        assert_eq!(fields(&first), (Some("1".into()), Some("a b".into())));
        assert_eq!(fields(&second), (Some("2".into()), Some("a b".into())));
    }
}
