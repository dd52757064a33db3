//! Sharing one fan-out between the thread that sends, its *owner*, and the hub's [helper threads](super::helpers).
//!
//! The owner decides everything. It alone pushes, so helpers affect neither the order of a client's messages nor what
//! is dropped. Helpers only flush outboxes that the owner has pushed to. The owner works through the list from the
//! front and writes straight into the sockets. From the back, it pushes a few chunks ahead and offers them to the
//! helpers that have arrived. If a helper is not scheduled in time, the owner flushes the chunks that it offered that
//! helper, at the end.
//!
//! # When the owner returns
//!
//! When the owner returns, each outbox has been flushed, or a helper is writing to its socket. A helper may be
//! descheduled between taking a chunk and flushing it. So the owner also flushes the chunks that helpers have taken but
//! not finished. Flushing twice is harmless, because a flush looks at the queue.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::Outbox;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::thread;

/// The number of outboxes that a thread takes at a time. Large enough that outboxes do not move between the cores'
/// caches one by one, small enough that no thread waits long for the last chunk.
pub(super) const CHUNK: usize = if cfg!(wshub_loom) { 1 } else { 32 };
/// The number of outboxes that the owner writes to between two looks at the helpers.
const STEP: usize = if cfg!(wshub_loom) { 1 } else { 16 };
/// The number of chunks that the owner offers in advance to each helper.
const AHEAD: usize = 2;
/// How often an idle helper looks again before it leaves. That takes some tens of microseconds, within which the owner
/// normally offers the next chunk.
const LOOKS: usize = if cfg!(wshub_loom) { 0 } else { 200 };

/// Outboxes in a fixed order.
pub(crate) trait List: Send + Sync {
    fn len(&self) -> usize;

    fn outbox(&self, at: usize) -> &Arc<Outbox>;
}

/// Its length, for the same reason as [`Source`](super::catch_up::Source) its number.
impl fmt::Debug for dyn List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("List").field(&self.len()).finish()
    }
}

impl List for Arc<[Arc<Outbox>]> {
    fn len(&self) -> usize {
        self.as_ref().len()
    }

    fn outbox(&self, at: usize) -> &Arc<Outbox> {
        &self[at]
    }
}

/// What the owner does for a range of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Push and flush.
    Now,
    /// Push only. A flush follows, perhaps on another thread.
    Later,
}

/// The flushes of one fan-out that helpers may take over.
#[derive(Debug)]
pub(crate) struct Job {
    list: Box<dyn List>,
    /// Outboxes from this index to the end are offered. Only the owner lowers it. The owner stores it with Release
    /// after its pushes, and a thread that takes a chunk loads it with Acquire, so its flush sees the pushes.
    offered: AtomicUsize,
    /// Outboxes from this index to the end are taken. Relaxed: each decrement gives its thread a chunk of its own, and
    /// `offered` orders everything else.
    taken: AtomicUsize,
    /// The number of flushed outboxes. Release and Acquire: the owner skips an outbox only after its flush has
    /// returned.
    flushed: AtomicUsize,
    /// The number of helpers at work on this job. Relaxed, because it only tells the owner how much to offer.
    present: AtomicUsize,
    /// The owner offers no more. Relaxed: only helpers that found nothing to do read it.
    is_over: AtomicBool,
}

