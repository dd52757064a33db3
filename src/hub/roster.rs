//! A set of clients that is cheap to change and cheap to broadcast to.

use std::collections::HashMap;
use std::sync::Arc;

use super::client::Client;
use crate::client_id::ClientId;
use crate::outbox::Outbox;

/// One recipient. The outbox is stored next to the client, so that a broadcast touches only outboxes.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) outbox: Arc<Outbox>,
    pub(super) client: Client,
}

impl Member {
    /// `None` when the client's connection has ended.
    pub(super) fn of(client: &Client) -> Option<Self> {
        Some(Self { outbox: client.outbox()?, client: client.clone() })
    }
}

/// The members at one moment. A broadcast iterates over it without a lock.
pub(super) type Snapshot = Arc<[Member]>;

/// Members, found by id, in joining order as far as removals preserve it. A snapshot is kept until the next change. So
/// a join or leave costs O(1), the first broadcast after a change O(n), and later broadcasts nothing.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: Vec<Member>,
    places: HashMap<ClientId, usize>,
    snapshot: Option<Snapshot>,
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&Client> {
        self.places.get(&id).map(|&at| &self.members[at].client)
    }

    pub(super) fn first(&self) -> Option<&Client> {
        self.members.first().map(|m| &m.client)
    }

    pub(super) fn contains(&self, id: ClientId) -> bool {
        self.places.contains_key(&id)
    }

    /// Returns false if the client is already a member or its connection has ended.
    pub(super) fn insert(&mut self, client: &Client) -> bool {
        if self.contains(client.id()) {
            return false;
        }
        let Some(member) = Member::of(client) else { return false };
        self.places.insert(client.id(), self.members.len());
        self.members.push(member);
        self.snapshot = None;
        true
    }

    /// Returns false if the client is not a member.
    pub(super) fn remove(&mut self, id: ClientId) -> bool {
        let Some(at) = self.places.remove(&id) else { return false };
        self.snapshot = None;
        self.members.swap_remove(at);
        if let Some(moved) = self.members.get(at) {
            self.places.insert(moved.client.id(), at);
        }
        self.give_back_memory();
        true
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn clients(&self) -> Vec<Client> {
        self.members.iter().map(|m| m.client.clone()).collect()
    }

    /// The snapshot, if the roster has not changed since.
    pub(super) fn cached(&self) -> Option<Snapshot> {
        self.snapshot.clone()
    }

    pub(super) fn snapshot(&mut self) -> Snapshot {
        self.snapshot.get_or_insert_with(|| Arc::from(self.members.as_slice())).clone()
    }

    /// Frees memory after many members have left.
    fn give_back_memory(&mut self) {
        if self.members.capacity() > 64 && self.members.len() < self.members.capacity() / 4 {
            let keep = self.members.len() * 2;
            self.members.shrink_to(keep);
            self.places.shrink_to(keep);
        }
    }
}
