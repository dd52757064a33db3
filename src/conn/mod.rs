//! One connection's life, from the answer to the upgrade to the end, on one thread.
//!
//! | state | entered by | reads | writes | left by |
//! | --- | --- | --- | --- | --- |
//! | registered | `register`: limits, user, rooms | – | held back | 101 written → open |
//! | open | `Outbox::open` | messages → handlers | messages, pongs, pings | a close from either side, an error, a timeout |
//! | closing (we began) | `Client::close`, drain, shutdown, slow consumer | discarded until the peer's close frame | queue, then the close frame | peer's close frame, close timeout |
//! | closing (peer began) | the peer's close frame | – | queue, then the answer | answer written, close timeout |
//! | failed | a protocol violation | – | queue, then the close frame | close frame written, close timeout |
//! | dead | EOF, read or write error, a missed deadline | – | – | at once, to ended |
//! | finished | the last close frame is written | – | `close_notify` over TLS, FIN | `unregister`, the last hooks |
//! | lingering | after the last hooks of a finished connection | discarded | – | peer's FIN, what is left of the close timeout |
//! | ended | lingering or dead | – | – | socket closed, thread gone |
//!
//! An event stream is open from its `200` on and has no close frame: `close_notify` and FIN follow the queue. Its
//! thread keeps reading until the peer's FIN, so it needs no lingering state.
//!
//! The close timeout is watched by the connection's thread if the close began on it, else by the hub's close watch,
//! because the connection's thread may be blocked in a read.

mod accept;
mod event_stream;
mod pings;
mod reader;
mod upgrade;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use accept::{AcceptError, PendingConnection};
pub(crate) use upgrade::{Opening, Upgraded, upgrade};

use crate::config::deadline_after;
use crate::error::HandlerError;
use crate::guard::{self, record, record_limited};
use crate::handover::handover;
use crate::headroom;
use crate::http::overloaded;
use crate::hub::{Announcements, Client, ConnectionThread, Hub};
use crate::message::WireFormat;
use crate::metrics::ErrorType;
use crate::outbox::{Outbox, WriteFailure};
use crate::transport::is_gone;
use crate::ws::{CloseFrame, Violation, close_code};
use reader::Reader;

/// The name of the threads that run connections.
const THREAD_NAME: &str = "wshub-conn";

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The peer's close frame has arrived.
    PeerClosed(CloseFrame),
    /// The peer has left without a close frame.
    Eof,
    Violation(Violation),
    ReadError(io::ErrorKind),
    /// The peer has sent nothing for `pong_timeout`.
    Silent,
    /// The ping to a silent peer could not be sent.
    PingFailed,
    /// This side began to close, and the peer has not answered in time.
    CloseTimeout,
    /// A bug in this crate, caught so that it ends only this connection.
    Internal,
}

/// Runs an upgraded connection on the calling thread until it has ended. `early` holds the bytes read after the
/// request.
pub(crate) fn run(upgraded: Upgraded, early: &[u8]) {
    let mut connection = Connection::begin(upgraded);
    // Whatever fails here, dropping the connection ends it.
    connection.end = guard::catch(|| connection.live(early)).unwrap_or(End::Internal);
}

/// Sends the answer to the upgrade and runs the connection on a thread of its own. Drops `kept` at the connection's
/// end.
///
/// The connection's thread does no handshake, so no stack pages that only a handshake needs stay resident. It also
/// sends nothing by itself: Linux keeps a 32 KiB buffer for each thread that sends on TCP, until the thread ends.
/// Threads that serve many connections send the answer to the upgrade and the [pings].
///
/// # Errors
///
/// The thread could not be started. The client has then never been connected, and the peer has received a 503.
pub(crate) fn start(upgraded: Upgraded, stack: usize, kept: impl Send + 'static) -> io::Result<()> {
    let (giver, taker) = handover::<Upgraded>();
    let thread = move || {
        if let Some(upgraded) = taker.take() {
            run(upgraded, &[]);
        }
        drop(kept);
    };
    if let Err(error) = headroom::spawn(THREAD_NAME, stack, thread) {
        withdraw(upgraded);
        return Err(error);
    }
    upgraded.outbox.answer();
    giver.give(upgraded);
    Ok(())
}

/// Undoes the registration of a connection that gets no thread. The 101 was held back, so the peer gets a 503 instead.
fn withdraw(upgraded: Upgraded) {
    let outbox = Arc::clone(&upgraded.outbox);
    drop(upgraded);
    outbox.transport().answer(&overloaded().encode(false).bytes, || true);
}

/// A running connection. Dropping it takes every step of its end: the close handshake, `unregister`, the outbox, the
/// writer thread, the last hooks, the socket. Panics are caught in each step, so a panic of the application or of this
/// crate leaves nothing behind.
struct Connection {
    client: Client,
    outbox: Arc<Outbox>,
    announcements: Option<Announcements>,
    end: End,
    _thread: ConnectionThread,
}

impl Connection {
    fn begin(upgraded: Upgraded) -> Self {
        let (client, outbox, announcements) = upgraded.into_parts();
        let thread = Hub::run_on_this_thread(client.id());
        Self { client, outbox, announcements: Some(announcements), end: End::Internal, _thread: thread }
    }

