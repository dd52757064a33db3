//! A Redis (or Valkey) server as the bus: PUBLISH and SUBSCRIBE on one channel.

mod connection;
mod store;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError};

use super::adapter::{Adapter, AdapterError, Inbox};
use crate::cluster::settings::check_broker;
use crate::error::ConfigError;
use crate::lock::{Leaf, rank};
pub use store::RedisStore;

use connection::{Received, Redis};

/// The channel of the Go package `wshub`.
const CHANNEL: &str = "wshub:messages";
const TIMEOUT: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(5);
/// How often the subscription checks whether the adapter is closed.
const TICK: Duration = Duration::from_millis(100);

/// Connects hubs over a Redis or Valkey server. Feature `redis`.
///
/// ```no_run
/// use wshub::{Hub, cluster::{Cluster, RedisAdapter}};
///
/// let adapter = RedisAdapter::new("redis://:secret@redis.internal:6379")?;
/// let hub = Hub::builder().cluster(Cluster::new(adapter)).build()?;
/// # assert!(hub.adapter_state().is_some());
/// # Ok::<(), wshub::ConfigError>(())
/// ```
///
/// | URL | connects |
/// | --- | --- |
/// | `redis://[[user]:password@]host[:port]` | over TCP, to port 6379 unless another is given; `valkey://` too |
/// | `rediss://…` | over TLS, with the system's root certificates; feature `redis-tls`; `valkeys://` too |
/// | `unix:///path[?user=…&pass=…]` | to a Unix socket; `redis+unix://` too |
///
/// Special characters in names and passwords are percent-encoded. A database number has no effect: Redis channels do
/// not belong to a database. An ACL user needs `+publish +subscribe +ping` and the channel (`&wshub:messages`). TLS
/// uses rustls with the process's default crypto provider; if the program has installed none, the adapter installs
/// `ring`.
///
/// The adapter keeps two connections, one for publishing and one for the subscription. It publishes waiting messages in
/// writes of up to 16 KiB, without a round trip per message. Redis returns each node's own messages to it; the node
/// skips them before decoding.
///
/// # What is guaranteed
///
/// A publisher's messages arrive in order, each at most once. A message is lost
///
/// - when it cannot be published. It is counted then. When a connection breaks, this affects the messages that were
///   written and not yet confirmed, up to 16 KiB or one larger message: any of them may have gone out;
/// - without a count, for a node that is not subscribed at that moment, or that Redis has disconnected because it reads
///   too slowly (`client-output-buffer-limit pubsub`, by default 32 MiB).
///
/// If Redis returns an error for one PUBLISH, such as a missing permission, that message is lost and counted as
/// [`AdapterPublish`](crate::metrics::ErrorType::AdapterPublish); the connection stays open. If Redis requires a
/// password, is loading, or has lost its master, the adapter treats it as an outage.
///
/// # How long things take
///
/// - Connecting fails after the [connect timeout](Self::connect_timeout) for each address of the host, plus one for the
///   login; a command after the [response timeout](Self::response_timeout). The system decides how long resolving the
///   host name may take.
/// - If a server disappears or hangs without closing the connection, a publishing call notices it after the response
///   timeout. Otherwise the subscription notices it after the [idle time](Self::idle) plus the response timeout: about
///   7 s.
/// - A hub that shuts down waits for about two seconds at most. A thread in the middle of a command ends when the
///   command is answered or times out.
pub struct RedisAdapter {
    info: ConnectionInfo,
    channel: String,
    connect_timeout: Duration,
    response_timeout: Duration,
    idle: Duration,
    publishing: Leaf<Option<Publishing>, { rank::BUS }>,
    closed: AtomicBool,
}

/// The publishing connection.
struct Publishing {
    redis: Redis,
    /// When it was last known to work.
    proven: Instant,
}

impl RedisAdapter {
    /// Creates an adapter for the server at this URL. Does not connect yet.
    ///
    /// # Errors
    ///
    /// Fails if the URL is not that of a Redis server, or is `rediss://` without the feature `redis-tls`. The error
    /// does not contain the URL, because of the password in it.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        let info = connection_info(url)?;
        Ok(Self {
            info,
            channel: CHANNEL.to_owned(),
            connect_timeout: TIMEOUT,
            response_timeout: TIMEOUT,
            idle: IDLE,
            publishing: Leaf::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// Sets the channel that the nodes of the cluster share; default `wshub:messages`, which Go nodes use too.
    pub fn channel(mut self, name: impl Into<String>) -> Self {
        self.channel = name.into();
        self
    }

    /// Sets the timeout for connecting to each address that the host name resolves to. Default 2 s; 0 means the
    /// default. 1 ms to 366 days.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = or(timeout, TIMEOUT);
        self
    }

    /// Sets how long Redis may take to respond, and to accept written data. Default 2 s; 0 means the default. 1 ms to
    /// 366 days.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = or(timeout, TIMEOUT);
        self
    }

    /// Sets the silence after which a connection is tested with a PING: the subscription at once, the publishing
    /// connection before its next use. Default 5 s; 0 means the default. 1 ms to 366
    /// days.
    pub fn idle(mut self, silence: Duration) -> Self {
        self.idle = or(silence, IDLE);
        self
    }

