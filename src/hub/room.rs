//! A room: its members, history and state, behind its own lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::client::Client;
use super::clock::Clock;
use super::memory::Memory;
use super::roster::{Member, Roster, Snapshot};
use super::telling::Ticket;
use crate::client_id::ClientId;
use crate::config::{Limits, reached};
use crate::error::RoomError;
use crate::history::{RoomOptions, Totals};
use crate::lock::{Ranked, rank};

/// A named group of clients. It exists while it has members; with a history or state, for some time longer.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: Arc<str>,
    /// A publishing thread holds this lock from choosing a position until the message is recorded. So it can make wire
    /// forms that contain the position without the room's lock.
    pub(super) sequence: Ranked<{ rank::SEQUENCE }, ()>,
    pub(super) state: Ranked<{ rank::ROOM }, RoomState>,
    /// Counts the turns of `Target::one_of`. Relaxed: it only spreads work.
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
pub(super) struct RoomState {
    pub(super) roster: Roster,
    /// The history and state; `None` for most rooms.
    pub(super) memory: Option<Box<Memory>>,
    /// The last member has left and the room keeps nothing. The room is being removed from the directory, and a join
    /// must look there again.
    pub(super) closed: bool,
}

/// The result of [`Room::join`].
pub(super) enum Join<T> {
    /// The client is in the room. The ticket is missing if another thread has it.
    Joined(Option<Ticket>, T),
    Refused(RoomError),
    /// The room is closed; it must be replaced in the directory.
    Closed,
}

impl Room {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), sequence: Ranked::default(), state: Ranked::default(), turn: AtomicUsize::new(0) }
    }

    /// Creates a room with a history or state. `hub` counts the bytes of all such rooms.
    pub(super) fn remembering(name: &str, options: Arc<RoomOptions>, hub: &Arc<Totals>, clock: &Clock) -> Self {
        let memory = Some(Box::new(Memory::new(options, hub, clock)));
        let state = RoomState { memory, ..RoomState::default() };
        Self { state: Ranked::new(state), ..Self::new(name) }
    }

    /// Adds the client to the room's list and the room to the client's list, under both locks. `enter` then runs under
    /// the room's lock. A room whose first join is refused has no members and is closed.
    pub(super) fn join<T>(&self, client: &Client, limits: &Limits, enter: impl FnOnce(&mut RoomState) -> T) -> Join<T> {
        let mut state = self.state.write();
        if state.closed {
            return Join::Closed;
        }
        let result = state.admit(&self.name, client, limits);
        state.close_if_over();
        match result {
            Ok(ticket) => Join::Joined(ticket, enter(&mut state)),
            Err(error) => Join::Refused(error),
        }
    }

    /// Removes the client and the room from each other's lists. The last leave closes the room. The ticket is missing
    /// if another thread has it.
    pub(super) fn leave(&self, client: &Client) -> Result<Option<Ticket>, RoomError> {
        let mut state = self.state.write();
        if !state.roster.remove(client.id()) {
            return Err(RoomError::NotJoined);
        }
        if let Some(memory) = &mut state.memory {
            memory.member_left(client);
        }
        state.close_if_over();
        let mut own = client.state().write();
        own.rooms.remove(&self.name);
        client.hub().member_left(client, &self.name, own.user.as_ref());
        own.member_in.remove(&self.name);
        let has_ticket = own.telling.changed(Arc::clone(&self.name), Some(()));
        Ok(has_ticket.then(|| Ticket::of_room(client, &self.name)))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.read().closed
    }

    pub(super) fn len(&self) -> usize {
        self.state.read().roster.len()
    }

    pub(super) fn contains(&self, client: &Client) -> bool {
        self.state.read().roster.contains(client.id())
    }

    pub(super) fn clients(&self) -> Vec<Client> {
        self.state.read().roster.clients()
    }

    /// The next member in turn, without closing or excepted members.
    pub(super) fn next_member(&self, except: &[ClientId]) -> Option<Member> {
        let members = self.snapshot();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = members.iter().cycle().skip(turn % members.len().max(1)).take(members.len());
        let may = |member: &&Member| member.outbox.is_open() && !except.contains(&member.client.id());
        in_turn.into_iter().find(may).cloned()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let cached = self.state.read().roster.cached();
        cached.unwrap_or_else(|| self.state.write().roster.snapshot())
    }
}

impl RoomState {
    /// Runs the checks in the documented order, then makes the change.
    fn admit(&mut self, name: &Arc<str>, client: &Client, limits: &Limits) -> Result<Option<Ticket>, RoomError> {
        let mut own = client.state().write();
        if own.gone {
            return Err(RoomError::ClientNotFound);
        }
        if reached(limits.max_clients_per_room, self.roster.len()) {
            return Err(RoomError::Full);
        }
        if self.roster.contains(client.id()) {
            return Err(RoomError::AlreadyJoined);
        }
        if reached(limits.max_rooms_per_client, own.rooms.len()) {
            return Err(RoomError::TooManyRooms);
        }
        own.rooms.insert(Arc::clone(name));
        self.roster.insert(client);
        client.hub().member_joined(client, name, own.user.as_ref(), own.member_of(name));
        let has_ticket = own.telling.changed(Arc::clone(name), None);
        Ok(has_ticket.then(|| Ticket::of_room(client, name)))
    }

    fn close_if_over(&mut self) {
        let lingers = self.memory.as_ref().is_some_and(|memory| !memory.options.linger.is_zero());
        self.closed = self.roster.is_empty() && !lingers;
    }
}
