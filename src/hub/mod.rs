//! The hub: connections, rooms and users, and sending to them.
//!
//! The hub never touches a socket: it hands messages to each client's outbox.
//!
//! | methods of `Hub` | file | built on |
//! | --- | --- | --- |
//! | settings, the tracer, equality | `mod.rs` | `builder` |
//! | `client`, `clients`, `users`, `user_clients`, … | `clients` | `users` |
//! | `join`, `leave`, `rooms`, `room_clients`, … | `rooms` | `room`, `roster`, `names` |
//! | `send`, `send_timeout`, `close`, `cork` | `send` | `target`, `recipients` |
//! | `publish`, `history`, `position`, `clear_history` | `publish` | `memory`, `fan_out` |
//! | `publish_confirmed` | `sharing` | `mirror` |
//! | `set`, `set_for`, `unset`, `state_of` | `values` | `memory`, `fan_out` |
//! | `members`, `tracks_connections` | `members` | – |
//! | `call` | `calls` | – |
//! | `close_user`, `join_user`, …, `tell_nodes` | `commands` | `control`, `node_messages` |
//! | `cluster_nodes`, `global_room_size`, … | `cluster` | – |
//! | `drain`, `shutdown` | `drain` | `drain_clock`, `activity`, `close_watch` |
//! | `state`, `health`, `is_draining`, … | `lifecycle` | – |
//! | `load` | `load` | – |
//! | `extension` | `extensions` | – |
//!
//! | methods of `Client` | file |
//! | --- | --- |
//! | `id`, `set_user`, `join`, `leave`, … | `client` |
//! | `send`, `send_json`, `send_timeout`, `close` | `client_send` |
//! | `join_from`, `join_with`, `join_collecting` | `join`, built on `behind` |
//! | `metadata`, `extension` | `client_values` |
//! | `on_message`, `on_close`, `on_error` | `callbacks` |
//! | `call`, `call_then`, `answer_call` | `calls` |
//! | `set_member`, `set_member_in` | `members` |
//! | `set_expiry` | `deadlines` |
//!
//! `hooks` calls the application's hooks, `chain` combines two hooks of one kind, and `telling` reports states to
//! hooks. `keeper` runs timed work on one thread: `idle` rooms, `deadlines`, expiring `values`, reports of `members`.

mod activity;
mod admission;
mod behind;
mod builder;
mod callbacks;
mod calls;
mod chain;
mod client;
mod client_send;
mod client_values;
mod clients;
mod clock;
mod close_watch;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(not(feature = "cluster"))]
#[path = "no_cluster.rs"]
mod cluster;
mod commands;
#[cfg(feature = "cluster")]
mod control;
mod deadlines;
mod drain;
mod drain_clock;
mod extensions;
mod fan_out;
mod hooks;
mod idle;
mod join;
mod keeper;
mod lifecycle;
mod limits;
mod load;
mod members;
mod memory;
#[cfg(feature = "cluster")]
mod mirror;
mod names;
#[cfg(feature = "cluster")]
mod node_messages;
mod publish;
mod recipients;
mod room;
mod rooms;
mod roster;
mod send;
#[cfg(feature = "cluster")]
mod sharing;
mod target;
mod telling;
mod users;
mod values;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub use admission::{Admission, Rejection};
pub use builder::HubBuilder;
pub use calls::{Answers, CallError, CallFormat, CallHandlers, CallRefusal, JsonCalls};
pub use client::Client;
pub use commands::Commanded;
pub use lifecycle::{Health, HubState};
pub use limits::{RateLimiter, TokenBucket};
pub use load::{Dropped, HubLoad, QueueDepth};
pub use members::{Member, MemberChange, MemberError};
pub use names::{Name, RoomInfo};
pub use publish::Published;
pub use target::{Delivery, Target};

pub(crate) use admission::{Admit, Check};
pub(crate) use clients::{Announcements, Refused};
pub(crate) use close_watch::ConnectionThread;
pub(crate) use load::WeakHub;

use crate::config::{Config, Limits};
use crate::history::{FormatRef, PLAIN, Patterns, Totals};
use crate::http::OriginPolicy;
use crate::lock::{self, Ranked, rank};
use crate::message::Compressed;
use crate::metrics::{ErrorType, Metrics, guarded};
use crate::outbox::Group;
use crate::trace::Tracer;
use clients::Clients;
use clock::Clock;
use close_watch::CloseWatch;
use cluster::Node;
use extensions::Extensions;
use hooks::Hooks;
use keeper::{Keeper, KeeperHandle};
use lifecycle::Lifecycle;
use rooms::Directory;
use users::Users;

/// A set of connections that can reach each other. This type is a handle: cloning it is cheap and shares the hub.
///
/// A hub runs as soon as it is built; there is no loop to start. It lives until the last handle and the last connection
/// are gone. In a cluster, dropping the last handle blocks for at most two seconds until the cluster's threads have
/// ended, as [`shutdown`](Hub::shutdown) does.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

