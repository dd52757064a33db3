//! The state of a room: setting and removing values, and sending the changes to the members.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Hub;
use super::fan_out::FanOut;
use super::keeper::Job;
use super::memory::{Memory, Stream};
use super::room::Room;
use super::target::Delivery;
use crate::config::{MAX_ROOM_NAME, later};
use crate::guard::dispose;
use crate::history::{Publication, Publish, RoomState, StateError, Subject};
use crate::message::Message;

/// Overhead of a value besides its payload, wire forms included, in bytes. Memory for it is freed beforehand.
const MARGIN: usize = 4096;

/// A change of one key.
#[derive(Debug)]
struct Change<'a> {
    key: &'a str,
    /// `None` removes the value.
    value: Option<Message>,
    expires: Option<Instant>,
}

/// Why a change was not made.
enum NotDone {
    Error(StateError),
    /// There is no value to remove, or the value was replaced.
    Nothing,
    /// The room has just ended.
    Closed,
}

impl Hub {
    /// Sets the value of a key in the room's state and sends it to the members. The empty key is the room's "last
    /// value". Never blocks on a peer. Values belong to this node; a cluster does not share them.
    ///
    /// A member whose queue is not empty gets each changed key once, with its value at the time of writing. A joining
    /// client gets the whole state, and then the changes.
    ///
    /// # Errors
    ///
    /// [`StateError`]. Nothing changes then.
    #[doc(alias("retained", "last value"))]
    pub fn set(&self, room: &str, key: &str, value: impl Into<Message>) -> Result<Delivery, StateError> {
        self.set_value(room, key, value.into(), None)
    }

    /// Like [`set`](Hub::set), but removes the value after `ttl` unless it is set again. Members are told of the
    /// removal.
    ///
    /// # Errors
    ///
    /// As [`set`](Hub::set).
    pub fn set_for(
        &self,
        room: &str,
        key: &str,
        value: impl Into<Message>,
        ttl: Duration,
    ) -> Result<Delivery, StateError> {
        self.set_value(room, key, value.into(), Some(later(self.inner().clock.now(), ttl)))
    }

    /// Removes a value and tells the members. Returns false if there was none.
    pub fn unset(&self, room: &str, key: &str) -> bool {
        let Some(room) = self.find_room(room) else { return false };
        self.change(&room, &Change { key, value: None, expires: None }, |_| true).is_ok()
    }

    /// All values of the room's state, the least recently changed first. Each has its [`key`](Publication::key).
    pub fn state_of(&self, room: &str) -> Vec<Publication> {
        let Some(room) = self.find_room(room) else { return Vec::new() };
        let mut state = room.state.write();
        let Some(memory) = &mut state.memory else { return Vec::new() };
        memory.used = memory.clock.now();
        memory.state.as_ref().map_or_else(Vec::new, RoomState::values)
    }

    fn set_value(
        &self,
        name: &str,
        key: &str,
        value: Message,
        expires: Option<Instant>,
    ) -> Result<Delivery, StateError> {
        if name.is_empty() || name.len() > MAX_ROOM_NAME {
            return Err(StateError::InvalidRoom);
        }
        let len = value.len();
        let change = Change { key, value: Some(value), expires };
        loop {
            let room = self.room_with(name, |options| options.state).ok_or(StateError::NoState)?;
            self.make_room_for(&room, len + MARGIN);
            match self.change(&room, &change, |_| true) {
                Ok(delivery) => {
                    self.count_sent(delivery.queued, len);
                    self.after_use(&room);
                    return Ok(delivery);
                }
                Err(NotDone::Error(error)) => return Err(error),
                Err(NotDone::Closed | NotDone::Nothing) => self.remove_closed(&room),
            }
        }
    }

    /// Makes a change if `is_due` returns true under the room's lock.
    fn change(
        &self,
        room: &Arc<Room>,
        change: &Change<'_>,
        is_due: impl Fn(&Memory) -> bool,
    ) -> Result<Delivery, NotDone> {
        let turn = room.sequence.write();
        let (position, kinds) = {
            let state = room.state.read();
            let memory = state.memory.as_ref().filter(|_| !state.closed).ok_or(NotDone::Closed)?;
            let position = memory.next_position(Stream::State).ok_or(NotDone::Error(StateError::NoState))?;
            let has_value = memory.state.as_ref().is_some_and(|values| values.has(change.key));
            if change.value.is_none() && !has_value {
                return Err(NotDone::Nothing);
            }
            (position, if memory.options.at_most == 0 { memory.kinds() } else { Vec::new() })
        };
        let key = Arc::from(change.key);
        let subject = if change.value.is_some() { Subject::Value(key) } else { Subject::Removal(key) };
        // A copy: if the room ends before the change is made, the caller makes the same change in the next room.
        let publish = Publish::new(change.value.clone().unwrap_or_else(|| Message::text("")));
        let publication = Publication::new(&room.name, position, subject, publish);
        let compressed = self.compressed();
        for kind in kinds {
            publication.frame(kind, compressed);
        }
        let made = self.apply(room, &publication, change.expires, is_due);
        drop(turn);
        let mut done = match made {
            Ok(done) => done,
            Err(why) => {
                // This may be the last handle, so it is dropped without a lock.
                dispose(publication);
                return Err(why);
            }
        };
        // The same, but its payload's destructor must not run before the members are flushed.
        done.fallen.push(publication);
        self.watch_expiry(room, change.expires);
        if let Some(at) = done.tick {
            self.keeper().schedule(at, Job::Tick(Arc::downgrade(room)));
        }
        let (queued, refused) = (done.queued, done.refused);
        let dropped = self.finish_fan_out(done);
        Ok(Delivery { queued, dropped, refused, published: false })
    }

