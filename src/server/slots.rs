//! Counted places: connections in their handshake, threads that are alive.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// How many places are taken, and waiting for that to become none.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots(Arc<(Mutex<usize>, Condvar)>);

/// A taken place, given back when dropped.
#[derive(Debug)]
pub(super) struct Slot(Slots);

impl Slots {
    /// Takes a place unless `limit` are taken; 0 = no limit.
    pub(super) fn take(&self, limit: usize) -> Option<Slot> {
        let mut taken = self.0.0.lock();
        if crate::config::reached(limit, *taken) {
            return None;
        }
        *taken += 1;
        Some(Slot(self.clone()))
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        *self.0.0.lock()
    }

    /// Waits until no place is taken; how many are at the deadline.
    pub(super) fn wait_none(&self, deadline: Instant) -> usize {
        let (taken, changed) = &*self.0;
        let mut taken = taken.lock();
        while *taken > 0 && !changed.wait_until(&mut taken, deadline).timed_out() {}
        *taken
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (taken, changed) = &*self.0.0;
        let mut taken = taken.lock();
        *taken -= 1;
        if *taken == 0 {
            changed.notify_all();
        }
    }
}
