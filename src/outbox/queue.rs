//! The bounded queue of one client: a crossbeam channel with a cap on bytes as well.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::message::Encoded;

/// Both ends of the channel: every thread may push, and whoever owns the socket (or evicts) pops.
type Channel = (Sender<Encoded>, Receiver<Encoded>);

/// Messages waiting for one socket.
///
/// The channel is made at the first push: a client whose socket always takes what it gets never needs one.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Queue {
    /// Bytes held by what pushes have reserved and nobody has popped. Not 0 whenever a message is queued, because a push
    /// reserves before it sends and a frame is never empty. Relaxed: a count; the channel orders the messages themselves.
    bytes: AtomicUsize,
    channel: OnceLock<Box<Channel>>,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self { bytes: AtomicUsize::new(0), channel: OnceLock::new() }
    }

    /// Bytes that are held by what waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Messages that wait.
    pub(super) fn len(&self) -> usize {
        self.channel.get().map_or(0, |c| c.1.len())
    }

    /// Whether nothing waits. A push that has returned on this thread, or that a fence orders before this call, is
    /// always seen; one that is under way may be missed, and its own thread will look after it.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        // The count is on the cache line that a sender reads anyway; the channel's ends are not.
        self.bytes() == 0 || self.channel.get().is_none_or(|c| c.1.is_empty())
    }

    /// Queues the frame unless that would exceed `max_messages` or, with something queued already, `max_bytes`.
    pub(super) fn try_push(&self, frame: &Encoded, max_messages: usize, max_bytes: usize) -> bool {
        let fits = |bytes: usize| {
            let sum = bytes.saturating_add(frame.held());
            (bytes == 0 || sum <= max_bytes).then_some(sum)
        };
        // Reserved only when it fits, so that a push that fails never makes another fail.
        if self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        let channel = self.channel.get_or_init(|| Box::new(bounded(max_messages)));
        let sent = channel.0.try_send(frame.clone()).is_ok();
        if !sent {
            self.bytes.fetch_sub(frame.held(), Ordering::Relaxed);
        }
        sent
    }

    /// Takes the oldest message.
    pub(super) fn pop(&self) -> Option<Encoded> {
        let frame = self.channel.get()?.1.try_recv().ok()?;
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
        assert!(queue.is_empty());
        assert!(queue.try_push(&frame("a"), 2, 100));
        assert!(queue.try_push(&frame("b"), 2, 100));
        assert!(!queue.try_push(&frame("c"), 2, 100), "message cap");
        assert_eq!((queue.len(), queue.bytes()), (2, 6));
        assert_eq!(queue.pop().map(|f| f.message()), Some(Message::text("a")));
        assert!(!queue.try_push(&frame(&"x".repeat(96)), 2, 100), "byte cap");
        assert!(queue.try_push(&frame(&"x".repeat(95)), 2, 100));
        assert_eq!(queue.pop().map(|f| f.message()), Some(Message::text("b")));
        assert!(queue.pop().is_some());
        assert!(queue.pop().is_none());
        assert!(queue.is_empty());
    }

    #[test]
    fn a_message_over_the_byte_cap_fits_into_an_empty_queue_only() {
        let queue = Queue::new();
        let large = frame(&"x".repeat(1000));
        assert!(queue.try_push(&large, 4, 100));
        assert!(!queue.try_push(&frame("y"), 4, 100));
        assert!(queue.pop().is_some());
        assert!(queue.try_push(&frame("y"), 4, 100));
        assert!(!queue.try_push(&large, 4, 100));
    }
}
