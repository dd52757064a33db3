//! The first request of a connection: reads it, within its limits, and passes it to its route.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Running;
use super::incoming::{Broken, Clock, Incoming};
use super::listener::Arrival;
use super::proxy_protocol::Source;
use super::routes::{ClientRoute, Request, Route, probe};
use super::slots::Slot;
use crate::conn::{self, Opening, Upgraded};
use crate::guard::{self, record, record_limited};
use crate::http::{RequestHead, Response, overloaded};
use crate::log_limit::LogLimit;
use crate::metrics::ErrorType;
use crate::transport::{Peer, Transport};

static FAILURES: LogLimit = LogLimit::new();

/// Handles the first request of a connection: its route answers it, or upgrades it to a client. `slot` is the
/// connection's place among the handshakes.
///
/// Not inlined, and the caller runs the client, so that the stack of the handshake is free by then.
#[inline(never)]
pub(super) fn serve(shared: &Arc<Running>, arrival: Arrival, slot: Slot) -> Option<Upgraded> {
    let mut slot = slot;
    record!(Debug, "wshub::server", "{} accepted", Peer(arrival.peer));
    match read_head(shared, &arrival, &mut slot) {
        Ok((head, rest)) => respond(shared, arrival.transport, head, rest),
        Err((peer, broken)) => {
            give_up(shared, &arrival.transport, peer, broken);
            None
        }
    }
}

/// Reads the head, sets the client's address, and returns what arrived behind it. Errors carry the address for the log.
fn read_head(
    shared: &Running,
    arrival: &Arrival,
    slot: &mut Slot,
) -> Result<(RequestHead, Vec<u8>), (Option<SocketAddr>, Broken)> {
    let mut incoming = Incoming { shared, transport: &arrival.transport, peer: arrival.peer };
    let clock = Clock::of_head(shared.handshake_timeout);
    if arrival.has_proxy_header {
        match incoming.proxy_header(&clock).map_err(|broken| (arrival.peer, broken))? {
            Source::Client(addr) => incoming.peer = Some(addr),
            Source::Unix => incoming.peer = None,
            Source::Peer => {}
        }
        assign(shared, slot, incoming.peer)?;
    }
    let (mut head, rest) = incoming.head(&clock).map_err(|broken| (incoming.peer, broken))?;
    let client = shared.proxies.client_addr(&head, incoming.peer);
    if client != incoming.peer {
        assign(shared, slot, client)?;
    }
    head.set_remote_addr(client);
    Ok((head, rest))
}

/// Counts the handshake for this client's address.
fn assign(shared: &Running, slot: &mut Slot, client: Option<SocketAddr>) -> Result<(), (Option<SocketAddr>, Broken)> {
    if slot.assign(client, shared.max_handshakes_per_address) {
        return Ok(());
    }
    shared.count_error(ErrorType::ConnectionLimit);
    Err((client, Broken::Answer(overloaded())))
}

/// Answers a request that is incomplete or malformed.
#[cold]
#[inline(never)]
fn give_up(shared: &Running, transport: &Transport, peer: Option<SocketAddr>, broken: Broken) {
    let peer = Peer(peer);
    let (reason, answer) = match broken {
        Broken::Gone => return record!(Debug, "wshub::server", "{peer} disconnected before sending a request"),
        Broken::Nonsense(reason) => (reason.to_owned(), None),
        Broken::Answer(response) => {
            let response = response.encode(false);
            (response.status.to_string(), Some(response.bytes))
        }
    };
    shared.count_error(ErrorType::UpgradeFailed);
    if let Some(suppressed) = FAILURES.pass() {
        record!(Info, "wshub::server", "bad request of {peer}: {reason} ({suppressed} more not logged)");
    }
    if let Some(bytes) = answer {
        transport.answer(&bytes, || !shared.is_stopping());
    }
}

fn respond(shared: &Running, transport: Transport, head: RequestHead, rest: Vec<u8>) -> Option<Upgraded> {
    let mut head = head;
    let (route, parameters) = shared.routes.find(head.path()).unzip();
    head.set_path_params(parameters.unwrap_or_default());
    if let Some(Route::Clients(route)) = route {
        return upgrade(route, transport, head, &rest);
    }
    answer(shared, &transport, route, head, rest);
    None
}

/// The request line, if the log level needs it.
fn describe(head: &RequestHead) -> String {
    if log::max_level() >= log::Level::Debug { format!("{head:?}") } else { String::new() }
}

#[inline(never)]
fn answer(shared: &Running, transport: &Transport, route: Option<&Route>, head: RequestHead, rest: Vec<u8>) {
    let (is_head, what, peer) = (head.method() == "HEAD", describe(&head), Peer(head.remote_addr()));
    let response = match route {
        Some(route) => plain(shared, transport, route, head, rest),
        None => Response::text(404, "not found\n"),
    };
    let response = response.encode(is_head);
    record!(Debug, "wshub::server", "{what} of {peer} answered with {}", response.status);
    transport.answer(&response.bytes, || !shared.is_stopping());
}

fn upgrade(route: &ClientRoute, transport: Transport, head: RequestHead, rest: &[u8]) -> Option<Upgraded> {
    let ClientRoute { hub, format, checks, admit } = route;
    let (is_early, admit) = (!rest.is_empty(), admit.as_ref());
    let opening = Opening { head, format: *format, is_early, checks, admit, admission: None };
    conn::upgrade(hub, transport, opening).ok()
}

fn plain(shared: &Running, transport: &Transport, route: &Route, head: RequestHead, rest: Vec<u8>) -> Response {
    let handler = match route {
        Route::Health(hub) => return probe(hub, hub.alive(), &head),
        Route::Ready(hub) => return probe(hub, hub.ready(), &head),
        Route::Clients(_) => return Response::new(500),
        Route::Handler(handler) => handler,
    };
    let incoming = Incoming { shared, transport, peer: head.remote_addr() };
    let body = match incoming.body(&head, rest) {
        Ok(body) => body,
        Err(Broken::Answer(response)) => return response,
        Err(Broken::Gone | Broken::Nonsense(_)) => return Response::new(400),
    };
    let request = Request::new(head, body);
    guard::catch(|| handler(&request)).unwrap_or_else(|| {
        shared.count_error(ErrorType::Panic);
        record_limited!(Error, "wshub::server", "the handler of {:?} panicked", request.head());
        Response::text(500, "internal error\n")
    })
}
