//! Messages from clients.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::json::{from_raw, is_default, object, or_default, to_raw};

/// One command. An empty one is the answer to a ping.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Command {
    /// Chosen by the client; 0 asks for no reply.
    #[prost(uint32, tag = "1")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) id: u32,
    #[prost(message, optional, tag = "4")]
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub(crate) connect: Option<Connect>,
    #[prost(message, optional, tag = "5")]
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub(crate) subscribe: Option<Subscribe>,
    #[prost(message, optional, tag = "6")]
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub(crate) unsubscribe: Option<Channel>,
    #[prost(message, optional, tag = "7")]
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub(crate) publish: Option<Publish>,
    #[prost(message, optional, tag = "8")]
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub(crate) presence: Option<Channel>,
    #[prost(message, optional, tag = "9")]
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub(crate) presence_stats: Option<Channel>,
    #[prost(message, optional, tag = "10")]
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub(crate) history: Option<History>,
    #[prost(message, optional, tag = "11")]
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub(crate) ping: Option<Empty>,
    #[prost(message, optional, tag = "12")]
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub(crate) send: Option<Data>,
    #[prost(message, optional, tag = "13")]
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub(crate) rpc: Option<Rpc>,
    #[prost(message, optional, tag = "14")]
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub(crate) refresh: Option<Token>,
    #[prost(message, optional, tag = "15")]
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub(crate) sub_refresh: Option<SubRefresh>,
}

impl Command {
    /// The number of requests in the command; more than one is an error.
    pub(crate) fn requests(&self) -> usize {
        let present = [
            self.connect.is_some(),
            self.subscribe.is_some(),
            self.unsubscribe.is_some(),
            self.publish.is_some(),
            self.presence.is_some(),
            self.presence_stats.is_some(),
            self.history.is_some(),
            self.ping.is_some(),
            self.send.is_some(),
            self.rpc.is_some(),
            self.refresh.is_some(),
            self.sub_refresh.is_some(),
        ];
        present.into_iter().filter(|is_there| *is_there).count()
    }
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Connect {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) token: String,
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(deserialize_with = "from_raw", serialize_with = "to_raw", skip_serializing_if = "Bytes::is_empty")]
    pub(crate) data: Bytes,
    /// Server-side subscriptions of the previous connection, with their positions.
    #[prost(btree_map = "string, message", tag = "3")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) subs: BTreeMap<String, Subscribe>,
    #[prost(string, tag = "4")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) name: String,
    #[prost(string, tag = "5")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) version: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools, reason = "the protocol's")]
pub(crate) struct Subscribe {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) channel: String,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) token: String,
    /// Whether to recover from the position in `epoch` and `offset`.
    #[prost(bool, tag = "3")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) recover: bool,
    #[prost(string, tag = "6")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) epoch: String,
    #[prost(uint64, tag = "7")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) offset: u64,
    #[prost(bytes = "bytes", tag = "8")]
    #[serde(deserialize_with = "from_raw", serialize_with = "to_raw", skip_serializing_if = "Bytes::is_empty")]
    pub(crate) data: Bytes,
    #[prost(bool, tag = "9")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) positioned: bool,
    #[prost(bool, tag = "10")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) recoverable: bool,
    #[prost(bool, tag = "11")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) join_leave: bool,
    /// Bits: 1 asks for short channel names, which are not supported; 2 for error 112 instead of a failed recovery.
    #[prost(int64, tag = "14")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) flag: i64,
}

/// Of `unsubscribe`, `presence` and `presence_stats`.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Channel {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) channel: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Publish {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) channel: String,
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(deserialize_with = "from_raw", serialize_with = "to_raw", skip_serializing_if = "Bytes::is_empty")]
    pub(crate) data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct History {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) channel: String,
    /// 0 asks only for the position; a negative number asks for all publications.
    #[prost(int32, tag = "7")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) limit: i32,
    #[prost(message, optional, tag = "8")]
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<StreamPosition>,
    #[prost(bool, tag = "9")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) reverse: bool,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StreamPosition {
    #[prost(uint64, tag = "1")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) offset: u64,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) epoch: String,
}

/// For ping, and for results without fields.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Empty {}

/// For `send`, its counterpart `message`, and the result of an rpc.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Data {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(deserialize_with = "from_raw", serialize_with = "to_raw", skip_serializing_if = "Bytes::is_empty")]
    pub(crate) data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rpc {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(deserialize_with = "from_raw", serialize_with = "to_raw", skip_serializing_if = "Bytes::is_empty")]
    pub(crate) data: Bytes,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) method: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Token {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) token: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SubRefresh {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) channel: String,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub(crate) token: String,
}
