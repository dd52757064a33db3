//! Hands a value to another thread, which waits for it. Smaller than a channel, both in memory and in code.

use std::sync::Arc;

use crate::lock::{Condition, Leaf};

struct Shared<T> {
    state: Leaf<State<T>>,
    changed: Condition,
}

enum State<T> {
    Waiting,
    Given(T),
    /// The giver has been dropped, or the value has been taken.
    Over,
}

/// The end that has the value.
pub(crate) struct Giver<T>(Arc<Shared<T>>);

/// The end that waits for it.
pub(crate) struct Taker<T>(Arc<Shared<T>>);

pub(crate) fn handover<T>() -> (Giver<T>, Taker<T>) {
    let shared = Arc::new(Shared { state: Leaf::new(State::Waiting), changed: Condition::new() });
    (Giver(Arc::clone(&shared)), Taker(shared))
}

impl<T> Giver<T> {
    pub(crate) fn give(self, value: T) {
        *self.0.state.lock() = State::Given(value);
        // Dropping the giver wakes the taker.
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if let State::Waiting = *state {
            *state = State::Over;
        }
        self.0.changed.notify_one();
    }
}

impl<T> Taker<T> {
    /// Waits for the value; `None` if it will not come.
    pub(crate) fn take(self) -> Option<T> {
        let mut state = self.0.state.lock();
        loop {
            match std::mem::replace(&mut *state, State::Over) {
                State::Given(value) => return Some(value),
                State::Over => return None,
                State::Waiting => *state = State::Waiting,
            }
            self.0.changed.wait(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_value_is_taken_before_or_after_it_is_given() {
        let (giver, taker) = handover();
        giver.give(7);
        assert_eq!(taker.take(), Some(7));
        let (giver, taker) = handover();
        let waiting = thread::spawn(|| taker.take());
        giver.give("x");
        assert_eq!(waiting.join().ok().flatten(), Some("x"));
    }

    #[test]
    fn nobody_waits_for_a_giver_that_is_gone() {
        let (giver, taker) = handover::<u8>();
        let waiting = thread::spawn(|| taker.take());
        drop(giver);
        assert_eq!(waiting.join().ok(), Some(None));
    }
}
