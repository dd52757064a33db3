//! The types, which know each other: a hook gets a connection, a connection knows its relay, and a relay has the hooks.
//! What they do is in the other files.

use std::sync::Arc;
use std::time::Duration;

use super::Message;
use super::devices::Devices;
use super::subscriptions::Subscriptions;
use crate::calls::CallHandlers;
use crate::lock::Leaf;
use crate::{Client, HandlerResult, Hub, Rejection, RequestHead, limit::RateLimiter};

/// Who a connection is. Neither id is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user; for a device's relay, the user that runs it.
    pub user: String,
    /// The device that the connection relays; `None` for a connection of the user's.
    pub device: Option<String>,
}

/// What happens when a relay comes for a device that has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DevicePolicy {
    /// The newer wins: the older is closed with 4001 and the reason `replaced`. The default.
    #[default]
    Replace,
    /// The newer is refused with 409, until the older has ended.
    Refuse,
}

pub(super) type Authenticate = dyn Fn(&RequestHead) -> Result<Identity, Rejection> + Send + Sync;
/// Gives the devices of a user; `None` when that has failed.
type Loader = dyn Fn(&str) -> Option<Vec<String>> + Send + Sync;
type OfConn = dyn Fn(&Conn) + Send + Sync;
type OfId = dyn Fn(&Relay, &str) + Send + Sync;
type OfMessage = dyn Fn(&Conn, Message) -> HandlerResult + Send + Sync;

/// Builds a [`Relay`]. Every hook is optional and replaces the one set before. They run without any lock held, on the
/// threads of connections.
#[must_use = "a builder does nothing until it is built"]
pub struct RelayBuilder {
    pub(super) authenticate: Box<Authenticate>,
    pub(super) loader: Box<Loader>,
    pub(super) policy: DevicePolicy,
    pub(super) rate: Option<(u32, Duration)>,
    pub(super) on_connect: Option<Box<OfConn>>,
    pub(super) on_message: Option<Box<OfMessage>>,
    pub(super) calls: CallHandlers,
    /// Without a handler, messages of the type `call` are the application's.
    pub(super) has_calls: bool,
    pub(super) on_user_connect: Option<Box<OfId>>,
    pub(super) on_user_disconnect: Option<Box<OfId>>,
    pub(super) on_device_connect: Option<Box<OfId>>,
    pub(super) on_device_disconnect: Option<Box<OfId>>,
}

/// The name under which a client keeps its session.
pub(super) const SESSION: &str = "wshub.relay.session";

/// What the relay knows of a connection.
pub(super) struct Session {
    pub(super) inner: Arc<Inner>,
    pub(super) identity: Identity,
    /// Orders the connections that come for one device: a later one has a higher place.
    pub(super) place: u64,
    /// Used by the connection's thread alone.
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

/// What all handles share. It does not hold the hub, whose hooks hold it.
pub(super) struct Inner {
    pub(super) builder: RelayBuilder,
    pub(super) devices: Devices,
    pub(super) subscriptions: Subscriptions,
}
