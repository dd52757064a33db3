//! Reading on in a room from where a member fell behind, or came back.

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

/// One member's way back to the top of one stream of a room.
///
/// From the moment its ticket stands in the room until [`Room::rejoin`] takes it out, under the room's lock and only if
/// nothing is owed, publishers push nothing of the stream to the member. So what this pushes, in order, and what they push
/// afterwards, is everything once.
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
    /// What it is told before all else.
    intro: Option<Message>,
    keeper: Arc<Keeper>,
}

/// What a member is owed next.
#[derive(Debug)]
pub(super) struct Owed {
    gap: Option<Gap>,
    /// Instead of single values: the whole state, up to this version.
    snapshot: Option<(u64, Encoded)>,
    publications: Vec<Publication>,
    /// With these publications the member has everything up to here.
    end: Option<u64>,
}

impl Owed {
    /// As many as one pull pushes, of a stream whose top is given.
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
    /// Under the room's lock.
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

    /// False if something did not fit.
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
        // Its payloads may be the last of their kind.
        dispose(owed);
        if is_done { Pulled::Done } else { Pulled::More }
    }
}

impl Room {
    /// What the reader gets next, at most a batch; `None` if it reads for nobody any more.
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

    /// For who knows nothing of the state: all of it, in one message if the format has one for that.
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

    /// For the next who joins, while nothing changes.
    fn keep_snapshot(&self, version: u64, kind: FrameKind, frame: &Encoded) {
        let mut state = self.state.write();
        let Some(memory) = &mut state.memory else { return };
        if memory.position(Stream::State).is_some_and(|top| top.offset() == version) {
            memory.snapshots.retain(|(v, k, _)| *v == version && *k != kind);
            memory.snapshots.push((version, kind, frame.clone()));
        }
    }

    /// The end of reading on: from now on publishers push to the member again. False if something has come meanwhile.
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
