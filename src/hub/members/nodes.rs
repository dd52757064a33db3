//! Members across nodes: reports about this node's members, and reports of other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Tables;
use super::table::{List, Reported, Table};
use crate::hub::Hub;
use crate::hub::control::{Control, Entry, FIELDS, divided, json_size};
use crate::hub::keeper::Job;

/// Space for a version and a hash in JSON, in bytes.
const DIGEST: usize = 45;

/// The source of versions in reports to other nodes. Versions follow the system's clock, so they rise across all rooms
/// and from one run of a node to the next. A room that is created anew is therefore not mistaken for its predecessor.
#[derive(Debug, Default)]
pub(super) struct Telling {
    version: u64,
    /// The keeper has a job to publish the digests.
    is_digest_due: bool,
}

impl Telling {
    fn next_version(&mut self) -> u64 {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        self.version = u64::try_from(now.as_micros()).unwrap_or(0).max(self.version + 1);
        self.version
    }
}

impl Hub {
    /// The reports about one room for other nodes.
    pub(super) fn member_controls(&self, room: &Arc<str>, table: &mut Table, telling: &mut Telling) -> Vec<Control> {
        let untold = table.take_untold();
        let is_list_wanted = table.take_list_wanted();
        let mut controls = Vec::new();
        if !self.shares_members() {
            return controls;
        }
        let limit = self.control_limit().saturating_sub(json_size(room) + FIELDS);
        if !untold.is_empty() {
            let changes = untold.into_iter().map(|(key, told)| Entry::new(&key, told)).collect();
            for changes in divided(changes, limit) {
                let version = telling.next_version();
                let since = table.tell(version);
                controls.push(Control::Changes { room: room.to_string(), since, version, changes });
            }
        }
        if is_list_wanted {
            if table.version() == 0 {
                table.tell(telling.next_version());
            }
            let version = table.version();
            let members = table.here().into_iter().map(|(key, json)| Entry::new(&key, Some(json))).collect();
            let parts = divided(members, limit);
            let of = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            controls.extend(parts.into_iter().zip(0..).map(|(members, index)| Control::List {
                room: room.to_string(),
                version,
                index,
                of,
                members,
            }));
        }
        controls
    }

    /// Sends reports to the other nodes.
    pub(super) fn tell_of_members(&self, controls: &[Control]) {
        controls.iter().for_each(|control| _ = self.publish_control(control));
    }

    /// Whether nodes exchange members. Without presence, no node would learn that another one is gone.
    fn shares_members(&self) -> bool {
        self.inner().node.link.as_ref().is_some_and(crate::cluster::Link::has_presence)
    }

    /// Schedules the rooms' digests. Called after a heartbeat.
    pub(in crate::hub) fn digests_due(&self) {
        if !self.inner().patterns.has_members() {
            return;
        }
        // One job at a time, so that jobs do not pile up while a hook blocks the keeper.
        let is_due = std::mem::replace(&mut self.inner().members.0.lock().telling.is_digest_due, true);
        if !is_due {
            self.keeper().schedule(Instant::now(), Job::Digests);
        }
    }

    /// Publishes the version and hash of every room with members here. Runs on the keeper's thread.
    pub(in crate::hub) fn publish_digests(&self) {
        let mut controls = Vec::new();
        let mut digests = BTreeMap::new();
        {
            let mut members = self.inner().members.0.lock();
            let Tables { rooms, telling } = &mut *members;
            telling.is_digest_due = false;
            for (room, table) in rooms.iter_mut() {
                // Pending changes go first; otherwise the others would ask for the list.
                controls.extend(self.member_controls(room, table, telling));
                digests.extend(table.digest().map(|digest| (room.to_string(), digest)));
            }
        }
        self.tell_of_members(&controls);
        let limit = self.control_limit().saturating_sub(FIELDS);
        let mut from = String::new();
        let mut rooms = BTreeMap::new();
        // The names of the first room and of the next part's come besides.
        let mut size = 0;
        for (room, digest) in digests {
            let name = json_size(&room);
            if size > 0 && size + 2 * name + DIGEST > limit {
                let part = std::mem::take(&mut rooms);
                self.publish_control(&Control::Digests { from: from.clone(), to: Some(room.clone()), rooms: part });
                from.clone_from(&room);
                size = name;
            }
            size += name + DIGEST;
            rooms.insert(room, digest);
        }
        self.publish_control(&Control::Digests { from, to: None, rooms });
    }

    pub(in crate::hub) fn hear_changes(
        &self,
        node: &str,
        room: &str,
        [since, version]: [u64; 2],
        changes: Vec<(String, Reported)>,
    ) {
        let is_list_wanted = self.hear_members(room, |table| {
            let is_complete = table.hear_changes(node, since, version, changes);
            !is_complete && table.ask(node, Instant::now())
        });
        if is_list_wanted {
            self.publish_control(&Control::Query { node: node.to_owned(), room: room.to_owned() });
        }
    }

    pub(in crate::hub) fn hear_list(&self, node: &str, room: &str, list: List) {
        self.hear_members(room, |table| {
            table.hear_list(node, list);
            false
        });
    }

    /// Processes the digests of a node's rooms whose names lie between two names. Rooms without a digest have no
    /// members there.
    pub(in crate::hub) fn hear_digests(
        &self,
        node: &str,
        from: &str,
        to: Option<&str>,
        rooms: &BTreeMap<String, (u64, u64)>,
    ) {
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

    /// Notes that another node has asked for the list of one room.
    pub(in crate::hub) fn want_list(&self, room: &str) {
        self.hear_members(room, |table| {
            table.want_list();
            false
        });
    }

    /// Removes the members of a node that has left or is silent.
    pub(in crate::hub) fn forget_members_of(&self, node: &str) {
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

    /// Changes the table of this room, if rooms of this name track members.
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
}
