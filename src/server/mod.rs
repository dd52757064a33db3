//! A small HTTP server around the hub: listeners, routes, one thread for each connection.
//!
//! [`Server`] listens and routes, [`Endpoint`] describes a WebSocket route, and [`Request`] is what a handler of plain
//! HTTP receives. [`PendingConnection`] serves a program that has a listener of its own.

mod accept;
mod endpoint;
mod exchange;
mod forward;
mod handle;
mod incoming;
mod listener;
mod load;
mod patterns;
mod proxy_protocol;
mod routes;
mod slots;
mod stop;
mod workers;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use crate::conn::{AcceptError, PendingConnection};
pub use crate::http::{HeadError, MAX_HEAD, MAX_HEADERS};
pub use crate::transport::Transport;
pub use endpoint::{Endpoint, EndpointInfo, EndpointKind};
pub use forward::Forward;
pub use handle::{ServerHandle, StopOnDrop};
pub use listener::Listener;
pub use load::ServerLoad;
pub use routes::Request;

use crate::bounds::{COUNT, GIB, MILLISECOND, YEAR, check};
use crate::config::{MAX_STACK, MIN_STACK};
use crate::error::ConfigError;
use crate::guard::record_limited;
pub use crate::http::ForwardedHeader;
use crate::http::{Response, TrustedProxies};
use crate::hub::Hub;
use crate::lock::{Condition, Leaf};
use crate::message::WireFormat;
use crate::metrics::{ErrorType, Metrics, guarded};
use routes::{ClientRoute, Route, Routes};
use slots::Slots;

/// Serves hubs over HTTP.
///
/// ```no_run
/// use wshub::{Hub, Server, Target};
/// let hub = Hub::builder()
///     .on_message(|client, message| {
///         client.hub().send(Target::all(), message)?;
///         Ok(())
///     })
///     .build()?;
/// Server::bind("127.0.0.1:8080")?.websocket("/ws", &hub).probes(&hub).run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Each client has a thread. A few further threads do handshakes and answer plain HTTP; an answer closes its
/// connection.
#[derive(Debug)]
#[must_use = "a server does nothing until it is run or spawned"]
pub struct Server {
    listeners: Vec<Listener>,
    routes: Routes,
    endpoints: Vec<EndpointInfo>,
    /// The endpoints, set when the server is spawned, for handlers that list them.
    endpoint_list: Arc<OnceLock<Vec<EndpointInfo>>>,
    handshake_timeout: Duration,
    max_handshakes: usize,
    max_handshakes_per_address: usize,
    max_body: usize,
    stack: usize,
    proxies: TrustedProxies,
    metrics: Option<Arc<dyn Metrics>>,
    load: ServerLoad,
    grace: Duration,
    /// The first invalid setting; `spawn` reports it.
    config_error: Option<ConfigError>,
}

