//! The publishing thread. It publishes messages in order and heartbeats between them, and reconnects after a failure.

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::adapter::AdapterError;
use super::backoff::Backoff;
use super::batch::{Batch, MAX_BYTES, MAX_MESSAGES, Outcome};
use super::beat::{Beat, Encoded};
use super::heartbeat::Heartbeat;
use super::queue::Waiting;
use super::shared::{LinkCore, Work};
use super::state::Half;
use crate::guard::{self, dispose, record};
use crate::log_limit::LogLimit;
use crate::metrics::ErrorType;

/// | state | action | until |
/// | --- | --- | --- |
/// | down | drops messages that have waited too long | `retry_at`: connects |
/// | down or up | looks for silent nodes every half interval | |
/// | up | publishes due heartbeats and waiting messages, taking turns if there are both | a failure: down |
/// | stopping | publishes waiting messages, while up and before the deadline, then sends the farewell | nothing waits |
pub(super) struct Publisher {
    shared: Arc<LinkCore>,
    is_up: bool,
    /// When to connect next, while down.
    retry_at: Instant,
    backoff: Backoff,
    /// Something has been published since the last failure, so the next failure is followed by an immediate attempt.
    is_proven: bool,
    heartbeat: Option<Heartbeat>,
    /// When to look for silent nodes next; `None` without presence.
    sweep_at: Option<Instant>,
    /// The last step was a heartbeat, so waiting messages are next.
    has_just_beaten: bool,
    /// Maximum number of messages per call. It shrinks on a slow bus so that heartbeats stay on time.
    batch: usize,
}

enum Step {
    Connect,
    Publish(Vec<Waiting>),
    Beat { wanted: bool },
    Sweep,
    Late(Vec<Waiting>),
    End,
}

impl Publisher {
    pub(super) fn new(shared: Arc<LinkCore>) -> Self {
        let now = Instant::now();
        let (first, longest) = shared.settings.backoff;
        let heartbeat = shared.settings.presence.map(|interval| Heartbeat::new(interval, shared.run.clone(), now));
        let sweep_at = shared.settings.presence.map(|_| now);
        Self {
            shared,
            is_up: false,
            retry_at: now,
            backoff: Backoff::new(first, longest),
            is_proven: false,
            heartbeat,
            sweep_at,
            has_just_beaten: false,
            batch: MAX_MESSAGES,
        }
    }

    /// Runs until the link ends. Only user code (its logger, its payloads) can make a step panic. A panic loses the
    /// work of that step, and the thread continues.
    pub(super) fn run(mut self) {
        while !guard::catch(|| self.step()).unwrap_or(false) {}
        guard::catch(|| self.say_farewell());
        let left = self.shared.state.lock().queue.take_all();
        guard::catch(|| self.lose(left, "the hub has ended"));
        guard::catch(|| self.shared.close());
    }

    /// Waits for work and does it. Returns true at the end.
    fn step(&mut self) -> bool {
        match self.next() {
            Step::Connect => self.connect(),
            Step::Publish(waiting) => self.publish(waiting),
            Step::Beat { wanted } => self.beat(wanted),
            Step::Sweep => self.sweep(),
            Step::Late(late) => self.lose(late, "they have waited for longer than max_age"),
            Step::End => return true,
        }
        false
    }

    /// Sleeps until there is work.
    fn next(&mut self) -> Step {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        loop {
            match self.look(&mut state) {
                Break(step) => return step,
                Continue(Some(at)) => _ = shared.work.wait_until(&mut state, at),
                Continue(None) => shared.work.wait(&mut state),
            }
        }
    }

