//! The table of the cluster's other nodes, built from their heartbeats.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::beat::{Beat, Part};

/// Maximum number of nodes in the table: more than any cluster has, and a bound for a flood of invented ones.
const MAX_NODES: usize = 4096;

/// Maximum number of runs kept for one node id.
const MAX_RUNS: usize = 8;

/// A node of the cluster; see [`Hub::cluster_nodes`](crate::Hub::cluster_nodes).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterNode {
    /// The node's id.
    pub id: String,
    /// Number of clients on the node.
    pub clients: usize,
    /// Number of clients in each of its rooms.
    pub rooms: BTreeMap<String, usize>,
    /// Time since its last heartbeat; zero for this node itself.
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

/// The effect of a heartbeat on the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The node was not known. It may be the successor of one with the same id.
    New,
    /// The node was known. `changes` counts the figures that differ: its client count, and each room.
    Known { changes: usize },
    /// A known node has sent its farewell.
    Gone,
    /// No effect: an unknown node's farewell, or more nodes than the table holds.
    Ignored,
}

#[derive(Debug)]
struct Seen {
    clients: usize,
    rooms: BTreeMap<String, usize>,
    /// Time of the last heartbeat, by this node's monotonic clock. A clock adjustment neither adds nor removes nodes.
    at: Instant,
    /// The runs of this id that have announced themselves and not left, oldest first: normally one, two while a node is
    /// being replaced. Empty for nodes that do not send a run id.
    runs: Vec<String>,
    /// Parts of a heartbeat that has not arrived completely.
    partial: Option<Partial>,
}

/// A heartbeat in several envelopes, some of which have not arrived yet.
#[derive(Debug)]
struct Partial {
    beat: u64,
    of: u32,
    arrived: BTreeSet<u32>,
    rooms: BTreeMap<String, usize>,
}

/// The other nodes. Nodes that have been silent for `ttl` do not count, even if they have not been removed yet.
#[derive(Debug)]
pub(super) struct Table {
    nodes: HashMap<String, Seen>,
    /// Nodes that have sent control messages and no heartbeat, and when the last one arrived. They count as known
    /// nodes: their reports end when they stay silent.
    strangers: HashMap<String, Instant>,
    ttl: Duration,
    /// When silent nodes were last looked for. A long time ago means that this process itself did not run.
    checked: Instant,
    /// This process did not run, so heartbeats of others may be waiting to be read. Until this time, no node counts as
    /// silent.
    excused: Option<Instant>,
    /// The excuse has been used, and no heartbeat has arrived since; there is no second excuse.
    is_excuse_used: bool,
}

impl Table {
    pub(super) fn new(ttl: Duration, now: Instant) -> Self {
        Self {
            nodes: HashMap::new(),
            strangers: HashMap::new(),
            ttl,
            checked: now,
            excused: None,
            is_excuse_used: false,
        }
    }

    /// Notes a control message. Its sender may be unknown here: its first heartbeat was lost, or the message was under
    /// way for longer than the sender lived.
    pub(super) fn meet(&mut self, node_id: &str, now: Instant) {
        if self.nodes.contains_key(node_id) {
            return;
        }
        if let Some(at) = self.strangers.get_mut(node_id) {
            *at = now;
        } else if self.strangers.len() < MAX_NODES {
            self.strangers.insert(node_id.to_owned(), now);
        }
    }

