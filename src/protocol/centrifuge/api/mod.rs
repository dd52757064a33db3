//! The HTTP API for other programs. Requests and answers match Centrifugo's, so its client libraries work.

mod answer;
mod idempotency;
mod methods;
mod request;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use subtle::{Choice, ConstantTimeEq};

use crate::server::Request;
use crate::{Hub, Response, Server};
use idempotency::Idempotency;

/// The subject of requests that one node passes on to the others.
pub(super) const REQUESTS: &str = "centrifuge.api";

/// The HTTP API: `POST PREFIX/METHOD` with a JSON object, for example `POST /api/publish` with
/// `{"channel":"news","data":{"text":"hi"}}`.
///
/// Methods: `publish`, `broadcast`, `subscribe`, `unsubscribe`, `disconnect`, `presence`, `presence_stats`, `history`,
/// `history_remove`, `channels`, `info`. The answer is 200 with `{"result":…}` or `{"error":{"code","message"}}`.
///
/// A request needs one of the keys, as `X-API-Key: KEY` or as `Authorization: apikey KEY`; otherwise the answer is 401.
/// If no key is set, every request gets 401. A publication with an `idempotency_key` is made only once within five
/// minutes for each channel. At most 10,000 keys are kept; the oldest is dropped first.
///
/// ```
/// use wshub::protocol::centrifuge::{Api, Centrifuge};
/// use wshub::{Hub, Server};
/// let hub = Centrifuge::new().install(Hub::builder()).build()?;
/// let server = Server::bind("127.0.0.1:0")?.websocket("/connection/websocket", &hub);
/// let server = Api::new(&hub).key("secret").mount(server, "/api");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "it does nothing until it is mounted"]
pub struct Api {
    hub: Hub,
    keys: Vec<String>,
}

impl Api {
    /// Creates the API of a hub, without a key.
    pub fn new(hub: &Hub) -> Self {
        Self { hub: hub.clone(), keys: Vec::new() }
    }

    /// Adds a key. An empty key is ignored.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.keys.extend(Some(key.into()).filter(|key| !key.is_empty()));
        self
    }

    /// Adds a route for each method below a prefix, for example `/api`.
    pub fn mount(self, server: Server, prefix: &str) -> Server {
        let idempotency = Arc::new(Idempotency::default());
        let keys: Arc<[String]> = self.keys.into();
        methods::ALL.iter().fold(server, |server, method| {
            let (hub, keys, idempotency) = (self.hub.clone(), Arc::clone(&keys), Arc::clone(&idempotency));
            server.handle(&format!("{}/{}", prefix.trim_end_matches('/'), method.name), move |request| {
                answer(&hub, &keys, &idempotency, method, request)
            })
        })
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("hub", &self.hub).field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

fn answer(
    hub: &Hub,
    keys: &[String],
    idempotency: &Idempotency,
    method: &methods::Method,
    request: &Request,
) -> Response {
    if request.head().method() != "POST" {
        return Response::text(405, "method not allowed\n").header("Allow", "POST");
    }
    if !is_known(keys, request) {
        return Response::text(401, "unauthorized\n").header("WWW-Authenticate", "apikey");
    }
    let response = (method.run)(&methods::Call { hub, idempotency, body: request.body() });
    let body = std::str::from_utf8(request.body()).ok().filter(|_| method.is_for_all && response.status() == 200);
    if let Some(body) = body {
        let passed = Passed { method: method.name.to_owned(), body: body.to_owned() };
        hub.tell_nodes(REQUESTS, &serde_json::to_string(&passed).unwrap_or_default());
    }
    response
}

/// A request that concerns the clients of every node.
#[derive(Serialize, Deserialize)]
struct Passed {
    method: String,
    body: String,
}

/// Runs a request that another node has passed on. The caller gets the answer of that node.
pub(super) fn hear_request(hub: &Hub, data: &str) {
    let Ok(Passed { method, body }) = serde_json::from_str(data) else { return };
    if let Some(method) = methods::ALL.iter().find(|known| known.name == method && known.is_for_all) {
        (method.run)(&methods::Call { hub, idempotency: &Idempotency::default(), body: body.as_bytes() });
    }
}

/// Compares with every key in constant time; only a wrong length is observable.
fn is_known(keys: &[String], request: &Request) -> bool {
    let head = request.head();
    let of_scheme = |value: &str| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("apikey").then(|| key.trim().to_owned())
    };
    let given = head.header("x-api-key").map(str::to_owned);
    let given = given.or_else(|| head.header("authorization").and_then(of_scheme)).unwrap_or_default();
    let equal = |key: &String| key.as_bytes().ct_eq(given.as_bytes());
    keys.iter().map(equal).fold(Choice::from(0), |any, one| any | one).into()
}
