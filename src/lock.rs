//! Ranked locks. A thread takes locks only in rising rank. Debug builds check each acquisition; release builds pay
//! nothing.
//!
//! User code, drops of user values, log calls and metrics run without any of these locks; debug builds check this in
//! [`assert_no_lock_held`]. I/O runs only under four kinds of lock, each of which is the right to that I/O; see
//! [`rank`].
//!
//! The table of all locks is in `hub/mod.rs`.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The order in which locks are taken.
#[allow(dead_code, reason = "some locks exist only with a feature")]
pub(crate) mod rank {
    pub(crate) const CLIENTS: u8 = 1;
    pub(crate) const ROOMS: u8 = 2;
    /// The order of the publications of one room.
    pub(crate) const SEQUENCE: u8 = 3;
    pub(crate) const ROOM: u8 = 4;
    pub(crate) const CLIENT: u8 = 5;
    pub(crate) const USERS: u8 = 6;
    /// A bus adapter's connection. Held during I/O on it; only the cluster's threads take it.
    pub(crate) const BUS: u8 = 18;
    /// A TLS connection's received data. Held during reads of its socket; only the connection's thread takes it.
    pub(crate) const INBOUND: u8 = 19;
    /// The right to write to one client's socket. Held during writes.
    pub(crate) const SOCKET: u8 = 20;
    /// A TLS connection's state, taken under `INBOUND` or `SOCKET`. Held during non-blocking writes to its socket.
    pub(crate) const SOCKET_STATE: u8 = 21;
    /// A leaf: no lock is taken under it.
    pub(crate) const LEAF: u8 = 31;
}

/// A reader-writer lock with a rank.
#[derive(Debug, Default)]
pub(crate) struct Ranked<const RANK: u8, T>(RwLock<T>);

impl<const RANK: u8, T> Ranked<RANK, T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    pub(crate) fn read(&self) -> Guard<RwLockReadGuard<'_, T>> {
        let held = Held::take(RANK);
        Guard { inner: self.0.read(), held }
    }

    /// Returns the value without locking, because `self` is not shared.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    pub(crate) fn write(&self) -> Guard<RwLockWriteGuard<'_, T>> {
        let held = Held::take(RANK);
        Guard { inner: self.0.write(), held }
    }
}

/// A mutex with a rank; by default a leaf.
#[derive(Default)]
pub(crate) struct Leaf<T, const RANK: u8 = { rank::LEAF }>(Mutex<T>);

/// A held [`Leaf`].
pub(crate) type LeafGuard<'a, T> = Guard<MutexGuard<'a, T>>;

impl<T, const RANK: u8> Leaf<T, RANK> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> LeafGuard<'_, T> {
        let held = Held::take(RANK);
        Guard { inner: self.0.lock(), held }
    }

    /// `None` if another thread holds it.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<LeafGuard<'_, T>> {
        let held = Held::take(RANK);
        self.0.try_lock().map(|inner| Guard { inner, held })
    }
}

/// Does not show the value, so printing takes no lock.
impl<T, const RANK: u8> fmt::Debug for Leaf<T, RANK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leaf")
    }
}

/// A condition variable for a [`Leaf`]. A waiting thread holds no other lock; debug builds check it.
#[derive(Debug, Default)]
pub(crate) struct Condition(Condvar);

