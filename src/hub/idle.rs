//! Rooms with a history or state but without members: how long they live, and which are removed first when memory is
//! short.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::Hub;
use super::keeper::Job;
use super::room::Room;
use crate::config::later;
use crate::guard::dispose;

impl Hub {
    /// Called after a room was used: schedules its end if it has no members, and enforces the bound over all rooms.
    pub(super) fn after_use(&self, room: &Arc<Room>) {
        self.watch_idle(room);
        let limit = self.limits().history_bytes;
        if limit != 0 && self.inner().held.bytes() > limit {
            self.make_room(room, limit);
        }
    }

    /// Called before a value of this size is set: removes rooms without members to make space.
    pub(super) fn make_room_for(&self, room: &Arc<Room>, bytes: usize) {
        let limit = self.limits().history_bytes;
        if limit != 0 && self.inner().held.bytes().saturating_add(bytes) > limit {
            self.make_room(room, limit.saturating_sub(bytes));
        }
    }

    /// Makes the keeper end the room in time if it has no members.
    fn watch_idle(&self, room: &Arc<Room>) {
        let at = {
            let state = room.state.read();
            let is_idle = state.roster.is_empty() && !state.closed;
            let Some(memory) = state.memory.as_ref().filter(|memory| is_idle && !memory.is_lingering) else { return };
            later(memory.used, memory.options.linger)
        };
        if let Some(memory) = room.state.write().memory.as_mut().filter(|memory| !memory.is_lingering) {
            memory.is_lingering = true;
        } else {
            return;
        }
        self.keeper().schedule(at, Job::Linger(Arc::downgrade(room)));
    }

    /// Ends the room if its time without members is over. Called by the keeper.
    pub(super) fn end_if_idle(&self, room: &Arc<Room>) {
        let again = {
            let mut state = room.state.write();
            let is_empty = state.roster.is_empty();
            let Some(memory) = &mut state.memory else { return };
            let end = later(memory.used, memory.options.linger);
            memory.is_lingering = is_empty && memory.clock.now() < end;
            let again = memory.is_lingering.then_some(end);
            state.closed = is_empty && again.is_none();
            again
        };
        match again {
            Some(at) => self.keeper().schedule(at, Job::Linger(Arc::downgrade(room))),
            None => self.remove_closed(room),
        }
    }

    /// Called when all rooms together hold too much. Removes rooms without members, the least recently used first,
    /// until an eighth is free, so that the search is rare. If that is not enough, the given room drops its oldest
    /// messages.
    #[cold]
    fn make_room(&self, room: &Arc<Room>, limit: usize) {
        let rooms: Vec<_> = self.inner().rooms.read().values().cloned().collect();
        // A heap, because only the first few are needed.
        let mut idle: BinaryHeap<_> = rooms
            .iter()
            .enumerate()
            .filter(|(_, other)| !Arc::ptr_eq(other, room))
            .filter_map(|(index, other)| {
                let state = other.state.read();
                let memory = state.memory.as_ref().filter(|_| state.roster.is_empty() && !state.closed)?;
                Some(Reverse((memory.used, index)))
            })
            .collect();
        let target = limit - limit / 8;
        let is_over = |limit: usize| self.inner().held.bytes() > limit;
        while is_over(target) {
            let Some(Reverse((_, index))) = idle.pop() else { break };
            self.evict(&rooms[index]);
        }
        while is_over(limit) {
            let oldest = {
                let mut state = room.state.write();
                state.memory.as_mut().and_then(|memory| memory.history.as_mut()?.drop_oldest())
            };
            if oldest.is_none() {
                break;
            }
            dispose(oldest);
        }
    }

    fn evict(&self, room: &Arc<Room>) {
        let memory = {
            let mut state = room.state.write();
            if !state.roster.is_empty() || state.closed {
                return;
            }
            state.closed = true;
            state.memory.take()
        };
        dispose(memory);
        self.remove_closed(room);
        self.count(|m| m.increment_history_evictions());
    }
}
