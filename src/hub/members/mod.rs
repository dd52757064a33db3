//! Members: the users or clients in a room, across all nodes, and their changes.
//!
//! ```text
//! join, leave, metadata ── Table (under the room's and the client's lock) ── flush, at most every 50 ms ──▶ hook,
//!                                                                                                    clients, nodes
//! other nodes ── changes, lists, digests ── Table ── flush ──▶ hook, clients
//! ```
//!
//! Each node owns the members that are connected to it, and tells the others of their changes. With its heartbeats goes
//! a version and a hash for each room: a node that finds another hash asks for the list. So whatever the bus loses,
//! all nodes agree again after the next heartbeat. One thread, the keeper's, tells other nodes of members: so what they
//! hear is in order.

mod change;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

pub use change::{Member, MemberChange, MemberError};

pub(super) use change::metadata;
pub(super) use table::{Json, List, Told};

use super::client::State;
use super::control::{Control, Entry};
use super::keeper::Job;
use super::{Client, Hub, Target};
use crate::lock::Leaf;
use crate::message::Message;
use table::Table;

/// The time between two flushes of one room.
const BATCH: Duration = Duration::from_millis(50);

/// The members of all rooms whose options ask for them. A leaf lock, taken under a room's and a client's: so members
/// change together with the room's roster.
#[derive(Debug, Default)]
pub(super) struct Members(Leaf<Tables>);

#[derive(Debug, Default)]
struct Tables {
    rooms: HashMap<Arc<str>, Table>,
    versions: Versions,
    /// The keeper is about to tell the digests.
    is_digest_due: bool,
}

/// The versions of what other nodes are told. They rise over all rooms, and from one run of a node to the next, because
/// they follow the system's clock: a room that begins anew is not taken for what is known of it.
#[derive(Debug, Default)]
struct Versions(u64);

impl Versions {
    fn next(&mut self) -> u64 {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        self.0 = u64::try_from(now.as_micros()).unwrap_or(0).max(self.0 + 1);
        self.0
    }
}

type AnnounceFn = dyn Fn(&str, &[MemberChange]) -> Option<Message> + Send + Sync;

/// How a protocol tells clients of changes.
#[derive(Default)]
pub(super) struct Announce(pub(super) Option<Box<AnnounceFn>>);

impl fmt::Debug for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Announce").field(&self.0.is_some()).finish()
    }
}

impl Client {
    /// Sets what others see of this connection in rooms with members: JSON of at most 1 KiB, in place of what was set
    /// before. Members of its rooms are told of the change.
    ///
    /// # Errors
    ///
    /// It cannot be written as JSON, or is longer.
    pub fn set_member(&self, value: &impl Serialize) -> Result<(), MemberError> {
        let json = metadata(value)?;
        let rooms: Vec<Arc<str>> = {
            let mut own = self.state().write();
            own.member = Some(Arc::clone(&json));
            let mut members = self.hub().inner().members.0.lock();
            let has_none = |room: &&Arc<str>| !own.member_in.contains_key(*room);
            let rooms: Vec<Arc<str>> = own.rooms.iter().filter(has_none).cloned().collect();
            for room in &rooms {
                if let Some(table) = members.rooms.get_mut(room) {
                    let key = self.hub().member_key(self, room, own.user.as_ref());
                    table.update(&key, self.id(), Some(Arc::clone(&json)));
                }
            }
            rooms
        };
        rooms.iter().for_each(|room| self.hub().watch_members(room));
        Ok(())
    }

    /// Sets what others see of this connection in one room with members, in place of
    /// [`set_member`](Client::set_member), until it leaves the room. Called before the join, it takes effect with the
    /// join; if there will be no join, call [`clear_member_in`](Client::clear_member_in).
    ///
    /// # Errors
    ///
    /// As [`set_member`](Client::set_member).
    pub fn set_member_in(&self, room: &str, value: &impl Serialize) -> Result<(), MemberError> {
        let json = metadata(value)?;
        {
            let mut own = self.state().write();
            own.member_in.insert(room.into(), Arc::clone(&json));
            let mut members = self.hub().inner().members.0.lock();
            if let Some(table) = members.rooms.get_mut(room).filter(|_| own.rooms.contains(room)) {
                table.update(&self.hub().member_key(self, room, own.user.as_ref()), self.id(), Some(json));
            }
        }
        self.hub().watch_members(room);
        Ok(())
    }

