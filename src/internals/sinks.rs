//! Outboxes and clients over a transport that takes everything and has no socket: whatever a send does but for the
//! system call, for more clients than a process may have sockets.

use std::sync::Arc;

use crate::config::Config;
use crate::conn::{Opening, upgrade};
use crate::http::RequestHead;
use crate::hub::{Admission, Client, Hub};
use crate::message::{Compressed, Encoded, Message, WireFormat};
use crate::outbox::{Outbox, Sent};
use crate::transport::Transport;

/// A message's wire form, as a broadcast makes it once.
#[derive(Debug, Clone)]
pub struct Frame(Encoded);

impl Frame {
    /// Encodes a message as one frame; `None` does not come about for WebSocket.
    pub fn new(message: &Message) -> Option<Self> {
        Encoded::new(message, WireFormat::WebSocket, Compressed::default()).map(Self)
    }

    /// Wire bytes.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Written or queued.
    Queued,
    /// Queued, and so many older ones dropped.
    Evicted(usize),
    /// Dropped.
    Full,
    /// Dropped, and the client is being closed.
    SlowConsumer,
    /// The client is closing or closed.
    Closed,
}

/// One client's outbox, without a hub and over a sink.
#[derive(Debug)]
pub struct Outlet(Arc<Outbox>);

impl Outlet {
    /// One that writes.
    pub fn open(config: Config) -> Self {
        let outlet = Self::held_back(config);
        outlet.0.open();
        outlet
    }

    /// One that only queues, as before the handshake is answered: it fills up, and then its drop policy applies.
    pub fn held_back(config: Config) -> Self {
        Self(Outbox::new(Transport::sink(), Arc::new(config.into()), WireFormat::WebSocket, Vec::new()))
    }

    /// Sends one frame by the drop policy.
    #[inline]
    pub fn send(&self, frame: &Frame) -> Fate {
        match self.0.send(&frame.0) {
            Sent::Queued => Fate::Queued,
            Sent::Evicted(old) => Fate::Evicted(old.len()),
            Sent::Full => Fate::Full,
            Sent::SlowConsumer => Fate::SlowConsumer,
            Sent::Closed => Fate::Closed,
        }
    }

    /// Whether everything queued has been written.
    pub fn is_idle(&self) -> bool {
        self.0.is_idle()
    }

    /// Bytes written, modulo 2^32.
    pub fn written(&self) -> u32 {
        self.0.transport().taken()
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.0.kill();
        self.0.stop_writer();
    }
}

/// A client of a hub over a sink, without a thread; it disconnects when dropped.
#[derive(Debug)]
pub struct SinkClient(Client, Arc<Outbox>);

impl SinkClient {
    /// Takes the whole way of a connect: checks, limits, user, rooms, the answer to the handshake, hooks.
    ///
    /// # Errors
    ///
    /// The HTTP status of a refusal.
    pub fn connect(hub: &Hub, head: RequestHead, admission: Admission) -> Result<Self, u16> {
        let admission = Some(admission);
        let format = WireFormat::WebSocket;
        let opening = Opening { head, format, is_early: false, checks: &[], admit: None, admission };
        let (client, outbox, announcements) = upgrade(hub, Transport::sink(), opening)?.into_parts();
        outbox.open();
        hub.announce(&client, announcements);
        Ok(Self(client, outbox))
    }

    /// The hub's handle.
    pub fn client(&self) -> &Client {
        &self.0
    }

    /// Bytes written, the answer to the handshake among them, modulo 2^32.
    pub fn written(&self) -> u32 {
        self.1.transport().taken()
    }
}

impl Drop for SinkClient {
    /// As when a peer is gone.
    fn drop(&mut self) {
        let hub = self.0.hub().clone();
        self.1.kill();
        hub.unregister(&self.0);
        self.1.end();
        self.1.stop_writer();
        hub.retire(&self.0, self.1.lost());
        hub.connection_is_over(&self.0);
    }
}
