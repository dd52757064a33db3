//! Messages that wait to be published, bounded in number, bytes and time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::envelope::Envelope;
use super::fields::Recipient;
use crate::message::Message;

/// A message on its way to other nodes. The publisher's thread encodes it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// At least one recipient, without duplicates.
    pub(crate) to: Vec<Recipient>,
    pub(crate) except: Vec<String>,
    pub(crate) message: Message,
}

impl Outgoing {
    /// Returns one envelope for each recipient, built lazily. If there are several, the first carries the whole union
    /// for nodes that understand it; the others are for nodes that do not.
    pub(super) fn envelopes(&self, node_id: &str) -> impl Iterator<Item = Envelope> {
        let union = if self.to.len() > 1 { self.to.clone() } else { Vec::new() };
        let envelope = move |to| Envelope::message(node_id, to, self.except.clone(), &self.message);
        let mut envelopes = self.to.iter().filter_map(envelope);
        let first = envelopes.next().map(|first| Envelope { union, ..first });
        first.into_iter().chain(envelopes.map(|rest| Envelope { part: true, ..rest }))
    }

    /// Returns the approximate size in memory, in bytes.
    fn size(&self) -> usize {
        let name = |to: &Recipient| match to {
            Recipient::All => 0,
            Recipient::Room(name) | Recipient::User(name) | Recipient::Client(name) => name.len(),
        };
        let names: usize = self.to.iter().map(name).chain(self.except.iter().map(String::len)).map(|n| n + 24).sum();
        size_of::<Waiting>() + names + self.message.len()
    }
}

/// A message that is in the queue or was taken from it.
#[derive(Debug)]
pub(super) struct Waiting {
    since: Instant,
    size: usize,
    pub(super) outgoing: Outgoing,
}

#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    max_messages: usize,
    max_bytes: usize,
}

impl Queue {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, max_messages, max_bytes }
    }

    /// Returns the message if it does not fit. A message larger than the whole queue fits into an empty one.
    pub(super) fn push(&mut self, outgoing: Outgoing, now: Instant) -> Result<(), Outgoing> {
        let size = outgoing.size();
        let is_over = self.waiting.len() >= self.max_messages || self.bytes.saturating_add(size) > self.max_bytes;
        if is_over && !self.waiting.is_empty() {
            return Err(outgoing);
        }
        self.bytes += size;
        self.waiting.push_back(Waiting { since: now, size, outgoing });
        Ok(())
    }

    fn pop(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        self.bytes -= first.size;
        if self.waiting.is_empty() {
            // Release the memory of a long queue.
            self.waiting.shrink_to(64);
        }
        Some(first)
    }

    /// Takes the first messages, up to `messages` and `bytes`, but at least one. Returns none only if the queue is
    /// empty.
    pub(super) fn take(&mut self, messages: usize, bytes: usize) -> Vec<Waiting> {
        let mut taken: Vec<Waiting> = self.pop().into_iter().collect();
        let mut sum = taken.iter().map(|w| w.size).sum::<usize>();
        while taken.len() < messages && self.waiting.front().is_some_and(|next| sum + next.size <= bytes) {
            let Some(next) = self.pop() else { break };
            sum += next.size;
            taken.push(next);
        }
        taken
    }

    /// Puts back messages that were taken and not tried. The queue may then exceed its limits, because it accepted
    /// others in the meantime.
    pub(super) fn put_back(&mut self, taken: Vec<Waiting>) {
        for waiting in taken.into_iter().rev() {
            self.bytes += waiting.size;
            self.waiting.push_front(waiting);
        }
    }

    /// Takes the messages that have waited for longer than `age`. The caller drops them outside the queue's lock:
    /// payloads may be user types.
    pub(super) fn take_late(&mut self, now: Instant, age: Duration) -> Vec<Waiting> {
        let is_late = |waiting: &Waiting| now.saturating_duration_since(waiting.since) > age;
        let mut late = Vec::new();
        while self.waiting.front().is_some_and(is_late) {
            late.extend(self.pop());
        }
        late
    }

    /// Takes everything.
    pub(super) fn take_all(&mut self) -> Vec<Waiting> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    /// Returns the time when the oldest message was queued.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiting.front().map(|w| w.since)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(len: usize) -> Outgoing {
        Outgoing { to: vec![Recipient::All], except: Vec::new(), message: Message::binary(vec![0; len]) }
    }

    #[test]
    fn bounded_in_messages_bytes_and_time() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut queue = Queue::new(3, 10_000);
        assert!(queue.push(outgoing(20_000), now).is_ok(), "into an empty queue");
        assert!(queue.push(outgoing(0), now).is_err());
        assert_eq!(queue.pop().map(|w| w.outgoing.message.len()), Some(20_000));
        assert!((1..=3).all(|n| queue.push(outgoing(n), now + second * 2).is_ok()));
        assert!(queue.push(outgoing(4), now).is_err(), "three messages");
        assert_eq!((queue.oldest(), queue.take_late(now + second * 3, second).len()), (Some(now + second * 2), 0));
        assert_eq!(queue.take_late(now + second * 4, second).len(), 3);
        assert_eq!((queue.bytes, queue.is_empty(), queue.oldest()), (0, true, None));
    }

    #[test]
    fn taken_in_order_and_put_back_in_order() {
        let now = Instant::now();
        let mut queue = Queue::new(10, 100_000);
        assert!([10_000, 1, 2, 10_000, 3].iter().all(|n| queue.push(outgoing(*n), now).is_ok()));
        let lens = |taken: &[Waiting]| taken.iter().map(|w| w.outgoing.message.len()).collect::<Vec<_>>();
        let bytes = queue.bytes;
        assert_eq!(lens(&queue.take(4, 5000)), [10_000], "one in any case");
        let two = queue.take(2, 5000);
        assert_eq!(lens(&two), [1, 2]);
        queue.put_back(two);
        let rest = queue.take(10, 15_000);
        assert_eq!((lens(&rest), queue.bytes), (vec![1, 2, 10_000, 3], 0));
        queue.put_back(rest);
        assert!(queue.push(outgoing(10_000), now).is_ok());
        assert_eq!((queue.bytes, queue.waiting.len()), (bytes, 5));
        assert_eq!(queue.take(3, 5000).len() + queue.take(0, 0).len(), 3);
        assert_eq!((queue.take_all().len(), queue.bytes), (2, 0));
    }

    #[test]
    fn a_union_is_one_envelope_a_part_and_the_first_tells_all() {
        let to = vec![Recipient::Room("r".into()), Recipient::User("u".into())];
        let union = Outgoing { to: to.clone(), except: vec!["x".into()], message: "m".into() };
        let envelopes: Vec<_> = union.envelopes("n").collect();
        assert_eq!(envelopes.len(), 2);
        assert_eq!((&envelopes[0].union, envelopes[0].part, &envelopes[0].room[..]), (&to, false, "r"));
        assert_eq!((&envelopes[1].union[..], envelopes[1].part, &envelopes[1].user_id[..]), (&[][..], true, "u"));
        assert!(envelopes.iter().all(|e| e.except == ["x"]));
        let single: Vec<_> = outgoing(1).envelopes("n").collect();
        assert_eq!((single.len(), single[0].union.len(), single[0].part), (1, 0, false));
    }
}
