//! What readers of a history ask for and get.

use super::position::Position;
use super::publication::Publication;

/// How much of what a reader has missed could be given to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// No position was given: there is nothing to recover from.
    None,
    /// Everything behind the position: the epoch is the same, and the history holds all that came after it.
    Complete,
    /// The history no longer holds all of it. What it holds, from this offset on, is replayed; the rest is gone.
    Gap {
        /// The offset of the first message that is still held; if none is, that of the next one.
        first_held: u64,
    },
    /// The position is of another history: this one was made anew, or the position is of another node, or beyond the
    /// last message. What is held is replayed; how much is missing is not known.
    OtherEpoch,
}

impl Recovery {
    /// A word for it: `none`, `complete`, `gap`, `other_epoch`.
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

/// What came of joining a room that remembers; see [`Client::join_from`](crate::Client::join_from).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Joined {
    /// The place behind the room's last message at the moment of joining. `None` if the room has no history.
    pub position: Option<Position>,
    /// How much of what came behind the given position is replayed.
    pub recovery: Recovery,
    /// Messages that are replayed to the client.
    pub replayed: usize,
}

/// Which part of a history is asked for; see [`Hub::history`](crate::Hub::history).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Range {
    pub(super) since: Option<Position>,
    pub(super) newest_first: bool,
    pub(super) limit: usize,
}

impl Range {
    /// From the oldest message on. No limit but the history's.
    pub const fn oldest_first() -> Self {
        Self { since: None, newest_first: false, limit: usize::MAX }
    }

    /// From the newest message backwards. No limit but the history's.
    pub const fn newest_first() -> Self {
        Self { since: None, newest_first: true, limit: usize::MAX }
    }

    /// Only what lies behind this position, in the direction of reading: later messages, or earlier ones if the newest
    /// come first.
    pub const fn since(mut self, position: Position) -> Self {
        self.since = Some(position);
        self
    }

    /// At most this many messages. 0 = none: only the position is of interest.
    pub const fn limit(mut self, messages: usize) -> Self {
        self.limit = messages;
        self
    }
}

/// A part of a history.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page {
    /// The place behind the last message of the history.
    pub position: Position,
    /// Whether all that the range asks for is held. Always [`Recovery::None`] for a range without a position, and for one
    /// that reads backwards, unless the position is of another epoch: then there are no publications.
    pub recovery: Recovery,
    /// The publications, in the direction of reading.
    pub publications: Vec<Publication>,
}
