//! Commands for all nodes of a cluster: close a user's or a room's connections, have a user join or leave a room.
//!
//! A command runs here at once and reaches other nodes at most once, like a message. Other nodes do not confirm it.

use super::{Client, Hub};
use crate::error::CloseError;
use crate::ws::check_close;

/// The result of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Commanded {
    /// The number of affected connections on this node.
    pub here: usize,
    /// Whether the command was queued for the other nodes. Delivery is not confirmed. False without a cluster.
    pub published: bool,
}

impl Hub {
    /// Closes the user's connections on all nodes, with this code and reason; see [`Client::close`]. Does not block.
    /// By the convention of Centrifuge SDKs, codes from 4500 to 4999 tell the client to stay away.
    ///
    /// # Errors
    ///
    /// As [`Client::close`]; nothing is closed then.
    pub fn close_user(&self, user: &str, code: u16, reason: &str) -> Result<Commanded, CloseError> {
        self.close_everywhere(Some(user), None, code, reason)
    }

    /// Closes the connections of a room's clients on all nodes; see [`close_user`](Hub::close_user).
    ///
    /// # Errors
    ///
    /// As [`Client::close`]; nothing is closed then.
    pub fn close_room(&self, room: &str, code: u16, reason: &str) -> Result<Commanded, CloseError> {
        self.close_everywhere(None, Some(room), code, reason)
    }

    /// Makes the user's connections on all nodes join a room. Hooks and limits apply to each connection, and refused
    /// ones stay out. Later connections of the user do not join.
    pub fn join_user(&self, user: &str, room: &str) -> Commanded {
        let here = self.join_user_here(user, room);
        Commanded { here, published: self.publish_join(user, room) }
    }

    /// Makes the user's connections on all nodes leave a room.
    pub fn leave_user(&self, user: &str, room: &str) -> Commanded {
        let here = self.leave_user_here(user, room);
        Commanded { here, published: self.publish_leave(user, room) }
    }

    fn close_everywhere(
        &self,
        user: Option<&str>,
        room: Option<&str>,
        code: u16,
        reason: &str,
    ) -> Result<Commanded, CloseError> {
        check_close(code, reason)?;
        let here = self.close_here(user, room, code, reason);
        Ok(Commanded { here, published: self.publish_close(user, room, code, reason) })
    }

    /// Closes this node's connections and returns their number.
    pub(super) fn close_here(&self, user: Option<&str>, room: Option<&str>, code: u16, reason: &str) -> usize {
        let mut clients = user.map_or_else(Vec::new, |user| self.user_clients(user));
        clients.extend(room.map_or_else(Vec::new, |room| self.room_clients(room)));
        clients.iter().filter(|client| client.close(code, reason).is_ok()).count()
    }

    pub(super) fn join_user_here(&self, user: &str, room: &str) -> usize {
        let join = |client: &&Client| client.join(room).is_ok();
        self.user_clients(user).iter().filter(join).count()
    }

    pub(super) fn leave_user_here(&self, user: &str, room: &str) -> usize {
        let leave = |client: &&Client| client.leave(room).is_ok();
        self.user_clients(user).iter().filter(leave).count()
    }
}
