//! Decides when a draining hub closes each client: arithmetic on times since the drain began, without clocks or
//! sockets.
//!
//! ```text
//! 0 ── lame duck ──┬── refusing new connections ──────────────────────────────────────────
//!                  │   an idle client is closed once it has been idle for `idle_for`,
//!                  │   a busy one after twice that time; each later by its place in `spread`
//! ```

use std::time::Duration;

/// The settings of one drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DrainClock {
    /// Length of the lame-duck phase, in which only readiness fails.
    pub(super) lame_duck: Duration,
    /// How long a client must be idle before it is closed; 0 = none is closed.
    pub(super) idle_for: Duration,
    /// The window over which closes are spread.
    pub(super) spread: Duration,
}

/// A client's activity at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// A message is being handled, or output waits for the socket.
    Busy,
    /// Idle since this time after the drain began; 0 if idle since before the drain.
    IdleSince(Duration),
}

/// What to do with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Close,
    /// Check again at this time; nothing is due earlier.
    LookAgain(Duration),
    Keep,
}

impl DrainClock {
    /// Decides what to do with a client at `now`. `share` of 2³² is its place in the window.
    pub(super) fn verdict(&self, now: Duration, activity: Activity, share: u32) -> Verdict {
        if self.idle_for.is_zero() {
            return Verdict::Keep;
        }
        let due = self.due(now, activity, share);
        if due <= now { Verdict::Close } else { Verdict::LookAgain(due) }
    }

    fn due(&self, now: Duration, activity: Activity, share: u32) -> Duration {
        let place = self.place(share);
        let earliest = |idle_enough: Duration| idle_enough.max(self.lame_duck).saturating_add(place);
        let latest = earliest(self.idle_for.saturating_mul(2));
        let idle_since = match activity {
            Activity::IdleSince(since) => since,
            // Nothing is due earlier, even if the client becomes idle at once.
            Activity::Busy => now,
        };
        earliest(idle_since.saturating_add(self.idle_for)).min(latest)
    }

    fn place(&self, share: u32) -> Duration {
        let nanos = self.spread.as_nanos().saturating_mul(u128::from(share)) >> 32;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    const GUIDE: DrainClock = DrainClock { lame_duck: seconds(10), idle_for: seconds(30), spread: seconds(5) };

    #[test]
    fn an_idle_client_is_closed_at_its_place_in_the_window() {
        let idle = Activity::IdleSince(Duration::ZERO);
        assert_eq!(GUIDE.verdict(seconds(0), idle, 0), Verdict::LookAgain(seconds(30)));
        assert_eq!(GUIDE.verdict(seconds(0), idle, 1 << 31), Verdict::LookAgain(Duration::from_millis(32_500)));
        assert_eq!(GUIDE.verdict(seconds(30), idle, 0), Verdict::Close);
        assert_eq!(GUIDE.verdict(seconds(30), Activity::IdleSince(seconds(9)), 0), Verdict::LookAgain(seconds(39)));
        let brisk = DrainClock { idle_for: seconds(2), ..GUIDE };
        assert_eq!(brisk.verdict(seconds(9), idle, 0), Verdict::LookAgain(seconds(10)), "not as a lame duck");
        let never = DrainClock { idle_for: Duration::ZERO, ..GUIDE };
        assert_eq!(never.verdict(Duration::MAX, idle, 0), Verdict::Keep);
    }

    #[test]
    fn a_busy_client_is_closed_after_twice_the_time() {
        assert_eq!(GUIDE.verdict(seconds(31), Activity::Busy, 0), Verdict::LookAgain(seconds(60)));
        assert_eq!(GUIDE.verdict(seconds(60), Activity::Busy, 0), Verdict::Close);
        assert_eq!(
            GUIDE.verdict(seconds(64), Activity::Busy, u32::MAX),
            Verdict::LookAgain(Duration::new(64, 999_999_998))
        );
    }

    #[test]
    fn settings_without_end_do_not_overflow() {
        let clock = DrainClock { lame_duck: Duration::MAX, idle_for: Duration::MAX, spread: Duration::MAX };
        for activity in [Activity::Busy, Activity::IdleSince(Duration::MAX)] {
            let verdict = clock.verdict(seconds(1), activity, u32::MAX);
            assert_eq!(verdict, Verdict::LookAgain(Duration::MAX));
        }
    }

    /// A client with periods of work, as (pause, length) in milliseconds, that ends idle.
    fn spells() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((1_u64..4000, 1_u64..4000), 0..20)
    }

    /// The fake client's activity at `now`.
    fn activity(spells: &[(u64, u64)], now: Duration) -> Activity {
        let (mut at, mut idle_since) = (0, 0);
        for (pause, length) in spells {
            let begin = at + pause;
            let end = begin + length;
            if now < Duration::from_millis(begin) {
                break;
            }
            if now < Duration::from_millis(end) {
                return Activity::Busy;
            }
            (at, idle_since) = (end, end);
        }
        Activity::IdleSince(Duration::from_millis(idle_since))
    }

    fn milliseconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
        range.prop_map(Duration::from_millis)
    }

    proptest! {
        /// With a fake clock that sleeps exactly as requested, a client is closed as soon as it has been idle long
        /// enough, or at the latest moment, and the number of checks is small.
        #[test]
        fn closes_come_in_time_and_not_early(
            lame_duck in milliseconds(0..5000),
            idle_for in milliseconds(1..5000),
            spread in milliseconds(0..3000),
            share in any::<u32>(),
            spells in spells(),
        ) {
            let clock = DrainClock { lame_duck, idle_for, spread };
            let place = clock.place(share);
            prop_assert!(place < spread || spread.is_zero());
            let (mut now, mut looks) = (Duration::ZERO, 0);
            while let Verdict::LookAgain(next) = clock.verdict(now, activity(&spells, now), share) {
                prop_assert!(next > now, "time goes on");
                now = next;
                looks += 1;
                prop_assert!(looks <= 4 + spells.len(), "{looks} looks");
            }
            let latest = lame_duck.max(idle_for * 2) + place;
            prop_assert!(now <= latest, "closed at {now:?}, latest {latest:?}");
            prop_assert!(now >= lame_duck, "closed as a lame duck");
            if now < latest {
                match activity(&spells, now) {
                    Activity::Busy => prop_assert!(false, "closed while busy at {now:?}"),
                    Activity::IdleSince(since) => {
                        prop_assert_eq!(now, (since + idle_for).max(lame_duck) + place, "idle since {:?}", since);
                    }
                }
            }
        }
    }
}
