//! Writing: directly for one frame, in batches for queued frames.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{Batch, Done, Progress};
use super::catch_up::MAX_PULLS;
use super::{Outbox, Slot, WriteFailure, phase};
use crate::config::deadline_after;
use crate::message::Encoded;
use crate::sync::atomic::{Ordering, fence};
use crate::transport::{Transport, is_timeout};

/// Maximum number of batches that a sender writes before it hands the socket to the writer thread.
const MAX_BATCHES: usize = 16;

/// Maximum time for which one write blocks.
pub(super) const WAKE: Duration = Duration::from_secs(1);

/// The result of [`Outbox::pump`].
#[derive(Debug)]
enum Pumped {
    Idle,
    /// The socket takes no more and is handed over.
    Blocked,
    /// [`MAX_BATCHES`] have been written; the socket is handed over.
    More,
    Failed(WriteFailure),
}

impl Outbox {
    /// Writes queued and pullable messages, or leaves that to the thread that is writing.
    pub(crate) fn flush(self: &Arc<Self>) {
        let mut pulls = 0;
        loop {
            // (2) of the module's argument.
            fence(Ordering::SeqCst);
            if self.phase.load(Ordering::Relaxed) == phase::DEAD {
                return self.discard();
            }
            let Some(mut slot) = self.socket.try_lock() else { return };
            if slot.is_handed_over() {
                return;
            }
            let mut done = Done::default();
            let pumped = match self.take_lone(&mut slot) {
                Some(frame) => {
                    let pumped = self.send_one(&mut slot, &frame);
                    done.add(frame);
                    pumped
                }
                None => self.pump(&mut slot, &mut done, Transport::try_send_all, Transport::try_finish),
            };
            drop(slot);
            // (5) of the module's argument; (6) is the look at the work.
            fence(Ordering::SeqCst);
            self.wake_awaiting();
            done.dispose();
            match pumped {
                Pumped::Idle if self.has_work() => {}
                // The writer thread handles a long catch-up.
                Pumped::Idle if pulls == MAX_PULLS && self.wants_pull() => return self.call_writer(),
                Pumped::Idle if self.pull() => pulls += 1,
                Pumped::Idle => return,
                Pumped::Blocked | Pumped::More => return self.call_writer(),
                Pumped::Failed(why) => return self.fail(why),
            }
        }
    }

    /// The fast path. If nothing is queued and the socket is free, writes the frame straight into the socket.
    #[inline]
    pub(super) fn write_through(self: &Arc<Self>, frame: &Encoded) -> bool {
        let Some(mut slot) = self.socket.try_lock() else { return false };
        if !slot.is_free() || !self.is_plain() {
            return false;
        }
        let pumped = self.send_one(&mut slot, frame);
        drop(slot);
        match pumped {
            Pumped::Blocked | Pumped::More => self.call_writer(),
            Pumped::Failed(why) => self.fail(why),
            Pumped::Idle => {
                self.reset_drops();
                // (5) and (6) of the module's argument.
                fence(Ordering::SeqCst);
                if self.has_work() || self.wants_pull() {
                    self.flush();
                }
            }
        }
        true
    }

