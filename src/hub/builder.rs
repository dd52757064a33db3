//! The hub builder: settings, limits and hooks.

use std::any::Any;
use std::sync::Arc;

use super::Hub;
use super::admission::{Admission, Rejection};
use super::calls::{CallFormat, FormatOfCalls};
use super::chain::{self, observe};
use super::client::Client;
use super::cluster::NodeSettings;
use super::extensions::Extensions;
use super::hooks::Hooks;
use super::members::{Announce, MemberChange};
use crate::bounds::check;
#[cfg(feature = "cluster")]
use crate::cluster::Cluster;
use crate::config::{Config, Limits};
use crate::error::{ConfigError, HandlerError, HandlerResult};
use crate::guard;
#[cfg(feature = "cluster")]
use crate::history::HistoryStore;
use crate::history::{Format, FormatRef, Gap, Patterns, RoomOptions};
use crate::http::{OriginPolicy, RequestHead, Response};
use crate::message::Message;
use crate::metrics::{ErrorType, Metrics};
use crate::trace::Tracer;

/// Builds a [`Hub`]. Every hook is optional.
///
/// Setting a hook again does not replace the earlier one: both run, in the order in which they were set. So an
/// application and a protocol can both use the same hook. If two hooks decide, the first refusal wins and the second
/// hook is not called. If two hooks transform a value, the second gets the first one's result. `on_message` handlers
/// run until one returns an error. Two admissions are merged: the client gets the rooms and metadata of both, and the
/// user and subprotocol of the later one where it sets them.
///
/// Hooks run without any lock held and may call anything, unless their documentation says otherwise. A panic in a hook
/// closes the connection with 1011 and affects nothing else.
///
/// | hooks | thread |
/// | --- | --- |
/// | `on_upgrade`, `map_refusal` | the thread that does the handshake |
/// | `after_connect`, `before_disconnect`, `after_disconnect`, all hooks of received messages, `on_error` | the connection's own thread, one after the other |
/// | `before_room_join`, `before_room_leave` | the thread that joins or leaves |
/// | `after_room_join`, `after_room_leave` | the thread that joins or leaves; a thread named `wshub-hooks` if a hook for this client and room is running |
/// | `on_user_online`, `on_user_offline` | the thread that changes the user; a thread named `wshub-hooks` if a hook for this user is running |
/// | `on_send_dropped`, `on_send_timeout` | the sender's thread; for messages from other nodes, the thread that receives them |
/// | `on_shutdown` | the thread that shuts the hub down |
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct HubBuilder {
    pub(super) config: Config,
    pub(super) limits: Limits,
    pub(super) origins: OriginPolicy,
    pub(super) hooks: Hooks,
    pub(super) metrics: Option<Arc<dyn Metrics>>,
    pub(super) tracer: Option<Tracer>,
    pub(super) without_handler_latency: bool,
    pub(super) extensions: Extensions,
    pub(super) patterns: Patterns,
    pub(super) format: Option<FormatRef>,
    pub(super) call_format: FormatOfCalls,
    pub(super) announce_members: Announce,
    pub(super) node: NodeSettings,
    /// The first error that a protocol has found in its own settings.
    fault: Option<ConfigError>,
}

/// Maximum number of traces that a tracer keeps: gigabytes.
const MOST_TRACES: usize = 1 << 20;

