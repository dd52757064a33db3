//! A NATS server as the bus.
//!
//! ```text
//! publisher ── Engine::call ─▶ Session: publish …, an echo ──▶ server     all sessions on one thread, `wshub-nats`
//! subscriber ◀── mailbox ◀──── Session: receive ◀───────────── server
//! ```

mod engine;
mod mailbox;
mod session;
mod settings;
mod status;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Auth;
use bytes::Bytes;

use super::adapter::{Adapter, AdapterError, Inbox};
use crate::cluster::settings::check_broker;
use crate::error::ConfigError;
use crate::lock::{Leaf, rank};
use engine::Engine;
use mailbox::Inbound;
use session::{Session, is_unavailable};
use settings::{IDLE, Settings, TIMEOUT, check_subject};

/// Connects hubs over a NATS server or a cluster of NATS servers. Feature `nats`.
///
/// ```
/// use wshub::{Hub, cluster::{Cluster, NatsAdapter}};
///
/// let adapter = NatsAdapter::new("nats://ann:secret@nats.internal:4222")?;
/// let hub = Hub::builder().cluster(Cluster::new(adapter)).build()?;
/// # assert!(hub.adapter_state().is_some());
/// # Ok::<(), wshub::ConfigError>(())
/// ```
///
/// | URL | connects |
/// | --- | --- |
/// | `[nats://][LOGIN@]host[:port]` | over TCP, to port 4222 unless another is given; over TLS if the server wants it |
/// | `tls://…` | over TLS only, with the system's root certificates or [others](Self::root_certificates) |
/// | `URL,URL,…` | to the first of these servers that answers |
///
/// `LOGIN` is `user:password` or a token; special characters are percent-encoded. The user needs permission to publish
/// and subscribe to the subject, `wshub.messages`, and to `_INBOX.>` (or another [prefix](Self::inbox_prefix)).
///
/// The adapter keeps two connections, one for publishing and one for the subscription. It publishes waiting messages in
/// chunks of up to 16 KiB. After each chunk it waits until the server has processed it: it sends a small message to
/// itself, which arrives after the chunk. NATS returns each node's own messages to it; the node skips them before
/// decoding.
///
/// # What is guaranteed
///
/// A publisher's messages arrive in order, each at most once.
///
/// A message that cannot be published is lost and counted. When the connection breaks or the server falls silent, this
/// affects up to 16 KiB of messages that were not yet confirmed, because any of them may have gone out. A silent server
/// that recovers may still deliver them. A message is lost without a count for a node that is not subscribed at that
/// moment.
///
/// If more than 65,536 messages or 32 MiB wait for the hub, further messages are lost with a warning. The node that
/// lost them counts them as [`AdapterSubscribe`](crate::metrics::ErrorType::AdapterSubscribe). A slow node that the
/// server disconnects has no subscription for a while. Nothing is kept for a later connection.
///
/// A message over the server's `max_payload`, 1 MiB by default, is lost alone and counted as
/// [`AdapterPublish`](crate::metrics::ErrorType::AdapterPublish); the connection stays open. The same holds for a
/// missing permission to publish. A heartbeat over that size is sent in parts.
///
/// # How long things take
///
/// - Connecting fails after the [connect timeout](Self::connect_timeout) for each server of the list. It includes name
///   resolution and login.
/// - If a server stops responding, a publishing call notices it after the [response timeout](Self::response_timeout).
///   Otherwise the subscription notices it after twice the [idle time](Self::idle) plus the response timeout: 12 s. A
///   publishing call takes at most three response timeouts, plus the time to connect if the connection is lost.
/// - Closing ends any operation of the adapter at once.
///
/// # Threads
///
/// The client is `async-nats`. It runs on one thread, `wshub-nats`, with a private runtime. The thread starts with the
/// first connection and ends when the adapter is closed or dropped. Resolving a host name takes another thread,
/// `wshub-nats-dns`, for a moment. The client does not reconnect by itself. If a program records its traces
/// (`tracing`), they say that it gives up.
pub struct NatsAdapter {
    settings: Settings,
    /// Locked only briefly.
    life: Leaf<Life, { rank::BUS }>,
    /// The publishing connection. Only `connect` and `publish` take it, and their calls never overlap.
    session: Leaf<Option<Session>>,
}