    fn live(&mut self, early: &[u8]) -> End {
        self.outbox.open();
        record!(Debug, "wshub::conn", "{} connected as {}", self.client.id(), UserLabel(&self.client));
        if let Some(announcements) = self.announcements.take() {
            self.client.hub().announce(&self.client, announcements);
        }
        match self.outbox.format() {
            WireFormat::EventStream | WireFormat::PlainEventStream => event_stream::watch(&self.client, &self.outbox),
            WireFormat::WebSocket | WireFormat::Deflate(_) => Reader::new(&self.client, &self.outbox).run(early),
        }
    }

    /// Completes the close handshake and sends FIN, or cuts the connection. Returns how long to wait for the peer's
    /// FIN; `None` for a connection that is cut.
    fn close(&self) -> Option<Duration> {
        let deadline = deadline_after(self.client.hub().config().close_timeout);
        let is_orderly = match &self.end {
            End::PeerClosed(frame) => {
                self.outbox.begin_close(frame.code.map(|code| (code, "")));
                self.outbox.wait_close_sent(deadline)
            }
            End::Violation(violation) => {
                let own = self.client.hub().config().violation_code;
                let is_mapped = own != 0 && violation.code != close_code::MESSAGE_TOO_BIG;
                let code = if is_mapped { own } else { violation.code };
                self.outbox.begin_close(Some((code, violation.reason)));
                self.outbox.wait_close_sent(deadline)
            }
            // TLS has sent an alert, which must arrive: RFC 8446 §6.2.
            End::ReadError(io::ErrorKind::InvalidData) => true,
            End::Eof => {
                // Answers a `close_notify` (RFC 8446 §6.1). The peer has already ended, so there is nothing to wait
                // for.
                let _ = self.outbox.transport().try_finish();
                false
            }
            End::ReadError(_) | End::Silent | End::PingFailed | End::CloseTimeout | End::Internal => false,
        };
        if is_orderly && !self.outbox.is_dead() {
            // The peer learns of the end before the hooks run, however slow they are.
            let _ = self.outbox.transport().finish();
            Some(deadline.saturating_duration_since(Instant::now()))
        } else {
            self.outbox.kill();
            None
        }
    }
}

impl Drop for Connection {
    /// Not inlined, so that its stack is touched only at the end.
    #[inline(never)]
    fn drop(&mut self) {
        let (hub, client, outbox) = (self.client.hub(), &self.client, &self.outbox);
        let linger = guard::catch(|| self.close()).flatten();
        guard::catch(|| record(client, outbox, &self.end));
        hub.unregister(client);
        outbox.end();
        outbox.stop_writer();
        hub.retire(client, outbox.lost());
        if let Some(time) = linger {
            // The time counts from here, so slow hooks do not shorten it.
            hub.begin_linger(client.id(), outbox);
            outbox.transport().linger(time, || true);
        }
        outbox.kill();
        let lasted = client.connected_at().elapsed().unwrap_or_default();
        record!(Debug, "wshub::conn", "{} disconnected after {lasted:?}", client.id());
        hub.connection_is_over(client);
    }
}

/// A client's user, for log records.
struct UserLabel<'a>(&'a Client);

impl fmt::Display for UserLabel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.user_id() {
            Some(user) => write!(f, "user {user:?}"),
            None => f.write_str("anonymous"),
        }
    }
}

/// Counts, logs and reports the end.
fn record(client: &Client, outbox: &Outbox, end: &End) {
    let (hub, id) = (client.hub(), client.id());
    match end {
        End::PeerClosed(frame) => {
            record!(Debug, "wshub::conn", "{id} ended: closed with {:?} {:?}", frame.code, frame.reason);
        }
        End::Internal => record_limited!(Error, "wshub::conn", "{id} ended by a bug in wshub"),
        end => record!(Debug, "wshub::conn", "{id} ended: {end:?}"),
    }
    for (error, what) in [reading_failed(end), writing_failed(outbox, end)].into_iter().flatten() {
        hub.count_error(error);
        record!(Debug, "wshub::conn", "{id}: {what}");
        hub.report_error(client, &HandlerError::new(what).counted_as(error));
    }
}

type Failure = (ErrorType, String);

fn reading_failed(end: &End) -> Option<Failure> {
    match end {
        End::Violation(violation) => {
            Some((ErrorType::ProtocolError, format!("the peer broke the protocol: {}", violation.reason)))
        }
        End::ReadError(kind) => Some((ErrorType::ReadError, format!("reading failed: {kind}"))),
        End::Silent => Some((ErrorType::ReadDeadlineError, "no data received within `pong_timeout`".into())),
        End::Internal => Some((ErrorType::Panic, "a bug in wshub".into())),
        End::PeerClosed(_) | End::Eof | End::PingFailed | End::CloseTimeout => None,
    }
}

fn writing_failed(outbox: &Outbox, end: &End) -> Option<Failure> {
    let is_ping = matches!(end, End::PingFailed);
    let error = if is_ping { ErrorType::PingError } else { ErrorType::WriteError };
    match outbox.failure()? {
        WriteFailure::Timeout => {
            Some((ErrorType::WriteDeadlineError, "no write progress within `write_timeout`".into()))
        }
        // An ordinary departure, seen by a write before a read.
        WriteFailure::Error(kind) if is_gone(kind) => None,
        WriteFailure::Error(kind) => Some((error, format!("writing failed: {kind}"))),
    }
}
