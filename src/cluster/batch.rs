//! The messages of one adapter call, and the outcome of each.

use bytes::Bytes;

use super::adapter::AdapterError;
use super::queue::Waiting;

/// Maximum number of messages in one call.
pub(super) const MAX_MESSAGES: usize = 128;
/// Approximate maximum of bytes in one call; a larger message goes alone.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// Several messages and their envelopes, in order. A message has several envelopes if its target is a union.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Each message with the end index of its envelopes.
    messages: Vec<(Waiting, usize)>,
    envelopes: Vec<Bytes>,
}

/// The messages of a batch by outcome. The caller drops them: payloads may be user types.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) published: Vec<Waiting>,
    pub(super) lost: Vec<Waiting>,
    /// Messages of which no envelope has been tried.
    pub(super) untried: Vec<Waiting>,
}

impl Batch {
    /// Encodes the messages. Returns those with an envelope over `max_envelope` bytes separately.
    pub(super) fn encode(waiting: Vec<Waiting>, node_id: &str, max_envelope: usize) -> (Self, Vec<Waiting>) {
        let (mut batch, mut too_large) = (Self::default(), Vec::new());
        for waiting in waiting {
            too_large.extend(batch.add(waiting, node_id, max_envelope));
        }
        (batch, too_large)
    }

    fn add(&mut self, waiting: Waiting, node_id: &str, max_envelope: usize) -> Option<Waiting> {
        let start = self.envelopes.len();
        // Check before encoding, which only makes the message larger.
        let mut fits = waiting.outgoing.message.len() <= max_envelope;
        if fits {
            self.envelopes.extend(waiting.outgoing.envelopes(node_id).map(|e| Bytes::from(e.encode())));
            fits = self.envelopes[start..].iter().all(|e| e.len() <= max_envelope);
        }
        if !fits {
            self.envelopes.truncate(start);
            return Some(waiting);
        }
        self.messages.push((waiting, self.envelopes.len()));
        None
    }

    pub(super) fn envelopes(&self) -> &[Bytes] {
        &self.envelopes
    }

    /// A message is published if all its envelopes are, untried if none has a result, and lost otherwise.
    pub(super) fn settle(self, results: &[Result<(), AdapterError>]) -> Outcome {
        let (mut outcome, mut start) = (Outcome::default(), 0);
        for (waiting, end) in self.messages {
            match results.get(start..end) {
                Some(own) if own.iter().all(Result::is_ok) => outcome.published.push(waiting),
                None if start >= results.len() => outcome.untried.push(waiting),
                _ => outcome.lost.push(waiting),
            }
            start = end;
        }
        outcome
    }

    pub(super) fn into_messages(self) -> Vec<Waiting> {
        self.messages.into_iter().map(|(waiting, _)| waiting).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::fields::Recipient;
    use super::super::queue::{Outgoing, Queue};
    use super::*;

    /// Messages with these numbers of envelopes.
    fn waiting(counts: &[usize]) -> Vec<Waiting> {
        let mut queue = Queue::new(100, 100_000);
        for count in counts {
            let to = (0..*count).map(|n| Recipient::User(n.to_string())).collect();
            assert!(queue.push(Outgoing { to, except: Vec::new(), message: "m".into() }, Instant::now()).is_ok());
        }
        queue.take(100, 100_000)
    }

    fn settle(counts: &[usize], results: &[bool]) -> (usize, usize, usize) {
        let (batch, too_large) = Batch::encode(waiting(counts), "n", 1000);
        assert_eq!((batch.messages.len(), too_large.len()), (counts.len(), 0));
        let result = |ok: &bool| if *ok { Ok(()) } else { Err(AdapterError::rejected("no")) };
        let outcome = batch.settle(&results.iter().map(result).collect::<Vec<_>>());
        (outcome.published.len(), outcome.lost.len(), outcome.untried.len())
    }

    #[test]
    fn each_message_is_published_lost_or_untried() {
        let (yes, no) = (true, false);
        assert_eq!(settle(&[1, 1, 1], &[yes, no, yes]), (2, 1, 0));
        assert_eq!(settle(&[1, 2, 2, 1], &[yes, yes, yes, yes]), (2, 1, 1), "the second union is half out");
        assert_eq!(settle(&[2, 1], &[yes, no, yes]), (1, 1, 0));
        assert_eq!(settle(&[1, 1], &[]), (0, 0, 2));
    }

    #[test]
    fn what_is_too_large_is_left_out_and_the_rest_goes_on() {
        let (batch, too_large) = Batch::encode(waiting(&[1, 300, 2]), "n", 1000);
        assert_eq!((batch.envelopes().len(), too_large.len()), (3, 1));
        assert_eq!(batch.into_messages().len(), 2);
        assert_eq!(Batch::encode(waiting(&[1]), "n", 0).1.len(), 1);
    }
}
