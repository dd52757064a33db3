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
//! An event stream is open from its `200` on. It reads nothing, has no close frame, and its FIN follows what is queued.
//!
//! The close timeout is watched by this thread when it began the close itself, and by the hub's reaper when somebody
//! else did, because then this thread is blocked in a read.

mod accept;
mod event_stream;
mod reader;
mod upgrade;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use accept::{Accept, AcceptError};
pub(crate) use upgrade::{Upgraded, upgrade};

use crate::config::deadline_after;
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
    log::debug!(target: "wshub::conn", "{} connected from {:?}", client.id(), client.remote_addr());
    hub.announce(&client, announcements);
    let read = || match client.outbox().format() {
        WireFormat::WebSocket => Reader::new(&client, early).run(),
        WireFormat::EventStream => event_stream::watch(&client),
    };
    let end = catch_unwind(AssertUnwindSafe(read)).unwrap_or(End::Internal);
    finish(&hub, &client, &end);
}

/// From the end of reading to the end of everything.
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
        End::Eof | End::ReadError(_) | End::Silent | End::CloseTimeout | End::Internal => false,
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
}

/// Counts and logs the end.
fn record(hub: &Hub, client: &Client, end: &End) {
    let id = client.id();
    let errors = [read_error(end), write_error(client)];
    errors.into_iter().flatten().for_each(|error| hub.count_error(error));
    match (end, client.outbox().failure()) {
        (End::Internal, _) => log::error!(target: "wshub::conn", "{id} ended by a bug in wshub"),
        (_, Some(failure)) => log::debug!(target: "wshub::conn", "{id} ended: writing failed: {failure:?}"),
        (End::ReadError(kind), _) => log::debug!(target: "wshub::conn", "{id} ended: reading failed: {kind:?}"),
        (End::Silent, _) => log::debug!(target: "wshub::conn", "{id} ended: nothing heard for the pong timeout"),
        (End::PeerClosed(frame), _) => {
            log::debug!(target: "wshub::conn", "{id} ended: closed with {:?} {:?}", frame.code, frame.reason);
        }
        (end, _) => log::debug!(target: "wshub::conn", "{id} ended: {end:?}"),
    }
}

fn read_error(end: &End) -> Option<ErrorType> {
    match end {
        End::Violation(_) => Some(ErrorType::ProtocolError),
        End::ReadError(_) => Some(ErrorType::ReadError),
        End::Silent => Some(ErrorType::ReadDeadlineError),
        End::Internal => Some(ErrorType::Panic),
        End::PeerClosed(_) | End::Eof | End::CloseTimeout => None,
    }
}

fn write_error(client: &Client) -> Option<ErrorType> {
    client.outbox().failure().map(|failure| match failure {
        WriteFailure::Timeout => ErrorType::WriteDeadlineError,
        WriteFailure::Error(_) | WriteFailure::NoThread => ErrorType::WriteError,
    })
}
