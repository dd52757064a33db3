//! The last messages of a room, bounded in count, bytes and age. It has no clock of its own: callers pass the time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ledger::{Ledger, Totals};
use super::options::RoomOptions;
use super::page::{Page, Range, Recovery};
use super::position::{Epoch, Position};
use super::publication::Publication;

/// The history of a room. Its offsets are contiguous, because only the oldest message is ever dropped.
#[derive(Debug)]
pub(crate) struct Ring {
    epoch: Epoch,
    /// The offset of the last message, held or not.
    top: u64,
    entries: VecDeque<(Instant, Publication)>,
    ledger: Arc<Ledger>,
    messages: usize,
    bytes: usize,
    age: Duration,
}

/// What a reader gets when it joins, with or without a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) recovery: Recovery,
    /// The offset of the last message that the reader has; it continues after it.
    pub(crate) cursor: u64,
    /// Number of held messages after the cursor.
    pub(crate) replayed: usize,
}

impl Ring {
    /// Creates an empty history. `hub` counts the bytes of all rooms.
    pub(crate) fn new(options: &RoomOptions, hub: Arc<Totals>) -> Self {
        Self {
            epoch: Epoch::random(),
            top: 0,
            entries: VecDeque::new(),
            ledger: Ledger::new(hub),
            messages: options.messages,
            bytes: options.bytes,
            age: options.age,
        }
    }

    /// The position after the last message.
    pub(crate) fn position(&self) -> Position {
        Position::new(self.epoch, self.top)
    }

    /// The position of the next message.
    pub(crate) fn next_position(&self) -> Position {
        Position::new(self.epoch, self.top + 1)
    }

    /// The offset of the oldest held message, or of the next message if none is held.
    pub(crate) fn first_held(&self) -> u64 {
        self.top + 1 - self.entries.len() as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes held, bookkeeping included.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "only the dashboard shows it"))]
    pub(crate) fn bytes(&self) -> usize {
        self.ledger.bytes()
    }

    /// Adds the message that was made for [`next_position`](Self::next_position). Returns the dropped messages for the
    /// caller to drop without a lock.
    #[must_use = "payloads are dropped without a lock"]
    pub(crate) fn append(&mut self, publication: Publication, now: Instant) -> Vec<Publication> {
        debug_assert_eq!(publication.position(), self.next_position(), "publishers take turns");
        self.top += 1;
        publication.enter(&self.ledger);
        self.entries.push_back((now, publication));
        self.trim(now)
    }

    /// Drops messages that are too old or exceed the limits.
    #[must_use = "payloads are dropped without a lock"]
    pub(crate) fn trim(&mut self, now: Instant) -> Vec<Publication> {
        let mut fallen = Vec::new();
        while let Some((since, _)) = self.entries.front() {
            let is_old = now.saturating_duration_since(*since) >= self.age;
            if !is_old && self.entries.len() <= self.messages && self.ledger.bytes() <= self.bytes {
                break;
            }
            fallen.extend(self.drop_oldest());
        }
        fallen
    }

    /// Drops the oldest message, whatever the bounds.
    #[must_use = "payloads are dropped without a lock"]
    pub(crate) fn drop_oldest(&mut self) -> Option<Publication> {
        let (_, oldest) = self.entries.pop_front()?;
        oldest.leave();
        Some(oldest)
    }

    /// Drops all messages. The top and the epoch stay, so positions stay valid.
    #[must_use = "payloads are dropped without a lock"]
    pub(crate) fn clear(&mut self) -> Vec<Publication> {
        std::iter::from_fn(|| self.drop_oldest()).collect()
    }

    /// Drops everything and begins at this position. Returns the dropped messages for the caller to drop without a
    /// lock.
    #[must_use = "payloads are dropped without a lock"]
    #[cfg(feature = "cluster")]
    pub(crate) fn restart(&mut self, position: Position) -> Vec<Publication> {
        let fallen = self.clear();
        (self.epoch, self.top) = (position.epoch(), position.offset());
        fallen
    }

    /// The held messages after the offset, in order.
    pub(crate) fn after(&self, offset: u64) -> impl Iterator<Item = &Publication> {
        let skipped = (offset + 1).saturating_sub(self.first_held());
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries.range(skipped..).map(|(_, publication)| publication)
    }

    /// Determines where a reader continues: after `since`, or, if it is new, with the last `rewind` messages.
    pub(crate) fn recover(&self, since: Option<Position>, rewind: usize) -> Recovered {
        let first_held = self.first_held();
        let (recovery, cursor) = match since {
            None => (Recovery::None, (self.top.saturating_sub(rewind as u64)).max(first_held - 1)),
            Some(p) if p.epoch() != self.epoch || p.offset() > self.top => (Recovery::OtherEpoch, first_held - 1),
            Some(p) if p.offset() + 1 >= first_held => (Recovery::Complete, p.offset()),
            Some(_) => (Recovery::Gap { first_held }, first_held - 1),
        };
        let replayed = usize::try_from(self.top - cursor).unwrap_or(usize::MAX);
        Recovered { recovery, cursor, replayed }
    }

    /// A part of the held messages.
    pub(crate) fn page(&self, range: Range) -> Page {
        let recovery = self.recover(range.since, 0).recovery;
        let position = self.position();
        let since = range.since.map(|p| p.offset());
        let held = self.entries.iter().map(|(_, publication)| publication);
        let publications = match recovery {
            Recovery::OtherEpoch => Vec::new(),
            _ if range.newest_first => {
                let before = |p: &&Publication| since.is_none_or(|since| p.offset() < since);
                held.rev().filter(before).take(range.limit).cloned().collect()
            }
            _ => self.after(since.unwrap_or(0)).take(range.limit).cloned().collect(),
        };
        let recovery = if range.newest_first && recovery != Recovery::OtherEpoch { Recovery::None } else { recovery };
        Page { position, recovery, publications }
    }
}

impl Drop for Ring {
    /// The held messages no longer count here. Wire forms that are still queued count in their queues.
    fn drop(&mut self) {
        self.entries.iter().for_each(|(_, publication)| publication.leave());
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
