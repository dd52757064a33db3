//! One connection of a user or a device, as handlers get it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::RelayMessage;
use super::types::{Conn, Relay, SESSION, Session};
use crate::Client;

impl Drop for Session {
    /// Returns the device if the upgrade fails later.
    fn drop(&mut self) {
        if let Some(device) = &self.identity.device {
            self.inner.devices.cancel(device, self.place);
        }
    }
}

impl Conn {
    /// Returns the relay connection of a client; `None` if its hub has no relay.
    pub fn of(client: &Client) -> Option<Self> {
        let session: Arc<Session> = client.metadata(SESSION)?;
        let relay = Relay::new(Arc::clone(&session.inner), client.hub().clone());
        Some(Self { relay, client: client.clone(), session })
    }

    /// The relay.
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// The client of the hub.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The user; for a device's relay, the user that runs it.
    pub fn user(&self) -> &str {
        &self.session.identity.user
    }

    /// The device that this connection relays; `None` for a user's connection.
    pub fn device(&self) -> Option<&str> {
        self.session.identity.device.as_deref()
    }

    /// Whether the connection's user is subscribed to the device. Always false while the user has no connection.
    pub fn may_see(&self, device: &str) -> bool {
        self.relay.is_subscribed(self.user(), device)
    }

    /// Sends to this connection only. Returns false if it is closed or its queue is full. Does not block.
    pub fn send(&self, message: &RelayMessage) -> bool {
        self.client.send(message).is_ok()
    }

    /// Sends an `error` message with this code and text. Does not block; the message is lost if the queue is full.
    pub fn send_error(&self, code: &str, message: &str) {
        self.answer_error(&ErrorPayload { code, message, retry_after_ms: None });
    }

    /// Whether the rate limit allows one more message now. If not, tells the peer when to retry.
    pub(super) fn is_within_rate(&self) -> bool {
        let Some(limiter) = &self.session.limiter else { return true };
        let mut limiter = limiter.lock();
        if limiter.allow() {
            return true;
        }
        let wait = limiter.retry_after();
        drop(limiter);
        let retry_after_ms = Some(whole_millis(wait));
        self.answer_error(&ErrorPayload { code: "rate_limited", message: "too many messages", retry_after_ms });
        false
    }

    fn answer_error(&self, payload: &ErrorPayload<'_>) {
        // Strings and numbers are always valid JSON.
        if let Ok(message) = RelayMessage::new("error").payload(payload) {
            self.send(&message);
        }
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("client", &self.client)
            .field("identity", &self.session.identity)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct ErrorPayload<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(rename = "retryAfterMs", skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

/// Rounds up, so that a peer that waits this long has waited long enough.
fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
