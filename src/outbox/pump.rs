//! Writing: the direct way for one frame, batches for what is queued.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::batch::{Batch, Progress};
use super::catch_up::MAX_PULLS;
use super::{Backlog, Outbox, WriteFailure, phase};
use crate::message::Encoded;
use crate::transport::{Transport, is_timeout};

/// Batches that a sender writes for others before it hands the socket to the writer thread.
const MAX_BATCHES: usize = 16;

/// What a [`Outbox::pump`] came to.
#[derive(Debug)]
enum Pumped {
    Idle,
    /// The socket is handed over.
    Blocked,
    Failed(WriteFailure),
}

impl Outbox {
    /// Writes what is queued and what can be pulled, or leaves that to whoever is at it.
    pub(crate) fn flush(self: &Arc<Self>) {
        let mut pulls = 0;
        loop {
            // (2) of the module's argument.
            fence(Ordering::SeqCst);
            let Some(mut slot) = self.socket.try_lock() else { return };
            if slot.as_ref().is_some_and(|b| b.handed_over) {
                return;
            }
            let pumped = self.pump(&mut slot, MAX_BATCHES, Transport::try_send_all);
            drop(slot);
            // (5) of the module's argument; (6) is the look at the work.
            fence(Ordering::SeqCst);
            match pumped {
                Pumped::Idle if self.has_work() => {}
                // A long way to catch up is the writer thread's.
                Pumped::Idle if pulls == MAX_PULLS && self.wants_pull() => return self.call_writer(),
                Pumped::Idle if self.pull() => pulls += 1,
                Pumped::Idle => return,
                Pumped::Blocked => return self.call_writer(),
                Pumped::Failed(why) => return self.fail(why),
            }
        }
    }

    /// The fast path: nothing queued and the socket free, so the frame goes from the sender's hands into the socket.
    #[inline]
    pub(super) fn write_through(self: &Arc<Self>, frame: &Encoded) -> bool {
        let Some(mut slot) = self.socket.try_lock() else { return false };
        // Under the mutex, this thread's earlier messages are in the queue, in the backlog or in the socket.
        let is_free = slot.is_none()
            && self.queue.is_empty()
            && !self.urgent.load(Ordering::Relaxed)
            && self.phase.load(Ordering::Relaxed) == phase::OPEN;
        if !is_free {
            return false;
        }
        let result = self.transport.try_send(frame.wire());
        if result.as_ref().is_ok_and(|n| *n == frame.len()) {
            drop(slot);
            self.reset_drops();
            // (5) and (6) of the module's argument.
            fence(Ordering::SeqCst);
            if self.has_work() || self.wants_pull() {
                self.flush();
            }
            return true;
        }
        let written = match result {
            Ok(n) => n,
            Err(e) if is_timeout(&e) => 0,
            Err(e) => {
                drop(slot);
                self.fail(WriteFailure::Error(e.kind()));
                return true;
            }
        };
        let mut batch = Batch::default();
        batch.push_partial(frame, written);
        *slot = Some(Box::new(Backlog { batch, handed_over: true }));
        drop(slot);
        self.call_writer();
        true
    }

    /// Writes batch after batch. The caller holds the socket's mutex.
    fn pump(
        &self,
        slot: &mut Option<Box<Backlog>>,
        max_batches: usize,
        send: impl Fn(&Transport, &[io::IoSlice<'_>]) -> io::Result<usize>,
    ) -> Pumped {
        let mut batch = slot.take().map_or_else(Batch::scratch, |backlog| backlog.batch);
        for _ in 0..max_batches {
            if self.phase.load(Ordering::SeqCst) >= phase::CLOSE_SENT {
                return Pumped::Idle;
            }
            self.refill(&mut batch);
            if batch.is_empty() {
                batch.into_scratch();
                return Pumped::Idle;
            }
            match batch.write(|buffers| send(&self.transport, buffers)) {
                Ok(Progress::Blocked) => {
                    *slot = Some(Box::new(Backlog { batch, handed_over: true }));
                    return Pumped::Blocked;
                }
                Ok(Progress::Closed) => self.close_sent(),
                // What comes after this look is seen by the one after unlocking. A close frame is no "work": it waits
                // for the queue to be empty, so a closing outbox takes another turn.
                Ok(Progress::Written) if self.is_open() && !self.has_work() => {
                    batch.into_scratch();
                    return Pumped::Idle;
                }
                Ok(Progress::Written) => {}
                Err(e) => return Pumped::Failed(WriteFailure::Error(e.kind())),
            }
        }
        *slot = Some(Box::new(Backlog { batch, handed_over: true }));
        Pumped::Blocked
    }

    /// Control frames first, then the queue, and the close frame when nothing else is left.
    fn refill(&self, batch: &mut Batch) {
        if batch.closes() {
            return;
        }
        // The load spares an atomic write where nothing is urgent, which is nearly always.
        if self.urgent.load(Ordering::SeqCst) && self.urgent.swap(false, Ordering::SeqCst) {
            self.controls.lock().take_urgent(self.format).for_each(|frame| batch.push_urgent(frame));
        }
        // Looked at before the queue is emptied: what was sent before the close began is in the queue by then.
        let is_closing = self.phase.load(Ordering::SeqCst) == phase::CLOSING;
        let join = self.settings.coalesce_writes && self.format.is_websocket();
        batch.refill(join, || self.queue.pop());
        if batch.is_empty()
            && is_closing
            && let Some(close) = self.controls.lock().close.take()
        {
            batch.push_close(close);
        }
        self.gate.wake();
    }

    /// The writer thread's work: everything, blocking.
    pub(super) fn write_blocking(self: &Arc<Self>) {
        let mut slot = self.socket.lock();
        loop {
            let pumped = self.pump(&mut slot, usize::MAX, Transport::send_all);
            drop(slot);
            match pumped {
                Pumped::Idle => {}
                Pumped::Blocked => return self.fail(WriteFailure::Timeout),
                Pumped::Failed(why) => return self.fail(why),
            }
            // (5) and (6) of the module's argument, then the pusher's (3).
            fence(Ordering::SeqCst);
            if !self.has_work() && !self.pull() {
                self.note_unblocked();
                return;
            }
            // What was pulled is in the queue by now: a pusher's (1) and (2).
            fence(Ordering::SeqCst);
            match self.socket.try_lock() {
                Some(again) => slot = again,
                None => return,
            }
        }
    }

    /// Whether there is something that may still be written.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        let waiting = !self.queue.is_empty() || self.urgent.load(Ordering::SeqCst);
        waiting && self.phase.load(Ordering::SeqCst) < phase::CLOSE_SENT
    }
}
