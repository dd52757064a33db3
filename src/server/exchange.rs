//! The first request of a connection: read it, within its limits, and give it to its route.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::routes::{Door, Request, Route, probe};
use super::slots::Slot;
use crate::config::deadline_after;
use crate::conn::{self, Opening, Upgraded};
use crate::guard::{self, record};
use crate::http::{HeadError, RequestHead, Response};
use crate::log_limit::LogLimit;
use crate::metrics::ErrorType;
use crate::transport::{Peer, Transport, is_timeout};

/// A read wakes up this often to see whether the server stops.
const SLICE: Duration = Duration::from_millis(250);
/// Bytes of one read. Above what glibc's allocator keeps for each thread, so that it is shared after the handshake.
const CHUNK: usize = 2048;

static FAILURES: LogLimit = LogLimit::new();

/// Why no request came.
enum Broken {
    /// The peer is gone: nobody to answer to.
    Gone,
    /// The answer that says why.
    Answer(Response),
}

impl From<HeadError> for Broken {
    fn from(error: HeadError) -> Self {
        Self::answer(error.status(), error.reason())
    }
}

impl Broken {
    fn answer(status: u16, reason: &str) -> Self {
        Self::Answer(Response::text(status, format!("{reason}\n")))
    }
}

/// Sees to a connection's first request, whose route gives an answer or makes it a client. `slot` is its place among the
/// handshakes.
///
/// Not inlined, and the client is run by the caller: what the handshake had on the stack is gone by then.
#[inline(never)]
pub(super) fn serve(shared: &Arc<Shared>, transport: Transport, slot: Slot) -> Option<Upgraded> {
    let _slot = slot;
    record!(Debug, "wshub::server", "{} accepted", Peer(transport.peer_addr()));
    let incoming = Incoming { shared, transport: &transport, deadline: deadline_after(shared.handshake_timeout) };
    match incoming.head() {
        Ok((head, rest)) => respond(shared, transport, head, rest),
        Err(broken) => {
            give_up(shared, &transport, &broken);
            None
        }
    }
}

/// Answers a request that has not come or is none.
#[cold]
#[inline(never)]
fn give_up(shared: &Shared, transport: &Transport, broken: &Broken) {
    let peer = Peer(transport.peer_addr());
    let Broken::Answer(response) = broken else {
        return record!(Debug, "wshub::server", "{peer} gone without a request");
    };
    shared.count_error(ErrorType::UpgradeFailed);
    if let Some(suppressed) = FAILURES.pass() {
        let status = response.status();
        record!(Info, "wshub::server", "bad request of {peer}: {status} ({suppressed} more not logged)");
    }
    transport.answer(&response.encode(true));
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
fn answer(shared: &Shared, transport: &Transport, route: Option<&Route>, mut head: RequestHead, rest: Vec<u8>) {
    head.set_remote_addr(transport.peer_addr());
    let (with_body, what) = (head.method() != "HEAD", told(&head));
    let response = match route {
        Some(route) => plain(shared, transport, route, head, rest),
        None => Response::text(404, "not found\n"),
    };
    record!(Debug, "wshub::server", "{what} of {} answered with {}", Peer(transport.peer_addr()), response.status());
    transport.answer(&response.encode(with_body));
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
    let incoming = Incoming { shared, transport, deadline: deadline_after(shared.handshake_timeout) };
    let body = match incoming.body(&head, rest) {
        Ok(body) => body,
        Err(Broken::Answer(response)) => return response,
        Err(Broken::Gone) => return Response::new(400),
    };
    let request = Request::new(head, body);
    guard::catch(|| handler(&request)).unwrap_or_else(|| {
        shared.count_error(ErrorType::Panic);
        record!(Error, "wshub::server", "the handler of {:?} panicked", request.head());
        Response::text(500, "internal error\n")
    })
}

/// Reads a request under a deadline.
struct Incoming<'a> {
    shared: &'a Shared,
    transport: &'a Transport,
    deadline: Instant,
}

impl Incoming<'_> {
    /// The head, and what came behind it.
    fn head(&self) -> Result<(RequestHead, Vec<u8>), Broken> {
        let mut bytes = Vec::with_capacity(CHUNK);
        loop {
            self.read(&mut bytes, CHUNK)?;
            if let Some((head, length)) = RequestHead::parse(&bytes)? {
                return Ok((head, bytes.split_off(length)));
            }
        }
    }

    /// The body, of which `bytes` have come already.
    fn body(&self, head: &RequestHead, mut bytes: Vec<u8>) -> Result<Vec<u8>, Broken> {
        if head.header("transfer-encoding").is_some() {
            return Err(Broken::answer(411, "a body needs a Content-Length"));
        }
        let length = usize::try_from(head.content_length()?).unwrap_or(usize::MAX);
        if length > self.shared.max_body {
            return Err(Broken::answer(413, "body too large"));
        }
        if bytes.len() < length && head.has_token("expect", "100-continue") {
            let _ = self.transport.try_send(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        while bytes.len() < length {
            // Memory follows what arrives.
            let step = (length - bytes.len()).min(8 * CHUNK);
            self.read(&mut bytes, step)?;
        }
        // What follows would be a second request: every answer closes the connection.
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Appends at least one byte and at most `most`.
    fn read(&self, bytes: &mut Vec<u8>, most: usize) -> Result<(), Broken> {
        let start = bytes.len();
        bytes.resize(start + most, 0);
        let n = self.read_some(&mut bytes[start..]);
        bytes.truncate(start + n.as_ref().unwrap_or(&0));
        n.map(|_| ())
    }

    /// The handshake has failed; TLS has told the peer so by itself.
    fn report_tls(&self, error: &io::Error) {
        self.shared.count_error(ErrorType::UpgradeFailed);
        if let Some(suppressed) = FAILURES.pass() {
            let peer = self.transport.peer_addr();
            record!(Info, "wshub::server", "no TLS with {peer:?}: {error} ({suppressed} more not logged)");
        }
    }

    fn read_some(&self, buffer: &mut [u8]) -> Result<usize, Broken> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Broken::answer(408, "the request did not come in time"));
            }
            if self.shared.is_stopping() {
                return Err(Broken::answer(503, "shutting down"));
            }
            let timed = self.transport.set_read_timeout(Some(left.min(SLICE)));
            match timed.and_then(|()| self.transport.read(buffer)) {
                Ok(0) => return Err(Broken::Gone),
                Ok(n) => return Ok(n),
                Err(e) if is_timeout(&e) => {}
                Err(e) => {
                    if e.kind() == io::ErrorKind::InvalidData {
                        self.report_tls(&e);
                    }
                    return Err(Broken::Gone);
                }
            }
        }
    }
}
