//! Shared histories of hubs in one process: for tests, and as the reference for other stores.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::position::{Epoch, Position};
use super::store::{Bounds, HistoryStore, StoreError, StoreEvent, Stored};
use crate::lock::{Condition, Leaf};

/// How often a follower checks whether to end.
const TICK: Duration = Duration::from_millis(100);
/// How many appends a follower may be behind. Beyond that it misses some and reports an error.
const BACKLOG: usize = 10_000;

/// Histories in the memory of this process, shared by the hubs that have clones of one store.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Leaf<StoreState>,
    /// Signals an append, or that the store was cut off.
    changed: Condition,
}

#[derive(Debug, Default)]
struct StoreState {
    rooms: HashMap<Box<str>, Room>,
    /// The last appends, and the number of the first of them.
    appended: VecDeque<(Box<str>, Position, Bytes)>,
    first: u64,
    is_down: bool,
}

#[derive(Debug)]
struct Room {
    position: Position,
    entries: VecDeque<Bytes>,
    used: Instant,
    bounds: Bounds,
}

impl MemoryStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes every call fail, as in an outage, or succeed again.
    pub fn set_down(&self, is_down: bool) {
        self.0.state.lock().is_down = is_down;
        self.0.changed.notify_all();
    }

    fn up(state: &StoreState) -> Result<(), StoreError> {
        if state.is_down { Err(StoreError::new("the store is down")) } else { Ok(()) }
    }
}

impl StoreState {
    /// Returns the room, created if missing, without outdated entries.
    fn room(&mut self, name: &str, bounds: Bounds) -> &mut Room {
        let now = Instant::now();
        if self.rooms.get(name).is_some_and(|room| now - room.used >= room.bounds.linger) {
            self.rooms.remove(name);
        }
        let new = || Room { position: Position::new(Epoch::random(), 0), entries: VecDeque::new(), used: now, bounds };
        let room = self.rooms.entry(name.into()).or_insert_with(new);
        if now - room.used >= room.bounds.age {
            room.entries.clear();
        }
        room
    }
}

impl HistoryStore for MemoryStore {
    fn append(&self, room: &str, entry: &[u8], bounds: Bounds) -> Result<Position, StoreError> {
        let mut state = self.0.state.lock();
        Self::up(&state)?;
        let found = state.room(room, bounds);
        let entry = Bytes::copy_from_slice(entry);
        found.position = Position::new(found.position.epoch(), found.position.offset() + 1);
        found.entries.push_back(entry.clone());
        while found.entries.len() > bounds.messages {
            found.entries.pop_front();
        }
        (found.used, found.bounds) = (Instant::now(), bounds);
        let position = found.position;
        state.appended.push_back((room.into(), position, entry));
        if state.appended.len() > BACKLOG {
            state.appended.pop_front();
            state.first += 1;
        }
        drop(state);
        self.0.changed.notify_all();
        Ok(position)
    }

    fn read(&self, room: &str, after: u64, bounds: Bounds) -> Result<Stored, StoreError> {
        let mut state = self.0.state.lock();
        Self::up(&state)?;
        let found = state.room(room, bounds);
        let first = found.position.offset() + 1 - found.entries.len() as u64;
        let entries = (first..).zip(found.entries.iter().cloned()).filter(|(offset, _)| *offset > after).collect();
        Ok(Stored { position: found.position, entries })
    }

    fn renew(&self, room: &str, old: Epoch) -> Result<Epoch, StoreError> {
        let mut state = self.0.state.lock();
        Self::up(&state)?;
        let Some(found) = state.rooms.get_mut(room) else { return Ok(old) };
        if found.position.epoch() == old {
            found.position = Position::new(Epoch::random(), 0);
            found.entries.clear();
        }
        Ok(found.position.epoch())
    }

    fn clear(&self, room: &str) -> Result<(), StoreError> {
        let mut state = self.0.state.lock();
        Self::up(&state)?;
        if let Some(found) = state.rooms.get_mut(room) {
            found.entries.clear();
        }
        Ok(())
    }

    fn follow(&self, on: &mut dyn FnMut(StoreEvent<'_>) -> bool) -> Result<(), StoreError> {
        let mut next = {
            let state = self.0.state.lock();
            Self::up(&state)?;
            state.first + state.appended.len() as u64
        };
        let mut goes_on = on(StoreEvent::Following);
        while goes_on {
            let appended = {
                let mut state = self.0.state.lock();
                Self::up(&state)?;
                if next == state.first + state.appended.len() as u64 {
                    self.0.changed.wait_for(&mut state, TICK);
                    Self::up(&state)?;
                }
                let Some(place) = next.checked_sub(state.first) else {
                    return Err(StoreError::new("the follower has fallen behind"));
                };
                usize::try_from(place).ok().and_then(|place| state.appended.get(place).cloned())
            };
            goes_on = match &appended {
                Some((room, position, entry)) => {
                    next += 1;
                    on(StoreEvent::Appended { room, position: *position, entry })
                }
                None => on(StoreEvent::Nothing),
            };
        }
        Ok(())
    }
}
