//! The messages held back by one thread's burst, accessible to the flusher thread.
//!
//! # Why nothing stays behind
//!
//! A client is on the list if its mark is the list's number. The owner of the list: (1) push to the client's queue, (2)
//! fence, (3) load the number and compare it with the mark. The thread that takes the list, which is the owner or the
//! flusher: (4) store a new number, (5) fence, (6) look at the queue of each client of the list and flush it. Both
//! fences are sequentially consistent. If (2) comes before (5), the push (1) is visible to the flush (6), by the
//! argument of the parent module. If (5) comes first, (3) loads the new number, which is not the mark: the client is
//! listed again.
//!
//! # What the flusher may get wrong
//!
//! Whether the owner is busy pushing is a guess from the number of its pushes. An owner that is descheduled looks like
//! one that waits in application code, and is flushed a little early; one that begins to wait right after many pushes
//! is flushed a millisecond late. No guess delays a message for more than [`HELD_WHILE_BUSY`] and a look.

use std::sync::Arc;
use std::sync::atomic::AtomicU32 as Counter;
use std::time::{Duration, Instant};

use super::Outbox;
use super::lists::flush_list;
use crate::lock::Leaf;
use crate::sync::atomic::{AtomicU32, Ordering, fence};

/// How long a burst may hold a message back.
pub(super) const HELD_AT_MOST: Duration = Duration::from_millis(1);

/// A thread that has pushed this many messages within [`HELD_AT_MOST`] is busy sending, not waiting in application
/// code. A flush by the flusher would split into two writes what the thread is about to write at once.
const BUSY_PUSHES: u32 = 500;

/// How long such a busy thread may hold a message back.
const HELD_WHILE_BUSY: Duration = Duration::from_millis(5);

/// The number of entries for which the list keeps its allocation between bursts.
const KEPT: usize = 1024;

/// Maximum number of entries. Bursts of several threads to the same clients list them again and again, because each
/// mark replaces the other's; a longer list is flushed by its owner.
const MOST: usize = if cfg!(test) { 2000 } else { 64 * 1024 };

/// The source of list numbers. A client's mark is the number of the list that has it. Relaxed, because the numbers in
/// use at one time only need to differ.
static NEXT: Counter = Counter::new(1);

/// Returns the number of a new list. Never 0, which marks a client that is on no list.
pub(super) fn next_number() -> u32 {
    match NEXT.fetch_add(1, Ordering::Relaxed) {
        0 => NEXT.fetch_add(1, Ordering::Relaxed),
        number => number,
    }
}

/// The clients that one thread has pushed to and not flushed. Only that thread adds clients; it and the flusher take
/// them.
#[derive(Debug)]
pub(crate) struct Held {
    /// The number of the list. Written under the lock of `list`. The owner also reads it without the lock; see the
    /// module's argument.
    number: AtomicU32,
    /// Messages that the owner has pushed, modulo 2^32. Only the owner writes it. Relaxed, because the flusher uses it
    /// only as a hint.
    pushes: AtomicU32,
    list: Leaf<List>,
}

#[derive(Debug, Default)]
struct List {
    outboxes: Vec<Arc<Outbox>>,
    /// When the first client was listed.
    since: Option<Instant>,
    /// `pushes` at that moment, or at the flusher's last look that found the owner busy.
    pushes_seen: u32,
    /// The flusher watches this list.
    is_watched: bool,
}

/// The result of the flusher's check of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing is held back. The flusher removes the list.
    Empty,
    /// Messages are held back. Check again at this time.
    Until(Instant),
}

impl Default for Held {
    fn default() -> Self {
        Self { number: AtomicU32::new(next_number()), pushes: AtomicU32::new(0), list: Leaf::default() }
    }
}