#[derive(Default)]
struct Life {
    /// Kept after closing, because dropping it waits for its thread.
    engine: Option<Arc<Engine>>,
    is_closed: bool,
}

impl NatsAdapter {
    /// Creates an adapter for one server, or several separated by commas. Does not connect yet.
    ///
    /// # Errors
    ///
    /// Fails if a URL is not that of a NATS server. The error does not quote the URL, because it may contain a
    /// password.
    pub fn new(urls: &str) -> Result<Self, ConfigError> {
        Ok(Self { settings: Settings::new(urls)?, life: Leaf::default(), session: Leaf::default() })
    }

    /// Sets the subject that the nodes of the cluster share; default `wshub.messages`.
    ///
    /// # Errors
    ///
    /// Fails if it is empty, or contains blanks, control characters, wildcards or empty words.
    pub fn subject(mut self, subject: impl Into<String>) -> Result<Self, ConfigError> {
        self.settings.subject = subject.into();
        check_subject("subject", &self.settings.subject)?;
        Ok(self)
    }

    /// Sets the prefix of the subject for the adapter's messages to itself, which show that the server responds. The
    /// subject is the prefix, a dot and a random UUID. Default `_INBOX`, as in other NATS clients.
    ///
    /// # Errors
    ///
    /// The same as for [`subject`](Self::subject).
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Result<Self, ConfigError> {
        self.settings.inbox_prefix = prefix.into();
        check_subject("inbox_prefix", &self.settings.inbox_prefix)?;
        Ok(self)
    }

    /// Sets the timeout for connecting to each server of the list, login included. Default 2 s; 0 means the default. 1
    /// ms to 366 days.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = or(timeout, TIMEOUT);
        self
    }

    /// Sets how long a server may take to respond. Default 2 s; 0 means the default. 1 ms to
    /// 366 days.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.settings.response_timeout = or(timeout, TIMEOUT);
        self
    }

    /// Sets the silence after which a connection is tested: the subscription within twice this time, the publishing
    /// connection before its next use. Default 5 s; 0 means the default. 1 ms to 366
    /// days.
    pub fn idle(mut self, silence: Duration) -> Self {
        self.settings.idle = or(silence, IDLE);
        self
    }

    /// Connects as this user, overriding the URLs.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        let mut auth = Auth::new();
        auth.username = Some(user.into());
        auth.password = Some(password.into());
        self.settings.set_auth(&auth);
        self
    }

    /// Connects with this token, overriding the URLs.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        let mut auth = Auth::new();
        auth.token = Some(token.into());
        self.settings.set_auth(&auth);
        self
    }

    /// Trusts the root certificates in this file (PEM), for TLS, instead of the system's. Each connection reads the
    /// file again.
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.root_certificates = Some(path.into());
        self
    }

    fn engine(&self) -> Result<Arc<Engine>, AdapterError> {
        let mut life = self.life.lock();
        if life.is_closed {
            return Err(AdapterError::unavailable("closed"));
        }
        if let Some(engine) = &life.engine {
            return Ok(Arc::clone(engine));
        }
        let engine = Arc::new(Engine::start().map_err(AdapterError::unavailable)?);
        life.engine = Some(Arc::clone(&engine));
        Ok(engine)
    }

    /// Returns the maximum time to open a session.
    fn opening(&self) -> Duration {
        let servers = u32::try_from(self.settings.servers.len()).unwrap_or(u32::MAX);
        self.settings.connect_timeout.saturating_mul(servers)
    }

    /// Publishes over the open session. Runs on the engine's thread, so that a failure drops the session.
    fn publish_over(
        &self,
        engine: &Engine,
        mut session: Session,
        envelopes: Vec<Bytes>,
    ) -> Result<Vec<Result<(), AdapterError>>, AdapterError> {
        let publish = async move {
            let results = session.publish_all(&envelopes).await;
            (session, results)
        };
        // The last chunk may begin shortly before the time is up, and then waits for the client and for the response.
        // The rest of the limit covers a client that hangs.
        let (session, results) = engine.call(self.settings.response_timeout.saturating_mul(4), publish)?;
        if !results.iter().any(is_unavailable) {
            *self.session.lock() = Some(session);
        }
        Ok(results)
    }
}

