//! Catching up from where a client fell behind: its outbox pulls the missing messages as its socket drains.
//!
//! A [`Source`] is one stream in which the client catches up, with its own cursor. A thread that has drained the queue
//! and released the socket's mutex takes a source, lets it push at most a batch into the queue, and puts it back. So a
//! client that is behind costs its cursors and one batch. A pull holds no lock of the outbox, so a source may take
//! locks of its own.
//!
//! # Why the order is kept
//!
//! Pulled messages go to the end of the queue, like every message. While a source is listed, only its pulls push its
//! messages. The code that lists the source guarantees this. The source itself ends the guarantee when it is done,
//! under the lock under which others decide whether to push.
//!
//! # Why no wake-up is lost
//!
//! A thread that lists or releases a source sets the mark `BEHIND` before its flush, as a post sets `urgent`. The
//! argument in the parent module's documentation therefore applies, with "look for work" (6) including this mark. A
//! thread that finds the source taken may leave: the thread that has it puts it back and then checks the queue and the
//! mark again.

use std::fmt;
use std::sync::Arc;

use super::{Outbox, mark, phase};
use crate::disposal;
use crate::lock::Leaf;
use crate::message::Encoded;
use crate::sync::atomic::Ordering;

/// Maximum number of messages that one pull pushes.
pub(crate) const BATCH_MESSAGES: usize = 32;
/// A pull pushes no further message once it has pushed this many bytes.
pub(crate) const BATCH_BYTES: usize = 64 * 1024;

/// Maximum number of pulls in one flush by a sender. The writer thread does the rest.
pub(super) const MAX_PULLS: usize = 16;

/// The result of [`Source::pull`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// The batch is over, or the queue is full; there is more.
    More,
    /// The client has caught up. The source is not called again.
    Done,
}

/// A stream in which a client catches up.
pub(crate) trait Source: Send + Sync {
    /// A number that is unique among all sources of the process.
    fn ticket(&self) -> u64;

    /// Pushes the next messages in order, until a push fails or the batch is over. A message whose push failed comes
    /// first in the next pull. One thread at a time calls this, without a lock of the outbox. It must not block for
    /// long.
    fn pull(&mut self, push: &mut dyn FnMut(&Encoded) -> bool) -> Pulled;
}

/// Not by its content: what a source refers to would be linked into every program.
impl fmt::Debug for dyn Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.ticket()).finish()
    }
}

/// The sources of one client.
#[derive(Debug, Default)]
pub(super) struct Sources(
    /// Not held while a source is pulled from or dropped. The mark `BEHIND` changes under it.
    Leaf<Vec<Entry>>,
);

#[derive(Debug)]
struct Entry {
    ticket: u64,
    /// Not pulled from before [`Outbox::release`].
    held: bool,
    /// `None` while a thread pulls from it.
    source: Option<Box<dyn Source>>,
}

impl Outbox {
    /// Whether there is a source that may be pulled from. SeqCst, as the argument above needs.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        self.marks.load(Ordering::SeqCst) & mark::BEHIND != 0
    }

    /// Changes the list of sources and updates the mark.
    fn with_sources<T>(&self, change: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
        let mut sources = self.sources.0.lock();
        let result = change(&mut sources);
        if sources.iter().any(|entry| !entry.held) {
            self.marks.fetch_or(mark::BEHIND, Ordering::SeqCst);
        } else {
            self.marks.fetch_and(!mark::BEHIND, Ordering::SeqCst);
        }
        result
    }

    /// Takes the next source in turn. `None` if there is no source, or if another thread has taken one: that thread
    /// looks again after its pull, so this one may leave.
    fn take_source(&self) -> Option<Box<dyn Source>> {
        let mut sources = self.sources.0.lock();
        if sources.iter().any(|entry| entry.source.is_none()) {
            return None;
        }
        sources.iter_mut().find(|entry| !entry.held).and_then(|entry| entry.source.take())
    }

    /// Puts a source back at the end of the list. Returns it if it is done, so that the caller can drop it without a
    /// lock.
    fn put_back(&self, source: Box<dyn Source>, pulled: Pulled) -> Option<Box<dyn Source>> {
        self.with_sources(|sources| {
            let at = sources.iter().position(|entry| entry.ticket == source.ticket());
            match (at.map(|at| sources.remove(at)), pulled) {
                (Some(entry), Pulled::More) => {
                    sources.push(Entry { source: Some(source), ..entry });
                    None
                }
                _ => Some(source),
            }
        })
    }

    /// Lists `source`, in which the client catches up. Does nothing else, so it may be called under a lock. The caller
    /// must [`flush`](Self::flush) after it has released that lock. With `held`, nothing is read before
    /// [`release`](Self::release).
    pub(crate) fn fall_behind(&self, source: Box<dyn Source>, held: bool) {
        self.with_sources(|sources| sources.push(Entry { ticket: source.ticket(), held, source: Some(source) }));
    }

    /// Starts pulling from a source that was held.
    pub(crate) fn release(self: &Arc<Self>, ticket: u64) {
        self.with_sources(|sources| {
            sources.iter_mut().filter(|entry| entry.ticket == ticket).for_each(|entry| entry.held = false);
        });
        self.flush();
    }

    /// Whether a whole batch is queued.
    pub(crate) fn is_crowded(&self) -> bool {
        self.queue.len() >= BATCH_MESSAGES || self.queue.bytes() >= BATCH_BYTES
    }

    /// Whether a message waits. True also while another thread's push is under way.
    pub(crate) fn is_waiting(&self) -> bool {
        self.queue.bytes() != 0
    }

    /// Queues one frame if it fits. Does no I/O, so it may be called under a lock. The caller must flush.
    pub(crate) fn push_if_fits(&self, frame: &Encoded) -> bool {
        let fits = self.is_open() && self.try_push(frame);
        if fits {
            self.reset_drops();
        }
        fits
    }

    /// Whether there is something to pull. A closing client gets what is queued, and no more.
    #[inline]
    pub(super) fn wants_pull(&self) -> bool {
        self.is_behind() && self.phase.load(Ordering::SeqCst) == phase::OPEN
    }

    /// Moves a batch into the queue. Returns false if there is nothing to do for this thread.
    pub(super) fn pull(&self) -> bool {
        if !self.wants_pull() {
            return false;
        }
        let Some(mut source) = self.take_source() else { return false };
        let (mut messages, mut bytes) = (0, 0);
        let pulled = source.pull(&mut |frame| {
            let fits = messages < BATCH_MESSAGES && bytes < BATCH_BYTES && self.push_if_fits(frame);
            if fits {
                messages += 1;
                bytes += frame.held();
            }
            fits
        });
        // A source that is done is dropped here, without a lock.
        disposal::dispose_all(self.put_back(source, pulled).into_iter().collect::<Vec<_>>());
        true
    }

    /// Drops all sources when the connection ends, because sources keep rooms in memory.
    pub(super) fn forget_sources(&self) {
        disposal::dispose_all(self.with_sources(std::mem::take));
    }
}
