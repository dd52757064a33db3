//! Work shared by the publisher, the subscriber and the hub.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::CONTROL;
use super::adapter::{AdapterError, AdapterState, Receiver};
use super::beat::Beat;
use super::envelope::{Envelope, EnvelopeError, EnvelopeKind};
use super::fields::Recipient;
use super::gojson;
use super::presence::{Counts, Heard, Table};
use super::queue::Queue;
use super::settings::Cluster;
use super::state::{Half, Halves};
use crate::guard::{self, record, record_limited};
use crate::lock::{Condition, Leaf};
use crate::log_limit::LogLimit;
use crate::message::Message;
use crate::metrics::{ErrorType, Metrics};
use crate::outbox::Burst;

/// The cluster's interface to the hub. No method blocks on a client. All do nothing once the hub is gone.
pub(crate) trait Node: Send + Sync + 'static {
    /// Delivers to this node's clients.
    fn deliver(&self, to: &[Recipient], except: &[String], message: Message);
    /// Returns this node's counts, or `None` once the hub is gone.
    fn counts(&self) -> Option<Counts>;
    /// Handles a control message from another node of this crate. Returns false if it is not understood.
    fn control(&self, from: &str, payload: &[u8]) -> bool;
    /// Called after a heartbeat has been sent.
    fn beat_sent(&self);
    /// Called when another node has left or is silent.
    fn node_gone(&self, id: &str);
    /// Calls the metrics.
    fn count(&self, what: &dyn Fn(&dyn Metrics));
    /// Runs user code and catches its panics.
    fn guarded(&self, what: &'static str, code: &dyn Fn());
}

pub(super) struct LinkCore {
    pub(super) settings: Cluster,
    pub(super) node: Box<dyn Node>,
    pub(super) state: Leaf<Work>,
    /// Signals work for the publisher.
    pub(super) work: Condition,
    /// Signals that the link closes or a thread has ended.
    pub(super) over: Condition,
    pub(super) table: Option<Leaf<Table>>,
    /// Distinguishes this node from others with the same id.
    pub(super) run: String,
    /// The first bytes of this node's own envelopes, to recognise those that the bus returns.
    own: Vec<u8>,
    /// The first bytes of this node's own presence envelopes.
    own_presence: Vec<u8>,
    /// The largest envelope, in bytes, that the settings and the bus allow, as far as the publisher knows. Only the
    /// publisher writes it. Relaxed: it guards no other data, and an outdated value costs at most the messages that the
    /// bus refuses.
    max_envelope: AtomicUsize,
    /// The size of an envelope around an empty control message, in bytes.
    control_frame: usize,
}

/// The work to do. Its lock is a leaf: nothing is called under it.
pub(super) struct Work {
    pub(super) queue: Queue,
    pub(super) halves: Halves,
    /// Check the publishing connection, because the subscription was lost or regained.
    pub(super) check: bool,
    /// Send a heartbeat soon.
    pub(super) beat: bool,
    /// Set when the link is to end: the publisher's deadline for waiting messages.
    pub(super) stop: Option<Instant>,
    /// The adapter is closed or being closed: nothing is received any more.
    pub(super) closed: bool,
    /// Number of running threads.
    pub(super) live: usize,
}

impl LinkCore {
    pub(super) fn new(settings: Cluster, node: Box<dyn Node>) -> Self {
        let own = [&b"{\"node_id\":"[..], &gojson::to_vec(&settings.node_id), b","].concat();
        let own_presence = [&own[..], b"\"type\":\"presence\""].concat();
        let run = crate::random::uuid().simple().to_string();
        let table = settings.presence.map(|interval| Leaf::new(Table::new(interval.saturating_mul(3), Instant::now())));
        let state = Work {
            queue: Queue::new(settings.queue_messages, settings.queue_bytes),
            halves: Halves::default(),
            check: false,
            beat: false,
            stop: None,
            closed: false,
            live: 0,
        };
        let max_envelope = AtomicUsize::new(settings.max_envelope);
        let (to, empty) = (Recipient::Client(CONTROL.to_owned()), Message::text(""));
        let control = Envelope::message(&settings.node_id, &to, Vec::new(), &empty);
        Self {
            settings,
            node,
            state: Leaf::new(state),
            work: Condition::new(),
            over: Condition::new(),
            table,
            run,
            own,
            own_presence,
            max_envelope,
            control_frame: control.map_or(0, |envelope| envelope.encode().len()),
        }
    }

