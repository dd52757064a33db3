//! What one thread's burst holds back, in reach of the thread that flushes it from outside.
//!
//! # Why nothing stays behind
//!
//! A client is on the list if its mark is the list's number. The owner of the list: (1) push to the client's queue,
//! (2) fence, (3) load the number and compare it with the mark. Whoever takes the list, the owner or the flusher: (4) store
//! a new number, (5) fence, (6) flush each client of the list. Both fences are sequentially consistent. If (2) comes
//! before (5), the push (1) is visible to the flush (6), by the argument of the parent module. If (5) comes first, (3)
//! loads the new number, which is not the mark: the client is listed again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use super::Outbox;
use crate::lock::Leaf;

/// How long a burst may hold a message back.
pub(super) const HELD_AT_MOST: Duration = Duration::from_millis(1);

/// Entries for which the list keeps its allocation between bursts.
const KEPT: usize = 1024;

/// Numbers lists, so that a client's mark tells whether this very list has it. Relaxed: numbers are only unique, among
/// those in use at one time.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A new list's number. Never 0, which marks a client that is on no list.
pub(super) fn next_number() -> u32 {
    match NEXT.fetch_add(1, Ordering::Relaxed) {
        0 => NEXT.fetch_add(1, Ordering::Relaxed),
        number => number,
    }
}

/// The clients that one thread has pushed to and not flushed. Only that thread adds to it; it and the flusher take.
#[derive(Debug)]
pub(super) struct Held {
    /// The number of the list. Written under the lock of `list`; the owner also reads it without: see the module.
    number: AtomicU32,
    list: Leaf<List>,
}

#[derive(Debug, Default)]
struct List {
    outboxes: Vec<Arc<Outbox>>,
    /// When the first of them was listed.
    since: Option<Instant>,
    /// The flusher looks at this list.
    is_watched: bool,
}

/// What the flusher finds when it looks at a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing is held back: the flusher forgets the list.
    Empty,
    /// Something is held back; look again at this time.
    Until(Instant),
}

impl Default for Held {
    fn default() -> Self {
        Self { number: AtomicU32::new(next_number()), list: Leaf::default() }
    }
}

impl Held {
    /// The owner has pushed to `outbox`, which must be flushed in time. True if the flusher does not look at this list yet
    /// and must be told to.
    #[inline]
    pub(super) fn touch(&self, outbox: &Arc<Outbox>) -> bool {
        // (2) of the module's argument; (3) follows.
        fence(Ordering::SeqCst);
        !outbox.is_marked(self.number.load(Ordering::Relaxed)) && self.add(outbox)
    }

    fn add(&self, outbox: &Arc<Outbox>) -> bool {
        let mut list = self.list.lock();
        outbox.mark_corked(self.number.load(Ordering::Relaxed));
        list.outboxes.push(Arc::clone(outbox));
        if list.since.is_none() {
            // The only look at the clock, once for all that the burst holds back.
            list.since = Some(Instant::now());
        }
        !std::mem::replace(&mut list.is_watched, true)
    }

    /// The flusher cannot look at this list.
    pub(super) fn unwatch(&self) {
        self.list.lock().is_watched = false;
    }

    /// Flushes everything now.
    pub(super) fn flush(&self) {
        let mut list = {
            let mut list = self.list.lock();
            if list.outboxes.is_empty() {
                return;
            }
            self.take(&mut list)
        };
        flush_all(&mut list);
        list.shrink_to(KEPT);
        let mut own = self.list.lock();
        if own.outboxes.capacity() == 0 {
            own.outboxes = list;
        }
    }

    /// Flushes everything if it has been held back for long enough.
    pub(super) fn flush_if_due(&self, now: Instant) -> Look {
        let mut due = {
            let mut list = self.list.lock();
            match list.since.map(|since| since + HELD_AT_MOST) {
                None => {
                    list.is_watched = false;
                    return Look::Empty;
                }
                Some(due) if due > now => return Look::Until(due),
                Some(_) => self.take(&mut list),
            }
        };
        flush_all(&mut due);
        Look::Until(now + HELD_AT_MOST)
    }

    /// Empties the list. What is pushed from now on is listed anew.
    fn take(&self, list: &mut List) -> Vec<Arc<Outbox>> {
        // (4) of the module's argument; each flush begins with (5).
        self.number.store(next_number(), Ordering::Relaxed);
        list.since = None;
        std::mem::take(&mut list.outboxes)
    }
}

fn flush_all(list: &mut Vec<Arc<Outbox>>) {
    for outbox in list.drain(..) {
        // A mark does not outlive its list, so that numbers may be used again.
        outbox.unmark_corked();
        outbox.flush();
    }
}
