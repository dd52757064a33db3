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
        1 id: u32,
        2 error: Option<Error>,
        4 push: Option<Push>,
        5 connect: Option<Connected>,
        6 subscribe: Option<Subscribed>,
        7 unsubscribe: Option<Empty>,
        8 publish: Option<Empty>,
        9 presence: Option<Presence>,
        10 presence_stats: Option<PresenceStats>,
        11 history: Option<Publications>,
        12 ping: Option<Empty>,
        13 rpc: Option<Data>,
        14 refresh: Option<Refreshed>,
        15 sub_refresh: Option<Expiry>,
    }

    /// An error instead of a result.
    Error {
        1 code: u32,
        2 message: String,
        3 temporary: bool,
    }

    /// The result of connect.
    Connected {
        1 client: String,
        2 version: String,
        /// Whether `ttl` is valid.
        3 expires: bool,
        /// Seconds until the token expires.
        4 ttl: u32,
        5 data: Bytes,
        /// Server-side subscriptions.
        6 subs: BTreeMap<String, Subscribed>,
        /// Seconds after which the server pings.
        7 ping: u32,
        /// Whether the client must answer pings.
        8 pong: bool,
    }

    /// The result of subscribe.
    #[allow(clippy::struct_excessive_bools, reason = "the protocol's")]
    Subscribed {
        1 expires: bool,
        2 ttl: u32,
        3 recoverable: bool,
        6 epoch: String,
        /// The publications after the position from which the client recovers.
        7 publications: Vec<Publication>,
        /// Whether `publications` and all later pushes are everything since that position.
        8 recovered: bool,
        9 offset: u64,
        10 positioned: bool,
        11 data: Bytes,
        12 was_recovering: bool,
    }

    /// The result of presence.
    #[allow(clippy::struct_field_names, reason = "the protocol's")]
    Presence {
        /// By client id.
        1 presence: BTreeMap<String, ClientInfo>,
    }

    /// The result of `presence_stats`.
    PresenceStats {
        1 num_clients: u32,
        2 num_users: u32,
    }

    /// The result of history.
    #[allow(clippy::struct_field_names, reason = "the protocol's")]
    Publications {
        1 publications: Vec<Publication>,
        2 epoch: String,
        /// The top, whatever the request.
        3 offset: u64,
    }

    /// The result of refresh.
    Refreshed {
        1 client: String,
        2 version: String,
        3 expires: bool,
        4 ttl: u32,
    }

    /// The result of `sub_refresh`, and the push `refresh`.
    Expiry {
        1 expires: bool,
        2 ttl: u32,
    }

    /// An unsolicited message to a client.
    Push {
        2 channel: String,
        #[serde(rename = "pub")]
        4 publication: Option<Publication>,
        5 join: Option<Member>,
        6 leave: Option<Member>,
        7 unsubscribe: Option<Unsubscribe>,
        8 message: Option<Data>,
        9 subscribe: Option<SubscribePush>,
        11 disconnect: Option<Disconnect>,
        12 refresh: Option<Expiry>,
    }

    /// Information about a client.
    ClientInfo {
        1 user: String,
        2 client: String,
        3 conn_info: Bytes,
        4 chan_info: Bytes,
    }

    /// A publication: the same for every subscriber.
    Publication {
        4 data: Bytes,
        /// The client that has published it; absent for the program.
        5 info: Option<ClientInfo>,
        /// The offset in the history; 0 without one.
        6 offset: u64,
        7 tags: BTreeMap<String, String>,
        /// Milliseconds since 1970.
        9 time: i64,
        11 key: String,
        12 removed: bool,
    }

    /// The pushes join and leave.
    Member {
        1 info: Option<ClientInfo>,
    }

    /// From 2500 on the SDK subscribes again.
    Unsubscribe {
        2 code: u32,
        3 reason: String,
    }

    /// A server-side subscription that begins while the client is connected.
    SubscribePush {
        1 recoverable: bool,
        4 epoch: String,
        5 offset: u64,
        6 positioned: bool,
        7 data: Bytes,
    }

    /// For transports without close codes.
    Disconnect {
        1 code: u32,
        2 reason: String,
        3 reconnect: bool,
    }
}