    pub(super) fn set_max_envelope(&self, bytes: usize) {
        self.max_envelope.store(bytes, Ordering::Relaxed);
    }

    /// Returns the largest control message, in bytes, that the bus accepts.
    pub(super) fn max_control(&self) -> usize {
        // Base64 turns three bytes into four.
        self.max_envelope.load(Ordering::Relaxed).saturating_sub(self.control_frame) / 4 * 3
    }

    /// Calls the adapter. A panic in it becomes an error.
    pub(super) fn call<T>(&self, code: impl FnOnce() -> Result<T, AdapterError>) -> Result<T, AdapterError> {
        guard::catch(code).unwrap_or_else(|| {
            record_limited!(Error, "wshub::cluster", "the adapter panicked");
            self.count_error(ErrorType::Panic);
            Err(AdapterError::unavailable("the adapter panicked"))
        })
    }

    pub(super) fn count_error(&self, error: ErrorType) {
        self.node.count(&|m| m.increment_errors(error));
    }

    /// Records that one half of the link works or has failed, and counts and logs the transition.
    pub(super) fn report(&self, half: Half, result: Result<(), &AdapterError>) {
        let (before, has_changed, after) = {
            let mut state = self.state.lock();
            let before = state.halves.state();
            (before, state.halves.set(half, result.is_ok()), state.halves.state())
        };
        if let Err(error) = result {
            let (counts_as, what) = match half {
                Half::Publish => (ErrorType::AdapterPublish, "publishing"),
                Half::Subscribe => (ErrorType::AdapterSubscribe, "the subscription"),
            };
            self.count_error(counts_as);
            // Warn once per outage, not per attempt.
            if has_changed {
                record!(Warn, "wshub::cluster", "{}: {what} failed: {error}", self.settings.node_id);
            } else {
                record!(Debug, "wshub::cluster", "{}: {what} failed: {error}", self.settings.node_id);
            }
        }
        self.report_change(before, after);
    }

    fn report_change(&self, before: AdapterState, after: AdapterState) {
        if before == after {
            return;
        }
        record!(Info, "wshub::cluster", "{}: {after} (was {before})", self.settings.node_id);
        if after == AdapterState::Connected {
            self.node.count(&|m| m.increment_adapter_connects());
        } else if before == AdapterState::Connected {
            self.node.count(&|m| m.increment_adapter_disconnects());
        }
    }

    /// Ends the link and closes the adapter. A second call does nothing.
    pub(super) fn close(&self) {
        let before = {
            let mut state = self.state.lock();
            state.closed = true;
            let before = state.halves.state();
            state.halves.close();
            before
        };
        self.over.notify_all();
        if before != AdapterState::Closed {
            // `close` returns nothing, and `call` has already reported a panic in it.
            let _ = self.call(|| {
                self.settings.adapter.close();
                Ok(())
            });
            self.report_change(before, AdapterState::Closed);
        }
    }

    fn refuse(&self, error: &EnvelopeError, bytes: &[u8]) {
        static REFUSED: LogLimit = LogLimit::seldom();
        self.count_error(ErrorType::AdapterDecode);
        if let Some(suppressed) = REFUSED.pass() {
            // Do not log the text of JSON errors: it quotes the input.
            let why = match error {
                EnvelopeError::Json(error) => format!("{:?} error at column {}", error.classify(), error.column()),
                other => other.to_string(),
            };
            record!(Warn, "wshub::cluster", "invalid envelope received: {why} ({suppressed} more not logged)");
        }
        if let Some(hook) = &self.settings.on_decode_error {
            self.node.guarded("on_decode_error", &|| hook(error, bytes));
        }
    }