    /// Returns the next step, or the time to check again if nothing happens before.
    fn look(&mut self, state: &mut Work) -> ControlFlow<Step, Option<Instant>> {
        let now = Instant::now();
        let max_age = self.shared.settings.max_age;
        let late = state.queue.take_late(now, max_age);
        if !late.is_empty() {
            return Break(Step::Late(late));
        }
        if state.stop.is_some_and(|until| now >= until) {
            return Break(Step::End);
        }
        if self.sweep_at.is_some_and(|at| now >= at) && state.stop.is_none() {
            return Break(Step::Sweep);
        }
        if std::mem::take(&mut state.check) {
            self.is_up = false;
            self.retry_at = now;
        }
        let wake = if self.is_up {
            self.look_while_up(state, now)?
        } else if now >= self.retry_at {
            return Break(Step::Connect);
        } else {
            let too_late = state.queue.oldest().map(|since| since + max_age);
            Some(too_late.map_or(self.retry_at, |at| at.min(self.retry_at)))
        };
        let wake = wake.into_iter().chain(self.sweep_at).min();
        if state.stop.is_some() { Break(Step::End) } else { Continue(wake) }
    }

    /// Also while the bus is away: then all other nodes become silent.
    fn sweep(&mut self) {
        self.shared.expire_nodes();
        self.sweep_at = self.shared.settings.presence.map(|interval| Instant::now() + interval / 2);
    }

    fn look_while_up(&mut self, state: &mut Work, now: Instant) -> ControlFlow<Step, Option<Instant>> {
        // A link that ends sends only one more heartbeat, its farewell.
        let heartbeat = self.heartbeat.as_ref().filter(|_| state.stop.is_none());
        let due = heartbeat.map(|heartbeat| heartbeat.due(state.beat, now));
        let is_turn = !self.has_just_beaten || state.queue.is_empty();
        if due.is_some_and(|at| now >= at) && is_turn {
            self.has_just_beaten = true;
            return Break(Step::Beat { wanted: std::mem::take(&mut state.beat) });
        }
        let waiting = state.queue.take(self.batch, MAX_BYTES);
        if waiting.is_empty() {
            return Continue(due);
        }
        self.has_just_beaten = false;
        Break(Step::Publish(waiting))
    }

