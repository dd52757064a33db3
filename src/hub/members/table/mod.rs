//! The members of one room: those connected here, those that other nodes have reported, and what has been announced of
//! both. A plain data structure.

#[cfg(feature = "cluster")]
mod nodes;
#[cfg(not(feature = "cluster"))]
#[path = "no_nodes.rs"]
mod nodes;

#[cfg(feature = "cluster")]
pub(in crate::hub) use nodes::List;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::change::{Member, MemberChange};
use crate::client_id::ClientId;
use nodes::Nodes;

/// JSON text.
pub(in crate::hub) type Json = Arc<str>;

/// What one node reports of a member: its metadata, or that it has left.
pub(in crate::hub) type Reported = Option<Option<Json>>;

/// The members of one room; see the module's documentation.
#[derive(Debug, Default)]
pub(in crate::hub) struct Table {
    here: BTreeMap<Arc<str>, Here>,
    /// The members last reported to hooks and clients. They differ from the current ones only in the keys of `dirty`.
    told: HashMap<Arc<str>, Option<Json>>,
    /// The keys of changed members, in the order of their changes.
    dirty: Vec<Arc<str>>,
    nodes: Nodes,
    /// The keeper has a job for this room.
    pub(in crate::hub) is_watched: bool,
    /// When the next member's linger ends.
    wake: Option<Instant>,
    /// When changes were last reported.
    pub(in crate::hub) flushed: Option<Instant>,
}

/// A member with connections to this node, or one that lingers after its last connection.
#[derive(Debug, Default)]
struct Here {
    /// The connections with their metadata, the latest change last.
    connections: Vec<(ClientId, Option<Json>)>,
    /// After the last connection: the metadata, and when the linger ends.
    lingers: Option<(Option<Json>, Instant)>,
}

impl Here {
    fn metadata(&self) -> Option<Json> {
        let of_connections = self.connections.iter().rev().find_map(|(_, metadata)| metadata.clone());
        of_connections.or_else(|| self.lingers.as_ref().and_then(|(metadata, _)| metadata.clone()))
    }
}

impl Table {
    /// Adds a connection of the member.
    pub(in crate::hub) fn join(&mut self, key: &Arc<str>, client: ClientId, metadata: Option<Json>) {
        let here = self.here.entry(Arc::clone(key)).or_default();
        here.connections.push((client, metadata));
        here.lingers = None;
        self.changed_here(key);
    }

    /// Removes a connection of the member. After the last one, the member stays for `linger`.
    pub(in crate::hub) fn leave(&mut self, key: &Arc<str>, client: ClientId, linger: Duration, now: Instant) {
        let Some(here) = self.here.get_mut(key) else { return };
        let metadata = here.metadata();
        here.connections.retain(|(id, _)| *id != client);
        if here.connections.is_empty() {
            if linger.is_zero() {
                self.here.remove(key);
            } else {
                here.lingers = Some((metadata, now + linger));
            }
        }
        self.changed_here(key);
    }

    /// Changes the metadata of a connection of the member.
    pub(in crate::hub) fn update(&mut self, key: &Arc<str>, client: ClientId, metadata: Option<Json>) {
        let Some(here) = self.here.get_mut(key) else { return };
        here.connections.retain(|(id, _)| *id != client);
        here.connections.push((client, metadata));
        self.changed_here(key);
    }

    /// Removes members whose linger has ended. Returns when the next one ends.
    pub(in crate::hub) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let is_over = |here: &Here| here.lingers.as_ref().is_some_and(|(_, until)| *until <= now);
        let over: Vec<Arc<str>> =
            self.here.iter().filter(|(_, here)| is_over(here)).map(|(key, _)| key.clone()).collect();
        for key in over {
            self.here.remove(&key);
            self.changed_here(&key);
        }
        self.here.values().filter_map(|here| here.lingers.as_ref()).map(|(_, until)| *until).min()
    }

    /// Removes members whose linger has ended. Returns when to do so again, unless a job for that time exists.
    pub(in crate::hub) fn next_wake(&mut self, now: Instant) -> Option<Instant> {
        self.wake = self.wake.filter(|wake| *wake > now);
        let next = self.expire(now)?;
        if self.wake.is_some_and(|wake| wake <= next) {
            return None;
        }
        self.wake = Some(next);
        Some(next)
    }

    fn changed_here(&mut self, key: &Arc<str>) {
        self.nodes.note(key);
        self.changed(key);
    }

    fn changed(&mut self, key: &Arc<str>) {
        self.dirty.push(Arc::clone(key));
    }

    /// Whether there are unreported changes.
    pub(in crate::hub) fn has_news(&self) -> bool {
        !self.dirty.is_empty() || self.nodes.wait_for_news()
    }

    /// Whether the table holds nothing that must be kept.
    pub(in crate::hub) fn is_over(&self) -> bool {
        self.here.is_empty() && self.nodes.have_no_members() && self.told.is_empty() && !self.has_news()
    }

    /// The member's current metadata, over all nodes. If several nodes have metadata, every node chooses the same.
    fn is(&self, key: &str) -> Reported {
        let here = self.here.get(key).map(Here::metadata);
        here.into_iter().chain(self.nodes.metadata_of(key)).max()
    }

    /// The number of members, over all nodes.
    pub(in crate::hub) fn count(&self) -> usize {
        if self.nodes.have_no_members() { self.here.len() } else { self.list().len() }
    }

    /// All members, over all nodes.
    pub(in crate::hub) fn list(&self) -> Vec<Member> {
        let keys: BTreeSet<&Arc<str>> = self.here.keys().chain(self.nodes.keys()).collect();
        let member = |key: &Arc<str>| Member { id: Arc::clone(key), metadata: self.is(key).flatten() };
        keys.into_iter().map(member).collect()
    }

    /// Takes the changes since the last call, in order, at most one for each member.
    pub(in crate::hub) fn take_changes(&mut self) -> Vec<MemberChange> {
        let mut changes = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            let is = self.is(&key);
            let member = |metadata: &Option<Json>| Member { id: Arc::clone(&key), metadata: metadata.clone() };
            match (self.told.get(&key), &is) {
                (None, Some(metadata)) => changes.push(MemberChange::Joined(member(metadata))),
                (Some(metadata), None) => changes.push(MemberChange::Left(member(metadata))),
                (Some(before), Some(metadata)) if before != metadata => {
                    changes.push(MemberChange::Updated { member: member(metadata), before: before.clone() });
                }
                _ => continue,
            }
            match is {
                Some(metadata) => _ = self.told.insert(key, metadata),
                None => _ = self.told.remove(&key),
            }
        }
        changes
    }
}

#[cfg(all(test, feature = "cluster"))]
#[path = "table_tests.rs"]
mod tests;
