//! Batching across messages: while a thread is corked its sends only queue, and each client that got any is flushed once
//! at the end.
//!
//! There are two kinds. A [`Cork`] is the application's: it holds back until it is dropped, however long that takes. A
//! [`Burst`] is the crate's own, around messages that have arrived together. Application code runs under it for as long
//! as it likes, so what it holds back is flushed from outside after a millisecond: see [`held`](super::held).

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;

use super::held::{Held, next_number};
use super::{Outbox, flusher};

/// One explicit cork in [`DEPTH`].
const EXPLICIT: u32 = 1;
/// One burst in [`DEPTH`].
const BURST: u32 = 1 << 16;

thread_local! {
    /// Nested corks of this thread: bursts in the upper half, explicit ones in the lower half.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// The clients that this thread's explicit cork has touched, and the cork's number.
    static TOUCHED: RefCell<Touched> = const { RefCell::new(Touched { number: 0, list: Vec::new() }) };
    /// What this thread's burst holds back.
    static HELD: Arc<Held> = Arc::default();
}

/// Entries for which the list keeps its allocation between corks.
const KEPT: usize = 1024;

/// Messages after which a burst is flushed: then a batch is full anyway.
const BURST_MESSAGES: u32 = 64;

#[derive(Debug)]
struct Touched {
    number: u32,
    list: Vec<Arc<Outbox>>,
}

/// While this guard lives, this thread is corked: messages that it sends, through whichever hub, wait in their clients'
/// queues. When the guard is dropped, each client that got any is flushed once, many messages in one system call.
///
/// Use it around a burst of sends. A client whose queue fills up is flushed at once, so a cork loses nothing. Keep it
/// short, because nothing else sends what it holds back. Corks nest: the outermost flushes. Not `Send`.
#[derive(Debug)]
#[must_use = "dropping the guard at once corks nothing"]
pub struct Cork {
    this_thread: PhantomData<*const ()>,
}

impl Cork {
    pub(crate) fn new() -> Self {
        if depth_of(EXPLICIT) == 0 {
            TOUCHED.with(|t| t.borrow_mut().number = next_number());
        }
        DEPTH.with(|depth| depth.set(depth.get() + EXPLICIT));
        Self { this_thread: PhantomData }
    }
}

impl Drop for Cork {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - EXPLICIT));
        if depth_of(EXPLICIT) > 0 {
            return;
        }
        let mut list = TOUCHED.with(|t| std::mem::take(&mut t.borrow_mut().list));
        for outbox in list.drain(..) {
            outbox.unmark_corked();
            // Inside a burst, what the cork has held back goes out with the burst.
            if is_active() { touch(&outbox) } else { outbox.flush() }
        }
        list.shrink_to(KEPT);
        TOUCHED.with(|t| t.borrow_mut().list = list);
    }
}

/// A cork around the handling of messages that have arrived together. What it holds back leaves after 64 messages, after
/// a millisecond, or when the guard is dropped, whichever comes first.
#[derive(Debug)]
pub(crate) struct Burst {
    messages: u32,
    this_thread: PhantomData<*const ()>,
}

impl Burst {
    pub(crate) fn begin() -> Self {
        DEPTH.with(|depth| depth.set(depth.get() + BURST));
        Self { messages: 0, this_thread: PhantomData }
    }

    /// Call it before each message.
    #[inline]
    pub(crate) fn next(&mut self) {
        if self.messages == BURST_MESSAGES {
            self.messages = 0;
            HELD.with(|held| held.flush());
        }
        self.messages += 1;
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - BURST));
        if depth_of(BURST) == 0 {
            HELD.with(|held| held.flush());
        }
    }
}

/// How many corks of this kind are nested.
fn depth_of(kind: u32) -> u32 {
    let depth = DEPTH.with(Cell::get);
    if kind == EXPLICIT { depth % BURST } else { depth / BURST }
}

/// Whether this thread is corked.
#[inline]
pub(super) fn is_active() -> bool {
    DEPTH.with(Cell::get) > 0
}

/// Notes that `outbox`, to whose queue this thread has pushed, must be flushed later.
pub(super) fn touch(outbox: &Arc<Outbox>) {
    if depth_of(EXPLICIT) == 0 {
        return HELD.with(|held| hold_back(held, outbox));
    }
    TOUCHED.with(|t| {
        let mut t = t.borrow_mut();
        if outbox.mark_corked(t.number) {
            t.list.push(Arc::clone(outbox));
        }
    });
}

fn hold_back(held: &Arc<Held>, outbox: &Arc<Outbox>) {
    if held.touch(outbox) && !flusher::watch(held) {
        // There is no thread that would flush it in time.
        held.unwatch();
        held.flush();
    }
}
