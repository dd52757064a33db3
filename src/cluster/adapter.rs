//! The trait for message buses. An adapter only moves bytes: queue, threads, backoff, order, counts and logs belong to
//! the cluster.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::error::ConfigError;

/// Connects to a message bus that carries envelopes between the nodes of a cluster. An adapter never sees a client.
///
/// An adapter moves bytes and reports failures. The hub does everything else. It calls `connect` and the publishing
/// methods on the thread `wshub-publish` only, one call at a time, and `subscribe` on the thread `wshub-subscribe`.
/// After an error it calls them again, with backoff. It catches a panic in any of them and treats it as an error.
///
/// The bus must deliver the envelopes of one publisher to every subscriber in the order in which they were published.
/// It may lose envelopes, and it may return a node's own envelopes to it.
pub trait Adapter: Send + Sync + 'static {
    /// Checks the adapter's own settings. [`HubBuilder::build`](crate::HubBuilder::build) calls it and fails with its
    /// error. The default finds nothing wrong.
    ///
    /// # Errors
    ///
    /// Names the setting that cannot work: see [`ConfigError::out_of_bounds`].
    fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }

    /// Opens the publishing connection, or checks that the open one still works. The hub calls it before the first
    /// `publish`, after a `publish` has failed with [`AdapterError::Unavailable`], and when the subscription has been
    /// lost or regained, so that a connection that broke unnoticed loses no message. May block for a bounded time. The
    /// default does nothing.
    ///
    /// # Errors
    ///
    /// Fails if the bus cannot be reached.
    fn connect(&self) -> Result<(), AdapterError> {
        Ok(())
    }

    /// Publishes one encoded envelope. May block for a bounded time.
    ///
    /// # Errors
    ///
    /// The envelope of a failed call is lost. The hub does not retry it, because it may have been published all the
    /// same.
    fn publish(&self, envelope: &[u8]) -> Result<(), AdapterError>;

    /// Publishes several encoded envelopes in order, for instance in one write. A call gets all waiting envelopes at
    /// once: at least one, at most some hundred, and about 256 KiB unless a single message is larger. Returns one
    /// result for each envelope that may have been published, in the same order. The hub publishes the envelopes
    /// without a result later. May block for a bounded time.
    ///
    /// A failed envelope is lost, as in [`publish`](Adapter::publish). After an [`AdapterError::Unavailable`], the hub
    /// calls `connect` before it publishes anything else. The default calls `publish` for each envelope and stops after
    /// the first `Unavailable`.
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

    /// Returns the largest envelope that the bus accepts at present, in bytes, or `None` if the adapter does not know.
    /// It limits the size of heartbeats, lists of members and calls. The hub calls it on the thread `wshub-publish`; it
    /// must not block. The default returns `None`: the hub then finds the limit by sending smaller heartbeats when the
    /// bus [rejects](AdapterError::Rejected) one.
    fn max_envelope(&self) -> Option<usize> {
        None
    }

    /// Subscribes, calls [`Inbox::subscribed`] once every envelope published from then on will arrive, and passes each
    /// one to [`Inbox::receive`]. Blocks until the subscription fails or [`close`](Adapter::close) is called.
    ///
    /// # Errors
    ///
    /// Returns the reason why the subscription ended. `Ok` counts as an error too, unless the adapter is closed.
    fn subscribe(&self, inbox: &Inbox) -> Result<(), AdapterError>;

    /// Makes `subscribe` and a blocked `connect` or `publish` return soon: the hub no longer needs the adapter. Called
    /// from any thread, perhaps more than once. Must not block.
    fn close(&self);
}

/// The failure of an adapter's operation.
#[derive(Debug)]
#[non_exhaustive]
pub enum AdapterError {
    /// The bus cannot be reached, or the connection has broken. The hub connects again, with backoff.
    Unavailable(Box<dyn Error + Send + Sync>),
    /// The bus refused this one request, for instance because the envelope is too large. The connection still works.
    Rejected(Box<dyn Error + Send + Sync>),
}

impl AdapterError {
    /// Creates an [`AdapterError::Unavailable`].
    pub fn unavailable(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(why.into())
    }

    /// Creates an [`AdapterError::Rejected`].
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

/// The state of a hub's link to its message bus. Health documents show it in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AdapterState {
    /// The hub is connecting for the first time.
    Connecting,
    /// The hub publishes and is subscribed.
    Connected,
    /// Publishing or the subscription has failed. The hub retries.
    Disconnected,
    /// The hub has been shut down.
    Closed,
}

impl AdapterState {
    /// Returns the name used in health documents and logs.
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

/// Receives envelopes from an adapter. A cheap handle that can be cloned and used from any thread.
#[derive(Clone)]
pub struct Inbox(pub(super) Arc<dyn Receiver>);

/// The receiving side of an [`Inbox`].
pub(super) trait Receiver: Send + Sync {
    fn subscribed(&self);
    fn receive(&self, envelope: &[u8]);
    fn receive_all(&self, envelopes: &mut dyn Iterator<Item = &[u8]>);
    fn lost(&self, count: usize);
    fn is_closed(&self) -> bool;
}

impl Inbox {
    /// Reports that the subscription works: every envelope published from now on will arrive.
    pub fn subscribed(&self) {
        self.0.subscribed();
    }

    /// Delivers one received envelope to this node's clients. Never blocks on a client and never panics. Malformed
    /// envelopes are counted and otherwise ignored.
    pub fn receive(&self, envelope: &[u8]) {
        self.0.receive(envelope);
    }

    /// Like [`receive`](Inbox::receive), for several envelopes that arrived together. Each client's messages are
    /// written at once.
    pub fn receive_all<'a>(&self, envelopes: impl IntoIterator<Item = &'a [u8]>) {
        self.0.receive_all(&mut envelopes.into_iter());
    }

    /// Reports that `count` envelopes arrived but were lost, for instance because they came faster than the hub took
    /// them. Each one counts as [`AdapterSubscribe`](crate::metrics::ErrorType::AdapterSubscribe). The adapter logs the
    /// loss itself.
    pub fn lost(&self, count: usize) {
        self.0.lost(count);
    }

    /// Returns whether the hub has closed the adapter, so that `subscribe` must return.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("closed", &self.is_closed()).finish()
    }
}
