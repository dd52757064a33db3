//! A WebSocket hub for programs without an async runtime: rooms, users, backpressure and graceful drain on std threads.
//!
//! This is a complete server:
//!
//! ```no_run
//! use wshub::{Admission, Hub, Limits, Rejection, Server, Target};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let hub = Hub::builder()
//!         .limits(Limits::default().max_connections(10_000))
//!         .on_upgrade(|head| match head.query_param("name") {
//!             Some(name) => Ok(Admission::user(name).room("lobby")),
//!             None => Err(Rejection::unauthorized()),
//!         })
//!         .on_message(|client, message| {
//!             let name = client.user_id().unwrap_or_default();
//!             let text = message.as_text().ok_or("text only")?;
//!             client.hub().send(Target::room("lobby"), format!("{name}: {text}"))?;
//!             Ok(())
//!         })
//!         .build()?;
//!     Server::bind("127.0.0.1:8080")?.websocket("/ws", &hub).probes(&hub).run_until_signal()?;
//!     Ok(())
//! }
//! ```
//!
//! A [`Hub`] is a set of connections that can reach each other. A [`Client`] is one connection. A [`Message`] goes to a
//! [`Target`]: everyone, rooms, users, single clients or any union of these, minus exceptions. A [`Server`] listens,
//! answers plain HTTP beside the WebSocket endpoints, and gives each connection a thread. A program with its own
//! listener passes its sockets to [`Hub::accept`].
//!
//! Handlers and hooks are plain closures. They run on the thread of the client that causes them, and may block. A send
//! never blocks on a slow peer. All limits are off until you set [`Limits`].
//!
//! # Which guide for which question
//!
//! | question | guide |
//! | --- | --- |
//! | Who gets a message, and in which order? | [rooms] |
//! | How does a client catch up after a disconnect: history, recovery, last values? | [history](guide::history) |
//! | What happens when a client reads too slowly? | [backpressure] |
//! | How do probes, rolling restarts, draining and shutdown work? | [lifecycle] |
//! | Who is in a room? How does the server call a client and get a reply? | [members and calls](guide::presence_and_calls) |
//! | How do several processes share rooms and users? | [cluster](guide::cluster) |
//! | How do Centrifuge client SDKs connect? | centrifuge (feature `centrifuge`) |
//! | Does compression pay? | [compression] |
//! | Which metrics, traces and logs are there? | [observability] |
//! | What does the dashboard show? | dashboard (feature `dashboard`) |
//! | How many threads and how much memory does it need in my program? | [embedding] |
//! | What does a message cost, and how far does one process scale? | [performance] |
//! | How does it run on a device with little memory? | [gateways] |
//! | How do I configure nginx, HAProxy or Caddy in front of it? | [proxies] |
//! | Which attacks does it handle, and which must the application handle? | [security] |
//!
//! [rooms]: guide::rooms
//! [backpressure]: guide::backpressure
//! [lifecycle]: guide::lifecycle
//! [compression]: guide::compression
//! [observability]: guide::observability
//! [embedding]: guide::embedding
//! [gateways]: guide::gateways
//! [performance]: guide::performance
//! [proxies]: guide::proxies
//! [security]: guide::security
//!
//! [`middleware`] composes message handlers, a [`router`] dispatches messages to them, and [`protocol`] has complete
//! wire protocols. The examples are complete servers: `chat`, `auth`, `gateway`, `events`, `feed`, `binary_rooms`,
//! `relay`, `centrifuge`, `cluster`, `echo`, `broadcast`. The first line of each is the command that runs it.
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `centrifuge` | on | `protocol::centrifuge`: compatible with Centrifuge client SDKs, and an HTTP API |
//! | `cluster` | on | [`cluster`]: several hubs that act as one; members, calls, commands and histories across nodes |
//! | `dashboard` | on | `Server::dashboard`: a page for operators with live figures, traces and actions |
//! | `deflate` | on | permessage-deflate: compressed messages, see the guide to [compression](guide::compression) |
//! | `protocols` | on | the protocols `events`, `feed`, `binary` and `relay` in [`protocol`] |
//! | `prometheus` | on | `PrometheusMetrics`: metrics in a Prometheus registry, see the guide to [observability](guide::observability) |
//! | `redis` | off | `RedisAdapter`: clusters over Redis or Valkey |
//! | `redis-tls` | off | the same over TLS, with the system's root certificates |
//! | `nats` | off | `NatsAdapter`: clusters over NATS, with or without TLS |
//! | `systemd` | off | `Listener::from_systemd`: sockets opened by systemd |
//! | `tls` | off | `Tls`: TLS by rustls, on listeners and on streams that the program opens itself |
//!
//! The dependencies contain no async runtime, except with `nats`: its client runs a Tokio runtime on a thread of its
//! own.
//!
//! # Logging
//!
//! The crate logs through the `log` crate. At `info` and above it never logs queries, headers or message contents,
//! except `Origin` and `Host` of a refused origin. Records at `info` and above that a peer can cause are limited to ten
//! a second for each kind; the next record then gives the number of suppressed ones. At `debug`, every record about a
//! connection carries its id: see [observability](guide::observability#logs).
//!
//! | target | error | warn | info | debug |
//! | --- | --- | --- | --- | --- |
//! | `wshub::server` | a plain HTTP handler panicked | accept failed, no thread, too many handshakes | bad requests, the drain after a signal | accepted peers, answered HTTP requests |
//! | `wshub::upgrade` | | | refused upgrades | a peer is assigned its id |
//! | `wshub::conn` | a bug in this crate | slow consumers closed | | connects, closes, ends with their cause, handler errors, exceeded rates |
//! | `wshub::middleware` | a handler panicked (`Recovery`) | | | every message, without its content (`Logging`) |
//! | `wshub::relay` | a user's devices could not be loaded, a device hook panicked | no thread for hooks | | |
//! | `wshub::feed` | a subscriber panicked | | | |
//! | `wshub::cluster` | an adapter panicked | the bus failed, messages lost, invalid envelopes | state, nodes | attempts, counts |
//! | `wshub::dashboard` | | no thread for its feed, a drain that did not finish | actions, wrong passwords | |
//! | `wshub::hub` | a hook or handler panicked | connections cut at a deadline | drain, shutdown | joins, leaves, users set |
//!
//! # Platforms, Rust versions, compatibility
//!
//! The crate runs on Unix only, because it writes to blocking sockets without blocking (`MSG_DONTWAIT`) and serves Unix
//! sockets. It is developed and tested on Linux.
//!
//! The crate needs Rust 1.85 or newer; the feature `redis` needs 1.88, the feature `nats` 1.89. Until 1.0, a new minor
//! version may change the interface or raise the Rust version, and the changelog says so; a patch version does neither.
//! Close codes, HTTP statuses, the names of metrics and errors, and log targets are part of the interface.
//!
//! # For maintainers: the path of a byte
//!
//! ```text
//! TcpListener / UnixListener
//!   └ accept thread, one for each listener
//!   a handshake thread, which serves one connection after the other
//!       http::head      bytes → RequestHead; limits on size, count and time
//!       server::routes  /ws → upgrade, /events → event stream, others → HTTP
//!       conn::upgrade   version, key, origin, on_upgrade → Admission
//!   a named thread for each connection, to its end
//!       conn::reader    blocking read → every whole message → hooks, handlers
//!       ws              bytes ↔ frames ↔ messages; pure, no I/O
//!       middleware → router or protocol → the application's handlers
//!   hub.send(target, message), on any thread
//!       hub             clients → rooms → room → client → user index
//!       message         wire bytes, made once, shared by every recipient
//!       outbox          a bounded queue and the right to write: the sender writes
//!                       without blocking, and helper threads share a large broadcast;
//!                       when a socket pushes back, the connection's writer thread
//!                       takes over
//!       transport       the socket: TCP or Unix, with TLS on it or without
//!       cluster         the same target and message, queued for the other nodes: one thread
//!                       publishes them as envelopes, one delivers what other nodes publish
//! ```
//!
//! These are also the source's modules, in the best order for reading. `config`, `error`, `metrics`, `trace`,
//! `client_id` and `log_limit` are used throughout. `history` has the plain data structures of rooms that remember, and
//! `observe` has scrapes and the dashboard. `Hub` and `Client` have their methods in several files of `hub`; the top of
//! `hub/mod.rs` lists them.
//!
//! # Invariants
//!
//! 1. `http` and `ws` do no I/O and do not depend on the hub. `hub` never touches a socket: it hands messages to a
//!    client's outbox.
//! 2. After the upgrade only `outbox` writes to a socket, and only `conn` reads from one.
//! 3. A broadcast is encoded once for each wire format (plain, compressed, event stream), however many recipients it
//!    has.
//! 4. No handler, no hook and no I/O runs while a lock of the hub is held.
//! 5. Threads take locks in one order: clients, rooms, room, client, user index. Debug builds check each acquisition.
//! 6. A join never lands in a room that a concurrent leave has just removed.
//! 7. Neither a peer's input nor a panic in a handler or hook takes down the hub, another connection or the process.
//!    Such a panic is caught, logged and counted, and closes only its own connection, with 1011.
//! 8. A send never blocks on a slow peer, except `send_timeout`, which returns at once when the client closes. A send
//!    never blocks on the cluster, whose queue is bounded in messages, bytes and time.
//! 9. Each connection's memory is bounded: read buffer, queue (in messages and bytes), stacks.
//! 10. A node delivers messages from the cluster to its own clients and never publishes them again.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(
    not(all(
        feature = "centrifuge",
        feature = "cluster",
        feature = "dashboard",
        feature = "deflate",
        feature = "prometheus",
        feature = "protocols"
    )),
    allow(rustdoc::broken_intra_doc_links, reason = "the guides link to items of the default features")
)]

