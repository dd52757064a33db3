//! Setting up a hub: settings, limits, and the application's code.

use std::any::Any;
use std::sync::Arc;

use super::Hub;
use super::admission::{Admission, Rejection};
use super::calls::{CallFormat, FormatOfCalls};
use super::chain::{self, observe};
use super::client::Client;
use super::extensions::Extensions;
use super::hooks::Hooks;
use super::members::{Announce, MemberChange};
use crate::cluster::Cluster;
use crate::config::{Config, Limits};
use crate::error::{ConfigError, HandlerError, HandlerResult};
use crate::history::{Format, FormatRef, Gap, HistoryStore, Patterns, RoomOptions};
use crate::http::{OriginPolicy, RequestHead, Response};
use crate::message::Message;
use crate::metrics::{ErrorType, Metrics};
use crate::trace::Tracer;

/// Builds a [`Hub`]. Every hook is optional.
///
/// A hook that is set again does not replace the one before: both run, in the order in which they were set. So an
/// application and a protocol can both use a hook. Of two that decide, the first refusal counts, and the second is not
/// asked; a hook that changes a value gets what the one before has made of it. `on_message` handlers run until one returns an
/// error. Two admissions are merged: rooms and metadata of both, the user and the subprotocol of the later where it has one.
///
/// Hooks run without any lock held and may call anything, unless their description says otherwise. A panic in a hook closes
/// the connection with 1011 and affects nothing else.
///
/// | hooks | thread |
/// | --- | --- |
/// | `on_upgrade`, `map_refusal`, `after_connect`, `before_disconnect`, `after_disconnect`, all hooks of received messages, `on_error` | the connection's own, one after the other |
/// | `before_room_join`, `before_room_leave` | the one that joins or leaves |
/// | `after_room_join`, `after_room_leave` | the same, unless a hook of this client and room is running: then a thread named `wshub-hooks` |
/// | `on_user_online`, `on_user_offline` | the one that changes the user, unless a hook of this user is running: then a thread named `wshub-hooks` |
/// | `on_send_dropped`, `on_send_timeout` | the sender's; for messages from other nodes, the one that receives them |
/// | `on_shutdown` | the one that shuts the hub down |
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
    pub(super) history_store: Option<Arc<dyn HistoryStore>>,
    pub(super) announce_members: Announce,
    cluster: Option<Cluster>,
}

