//! The wait before the next connection attempt.

use std::time::Duration;

use crate::random;

/// Doubles from `min` to `max`. Each wait is between half the current value and all of it, so that nodes do not
/// reconnect all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    pub(super) fn next(&mut self) -> Duration {
        // A version 4 UUID serves as the source of randomness: its lowest 32 bits are random.
        let random = random::uuid().as_u128() & 0xffff_ffff;
        self.next_with(u32::try_from(random).unwrap_or(0))
    }

    fn next_with(&mut self, random: u32) -> Duration {
        let full = self.next;
        self.next = full.saturating_mul(2).min(self.max);
        full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_maximum_with_jitter() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(30));
        let longest: Vec<_> = (0..7).map(|_| backoff.next_with(u32::MAX).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.next_with(0), seconds(15));
        backoff.reset();
        assert_eq!(backoff.next_with(0), seconds(1) / 2);
        let waits: Vec<_> = (0..50).map(|_| backoff.next()).collect();
        assert!(waits[10..].iter().all(|w| (seconds(15)..=seconds(30)).contains(w)), "{waits:?}");
        assert!(waits[10..].iter().any(|w| *w != waits[10]), "the same every time");
    }
}
