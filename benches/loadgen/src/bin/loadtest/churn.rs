//! Visitors: clients that come at a rate, stay for a moment and go, every other one without a word.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use super::frame::CLOSE;
use super::histogram::Latencies;
use super::outcome::Outcome;
use super::pace::Pace;
use super::pool::Pool;
use super::url::Url;

/// How long one stays.
const STAY: Duration = Duration::from_millis(200);
/// How long one waits for the answer to its close frame.
const FAREWELL: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    Arriving,
    Staying,
    Leaving,
}

#[derive(Debug)]
pub(crate) struct Churn {
    url: Url,
    timeout: Duration,
    pub(crate) pace: Pace,
    /// By connection, with the number of its deadline.
    visits: HashMap<usize, (Visit, u64)>,
    /// When the time of a visit is up: of this number, on this connection.
    deadlines: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    numbers: u64,
    now: Instant,
    started: Instant,
    connects: u64,
    failed: u64,
    departures: u64,
    handshake: Latencies,
    fault: Option<String>,
}

impl Churn {
    pub(crate) fn new(url: Url, per_second: f64, timeout: Duration) -> Self {
        let now = Instant::now();
        Self {
            url,
            timeout,
            pace: Pace::new(now, per_second),
            visits: HashMap::new(),
            deadlines: BinaryHeap::new(),
            numbers: 0,
            now,
            started: now,
            connects: 0,
            failed: 0,
            departures: 0,
            handshake: Latencies::new(),
            fault: None,
        }
    }

    /// From now on they come.
    pub(crate) fn start(&mut self, now: Instant, per_second: f64) {
        (self.started, self.pace) = (now, Pace::new(now, per_second));
    }

    /// Lets in who is due, and shows out whose time is up.
    pub(crate) fn turn(&mut self, pool: &mut Pool, now: Instant) {
        self.now = now;
        while self.pace.is_due(now) {
            match pool.open(&self.url, true) {
                Ok(id) => self.enter(id, Visit::Arriving, self.timeout),
                Err(error) => self.fail(&error.to_string()),
            }
            self.pace.done(Instant::now());
        }
        while let Some(Reverse((deadline, number, id))) = self.deadlines.peek().copied()
            && deadline <= now
        {
            self.deadlines.pop();
            // The visit may be over, and its connection another's.
            if let Some((visit, _)) = self.visits.get(&id).copied().filter(|(_, current)| *current == number) {
                self.time_is_up(pool, id, visit);
            }
        }
    }

    fn enter(&mut self, id: usize, visit: Visit, time: Duration) {
        self.numbers += 1;
        self.visits.insert(id, (visit, self.numbers));
        self.deadlines.push(Reverse((self.now + time, self.numbers, id)));
    }

    fn time_is_up(&mut self, pool: &mut Pool, id: usize, visit: Visit) {
        match visit {
            Visit::Arriving => self.fail("no answer to the upgrade"),
            Visit::Staying => self.departures += 1,
            Visit::Leaving => self.fail("no answer to a close frame"),
        }
        if visit == Visit::Staying && self.departures.is_multiple_of(2) {
            if let Some(link) = pool.link(id) {
                link.send_frame(CLOSE, &1000_u16.to_be_bytes());
            }
            self.enter(id, Visit::Leaving, FAREWELL);
        } else {
            self.visits.remove(&id);
            pool.close(id);
        }
    }

    fn fail(&mut self, why: &str) {
        self.failed += 1;
        self.fault.get_or_insert_with(|| format!("a visitor: {why}"));
    }

    pub(crate) fn arrived(&mut self, id: usize, took: Duration) {
        self.connects += 1;
        self.handshake.record(took);
        self.enter(id, Visit::Staying, STAY);
    }

    pub(crate) fn gone(&mut self, id: usize, why: &str) {
        if self.visits.remove(&id).is_some_and(|(visit, _)| visit != Visit::Leaving) {
            self.fail(why);
        }
    }

    pub(crate) fn report(&self, outcome: &mut Outcome) {
        outcome.connects = self.connects;
        outcome.connects_per_second =
            Some(self.connects as f64 / self.now.saturating_duration_since(self.started).as_secs_f64().max(1e-9));
        outcome.failed_connects = self.failed;
        outcome.handshake = self.handshake.percentiles();
        outcome.late_share = outcome.late_share.max(self.pace.late_share());
        outcome.notes.extend(self.fault.clone());
    }
}
