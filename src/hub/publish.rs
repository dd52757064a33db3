//! Publishing to rooms with a history, and reading it.
//!
//! # Order
//!
//! A publisher takes the room's `sequence`, so that publishers of one room take turns. It looks up the next place, makes the
//! publication and the wire forms that the members read, all without the room's lock. Then, in one step under that lock,
//! the message is recorded and pushed to the queues of all members. Only then are sockets written to, without any lock.
//!
//! So the queue of each member has the offsets of the room in rising order without holes, whoever publishes, corked or
//! not: the pushes of one message are all made before those of the next. A join is atomic with publishing because it takes
//! the same lock: what is recorded before it is replayed, what is recorded after it is pushed, and nothing is both. The
//! lock is held for a push to each member, which is memory only; a slow peer costs it nothing.

use std::sync::Arc;
use std::time::Instant;

use super::Hub;
use super::fan_out::FanOut;
use super::memory::Stream;
use super::room::{Room, RoomState};
use super::target::{Delivery, Part, Target};
use crate::config::MAX_ROOM_NAME;
use crate::guard::dispose;
use crate::history::{Page, Position, Publication, Publish, Range, RoomOptions, Subject};
use crate::message::Message;
use crate::trace;

/// What came of [`Hub::publish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Published {
    /// What became of the message. Clients that are behind count as queued: they get it when it is their turn.
    pub delivery: Delivery,
    /// Its place in the history; `None` if the room has no history.
    pub position: Option<Position>,
}

