//! For programs with a listener of their own: hand over a socket on which a request has been read.

use std::fmt;
use std::io;
use std::thread;

use super::{Upgraded, run, upgrade};
use crate::http::RequestHead;
use crate::hub::Hub;
use crate::message::WireFormat;
use crate::transport::Transport;

/// Why a connection did not become a client. The peer has got its HTTP answer, if one was possible.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcceptError {
    /// The upgrade was refused with this HTTP status.
    Refused(u16),
    /// The connection's thread could not be started; the socket is closed.
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

/// A connection about to be upgraded: made by [`Hub::accept`], run by [`serve`](Accept::serve) or
/// [`detach`](Accept::detach).
#[derive(Debug)]
#[must_use = "the connection is closed unless it is served or detached"]
pub struct Accept {
    hub: Hub,
    transport: Transport,
    head: RequestHead,
    early: Vec<u8>,
    format: WireFormat,
}

impl Hub {
    /// Takes over a connection of the program's own listener, on which the head of an upgrade request has been read.
    /// `early` is what was read behind the head, normally nothing: it counts as the first WebSocket bytes.
    ///
    /// The stream must be in blocking mode. Its timeouts are set by the hub.
    pub fn accept(&self, stream: impl Into<Transport>, head: RequestHead, early: &[u8]) -> Accept {
        Accept {
            hub: self.clone(),
            transport: stream.into(),
            head,
            early: early.to_vec(),
            format: WireFormat::WebSocket,
        }
    }
}

impl Accept {
    /// Answers with Server-Sent Events instead of the upgrade; see [`Server::event_stream`](crate::Server::event_stream).
    pub fn event_stream(mut self) -> Self {
        self.format = WireFormat::EventStream;
        self
    }

    /// Upgrades and runs the connection on the calling thread; returns when it has ended.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Refused`].
    pub fn serve(self) -> Result<(), AcceptError> {
        let upgraded = upgrade(&self.hub, self.transport, self.head, false, self.format);
        run(upgraded.map_err(AcceptError::Refused)?, &self.early);
        Ok(())
    }

    /// Upgrades on the calling thread and runs the connection on a thread of its own, with the stack size of
    /// [`Config::reader_stack`](crate::Config::reader_stack).
    ///
    /// # Errors
    ///
    /// Any [`AcceptError`].
    pub fn detach(self) -> Result<(), AcceptError> {
        let upgraded = upgrade(&self.hub, self.transport, self.head, false, self.format);
        let upgraded = upgraded.map_err(AcceptError::Refused)?;
        let builder = thread::Builder::new().name("wshub-conn".into()).stack_size(self.hub.config().reader_stack);
        let client = upgraded.client.clone();
        let early = self.early;
        // The announcements stay here until the thread exists: if it cannot, the client has never been connected.
        let (give, take) = crossbeam_channel::bounded::<Upgraded>(1);
        let spawned = builder.spawn(move || {
            if let Ok(upgraded) = take.recv() {
                run(upgraded, &early);
            }
        });
        match spawned {
            Ok(_) => {
                // The thread waits for exactly this.
                let _ = give.send(upgraded);
                Ok(())
            }
            Err(error) => {
                self.hub.withdraw(&client, upgraded.announcements);
                Err(AcceptError::Thread(error))
            }
        }
    }
}
