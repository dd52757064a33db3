//! This node's copies of rooms with a shared history: each mirrors the store's entries in the store's order.

use std::sync::Arc;

use super::Hub;
use super::behind::Reader;
use super::memory::{Mirror, Stream};
use super::room::{Room, RoomState};
use crate::client_id::ClientId;
use crate::guard::dispose;
use crate::history::{Bounds, Epoch, Gap, Position, Publication, Publish, Stored, Subject, decode_entry};
use crate::lock::assert_no_lock_held;
use crate::message::Message;
use crate::outbox::Outbox;

/// The result of applying an entry of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// The entry is recorded, or was recorded before, or does not concern this node.
    Done,
    /// Earlier entries are missing on this node.
    Early,
    /// This node has another epoch of the room.
    OtherEpoch,
}

/// The work that follows when a room's history is replaced. It must be done without the room's lock.
#[derive(Debug, Default)]
struct Restarted {
    outboxes: Vec<Arc<Outbox>>,
    /// The gap of each member.
    gaps: Vec<(ClientId, Gap)>,
    fallen: Vec<Publication>,
}

impl RoomState {
    pub(super) fn mirror(&self) -> Mirror {
        self.memory.as_ref().map_or(Mirror::Unread, |memory| memory.mirror)
    }
}

impl Room {
    /// How much of the room a store keeps; `None` if the room has no history.
    pub(super) fn bounds(&self) -> Option<Bounds> {
        let state = self.state.read();
        let options = &state.memory.as_ref()?.options;
        Some(Bounds { messages: options.messages, age: options.age, linger: options.linger.max(options.age) })
    }

    /// Replaces the room's history. Every member gets a gap and continues with the held entries. The caller holds the
    /// room's lock.
    fn restart(self: &Arc<Self>, state: &mut RoomState, stored: &Stored, mirror: Mirror) -> Restarted {
        let mut restarted = Restarted::default();
        let Some(memory) = &mut state.memory else { return restarted };
        let Some(ring) = &mut memory.history else { return restarted };
        let now = memory.clock.now();
        let epoch = stored.position.epoch();
        restarted.fallen = ring.restart(Position::new(epoch, stored.position.offset() - stored.entries.len() as u64));
        for (offset, entry) in &stored.entries {
            restarted.fallen.extend(ring.append(self.publication(Position::new(epoch, *offset), entry), now));
        }
        let cursor = ring.first_held() - 1;
        (memory.mirror, memory.used) = (mirror, now);
        for member in state.roster.members() {
            let gap = Gap::new(Arc::clone(&self.name), epoch, None, cursor);
            let intro = member.client.frame_kind().format.gap(&gap);
            let ticket = memory.behind(Stream::History).add(&member.outbox);
            let reader = Reader::new(ticket, self, Stream::History, &member.client, cursor).with_intro(intro);
            member.outbox.fall_behind(Box::new(reader), false);
            restarted.outboxes.push(Arc::clone(&member.outbox));
            restarted.gaps.push((member.client.id(), gap));
        }
        restarted
    }

    fn publication(&self, position: Position, entry: &[u8]) -> Publication {
        // An entry that this version cannot read, written by another version of this crate, keeps its position.
        let publish = decode_entry(entry).unwrap_or_else(|| Publish::new(Message::text("")));
        Publication::new(&self.name, position, Subject::Message, publish)
    }
}

impl Hub {
    /// The shared rooms that this node has loaded or given an order of its own.
    pub(super) fn mirrored_rooms(&self) -> Vec<Arc<Room>> {
        let rooms: Vec<Arc<Room>> = self.inner().rooms.read().values().cloned().collect();
        rooms.into_iter().filter(|room| room.state.read().mirror() != Mirror::Unread).collect()
    }

    /// Replaces the room's history by the store's entries.
    pub(super) fn load_stored(&self, room: &Arc<Room>, stored: &Stored) {
        let restarted = {
            let _turn = room.sequence.write();
            room.restart(&mut room.state.write(), stored, Mirror::Shared)
        };
        self.finish_restart(room, restarted);
    }

    /// As [`load_stored`](Hub::load_stored), unless another thread has loaded the room in the meantime.
    pub(super) fn load_unread(&self, room: &Arc<Room>, stored: &Stored) {
        let restarted = {
            let _turn = room.sequence.write();
            let mut state = room.state.write();
            if state.mirror() != Mirror::Unread {
                return;
            }
            room.restart(&mut state, stored, Mirror::Shared)
        };
        self.finish_restart(room, restarted);
    }

    /// Gives the room an order of this node's own, under a new epoch.
    pub(super) fn go_local(&self, room: &Arc<Room>) {
        let restarted = {
            let _turn = room.sequence.write();
            let mut state = room.state.write();
            let before = match state.mirror() {
                Mirror::Local(_) => return,
                Mirror::Unread => None,
                Mirror::Shared => state.memory.as_ref().and_then(|m| Some(m.position(Stream::History)?.epoch())),
            };
            let stored = Stored { position: Position::new(Epoch::random(), 0), entries: Vec::new() };
            room.restart(&mut state, &stored, Mirror::Local(before))
        };
        self.finish_restart(room, restarted);
    }

    fn finish_restart(&self, room: &Arc<Room>, restarted: Restarted) {
        dispose(restarted.fallen);
        assert_no_lock_held();
        for outbox in &restarted.outboxes {
            outbox.flush();
        }
        // The keeper also counts the gaps.
        let keeper = self.keeper();
        for (client, gap) in restarted.gaps {
            keeper.tell_gap(client, gap);
        }
        self.after_use(room);
    }

    /// Records and delivers an entry that the store has reported, if it is the next one.
    pub(super) fn apply_told(&self, room: &Arc<Room>, position: Position, entry: &[u8]) -> Applied {
        let turn = room.sequence.write();
        let kinds = {
            let state = room.state.read();
            let Some(memory) = state.memory.as_ref().filter(|m| m.mirror == Mirror::Shared && !state.closed) else {
                return Applied::Done;
            };
            let Some(next) = memory.next_position(Stream::History) else { return Applied::Done };
            if next.epoch() != position.epoch() {
                return Applied::OtherEpoch;
            }
            match position.offset().cmp(&next.offset()) {
                std::cmp::Ordering::Less => return Applied::Done,
                std::cmp::Ordering::Greater => return Applied::Early,
                std::cmp::Ordering::Equal => memory.kinds(),
            }
        };
        let publication = room.publication(position, entry);
        let len = publication.message().len();
        let done = self.append_and_fan_out(room, publication, kinds);
        drop(turn);
        let queued = done.queued;
        self.finish_fan_out(done);
        self.count_sent(queued, len);
        self.after_use(room);
        Applied::Done
    }
}