/// # Locks
///
/// This table lists every lock of the crate in the order in which a thread takes them: by rising rank, and at most one
/// lock of each rank at a time. No user code, no destructor of a user's value and no log call runs while any of them is
/// held. Debug builds check both rules at each acquisition and each call; release builds have no such checks. See
/// [`lock`](crate::lock).
///
/// | lock | rank | guards | taken by |
/// | --- | --- | --- | --- |
/// | `clients` | 1 | every connection, counts per address | connect, disconnect |
/// | `rooms` | 2 | the map from room names to rooms | first join, last leave |
/// | a room's `sequence` | 3 | the order of its publications | publishers to a room with a history |
/// | a room's `state` | 4 | its members, and whether it is closed | join, leave |
/// | a client's `state` | 5 | its user, rooms, metadata, callbacks | join, leave, `set_user`, metadata |
/// | `users` | 6 | the map from user ids to connections | connect, disconnect, `set_user` |
///
/// The next locks each give the right to do I/O on one connection. The crate does I/O under no other lock:
///
/// | lock | rank | I/O | taken by |
/// | --- | --- | --- | --- |
/// | `cluster/redis` `publishing`, `cluster/nats` `life` | 18 | on the adapter's own connection | the cluster's threads |
/// | `transport/tls.rs` `inbound` | 19 | reads of its socket | the connection's thread |
/// | `outbox/mod.rs` `socket` | 20 | writes to its socket: senders write without blocking, the writer thread blocks | senders, the writer thread; publishers under a room's lock, who then write nothing |
/// | `transport/tls.rs` `state` | 21 | non-blocking writes of TLS records | readers and writers of the socket |
/// | `outbox/mod.rs` `controls` | 21 | none: it wakes sleeping threads | senders of control frames, writers |
///
/// All others are leaves with rank 31: no lock is taken under them, and they are held only briefly.
///
/// | leaf | guards |
/// | --- | --- |
/// | `hub/lifecycle.rs` `live` | the number of live connections |
/// | `headroom.rs` `TURN` | the right to create a thread for a connection |
/// | `handover.rs` `state`, `server/workers.rs` `state` | connections on their way to a thread |
/// | `conn/pings.rs` `due` | pings that another thread sends |
/// | `disposal.rs` `queue` | payloads that another thread drops |
/// | `hub/close_watch.rs` `state` | the watched closes |
/// | `hub/keeper.rs` `agenda` | scheduled work for rooms with a history or state |
/// | `hub/calls`, `hub/members`, `hub/sharing.rs`, `hub/deadlines.rs` | calls that wait for an answer, members, shared histories, connections with a deadline |
/// | `history/publication.rs` `frames`, `history/memory_store.rs` | the wire forms of a publication, in-memory histories |
/// | `outbox/gate.rs` `lock`, `outbox/writer.rs` `state`, `outbox/catch_up.rs`, `outbox/held.rs` `list`, `outbox/flusher.rs` `state`, `outbox/helpers.rs` `state` | sleeping threads, the writer thread, the rooms in which a client is behind, held-back output, calls for helpers |
/// | `transport/tls.rs` `Tls` | the certificates in use |
/// | `ws/deflate.rs` `COMPRESSORS`, `DECOMPRESSORS` | spare compressors |
/// | `log_limit.rs` `window`, `metrics/debug.rs` `errors`, `since`, `trace/tracer.rs` `kept`, `trace/sampling.rs` `window` | records, counts and traces |
/// | `cluster/mod.rs` `threads`, `cluster/shared.rs` `state`, `table`, `cluster/memory.rs`, `cluster/nats/mod.rs` `session`, `cluster/nats/mailbox.rs` `state`, `cluster/nats/engine.rs` `stop`, `thread`, `cluster/redis/store.rs` `idle` | the bus |
/// | `server/mod.rs` `stopped`, `server/handle.rs` `acceptors`, `server/slots.rs`, `server/listener.rs` `path` | the server's threads and connection slots |
/// | `protocol/binary/rooms.rs`, `protocol/relay/devices.rs`, `protocol/relay/subscriptions.rs`, `protocol/relay/types.rs` `limiter`, `protocol/feed/subscribers.rs` `state`, `protocol/centrifuge/session.rs` `state`, `protocol/centrifuge/timers.rs` `queue`, `protocol/centrifuge/nodes.rs` `state`, `protocol/centrifuge/api/idempotency.rs` `state` | each protocol's own state |
/// | `observe/dashboard/feed.rs` `state` | the dashboard's viewers |
struct Inner {
    clients: Ranked<{ rank::CLIENTS }, Clients>,
    rooms: Ranked<{ rank::ROOMS }, Directory>,
    users: Ranked<{ rank::USERS }, Users>,
    lifecycle: Lifecycle,
    close_watch: Arc<CloseWatch>,
    /// The settings, and the threads that help with large fan-outs.
    group: Arc<Group>,
    limits: Limits,
    origins: OriginPolicy,
    hooks: Hooks,
    metrics: Option<Arc<dyn Metrics>>,
    tracer: Option<Tracer>,
    without_handler_latency: bool,
    extensions: Extensions,
    /// The options of rooms by name pattern; most hubs have none.
    patterns: Patterns,
    format: FormatRef,
    /// The total size of all histories and states.
    held: Arc<Totals>,
    clock: Clock,
    keeper: KeeperHandle,
    call_format: calls::FormatOfCalls,
    members: members::Members,
    deadlines: deadlines::Deadlines,
    announce_members: members::Announce,
    node: Node,
}

