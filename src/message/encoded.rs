//! A message's wire form, encoded once for each format and shared by all recipients.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Message;
use crate::guard::Guarded;
use crate::http;
use crate::ws::{self, MessageKind};

/// The wire format of a connection after its first response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireFormat {
    /// Frames of RFC 6455.
    WebSocket,
    /// Frames of RFC 6455, with longer messages compressed for a window of 2 to this power.
    #[cfg_attr(not(feature = "deflate"), allow(dead_code, reason = "never agreed on then"))]
    Deflate(Window),
    /// Server-Sent Events, each a chunk (RFC 9112 §7.1).
    EventStream,
    /// Server-Sent Events without chunks, for HTTP/1.0.
    PlainEventStream,
}

/// Bits of a deflate window. An enumeration, so that a format is one byte, because every send reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "deflate"), allow(dead_code, reason = "never agreed on then"))]
pub(crate) enum Window {
    Bits9,
    Bits10,
    Bits11,
    Bits12,
    Bits13,
    Bits14,
    Bits15,
}

/// Which messages are compressed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Compressed {
    /// 1 to 9.
    pub(crate) level: u32,
    /// Minimum payload size to compress, in bytes.
    pub(crate) min_size: usize,
}

impl Window {
    const ALL: [Self; 7] =
        [Self::Bits9, Self::Bits10, Self::Bits11, Self::Bits12, Self::Bits13, Self::Bits14, Self::Bits15];

    /// Returns the window of this size.
    #[cfg_attr(not(feature = "deflate"), allow(dead_code, reason = "never agreed on then"))]
    pub(crate) fn of_bits(bits: u8) -> Self {
        Self::ALL[usize::from(bits.clamp(9, 15)) - 9]
    }

    fn bits(self) -> u8 {
        9 + self as u8
    }
}

impl WireFormat {
    /// Whether its frames are WebSocket's, compressed or not.
    pub(crate) fn is_websocket(self) -> bool {
        !self.is_event_stream()
    }

    /// Whether it carries Server-Sent Events, in chunks or not.
    pub(crate) fn is_event_stream(self) -> bool {
        matches!(self, Self::EventStream | Self::PlainEventStream)
    }

    pub(crate) fn is_deflate(self) -> bool {
        matches!(self, Self::Deflate(_))
    }
}

/// A message's wire form: one pointer in every queue.
#[derive(Debug, Clone)]
pub(crate) struct Encoded(Arc<Wire>);

#[derive(Debug)]
struct Wire {
    /// Room and offset of a publication in a room's history.
    place: Option<Box<(Arc<str>, u64)>>,
    bytes: Bytes,
    source: Source,
}

/// Overhead of a queued message in bytes: the structure with its two counts, a slot in the queue, and one word that an
/// allocator adds to each of two allocations.
const OVERHEAD: usize = size_of::<Wire>() + 6 * size_of::<usize>();

/// Where the original message is stored.
#[derive(Debug)]
enum Source {
    /// In the wire form, after a header of this length, so that nothing is stored twice.
    Payload(MessageKind, usize),
    Message(Guarded<Message>),
    /// An event in a chunk: the message, and where in the chunk the event stands.
    Event(Guarded<Message>, Range<usize>),
}

impl Encoded {
    /// `None` if the format cannot carry the message.
    pub(crate) fn new(message: &Message, format: WireFormat, compressed: Compressed) -> Option<Self> {
        match format {
            WireFormat::WebSocket => Some(Self::frame(message)),
            WireFormat::Deflate(window) => {
                Some(Self::deflated(message, window, compressed).unwrap_or_else(|| Self::frame(message)))
            }
            WireFormat::EventStream => Self::event(message),
            WireFormat::PlainEventStream => Self::event(message).map(|event| event.without_chunk()),
        }
    }

    /// `None` if compression does not pay.
    fn deflated(message: &Message, window: Window, compressed: Compressed) -> Option<Self> {
        if message.len() < compressed.min_size {
            return None;
        }
        let frame = ws::encode_compressed(message.kind, &message.payload, compressed.level, window.bits())?;
        Some(Self(Arc::new(Wire {
            place: None,
            bytes: Bytes::from(frame),
            source: Source::Message(Guarded::new(message.clone())),
        })))
    }

