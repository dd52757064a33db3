//! The system's allocator, which counts. A test or a bench that takes this module takes it as its allocator.
#![allow(dead_code, clippy::unwrap_used, reason = "each taker uses a part, and may fail by a panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

// All relaxed: counts that nothing else depends on.

/// Bytes in use.
static LIVE: AtomicUsize = AtomicUsize::new(0);
/// Allocations so far, a growing or shrinking one among them, and the bytes that were asked for.
static TAKEN: (AtomicUsize, AtomicUsize) = (AtomicUsize::new(0), AtomicUsize::new(0));

thread_local! {
    /// Allocations of this thread.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that are allocated now, by all threads.
pub(crate) fn live_bytes() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Allocations that this thread has made so far.
pub(crate) fn own_allocations() -> usize {
    OWN.get()
}

/// Allocations that all threads have made so far, and their bytes.
pub(crate) fn all_allocations() -> (usize, usize) {
    (TAKEN.0.load(Ordering::Relaxed), TAKEN.1.load(Ordering::Relaxed))
}

fn count(size: usize) {
    OWN.set(OWN.get() + 1);
    TAKEN.0.fetch_add(1, Ordering::Relaxed);
    TAKEN.1.fetch_add(size, Ordering::Relaxed);
    LIVE.fetch_add(size, Ordering::Relaxed);
}

// SAFETY: everything is passed on to the system's allocator as it came. The counters do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Memory of this process that is resident, in KiB.
pub(crate) fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
