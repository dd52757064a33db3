//! What the rooms of a hub hold, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all rooms of a hub hold. Relaxed: counts; what is done about them is bounded anyway.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    bytes: AtomicUsize,
    /// Wire forms that have been made.
    encodings: AtomicUsize,
}

impl Totals {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn encodings(&self) -> usize {
        self.encodings.load(Ordering::Relaxed)
    }
}

/// Bytes of bookkeeping that a room that remembers counts with, whatever it holds.
pub(crate) const ROOM_OVERHEAD: usize = 1024;

/// A room that remembers, counted while it exists.
#[derive(Debug)]
pub(crate) struct RoomShare(Arc<Totals>);

impl RoomShare {
    pub(crate) fn new(hub: &Arc<Totals>) -> Self {
        hub.bytes.fetch_add(ROOM_OVERHEAD, Ordering::Relaxed);
        Self(Arc::clone(hub))
    }
}

impl Drop for RoomShare {
    fn drop(&mut self) {
        self.0.bytes.fetch_sub(ROOM_OVERHEAD, Ordering::Relaxed);
    }
}

/// Bytes held by one room, and by all rooms of its hub. Relaxed, as `Totals`.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    room: AtomicUsize,
    hub: Arc<Totals>,
}

impl Ledger {
    pub(crate) fn new(hub: Arc<Totals>) -> Arc<Self> {
        Arc::new(Self { room: AtomicUsize::new(0), hub })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.room.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.room.fetch_add(bytes, Ordering::Relaxed);
        self.hub.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, bytes: usize) {
        self.room.fetch_sub(bytes, Ordering::Relaxed);
        self.hub.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_encodings(&self, made: usize) {
        self.hub.encodings.fetch_add(made, Ordering::Relaxed);
    }
}