impl Job {
    pub(crate) fn new(list: Box<dyn List>) -> Self {
        let len = list.len();
        Self {
            list,
            offered: AtomicUsize::new(len),
            taken: AtomicUsize::new(len),
            flushed: AtomicUsize::new(0),
            present: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// The owner's part. `deliver` is called once for each outbox of the list, in ranges.
    pub(crate) fn run(&self, expected: usize, mut deliver: impl FnMut(Range<usize>, How)) {
        // Also flushes what has been pushed if `deliver` panics.
        let _finish = Finish(self);
        let (mut front, mut back) = (0, self.list.len());
        // Before the helpers arrive, one chunk is offered to each.
        let mut ahead = expected;
        while front < back {
            while front < back && self.taken.load(Ordering::Relaxed) - back < ahead * CHUNK {
                let from = back.saturating_sub(CHUNK).max(front);
                deliver(from..back, How::Later);
                back = from;
                self.offered.store(back, Ordering::Release);
            }
            let to = (front + STEP).min(back);
            deliver(front..to, How::Now);
            front = to;
            ahead = AHEAD * self.present.load(Ordering::Relaxed);
        }
    }

    /// A helper's part: flushes offered chunks until the owner has finished.
    pub(crate) fn help(&self) {
        self.present.fetch_add(1, Ordering::Relaxed);
        let mut looks = 0;
        while looks <= LOOKS {
            if let Some(range) = self.take() {
                self.flush(range);
                looks = 0;
            } else if self.is_over.load(Ordering::Relaxed) {
                break;
            } else {
                looks += 1;
                thread::yield_now();
            }
        }
        self.present.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes the next chunk that is offered.
    fn take(&self) -> Option<Range<usize>> {
        let offered = self.offered.load(Ordering::Acquire);
        let next = |taken: usize| (taken > offered).then(|| taken.saturating_sub(CHUNK).max(offered));
        let end = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        Some(next(end)?..end)
    }

    fn flush(&self, range: Range<usize>) {
        let count = range.len();
        prefetch_queues(range.clone().map(|at| self.list.outbox(at)));
        range.for_each(|at| self.list.outbox(at).flush_if_needed());
        self.flushed.fetch_add(count, Ordering::Release);
    }

    /// Flushes what helpers have not taken or not finished.
    fn finish(&self) {
        while let Some(range) = self.take() {
            self.flush(range);
        }
        self.is_over.store(true, Ordering::Relaxed);
        let offered = self.offered.load(Ordering::Relaxed);
        let len = self.list.len();
        // The chunks taken last come first, because helpers usually still have those.
        for from in (offered..len).step_by(CHUNK) {
            if self.flushed.load(Ordering::Acquire) == len - offered {
                return;
            }
            (from..(from + CHUNK).min(len)).for_each(|at| self.list.outbox(at).flush_if_needed());
        }
    }
}

/// Finishes a job at the end of a scope.
struct Finish<'a>(&'a Job);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Fetches what a push or a flush of each of these clients reads first, with all loads in flight together. For those
/// with messages in their queues, which another thread may have changed, that includes the queues' ends.
pub(crate) fn prefetch_queues<'a>(outboxes: impl Iterator<Item = &'a Arc<Outbox>>) {
    let ends = |outbox: &Arc<Outbox>| if outbox.queue.bytes() == 0 { 0 } else { outbox.queue.len() };
    std::hint::black_box(outboxes.map(ends).sum::<usize>());
}

impl Outbox {
    /// Flushes if something is queued. Avoids the lock of an outbox that another thread has already flushed.
    pub(super) fn flush_if_needed(self: &Arc<Self>) {
        // A dead outbox must be flushed, too, for its messages to be dropped.
        if self.is_waiting() || self.urgent.load(Ordering::SeqCst) || self.wants_pull() {
            self.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::message::{Compressed, Encoded, Message, WireFormat};
    use crate::transport::Transport;
    use std::os::unix::net::UnixStream;

    /// Outboxes whose sockets take everything, and the far ends.
    fn outboxes(count: usize) -> (Arc<[Arc<Outbox>]>, Vec<UnixStream>) {
        let pairs = (0..count).map(|_| {
            let (near, far) = UnixStream::pair().expect("a pair");
            let group = Arc::new(Config::default().into());
            let outbox = Outbox::new(Transport::from(near), group, WireFormat::WebSocket, Vec::new());
            outbox.open();
            (outbox, far)
        });
        let (outboxes, far): (Vec<_>, Vec<_>) = pairs.unzip();
        (outboxes.into(), far)
    }

    #[test]
    fn the_owner_flushes_what_helpers_have_not_come_for_or_not_finished() {
        let (list, _far) = outboxes(5 * CHUNK + 7);
        let frame =
            Encoded::new(&Message::text("x"), WireFormat::WebSocket, Compressed::default()).expect("carries all");
        for is_taken in [false, true] {
            let job = Job::new(Box::new(Arc::clone(&list)));
            let (mut given, mut later, mut taken) = (0, 0, None);
            job.run(1, |range, how| {
                given += range.len();
                if is_taken {
                    // A helper that is descheduled before it flushes anything.
                    taken = taken.take().or_else(|| job.take());
                }
                for outbox in &list[range] {
                    match how {
                        How::Now => _ = outbox.send(&frame),
                        How::Later => _ = (outbox.send_later(&frame), later += 1),
                    }
                }
            });
            assert_eq!((given, later, taken.is_some()), (list.len(), CHUNK, is_taken));
            assert!(list.iter().all(|outbox| outbox.depth().0 == 0), "a message waits");
        }
    }
}
