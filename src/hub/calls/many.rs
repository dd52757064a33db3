//! Calls to many clients at once, on all nodes.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::error::CallError;
use super::pending::{Answer, Waiter};
use super::remote::{CallEvent, Others};
use crate::client_id::ClientId;
use crate::config::deadline_after;
use crate::hub::{Client, Hub, Target};
use crate::message::Message;

impl Hub {
    /// Asks every client of the target and yields each answer as it arrives. When `timeout` has passed, yields a
    /// [`CallError::Timeout`] for each client that has not answered. Asking does not block; iterating does. Dropping
    /// the iterator gives up the missing answers.
    ///
    /// In a cluster, the other nodes ask their clients, too. With
    /// [`Cluster::presence`](crate::cluster::Cluster::presence), the iterator ends when every node has reported whom it
    /// asked and all of these have answered. Without presence, it ends when `timeout` has passed, or earlier if the
    /// target is one client and it has answered. If the bus loses a message, the result is a timeout; no client is
    /// asked twice. If the bus loses a node's report, that node's clients are missing from the answers. A target that
    /// is a single [`ClientId`] always has an answer, unless all nodes have reported that they do not know it.
    ///
    /// Only text crosses nodes, and only as much as [`Cluster::max_envelope`](crate::cluster::Cluster::max_envelope)
    /// and the bus accept: a larger call is asked on this node only, and a larger answer is a refusal with the code
    /// `too_large`.
    ///
    /// With [`Target::one_of`], one member of the room is asked, in turn: a work queue. The member is one of this node;
    /// if this node has none, one of another node.
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
        let mut answers = Answers {
            hub: self.clone(),
            receiver,
            asked: HashMap::new(),
            ready: VecDeque::new(),
            deadline: deadline_after(timeout),
            others: Others::default(),
        };
        let clients = self.clients_of(&target);
        if clients.is_empty() || target.one_of_room().is_none() {
            let refused = answers.others.ask(self, &target, method, &payload, timeout, &sender);
            answers.ready.extend(refused);
        }
        for client in clients {
            answers.ask(client, method, &payload, &sender);
        }
        answers
    }
}

/// The answers to a [`Hub::call`], in the order of their arrival.
#[must_use = "dropping it gives up the answers"]
pub struct Answers {
    hub: Hub,
    receiver: Receiver<CallEvent>,
    /// Clients of this node that have not answered, with the ids of their calls.
    asked: HashMap<ClientId, (Client, u64)>,
    /// Results of clients that could not be asked or did not answer in time.
    ready: VecDeque<Answer>,
    deadline: Instant,
    others: Others,
}

impl Answers {
    fn ask(&mut self, client: Client, method: &str, payload: &Message, sender: &Sender<CallEvent>) {
        let id = client.id();
        if client.calls().is_own_thread() {
            self.ready.push_back((id, Err(CallError::OwnThread)));
            return;
        }
        let sender = sender.clone();
        let waiter = Waiter::Anywhere(Box::new(move |result| {
            // Without the iterator, the caller has given up.
            let _ = sender.send(CallEvent::Here(id, result));
        }));
        match client.ask(method, payload, waiter) {
            Ok(call) => _ = self.asked.insert(id, (client, call)),
            Err((error, _)) => self.ready.push_back((id, Err(error))),
        }
    }

    /// Processes an event. Returns the answer that it yields, if any.
    fn hear(&mut self, news: CallEvent) -> Option<Answer> {
        match news {
            // Each client has one answer. If its call was given up, a later answer is ignored.
            CallEvent::Here(id, result) => self.asked.remove(&id).map(|_| (id, result)),
            #[cfg(feature = "cluster")]
            CallEvent::Elsewhere(news) => self.others.hear(&self.hub, news),
        }
    }

    fn is_over(&self) -> bool {
        self.asked.is_empty() && self.others.are_over()
    }

    /// Gives up the missing answers: each becomes a timeout.
    fn give_up(&mut self) {
        for (id, (client, call)) in self.asked.drain() {
            client.give_up(call);
            self.ready.push_back((id, Err(CallError::Timeout)));
        }
        self.ready.extend(self.others.give_up(&self.hub).into_iter().map(|id| (id, Err(CallError::Timeout))));
    }
}

impl Iterator for Answers {
    type Item = (ClientId, Result<Message, CallError>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(answer) = self.ready.pop_front() {
                return Some(answer);
            }
            if self.is_over() {
                return None;
            }
            let Ok(event) = self.receiver.recv_deadline(self.deadline) else {
                self.give_up();
                self.ready.iter().for_each(|_| self.hub.count(|m| m.increment_call_timeouts()));
                continue;
            };
            if let Some(answer) = self.hear(event) {
                return Some(answer);
            }
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("missing", &self.asked.len()).finish_non_exhaustive()
    }
}
