//! The client protocol of Centrifugo: a hub whose clients are the official Centrifuge SDKs.
//!
//! Compatible with Centrifuge client SDKs: what is supported, and how to connect from each, says the
//! [guide](crate::guide::centrifuge).
//!
//! | file | does |
//! | --- | --- |
//! | `wire` | the messages, one definition for both encodings |
//! | `codec` | frames ↔ commands and replies; pure |
//! | `formats` | publications of rooms as pushes, made once for each encoding |
//! | `session`, `settings`, `tokens`, `error` | what a connection is, what the application says |
//! | `dispatch` | a frame's commands, one after the other → replies |
//! | `connect`, `subscribe`, `recover`, `members` | what commands do to the hub |
//! | `outgoing` | replies in few messages, pushes to one client |
//! | `timers` | pings, missing answers, expiries: one thread for all connections |
//! | `api` | the HTTP API |

mod api;
mod codec;
mod connect;
mod dispatch;
mod error;
mod formats;
mod members;
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

use crate::{Admission, Client, HubBuilder, Message};

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

/// The WebSocket subprotocol of the protobuf encoding. Without one, clients speak JSON.
pub const PROTOBUF: &str = "centrifuge-protobuf";
/// What the server tells clients about itself.
const VERSION: &str = concat!("wshub ", env!("CARGO_PKG_VERSION"));

/// Sets up a hub that speaks the protocol. All callbacks run on the connection's thread, without a lock held.
#[must_use = "it does nothing until it is installed"]
#[derive(Default)]
pub struct Centrifuge {
    callbacks: Callbacks,
    settings: Settings,
}

impl Centrifuge {
    /// Everybody may connect and subscribe to every channel; tokens are refused; only the program publishes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what reads connection tokens, also when they are refreshed. Default: none, a client with a token is closed
    /// with 3500. A client without one keeps the user of its admission.
    pub fn connection_tokens(
        mut self,
        read: impl Fn(&str) -> Result<ConnectionToken, TokenError> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.connection_tokens = Some(Box::new(read));
        self
    }

    /// Sets what reads subscription tokens. Default: none, a client with one is closed with 3500.
    pub fn subscription_tokens(
        mut self,
        read: impl Fn(&str) -> Result<SubscriptionToken, TokenError> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.subscription_tokens = Some(Box::new(read));
        self
    }

    /// Sets what decides about a connect command, after its token; what it returns is the `data` of the reply. Default:
    /// everybody connects.
    pub fn on_connecting(
        mut self,
        callback: impl Fn(&Client, &Connecting<'_>) -> Result<Option<Message>, Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.on_connecting = Some(Box::new(callback));
        self
    }

    /// Sets what clients may do in which channel; `None` is error 102. Asked at every command: keep it fast. Default:
    /// [`ChannelOptions::default`] for all.
    pub fn channels(mut self, options: impl Fn(&str) -> Option<ChannelOptions> + Send + Sync + 'static) -> Self {
        self.callbacks.channels = Some(Box::new(options));
        self
    }

    /// Sets what decides about a subscribe command, after its token; what it returns is the `data` of the reply.
    /// Default: everybody may subscribe. The hub's `before_room_join` hook and its limits apply too, but after the
    /// reply: a client that they refuse gets an unsubscribe push with code 2000.
    pub fn on_subscribe(
        mut self,
        callback: impl Fn(&Client, &Subscribing<'_>) -> Result<Option<Message>, Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.on_subscribe = Some(Box::new(callback));
        self
    }

    /// Sets what decides about a publication of a client that may publish in the channel. Default: all are published.
    pub fn on_publish(
        mut self,
        callback: impl Fn(&Client, &str, &Message) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.on_publish = Some(Box::new(callback));
        self
    }

    /// Sets what gets the messages of `send` commands. Default: they are ignored.
    pub fn on_send(mut self, callback: impl Fn(&Client, &Message) + Send + Sync + 'static) -> Self {
        self.callbacks.on_send = Some(Box::new(callback));
        self
    }

    /// Sets the handler of an rpc method, replacing the one before. Others are answered with error 104. The data is text
    /// if it is UTF-8; what a JSON client gets is embedded as JSON where it is, and as a JSON string else.
    pub fn rpc(
        mut self,
        method: impl Into<String>,
        handler: impl Fn(&Client, &Message) -> Result<Message, CommandError> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.rpc.insert(method.into(), Box::new(handler));
        self
    }

    /// How often clients are pinged; default 25 s, in whole seconds, at least 1. An SDK that hears nothing for 10 s more
    /// reconnects.
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.settings.ping = Duration::from_secs(interval.as_secs().max(1));
        self
    }

    /// How long the answer to a ping may take; default 8 s. Then the client is closed with 3012.
    pub fn pong_timeout(mut self, timeout: Duration) -> Self {
        self.settings.pong_timeout = timeout;
        self
    }

    /// How long the connect command may take; default 10 s. Then the client is closed with 3502.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How long after the expiry of a token its refresh may come; default 25 s. Then the connection is closed with 3005,
    /// or the subscription ended with 2501: the SDK comes back with a new token.
    pub fn expiry_grace(mut self, grace: Duration) -> Self {
        self.settings.expiry_grace = grace;
        self
    }

    /// Subscriptions of one client; default 512, 0 = unlimited. One more is error 106.
    pub fn max_subscriptions(mut self, count: usize) -> Self {
        self.settings.max_subscriptions = count;
        self
    }

    /// Publications in one answer to a history command; default 1000.
    pub fn max_history(mut self, count: usize) -> Self {
        self.settings.max_history = count;
        self
    }

    /// Puts the protocol on a builder, with the subprotocol `centrifuge-protobuf`. Hooks that are set on the builder run
    /// too, before those of the protocol if they were set before.
    pub fn install(self, builder: HubBuilder) -> HubBuilder {
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
            .after_room_join(joined)
            .after_room_leave(left)
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

/// The protocol on a hub.
struct Installed {
    shared: Arc<Shared>,
    timers: Arc<Timers>,
}

impl Installed {
    fn begin(&self, client: &Client) {
        if client.is_event_stream() {
            // It sends nothing, and reads what every event stream reads.
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

fn joined(client: &Client, room: &str) {
    if let Some(session) = Session::of(client) {
        subscribe::joined_by_program(client, &session, room);
    }
}

fn left(client: &Client, room: &str) {
    if let Some(session) = Session::of(client) {
        subscribe::left(client, &session, room);
    }
}

/// Data of a client as a message: text if it is UTF-8.
fn message_of(data: &Bytes) -> Message {
    match std::str::from_utf8(data) {
        Ok(text) => Message::text(text),
        Err(_) => Message::binary(data.clone()),
    }
}
