//! Sending one frame: straight into the socket, or into the queue by the drop policy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Outbox, Slot, cork, mark};
use crate::config::DropPolicy;
use crate::message::Encoded;
use crate::sync::atomic::{Ordering, fence};
use crate::sync::thread;
use crate::ws::close_code;

/// Maximum time that a send waits for the socket's holder before the drop policy applies.
const HOLDER_PATIENCE: Duration = Duration::from_millis(5);

/// The result of sending one message to one client.
#[derive(Debug)]
pub(crate) enum Sent {
    /// Written or queued.
    Queued,
    /// Queued; these older messages were dropped to make room.
    Evicted(Vec<Encoded>),
    /// The queue is full and the policy drops the new message.
    Full,
    /// The queue is full and the policy closes the client. [`Outbox::send`] has begun the close.
    SlowConsumer,
    /// The client is closing or closed.
    Closed,
}

/// Why [`Outbox::send_waiting`] gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GaveUp {
    Timeout,
    Closed,
}

/// The result of [`Outbox::push_next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    /// The frame goes next. A flush follows.
    Yes,
    /// As `Yes`, but another thread relies on that flush, so it should come soon.
    Awaited,
    /// Something else waits, or another thread holds the socket: push to the queue.
    No,
    /// As `No`, but another thread may rely on this thread's flush, so it should come soon.
    Crowded,
}

/// Who flushes after a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flush {
    Now,
    /// The end of this thread's cork.
    Cork,
    /// The caller.
    Later,
}

/// Whether this thread holds messages back.
#[inline]
pub(crate) fn is_corked() -> bool {
    cork::is_active()
}

/// Flushes each of these outboxes, or lists them if this thread is corked.
pub(crate) fn flush_all<'a>(outboxes: impl Iterator<Item = &'a Arc<Outbox>>) {
    let corked = cork::is_active();
    outboxes.for_each(|outbox| {
        let is_held_back = corked && !outbox.is_crowded();
        outbox.flush_by(if is_held_back { Flush::Cork } else { Flush::Now });
    });
}

impl Outbox {
    /// Sends one frame and applies the drop policy. Never waits for the peer, but waits some milliseconds for the
    /// socket's holder before it drops a message.
    #[inline]
    pub(crate) fn send(self: &Arc<Self>, frame: &Encoded) -> Sent {
        if !self.is_accepting() {
            return Sent::Closed;
        }
        let corked = cork::is_active();
        if !corked && self.write_through(frame) {
            return Sent::Queued;
        }
        self.enqueue(frame, if corked { Flush::Cork } else { Flush::Now })
    }

    /// As [`send`](Self::send), but only queues the frame. The caller must [`flush`](Self::flush), unless the result is
    /// [`Sent::Closed`].
    pub(crate) fn send_later(self: &Arc<Self>, frame: &Encoded) -> Sent {
        if !self.is_accepting() {
            return Sent::Closed;
        }
        match self.push_next(frame) {
            Placed::Yes => {}
            Placed::Awaited => self.flush(),
            Placed::No => return self.enqueue(frame, Flush::Later),
            Placed::Crowded => return self.enqueue(frame, Flush::Now),
        }
        Sent::Queued
    }

    /// Makes the frame the next one of a client for which nothing waits. A flush then writes it as a direct send would,
    /// and touches no queue. No I/O, so it may be called under a lock. The caller must [`flush`](Self::flush) before it
    /// runs any code of the application: not in a cork.
    ///
    /// For the module's argument this thread is a holder, whose look for work (6) is the flush. If that look finds
    /// something at once, the answer says so.
    pub(crate) fn push_next(&self, frame: &Encoded) -> Placed {
        let Some(mut slot) = self.socket.try_lock() else { return Placed::No };
        if !slot.is_free() || !self.is_plain() {
            return Placed::Crowded;
        }
        self.queue.reserve(frame);
        *slot = Slot::Next(frame.clone());
        drop(slot);
        self.reset_drops();
        // (5) of the module's argument.
        fence(Ordering::SeqCst);
        if self.has_work() { Placed::Awaited } else { Placed::Yes }
    }

