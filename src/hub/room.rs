//! One room: its members, behind its own lock.

use std::sync::Arc;

use super::client::Client;
use super::roster::{Roster, Snapshot};
use super::telling::Ticket;
use crate::config::{Limits, reached};
use crate::error::RoomError;
use crate::lock::{Ranked, rank};

/// A named group of clients. It exists while it has members.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: Arc<str>,
    state: Ranked<{ rank::ROOM }, State>,
}

#[derive(Debug, Default)]
struct State {
    roster: Roster,
    /// The last member has left: the room is being taken out of the directory, and a join must look there again.
    closed: bool,
}

/// What a [`Room::join`] came to.
pub(super) enum Join {
    /// The client is in; the ticket is missing when another thread has it.
    Joined(Option<Ticket>),
    Refused(RoomError),
    /// The room is closed; it must be replaced in the directory.
    Closed,
}

impl Room {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), state: Ranked::new(State::default()) }
    }

    /// Adds the client, in the room's list and in its own, under both locks. A room that stays without members, because
    /// its first join was refused, is closed.
    pub(super) fn join(&self, client: &Client, limits: &Limits) -> Join {
        let mut state = self.state.write();
        if state.closed {
            return Join::Closed;
        }
        let result = state.admit(&self.name, client, limits);
        state.closed = state.roster.is_empty();
        match result {
            Ok(ticket) => Join::Joined(ticket),
            Err(error) => Join::Refused(error),
        }
    }

    /// Removes the client from both lists. The last one closes the room. The ticket is missing when another thread has it.
    pub(super) fn leave(&self, client: &Client) -> Result<Option<Ticket>, RoomError> {
        let mut state = self.state.write();
        if !state.roster.remove(client.id()) {
            return Err(RoomError::NotJoined);
        }
        state.closed = state.roster.is_empty();
        let mut own = client.state().write();
        own.rooms.remove(&self.name);
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

    pub(super) fn snapshot(&self) -> Snapshot {
        let cached = self.state.read().roster.cached();
        cached.unwrap_or_else(|| self.state.write().roster.snapshot())
    }
}

impl State {
    /// The checks in the contract's order, then the change.
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
        let has_ticket = own.telling.changed(Arc::clone(name), None);
        Ok(has_ticket.then(|| Ticket::of_room(client, name)))
    }
}
