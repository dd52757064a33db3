//! The client protocol of Centrifugo: a hub whose clients are the official Centrifuge SDKs.
//!
//! It is compatible with the Centrifuge client SDKs. The [guide](crate::guide::centrifuge) lists what is supported and
//! how to connect from each SDK.
//!
//! | file | purpose |
//! | --- | --- |
//! | `wire` | the messages, one definition for both encodings |
//! | `codec` | converts between frames and commands or replies; pure |
//! | `formats` | encodes publications of rooms as pushes, once for each encoding |
//! | `session`, `settings`, `tokens`, `error` | the state of a connection, and the types that the application's callbacks use |
//! | `dispatch` | runs the commands of a frame in order and collects the replies |
//! | `connect`, `subscribe`, `recover`, `members` | the effects of commands on the hub |
//! | `outgoing` | packs replies into few messages; pushes to one client |
//! | `timers` | pings, missing pongs, expiries: one thread for all connections |
//! | `nodes` | what other nodes tell of themselves |
//! | `api` | the HTTP API |

mod api;
mod codec;
mod connect;
mod dispatch;
mod error;
mod formats;
mod members;
mod nodes;
mod outgoing;
mod recover;
mod session;
mod settings;
mod subscribe;
mod timers;
mod tokens;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{Admission, Client, Hub, HubBuilder, Message};

pub use api::Api;
#[cfg(wshub_internals)]
pub(crate) use codec::check_frame;
pub use error::{CommandError, Disconnect, Refusal};
pub use settings::{Access, ChannelOptions, Connecting, Subscribing};
pub use tokens::{ConnectionToken, SubscriptionToken, TokenError};

use dispatch::Dispatch;
use session::{Phase, Session};
use settings::{Callbacks, Settings, Shared};
use timers::Timers;

/// The WebSocket subprotocol of the protobuf encoding. Clients without a subprotocol use JSON.
pub const PROTOBUF: &str = "centrifuge-protobuf";
/// The server version in connect replies.
const VERSION: &str = concat!("wshub ", env!("CARGO_PKG_VERSION"));

/// Sets up a hub that speaks the protocol. All callbacks run on the connection's thread, with no lock held.
#[must_use = "it does nothing until it is installed"]
#[derive(Default)]
pub struct Centrifuge {
    callbacks: Callbacks,
    settings: Settings,
}

impl Centrifuge {
    /// All clients may connect and subscribe to every channel; tokens are refused; only the program publishes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the callback that reads connection tokens, also on refresh. Default: none, and a client with a token is
    /// closed with 3500. A client without a token keeps the user of its admission.
    pub fn connection_tokens(
        mut self,
        read: impl Fn(&str) -> Result<ConnectionToken, TokenError> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.connection_tokens = Some(Box::new(read));
        self
    }

    /// Sets the callback that reads subscription tokens. Default: none, and a client with one is closed with 3500.
    pub fn subscription_tokens(
        mut self,
        read: impl Fn(&str) -> Result<SubscriptionToken, TokenError> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.subscription_tokens = Some(Box::new(read));
        self
    }

