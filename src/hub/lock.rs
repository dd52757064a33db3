//! The hub's locks, ranked. A thread may only take locks of rising rank; debug builds check every acquisition, release
//! builds pay nothing.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::ops::{Deref, DerefMut};

/// The order in which locks are taken.
pub(super) mod rank {
    pub(in crate::hub) const CLIENTS: u8 = 1;
    pub(in crate::hub) const ROOMS: u8 = 2;
    pub(in crate::hub) const ROOM: u8 = 3;
    pub(in crate::hub) const CLIENT: u8 = 4;
    pub(in crate::hub) const USERS: u8 = 5;
}

/// A reader-writer lock that knows its place in the order.
#[derive(Debug, Default)]
pub(super) struct Ranked<const RANK: u8, T>(RwLock<T>);

impl<const RANK: u8, T> Ranked<RANK, T> {
    pub(super) const fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    pub(super) fn read(&self) -> Guard<RwLockReadGuard<'_, T>> {
        let held = Held::take(RANK);
        Guard { inner: self.0.read(), _held: held }
    }

    pub(super) fn write(&self) -> Guard<RwLockWriteGuard<'_, T>> {
        let held = Held::take(RANK);
        Guard { inner: self.0.write(), _held: held }
    }
}

/// A held lock. Fields drop in order: the lock is free before its rank is.
#[derive(Debug)]
pub(super) struct Guard<G> {
    inner: G,
    _held: Held,
}

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        &self.inner
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
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
    }

    impl Drop for Held {
        fn drop(&mut self) {
            RANKS.set(RANKS.get() & !self.0);
        }
    }

    pub(in crate::hub) fn assert_none() {
        let held = RANKS.get();
        assert!(held == 0, "user code or I/O while holding hub locks of ranks {held:#b}");
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
    }

    #[inline]
    pub(in crate::hub) fn assert_none() {}
}

use held::Held;
/// Panics in debug builds when this thread holds a hub lock: called before user code and before sockets are written.
pub(super) use held::assert_none as assert_no_lock_held;

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
    fn user_code_under_a_lock_panics() {
        let rooms = Ranked::<{ rank::ROOMS }, _>::new(1);
        assert_no_lock_held();
        assert!(panics(|| (rooms.read(), assert_no_lock_held())));
        assert_no_lock_held();
    }
}
