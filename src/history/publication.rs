//! One message of a room with memory: its position, its content, and its wire forms, which a format makes once each.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::gap::Gap;
use super::ledger::Ledger;
use super::position::{Epoch, Position};
use crate::client_id::ClientId;
use crate::guard::Guarded;
use crate::lock::Leaf;
use crate::message::{Compressed, Encoded, Message, WireFormat};

/// Bookkeeping bytes counted for a publication: itself, its entry, its list of wire forms.
pub(crate) const OVERHEAD: usize = 256;

/// A value that an application attaches to a publication, and the bytes that it counts for.
pub(crate) type Attachment = (Arc<dyn Any + Send + Sync>, usize);

/// A message to publish; see [`Hub::publish`](crate::Hub::publish). Everything that converts into a [`Message`]
/// converts into it.
#[must_use = "it does nothing until it is published"]
pub struct Publish {
    pub(crate) message: Message,
    pub(crate) except: Vec<ClientId>,
    pub(crate) attachment: Option<Attachment>,
}

impl Publish {
    /// Publishes this message to every member.
    pub fn new(message: impl Into<Message>) -> Self {
        Self { message: message.into(), except: Vec::new(), attachment: None }
    }

    /// Excludes one connection. The message is still recorded; the connection gets it only if it joins again with an
    /// earlier position.
    pub fn except(mut self, id: ClientId) -> Self {
        self.except.push(id);
        self
    }

    /// Attaches a value that formats and readers of the history get with [`Publication::attachment`]. It counts as
    /// `bytes` against the limits of the history. In a shared history, only an attachment of type `bytes::Bytes`
    /// travels to other nodes.
    pub fn attach<T: Any + Send + Sync>(mut self, value: T, bytes: usize) -> Self {
        self.attachment = Some((Arc::new(value), bytes));
        self
    }
}

impl<M: Into<Message>> From<M> for Publish {
    fn from(message: M) -> Self {
        Self::new(message)
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish").field("message", &self.message).field("except", &self.except).finish_non_exhaustive()
    }
}

/// The subject of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A message of the history; its offset is its position there.
    Message,
    /// The new value of a key of the state; its offset is the version.
    Value(Arc<str>),
    /// A key of the state no longer has a value.
    Removal(Arc<str>),
}

/// A published message: cheap to clone, never changed.
#[derive(Clone)]
pub struct Publication(Arc<Inner>);

struct Inner {
    room: Arc<str>,
    position: Position,
    subject: Subject,
    time: SystemTime,
    message: Guarded<Message>,
    except: Box<[ClientId]>,
    attachment: Guarded<Option<Attachment>>,
    /// Encoding runs under this lock, so that each form is made once; it is pure code of this crate.
    frames: Leaf<Frames>,
}

#[derive(Default)]
struct Frames {
    /// `None` if the wire cannot carry the message, or the format does not show it.
    made: Vec<(FrameKind, Option<Encoded>)>,
    /// Bytes held by the wire forms.
    bytes: usize,
    /// The ledger that counts this publication while it is held.
    ledger: Option<Arc<Ledger>>,
}

/// Restricts [`Format`] to this crate, because publishers of the room wait while a format encodes.
pub trait Sealed {}

/// The wire format of a client's publications and of other events of rooms with memory.
///
/// A client has one, from [`Admission::format`](crate::Admission::format) or
/// [`HubBuilder::format`](crate::HubBuilder::format). Only this crate implements it.
pub trait Format: Sealed + Send + Sync + 'static {
    /// The name of the format: formats with the same name make the same messages.
    fn name(&self) -> &'static str;

    /// Encodes a publication of the history, a value of the state, or its removal. `None`: nothing is sent.
    fn message(&self, publication: &Publication) -> Option<Message>;

    /// Encodes a gap. `None`: nothing is sent.
    fn gap(&self, gap: &Gap) -> Option<Message>;

    /// Encodes the position after which a client begins to read, if the server makes it join. `None`: nothing is sent.
    fn begin(&self, position: Position) -> Option<Message> {
        let _ = position;
        None
    }

    /// Encodes the whole state in one message, for a client that joins. `None`: each value is a separate message.
    fn snapshot(&self, room: &str, values: &[Publication]) -> Option<Message> {
        let _ = (room, values);
        None
    }
}