impl Condition {
    pub(crate) const fn new() -> Self {
        Self(Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut LeafGuard<'_, T>) {
        guard.held.assert_alone();
        self.0.wait(&mut guard.inner);
    }

    /// Waits. Returns true if the deadline has passed.
    pub(crate) fn wait_until<T>(&self, guard: &mut LeafGuard<'_, T>, deadline: Instant) -> bool {
        guard.held.assert_alone();
        self.0.wait_until(&mut guard.inner, deadline).timed_out()
    }

    /// Waits. Returns true if the time has passed.
    pub(crate) fn wait_for<T>(&self, guard: &mut LeafGuard<'_, T>, time: Duration) -> bool {
        guard.held.assert_alone();
        self.0.wait_for(&mut guard.inner, time).timed_out()
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A held lock. Fields drop in order, so the lock is released before its rank.
#[derive(Debug)]
pub(crate) struct Guard<G> {
    inner: G,
    held: Held,
}

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;

    #[inline]
    fn deref(&self) -> &G::Target {
        &self.inner
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    #[inline]
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.inner
    }
}

#[cfg(debug_assertions)]
mod held {
    use std::cell::Cell;

    thread_local! {
        /// One bit for each rank that this thread holds.
        static RANKS: Cell<u32> = const { Cell::new(0) };
    }

    #[derive(Debug)]
    pub(super) struct Held(u32);

    impl Held {
        pub(super) fn take(rank: u8) -> Self {
            let bit = 1 << rank;
            let held = RANKS.get();
            assert!(held < bit, "lock order: rank {rank} taken while holding ranks {held:#b}");
            RANKS.set(held | bit);
            Self(bit)
        }

        /// Panics if this thread holds another lock.
        pub(super) fn assert_alone(&self) {
            let others = RANKS.get() & !self.0;
            assert!(others == 0, "a thread waits while holding locks of ranks {others:#b}");
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            RANKS.set(RANKS.get() & !self.0);
        }
    }

    pub(crate) fn assert_none() {
        let held = RANKS.get();
        assert!(held == 0, "user code, logging or I/O while holding locks of ranks {held:#b}");
    }
}

#[cfg(not(debug_assertions))]
mod held {
    #[derive(Debug)]
    pub(super) struct Held;

    impl Held {
        #[inline]
        pub(super) fn take(_rank: u8) -> Self {
            Self
        }

        #[inline]
        #[allow(clippy::unused_self, reason = "debug builds look at it")]
        pub(super) fn assert_alone(&self) {}
    }

    #[inline]
    pub(crate) fn assert_none() {}
}

use held::Held;
/// Panics in debug builds when this thread holds a lock of the crate. Called before user code runs, before a user's
/// value drops, before logging, and before a send.
pub(crate) use held::assert_none as assert_no_lock_held;

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn panics<T>(code: impl FnOnce() -> T) -> bool {
        catch_unwind(AssertUnwindSafe(|| drop(code()))).is_err()
    }

    #[test]
    fn rising_ranks_pass_and_others_panic() {
        let rooms = Ranked::<{ rank::ROOMS }, _>::new(1);
        let users = Ranked::<{ rank::USERS }, _>::new(2);
        {
            let _rooms = rooms.read();
            let mut users = users.write();
            *users += 1;
        }
        assert!(panics(|| (users.read(), rooms.read())), "falling");
        assert!(panics(|| (rooms.read(), rooms.read())), "same rank twice");
        assert!(!panics(|| users.read()), "a panic releases what it held");
    }

    #[test]
    fn nothing_is_taken_under_a_leaf() {
        let (socket, leaf, other) = (Leaf::<_, { rank::SOCKET }>::new(()), Leaf::<_>::new(()), Leaf::<_>::new(()));
        let users = Ranked::<{ rank::USERS }, _>::new(());
        assert!(!panics(|| (users.read(), leaf.lock())), "a leaf under a hub lock");
        assert!(!panics(|| (socket.try_lock(), leaf.lock())), "a leaf under a socket");
        assert!(panics(|| (leaf.lock(), other.lock())), "a leaf under a leaf");
        assert!(panics(|| (leaf.lock(), users.read())), "a hub lock under a leaf");
        assert!(panics(|| (leaf.lock(), socket.try_lock())), "trying is taking");
    }

    #[test]
    fn a_thread_that_waits_holds_nothing_else() {
        let (users, leaf, condition) = (Ranked::<{ rank::USERS }, _>::new(()), Leaf::<_>::new(()), Condition::new());
        assert!(condition.wait_for(&mut leaf.lock(), Duration::from_millis(1)));
        assert!(panics(|| {
            let _users = users.read();
            condition.wait_for(&mut leaf.lock(), Duration::from_millis(1))
        }));
    }

    #[test]
    fn user_code_under_a_lock_panics() {
        let (rooms, leaf) = (Ranked::<{ rank::ROOMS }, _>::new(1), Leaf::<_>::new(()));
        assert_no_lock_held();
        assert!(panics(|| (rooms.read(), assert_no_lock_held())));
        assert!(panics(|| (leaf.lock(), assert_no_lock_held())));
        assert_no_lock_held();
    }
}
