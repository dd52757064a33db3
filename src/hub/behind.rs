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
    /// The address of the member's outbox, by which the room knows it.
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

/// One frame of a pull, made before the room is locked.
#[derive(Debug)]
struct Step {
    /// `None` if the member is sent nothing for it.
    frame: Option<Encoded>,
    reaches: Reaches,
}

/// What the member has received once a step is pushed.
#[derive(Debug)]
enum Reaches {
    Intro,
    Gap(Gap),
    /// Everything up to this offset or version.
    Offset(u64),
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

    /// The frames of one pull, in order.
    fn steps(&self, owed: &Owed) -> Vec<Step> {
        let mut steps = Vec::with_capacity(owed.publications.len() + 3);
        if let Some(intro) = &self.intro {
            steps.push(Step { frame: self.encode(intro), reaches: Reaches::Intro });
        }
        if let Some(gap) = &owed.gap {
            let frame = self.kind.format.gap(gap).and_then(|message| self.encode(&message));
            steps.push(Step { frame, reaches: Reaches::Gap(gap.clone()) });
        }
        if let Some((version, frame)) = &owed.snapshot {
            steps.push(Step { frame: Some(frame.clone()), reaches: Reaches::Offset(*version) });
        }
        steps.extend(owed.publications.iter().map(|publication| {
            let skips = publication.skips(self.client);
            let frame = if skips { None } else { publication.frame(self.kind, self.compressed) };
            Step { frame, reaches: Reaches::Offset(publication.offset()) }
        }));
        steps
    }

    /// Records that the step's frame is in the queue. Call it without a lock.
    fn reach(&mut self, step: &Step) {
        match &step.reaches {
            Reaches::Intro => self.intro = None,
            Reaches::Gap(gap) => {
                self.cursor = gap.to();
                self.keeper.tell_gap(self.client, gap.clone());
            }
            Reaches::Offset(offset) => self.cursor = *offset,
        }
    }
}

impl Source for Reader {
    fn ticket(&self) -> u64 {
        self.ticket
    }

    fn pull(&mut self, push: &mut dyn FnMut(&Encoded) -> bool) -> Pulled {
        let Some(room) = self.room.upgrade() else { return Pulled::Done };
        let Some(owed) = room.owed(self) else { return Pulled::Done };
        let steps = self.steps(&owed);
        let pushed = room.push_steps(self, &steps, push);
        steps.iter().take(pushed.unwrap_or(0)).for_each(|step| self.reach(step));
        let is_done = match (pushed, owed.end) {
            // The member has left, or another reader has taken over.
            (None, _) => true,
            (Some(count), Some(end)) if count == steps.len() => {
                self.cursor = end;
                room.rejoin(self)
            }
            (Some(_), _) => false,
        };
        // These may be the last handles to their payloads.
        dispose((steps, owed));
        if is_done { Pulled::Done } else { Pulled::More }
    }
}

impl Room {
    /// Pushes steps until one does not fit and returns how many were pushed. `None` if the reader's ticket is no longer
    /// valid.
    ///
    /// The ticket is checked and the frames are pushed under one read lock: a member cannot leave and rejoin in
    /// between, so no frame reaches it twice.
    fn push_steps(&self, reader: &Reader, steps: &[Step], push: &mut dyn FnMut(&Encoded) -> bool) -> Option<usize> {
        let state = self.state.read();
        let memory = state.memory.as_ref()?;
        if !memory.has_ticket(reader.stream, reader.place, reader.ticket) {
            return None;
        }
        Some(steps.iter().take_while(|step| step.frame.as_ref().is_none_or(&mut *push)).count())
    }

    /// Returns what the reader gets next, at most a batch. `None` if its ticket is no longer valid.
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
