//! Batching across messages: while a thread is corked, its sends only queue messages. At the end, each affected client
//! is flushed once.
//!
//! There are two kinds. The application creates a [`Cork`], which holds messages back until it is dropped, however long
//! that takes. The crate creates a [`Burst`] around messages that have arrived together. Application code may run for
//! any time inside a burst, so the flusher thread flushes its messages after a millisecond: see [`held`](super::held).

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;

use super::held::{Held, next_number};
use super::lists::flush_list;
use super::{Outbox, flusher};

/// One explicit cork in [`DEPTH`].
const EXPLICIT: u32 = 1;
/// One burst in [`DEPTH`].
const BURST: u32 = 1 << 16;

thread_local! {
    /// Nested corks of this thread: bursts in the upper half, explicit ones in the lower half.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// The number of this thread's explicit cork, and the clients with messages that it holds back.
    static TOUCHED: RefCell<Touched> = const { RefCell::new(Touched { number: 0, list: Vec::new() }) };
    /// The messages held back by this thread's burst.
    static HELD: Arc<Held> = Arc::default();
}

/// The number of entries for which the list keeps its allocation between corks.
const KEPT: usize = 1024;

/// Number of messages after which a burst is flushed, because a batch is full then.
const BURST_MESSAGES: u32 = 64;

#[derive(Debug)]
struct Touched {
    number: u32,
    list: Vec<Arc<Outbox>>,
}

/// A guard that corks its thread: messages that the thread sends, through any hub, wait in their clients' queues. When
/// the guard is dropped, each affected client is flushed once, with many messages in one system call.
///
/// Use it around a burst of sends. A client whose queue fills up is flushed at once, so a cork loses nothing. Keep it
/// short, because what it holds back usually waits for its end. Corks nest: the outermost one flushes. A cork is
/// not `Send`.
#[derive(Debug)]
#[must_use = "dropping the guard at once corks nothing"]
pub struct Cork {
    this_thread: PhantomData<*const ()>,
}

impl Cork {
    pub(crate) fn new() -> Self {
        if depth_of(EXPLICIT) == 0 {
            // Fails at the end of the thread, when nothing is held back.
            let _ = TOUCHED.try_with(|t| t.borrow_mut().number = next_number());
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
        let Ok(mut list) = TOUCHED.try_with(|t| std::mem::take(&mut t.borrow_mut().list)) else { return };
        list.iter().for_each(|outbox| outbox.unmark_corked());
        if is_active() {
            // Inside a burst, the burst flushes the cork's messages.
            list.drain(..).for_each(|outbox| touch(&outbox));
        } else {
            flush_list(&mut list);
        }
        list.shrink_to(KEPT);
        let _ = TOUCHED.try_with(|t| t.borrow_mut().list = list);
    }
}

/// A cork around the handling of messages that have arrived together. It is flushed after 64 messages, after a
/// millisecond, or when the guard is dropped, whichever comes first.
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

    /// Counts a message, before it is handled. After enough messages, flushes what is held back.
    #[inline]
    pub(crate) fn next(&mut self) {
        if self.messages == BURST_MESSAGES {
            self.messages = 0;
            flush_held();
        }
        self.messages += 1;
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - BURST));
        if depth_of(BURST) == 0 {
            flush_held();
        }
    }
}

/// The nesting depth of corks of this kind.
fn depth_of(kind: u32) -> u32 {
    let depth = DEPTH.with(Cell::get);
    if kind == EXPLICIT { depth % BURST } else { depth / BURST }
}

/// Whether this thread is corked.
#[inline]
pub(super) fn is_active() -> bool {
    DEPTH.with(Cell::get) > 0
}

/// Lists `outbox`, to whose queue this thread has pushed, for a later flush. At the end of a thread, a destructor of a
/// thread-local value may send when the list no longer exists. The flush then happens at once.
pub(super) fn touch(outbox: &Arc<Outbox>) {
    let listed = if depth_of(EXPLICIT) == 0 {
        HELD.try_with(|held| hold_back(held, outbox))
    } else {
        TOUCHED.try_with(|t| {
            let mut t = t.borrow_mut();
            if outbox.mark_corked(t.number) {
                t.list.push(Arc::clone(outbox));
            }
        })
    };
    if listed.is_err() {
        outbox.flush();
    }
}

/// Flushes the messages that this thread's burst holds back.
fn flush_held() {
    let _ = HELD.try_with(|held| held.flush());
}

fn hold_back(held: &Arc<Held>, outbox: &Arc<Outbox>) {
    if held.touch(outbox) && !flusher::watch(held) {
        // No thread can flush the list in time.
        held.unwatch();
        held.flush();
    }
}
