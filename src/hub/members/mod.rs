//! Members: the users or clients in a room, across all nodes, and their changes.
//!
//! ```text
//! join, leave, metadata ── Table (under the room's and the client's lock)
//!   └ flush, at most every 50 ms ──▶ hook, clients, nodes
//! other nodes ── changes, lists, digests ── Table ── flush ──▶ hook, clients
//! ```
//!
//! Each node owns the members that are connected to it, and sends their changes to the others. Each heartbeat carries a
//! version and a hash for each room; a node whose hash differs asks for the list. So whatever the bus loses, all nodes
//! agree again after the next heartbeat.

mod change;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
pub(super) struct Members(Leaf<HashMap<Arc<str>, Table>>);

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
                if let Some(table) = members.get_mut(room) {
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
            if let Some(table) = members.get_mut(room).filter(|_| own.rooms.contains(room)) {
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
        self.inner().members.0.lock().get(room).map_or_else(Vec::new, Table::list)
    }

    /// Whether members of rooms of this name are tracked by connection: see
    /// [`RoomOptions::with_connections`](crate::history::RoomOptions::with_connections).
    pub fn tracks_connections(&self, room: &str) -> bool {
        self.inner().patterns.find(room).is_some_and(|options| options.by_connection)
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
            members.entry(Arc::clone(room)).or_default().join(&key, client.id(), json.cloned());
        }
    }

    /// Under the room's and the client's lock: the client has left.
    pub(super) fn member_left(&self, client: &Client, room: &Arc<str>, user: Option<&Arc<str>>) {
        if !self.has_members(room) {
            return;
        }
        if let Some(table) = self.inner().members.0.lock().get_mut(room) {
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
            let Some((name, _)) = members.get_key_value(room) else { return };
            let name = Arc::clone(name);
            let Some(table) = members.get_mut(room) else { return };
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
            let Some(table) = members.get_mut(room) else { return };
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
            let controls = self.member_controls(room, table);
            if table.is_over() {
                members.remove(room);
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
            self.send_here(&Target::room(&**room), &message);
        }
        if let Some(at) = next {
            self.keeper().schedule(at, Job::Members(Arc::clone(room)));
        }
    }

    /// Sends one room's changes to the other nodes.
    fn member_controls(&self, room: &Arc<str>, table: &mut Table) -> Vec<Control> {
        let untold = table.take_untold();
        if self.inner().link.is_none() {
            return Vec::new();
        }
        let mut controls = Vec::new();
        if let Some((version, changes)) = untold {
            let changes = changes.into_iter().map(|(key, told)| Entry::new(&key, told)).collect();
            controls.push(Control::Changes { room: room.to_string(), version, changes });
        }
        if std::mem::take(&mut table.is_list_wanted) {
            let (version, members) = table.here();
            let parts = parts(members, self.control_limit());
            let of = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            controls.extend(parts.into_iter().zip(0..).map(|(part, index)| {
                let members = part.into_iter().map(|(key, json)| Entry::new(&key, Some(json))).collect();
                Control::List { room: room.to_string(), version, index, of, members }
            }));
        }
        controls
    }

    /// With each heartbeat: the version and the hash of every room with members here.
    pub(super) fn publish_digests(&self) {
        if !self.inner().patterns.has_members() {
            return;
        }
        let mut controls = Vec::new();
        let mut digests = BTreeMap::new();
        for (room, table) in self.inner().members.0.lock().iter_mut() {
            // Pending changes are sent first; otherwise the other nodes would ask for them.
            controls.extend(self.member_controls(room, table));
            digests.extend(table.digest().map(|digest| (room.to_string(), digest)));
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

    pub(super) fn hear_changes(&self, node: &str, room: &str, version: u64, changes: Vec<(String, Told)>) {
        let is_list_wanted = self.hear_members(room, |table| {
            let is_complete = table.hear_changes(node, version, changes);
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
            let known = members.iter().filter(|(room, table)| is_between(room) && table.knows(node));
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
            let of_node = members.iter_mut().filter(|(_, table)| table.knows(node));
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
        if !self.has_members(room) {
            return false;
        }
        let result = {
            let mut members = self.inner().members.0.lock();
            let table = members.entry(room.into()).or_default();
            let result = change(table);
            if table.is_over() {
                members.remove(room);
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
            if let Some(table) = members.get_mut(room) {
                table.leave(&self.member_key(client, room, old), client.id(), Duration::ZERO, now);
                let key = self.member_key(client, room, own.user.as_ref());
                table.join(&key, client.id(), own.member_of(room).cloned());
            }
        }
    }
}

/// Divides members into parts of about `limit` bytes; at least one, perhaps empty.
fn parts(members: Vec<(Arc<str>, Option<Json>)>, limit: usize) -> Vec<Vec<(Arc<str>, Option<Json>)>> {
    let (mut parts, mut size) = (vec![Vec::new()], 0);
    for (key, json) in members {
        let own = key.len() * 2 + json.as_ref().map_or(0, |json| json.len() * 2) + 32;
        if size + own > limit && size > 0 {
            parts.push(Vec::new());
            size = 0;
        }
        size += own;
        if let Some(part) = parts.last_mut() {
            part.push((key, json));
        }
    }
    parts
}
