//! A client's outgoing side: a bounded queue of shared frames, and the socket behind a mutex.
//!
//! # Who writes
//!
//! The thread that holds the socket's mutex writes. A sender tries to lock it. If nothing is queued, the sender writes
//! the shared frame straight into the socket, without blocking; otherwise it pushes the frame to the queue and drains
//! the queue. A sender that does not get the mutex leaves, because the holder checks the queue again after unlocking.
//! When the socket takes no more, the holder keeps the half-written frame, marks the socket as handed over and calls
//! the writer thread, which writes with blocking calls until nothing is left. So a healthy connection needs no thread
//! switch per message, and a stalled connection costs its senders one failed `try_lock`. A writer thread ends a few
//! seconds after its last work. If no thread can be started, the process-wide [`flusher`] writes instead, without
//! blocking, until a thread can be started.
//!
//! Some sends push first and flush later: those to a room with a history, which push under the room's lock, and those
//! whose flushes are shared. Their frame waits in the [slot](slot::Slot) in front of the queue if nothing else waits,
//! so that the flush costs no more than a direct send. The next thread that locks the mutex writes it first.
//!
//! # Full, but not slow
//!
//! The drop policy is for slow peers. But a queue can also be full because the thread that holds the socket is not
//! scheduled. A sender that finds the queue full therefore waits some milliseconds for that thread, unless the socket
//! itself has pushed back.
//!
//! # Why no wake-up is lost
//!
//! Pusher: (1) push, (2) fence, (3) `try_lock`. Holder: (4) unlock, (5) fence, (6) look for work. Both fences are
//! sequentially consistent, so one comes first. If (2) comes first, the push (1) is visible to (6), and the holder
//! drains it. If (5) comes first, the unlock (4) is visible to (3), and the pusher gets the mutex, unless another
//! thread already holds it. That thread is a holder whose (4) is still to come, so the argument applies to it in turn.
//! The same holds with the `urgent` flag in place of the queue. A pusher that gets the mutex and finds the socket
//! handed over may leave: the writer thread has yet to lock the mutex, so it will see the push. `tests/loom` runs this
//! code under a model checker, `tests/races.rs` runs it against real sockets.

mod batch;
mod catch_up;
mod controls;
mod cork;
mod flusher;
mod gate;
mod group;
mod held;
#[cfg(not(wshub_loom))]
mod helpers;
#[cfg(not(wshub_loom))]
mod idle_cores;
mod lists;
mod pump;
mod queue;
mod send;
mod share;
mod slot;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

pub(crate) use catch_up::{BATCH_BYTES, BATCH_MESSAGES, Pulled, Source};
pub(crate) use cork::Burst;
pub use cork::Cork;
pub(crate) use group::Group;
#[cfg(wshub_loom)]
pub(crate) use held::Held;
#[cfg(not(wshub_loom))]
pub(crate) use helpers::Helpers;
pub(crate) use send::{GaveUp, Placed, Sent, flush_all, is_corked};
#[cfg(wshub_loom)]
pub(crate) use share::Job;
pub(crate) use share::{How, List, prefetch_queues};

use crate::atomic::AtomicU64;
use crate::disposal;
use crate::lock::{Leaf, rank};
use crate::message::{Encoded, WireFormat};
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence};
use crate::transport::Transport;
use batch::{Batch, Done};
use catch_up::Sources;
use controls::{Controls, Waiting};
use gate::Gate;
use queue::Queue;
use slot::{Backlog, Slot};
use writer::Writer;

/// The phases of an outbox. A phase only moves forward.
mod phase {
    /// Messages are accepted.
    pub(super) const OPEN: u8 = 0;
    /// No more messages are accepted. The queued messages are written, then the close frame.
    pub(super) const CLOSING: u8 = 1;
    /// The close frame is in the socket. Nothing is written after it.
    pub(super) const CLOSE_SENT: u8 = 2;
    /// The socket is dead.
    pub(super) const DEAD: u8 = 3;
}

/// Flags for rare conditions: one byte on the cache line that every send reads.
mod mark {
    /// `drops` is not 0. Set after `drops` is raised, cleared before `drops` is reset. Relaxed, because only a count
    /// depends on it.
    pub(super) const DROPPED: u8 = 1;
    /// A source may be pulled from. Changes under the lock of the sources. SeqCst; see `catch_up`.
    pub(super) const BEHIND: u8 = 2;
    /// A thread sleeps at the gate until a message fits. It sets this before its last look; who writes the frame in
    /// the slot clears it and wakes the gate. SeqCst; see `Outbox::try_push_or_wait`.
    pub(super) const AWAITED: u8 = 4;
}

