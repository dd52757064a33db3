//! When this node sends heartbeats, and their contents.

use std::time::{Duration, Instant, SystemTime};

use super::beat::Beat;
use super::presence::Counts;

/// Minimum time between requested heartbeats, unless a twentieth of the interval is shorter. It prevents a storm of
/// answers when many nodes join at once.
const GAP: Duration = Duration::from_millis(250);

pub(super) struct Heartbeat {
    interval: Duration,
    /// When to check the counts next.
    next: Instant,
    /// Start and counts of the last heartbeat.
    last: Option<(Instant, Counts)>,
    /// Distinguishes this node from an earlier one with the same id.
    run: String,
    /// The number of the last heartbeat.
    number: u64,
    /// The largest envelope, in bytes, to try on the bus after it has refused a larger one.
    learned: Option<usize>,
}

impl Heartbeat {
    /// The first heartbeat is requested when the subscription is established. Without a subscription it is sent after
    /// one interval.
    pub(super) fn new(interval: Duration, run: String, now: Instant) -> Self {
        // Starts at a random number, so that parts from an earlier node with the same id are not taken for this node's.
        let number = u64::from(crate::random::uuid().as_fields().0);
        Self { interval, next: now + interval, last: None, run, number, learned: None }
    }

    /// Returns when to check the counts next. A requested heartbeat comes earlier: the first at once, further ones
    /// after the minimum gap.
    pub(super) fn due(&self, is_wanted: bool, now: Instant) -> Instant {
        match &self.last {
            _ if !is_wanted => self.next,
            None => now,
            Some((at, _)) => (*at + GAP.min(self.interval / 20)).min(self.next),
        }
    }

    /// Called after the counts were checked and sent if needed. Schedules the next check after half an interval.
    pub(super) fn rest(&mut self, now: Instant) {
        self.next = now + self.interval / 2;
    }

    /// Returns whether the last heartbeat had the same counts and is recent (less than three quarters of an interval
    /// old).
    pub(super) fn has_said(&self, counts: &Counts, now: Instant) -> bool {
        let said = |(at, said): &(Instant, Counts)| said == counts && now - *at < self.interval * 3 / 4;
        self.last.as_ref().is_some_and(said)
    }

    pub(super) fn has_beaten(&self) -> bool {
        self.last.is_some()
    }

    /// Half an interval. A batch of messages that takes longer delays the next heartbeat.
    pub(super) fn patience(&self) -> Duration {
        self.interval / 2
    }

    /// Returns the next heartbeat and its number. A requested heartbeat, and the first one, announces the node.
    pub(super) fn beat(&mut self, node_id: &str, counts: Counts, is_wanted: bool, now: Instant) -> (Beat, u64) {
        let run = (is_wanted || self.last.is_none()).then(|| self.run.clone());
        let beat = Beat { run, ..beat(node_id, &counts) };
        self.last = Some((now, counts));
        self.number += 1;
        (beat, self.number)
    }

    pub(super) fn farewell(&self, node_id: &str) -> Beat {
        Beat { run: Some(self.run.clone()), gone: true, ..beat(node_id, &Counts::default()) }
    }

    /// Returns the maximum envelope size, in bytes, given the limit of the settings and the bus.
    pub(super) fn limit(&self, known: usize) -> usize {
        self.learned.map_or(known, |learned| learned.min(known))
    }

    /// The bus refused an envelope of this size: try smaller ones from now on.
    pub(super) fn shrink(&mut self, refused: usize) {
        self.learned = Some(refused / 2);
    }

    /// No smaller envelope is left to try, so size was not the reason.
    pub(super) fn forget_limit(&mut self) {
        self.learned = None;
    }
}

fn beat(node_id: &str, counts: &Counts) -> Beat {
    let ts = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Beat {
        node_id: node_id.to_owned(),
        client_count: counts.clients as u64,
        rooms: counts.rooms.iter().map(|(name, count)| (name.clone(), *count as u64)).collect(),
        ts: i64::try_from(ts.as_millis()).unwrap_or(i64::MAX),
        run: None,
        part: None,
        gone: false,
    }
}
