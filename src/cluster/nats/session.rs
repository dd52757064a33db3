//! One connection to the server, from the handshake to its first failure.
//!
//! The client's `flush` waits only until the bytes are in the socket, which does not show that the server has processed
//! them. Instead, a session sends itself a small message over a subject that only it knows, and waits for its return.
//! The server processes the requests of one connection in order, so it has then processed all earlier ones.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::client::PublishErrorKind;
use async_nats::{Auth, AuthError, Client, ConnectOptions, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::mailbox::Sender;
use super::settings::{Server, Settings};
use super::status::{ConnectionStatus, silent};
use crate::cluster::adapter::AdapterError;
use crate::random;

/// Capacity of the queue between the client's reader and [`Session::receive`]. The reader does not wait, so the queue
/// must hold everything that the reader reads in one turn, at most 8 MiB.
const CAPACITY: usize = 128 * 1024;
/// Maximum number of requests that wait to be written.
const REQUESTS: usize = 256;

/// Maximum bytes published at once, unless a single envelope is larger. If the server does not respond, this much is in
/// doubt: a server that was only suspended still reads the data in its socket, while the next session continues.
const CHUNK: usize = 16 * 1024;

/// A connection. It is never repaired: after a failure it is dropped, and its tasks end.
pub(super) struct Session {
    client: Client,
    subject: Subject,
    response_timeout: Duration,
    /// When the server last answered.
    proven: Instant,
    /// The subject of the session's messages to itself, and the subscription that receives them.
    own: Subject,
    echoes: Subscriber,
    sent: u64,
    status: Arc<ConnectionStatus>,
}

impl Session {
    /// Connects to one of the servers.
    pub(super) async fn open(settings: &Settings) -> Result<Self, AdapterError> {
        let mut last = unavailable("no server");
        for server in &settings.servers {
            match timeout(settings.connect_timeout, Self::open_one(settings, server)).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => last = error,
                Err(_) => last = silent(),
            }
        }
        Err(last)
    }

    async fn open_one(settings: &Settings, server: &Server) -> Result<Self, AdapterError> {
        let own = Subject::from(format!("{}.{}", settings.inbox_prefix, random::uuid().simple()));
        let status = Arc::new(ConnectionStatus::new(&own));
        let options = options(settings, &server.auth, &status);
        let client = options.connect(&server.addr).await.map_err(unavailable)?;
        status.connected();
        let echoes = client.subscribe(own.clone()).await.map_err(unavailable)?;
        let subject = Subject::from(settings.subject.as_str());
        let response_timeout = settings.response_timeout;
        let proven = Instant::now();
        let mut session = Self { client, subject, response_timeout, proven, own, echoes, sent: 0, status };
        session.confirm().await?;
        Ok(session)
    }

    /// Returns whether the connection is not known to be lost and the server has responded within this time.
    pub(super) fn is_fresh(&self, within: Duration) -> bool {
        !self.status.is_lost() && self.proven.elapsed() < within
    }

    /// Returns the largest message that the server accepts, in bytes.
    pub(super) fn max_payload(&self) -> usize {
        self.client.server_info().max_payload
    }

    /// Waits until the server has processed all earlier requests.
    ///
    /// # Errors
    ///
    /// Returns `Rejected` if the server refused some of them, and `Unavailable` if the session has failed.
    pub(super) async fn confirm(&mut self) -> Result<(), AdapterError> {
        timeout(self.response_timeout, self.echo()).await.unwrap_or_else(|_| Err(silent()))?;
        self.proven = Instant::now();
        // The server's refusals arrive before the echo, but through another task.
        tokio::task::yield_now().await;
        self.status.take_refused().map_or(Ok(()), |why| Err(rejected(why)))
    }

    async fn echo(&mut self) -> Result<(), AdapterError> {
        self.sent += 1;
        let probe = Bytes::copy_from_slice(&self.sent.to_be_bytes());
        self.client.publish(self.own.clone(), probe.clone()).await.map_err(unavailable)?;
        loop {
            tokio::select! {
                echo = self.echoes.next() => match echo {
                    Some(echo) if echo.payload == probe => return Ok(()),
                    // The echo of an earlier probe, which the session no longer waits for.
                    Some(_) => {}
                    None => return Err(self.status.lost()),
                },
                trouble = self.status.trouble() => return Err(trouble),
            }
        }
    }

    /// Publishes in order. Returns one result for each envelope tried. Stops at the first `Unavailable`, and after the
    /// response timeout.
    pub(super) async fn publish_all(&mut self, envelopes: &[Bytes]) -> Vec<Result<(), AdapterError>> {
        let start = Instant::now();
        let mut results = Vec::with_capacity(envelopes.len());
        let mut works = true;
        while works && results.len() < envelopes.len() && start.elapsed() < self.response_timeout {
            let some = self.publish_chunk(&envelopes[results.len()..]).await;
            works = !some.iter().any(is_unavailable);
            results.extend(some);
        }
        results
    }

    async fn publish_chunk(&mut self, envelopes: &[Bytes]) -> Vec<Result<(), AdapterError>> {
        let mut end = 0;
        let mut size = 0;
        while end < envelopes.len() && (end == 0 || size + envelopes[end].len() <= CHUNK) {
            size += envelopes[end].len();
            end += 1;
        }
        let mut results = Vec::with_capacity(end);
        let result = tokio::select! {
            result = timeout(self.response_timeout, self.hand_over(&envelopes[..end], &mut results)) => {
                result.unwrap_or_else(|_| Err(silent()))
            }
            trouble = self.status.trouble() => Err(trouble),
        };
        let result = if result.is_ok() { self.confirm().await } else { result };
        if let Err(why) = &result {
            let again =
                || if is_unavailable(&result) { unavailable(why.to_string()) } else { rejected(why.to_string()) };
            results.resize_with(end, || Ok(()));
            results.iter_mut().filter(|result| result.is_ok()).for_each(|result| *result = Err(again()));
        }
        results
    }

    /// Passes the envelopes to the client. Envelopes that are too large for the server get their result here.
    async fn hand_over(
        &self,
        envelopes: &[Bytes],
        results: &mut Vec<Result<(), AdapterError>>,
    ) -> Result<(), AdapterError> {
        for envelope in envelopes {
            results.push(match self.client.publish(self.subject.clone(), envelope.clone()).await {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => Err(rejected(error)),
                Err(error) => return Err(unavailable(error)),
            });
        }
        Ok(())
    }

    /// Subscribes and puts received messages into the mailbox until the connection is lost.
    pub(super) async fn receive(mut self, mailbox: &Sender, idle: Duration) -> Result<(), AdapterError> {
        let mut messages = self.client.subscribe(self.subject.clone()).await.map_err(unavailable)?;
        self.confirm().await?;
        mailbox.subscribed();
        let mut pulse = interval(idle);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_quiet = false;
        loop {
            tokio::select! {
                message = messages.next() => {
                    let first = message.ok_or_else(|| self.status.lost())?;
                    let rest = std::iter::from_fn(|| messages.next().now_or_never().flatten());
                    mailbox.put(std::iter::once(first).chain(rest).map(|message| message.payload));
                    mailbox.lost(self.status.take_dropped());
                    is_quiet = false;
                }
                trouble = self.status.trouble() => return Err(trouble),
                // After a quiet interval, check that the server still responds.
                _ = pulse.tick() => {
                    // The client reports dropped messages through another task, perhaps only now.
                    mailbox.lost(self.status.take_dropped());
                    if std::mem::replace(&mut is_quiet, true) {
                        self.confirm().await?;
                    }
                }
            }
        }
    }
}

fn options(settings: &Settings, auth: &Auth, status: &Arc<ConnectionStatus>) -> ConnectOptions {
    let (before, auth, after) = (Arc::clone(status), auth.clone(), Arc::clone(status));
    // The client would reconnect by itself, and then send messages late that were already reported as lost. It requests
    // credentials for each attempt, and gives up after one attempt without them.
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
        .connection_timeout(settings.connect_timeout)
        .ping_interval(settings.idle)
        .subscription_capacity(CAPACITY)
        .client_capacity(REQUESTS)
        .name("wshub");
    if let Some(path) = &settings.root_certificates {
        options = options.add_root_certificates(path.clone());
    }
    options
}

pub(super) fn is_unavailable(result: &Result<(), AdapterError>) -> bool {
    matches!(result, Err(AdapterError::Unavailable(_)))
}

fn unavailable(why: impl Into<Box<dyn Error + Send + Sync>>) -> AdapterError {
    AdapterError::unavailable(why)
}

fn rejected(why: impl Into<Box<dyn Error + Send + Sync>>) -> AdapterError {
    AdapterError::rejected(why)
}
