//! Control messages between nodes of this crate: members, calls and commands.
//!
//! A control message is addressed to a client that does not exist, so that nodes that do not understand it, such as
//! nodes in Go, deliver it to no client. Delivery is at most once, as for messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Hub;
use super::calls::CallError;
use super::members::{Json, List, Reported};
use crate::cluster::{NotQueued, Recipient};

/// Space for a control message's other fields than its list and its names, in bytes of JSON.
pub(super) const FIELDS: usize = 128;

/// A control message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Control {
    /// Members of the sender have changed, since the version `since`; since 0: these are all.
    Changes { room: String, since: u64, version: u64, changes: Vec<Entry> },
    /// All of the sender's members in a room, or a part of them.
    List { room: String, version: u64, index: u32, of: u32, members: Vec<Entry> },
    /// Asks this node for its list.
    Query { node: String, room: String },
    /// Version and hash of the sender's rooms in the given range of names.
    Digests { from: String, to: Option<String>, rooms: BTreeMap<String, (u64, u64)> },
    /// Calls clients, on one node only if it is named.
    Call(Box<RemoteCall>),
    /// The sender has passed that node's call to these clients, or these are a part of them.
    Asked { node: String, call: u64, index: u32, of: u32, clients: Vec<String> },
    /// One of these clients has answered, or will not answer.
    Answer { node: String, call: u64, client: String, result: RemoteResult },
    /// Close a user's or a room's connections.
    Close { user: Option<String>, room: Option<String>, code: u16, reason: String },
    /// Makes a user's connections join a room.
    Join { user: String, room: String },
    /// See [`Control::Join`].
    Leave { user: String, room: String },
    /// A message of a protocol or application to its counterpart: see [`Hub::tell_nodes`].
    Told { subject: String, data: String },
}

/// A member and its change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    id: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// JSON text in a string, because tagged enums cannot contain raw values.
    metadata: Option<String>,
}

impl Entry {
    pub(super) fn new(key: &str, told: Reported) -> Self {
        Self { id: key.to_owned(), gone: told.is_none(), metadata: told.flatten().map(|json| json.to_string()) }
    }

    fn split(self) -> (String, Reported) {
        let metadata = self.metadata.map(Json::from);
        (self.id, (!self.gone).then_some(metadata))
    }
}

/// The size of a part of a JSON message, in bytes, with a comma.
pub(super) fn json_size(part: &impl Serialize) -> usize {
    // Strings, numbers and what is made of them are always valid JSON.
    serde_json::to_string(part).map_or(0, |json| json.len() + 1)
}

/// Divides the parts of a message into groups of at most `limit` bytes of JSON; a larger part is a group of its own.
/// Returns at least one group, perhaps an empty one.
pub(super) fn divided<T: Serialize>(parts: Vec<T>, limit: usize) -> Vec<Vec<T>> {
    let (mut groups, mut used) = (vec![Vec::new()], 0);
    for part in parts {
        let size = json_size(&part);
        if used > 0 && used + size > limit {
            groups.push(Vec::new());
            used = 0;
        }
        used += size;
        if let Some(group) = groups.last_mut() {
            group.push(part);
        }
    }
    groups
}

/// See [`Control::Call`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RemoteCall {
    pub(super) call: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    pub(super) to: Vec<Recipient>,
    /// Calls one member of the room, in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) one_of: Option<String>,
    pub(super) except: Vec<String>,
    pub(super) method: String,
    /// Text only.
    pub(super) data: String,
    /// Counts from receipt, because the nodes' clocks differ.
    pub(super) timeout_ms: u64,
}

/// The result of a call in its form between nodes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RemoteResult {
    Ok(String),
    Refused { code: String, message: String },
    Timeout,
    Closed,
    TooMany,
    Unsupported,
}

impl From<CallError> for RemoteResult {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused { code, message } => Self::Refused { code, message },
            CallError::Timeout => Self::Timeout,
            CallError::Closed => Self::Closed,
            CallError::TooMany => Self::TooMany,
            _ => Self::Unsupported,
        }
    }
}

impl Hub {
    /// Queues a control message for the other nodes and returns whether it was queued.
    pub(super) fn publish_control(&self, control: &Control) -> bool {
        self.try_publish_control(control).is_ok()
    }

    /// Queues a control message for the other nodes.
    pub(super) fn try_publish_control(&self, control: &Control) -> Result<(), NotQueued> {
        let Some(link) = &self.inner().node.link else { return Err(NotQueued::Full) };
        // Strings, numbers and what is made of them are always valid JSON.
        serde_json::to_string(control).map_err(|_| NotQueued::TooLarge).and_then(|json| link.publish_control(json))
    }