/// A setter for each hook, with the way in which two of its kind become one.
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
    /// Sets the settings of connections.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Changes the settings of connections as they stand.
    pub fn map_config(mut self, change: impl FnOnce(Config) -> Config) -> Self {
        self.config = change(self.config);
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets which web pages may connect; default [`OriginPolicy::same_origin`].
    pub fn origins(mut self, policy: OriginPolicy) -> Self {
        self.origins = policy;
        self
    }

    /// Sets who counts; default nobody, which costs nothing. Keep a clone of the `Arc` to read the counts.
    pub fn metrics(mut self, metrics: Arc<dyn Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Leaves the latency of messages, and the errors of the `on_message` handler, to
    /// [`RecordMetrics`](crate::middleware::RecordMetrics) in its chain, so that they are not counted twice. Default:
    /// the hub records both.
    pub fn without_handler_latency(mut self) -> Self {
        self.without_handler_latency = true;
        self
    }

    /// Records how messages are handled, as often as the tracer's sampling says. A tracer may serve several hubs. Default:
    /// none, which costs nothing. See [`trace`](crate::trace).
    pub fn tracer(mut self, tracer: Tracer) -> Self {
        self.tracer = Some(tracer);
        self
    }

    /// Sets what rooms remember: the pattern is a name, or a prefix that ends in `*`; `*` alone is all rooms. A room has
    /// the options of the longest pattern that matches its name. Default: no room remembers anything, at no cost. See
    /// the [guide](crate::guide::history).
    pub fn rooms(mut self, pattern: &str, options: RoomOptions) -> Self {
        self.patterns.add(pattern, options);
        self
    }

    /// Sets how publications of rooms that remember look to clients; default
    /// [`history::Plain`](crate::history::Plain): messages as they are.
    pub fn format(mut self, format: &'static dyn Format) -> Self {
        self.format = Some(FormatRef::new(format));
        self
    }

    /// Sets where the histories of rooms with [`RoomOptions::shared`] live. A hub with a store has two more threads. Default:
    /// none; then such rooms are a fault.
    pub fn history_store(mut self, store: impl HistoryStore) -> Self {
        self.history_store = Some(Arc::new(store));
        self
    }

    /// Makes the hub a node of a cluster: what is sent reaches the clients of all its nodes. Default: none.
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Sets how calls to clients look on the wire: [`JsonCalls`](crate::calls::JsonCalls), or a format of your own. Default:
    /// none, and [`Client::call`](crate::Client::call) is [`Unsupported`](crate::calls::CallError::Unsupported). The
    /// protocols `events` and `relay` set it when they are installed.
    pub fn call_format(mut self, format: impl CallFormat) -> Self {
        self.call_format = FormatOfCalls(Some(Box::new(format)));
        self
    }

    /// Sets how clients are told of members that come, go or change, in rooms with
    /// [`RoomOptions::members`](crate::history::RoomOptions::members): a message made of the room's name and its changes, at most
    /// every 50 ms; `None` tells nobody. Default: nobody is told. The protocol `events` sets it when it is installed.
    pub fn announce_members(
        mut self,
        announce: impl Fn(&str, &[MemberChange]) -> Option<Message> + Send + Sync + 'static,
    ) -> Self {
        self.announce_members = Announce(Some(Box::new(announce)));
        self
    }

    /// Keeps a value with the hub, found by its type with [`Hub::extension`]. A value of the same type replaces it.
    ///
    /// The hub holds the value until the hub is gone: a value that holds the hub keeps it for ever.
    pub fn extension<T: Any + Send + Sync>(mut self, value: Arc<T>) -> Self {
        self.extensions.insert(value);
        self
    }

    hooks! {
        /// Decides about a valid upgrade request, before the 101: who it is, or a refusal. Default: everyone comes in,
        /// anonymous. A panic refuses with 500.
        on_upgrade(&RequestHead) -> Result<Admission, Rejection>, chain::admit;
        /// Rewrites the answer to a refused upgrade, for example as JSON; the second argument says what it counts as.
        /// Default: plain text, or what `on_upgrade` has refused with. An answer below 300 is not sent, so that a
        /// refusal cannot be mistaken for success: the one that was to be rewritten is, as after a panic.
        map_refusal(&RequestHead, ErrorType, &Response) -> Response, chain::rewrite;
        /// A client is connected and may be sent to. Its messages are read after this returns.
        after_connect(&Client), observe::one;
        /// A connection is ending; the client is still in its rooms.
        before_disconnect(&Client), observe::one;
        /// A connection has ended and is gone from everywhere.
        after_disconnect(&Client), observe::one;
        /// Before the handlers: may replace a message or refuse it. A refusal goes to `after_message` and `on_error`.
        before_message(&Client, Message) -> Result<Message, HandlerError>, chain::filter;
        /// Handles a message. An error goes to `after_message` and `on_error`, and the connection stays, unless it is
        /// a [`HandlerError::close`].
        on_message(&Client, &Message) -> HandlerResult, chain::handle;
        /// After the handlers, with their result.
        after_message(&Client, &Message, &HandlerResult), observe::three;
        /// A handler has returned an error, or the connection has broken: the peer broke the protocol or fell silent,
        /// reading or writing failed; [`HandlerError::error_type`] tells which. A peer that closes or goes is no error.
        on_error(&Client, &HandlerError), observe::two;
        /// An inbound message was over `max_message_rate`.
        on_rate_limited(&Client, &Message), observe::two;
        /// A message was dropped because the client's queue was full: the new one under drop-newest, an old one under
        /// drop-oldest. Called once for each drop, on the sender's thread: keep it fast. Drops that the hook itself
        /// causes by sending do not call it again.
        on_send_dropped(&Client, &Message), observe::two;
        /// A `send_timeout` has given up on this client. On the sender's thread.
        on_send_timeout(&Client, &Message), observe::two;
        /// Before a client joins a room: may refuse.
        before_room_join(&Client, &str) -> Result<(), HandlerError>, chain::allow;
        /// A client has joined a room.
        ///
        /// `after_room_join` and `after_room_leave` tell levels: for each client and room they alternate, beginning with
        /// the join, never overlap, and the last one tells what is. A client that leaves and returns while one of them
        /// runs is not told of; nor is a room of the admission that `after_connect` leaves. The counts of joins and
        /// leaves follow these hooks. When another thread causes a client's leave, or is still in one of these hooks,
        /// the leave may be told after `after_disconnect`.
        after_room_join(&Client, &str), observe::two;
        /// Before a client leaves a room, by itself or because its connection ends.
        before_room_leave(&Client, &str), observe::two;
        /// A client has left a room; see [`after_room_join`](HubBuilder::after_room_join).
        after_room_leave(&Client, &str), observe::two;
        /// The first connection of a user has come.
        ///
        /// `on_user_online` and `on_user_offline` tell levels: for each user they alternate, beginning with online, never
        /// overlap, and the last one tells what is. A user that goes and returns while one of them runs is not told of.
        on_user_online(&Hub, &str), observe::two;
        /// The last connection of a user has gone; as [`on_user_online`](HubBuilder::on_user_online).
        on_user_offline(&Hub, &str), observe::two;
        /// A client of a room with a history will not get some of its publications: it fell so far behind that the history
        /// no longer holds them. Counted as `history_gaps`. On a thread of the hub's own, in order for each client; it
        /// may come a little before or after the client reaches the gap.
        on_gap(&Client, &Gap), observe::two;
        /// Members of a room with [`RoomOptions::members`](crate::history::RoomOptions::members) have come, gone, or changed
        /// their metadata, on any node. Once for each change, in their order, on the thread `wshub-rooms`; what comes and
        /// goes within 50 ms is no change.
        on_member_change(&Hub, &str, &MemberChange), observe::three;
        /// The hub is being shut down: every connection has been told. Once, on the thread that asks for it. A panic in
        /// it is logged.
        on_shutdown(&Hub), observe::one;
    }

    /// Builds the hub; it runs at once. In a cluster two threads connect it; the bus need not be there yet.
    ///
    /// # Errors
    ///
    /// A setting that makes no sense, by its name; `cluster`, if its threads cannot be started.
    pub fn build(mut self) -> Result<Hub, ConfigError> {
        self.config.validate()?;
        if let Some(fault) = self.origins.fault() {
            return Err(ConfigError::because("origins", fault.to_owned()));
        }
        self.patterns.validate()?;
        if self.patterns.is_any_shared() && self.history_store.is_none() {
            return Err(ConfigError::new("rooms", "a room with a shared history needs a history_store"));
        }
        let cluster = self.cluster.take();
        cluster.as_ref().map_or(Ok(()), Cluster::validate)?;
        let hub = Hub::from_builder(self, cluster);
        hub.start_link().map_err(|_| ConfigError::new("cluster", "its threads could not be started"))?;
        if let Some(sharing) = &hub.inner().sharing {
            sharing.start().map_err(|_| ConfigError::new("history_store", "its threads could not be started"))?;
        }
        Ok(hub)
    }
}
