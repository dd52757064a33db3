//! Who else is in the cluster, as far as heartbeats tell.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::fields::Presence;

/// Nodes that are kept in mind: more than any cluster has, so that a flood of invented ones ends.
const MAX_NODES: usize = 4096;

/// A node of the cluster: see [`Hub::cluster_nodes`](crate::Hub::cluster_nodes).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterNode {
    /// Its node id.
    pub id: String,
    /// Its clients.
    pub clients: usize,
    /// Clients in each of its rooms.
    pub rooms: BTreeMap<String, usize>,
    /// How long ago it said so; zero for this node itself.
    pub last_seen: Duration,
}

impl ClusterNode {
    pub(crate) fn own(id: &str, clients: usize, rooms: BTreeMap<String, usize>) -> Self {
        Self { id: id.to_owned(), clients, rooms, last_seen: Duration::ZERO }
    }
}

/// A node's own counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) clients: usize,
    pub(crate) rooms: BTreeMap<String, usize>,
}

/// What a heartbeat has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A node that was not known.
    New,
    /// A known node, and how many of its figures are different now: its clients, and each of its rooms.
    Known { changes: usize },
    /// A known node has said farewell.
    Gone,
    /// Nothing: an unknown node's farewell, or one node too many.
    Ignored,
}

#[derive(Debug)]
struct Seen {
    clients: usize,
    rooms: BTreeMap<String, usize>,
    /// By this node's monotonic clock: no clock jump makes a node come or go.
    at: Instant,
}

/// The other nodes. Those that have not been heard of for `ttl` do not count, whether or not they have been removed yet.
#[derive(Debug)]
pub(super) struct Table {
    nodes: HashMap<String, Seen>,
    ttl: Duration,
}

impl Table {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { nodes: HashMap::new(), ttl }
    }

    pub(super) fn hear(&mut self, node_id: String, beat: Presence, now: Instant) -> Heard {
        self.expire(now);
        if beat.gone {
            return if self.nodes.remove(&node_id).is_some() { Heard::Gone } else { Heard::Ignored };
        }
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&node_id) {
            return Heard::Ignored;
        }
        let rooms = beat.rooms.into_iter().map(|(name, count)| (name, saturate(count))).collect();
        let seen = Seen { clients: saturate(beat.client_count), rooms, at: now };
        if let Some(known) = self.nodes.get_mut(&node_id) {
            let changes = changes(known, &seen);
            *known = seen;
            return Heard::Known { changes };
        }
        self.nodes.insert(node_id, seen);
        Heard::New
    }

    /// Removes nodes that have not been heard of for too long; who they were.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<String> {
        let ttl = self.ttl;
        let expired = |seen: &Seen| now.saturating_duration_since(seen.at) >= ttl;
        self.nodes.extract_if(|_, seen| expired(seen)).map(|(id, _)| id).collect()
    }

    fn present(&self, now: Instant) -> impl Iterator<Item = (&String, &Seen, Duration)> {
        let nodes = self.nodes.iter().map(move |(id, seen)| (id, seen, now.saturating_duration_since(seen.at)));
        nodes.filter(|(_, _, age)| *age < self.ttl)
    }

    pub(super) fn clients(&self, now: Instant) -> usize {
        self.present(now).fold(0, |sum, (_, seen, _)| sum.saturating_add(seen.clients))
    }

    pub(super) fn room(&self, name: &str, now: Instant) -> usize {
        let count = |seen: &Seen| seen.rooms.get(name).copied().unwrap_or(0);
        self.present(now).fold(0, |sum, (_, seen, _)| sum.saturating_add(count(seen)))
    }

    /// All of them, by id.
    pub(super) fn nodes(&self, now: Instant) -> Vec<ClusterNode> {
        let node = |(id, seen, last_seen): (&String, &Seen, Duration)| ClusterNode {
            id: id.clone(),
            clients: seen.clients,
            rooms: seen.rooms.clone(),
            last_seen,
        };
        let mut nodes: Vec<_> = self.present(now).map(node).collect();
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        nodes
    }
}

fn saturate(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn changes(old: &Seen, new: &Seen) -> usize {
    let moved = new.rooms.iter().filter(|(name, count)| old.rooms.get(*name) != Some(count)).count();
    let ended = old.rooms.keys().filter(|name| !new.rooms.contains_key(*name)).count();
    usize::from(old.clients != new.clients) + moved + ended
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn beat(clients: u64, rooms: &[(&str, u64)]) -> Presence {
        let rooms = rooms.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        Presence { node_id: String::new(), client_count: clients, rooms, ts: 0, gone: false }
    }

    #[test]
    fn adds_up_what_was_heard_and_forgets_who_is_silent() {
        let now = Instant::now();
        let mut table = Table::new(SECOND * 3);
        assert_eq!(table.hear("b".into(), beat(2, &[("x", 2), ("y", 1)]), now), Heard::New);
        assert_eq!(table.hear("a".into(), beat(3, &[("x", 1)]), now + SECOND), Heard::New);
        assert_eq!((table.clients(now), table.room("x", now), table.room("z", now)), (5, 3, 0));
        let again = table.hear("b".into(), beat(2, &[("x", 1), ("z", 1)]), now + SECOND);
        assert_eq!(again, Heard::Known { changes: 3 });
        assert_eq!(table.nodes(now + SECOND * 2).iter().map(|n| &n.id[..]).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(table.nodes(now + SECOND * 2)[0].last_seen, SECOND);
        table.hear("b".into(), beat(1, &[]), now + SECOND * 2);
        assert_eq!(table.clients(now + SECOND * 4), 1, "a is silent, though not removed");
        assert_eq!(table.expire(now + SECOND * 4), ["a"]);
        assert_eq!(table.hear("b".into(), Presence { gone: true, ..beat(0, &[]) }, now), Heard::Gone);
        assert_eq!(table.hear("b".into(), Presence { gone: true, ..beat(0, &[]) }, now), Heard::Ignored);
        assert_eq!(table.clients(now), 0);
    }

    #[test]
    fn a_flood_of_nodes_ends_and_sums_do_not_overflow() {
        let now = Instant::now();
        let mut table = Table::new(SECOND);
        for n in 0..MAX_NODES + 10 {
            table.hear(n.to_string(), beat(u64::MAX, &[("r", u64::MAX)]), now);
        }
        assert_eq!(table.nodes.len(), MAX_NODES);
        assert_eq!((table.clients(now), table.room("r", now)), (usize::MAX, usize::MAX));
        assert_eq!(table.hear("0".into(), beat(1, &[]), now), Heard::Known { changes: 2 });
        assert_eq!(table.hear("new".into(), beat(1, &[]), now + SECOND), Heard::New, "the others have expired");
    }
}
