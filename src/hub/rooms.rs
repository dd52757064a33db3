//! The directory of rooms, joins and leaves.

use std::collections::HashMap;
use std::sync::Arc;

use super::Hub;
use super::client::Client;
use super::join::{Entered, Entry};
use super::names::RoomInfo;
use super::room::{Join, Room};
use super::telling::Ticket;
use crate::config::MAX_ROOM_NAME;
use crate::error::RoomError;

/// All rooms by name.
pub(super) type Directory = HashMap<Arc<str>, Arc<Room>>;

impl Hub {
    /// Adds the client to the room, which is created if it does not exist. The checks run in this order: the name is
    /// empty or too long, the client is not connected, the `before_room_join` hook refuses, the room is full, the
    /// client is already in the room, the client is in too many rooms. Then
    /// [`after_room_join`](crate::HubBuilder::after_room_join) runs on the calling thread. If another thread is running
    /// a hook for this client and room, one of the hub's threads reports the final state afterwards instead.
    ///
    /// # Errors
    ///
    /// The [`RoomError`] of the failed check. Nothing changes then.
    pub fn join(&self, client: &Client, room: &str) -> Result<(), RoomError> {
        self.join_from(client, room, None)?;
        Ok(())
    }

    /// Removes the client from the room: `before_room_leave`, the removal and `after_room_leave` run on the calling
    /// thread, with the exception described at [`join`](Hub::join). A room without members ends, unless it has a
    /// history or state.
    ///
    /// # Errors
    ///
    /// [`RoomError::EmptyName`], [`RoomError::NotFound`] or [`RoomError::NotJoined`]; no hook has run then, except
    /// perhaps `before_room_leave` if another thread removed the client at the same time.
    pub fn leave(&self, client: &Client, room: &str) -> Result<(), RoomError> {
        if room.is_empty() {
            return Err(RoomError::EmptyName);
        }
        let found = self.find_room(room).ok_or(RoomError::NotFound)?;
        if !found.contains(client) {
            return Err(RoomError::NotJoined);
        }
        self.leave_found(client, &found)
    }

    /// Removes the client from all its rooms and runs the hooks for each.
    pub fn leave_all(&self, client: &Client) {
        for room in self.rooms_of(client) {
            // Another thread may have removed the client from this room already.
            let _ = self.leave_found(client, &room);
        }
    }

    /// The number of rooms that have clients. O(n): for dashboards, not for hot paths.
    pub fn room_count(&self) -> usize {
        self.rooms().len()
    }

    /// The number of clients in the room; 0 if it does not exist.
    pub fn room_size(&self, room: &str) -> usize {
        self.find_room(room).map_or(0, |r| r.len())
    }

    /// The room's clients; empty if it does not exist.
    pub fn room_clients(&self, room: &str) -> Vec<Client> {
        self.find_room(room).map_or_else(Vec::new, |r| r.clients())
    }

    /// Whether the room has members.
    pub fn room_exists(&self, room: &str) -> bool {
        self.room_size(room) > 0
    }

    /// The names of all rooms that have clients, in no particular order.
    pub fn room_names(&self) -> Vec<Arc<str>> {
        self.rooms().into_iter().map(|room| room.name).collect()
    }

    /// All rooms that have clients, in no particular order. O(n): for dashboards, not for hot paths.
    pub fn rooms(&self) -> Vec<RoomInfo> {
        let rooms: Vec<_> = self.inner().rooms.read().values().cloned().collect();
        let infos = rooms.iter().map(|room| RoomInfo { name: Arc::clone(&room.name), clients: room.len() });
        infos.filter(|room| room.clients > 0).collect()
    }

    pub(super) fn find_room(&self, name: &str) -> Option<Arc<Room>> {
        self.inner().rooms.read().get(name).cloned()
    }

    /// The client's rooms. Each is in the directory while the client is a member.
    fn rooms_of(&self, client: &Client) -> Vec<Arc<Room>> {
        client.rooms().iter().filter_map(|name| self.find_room(name)).collect()
    }