impl Held {
    /// Lists `outbox`, to which the owner has pushed, for a timely flush. Returns true if the flusher does not watch
    /// this list yet and must be told.
    #[inline]
    pub(crate) fn touch(&self, outbox: &Arc<Outbox>) -> bool {
        self.pushes.store(self.pushes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        // (2) of the module's argument; (3) follows.
        fence(Ordering::SeqCst);
        !outbox.is_marked(self.number.load(Ordering::Relaxed)) && self.add(outbox)
    }

    fn add(&self, outbox: &Arc<Outbox>) -> bool {
        let mut list = self.list.lock();
        outbox.mark_corked(self.number.load(Ordering::Relaxed));
        list.outboxes.push(Arc::clone(outbox));
        if list.since.is_none() {
            // The only look at the clock: one for everything that the burst holds back.
            list.since = Some(Instant::now());
            list.pushes_seen = self.pushes.load(Ordering::Relaxed);
        }
        let is_full = list.outboxes.len() >= MOST;
        let is_new = !std::mem::replace(&mut list.is_watched, true);
        drop(list);
        if is_full {
            self.flush();
        }
        is_new
    }

    /// Notes that the flusher cannot watch this list.
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
    pub(crate) fn flush_if_due(&self, now: Instant) -> Look {
        let mut due = {
            let mut list = self.list.lock();
            let Some(since) = list.since else {
                list.is_watched = false;
                return Look::Empty;
            };
            if since + HELD_AT_MOST > now {
                return Look::Until(since + HELD_AT_MOST);
            }
            let pushes = self.pushes.load(Ordering::Relaxed);
            let is_busy = pushes.wrapping_sub(std::mem::replace(&mut list.pushes_seen, pushes)) >= BUSY_PUSHES;
            if is_busy && since + HELD_WHILE_BUSY > now {
                return Look::Until(now + HELD_AT_MOST);
            }
            self.take(&mut list)
        };
        flush_all(&mut due);
        Look::Until(now + HELD_AT_MOST)
    }

    /// Empties the list. Clients of later pushes are listed again.
    fn take(&self, list: &mut List) -> Vec<Arc<Outbox>> {
        // (4) of the module's argument.
        self.number.store(next_number(), Ordering::Relaxed);
        list.since = None;
        std::mem::take(&mut list.outboxes)
    }
}

fn flush_all(list: &mut Vec<Arc<Outbox>>) {
    // A mark does not outlive its list, so numbers can be reused.
    list.iter().for_each(|outbox| outbox.unmark_corked());
    // (5) of the module's argument, before the first look at a queue.
    fence(Ordering::SeqCst);
    flush_list(list);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::message::{Compressed, Encoded, Message, WireFormat};
    use crate::transport::Transport;
    use std::os::unix::net::UnixStream;

    const PUSHES: usize = BUSY_PUSHES as usize;

    /// An outbox whose socket takes everything, and the far end.
    fn outbox() -> (Arc<Outbox>, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair");
        let config = Arc::new(Config::default().queue_messages(10 * PUSHES).into());
        let outbox = Outbox::new(Transport::from(near), config, WireFormat::WebSocket, Vec::new());
        outbox.open();
        (outbox, far)
    }

    fn push(held: &Held, outbox: &Arc<Outbox>, count: usize) {
        let frame =
            Encoded::new(&Message::text("x"), WireFormat::WebSocket, Compressed::default()).expect("carries all");
        for _ in 0..count {
            outbox.push(&frame);
            held.touch(outbox);
        }
    }

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn what_is_held_back_is_due_after_a_millisecond() {
        let (held, (outbox, _far)) = (Held::default(), outbox());
        let before = Instant::now();
        assert_eq!(held.flush_if_due(before), Look::Empty);
        push(&held, &outbox, PUSHES - 1);
        assert!(matches!(held.flush_if_due(before), Look::Until(due) if due > before));
        assert_eq!(outbox.depth().0, PUSHES - 1);
        held.flush_if_due(Instant::now() + milliseconds(1));
        assert_eq!(outbox.depth().0, 0);
        assert_eq!(held.flush_if_due(Instant::now()), Look::Empty);
    }

    #[test]
    fn bursts_that_list_the_same_client_in_turn_keep_short_lists() {
        let (held, (outbox, _far)) = ([Held::default(), Held::default()], outbox());
        for _ in 0..2 * MOST {
            held.iter().for_each(|held| push(held, &outbox, 1));
            assert!(held.iter().all(|held| held.list.lock().outboxes.len() < MOST));
        }
        held.iter().for_each(Held::flush);
        // A flush hands over to the writer thread after a thousand messages.
        let deadline = Instant::now() + Duration::from_secs(60);
        while outbox.depth().0 > 0 {
            assert!(Instant::now() < deadline, "a message is left behind");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_thread_that_pushes_a_lot_may_finish_but_not_for_ever() {
        let (held, (outbox, _far)) = (Held::default(), outbox());
        push(&held, &outbox, PUSHES + 1);
        let listed = held.list.lock().since.expect("listed");
        held.flush_if_due(listed + milliseconds(1));
        assert_eq!(outbox.depth().0, PUSHES + 1, "it is busy");
        held.flush_if_due(listed + milliseconds(2));
        assert_eq!(outbox.depth().0, 0, "it has not pushed since");
        push(&held, &outbox, PUSHES + 1);
        let listed = held.list.lock().since.expect("listed");
        for look in 1..5 {
            held.flush_if_due(listed + milliseconds(look));
            assert!(outbox.depth().0 > usize::try_from(look).unwrap() * PUSHES, "look {look}");
            push(&held, &outbox, PUSHES);
        }
        held.flush_if_due(listed + milliseconds(5));
        // A flush hands over to the writer thread after a thousand messages.
        assert!(outbox.depth().0 < 4 * PUSHES, "it has had its time");
    }
}
