//! Connections of a program's own listener, handed over after their request head has been read.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::{Opening, THREAD_NAME, Upgraded, run, upgrade, withdraw};
use crate::handover::handover;
use crate::headroom;
use crate::http::RequestHead;
use crate::hub::{Admission, Client, Hub};
use crate::message::WireFormat;
use crate::transport::Transport;

/// Why a connection did not become a client. The peer has received an HTTP answer, if one was possible.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcceptError {
    /// The upgrade was refused with this HTTP status. The answer to a browser's preflight request for an event stream
    /// counts as a refusal with 204.
    Refused(u16),
    /// The connection's thread could not be started. The peer has received a 503.
    Thread(io::Error),
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "the upgrade was refused with status {status}"),
            Self::Thread(error) => write!(f, "the connection's thread could not be started: {error}"),
        }
    }
}

impl std::error::Error for AcceptError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(_) => None,
            Self::Thread(error) => Some(error),
        }
    }
}

/// A connection about to be upgraded. [`Hub::accept`] creates it; run it with [`serve`](PendingConnection::serve) or
/// [`detach`](PendingConnection::detach).
#[derive(Debug)]
#[must_use = "the connection is closed unless it is served or detached"]
pub struct PendingConnection {
    hub: Hub,
    transport: Transport,
    head: RequestHead,
    early: Vec<u8>,
    remote: Option<SocketAddr>,
    format: WireFormat,
    admission: Option<Admission>,
}

impl Hub {
    /// Takes over a connection of the program's own listener, on which the head of an upgrade request has been read.
    /// `early` holds the bytes read after the head, normally none. They count as the first WebSocket bytes.
    ///
    /// The hub sets the stream to blocking mode and sets its timeouts.
    pub fn accept(&self, stream: impl Into<Transport>, head: RequestHead, early: &[u8]) -> PendingConnection {
        let transport = stream.into();
        PendingConnection {
            hub: self.clone(),
            remote: transport.peer_addr(),
            transport,
            head,
            early: early.to_vec(),
            format: WireFormat::WebSocket,
            admission: None,
        }
    }
}

impl PendingConnection {
    /// Answers with Server-Sent Events instead of the upgrade; see
    /// [`Server::event_stream`](crate::Server::event_stream).
    pub fn event_stream(mut self) -> Self {
        self.format = WireFormat::EventStream;
        self
    }

    /// Sets the client's address, from the listener's `accept` or from a trusted proxy. Default: the socket's peer
    /// address, which the system no longer knows once the peer is gone; then [`Client::remote_addr`] is `None`.
    pub fn remote_addr(mut self, addr: SocketAddr) -> Self {
        self.remote = Some(addr);
        self
    }

    /// Sets the admission, for programs that have already identified the client. The `on_upgrade` hook is not called.
    /// All other checks apply.
    pub fn admission(mut self, admission: Admission) -> Self {
        self.admission = Some(admission);
        self
    }

    /// Upgrades and runs the connection on the calling thread. Returns when the connection has ended.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Refused`].
    pub fn serve(self) -> Result<(), AcceptError> {
        let (early, upgraded) = self.upgrade()?;
        run(upgraded, &early);
        Ok(())
    }

    /// Upgrades on the calling thread and runs the connection on a thread of its own, with the stack size of
    /// [`Config::reader_stack`](crate::Config::reader_stack). Returns the client, to which the program may send at
    /// once.
    ///
    /// # Errors
    ///
    /// Any [`AcceptError`].
    pub fn detach(self) -> Result<Client, AcceptError> {
        let (early, upgraded) = self.upgrade()?;
        let client = upgraded.client.clone();
        let stack = client.hub().config().reader_stack;
        // The announcements stay on this thread until the new thread exists. If it cannot be started, the client has
        // never been connected.
        let (giver, taker) = handover::<Upgraded>();
        let thread = move || {
            if let Some(upgraded) = taker.take() {
                run(upgraded, &early);
            }
        };
        if let Err(error) = headroom::spawn(THREAD_NAME, stack, thread) {
            withdraw(upgraded);
            return Err(AcceptError::Thread(error));
        }
        giver.give(upgraded);
        Ok(client)
    }

    fn upgrade(self) -> Result<(Vec<u8>, Upgraded), AcceptError> {
        let Self { hub, transport, mut head, early, remote, format, admission } = self;
        head.set_remote_addr(remote);
        let opening = Opening { head, format, is_early: false, checks: &[], admit: None, admission };
        let upgraded = upgrade(&hub, transport, opening).map_err(AcceptError::Refused)?;
        Ok((early, upgraded))
    }
}