    fn accept(&self, bytes: &[u8]) -> Result<(), EnvelopeError> {
        if bytes.len() > self.settings.max_envelope {
            return Err(EnvelopeError::TooLarge(bytes.len()));
        }
        if bytes.starts_with(&self.own) {
            if bytes.starts_with(&self.own_presence) {
                self.hear_namesake(bytes);
            }
            return Ok(());
        }
        let envelope = Envelope::decode(bytes)?;
        // A node never receives its own messages and never republishes received ones, so no message loops.
        if envelope.node_id == self.settings.node_id || envelope.part {
            return Ok(());
        }
        if envelope.kind == EnvelopeKind::Presence {
            return self.hear(&envelope);
        }
        if envelope.kind == EnvelopeKind::Client && envelope.client_id == CONTROL {
            if let Some(table) = &self.table {
                table.lock().meet(&envelope.node_id, Instant::now());
            }
            let is_understood = self.node.control(&envelope.node_id, &envelope.data);
            return if is_understood { Ok(()) } else { Err(EnvelopeError::Invalid("unknown control message")) };
        }
        let to = envelope.recipients();
        let mut envelope = envelope;
        let except = std::mem::take(&mut envelope.except);
        if let Some(message) = envelope.into_message() {
            self.node.count(&|m| m.increment_adapter_received());
            self.node.deliver(&to, &except, message);
        }
        Ok(())
    }

    /// Handles a heartbeat that carries this node's id. After the farewell of an earlier node with this id, the other
    /// nodes may have removed this one too, so it announces itself again.
    fn hear_namesake(&self, bytes: &[u8]) {
        static NAMESAKE: LogLimit = LogLimit::seldom();
        let Some(beat) = Envelope::decode(bytes).ok().and_then(|envelope| Beat::decode(&envelope).ok()) else { return };
        if beat.run.is_none_or(|run| run == self.run) {
            return;
        }
        if beat.gone {
            self.want_beat();
        } else if let Some(suppressed) = NAMESAKE.pass() {
            let id = &self.settings.node_id;
            record!(Warn, "wshub::cluster", "{id}: another node has this id ({suppressed} more not logged)");
        }
    }

    fn want_beat(&self) {
        self.state.lock().beat = true;
        self.work.notify_one();
    }

    fn hear(&self, envelope: &Envelope) -> Result<(), EnvelopeError> {
        let Some(table) = &self.table else { return Ok(()) };
        let beat = Beat::decode(envelope)?;
        let id = &envelope.node_id;
        // A node that was silent for too long counts as new.
        let (expired, heard) = {
            let (mut table, now) = (table.lock(), Instant::now());
            (table.expire(now), table.hear(id.clone(), beat, now))
        };
        self.report_silent(&expired);
        match heard {
            Heard::New => {
                record!(Info, "wshub::cluster", "{}: node {id} joined", self.settings.node_id);
                // The new node does not know this one yet.
                self.want_beat();
            }
            Heard::Gone => {
                record!(Info, "wshub::cluster", "{}: node {id} left", self.settings.node_id);
                self.node.node_gone(id);
            }
            Heard::Known { changes: 0 } | Heard::Ignored => {}
            Heard::Known { changes } => record!(Debug, "wshub::cluster", "node {id}: {changes} counts changed"),
        }
        Ok(())
    }

    /// Removes nodes that have been silent for too long.
    pub(super) fn expire_nodes(&self) {
        let Some(table) = &self.table else { return };
        let expired = table.lock().expire(Instant::now());
        self.report_silent(&expired);
    }

    fn report_silent(&self, nodes: &[String]) {
        for id in nodes {
            record!(Warn, "wshub::cluster", "{}: node {id} timed out", self.settings.node_id);
            self.node.node_gone(id);
        }
    }
}

impl Receiver for LinkCore {
    fn subscribed(&self) {
        self.report(Half::Subscribe, Ok(()));
        let mut state = self.state.lock();
        // The bus is reachable, so publishing need not wait any longer. Other nodes' answers to a heartbeat now arrive.
        state.check = true;
        state.beat = true;
        self.work.notify_one();
    }

    fn receive(&self, envelope: &[u8]) {
        if self.is_closed() {
            return;
        }
        let result = guard::catch(|| {
            if let Err(error) = self.accept(envelope) {
                self.refuse(&error, envelope);
            }
        });
        if result.is_none() {
            record_limited!(Error, "wshub::cluster", "a bug: delivering an envelope panicked");
            self.count_error(ErrorType::Panic);
        }
    }

    fn receive_all(&self, envelopes: &mut dyn Iterator<Item = &[u8]>) {
        let mut burst = Burst::begin();
        for envelope in envelopes {
            burst.next();
            self.receive(envelope);
        }
    }

    fn lost(&self, count: usize) {
        (0..count).for_each(|_| self.count_error(ErrorType::AdapterSubscribe));
    }

    fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}