    /// Called with the room's `sequence` held.
    fn apply(
        &self,
        room: &Arc<Room>,
        publication: &Publication,
        expires: Option<Instant>,
        is_due: impl Fn(&Memory) -> bool,
    ) -> Result<FanOut, NotDone> {
        let limit = self.limits().history_bytes;
        let state = &mut *room.state.write();
        let members = state.roster.len();
        let memory = state.memory.as_mut().filter(|_| !state.closed).ok_or(NotDone::Closed)?;
        if !is_due(memory) {
            return Err(NotDone::Nothing);
        }
        let values = memory.state.as_mut().ok_or(NotDone::Error(StateError::NoState))?;
        if !publication.is_removal() {
            if let Some(key) = publication.key() {
                values.check(key, publication.held()).map_err(NotDone::Error)?;
            }
            if limit != 0 && self.inner().held.bytes().saturating_add(publication.held()) > limit {
                return Err(NotDone::Error(StateError::TooLarge { limit }));
            }
        }
        let before = values.position().offset();
        let replaced = values.apply(publication, expires);
        memory.used = memory.clock.now();
        let at_most = memory.options.at_most;
        let mut done = if at_most == 0 {
            room.fan_out(state, Stream::State, std::slice::from_ref(publication), self.compressed())
        } else {
            let is_first = memory.ticking_from.replace(memory.ticking_from.unwrap_or(before)).is_none();
            let tick = is_first.then(|| memory.next_tick(at_most));
            FanOut::later(members, tick)
        };
        done.fallen.extend(replaced);
        Ok(done)
    }

    /// Schedules the keeper to check the room when the value expires.
    fn watch_expiry(&self, room: &Arc<Room>, expires: Option<Instant>) {
        let Some(at) = expires else { return };
        {
            let mut state = room.state.write();
            let Some(memory) = &mut state.memory else { return };
            if memory.expiry.is_some_and(|watched| watched <= at) {
                return;
            }
            memory.expiry = Some(at);
        }
        self.keeper().schedule(at, Job::Expire(Arc::downgrade(room)));
    }

    /// Removes expired values. Called by the keeper.
    pub(super) fn remove_expired(&self, room: &Arc<Room>) {
        let now = self.inner().clock.now();
        let expired = |memory: &Memory| memory.state.as_ref().and_then(|values| values.expired(now));
        loop {
            // Two statements, so that the lock is not held during the change.
            let key = room.state.read().memory.as_ref().and_then(|memory| expired(memory));
            let Some(key) = key else { break };
            let is_due = |memory: &Memory| expired(memory).as_deref() == Some(&*key);
            match self.change(room, &Change { key: &key, value: None, expires: None }, is_due) {
                // `Nothing`: the value has been set again in the meantime, or removed.
                Ok(_) | Err(NotDone::Nothing) => {}
                // The value stays, so another round would find it again.
                Err(NotDone::Closed | NotDone::Error(_)) => return,
            }
        }
        let next = {
            let mut state = room.state.write();
            let Some(memory) = &mut state.memory else { return };
            memory.expiry = memory.state.as_ref().and_then(RoomState::next_expiry);
            memory.expiry
        };
        if let Some(at) = next {
            self.keeper().schedule(at, Job::Expire(Arc::downgrade(room)));
        }
    }

    /// Sends the newest value of each key that has changed since the last time. Called by the keeper.
    pub(super) fn send_changes(&self, room: &Arc<Room>) {
        let turn = room.sequence.write();
        let (changes, kinds) = {
            let mut state = room.state.write();
            let Some(memory) = &mut state.memory else { return };
            memory.ticked = Some(memory.clock.now());
            let (Some(from), Some(values)) = (memory.ticking_from.take(), &memory.state) else { return };
            let changes: Vec<Publication> = values.after(from).cloned().collect();
            (changes, memory.kinds())
        };
        let compressed = self.compressed();
        for kind in kinds {
            changes.iter().for_each(|publication| drop(publication.frame(kind, compressed)));
        }
        let done = {
            let mut state = room.state.write();
            room.fan_out(&mut state, Stream::State, &changes, compressed)
        };
        drop(turn);
        self.finish_fan_out(done);
        dispose(changes);
    }
}