#[cfg(not(unix))]
compile_error!("wshub needs a Unix system: it writes to blocking sockets without blocking, and serves Unix sockets");

pub mod guide;

// The modules in the order of a byte's path.

// Accepting, the first request, routes.
pub mod server;
// Request heads, responses, origins: no I/O.
mod http;
// Wire protocols, on the public interface only.
pub mod protocol;
// Wrappers and dispatch for the application's handlers.
pub mod middleware;
pub mod router;
// One connection's life: the upgrade and the read loop.
mod conn;
// Frames, messages, close codes: no I/O.
mod ws;
// Clients, rooms and users, and sending to them.
mod hub;
// Traces of how messages are handled.
pub mod trace;
// Other nodes: envelopes, the outgoing queue, the bus.
#[cfg(feature = "cluster")]
pub mod cluster;
// Messages and their wire bytes.
mod message;
// What rooms keep: histories, positions, states. Plain data.
pub mod history;
// Each client's queue, and writing it to the socket.
mod outbox;
// The socket itself.
mod transport;

// The operator's view: scrapes, gauges, the dashboard.
mod observe;

// Used throughout.

// Bounds of settings.
mod bounds;
// Settings and limits.
mod config;
// One error type for each family of operations.
mod error;
// Metrics and their sinks.
pub mod metrics;
// Connection ids.
mod client_id;
// Limits on log records that peers can cause.
mod log_limit;
// Destructors of payloads, on a thread of their own.
mod disposal;
// Catching panics in the application's code; log records.
mod guard;
// Atomics, threads and channels; loom's versions when the model checker tests the outbox.
mod sync;
// Locks and their order.
mod lock;
// Reporting states to hooks: the last reported state is compared with the current one.
mod levels;
// The address space that must stay free for a connection to be accepted.
mod headroom;
// Random numbers.
mod random;
// A map for few entries.
mod sorted_map;
// A value for another thread.
mod handover;
// 64-bit atomic integers on processors without them.
mod atomic;

