//! Messages to clients: replies to commands, and pushes.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::command::{Data, Empty};
use super::json::{from_raw, is_default, object, or_default, to_raw};
use super::message::message;

message! {
    /// The answer to a command, or a push. An empty one is a ping.
    Reply {
        /// The id of the command; 0 for a push.
        id: u32 = 1,
        error: Option<Error> = 2,
        push: Option<Push> = 4,
        connect: Option<Connected> = 5,
        subscribe: Option<Subscribed> = 6,
        unsubscribe: Option<Empty> = 7,
        publish: Option<Empty> = 8,
        presence: Option<Presence> = 9,
        presence_stats: Option<PresenceStats> = 10,
        history: Option<Publications> = 11,
        ping: Option<Empty> = 12,
        rpc: Option<Data> = 13,
        refresh: Option<Refreshed> = 14,
        sub_refresh: Option<Expiry> = 15,
    }

    /// An error instead of a result.
    Error {
        code: u32 = 1,
        message: String = 2,
        temporary: bool = 3,
    }

    /// The result of connect.
    Connected {
        client: String = 1,
        version: String = 2,
        /// Whether `ttl` is valid.
        expires: bool = 3,
        /// Seconds until the token expires.
        ttl: u32 = 4,
        data: Bytes = 5,
        /// Server-side subscriptions.
        subs: BTreeMap<String, Subscribed> = 6,
        /// Seconds after which the server pings.
        ping: u32 = 7,
        /// Whether the client must answer pings.
        pong: bool = 8,
    }

    /// The result of subscribe.
    #[allow(clippy::struct_excessive_bools, reason = "the protocol's")]
    Subscribed {
        expires: bool = 1,
        ttl: u32 = 2,
        recoverable: bool = 3,
        epoch: String = 6,
        /// The publications after the position from which the client recovers.
        publications: Vec<Publication> = 7,
        /// Whether `publications` and all later pushes are everything since that position.
        recovered: bool = 8,
        offset: u64 = 9,
        positioned: bool = 10,
        data: Bytes = 11,
        was_recovering: bool = 12,
    }

    /// The result of presence.
    #[allow(clippy::struct_field_names, reason = "the protocol's")]
    Presence {
        /// By client id.
        presence: BTreeMap<String, ClientInfo> = 1,
    }

    /// The result of `presence_stats`.
    PresenceStats {
        num_clients: u32 = 1,
        num_users: u32 = 2,
    }

    /// The result of history.
    #[allow(clippy::struct_field_names, reason = "the protocol's")]
    Publications {
        publications: Vec<Publication> = 1,
        epoch: String = 2,
        /// The top, whatever the request.
        offset: u64 = 3,
    }

    /// The result of refresh.
    Refreshed {
        client: String = 1,
        version: String = 2,
        expires: bool = 3,
        ttl: u32 = 4,
    }

    /// The result of `sub_refresh`, and the push `refresh`.
    Expiry {
        expires: bool = 1,
        ttl: u32 = 2,
    }

    /// An unsolicited message to a client.
    Push {
        channel: String = 2,
        #[serde(rename = "pub")]
        publication: Option<Publication> = 4,
        join: Option<Member> = 5,
        leave: Option<Member> = 6,
        unsubscribe: Option<Unsubscribe> = 7,
        message: Option<Data> = 8,
        subscribe: Option<SubscribePush> = 9,
        disconnect: Option<Disconnect> = 11,
        refresh: Option<Expiry> = 12,
    }

    /// Information about a client.
    ClientInfo {
        user: String = 1,
        client: String = 2,
        conn_info: Bytes = 3,
        chan_info: Bytes = 4,
    }

    /// A publication: the same for every subscriber.
    Publication {
        data: Bytes = 4,
        /// The client that has published it; absent for the program.
        info: Option<ClientInfo> = 5,
        /// The offset in the history; 0 without one.
        offset: u64 = 6,
        tags: BTreeMap<String, String> = 7,
        /// Milliseconds since 1970.
        time: i64 = 9,
        key: String = 11,
        removed: bool = 12,
    }

    /// The pushes join and leave.
    Member {
        info: Option<ClientInfo> = 1,
    }

    /// From 2500 on the SDK subscribes again.
    Unsubscribe {
        code: u32 = 2,
        reason: String = 3,
    }

    /// A server-side subscription that begins while the client is connected.
    SubscribePush {
        recoverable: bool = 1,
        epoch: String = 4,
        offset: u64 = 5,
        positioned: bool = 6,
        data: Bytes = 7,
    }

    /// For transports without close codes.
    Disconnect {
        code: u32 = 1,
        reason: String = 2,
        reconnect: bool = 3,
    }
}
