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
        id: u32 = 1,
        connect: Option<Connect> = 4,
        subscribe: Option<Subscribe> = 5,
        unsubscribe: Option<Channel> = 6,
        publish: Option<Publish> = 7,
        presence: Option<Channel> = 8,
        presence_stats: Option<Channel> = 9,
        history: Option<History> = 10,
        ping: Option<Empty> = 11,
        send: Option<Data> = 12,
        rpc: Option<Rpc> = 13,
        refresh: Option<Token> = 14,
        sub_refresh: Option<SubRefresh> = 15,
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
        token: String = 1,
        data: Bytes = 2,
        /// Server-side subscriptions of the previous connection, with their positions.
        subs: BTreeMap<String, Subscribe> = 3,
        name: String = 4,
        version: String = 5,
    }

    #[allow(clippy::struct_excessive_bools, reason = "the protocol's")]
    Subscribe {
        channel: String = 1,
        token: String = 2,
        /// Whether to recover from the position in `epoch` and `offset`.
        recover: bool = 3,
        epoch: String = 6,
        offset: u64 = 7,
        data: Bytes = 8,
        positioned: bool = 9,
        recoverable: bool = 10,
        join_leave: bool = 11,
        /// Bits: 1 asks for short channel names, which are not supported; 2 for error 112 instead of a failed recovery.
        flag: i64 = 14,
    }

    /// Of `unsubscribe`, `presence` and `presence_stats`.
    Channel {
        channel: String = 1,
    }

    Publish {
        channel: String = 1,
        data: Bytes = 2,
    }

    History {
        channel: String = 1,
        /// 0 asks only for the position; a negative number asks for all publications.
        limit: i32 = 7,
        since: Option<StreamPosition> = 8,
        reverse: bool = 9,
    }

    StreamPosition {
        offset: u64 = 1,
        epoch: String = 2,
    }
}

/// For ping, and for results without fields.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Empty {}

message! {
    /// For `send`, its counterpart `message`, and the result of an rpc.
    Data {
        data: Bytes = 1,
    }

    Rpc {
        data: Bytes = 1,
        method: String = 2,
    }

    Token {
        token: String = 1,
    }

    SubRefresh {
        channel: String = 1,
        token: String = 2,
    }
}
