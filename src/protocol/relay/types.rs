//! Mutually referencing types: a hook gets a connection, a connection refers to its relay, and a relay holds the hooks.
//! Their behaviour is in the other files.

use std::sync::Arc;
use std::time::Duration;

use super::RelayMessage;
use super::devices::Devices;
use super::subscriptions::Subscriptions;
use crate::calls::CallHandlers;
use crate::lock::Leaf;
use crate::{Client, HandlerResult, Hub, Rejection, RequestHead, limit::RateLimiter};

/// The identity of a connection. Neither id is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The user; for a device's relay, the user that runs it.
    pub user: String,
    /// The device that the connection relays; `None` for a user's connection.
    pub device: Option<String>,
}

impl Identity {
    /// Creates an identity: a user's connection, or the relay of a device that this user runs.
    pub fn new(user: impl Into<String>, device: Option<String>) -> Self {
        Self { user: user.into(), device }
    }
}

/// What happens when a relay connects for a device that has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DevicePolicy {
    /// The newer one replaces the older, which is closed with 4001 and the reason `replaced`. The default.
    #[default]
    Replace,
    /// The newer one is refused with 409 until the older has ended.
    Refuse,
}

pub(super) type Authenticate = dyn Fn(&RequestHead) -> Result<Identity, Rejection> + Send + Sync;
/// Returns the devices of a user; `None` after a failure.
type Loader = dyn Fn(&str) -> Option<Vec<String>> + Send + Sync;
type OfConn = dyn Fn(&Conn) + Send + Sync;
type OfId = dyn Fn(&Relay, &str) + Send + Sync;
type OfMessage = dyn Fn(&Conn, RelayMessage) -> HandlerResult + Send + Sync;

/// Builds a [`Relay`]. Every hook is optional and replaces an earlier one. Hooks run on the threads of connections,
/// with no lock held.
#[must_use = "a builder does nothing until it is built"]
pub struct RelayBuilder {
    pub(super) authenticate: Box<Authenticate>,
    pub(super) loader: Box<Loader>,
    pub(super) policy: DevicePolicy,
    pub(super) rate: Option<(u32, Duration)>,
    pub(super) on_connect: Option<Box<OfConn>>,
    pub(super) on_message: Option<Box<OfMessage>>,
    pub(super) calls: CallHandlers,
    /// Without a handler, messages of type `call` go to the application.
    pub(super) has_calls: bool,
    pub(super) on_user_connect: Option<Box<OfId>>,
    pub(super) on_user_disconnect: Option<Box<OfId>>,
    pub(super) on_device_connect: Option<Box<OfId>>,
    pub(super) on_device_disconnect: Option<Box<OfId>>,
}

/// The name under which a client keeps its session.
pub(super) const SESSION: &str = "wshub.relay.session";

/// The relay's state of a connection.
pub(super) struct Session {
    pub(super) inner: Arc<Inner>,
    pub(super) identity: Identity,
    /// Orders the connections for one device: a later one has a higher place.
    pub(super) place: u64,
    /// Used only by the connection's thread.
    pub(super) limiter: Option<Leaf<RateLimiter>>,
}

/// A connection to a relay: a cheap handle.
#[derive(Clone)]
pub struct Conn {
    pub(super) relay: Relay,
    pub(super) client: Client,
    pub(super) session: Arc<Session>,
}

/// Users, devices and who may see what: a cheap handle, shared by cloning. Sends never block.
#[derive(Clone)]
pub struct Relay {
    pub(super) inner: Arc<Inner>,
    pub(super) hub: Hub,
}

/// State that all handles share. It holds no reference to the hub, because the hub's hooks hold it.
pub(super) struct Inner {
    pub(super) builder: RelayBuilder,
    pub(super) devices: Devices,
    pub(super) subscriptions: Subscriptions,
}
