//! The state of a connection as the NATS client's events report it.

use std::fmt::Display;

use async_nats::Event;
use tokio::sync::watch;

use crate::cluster::adapter::AdapterError;
use crate::guard::record;
use crate::log_limit::LogLimit;

/// Connection state. The client's callbacks write it and the session reads it, both on the client's thread.
pub(super) struct ConnectionStatus {
    /// The subject of the session's messages to itself.
    own: String,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    has_connected: bool,
    is_lost: bool,
    /// The last refusal since this was last taken.
    refused: Option<String>,
    /// Number of messages that the client dropped, because its queue was full, since this was last taken.
    dropped: usize,
    /// Why the session's messages to itself do not return.
    no_echo: Option<String>,
}

impl ConnectionStatus {
    pub(super) fn new(own: &str) -> Self {
        Self { own: own.to_owned(), state: watch::Sender::default() }
    }

    pub(super) fn connected(&self) {
        self.state.send_modify(|state| state.has_connected = true);
    }

    pub(super) fn has_connected(&self) -> bool {
        self.state.borrow().has_connected
    }

    pub(super) fn is_lost(&self) -> bool {
        let state = self.state.borrow();
        state.is_lost || state.no_echo.is_some()
    }

    pub(super) fn note(&self, event: &Event) {
        static SLOW: LogLimit = LogLimit::seldom();
        match event {
            Event::Disconnected | Event::Closed => self.state.send_modify(|state| state.is_lost = true),
            Event::ServerError(error) => self.refuse(error),
            Event::SlowConsumer(_) => {
                // No waiter needs waking: the session polls this value.
                self.state.send_if_modified(|state| {
                    state.dropped += 1;
                    false
                });
                if let Some(suppressed) = SLOW.pass() {
                    record!(
                        Warn,
                        "wshub::cluster",
                        "an envelope was lost: received faster than delivered ({suppressed} more not logged)"
                    );
                }
            }
            // Connecting is reported by other means, and a server that is about to stop disconnects.
            _ => {}
        }
    }

    fn refuse(&self, error: impl Display) {
        let why = error.to_string();
        self.state.send_modify(|state| {
            let slot = if why.contains(&self.own) { &mut state.no_echo } else { &mut state.refused };
            *slot = Some(why);
        });
    }

    pub(super) fn take_refused(&self) -> Option<String> {
        let mut refused = None;
        self.state.send_modify(|state| refused = state.refused.take());
        refused
    }

    pub(super) fn take_dropped(&self) -> usize {
        let mut dropped = 0;
        self.state.send_if_modified(|state| {
            dropped = std::mem::take(&mut state.dropped);
            false
        });
        dropped
    }

    /// Waits until the session has failed.
    pub(super) async fn trouble(&self) -> AdapterError {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| state.is_lost || state.no_echo.is_some()).await;
        self.lost()
    }

    /// Returns the reason why the session has failed.
    pub(super) fn lost(&self) -> AdapterError {
        let state = self.state.borrow();
        match state.no_echo.as_ref().or(state.refused.as_ref()) {
            Some(why) => AdapterError::unavailable(format!("the connection is lost: {why}")),
            None => AdapterError::unavailable("the connection is lost"),
        }
    }
}

/// The error for a request that the server accepted but did not answer.
pub(super) fn silent() -> AdapterError {
    AdapterError::unavailable("the server does not answer in time")
}

#[cfg(test)]
mod tests {
    use async_nats::ServerError;
    use futures_util::FutureExt as _;

    use super::*;

    fn refusal(text: &str) -> Event {
        Event::ServerError(ServerError::Other(text.to_owned()))
    }

    #[test]
    fn a_refusal_is_told_once_and_the_session_goes_on() {
        let status = ConnectionStatus::new("own.1");
        status.note(&refusal("no to wshub.messages"));
        assert!(status.trouble().now_or_never().is_none());
        assert_eq!(status.take_refused().as_deref(), Some("nats: no to wshub.messages"));
        assert_eq!(status.take_refused(), None);
    }

    #[test]
    fn what_the_client_drops_is_told_once() {
        let status = ConnectionStatus::new("own.1");
        (0..3).for_each(|_| status.note(&Event::SlowConsumer(1)));
        assert_eq!((status.take_dropped(), status.take_dropped()), (3, 0));
        assert!(status.trouble().now_or_never().is_none());
    }

    #[test]
    fn a_loss_or_no_way_to_itself_ends_the_session() {
        let status = ConnectionStatus::new("own.1");
        status.note(&refusal("no to \"own.1\""));
        let why = status.trouble().now_or_never().map(|error| error.to_string());
        assert_eq!(why.as_deref(), Some("the connection is lost: nats: no to \"own.1\""));

        let status = ConnectionStatus::new("own.1");
        assert!(status.trouble().now_or_never().is_none());
        status.note(&Event::Disconnected);
        assert!(matches!(status.trouble().now_or_never(), Some(AdapterError::Unavailable(_))));
    }
}