    /// Call [`expire`](Table::expire) before: a node that was silent for too long counts as new.
    pub(super) fn hear(&mut self, node_id: String, beat: Beat, now: Instant) -> Heard {
        self.is_excuse_used = false;
        let was_stranger = self.strangers.remove(&node_id).is_some();
        if beat.gone {
            return if was_stranger { Heard::Gone } else { self.bury(&node_id, beat.run.as_deref()) };
        }
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&node_id) {
            return Heard::Ignored;
        }
        let clients = saturate(beat.client_count);
        let mut is_new = false;
        let node = self.nodes.entry(node_id).or_insert_with(|| {
            is_new = true;
            Seen { clients, rooms: BTreeMap::new(), at: now, runs: Vec::new(), partial: None }
        });
        node.at = now;
        is_new |= beat.run.as_ref().is_some_and(|run| node.announce(run));
        let changes = node.update(clients, beat);
        if is_new { Heard::New } else { Heard::Known { changes } }
    }

    /// Handles a farewell. It removes the run that sent it and older runs of the same id, which have ended without a
    /// farewell. A run that announced itself later stays: it is the successor.
    fn bury(&mut self, node_id: &str, run: Option<&str>) -> Heard {
        let Some(node) = self.nodes.get_mut(node_id) else { return Heard::Ignored };
        if let Some(run) = run.filter(|_| !node.runs.is_empty()) {
            let Some(at) = node.runs.iter().position(|known| known == run) else { return Heard::Ignored };
            node.runs.drain(..=at);
            if !node.runs.is_empty() {
                return Heard::Ignored;
            }
        }
        self.nodes.remove(node_id);
        Heard::Gone
    }

    /// Removes nodes that have been silent for too long and returns their ids. To be called every half interval.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<String> {
        let away = now.saturating_duration_since(std::mem::replace(&mut self.checked, now));
        if away >= self.ttl / 2 && !std::mem::replace(&mut self.is_excuse_used, true) {
            self.excused = Some(now + self.ttl / 2);
        }
        if self.is_excused(now) {
            return Vec::new();
        }
        let is_over = |at: Instant| now.saturating_duration_since(at) >= self.ttl;
        let nodes = self.nodes.iter().map(|(id, seen)| (id, seen.at));
        let known = nodes.chain(self.strangers.iter().map(|(id, at)| (id, *at)));
        let ids: Vec<String> = known.filter(|(_, at)| is_over(*at)).map(|(id, _)| id.clone()).collect();
        for id in &ids {
            self.nodes.remove(id);
            self.strangers.remove(id);
        }
        ids
    }

    fn is_excused(&self, now: Instant) -> bool {
        self.excused.is_some_and(|until| now < until)
    }

    fn present(&self, now: Instant) -> impl Iterator<Item = (&String, &Seen, Duration)> {
        let nodes = self.nodes.iter().map(move |(id, seen)| (id, seen, now.saturating_duration_since(seen.at)));
        let is_excused = self.is_excused(now);
        nodes.filter(move |(_, _, age)| is_excused || *age < self.ttl)
    }

    pub(super) fn clients(&self, now: Instant) -> usize {
        self.present(now).fold(0, |sum, (_, seen, _)| sum.saturating_add(seen.clients))
    }

    pub(super) fn room(&self, name: &str, now: Instant) -> usize {
        let count = |seen: &Seen| seen.rooms.get(name).copied().unwrap_or(0);
        self.present(now).fold(0, |sum, (_, seen, _)| sum.saturating_add(count(seen)))
    }

    /// Returns all present nodes, sorted by id.
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

impl Seen {
    /// Adds a run and returns whether it was new.
    fn announce(&mut self, run: &str) -> bool {
        if self.runs.iter().any(|known| known == run) {
            return false;
        }
        if self.runs.len() == MAX_RUNS {
            self.runs.remove(0);
        }
        self.runs.push(run.to_owned());
        true
    }

    /// Updates the counts. Returns how many figures differ now: the client count, and each room.
    fn update(&mut self, clients: usize, beat: Beat) -> usize {
        let rooms = beat.rooms.into_iter().map(|(name, count)| (name, saturate(count))).collect();
        let rooms = match beat.part {
            None => Some(rooms),
            Some(part) => self.collect(part, rooms),
        };
        let changed = rooms.map_or(0, |rooms| {
            self.partial = None;
            changes(&std::mem::replace(&mut self.rooms, rooms), &self.rooms)
        });
        usize::from(std::mem::replace(&mut self.clients, clients) != clients) + changed
    }

    /// Adds a part of a heartbeat. Returns all its rooms once the last part has arrived. Until then, or if a part is
    /// lost, the rooms of the previous heartbeat count.
    fn collect(&mut self, part: Part, rooms: BTreeMap<String, usize>) -> Option<BTreeMap<String, usize>> {
        if !part.is_valid() {
            return None;
        }
        let Part { beat, index, of } = part;
        let new = || Partial { beat, of, arrived: BTreeSet::new(), rooms: BTreeMap::new() };
        let mut partial = self.partial.take().filter(|known| (known.beat, known.of) == (beat, of)).unwrap_or_else(new);
        if partial.arrived.insert(index) {
            partial.rooms.extend(rooms);
        }
        if partial.arrived.len() == of as usize {
            return Some(partial.rooms);
        }
        self.partial = Some(partial);
        None
    }
}