impl Server {
    /// Creates a server that listens on a TCP address. Port 0 takes a free port.
    ///
    /// # Errors
    ///
    /// The error of `bind`, such as an address in use.
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(Self::on(Listener::tcp(addr)?))
    }

    /// Creates a server that listens on a Unix socket; see [`Listener::unix`].
    ///
    /// # Errors
    ///
    /// The error of `bind`, such as an address in use.
    pub fn bind_unix(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::on(Listener::unix(path)?))
    }

    /// Creates a server that listens on this listener.
    pub fn on(listener: impl Into<Listener>) -> Self {
        Self {
            listeners: vec![listener.into()],
            routes: Routes::default(),
            endpoints: Vec::new(),
            endpoint_list: Arc::default(),
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 1024,
            max_handshakes_per_address: 512,
            max_body: 512 * 1024,
            stack: 512 * 1024,
            proxies: TrustedProxies::default(),
            metrics: None,
            load: ServerLoad { handshakes: Slots::default(), threads: Slots::default() },
            grace: Duration::from_secs(25),
            config_error: None,
        }
    }

    /// Listens on one more listener.
    pub fn also_on(mut self, listener: impl Into<Listener>) -> Self {
        self.listeners.push(listener.into());
        self
    }

    /// Upgrades requests for this path to WebSocket connections of the hub.
    ///
    /// A path is compared byte for byte, before decoding. A segment `{name}` matches any segment that is not empty, and
    /// a final `*` matches the rest of the path: `/rooms/{room}`, `/files/*`.
    /// [`RequestHead::path_param`](crate::RequestHead::path_param) returns the values. Plain paths take precedence,
    /// then the more specific pattern, segment by segment. The path `*` matches every path that has no other route.
    pub fn websocket(self, path: &str, hub: &Hub) -> Self {
        self.mount(Endpoint::new(path, hub))
    }

    /// Answers GET requests for this path with Server-Sent Events: a one-way stream of the hub's text messages, which
    /// browsers read with `EventSource`. Its clients are clients of the hub like any others, with users and rooms by
    /// `on_upgrade`, and go through the same checks and limits, but they send nothing and get no binary messages. See
    /// [`protocol::sse`](crate::protocol::sse).
    pub fn event_stream(self, path: &str, hub: &Hub) -> Self {
        self.mount(Endpoint::event_stream(path, hub))
    }

    /// As [`websocket`](Server::websocket) or [`event_stream`](Server::event_stream), with a description for
    /// [`endpoints`](Server::endpoints).
    pub fn mount(mut self, endpoint: Endpoint) -> Self {
        let Endpoint { hub, info, checks, admit } = endpoint;
        let format = match info.kind {
            EndpointKind::WebSocket => WireFormat::WebSocket,
            EndpointKind::EventStream => WireFormat::EventStream,
        };
        self = self.route(&info.path, Route::Clients(ClientRoute { hub, format, checks, admit }));
        self.endpoints.push(info);
        self
    }

    /// The endpoints mounted so far, in order.
    pub fn endpoints(&self) -> &[EndpointInfo] {
        &self.endpoints
    }

    /// Answers `/healthz` (200 while the hub is alive, else 503) and `/readyz` (200 while it admits connections), both
    /// with the hub's [`Health`](crate::health::Health) as JSON.
    pub fn probes(self, hub: &Hub) -> Self {
        self.route("/healthz", Route::Health(hub.clone())).route("/readyz", Route::Ready(hub.clone()))
    }

    /// Answers a path with plain HTTP, on the connection's thread. Paths are as in [`websocket`](Server::websocket).
    /// The handler sees every method. A panic in it answers 500.
    pub fn handle(self, path: &str, handler: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        self.route(path, Route::Handler(Arc::new(handler)))
    }

    /// Answers every path that has no other route. Without a fallback such paths get 404.
    pub fn fallback(self, handler: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        self.handle("*", handler)
    }

    /// Sets how long a request's head may take to arrive. Default: 10 s; at least 1 ms. After that, the answer is 408.
    ///
    /// A body may pause for the same time. In all, it may take six times as long, plus one second per KiB received. So
    /// slow lines are served, but a peer that sends in drips is not. The server gives up on an answer if the client has
    /// read none of it for 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Sets the maximum number of connections that are in their handshake or exchange plain HTTP. Default: 1024; 0 =
    /// unlimited. Further ones are refused with 503.
    pub fn max_handshakes(mut self, count: usize) -> Self {
        self.max_handshakes = count;
        self
    }

    /// Sets the maximum number of such connections from one address. Default: 512; 0 = unlimited. Further ones are
    /// refused with 503.
    ///
    /// An IPv6 network of 64 bits counts as one address. Connections of [trusted proxies](Server::trusted_proxies), and
    /// those that begin with the [PROXY protocol](Listener::proxy_protocol), count for the client address that the
    /// proxy reports. Connections over Unix sockets do not count.
    pub fn max_handshakes_per_address(mut self, count: usize) -> Self {
        self.max_handshakes_per_address = count;
        self
    }

    /// Trusts these proxies to report the client's address. Each is an address, a prefix such as `10.0.0.0/8`, or
    /// `unix` for every peer on a Unix socket. Default: none.
    ///
    /// For requests from a trusted proxy, [`RequestHead::remote_addr`](crate::RequestHead::remote_addr) is the last
    /// address in `X-Forwarded-For`, over all of its lines, that is not a trusted proxy. Its port is 0 where the proxy
    /// reports none. Limits per address count this address. See [behind a proxy](crate::guide::proxies).
    ///
    /// An invalid entry makes [`spawn`](Server::spawn) fail.
    #[doc(alias("proxy", "X-Forwarded-For", "load balancer"))]
    pub fn trusted_proxies<S: AsRef<str>>(mut self, proxies: impl IntoIterator<Item = S>) -> Self {
        for proxy in proxies {
            let proxy = proxy.as_ref();
            if !self.proxies.add(proxy) {
                let reason = format!("{proxy:?} is not an address, prefix or \"unix\"");
                self = self.invalid("trusted_proxies", reason);
            }
        }
        self
    }

    /// Sets the header in which trusted proxies report the client's address. Default:
    /// [`XForwardedFor`](ForwardedHeader::XForwardedFor). Only this header is read, because a client may send the other
    /// one.
    #[doc(alias("proxy", "X-Forwarded-For"))]
    pub fn forwarded_header(mut self, header: ForwardedHeader) -> Self {
        self.proxies.header = header;
        self
    }

    /// Sets the maximum body of a plain HTTP request, in bytes. Default: 512 KiB. A larger one is refused with 413.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Sets the metrics for errors that occur before a request reaches a hub: `upgrade_failed` for requests that are
    /// malformed or too slow, `connection_limit` for connections without a place, thread or descriptor, `panic` for
    /// handlers of plain HTTP.
    ///
    /// Default: the metrics of the first mounted hub that has any, so metrics given to a hub also count these errors.
    pub fn metrics(mut self, metrics: Arc<dyn Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Sets the stack size of connection threads, in bytes. Default: 512 KiB. They run handlers and hooks. Only used
    /// pages occupy memory.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack = bytes;
        self
    }

    /// The bound address of the first TCP listener.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listeners.iter().find_map(Listener::local_addr)
    }

    /// Returns a handle that reports the number of connections, in the handshake and in total.
    pub fn load(&self) -> ServerLoad {
        self.load.clone()
    }

    /// Serves until the process ends. Blocks. Use [`run_until_signal`](Server::run_until_signal) to close connections
    /// properly at the end.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Server::spawn).
    pub fn run(self) -> io::Result<()> {
        self.spawn()?.join();
        Ok(())
    }

    /// Serves on threads of its own and returns at once.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an invalid setting, with a [`ConfigError`] that names the setting, its value and its bounds.
    /// Otherwise, the error of an accept thread that could not be started.
    pub fn spawn(self) -> io::Result<ServerHandle> {
        self.validate()?;
        let addrs = self.listeners.iter().filter_map(Listener::local_addr).collect();
        let hubs = self.routes.hubs();
        let metrics = self.metrics.or_else(|| hubs.iter().find_map(Hub::metrics));
        let shared = Arc::new(Running {
            hubs,
            routes: self.routes,
            handshake_timeout: self.handshake_timeout,
            max_handshakes: self.max_handshakes,
            max_handshakes_per_address: self.max_handshakes_per_address,
            proxies: self.proxies,
            max_body: self.max_body,
            stack: self.stack,
            metrics,
            handshakes: self.load.handshakes,
            threads: self.load.threads,
            workers: Slots::default(),
            stopping: AtomicBool::new(false),
            stopped: Leaf::new(false),
            changed: Condition::new(),
        });
        let listeners: Vec<Arc<Listener>> = self.listeners.into_iter().map(Arc::new).collect();
        let endpoints = self.endpoints;
        let _ = self.endpoint_list.set(endpoints.clone());
        let handle = ServerHandle { shared, addrs, endpoints, listeners, acceptors: Leaf::default() };
        match handle.start() {
            Ok(()) => Ok(handle),
            Err(error) => {
                handle.stop_accepting();
                Err(error)
            }
        }
    }

    fn route(mut self, path: &str, route: Route) -> Self {
        match self.routes.add(path, route) {
            Ok(()) => self,
            Err(reason) => self.invalid("route", format!("{path:?}: {reason}")),
        }
    }

    fn validate(&self) -> io::Result<()> {
        let checked = self.config_error.clone().map_or_else(|| self.check_settings(), Err);
        checked.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    fn check_settings(&self) -> Result<(), ConfigError> {
        check("handshake_timeout", self.handshake_timeout, MILLISECOND..=YEAR)?;
        check("max_handshakes", self.max_handshakes, 0..=COUNT)?;
        check("max_handshakes_per_address", self.max_handshakes_per_address, 0..=COUNT)?;
        check("max_body", self.max_body, 0..=GIB)?;
        check("stack_size", self.stack, MIN_STACK..=MAX_STACK)?;
        check("grace", self.grace, Duration::ZERO..=YEAR)
    }

    /// Records an invalid setting; `spawn` fails with the first one.
    pub(crate) fn invalid(mut self, field: &'static str, reason: String) -> Self {
        self.config_error.get_or_insert_with(|| ConfigError::because(field, reason));
        self
    }
}

