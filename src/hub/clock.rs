//! The clock of rooms that remember: for ages, lingers, expiries and rates. Unit tests move it forward.

use std::time::Instant;
#[cfg(test)]
use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

#[cfg(test)]
use crate::atomic::AtomicU64;

/// The system's monotonic clock; in unit tests, that and what it was moved forward. Clones show the same time.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock {
    /// In milliseconds. Relaxed: a test that moves it then takes the keeper's lock to wake it, so the keeper sees it.
    #[cfg(test)]
    ahead: Arc<AtomicU64>,
}

#[cfg(not(test))]
#[allow(clippy::unused_self, reason = "in tests it has a state")]
impl Clock {
    pub(super) fn now(&self) -> Instant {
        Instant::now()
    }

    /// The system's time at which this clock shows `at`.
    pub(super) fn system(&self, at: Instant) -> Instant {
        at
    }
}

#[cfg(test)]
impl Clock {
    fn ahead(&self) -> Duration {
        Duration::from_millis(self.ahead.load(Ordering::Relaxed))
    }

    pub(super) fn now(&self) -> Instant {
        Instant::now() + self.ahead()
    }

    pub(super) fn system(&self, at: Instant) -> Instant {
        at.checked_sub(self.ahead()).unwrap_or_else(Instant::now)
    }

    pub(super) fn advance(&self, seconds: u64) {
        self.ahead.fetch_add(seconds * 1000, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::history::{Range, RoomOptions};
    use crate::hub::Hub;

    fn hub() -> Hub {
        let options = RoomOptions::history().with_state();
        let lasting = options.clone().linger(Duration::from_secs(86_400));
        Hub::builder().rooms("*", options).rooms("lasting", lasting).build().expect("valid")
    }

    fn advance(hub: &Hub, seconds: u64) {
        hub.inner().clock.advance(seconds);
        hub.keeper().wake();
    }

    fn held(hub: &Hub, room: &str) -> Option<usize> {
        Some(hub.history(room, Range::oldest_first())?.publications.len())
    }

    /// Waits for the keeper's thread.
    fn eventually(what: &str, is_so: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(Instant::now() < end, "never: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn messages_age_in_five_minutes_and_positions_do_not() {
        let hub = hub();
        hub.publish("lasting", "1");
        advance(&hub, 200);
        let top = hub.publish("lasting", "2").position;
        advance(&hub, 99);
        assert_eq!(held(&hub, "lasting"), Some(2));
        advance(&hub, 1);
        assert_eq!(held(&hub, "lasting"), Some(1), "the first is five minutes old");
        advance(&hub, 200);
        assert_eq!(held(&hub, "lasting"), Some(0));
        assert_eq!(hub.position("lasting"), top);
        assert_eq!(hub.publish("lasting", "3").position.map(|p| p.offset()), Some(3));
    }

    #[test]
    fn rooms_linger_for_five_minutes_after_their_last_use() {
        let hub = hub();
        let first = hub.publish("room", "1").position;
        for _ in 0..3 {
            advance(&hub, 299);
            assert!(held(&hub, "room").is_some(), "reading is a use");
        }
        advance(&hub, 299);
        let second = hub.publish("room", "2").position;
        assert_eq!(second.map(|p| p.offset()), Some(2), "it is the same room");
        advance(&hub, 301);
        eventually("the room has ended", || hub.position("room").is_none());
        let third = hub.publish("room", "3").position;
        assert_ne!(third.map(|p| p.epoch()), first.map(|p| p.epoch()));
        assert!(hub.position("lasting").is_none() && hub.publish("lasting", "x").position.is_some());
        advance(&hub, 86_000);
        eventually("the other has ended", || hub.position("room").is_none());
        assert!(hub.position("lasting").is_some());
    }

    #[test]
    fn values_expire_in_their_time() {
        let hub = hub();
        let set = |key, seconds| hub.set_for("lasting", key, "v", Duration::from_secs(seconds)).expect("set");
        set("late", 600);
        set("early", 60);
        let keys = || {
            let mut keys: Vec<String> =
                hub.state_of("lasting").iter().filter_map(|v| v.key().map(str::to_owned)).collect();
            keys.sort();
            keys
        };
        advance(&hub, 59);
        assert_eq!(keys(), ["early", "late"]);
        advance(&hub, 1);
        eventually("the first has expired", || keys() == ["late"]);
        set("late", 600);
        advance(&hub, 599);
        assert_eq!(keys(), ["late"], "setting it again has given it more time");
        advance(&hub, 1);
        eventually("the other has expired", || keys().is_empty());
    }
}
