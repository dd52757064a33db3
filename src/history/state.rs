//! The state of a room: the last value of each key, and how slow readers learn of changes. It has no clock of its own.
//!
//! Every change gets the next version. A reader stores the version up to which it knows the state. It still needs every
//! key whose last change has a higher version, in the order of versions. A key that changes again moves to the end of
//! that order. A slow reader therefore gets each key once, with its newest value, never an older value after a newer
//! one, and its cursor is one number.
//!
//! Removals are also remembered, up to the maximum number of keys. A reader that is behind a forgotten removal starts
//! again from the whole state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::ledger::{Ledger, Totals};
use super::options::RoomOptions;
use super::position::{Epoch, Position};
use super::publication::Publication;

/// Why a value was not set. The state is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateError {
    /// The room has no state: see [`RoomOptions::state`].
    NoState,
    /// The room's name is empty or too long.
    InvalidRoom,
    /// The state has reached its maximum number of keys.
    TooManyKeys {
        /// [`RoomOptions::state_keys`].
        limit: usize,
    },
    /// The state, or all rooms of the hub, would exceed the maximum number of bytes.
    TooLarge {
        /// [`RoomOptions::state_bytes`], or [`Limits::history_bytes`](crate::Limits#structfield.history_bytes).
        limit: usize,
    },
}

impl std::fmt::Display for StateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoState => f.write_str("the room has no state"),
            Self::InvalidRoom => f.write_str("the room name is empty or longer than 256 bytes"),
            Self::TooManyKeys { limit } => write!(f, "one more key exceeds state_keys {limit}"),
            Self::TooLarge { limit } => write!(f, "the value exceeds the limit of {limit} bytes"),
        }
    }
}

impl std::error::Error for StateError {}

/// The last values of a room.
#[derive(Debug)]
pub(crate) struct RoomState {
    epoch: Epoch,
    /// The version of the last change.
    version: u64,
    /// Each key's last change, a value or a removal, by its version.
    changes: BTreeMap<u64, Change>,
    /// The version of each key's last change.
    keys: HashMap<Arc<str>, u64>,
    /// Number of keys with a value.
    values: usize,
    /// Expiry times of values, with their versions.
    expiries: BTreeSet<(Instant, u64)>,
    /// The highest version of a forgotten removal.
    forgotten: u64,
    ledger: Arc<Ledger>,
    max_keys: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Change {
    publication: Publication,
    expires: Option<Instant>,
}

impl RoomState {
    pub(crate) fn new(options: &RoomOptions, hub: Arc<Totals>) -> Self {
        Self {
            epoch: Epoch::random(),
            version: 0,
            changes: BTreeMap::new(),
            keys: HashMap::new(),
            values: 0,
            expiries: BTreeSet::new(),
            forgotten: 0,
            ledger: Ledger::new(hub),
            max_keys: options.state_keys,
            max_bytes: options.state_bytes,
        }
    }

    pub(crate) fn position(&self) -> Position {
        Position::new(self.epoch, self.version)
    }

    /// The position of the next change.
    pub(crate) fn next_position(&self) -> Position {
        Position::new(self.epoch, self.version + 1)
    }

    /// Number of keys that have a value.
    pub(crate) fn len(&self) -> usize {
        self.values
    }

    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "only the dashboard shows it"))]
    pub(crate) fn bytes(&self) -> usize {
        self.ledger.bytes()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.keys.get(key).and_then(|version| self.changes.get(version)).is_some_and(|c| !c.publication.is_removal())
    }

    /// Whether a value of `held` bytes may be set for the key.
    pub(crate) fn check(&self, key: &str, held: usize) -> Result<(), StateError> {
        let old = self.keys.get(key).and_then(|version| self.changes.get(version)).map(|c| &c.publication);
        let had_value = old.is_some_and(|publication| !publication.is_removal());
        if !had_value && self.values >= self.max_keys {
            return Err(StateError::TooManyKeys { limit: self.max_keys });
        }
        let freed = old.filter(|publication| !publication.is_removal()).map_or(0, Publication::held);
        let fits = |freed: usize| (self.ledger.bytes() + held).saturating_sub(freed) <= self.max_bytes;
        // Removals give way to values, so they count only if values alone would fit.
        let removals =
            || self.changes.values().map(|c| &c.publication).filter(|p| p.is_removal()).map(Publication::held);
        if fits(freed) || fits(freed + removals().sum::<usize>()) {
            Ok(())
        } else {
            Err(StateError::TooLarge { limit: self.max_bytes })
        }
    }

    /// Records a change that was made for [`next_position`](Self::next_position) and checked. Returns the replaced
    /// publications for the caller to drop without a lock.
    #[must_use = "payloads are dropped without a lock"]
    pub(crate) fn apply(&mut self, change: &Publication, expires: Option<Instant>) -> Vec<Publication> {
        let Some(key) = change.key() else { return Vec::new() };
        debug_assert_eq!(change.position(), self.next_position(), "writers take turns");
        self.version += 1;
        let mut replaced: Vec<Publication> = self.take(key).into_iter().collect();
        self.values += usize::from(!change.is_removal());
        change.enter(&self.ledger);
        if let Some(at) = expires {
            self.expiries.insert((at, self.version));
        }
        self.keys.insert(key.into(), self.version);
        self.changes.insert(self.version, Change { publication: change.clone(), expires });
        replaced.extend(self.forget_removals());
        replaced
    }

    /// Removes and returns the last change of a key.
    fn take(&mut self, key: &str) -> Option<Publication> {
        let version = self.keys.remove(key)?;
        let Change { publication, expires } = self.changes.remove(&version)?;
        if let Some(at) = expires {
            self.expiries.remove(&(at, version));
        }
        self.values -= usize::from(!publication.is_removal());
        publication.leave();
        Some(publication)
    }

    /// Limits removals by the same number of keys and the same bytes.
    fn forget_removals(&mut self) -> Vec<Publication> {
        let mut forgotten = Vec::new();
        while self.changes.len() - self.values > self.max_keys || self.ledger.bytes() > self.max_bytes {
            let oldest = self.changes.iter().find(|(_, change)| change.publication.is_removal());
            let Some((version, key)) = oldest.map(|(version, c)| (*version, c.publication.key().map(str::to_owned)))
            else {
                break;
            };
            self.forgotten = version;
            forgotten.extend(key.and_then(|key| self.take(&key)));
        }
        forgotten
    }

    /// The key whose value has expired first, if one has.
    pub(crate) fn expired(&self, now: Instant) -> Option<Arc<str>> {
        let (at, version) = self.expiries.first()?;
        let change = self.changes.get(version).filter(|_| *at <= now)?;
        change.publication.key().map(Arc::from)
    }

    /// When the next value expires.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// All values, the least recently changed first.
    pub(crate) fn values(&self) -> Vec<Publication> {
        let all = self.changes.values().map(|change| &change.publication);
        all.filter(|publication| !publication.is_removal()).cloned().collect()
    }

    /// Whether a reader that knows the state up to this version must start again from the whole state.
    pub(crate) fn is_too_old(&self, version: u64) -> bool {
        version < self.forgotten
    }

    /// The changes that a reader needs that knows the state up to this version.
    pub(crate) fn after(&self, version: u64) -> impl Iterator<Item = &Publication> {
        self.changes.range(version + 1..).map(|(_, change)| &change.publication)
    }
}

impl Drop for RoomState {
    fn drop(&mut self) {
        self.changes.values().for_each(|change| change.publication.leave());
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