    /// Whether a frame may be written next without another look. The caller holds the socket's mutex, so this thread's
    /// earlier messages are in the queue, in the slot or in the socket.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.queue.is_empty()
            && !self.urgent.load(Ordering::Relaxed)
            && self.phase.load(Ordering::Relaxed) == phase::OPEN
    }

    /// Writes one frame that goes next. The caller holds the socket's mutex, and nothing waits before the frame.
    #[inline]
    fn send_one(&self, slot: &mut Slot, frame: &Encoded) -> Pumped {
        let written = match self.transport.try_send(frame.wire()) {
            Ok(n) if n == frame.len() => return Pumped::Idle,
            Ok(n) => n,
            Err(e) if is_timeout(&e) => 0,
            Err(e) => return Pumped::Failed(WriteFailure::Error(e.kind())),
        };
        let mut batch = Batch::default();
        batch.push_partial(frame, written);
        self.note_taken(true);
        slot.hand_over(batch);
        Pumped::Blocked
    }

    /// Takes the frame that goes next if nothing else is to be written. The caller holds the socket's mutex.
    fn take_lone(&self, slot: &mut Slot) -> Option<Encoded> {
        let is_lone = matches!(slot, Slot::Next(_)) && self.is_plain();
        match is_lone.then(|| std::mem::take(slot)) {
            Some(Slot::Next(frame)) => {
                self.queue.release(&frame);
                Some(frame)
            }
            _ => None,
        }
    }

    /// The frames of a slot.
    pub(super) fn batch_of(&self, slot: Slot) -> Batch {
        match slot {
            Slot::Backlog(backlog) => backlog.batch,
            Slot::Free => Batch::scratch(),
            Slot::Next(frame) => {
                self.queue.release(&frame);
                let mut batch = Batch::scratch();
                batch.push_message(frame);
                batch
            }
        }
    }

    /// Notes whether the socket is blocked. Threads that wait for room in the queue depend on it.
    pub(super) fn note_taken(&self, is_blocked: bool) {
        // The load avoids a write if nothing has changed, which is nearly always.
        if self.is_blocked.load(Ordering::Relaxed) != is_blocked {
            self.is_blocked.store(is_blocked, Ordering::SeqCst);
            self.gate.wake();
        }
    }

    /// Writes batch after batch, at most [`MAX_BATCHES`], so that written messages are dropped soon. The caller holds
    /// the socket's mutex.
    fn pump(
        &self,
        slot: &mut Slot,
        done: &mut Done,
        send: impl Fn(&Transport, &[io::IoSlice<'_>]) -> io::Result<usize>,
        finish: impl Fn(&Transport) -> io::Result<()>,
    ) -> Pumped {
        let mut batch = self.batch_of(std::mem::take(slot));
        for _ in 0..MAX_BATCHES {
            if self.phase.load(Ordering::SeqCst) >= phase::CLOSE_SENT {
                batch.abandon(done);
                return Pumped::Idle;
            }
            self.refill(&mut batch, done);
            if batch.is_empty() && !batch.closes() {
                batch.into_scratch();
                return Pumped::Idle;
            }
            let written = batch.write(done, |buffers| {
                let taken = send(&self.transport, buffers)?;
                self.note_taken(false);
                Ok(taken)
            });
            match written {
                Ok(Progress::Blocked) => {
                    self.note_taken(true);
                    slot.hand_over(batch);
                    return Pumped::Blocked;
                }
                // An event stream ends with its connection: the peer sends no closing answer.
                Ok(Progress::Closed)
                    if self.format.is_event_stream()
                        && finish(&self.transport).is_err_and(|error| is_timeout(&error)) =>
                {
                    slot.hand_over(batch);
                    return Pumped::Blocked;
                }
                Ok(Progress::Closed) => self.close_sent(),
                // The look after unlocking finds what comes after this one. A close frame does not count as work: it
                // waits until the queue is empty, so a closing outbox goes round once more.
                Ok(Progress::Written) if self.is_open() && !self.has_work() => {
                    batch.into_scratch();
                    return Pumped::Idle;
                }
                Ok(Progress::Written) => {}
                Err(e) => {
                    batch.abandon(done);
                    return Pumped::Failed(WriteFailure::Error(e.kind()));
                }
            }
        }
        slot.hand_over(batch);
        Pumped::More
    }

    /// Fills the batch: control frames first, then the queue, then the close frame once nothing else is left.
    fn refill(&self, batch: &mut Batch, done: &mut Done) {
        if batch.closes() {
            return;
        }
        // The load avoids an atomic write if nothing is urgent, which is nearly always.
        if self.urgent.load(Ordering::SeqCst) && self.urgent.swap(false, Ordering::SeqCst) {
            self.controls.lock().take_urgent(self.format).for_each(|frame| batch.push_urgent(frame));
        }
        // Read before the queue is emptied. Everything sent before the close began is in the queue by then.
        let is_closing = self.phase.load(Ordering::SeqCst) == phase::CLOSING;
        let join = self.settings.coalesce_writes && self.format.is_websocket();
        batch.refill(join, done, || self.queue.pop());
        if batch.is_empty() && is_closing {
            if let Some(close) = self.controls.lock().take_close() {
                batch.push_close(close);
            }
        }
        self.gate.wake();
    }

    /// The writer thread's work: writes everything, blocking.
    pub(super) fn write_blocking(self: &Arc<Self>) {
        let mut slot = self.socket.lock();
        loop {
            let mut done = Done::default();
            let finish = |transport: &Transport| self.retry(|| transport.finish());
            let pumped = self.pump(&mut slot, &mut done, |_, buffers| self.send_blocking(buffers), finish);
            drop(slot);
            done.dispose();
            match pumped {
                Pumped::Idle => {}
                // The socket stays handed over, so no other thread writes in the meantime.
                Pumped::More => {
                    slot = self.socket.lock();
                    continue;
                }
                Pumped::Blocked => return self.fail(WriteFailure::Timeout),
                Pumped::Failed(why) => return self.fail(why),
            }
            // (5) and (6) of the module's argument, then the pusher's (3).
            fence(Ordering::SeqCst);
            if !self.has_work() && !self.pull() {
                self.note_unblocked();
                return;
            }
            // Pulled messages are in the queue by now. As a pusher, this thread has done (1); this is its (2).
            fence(Ordering::SeqCst);
            match self.socket.try_lock() {
                Some(again) => slot = again,
                None => return,
            }
        }
    }

    /// Blocks until the socket takes data, for at most `write_timeout`. A full socket takes more only after the peer
    /// has acknowledged earlier data, which is recorded as a sign of life.
    fn send_blocking(&self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self.transport.try_send_all(buffers) {
            Err(error) if is_timeout(&error) => self.note_taken(true),
            done => return done,
        }
        let sent = self.retry(|| self.transport.send_all(buffers))?;
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        Ok(sent)
    }

    /// The flusher's work in place of a writer thread: writes what the socket takes now. Returns `None` once there is
    /// nothing to do, otherwise whether the socket has taken data.
    pub(super) fn write_unblocked(self: &Arc<Self>) -> Option<bool> {
        let (has_taken, mut done) = (Cell::new(false), Done::default());
        // Another thread holds the socket for a moment.
        let Some(mut slot) = self.socket.try_lock() else { return Some(false) };
        let send = |transport: &Transport, buffers: &[io::IoSlice<'_>]| {
            let taken = transport.try_send_all(buffers)?;
            has_taken.set(true);
            Ok(taken)
        };
        let pumped = self.pump(&mut slot, &mut done, send, Transport::try_finish);
        drop(slot);
        done.dispose();
        if has_taken.get() {
            // Relaxed, as in `send_blocking`: a sign of life.
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        match pumped {
            Pumped::Idle => self.flush(),
            Pumped::Blocked | Pumped::More => return Some(has_taken.get()),
            Pumped::Failed(why) => self.fail(why),
        }
        None
    }

    /// Tries again to start a writer thread, while the flusher writes in its place. Returns whether there is one now.
    pub(super) fn has_got_writer(self: &Arc<Self>) -> bool {
        self.writer.call(self)
    }

    /// Repeats a write that blocks for at most [`WAKE`] until it succeeds or `write_timeout` has passed. The kernel
    /// wakes a blocked writer only when a third of the socket's buffer is free, which is over a megabyte. A writer that
    /// retries by itself finds the first free byte.
    fn retry<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let deadline = deadline_after(self.settings.write_timeout);
        loop {
            match write() {
                Err(error) if is_timeout(&error) && Instant::now() < deadline => {}
                done => return done,
            }
        }
    }

    /// Whether there is output that may still be written.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        let waiting = !self.queue.is_empty() || self.urgent.load(Ordering::SeqCst);
        waiting && self.phase.load(Ordering::SeqCst) < phase::CLOSE_SENT
    }
}
