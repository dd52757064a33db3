//! A bounded queue from the client's thread to the hub's subscriber thread.

use std::sync::Arc;

use bytes::Bytes;

use crate::cluster::adapter::AdapterError;
use crate::guard::record;
use crate::lock::{Condition, Leaf};
use crate::log_limit::LogLimit;

/// Maximum number and bytes of waiting envelopes. Further envelopes are lost. The client cannot read more slowly
/// instead, because responses and pings use the same connection.
const MAX_WAITING: usize = 64 * 1024;
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// The next event for the receiving thread.
pub(super) enum Inbound {
    Subscribed,
    Envelopes(Vec<Bytes>),
    /// This many envelopes arrived and did not fit.
    Lost(usize),
    End(AdapterError),
}

/// The sending half, on the client's thread. Dropping it reports the end of the subscription to the receiver.
pub(super) struct Sender(Arc<Mailbox>);

/// The receiving half.
pub(super) struct Receiver(Arc<Mailbox>);

#[derive(Default)]
struct Mailbox {
    state: Leaf<State>,
    changed: Condition,
}

#[derive(Default)]
struct State {
    is_subscribed: bool,
    waiting: Vec<Bytes>,
    bytes: usize,
    /// Lost envelopes that have not been reported yet.
    lost: usize,
    end: Option<AdapterError>,
}

pub(super) fn mailbox() -> (Sender, Receiver) {
    let mailbox = Arc::new(Mailbox::default());
    (Sender(Arc::clone(&mailbox)), Receiver(mailbox))
}

impl Sender {
    pub(super) fn subscribed(&self) {
        self.0.state.lock().is_subscribed = true;
        self.0.changed.notify_one();
    }

    pub(super) fn put(&self, envelopes: impl Iterator<Item = Bytes>) {
        static LOST: LogLimit = LogLimit::seldom();
        let lost = {
            let mut state = self.0.state.lock();
            let lost = envelopes.filter(|envelope| !state.put(envelope)).count();
            state.lost += lost;
            lost
        };
        self.0.changed.notify_one();
        if let Some(suppressed) = (lost > 0).then(|| LOST.pass()).flatten() {
            record!(
                Warn,
                "wshub::cluster",
                "{lost} envelopes lost: received faster than delivered ({suppressed} more not logged)"
            );
        }
    }

    /// Records envelopes that the client lost before they reached the mailbox.
    pub(super) fn lost(&self, count: usize) {
        if count > 0 {
            self.0.state.lock().lost += count;
            self.0.changed.notify_one();
        }
    }

    pub(super) fn end(self, why: AdapterError) {
        self.0.state.lock().end = Some(why);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.state.lock().end.get_or_insert_with(|| AdapterError::unavailable("it has ended"));
        self.0.changed.notify_one();
    }
}

impl Receiver {
    /// Waits for the next event. Everything that arrived before the end is returned before it.
    pub(super) fn take(&self) -> Inbound {
        let mut state = self.0.state.lock();
        loop {
            if std::mem::take(&mut state.is_subscribed) {
                return Inbound::Subscribed;
            }
            if !state.waiting.is_empty() {
                state.bytes = 0;
                return Inbound::Envelopes(std::mem::take(&mut state.waiting));
            }
            if state.lost > 0 {
                return Inbound::Lost(std::mem::take(&mut state.lost));
            }
            if let Some(why) = state.end.take() {
                return Inbound::End(why);
            }
            self.0.changed.wait(&mut state);
        }
    }
}

impl State {
    /// Adds an envelope and returns whether it fits. One that is larger than the whole mailbox fits into an empty one.
    fn put(&mut self, envelope: &Bytes) -> bool {
        let is_over = self.waiting.len() >= MAX_WAITING || self.bytes.saturating_add(envelope.len()) > MAX_BYTES;
        if is_over && !self.waiting.is_empty() {
            return false;
        }
        self.bytes += envelope.len();
        self.waiting.push(envelope.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelopes(receiver: &Receiver) -> Vec<Bytes> {
        match receiver.take() {
            Inbound::Envelopes(envelopes) => envelopes,
            _ => panic!("no envelopes"),
        }
    }

    #[test]
    fn order_and_end() {
        let (sender, receiver) = mailbox();
        sender.subscribed();
        sender.put(["a", "b"].map(Bytes::from).into_iter());
        sender.put(["c"].map(Bytes::from).into_iter());
        drop(sender);
        assert!(matches!(receiver.take(), Inbound::Subscribed));
        assert_eq!(envelopes(&receiver), ["a", "b", "c"]);
        assert!(
            matches!(receiver.take(), Inbound::End(AdapterError::Unavailable(why)) if why.to_string() == "it has ended")
        );

        let (sender, receiver) = mailbox();
        sender.end(AdapterError::rejected("why"));
        assert!(matches!(receiver.take(), Inbound::End(AdapterError::Rejected(why)) if why.to_string() == "why"));
    }

    fn lost(receiver: &Receiver) -> usize {
        match receiver.take() {
            Inbound::Lost(count) => count,
            _ => panic!("nothing is lost"),
        }
    }

    #[test]
    fn bounded_in_envelopes_and_bytes() {
        let (sender, receiver) = mailbox();
        sender.put((0..MAX_WAITING + 5).map(|_| Bytes::from_static(b"x")));
        assert_eq!(envelopes(&receiver).len(), MAX_WAITING);
        assert_eq!(lost(&receiver), 5);
        let large = Bytes::from(vec![0; MAX_BYTES + 1]);
        sender.put([large, Bytes::from_static(b"x")].into_iter());
        assert_eq!(envelopes(&receiver).len(), 1, "a large one fits alone");
        sender.lost(2);
        assert_eq!(lost(&receiver), 1 + 2, "here and on the way");
        sender.put(std::iter::once(Bytes::from_static(b"x")));
        assert_eq!(envelopes(&receiver).len(), 1, "taking makes room");
    }
}
