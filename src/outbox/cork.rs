//! Batching across messages: while a thread is corked its sends only queue, and each touched client is flushed once
//! at the end.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Outbox;

thread_local! {
    /// Nested corks of this thread.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// The clients that this thread's cork has touched, and the cork's number.
    static TOUCHED: RefCell<Touched> = const { RefCell::new(Touched { number: 0, list: Vec::new() }) };
}

/// Numbers corks, so that a client's mark tells whether this very cork has listed it. Relaxed: only unique, among those
/// that live at one time.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Kept in the list's allocation between corks.
const KEPT: usize = 1024;

#[derive(Debug)]
struct Touched {
    number: u32,
    list: Vec<Arc<Outbox>>,
}

/// While this guard lives, messages that this thread sends wait in their clients' queues; when it is dropped, each
/// client that got any is flushed once, many messages in one system call.
///
/// Use it around a burst of sends. A client whose queue fills up is flushed at once, so a cork loses nothing; but keep
/// it short, because what it holds back is not on its way. Corks nest: the outermost flushes. Not `Send`.
#[derive(Debug)]
#[must_use = "dropping the guard at once corks nothing"]
pub struct Cork {
    this_thread: PhantomData<*const ()>,
}

impl Cork {
    pub(crate) fn new() -> Self {
        if DEPTH.replace(DEPTH.get() + 1) == 0 {
            TOUCHED.with_borrow_mut(|t| t.number = next_number());
        }
        Self { this_thread: PhantomData }
    }
}

impl Drop for Cork {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        if DEPTH.get() > 0 {
            return;
        }
        let mut list = TOUCHED.with_borrow_mut(|t| std::mem::take(&mut t.list));
        for outbox in list.drain(..) {
            outbox.unmark_corked();
            outbox.flush();
        }
        list.shrink_to(KEPT);
        TOUCHED.with_borrow_mut(|t| t.list = list);
    }
}

/// Not 0, which is no cork's.
fn next_number() -> u32 {
    match NEXT.fetch_add(1, Ordering::Relaxed) {
        0 => NEXT.fetch_add(1, Ordering::Relaxed),
        number => number,
    }
}

/// Whether this thread is corked.
#[inline]
pub(super) fn is_active() -> bool {
    DEPTH.get() > 0
}

/// Notes that `outbox` must be flushed when this thread's cork ends.
pub(super) fn touch(outbox: &Arc<Outbox>) {
    TOUCHED.with_borrow_mut(|t| {
        if outbox.mark_corked(t.number) {
            t.list.push(Arc::clone(outbox));
        }
    });
}
