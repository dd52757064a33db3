//! Connected clients: registration and its limits, the user index, and removal.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::Hub;
use super::client::Client;
use super::join::Entry;
use super::roster::{Roster, Snapshot};
use super::telling::Ticket;
use super::users::Users;
use crate::client_id::ClientId;
use crate::config::{MAX_USER_ID, reached};
use crate::error::{RoomError, UserError};
use crate::guard::{self, record};
use crate::transport::canonical_ip;

/// Every connection of the hub, guarded by the outermost lock.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub(super) roster: Roster,
    per_address: HashMap<IpAddr, usize>,
}

/// Why registration fails for a client that `on_upgrade` has admitted.
#[derive(Debug)]
pub(crate) enum Refused {
    NotRunning,
    TooManyConnections,
    TooManyOfAddress,
    TooManyOfUser,
    EmptyUser,
    UserTooLong,
    Room(RoomError),
}

/// Hooks that a registered client's thread must run once the client knows that it is connected.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Announcements {
    user: Option<Ticket>,
    rooms: Vec<Ticket>,
}

impl Clients {
    fn insert(&mut self, client: &Client, hub: &Hub) -> Result<(), Refused> {
        let limits = hub.limits();
        // Checked under this lock, so that no client registers after a drain or shutdown has taken the client list.
        if !hub.is_admitting() {
            return Err(Refused::NotRunning);
        }
        if reached(limits.max_connections, self.roster.len()) {
            return Err(Refused::TooManyConnections);
        }
        if let Some(ip) = client.remote_addr().map(canonical_ip) {
            let count = self.per_address.entry(ip).or_default();
            if reached(limits.max_connections_per_address, *count) {
                return Err(Refused::TooManyOfAddress);
            }
            *count += 1;
        }
        self.roster.insert(client);
        Ok(())
    }

    fn remove(&mut self, client: &Client) {
        if !self.roster.remove(client.id()) {
            return;
        }
        let Some(ip) = client.remote_addr().map(canonical_ip) else { return };
        if let Some(count) = self.per_address.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&ip);
            }
        }
    }
}

impl Hub {
    /// The number of connected clients.
    pub fn client_count(&self) -> usize {
        self.inner().clients.read().roster.len()
    }

    /// All connected clients. O(n).
    pub fn clients(&self) -> Vec<Client> {
        self.everyone().iter().map(|m| m.client.clone()).collect()
    }

    /// The client with this id, if it is connected.
    pub fn client(&self, id: ClientId) -> Option<Client> {
        self.inner().clients.read().roster.get(id).cloned()
    }

    /// The connections of a user.
    pub fn user_clients(&self, user_id: &str) -> Vec<Client> {
        self.inner().users.read().by_id.get(user_id).map_or_else(Vec::new, Roster::clients)
    }

    /// One of the connections of a user. O(1); for all of them see [`user_clients`](Hub::user_clients).
    pub fn user_client(&self, user_id: &str) -> Option<Client> {
        self.inner().users.read().by_id.get(user_id)?.first().cloned()
    }

    /// The number of a user's connections.
    pub fn user_connection_count(&self, user_id: &str) -> usize {
        self.inner().users.read().by_id.get(user_id).map_or(0, Roster::len)
    }

    /// Whether a user has any connection.
    pub fn is_user_online(&self, user_id: &str) -> bool {
        self.inner().users.read().by_id.contains_key(user_id)
    }

    /// The ids of all users with connections, in no particular order. O(n): for dashboards, not for hot paths.
    pub fn users(&self) -> Vec<Arc<str>> {
        self.inner().users.read().by_id.keys().cloned().collect()
    }

    /// The number of users with connections.
    pub fn user_count(&self) -> usize {
        self.inner().users.read().by_id.len()
    }

    pub(super) fn everyone(&self) -> Snapshot {
        let cached = self.inner().clients.read().roster.cached();
        cached.unwrap_or_else(|| self.inner().clients.write().roster.snapshot())
    }

    /// Checks every limit and registers the client for broadcasts, with its user and in its rooms. A refused client
    /// leaves nothing behind.
    pub(crate) fn register(
        &self,
        client: &Client,
        user: Option<Arc<str>>,
        rooms: &[String],
    ) -> Result<Announcements, Refused> {
        if user.as_deref() == Some("") {
            return Err(Refused::EmptyUser);
        }
        if user.as_deref().is_some_and(|id| id.len() > MAX_USER_ID) {
            return Err(Refused::UserTooLong);
        }
        let lifecycle = &self.inner().lifecycle;
        // Counted before the hub's state is read: if this connect does not see a drain or shutdown, that drain or
        // shutdown sees this connect.
        lifecycle.begin_connection();
        let listed = self.inner().clients.write().insert(client, self);
        listed.inspect_err(|_| lifecycle.end_connection())?;
        let mut announcements = Announcements::default();
        let entry = Entry::of_request(client);
        let joined = self.register_user(client, user, &mut announcements).and_then(|()| {
            rooms.iter().try_for_each(|room| match self.join_entering(client, room, entry) {
                Ok((ticket, entered)) => {
                    self.settle(entered);
                    announcements.rooms.extend(ticket);
                    Ok(())
                }
                // Another thread found the client in the list and has joined it to the room already. That thread runs
                // the hooks.
                Err(RoomError::AlreadyJoined) => Ok(()),
                Err(error) => Err(Refused::Room(error)),
            })
        });
        if let Err(refused) = joined {
            self.withdraw(client, announcements);
            return Err(refused);
        }
        Ok(announcements)
    }