/// Why the writing side of a connection died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteFailure {
    /// The socket made no progress for `write_timeout`.
    Timeout,
    /// The peer is gone or the socket broke.
    Error(io::ErrorKind),
}

/// The start of the clock for `unblocked`.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// See the module's documentation. The fields that a send to a healthy client reads come first, on one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Outbox {
    /// Only moves forward. SeqCst where it moves. A sender's first check is Relaxed, because the sender checks again
    /// under the socket's mutex, under which the close frame is written.
    phase: AtomicU8,
    /// `controls` is not empty. Set after the slot is filled, cleared before the slot is emptied.
    urgent: AtomicBool,
    format: WireFormat,
    /// Bits of [`mark`].
    marks: AtomicU8,
    /// The number of the cork or list that holds this client and has not flushed it yet; 0 = none. Relaxed, because a
    /// thread compares it only with a number that no other thread writes. Another thread may overwrite it; then the
    /// client is listed twice.
    corked_by: AtomicU32,
    transport: Transport,
    queue: Queue,
    /// The right to write to the socket.
    socket: Leaf<Slot, { rank::SOCKET }>,

    settings: Arc<Group>,
    /// The socket took nothing at the last attempt, or is not open yet. The holder of `socket` writes it before it
    /// wakes the gate. SeqCst, because threads that sleep at the gate read it.
    is_blocked: AtomicBool,
    /// Consecutive drops. Relaxed: a count that nothing else depends on.
    drops: AtomicU32,
    controls: Leaf<Controls, { rank::SOCKET_STATE }>,
    writer: Writer,
    /// Threads sleep here until the queue has room or the phase moves.
    gate: Gate,
    failure: OnceLock<WriteFailure>,
    /// When the writer thread last finished its work, in nanoseconds since [`EPOCH`]; 0 = never. Relaxed, because no
    /// other data depends on it.
    unblocked: AtomicU64,
    /// How often a full socket has taken more data. Relaxed: a count that nothing else depends on.
    acknowledged: AtomicU32,
    dropped: Dropped,
    sources: Sources,
}

/// Messages and bytes dropped for a client since it connected. Written only on a drop, so it lies behind the fields
/// that sends read. Relaxed: counts that nothing else depends on.
#[derive(Debug, Default)]
struct Dropped {
    messages: AtomicU64,
    bytes: AtomicU64,
}

#[cfg(all(target_pointer_width = "64", not(wshub_loom)))]
const _: () = {
    let socket = std::mem::offset_of!(Outbox, socket);
    // Behind the mutex' byte comes the slot's discriminant.
    assert!(socket + align_of::<Slot>() < 64, "what a send reads fits on one cache line");
};

impl Outbox {
    /// Creates an outbox that holds everything back until [`open`](Self::open). `first` is written before all messages.
    #[inline(never)]
    pub(crate) fn new(transport: Transport, settings: Arc<Group>, format: WireFormat, first: Vec<u8>) -> Arc<Self> {
        let mut batch = Batch::default();
        batch.push_last(first);
        Arc::new(Self {
            phase: AtomicU8::new(phase::OPEN),
            urgent: AtomicBool::new(false),
            format,
            marks: AtomicU8::new(0),
            corked_by: AtomicU32::new(0),
            transport,
            queue: Queue::new(),
            socket: Leaf::new(Slot::Backlog(Box::new(Backlog { batch, handed_over: true }))),
            settings,
            is_blocked: AtomicBool::new(true),
            drops: AtomicU32::new(0),
            controls: Leaf::default(),
            writer: Writer::default(),
            gate: Gate::default(),
            failure: OnceLock::new(),
            unblocked: AtomicU64::new(0),
            acknowledged: AtomicU32::new(0),
            dropped: Dropped::default(),
            sources: Sources::default(),
        })
    }

    /// Writes the first bytes as far as the socket takes them without blocking. Messages stay held back until
    /// [`open`](Self::open). So the thread that did the handshake can answer it, before the connection's own thread
    /// starts.
    pub(crate) fn answer(&self) {
        let mut done = Done::default();
        if let Some(backlog) = self.socket.lock().backlog() {
            // `open` writes what is left, and finds the socket's error.
            let _ = backlog.batch.write(&mut done, |buffers| self.transport.try_send_all(buffers));
            backlog.batch.shrink();
        }
        done.dispose();
    }

