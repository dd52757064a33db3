//! One room: its members and what it remembers, behind its own lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::client::Client;
use super::memory::Memory;
use super::roster::{Member, Roster, Snapshot};
use super::telling::Ticket;
use crate::client_id::ClientId;
use crate::config::{Limits, reached};
use crate::error::RoomError;
use crate::history::{RoomOptions, Totals};
use crate::lock::{Ranked, rank};

/// A named group of clients. It exists while it has members; one that remembers, a while longer.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: Arc<str>,
    /// Held by the thread that publishes, from choosing a place until the message stands there: so wire forms that name the
    /// place are made without the room's lock.
    pub(super) sequence: Ranked<{ rank::SEQUENCE }, ()>,
    pub(super) state: Ranked<{ rank::ROOM }, RoomState>,
    /// Counts the turns of `Target::one_of`. Relaxed: it only spreads work.
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
pub(super) struct RoomState {
    pub(super) roster: Roster,
    /// `None` for most rooms.
    pub(super) memory: Option<Box<Memory>>,
    /// The last member has left and nothing is remembered: the room is being taken out of the directory, and a join must
    /// look there again.
    pub(super) closed: bool,
}

/// What a [`Room::join`] came to.
pub(super) enum Join<T> {
    /// The client is in; the ticket is missing when another thread has it.
    Joined(Option<Ticket>, T),
    Refused(RoomError),
    /// The room is closed; it must be replaced in the directory.
    Closed,
}

impl Room {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), sequence: Ranked::default(), state: Ranked::default(), turn: AtomicUsize::new(0) }
    }

    /// A room that remembers. `hub` counts the bytes of all of them.
    pub(super) fn remembering(name: &str, options: Arc<RoomOptions>, hub: &Arc<Totals>) -> Self {
        let memory = Some(Box::new(Memory::new(options, hub, Instant::now())));
        let state = RoomState { memory, ..RoomState::default() };
        Self { state: Ranked::new(state), ..Self::new(name) }
    }

    /// Adds the client, in the room's list and in its own, under both locks; `enter` follows under the room's. A room that
    /// stays without members, because its first join was refused, is closed.
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

    /// Removes the client from both lists. The last one closes the room. The ticket is missing when another thread has it.
    pub(super) fn leave(&self, client: &Client) -> Result<Option<Ticket>, RoomError> {
        let mut state = self.state.write();
        if !state.roster.remove(client.id()) {
            return Err(RoomError::NotJoined);
        }
        if let Some(memory) = &mut state.memory {
            memory.member_left(client, Instant::now());
        }
        state.close_if_over();
        let mut own = client.state().write();
        own.rooms.remove(&self.name);
        client.hub().member_left(client, &self.name, own.user.as_ref());
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

    /// The member whose turn it is, those left out that are closing or excepted.
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
        client.hub().member_joined(client, name, own.user.as_ref(), own.member.as_ref());
        let has_ticket = own.telling.changed(Arc::clone(name), None);
        Ok(has_ticket.then(|| Ticket::of_room(client, name)))
    }

    fn close_if_over(&mut self) {
        let lingers = self.memory.as_ref().is_some_and(|memory| !memory.options.linger.is_zero());
        self.closed = self.roster.is_empty() && !lingers;
    }
}
