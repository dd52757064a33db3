//! Calls to one client.

use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::error::{CallError, CallRefusal};
use super::pending::{CallResult, Waiter};
use crate::config::deadline_after;
use crate::guard::dispose;
use crate::hub::Client;
#[cfg(feature = "cluster")]
use crate::hub::keeper::Job;
use crate::message::{Message, SendError};
use crate::outbox::Outbox;

impl Client {
    /// Asks the client and waits for its answer, for at most `timeout`. Blocks the calling thread until the answer, the
    /// timeout, or the end of the connection. The hub needs a format for calls: see
    /// [`HubBuilder::call_format`](crate::HubBuilder::call_format).
    ///
    /// The message is sent once, and the drop policy applies. After a timeout it is unknown whether the client has
    /// acted on the call. A later answer is counted and ignored.
    ///
    /// # Errors
    ///
    /// See [`CallError`]. On the connection's own thread, where its handlers run, the call fails at once with
    /// [`CallError::OwnThread`], because only that thread can read the answer.
    pub fn call(&self, method: &str, payload: impl Into<Message>, timeout: Duration) -> Result<Message, CallError> {
        if self.calls().is_own_thread() {
            return Err(CallError::OwnThread);
        }
        let (sender, receiver) = bounded(1);
        let waiter = Waiter::Anywhere(Box::new(move |result| {
            // Without a receiver, the caller has given up.
            let _ = sender.send(result);
        }));
        let id = self.ask(method, &payload.into(), waiter).map_err(|(error, _)| error)?;
        match receiver.recv_deadline(deadline_after(timeout)) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) if self.calls().take(id).is_some() => {
                self.hub().count(|m| m.increment_call_timeouts());
                Err(CallError::Timeout)
            }
            // Another thread has taken the waiter and is about to send the answer.
            Err(_) => receiver.recv().unwrap_or(Err(CallError::Closed)),
        }
    }

    /// Asks the client and passes the answer to the closure. Does not block, so the connection's own handlers may use
    /// it.
    ///
    /// The closure runs exactly once, on the connection's thread: when the answer arrives, when `timeout` has passed,
    /// or when the connection has ended. If the call cannot be made, the closure runs at once, on the calling thread. A
    /// panic in it closes the connection with 1011.
    pub fn call_then(
        &self,
        method: &str,
        payload: impl Into<Message>,
        timeout: Duration,
        then: impl FnOnce(&Client, Result<Message, CallError>) + Send + 'static,
    ) {
        let waiter = Waiter::OwnThread(Box::new(then), deadline_after(timeout));
        match self.ask(method, &payload.into(), waiter) {
            Err((error, waiter)) => self.finish(waiter, Err(error)),
            // The connection's thread may be blocked in a read that lasts longer than the deadline. The pong wakes it.
            Ok(_) if !self.calls().is_own_thread() => self.outbox().iter().for_each(Outbox::ping),
            Ok(_) => {}
        }
    }

    /// Delivers the answer to the call with this id, for protocols with their own
    /// [`CallFormat`](crate::calls::CallFormat). Call it on the connection's thread. Returns false, and counts a late
    /// reply, if no such call is waiting: it was answered, has timed out or was never made.
    pub fn answer_call(&self, id: u64, result: Result<Message, CallRefusal>) -> bool {
        let Some(waiter) = self.calls().take(id) else {
            self.hub().count(|m| m.increment_late_replies());
            return false;
        };
        self.finish(waiter, result.map_err(CallError::from));
        true
    }

    /// The number of calls to this client that wait for an answer; at most 64.
    pub fn pending_calls(&self) -> usize {
        self.calls().len()
    }

    /// Sends a call whose result goes to the waiter. Returns the call's id.
    pub(super) fn ask(&self, method: &str, payload: &Message, waiter: Waiter) -> Result<u64, (CallError, Waiter)> {
        let Some(format) = self.hub().call_format().filter(|_| !self.is_event_stream()) else {
            return Err((CallError::Unsupported, waiter));
        };
        let id = self.calls().begin(waiter)?;
        let encode = || format.encode(id, method, payload);
        let sent = match self.hub().guarded(None, "a call format", encode).flatten() {
            None => Err(CallError::Unsupported),
            Some(message) => self.send(message).map_err(|error| match error {
                SendError::Full(_) => CallError::TooMany,
                SendError::Binary(_) => CallError::Unsupported,
                _ => CallError::Closed,
            }),
        };
        match sent {
            Ok(()) => {
                // Flushes now, because this thread may wait for the answer and so would not end its own cork.
                self.outbox().iter().for_each(Outbox::flush);
                Ok(id)
            }
            // If the waiter is gone, the connection has ended in the meantime and has given it its result.
            Err(error) => self.calls().take(id).map_or(Ok(id), |waiter| Err((error, waiter))),
        }
    }

    /// Passes the result to a waiter.
    pub(super) fn finish(&self, waiter: Waiter, result: CallResult) {
        match waiter {
            Waiter::Anywhere(done) => done(result),
            #[cfg(feature = "cluster")]
            Waiter::Elsewhere(done, _) => done(result),
            Waiter::OwnThread(then, _) => {
                self.hub().guarded(Some(self), "the closure of a call", || then(self, result));
            }
        }
    }

    /// Runs the closures of calls that have timed out and returns the next deadline. Called on the connection's thread.
    pub(crate) fn finish_due_calls(&self) -> Option<Instant> {
        let (due, next) = self.calls().due(Instant::now());
        for waiter in due {
            self.hub().count(|m| m.increment_call_timeouts());
            self.finish(waiter, Err(CallError::Timeout));
        }
        next
    }

    /// Ends all calls at the end of the connection. Called on the connection's thread.
    pub(in crate::hub) fn end_calls(&self) {
        for waiter in self.calls().end() {
            self.finish(waiter, Err(CallError::Closed));
        }
    }

    /// Gives up a call. Its waiter gets no result.
    pub(super) fn give_up(&self, id: u64) {
        dispose(self.calls().take(id));
    }

    /// Gives up calls from other nodes that have timed out, which their callers detect themselves. Schedules the
    /// keeper's next check.
    #[cfg(feature = "cluster")]
    pub(super) fn give_up_elsewhere(&self, is_keeper: bool) {
        let (due, next) = self.calls().due_elsewhere(Instant::now(), is_keeper);
        due.into_iter().for_each(dispose);
        if let Some(at) = next {
            self.hub().keeper().schedule(at, Job::GiveUp(self.id()));
        }
    }
}
