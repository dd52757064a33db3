//! The reading side of an event stream. The only thing that it expects is the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{End, pings};
use crate::config::deadline_after;
use crate::hub::Client;
use crate::outbox::Outbox;
use crate::transport::is_timeout;
use crate::ws::Violation;

/// Maximum number of bytes that a peer may send after its request.
const TOLERATED: usize = 64 * 1024;

/// Waits for the peer to leave, and sends a comment as a heartbeat.
pub(super) fn watch(client: &Client, outbox: &Arc<Outbox>) -> End {
    let (pause, pong_timeout) = (client.hub().config().heartbeat, client.hub().config().pong_timeout);
    // A stream has no pongs. Acknowledged heartbeats show that the peer is alive.
    outbox.transport().set_user_timeout((!pong_timeout.is_zero()).then_some(pong_timeout));
    let mut close_by = None;
    let mut unasked = 0;
    loop {
        // Watches a close that began on this thread; the hub's close watch covers the others. After the last byte is
        // written, this loop waits for the peer's end.
        if !outbox.is_open() && close_by.is_none() {
            close_by = Some(deadline_after(client.hub().config().close_timeout));
        }
        let patience = match close_by {
            Some(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
            None => (!pause.is_zero()).then_some(pause),
        };
        if patience == Some(Duration::ZERO) {
            return End::CloseTimeout;
        }
        if let Err(error) = outbox.transport().set_read_timeout(patience) {
            return End::ReadError(error.kind());
        }
        match outbox.transport().read(&mut [0; 256]) {
            // Another thread sends the heartbeats. A failed heartbeat has cut the connection.
            Ok(0) if outbox.failure().is_some() => return End::PingFailed,
            Ok(0) => return End::Eof,
            Ok(n) => unasked += n,
            Err(error) if is_timeout(&error) => pings::send(outbox),
            Err(error) => return super::reader::read_error(&error),
        }
        if unasked > TOLERATED {
            return End::Violation(Violation::protocol("an event stream takes no input"));
        }
    }
}
