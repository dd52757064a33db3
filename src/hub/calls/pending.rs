//! The calls to one client that wait for an answer.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};
use std::time::Instant;

use super::error::CallError;
use crate::client_id::ClientId;
use crate::hub::Client;
use crate::lock::Leaf;
use crate::message::Message;
use crate::sorted_map::SortedMap;

/// Maximum number of calls to one client that wait for an answer.
pub(super) const MAX_PENDING: usize = 64;

pub(super) type CallResult = Result<Message, CallError>;

/// A client and its answer.
pub(super) type Answer = (ClientId, CallResult);

/// A closure that gets the result on the connection's thread.
type Then = Box<dyn FnOnce(&Client, CallResult) + Send>;

/// The receiver of a call's result. It gets the result once.
pub(super) enum Waiter {
    /// Code of this crate, which may run on any thread. It passes the result to a caller that has its own timeout.
    Anywhere(Box<dyn FnOnce(CallResult) + Send>),
    /// The same for a caller on another node. The call is given up at this time.
    #[cfg(feature = "cluster")]
    Elsewhere(Box<dyn FnOnce(CallResult) + Send>, Instant),
    /// The application's closure, which runs on the connection's thread, and its deadline.
    OwnThread(Then, Instant),
}

/// The calls to one client.
pub(in crate::hub) struct Calls {
    /// A leaf lock. Waiters are run and dropped without it.
    state: Leaf<State>,
    /// A waiter with a deadline may be present. Set under the lock. Relaxed: the connection's thread reads it without
    /// the lock, but looks again before each read of the socket, and a ping wakes it after another thread has set this.
    has_deadline: AtomicBool,
    /// The id of the connection's thread, once it has started.
    thread: OnceLock<ThreadId>,
}

#[derive(Default)]
struct State {
    last: u64,
    waiting: SortedMap<u64, Waiter>,
    /// When the keeper next checks for timed-out calls from other nodes; `None` if it has no such job.
    #[cfg(feature = "cluster")]
    keeper_at: Option<Instant>,
    /// The connection has ended. No more calls are accepted.
    is_over: bool,
}

impl Default for Calls {
    fn default() -> Self {
        Self { state: Leaf::new(State::default()), has_deadline: AtomicBool::new(false), thread: OnceLock::new() }
    }
}

impl Calls {
    /// Records that the calling thread is the connection's.
    pub(in crate::hub) fn set_own_thread(&self) {
        // Set once, at the connection's start.
        let _ = self.thread.set(thread::current().id());
    }

    pub(super) fn is_own_thread(&self) -> bool {
        self.thread.get() == Some(&thread::current().id())
    }

    /// Registers a call and returns its id. An error returns the waiter.
    pub(super) fn begin(&self, waiter: Waiter) -> Result<u64, (CallError, Waiter)> {
        let mut state = self.state.lock();
        if state.is_over {
            return Err((CallError::Closed, waiter));
        }
        if state.waiting.len() >= MAX_PENDING {
            return Err((CallError::TooMany, waiter));
        }
        if let Waiter::OwnThread(..) = waiter {
            self.has_deadline.store(true, Ordering::Relaxed);
        }
        state.last += 1;
        let id = state.last;
        state.waiting.insert(id, waiter);
        Ok(id)
    }

    /// Whether a call has had this id, be it answered or not.
    pub(super) fn was_begun(&self, id: u64) -> bool {
        (1..=self.state.lock().last).contains(&id)
    }

    /// Takes out the waiter of a call. `None` if it already has its result.
    pub(super) fn take(&self, id: u64) -> Option<Waiter> {
        self.state.lock().waiting.remove(&id)
    }

    /// Takes out all waiters at the end of the connection.
    pub(super) fn end(&self) -> Vec<Waiter> {
        let mut state = self.state.lock();
        state.is_over = true;
        std::mem::take(&mut state.waiting).into_values().collect()
    }

    /// Takes out the connection's own waiters that have timed out. Returns them and the next deadline.
    pub(super) fn due(&self, now: Instant) -> (Vec<Waiter>, Option<Instant>) {
        if !self.has_deadline.load(Ordering::Relaxed) {
            return (Vec::new(), None);
        }
        let mut state = self.state.lock();
        let is_due = |waiter: &Waiter| matches!(waiter, Waiter::OwnThread(_, deadline) if *deadline <= now);
        let ids: Vec<u64> = state.waiting.iter().filter(|(_, waiter)| is_due(waiter)).map(|(id, _)| *id).collect();
        let due = ids.iter().filter_map(|id| state.waiting.remove(id)).collect();
        let deadline = |waiter: &Waiter| if let Waiter::OwnThread(_, at) = waiter { Some(*at) } else { None };
        let next = state.waiting.iter().filter_map(|(_, waiter)| deadline(waiter)).min();
        self.has_deadline.store(next.is_some(), Ordering::Relaxed);
        (due, next)
    }

