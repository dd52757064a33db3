//! Calls across nodes: calls on behalf of another node, and answers that other nodes report.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::error::CallError;
use super::pending::{Answer, CallResult, Waiter};
use crate::client_id::ClientId;
use crate::cluster::NotQueued;
use crate::config::deadline_after;
use crate::hub::control::{Control, FIELDS, RemoteCall, RemoteResult, divided, json_size};
use crate::hub::{Client, Hub, Target};
use crate::lock::Leaf;
use crate::message::Message;

/// An event for a waiting caller.
#[derive(Debug)]
pub(super) enum CallEvent {
    /// A client of this node has answered.
    Here(ClientId, CallResult),
    /// Another node has reported something.
    Elsewhere(NodeReport),
}

/// A report of another node about a call.
#[derive(Debug)]
pub(super) enum NodeReport {
    /// The node has asked these clients; or these are a part of them, with the part's index and the number of parts.
    Asked(String, [u32; 2], Vec<ClientId>),
    /// A client of the node has answered.
    Answered(ClientId, CallResult),
}

/// What is still expected from other nodes for one call; nothing if they were not asked.
#[derive(Debug, Default)]
pub(super) struct Others(Option<Remote>);

#[derive(Debug)]
struct Remote {
    number: u64,
    /// Nodes that have not reported whom they asked. `None` if the nodes are not known.
    silent: Option<HashSet<String>>,
    /// The parts of each node's report that have arrived: a repeated part counts once.
    heard: HashMap<String, HashSet<u32>>,
    /// Clients of other nodes that have not answered.
    asked: HashSet<ClientId>,
    /// Clients of other nodes that have answered, perhaps before their node's report.
    answered: HashSet<ClientId>,
    /// The client, if the target is a single one.
    only: Option<ClientId>,
}

impl Others {
    /// Makes the other nodes ask their clients. Returns the result if the target is a single client that they cannot
    /// ask.
    pub(super) fn ask(
        &mut self,
        hub: &Hub,
        target: &Target<'_>,
        method: &str,
        payload: &Message,
        timeout: Duration,
        sender: &Sender<CallEvent>,
    ) -> Option<Answer> {
        if !hub.is_in_cluster() {
            return None;
        }
        let one_of = target.one_of_room().map(str::to_owned);
        let to = if one_of.is_some() { Vec::new() } else { hub.remote_recipients(target) };
        // The client is asked on other nodes unless it is connected here.
        let only = target.only_client().filter(|id| !to.is_empty() && !target.except.contains(id));
        let Some(data) = payload.as_text() else { return only.map(|id| (id, Err(CallError::Unsupported))) };
        let nodes = hub.other_nodes(one_of.as_deref());
        let node = one_of.as_ref().and(nodes.iter().flatten().next().cloned());
        if (to.is_empty() && node.is_none()) || nodes.as_ref().is_some_and(HashSet::is_empty) {
            return None;
        }
        let number = hub.inner().node.calls.begin(sender.clone());
        let silent = node.clone().map(|node| HashSet::from([node])).or(nodes);
        let (heard, asked, answered) = (HashMap::new(), HashSet::new(), HashSet::new());
        self.0 = Some(Remote { number, silent, heard, asked, answered, only });
        let published = hub.try_publish_control(&Control::Call(Box::new(RemoteCall {
            call: number,
            node,
            to,
            one_of,
            except: target.except.iter().map(ToString::to_string).collect(),
            method: method.to_owned(),
            data: data.to_owned(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        })));
        let error = match published {
            Ok(()) => return None,
            Err(NotQueued::TooLarge) => CallError::Unsupported,
            Err(NotQueued::Full) => CallError::TooMany,
        };
        self.end(hub);
        only.map(|id| (id, Err(error)))
    }

    /// Processes an event. Returns the answer that it yields, if any.
    pub(super) fn hear(&mut self, hub: &Hub, news: NodeReport) -> Option<Answer> {
        let remote = self.0.as_mut()?;
        match news {
            NodeReport::Asked(node, [index, of], clients) => {
                let parts = remote.heard.entry(node.clone()).or_default();
                if !parts.insert(index) {
                    return None;
                }
                if parts.len() >= of as usize {
                    remote.silent.as_mut().map(|silent| silent.remove(&node));
                }
                remote.asked.extend(clients.into_iter().filter(|id| !remote.answered.contains(id)));
                None
            }
            NodeReport::Answered(id, result) => {
                if !remote.answered.insert(id) {
                    return None;
                }
                remote.asked.remove(&id);
                if remote.only == Some(id) {
                    self.end(hub);
                }
                Some((id, result))
            }
        }
    }

    /// Whether no answer is missing.
    pub(super) fn are_over(&self) -> bool {
        let is_over =
            |remote: &Remote| remote.asked.is_empty() && remote.silent.as_ref().is_some_and(HashSet::is_empty);
        self.0.as_ref().is_none_or(is_over)
    }

    /// Gives up the missing answers. Returns the clients without an answer.
    pub(super) fn give_up(&mut self, hub: &Hub) -> HashSet<ClientId> {
        let Some(mut remote) = self.end(hub) else { return HashSet::new() };
        // A silent node may have asked the client; only its report is lost.
        let is_unheard = remote.silent.as_ref().is_none_or(|silent| !silent.is_empty());
        remote.asked.extend(remote.only.filter(|_| is_unheard));
        remote.asked
    }

    fn end(&mut self, hub: &Hub) -> Option<Remote> {
        let remote = self.0.take()?;
        hub.inner().node.calls.end(remote.number);
        Some(remote)
    }
}

/// Calls of this node that other nodes may answer, by their numbers. A leaf lock.
#[derive(Debug, Default)]
pub(in crate::hub) struct RemoteCalls(Leaf<Numbered>);

#[derive(Debug, Default)]
struct Numbered {
    last: u64,
    waiting: HashMap<u64, Sender<CallEvent>>,
}

impl RemoteCalls {
    pub(super) fn begin(&self, sender: Sender<CallEvent>) -> u64 {
        let mut calls = self.0.lock();
        calls.last += 1;
        let number = calls.last;
        calls.waiting.insert(number, sender);
        number
    }