fn or(duration: Duration, default: Duration) -> Duration {
    if duration.is_zero() { default } else { duration }
}

impl Adapter for NatsAdapter {
    fn validate(&self) -> Result<(), ConfigError> {
        let Settings { connect_timeout, response_timeout, idle, .. } = self.settings;
        check_broker(connect_timeout, response_timeout, idle)
    }

    fn connect(&self) -> Result<(), AdapterError> {
        let engine = self.engine()?;
        let before = self.session.lock().take();
        let settings = self.settings.clone();
        let open = async move {
            if let Some(mut session) = before {
                if !is_unavailable(&session.confirm().await) {
                    return Ok(session);
                }
            }
            Session::open(&settings).await
        };
        let session = engine.call(self.opening().saturating_add(self.settings.response_timeout), open)??;
        *self.session.lock() = Some(session);
        Ok(())
    }

    fn publish(&self, envelope: &[u8]) -> Result<(), AdapterError> {
        let results = self.publish_all(&[Bytes::copy_from_slice(envelope)]);
        results.into_iter().next().unwrap_or_else(|| Err(AdapterError::unavailable("no result")))
    }

    fn publish_all(&self, envelopes: &[Bytes]) -> Vec<Result<(), AdapterError>> {
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(error) => return vec![Err(error)],
        };
        let is_fresh = self.session.lock().as_ref().is_some_and(|session| session.is_fresh(self.settings.idle));
        if !is_fresh {
            if let Err(error) = self.connect() {
                return vec![Err(error)];
            }
        }
        let Some(session) = self.session.lock().take() else {
            return vec![Err(AdapterError::unavailable("not connected"))];
        };
        self.publish_over(&engine, session, envelopes.to_vec()).unwrap_or_else(|error| {
            // Any of them may have gone out.
            let text = error.to_string();
            envelopes.iter().map(|_| Err(AdapterError::unavailable(text.as_str()))).collect()
        })
    }

    fn max_envelope(&self) -> Option<usize> {
        self.session.lock().as_ref().map(Session::max_payload)
    }

    fn subscribe(&self, inbox: &Inbox) -> Result<(), AdapterError> {
        let engine = self.engine()?;
        let (sender, receiver) = mailbox::mailbox();
        let settings = self.settings.clone();
        // Unconstrained: the task must take everything that the client's reader has queued before the reader continues.
        let _task = engine.spawn(tokio::task::unconstrained(async move {
            let session = async {
                let session = Session::open(&settings).await?;
                session.receive(&sender, settings.idle).await
            };
            if let Err(why) = session.await {
                sender.end(why);
            }
        }));
        loop {
            match receiver.take() {
                Inbound::Subscribed => inbox.subscribed(),
                Inbound::Envelopes(envelopes) => inbox.receive_all(envelopes.iter().map(|envelope| &envelope[..])),
                Inbound::Lost(count) => inbox.lost(count),
                Inbound::End(why) => return Err(why),
            }
        }
    }

    fn close(&self) {
        let mut life = self.life.lock();
        life.is_closed = true;
        if let Some(engine) = &life.engine {
            engine.stop();
        }
    }
}

impl fmt::Debug for NatsAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("NatsAdapter");
        debug.field("servers", &self.settings.hosts()).field("subject", &self.settings.subject).finish_non_exhaustive()
    }
}
