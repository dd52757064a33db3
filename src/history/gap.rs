//! Gaps: publications that a reader misses and is told about.

use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::position::{Epoch, Position};

/// Publications of a room that a client will not get, because the history no longer held them when the client needed
/// them.
///
/// As JSON: `{"room","from","to","position"}`; `from` is `null` if the client came from another epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    room: Arc<str>,
    epoch: Epoch,
    from: Option<u64>,
    to: u64,
}

impl Gap {
    pub(crate) fn new(room: Arc<str>, epoch: Epoch, from: Option<u64>, to: u64) -> Self {
        Self { room, epoch, from, to }
    }

    /// The room.
    pub fn room(&self) -> &str {
        &self.room
    }

    /// The offset of the first missing publication; `None` if the client came from another epoch, so that it is unknown
    /// what it has missed.
    pub fn from(&self) -> Option<u64> {
        self.from
    }

    /// The offset of the last missing publication.
    pub fn to(&self) -> u64 {
        self.to
    }

    /// The position after the gap, from which the client continues.
    pub fn position(&self) -> Position {
        Position::new(self.epoch, self.to)
    }

    /// Whether the other gap begins where this one ends.
    pub(crate) fn is_followed_by(&self, next: &Self) -> bool {
        next.epoch == self.epoch && next.from == Some(self.to + 1)
    }

    /// Extends this gap by one that follows.
    pub(crate) fn extend(&mut self, next: &Self) {
        self.to = next.to;
        self.epoch = next.epoch;
    }
}

impl Serialize for Gap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Gap", 4)?;
        fields.serialize_field("room", &*self.room)?;
        fields.serialize_field("from", &self.from)?;
        fields.serialize_field("to", &self.to)?;
        fields.serialize_field("position", &self.position())?;
        fields.end()
    }
}
