//! Calls to many clients at once.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::error::CallError;
use super::pending::{CallResult, Waiter};
use crate::client_id::ClientId;
use crate::config::deadline_after;
use crate::hub::{Client, Hub, Target};
use crate::message::Message;

/// A client, and what it has answered.
type Answer = (ClientId, CallResult);

impl Hub {
    /// Asks every client of the target, and yields each one's answer as it comes, until all have answered or `timeout` is
    /// over; then a [`CallError::Timeout`] for each client that has not. Asking does not block, iterating does. Dropping
    /// the iterator gives up the answers that are missing.
    ///
    /// With [`Target::one_of`] one member of a room is asked, each in its turn: a work queue.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use wshub::{Hub, Target, calls::JsonCalls};
    /// let hub = Hub::builder().call_format(JsonCalls).build()?;
    /// for (client, answer) in hub.call(Target::room("sensors"), "read", "null", Duration::from_secs(2)) {
    ///     println!("{client}: {answer:?}");
    /// }
    /// # Ok::<(), wshub::ConfigError>(())
    /// ```
    pub fn call<'a>(
        &self,
        target: impl Into<Target<'a>>,
        method: &str,
        payload: impl Into<Message>,
        timeout: Duration,
    ) -> Answers {
        let (target, payload) = (target.into(), payload.into());
        let (sender, receiver) = unbounded();
        let mut answers =
            Answers { receiver, asked: HashMap::new(), ready: VecDeque::new(), deadline: deadline_after(timeout) };
        for client in self.clients_of(&target) {
            answers.ask(client, method, &payload, &sender);
        }
        answers
    }
}

/// The answers to a [`Hub::call`], in the order in which they come.
#[must_use = "dropping it gives up the answers"]
pub struct Answers {
    receiver: Receiver<Answer>,
    /// Clients whose answer is missing, and the ids of their calls.
    asked: HashMap<ClientId, (Client, u64)>,
    /// Clients that could not be asked, or did not answer in time.
    ready: VecDeque<Answer>,
    deadline: Instant,
}

impl Answers {
    fn ask(&mut self, client: Client, method: &str, payload: &Message, sender: &Sender<Answer>) {
        let id = client.id();
        if client.calls().is_own_thread() {
            self.ready.push_back((id, Err(CallError::OwnThread)));
            return;
        }
        let sender = sender.clone();
        let waiter = Waiter::Anywhere(Box::new(move |result| {
            // An iterator that is gone has given up.
            let _ = sender.send((id, result));
        }));
        match client.ask(method, payload, waiter) {
            Ok(call) => _ = self.asked.insert(id, (client, call)),
            Err((error, _)) => self.ready.push_back((id, Err(error))),
        }
    }

    /// Gives up what is missing: a timeout for each, unless its answer is just coming.
    fn time_out(&mut self) {
        for (id, (client, call)) in self.asked.drain() {
            client.give_up(call);
            self.ready.push_back((id, Err(CallError::Timeout)));
        }
    }
}

impl Iterator for Answers {
    type Item = (ClientId, Result<Message, CallError>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(answer) = self.ready.pop_front() {
                return Some(answer);
            }
            if self.asked.is_empty() {
                return None;
            }
            match self.receiver.recv_deadline(self.deadline) {
                // Each client has one answer: one that was given up is not told twice.
                Ok((id, result)) if self.asked.remove(&id).is_some() => return Some((id, result)),
                Ok(_) => {}
                Err(_) => self.time_out(),
            }
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.time_out();
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("missing", &self.asked.len()).finish_non_exhaustive()
    }
}
