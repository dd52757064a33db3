//! What travels: a message, its wire form made once for all its recipients, and the error that hands it back.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::ws::{self, MessageKind};

/// A text or binary message. The payload is shared: a clone copies a pointer.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    kind: MessageKind,
    payload: Bytes,
}

impl Message {
    /// A text message.
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: MessageKind::Text, payload: Bytes::from(text.into()) }
    }

    /// A binary message.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self { kind: MessageKind::Binary, payload: bytes.into() }
    }

    /// A text message that holds `value` as JSON.
    ///
    /// # Errors
    ///
    /// What the value's `Serialize` implementation reports.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_string(value).map(Self::text)
    }

    /// A text message that holds JSON made elsewhere; it is sent as it is.
    pub fn raw_json(json: impl Into<String>) -> Self {
        Self::text(json)
    }

    /// A received message; a text payload has been checked to be UTF-8.
    pub(crate) fn received(kind: MessageKind, payload: Vec<u8>) -> Self {
        Self { kind, payload: Bytes::from(payload) }
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

    /// The text of a text message; `None` for binary.
    pub fn as_text(&self) -> Option<&str> {
        // Checked again rather than trusted: one pass over a hot buffer, and no unsafe code.
        if self.is_text() { std::str::from_utf8(&self.payload).ok() } else { None }
    }

    /// Payload bytes.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// The payload, parsed as JSON.
    ///
    /// # Errors
    ///
    /// Not JSON, or not of type `T`.
    pub fn parse_json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.payload)
    }
}

impl fmt::Debug for Message {
    /// The kind and the length, never the content: messages end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({:?}, {} bytes)", self.kind, self.payload.len())
    }
}

impl From<&Message> for Message {
    fn from(message: &Message) -> Self {
        message.clone()
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

/// Why a message was not queued. Every variant hands the message back.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SendError {
    /// The client is closing or closed.
    Closed(Message),
    /// The client's queue is full and the drop policy keeps what is queued.
    Full(Message),
    /// The queue stayed full until the time given to a `…_timeout` call had passed.
    Timeout(Message),
    /// No client with that id is connected.
    ClientNotFound(Message),
}

impl SendError {
    /// The message that was not sent.
    pub fn into_message(self) -> Message {
        match self {
            Self::Closed(m) | Self::Full(m) | Self::Timeout(m) | Self::ClientNotFound(m) => m,
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
        })
    }
}

impl Error for SendError {}

/// A message's wire form: made once per broadcast, one pointer in every queue.
#[derive(Debug, Clone)]
pub(crate) struct Encoded(Arc<Wire>);

#[derive(Debug)]
struct Wire {
    kind: MessageKind,
    /// Header bytes at the front of `frame`.
    header: usize,
    frame: Bytes,
}

impl Encoded {
    pub(crate) fn new(message: &Message) -> Self {
        let frame = ws::encode_message(message.kind, &message.payload);
        let header = frame.len() - message.payload.len();
        Self(Arc::new(Wire { kind: message.kind, header, frame: Bytes::from(frame) }))
    }

    /// The frame as it goes over the wire.
    pub(crate) fn wire(&self) -> &[u8] {
        &self.0.frame
    }

    /// Wire bytes; never 0.
    pub(crate) fn len(&self) -> usize {
        self.0.frame.len()
    }

    pub(crate) fn is_text(&self) -> bool {
        self.0.kind == MessageKind::Text
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.0.frame[self.0.header..]
    }

    /// The message again, sharing its bytes.
    pub(crate) fn message(&self) -> Message {
        Message { kind: self.0.kind, payload: self.0.frame.slice(self.0.header..) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_message_gives_the_message_back() {
        for message in [Message::text("héllo"), Message::binary(vec![0; 70_000]), Message::text("")] {
            let encoded = Encoded::new(&message);
            assert_eq!(encoded.message(), message);
            assert_eq!(encoded.payload(), &message.payload()[..]);
            assert!(encoded.len() > message.len());
        }
        assert_eq!(size_of::<Encoded>(), size_of::<usize>());
    }

    #[test]
    fn send_errors_stay_small() {
        assert!(size_of::<SendError>() <= 48, "{}", size_of::<SendError>());
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
}
