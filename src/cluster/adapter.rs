//! What a message bus has to offer: two connections' worth of verbs. Queue, threads, backoff, order, counts and logs are
//! not its business.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

/// A message bus that carries envelopes between the nodes of a cluster. It never sees a client.
///
/// An adapter moves bytes and says when it cannot. Everything else is done for it: `connect` and the publishing methods are
/// only called on the thread `wshub-publish`, one call at a time, and `subscribe` on the thread `wshub-subscribe`; after an
/// error they are called again, with backoff. A panic in any of them is caught and treated as an error.
///
/// The bus must give every subscriber the envelopes of one publisher in the order in which they were published. It may
/// lose them, and it may hand a node its own.
pub trait Adapter: Send + Sync + 'static {
    /// Opens the connection that publishes, or checks that the open one still stands. Called before the first
    /// `publish`, after one has failed with [`AdapterError::Unavailable`], and when the subscription has been lost or
    /// regained, so that a connection that broke unnoticed costs no message. May block for a bounded time.
    ///
    /// # Errors
    ///
    /// The bus cannot be reached. The default does nothing.
    fn connect(&self) -> Result<(), AdapterError> {
        Ok(())
    }

    /// Publishes one encoded envelope. May block for a bounded time.
    ///
    /// # Errors
    ///
    /// The envelope is lost then: it is not tried again, because it may have been published all the same.
    fn publish(&self, envelope: &[u8]) -> Result<(), AdapterError>;

    /// Publishes several encoded envelopes in their order, for instance in one write: what has come together is handed over
    /// together, at least one, at most some hundred, and about 256 KiB unless a single message is larger. Gives one result
    /// for each envelope that may have been published, in the same order. Those behind have not been tried, and are
    /// published later. May block for a bounded time.
    ///
    /// A failed envelope is lost, as in [`publish`](Adapter::publish). After an [`AdapterError::Unavailable`], `connect`
    /// is called before anything else is published. The default calls `publish` for each, up to that.
    fn publish_all(&self, envelopes: &[Bytes]) -> Vec<Result<(), AdapterError>> {
        let mut results = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            results.push(self.publish(envelope));
            if matches!(results.last(), Some(Err(AdapterError::Unavailable(_)))) {
                break;
            }
        }
        results
    }

    /// The largest envelope that the bus takes at present, in bytes; `None` if the adapter does not know. Heartbeats are held
    /// to it. Called on the thread `wshub-publish`; must not block. The default does not know: the hub then finds out, by
    /// sending smaller heartbeats when one is [rejected](AdapterError::Rejected).
    fn max_envelope(&self) -> Option<usize> {
        None
    }

    /// Subscribes, says [`Inbox::subscribed`] once every envelope published from then on will come, and hands each of
    /// them to [`Inbox::receive`], until it fails or [`close`](Adapter::close) is called. Blocks as long.
    ///
    /// # Errors
    ///
    /// Why it ended. Ending with `Ok` counts as an error too, unless the adapter is closed.
    fn subscribe(&self, inbox: &Inbox) -> Result<(), AdapterError>;

    /// Makes `subscribe` and a blocked `connect` or `publish` end soon; the hub is done with the adapter. Called from any
    /// thread, perhaps more than once. Must not block.
    fn close(&self);
}

/// Why an adapter could not do what it was asked to.
#[derive(Debug)]
#[non_exhaustive]
pub enum AdapterError {
    /// The bus cannot be reached, or the connection has broken: connect again, with backoff.
    Unavailable(Box<dyn Error + Send + Sync>),
    /// The bus refused this one request, for instance because the envelope is too large for it; the connection stands.
    Rejected(Box<dyn Error + Send + Sync>),
}

impl AdapterError {
    /// An [`AdapterError::Unavailable`].
    pub fn unavailable(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(why.into())
    }

    /// An [`AdapterError::Rejected`].
    pub fn rejected(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Rejected(why.into())
    }
}

impl fmt::Display for AdapterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) | Self::Rejected(why) => why.fmt(f),
        }
    }
}

impl Error for AdapterError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unavailable(why) | Self::Rejected(why) => Some(&**why),
        }
    }
}

/// How a hub stands with its message bus. In lower case in health documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AdapterState {
    /// The first connection is being made.
    Connecting,
    /// The hub publishes and is subscribed.
    Connected,
    /// Publishing or the subscription has failed; it is tried again.
    Disconnected,
    /// The hub has been shut down.
    Closed,
}

impl AdapterState {
    /// The name in health documents and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for AdapterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an adapter puts what it receives. A cheap handle, shared by cloning; usable from any thread.
#[derive(Clone)]
pub struct Inbox(pub(super) Arc<dyn Receiver>);

/// What stands behind an [`Inbox`].
pub(super) trait Receiver: Send + Sync {
    fn subscribed(&self);
    fn receive(&self, envelope: &[u8]);
    fn receive_all(&self, envelopes: &mut dyn Iterator<Item = &[u8]>);
    fn lost(&self, count: usize);
    fn is_closed(&self) -> bool;
}

impl Inbox {
    /// The subscription stands: every envelope published from now on will come.
    pub fn subscribed(&self) {
        self.0.subscribed();
    }

    /// Delivers one received envelope to this node's clients. Never blocks on a client, never panics; what is no envelope
    /// is counted and left at that.
    pub fn receive(&self, envelope: &[u8]) {
        self.0.receive(envelope);
    }

    /// As [`receive`](Inbox::receive) for several that have come together: each client's share is written at once.
    pub fn receive_all<'a>(&self, envelopes: impl IntoIterator<Item = &'a [u8]>) {
        self.0.receive_all(&mut envelopes.into_iter());
    }

    /// So many envelopes have come and are lost, for instance because they came faster than the hub took them: each is
    /// counted as [`AdapterSubscribe`](crate::metrics::ErrorType::AdapterSubscribe). Logging that is up to the adapter.
    pub fn lost(&self, count: usize) {
        self.0.lost(count);
    }

    /// Whether the hub is done: `subscribe` has to end.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("closed", &self.is_closed()).finish()
    }
}