    /// Undoes the registration of a client that was never connected. The socket stays open for the response with the
    /// reason. A handle that a hook has kept behaves like that of an ended connection.
    pub(crate) fn withdraw(&self, client: &Client, announcements: Announcements) {
        let Announcements { user, rooms } = announcements;
        let gone = self.remove_from_user(client);
        // Changes that were never reported are gone and need no hook. Changes that other threads have reported are
        // reported as undone.
        guard::catch(|| self.tell(user));
        guard::catch(|| self.tell(gone));
        guard::catch(|| client.end_calls());
        rooms.into_iter().for_each(|ticket| _ = guard::catch(|| self.leave_untold(client, ticket)));
        guard::catch(|| self.leave_all(client));
        self.inner().clients.write().remove(client);
        let dropped = client.outbox().map(|outbox| {
            outbox.end();
            outbox.lost()
        });
        guard::catch(|| client.mark_closed(dropped.unwrap_or_default()));
        client.release();
        self.connection_is_over(client);
    }

    /// Runs the hooks of a client that has become connected.
    pub(crate) fn announce(&self, client: &Client, announcements: Announcements) {
        self.count(|m| m.increment_connections());
        client.calls().set_own_thread();
        self.limit_age(client);
        self.tell(announcements.user);
        self.run_client_hook(&self.hooks().after_connect, "after_connect", client);
        for ticket in announcements.rooms {
            self.tell(Some(ticket));
        }
        // Records activity, so that a drain does not count the new client as idle since the drain began.
        drop(client.handling());
    }

    /// Runs all steps between the end of a connection and the end of its socket: `before_disconnect`, the user index,
    /// rooms with their hooks, the client list.
    ///
    /// Panics are caught in each step, so that no step prevents the others.
    pub(crate) fn unregister(&self, client: &Client) {
        guard::catch(|| client.end_calls());
        guard::catch(|| self.run_client_hook(&self.hooks().before_disconnect, "before_disconnect", client));
        let ticket = self.remove_from_user(client);
        guard::catch(|| self.tell(ticket));
        guard::catch(|| self.leave_all(client));
        self.inner().clients.write().remove(client);
        guard::catch(|| self.count(|m| m.decrement_connections()));
    }

    /// Runs the last hooks, after the outbox has ended. Then drops all of the application's values.
    pub(crate) fn retire(&self, client: &Client, dropped: (u64, u64)) {
        guard::catch(|| client.mark_closed(dropped));
        guard::catch(|| self.run_client_hook(&self.hooks().after_disconnect, "after_disconnect", client));
        client.release();
    }

    /// Called after the socket is closed: drains and shutdowns stop waiting for this connection.
    pub(crate) fn connection_is_over(&self, client: &Client) {
        self.unwatch(client.id());
        self.clear_deadlines(client);
        self.inner().lifecycle.end_connection();
    }

    pub(super) fn set_user(&self, client: &Client, user: Option<&str>) -> Result<(), UserError> {
        let mut tickets = [None, None];
        let rooms: Vec<Arc<str>>;
        {
            let mut own = client.state().write();
            if own.gone {
                return Err(UserError::ClientNotFound);
            }
            if own.user.as_deref() == user {
                return Ok(());
            }
            let mut users = self.inner().users.write();
            let new: Option<Arc<str>> = user.map(Arc::from);
            if let Some(new) = &new {
                tickets[1] = self.insert_user(&mut users, new, client)?;
            }
            let old = std::mem::replace(&mut own.user, new);
            if let Some(old) = &old {
                tickets[0] = self.remove_user(&mut users, old, client);
            }
            drop(users);
            rooms = own.rooms.iter().cloned().collect();
            self.member_renamed(client, &own, old.as_ref());
        }
        rooms.iter().for_each(|room| self.watch_members(room));
        record!(Debug, "wshub::hub", "{} is now of user {user:?}", client.id());
        for ticket in tickets {
            self.tell(ticket);
        }
        Ok(())
    }

    fn register_user(
        &self,
        client: &Client,
        user: Option<Arc<str>>,
        announcements: &mut Announcements,
    ) -> Result<(), Refused> {
        let Some(user) = user else { return Ok(()) };
        let mut own = client.state().write();
        if own.user.is_some() {
            // Another thread has found the client in the list and set its user, which must be kept.
            return Ok(());
        }
        let mut users = self.inner().users.write();
        announcements.user = self.insert_user(&mut users, &user, client).map_err(|_| Refused::TooManyOfUser)?;
        own.user = Some(user);
        Ok(())
    }

    /// Marks the client as gone, so that it can no longer join rooms, and removes it from its user.
    fn remove_from_user(&self, client: &Client) -> Option<Ticket> {
        let mut own = client.state().write();
        own.gone = true;
        let user = own.user.clone()?;
        self.remove_user(&mut self.inner().users.write(), &user, client)
    }

    fn insert_user(&self, users: &mut Users, user: &Arc<str>, client: &Client) -> Result<Option<Ticket>, UserError> {
        let is_first = users.insert(user, client, self.limits().max_connections_per_user)?;
        Ok(if is_first { self.user_changed(users, user, None) } else { None })
    }

    fn remove_user(&self, users: &mut Users, user: &Arc<str>, client: &Client) -> Option<Ticket> {
        let is_last = users.remove(user, client);
        if is_last { self.user_changed(users, user, Some(())) } else { None }
    }

    fn user_changed(&self, users: &mut Users, user: &Arc<str>, before: Option<()>) -> Option<Ticket> {
        let hooks = self.hooks();
        let is_watched = hooks.on_user_online.is_some() || hooks.on_user_offline.is_some();
        let has_ticket = is_watched && users.telling.changed(Arc::clone(user), before);
        has_ticket.then(|| Ticket::User(Arc::clone(user)))
    }
}
