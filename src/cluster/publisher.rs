//! The thread that publishes: messages in their order, heartbeats between them, and the way back after a failure.

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::adapter::AdapterError;
use super::backoff::Backoff;
use super::batch::{Batch, MAX_BYTES, MAX_MESSAGES, Outcome};
use super::envelope::Envelope;
use super::fields::Presence;
use super::presence::Counts;
use super::queue::Waiting;
use super::shared::{Desk, Shared};
use super::state::Half;
use crate::guard::record;
use crate::log_limit::LogLimit;
use crate::metrics::ErrorType;

/// Between heartbeats that are asked for, if the interval is not so short that a part of it does: a crowd of new nodes makes
/// no storm of answers.
const GAP: Duration = Duration::from_millis(250);

/// | state | does | until |
/// | --- | --- | --- |
/// | down | forgets what has waited too long | `retry_at`: connects |
/// | up | publishes heartbeats that are due, then what waits | a failure: down |
/// | stopping | publishes what waits, while up and in time, then says farewell | nothing waits |
pub(super) struct Publisher {
    shared: Arc<Shared>,
    is_up: bool,
    /// When to connect, while down.
    retry_at: Instant,
    backoff: Backoff,
    /// Something has been published since the last failure: then the next is tried to be mended at once.
    is_proven: bool,
    pulse: Option<Pulse>,
}

/// When heartbeats are sent.
struct Pulse {
    interval: Duration,
    /// When to look at the counts.
    next: Instant,
    /// The last heartbeat: when, and what it said.
    last: Option<(Instant, Counts)>,
}

