//! Counts what the rooms of a hub hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all rooms of a hub hold. Relaxed: these are counts, and their effects are bounded anyway.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    bytes: AtomicUsize,
    /// Number of wire forms made.
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

/// Bookkeeping bytes counted for each room with memory, whatever it holds.
pub(crate) const ROOM_OVERHEAD: usize = 1024;

/// Counts a room with memory while it exists.
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

/// Bytes held by one room, and by all rooms of its hub. Relaxed, like `Totals`.
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
