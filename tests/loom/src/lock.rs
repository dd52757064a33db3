//! What `src/lock.rs` is to the crate, on loom's mutex. A `try_lock` may also see an old state, as that of
//! `parking_lot` may: it begins with a relaxed load.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Condvar, Mutex, MutexGuard};

pub(crate) mod rank {
    pub(crate) const SOCKET: u8 = 20;
    pub(crate) const SOCKET_STATE: u8 = 21;
    pub(crate) const LEAF: u8 = 31;
}

pub(crate) struct Leaf<T, const RANK: u8 = { rank::LEAF }> {
    /// Locked, as a relaxed load sees it. Only for the lock that is tried.
    is_held: Option<AtomicBool>,
    value: Mutex<T>,
}

#[derive(Debug)]
pub(crate) struct LeafGuard<'a, T> {
    is_held: Option<&'a AtomicBool>,
    inner: Option<MutexGuard<'a, T>>,
}

impl<T, const RANK: u8> Leaf<T, RANK> {
    pub(crate) fn new(value: T) -> Self {
        Self { is_held: (RANK == rank::SOCKET).then(|| AtomicBool::new(false)), value: Mutex::new(value) }
    }

    pub(crate) fn lock(&self) -> LeafGuard<'_, T> {
        self.guard(self.value.lock().expect("no panic"))
    }

    pub(crate) fn try_lock(&self) -> Option<LeafGuard<'_, T>> {
        if self.is_held.as_ref().is_some_and(|held| held.load(Ordering::Relaxed)) {
            return None;
        }
        self.value.try_lock().ok().map(|inner| self.guard(inner))
    }

    fn guard<'a>(&'a self, inner: MutexGuard<'a, T>) -> LeafGuard<'a, T> {
        if let Some(held) = &self.is_held {
            held.store(true, Ordering::Relaxed);
        }
        LeafGuard { is_held: self.is_held.as_ref(), inner: Some(inner) }
    }
}

impl<T: Default, const RANK: u8> Default for Leaf<T, RANK> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T, const RANK: u8> fmt::Debug for Leaf<T, RANK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leaf")
    }
}

impl<T> Deref for LeafGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("held")
    }
}

impl<T> DerefMut for LeafGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("held")
    }
}

impl<T> Drop for LeafGuard<'_, T> {
    fn drop(&mut self) {
        if let Some(held) = self.is_held {
            held.store(false, Ordering::Release);
        }
    }
}

/// Set once for each scenario; no part of the model.
static WRITERS_WAIT: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(true);

pub(crate) fn writers_wait_for_work(wait: bool) {
    WRITERS_WAIT.store(wait, std::sync::atomic::Ordering::SeqCst);
}

#[derive(Debug)]
pub(crate) struct Condition(Condvar);

impl Default for Condition {
    fn default() -> Self {
        Self::new()
    }
}

impl Condition {
    pub(crate) fn new() -> Self {
        Self(Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut LeafGuard<'_, T>) {
        let inner = guard.inner.take().expect("held");
        guard.inner = Some(self.0.wait(inner).expect("no panic"));
    }

    /// Never over: a thread that is not woken is a fault, which no deadline hides.
    pub(crate) fn wait_until<T>(&self, guard: &mut LeafGuard<'_, T>, _deadline: Instant) -> bool {
        self.wait(guard);
        false
    }

    /// How writer threads wait for work. Where they do not, the time is over at once, as it may be at any moment.
    pub(crate) fn wait_for<T>(&self, guard: &mut LeafGuard<'_, T>, _time: Duration) -> bool {
        let is_over = !WRITERS_WAIT.load(std::sync::atomic::Ordering::SeqCst);
        if !is_over {
            self.wait(guard);
        }
        is_over
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}