    /// Queues one frame and applies the drop policy, without I/O, closes or corks. So it may be called under a lock.
    /// The caller must [`flush`](Self::flush) after it has released that lock, and after [`Sent::SlowConsumer`] call
    /// [`close_slow`](Self::close_slow) instead.
    pub(crate) fn push(&self, frame: &Encoded) -> Sent {
        if !self.is_open() {
            return Sent::Closed;
        }
        if self.try_push(frame) {
            self.reset_drops();
            return Sent::Queued;
        }
        match self.settings.drop_policy {
            DropPolicy::DropNewest => Sent::Full,
            DropPolicy::Disconnect => Sent::SlowConsumer,
            DropPolicy::DropOldest => self.evict_for(frame),
        }
    }

    /// Closes a client whose queue was full under [`DropPolicy::Disconnect`].
    pub(crate) fn close_slow(self: &Arc<Self>) {
        self.begin_close(Some((close_code::TRY_AGAIN_LATER, "slow consumer")));
    }

    /// Waits until the frame fits into the queue; the drop policy does not apply.
    pub(crate) fn send_waiting(self: &Arc<Self>, frame: &Encoded, deadline: Instant) -> Result<(), GaveUp> {
        self.flush();
        let outcome = self.gate.wait_for(deadline, || {
            if !self.is_open() {
                return Some(Err(GaveUp::Closed));
            }
            self.try_push_or_wait(frame).then_some(Ok(()))
        });
        if let Some(Ok(())) = outcome {
            self.reset_drops();
        }
        self.flush();
        outcome.unwrap_or(Err(GaveUp::Timeout))
    }

    fn enqueue(self: &Arc<Self>, frame: &Encoded, flush: Flush) -> Sent {
        if self.try_push(frame) || self.try_push_again(frame, HOLDER_PATIENCE) {
            self.reset_drops();
            self.flush_by(flush);
            return Sent::Queued;
        }
        let sent = self.push(frame);
        match sent {
            // At once, even in a cork: the eviction may have held the socket for a moment, and others rely on the look.
            Sent::Queued | Sent::Evicted(_) => self.flush(),
            Sent::SlowConsumer => self.close_slow(),
            Sent::Full | Sent::Closed => {}
        }
        sent
    }

    fn flush_by(self: &Arc<Self>, flush: Flush) {
        match flush {
            Flush::Now => self.flush(),
            Flush::Cork => cork::touch(self),
            Flush::Later => {}
        }
    }

    pub(super) fn try_push(&self, frame: &Encoded) -> bool {
        self.queue.try_push(frame, self.settings.queue_messages, self.settings.queue_bytes)
    }

