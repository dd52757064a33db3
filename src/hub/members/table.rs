//! The members of one room: those connected here, those that other nodes have told of, and what was told of both. A
//! plain data structure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::change::{Member, MemberChange};
use crate::client_id::ClientId;

/// JSON text.
pub(in crate::hub) type Json = Arc<str>;

/// What one node reports of a member: its metadata, or that it has left.
pub(in crate::hub) type Told = Option<Option<Json>>;

/// Members of a node, each with what is said of it.
type Listed<T> = Vec<(Arc<str>, T)>;

/// Members that are kept of one other node in one room.
const MAX_REMOTE: usize = 65_536;
/// Between two requests for the same list.
const PATIENCE: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug, Default)]
pub(in crate::hub) struct Table {
    here: BTreeMap<Arc<str>, Here>,
    elsewhere: BTreeMap<String, Remote>,
    /// What hooks and clients were told. Differs from the current members only in the keys of `dirty`.
    told: BTreeMap<Arc<str>, Option<Json>>,
    /// In the order of their changes.
    dirty: Vec<Arc<str>>,
    /// The version of what other nodes were told of `here`; 0: they were told nothing.
    version: u64,
    /// Changes of `here` that other nodes were not told of.
    untold: BTreeSet<Arc<str>>,
    /// Whether another node has asked for all of `here`.
    pub(in crate::hub) is_list_wanted: bool,
    /// Whether the keeper has a job for this room.
    pub(in crate::hub) is_watched: bool,
    /// When the keeper next removes a member that has lingered for long enough.
    wake: Option<Instant>,
    /// When changes were last reported.
    pub(in crate::hub) flushed: Option<Instant>,
}

/// A member with connections to this node, or one that lingers after its last connection.
#[derive(Debug, Default)]
struct Here {
    /// The connections with their metadata, the latest change last.
    connections: Vec<(ClientId, Option<Json>)>,
    /// The metadata that remain while no connection is left, and until when.
    lingers: Option<(Option<Json>, Instant)>,
}

impl Here {
    fn metadata(&self) -> Option<Json> {
        let of_connections = self.connections.iter().rev().find_map(|(_, metadata)| metadata.clone());
        of_connections.or_else(|| self.lingers.as_ref().and_then(|(metadata, _)| metadata.clone()))
    }
}

/// The members that another node has reported.
#[derive(Debug, Default)]
struct Remote {
    version: u64,
    members: BTreeMap<Arc<str>, Option<Json>>,
    /// An incomplete list.
    partial: Option<Partial>,
    asked: Option<Instant>,
}

#[derive(Debug)]
struct Partial {
    version: u64,
    of: u32,
    arrived: BTreeSet<u32>,
    members: BTreeMap<Arc<str>, Option<Json>>,
}

/// A list of all members of a node, or a part of it.
#[derive(Debug)]
pub(in crate::hub) struct List {
    pub(in crate::hub) version: u64,
    pub(in crate::hub) index: u32,
    pub(in crate::hub) of: u32,
    pub(in crate::hub) members: Vec<(String, Option<Json>)>,
}

impl Table {
    /// A connection of the member has come.
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

    /// A connection of the member has other metadata.
    pub(in crate::hub) fn update(&mut self, key: &Arc<str>, client: ClientId, metadata: Option<Json>) {
        let Some(here) = self.here.get_mut(key) else { return };
        here.connections.retain(|(id, _)| *id != client);
        here.connections.push((client, metadata));
        self.changed_here(key);
    }

    /// Ends members that have lingered for long enough, and says when the next one has.
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