    pub(super) fn end(&self, number: u64) {
        let sender = self.0.lock().waiting.remove(&number);
        drop(sender);
    }

    fn tell(&self, number: u64, news: NodeReport) -> bool {
        let sender = self.0.lock().waiting.get(&number).cloned();
        sender.is_some_and(|sender| sender.send(CallEvent::Elsewhere(news)).is_ok())
    }
}

impl Hub {
    /// Calls this node's clients for another node. Sends that node the list of called clients, then each answer.
    pub(in crate::hub) fn answer_remote(&self, from: &str, call: RemoteCall) {
        let mut target = Self::target_of(&call.to, &call.except);
        if let Some(room) = call.one_of {
            target = target.and(Target::one_of(room));
        }
        let clients = self.clients_of(&target);
        self.tell_asked(from, call.call, &clients);
        let payload = Message::raw_json(call.data);
        let deadline = deadline_after(Duration::from_millis(call.timeout_ms));
        for client in clients {
            let (hub, node, number, id) = (self.downgrade(), from.to_owned(), call.call, client.id());
            let answer = move |result: CallResult| {
                let Some(hub) = hub.upgrade() else { return };
                let result = match result {
                    Ok(message) => RemoteResult::Ok(message.as_text().unwrap_or("null").to_owned()),
                    Err(error) => error.into(),
                };
                hub.publish_answer(node, number, id, result);
            };
            match client.ask(&call.method, &payload, Waiter::Elsewhere(Box::new(answer), deadline)) {
                Ok(_) => client.give_up_elsewhere(false),
                Err((error, waiter)) => client.finish(waiter, Err(error)),
            }
        }
    }

    /// Tells a node which clients get its call, in parts that the bus accepts.
    fn tell_asked(&self, from: &str, call: u64, clients: &[Client]) {
        let ids = clients.iter().map(|client| client.id().to_string()).collect();
        let parts = divided(ids, self.control_limit().saturating_sub(json_size(&from) + FIELDS));
        let of = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        for (clients, index) in parts.into_iter().zip(0..) {
            self.publish_control(&Control::Asked { node: from.to_owned(), call, index, of, clients });
        }
    }

    /// Sends a node an answer. One that is too large for the bus is told as a refusal, not lost.
    fn publish_answer(&self, node: String, call: u64, client: ClientId, result: RemoteResult) {
        let size = match &result {
            RemoteResult::Ok(text) => text.len(),
            RemoteResult::Refused { code, message } => code.len() + message.len(),
            _ => 0,
        };
        let mut answer = Control::Answer { node, call, client: client.to_string(), result };
        if self.try_publish_control(&answer) != Err(NotQueued::TooLarge) {
            return;
        }
        if let Control::Answer { result, .. } = &mut answer {
            let message = format!("the answer of {size} bytes does not fit into a message to another node");
            *result = RemoteResult::Refused { code: "too_large".to_owned(), message };
            self.publish_control(&answer);
        }
    }

    /// Gives up timed-out calls of other nodes to this client. Runs on the keeper's thread.
    pub(in crate::hub) fn give_up_calls(&self, client: ClientId) {
        if let Some(client) = self.client(client) {
            client.give_up_elsewhere(true);
        }
    }

    pub(in crate::hub) fn hear_asked(&self, from: &str, call: u64, part: [u32; 2], clients: &[String]) {
        let ids = clients.iter().filter_map(|id| id.parse().ok()).collect();
        self.inner().node.calls.tell(call, NodeReport::Asked(from.to_owned(), part, ids));
    }

    pub(in crate::hub) fn hear_answer(&self, call: u64, client: &str, result: RemoteResult) {
        let result = match result {
            RemoteResult::Ok(text) => Ok(Message::raw_json(text)),
            RemoteResult::Refused { code, message } => Err(CallError::Refused { code, message }),
            RemoteResult::Timeout => Err(CallError::Timeout),
            RemoteResult::Closed => Err(CallError::Closed),
            RemoteResult::TooMany => Err(CallError::TooMany),
            RemoteResult::Unsupported => Err(CallError::Unsupported),
        };
        let is_heard =
            client.parse().is_ok_and(|id| self.inner().node.calls.tell(call, NodeReport::Answered(id, result)));
        if !is_heard {
            self.count(|m| m.increment_late_replies());
        }
    }
}
