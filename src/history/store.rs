//! Histories that several nodes share: where they live, and what every such place promises.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::position::{Epoch, Position};

/// Keeps histories for all nodes of a cluster. [`MemoryStore`](super::MemoryStore) does so in a process,
/// `RedisStore` (feature `redis`) in Redis.
///
/// For each room there is one order: an append gives the next offset and tells every follower, in one atomic step.
/// All methods block, for as long as the store bounds it.
pub trait HistoryStore: fmt::Debug + Send + Sync + 'static {
    /// Records an entry; the first one of a room begins an epoch. Every follower is told of it.
    ///
    /// # Errors
    ///
    /// The store cannot be reached; the entry may have been recorded even so.
    fn append(&self, room: &str, entry: &[u8], bounds: Bounds) -> Result<Position, StoreError>;

    /// What the store holds of a room behind this offset. A room of which it knows nothing begins an epoch.
    ///
    /// # Errors
    ///
    /// The store cannot be reached.
    fn read(&self, room: &str, after: u64, bounds: Bounds) -> Result<Stored, StoreError>;

    /// Begins a new epoch if this one is still that of the room, and forgets its entries; the epoch that holds then.
    /// Nobody is told: the first append is told to the followers.
    ///
    /// # Errors
    ///
    /// The store cannot be reached.
    fn renew(&self, room: &str, old: Epoch) -> Result<Epoch, StoreError>;

    /// Forgets the entries of a room; its epoch and offset stay. Nobody is told.
    ///
    /// # Errors
    ///
    /// The store cannot be reached.
    fn clear(&self, room: &str) -> Result<(), StoreError>;

    /// Tells of every append from now on, those of this node too, in their order for each room. It calls `on` with
    /// [`Event::Following`] once it follows, and from time to time with [`Event::Nothing`]; it returns when `on` returns
    /// false.
    ///
    /// # Errors
    ///
    /// The store cannot be reached any more: appends may be missed from here on.
    fn follow(&self, on: &mut dyn FnMut(Event<'_>) -> bool) -> Result<(), StoreError>;
}

/// One store for several hubs of a process.
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

    fn follow(&self, on: &mut dyn FnMut(Event<'_>) -> bool) -> Result<(), StoreError> {
        (**self).follow(on)
    }
}

/// How much of a room a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Entries; at least 1.
    pub messages: usize,
    /// After this time without an append the entries are forgotten.
    pub age: Duration,
    /// After this time without an append the epoch and offset are forgotten, too. At least `age`.
    pub linger: Duration,
}

/// What a store holds of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The place behind the last entry.
    pub position: Position,
    /// Entries that are held, with their offsets: contiguous, the last one at the position, unless none is held.
    pub entries: Vec<(u64, Bytes)>,
}

/// What a follower is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// From now on every append is told.
    Following,
    /// Time has passed.
    Nothing,
    /// An entry has been appended.
    Appended {
        /// The room.
        room: &'a str,
        /// Its place.
        position: Position,
        /// The entry.
        entry: &'a [u8],
    },
}

/// A store cannot be reached, or does not do what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError(String);

impl StoreError {
    /// With what the store or its client says.
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
