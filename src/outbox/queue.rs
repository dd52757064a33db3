//! The bounded queue of one client: a crossbeam channel with a cap on bytes as well.

use crate::message::Encoded;
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::channel::{Receiver, Sender, bounded, unbounded};

/// The longest queue whose slots are allocated at once. A longer queue allocates blocks as messages come.
const MOST_SLOTS: usize = 1024;

/// Both ends of the channel. Any thread may push. The socket's holder pops, and so does a sender that evicts.
#[derive(Debug)]
struct Channel {
    sender: Sender<Encoded>,
    receiver: Receiver<Encoded>,
    /// Only for an unbounded channel: the number of messages that pushes have reserved and that are not popped yet.
    /// Relaxed, because it is only a count; the channel orders the messages themselves.
    reserved: Option<AtomicUsize>,
}

impl Channel {
    fn new(max_messages: usize) -> Self {
        let is_long = max_messages > MOST_SLOTS;
        let (sender, receiver) = if is_long { unbounded() } else { bounded(max_messages) };
        Self { sender, receiver, reserved: is_long.then(AtomicUsize::default) }
    }

    fn try_push(&self, frame: &Encoded, max_messages: usize) -> bool {
        if let Some(reserved) = &self.reserved {
            let next = |count: usize| (count < max_messages).then_some(count + 1);
            if reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_err() {
                return false;
            }
        }
        self.sender.try_send(frame.clone()).is_ok()
    }

    fn pop(&self) -> Option<Encoded> {
        let frame = self.receiver.try_recv().ok()?;
        if let Some(reserved) = &self.reserved {
            reserved.fetch_sub(1, Ordering::Relaxed);
        }
        Some(frame)
    }
}

/// The messages waiting for one socket.
///
/// The first push creates the channel. A client whose socket always takes its messages at once never needs one.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Queue {
    /// The number of bytes that pushes have reserved and that are not popped yet, and of the frame in front of the
    /// queue. Never 0 while a message is queued, because a push reserves before it sends and a frame is never empty.
    /// Relaxed, because it is only a count; the channel orders the messages themselves.
    bytes: AtomicUsize,
    channel: OnceLock<Box<Channel>>,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { bytes: AtomicUsize::new(0), channel: OnceLock::new() }
    }

    /// The bytes held by waiting messages.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The number of waiting messages.
    pub(super) fn len(&self) -> usize {
        self.channel.get().map_or(0, |c| c.receiver.len())
    }

    /// Whether nothing is queued. Every push that has returned on this thread, or that a fence orders before this call,
    /// is seen. A concurrent push may be missed; its own thread then flushes.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        // A sender reads the cache line of this count anyway, but not those of the channel's ends.
        self.bytes() == 0 || self.channel.get().is_none_or(|c| c.receiver.is_empty())
    }

    /// Queues the frame unless that would exceed `max_messages` or, if something is queued already, `max_bytes`.
    pub(super) fn try_push(&self, frame: &Encoded, max_messages: usize, max_bytes: usize) -> bool {
        let fits = |bytes: usize| {
            let sum = bytes.saturating_add(frame.held());
            (bytes == 0 || sum <= max_bytes).then_some(sum)
        };
        // Bytes are reserved only if they fit, so a failing push never makes another push fail.
        if self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        let channel = self.channel.get_or_init(|| Box::new(Channel::new(max_messages)));
        let sent = channel.try_push(frame, max_messages);
        if !sent {
            self.bytes.fetch_sub(frame.held(), Ordering::Relaxed);
        }
        sent
    }

    /// Counts a frame that waits in front of the queue as if it were in the queue.
    #[inline]
    pub(super) fn reserve(&self, frame: &Encoded) {
        self.bytes.fetch_add(frame.held(), Ordering::Relaxed);
    }

    /// The counterpart of [`reserve`](Self::reserve).
    #[inline]
    pub(super) fn release(&self, frame: &Encoded) {
        self.bytes.fetch_sub(frame.held(), Ordering::Relaxed);
    }

    /// Takes the oldest message.
    pub(super) fn pop(&self) -> Option<Encoded> {
        // As in `is_empty`: the channel's ends are not touched for nothing.
        if self.bytes() == 0 {
            return None;
        }
        let frame = self.channel.get()?.pop()?;
        self.bytes.fetch_sub(frame.held(), Ordering::Relaxed);
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Compressed, Message, WireFormat};

    fn frame(text: &str) -> Encoded {
        Encoded::new(&Message::text(text), WireFormat::WebSocket, Compressed::default()).expect("carries all")
    }

    #[test]
    fn order_and_both_caps() {
        let queue = Queue::new();
        let empty = frame("").held();
        let most = 2 * empty + 100;
        assert!(queue.is_empty());
        assert!(queue.try_push(&frame("a"), 2, most));
        assert!(queue.try_push(&frame("b"), 2, most));
        assert!(!queue.try_push(&frame("c"), 2, most), "message cap");
        assert_eq!((queue.len(), queue.bytes()), (2, 2 * empty + 2));
        assert_eq!(queue.pop().map(|f| f.message()), Some(Message::text("a")));
        assert!(!queue.try_push(&frame(&"x".repeat(100)), 2, most), "byte cap");
        assert!(queue.try_push(&frame(&"x".repeat(99)), 2, most));
        assert_eq!(queue.pop().map(|f| f.message()), Some(Message::text("b")));
        assert!(queue.pop().is_some());
        assert!(queue.pop().is_none());
        assert!(queue.is_empty());
    }

    #[test]
    fn a_message_over_the_byte_cap_fits_into_an_empty_queue_only() {
        let queue = Queue::new();
        let large = frame(&"x".repeat(1000));
        let most = frame("y").held();
        assert!(queue.try_push(&large, 4, most));
        assert!(!queue.try_push(&frame("y"), 4, most));
        assert!(queue.pop().is_some());
        assert!(queue.try_push(&frame("y"), 4, most));
        assert!(!queue.try_push(&large, 4, most));
    }

    #[test]
    fn a_long_queue_has_the_same_caps() {
        let (queue, most) = (Queue::new(), MOST_SLOTS + 3);
        for round in 0..3 {
            let pushed = (0..2 * most).filter(|_| queue.try_push(&frame("x"), most, usize::MAX)).count();
            assert_eq!((pushed, queue.len()), (if round == 0 { most } else { 5 }, most));
            (0..5).for_each(|_| assert!(queue.pop().is_some()));
        }
        assert_eq!(queue.bytes(), (most - 5) * frame("x").held());
    }

    #[test]
    fn a_small_message_counts_as_what_it_costs() {
        let held = frame("x").held();
        // Half of it is pointers.
        let least = if usize::BITS > 32 { 100 } else { 60 };
        assert!((least..=250).contains(&held), "{held}");
    }
}
