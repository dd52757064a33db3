//! Calls to many clients at once, on all nodes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::error::CallError;
use super::pending::{CallResult, Waiter};
use super::remote::CallEvent;
use crate::client_id::ClientId;
use crate::config::deadline_after;
use crate::hub::control::{Control, RemoteCall};
use crate::hub::{Client, Hub, Target};
use crate::message::Message;

/// A client and its answer.
type Answer = (ClientId, CallResult);

impl Hub {
    /// Asks every client of the target, and yields each one's answer as it comes, until all have answered or `timeout`
    /// is over; then a [`CallError::Timeout`] for each client that has not. Asking does not block, iterating does.
    /// Dropping the iterator gives up the answers that are missing.
    ///
    /// In a cluster the other nodes ask their clients too. With
    /// [`Cluster::presence`](crate::cluster::Cluster::presence) it is over when all nodes have said whom they have
    /// asked and all of those have answered; without, when `timeout` is, unless the one client of the target has
    /// answered. What the bus loses is a timeout; nothing is asked twice. Clients that nobody is known to have asked,
    /// because the bus lost that, are not among the answers; but the target [`ClientId`] always has one, unless all
    /// nodes have said that they do not know it.
    ///
    /// Only text crosses nodes.
    ///
    /// With [`Target::one_of`] one member of a room is asked, each in its turn: a work queue. Members of this node come
    /// first; if it has none, one of a node that has some.
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
            remote: None,
        };
        let clients = self.clients_of(&target);
        if clients.is_empty() || target.one_of_room().is_none() {
            answers.ask_others(&target, method, &payload, timeout, &sender);
        }
        for client in clients {
            answers.ask(client, method, &payload, &sender);
        }
        answers
    }
}

/// The answers to a [`Hub::call`], in the order in which they come.
#[must_use = "dropping it gives up the answers"]
pub struct Answers {
    hub: Hub,
    receiver: Receiver<CallEvent>,
    /// Clients of this node whose answer is missing, and the ids of their calls.
    asked: HashMap<ClientId, (Client, u64)>,
    /// Clients that could not be asked, or did not answer in time.
    ready: VecDeque<Answer>,
    deadline: Instant,
    remote: Option<Remote>,
}

/// What other nodes still have to say.
struct Remote {
    number: u64,
    /// Nodes that have not said whom they have asked; `None` if it is not known which nodes there are.
    silent: Option<HashSet<String>>,
    /// Clients of theirs whose answer is missing.
    asked: HashSet<ClientId>,
    /// Those that were answered before their node said that it asks them.
    early: HashSet<ClientId>,
    /// The only client that is meant.
    only: Option<ClientId>,
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

    fn ask_others(
        &mut self,
        target: &Target<'_>,
        method: &str,
        payload: &Message,
        timeout: Duration,
        sender: &Sender<CallEvent>,
    ) {
        if self.hub.adapter_state().is_none() {
            return;
        }
        let one_of = target.one_of_room().map(str::to_owned);
        let to = if one_of.is_some() { Vec::new() } else { self.hub.remote_recipients(target) };
        // Asked elsewhere, unless it is one of this node's.
        let only = target.only_client().filter(|id| !to.is_empty() && !target.except.contains(id));
        let Some(data) = payload.as_text() else {
            self.ready.extend(only.map(|id| (id, Err(CallError::Unsupported))));
            return;
        };
        let nodes = self.hub.other_nodes(one_of.as_deref());
        let node = one_of.as_ref().and(nodes.iter().flatten().next().cloned());
        if (to.is_empty() && node.is_none()) || nodes.as_ref().is_some_and(HashSet::is_empty) {
            return;
        }
        let number = self.hub.inner().remote_calls.begin(sender.clone());
        let silent = node.clone().map(|node| HashSet::from([node])).or(nodes);
        let early = HashSet::new();
        self.remote = Some(Remote { number, silent, asked: HashSet::new(), early, only });
        let published = self.hub.publish_control(&Control::Call(Box::new(RemoteCall {
            call: number,
            node,
            to,
            one_of,
            except: target.except.iter().map(ToString::to_string).collect(),
            method: method.to_owned(),
            data: data.to_owned(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        })));
        if !published {
            self.ready.extend(only.map(|id| (id, Err(CallError::TooMany))));
            self.end_remote();
        }
    }

    /// What a piece of news yields.
    fn hear(&mut self, news: CallEvent) -> Option<Answer> {
        match news {
            // Each client has one answer: one that was given up is not told twice.
            CallEvent::Here(id, result) => self.asked.remove(&id).map(|_| (id, result)),
            CallEvent::Asked(node, clients) => {
                let remote = self.remote.as_mut()?;
                remote.silent.as_mut().map(|silent| silent.remove(&node));
                remote.asked.extend(clients.into_iter().filter(|id| !remote.early.remove(id)));
                None
            }
            CallEvent::There(id, result) => {
                let remote = self.remote.as_mut()?;
                if !remote.asked.remove(&id) && !remote.early.insert(id) {
                    return None;
                }
                if remote.only == Some(id) {
                    self.end_remote();
                }
                Some((id, result))
            }
        }
    }

    fn is_over(&self) -> bool {
        let is_remote_over =
            |remote: &Remote| remote.asked.is_empty() && remote.silent.as_ref().is_some_and(HashSet::is_empty);
        self.asked.is_empty() && self.remote.as_ref().is_none_or(is_remote_over)
    }

    fn end_remote(&mut self) {
        if let Some(remote) = self.remote.take() {
            self.hub.inner().remote_calls.end(remote.number);
        }
    }

    /// Gives up what is missing: a timeout for each.
    fn give_up(&mut self) {
        for (id, (client, call)) in self.asked.drain() {
            client.give_up(call);
            self.ready.push_back((id, Err(CallError::Timeout)));
        }
        if let Some(remote) = &mut self.remote {
            // Some node may know the client, and have asked it: only what it said is lost.
            let is_unheard = remote.silent.as_ref().is_none_or(|silent| !silent.is_empty());
            remote.asked.extend(remote.only.filter(|_| is_unheard));
            self.ready.extend(remote.asked.drain().map(|id| (id, Err(CallError::Timeout))));
        }
        self.end_remote();
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