/// A format, compared by its name.
#[derive(Clone, Copy)]
pub(crate) struct FormatRef {
    name: &'static str,
    format: &'static dyn Format,
}

impl FormatRef {
    pub(crate) const fn named(name: &'static str, format: &'static dyn Format) -> Self {
        Self { name, format }
    }

    pub(crate) fn new(format: &'static dyn Format) -> Self {
        Self { name: format.name(), format }
    }
}

impl std::ops::Deref for FormatRef {
    type Target = dyn Format;

    fn deref(&self) -> &(dyn Format + 'static) {
        self.format
    }
}

impl PartialEq for FormatRef {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.name, other.name) || self.name == other.name
    }
}

impl Eq for FormatRef {}

impl fmt::Debug for FormatRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The wire form that a member reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameKind {
    pub(crate) wire: WireFormat,
    pub(crate) format: FormatRef,
}

impl Publication {
    pub(crate) fn new(room: &Arc<str>, position: Position, subject: Subject, publish: Publish) -> Self {
        Self(Arc::new(Inner {
            room: Arc::clone(room),
            position,
            subject,
            time: SystemTime::now(),
            message: Guarded::new(publish.message),
            except: publish.except.into(),
            attachment: Guarded::new(publish.attachment),
            frames: Leaf::default(),
        }))
    }

    /// The room of the publication.
    pub fn room(&self) -> &str {
        &self.0.room
    }

    /// The position in the history. For a value of a state: the state's epoch, and the version of the value.
    pub fn position(&self) -> Position {
        self.0.position
    }

    /// The epoch of its position.
    pub fn epoch(&self) -> Epoch {
        self.0.position.epoch()
    }

    /// The offset of its position.
    pub fn offset(&self) -> u64 {
        self.0.position.offset()
    }

    /// The time of publication, by the system clock.
    pub fn time(&self) -> SystemTime {
        self.0.time
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    /// The key of a value of the state; `None` for a message of the history.
    pub fn key(&self) -> Option<&str> {
        match &self.0.subject {
            Subject::Message => None,
            Subject::Value(key) | Subject::Removal(key) => Some(key),
        }
    }

    /// Whether the publication removes the key's value. Its message is then empty.
    pub fn is_removal(&self) -> bool {
        matches!(self.0.subject, Subject::Removal(_))
    }

    /// The attached value; `None` if there is none or it is not a `T`.
    pub fn attachment<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.attachment.as_ref()?.0.downcast_ref()
    }

    /// Whether this connection was excluded from the publication.
    pub(crate) fn skips(&self, id: ClientId) -> bool {
        self.0.except.contains(&id)
    }

    pub(crate) fn excepts_anybody(&self) -> bool {
        !self.0.except.is_empty()
    }

    /// The wire form of this kind, made on first use. `None` if there is nothing to send.
    pub(crate) fn frame(&self, kind: FrameKind, compressed: Compressed) -> Option<Encoded> {
        let found = |frames: &Frames| frames.made.iter().find(|(k, _)| *k == kind).map(|(_, frame)| frame.clone());
        let mut frames = self.0.frames.lock();
        if let Some(frame) = found(&frames) {
            return frame;
        }
        let frame = kind.format.message(self).and_then(|message| Encoded::new(&message, kind.wire, compressed));
        let is_message = self.0.subject == Subject::Message;
        let frame = frame.map(|frame| if is_message { frame.at(&self.0.room, self.offset()) } else { frame });
        let bytes = frame.as_ref().map_or(0, Encoded::held);
        frames.bytes += bytes;
        if let Some(ledger) = &frames.ledger {
            ledger.add(bytes);
            ledger.count_encodings(1);
        }
        frames.made.push((kind, frame.clone()));
        frame
    }

