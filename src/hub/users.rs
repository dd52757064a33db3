//! The index from users to their connections.

use std::collections::HashMap;
use std::sync::Arc;

use super::client::Client;
use super::roster::Roster;
use crate::config::reached;
use crate::error::UserError;
use crate::levels::Levels;

/// The user index, guarded by the innermost of the hub's locks. A user without connections has no entry.
#[derive(Debug, Default)]
pub(super) struct Users {
    pub(super) by_id: HashMap<Arc<str>, Roster>,
    /// The state last reported to the online and offline hooks; changes together with `by_id`.
    pub(super) telling: Levels<Arc<str>>,
}

impl Users {
    /// Adds a connection. Returns true if it is the user's first.
    pub(super) fn insert(&mut self, user: &Arc<str>, client: &Client, limit: usize) -> Result<bool, UserError> {
        if reached(limit, self.by_id.get(user).map_or(0, Roster::len)) {
            return Err(UserError::TooManyConnections);
        }
        let roster = self.by_id.entry(Arc::clone(user)).or_default();
        roster.insert(client);
        Ok(roster.len() == 1)
    }

    /// Removes a connection. Returns true if it was the user's last.
    pub(super) fn remove(&mut self, user: &Arc<str>, client: &Client) -> bool {
        let Some(roster) = self.by_id.get_mut(user) else { return false };
        let last = roster.remove(client.id()) && roster.is_empty();
        if last {
            self.by_id.remove(user);
        }
        last
    }
}