    fn frame(message: &Message) -> Self {
        let frame = ws::encode_message(message.kind, &message.payload);
        let header = frame.len() - message.payload.len();
        // Fields that only event streams carry do not justify a copy of the payload.
        Self(Arc::new(Wire { place: None, bytes: Bytes::from(frame), source: Source::Payload(message.kind, header) }))
    }

    fn event(message: &Message) -> Option<Self> {
        let (chunk, event) = http::encode_event_chunk(message.as_text()?, message.event.as_deref());
        Some(Self(Arc::new(Wire {
            place: None,
            bytes: Bytes::from(chunk),
            source: Source::Event(Guarded::new(message.clone()), event),
        })))
    }

    /// The same event without its chunk, sharing its bytes.
    fn without_chunk(&self) -> Self {
        let Source::Event(message, event) = &self.0.source else { return self.clone() };
        let (bytes, source) = (self.0.bytes.slice(event.clone()), Source::Message(message.clone()));
        Self(Arc::new(Wire { place: None, bytes, source }))
    }

    /// Sets the message's place in a room's history. Call it only on a newly created form.
    pub(crate) fn at(mut self, room: &Arc<str>, offset: u64) -> Self {
        if let Some(wire) = Arc::get_mut(&mut self.0) {
            wire.place = Some(Box::new((Arc::clone(room), offset)));
        }
        self
    }

    /// The message's place in a room's history.
    pub(crate) fn place(&self) -> Option<(&Arc<str>, u64)> {
        self.0.place.as_deref().map(|(room, offset)| (room, *offset))
    }

    pub(crate) fn wire(&self) -> &[u8] {
        &self.0.bytes
    }

    /// The number of wire bytes; never 0.
    pub(crate) fn len(&self) -> usize {
        self.0.bytes.len()
    }

    /// Memory that it occupies, in bytes: the wire form, the message if it is stored separately, and overhead.
    pub(crate) fn held(&self) -> usize {
        OVERHEAD
            + match &self.0.source {
                Source::Payload(..) => self.len(),
                Source::Message(message) | Source::Event(message, _) => self.len() + message.len(),
            }
    }

    pub(crate) fn is_text(&self) -> bool {
        match &self.0.source {
            Source::Payload(kind, _) => *kind == MessageKind::Text,
            Source::Message(message) | Source::Event(message, _) => message.is_text(),
        }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        match &self.0.source {
            Source::Payload(_, header) => &self.0.bytes[*header..],
            Source::Message(message) | Source::Event(message, _) => &message.payload,
        }
    }

    /// Drops this handle. Returns the message if this was the last handle and the payload may be the application's
    /// memory, so that the caller can drop it where code of the application may run.
    pub(crate) fn release(self) -> Option<Message> {
        match Arc::into_inner(self.0)?.source {
            Source::Payload(..) => None,
            Source::Message(message) | Source::Event(message, _) => Some(message.into_inner()),
        }
    }

    /// The number of queues and batches that hold it, and of callers.
    #[cfg(test)]
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// The message, which shares the bytes of this form.
    pub(crate) fn message(&self) -> Message {
        match &self.0.source {
            Source::Payload(kind, header) => Message::new(*kind, self.0.bytes.slice(*header..)),
            Source::Message(message) | Source::Event(message, _) => Message::clone(message),
        }
    }
}

/// The wire forms of one message, each encoded when the first recipient needs it.
#[derive(Debug)]
pub(crate) struct Encodings<'a> {
    message: &'a Message,
    compressed: Compressed,
    frame: OnceCell<Encoded>,
    deflated: [OnceCell<Encoded>; Window::ALL.len()],
    event: OnceCell<Option<Encoded>>,
    plain_event: OnceCell<Option<Encoded>>,
}

impl<'a> Encodings<'a> {
    pub(crate) const fn of(message: &'a Message, compressed: Compressed) -> Self {
        let deflated = [const { OnceCell::new() }; Window::ALL.len()];
        Self {
            message,
            compressed,
            frame: OnceCell::new(),
            deflated,
            event: OnceCell::new(),
            plain_event: OnceCell::new(),
        }
    }

