//! What the rooms of a hub hold, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes held by one room, and by all rooms of its hub. Relaxed: counts; what is done about them is bounded anyway.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    room: AtomicUsize,
    hub: Arc<AtomicUsize>,
}

impl Ledger {
    pub(crate) fn new(hub: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { room: AtomicUsize::new(0), hub })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.room.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.room.fetch_add(bytes, Ordering::Relaxed);
        self.hub.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, bytes: usize) {
        self.room.fetch_sub(bytes, Ordering::Relaxed);
        self.hub.fetch_sub(bytes, Ordering::Relaxed);
    }
}
