//! Address space that must be left beside a new connection's stack.
//!
//! A failed allocation ends a Rust program, so a process that is about to run out of memory must refuse connections
//! while
//! there is still some for those that it has. A thread that cannot be created is refused anyway; without this check the
//! last
//! thread could take the last page. Matters under `RLIMIT_AS` and on 32-bit processors. A control group's limit does
//! not
//! show here: there [`Limits::max_connections`](crate::Limits::max_connections) is the guard.

use std::io;

use memmap2::MmapMut;

/// What is left after a connection's thread has been created, in bytes: enough for the heap to grow and for refusals.
const RESERVE: usize = 1024 * 1024;

/// Fails unless a stack of this size and [`RESERVE`] bytes can be mapped. Maps them, touches none and unmaps them: two
/// system calls, no memory.
pub(crate) fn check(stack: usize) -> io::Result<()> {
    MmapMut::map_anon(stack.saturating_add(RESERVE)).map(drop)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_no_process_has_is_an_error() {
        assert!(super::check(0).is_ok() && super::check(512 * 1024).is_ok());
        assert!(super::check(isize::MAX.unsigned_abs()).is_err() && super::check(usize::MAX).is_err());
    }
}
