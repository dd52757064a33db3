//! Results of publications by the caller's key, so that none is published twice.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::super::error::CommandError;
use super::super::recover::Place;
use crate::lock::{Condition, Leaf};

/// How long a key is remembered.
const AGE: Duration = Duration::from_secs(300);
/// How many keys are remembered.
const MAX: usize = 10_000;

/// The result of a publication: its position in the history, if it has one.
type Outcome = Result<Option<Place>, CommandError>;

/// Channel and key.
type Key = (String, String);

/// Remembered keys. The lock is a leaf: no other code runs under it.
#[derive(Debug, Default)]
pub(super) struct Idempotency {
    state: Leaf<State>,
    /// Signals that a publication was made.
    made: Condition,
}

/// The state of a publication.
#[derive(Debug, Clone)]
enum Publication {
    Pending,
    Made(Option<Place>),
}

#[derive(Debug, Default)]
struct State {
    /// With the number of the attempt.
    results: HashMap<Key, (u64, Publication)>,
    /// By number: in the order in which they came.
    order: BTreeMap<u64, (Instant, Key)>,
    next: u64,
}

impl Idempotency {
    /// Publishes unless a publication with this key exists, whose result it then returns. A second request waits for
    /// the first. Failures are not remembered.
    pub(super) fn once(&self, channel: &str, key: &str, publish: impl FnOnce() -> Outcome) -> Outcome {
        self.once_at(Instant::now(), channel, key, publish)
    }

    fn once_at(&self, now: Instant, channel: &str, key: &str, publish: impl FnOnce() -> Outcome) -> Outcome {
        let key = (channel.to_owned(), key.to_owned());
        let mut state = self.state.lock();
        state.forget(now);
        while let Some((_, result)) = state.results.get(&key) {
            if let Publication::Made(place) = result {
                return Ok(place.clone());
            }
            self.made.wait(&mut state);
        }
        let number = state.next;
        state.next += 1;
        state.results.insert(key.clone(), (number, Publication::Pending));
        state.order.insert(number, (now, key.clone()));
        drop(state);
        let mut pending = Pending { own: self, number, key, made: None };
        let place = publish()?;
        pending.made = Some(Publication::Made(place.clone()));
        Ok(place)
    }
}

impl State {
    fn forget(&mut self, now: Instant) {
        while let Some((&number, (at, _))) = self.order.first_key_value() {
            if self.order.len() <= MAX && now.saturating_duration_since(*at) < AGE {
                break;
            }
            if let Some((_, key)) = self.order.remove(&number) {
                self.results.remove(&key);
            }
        }
    }
}

/// A publication in progress. If it fails or panics, the key is free again.
struct Pending<'a> {
    own: &'a Idempotency,
    number: u64,
    key: Key,
    made: Option<Publication>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mut state = self.own.state.lock();
        // It may have been forgotten in the meantime, and another attempt may have taken the key.
        let is_own = state.results.get(&self.key).is_some_and(|(number, _)| *number == self.number);
        match self.made.take() {
            Some(made) if is_own => {
                state.results.insert(self.key.clone(), (self.number, made));
            }
            None if is_own => {
                state.results.remove(&self.key);
                state.order.remove(&self.number);
            }
            _ => {}
        }
        drop(state);
        self.own.made.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "an outcome")]
    fn place(offset: u64) -> Outcome {
        Ok(Some(Place { epoch: "e".into(), offset }))
    }

    #[test]
    fn a_key_counts_once_in_a_channel_for_five_minutes() {
        let (own, now) = (Idempotency::default(), Instant::now());
        assert_eq!(own.once_at(now, "a", "k", || place(1)), place(1));
        assert_eq!(own.once_at(now + AGE.saturating_sub(Duration::from_millis(1)), "a", "k", || place(2)), place(1));
        assert_eq!(own.once_at(now, "b", "k", || place(3)), place(3));
        assert_eq!(own.once_at(now + AGE, "a", "k", || place(4)), place(4));
    }

    #[test]
    fn the_oldest_of_too_many_is_forgotten() {
        let (own, now) = (Idempotency::default(), Instant::now());
        for n in 0..=MAX {
            assert_eq!(own.once_at(now, "a", &n.to_string(), || place(1)), place(1));
        }
        assert_eq!(own.once_at(now, "a", "1", || place(2)), place(1));
        assert_eq!(own.once_at(now, "a", "0", || place(2)), place(2));
        let state = own.state.lock();
        assert!(state.order.len() <= MAX + 1 && state.results.len() <= MAX + 1);
    }

    #[test]
    fn of_many_at_once_one_publishes() {
        let own = Idempotency::default();
        let count = crate::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let result =
                        own.once("a", "k", || place(count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1));
                    assert_eq!(result, place(1));
                });
            }
        });
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| own.once("a", "p", || panic!("no"))));
        assert!(broken.is_err());
        assert_eq!(own.once("a", "p", || Err(CommandError::INTERNAL)), Err(CommandError::INTERNAL));
        assert_eq!(own.state.lock().order.len(), 1, "failures leave nothing");
        assert_eq!(own.once("a", "p", || place(9)), place(9));
    }
}
