//! Which connections belong to which user, and the moments when a user comes and goes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::client::Client;
use super::roster::Roster;
use crate::config::reached;
use crate::error::UserError;

/// The user index; the innermost of the hub's locks guards it. A user without connections has no entry.
#[derive(Debug, Default)]
pub(super) struct Users {
    pub(super) by_id: HashMap<Arc<str>, Roster>,
}

impl Users {
    /// Adds a connection. True if it is the user's first.
    pub(super) fn insert(&mut self, user: &Arc<str>, client: &Client, limit: usize) -> Result<bool, UserError> {
        if reached(limit, self.by_id.get(user).map_or(0, Roster::len)) {
            return Err(UserError::TooManyConnections);
        }
        let roster = self.by_id.entry(Arc::clone(user)).or_default();
        roster.insert(client);
        Ok(roster.len() == 1)
    }

    /// Removes a connection. True if it was the user's last.
    pub(super) fn remove(&mut self, user: &Arc<str>, client: &Client) -> bool {
        let Some(roster) = self.by_id.get_mut(user) else { return false };
        let last = roster.remove(client.id()) && roster.is_empty();
        if last {
            self.by_id.remove(user);
        }
        last
    }
}

/// A user has come online (first connection) or gone offline (last connection).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    Online,
    Offline,
}

/// The duty to run the hooks of a user's transitions, given to one thread at a time.
#[derive(Debug)]
#[must_use = "the transitions of this user wait for it"]
pub(super) struct Turn {
    pub(super) user: Arc<str>,
    pub(super) transition: Transition,
}

/// Transitions in the order in which the index saw them, for each user whose hooks are running.
///
/// A transition is recorded under the index's lock, so the order is the index's. Its hook runs later without a lock:
/// the first thread to record one for a user runs it and whatever is recorded for that user meanwhile. So hooks of one
/// user never overlap and never swap, and nobody waits for them.
#[derive(Debug, Default)]
pub(super) struct Transitions {
    /// A leaf lock. A user is a key while a thread has the turn.
    running: Mutex<HashMap<Arc<str>, VecDeque<Transition>>>,
}

impl Transitions {
    /// Records a transition; `Some` if the calling thread must run it (after releasing its locks).
    pub(super) fn record(&self, user: &Arc<str>, transition: Transition) -> Option<Turn> {
        let mut running = self.running.lock();
        if let Some(queue) = running.get_mut(user) {
            queue.push_back(transition);
            return None;
        }
        running.insert(Arc::clone(user), VecDeque::new());
        Some(Turn { user: Arc::clone(user), transition })
    }

    /// The next transition of the user whose turn this is, or the end of the turn.
    pub(super) fn next(&self, turn: Turn) -> Option<Turn> {
        let mut running = self.running.lock();
        let next = running.get_mut(&turn.user).and_then(VecDeque::pop_front);
        if next.is_none() {
            running.remove(&turn.user);
        }
        next.map(|transition| Turn { transition, ..turn })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_has_the_turn_and_runs_what_comes_meanwhile() {
        let transitions = Transitions::default();
        let user: Arc<str> = "ann".into();
        let turn = transitions.record(&user, Transition::Online).expect("first");
        assert!(transitions.record(&user, Transition::Offline).is_none());
        assert!(transitions.record(&user, Transition::Online).is_none());
        assert!(transitions.record(&"bob".into(), Transition::Online).is_some());
        let turn = transitions.next(turn).expect("second");
        assert_eq!(turn.transition, Transition::Offline);
        let turn = transitions.next(turn).expect("third");
        assert_eq!(turn.transition, Transition::Online);
        assert!(transitions.next(turn).is_none());
        assert!(transitions.record(&user, Transition::Offline).is_some(), "a new turn");
    }
}
