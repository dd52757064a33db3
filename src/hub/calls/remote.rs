//! Calls across nodes: asking on behalf of another one, and hearing what others have been answered.

use std::collections::HashMap;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::error::CallError;
use super::pending::{CallResult, Waiter};
use crate::client_id::ClientId;
use crate::config::deadline_after;
use crate::hub::control::{Control, RemoteCall, RemoteResult};
use crate::hub::{Hub, Target};
use crate::lock::Leaf;
use crate::message::Message;

/// An event for a waiting caller.
#[derive(Debug)]
pub(super) enum CallEvent {
    /// A client of this node has answered.
    Here(ClientId, CallResult),
    /// A node has asked these clients.
    Asked(String, Vec<ClientId>),
    /// A client of another node has answered.
    There(ClientId, CallResult),
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

    fn tell(&self, number: u64, news: CallEvent) -> bool {
        let sender = self.0.lock().waiting.get(&number).cloned();
        sender.is_some_and(|sender| sender.send(news).is_ok())
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
        let ids = clients.iter().map(|client| client.id().to_string()).collect();
        self.publish_control(&Control::Asked { node: from.to_owned(), call: call.call, clients: ids });
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
                hub.publish_control(&Control::Answer { node, call: number, client: id.to_string(), result });
            };
            match client.ask(&call.method, &payload, Waiter::Elsewhere(Box::new(answer), deadline)) {
                Ok(_) => client.give_up_elsewhere(false),
                Err((error, waiter)) => client.finish(waiter, Err(error)),
            }
        }
    }

    /// On the keeper's thread: calls of other nodes to this client have timed out.
    pub(in crate::hub) fn give_up_calls(&self, client: ClientId) {
        if let Some(client) = self.client(client) {
            client.give_up_elsewhere(true);
        }
    }

    pub(in crate::hub) fn hear_asked(&self, from: &str, call: u64, clients: &[String]) {
        let ids = clients.iter().filter_map(|id| id.parse().ok()).collect();
        self.inner().remote_calls.tell(call, CallEvent::Asked(from.to_owned(), ids));
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
            client.parse().is_ok_and(|id| self.inner().remote_calls.tell(call, CallEvent::There(id, result)));
        if !is_heard {
            self.count(|m| m.increment_late_replies());
        }
    }
}
