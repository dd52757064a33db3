//! Runs the hooks that report a state: `after_room_join` and `after_room_leave`, `on_user_online` and
//! `on_user_offline`, and the metrics of joins and leaves.
//!
//! The thread that changes a state runs the hook, after releasing its locks. If another thread is already running a
//! hook for the same client and room, or for the same user, the change is left to that thread. That thread finds the
//! change when its hook returns, and starts a `wshub-hooks` thread, which runs hooks until the reported and the current
//! state agree. So no connection's thread works for changes that others cause, however frequent they are. See
//! [`levels`](crate::levels) for the argument.

use std::sync::Arc;
use std::thread;

use super::Hub;
use super::client::Client;
use super::lifecycle::Live;
use crate::guard::{record, record_limited};
use crate::levels::{Edge, Levels};

/// The obligation to run the hooks of one state.
#[derive(Debug, Clone)]
#[must_use = "the hooks wait for it"]
pub(super) enum Ticket {
    Room { client: Client, room: Arc<str> },
    User(Arc<str>),
}

impl Ticket {
    pub(super) fn of_room(client: &Client, room: &Arc<str>) -> Self {
        Self::Room { client: client.clone(), room: Arc::clone(room) }
    }
}

impl Hub {
    /// Runs the hooks for a change that the calling thread has caused.
    pub(super) fn tell(&self, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return };
        if let Some(edge) = self.next_edge(&ticket) {
            self.tell_edge(&ticket, edge);
            if !self.with_level(&ticket, Levels::give_back) {
                return self.hand_over(&ticket);
            }
        }
        self.tell_settled(&ticket);
    }

    /// Hands a ticket whose state has changed in the meantime to a separate thread.
    #[cold]
    fn hand_over(&self, ticket: &Ticket) {
        let given = (Live::new(self), self.clone(), ticket.clone());
        let builder = thread::Builder::new().name("wshub-hooks".into()).stack_size(self.config().reader_stack);
        let spawned = builder.spawn(move || {
            // A drain or shutdown waits until `_live` drops, which is last.
            let (_live, hub, ticket) = given;
            hub.tell_all(&ticket);
        });
        if let Err(error) = spawned {
            record_limited!(
                Warn,
                "wshub::hub",
                "could not start a wshub-hooks thread: {error}; its caller runs the hooks"
            );
            self.tell_all(ticket);
        }
    }

    fn tell_all(&self, ticket: &Ticket) {
        while let Some(edge) = self.next_edge(ticket) {
            self.tell_edge(ticket, edge);
        }
        self.tell_settled(ticket);
    }

    /// After the ticket's release. Hooks do not learn of changes that cancel each other; a protocol that looks at the
    /// room by itself, between two such changes, must look again. Each change has a thread that comes here later: the
    /// one that changed the state, or the one that had the ticket then.
    fn tell_settled(&self, ticket: &Ticket) {
        if let (Ticket::Room { client, room }, Some(hook)) = (ticket, &self.hooks().room_settled) {
            self.guarded(Some(client), "room_settled", || hook(client, room));
        }
        if let Ticket::Room { client, .. } = ticket {
            client.release_if_over();
        }
    }

    /// The next hook to run. `None`: the ticket is released.
    fn next_edge(&self, ticket: &Ticket) -> Option<Edge> {
        self.with_level(ticket, Levels::next)
    }

    /// Compares the reported and the current state, under the lock that guards both.
    fn with_level<T>(&self, ticket: &Ticket, look: impl FnOnce(&mut Levels<Arc<str>>, &str, Option<()>) -> T) -> T {
        match ticket {
            Ticket::Room { client, room } => {
                let mut own = client.state().write();
                let is = own.rooms.contains(room).then_some(());
                look(&mut own.telling, room, is)
            }
            Ticket::User(user) => {
                let mut users = self.inner().users.write();
                let is = users.by_id.contains_key(user).then_some(());
                look(&mut users.telling, user, is)
            }
        }
    }

    fn tell_edge(&self, ticket: &Ticket, edge: Edge) {
        match ticket {
            Ticket::Room { client, room } => self.tell_room(client, room, edge),
            Ticket::User(user) => {
                let (hook, what) = match edge {
                    Edge::Up => (&self.hooks().on_user_online, "on_user_online"),
                    Edge::Down => (&self.hooks().on_user_offline, "on_user_offline"),
                };
                if let Some(hook) = hook {
                    self.guarded(None, what, || hook(self, user));
                }
            }
        }
    }

    fn tell_room(&self, client: &Client, room: &str, edge: Edge) {
        match edge {
            Edge::Up => {
                record!(Debug, "wshub::hub", "{} joined {room:?}", client.id());
                self.count(|m| m.increment_room_joins());
                self.run_room_hook(&self.hooks().after_room_join, "after_room_join", client, room);
            }
            Edge::Down => {
                record!(Debug, "wshub::hub", "{} left {room:?}", client.id());
                self.count(|m| m.increment_room_leaves());
                self.run_room_hook(&self.hooks().after_room_leave, "after_room_leave", client, room);
            }
        }
    }
}
