//! A NATS server as the bus.
//!
//! ```text
//! publisher ── Engine::call ─▶ Session: publish …, an echo ──▶ server     all sessions on one thread, `wshub-nats`
//! subscriber ◀── mailbox ◀──── Session: receive ◀───────────── server
//! ```

mod engine;
mod mailbox;
mod news;
mod session;
mod settings;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Auth;
use bytes::Bytes;
use parking_lot::Mutex;

use super::adapter::{Adapter, AdapterError, Inbox};
use crate::error::ConfigError;
use engine::Engine;
use mailbox::Post;
use session::Session;
use settings::{KEEP_ALIVE, Settings, TIMEOUT, check_subject};

/// Connects a hub to a NATS server. Feature `nats`.
///
/// ```
/// use wshub::{Cluster, Hub, NatsAdapter};
///
/// let bus = NatsAdapter::new("nats://127.0.0.1:4222")?;
/// let hub = Hub::builder().cluster(Cluster::new(bus)).build()?;
/// # Ok::<(), wshub::ConfigError>(())
/// ```
///
/// # Servers
///
/// `nats://HOST:PORT`, or `tls://…`; without a port it is 4222, without a scheme `nats`. Before the host may stand
/// `USER:PASSWORD@` or `TOKEN@`, percent-encoded. Several servers of one NATS cluster are written with commas between
/// them; the first that answers is taken. A server that asks for TLS gets it with either scheme.
///
/// The user must be allowed to publish and to subscribe to the subject, and to `_INBOX.>` (see
/// [`inbox_prefix`](Self::inbox_prefix)).
///
/// # What is guaranteed
///
/// At most once, and in the order in which one hub publishes. `publish` returns when the server has worked on what was
/// published: a server that does not answer within the [`timeout`](Self::timeout) is an error, and what was not
/// confirmed counts as lost. (It may arrive all the same, even late, when a server was only asleep: it reads then what
/// lies in its socket.) A subscription that has gone silent is checked; it ends with an error within two
/// [`keep_alive`](Self::keep_alive)s and a timeout. Nothing is kept for later while there is no connection, and how the
/// client reconnects is up to [`Cluster::backoff`](crate::Cluster::backoff).
///
/// An envelope over the server's `max_payload` (1 MiB unless set otherwise) is refused here, and the connection stays. So
/// it does when the server refuses because the user has no right to the subject.
///
/// At most 65,536 envelopes or 32 MiB wait between the server and the hub; what comes on top is lost, with a warning. A
/// node gets its own envelopes back and ignores them.
///
/// # Threads
///
/// The client is `async-nats`, on one thread of its own, `wshub-nats`, with a runtime that nothing else sees. The thread
/// starts with the first connection and ends when the adapter is closed or dropped. Resolving a host's name takes
/// another, `wshub-nats-dns`, for a moment.
pub struct NatsAdapter {
    settings: Settings,
    /// Taken for moments only.
    life: Mutex<Life>,
    /// The connection that publishes. Only `connect` and `publish` take it, and they come one at a time.
    session: Mutex<Option<Session>>,
}

#[derive(Default)]
struct Life {
    /// Kept when closed, because dropping it waits for its thread.
    engine: Option<Arc<Engine>>,
    is_closed: bool,
}

impl NatsAdapter {
    /// A server, or several with commas between them. Does not connect yet.
    ///
    /// # Errors
    ///
    /// It is no URL of a NATS server. The error does not quote it, because it may hold a password.
    pub fn new(urls: &str) -> Result<Self, ConfigError> {
        Ok(Self { settings: Settings::new(urls)?, life: Mutex::default(), session: Mutex::default() })
    }

    /// The subject over which the nodes of this cluster talk; default `wshub.messages`.
    ///
    /// # Errors
    ///
    /// It is empty, or has blanks, wildcards or empty words in it.
    pub fn subject(mut self, subject: impl Into<String>) -> Result<Self, ConfigError> {
        self.settings.subject = subject.into();
        check_subject("subject", &self.settings.subject)?;
        Ok(self)
    }

    /// Where the adapter's messages to itself go, by which it sees that the server answers: to this word, a dot and random
    /// letters. Default `_INBOX`, as other clients of NATS do.
    ///
    /// # Errors
    ///
    /// As for [`subject`](Self::subject).
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Result<Self, ConfigError> {
        self.settings.inbox_prefix = prefix.into();
        check_subject("inbox_prefix", &self.settings.inbox_prefix)?;
        Ok(self)
    }

    /// How long connecting to a server may take, and how long a server may take to answer. 0 = the default, 3 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = if timeout.is_zero() { TIMEOUT } else { timeout };
        self
    }

    /// After how much silence the server is asked whether it is still there. 0 = the default, 10 s.
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.settings.keep_alive = if interval.is_zero() { KEEP_ALIVE } else { interval };
        self
    }

    /// Connects as this user, whatever the URLs say.
    pub fn user_and_password(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        let mut auth = Auth::new();
        auth.username = Some(user.into());
        auth.password = Some(password.into());
        self.settings.set_auth(&auth);
        self
    }

    /// Connects with this token, whatever the URLs say.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        let mut auth = Auth::new();
        auth.token = Some(token.into());
        self.settings.set_auth(&auth);
        self
    }

    /// Trusts the certificates in this file (PEM), for TLS, instead of the system's. Read at each connection.
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

    /// The longest that opening a session may take.
    fn opening(&self) -> Duration {
        let servers = u32::try_from(self.settings.servers.len()).unwrap_or(u32::MAX);
        self.settings.timeout.saturating_mul(servers)
    }
}

impl Adapter for NatsAdapter {
    fn connect(&self) -> Result<(), AdapterError> {
        let engine = self.engine()?;
        let before = self.session.lock().take();
        let settings = self.settings.clone();
        let open = async move {
            if let Some(mut session) = before
                && session.confirm().await.is_ok()
            {
                return Ok(session);
            }
            Session::open(&settings).await
        };
        let session = engine.call(self.opening() + self.settings.timeout, open)??;
        *self.session.lock() = Some(session);
        Ok(())
    }

    fn publish(&self, envelope: &[u8]) -> Result<(), AdapterError> {
        let engine = self.engine()?;
        let session = self.session.lock().take();
        let mut session = session.ok_or_else(|| AdapterError::unavailable("not connected"))?;
        let envelopes = vec![Bytes::copy_from_slice(envelope)];
        let publish = async move {
            let result = session.publish(envelopes).await;
            (session, result)
        };
        // When it takes too long, the session goes with the work.
        let (session, result) = engine.call(self.settings.timeout, publish)?;
        if !matches!(result, Err(AdapterError::Unavailable(_))) {
            *self.session.lock() = Some(session);
        }
        result
    }

    fn subscribe(&self, inbox: &Inbox) -> Result<(), AdapterError> {
        let engine = self.engine()?;
        let (sender, posts) = mailbox::mailbox();
        let settings = self.settings.clone();
        let _task = engine.spawn(tokio::task::unconstrained(async move {
            let received = async {
                let session = Session::open(&settings).await?;
                session.receive(&sender, settings.keep_alive).await
            };
            if let Err(why) = received.await {
                sender.end(why);
            }
        }));
        loop {
            match posts.take() {
                Post::Subscribed => inbox.subscribed(),
                Post::Envelopes(envelopes) => inbox.receive_all(envelopes.iter().map(|envelope| &envelope[..])),
                Post::End(why) => return Err(why),
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
