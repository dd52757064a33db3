//! Catching up in a room, from the position where a member fell behind or rejoined.

use std::sync::{Arc, Weak};

use super::client::Client;
use super::keeper::Keeper;
use super::memory::Stream;
use super::room::Room;
use crate::client_id::ClientId;
use crate::guard::dispose;
use crate::history::{FrameKind, Gap, Publication};
use crate::message::{Compressed, Encoded, Message};
use crate::outbox::{BATCH_BYTES, BATCH_MESSAGES, Pulled, Source};

/// One member's progress towards the top of one stream of a room.
///
/// While this reader's ticket is in the room, publishers push nothing of the stream to the member. [`Room::rejoin`]
/// removes the ticket under the room's lock, and only if nothing is owed. So this reader's pushes, in order, followed
/// by the publishers' pushes, contain everything once.
#[derive(Debug)]
pub(super) struct Reader {
    ticket: u64,
    room: Weak<Room>,
    stream: Stream,
    /// The member's outbox, as the room knows it.
    place: usize,
    client: ClientId,
    kind: FrameKind,
    compressed: Compressed,
    /// The member has everything up to this offset or version.
    cursor: u64,
    /// The message that the member gets first.
    intro: Option<Message>,
    keeper: Arc<Keeper>,
}

/// The next messages that a member is owed.
#[derive(Debug)]
pub(super) struct Owed {
    gap: Option<Gap>,
    /// The whole state up to this version, in place of single values.
    snapshot: Option<(u64, Encoded)>,
    publications: Vec<Publication>,
    /// After these publications the member has everything up to this point.
    end: Option<u64>,
}

impl Owed {
    /// Takes as many publications as one pull pushes, from a stream with this top.
    fn batch<'a>(publications: impl Iterator<Item = &'a Publication>, top: u64) -> Self {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let mut rest = publications.peekable();
        while taken.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
            let Some(publication) = rest.next() else { break };
            bytes += publication.message().len();
            taken.push(publication.clone());
        }
        let end = rest.peek().is_none().then_some(top);
        Self { gap: None, snapshot: None, publications: taken, end }
    }

    fn snapshot(version: u64, frame: Encoded) -> Self {
        Self { gap: None, snapshot: Some((version, frame)), publications: Vec::new(), end: Some(version) }
    }
}

impl Reader {
    /// Creates a reader. Called under the room's lock.
    pub(super) fn new(ticket: u64, room: &Arc<Room>, stream: Stream, client: &Client, cursor: u64) -> Self {
        Self {
            ticket,
            room: Arc::downgrade(room),
            stream,
            place: client.place(),
            client: client.id(),
            kind: client.frame_kind(),
            compressed: client.hub().compressed(),
            cursor,
            intro: None,
            keeper: client.hub().keeper(),
        }
    }

    pub(super) fn with_intro(mut self, intro: Option<Message>) -> Self {
        self.intro = intro;
        self
    }

    fn encode(&self, message: &Message) -> Option<Encoded> {
        Encoded::new(message, self.kind.wire, self.compressed)
    }

    /// Returns false if a message did not fit.
    fn push(&mut self, owed: &Owed, push: &mut dyn FnMut(&Encoded) -> bool) -> bool {
        if let Some(gap) = &owed.gap {
            let frame = self.kind.format.gap(gap).and_then(|message| self.encode(&message));
            if frame.is_some_and(|frame| !push(&frame)) {
                return false;
            }
            self.cursor = gap.to();
            self.keeper.tell_gap(self.client, gap.clone());
        }
        if let Some((version, frame)) = &owed.snapshot {
            if !push(frame) {
                return false;
            }
            self.cursor = *version;
        }
        for publication in &owed.publications {
            let skips = publication.skips(self.client);
            let frame = if skips { None } else { publication.frame(self.kind, self.compressed) };
            if frame.is_some_and(|frame| !push(&frame)) {
                return false;
            }
            self.cursor = publication.offset();
        }
        self.cursor = owed.end.unwrap_or(self.cursor);
        true
    }
}

impl Source for Reader {
    fn ticket(&self) -> u64 {
        self.ticket
    }

    fn pull(&mut self, push: &mut dyn FnMut(&Encoded) -> bool) -> Pulled {
        let Some(room) = self.room.upgrade() else { return Pulled::Done };
        if let Some(intro) = self.intro.clone() {
            if self.encode(&intro).is_some_and(|frame| !push(&frame)) {
                return Pulled::More;
            }
            self.intro = None;
        }
        let Some(owed) = room.owed(self) else { return Pulled::Done };
        let is_done = self.push(&owed, push) && owed.end.is_some() && room.rejoin(self);
        // This may drop the last handles to payloads.
        dispose(owed);
        if is_done { Pulled::Done } else { Pulled::More }
    }
}

impl Room {
    /// The reader's next messages, at most a batch; `None` if its member is gone.
    fn owed(&self, reader: &Reader) -> Option<Owed> {
        let state = self.state.read();
        let memory = state.memory.as_ref().filter(|m| m.has_ticket(reader.stream, reader.place, reader.ticket))?;
        let top = memory.position(reader.stream)?.offset();
        if reader.stream == Stream::History {
            let ring = memory.history.as_ref()?;
            let missing = ring.first_held() - 1;
            let gap = (reader.cursor < missing).then(|| {
                let from = Some(reader.cursor + 1);
                Gap::new(Arc::clone(&self.name), ring.position().epoch(), from, missing)
            });
            return Some(Owed { gap, ..Owed::batch(ring.after(reader.cursor), top) });
        }
        let values = memory.state.as_ref()?;
        if reader.cursor > 0 && !values.is_too_old(reader.cursor) {
            return Some(Owed::batch(values.after(reader.cursor), top));
        }
        let made = memory.snapshots.iter().find(|(version, kind, _)| *version == top && *kind == reader.kind);
        if let Some((_, _, frame)) = made {
            return Some(Owed::snapshot(top, frame.clone()));
        }
        let all = values.values();
        drop(state);
        Some(self.whole_state(reader, all, top))
    }

    /// The whole state, for a member without any of it: in one message if the format supports that.
    fn whole_state(&self, reader: &Reader, values: Vec<Publication>, version: u64) -> Owed {
        let message = reader.kind.format.snapshot(&self.name, &values);
        let frame = message.and_then(|message| reader.encode(&message));
        let owed = match frame {
            Some(frame) => {
                self.keep_snapshot(version, reader.kind, &frame);
                Owed::snapshot(version, frame)
            }
            None => Owed::batch(values.iter(), version),
        };
        dispose(values);
        owed
    }

    /// Keeps the snapshot for further joins, until the state changes.
    fn keep_snapshot(&self, version: u64, kind: FrameKind, frame: &Encoded) {
        let mut state = self.state.write();
        let Some(memory) = &mut state.memory else { return };
        if memory.position(Stream::State).is_some_and(|top| top.offset() == version) {
            memory.snapshots.retain(|(v, k, _)| *v == version && *k != kind);
            memory.snapshots.push((version, kind, frame.clone()));
        }
    }

    /// Ends catching up: from now on publishers push to the member again. Returns false if new messages have arrived.
    fn rejoin(&self, reader: &Reader) -> bool {
        let mut state = self.state.write();
        let Some(memory) = &mut state.memory else { return true };
        if !memory.has_ticket(reader.stream, reader.place, reader.ticket) {
            return true;
        }
        let top = memory.position(reader.stream).map_or(0, |position| position.offset());
        if reader.cursor < top {
            return false;
        }
        memory.behind(reader.stream).remove(reader.place);
        true
    }
}
