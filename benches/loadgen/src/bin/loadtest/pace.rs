//! When the next message is due, and whether the generator kept up with that. No I/O.

use std::time::{Duration, Instant};

/// A message that goes out this much after it was due is late, if it is also more than one message behind.
const GRACE: Duration = Duration::from_millis(10);
/// A thread that is busy for more than this part of the time has no reserve left.
const BUSY: f64 = 0.9;
/// More late messages than this are no accident.
const LATE: f64 = 0.05;

/// A schedule: so many times a second, whatever happened to those before.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Instant,
    period: Duration,
    /// Since when the other side has been taking nothing; that is not the generator's fault.
    is_held_up: bool,
    pub(crate) done: u64,
    pub(crate) late: u64,
}

impl Pace {
    pub(crate) fn new(start: Instant, per_second: f64) -> Self {
        let period = Duration::from_secs_f64(1.0 / per_second);
        Self { next: start, period, is_held_up: false, done: 0, late: 0 }
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// One was done, now.
    pub(crate) fn done(&mut self, now: Instant) {
        let behind = now.saturating_duration_since(self.next);
        self.late += u64::from(behind > GRACE.max(self.period) && !self.is_held_up);
        self.is_held_up = self.is_held_up && behind > self.period;
        self.done += 1;
        self.next += self.period;
    }

    /// What is due cannot be done because the other side takes nothing.
    pub(crate) fn hold_up(&mut self) {
        self.is_held_up = true;
    }

    /// The part of what was done that was late, 0 to 1.
    pub(crate) fn late_share(&self) -> f64 {
        if self.done == 0 { 0.0 } else { self.late as f64 / self.done as f64 }
    }
}

/// Why the figures say more about the generator than about the server; `None` when they do not. `busy` is the part of
/// the time that its thread was on a CPU.
pub(crate) fn generator_bound(busy: Option<f64>, late_share: f64) -> Option<String> {
    let (is_busy, is_late) = (busy.is_some_and(|busy| busy > BUSY), late_share > LATE);
    let percent = busy.map_or("?".to_owned(), |busy| format!("{:.0}", busy * 100.0));
    let late = late_share * 100.0;
    match (is_busy, is_late) {
        (false, false) => None,
        (true, false) => Some(format!("it was busy for {percent} % of the time")),
        (true, true) => {
            Some(format!("it was busy for {percent} % of the time and sent {late:.0} % of its messages late"))
        }
        // It was not let onto a CPU.
        (false, true) => Some(format!(
            "it sent {late:.0} % of its messages late although busy for only {percent} % of the time: others use the CPUs"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_schedule_does_not_slip() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 100.0);
        assert!(pace.is_due(start));
        pace.done(start);
        assert!(!pace.is_due(start + 9 * MS) && pace.is_due(start + 10 * MS));
        // 15 ms behind, then 5 ms.
        pace.done(start + 25 * MS);
        pace.done(start + 25 * MS);
        assert_eq!((pace.next(), pace.done, pace.late), (start + 30 * MS, 3, 1));
        assert!((pace.late_share() - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_server_that_pushes_back_makes_no_message_late() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 1000.0);
        pace.hold_up();
        (0..100).for_each(|_| pace.done(start + 100 * MS));
        assert_eq!(pace.late, 0);
        // It has caught up; the next delay is the generator's own.
        pace.done(start + 200 * MS);
        assert_eq!(pace.late, 1);
    }

    #[test]
    fn the_generator_is_bound_when_it_is_busy_or_late() {
        assert_eq!(generator_bound(Some(0.9), 0.05), None);
        assert_eq!(generator_bound(None, 0.0), None);
        assert!(generator_bound(Some(0.97), 0.0).is_some_and(|why| why.contains("busy for 97 %")));
        assert!(
            generator_bound(Some(0.2), 0.5)
                .is_some_and(|why| why.contains("50 % of its messages late although busy for only 20 %"))
        );
        assert!(generator_bound(None, 0.5).is_some());
    }
}