fn saturate(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn changes(old: &BTreeMap<String, usize>, new: &BTreeMap<String, usize>) -> usize {
    let moved = new.iter().filter(|(name, count)| old.get(*name) != Some(count)).count();
    let ended = old.keys().filter(|name| !new.contains_key(*name)).count();
    moved + ended
}

#[cfg(test)]
mod tests {
    use super::super::fields::Presence;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn beat(clients: u64, rooms: &[(&str, u64)]) -> Beat {
        let rooms = rooms.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        Presence { node_id: String::new(), client_count: clients, rooms, ts: 0, gone: false }.into()
    }

    #[test]
    fn adds_up_what_was_heard_and_forgets_who_is_silent() {
        let now = Instant::now();
        let mut table = Table::new(SECOND * 3, now);
        assert_eq!(table.hear("b".into(), beat(2, &[("x", 2), ("y", 1)]), now), Heard::New);
        assert_eq!(table.hear("a".into(), beat(3, &[("x", 1)]), now + SECOND), Heard::New);
        assert_eq!((table.clients(now), table.room("x", now), table.room("z", now)), (5, 3, 0));
        let again = table.hear("b".into(), beat(2, &[("x", 1), ("z", 1)]), now + SECOND);
        assert_eq!(again, Heard::Known { changes: 3 });
        assert_eq!(table.nodes(now + SECOND * 2).iter().map(|n| &n.id[..]).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(table.nodes(now + SECOND * 2)[0].last_seen, SECOND);
        table.hear("b".into(), beat(1, &[]), now + SECOND * 2);
        assert_eq!(table.clients(now + SECOND * 4), 1, "a is silent, though not removed");
        (1..4).for_each(|n| assert_eq!(table.expire(now + SECOND * n), [""; 0]));
        assert_eq!(table.expire(now + SECOND * 4), ["a"]);
        assert_eq!(table.hear("b".into(), Beat { gone: true, ..beat(0, &[]) }, now), Heard::Gone);
        assert_eq!(table.hear("b".into(), Beat { gone: true, ..beat(0, &[]) }, now), Heard::Ignored);
        assert_eq!(table.clients(now), 0);
    }

    #[test]
    fn a_flood_of_nodes_ends_and_sums_do_not_overflow() {
        let now = Instant::now();
        let mut table = Table::new(SECOND, now);
        for n in 0..MAX_NODES + 10 {
            table.hear(n.to_string(), beat(u64::MAX, &[("r", u64::MAX)]), now);
        }
        assert_eq!(table.nodes.len(), MAX_NODES);
        assert_eq!((table.clients(now), table.room("r", now)), (usize::MAX, usize::MAX));
        assert_eq!(table.hear("0".into(), beat(1, &[]), now), Heard::Known { changes: 2 });
        (0..MAX_NODES + 10).for_each(|n| table.meet(&format!("stranger {n}"), now));
        assert_eq!(table.strangers.len(), MAX_NODES);
        table.expire(now + SECOND / 3);
        table.expire(now + SECOND * 2 / 3);
        assert_eq!(table.expire(now + SECOND).len(), 2 * MAX_NODES);
        assert_eq!(table.hear("new".into(), beat(1, &[]), now + SECOND), Heard::New, "the others have expired");
    }

    /// A node whose process was suspended finds no other node silent before it has read what arrived in the meantime.
    #[test]
    fn a_pause_of_this_node_is_not_the_silence_of_others() {
        let now = Instant::now();
        let mut table = Table::new(SECOND * 3, now);
        table.hear("a".into(), beat(1, &[]), now);
        table.hear("b".into(), beat(1, &[]), now);
        let after = now + SECOND * 60;
        assert_eq!((table.expire(after), table.clients(after)), (vec![], 2));
        table.hear("a".into(), beat(1, &[]), after + SECOND);
        assert_eq!(table.expire(after + SECOND), [""; 0]);
        assert_eq!(table.expire(after + SECOND * 3 / 2), ["b"]);
        // A bus that hangs may look the same, again and again: without a word from others there is one excuse.
        let mut table = Table::new(SECOND * 3, now);
        table.hear("a".into(), beat(1, &[]), now);
        assert_eq!(table.expire(now + SECOND * 2), [""; 0]);
        assert_eq!(table.expire(now + SECOND * 4), ["a"]);
    }

    /// A control message may arrive after its sender has expired, or before its first heartbeat.
    #[test]
    fn a_node_that_never_beats_expires_too() {
        let now = Instant::now();
        let mut table = Table::new(SECOND * 3, now);
        ["late", "new", "leaves"].iter().for_each(|id| table.meet(id, now));
        assert_eq!((table.clients(now), table.nodes(now).len()), (0, 0));
        assert_eq!(table.hear("new".into(), beat(1, &[]), now + SECOND), Heard::New);
        assert_eq!(table.hear("leaves".into(), Beat { gone: true, ..beat(0, &[]) }, now + SECOND), Heard::Gone);
        table.meet("new", now + SECOND);
        assert_eq!((table.expire(now + SECOND), table.strangers.len()), (vec![], 1));
        table.expire(now + SECOND * 2);
        assert_eq!(table.expire(now + SECOND * 3), ["late"]);
        assert_eq!(table.expire(now + SECOND * 4), ["new"]);
    }

    #[test]
    fn a_heartbeat_in_parts_counts_when_it_is_whole() {
        let now = Instant::now();
        let mut table = Table::new(SECOND, now);
        let part = |number, index, of, rooms: &[(&str, u64)]| {
            let part = Some(Part { beat: number, index, of });
            Beat { part, ..beat(9, rooms) }
        };
        table.hear("n".into(), beat(5, &[("a", 1), ("old", 1)]), now);
        // Parts arrive in any order, perhaps twice; the number of clients counts at once.
        assert_eq!(table.hear("n".into(), part(1, 1, 2, &[("b", 2)]), now), Heard::Known { changes: 1 });
        assert_eq!(table.hear("n".into(), part(1, 1, 2, &[("b", 2)]), now), Heard::Known { changes: 0 });
        assert_eq!((table.clients(now), table.room("old", now), table.room("b", now)), (9, 1, 0));
        assert_eq!(table.hear("n".into(), part(1, 0, 2, &[("a", 1)]), now), Heard::Known { changes: 2 });
        assert_eq!((table.room("a", now), table.room("b", now), table.room("old", now)), (1, 2, 0));
        // A heartbeat that loses a part does not mix with the next.
        table.hear("n".into(), part(2, 0, 2, &[("lost", 1)]), now);
        table.hear("n".into(), part(3, 1, 2, &[("c", 3)]), now);
        assert_eq!((table.room("b", now), table.room("c", now)), (2, 0));
        table.hear("n".into(), part(3, 0, 2, &[("b", 4)]), now);
        assert_eq!((table.room("b", now), table.room("c", now), table.room("lost", now)), (4, 3, 0));
        for nonsense in [part(4, 0, 0, &[]), part(4, 2, 2, &[]), part(4, 0, u32::MAX, &[]), part(4, u32::MAX, 1, &[])] {
            assert_eq!(table.hear("n".into(), nonsense, now), Heard::Known { changes: 0 });
        }
        assert_eq!(table.room("b", now), 4);
    }

    #[test]
    fn a_farewell_ends_the_run_that_said_it() {
        let now = Instant::now();
        let mut table = Table::new(SECOND, now);
        let of = |run: &str, gone| Beat { run: Some(run.into()), gone, ..beat(1, &[]) };
        let mut hear = |beat| table.hear("n".into(), beat, now);
        assert_eq!(hear(of("old", false)), Heard::New);
        assert_eq!(hear(of("new", false)), Heard::New);
        assert_eq!(hear(beat(2, &[])), Heard::Known { changes: 1 }, "an ordinary one does not say whose it is");
        // A new node requests heartbeats, so both announce themselves once more.
        assert_eq!(hear(of("old", false)), Heard::Known { changes: 1 });
        assert_eq!(hear(of("old", true)), Heard::Ignored);
        assert_eq!((hear(of("old", true)), hear(of("new", true))), (Heard::Ignored, Heard::Gone));
        // A crashed run does not keep the next run's farewell from counting.
        assert_eq!((hear(of("crashed", false)), hear(of("next", false))), (Heard::New, Heard::New));
        assert_eq!(hear(of("next", true)), Heard::Gone);
        (0..100).for_each(|n| _ = hear(of(&n.to_string(), false)));
        assert_eq!(hear(of("99", true)), Heard::Gone);
        // If either heartbeat lacks a run id, the node id decides.
        assert_eq!((hear(beat(1, &[])), hear(of("any", true))), (Heard::New, Heard::Gone));
        let nameless = Beat { gone: true, ..beat(0, &[]) };
        assert_eq!((hear(of("new", false)), hear(nameless)), (Heard::New, Heard::Gone));
    }
}
