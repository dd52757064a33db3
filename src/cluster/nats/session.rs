//! One connection to the server, from the handshake to its first failure.
//!
//! The client's `flush` waits until the bytes are in the socket, which says nothing about the server. So a session sends
//! itself a small message, over a subject that only it knows, and waits for that to come back: the server works on
//! one connection's requests in their order, and has then done all that were sent before.

use std::sync::Arc;
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::{Auth, AuthError, Client, ConnectOptions, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use super::mailbox::Sender;
use super::news::{News, silent};
use super::settings::{Server, Settings};
use crate::cluster::adapter::AdapterError;

/// Messages between the client's reader and [`Session::receive`]. The reader does not wait: it must hold what one turn of
/// it reads, which is at most 8 MiB.
const CAPACITY: usize = 128 * 1024;
/// Requests that wait to be written.
const REQUESTS: usize = 256;

/// A connection. It is never repaired: after a failure it is dropped, and its tasks end.
pub(super) struct Session {
    client: Client,
    subject: Subject,
    timeout: Duration,
    /// The subject of its messages to itself, and where they arrive.
    own: Subject,
    echoes: Subscriber,
    sent: u64,
    news: Arc<News>,
}

impl Session {
    /// Connects to one of the servers.
    pub(super) async fn open(settings: &Settings) -> Result<Self, AdapterError> {
        let mut last = AdapterError::unavailable("no server");
        for server in &settings.servers {
            match timeout(settings.timeout, Self::open_one(settings, server)).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => last = error,
                Err(_) => last = silent(),
            }
        }
        Err(last)
    }

    async fn open_one(settings: &Settings, server: &Server) -> Result<Self, AdapterError> {
        let own = Subject::from(format!("{}.{}", settings.inbox_prefix, Uuid::new_v4().simple()));
        let news = Arc::new(News::new(&own));
        let options = options(settings, &server.auth, &news);
        let client = options.connect(&server.addr).await.map_err(AdapterError::unavailable)?;
        news.connected();
        let echoes = client.subscribe(own.clone()).await.map_err(AdapterError::unavailable)?;
        let subject = Subject::from(settings.subject.as_str());
        let mut session = Self { client, subject, timeout: settings.timeout, own, echoes, sent: 0, news };
        session.confirm().await?;
        Ok(session)
    }

    /// Waits until the server has done all that it was asked to.
    ///
    /// # Errors
    ///
    /// `Rejected`: it refused some of it. `Unavailable`: the session is at its end.
    pub(super) async fn confirm(&mut self) -> Result<(), AdapterError> {
        let limit = self.timeout;
        timeout(limit, self.echo()).await.unwrap_or_else(|_| Err(silent()))?;
        // The server's refusals come before the echo, but by another task.
        tokio::task::yield_now().await;
        self.news.take_refused().map_or(Ok(()), |why| Err(AdapterError::rejected(why)))
    }

    async fn echo(&mut self) -> Result<(), AdapterError> {
        self.sent += 1;
        let probe = Bytes::copy_from_slice(&self.sent.to_be_bytes());
        self.client.publish(self.own.clone(), probe.clone()).await.map_err(AdapterError::unavailable)?;
        loop {
            tokio::select! {
                echo = self.echoes.next() => match echo {
                    Some(echo) if echo.payload == probe => return Ok(()),
                    // Of an earlier one that was not waited for.
                    Some(_) => {}
                    None => return Err(self.news.lost()),
                },
                trouble = self.news.trouble() => return Err(trouble),
            }
        }
    }

    /// Publishes in this order. What is too large for the server is left out, and reported as `Rejected` if
    /// nothing worse happens.
    pub(super) async fn publish(&mut self, envelopes: Vec<Bytes>) -> Result<(), AdapterError> {
        let mut rejected = None;
        for envelope in envelopes {
            match self.client.publish(self.subject.clone(), envelope).await {
                Ok(()) => {}
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => rejected = Some(error),
                Err(error) => return Err(AdapterError::unavailable(error)),
            }
        }
        self.confirm().await?;
        rejected.map_or(Ok(()), |error| Err(AdapterError::rejected(error)))
    }

    /// Subscribes and puts what comes into the mailbox, until the connection is lost.
    pub(super) async fn receive(mut self, mailbox: &Sender, keep_alive: Duration) -> Result<(), AdapterError> {
        let mut messages = self.client.subscribe(self.subject.clone()).await.map_err(AdapterError::unavailable)?;
        self.confirm().await?;
        mailbox.subscribed();
        let mut pulse = interval(keep_alive);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_quiet = false;
        loop {
            tokio::select! {
                message = messages.next() => {
                    let first = message.ok_or_else(|| self.news.lost())?;
                    let rest = std::iter::from_fn(|| messages.next().now_or_never().flatten());
                    mailbox.put(std::iter::once(first).chain(rest).map(|message| message.payload));
                    is_quiet = false;
                }
                trouble = self.news.trouble() => return Err(trouble),
                // Nothing for a while: is it still there?
                _ = pulse.tick() => if std::mem::replace(&mut is_quiet, true) { self.confirm().await? },
            }
        }
    }
}

fn options(settings: &Settings, auth: &Auth, news: &Arc<News>) -> ConnectOptions {
    let (before, auth, after) = (Arc::clone(news), auth.clone(), Arc::clone(news));
    // The client would connect again by itself, and send late what has been reported as lost. It asks for credentials each
    // time, and gives up after one attempt for which it gets none.
    let login = move |_nonce| {
        let login =
            if before.has_connected() { Err(AuthError::new("the session has ended")) } else { Ok(auth.clone()) };
        std::future::ready(login)
    };
    let mut options = ConnectOptions::with_auth_callback(login)
        .event_callback(move |event| {
            after.note(&event);
            std::future::ready(())
        })
        .max_reconnects(1)
        .ignore_discovered_servers()
        .connection_timeout(settings.timeout)
        .ping_interval(settings.keep_alive)
        .subscription_capacity(CAPACITY)
        .client_capacity(REQUESTS)
        .name("wshub");
    if let Some(path) = &settings.root_certificates {
        options = options.add_root_certificates(path.clone());
    }
    options
}
