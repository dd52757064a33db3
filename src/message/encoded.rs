//! A message as it goes over the wire: made once for each format, shared by every recipient.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;

use super::Message;
use crate::http;
use crate::ws::{self, MessageKind};

/// What the bytes of a connection look like after its first response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireFormat {
    /// Frames of RFC 6455.
    WebSocket,
    /// Server-Sent Events.
    EventStream,
}

/// A message's wire form: one pointer in every queue.
#[derive(Debug, Clone)]
pub(crate) struct Encoded(Arc<Wire>);

#[derive(Debug)]
struct Wire {
    bytes: Bytes,
    source: Source,
}

/// Where the message is found again.
#[derive(Debug)]
enum Source {
    /// In the wire form, behind a header of this length: nothing is kept twice.
    Payload(MessageKind, usize),
    Message(Message),
}

impl Encoded {
    /// `None` if the format cannot carry the message.
    pub(crate) fn new(message: &Message, format: WireFormat) -> Option<Self> {
        match format {
            WireFormat::WebSocket => Some(Self::frame(message)),
            WireFormat::EventStream => Self::event(message),
        }
    }

    fn frame(message: &Message) -> Self {
        let frame = ws::encode_message(message.kind, &message.payload);
        let header = frame.len() - message.payload.len();
        // What only event streams carry is not worth a copy of the payload.
        Self(Arc::new(Wire { bytes: Bytes::from(frame), source: Source::Payload(message.kind, header) }))
    }

    fn event(message: &Message) -> Option<Self> {
        let event = http::encode_event(message.as_text()?, message.event.as_deref());
        Some(Self(Arc::new(Wire { bytes: Bytes::from(event), source: Source::Message(message.clone()) })))
    }

    pub(crate) fn wire(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Wire bytes; never 0.
    pub(crate) fn len(&self) -> usize {
        self.0.bytes.len()
    }

    pub(crate) fn is_text(&self) -> bool {
        match &self.0.source {
            Source::Payload(kind, _) => *kind == MessageKind::Text,
            Source::Message(message) => message.is_text(),
        }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        match &self.0.source {
            Source::Payload(_, header) => &self.0.bytes[*header..],
            Source::Message(message) => &message.payload,
        }
    }

    /// The message again, sharing its bytes.
    pub(crate) fn message(&self) -> Message {
        match &self.0.source {
            Source::Payload(kind, header) => Message::new(*kind, self.0.bytes.slice(*header..)),
            Source::Message(message) => message.clone(),
        }
    }
}

/// The wire forms of one message, each made when the first recipient needs it.
#[derive(Debug)]
pub(crate) struct Encodings<'a> {
    message: &'a Message,
    frame: OnceCell<Encoded>,
    event: OnceCell<Option<Encoded>>,
}

impl<'a> Encodings<'a> {
    pub(crate) const fn of(message: &'a Message) -> Self {
        Self { message, frame: OnceCell::new(), event: OnceCell::new() }
    }

    /// `None` if the format cannot carry the message.
    #[inline]
    pub(crate) fn get(&self, format: WireFormat) -> Option<&Encoded> {
        match format {
            WireFormat::WebSocket => Some(self.frame.get_or_init(|| Encoded::frame(self.message))),
            WireFormat::EventStream => self.event.get_or_init(|| Encoded::event(self.message)).as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_message_gives_the_message_back() {
        for message in [Message::text("héllo"), Message::binary(vec![0; 70_000]), Message::text("")] {
            let encoded = Encoded::new(&message, WireFormat::WebSocket).expect("carries all");
            assert_eq!(encoded.message(), message);
            assert_eq!(encoded.payload(), &message.payload()[..]);
            assert!(encoded.len() > message.len());
        }
        assert_eq!(size_of::<Encoded>(), size_of::<usize>());
    }

    #[test]
    fn an_event_gives_the_message_back_and_takes_no_binary() {
        let message = Message::text("a\nb").with_event_id("7");
        let encoded = Encoded::new(&message, WireFormat::EventStream).expect("text");
        assert_eq!((encoded.message(), encoded.is_text()), (message.clone(), true));
        assert_eq!(encoded.payload(), b"a\nb");
        assert_eq!(encoded.wire(), b"id: 7\ndata: a\ndata: b\n\n");
        assert!(Encoded::new(&Message::binary(vec![1]), WireFormat::EventStream).is_none());
    }

    #[test]
    fn each_format_is_made_once() {
        let message = Message::text("x");
        let encodings = Encodings::of(&message);
        for format in [WireFormat::WebSocket, WireFormat::EventStream] {
            let first = encodings.get(format).expect("text").wire().as_ptr();
            assert_eq!(encodings.get(format).expect("text").wire().as_ptr(), first);
        }
    }
}
