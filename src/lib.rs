//! A WebSocket hub for programs without an async runtime: rooms, users, backpressure and graceful drain on std threads.
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
//! [`Target`]: everyone, rooms, users, single clients, any union of these, with exceptions. A [`Server`] listens, answers
//! plain HTTP beside the WebSocket endpoints, and gives each connection a thread. A program that has its own listener
//! hands its sockets over with [`Hub::accept`].
//!
//! # Which guide for which question
//!
//! | question | guide |
//! | --- | --- |
//! | Who gets a message, and in which order? | [rooms] |
//! | What does a client get that was away: history, recovery, last values? | [history](guide::history) |
//! | What happens when a client reads more slowly than it is written to? | [backpressure] |
//! | How do probes, rolling restarts, draining and shutdown work? | [lifecycle] |
//! | Who is in a room? How do I ask a client and get its answer? | [members and calls](guide::presence_and_calls) |
//! | How do several processes share rooms and users? | [cluster](guide::cluster) |
//! | How do official Centrifuge SDKs become clients? | centrifuge (feature `centrifuge`) |
//! | Does compression pay? | [compression] |
//! | What can I count, trace and log? | [observability] |
//! | What does the operator's page show? | dashboard (feature `dashboard`) |
//! | How many threads, stacks and bytes does the hub need inside my program? | [embedding] |
//! | What does a message cost, and how far does one process go? | [performance] |
//! | What do nginx, HAProxy and Caddy need to be told, and what the hub? | [proxies] |
//! | What can an attacker do, and what is left to me? | [security] |
//!
//! [rooms]: guide::rooms
//! [backpressure]: guide::backpressure
//! [lifecycle]: guide::lifecycle
//! [compression]: guide::compression
//! [observability]: guide::observability
//! [embedding]: guide::embedding
//! [performance]: guide::performance
//! [proxies]: guide::proxies
//! [security]: guide::security
//!
//! Message handlers can be composed with [`middleware`] and dispatched by a [`router`]; [`protocol`] has complete wire
//! protocols. The examples are servers to start from: `chat`, `auth`, `gateway`, `events`, `feed`, `binary_rooms`, `relay`,
//! `cluster`, `echo`, `broadcast`. The first line of each is the command that runs it.
//!
//! # Features
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `dashboard` | on | `Server::dashboard`: a page for operators, with live figures, traces and actions |
//! | `deflate` | on | permessage-deflate: compressed messages, see the guide to [compression](guide::compression) |
//! | `prometheus` | on | `PrometheusMetrics`: counts in a registry, see the guide to [observability](guide::observability) |
//! | `redis` | off | `RedisAdapter`: clusters over Redis or Valkey |
//! | `redis-tls` | off | the same over TLS, with the system's root certificates |
//! | `nats` | off | `NatsAdapter`: clusters over NATS, with or without TLS |
//! | `systemd` | off | `Listener::from_systemd`: sockets that systemd has opened |
//! | `tls` | off | `Tls`: listeners and streams of the program's own with TLS, by rustls |
//!
//! No async runtime is among the dependencies, except with `nats`: its client runs on a thread of its own.
//!
//! # Logging
//!
//! Through the `log` crate. Queries, headers and message contents are never logged at `info` or above, except
//! `Origin` and `Host` of a refused origin. What peers can cause at `info` or above is written at most ten times a
//! second for each kind, and then with the number of records left out. At `debug`
//! every record of a connection's life bears its id: see [observability](guide::observability#logs).
//!
//! | target | error | warn | info | debug |
//! | --- | --- | --- | --- | --- |
//! | `wshub::server` | a handler of plain HTTP panicked | accepting failed, no thread, too many handshakes | bad requests | peers accepted, plain HTTP answered |
//! | `wshub::upgrade` | | | refused upgrades | a peer gets its id |
//! | `wshub::conn` | a bug in this crate | slow consumers closed | | connects, closes, ends and why, errors of handlers, the rate exceeded |
//! | `wshub::middleware` | a handler panicked (`Recovery`) | | | every message (`Logging`), never its content |
//! | `wshub::cluster` | an adapter panicked | the bus failed, messages lost, no envelope | state, nodes | attempts, counts |
//! | `wshub::dashboard` | | no thread to feed it, a drain that did not end | actions, wrong passwords | |
//! | `wshub::hub` | a hook or handler panicked | connections cut at a deadline | drain, shutdown | joins, leaves, users set |
//!
//! # Platforms, Rust versions, compatibility
//!
//! Unix only: the crate writes to blocking sockets without blocking (`MSG_DONTWAIT`) and serves Unix sockets. It is
//! developed and tested on Linux.
//!
//! Rust 1.85 or newer; features `redis` and `nats`: 1.88 and 1.89. Until 1.0 a new minor version may change the interface or need a newer Rust, and the changelog says
//! so; a patch version does neither. Close codes, HTTP statuses, the names of metrics and errors, and log targets count
//! as interface.
//!
//! # For maintainers: the path of a byte
//!
//! ```text
//! TcpListener / UnixListener
//!   └ accept thread ── one named thread per connection ───────────────────────┐
//!       http::head      bytes → RequestHead; limits on size, count and time   │
//!       server::routes  /ws → upgrade, /events → event stream, others → HTTP  │
//!       conn::upgrade   version, key, origin, on_upgrade → Admission          │ the
//!       conn::reader    blocking read → every whole message → hooks, handlers │ same
//!       middleware → router or protocol → the application's handlers          │ thread
//!       ws              bytes ↔ frames ↔ messages; pure, no I/O ──────────────┘ all the way
//!   hub.send(target, message)
//!       hub             clients → rooms → room → client → user index
//!       message         wire bytes, made once, shared by every recipient
//!       outbox          a bounded queue and the right to write: the sender writes
//!                       without blocking; when a socket pushes back, the
//!                       connection's writer thread takes over
//!       transport       the socket: TCP or Unix, with TLS on it or without
//!       cluster         the same target and message, queued for the other nodes: one thread
//!                       publishes them as envelopes, one delivers what other nodes publish
//! ```
//!
//! These are also the modules of the source, in the order in which it is best read; `config`, `error`, `metrics`, `trace`,
//! `client_id` and `log_limit` are used all along the way.
//!
//! # What always holds
//!
//! 1. `http` and `ws` know no hub and do no I/O. `hub` knows no socket: it ends at a client's outbox.
//! 2. After the upgrade only `outbox` writes to a socket, and only `conn` reads from one.
//! 3. A broadcast is encoded once for each wire format (plain, compressed, event stream), whatever the number of its recipients.
//! 4. No handler, no hook and no I/O runs while a lock of the hub is held.
//! 5. Locks are taken in one order: clients, rooms, room, client, user index. Debug builds check each acquisition.
//! 6. A join never lands in a room that a concurrent leave has just removed.
//! 7. Nothing that a peer sends, and no panic in a handler or hook, takes down the hub, another connection or the
//!    process: such a panic is caught, logged, counted, and closes that one connection with 1011.
//! 8. A send never blocks on a slow peer, except `send_timeout`, which returns at once when the client closes; and never on
//!    the cluster, whose queue is bounded in messages, bytes and time.
//! 9. Memory per connection is bounded: read buffer, queue (messages and bytes), stacks.
//! 10. What a node receives from the cluster it delivers to its own clients and never publishes.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(not(unix))]
compile_error!("wshub needs a Unix system: it writes to blocking sockets without blocking, and serves Unix sockets");