    /// Starts writing: what is left of the first bytes, then messages.
    pub(crate) fn open(self: &Arc<Self>) {
        // This fails only if the socket is dead already.
        let _ = self.transport.set_write_timeout(self.settings.write_timeout.min(pump::WAKE));
        if let Some(backlog) = self.socket.lock().backlog() {
            backlog.handed_over = false;
            self.is_blocked.store(false, Ordering::SeqCst);
        }
        if self.settings.eager_writers {
            // If no thread can be started now, the first hand-over tries again.
            let _ = self.writer.start(self);
        }
        self.flush();
    }

    /// A first check whether messages are accepted. A caller that relies on it must check again under the socket's
    /// mutex.
    #[inline]
    pub(crate) fn is_accepting(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == phase::OPEN
    }

    /// The format of this outbox's frames.
    #[inline]
    pub(crate) fn format(&self) -> WireFormat {
        self.format
    }

    /// Answers a ping.
    pub(crate) fn pong(self: &Arc<Self>, payload: Vec<u8>) {
        self.post(|c| c.pong = Some(payload));
    }

    /// Sends a ping.
    pub(crate) fn ping(self: &Arc<Self>) {
        self.post(|c| c.ping = true);
    }

    /// Begins to close: the queued messages are written, then the close frame. `None` sends a close frame without a
    /// code. Returns false if the close had already begun.
    pub(crate) fn begin_close(self: &Arc<Self>, close: Option<(u16, &str)>) -> bool {
        let has_begun = self.begin_close_later(close);
        if has_begun {
            self.flush();
        }
        has_begun
    }

    /// As [`begin_close`](Self::begin_close), but leaves the flush to the caller.
    pub(crate) fn begin_close_later(self: &Arc<Self>, close: Option<(u16, &str)>) -> bool {
        let close = controls::close(self.format, close);
        {
            let mut controls = self.controls.lock();
            let waiting = controls.waiting();
            if waiting.close_begun || !self.is_open() {
                return false;
            }
            waiting.close_begun = true;
            waiting.close = Some(close);
            self.advance(phase::CLOSING);
        }
        self.urgent.store(true, Ordering::SeqCst);
        self.gate.wake();
        true
    }

    /// Ends the connection at once. All threads blocked on it return.
    pub(crate) fn kill(&self) {
        self.advance(phase::DEAD);
        self.transport.kill();
        self.gate.wake();
    }

    /// Ends the outbox: it accepts and writes no more, drops waiting messages, and releases all blocked threads. The
    /// socket stays open for a final response or lingering.
    pub(crate) fn end(&self) {
        self.advance(phase::DEAD);
        self.gate.wake();
        self.forget_sources();
        self.discard();
    }

    /// Drops all waiting messages under no lock, because payloads may be the application's memory.
    ///
    /// A concurrent push leaves nothing behind. Pusher: push, fence, read the phase. This thread: set the phase, fence,
    /// pop. Both fences are sequentially consistent. So either this thread pops the pushed message, or the pusher sees
    /// the phase and calls `discard` as well.
    pub(super) fn discard(&self) {
        fence(Ordering::SeqCst);
        while let Some(frame) = self.queue.pop() {
            disposal::dispose_all(vec![frame]);
        }
        // A holder in the middle of a write drops its batch itself when it sees the phase.
        let slot = self.socket.try_lock().map(|mut slot| std::mem::take(&mut *slot));
        if let Some(slot) = slot {
            let mut done = Done::default();
            self.batch_of(slot).abandon(&mut done);
            done.dispose();
        }
    }

    /// Waits until the close frame is in the socket or the socket is dead. Returns false if the deadline passes first.
    pub(crate) fn wait_close_sent(&self, deadline: Instant) -> bool {
        let over = || (self.phase.load(Ordering::SeqCst) >= phase::CLOSE_SENT).then_some(());
        self.gate.wait_for(deadline, over).is_some()
    }

