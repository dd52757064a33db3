//! When this node sends its heartbeats, and what they say.

use std::time::{Duration, Instant, SystemTime};

use super::beat::Beat;
use super::presence::Counts;

/// Between heartbeats that are asked for, unless the interval is so short that a part of it is less: a crowd of new nodes
/// causes no storm of answers.
const GAP: Duration = Duration::from_millis(250);

pub(super) struct Heartbeat {
    interval: Duration,
    /// When to look at the counts.
    next: Instant,
    /// The last heartbeat: when it was begun, and its counts.
    last: Option<(Instant, Counts)>,
    /// Tells this node from an earlier one of the same id.
    run: String,
    /// The number of the last heartbeat.
    number: u64,
    /// The largest envelope that the bus may take, in bytes, since it has refused a larger one.
    learned: Option<usize>,
}

impl Heartbeat {
    /// The first heartbeat is asked for when the subscription stands; without one it goes out an interval later.
    pub(super) fn new(interval: Duration, run: String, now: Instant) -> Self {
        // Not from 0: the parts of an earlier node of the same id must not pass for this one's.
        let number = u64::from(crate::random::uuid().as_fields().0);
        Self { interval, next: now + interval, last: None, run, number, learned: None }
    }

    /// When to look at the counts next. A heartbeat that is asked for comes earlier: the first at once, further ones keep
    /// their distance.
    pub(super) fn due(&self, is_wanted: bool, now: Instant) -> Instant {
        match &self.last {
            _ if !is_wanted => self.next,
            None => now,
            Some((at, _)) => (*at + GAP.min(self.interval / 20)).min(self.next),
        }
    }

    /// The counts have been looked at, and sent if need was: looks again after half an interval.
    pub(super) fn rest(&mut self, now: Instant) {
        self.next = now + self.interval / 2;
    }

    /// Whether the last heartbeat said this already, less than about half an interval ago.
    pub(super) fn has_said(&self, counts: &Counts, now: Instant) -> bool {
        let said = |(at, said): &(Instant, Counts)| said == counts && now - *at < self.interval * 3 / 4;
        self.last.as_ref().is_some_and(said)
    }

    pub(super) fn has_beaten(&self) -> bool {
        self.last.is_some()
    }

    /// Half of an interval: no batch of messages should take longer, or the next heartbeat is late.
    pub(super) fn patience(&self) -> Duration {
        self.interval / 2
    }

    /// The next heartbeat, and its number. One that was asked for announces the node.
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

    /// The limit of envelopes, in bytes, given what the settings and the bus say.
    pub(super) fn limit(&self, known: usize) -> usize {
        self.learned.map_or(known, |learned| learned.min(known))
    }

    /// The bus refused an envelope of this size: smaller ones are tried from now on.
    pub(super) fn shrink(&mut self, refused: usize) {
        self.learned = Some(refused / 2);
    }

    /// Nothing small enough is left to be tried, so the size was not the reason.
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
