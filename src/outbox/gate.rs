//! A gate at which threads sleep until an outbox changes.

use std::time::Instant;

use crate::lock::{Condition, Leaf};
use crate::sync::atomic::{AtomicU32, Ordering, fence};

/// A condition variable that costs only a fence and a load if no thread sleeps.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// The number of threads asleep on `changed`. A thread is counted before its last look, and `wake` reads the count
    /// after a fence, so no sleeper is missed.
    sleepers: AtomicU32,
    /// Guards no data: sleepers wait for changes of atomics and of the queue.
    lock: Leaf<()>,
    changed: Condition,
}

impl Gate {
    /// Sleeps until `look` returns a value, or returns `None` at the deadline. `look` must neither block nor wake.
    pub(super) fn wait_for<T>(&self, deadline: Instant, look: impl Fn() -> Option<T>) -> Option<T> {
        let mut guard = self.lock.lock();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        // Pairs with the fence in `wake`: either this thread sees the change, or the changer sees it counted.
        fence(Ordering::SeqCst);
        let mut answer = look();
        while answer.is_none() && !self.changed.wait_until(&mut guard, deadline) {
            answer = look();
        }
        let answer = answer.or_else(look);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            // A sleeper holds the lock from its last look until it sleeps. Taking the lock here means that the wake-up
            // does not come too early.
            drop(self.lock.lock());
            self.changed.notify_all();
        }
    }

    /// Whether a thread sleeps at the gate.
    #[cfg(test)]
    pub(super) fn has_sleepers(&self) -> bool {
        self.sleepers.load(Ordering::SeqCst) > 0
    }
}
