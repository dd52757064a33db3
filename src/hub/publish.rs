//! Publishing to rooms with a history, and reading it.
//!
//! # Order
//!
//! A publisher locks the room's `sequence`, so that publishers of one room take turns. It determines the next position
//! and makes the publication and the wire forms that the members need, without the room's lock. Then, in one step under
//! that lock, it records the message and pushes it to the queues of all members. Only then does it write to sockets,
//! without any lock.
//!
//! So each member's queue contains the room's offsets in rising order without holes, whichever thread publishes, corked
//! or not: all pushes of one message happen before those of the next. A join is atomic with publishing because it takes
//! the same lock: earlier messages are replayed, later messages are pushed, and no message is both. Under the lock, a
//! publication costs one push to memory for each member; a slow peer adds no delay.

use std::sync::Arc;
use std::time::Instant;

use super::Hub;
use super::fan_out::FanOut;
use super::memory::Stream;
use super::room::{Room, RoomState};
use super::target::{Delivery, Part, Target};
use crate::config::MAX_ROOM_NAME;
use crate::guard::dispose;
use crate::history::{FrameKind, Page, Position, Publication, Publish, Range, RoomOptions, Subject};
use crate::message::Message;
use crate::trace;

/// The result of [`Hub::publish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Published {
    /// The counts of the delivery. Clients that are behind count as queued: they get the message in turn.
    pub delivery: Delivery,
    /// The message's position in the history; `None` if the room has no history.
    pub position: Option<Position>,
}

impl Hub {
    /// Sends a message to a room and records it in the room's history, if it has one. Never blocks on a peer, but waits
    /// for other publishers of the room while they push to the members' queues.
    ///
    /// Every member gets the room's messages in one order, whichever thread publishes. The room need not have members:
    /// the message is recorded for later ones. In a cluster, the message is also queued for the other nodes, and each
    /// of them records it in its own history, unless the history is [shared](crate::RoomOptions::shared).
    ///
    /// ```
    /// # use wshub::{Hub, RoomOptions};
    /// let hub = Hub::builder().rooms("news", RoomOptions::history()).build()?;
    /// let published = hub.publish("news", "hello");
    /// assert_eq!(published.position, hub.position("news"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("pub/sub", "pubsub"))]
    pub fn publish(&self, room: &str, publish: impl Into<Publish>) -> Published {
        let publish = publish.into();
        if let Some(sharing) = self.sharing(room) {
            return sharing.publish(room, publish);
        }
        let target = Target::room(room).except_all(publish.except.iter().copied());
        let message = publish.message.clone();
        let Some((mut delivery, position)) = self.record(room, publish) else {
            // Only a send to a single client can fail.
            return Published { delivery: self.send(target, message).unwrap_or_default(), position: None };
        };
        let span = trace::begin_send(|| target.to_string());
        if self.is_in_cluster() {
            delivery.published = self.publish_elsewhere(&target, message);
        }
        span.sent(delivery.queued, delivery.dropped, delivery.refused, delivery.published);
        Published { delivery, position: Some(position) }
    }

    /// Whether rooms of this name remember anything: see [`HubBuilder::rooms`](crate::HubBuilder::rooms).
    pub fn remembers(&self, room: &str) -> bool {
        self.inner().patterns.find(room).is_some_and(|options| options.remembers())
    }

    /// The position of the last message in the room's history. `None` if the room has no history or the history does
    /// not exist yet.
    pub fn position(&self, room: &str) -> Option<Position> {
        self.find_room(room)?.state.read().memory.as_ref()?.position(Stream::History)
    }

    /// Whether rooms of this name have a history, even if it does not exist yet.
    pub fn has_history(&self, room: &str) -> bool {
        self.inner().patterns.find(room).is_some_and(|options| options.history)
    }