impl Hub {
    /// Sends a message to a room and records it in the room's history, if it has one. Never blocks on a peer; for other
    /// publishers of the room, as long as pushing to the members' queues takes.
    ///
    /// Every member gets the messages of the room in one order, whoever publishes. The room need not have members: the
    /// message is recorded for who comes later. In a cluster the message is queued for the other nodes as well, each of
    /// which records it in a history of its own.
    ///
    /// ```
    /// # use wshub::{Hub, RoomOptions};
    /// let hub = Hub::builder().rooms("news", RoomOptions::history()).build()?;
    /// let published = hub.publish("news", "hello");
    /// assert_eq!(published.position, hub.position("news"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish(&self, room: &str, publish: impl Into<Publish>) -> Published {
        let publish = publish.into();
        if let Some(sharing) = self.sharing(room) {
            return sharing.publish(room, publish);
        }
        let target = Target::room(room).except_all(publish.except.iter().copied());
        let message = publish.message.clone();
        let Some((mut delivery, position)) = self.record(room, publish) else {
            // Only a send to one client can fail.
            return Published { delivery: self.send(target, message).unwrap_or_default(), position: None };
        };
        let span = trace::begin_send(|| target.to_string());
        if self.inner().link.is_some() {
            delivery.published = self.publish_elsewhere(&target, message);
        }
        span.sent(delivery.queued, delivery.dropped, delivery.refused, delivery.published);
        Published { delivery, position: Some(position) }
    }

    /// Whether rooms of this name remember anything: see [`HubBuilder::rooms`](crate::HubBuilder::rooms).
    pub fn remembers(&self, room: &str) -> bool {
        self.inner().patterns.find(room).is_some_and(|options| options.remembers())
    }

    /// The place behind the last message of the room's history. `None` if the room has no history, or nothing is
    /// remembered of it.
    pub fn position(&self, room: &str) -> Option<Position> {
        self.find_room(room)?.state.read().memory.as_ref()?.position(Stream::History)
    }

    /// Whether rooms of this name have a history, remembered or not yet begun.
    pub fn has_history(&self, room: &str) -> bool {
        self.inner().patterns.find(room).is_some_and(|options| options.history)
    }

    /// A part of the room's history. `None` if the room has no history, or nothing is remembered of it.
    pub fn history(&self, room: &str, range: Range) -> Option<Page> {
        if self.sharing(room).is_some() {
            self.before_use(&self.room_with(room, |options| options.shared)?);
        }
        let room = self.find_room(room)?;
        let (page, fallen) = {
            let mut state = room.state.write();
            let memory = state.memory.as_mut()?;
            let now = Instant::now();
            let fallen = memory.trim(now);
            memory.used = now;
            (memory.history.as_ref()?.page(range), fallen)
        };
        dispose(fallen);
        Some(page)
    }

    /// Forgets the messages of the room's history. Its position stays: who comes back with it has missed nothing. The
    /// position, or `None` as [`position`](Hub::position).
    pub fn clear_history(&self, room: &str) -> Option<Position> {
        if let Some(sharing) = self.sharing(room) {
            sharing.clear(self, room);
        }
        let room = self.find_room(room)?;
        let (position, fallen) = {
            let mut state = room.state.write();
            let ring = state.memory.as_mut()?.history.as_mut()?;
            (ring.position(), ring.clear())
        };
        dispose(fallen);
        Some(position)
    }

    /// Sends to the target as to a room with a history, if it is one.
    #[inline]
    pub(super) fn send_recorded(&self, target: &Target<'_>, message: &Message) -> Option<Delivery> {
        if self.inner().patterns.is_empty() {
            return None;
        }
        let Some(Part::Room(room)) = target.single() else { return None };
        let mut publish = Publish::new(message);
        publish.except.clone_from(&target.except);
        Some(self.record(room, publish)?.0)
    }

    /// Records and sends in this node's own order, whoever's the room otherwise has.
    pub(super) fn record_here(&self, name: &str, publish: Publish) -> Option<(Delivery, Position)> {
        self.record(name, publish)
    }

    /// Records and sends here. `None` if the room has no history.
    fn record(&self, name: &str, publish: Publish) -> Option<(Delivery, Position)> {
        let len = publish.message.len();
        let started = self.counts().then(Instant::now);
        let mut publish = Some(publish);
        let (done, position) = loop {
            let room = self.room_with(name, |options| options.history)?;
            match self.append(&room, &mut publish) {
                Some(done) => {
                    self.after_use(&room);
                    break done;
                }
                // It has just ended: there will be a new one.
                None => self.remove_closed(&room),
            }
        };
        let (queued, refused) = (done.queued, done.refused);
        let dropped = self.finish_fan_out(done);
        self.count_sent(queued, len);
        if let Some(started) = started {
            self.count(|m| m.record_broadcast_duration(started.elapsed()));
        }
        Some((Delivery { queued, dropped, refused, published: false }, position))
    }

    /// `None` if the room is closed; then nothing has been taken.
    fn append(&self, room: &Arc<Room>, publish: &mut Option<Publish>) -> Option<(FanOut, Position)> {
        let turn = room.sequence.write();
        let (position, kinds) = {
            let state = room.state.read();
            let memory = state.memory.as_ref().filter(|_| !state.closed)?;
            (memory.next_position(Stream::History)?, memory.kinds())
        };
        let publication = Publication::new(&room.name, position, Subject::Message, publish.take()?);
        let compressed = self.compressed();
        for kind in kinds {
            publication.frame(kind, compressed);
        }
        let mut state = room.state.write();
        // A room that closes after the look above has no members: what is published to it is forgotten with it.
        let fallen = state.append(publication.clone());
        let mut done = room.fan_out(&mut state, Stream::History, std::slice::from_ref(&publication), compressed);
        drop(state);
        drop(turn);
        done.fallen.extend(fallen);
        // Perhaps the last of its kind, if the history does not hold it: its payload is dropped without a lock.
        done.fallen.push(publication);
        Some((done, position))
    }

    /// The room, if its options are so, made if it does not exist.
    pub(super) fn room_with(&self, name: &str, is_so: impl Fn(&RoomOptions) -> bool) -> Option<Arc<Room>> {
        if let Some(room) = self.find_room(name) {
            let is_one = room.state.read().memory.as_ref().is_some_and(|memory| is_so(&memory.options));
            return is_one.then_some(room);
        }
        if name.is_empty() || name.len() > MAX_ROOM_NAME || !self.inner().patterns.find(name).is_some_and(|o| is_so(o))
        {
            return None;
        }
        Some(self.find_or_create(name))
    }
}

impl RoomState {
    pub(super) fn append(&mut self, publication: Publication) -> Vec<Publication> {
        let now = Instant::now();
        let Some(memory) = &mut self.memory else { return vec![publication] };
        memory.used = now;
        memory.history.as_mut().map_or_else(Vec::new, |ring| ring.append(publication, now))
    }
}
