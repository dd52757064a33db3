//! The trace that this thread records, if any.
//!
//! Code that can add to a trace first checks one thread-local flag. If nothing is recorded, it does nothing else.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use super::record::{MAX_SPANS, Outcome, SendSpan, Span, SpanKind, Trace, cut};
use crate::client_id::ClientId;
use crate::metrics::ErrorType;

thread_local! {
    /// Whether `CURRENT` holds a recording. It is separate because it needs no destructor and so costs one load.
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static CURRENT: RefCell<Option<Box<Recording>>> = const { RefCell::new(None) };
}

/// A trace that is being recorded.
#[derive(Debug)]
pub(super) struct Recording {
    trace: Trace,
    started: Instant,
    /// The innermost span that has begun and not ended.
    open: Option<usize>,
}

/// The duration of a span that has not ended.
const UNENDED: Duration = Duration::MAX;

impl Recording {
    pub(super) fn new(trace: Trace) -> Box<Self> {
        Box::new(Self { trace, started: Instant::now(), open: None })
    }

    fn begin(&mut self, name: Cow<'static, str>, kind: SpanKind) -> Option<Place> {
        if self.trace.spans.len() >= MAX_SPANS {
            self.trace.spans_left_out += 1;
            return None;
        }
        let (index, parent) = (self.trace.spans.len(), self.open);
        let start = self.started.elapsed();
        self.trace.spans.push(Span { name, kind, parent, start, duration: UNENDED });
        self.open = Some(index);
        Some(Place { trace: self.trace.id, index })
    }

    /// Ends a span, unless it belongs to an earlier trace.
    fn end(&mut self, place: Place) {
        let now = self.started.elapsed();
        let Some(span) = self.trace.spans.get_mut(place.index).filter(|_| place.trace == self.trace.id) else { return };
        span.duration = now.saturating_sub(span.start);
        self.open = span.parent;
    }

    fn finish(mut self: Box<Self>) -> Trace {
        let duration = self.started.elapsed();
        for span in self.trace.spans.iter_mut().filter(|span| span.duration == UNENDED) {
            span.duration = duration.saturating_sub(span.start);
        }
        Trace { duration, ..self.trace }
    }

    fn conclude(&mut self, outcome: Outcome) {
        if outcome.rank() > self.trace.outcome.rank() {
            self.trace.outcome = outcome;
        }
    }
}

/// The location of a span.
#[derive(Debug, Clone, Copy)]
struct Place {
    trace: u64,
    index: usize,
}

/// Makes this the recording of the thread and returns the previous one. There is one if a handler serves a connection
/// on its own thread.
pub(super) fn enter(recording: Box<Recording>) -> Option<Box<Recording>> {
    ACTIVE.set(true);
    CURRENT.try_with(|current| current.replace(Some(recording))).ok().flatten()
}

/// Ends the thread's recording and restores the previous one.
pub(super) fn leave(before: Option<Box<Recording>>) -> Option<Trace> {
    ACTIVE.set(before.is_some());
    CURRENT.try_with(|current| current.replace(before)).ok().flatten().map(Recording::finish)
}

/// Runs under the cell's borrow: `change` must not call code of the application.
fn with<T>(change: impl FnOnce(&mut Recording) -> T) -> Option<T> {
    CURRENT.try_with(|current| Some(change(current.try_borrow_mut().ok()?.as_deref_mut()?))).ok().flatten()
}

/// Whether this thread records a trace.
#[inline]
pub(crate) fn is_recording() -> bool {
    ACTIVE.get()
}

/// Ends a span when it is dropped.
#[derive(Debug)]
#[must_use = "the span ends when this is dropped"]
pub struct SpanGuard {
    place: Option<Place>,
    /// The recording belongs to this thread.
    not_send: PhantomData<*const ()>,
}

impl Drop for SpanGuard {
    #[inline]
    fn drop(&mut self) {
        if let Some(place) = self.place {
            end(place);
        }
    }
}

#[cold]
#[inline(never)]
fn end(place: Place) {
    with(|recording| recording.end(place));
}

#[cold]
#[inline(never)]
fn begin(name: Cow<'static, str>, kind: SpanKind) -> Option<Place> {
    with(|recording| recording.begin(name, kind)).flatten()
}

/// Begins a span; does nothing if this thread records no trace.
#[inline]
pub(crate) fn begin_span(what: impl FnOnce() -> (SpanKind, Cow<'static, str>)) -> SpanGuard {
    let place = if is_recording() {
        let (kind, name) = what();
        begin(name, kind)
    } else {
        None
    };
    SpanGuard { place, not_send: PhantomData }
}

/// Begins an application span in the trace of this thread; it ends when the guard is dropped. If no trace is recorded,
/// it does nothing, at almost no cost.
///
/// ```
/// # fn load() {}
/// {
///     let _span = wshub::trace::span("load history");
///     load();
/// }
/// ```
#[inline]
pub fn span(name: &'static str) -> SpanGuard {
    begin_span(|| (SpanKind::Custom, name.into()))
}

/// Names the event of the message whose trace this thread records; the last name is kept. Names over 256 bytes are cut.
#[inline]
pub fn name_event(event: &str) {
    if is_recording() {
        set_event(event);
    }
}

#[cold]
#[inline(never)]
fn set_event(event: &str) {
    with(|recording| recording.trace.event = Some(cut(event)));
}

/// Begins the span of a send.
#[inline]
pub(crate) fn begin_send(target: impl FnOnce() -> String) -> SpanGuard {
    let place = if is_recording() {
        let target = cut(&target());
        begin("send".into(), SpanKind::Send(SendSpan { target, ..SendSpan::default() }))
    } else {
        None
    };
    SpanGuard { place, not_send: PhantomData }
}

impl SpanGuard {
    /// The result of the send that this span represents.
    #[inline]
    pub(crate) fn sent(&self, queued: usize, dropped: usize, refused: usize, published: bool) {
        if let Some(place) = self.place {
            record_sent(place, queued, dropped, refused, published);
        }
    }
}

#[cold]
#[inline(never)]
fn record_sent(place: Place, queued: usize, dropped: usize, refused: usize, published: bool) {
    with(|recording| {
        let is_ours = recording.trace.id == place.trace;
        let span = recording.trace.spans.get_mut(place.index).filter(|_| is_ours);
        if let Some(SpanKind::Send(send)) = span.map(|span| &mut span.kind) {
            *send = SendSpan { target: std::mem::take(&mut send.target), queued, dropped, refused, published };
        }
    });
}

/// Records that the message's handling has failed.
pub(crate) fn note_error(error: ErrorType, text: impl FnOnce() -> String) {
    if is_recording() {
        // Computed before the recording is borrowed, because it calls the application's code.
        let text = cut(&text());
        with(|recording| {
            recording.conclude(match error {
                ErrorType::Panic => Outcome::Panic { text },
                error => Outcome::Error { error, text },
            });
        });
    }
}

/// Records a panic of the application's code, which closes this client.
pub(crate) fn note_panic(client: ClientId, what: &str) {
    note(client, || Outcome::Panic { text: format!("{what} panicked") });
}

/// Records that this client's closing has begun.
pub(crate) fn note_close(client: ClientId, code: u16, reason: &str) {
    note(client, || Outcome::Closed { code, reason: cut(reason) });
}

/// Ignores events of other clients: they are not the outcome of this client's message.
fn note(client: ClientId, outcome: impl FnOnce() -> Outcome) {
    if is_recording() {
        with(|recording| {
            if recording.trace.client == client {
                recording.conclude(outcome());
            }
        });
    }
}