    pub(super) fn publish_join(&self, user: &str, room: &str) -> bool {
        self.publish_control(&Control::Join { user: user.to_owned(), room: room.to_owned() })
    }

    pub(super) fn publish_leave(&self, user: &str, room: &str) -> bool {
        self.publish_control(&Control::Leave { user: user.to_owned(), room: room.to_owned() })
    }

    pub(super) fn publish_close(&self, user: Option<&str>, room: Option<&str>, code: u16, reason: &str) -> bool {
        let owned = |name: Option<&str>| name.map(str::to_owned);
        self.publish_control(&Control::Close { user: owned(user), room: owned(room), code, reason: reason.to_owned() })
    }

    /// Maximum size of one control message, in bytes of JSON, so that its envelope fits. Lists are divided accordingly.
    pub(super) fn control_limit(&self) -> usize {
        self.inner().node.link.as_ref().map_or(usize::MAX, crate::cluster::Link::control_limit)
    }

    /// Executes another node's control message. Returns false if this node does not understand it.
    pub(super) fn receive_control(&self, from: &str, payload: &[u8]) -> bool {
        let Ok(control) = serde_json::from_slice(payload) else { return false };
        match control {
            Control::Changes { room, since, version, changes } => {
                self.hear_changes(from, &room, [since, version], changes.into_iter().map(Entry::split).collect());
            }
            Control::List { room, version, index, of, members } => {
                let members = members.into_iter().map(Entry::split).map(|(key, told)| (key, told.flatten())).collect();
                self.hear_list(from, &room, List { version, index, of, members });
            }
            Control::Query { node, room } if node == self.node_id() => self.want_list(&room),
            Control::Digests { from: first, to, rooms } => self.hear_digests(from, &first, to.as_deref(), &rooms),
            Control::Call(call) if call.node.as_deref().is_none_or(|node| node == self.node_id()) => {
                self.answer_remote(from, *call);
            }
            Control::Asked { node, call, index, of, clients } if node == self.node_id() => {
                self.hear_asked(from, call, [index, of], &clients);
            }
            Control::Answer { node, call, client, result } if node == self.node_id() => {
                self.hear_answer(call, &client, result);
            }
            Control::Query { .. } | Control::Call(_) | Control::Asked { .. } | Control::Answer { .. } => {}
            Control::Close { user, room, code, reason } => {
                _ = self.close_here(user.as_deref(), room.as_deref(), code, &reason);
            }
            Control::Join { user, room } => _ = self.join_user_here(&user, &room),
            Control::Leave { user, room } => _ = self.leave_user_here(&user, &room),
            Control::Told { subject, data } => self.hear_told(&subject, &data),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serialised entries parse to the same value, with metadata and without.
    #[test]
    fn every_message_comes_back() {
        let entries = || vec![Entry::new("ann", Some(Some(r#"{"a":[1,"x"]}"#.into()))), Entry::new("bob", None)];
        let call = RemoteCall {
            call: 7,
            node: None,
            to: vec![Recipient::All, Recipient::Room("r".into())],
            one_of: Some("w".into()),
            except: vec!["c".into()],
            method: "m".into(),
            data: "null".into(),
            timeout_ms: 5,
        };
        let (node, room) = (|| "n".to_owned(), || "r".to_owned());
        let result = RemoteResult::Refused { code: "c".into(), message: "m".into() };
        let all = [
            Control::Changes { room: room(), since: 0, version: u64::MAX, changes: entries() },
            Control::List { room: room(), version: 1, index: 0, of: 2, members: entries() },
            Control::Query { node: node(), room: room() },
            Control::Digests { from: room(), to: None, rooms: BTreeMap::from([(room(), (1, u64::MAX))]) },
            Control::Call(Box::new(call)),
            Control::Asked { node: node(), call: 1, index: 0, of: 2, clients: vec![node()] },
            Control::Answer { node: node(), call: 1, client: node(), result },
            Control::Close { user: None, room: Some(room()), code: 4500, reason: String::new() },
            Control::Join { user: node(), room: room() },
            Control::Leave { user: node(), room: room() },
            Control::Told { subject: node(), data: "a \"b\"".into() },
        ];
        for control in all {
            let json = serde_json::to_string(&control).expect("JSON");
            let back: Control = serde_json::from_str(&json).expect("what was written");
            assert_eq!(format!("{back:?}"), format!("{control:?}"));
        }
    }

    #[test]
    fn nonsense_is_not_understood() {
        let hub = Hub::new();
        for json in ["", "{}", r#"{"op":"other"}"#, r#"{"op":"query","node":1,"room":"r"}"#, "[]", "null"] {
            assert!(!hub.receive_control("n", json.as_bytes()), "{json}");
        }
        assert!(hub.receive_control("n", br#"{"op":"query","node":"x","room":"r","more":1}"#));
    }
}