    /// Bytes that the publication holds, including its wire forms.
    pub(crate) fn held(&self) -> usize {
        self.fixed() + self.0.frames.lock().bytes
    }

    fn fixed(&self) -> usize {
        let key = self.key().map_or(0, str::len);
        let attachment = self.0.attachment.as_ref().map_or(0, |(_, bytes)| *bytes);
        let except = self.0.except.len() * size_of::<ClientId>();
        OVERHEAD + self.0.message.len() + key + except + attachment
    }

    /// Counts the publication's bytes in this ledger from now on, including future wire forms.
    pub(crate) fn enter(&self, ledger: &Arc<Ledger>) {
        let mut frames = self.0.frames.lock();
        ledger.add(self.fixed() + frames.bytes);
        ledger.count_encodings(frames.made.len());
        frames.ledger = Some(Arc::clone(ledger));
    }

    /// Returns the counted bytes when the publication is no longer held.
    pub(crate) fn leave(&self) {
        let mut frames = self.0.frames.lock();
        if let Some(ledger) = frames.ledger.take() {
            ledger.sub(self.fixed() + frames.bytes);
        }
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publication")
            .field("room", &self.0.room)
            .field("position", &self.0.position)
            .field("subject", &self.0.subject)
            .field("message", &self.0.message)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::formats::{PLAIN as FORMAT, STREAM};
    use crate::history::ledger::Totals;

    const PLAIN: FrameKind = FrameKind { wire: WireFormat::WebSocket, format: FORMAT };

    fn publication(text: &str) -> Publication {
        Publication::new(&"room".into(), Position::new(Epoch::random(), 7), Subject::Message, Publish::new(text))
    }

    #[test]
    fn each_wire_form_is_made_once() {
        let publication = publication("hello");
        let stream = FrameKind { wire: WireFormat::PlainEventStream, format: STREAM };
        let frame = |kind| publication.frame(kind, Compressed::default()).expect("text");
        assert_eq!(frame(PLAIN).wire().as_ptr(), frame(PLAIN).wire().as_ptr());
        assert_eq!(frame(PLAIN).wire(), b"\x81\x05hello");
        let id = publication.position();
        assert_eq!(frame(stream).wire(), format!("id: {id}\ndata: hello\n\n").as_bytes());
        assert_eq!(frame(stream).wire().as_ptr(), frame(stream).wire().as_ptr());
    }

    #[test]
    fn bytes_are_counted_while_it_is_held() {
        let hub = Arc::<Totals>::default();
        let ledger = Ledger::new(Arc::clone(&hub));
        let publication = publication("hello");
        publication.frame(PLAIN, Compressed::default());
        publication.enter(&ledger);
        let frame = publication.frame(PLAIN, Compressed::default()).map_or(0, |frame| frame.held());
        assert!(frame > 7, "a frame costs more than its bytes");
        assert_eq!(ledger.bytes(), OVERHEAD + 5 + frame);
        let stream = FrameKind { wire: WireFormat::PlainEventStream, format: STREAM };
        publication.frame(stream, Compressed::default());
        assert!(ledger.bytes() > OVERHEAD + 5 + frame + 12, "a later form counts too");
        assert_eq!((ledger.bytes(), hub.bytes()), (publication.held(), publication.held()));
        publication.leave();
        publication.frame(FrameKind { format: STREAM, ..PLAIN }, Compressed::default());
        publication.leave();
        assert_eq!((ledger.bytes(), hub.bytes()), (0, 0));
    }

    #[test]
    fn attachments_come_back_by_their_type() {
        let publish = Publish::new("x").attach(17_u32, 4).except(ClientId::random());
        let publication = Publication::new(&"r".into(), Position::new(Epoch::random(), 1), Subject::Message, publish);
        assert_eq!((publication.attachment::<u32>(), publication.attachment::<u64>()), (Some(&17), None));
        assert_eq!(publication.held(), OVERHEAD + 1 + 16 + 4);
    }
}
