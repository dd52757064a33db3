//! One connection's life, on one thread from the upgrade to the end.
//!
//! | state | entered by | reads | writes | left by |
//! | --- | --- | --- | --- | --- |
//! | registered | `register`: limits, user, rooms | – | held back | 101 written → open |
//! | open | `Outbox::open` | messages → handlers | messages, pongs, pings | a close from either side, an error, a timeout |
//! | closing (we began) | `Client::close`, drain, shutdown, slow consumer | discarded until the peer's close frame | queue, then the close frame | peer's close frame, close timeout |
//! | closing (peer began) | the peer's close frame | – | queue, then the answer | answer written, close timeout |
//! | failed | a protocol violation | discarded | queue, then the close frame, FIN | peer's FIN, close timeout |
//! | dead | EOF, read or write error, a missed deadline | – | – | at once |
//! | ended | all of these | – | – | hooks, socket closed, thread gone |
//!
//! An event stream is open from its `200` on. It reads nothing and has no close frame: FIN follows what is queued, and then
//! it is dead.
//!
//! The close timeout is watched by this thread when it began the close itself, and by the hub's reaper when somebody
//! else did, because then this thread is blocked in a read.

mod accept;
mod event_stream;
mod reader;
mod upgrade;

use std::fmt;
use std::io;

pub use accept::{Accept, AcceptError};
pub(crate) use upgrade::{Opening, Upgraded, upgrade};

use crate::config::deadline_after;
use crate::error::HandlerError;
use crate::guard::{self, record};
use crate::hub::{Client, Hub};
use crate::message::WireFormat;
use crate::metrics::ErrorType;
use crate::outbox::WriteFailure;
use crate::ws::{CloseFrame, Violation};
use reader::Reader;

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The peer's close frame has come.
    PeerClosed(CloseFrame),
    /// The peer is gone without one.
    Eof,
    Violation(Violation),
    ReadError(io::ErrorKind),
    /// The peer has sent nothing for the pong timeout.
    Silent,
    /// The ping to a silent peer could not be sent.
    PingFailed,
    /// We have begun to close and the peer has not answered in time.
    CloseTimeout,
    /// A bug of ours, caught so that it ends only this connection.
    Internal,
}

/// Runs an upgraded connection until it has ended. `early` is what was read behind the request.
pub(crate) fn run(upgraded: Upgraded, early: &[u8]) {
    let Upgraded { client, announcements } = upgraded;
    let hub = client.hub().clone();
    let _own = Hub::own_thread(&client);
    client.outbox().open();
    record!(Debug, "wshub::conn", "{} connected as {}", client.id(), Who(&client));
    hub.announce(&client, announcements);
    let read = || match client.outbox().format() {
        WireFormat::EventStream | WireFormat::PlainEventStream => event_stream::watch(&client),
        WireFormat::WebSocket | WireFormat::Deflate(_) => Reader::new(&client, early).run(),
    };
    let end = guard::catch(read).unwrap_or(End::Internal);
    finish(&hub, &client, &end);
}

/// From the end of reading to the end of everything. Not inlined, so that its stack is touched only then.
#[inline(never)]
fn finish(hub: &Hub, client: &Client, end: &End) {
    let outbox = client.outbox();
    let deadline = deadline_after(hub.config().close_timeout);
    let is_orderly = match end {
        End::PeerClosed(frame) => {
            outbox.begin_close(frame.code.map(|code| (code, "")));
            outbox.wait_close_sent(deadline)
        }
        End::Violation(violation) => {
            outbox.begin_close(Some((violation.code, violation.reason)));
            outbox.wait_close_sent(deadline)
        }
        End::Eof | End::ReadError(_) | End::Silent | End::PingFailed | End::CloseTimeout | End::Internal => false,
    };
    if is_orderly {
        // The peer learns of the end before the hooks run, however slow they are.
        outbox.transport().finish();
    } else {
        outbox.kill();
    }
    record(hub, client, end);
    hub.unregister(client);
    if is_orderly && matches!(end, End::Violation(_)) {
        outbox.transport().linger(deadline);
    }
    outbox.kill();
    outbox.stop_writer();
    hub.retire(client);
    let lasted = client.connected_at().elapsed().unwrap_or_default();
    record!(Debug, "wshub::conn", "{} gone after {lasted:?}", client.id());
}

/// A client's user, for log records.
struct Who<'a>(&'a Client);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.user_id() {
            Some(user) => write!(f, "user {user:?}"),
            None => f.write_str("nobody"),
        }
    }
}

/// Counts, logs and tells the end.
fn record(hub: &Hub, client: &Client, end: &End) {
    let id = client.id();
    match end {
        End::PeerClosed(frame) => {
            record!(Debug, "wshub::conn", "{id} ended: closed with {:?} {:?}", frame.code, frame.reason);
        }
        End::Internal => record!(Error, "wshub::conn", "{id} ended by a bug in wshub"),
        end => record!(Debug, "wshub::conn", "{id} ended: {end:?}"),
    }
    for (error, what) in [reading_failed(end), writing_failed(client, end)].into_iter().flatten() {
        hub.count_error(error);
        record!(Debug, "wshub::conn", "{id}: {what}");
        hub.report_error(client, &HandlerError::from(what).counted_as(error));
    }
}

type Failure = (ErrorType, String);

fn reading_failed(end: &End) -> Option<Failure> {
    match end {
        End::Violation(violation) => {
            Some((ErrorType::ProtocolError, format!("the peer broke the protocol: {}", violation.reason)))
        }
        End::ReadError(kind) => Some((ErrorType::ReadError, format!("reading failed: {kind}"))),
        End::Silent => Some((ErrorType::ReadDeadlineError, "nothing heard for the pong timeout".into())),
        End::Internal => Some((ErrorType::Panic, "a bug in wshub".into())),
        End::PeerClosed(_) | End::Eof | End::PingFailed | End::CloseTimeout => None,
    }
}

fn writing_failed(client: &Client, end: &End) -> Option<Failure> {
    let is_ping = matches!(end, End::PingFailed);
    let error = if is_ping { ErrorType::PingError } else { ErrorType::WriteError };
    match client.outbox().failure()? {
        WriteFailure::Timeout => Some((ErrorType::WriteDeadlineError, "a write made no progress in time".into())),
        WriteFailure::Error(kind) => Some((error, format!("writing failed: {kind}"))),
        WriteFailure::NoThread => Some((error, "there is no thread for writing".into())),
    }
}