    fn open(&self) -> Result<Redis, AdapterError> {
        Redis::open(&self.info, self.connect_timeout, self.response_timeout)
    }

    fn is_closed(&self) -> bool {
        // Relaxed: nothing else is read because of it.
        self.closed.load(Ordering::Relaxed)
    }

    fn open_proven(&self) -> Result<Publishing, AdapterError> {
        let mut redis = self.open()?;
        // Connecting alone does not show whether Redis requires a password, or responds at all.
        redis.ping()?;
        Ok(Publishing { redis, proven: Instant::now() })
    }
}

fn or(duration: Duration, default: Duration) -> Duration {
    if duration.is_zero() { default } else { duration }
}

impl Adapter for RedisAdapter {
    fn validate(&self) -> Result<(), ConfigError> {
        check_broker(self.connect_timeout, self.response_timeout, self.idle)
    }

    fn connect(&self) -> Result<(), AdapterError> {
        let mut slot = self.publishing.lock();
        if let Some(open) = slot.as_mut() {
            if open.redis.ping().is_ok() {
                open.proven = Instant::now();
                return Ok(());
            }
            *slot = None;
        }
        *slot = Some(self.open_proven()?);
        Ok(())
    }

    fn publish(&self, envelope: &[u8]) -> Result<(), AdapterError> {
        let results = self.publish_all(&[Bytes::copy_from_slice(envelope)]);
        results.into_iter().next().unwrap_or_else(|| Err(AdapterError::unavailable("no result")))
    }

    fn publish_all(&self, envelopes: &[Bytes]) -> Vec<Result<(), AdapterError>> {
        let is_stale = self.publishing.lock().as_ref().is_none_or(|p| p.proven.elapsed() >= self.idle);
        if is_stale {
            if let Err(error) = self.connect() {
                return vec![Err(error)];
            }
        }
        let mut slot = self.publishing.lock();
        let Some(publishing) = slot.as_mut() else {
            return vec![Err(AdapterError::unavailable("not connected"))];
        };
        let start = Instant::now();
        let mut results = Vec::with_capacity(envelopes.len());
        let mut works = true;
        // Envelopes left when the time is up are tried in the next call.
        while works && results.len() < envelopes.len() && start.elapsed() < self.response_timeout && !self.is_closed() {
            let some = publishing.redis.publish(&self.channel, &envelopes[results.len()..]);
            works = !some.iter().any(|r| matches!(r, Err(AdapterError::Unavailable(_))));
            results.extend(some);
        }
        publishing.proven = Instant::now();
        if !works {
            *slot = None;
        }
        results
    }

    fn subscribe(&self, inbox: &Inbox) -> Result<(), AdapterError> {
        let mut redis = self.open()?;
        redis.subscribe(&self.channel, TICK)?;
        inbox.subscribed();
        let mut last = Instant::now();
        while !self.is_closed() {
            if let Received::Message(message) = redis.receive()? {
                inbox.receive(message.get_payload_bytes());
                last = Instant::now();
            } else if last.elapsed() >= self.idle {
                redis.ping_subscribed(TICK, |message| inbox.receive(message.get_payload_bytes()))?;
                last = Instant::now();
            }
        }
        Ok(())
    }

    fn close(&self) {
        // Relaxed: nothing else is read because of it.
        self.closed.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for RedisAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address only, without the password.
        let address = self.info.addr().to_string();
        f.debug_struct("RedisAdapter")
            .field("address", &address)
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

fn connection_info(url: &str) -> Result<ConnectionInfo, ConfigError> {
    let is_tls = ["rediss:", "valkeys:"].iter().any(|scheme| url.starts_with(scheme));
    if is_tls && !cfg!(feature = "redis-tls") {
        return Err(ConfigError::new("url", "TLS needs the feature `redis-tls`"));
    }
    #[cfg(feature = "redis-tls")]
    if is_tls && rustls::crypto::CryptoProvider::get_default().is_none() {
        // The client library uses the process's crypto provider. If the program has installed none, install one. If
        // another thread is faster, its provider serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let info = url.into_connection_info().map_err(|error| ConfigError::because("url", reason(url, &error)))?;
    let settings = info.redis_settings().clone();
    // RESP3 formats responses and messages differently and offers no benefit here. Setting the library name and the
    // database number would cost round trips and change nothing.
    let settings = settings.set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name().set_db(0);
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp))
}

/// Describes the fault in a URL without quoting the URL.
fn reason(url: &str, error: &RedisError) -> String {
    const SCHEMES: [&str; 7] = ["redis", "rediss", "valkey", "valkeys", "unix", "redis+unix", "valkey+unix"];
    if !url.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme)) {
        return format!("it begins with none of {}, and ://", SCHEMES.join(", "));
    }
    if redis::parse_redis_url(url).is_none() {
        return "its host or port is malformed".to_owned();
    }
    let text = error.to_string();
    match text.split_once(" - InvalidClientConfig") {
        Some((what, detail)) => format!("{what}{detail}"),
        None => text,
    }
}
