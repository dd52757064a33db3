//! Messages from clients.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::json::{from_raw, is_default, object, or_default, to_raw};
use super::message::message;

message! {
    /// One command. An empty one is the answer to a ping.
    Command {
        /// Chosen by the client; 0 asks for no reply.
        1 id: u32,
        4 connect: Option<Connect>,
        5 subscribe: Option<Subscribe>,
        6 unsubscribe: Option<Channel>,
        7 publish: Option<Publish>,
        8 presence: Option<Channel>,
        9 presence_stats: Option<Channel>,
        10 history: Option<History>,
        11 ping: Option<Empty>,
        12 send: Option<Data>,
        13 rpc: Option<Rpc>,
        14 refresh: Option<Token>,
        15 sub_refresh: Option<SubRefresh>,
    }
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

message! {
    Connect {
        1 token: String,
        2 data: Bytes,
        /// Server-side subscriptions of the previous connection, with their positions.
        3 subs: BTreeMap<String, Subscribe>,
        4 name: String,
        5 version: String,
    }

    #[allow(clippy::struct_excessive_bools, reason = "the protocol's")]
    Subscribe {
        1 channel: String,
        2 token: String,
        /// Whether to recover from the position in `epoch` and `offset`.
        3 recover: bool,
        6 epoch: String,
        7 offset: u64,
        8 data: Bytes,
        9 positioned: bool,
        10 recoverable: bool,
        11 join_leave: bool,
        /// Bits: 1 asks for short channel names, which are not supported; 2 for error 112 instead of a failed recovery.
        14 flag: i64,
    }

    /// Of `unsubscribe`, `presence` and `presence_stats`.
    Channel {
        1 channel: String,
    }

    Publish {
        1 channel: String,
        2 data: Bytes,
    }

    History {
        1 channel: String,
        /// 0 asks only for the position; a negative number asks for all publications.
        7 limit: i32,
        8 since: Option<StreamPosition>,
        9 reverse: bool,
    }

    StreamPosition {
        1 offset: u64,
        2 epoch: String,
    }
}

/// For ping, and for results without fields.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Empty {}

message! {
    /// For `send`, its counterpart `message`, and the result of an rpc.
    Data {
        1 data: Bytes,
    }

    Rpc {
        1 data: Bytes,
        2 method: String,
    }

    Token {
        1 token: String,
    }

    SubRefresh {
        1 channel: String,
        2 token: String,
    }
}