    /// Ends members that have lingered for long enough, and says when to do so again unless that is known.
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
        self.untold.insert(Arc::clone(key));
        self.changed(key);
    }

    fn changed(&mut self, key: &Arc<str>) {
        self.dirty.push(Arc::clone(key));
    }

    /// Whether changes wait to be told, to anybody.
    pub(in crate::hub) fn has_news(&self) -> bool {
        !self.dirty.is_empty() || !self.untold.is_empty() || self.is_list_wanted
    }

    /// Nothing is left that would have to be remembered.
    pub(in crate::hub) fn is_over(&self) -> bool {
        self.here.is_empty() && self.elsewhere.is_empty() && self.told.is_empty() && !self.has_news()
    }

    /// The member as it is, over all nodes. Of several nodes' metadata one is chosen, the same on all nodes.
    fn is(&self, key: &str) -> Told {
        let here = self.here.get(key).map(Here::metadata);
        let elsewhere = self.elsewhere.values().filter_map(|node| node.members.get(key).cloned());
        here.into_iter().chain(elsewhere).max()
    }

    /// The number of members, over all nodes.
    pub(in crate::hub) fn count(&self) -> usize {
        if self.elsewhere.is_empty() { self.here.len() } else { self.list().len() }
    }

    /// All members, over all nodes.
    pub(in crate::hub) fn list(&self) -> Vec<Member> {
        let keys: BTreeSet<&Arc<str>> =
            self.here.keys().chain(self.elsewhere.values().flat_map(|node| node.members.keys())).collect();
        let member = |key: &Arc<str>| Member { id: Arc::clone(key), metadata: self.is(key).flatten() };
        keys.into_iter().map(member).collect()
    }

    /// The changes since they were last taken, one a member at most, in their order.
    pub(in crate::hub) fn take_changes(&mut self) -> Vec<MemberChange> {
        let mut changes = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            let is = self.is(&key);
            let member = |metadata: &Option<Json>| Member { id: Arc::clone(&key), metadata: metadata.clone() };
            match (self.told.get(&key), &is) {
                (None, Some(metadata)) => changes.push(MemberChange::Joined(member(metadata))),
                (Some(metadata), None) => changes.push(MemberChange::Left(member(metadata))),
                (Some(before), Some(metadata)) if before != metadata => {
                    changes.push(MemberChange::Updated(member(metadata)));
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

    /// The members here that have changed since other nodes were told; none if none has.
    pub(in crate::hub) fn take_untold(&mut self) -> Listed<Told> {
        let untold = std::mem::take(&mut self.untold);
        let told = |key: Arc<str>| {
            let is = self.here.get(&key).map(Here::metadata);
            (key, is)
        };
        untold.into_iter().map(told).collect()
    }

    /// Sets the version of what other nodes are told next. Returns the one before; 0: what they are told is all.
    pub(in crate::hub) fn tell(&mut self, version: u64) -> u64 {
        std::mem::replace(&mut self.version, version)
    }

    /// The version that other nodes were told last; 0 for none.
    pub(in crate::hub) fn version(&self) -> u64 {
        self.version
    }

    /// All members here, for another node that has asked.
    pub(in crate::hub) fn here(&self) -> Listed<Option<Json>> {
        self.here.iter().map(|(key, here)| (Arc::clone(key), here.metadata())).collect()
    }

    /// The version and the hash of the members here; `None` without any. Call it when everything has been told.
    pub(in crate::hub) fn digest(&self) -> Option<(u64, u64)> {
        let members = self.here.iter().map(|(key, here)| (&**key, here.metadata()));
        (!self.here.is_empty()).then(|| (self.version, hash(members)))
    }

    /// Changes of another node, from the version `since` to `version`. False if some before them have not come: the
    /// list is needed.
    pub(in crate::hub) fn hear_changes(
        &mut self,
        node: &str,
        since: u64,
        version: u64,
        changes: Vec<(String, Told)>,
    ) -> bool {
        let remote = self.elsewhere.entry(node.to_owned()).or_default();
        if version <= remote.version {
            return true;
        }
        if since == 0 {
            // The node begins, or this room begins anew there: nothing of what was known is left.
            self.dirty.extend(std::mem::take(&mut remote.members).into_keys());
        } else if since != remote.version {
            return false;
        }
        remote.version = version;
        for (key, told) in changes {
            let key: Arc<str> = key.into();
            match told {
                Some(metadata) if remote.members.len() < MAX_REMOTE => {
                    remote.members.insert(Arc::clone(&key), metadata);
                }
                Some(_) => {}
                None => _ = remote.members.remove(&key),
            }
            self.dirty.push(key);
        }
        true
    }

    /// A list of another node, or a part of one: it counts when all parts have come.
    pub(in crate::hub) fn hear_list(&mut self, node: &str, list: List) {
        let List { version, index, of, members } = list;
        let remote = self.elsewhere.entry(node.to_owned()).or_default();
        if version < remote.version {
            // Overtaken by changes.
            return;
        }
        let new = || Partial { version, of, arrived: BTreeSet::new(), members: BTreeMap::new() };
        let is_same = |partial: &Partial| (partial.version, partial.of) == (version, of);
        let mut partial = remote.partial.take().filter(is_same).unwrap_or_else(new);
        if index < of && partial.arrived.insert(index) && partial.members.len() < MAX_REMOTE {
            partial.members.extend(members.into_iter().map(|(key, metadata)| (Arc::from(key), metadata)));
        }
        if partial.arrived.len() < of as usize {
            remote.partial = Some(partial);
            return;
        }
        remote.version = version;
        remote.asked = None;
        let before = std::mem::replace(&mut remote.members, partial.members);
        let changed: Vec<Arc<str>> = {
            let after = &remote.members;
            let new = after.iter().filter(|(key, metadata)| before.get(*key) != Some(*metadata)).map(|(key, _)| key);
            let gone = before.keys().filter(|key| !after.contains_key(*key));
            new.chain(gone).cloned().collect()
        };
        self.dirty.extend(changed);
    }

    /// What another node says of its members in this room; `None`: it has none. Whether its list is to be asked for.
    pub(in crate::hub) fn hear_digest(&mut self, node: &str, digest: Option<(u64, u64)>, now: Instant) -> bool {
        let Some((version, wanted)) = digest else {
            self.forget_node(node);
            return false;
        };
        let remote = self.elsewhere.entry(node.to_owned()).or_default();
        let same = remote.version == version && {
            hash(remote.members.iter().map(|(key, metadata)| (&**key, metadata.clone()))) == wanted
        };
        if !same {
            // A lower version is that of a successor with a clock that is behind: its list counts.
            remote.version = remote.version.min(version);
            remote.asked = Some(now);
        }
        !same
    }

    /// Whether it is time to ask a node for its list between two heartbeats.
    pub(in crate::hub) fn ask(&mut self, node: &str, now: Instant) -> bool {
        let remote = self.elsewhere.entry(node.to_owned()).or_default();
        let is_time = remote.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= PATIENCE);
        if is_time {
            remote.asked = Some(now);
        }
        is_time
    }

    /// Another node has left or is silent: its members go with it.
    pub(in crate::hub) fn forget_node(&mut self, node: &str) {
        if let Some(remote) = self.elsewhere.remove(node) {
            self.dirty.extend(remote.members.into_keys());
        }
    }

    /// Whether anything is known of a node, perhaps that all of its members have left.
    pub(in crate::hub) fn knows(&self, node: &str) -> bool {
        self.elsewhere.contains_key(node)
    }
}

/// FNV-1a over names and metadata in the order of the names: the same on every machine.
fn hash<'a>(members: impl Iterator<Item = (&'a str, Option<Json>)>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for (key, metadata) in members {
        add(key.as_bytes());
        add(&[0, u8::from(metadata.is_some())]);
        add(metadata.as_deref().unwrap_or_default().as_bytes());
        add(&[0]);
    }
    hash
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
