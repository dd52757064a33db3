//! A hub's load, computed on demand: sending a message updates no counter for it.

use std::sync::{Arc, Weak};

use serde::Serialize;

use super::{Hub, Inner};
use crate::history::{Ring, RoomState};
use crate::outbox::Outbox;

/// The messages in a client's queue; see [`Client::queue_depth`](crate::Client::queue_depth).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct QueueDepth {
    /// The number of messages.
    pub messages: usize,
    /// Memory that they occupy, in bytes, as [`Config::queue_bytes`](crate::Config#structfield.queue_bytes) counts it.
    pub bytes: usize,
}

impl QueueDepth {
    pub(super) fn of(outbox: &Outbox) -> Self {
        let (messages, bytes) = outbox.depth();
        Self { messages, bytes }
    }
}

/// The messages that were dropped for a client; see [`Client::dropped`](crate::Client::dropped).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Dropped {
    /// The number of messages.
    pub messages: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
}

/// A hub's load at one moment; see [`Hub::load`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct HubLoad {
    /// Connected clients.
    pub clients: usize,
    /// Messages in the queues of all clients.
    pub queued_messages: usize,
    /// Memory that queued messages occupy, in bytes, as [`Config::queue_bytes`](crate::Config#structfield.queue_bytes)
    /// counts them.
    pub queued_bytes: usize,
    /// Clients with queued messages.
    pub waiting_clients: usize,
    /// Writer threads: one for each client whose socket has pushed back, or for every client with `eager_writers`.
    pub writer_threads: usize,
    /// Rooms with a history or state, with members or without.
    pub remembering_rooms: usize,
    /// Messages in their histories.
    pub history_messages: usize,
    /// Values in their states.
    pub state_values: usize,
    /// Bytes that histories and states hold.
    pub history_bytes: usize,
    /// Members of rooms with [`RoomOptions::members`](crate::RoomOptions::members), those of other nodes included; once
    /// for each room.
    pub members: usize,
    /// Calls to clients that wait for an answer, those of callers on other nodes included.
    pub pending_calls: usize,
    /// How many wire forms of publications were encoded since the hub was built: one for each message and form, however
    /// many clients get it.
    pub history_encodings: usize,
}

impl Hub {
    /// The current load. Visits every client, without a hub lock held. For scrapes and dashboards, not for hot paths.
    pub fn load(&self) -> HubLoad {
        let clients = self.everyone();
        let mut load = HubLoad { clients: clients.len(), ..HubLoad::default() };
        for member in clients.iter() {
            let (messages, bytes) = member.outbox.depth();
            load.queued_messages += messages;
            load.queued_bytes += bytes;
            load.waiting_clients += usize::from(messages > 0);
            load.writer_threads += usize::from(member.outbox.has_writer());
            load.pending_calls += member.client.pending_calls();
        }
        load.members = self.member_counts().values().sum();
        self.add_memory(&mut load);
        load
    }

    /// The room's messages, values and bytes; `None` if it has neither history nor state.
    #[cfg(feature = "dashboard")]
    pub(crate) fn remembered(&self, room: &str) -> Option<(usize, usize, usize)> {
        let room = self.find_room(room)?;
        let state = room.state.read();
        let memory = state.memory.as_ref()?;
        let messages = memory.history.as_ref().map_or(0, Ring::len);
        Some((messages, memory.state.as_ref().map_or(0, RoomState::len), memory.bytes()))
    }

    fn add_memory(&self, load: &mut HubLoad) {
        load.history_bytes = self.inner().held.bytes();
        load.history_encodings = self.inner().held.encodings();
        if self.inner().patterns.is_empty() {
            return;
        }
        let rooms: Vec<_> = self.inner().rooms.read().values().cloned().collect();
        for room in rooms {
            let state = room.state.read();
            let Some(memory) = &state.memory else { continue };
            load.remembering_rooms += 1;
            load.history_messages += memory.history.as_ref().map_or(0, Ring::len);
            load.state_values += memory.state.as_ref().map_or(0, RoomState::len);
        }
    }

    /// Returns a handle that does not keep the hub alive.
    pub(crate) fn downgrade(&self) -> WeakHub {
        WeakHub(Arc::downgrade(&self.0))
    }
}

/// A handle that does not keep its hub alive, for values that the hub itself holds.
#[derive(Clone)]
pub(crate) struct WeakHub(Weak<Inner>);

impl WeakHub {
    pub(super) fn of(inner: &Weak<Inner>) -> Self {
        Self(Weak::clone(inner))
    }

    /// The hub, if it still exists.
    pub(crate) fn upgrade(&self) -> Option<Hub> {
        self.0.upgrade().map(Hub)
    }
}

impl std::fmt::Debug for WeakHub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WeakHub")
    }
}
