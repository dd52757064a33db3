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

use super::adapter::{Adapter, AdapterError, Inbox};
use crate::error::ConfigError;
use crate::lock::{Leaf, rank};
use engine::Engine;
use mailbox::Post;
use session::{Session, is_unavailable};
use settings::{IDLE, Settings, TIMEOUT, check_subject};

/// Joins hubs over a NATS server, or a cluster of them. Feature `nats`.
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
/// | `tls://…` | over TLS only, with the system's root certificates or [other ones](Self::root_certificates) |
/// | `URL,URL,…` | to the first of these servers that answers |
///
/// `LOGIN` is `user:password` or a token; special characters are percent-encoded. The user must be allowed to publish and
/// to subscribe to the subject, `wshub.messages`, and to `_INBOX.>` (or another [prefix](Self::inbox_prefix)).
///
/// Two connections are kept, one for publishing and one for the subscription. What has come together is published in chunks
/// of up to 16 KiB, and after each the adapter waits until the server has worked on it: it sends a small message to itself,
/// which comes back behind them. NATS hands each node its own messages too; they are skipped before they are decoded.
///
/// # What is guaranteed
///
/// A publisher's messages arrive in order, each at most once. A message is lost when it cannot be published (it is counted
/// then: up to 16 KiB of messages that were not yet confirmed when the connection broke or the server fell silent, because
/// nobody knows which of them went out; when a silent server wakes up, it may still deliver them), and without a count for a
/// node that is not subscribed at that moment. When more than 65,536 messages or 32 MiB have come and the hub has not yet
/// taken them, what comes then is lost with a warning, and counted by the node that lost it, as
/// [`AdapterSubscribe`](crate::metrics::ErrorType::AdapterSubscribe). A slow node that the server cuts off has lost its subscription
/// for a while. Nothing is kept for a later connection.
///
/// A message over the server's `max_payload`, 1 MiB unless set otherwise, is lost alone and counted as
/// [`AdapterPublish`](crate::metrics::ErrorType::AdapterPublish); the connection stands. So it is with a missing permission to
/// publish. A heartbeat that would be larger is sent in parts.
///
/// # How long things take
///
/// - A connection is given up after the [connect timeout](Self::connect_timeout) for each server of the list, logging in
///   and looking up its name included.
/// - A server that does not answer is noticed after the [response timeout](Self::response_timeout) by who publishes;
///   otherwise by the subscription, after twice the [idle time](Self::idle) and the response timeout: 12 s. A publishing
///   call takes at most three response timeouts, and before them what connecting takes if the connection is lost.
/// - Closing ends whatever the adapter is doing at once.
///
/// # Threads
///
/// The client is `async-nats`, on one thread, `wshub-nats`, with a runtime that nothing else sees. The thread starts with
/// the first connection and ends when the adapter is closed or dropped. Looking up a host's name takes another,
/// `wshub-nats-dns`, for a moment. The client does not reconnect by itself; where a program records its traces
/// (`tracing`), it says there that it gives up.
pub struct NatsAdapter {
    settings: Settings,
    /// Taken for moments only.
    life: Leaf<Life, { rank::BUS }>,
    /// The connection that publishes. Only `connect` and `publish` take it, and they come one at a time.
    session: Leaf<Option<Session>>,
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
        Ok(Self { settings: Settings::new(urls)?, life: Leaf::default(), session: Leaf::default() })
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

    /// How long connecting may take, for each server of the list, logging in included; default 2 s, as 0.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = or(timeout, TIMEOUT);
        self
    }

    /// How long a server may take to answer; default 2 s, as 0.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.settings.response_timeout = or(timeout, TIMEOUT);
        self
    }

    /// After how long a silence a connection is tested: the subscription at once, the one that publishes before it is next
    /// used. Default 5 s, as 0.
    pub fn idle(mut self, silence: Duration) -> Self {
        self.settings.idle = or(silence, IDLE);
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
        self.settings.connect_timeout.saturating_mul(servers)
    }

    /// Publishes over the session that stands; on the engine's thread, so that the session is lost if that fails.
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
        // The last chunk may be begun shortly before the time is up, and waits to be handed over and for its answer. What
        // this adds is for a client that hangs.
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
        let (sender, posts) = mailbox::mailbox();
        let settings = self.settings.clone();
        // Unconstrained: it must take all that the client's reader has put down, however much that is, before that goes on.
        let _task = engine.spawn(tokio::task::unconstrained(async move {
            let received = async {
                let session = Session::open(&settings).await?;
                session.receive(&sender, settings.idle).await
            };
            if let Err(why) = received.await {
                sender.end(why);
            }
        }));
        loop {
            match posts.take() {
                Post::Subscribed => inbox.subscribed(),
                Post::Envelopes(envelopes) => inbox.receive_all(envelopes.iter().map(|envelope| &envelope[..])),
                Post::Lost(count) => inbox.lost(count),
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