// Access for this project's benches and fuzz targets.
#[cfg(wshub_internals)]
#[doc(hidden)]
pub mod internals;

// The root holds what a first program needs. Everything else is in the module of its subject.

pub use client_id::ClientId;
pub use config::{Config, DropPolicy, Limits};
pub use error::{CloseError, ConfigError, DeadlineError, HandlerError, HandlerResult, RoomError, UserError};
pub use history::RoomOptions;
pub use http::{OriginPolicy, RequestHead, Response};
pub use hub::{Admission, Client, Delivery, Hub, HubBuilder, Published, Rejection, Target};
pub use message::{Message, SendError, SendJsonError};
pub use outbox::Cork;
pub use server::{Server, ServerHandle};
pub use ws::{MessageKind, close_code};

// The crates whose types are in signatures. A program that uses these needs no dependency of the same version.
#[doc(no_inline)]
pub use {bytes, serde_json, uuid};

/// The members of rooms, across all nodes.
pub mod members {
    pub use crate::hub::{Commanded, Member, MemberChange, MemberError};
}

/// Calls: requests from the hub to its clients, and their replies.
pub mod calls {
    pub use crate::hub::{Answers, CallError, CallFormat, CallHandlers, CallRefusal, JsonCalls};
}

/// The operator's page: connections, traffic, slow clients, and actions. Feature `dashboard`.
#[cfg(feature = "dashboard")]
pub mod dashboard {
    pub use crate::observe::Dashboard;
}

/// The health and load of a hub and its clients.
pub mod health {
    pub use crate::hub::{Dropped, Health, HubLoad, HubState, QueueDepth};
}

/// Lists of rooms, and the names of rooms and users in targets.
pub mod rooms {
    pub use crate::hub::{Name, RoomInfo};
}

/// Rate limiters and fixed limits.
pub mod limit {
    pub use crate::config::{MAX_ROOM_NAME, MAX_USER_ID, RatePolicy};
    pub use crate::hub::{RateLimiter, TokenBucket};
}

/// TLS by rustls, on listeners and on streams that the program opens itself. Feature `tls`.
#[cfg(feature = "tls")]
pub mod tls {
    pub use crate::transport::Tls;
    /// The `rustls` crate in the version that [`Tls`] uses in its interface.
    #[doc(no_inline)]
    pub use rustls;
}
