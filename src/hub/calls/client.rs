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
    /// The message goes out once, by the drop policy. After a timeout it is not known whether the client has done what
    /// it was asked to; an answer that comes later is counted and ignored.
    ///
    /// # Errors
    ///
    /// See [`CallError`]. On the connection's own thread, which is that of its handlers, it is
    /// [`CallError::OwnThread`] at once, because that thread would wait for an answer that only it can read.
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
            // The answer is on its way between two threads.
            Err(_) => receiver.recv().unwrap_or(Err(CallError::Closed)),
        }
    }

    /// Asks the client; the closure gets the answer. Does not block. For the connection's own handlers, and for those
    /// who need not wait.
    ///
    /// The closure runs exactly once, on the connection's thread: when the answer has come, when `timeout` is over, or
    /// when the connection has ended. If the call cannot be made, it runs at once, on the calling thread. A panic in it
    /// closes the connection with 1011.
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
            // Its thread is perhaps blocked in a read, for longer than until the deadline: the pong wakes it.
            Ok(_) if !self.calls().is_own_thread() => self.outbox().iter().for_each(Outbox::ping),
            Ok(_) => {}
        }
    }

    /// Gives the call of this id its answer: for handlers of protocols with their own
    /// [`CallFormat`](crate::calls::CallFormat). Call it on the connection's thread. False if no such call waits,
    /// because it has been answered, has timed out or was never made; that is counted.
    pub fn answer_call(&self, id: u64, result: Result<Message, CallRefusal>) -> bool {
        let Some(waiter) = self.calls().take(id) else {
            self.hub().count(|m| m.increment_late_replies());
            return false;
        };
        self.finish(waiter, result.map_err(CallError::from));
        true
    }

    /// Calls to this client that wait for an answer; at most 64.
    pub fn pending_calls(&self) -> usize {
        self.calls().len()
    }

    /// Sends a call whose result goes to the waiter; its id.
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
                // The message must leave now: this thread waits for its answer and so would not end its own cork.
                self.outbox().iter().for_each(Outbox::flush);
                Ok(id)
            }
            // Without the waiter, the connection has ended in the meantime and has reported that.
            Err(error) => self.calls().take(id).map_or(Ok(id), |waiter| Err((error, waiter))),
        }
    }

    /// Gives a waiter its result.
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

    /// On the connection's thread: runs the closures of calls whose time is up, and says when the next one's is.
    pub(crate) fn finish_due_calls(&self) -> Option<Instant> {
        let (due, next) = self.calls().due(Instant::now());
        for waiter in due {
            self.hub().count(|m| m.increment_call_timeouts());
            self.finish(waiter, Err(CallError::Timeout));
        }
        next
    }

    /// On the connection's thread, at its end: nothing is answered any more.
    pub(in crate::hub) fn end_calls(&self) {
        for waiter in self.calls().end() {
            self.finish(waiter, Err(CallError::Closed));
        }
    }

    /// Gives up a call: its waiter gets no result.
    pub(super) fn give_up(&self, id: u64) {
        dispose(self.calls().take(id));
    }

    /// Gives up the calls from other nodes whose time is over: their callers know. Has the keeper look again in time.
    #[cfg(feature = "cluster")]
    pub(super) fn give_up_elsewhere(&self, is_keeper: bool) {
        let (due, next) = self.calls().due_elsewhere(Instant::now(), is_keeper);
        due.into_iter().for_each(dispose);
        if let Some(at) = next {
            self.hub().keeper().schedule(at, Job::GiveUp(self.id()));
        }
    }
}
