//! Histories that several nodes share: the store trait and its contract.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::position::{Epoch, Position};

/// Stores histories for all nodes of a cluster. [`MemoryStore`](super::MemoryStore) does so in a process,
/// `RedisStore` (feature `redis`) in Redis.
///
/// Each room has one order: an append assigns the next offset and tells every follower, in one atomic step. All methods
/// block, for a time that the store limits.
pub trait HistoryStore: fmt::Debug + Send + Sync + 'static {
    /// Appends an entry and tells every follower. The first entry of a room begins an epoch.
    ///
    /// # Errors
    ///
    /// The store cannot be reached; the entry may still have been recorded.
    fn append(&self, room: &str, entry: &[u8], bounds: Bounds) -> Result<Position, StoreError>;

    /// Returns the entries of a room after this offset. A room unknown to the store begins an epoch.
    ///
    /// # Errors
    ///
    /// The store cannot be reached.
    fn read(&self, room: &str, after: u64, bounds: Bounds) -> Result<Stored, StoreError>;

    /// Begins a new epoch if `old` is still the room's epoch, and removes its entries. Returns the current epoch.
    /// Followers are told only of the first append.
    ///
    /// # Errors
    ///
    /// The store cannot be reached.
    fn renew(&self, room: &str, old: Epoch) -> Result<Epoch, StoreError>;

    /// Removes the entries of a room; its epoch and offset stay. Followers are not told.
    ///
    /// # Errors
    ///
    /// The store cannot be reached.
    fn clear(&self, room: &str) -> Result<(), StoreError>;

    /// Reports every later append, including those of this node, in their order for each room. It calls `on` with
    /// [`StoreEvent::Following`] once it follows, and from time to time with [`StoreEvent::Nothing`]. It returns when
    /// `on` returns false.
    ///
    /// # Errors
    ///
    /// The store can no longer be reached: appends may be missed from here on.
    fn follow(&self, on: &mut dyn FnMut(StoreEvent<'_>) -> bool) -> Result<(), StoreError>;
}

/// Shares one store between several hubs of a process.
impl<S: HistoryStore + ?Sized> HistoryStore for Arc<S> {
    fn append(&self, room: &str, entry: &[u8], bounds: Bounds) -> Result<Position, StoreError> {
        (**self).append(room, entry, bounds)
    }

    fn read(&self, room: &str, after: u64, bounds: Bounds) -> Result<Stored, StoreError> {
        (**self).read(room, after, bounds)
    }

    fn renew(&self, room: &str, old: Epoch) -> Result<Epoch, StoreError> {
        (**self).renew(room, old)
    }

    fn clear(&self, room: &str) -> Result<(), StoreError> {
        (**self).clear(room)
    }

    fn follow(&self, on: &mut dyn FnMut(StoreEvent<'_>) -> bool) -> Result<(), StoreError> {
        (**self).follow(on)
    }
}

/// How much of a room a store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// Maximum number of entries; at least 1.
    pub messages: usize,
    /// Time without an append after which the entries are removed.
    pub age: Duration,
    /// Time without an append after which the epoch and offset are also removed. At least `age`.
    pub linger: Duration,
}

impl Bounds {
    /// Creates bounds: maximum number of entries, then the times without an append after which the entries and the
    /// position are removed.
    pub const fn new(messages: usize, age: Duration, linger: Duration) -> Self {
        Self { messages, age, linger }
    }
}

/// The stored part of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// The position after the last entry.
    pub position: Position,
    /// The held entries with their offsets: contiguous, the last one at the position.
    pub entries: Vec<(u64, Bytes)>,
}

impl Stored {
    /// Creates the answer to a read.
    pub const fn new(position: Position, entries: Vec<(u64, Bytes)>) -> Self {
        Self { position, entries }
    }
}

/// An event for a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreEvent<'a> {
    /// Every append is reported from now on.
    Following,
    /// Time has passed.
    Nothing,
    /// An entry has been appended.
    Appended {
        /// The room.
        room: &'a str,
        /// Its position.
        position: Position,
        /// The entry.
        entry: &'a [u8],
    },
}

/// A store cannot be reached or does not behave as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError(String);

impl StoreError {
    /// Creates an error with the text of the store or its client.
    pub fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shared history: {}", self.0)
    }
}

impl Error for StoreError {}