    /// Joins a room. The caller must run the hook if it gets a ticket, and must [`settle`](Hub::settle) the entry.
    pub(super) fn join_entering(
        &self,
        client: &Client,
        name: &str,
        entry: Entry,
    ) -> Result<(Option<Ticket>, Entered), RoomError> {
        if name.is_empty() {
            return Err(RoomError::EmptyName);
        }
        if name.len() > MAX_ROOM_NAME {
            return Err(RoomError::NameTooLong);
        }
        if client.state().read().gone || client.hub() != self {
            return Err(RoomError::ClientNotFound);
        }
        if let Some(hook) = &self.hooks().before_room_join {
            let verdict = self.guarded(Some(client), "before_room_join", || hook(client, name));
            verdict.unwrap_or_else(|| Err("the hook panicked".into())).map_err(RoomError::Refused)?;
        }
        loop {
            let room = self.find_or_create(name);
            self.before_use(&room);
            match room.join(client, &self.inner().limits, |state| room.enter(state, client, entry)) {
                Join::Joined(ticket, entered) => {
                    self.watch_members(name);
                    return Ok((ticket, entered));
                }
                // The last member has just left: `remove_closed` or `find_or_create` replaces the room.
                Join::Closed => {}
                Join::Refused(error) => {
                    self.remove_closed(&room);
                    return Err(error);
                }
            }
        }
    }

    /// Leaves a room whose join was never reported, because the upgrade is refused. The leave is not reported either.
    pub(super) fn leave_untold(&self, client: &Client, ticket: Ticket) {
        if let Ticket::Room { room, .. } = &ticket {
            if let Some(room) = self.find_room(room) {
                // Another thread may have removed the client already.
                let left = room.leave(client);
                self.remove_closed(&room);
                self.after_use(&room);
                self.watch_members(&room.name);
                debug_assert!(!matches!(left, Ok(Some(_))), "the ticket is here");
            }
        }
        self.tell(Some(ticket));
    }

    fn leave_found(&self, client: &Client, room: &Arc<Room>) -> Result<(), RoomError> {
        self.run_room_hook(&self.hooks().before_room_leave, "before_room_leave", client, &room.name);
        let left = room.leave(client);
        self.remove_closed(room);
        self.after_use(room);
        self.watch_members(&room.name);
        self.tell(left?);
        Ok(())
    }

    /// The only place that creates rooms. Replaces a closed room that is still listed.
    pub(super) fn find_or_create(&self, name: &str) -> Arc<Room> {
        if let Some(room) = self.find_room(name).filter(|r| !r.is_closed()) {
            return room;
        }
        let mut directory = self.inner().rooms.write();
        let listed = directory.get(name).cloned();
        if let Some(room) = listed.as_ref().filter(|r| !r.is_closed()) {
            return Arc::clone(room);
        }
        let room = Arc::new(match self.inner().patterns.find(name).filter(|options| options.remembers()) {
            Some(options) => Room::remembering(name, Arc::clone(options), &self.inner().held, &self.inner().clock),
            None => Room::new(name),
        });
        directory.insert(Arc::clone(&room.name), Arc::clone(&room));
        drop(directory);
        if listed.is_some() {
            self.count(|m| m.decrement_rooms());
        }
        self.count(|m| m.increment_rooms());
        room
    }

    /// The only place that removes rooms. A concurrent join that finds the room closed tries again with a new one.
    pub(super) fn remove_closed(&self, room: &Arc<Room>) {
        if !room.is_closed() {
            return;
        }
        let mut directory = self.inner().rooms.write();
        let is_listed = directory.get(&room.name).is_some_and(|listed| Arc::ptr_eq(listed, room));
        if is_listed {
            directory.remove(&room.name);
            give_back_memory(&mut directory);
        }
        drop(directory);
        if is_listed {
            self.count(|m| m.decrement_rooms());
        }
    }
}

/// Shrinks the directory after many rooms have ended.
fn give_back_memory(directory: &mut Directory) {
    if directory.capacity() > 64 && directory.len() < directory.capacity() / 8 {
        directory.shrink_to(directory.len() * 2);
    }
}
