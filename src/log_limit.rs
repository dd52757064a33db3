//! Limits log records that a peer can trigger, so that no peer can fill the disk.

use std::time::{Duration, Instant};

use crate::lock::Leaf;

/// Lets some records of one kind through in each window of time and counts the others.
#[derive(Debug)]
pub(crate) struct LogLimit {
    most: u32,
    length: Duration,
    window: Leaf<Window>,
}

#[derive(Debug)]
struct Window {
    started: Option<Instant>,
    used: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Ten a second: for events that single peers cause.
    pub(crate) const fn new() -> Self {
        Self::with(10, Duration::from_secs(1))
    }

    /// One in ten seconds: for errors that repeat on every message during an outage.
    #[cfg(any(test, feature = "cluster"))]
    pub(crate) const fn seldom() -> Self {
        Self::with(1, Duration::from_secs(10))
    }

    const fn with(most: u32, length: Duration) -> Self {
        Self { most, length, window: Leaf::new(Window { started: None, used: 0, suppressed: 0 }) }
    }

    /// Returns `None` to suppress the record, or `Some(n)` to write it; `n` records were suppressed since the last one.
    pub(crate) fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock();
        let is_over = window.started.is_none_or(|s| now.saturating_duration_since(s) >= self.length);
        if is_over {
            window.started = Some(now);
            window.used = 0;
        }
        if window.used >= self.most {
            window.suppressed += 1;
            return None;
        }
        window.used += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_second_and_the_rest_are_counted() {
        let limit = LogLimit::new();
        let now = Instant::now();
        assert_eq!((0..25).filter_map(|_| limit.pass_at(now)).collect::<Vec<_>>(), [0; 10]);
        assert_eq!(limit.pass_at(now + Duration::from_secs(1)), Some(15));
        let limit = LogLimit::seldom();
        assert_eq!((0..9).filter_map(|s| limit.pass_at(now + Duration::from_secs(s))).collect::<Vec<_>>(), [0]);
        assert_eq!(limit.pass_at(now + Duration::from_secs(10)), Some(8));
    }
}