    /// Undoes [`set_member_in`](Client::set_member_in) for a room that the client has not joined. Does nothing while it
    /// is in the room.
    pub fn clear_member_in(&self, room: &str) {
        let mut own = self.state().write();
        if !own.rooms.contains(room) {
            own.member_in.remove(room);
        }
    }
}

impl Hub {
    /// Who is in a room, over all nodes of the cluster as far as they have told, by id. Empty for rooms without
    /// [`RoomOptions::members`](crate::history::RoomOptions::members).
    ///
    /// It agrees with the changes: what [`on_member_change`](crate::HubBuilder::on_member_change) was told adds up to
    /// this, once it has been told everything. Members of other nodes need
    /// [`Cluster::presence`](crate::cluster::Cluster::presence).
    #[doc(alias("presence", "who is online"))]
    pub fn members(&self, room: &str) -> Vec<Member> {
        self.inner().members.0.lock().rooms.get(room).map_or_else(Vec::new, Table::list)
    }

    /// Whether members of rooms of this name are tracked by connection: see
    /// [`RoomOptions::with_connections`](crate::history::RoomOptions::with_connections).
    pub fn tracks_connections(&self, room: &str) -> bool {
        self.inner().patterns.find(room).is_some_and(|options| options.by_connection)
    }

    /// The number of members of each room that has some.
    pub(crate) fn member_counts(&self) -> HashMap<Arc<str>, usize> {
        let members = self.inner().members.0.lock();
        let counts = members.rooms.iter().map(|(room, table)| (Arc::clone(room), table.count()));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// What a member is known by.
    fn member_key(&self, client: &Client, room: &str, user: Option<&Arc<str>>) -> Arc<str> {
        user.filter(|_| !self.tracks_connections(room)).map_or_else(|| client.id().to_string().into(), Arc::clone)
    }

    fn has_members(&self, room: &str) -> bool {
        self.inner().patterns.find(room).is_some_and(|options| options.members)
    }

    fn linger(&self, room: &str) -> Duration {
        self.inner().patterns.find(room).map_or(Duration::ZERO, |options| options.member_linger)
    }

    /// Under the room's and the client's lock: the client has joined.
    pub(super) fn member_joined(&self, client: &Client, room: &Arc<str>, user: Option<&Arc<str>>, json: Option<&Json>) {
        if self.has_members(room) {
            let mut members = self.inner().members.0.lock();
            let key = self.member_key(client, room, user);
            members.rooms.entry(Arc::clone(room)).or_default().join(&key, client.id(), json.cloned());
        }
    }

    /// Under the room's and the client's lock: the client has left.
    pub(super) fn member_left(&self, client: &Client, room: &Arc<str>, user: Option<&Arc<str>>) {
        if !self.has_members(room) {
            return;
        }
        if let Some(table) = self.inner().members.0.lock().rooms.get_mut(room) {
            table.leave(&self.member_key(client, room, user), client.id(), self.linger(room), Instant::now());
        }
    }

    /// Schedules the report of changes. Called after members of the room may have changed, without a lock held.
    pub(super) fn watch_members(&self, room: &str) {
        if !self.has_members(room) {
            return;
        }
        let job = {
            let mut members = self.inner().members.0.lock();
            let Some((name, _)) = members.rooms.get_key_value(room) else { return };
            let name = Arc::clone(name);
            let Some(table) = members.rooms.get_mut(room) else { return };
            if !table.has_news() || std::mem::replace(&mut table.is_watched, true) {
                return;
            }
            let now = Instant::now();
            (table.flushed.map_or(now, |last| (last + BATCH).max(now)), Job::Members(name))
        };
        self.keeper().schedule(job.0, job.1);
    }

    /// Reports the changes since the last flush. Runs on the keeper's thread.
    pub(super) fn flush_members(&self, room: &Arc<str>) {
        let (changes, controls, next) = {
            let mut members = self.inner().members.0.lock();
            let Tables { rooms, versions, .. } = &mut *members;
            let Some(table) = rooms.get_mut(room) else { return };
            let now = Instant::now();
            if let Some(at) = table.flushed.map(|last| last + BATCH).filter(|at| *at > now) {
                // A member has lingered for long enough, too soon after the last flush. A watched table has a job then.
                let is_watched = std::mem::replace(&mut table.is_watched, true);
                drop(members);
                if !is_watched {
                    self.keeper().schedule(at, Job::Members(Arc::clone(room)));
                }
                return;
            }
            let next = table.next_wake(now);
            table.is_watched = false;
            table.flushed = Some(now);
            let changes = table.take_changes();
            let controls = self.member_controls(room, table, versions);
            if table.is_over() {
                rooms.remove(room);
            }
            (changes, controls, next)
        };
        controls.iter().for_each(|control| _ = self.publish_control(control));
        if let Some(hook) = &self.hooks().on_member_change {
            for change in &changes {
                self.guarded(None, "on_member_change", || hook(self, room, change));
            }
        }
        let announce = self.inner().announce_members.0.as_ref().filter(|_| !changes.is_empty());
        let announce =
            announce.and_then(|announce| self.guarded(None, "a message of members", || announce(room, &changes)));
        if let Some(message) = announce.flatten() {
            // Not recorded in the room's history: who comes later gets the list, and positions are of publications.
            let target = Target::room(&**room);
            self.deliver_now(&target, &self.resolve(&target), &message);
        }
        if let Some(at) = next {
            self.keeper().schedule(at, Job::Members(Arc::clone(room)));
        }
    }

    /// What other nodes are to be told of one room.
    fn member_controls(&self, room: &Arc<str>, table: &mut Table, versions: &mut Versions) -> Vec<Control> {
        let untold = table.take_untold();
        let is_list_wanted = std::mem::take(&mut table.is_list_wanted);
        let mut controls = Vec::new();
        if !self.shares_members() {
            return controls;
        }
        let limit = self.control_limit();
        if !untold.is_empty() {
            for changes in parts(untold, limit, |told| told.as_ref().and_then(Option::as_deref)) {
                let version = versions.next();
                let since = table.tell(version);
                let changes = changes.into_iter().map(|(key, told)| Entry::new(&key, told)).collect();
                controls.push(Control::Changes { room: room.to_string(), since, version, changes });
            }
        }
        if is_list_wanted {
            if table.version() == 0 {
                table.tell(versions.next());
            }
            let version = table.version();
            let parts = parts(table.here(), limit, Option::as_deref);
            let of = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            controls.extend(parts.into_iter().zip(0..).map(|(part, index)| {
                let members = part.into_iter().map(|(key, json)| Entry::new(&key, Some(json))).collect();
                Control::List { room: room.to_string(), version, index, of, members }
            }));
        }
        controls
    }

    /// Whether members are told to other nodes, and heard of them. Without presence nobody would say that a node has
    /// gone.
    fn shares_members(&self) -> bool {
        self.inner().link.as_ref().is_some_and(crate::cluster::Link::has_presence)
    }

    /// After a heartbeat: sees that the rooms' digests follow.
    pub(super) fn digests_due(&self) {
        if !self.inner().patterns.has_members() {
            return;
        }
        // One job at a time: a hook that blocks the keeper does not pile them up.
        let is_due = std::mem::replace(&mut self.inner().members.0.lock().is_digest_due, true);
        if !is_due {
            self.keeper().schedule(Instant::now(), Job::Digests);
        }
    }

    /// On the keeper's thread: the version and the hash of every room with members here.
    pub(super) fn publish_digests(&self) {
        let mut controls = Vec::new();
        let mut digests = BTreeMap::new();
        {
            let mut members = self.inner().members.0.lock();
            let Tables { rooms, versions, is_digest_due } = &mut *members;
            *is_digest_due = false;
            for (room, table) in rooms.iter_mut() {
                // What is not told yet is told first, or the others would ask for it.
                controls.extend(self.member_controls(room, table, versions));
                digests.extend(table.digest().map(|digest| (room.to_string(), digest)));
            }
        }
        controls.iter().for_each(|control| _ = self.publish_control(control));
        let mut from = String::new();
        let mut rooms = BTreeMap::new();
        let mut size = 0;
        for (room, digest) in digests {
            size += room.len() * 2 + 48;
            if size > self.control_limit() {
                let part = std::mem::take(&mut rooms);
                self.publish_control(&Control::Digests { from: from.clone(), to: Some(room.clone()), rooms: part });
                from.clone_from(&room);
                size = room.len() * 2 + 48;
            }
            rooms.insert(room, digest);
        }
        self.publish_control(&Control::Digests { from, to: None, rooms });
    }

    pub(super) fn hear_changes(
        &self,
        node: &str,
        room: &str,
        [since, version]: [u64; 2],
        changes: Vec<(String, Told)>,
    ) {
        let is_list_wanted = self.hear_members(room, |table| {
            let is_complete = table.hear_changes(node, since, version, changes);
            !is_complete && table.ask(node, Instant::now())
        });
        if is_list_wanted {
            self.publish_control(&Control::Query { node: node.to_owned(), room: room.to_owned() });
        }
    }

    pub(super) fn hear_list(&self, node: &str, room: &str, list: List) {
        self.hear_members(room, |table| {
            table.hear_list(node, list);
            false
        });
    }

    /// The digests of a node's rooms whose names stand between two names; those that are missing have no members there.
    pub(super) fn hear_digests(&self, node: &str, from: &str, to: Option<&str>, rooms: &BTreeMap<String, (u64, u64)>) {
        let is_between = |room: &str| room >= from && to.is_none_or(|to| room < to);
        let mut names: Vec<String> = rooms.keys().cloned().collect();
        {
            let members = self.inner().members.0.lock();
            let known = members.rooms.iter().filter(|(room, table)| is_between(room) && table.knows(node));
            names.extend(known.map(|(room, _)| room.to_string()).filter(|room| !rooms.contains_key(room)));
        }
        for room in names {
            let digest = rooms.get(&room).copied();
            let is_wanted = self.hear_members(&room, |table| table.hear_digest(node, digest, Instant::now()));
            if is_wanted {
                self.publish_control(&Control::Query { node: node.to_owned(), room });
            }
        }
    }

    /// Another node wants the list of one room.
    pub(super) fn want_list(&self, room: &str) {
        self.hear_members(room, |table| {
            table.is_list_wanted = true;
            false
        });
    }

    /// Another node has left, or is silent.
    pub(super) fn forget_members_of(&self, node: &str) {
        let rooms: Vec<Arc<str>> = {
            let mut members = self.inner().members.0.lock();
            let of_node = members.rooms.iter_mut().filter(|(_, table)| table.knows(node));
            of_node
                .map(|(room, table)| {
                    table.forget_node(node);
                    Arc::clone(room)
                })
                .collect()
        };
        rooms.iter().for_each(|room| self.watch_members(room));
    }

    /// Changes the table of a room of this name, if rooms of this name have members here.
    fn hear_members(&self, room: &str, change: impl FnOnce(&mut Table) -> bool) -> bool {
        if !self.has_members(room) || !self.shares_members() {
            return false;
        }
        let result = {
            let mut members = self.inner().members.0.lock();
            let table = members.rooms.entry(room.into()).or_default();
            let result = change(table);
            if table.is_over() {
                members.rooms.remove(room);
            }
            result
        };
        self.watch_members(room);
        result
    }

    /// Under the client's lock: it had the user `old` before.
    pub(super) fn member_renamed(&self, client: &Client, own: &State, old: Option<&Arc<str>>) {
        let now = Instant::now();
        let mut members = self.inner().members.0.lock();
        for room in own.rooms.iter().filter(|room| !self.tracks_connections(room)) {
            if let Some(table) = members.rooms.get_mut(room) {
                table.leave(&self.member_key(client, room, old), client.id(), Duration::ZERO, now);
                let key = self.member_key(client, room, own.user.as_ref());
                table.join(&key, client.id(), own.member_of(room).cloned());
            }
        }
    }
}

/// Divides members into parts of about `limit` bytes; at least one, perhaps empty.
fn parts<T>(
    members: Vec<(Arc<str>, T)>,
    limit: usize,
    metadata: impl Fn(&T) -> Option<&str>,
) -> Vec<Vec<(Arc<str>, T)>> {
    let (mut parts, mut size) = (vec![Vec::new()], 0);
    for (key, told) in members {
        let own = key.len() * 2 + metadata(&told).map_or(0, |json| json.len() * 2) + 32;
        if size + own > limit && size > 0 {
            parts.push(Vec::new());
            size = 0;
        }
        size += own;
        if let Some(part) = parts.last_mut() {
            part.push((key, told));
        }
    }
    parts
}
