//! A room's members on other nodes, and the reports about this node's members to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Here, Json, Reported, Table};

/// Members of a node, each with its report.
type Listed<T> = Vec<(Arc<str>, T)>;

/// Maximum number of members kept of one other node in one room.
const MAX_REMOTE: usize = 65_536;
/// The pause between two requests for the same list.
const PATIENCE: Duration = Duration::from_millis(500);

/// The members that other nodes have reported, and the state of the reports to them.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    others: BTreeMap<String, Remote>,
    /// The version of this node's members last reported to other nodes; 0 = none.
    version: u64,
    /// The keys of changes in this node's members that other nodes do not know yet.
    untold: BTreeSet<Arc<str>>,
    /// Another node has asked for all of this node's members.
    is_list_wanted: bool,
}

impl Nodes {
    /// Notes that a member of this node has changed.
    pub(super) fn note(&mut self, key: &Arc<str>) {
        self.untold.insert(Arc::clone(key));
    }

    /// Whether there are unreported changes for other nodes.
    pub(super) fn wait_for_news(&self) -> bool {
        !self.untold.is_empty() || self.is_list_wanted
    }

    /// Whether no other node has reported members.
    pub(super) fn have_no_members(&self) -> bool {
        self.others.is_empty()
    }

    /// The metadata from each node that has the member.
    pub(super) fn metadata_of(&self, key: &str) -> impl Iterator<Item = Option<Json>> {
        self.others.values().filter_map(move |node| node.members.get(key).cloned())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.others.values().flat_map(|node| node.members.keys())
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
    /// Notes that another node wants the list of this node's members.
    pub(in crate::hub) fn want_list(&mut self) {
        self.nodes.is_list_wanted = true;
    }

    /// Returns whether the list is wanted, and clears that.
    pub(in crate::hub) fn take_list_wanted(&mut self) -> bool {
        std::mem::take(&mut self.nodes.is_list_wanted)
    }

    /// Takes the changes here that other nodes do not know yet.
    pub(in crate::hub) fn take_untold(&mut self) -> Listed<Reported> {
        let untold = std::mem::take(&mut self.nodes.untold);
        let told = |key: Arc<str>| {
            let is = self.here.get(&key).map(Here::metadata);
            (key, is)
        };
        untold.into_iter().map(told).collect()
    }

    /// Sets the version of the next report to other nodes. Returns the previous one; 0 means that the next report is
    /// complete.
    pub(in crate::hub) fn tell(&mut self, version: u64) -> u64 {
        std::mem::replace(&mut self.nodes.version, version)
    }

    /// The version last reported to other nodes; 0 = none.
    pub(in crate::hub) fn version(&self) -> u64 {
        self.nodes.version
    }

    /// All members here, for a node that has asked for the list.
    pub(in crate::hub) fn here(&self) -> Listed<Option<Json>> {
        self.here.iter().map(|(key, here)| (Arc::clone(key), here.metadata())).collect()
    }

    /// The version and hash of the members here; `None` if there are none. Call it when all changes have been reported.
    pub(in crate::hub) fn digest(&self) -> Option<(u64, u64)> {
        let members = self.here.iter().map(|(key, here)| (&**key, here.metadata()));
        (!self.here.is_empty()).then(|| (self.nodes.version, hash(members)))
    }

    /// Applies another node's changes, from the version `since` to `version`. Returns false if earlier changes are
    /// missing; then the list is needed.
    pub(in crate::hub) fn hear_changes(
        &mut self,
        node: &str,
        since: u64,
        version: u64,
        changes: Vec<(String, Reported)>,
    ) -> bool {
        let remote = self.nodes.others.entry(node.to_owned()).or_default();
        if version <= remote.version {
            return true;
        }
        if since == 0 {
            // The node has started, or has created this room anew: earlier members are gone.
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

    /// Adds another node's list, or a part of one, which takes effect when all parts have arrived.
    pub(in crate::hub) fn hear_list(&mut self, node: &str, list: List) {
        let List { version, index, of, members } = list;
        let remote = self.nodes.others.entry(node.to_owned()).or_default();
        if version < remote.version {
            // Later changes have overtaken this list.
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

    /// Compares another node's digest of this room; `None` = no members. Returns whether to ask for its list.
    pub(in crate::hub) fn hear_digest(&mut self, node: &str, digest: Option<(u64, u64)>, now: Instant) -> bool {
        let Some((version, wanted)) = digest else {
            self.forget_node(node);
            return false;
        };
        let remote = self.nodes.others.entry(node.to_owned()).or_default();
        let same = remote.version == version && {
            hash(remote.members.iter().map(|(key, metadata)| (&**key, metadata.clone()))) == wanted
        };
        if !same {
            // A lower version belongs to a restarted node whose clock is behind. Its list is accepted.
            remote.version = remote.version.min(version);
            remote.asked = Some(now);
        }
        !same
    }

    /// Whether it is time to ask a node for its list between two heartbeats.
    pub(in crate::hub) fn ask(&mut self, node: &str, now: Instant) -> bool {
        let remote = self.nodes.others.entry(node.to_owned()).or_default();
        let is_time = remote.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= PATIENCE);
        if is_time {
            remote.asked = Some(now);
        }
        is_time
    }

    /// Removes the members of a node that has left or is silent.
    pub(in crate::hub) fn forget_node(&mut self, node: &str) {
        if let Some(remote) = self.nodes.others.remove(node) {
            self.dirty.extend(remote.members.into_keys());
        }
    }

    /// Whether anything is known of a node, even if it is only that all of its members have left.
    pub(in crate::hub) fn knows(&self, node: &str) -> bool {
        self.nodes.others.contains_key(node)
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