pub mod guide;

// In the order of a byte's path.

// Accepting, the first request, routes.
pub mod server;
// Request heads, responses, origins: no I/O.
mod http;
// Wire protocols, on the public interface only.
pub mod protocol;
// Around and in front of the application's handlers.
pub mod middleware;
pub mod router;
// One connection's life: the upgrade and the read loop.
mod conn;
// Frames, messages, close codes: no I/O.
mod ws;
// Clients, rooms, users; sending to them.
mod hub;
// How messages are handled, recorded.
pub mod trace;
// Other nodes: envelopes, the queue for them, the bus.
pub mod cluster;
// What is sent, and its wire bytes.
mod message;
// What rooms remember: histories, positions, states. Plain data.
pub mod history;
// Each client's queue, and who writes it to the socket.
mod outbox;
// The socket itself.
mod transport;

// What an operator sees: scrapes, gauges.
mod observe;

// Used all along the path.

// Bounds of settings.
mod bounds;
// Settings and limits.
mod config;
// One error type for each family of operations.
mod error;
// What is counted, and where counts go.
pub mod metrics;
// The name of a connection.
mod client_id;
// Keeps peers from flooding the log.
mod log_limit;
// Catches panics of the application's code; log records.
mod guard;
// Atomics, threads and channels: loom's, when the outbox is checked.
mod sync;
// Locks, and the order in which they are taken.
mod lock;
// What hooks have been told, against what is.
mod levels;
// Memory that is left before connections are refused.
mod headroom;
// Random numbers.
mod random;
// 64-bit atomic integers on processors without them.
mod atomic;

// The way in for this project's own benches and fuzz targets.
#[cfg(wshub_internals)]
#[doc(hidden)]
pub mod internals;

// The root shows what a first program needs; what belongs to one subject stands in its module.

pub use client_id::ClientId;
pub use config::{Config, DropPolicy, Limits};
pub use error::{CloseError, ConfigError, DeadlineError, HandlerError, HandlerResult, RoomError, UserError};
pub use history::RoomOptions;
pub use http::{OriginPolicy, RequestHead, Response};
pub use hub::{Admission, Client, Delivery, Hub, HubBuilder, Published, Rejection, Target};
pub use message::{Message, SendError};
pub use outbox::Cork;
pub use server::{Server, ServerHandle};
pub use ws::{MessageKind, close_code};

/// Members: who is in a room, over all nodes.
pub mod members {
    pub use crate::hub::{Commanded, Member, MemberChange, MemberError};
}

/// Calls: messages with an answer, from the hub to its clients and back.
pub mod calls {
    pub use crate::hub::{Answers, CallError, CallFormat, CallHandlers, CallRefusal, JsonCalls};
}

/// The operator's page: who is connected, what flows, who is slow; and actions. Feature `dashboard`.
#[cfg(feature = "dashboard")]
pub mod dashboard {
    pub use crate::observe::Dashboard;
}

/// A hub's state: what probes report and what load it carries.
pub mod health {
    pub use crate::hub::{Health, HubLoad, HubState};
}

/// Rate limiters, and the bounds that settings cannot change.
pub mod limit {
    pub use crate::config::{MAX_ROOM_NAME, RatePolicy};
    pub use crate::hub::{RateLimiter, TokenBucket};
}

/// TLS on listeners and on streams of the program's own, by rustls. Feature `tls`.
#[cfg(feature = "tls")]
pub mod tls {
    pub use crate::transport::Tls;
}