/// Defines a setter for each hook, with the function that combines two hooks of its kind.
macro_rules! hooks {
    ($($(#[$doc:meta])* $name:ident($($argument:ty),*) $(-> $result:ty)?, $join:path;)*) => {
        $($(#[$doc])*
        pub fn $name(mut self, hook: impl Fn($($argument),*) $(-> $result)? + Send + Sync + 'static) -> Self {
            self.hooks.$name = Some(match self.hooks.$name.take() {
                None => Box::new(hook),
                Some(first) => Box::new($join(first, hook)),
            });
            self
        })*
    };
}

impl HubBuilder {
    /// Sets the connection settings.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Modifies the current connection settings.
    pub fn map_config(mut self, change: impl FnOnce(Config) -> Config) -> Self {
        self.config = change(self.config);
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets which web origins may connect. Default: [`OriginPolicy::same_origin`].
    pub fn origins(mut self, policy: OriginPolicy) -> Self {
        self.origins = policy;
        self
    }

    /// Sets the metrics sink. Default: none, at no cost. Keep a clone of the `Arc` to read the metrics.
    pub fn metrics(mut self, metrics: Arc<dyn Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Makes the hub skip message latency and errors of the `on_message` handler, so that
    /// [`RecordMetrics`](crate::middleware::RecordMetrics) in the handler's middleware does not count them twice.
    /// Default: the hub records both.
    pub fn without_handler_latency(mut self) -> Self {
        self.without_handler_latency = true;
        self
    }

    /// Sets the tracer, which records how messages are handled. Its sampling determines how often. One tracer may serve
    /// several hubs. Default: none, at no cost. See [`trace`](crate::trace).
    pub fn tracer(mut self, tracer: Tracer) -> Self {
        self.tracer = Some(tracer);
        self
    }

    /// Sets what the matching rooms remember. The pattern is a room's name or a prefix followed by `*`; `*` alone
    /// matches all rooms. The longest matching pattern determines a room's options. Default: rooms remember nothing, at
    /// no cost. See the [guide](crate::guide::history).
    pub fn rooms(mut self, pattern: &str, options: RoomOptions) -> Self {
        self.patterns.add(pattern, options);
        self
    }

    /// Sets the wire format of publications in rooms with a history or state. Default:
    /// [`history::Plain`](crate::history::Plain), which sends messages unchanged.
    pub fn format(mut self, format: &'static dyn Format) -> Self {
        self.format = Some(FormatRef::new(format));
        self
    }

    /// Sets the store for the histories of rooms with [`RoomOptions::shared`]. A hub with a store runs two more
    /// threads. Default: none; then [`build`](HubBuilder::build) fails if a room is shared.
    #[cfg(feature = "cluster")]
    pub fn history_store(mut self, store: impl HistoryStore) -> Self {
        self.node.history_store = Some(Arc::new(store));
        self
    }

    /// Makes the hub a node of a cluster, so that messages reach the clients of all nodes. Default: no cluster.
    #[cfg(feature = "cluster")]
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.node.cluster = Some(cluster);
        self
    }

    /// Sets the wire format of calls to clients: [`JsonCalls`](crate::calls::JsonCalls) or a custom format. Default:
    /// none; then [`Client::call`](crate::Client::call) returns [`Unsupported`](crate::calls::CallError::Unsupported).
    /// Installing the protocol `events` or `relay` sets it.
    pub fn call_format(mut self, format: impl CallFormat) -> Self {
        self.call_format = FormatOfCalls(Some(Box::new(format)));
        self
    }

    /// Sets how clients learn of member changes in rooms with
    /// [`RoomOptions::members`](crate::history::RoomOptions::members). The function builds a message from the room's
    /// name and the changes; it is called at most every 50 ms for each room. If it returns `None`, nothing is sent.
    /// Default: nothing is sent. Installing the protocol `events` sets it.
    pub fn announce_members(
        mut self,
        announce: impl Fn(&str, &[MemberChange]) -> Option<Message> + Send + Sync + 'static,
    ) -> Self {
        self.announce_members = Announce(Some(Box::new(announce)));
        self
    }

    /// Sets what runs after one or several changes of a client's membership in a room, when the hooks have been told.
    /// Unlike `after_room_join` and `after_room_leave`, it runs even if the changes cancel each other, and several
    /// threads may run it at the same time.
    #[cfg(feature = "centrifuge")]
    pub(crate) fn room_settled(mut self, hook: impl Fn(&Client, &str) + Send + Sync + 'static) -> Self {
        self.hooks.room_settled = Some(Box::new(hook));
        self
    }

    /// Sets the handler of messages that other nodes of the cluster have sent with [`Hub::tell_nodes`] and this
    /// subject. It replaces an earlier one. It runs on the thread that receives from the bus: while it blocks, nothing
    /// else of the cluster arrives. Messages of subjects without a handler are ignored.
    #[cfg(feature = "cluster")]
    pub fn on_node_message(
        mut self,
        subject: impl Into<String>,
        handler: impl Fn(&Hub, &str) + Send + Sync + 'static,
    ) -> Self {
        self.node.handlers.0.insert(subject.into(), Box::new(handler));
        self
    }

    /// Stores a value in the hub. [`Hub::extension`] finds it by its type. A later value of the same type replaces it.
    ///
    /// The hub keeps the value as long as it lives, so a value that holds the hub keeps it alive for ever.
    pub fn extension<T: Any + Send + Sync>(mut self, value: Arc<T>) -> Self {
        guard::dispose(self.extensions.insert(value));
        self
    }

    hooks! {
        /// Decides on a valid upgrade request before the 101 response: admits the client or refuses it. Default: every
        /// client is admitted, anonymously. A panic refuses the request with 500.
        on_upgrade(&RequestHead) -> Result<Admission, Rejection>, chain::admit;
        /// Rewrites the response to a refused upgrade, for example as JSON. The second argument is the error type that
        /// the refusal counts as. Default: a plain-text response, or the response of `on_upgrade`. If the hook panics
        /// or returns a status below 300, the original response is sent, so that a refusal cannot be mistaken for
        /// success.
        map_refusal(&RequestHead, ErrorType, &Response) -> Response, chain::rewrite;
        /// A client is connected and can receive messages. Messages of others may reach it before the hook runs. The
        /// hub reads the client's messages after the hook returns.
        after_connect(&Client), observe::one;
        /// A connection is ending. The client is still in its rooms.
        before_disconnect(&Client), observe::one;
        /// A connection has ended. The client is removed from the hub, its rooms and its user.
        after_disconnect(&Client), observe::one;
        /// Runs before the handlers and may replace a message or refuse it. A refusal goes to `after_message` and
        /// `on_error`.
        before_message(&Client, Message) -> HandlerResult<Message>, chain::filter;
        /// Handles a message. An error goes to `after_message` and `on_error`. The connection stays open unless the
        /// error is a [`HandlerError::close`].
        on_message(&Client, &Message) -> HandlerResult, chain::both;
        /// Runs after the handlers, with their result.
        after_message(&Client, &Message, &Result<(), HandlerError>), observe::three;
        /// A handler has returned an error, or the connection has failed: the peer violated the protocol or went
        /// silent, or reading or writing failed. [`HandlerError::error_type`] tells which. A peer that closes or
        /// disconnects is no error.
        on_error(&Client, &HandlerError), observe::two;
        /// An inbound message exceeded `max_message_rate`.
        on_rate_limited(&Client, &Message), observe::two;
        /// A message was dropped because the client's queue was full: the new one under drop-newest, an old one under
        /// drop-oldest. Called once for each drop, on the sender's thread, so keep it fast. Drops caused by the hook's
        /// own sends do not call it again.
        on_send_dropped(&Client, &Message), observe::two;
        /// A `send_timeout` has given up on this client. Runs on the sender's thread.
        on_send_timeout(&Client, &Message), observe::two;
        /// Runs before a client joins a room and may refuse.
        before_room_join(&Client, &str) -> HandlerResult, chain::both;
        /// A client has joined a room.
        ///
        /// `after_room_join` and `after_room_leave` report a state, not every change. For each client and room they
        /// alternate, beginning with the join, and never overlap; the last call reports the final state. If a client
        /// leaves and rejoins while one of them runs, neither change is reported. If `after_connect` leaves a room of
        /// the admission, neither the join nor the leave is reported. The metrics of joins and leaves follow these
        /// hooks. The leave may be reported after `after_disconnect` if another thread causes it or is still in one of
        /// these hooks.
        after_room_join(&Client, &str), observe::two;
        /// Runs before a client leaves a room, also when its connection ends.
        before_room_leave(&Client, &str), observe::two;
        /// A client has left a room; see [`after_room_join`](HubBuilder::after_room_join).
        after_room_leave(&Client, &str), observe::two;
        /// A user's first connection is open.
        ///
        /// `on_user_online` and `on_user_offline` report a state, not every change. For each user they alternate,
        /// beginning with online, and never overlap; the last call reports the final state. If a user goes offline and
        /// returns while one of them runs, neither change is reported.
        on_user_online(&Hub, &str), observe::two;
        /// A user's last connection has ended; see [`on_user_online`](HubBuilder::on_user_online).
        on_user_offline(&Hub, &str), observe::two;
        /// A client in a room with a history misses publications: it is so far behind that the history no longer holds
        /// them. Counted as `history_gaps`. Runs on one of the hub's threads, in order for each client, shortly before
        /// or after the client reaches the gap.
        on_gap(&Client, &Gap), observe::two;
        /// Members of a room with [`RoomOptions::members`](crate::history::RoomOptions::members) have joined, left or
        /// changed their metadata, on any node. Called once for each change, in order, on the thread `wshub-rooms`. A
        /// member that joins and leaves within 50 ms is not reported.
        on_member_change(&Hub, &str, &MemberChange), observe::three;
        /// The hub is shutting down, and every connection's close has begun. Called once, on the thread that calls
        /// `shutdown`. A panic in the hook is logged.
        on_shutdown(&Hub), observe::one;
    }

    /// Makes [`build`](HubBuilder::build) fail with this error, for protocols that find an invalid setting of their own
    /// when they are installed. The first error counts.
    pub fn invalid(mut self, error: ConfigError) -> Self {
        self.fault.get_or_insert(error);
        self
    }

    /// Builds the hub, which runs at once. In a cluster, two threads connect it to the bus; the bus need not be
    /// reachable yet.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] names the invalid setting, or `cluster` or `history_store` if its threads cannot be started.
    pub fn build(mut self) -> Result<Hub, ConfigError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        self.config.validate()?;
        self.limits.validate()?;
        if let Some(tracer) = &self.tracer {
            check("capacity", tracer.capacity(), 0..=MOST_TRACES)?;
        }
        if let Some(fault) = self.origins.fault() {
            return Err(ConfigError::because("origins", fault.to_owned()));
        }
        self.patterns.validate()?;
        self.node.validate(&self.patterns)?;
        let hub = Hub::from_builder(self);
        hub.start_node()?;
        Ok(hub)
    }
}
