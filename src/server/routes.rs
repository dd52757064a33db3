//! Routes: paths and what answers them.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::patterns::{Parameters, Pattern};
use crate::http::{RequestHead, Response};
use crate::hub::{Admit, Check, Hub};
use crate::message::WireFormat;

/// A plain HTTP request, as a handler receives it.
#[derive(Debug)]
pub struct Request {
    head: RequestHead,
    body: Vec<u8>,
}

impl Request {
    /// The head holds the client's address.
    pub(super) fn new(head: RequestHead, body: Vec<u8>) -> Self {
        Self { head, body }
    }

    /// Method, path, query and headers.
    pub fn head(&self) -> &RequestHead {
        &self.head
    }

    /// The body; at most [`Server::max_body`](crate::Server::max_body) bytes.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, parsed as JSON.
    ///
    /// # Errors
    ///
    /// Not JSON, or not of type `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// The client's address, see [`RequestHead::remote_addr`]; `None` for Unix sockets.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.head.remote_addr()
    }
}

/// Answers plain HTTP.
pub(super) type Handler = Arc<dyn Fn(&Request) -> Response + Send + Sync>;

/// A route whose requests become clients of a hub.
pub(super) struct ClientRoute {
    pub(super) hub: Hub,
    pub(super) format: WireFormat,
    pub(super) checks: Vec<Check>,
    pub(super) admit: Option<Admit>,
}

/// The handler of a path.
pub(super) enum Route {
    Clients(ClientRoute),
    Health(Hub),
    Ready(Hub),
    Handler(Handler),
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Clients(_) => "Clients",
            Self::Health(_) => "Health",
            Self::Ready(_) => "Ready",
            Self::Handler(_) => "Handler",
        })
    }
}

/// Exact paths, patterns, and the fallback.
#[derive(Debug, Default)]
pub(super) struct Routes {
    exact: Vec<(String, Route)>,
    /// Patterns, in the order in which they are tried.
    patterns: Vec<(Pattern, Route)>,
    fallback: Option<Route>,
}

impl Routes {
    /// Adds a route. The path `*` is the fallback. The error says why the path is refused.
    pub(super) fn add(&mut self, path: &str, route: Route) -> Result<(), &'static str> {
        const TAKEN: &str = "route already registered";
        if path == "*" {
            return self.fallback.replace(route).map_or(Ok(()), |_| Err(TAKEN));
        }
        if !path.starts_with('/') {
            return Err("a path must begin with /");
        }
        if let Some(pattern) = Pattern::parse(path)? {
            if self.patterns.iter().any(|(other, _)| other.is_same(&pattern)) {
                return Err(TAKEN);
            }
            let at = self.patterns.partition_point(|(other, _)| !pattern.goes_before(other));
            self.patterns.insert(at, (pattern, route));
            return Ok(());
        }
        if self.find_exact(path).is_some() {
            return Err(TAKEN);
        }
        self.exact.push((path.to_owned(), route));
        Ok(())
    }

    /// Finds the route of a path, and the path's parameters.
    pub(super) fn find(&self, path: &str) -> Option<(&Route, Parameters)> {
        if let Some(route) = self.find_exact(path) {
            return Some((route, Parameters::new()));
        }
        let matching = self.patterns.iter().find_map(|(pattern, route)| Some((route, pattern.matches(path)?)));
        matching.or_else(|| self.fallback.as_ref().map(|route| (route, Parameters::new())))
    }

    /// All hubs, each once.
    pub(super) fn hubs(&self) -> Vec<Hub> {
        let mut hubs: Vec<Hub> = Vec::new();
        let exact = self.exact.iter().map(|(_, route)| route);
        for route in exact.chain(self.patterns.iter().map(|(_, route)| route)).chain(&self.fallback) {
            let (Route::Clients(ClientRoute { hub, .. }) | Route::Health(hub) | Route::Ready(hub)) = route else {
                continue;
            };
            if !hubs.contains(hub) {
                hubs.push(hub.clone());
            }
        }
        hubs
    }

    fn find_exact(&self, path: &str) -> Option<&Route> {
        self.exact.iter().find(|(p, _)| p == path).map(|(_, route)| route)
    }
}

/// The answer of a probe: 200 or 503, and the hub's health as JSON either way.
pub(super) fn probe(hub: &Hub, is_good: bool, head: &RequestHead) -> Response {
    if !matches!(head.method(), "GET" | "HEAD") {
        return Response::text(405, "method not allowed\n").header("Allow", "GET, HEAD");
    }
    Response::json(if is_good { 200 } else { 503 }, &hub.health()).header("Cache-Control", "no-store")
}
