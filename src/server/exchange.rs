//! The first request of a connection: read it, within its limits, and give it to its route.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Shared;
use super::incoming::{Broken, Incoming};
use super::listener::Arrival;
use super::routes::{Door, Request, Route, probe};
use super::slots::Slot;
use crate::conn::{self, Opening, Upgraded};
use crate::guard::{self, record};
use crate::http::{RequestHead, Response};
use crate::log_limit::LogLimit;
use crate::metrics::ErrorType;
use crate::transport::{Peer, Transport};

static FAILURES: LogLimit = LogLimit::new();
static PANICS: LogLimit = LogLimit::new();

/// Sees to a connection's first request, whose route gives an answer or makes it a client. `slot` is its place among the
/// handshakes.
///
/// Not inlined, and the client is run by the caller: what the handshake had on the stack is gone by then.
#[inline(never)]
pub(super) fn serve(shared: &Arc<Shared>, arrival: Arrival, slot: Slot) -> Option<Upgraded> {
    let _slot = slot;
    let Arrival { transport, peer } = arrival;
    record!(Debug, "wshub::server", "{} accepted", Peer(peer));
    let incoming = Incoming { shared, transport: &transport, peer };
    match incoming.head() {
        Ok((mut head, rest)) => {
            head.set_remote_addr(peer);
            respond(shared, transport, head, rest)
        }
        Err(broken) => {
            give_up(shared, &transport, peer, broken);
            None
        }
    }
}

/// Answers a request that has not come or is none.
#[cold]
#[inline(never)]
fn give_up(shared: &Shared, transport: &Transport, peer: Option<SocketAddr>, broken: Broken) {
    let peer = Peer(peer);
    let Broken::Answer(response) = broken else {
        return record!(Debug, "wshub::server", "{peer} gone without a request");
    };
    shared.count_error(ErrorType::UpgradeFailed);
    let response = response.encode(false);
    if let Some(suppressed) = FAILURES.pass() {
        let status = response.status;
        record!(Info, "wshub::server", "bad request of {peer}: {status} ({suppressed} more not logged)");
    }
    transport.answer(&response.bytes);
}

fn respond(shared: &Shared, transport: Transport, head: RequestHead, rest: Vec<u8>) -> Option<Upgraded> {
    match shared.routes.find(head.path()) {
        Some(Route::Clients(door)) => upgrade(door, transport, head, &rest),
        route => {
            answer(shared, &transport, route, head, rest);
            None
        }
    }
}

/// What was asked for, if it is going to be logged.
fn told(head: &RequestHead) -> String {
    if log::max_level() >= log::Level::Debug { format!("{head:?}") } else { String::new() }
}

#[inline(never)]
fn answer(shared: &Shared, transport: &Transport, route: Option<&Route>, head: RequestHead, rest: Vec<u8>) {
    let (is_head, what, peer) = (head.method() == "HEAD", told(&head), Peer(head.remote_addr()));
    let response = match route {
        Some(route) => plain(shared, transport, route, head, rest),
        None => Response::text(404, "not found\n"),
    };
    let response = response.encode(is_head);
    record!(Debug, "wshub::server", "{what} of {peer} answered with {}", response.status);
    transport.answer(&response.bytes);
}

fn upgrade(door: &Door, transport: Transport, head: RequestHead, rest: &[u8]) -> Option<Upgraded> {
    let (format, checks) = (door.format, &door.checks[..]);
    let opening = Opening { head, format, is_early: !rest.is_empty(), checks, admission: None };
    conn::upgrade(&door.hub, transport, opening).ok()
}

fn plain(shared: &Shared, transport: &Transport, route: &Route, head: RequestHead, rest: Vec<u8>) -> Response {
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
        Err(Broken::Gone) => return Response::new(400),
    };
    let request = Request::new(head, body);
    guard::catch(|| handler(&request)).unwrap_or_else(|| {
        shared.count_error(ErrorType::Panic);
        if let Some(suppressed) = PANICS.pass() {
            let head = request.head();
            record!(Error, "wshub::server", "the handler of {head:?} panicked ({suppressed} more not logged)");
        }
        Response::text(500, "internal error\n")
    })
}