enum Step {
    Connect,
    Publish(Vec<Waiting>),
    Beat { wanted: bool },
    Late(usize),
    End,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        let (first, longest) = shared.settings.backoff;
        // The first heartbeat is asked for when the subscription stands; without one it goes out an interval later.
        let pulse = shared.settings.presence.map(|interval| Pulse { interval, next: now + interval, last: None });
        let backoff = Backoff::new(first, longest);
        Self { shared, is_up: false, retry_at: now, backoff, is_proven: false, pulse }
    }

    pub(super) fn run(mut self) {
        loop {
            match self.next() {
                Step::Connect => self.connect(),
                Step::Publish(waiting) => self.publish(waiting),
                Step::Beat { wanted } => self.beat(wanted),
                Step::Late(count) => self.lose(count, "they have waited too long"),
                Step::End => break,
            }
        }
        self.say_farewell();
        let left = self.shared.desk.lock().queue.len();
        if left > 0 {
            self.lose(left, "the hub has ended");
        }
        self.shared.close();
    }

    /// Sleeps until there is something to do.
    fn next(&mut self) -> Step {
        let shared = Arc::clone(&self.shared);
        let mut desk = shared.desk.lock();
        loop {
            match self.look(&mut desk) {
                Break(step) => return step,
                Continue(Some(at)) => _ = shared.work.wait_until(&mut desk, at),
                Continue(None) => shared.work.wait(&mut desk),
            }
        }
    }

    /// What to do now, or when to look again if nothing happens before.
    fn look(&mut self, desk: &mut Desk) -> ControlFlow<Step, Option<Instant>> {
        let now = Instant::now();
        let max_age = self.shared.settings.max_age;
        let late = desk.queue.drop_late(now, max_age);
        if late > 0 {
            return Break(Step::Late(late));
        }
        if desk.stop.is_some_and(|until| now >= until) {
            return Break(Step::End);
        }
        if std::mem::take(&mut desk.check) {
            self.is_up = false;
            self.retry_at = now;
        }
        let wake = if self.is_up {
            self.look_while_up(desk, now)?
        } else if now >= self.retry_at {
            return Break(Step::Connect);
        } else {
            let too_late = desk.queue.oldest().map(|since| since + max_age);
            Some(too_late.map_or(self.retry_at, |at| at.min(self.retry_at)))
        };
        if desk.stop.is_some() { Break(Step::End) } else { Continue(wake) }
    }

    fn look_while_up(&self, desk: &mut Desk, now: Instant) -> ControlFlow<Step, Option<Instant>> {
        let (due, wanted) = self.pulse.as_ref().map_or((None, false), |pulse| pulse.due(desk.beat, now));
        if due.is_some_and(|at| now >= at) {
            desk.beat = desk.beat && !wanted;
            return Break(Step::Beat { wanted });
        }
        let waiting = desk.queue.take(MAX_MESSAGES, MAX_BYTES);
        if waiting.is_empty() { Continue(due) } else { Break(Step::Publish(waiting)) }
    }

    fn connect(&mut self) {
        let result = self.shared.call(|| self.shared.settings.adapter.connect());
        match result {
            Ok(()) => {
                self.is_up = true;
                self.shared.report(Half::Publish, Ok(()));
                if self.pulse.as_ref().is_some_and(|p| p.last.is_some()) {
                    self.shared.desk.lock().beat = true;
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    /// The connection has failed: connects again, at once if it had worked, else later.
    fn fail(&mut self, error: &AdapterError) {
        self.is_up = false;
        let wait = if std::mem::take(&mut self.is_proven) { Duration::ZERO } else { self.backoff.next() };
        self.retry_at = Instant::now() + wait;
        self.shared.report(Half::Publish, Err(error));
    }

    fn publish(&mut self, waiting: Vec<Waiting>) {
        let settings = &self.shared.settings;
        let (batch, too_large) = Batch::encode(waiting, &settings.node_id, settings.max_envelope);
        if too_large > 0 {
            self.lose(too_large, "larger than an envelope may be");
        }
        let outcome = match self.put(batch.envelopes()) {
            Some(results) => batch.settle(&results),
            None => Outcome { lost: batch.len(), ..Outcome::default() },
        };
        (0..outcome.published).for_each(|_| self.shared.node.count(&|m| m.increment_adapter_published()));
        if outcome.lost > 0 {
            self.lose(outcome.lost, "publishing failed");
        }
        if !outcome.untried.is_empty() {
            self.shared.desk.lock().queue.put_back(outcome.untried);
        }
    }

    /// Hands envelopes to the adapter; what it says of each, or `None` if it panicked.
    fn put(&mut self, envelopes: &[Bytes]) -> Option<Vec<Result<(), AdapterError>>> {
        if envelopes.is_empty() {
            return Some(Vec::new());
        }
        match self.shared.call(|| Ok(self.shared.settings.adapter.publish_all(envelopes))) {
            Ok(results) => {
                self.judge(&results);
                Some(results)
            }
            Err(panicked) => {
                self.fail(&panicked);
                None
            }
        }
    }

    /// Notes what results say of the connection.
    fn judge(&mut self, results: &[Result<(), AdapterError>]) {
        static REJECTED: LogLimit = LogLimit::seldom();
        for result in results {
            match result {
                Ok(()) => {
                    self.is_proven = true;
                    self.backoff.reset();
                }
                Err(AdapterError::Rejected(why)) => {
                    self.shared.count_error(ErrorType::AdapterPublish);
                    if let Some(suppressed) = REJECTED.pass() {
                        record!(Warn, "wshub::cluster", "the bus refused: {why} ({suppressed} more not logged)");
                    }
                }
                // The others behind it have failed for the same reason.
                Err(error) => return self.fail(error),
            }
        }
        if results.is_empty() {
            self.fail(&AdapterError::unavailable("nothing was tried"));
        }
    }

    fn lose(&self, count: usize, why: &str) {
        static LOST: LogLimit = LogLimit::seldom();
        (0..count).for_each(|_| self.shared.node.count(&|m| m.increment_adapter_dropped()));
        if let Some(suppressed) = LOST.pass() {
            let id = &self.shared.settings.node_id;
            record!(Warn, "wshub::cluster", "{id}: {count} messages lost: {why} ({suppressed} more not logged)");
        }
    }

    /// Tells this node's counts, if that is asked for, due, or they have changed.
    fn beat(&mut self, wanted: bool) {
        self.shared.expire_nodes();
        let (Some(counts), Some(pulse)) = (self.shared.node.counts(), &mut self.pulse) else { return };
        let now = Instant::now();
        pulse.next = now + pulse.interval / 2;
        if !wanted && pulse.has_said(&counts, now) {
            return;
        }
        let presence = presence(&self.shared.settings.node_id, &counts, false);
        pulse.last = Some((now, counts));
        self.put(&[Envelope::presence(&presence).encode().into()]);
    }

    fn say_farewell(&mut self) {
        let has_beaten = self.pulse.as_ref().is_some_and(|p| p.last.is_some());
        if has_beaten && self.is_up {
            let presence = presence(&self.shared.settings.node_id, &Counts::default(), true);
            self.put(&[Envelope::presence(&presence).encode().into()]);
        }
    }
}

impl Pulse {
    /// When to look at the counts next, and whether a heartbeat is asked for: the first is sent at once, further ones keep
    /// their distance.
    fn due(&self, wanted: bool, now: Instant) -> (Option<Instant>, bool) {
        let at = match &self.last {
            _ if !wanted => self.next,
            None => now,
            Some((at, _)) => *at + GAP.min(self.interval / 20),
        };
        (Some(at), wanted)
    }

    /// Whether the last heartbeat said this already, less than half an interval ago or so.
    fn has_said(&self, counts: &Counts, now: Instant) -> bool {
        let said = |(at, said): &(Instant, Counts)| said == counts && now - *at < self.interval * 3 / 4;
        self.last.as_ref().is_some_and(said)
    }
}

fn presence(node_id: &str, counts: &Counts, gone: bool) -> Presence {
    let ts = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let rooms = counts.rooms.iter().map(|(name, count)| (name.clone(), *count as u64)).collect();
    Presence {
        node_id: node_id.to_owned(),
        client_count: counts.clients as u64,
        rooms,
        ts: i64::try_from(ts.as_millis()).unwrap_or(i64::MAX),
        gone,
    }
}
