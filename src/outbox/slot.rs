//! The slot between a client's queue and its socket.

use super::batch::Batch;
use crate::message::Encoded;

/// The output that goes into the socket before the queue. Guarded by the socket's mutex.
///
/// With `repr(u8)` the discriminant comes first: a send to a healthy client reads nothing else of it.
#[derive(Debug, Default)]
#[repr(u8)]
pub(super) enum Slot {
    #[default]
    Free,
    /// A frame that was pushed while nothing else waited. Its bytes count as the queue's.
    Next(Encoded),
    Backlog(Box<Backlog>),
}

impl Slot {
    #[inline]
    pub(super) fn is_free(&self) -> bool {
        matches!(self, Self::Free)
    }

    pub(super) fn is_handed_over(&self) -> bool {
        matches!(self, Self::Backlog(backlog) if backlog.handed_over)
    }

    pub(super) fn backlog(&mut self) -> Option<&mut Backlog> {
        if let Self::Backlog(backlog) = self { Some(backlog) } else { None }
    }

    /// Leaves this batch to the writer thread.
    pub(super) fn hand_over(&mut self, batch: Batch) {
        *self = Self::Backlog(Box::new(Backlog { batch, handed_over: true }));
    }
}

/// Frames taken from the queue but not yet written, because the socket pushed back.
#[derive(Debug)]
pub(super) struct Backlog {
    pub(super) batch: Batch,
    /// Only the writer thread may write, or the flusher in its place. Before `open`, only the connection's own thread
    /// may write, because it finishes the handshake.
    pub(super) handed_over: bool,
}
