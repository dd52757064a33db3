//! Records traces, keeps the newest and delivers them to subscribers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::current::{self, Recording};
use super::record::{Outcome, Trace, cut};
use super::sampling::{Sampler, Sampling};
use super::subscription::{Subscriber, Subscription, subscription};
use crate::atomic::AtomicU64;
use crate::client_id::ClientId;
use crate::lock::Leaf;
use crate::ws::MessageKind;

/// Increases with each trace. Relaxed: ids only have to be unique.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Records how messages are handled: a cheap handle, shared by cloning. See the [module](super).
#[derive(Clone)]
pub struct Tracer(Arc<TracerState>);

struct TracerState {
    capacity: usize,
    sampler: Sampler,
    /// A leaf lock: only pointers are moved under it.
    kept: Leaf<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Oldest first.
    traces: VecDeque<Arc<Trace>>,
    subscribers: Vec<Subscriber>,
}

impl Tracer {
    /// Creates a tracer that records every message and keeps the newest `capacity` traces; 0 = none, for subscribers
    /// only. At most 1,048,576: a hub with a tracer above that cannot be built. A trace takes about 1 KiB, at most
    /// about 30 KiB.
    pub fn new(capacity: usize) -> Self {
        let sampler = Sampler::new(Sampling::default());
        Self(Arc::new(TracerState { capacity, sampler, kept: Leaf::default() }))
    }

    /// Sets which messages are recorded. Default: all.
    #[must_use]
    pub fn sample(self, sampling: Sampling) -> Self {
        self.set_sampling(sampling);
        self
    }

    /// Changes which messages are recorded, from now on.
    pub fn set_sampling(&self, sampling: Sampling) {
        self.0.sampler.set(sampling);
    }

    /// Which messages are recorded. [`Sampling::OneIn`] 0 and [`Sampling::PerSecond`] 0 are returned as
    /// [`Sampling::Off`], `OneIn` 1 as [`Sampling::All`].
    pub fn sampling(&self) -> Sampling {
        self.0.sampler.get()
    }

    /// The maximum number of traces kept.
    pub fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// The newest `count` of the kept traces, newest first.
    pub fn recent(&self, count: usize) -> Vec<Arc<Trace>> {
        self.0.kept.lock().traces.iter().rev().take(count).cloned().collect()
    }

    /// Removes the kept traces.
    pub fn clear(&self) {
        let forgotten = std::mem::take(&mut self.0.kept.lock().traces);
        // Freed without the lock.
        drop(forgotten);
    }

    /// Subscribes to every trace that ends from now on; the subscription holds at most `capacity` traces: at
    /// least 1 and at most 65,536, whose places are allocated at once.
    pub fn subscribe(&self, capacity: usize) -> Subscription {
        let (subscriber, subscription) = subscription(capacity.clamp(1, 1 << 16));
        self.0.kept.lock().subscribers.push(subscriber);
        subscription
    }

    /// Begins the trace of a message on this thread, if it is to be recorded; only then it calls `endpoint`.
    #[inline]
    pub(crate) fn begin<'e>(
        &self,
        client: ClientId,
        endpoint: impl FnOnce() -> &'e str,
        kind: MessageKind,
        bytes: usize,
    ) -> Option<InProgress<'_>> {
        if self.0.sampler.take() { Some(self.record(client, endpoint(), kind, bytes)) } else { None }
    }

    #[inline(never)]
    fn record(&self, client: ClientId, endpoint: &str, kind: MessageKind, bytes: usize) -> InProgress<'_> {
        let recording = Recording::new(Trace {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            client,
            endpoint: cut(endpoint),
            event: None,
            kind,
            bytes,
            started_at: SystemTime::now(),
            duration: Duration::ZERO,
            spans: Vec::with_capacity(8),
            spans_left_out: 0,
            outcome: Outcome::Ok,
        });
        InProgress { tracer: self, before: current::enter(recording) }
    }

    fn keep(&self, trace: Trace) {
        let trace = Arc::new(trace);
        let mut kept = self.0.kept.lock();
        kept.subscribers.retain(|subscriber| subscriber.deliver(&trace));
        let oldest = if kept.traces.len() >= self.0.capacity { kept.traces.pop_front() } else { None };
        if self.0.capacity > 0 {
            kept.traces.push_back(trace);
        }
        drop(kept);
        // Freed without the lock.
        drop(oldest);
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer")
            .field("capacity", &self.0.capacity)
            .field("sampling", &self.sampling())
            .finish_non_exhaustive()
    }
}

/// A trace that this thread records; it ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct InProgress<'a> {
    tracer: &'a Tracer,
    before: Option<Box<Recording>>,
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        if let Some(trace) = current::leave(self.before.take()) {
            self.tracer.keep(trace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::current::span;
    use super::*;

    fn begin<'a>(tracer: &'a Tracer, endpoint: &'static str) -> InProgress<'a> {
        tracer.begin(ClientId::random(), || endpoint, MessageKind::Text, 1).expect("all are recorded")
    }

    fn recorded(tracer: &Tracer) -> Vec<(String, Vec<String>)> {
        let names = |trace: &Trace| trace.spans.iter().map(|span| span.name.to_string()).collect();
        tracer.recent(10).iter().map(|trace| (trace.endpoint.clone(), names(trace))).collect()
    }

    #[test]
    fn a_trace_that_interrupts_another_leaves_it_as_it_was() {
        let tracer = Tracer::new(10);
        let outer = begin(&tracer, "/outer");
        let work = span("before");
        {
            let _inner = begin(&tracer, "/inner");
            let _work = span("inner");
        }
        drop(work);
        let _after = span("after");
        drop(outer);
        drop(span("of nobody"));
        let outer = ("/outer".into(), vec!["before".into(), "after".into()]);
        assert_eq!(recorded(&tracer), [outer, ("/inner".into(), vec!["inner".into()])]);
    }

    #[test]
    fn a_span_that_outlives_its_trace_ends_with_it() {
        let tracer = Tracer::new(10);
        let first = begin(&tracer, "/first");
        let kept = span("kept");
        drop(first);
        let second = begin(&tracer, "/second");
        let own = span("own");
        drop(kept);
        drop(span("inside"));
        drop(own);
        drop(second);
        let [second, first] = &tracer.recent(2)[..] else { panic!("two traces") };
        assert!(first.spans[0].duration <= first.duration);
        assert_eq!(second.spans[1].parent, Some(0), "the span of the first trace has not ended one of the second");
    }
}
