//! Endpoints for clients, and their descriptions.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::http::RequestHead;
use crate::hub::{Admission, Admit, Check, Hub, Rejection};

/// An endpoint for clients, with a description, for [`Server::mount`](crate::Server::mount).
///
/// ```
/// use wshub::{Hub, Server, server::Endpoint};
/// let hub = Hub::new();
/// let endpoint = Endpoint::new("/ws", &hub).description("Prices").tag("team", "market").lists_middleware("recovery");
/// let server = Server::bind("127.0.0.1:0")?.mount(endpoint);
/// assert_eq!(server.endpoints()[0].description, "Prices");
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "an endpoint does nothing until it is mounted"]
pub struct Endpoint {
    pub(super) hub: Hub,
    pub(super) info: EndpointInfo,
    pub(super) checks: Vec<Check>,
    pub(super) admit: Option<Admit>,
}

impl Endpoint {
    /// Creates a WebSocket endpoint at this path, without a description; see
    /// [`Server::websocket`](crate::Server::websocket).
    pub fn new(path: impl Into<String>, hub: &Hub) -> Self {
        Self::of_kind(EndpointKind::WebSocket, path.into(), hub)
    }

    /// Creates an endpoint for Server-Sent Events; see [`Server::event_stream`](crate::Server::event_stream).
    pub fn event_stream(path: impl Into<String>, hub: &Hub) -> Self {
        Self::of_kind(EndpointKind::EventStream, path.into(), hub)
    }

    fn of_kind(kind: EndpointKind, path: String, hub: &Hub) -> Self {
        let info =
            EndpointInfo { path, kind, description: String::new(), tags: BTreeMap::new(), middleware: Vec::new() };
        Self { hub: hub.clone(), info, checks: Vec::new(), admit: None }
    }

    /// Sets the description; default empty.
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.info.description = text.into();
        self
    }

    /// Adds a tag and replaces an earlier one of that name.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.info.tags.insert(name.into(), value.into());
        self
    }

    /// Adds a named check for requests to this endpoint. Checks run in order, on the connection's thread, before the
    /// hub's `on_upgrade`; the first refusal is the answer. A panic refuses with 500.
    pub fn check(
        mut self,
        name: impl Into<String>,
        check: impl Fn(&RequestHead) -> Result<(), Rejection> + Send + Sync + 'static,
    ) -> Self {
        self.checks.push(Box::new(check));
        self.lists_middleware(name)
    }

    /// Decides on requests to this endpoint instead of the hub's
    /// [`on_upgrade`](crate::HubBuilder::on_upgrade), after the checks, on the connection's thread. Default: the hub
    /// decides. A second call replaces the first. A panic refuses with 500.
    ///
    /// Protocols that admit their clients themselves, such as `relay` and `binary`, do so in `on_upgrade`. A client of
    /// such a hub that is admitted here has no part in the protocol.
    ///
    /// ```
    /// use wshub::{Admission, Hub, Rejection, Server, server::Endpoint};
    ///
    /// let hub = Hub::builder().on_upgrade(|_| Err(Rejection::unauthorized())).build()?;
    /// let devices = Endpoint::new("/devices/{id}", &hub).admit(|head| {
    ///     let id = head.path_param("id").ok_or_else(Rejection::forbidden)?;
    ///     Ok(Admission::user(id).room("devices"))
    /// });
    /// let server = Server::bind("127.0.0.1:0")?.websocket("/ws", &hub).mount(devices);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn admit(
        mut self,
        decide: impl Fn(&RequestHead) -> Result<Admission, Rejection> + Send + Sync + 'static,
    ) -> Self {
        self.admit = Some(Box::new(decide));
        self
    }

    /// Lists the name of a middleware in the endpoint's description, outermost first. This runs nothing: the hub's
    /// [`Chain`](crate::middleware::Chain) does.
    pub fn lists_middleware(mut self, name: impl Into<String>) -> Self {
        self.info.middleware.push(name.into());
        self
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("hub", &self.hub).field("info", &self.info).finish_non_exhaustive()
    }
}

/// The protocol of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum EndpointKind {
    /// RFC 6455; as JSON `websocket`.
    #[serde(rename = "websocket")]
    WebSocket,
    /// Server-Sent Events; as JSON `event_stream`.
    #[serde(rename = "event_stream")]
    EventStream,
}

/// The description of an endpoint; as JSON `{"path","description","tags":{…},"middleware":[…],"kind"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EndpointInfo {
    /// The path at which it is mounted.
    pub path: String,
    /// The description; may be empty.
    pub description: String,
    /// The tags: names and values.
    pub tags: BTreeMap<String, String>,
    /// The names of the checks before the upgrade and of the middleware around the handler, in the order in which they
    /// were added.
    pub middleware: Vec<String>,
    /// WebSocket or event stream.
    pub kind: EndpointKind,
}
