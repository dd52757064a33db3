//! Requests to a history and their results.

use super::position::Position;
use super::publication::Publication;

/// How much of the missed messages a reader can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// No position was given: there is nothing to recover from.
    None,
    /// Everything after the position: the epoch is the same, and the history holds all later messages.
    Complete,
    /// The history no longer holds all of it. The held messages, from this offset on, are replayed; the rest is gone.
    Gap {
        /// The offset of the oldest held message; if none is held, that of the next one.
        first_held: u64,
    },
    /// The position belongs to another history: this one was recreated, or the position is from another node, or it is
    /// beyond the last message. The held messages are replayed; the size of the gap is unknown.
    OtherEpoch,
}

impl Recovery {
    /// The text form: `none`, `complete`, `gap`, `other_epoch`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Complete => "complete",
            Self::Gap { .. } => "gap",
            Self::OtherEpoch => "other_epoch",
        }
    }

    /// Whether the reader must assume that it has missed something.
    pub const fn is_lossy(self) -> bool {
        matches!(self, Self::Gap { .. } | Self::OtherEpoch)
    }
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The result of joining a room with memory; see [`Client::join_from`](crate::Client::join_from).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Joined {
    /// The position after the room's last message at the moment of joining. `None` if the room has no history.
    pub position: Option<Position>,
    /// How much of the messages after the given position is replayed.
    pub recovery: Recovery,
    /// Number of messages that are replayed to the client.
    pub replayed: usize,
}

/// The requested part of a history; see [`Hub::history`](crate::Hub::history).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Range {
    pub(super) since: Option<Position>,
    pub(super) newest_first: bool,
    pub(super) limit: usize,
}

impl Range {
    /// From the oldest message on, without a limit.
    pub const fn oldest_first() -> Self {
        Self { since: None, newest_first: false, limit: usize::MAX }
    }

    /// From the newest message backwards, without a limit.
    pub const fn newest_first() -> Self {
        Self { since: None, newest_first: true, limit: usize::MAX }
    }

    /// Only messages after this position, in reading direction: later messages, or earlier ones if the newest come
    /// first.
    pub const fn since(mut self, position: Position) -> Self {
        self.since = Some(position);
        self
    }

    /// At most this many messages. 0 = none, to get only the position.
    pub const fn limit(mut self, messages: usize) -> Self {
        self.limit = messages;
        self
    }
}

/// A part of a history.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page {
    /// The position after the last message of the history.
    pub position: Position,
    /// Whether the history holds everything that the range covers. Always [`Recovery::None`] for a range without a
    /// position and for one that reads backwards, unless the position is of another epoch: then there are no
    /// publications.
    pub recovery: Recovery,
    /// The publications, in reading direction.
    pub publications: Vec<Publication>,
}
