//! Starts threads of connections, and keeps address space free besides their stacks.
//!
//! A failed allocation ends a Rust program. So a process that is about to run out of memory must refuse connections
//! while enough is left for the existing ones. A thread that cannot be created is refused anyway, but without this
//! check the last thread could take the last page. This matters under `RLIMIT_AS` and on 32-bit processors. It does not
//! see a control group's limit; there [`Limits::max_connections`](crate::Limits::max_connections) is the guard.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use memmap2::MmapMut;

use crate::lock::Leaf;

/// Free address space that must remain after a connection's thread has been created, in bytes: enough for refusals, and
/// for the program.
const RESERVE: usize = 1024 * 1024;
/// Free address space that must remain for each running thread, in bytes, because connections later need heap for rooms
/// and messages.
const RESERVE_EACH: usize = 64 * 1024;

/// One thread is created at a time. Otherwise two checks could count the same memory.
static TURN: Leaf<()> = Leaf::new(());
/// The number of running threads. Relaxed: a count that nothing else depends on.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Counts a thread until it is dropped.
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

/// Fails unless a stack of this size and the reserve can be mapped. Maps both and unmaps them without touching them,
/// which costs two system calls and no memory.
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
