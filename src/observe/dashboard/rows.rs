//! One row of a list, as sent to the page.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::client_id::ClientId;
use crate::guard;
use crate::hub::Client;

/// Maximum number of characters of a name that the page gets; longer names would not be useful.
const MAX_TEXT: usize = 160;
/// Maximum number of a client's rooms that the page gets, together with their total number.
const MAX_ROOMS: usize = 6;

/// Returns the application's name for a client.
pub(super) type Namer = dyn Fn(&Client) -> Option<String> + Send + Sync;

/// A client at one moment.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ClientRow {
    pub(super) id: ClientId,
    /// The application's name for the client.
    name: Option<String>,
    #[serde(serialize_with = "shortened")]
    pub(super) user: Option<Arc<str>>,
    #[serde(serialize_with = "first_rooms")]
    pub(super) rooms: Vec<Arc<str>>,
    pub(super) room_count: usize,
    pub(super) address: Option<SocketAddr>,
    path: String,
    /// Microseconds since 1970.
    pub(super) since: u64,
    /// Queued messages and bytes.
    pub(super) queue: (usize, usize),
    /// Dropped messages and bytes.
    pub(super) dropped: (u64, u64),
    /// Calls that wait for its answer.
    calls: usize,
    kind: &'static str,
    closing: bool,
}

impl ClientRow {
    pub(super) fn of(client: &Client, namer: Option<&Namer>) -> Self {
        let (rooms, queue, dropped) = (client.rooms(), client.queue_depth(), client.dropped());
        Self {
            id: client.id(),
            name: namer.and_then(|namer| named(client, namer)),
            user: client.user_id(),
            room_count: rooms.len(),
            rooms,
            address: client.remote_addr(),
            path: cut(client.request().path()),
            since: micros(client.connected_at()),
            queue: (queue.messages, queue.bytes),
            dropped: (dropped.messages, dropped.bytes),
            calls: client.pending_calls(),
            kind: if client.is_event_stream() { "event stream" } else { "websocket" },
            closing: client.is_closed(),
        }
    }

    /// Whether any field that identifies the client contains the text, which is in lower case.
    pub(super) fn contains(&self, search: &str) -> bool {
        let has = |text: &str| text.to_lowercase().contains(search);
        self.user.as_deref().is_some_and(has)
            || self.name.as_deref().is_some_and(has)
            || has(&self.id.to_string())
            || self.address.is_some_and(|address| has(&address.to_string()))
            || self.rooms.iter().any(|room| has(room))
    }
}

/// Microseconds since 1970.
pub(super) fn micros(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970.
pub(super) fn millis(at: SystemTime) -> u64 {
    micros(at) / 1000
}

/// Returns the application's name; none if its code panics.
fn named(client: &Client, namer: &Namer) -> Option<String> {
    let name = guard::catch(|| namer(client)).flatten();
    name.map(|name| cut(&name))
}

/// The beginning of a long text, and an ellipsis.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[allow(clippy::ref_option, reason = "serde passes the field as it is")]
fn shortened<S: Serializer>(text: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
    text.as_deref().map(cut).serialize(to)
}

fn first_rooms<S: Serializer>(rooms: &[Arc<str>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(rooms.iter().take(MAX_ROOMS).map(|room| &**room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("ä"), "ä");
        let long = cut(&"ä".repeat(10_000));
        assert_eq!((long.chars().count(), long.ends_with("ä…")), (MAX_TEXT + 1, true));
        assert_eq!(cut(&"x".repeat(MAX_TEXT)).len(), MAX_TEXT);
    }
}
