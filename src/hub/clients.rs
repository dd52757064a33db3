//! Who is connected: registration with its limits, the user index, and the way out.

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
use crate::config::reached;
use crate::error::{RoomError, UserError};
use crate::guard::{self, record};
use crate::transport::canonical_ip;

/// Every connection of the hub; the outermost of its locks guards it.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub(super) roster: Roster,
    per_address: HashMap<IpAddr, usize>,
}

/// Why a client that `on_upgrade` has admitted does not get in after all.
#[derive(Debug)]
pub(crate) enum Refused {
    NotRunning,
    TooManyConnections,
    TooManyOfAddress,
    TooManyOfUser,
    EmptyUser,
    Room(RoomError),
}

/// What a registered client's thread still owes: hooks that run once the client knows that it is connected.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Announcements {
    user: Option<Ticket>,
    rooms: Vec<Ticket>,
}

impl Clients {
    fn insert(&mut self, client: &Client, hub: &Hub) -> Result<(), Refused> {
        let limits = hub.limits();
        // Under this lock, so that no client slips in behind a drain or shutdown that has taken its list.
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
    /// Connected clients.
    pub fn client_count(&self) -> usize {
        self.inner().clients.read().roster.len()
    }

    /// All connected clients. O(n).
    pub fn clients(&self) -> Vec<Client> {
        self.everyone().iter().map(|m| m.client.clone()).collect()
    }

    /// The client of that id, while it is connected.
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

    /// How many connections a user has.
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

    /// How many users have connections.
    pub fn user_count(&self) -> usize {
        self.inner().users.read().by_id.len()
    }

    pub(super) fn everyone(&self) -> Snapshot {
        let cached = self.inner().clients.read().roster.cached();
        cached.unwrap_or_else(|| self.inner().clients.write().roster.snapshot())
    }

    /// Takes every limit into account and makes the client known: to broadcasts, to its user, in its rooms. Nothing of
    /// a refused client stays behind.
    pub(crate) fn register(
        &self,
        client: &Client,
        user: Option<Arc<str>>,
        rooms: &[String],
    ) -> Result<Announcements, Refused> {
        if user.as_deref() == Some("") {
            return Err(Refused::EmptyUser);
        }
        let lifecycle = &self.inner().lifecycle;
        // Counted before the hub's state is looked at: a drain or shutdown that this connect does not see sees it.
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
                // Another thread found the client in the list and was quicker: it tells the hooks.
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

    /// Undoes a registration whose client has never been connected. Its socket stays, for the answer that says why; its
    /// handle, which a hook may have kept, is that of a connection that has ended.
    pub(crate) fn withdraw(&self, client: &Client, announcements: Announcements) {
        let Announcements { user, rooms } = announcements;
        let gone = self.remove_from_user(client);
        // What was never told of is gone by now, so nothing is told; what other threads have caused and told is undone.
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
        // It has just come, so a drain does not find it idle since the beginning.
        drop(client.handling());
    }

    /// Everything between the end of a connection and the end of its socket: `before_disconnect`, the user index,
    /// rooms with their hooks, the client list.
    ///
    /// Each step is caught, so that none keeps the others from being done.
    pub(crate) fn unregister(&self, client: &Client) {
        guard::catch(|| client.end_calls());
        guard::catch(|| self.run_client_hook(&self.hooks().before_disconnect, "before_disconnect", client));
        let ticket = self.remove_from_user(client);
        guard::catch(|| self.tell(ticket));
        guard::catch(|| self.leave_all(client));
        self.inner().clients.write().remove(client);
        guard::catch(|| self.count(|m| m.decrement_connections()));
    }

    /// After the outbox has ended: the last hooks. Then nothing of the application is kept any more.
    pub(crate) fn retire(&self, client: &Client, dropped: (u64, u64)) {
        guard::catch(|| client.mark_closed(dropped));
        guard::catch(|| self.run_client_hook(&self.hooks().after_disconnect, "after_disconnect", client));
        client.release();
    }

    /// After the socket is closed: nobody waits for this connection any more.
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
            self.member_renamed(client, &rooms, [old.as_ref(), own.user.as_ref()], own.member.as_ref());
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
            // Somebody has found the client in the list and set its user already, who must not be forgotten now.
            return Ok(());
        }
        let mut users = self.inner().users.write();
        announcements.user = self.insert_user(&mut users, &user, client).map_err(|_| Refused::TooManyOfUser)?;
        own.user = Some(user);
        Ok(())
    }

    /// Marks the client as gone, so that it joins nothing any more, and takes it from its user.
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
