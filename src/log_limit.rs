//! Log records that a peer can trigger are limited, so that nobody fills a disk from outside.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Records of one kind that are let through in each second.
const PER_SECOND: u32 = 10;

/// Lets ten records a second through and counts the others.
#[derive(Debug)]
pub(crate) struct LogLimit(Mutex<Window>);

#[derive(Debug)]
struct Window {
    started: Option<Instant>,
    used: u32,
    suppressed: u64,
}

impl LogLimit {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Window { started: None, used: 0, suppressed: 0 }))
    }

    /// `None`: keep silent. `Some(n)`: write the record; `n` were suppressed since the last.
    pub(crate) fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock();
        let is_over = window.started.is_none_or(|s| now.saturating_duration_since(s) >= Duration::from_secs(1));
        if is_over {
            window.started = Some(now);
            window.used = 0;
        }
        if window.used >= PER_SECOND {
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
    }
}