    /// Takes out waiters of other nodes that have timed out. Returns them and the time at which the keeper must check
    /// again, unless it already has such a job. `is_keeper` means that the caller is that job.
    #[cfg(feature = "cluster")]
    pub(super) fn due_elsewhere(&self, now: Instant, is_keeper: bool) -> (Vec<Waiter>, Option<Instant>) {
        let mut state = self.state.lock();
        if is_keeper {
            state.keeper_at = None;
        }
        let is_due = |waiter: &Waiter| matches!(waiter, Waiter::Elsewhere(_, deadline) if *deadline <= now);
        let ids: Vec<u64> = state.waiting.iter().filter(|(_, waiter)| is_due(waiter)).map(|(id, _)| *id).collect();
        let due = ids.iter().filter_map(|id| state.waiting.remove(id)).collect();
        let deadline = |waiter: &Waiter| if let Waiter::Elsewhere(_, at) = waiter { Some(*at) } else { None };
        let next = state.waiting.iter().filter_map(|(_, waiter)| deadline(waiter)).min();
        let next = next.filter(|at| state.keeper_at.is_none_or(|known| *at < known));
        state.keeper_at = next.or(state.keeper_at);
        (due, next)
    }

    pub(in crate::hub) fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn anywhere() -> Waiter {
        Waiter::Anywhere(Box::new(|_| ()))
    }

    #[test]
    fn pending_calls_are_bounded_and_each_is_taken_once() {
        let calls = Calls::default();
        let ids: Vec<u64> = (0..MAX_PENDING).filter_map(|_| calls.begin(anywhere()).ok()).collect();
        assert_eq!(ids.len(), MAX_PENDING);
        assert!(matches!(calls.begin(anywhere()), Err((CallError::TooMany, _))));
        assert!(calls.take(ids[3]).is_some() && calls.take(ids[3]).is_none() && calls.take(999).is_none());
        assert!(calls.begin(anywhere()).is_ok_and(|id| !ids.contains(&id)), "ids are not used again");
        assert_eq!((calls.end().len(), calls.len()), (MAX_PENDING, 0));
        assert!(matches!(calls.begin(anywhere()), Err((CallError::Closed, _))));
    }

    #[test]
    fn deadlines_are_those_of_the_connections_thread() {
        let (calls, now) = (Calls::default(), Instant::now());
        let second = Duration::from_secs(1);
        let own = |after: u32| Waiter::OwnThread(Box::new(|_, _| ()), now + second * after);
        assert_eq!(calls.due(now).1, None);
        assert!([own(3), anywhere(), own(1), own(2)].into_iter().all(|waiter| calls.begin(waiter).is_ok()));
        let (due, next) = calls.due(now + second);
        assert_eq!((due.len(), next), (1, Some(now + second * 2)));
        let (due, next) = calls.due(now + second * 3);
        assert_eq!((due.len(), next, calls.len()), (2, None, 1));
        assert!(!calls.is_own_thread());
        calls.set_own_thread();
        assert!(calls.is_own_thread());
    }

    /// However many calls come from other nodes, the keeper has one job for them.
    #[cfg(feature = "cluster")]
    #[test]
    fn calls_from_elsewhere_are_given_up_by_one_job() {
        let (calls, now) = (Calls::default(), Instant::now());
        let second = Duration::from_secs(1);
        let begin = |after: u32| {
            let id = calls.begin(Waiter::Elsewhere(Box::new(|_| ()), now + second * after)).ok();
            (id, calls.due_elsewhere(now, false).1)
        };
        let (first, job) = begin(5);
        assert_eq!(job, Some(now + second * 5));
        assert_eq!((begin(7).1, begin(3).1, begin(4).1), (None, Some(now + second * 3), None));
        assert!(first.is_some_and(|id| calls.take(id).is_some()), "answered");
        assert!(calls.begin(anywhere()).is_ok());
        let (due, next) = calls.due_elsewhere(now + second * 3, true);
        assert_eq!((due.len(), next), (1, Some(now + second * 4)));
        let (due, next) = calls.due_elsewhere(now + second * 9, true);
        assert_eq!((due.len(), next, calls.len()), (2, None, 1));
    }
}