    /// `None` if the format cannot carry the message.
    #[inline]
    pub(crate) fn get(&self, format: WireFormat) -> Option<&Encoded> {
        match format {
            WireFormat::WebSocket => Some(self.plain()),
            WireFormat::Deflate(window) => Some(self.deflated[window as usize].get_or_init(|| {
                let deflated = Encoded::deflated(self.message, window, self.compressed);
                deflated.unwrap_or_else(|| self.plain().clone())
            })),
            WireFormat::EventStream => self.event(),
            WireFormat::PlainEventStream => {
                self.plain_event.get_or_init(|| self.event().map(Encoded::without_chunk)).as_ref()
            }
        }
    }

    fn event(&self) -> Option<&Encoded> {
        self.event.get_or_init(|| Encoded::event(self.message)).as_ref()
    }

    fn plain(&self) -> &Encoded {
        self.frame.get_or_init(|| Encoded::frame(self.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_message_gives_the_message_back() {
        for message in [Message::text("héllo"), Message::binary(vec![0; 70_000]), Message::text("")] {
            let encoded = Encoded::new(&message, WireFormat::WebSocket, Compressed::default()).expect("carries all");
            assert_eq!(encoded.message(), message);
            assert_eq!(encoded.payload(), &message.payload()[..]);
            assert!(encoded.len() > message.len());
        }
        assert_eq!(size_of::<Encoded>(), size_of::<usize>());
    }

    #[test]
    fn an_event_gives_the_message_back_and_takes_no_binary() {
        let message = Message::text("a\nb").with_event_id("7");
        let encoded = Encoded::new(&message, WireFormat::EventStream, Compressed::default()).expect("text");
        assert_eq!((encoded.message(), encoded.is_text()), (message.clone(), true));
        assert_eq!(encoded.payload(), b"a\nb");
        assert_eq!(encoded.wire(), b"17\r\nid: 7\ndata: a\ndata: b\n\n\r\n");
        let plain = Encoded::new(&message, WireFormat::PlainEventStream, Compressed::default()).expect("text");
        assert_eq!((plain.wire(), plain.message()), (&b"id: 7\ndata: a\ndata: b\n\n"[..], message));
        assert!(Encoded::new(&Message::binary(vec![1]), WireFormat::EventStream, Compressed::default()).is_none());
    }

    #[test]
    fn windows_have_their_bits() {
        assert_eq!(Window::ALL.map(Window::bits), [9, 10, 11, 12, 13, 14, 15]);
        assert_eq!([0, 9, 12, 15, 99].map(|bits| Window::of_bits(bits).bits()), [9, 9, 12, 15, 15]);
        assert_eq!(size_of::<WireFormat>(), 1);
    }

    #[test]
    fn each_format_is_made_once() {
        let message = Message::text("x".repeat(100));
        let encodings = Encodings::of(&message, Compressed { level: 1, min_size: 10 });
        let deflate = [9, 15].map(|bits| WireFormat::Deflate(Window::of_bits(bits)));
        for format in
            [WireFormat::WebSocket, WireFormat::EventStream, WireFormat::PlainEventStream].into_iter().chain(deflate)
        {
            let first = encodings.get(format).expect("text").wire().as_ptr();
            assert_eq!(encodings.get(format).expect("text").wire().as_ptr(), first);
        }
        let [chunk, plain] = [WireFormat::EventStream, WireFormat::PlainEventStream]
            .map(|format| encodings.get(format).expect("text").wire());
        assert!(chunk.as_ptr_range().contains(&plain.as_ptr()), "the bytes are shared");
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn short_messages_share_the_plain_frame() {
        let compressed = Compressed { level: 1, min_size: 101 };
        let message = Message::text("x".repeat(100));
        let encodings = Encodings::of(&message, compressed);
        let deflate = WireFormat::Deflate(Window::of_bits(15));
        let pointer = |format| encodings.get(format).expect("text").wire().as_ptr();
        assert_eq!(pointer(deflate), pointer(WireFormat::WebSocket));
        let shorter = Encoded::new(&message, deflate, Compressed { min_size: 100, ..compressed }).expect("text");
        assert!(shorter.len() < 20 && shorter.wire()[0] == 0xc1, "{:?}", shorter.wire());
        assert_eq!(shorter.held(), OVERHEAD + shorter.len() + 100, "a short wire form does not make it cheap");
        assert_eq!((shorter.message(), shorter.payload()), (message.clone(), message.payload().as_ref()));
    }
}