    /// Part of the room's history. `None` if the room has no history or the history does not exist yet.
    #[doc(alias("replay"))]
    pub fn history(&self, room: &str, range: Range) -> Option<Page> {
        if self.sharing(room).is_some() {
            self.before_use(&self.room_with(room, |options| options.shared)?);
        }
        let room = self.find_room(room)?;
        let (page, fallen) = {
            let mut state = room.state.write();
            let memory = state.memory.as_mut()?;
            let now = memory.clock.now();
            let fallen = memory.trim(now);
            memory.used = now;
            (memory.history.as_ref()?.page(range), fallen)
        };
        dispose(fallen);
        Some(page)
    }

    /// Deletes the messages in the room's history and returns its position, or `None` as for
    /// [`position`](Hub::position). The position stays valid: a client that rejoins with it has missed nothing.
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

    /// Sends to the target with recording, if the target is a room with a history.
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

    /// Records and sends in this node's own order, even if the store normally orders the room.
    #[cfg(feature = "cluster")]
    pub(super) fn record_here(&self, name: &str, publish: Publish) -> Option<(Delivery, Position)> {
        self.record(name, publish)
    }

    /// Records and sends on this node. `None` if the room has no history.
    fn record(&self, name: &str, publish: Publish) -> Option<(Delivery, Position)> {
        let len = publish.message.len();
        let started = self.counts().then(Instant::now);
        let mut publish = Some(publish);
        let (room, done, position) = loop {
            let room = self.room_with(name, |options| options.history)?;
            match self.append(&room, &mut publish) {
                Some((done, position)) => break (room, done, position),
                // The room has just ended; try again with a new one.
                None => self.remove_closed(&room),
            }
        };
        let (queued, refused) = (done.queued, done.refused);
        let dropped = self.finish_fan_out(done);
        // Not before the members are flushed: it may drop payloads, whose destructors are application code.
        self.after_use(&room);
        self.count_sent(queued, len);
        if let Some(started) = started {
            self.count(|m| m.record_broadcast_duration(started.elapsed()));
        }
        Some((Delivery { queued, dropped, refused, published: false }, position))
    }

    /// Returns `None` if the room is closed; nothing is recorded then.
    fn append(&self, room: &Arc<Room>, publish: &mut Option<Publish>) -> Option<(FanOut, Position)> {
        let turn = room.sequence.write();
        let (position, kinds) = {
            let state = room.state.read();
            let memory = state.memory.as_ref().filter(|_| !state.closed)?;
            (memory.next_position(Stream::History)?, memory.kinds())
        };
        let publication = Publication::new(&room.name, position, Subject::Message, publish.take()?);
        let done = self.append_and_fan_out(room, publication, kinds);
        drop(turn);
        Some((done, position))
    }

    /// Appends the publication to the room's history and queues it for the members. The caller holds the room's
    /// `sequence`, so that no other publication comes between, and passes the result to `finish_fan_out` without a
    /// lock.
    pub(super) fn append_and_fan_out(
        &self,
        room: &Arc<Room>,
        publication: Publication,
        kinds: Vec<FrameKind>,
    ) -> FanOut {
        // Encoded before the lock on the state, which joins and leaves wait for.
        let compressed = self.compressed();
        for kind in kinds {
            publication.frame(kind, compressed);
        }
        let mut state = room.state.write();
        // A room that has closed since the caller's check has no members, so this publication is dropped with the room.
        let fallen = state.append(publication.clone());
        let mut done = room.fan_out(&mut state, Stream::History, std::slice::from_ref(&publication), compressed);
        drop(state);
        done.fallen.extend(fallen);
        // This may be the last handle if the history does not hold the message, so its payload is dropped without a
        // lock.
        done.fallen.push(publication);
        done
    }

    /// Finds or creates the room, if its options match.
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
        let Some(memory) = &mut self.memory else { return vec![publication] };
        let now = memory.clock.now();
        memory.used = now;
        memory.history.as_mut().map_or_else(Vec::new, |ring| ring.append(publication, now))
    }
}
