//! What is sent to one client, and how its connection is closed.

use std::time::Duration;

use super::client::Client;
use super::target::Target;
use crate::config::deadline_after;
use crate::error::{CloseError, HandlerError};
use crate::guard::{self, record};
use crate::message::{Message, SendError, SendJsonError};
use crate::outbox::{GaveUp, How, Sent};
use crate::trace;
use crate::ws::{check_close, close_code};

impl Client {
    /// Sends to this client and applies the hub's drop policy. Never blocks on the peer.
    ///
    /// # Errors
    ///
    /// - [`SendError::Closed`] if the client is closing or closed.
    /// - [`SendError::Full`] if the policy has dropped the message. With
    ///   [`DropPolicy::Disconnect`](crate::DropPolicy::Disconnect), the client's close has then begun.
    /// - [`SendError::Binary`] for a binary message on an event stream.
    pub fn send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        let message = message.into();
        let Some(frame) = self.encode(&message) else { return Err(SendError::Binary(message)) };
        let Some(outbox) = self.outbox() else { return Err(SendError::Closed(message)) };
        let span = trace::begin_send(|| Target::client(self.id()).to_string());
        match self.hub().send_one(&outbox, self, &frame) {
            sent @ (Sent::Queued | Sent::Evicted(_)) => {
                span.sent(1, dispose_evicted(sent), 0, false);
                self.hub().count_sent(1, message.len());
                Ok(())
            }
            Sent::Full | Sent::SlowConsumer => {
                span.sent(0, 1, 0, false);
                Err(SendError::Full(message))
            }
            Sent::Closed => Err(SendError::Closed(message)),
        }
    }

    /// Sends a value as JSON text; see [`send`](Client::send).
    ///
    /// # Errors
    ///
    /// [`SendJsonError::Serialize`] if the value's `Serialize` implementation fails, otherwise as
    /// [`send`](Client::send); the error then returns the message.
    pub fn send_json<T: serde::Serialize + ?Sized>(&self, value: &T) -> Result<(), SendJsonError> {
        let message = Message::json(value).map_err(SendJsonError::Serialize)?;
        self.send(message).map_err(SendJsonError::Send)
    }

    /// Sends to this client and blocks until the message fits into its queue, for at most `timeout`. Returns at once
    /// when the client closes. The drop policy does not apply.
    ///
    /// # Errors
    ///
    /// [`SendError::Timeout`], [`SendError::Closed`] or [`SendError::Binary`].
    pub fn send_timeout(&self, message: impl Into<Message>, timeout: Duration) -> Result<(), SendError> {
        let message = message.into();
        let deadline = deadline_after(timeout);
        let Some(frame) = self.encode(&message) else { return Err(SendError::Binary(message)) };
        let Some(outbox) = self.outbox() else { return Err(SendError::Closed(message)) };
        let span = trace::begin_send(|| Target::client(self.id()).to_string());
        match self.hub().send_one_waiting(&outbox, self, &frame, deadline) {
            Ok(()) => {
                span.sent(1, 0, 0, false);
                self.hub().count_sent(1, message.len());
                Ok(())
            }
            Err(GaveUp::Timeout) => {
                span.sent(0, 1, 0, false);
                Err(SendError::Timeout(message))
            }
            Err(GaveUp::Closed) => Err(SendError::Closed(message)),
        }
    }

    /// Closes the connection: sends the queued messages, then a close frame with this code and reason, then waits for
    /// the peer's answer, all within the close timeout. Returns at once. Closing again does nothing.
    ///
    /// An event stream has no close frame: it ends with a comment that contains the code and reason, and a browser
    /// reconnects.
    ///
    /// # Errors
    ///
    /// A [`CloseError`] if the code may not be sent or the reason is longer than 123 bytes. The connection stays open
    /// then.
    pub fn close(&self, code: u16, reason: &str) -> Result<(), CloseError> {
        check_close(code, reason)?;
        self.close_checked(code, reason);
        Ok(())
    }

    /// [`close`](Client::close) with a code and a reason that may be sent.
    pub(crate) fn close_checked(&self, code: u16, reason: &str) {
        self.close_how(code, reason, How::Now);
    }

    /// The same. [`How::Later`] leaves the flush to the caller.
    pub(super) fn close_how(&self, code: u16, reason: &str, how: How) {
        let Some(outbox) = self.outbox() else { return };
        if outbox.begin_close_later(Some((code, reason))) {
            if how == How::Now {
                outbox.flush();
            }
            // Before logging, because a slow logger must not keep the close from ending in time.
            self.hub().watch_close(self.id(), &outbox);
            record!(Debug, "wshub::conn", "{} closing with {code} {reason:?}", self.id());
            trace::note_close(self.id(), code, reason);
        }
    }

    /// Closes with the error's code and reason, or with 1011 if these may not be sent. Does nothing if the error does
    /// not ask for a close.
    pub(crate) fn close_as_asked(&self, error: &HandlerError) {
        if error.close_code().is_some_and(|code| self.close(code, error.close_reason()).is_err()) {
            self.close_checked(close_code::INTERNAL_ERROR, "");
        }
    }
}

/// Drops the evicted messages outside of any lock, because their payloads may be the application's memory. Returns
/// their number.
pub(super) fn dispose_evicted(sent: Sent) -> usize {
    let Sent::Evicted(old) = sent else { return 0 };
    let count = old.len();
    old.into_iter().for_each(guard::dispose);
    count
}