/// For pages of the crate itself.
#[cfg(feature = "dashboard")]
impl Server {
    /// Mounts an event stream that is not listed among the endpoints.
    pub(crate) fn unlisted_event_stream(self, path: &str, hub: &Hub) -> Self {
        let (hub, format) = (hub.clone(), WireFormat::EventStream);
        let route = ClientRoute { hub, format, checks: Vec::new(), admit: None };
        self.route(path, Route::Clients(route))
    }

    /// All endpoints of the server, once it is spawned.
    pub(crate) fn told_endpoints(&self) -> Arc<OnceLock<Vec<EndpointInfo>>> {
        Arc::clone(&self.endpoint_list)
    }
}

/// State shared by the accept threads and the connection threads.
#[derive(Debug)]
struct Running {
    routes: Routes,
    hubs: Vec<Hub>,
    handshake_timeout: Duration,
    max_handshakes: usize,
    max_handshakes_per_address: usize,
    proxies: TrustedProxies,
    max_body: usize,
    stack: usize,
    metrics: Option<Arc<dyn Metrics>>,
    handshakes: Slots,
    threads: Slots,
    /// Handshake threads, including those that wait for the next connection.
    workers: Slots,
    /// Set once. SeqCst: it is rarely written, and an acceptor that wakes up must see it.
    stopping: AtomicBool,
    /// Set once the accept threads have ended.
    stopped: Leaf<bool>,
    /// `stopping` or `stopped` has changed.
    changed: Condition,
}

impl Running {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Counts and logs a connection that cannot be served.
    fn cannot_serve(&self, why: &str) {
        self.count_error(ErrorType::ConnectionLimit);
        record_limited!(Warn, "wshub::server", "{why}");
    }

    fn count_error(&self, error: ErrorType) {
        if let Some(metrics) = &self.metrics {
            guarded(|| metrics.increment_errors(error));
        }
    }

    /// Sleeps. Returns early when the server begins to stop.
    fn sleep(&self, duration: Duration) {
        let mut stopped = self.stopped.lock();
        if !self.is_stopping() {
            self.changed.wait_for(&mut stopped, duration);
        }
    }
}