    /// As [`try_push`](Self::try_push), for a thread that otherwise sleeps at the gate. Who drains the queue always
    /// wakes the gate; who writes a frame from the slot wakes it only if the mark is set.
    ///
    /// This thread: set the mark, fence, look at the queue's bytes. That thread: release the frame's bytes, fence, look
    /// at the mark. Both fences are sequentially consistent, so either this thread finds the room or that one the mark.
    fn try_push_or_wait(&self, frame: &Encoded) -> bool {
        self.try_push(frame) || {
            self.marks.fetch_or(mark::AWAITED, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            self.try_push(frame)
        }
    }

    /// Wakes threads that wait for room that a written frame has left. A fence comes between the write and this.
    #[inline]
    pub(super) fn wake_awaiting(&self) {
        if self.marks.load(Ordering::Relaxed) & mark::AWAITED != 0 {
            self.marks.fetch_and(!mark::AWAITED, Ordering::SeqCst);
            self.gate.wake();
        }
    }

    /// A full queue does not mean a slow peer: this thread may be corked, or the thread that holds the socket may have
    /// been descheduled. Waits for that thread, unless the socket itself pushes back.
    #[cold]
    fn try_push_again(self: &Arc<Self>, frame: &Encoded, patience: Duration) -> bool {
        let is_blocked = || self.is_blocked.load(Ordering::SeqCst);
        if is_blocked() {
            return false;
        }
        self.flush();
        if self.try_push(frame) {
            return true;
        }
        // The socket's holder wakes the gate when it has emptied the queue or finds the socket blocked.
        let look = || {
            let is_queued = self.is_open() && self.try_push_or_wait(frame);
            (is_queued || !self.is_open() || is_blocked()).then_some(is_queued)
        };
        self.gate.wait_for(Instant::now() + patience, look).unwrap_or(false)
    }

    /// Drops the oldest messages until the new one fits.
    fn evict_for(&self, frame: &Encoded) -> Sent {
        let mut evicted = Vec::new();
        while !self.try_push(frame) {
            if !self.is_open() {
                // The caller may hold a lock, so the evicted messages are not dropped here.
                return if evicted.is_empty() { Sent::Closed } else { Sent::Evicted(evicted) };
            }
            match self.queue.pop().or_else(|| self.take_next()) {
                Some(oldest) => evicted.push(oldest),
                // Another thread is about to queue a message or to write the next one.
                None => thread::yield_now(),
            }
        }
        if evicted.is_empty() {
            self.reset_drops();
            return Sent::Queued;
        }
        Sent::Evicted(evicted)
    }

    /// Takes back the frame that waits in front of the queue. The flush that follows an eviction is the look for work
    /// (6) of the module's argument.
    fn take_next(&self) -> Option<Encoded> {
        let mut slot = self.socket.try_lock()?;
        if !matches!(*slot, Slot::Next(_)) {
            return None;
        }
        let Slot::Next(frame) = std::mem::take(&mut *slot) else { return None };
        self.queue.release(&frame);
        Some(frame)
    }

    #[inline]
    pub(super) fn reset_drops(&self) {
        if self.marks.load(Ordering::Relaxed) & mark::DROPPED != 0 {
            self.marks.fetch_and(!mark::DROPPED, Ordering::Relaxed);
            self.drops.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::message::{Compressed, Message, WireFormat};
    use crate::transport::Transport;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::thread;

    fn frame(text: &str) -> Encoded {
        Encoded::new(&Message::text(text), WireFormat::WebSocket, Compressed::default()).expect("carries all")
    }

    fn outbox(policy: DropPolicy) -> (Arc<Outbox>, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair");
        far.set_nonblocking(true).expect("a socket");
        let config = Config::default().queue_messages(2).drop_policy(policy);
        let outbox = Outbox::new(Transport::from(near), Arc::new(config.into()), WireFormat::WebSocket, Vec::new());
        outbox.open();
        (outbox, far)
    }

    fn received(mut far: &UnixStream) -> Vec<u8> {
        let mut bytes = vec![0; 1000];
        let n = far.read(&mut bytes).unwrap_or(0);
        bytes.truncate(n);
        bytes
    }

    #[test]
    fn a_push_only_queues_until_the_flush() {
        for policy in [DropPolicy::DropNewest, DropPolicy::DropOldest, DropPolicy::Disconnect] {
            let (outbox, far) = outbox(policy);
            assert!(matches!(outbox.push(&frame("a")), Sent::Queued));
            assert!(matches!(outbox.push(&frame("b")), Sent::Queued));
            let third = outbox.push(&frame("c"));
            assert!(outbox.is_open(), "a push closes nothing");
            assert_eq!(received(&far), b"", "a push writes nothing");
            let expected: &[u8] = match (policy, third) {
                (DropPolicy::DropNewest, Sent::Full) | (DropPolicy::Disconnect, Sent::SlowConsumer) => {
                    b"\x81\x01a\x81\x01b"
                }
                (DropPolicy::DropOldest, Sent::Evicted(old)) => {
                    assert_eq!(old.iter().map(Encoded::message).collect::<Vec<_>>(), [Message::text("a")]);
                    b"\x81\x01b\x81\x01c"
                }
                (policy, sent) => panic!("{policy:?}: {sent:?}"),
            };
            outbox.flush();
            assert_eq!(received(&far), expected);
            if policy == DropPolicy::Disconnect {
                outbox.close_slow();
                assert_eq!(&received(&far)[..4], [0x88, 15, 3, 245]);
            }
            outbox.kill();
            assert!(matches!(outbox.push(&frame("d")), Sent::Closed));
        }
    }

    #[test]
    fn a_frame_that_goes_next_waits_for_the_flush_and_keeps_its_place() {
        let (outbox, far) = outbox(DropPolicy::DropNewest);
        let one = frame("a");
        assert_eq!(outbox.push_next(&one), Placed::Yes);
        assert_eq!(outbox.push_next(&frame("b")), Placed::Crowded, "one at a time");
        assert!(outbox.is_waiting() && !outbox.is_crowded());
        assert_eq!((outbox.depth(), received(&far)), ((0, one.held()), Vec::new()), "it is counted and not written");
        assert!(matches!(outbox.send(&frame("b")), Sent::Queued));
        assert_eq!(received(&far), b"\x81\x01a\x81\x01b");
        assert_eq!(outbox.push_next(&one), Placed::Yes);
        assert!(!outbox.is_idle(), "a frame waits");
        assert_eq!(
            received(&far),
            b"\x81\x01a",
            "a look at the socket flushes, since its thread may have found it held"
        );
        assert_eq!(outbox.push_next(&one), Placed::Yes);
        outbox.flush_if_needed();
        assert_eq!((outbox.depth(), received(&far)), ((0, 0), b"\x81\x01a".to_vec()));
        assert!(matches!(outbox.push(&one), Sent::Queued));
        assert_eq!(outbox.push_next(&frame("b")), Placed::Crowded, "the queue comes first");
        outbox.ping();
        assert_eq!(received(&far), b"\x89\x00\x81\x01a");
        assert_eq!(outbox.push_next(&one), Placed::Yes);
        outbox.begin_close(None);
        assert_eq!(received(&far), b"\x81\x01a\x88\x00");
        assert_eq!(outbox.push_next(&one), Placed::Crowded, "it is closed");
    }

    #[test]
    fn a_frame_that_goes_next_meets_a_full_socket() {
        let (outbox, mut far) = outbox(DropPolicy::DropNewest);
        let large = Encoded::new(&Message::binary(vec![7; 1 << 20]), WireFormat::WebSocket, Compressed::default());
        let large = large.expect("carries all");
        assert_eq!(outbox.push_next(&large), Placed::Yes);
        outbox.flush();
        assert_ne!(outbox.push_next(&frame("b")), Placed::Yes, "half a frame comes first");
        assert!(matches!(outbox.send(&frame("b")), Sent::Queued));
        far.set_nonblocking(false).expect("a socket");
        let mut bytes = vec![0; large.len() + 3];
        far.read_exact(&mut bytes).expect("all of it");
        assert!(bytes.starts_with(large.wire()) && bytes.ends_with(b"\x81\x01b"));
        outbox.kill();
        outbox.stop_writer();
    }

    #[test]
    fn a_frame_that_goes_next_ends_with_its_outbox() {
        let one = frame("a");
        for end in [Outbox::end, Outbox::kill] {
            let (outbox, far) = outbox(DropPolicy::DropNewest);
            assert_eq!(outbox.push_next(&one), Placed::Yes);
            assert_eq!(one.holders(), 2);
            end(&outbox);
            outbox.flush();
            assert_eq!((one.holders(), outbox.depth().1), (1, 0), "it is let go");
            assert_eq!(received(&far), b"");
        }
    }

    #[test]
    fn a_frame_that_goes_next_is_the_oldest_to_drop() {
        let (near, _far) = UnixStream::pair().expect("a pair");
        let one = frame("a");
        let config = Config::default().queue_bytes(one.held()).drop_policy(DropPolicy::DropOldest);
        let outbox = Outbox::new(Transport::from(near), Arc::new(config.into()), WireFormat::WebSocket, Vec::new());
        outbox.open();
        assert_eq!(outbox.push_next(&one), Placed::Yes);
        let Sent::Evicted(old) = outbox.push(&frame("b")) else { panic!("there is no room for two") };
        assert_eq!(old.iter().map(Encoded::message).collect::<Vec<_>>(), [Message::text("a")]);
        assert_eq!(outbox.depth(), (1, one.held()));
    }

    #[test]
    fn a_look_whether_all_is_written_writes_what_goes_next() {
        let (outbox, far) = outbox(DropPolicy::DropNewest);
        assert_eq!(outbox.push_next(&frame("a")), Placed::Yes);
        // The flush that is due may have met this look, which holds the socket for a moment, and left.
        assert!(!outbox.is_idle());
        assert_eq!(received(&far), b"\x81\x01a");
        outbox.kill();
    }

    #[test]
    fn the_flush_of_a_frame_that_goes_next_wakes_senders_that_wait_for_its_room() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let (one, far_off) = (frame("a"), Instant::now() + Duration::from_secs(3600));
        let config = Config::default().queue_bytes(one.held());
        let outbox = Outbox::new(Transport::from(near), Arc::new(config.into()), WireFormat::WebSocket, Vec::new());
        outbox.open();
        let (say, said) = std::sync::mpsc::channel();
        // As if the frame had been placed between the sender's flush and its look at the queue.
        let mut slot = outbox.socket.lock();
        outbox.queue.reserve(&one);
        *slot = Slot::Next(one);
        let sender = Arc::clone(&outbox);
        let sender = thread::spawn(move || say.send(sender.send_waiting(&frame("b"), far_off)));
        while !outbox.gate.has_sleepers() {
            thread::yield_now();
        }
        drop(slot);
        outbox.flush();
        let sent = said.recv_timeout(Duration::from_secs(60)).expect("there is room, and the sender sleeps");
        assert_eq!(sent, Ok(()));
        sender.join().expect("no panic").expect("it is heard");
        assert_eq!(received(&far), b"\x81\x01a\x81\x01b");
        outbox.kill();
    }

    /// Fills the queue of an outbox whose socket this thread holds, as if it had been descheduled, and returns the
    /// result of one more message. `then` runs once that message waits for this thread.
    fn one_more(policy: DropPolicy, then: impl FnOnce(&Arc<Outbox>)) -> (Sent, Vec<u8>) {
        let (outbox, far) = outbox(policy);
        let held = outbox.socket.lock();
        let sent = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                assert!(matches!(outbox.send(&frame("a")), Sent::Queued));
                assert!(matches!(outbox.send(&frame("b")), Sent::Queued));
                let last = frame("c");
                if outbox.try_push_again(&last, Duration::from_secs(60)) { Sent::Queued } else { outbox.push(&last) }
            });
            while !outbox.gate.has_sleepers() {
                thread::yield_now();
            }
            drop(held);
            then(&outbox);
            sender.join().expect("no panic")
        });
        outbox.flush();
        outbox.kill();
        (sent, received(&far))
    }

    #[test]
    fn nothing_is_dropped_because_the_holder_of_the_socket_is_descheduled() {
        for policy in [DropPolicy::DropNewest, DropPolicy::DropOldest, DropPolicy::Disconnect] {
            let (sent, received) = one_more(policy, Outbox::flush);
            assert!(matches!(sent, Sent::Queued), "{policy:?}: {sent:?}");
            assert_eq!(received, b"\x81\x01a\x81\x01b\x81\x01c", "{policy:?}");
        }
    }

    #[test]
    fn a_socket_that_pushes_back_or_dies_is_not_waited_for() {
        let started = Instant::now();
        let (sent, _) = one_more(DropPolicy::DropNewest, |outbox| outbox.note_taken(true));
        assert!(matches!(sent, Sent::Full), "{sent:?}");
        assert!(started.elapsed() < Duration::from_secs(50), "the sender is not woken");
        let (sent, _) = one_more(DropPolicy::DropOldest, |outbox| outbox.kill());
        assert!(matches!(sent, Sent::Closed), "{sent:?}");
        let (sent, _) = one_more(DropPolicy::Disconnect, |outbox| {
            outbox.begin_close(None);
        });
        assert!(matches!(sent, Sent::Closed), "{sent:?}");
    }
}