    /// Sets the callback that accepts or refuses a connect command, after its token is checked. Its return value is the
    /// `data` of the reply. Default: all clients connect.
    pub fn on_connecting(
        mut self,
        callback: impl Fn(&Client, &Connecting<'_>) -> Result<Option<Message>, Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.on_connecting = Some(Box::new(callback));
        self
    }

    /// Sets what clients may do in each channel; `None` is error 102. It runs for every command, so keep it fast.
    /// Default: [`ChannelOptions::default`] for all.
    pub fn channels(mut self, options: impl Fn(&str) -> Option<ChannelOptions> + Send + Sync + 'static) -> Self {
        self.callbacks.channels = Some(Box::new(options));
        self
    }

    /// Sets the callback that accepts or refuses a subscribe command, after its token is checked. Its return value is
    /// the `data` of the reply. Default: all clients may subscribe. The hub's `before_room_join` hook and its limits
    /// also apply, but after the reply: a client that they refuse gets an unsubscribe push with code 2000.
    pub fn on_subscribe(
        mut self,
        callback: impl Fn(&Client, &Subscribing<'_>) -> Result<Option<Message>, Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.on_subscribe = Some(Box::new(callback));
        self
    }

    /// Sets the callback that accepts or refuses a client's publication in a channel where it may publish. Default: all
    /// are published.
    pub fn on_publish(
        mut self,
        callback: impl Fn(&Client, &str, &Message) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.on_publish = Some(Box::new(callback));
        self
    }

    /// Sets the handler for the messages of `send` commands. Default: they are ignored.
    pub fn on_send(mut self, callback: impl Fn(&Client, &Message) + Send + Sync + 'static) -> Self {
        self.callbacks.on_send = Some(Box::new(callback));
        self
    }

    /// Sets the handler of an rpc method, replacing an earlier one. Unknown methods are answered with error 104. The
    /// data is a text message if it is UTF-8. A JSON client gets the result embedded if it is JSON, otherwise as a JSON
    /// string.
    pub fn rpc(
        mut self,
        method: impl Into<String>,
        handler: impl Fn(&Client, &Message) -> Result<Message, CommandError> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.rpc.insert(method.into(), Box::new(handler));
        self
    }

    /// Sets how often clients are pinged, 1 s to a day, rounded down to whole seconds. Default: 25 s. An SDK that
    /// receives nothing for 10 s longer reconnects.
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.settings.ping = interval;
        self
    }

    /// Sets how long the answer to a ping may take. Default: 8 s; 1 ms to 366 days, or [`Duration::MAX`] = for ever.
    /// After that, the client is closed with 3012, unless it has acknowledged output in the meantime that had filled
    /// its socket, because the ping waits behind that output.
    pub fn pong_timeout(mut self, timeout: Duration) -> Self {
        self.settings.pong_timeout = timeout;
        self
    }

    /// Sets how long a client may take to send its connect command before it is closed with 3502. Default: 10 s;
    /// 1 ms to 366 days, or [`Duration::MAX`] = for ever.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// Sets how long after a token's expiry its refresh may arrive. Default: 25 s. After that, the connection is closed
    /// with 3005, or the subscription ends with 2501; the SDK returns with a new token.
    pub fn expiry_grace(mut self, grace: Duration) -> Self {
        self.settings.expiry_grace = grace;
        self
    }

    /// Sets the maximum number of subscriptions per client. Default: 512; 0 = unlimited. One more is error 106.
    pub fn max_subscriptions(mut self, count: usize) -> Self {
        self.settings.max_subscriptions = count;
        self
    }

    /// Sets the maximum number of publications in one answer to a history command. Default: 1000; at least 1.
    pub fn max_history(mut self, count: usize) -> Self {
        self.settings.max_history = count;
        self
    }

    /// Publishes to a channel, whether or not it has a history, on all nodes. In channels with a history
    /// [`Hub::publish`] does the same; without one, it would send the bare message, which clients of this protocol
    /// cannot read.
    ///
    /// # Errors
    ///
    /// A shared history takes no more messages: [`CommandError::TOO_MANY_REQUESTS`].
    pub fn publish(hub: &Hub, channel: &str, data: impl Into<Message>) -> Result<(), CommandError> {
        recover::publish(hub, channel, &data.into(), &formats::Attached::default(), recover::Recording::Queued)?;
        Ok(())
    }

    /// Installs the protocol on a builder, with the subprotocol `centrifuge-protobuf`. Hooks on the builder also run;
    /// those that were set earlier run before the protocol's. An invalid setting makes
    /// [`build`](HubBuilder::build) fail.
    pub fn install(mut self, builder: HubBuilder) -> HubBuilder {
        if let Err(error) = self.settings.validate() {
            return builder.invalid(error);
        }
        self.settings.simplify();
        let timers = Timers::new(self.settings.clone());
        let shared = Arc::new(Shared { callbacks: self.callbacks, settings: self.settings });
        let own = Arc::new(Installed { shared, timers });
        let [begin, end, handle] = std::array::from_fn(|_| Arc::clone(&own));
        builder
            .map_config(|mut config| {
                config.subprotocols.push(PROTOBUF.to_owned());
                config
                    .violation_code(Disconnect::BAD_REQUEST.code())
                    .rate_limit_code(Disconnect::TOO_MANY_REQUESTS.code())
            })
            .format(&formats::JSON)
            .on_upgrade(|head| {
                let is_protobuf = head.tokens("sec-websocket-protocol").any(|name| name == PROTOBUF);
                let admission = Admission::anonymous();
                Ok(if is_protobuf { admission.subprotocol(PROTOBUF).format(&formats::PROTOBUF) } else { admission })
            })
            .after_connect(move |client| begin.begin(client))
            .before_disconnect(move |client| end.end(client))
            .on_message(move |client, message| handle.handle(client, message))
            .after_room_join(room_changed)
            .after_room_leave(room_changed)
            .room_settled(room_changed)
            .on_member_change(members::changed)
            .on_node_message(recover::PUSHES, recover::hear_push)
            .on_node_message(api::REQUESTS, api::hear_request)
            .on_node_message(nodes::NODES, nodes::hear)
            .extension(Arc::new(nodes::Nodes::default()))
            .on_gap(|client, gap| {
                if let Some(session) = Session::of(client) {
                    subscribe::missed(client, &session, gap.room());
                }
            })
    }
}

impl fmt::Debug for Centrifuge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Centrifuge")
            .field("settings", &self.settings)
            .field("rpc", &self.callbacks.rpc.keys())
            .finish_non_exhaustive()
    }
}

/// The protocol as installed on a hub.
struct Installed {
    shared: Arc<Shared>,
    timers: Arc<Timers>,
}

impl Installed {
    fn begin(&self, client: &Client) {
        if client.is_event_stream() {
            // An event stream sends no commands and receives the usual stream messages.
            return;
        }
        let due = Instant::now() + self.shared.settings.connect_timeout;
        Session::begin(client, &self.shared, due);
        self.timers.schedule(client, due);
    }

    fn handle(&self, client: &Client, frame: &Message) -> crate::HandlerResult {
        let Some(session) = Session::of(client) else { return Ok(()) };
        let result = Dispatch { client, session: &session }.frame(frame);
        let is_rescheduled = std::mem::take(&mut session.state.lock().is_rescheduled);
        if is_rescheduled {
            self.timers.reschedule(client);
        }
        result
    }

    fn end(&self, client: &Client) {
        if let Some(session) = Session::of(client) {
            session.state.lock().phase = Phase::Ended;
        }
        self.timers.remove(client);
    }
}

/// The client has joined or left a room, in whatever way. Runs also after changes that cancel each other, because a
/// subscription may have begun or ended between them.
fn room_changed(client: &Client, room: &str) {
    if let Some(session) = Session::of(client) {
        subscribe::settle(client, &session, room);
    }
}

/// A client's data as a message: text if it is UTF-8, else binary.
fn message_of(data: &Bytes) -> Message {
    match std::str::from_utf8(data) {
        Ok(text) => Message::text(text),
        Err(_) => Message::binary(data.clone()),
    }
}