impl Hub {
    /// Creates a hub with default settings and no handlers. Its clients can only receive.
    pub fn new() -> Self {
        Self::from_builder(HubBuilder::default())
    }

    /// Returns a builder for a hub.
    pub fn builder() -> HubBuilder {
        HubBuilder::default()
    }

    fn from_builder(builder: HubBuilder) -> Self {
        let clock = Clock::default();
        Self(Arc::new_cyclic(|hub| Inner {
            node: Node::new(builder.node, hub, builder.metrics.as_ref()),
            clients: Ranked::default(),
            rooms: Ranked::default(),
            users: Ranked::default(),
            lifecycle: Lifecycle::default(),
            close_watch: Arc::default(),
            group: Arc::new(builder.config.into()),
            limits: builder.limits,
            origins: builder.origins,
            hooks: builder.hooks,
            metrics: builder.metrics,
            tracer: builder.tracer,
            without_handler_latency: builder.without_handler_latency,
            extensions: builder.extensions,
            patterns: builder.patterns,
            format: builder.format.unwrap_or(PLAIN),
            held: Arc::default(),
            keeper: KeeperHandle(Keeper::new(WeakHub::of(hub), clock.clone())),
            clock,
            call_format: builder.call_format,
            members: members::Members::default(),
            deadlines: deadlines::Deadlines::default(),
            announce_members: builder.announce_members,
        }))
    }

    /// The hub's name in its cluster: the set `node_id`, or a random UUID.
    pub fn node_id(&self) -> &str {
        &self.0.node.id
    }

    /// The wire format of calls to clients, if one is set.
    fn call_format(&self) -> Option<&dyn CallFormat> {
        self.0.call_format.0.as_deref()
    }

    /// The connection settings.
    pub fn config(&self) -> &Config {
        &self.0.group
    }

    /// The hub's limits.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The tracer that records how messages are handled, if one is set.
    #[inline]
    pub fn tracer(&self) -> Option<&Tracer> {
        self.0.tracer.as_ref()
    }

    fn inner(&self) -> &Inner {
        &self.0
    }

    /// The default format of publications, for clients without their own.
    pub(crate) fn format(&self) -> FormatRef {
        self.0.format
    }

    /// What the outboxes of this hub's clients share.
    pub(crate) fn group(&self) -> &Arc<Group> {
        &self.0.group
    }

    /// The compression settings for clients that negotiated permessage-deflate.
    #[allow(clippy::unused_self, reason = "without the feature there is nothing to look up")]
    fn compressed(&self) -> Compressed {
        #[cfg(feature = "deflate")]
        return Compressed { level: self.config().compression_level, min_size: self.config().compression_min_size };
        #[cfg(not(feature = "deflate"))]
        Compressed::default()
    }

    pub(crate) fn origins(&self) -> &OriginPolicy {
        &self.0.origins
    }

    /// Calls the metrics sink, if one is set. Must not be called with a hub lock held, because the sink is user code.
    #[inline]
    pub(crate) fn count(&self, what: impl FnOnce(&dyn Metrics)) {
        if let Some(metrics) = &self.0.metrics {
            lock::assert_no_lock_held();
            guarded(|| what(&**metrics));
        }
    }

    /// The metrics sink, if one is set.
    pub(crate) fn metrics(&self) -> Option<Arc<dyn Metrics>> {
        self.0.metrics.clone()
    }

    pub(crate) fn counts(&self) -> bool {
        self.0.metrics.is_some()
    }

    /// Whether the hub itself records the latency and errors of its handler.
    pub(crate) fn counts_handler(&self) -> bool {
        self.counts() && !self.0.without_handler_latency
    }

    pub(crate) fn count_error(&self, error: ErrorType) {
        self.count(|m| m.increment_errors(error));
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

/// Handles are equal if they refer to the same hub.
impl PartialEq for Hub {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Hub {}

/// Hashes the hub's identity, consistent with equality.
impl Hash for Hub {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("state", &self.state())
            .field("clients", &self.client_count())
            .finish_non_exhaustive()
    }
}
