//! Threads of connections, and the address space that must be left beside their stacks.
//!
//! A failed allocation ends a Rust program, so a process that is about to run out of memory must refuse connections
//! while there is still some for those that it has. A thread that cannot be created is refused anyway; without this
//! check the last thread could take the last page. Matters under `RLIMIT_AS` and on 32-bit processors. A control
//! group's limit does not show here: there [`Limits::max_connections`](crate::Limits::max_connections) is the guard.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use memmap2::MmapMut;

use crate::lock::Leaf;

/// What is left after a connection's thread has been created, in bytes: enough for refusals, and for the program.
const RESERVE: usize = 1024 * 1024;
/// What is left besides for each thread that runs: connections take heap after they have begun, for rooms and messages.
const RESERVE_EACH: usize = 64 * 1024;

/// One thread is created at a time: otherwise two checks could count the same memory.
static TURN: Leaf<()> = Leaf::new(());
/// Threads that run. Relaxed: a count that nothing else depends on.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// A thread that is counted.
struct Counted;

impl Counted {
    fn new() -> Self {
        RUNNING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts a detached thread with a stack of this size. Fails if it cannot be created, or if it would leave less than
/// the reserve.
pub(crate) fn spawn(name: &str, stack: usize, code: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = thread::Builder::new().name(name.into()).stack_size(stack);
    let _turn = TURN.lock();
    check(stack)?;
    let counted = Counted::new();
    let counted_code = move || {
        let _counted = counted;
        code();
    };
    builder.spawn(counted_code).map(drop)
}

/// Fails unless a stack of this size and the reserve can be mapped. Maps them, touches none and unmaps them: two system
/// calls, no memory.
pub(crate) fn check(stack: usize) -> io::Result<()> {
    let each = RUNNING.load(Ordering::Relaxed).saturating_mul(RESERVE_EACH);
    MmapMut::map_anon(stack.saturating_add(RESERVE).saturating_add(each)).map(drop)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_no_process_has_is_an_error() {
        assert!(super::check(0).is_ok() && super::check(512 * 1024).is_ok());
        assert!(super::check(isize::MAX.unsigned_abs()).is_err() && super::check(usize::MAX).is_err());
    }

    #[test]
    fn a_thread_runs_or_is_an_error() {
        let (done, wait) = std::sync::mpsc::channel();
        assert!(super::spawn("wshub-test", usize::MAX, || ()).is_err());
        super::spawn("wshub-test", 64 * 1024, move || done.send(()).unwrap_or_default()).expect("a thread");
        wait.recv().expect("it has run");
    }
}