    fn connect(&mut self) {
        let result = self.shared.call(|| self.shared.settings.adapter.connect());
        match result {
            Ok(()) => {
                self.is_up = true;
                let learned = self.heartbeat.as_ref().map_or(usize::MAX, |heartbeat| heartbeat.limit(usize::MAX));
                self.shared.set_max_envelope(self.known_limit().min(learned));
                self.shared.report(Half::Publish, Ok(()));
                // This node's earlier heartbeats may have been lost.
                if self.heartbeat.as_ref().is_some_and(Heartbeat::has_beaten) {
                    self.shared.state.lock().beat = true;
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Marks the connection as failed. Reconnects at once if it had worked, otherwise after the backoff.
    fn fail(&mut self, error: &AdapterError) {
        self.is_up = false;
        let wait = if std::mem::take(&mut self.is_proven) { Duration::ZERO } else { self.backoff.next() };
        self.retry_at = Instant::now() + wait;
        self.shared.report(Half::Publish, Err(error));
    }

    fn publish(&mut self, waiting: Vec<Waiting>) {
        let settings = &self.shared.settings;
        let (batch, too_large) = Batch::encode(waiting, &settings.node_id, settings.max_envelope);
        if !too_large.is_empty() {
            self.lose(too_large, "larger than max_envelope");
        }
        let started = Instant::now();
        let outcome = match self.put(batch.envelopes()) {
            Some(results) => batch.settle(&results),
            None => Outcome { lost: batch.into_messages(), ..Outcome::default() },
        };
        self.adapt(started.elapsed());
        for _ in &outcome.published {
            self.shared.node.count(&|m| m.increment_adapter_published());
        }
        outcome.published.into_iter().for_each(dispose);
        if !outcome.lost.is_empty() {
            self.lose(outcome.lost, "publishing failed");
        }
        if !outcome.untried.is_empty() {
            self.shared.state.lock().queue.put_back(outcome.untried);
        }
    }

    /// Adapts the number of messages per call to the time that a call takes.
    fn adapt(&mut self, took: Duration) {
        let Some(heartbeat) = &self.heartbeat else { return };
        let is_slow = took > heartbeat.patience();
        self.batch = if is_slow { (self.batch / 2).max(1) } else { (self.batch * 2).min(MAX_MESSAGES) };
    }

    /// Passes envelopes to the adapter. Returns its results, or `None` if it panicked.
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

    /// Updates the state of the connection from the results.
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
                // The results after it failed for the same reason.
                Err(error) => return self.fail(error),
            }
        }
        if results.is_empty() {
            self.fail(&AdapterError::unavailable("nothing was tried"));
        }
    }

    fn lose(&self, messages: Vec<Waiting>, why: &str) {
        static LOST: LogLimit = LogLimit::seldom();
        let count = messages.len();
        messages.into_iter().for_each(dispose);
        (0..count).for_each(|_| self.shared.node.count(&|m| m.increment_adapter_dropped()));
        if let Some(suppressed) = (count > 0).then(|| LOST.pass()).flatten() {
            let id = &self.shared.settings.node_id;
            record!(Warn, "wshub::cluster", "{id}: {count} messages lost: {why} ({suppressed} more not logged)");
        }
    }

    /// Sends this node's counts if they are requested, due, or have changed.
    fn beat(&mut self, wanted: bool) {
        let counts = self.shared.node.counts();
        let Some(heartbeat) = &mut self.heartbeat else { return };
        let now = Instant::now();
        heartbeat.rest(now);
        // Without counts the hub is gone, and this link is about to stop.
        let Some(counts) = counts else { return };
        if !wanted && heartbeat.has_said(&counts, now) {
            return;
        }
        let (beat, number) = heartbeat.beat(&self.shared.settings.node_id, counts, wanted, now);
        self.send_beat(&beat, number);
        self.shared.node.beat_sent();
        if let Some(heartbeat) = &mut self.heartbeat {
            // Do not count the time of sending as part of the interval.
            heartbeat.rest(Instant::now());
        }
    }

    /// Publishes a heartbeat in envelopes that the bus accepts. A bus that refuses one may have a limit that it does
    /// not announce, so smaller envelopes are tried at once, and that size is kept.
    fn send_beat(&mut self, beat: &Beat, number: u64) {
        loop {
            let Some(heartbeat) = &self.heartbeat else { return };
            let limit = heartbeat.limit(self.known_limit());
            self.shared.set_max_envelope(limit);
            let encoded = beat.encode(number, limit);
            self.report_left_out(&encoded, limit);
            let results = self.put(&encoded.envelopes).unwrap_or_default();
            let is_refused = |result: &Result<(), AdapterError>| matches!(result, Err(AdapterError::Rejected(_)));
            let refused = encoded.envelopes.iter().zip(&results).filter(|(_, result)| is_refused(result));
            let largest = refused.map(|(envelope, _)| envelope.len()).max();
            let Some(heartbeat) = &mut self.heartbeat else { return };
            match largest {
                None if encoded.envelopes.is_empty() => return heartbeat.forget_limit(),
                None => return,
                Some(refused) => heartbeat.shrink(refused),
            }
        }
    }

    /// Returns the largest envelope, in bytes, that the settings and the bus allow.
    fn known_limit(&self) -> usize {
        let settings = &self.shared.settings;
        let of_bus = self.shared.call(|| Ok(settings.adapter.max_envelope()));
        of_bus.ok().flatten().unwrap_or(usize::MAX).min(settings.max_envelope)
    }

    fn report_left_out(&self, encoded: &Encoded, limit: usize) {
        static LEFT_OUT: LogLimit = LogLimit::seldom();
        if !encoded.envelopes.is_empty() && encoded.rooms_left_out == 0 {
            return;
        }
        self.shared.count_error(ErrorType::AdapterPublish);
        if let Some(suppressed) = LEFT_OUT.pass() {
            let id = &self.shared.settings.node_id;
            let what = match encoded.envelopes.len() {
                0 => "the heartbeat is".to_owned(),
                _ => format!("{} rooms are", encoded.rooms_left_out),
            };
            record!(
                Warn,
                "wshub::cluster",
                "{id}: {what} left out: too large for envelopes of {limit} bytes ({suppressed} more not logged)",
            );
        }
    }

    fn say_farewell(&mut self) {
        let Some(heartbeat) = self.heartbeat.as_ref().filter(|heartbeat| heartbeat.has_beaten() && self.is_up) else {
            return;
        };
        let farewell = heartbeat.farewell(&self.shared.settings.node_id);
        self.put(&farewell.encode(0, usize::MAX).envelopes);
    }
}
