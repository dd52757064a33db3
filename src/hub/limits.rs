//! Rate limits.

use std::time::{Duration, Instant};

/// A fixed window: at most `max` events in each window of a given length.
///
/// A window starts with the first event, and the next window with the first event after that window has passed. A
/// limiter is for one connection or thread; to share it, put it behind a lock.
///
/// ```
/// use std::time::Duration;
/// let mut limiter = wshub::limit::RateLimiter::new(2, Duration::from_secs(60));
/// assert!(limiter.allow() && limiter.allow() && !limiter.allow());
/// assert!(limiter.retry_after() > Duration::from_secs(50));
/// ```
#[derive(Debug, Clone)]
pub struct RateLimiter {
    max: u32,
    window: Duration,
    started: Option<Instant>,
    used: u32,
}

impl RateLimiter {
    /// Creates a limiter that allows `max` events per window; 0 allows none.
    pub const fn new(max: u32, window: Duration) -> Self {
        Self { max, window, started: None, used: 0 }
    }

    /// Whether one more event is allowed now; if so, it is counted.
    pub fn allow(&mut self) -> bool {
        self.allow_at(Instant::now())
    }

    /// Time until the window ends; zero when none is running.
    pub fn retry_after(&self) -> Duration {
        self.retry_after_at(Instant::now())
    }

    fn allow_at(&mut self, now: Instant) -> bool {
        if self.retry_after_at(now).is_zero() {
            self.started = Some(now);
            self.used = 0;
        }
        let allowed = self.used < self.max;
        self.used += u32::from(allowed);
        allowed
    }

    fn retry_after_at(&self, now: Instant) -> Duration {
        let Some(started) = self.started else { return Duration::ZERO };
        self.window.saturating_sub(now.saturating_duration_since(started))
    }
}

/// A token bucket: `rate` events a second on average, bursts of up to `rate`.
///
/// ```
/// let mut bucket = wshub::limit::TokenBucket::new(2);
/// assert!(bucket.allow() && bucket.allow() && !bucket.allow());
/// ```
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: f64,
    tokens: f64,
    updated: Instant,
}

impl TokenBucket {
    /// Creates a full bucket; `rate` 0 allows nothing.
    pub fn new(rate: u32) -> Self {
        let rate = f64::from(rate);
        Self { rate, tokens: rate, updated: Instant::now() }
    }

    /// Whether one more event is allowed now; if so, it is counted.
    pub fn allow(&mut self) -> bool {
        self.allow_at(Instant::now())
    }

    fn allow_at(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.rate);
        self.updated = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_window_starts_with_its_first_event() {
        let mut limiter = RateLimiter::new(2, SECOND);
        let start = Instant::now();
        assert_eq!(limiter.retry_after_at(start), Duration::ZERO);
        assert!(limiter.allow_at(start) && limiter.allow_at(start + SECOND / 2));
        assert!(!limiter.allow_at(start + SECOND * 9 / 10));
        assert_eq!(limiter.retry_after_at(start + SECOND * 9 / 10), SECOND / 10);
        assert!(limiter.allow_at(start + SECOND));
        assert!(!RateLimiter::new(0, SECOND).allow());
    }

    #[test]
    fn a_bucket_refills_up_to_its_burst() {
        let mut bucket = TokenBucket::new(10);
        let start = bucket.updated;
        assert_eq!((0..20).filter(|_| bucket.allow_at(start)).count(), 10);
        assert!(!bucket.allow_at(start + SECOND / 20));
        assert!(bucket.allow_at(start + SECOND / 9));
        assert_eq!((0..20).filter(|_| bucket.allow_at(start + SECOND * 60)).count(), 10);
        assert!(!TokenBucket::new(0).allow());
    }
}
