//! Members: the users or clients in a room, across all nodes, and their changes.
//!
//! ```text
//! join, leave, metadata ── Table (under the room's and the client's lock) ── flush, at most every 50 ms ──▶ hook,
//!                                                                                                    clients, nodes
//! other nodes ── changes, lists, digests ── Table ── flush ──▶ hook, clients
//! ```
//!
//! Each node owns the members that are connected to it and reports their changes to the other nodes. Its heartbeats
//! carry a version and a hash for each room. A node that has a different hash asks for the list. So all nodes agree
//! again after the next heartbeat, whatever the bus has lost. Only the keeper's thread sends these reports, so other
//! nodes get them in order.

mod change;
#[cfg(feature = "cluster")]
mod nodes;
#[cfg(not(feature = "cluster"))]
#[path = "no_nodes.rs"]
mod nodes;
mod table;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use change::{Member, MemberChange, MemberError};

pub(super) use change::metadata;
pub(super) use table::Json;
#[cfg(feature = "cluster")]
pub(super) use table::{List, Reported};

use super::client::ClientState;
use super::keeper::Job;
use super::{Client, Hub, Target};
use crate::lock::Leaf;
use crate::message::Message;
use nodes::Telling;
use table::Table;

/// The time between two flushes of one room.
const BATCH: Duration = Duration::from_millis(50);

/// The members of all rooms with [`RoomOptions::members`](crate::RoomOptions::members). A leaf lock that is taken under
/// a room's and a client's lock, so members change together with the room's roster.
#[derive(Debug, Default)]
pub(super) struct Members(Leaf<Tables>);

#[derive(Debug, Default)]
struct Tables {
    rooms: HashMap<Arc<str>, Table>,
    telling: Telling,
}

type AnnounceFn = dyn Fn(&str, &[MemberChange]) -> Option<Message> + Send + Sync;

/// The function with which a protocol announces changes to clients.
#[derive(Default)]
pub(super) struct Announce(pub(super) Option<Box<AnnounceFn>>);

impl fmt::Debug for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Announce").field(&self.0.is_some()).finish()
    }
}

impl Client {
    /// Sets the metadata that others see of this connection in rooms with members: JSON of at most 1 KiB. Replaces
    /// earlier metadata and announces the change in the client's rooms.
    ///
    /// # Errors
    ///
    /// The value cannot be serialised, or its JSON is too long.
    pub fn set_member(&self, value: &impl Serialize) -> Result<(), MemberError> {
        let json = metadata(value)?;
        let rooms: Vec<Arc<str>> = {
            let mut own = self.state().write();
            own.member = Some(Arc::clone(&json));
            let mut members = self.hub().inner().members.0.lock();
            let has_none = |room: &&Arc<str>| !own.member_in.contains(*room);
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

    /// Sets the metadata that others see of this connection in one room with members. It overrides
    /// [`set_member`](Client::set_member) until the client leaves the room. Before a join, it takes effect with the
    /// join. If the join does not follow, call [`clear_member_in`](Client::clear_member_in).
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

    /// Undoes [`set_member_in`](Client::set_member_in) for a room that the client has not joined. Does nothing while
    /// the client is in the room.
    pub fn clear_member_in(&self, room: &str) {
        let mut own = self.state().write();
        if !own.rooms.contains(room) {
            own.member_in.remove(room);
        }
    }
}

impl Hub {
    /// The members of a room on all nodes, as far as they have reported, ordered by id. Empty for rooms without
    /// [`RoomOptions::members`](crate::history::RoomOptions::members).
    ///
    /// The changes passed to [`on_member_change`](crate::HubBuilder::on_member_change) add up to this list, once all
    /// have been reported. Members of other nodes need [`Cluster::presence`](crate::cluster::Cluster::presence).
    #[doc(alias("presence", "who is online"))]
    pub fn members(&self, room: &str) -> Vec<Member> {
        self.inner().members.0.lock().rooms.get(room).map_or_else(Vec::new, Table::list)
    }

    /// Whether members of rooms with this name are tracked by connection; see
    /// [`RoomOptions::with_connections`](crate::history::RoomOptions::with_connections).
    pub fn tracks_connections(&self, room: &str) -> bool {
        self.inner().patterns.find(room).is_some_and(|options| options.by_connection)
    }

    /// The number of members of each room that has members.
    pub(crate) fn member_counts(&self) -> HashMap<Arc<str>, usize> {
        let members = self.inner().members.0.lock();
        let counts = members.rooms.iter().map(|(room, table)| (Arc::clone(room), table.count()));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// The key of a member: its user id or client id.
    fn member_key(&self, client: &Client, room: &str, user: Option<&Arc<str>>) -> Arc<str> {
        user.filter(|_| !self.tracks_connections(room)).map_or_else(|| client.id().to_string().into(), Arc::clone)
    }

    fn has_members(&self, room: &str) -> bool {
        self.inner().patterns.find(room).is_some_and(|options| options.members)
    }

    fn linger(&self, room: &str) -> Duration {
        self.inner().patterns.find(room).map_or(Duration::ZERO, |options| options.member_linger)
    }

    /// Records that the client has joined. Called under the room's and the client's lock.
    pub(super) fn member_joined(&self, client: &Client, room: &Arc<str>, user: Option<&Arc<str>>, json: Option<&Json>) {
        if self.has_members(room) {
            let mut members = self.inner().members.0.lock();
            let key = self.member_key(client, room, user);
            members.rooms.entry(Arc::clone(room)).or_default().join(&key, client.id(), json.cloned());
        }
    }

    /// Records that the client has left. Called under the room's and the client's lock.
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
            let Tables { rooms, telling } = &mut *members;
            let Some(table) = rooms.get_mut(room) else { return };
            let now = Instant::now();
            if let Some(at) = table.flushed.map(|last| last + BATCH).filter(|at| *at > now) {
                // A member's linger has ended too soon after the last flush. A watched table already has a job.
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
            let controls = self.member_controls(room, table, telling);
            if table.is_over() {
                rooms.remove(room);
            }
            (changes, controls, next)
        };
        self.tell_of_members(&controls);
        if let Some(hook) = &self.hooks().on_member_change {
            for change in &changes {
                self.guarded(None, "on_member_change", || hook(self, room, change));
            }
        }
        let announce = self.inner().announce_members.0.as_ref().filter(|_| !changes.is_empty());
        let announce =
            announce.and_then(|announce| self.guarded(None, "a message of members", || announce(room, &changes)));
        if let Some(message) = announce.flatten() {
            // Not recorded in the room's history: later members get the list, and only publications have positions.
            let target = Target::room(&**room);
            self.deliver_now(&target, &self.resolve(&target), &message);
        }
        if let Some(at) = next {
            self.keeper().schedule(at, Job::Members(Arc::clone(room)));
        }
    }

    /// Records that the client's user has changed from `old`. Called under the client's lock.
    pub(super) fn member_renamed(&self, client: &Client, own: &ClientState, old: Option<&Arc<str>>) {
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
