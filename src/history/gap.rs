//! Publications that a reader does not get, and that it is told of.

use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::position::{Epoch, Position};

/// Publications of a room that a client will not get: the history no longer held them when it was the client's turn.
///
/// As JSON: `{"room","from","to","position"}`, `from` being `null` if the client came from another epoch.
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

    /// The offset of the first missing publication; `None` if the client came from another epoch, so that nobody knows
    /// what it has missed.
    pub fn from(&self) -> Option<u64> {
        self.from
    }

    /// The offset of the last missing publication.
    pub fn to(&self) -> u64 {
        self.to
    }

    /// The place behind the gap: the client goes on from here.
    pub fn position(&self) -> Position {
        Position::new(self.epoch, self.to)
    }

    /// Whether the other one begins where it ends.
    pub(crate) fn is_followed_by(&self, next: &Self) -> bool {
        next.epoch == self.epoch && next.from == Some(self.to + 1)
    }

    /// Joins it with one that follows.
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