    /// Ends the writer thread, if there is one, and waits for it. Call it only when nothing is left to write.
    pub(crate) fn stop_writer(&self) {
        self.writer.stop();
        self.forget_sources();
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Whether messages are accepted.
    pub(crate) fn is_open(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == phase::OPEN
    }

    /// Whether the socket is dead.
    pub(crate) fn is_dead(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == phase::DEAD
    }

    /// Whether everything accepted so far has reached the socket.
    pub(crate) fn is_idle(self: &Arc<Self>) -> bool {
        let is_idle =
            self.queue.is_empty() && !self.is_behind() && self.socket.try_lock().is_some_and(|slot| slot.is_free());
        // The check briefly makes this thread a holder, so a concurrent sender may have left its message to this
        // thread.
        fence(Ordering::SeqCst);
        if !is_idle || self.has_work() || self.wants_pull() {
            self.flush();
        }
        is_idle
    }

    /// When the socket last took all output after it had pushed back.
    pub(crate) fn unblocked_at(&self) -> Option<Instant> {
        let nanos = self.unblocked.load(Ordering::Relaxed);
        (nanos != 0).then(|| *EPOCH + Duration::from_nanos(nanos))
    }

    /// Whether a thread has the right to write.
    #[cfg(wshub_loom)]
    pub(crate) fn is_held(&self) -> bool {
        self.socket.try_lock().is_none()
    }

    fn note_unblocked(&self) {
        let nanos = u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.unblocked.store(nanos.max(1), Ordering::Relaxed);
    }

    /// The number of queued messages and the bytes that they hold.
    pub(crate) fn depth(&self) -> (usize, usize) {
        (self.queue.len(), self.queue.bytes())
    }

    /// Whether this connection has a writer thread.
    pub(crate) fn has_writer(&self) -> bool {
        self.writer.is_running()
    }

    /// A number that changes when the peer acknowledges output that filled the socket. The change shows that the peer
    /// is alive, however slowly it reads.
    pub(crate) fn acknowledged(&self) -> u32 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Why writing failed, if it has failed.
    pub(crate) fn failure(&self) -> Option<WriteFailure> {
        self.failure.get().copied()
    }

    /// Counts a drop and returns the number of consecutive drops.
    pub(crate) fn count_drop(&self) -> u32 {
        let drops = self.drops.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.marks.fetch_or(mark::DROPPED, Ordering::Relaxed);
        drops
    }

    /// Adds this frame to the client's dropped messages and bytes.
    pub(crate) fn count_lost(&self, frame: &Encoded) {
        self.dropped.messages.fetch_add(1, Ordering::Relaxed);
        self.dropped.bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
    }

    /// The number of dropped messages and their wire bytes.
    pub(crate) fn lost(&self) -> (u64, u64) {
        (self.dropped.messages.load(Ordering::Relaxed), self.dropped.bytes.load(Ordering::Relaxed))
    }

    /// Marks the client as listed under this number. Returns false if it already was.
    fn mark_corked(&self, number: u32) -> bool {
        let is_new = !self.is_marked(number);
        if is_new {
            self.corked_by.store(number, Ordering::Relaxed);
        }
        is_new
    }

    #[inline]
    fn is_marked(&self, number: u32) -> bool {
        self.corked_by.load(Ordering::Relaxed) == number
    }

    /// Clears the mark before a flush from a list. A mark does not outlive its list, so numbers can be reused.
    fn unmark_corked(&self) {
        self.corked_by.store(0, Ordering::Relaxed);
    }

    fn post(self: &Arc<Self>, change: impl FnOnce(&mut Waiting)) {
        change(self.controls.lock().waiting());
        self.urgent.store(true, Ordering::SeqCst);
        self.flush();
    }

    /// After a hand-over: starts or wakes a thread that writes.
    fn call_writer(self: &Arc<Self>) {
        if self.writer.call(self) || flusher::adopt(self) {
            return;
        }
        // No thread is available. Senders keep writing what the socket takes, at the latest with the next ping.
        if let Some(backlog) = self.socket.lock().backlog() {
            backlog.handed_over = false;
        }
    }

    fn fail(&self, why: WriteFailure) {
        // A socket that was killed deliberately has not failed.
        if self.phase.load(Ordering::SeqCst) < phase::DEAD {
            let _ = self.failure.set(why);
        }
        self.kill();
        self.discard();
    }

    fn close_sent(&self) {
        self.advance(phase::CLOSE_SENT);
        self.gate.wake();
    }

    fn advance(&self, to: u8) {
        self.phase.fetch_max(to, Ordering::SeqCst);
    }
}

impl Drop for Outbox {
    /// Drops messages that a push overlapping the end left behind.
    fn drop(&mut self) {
        self.discard();
    }
}
