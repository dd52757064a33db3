//! In-memory metrics for development, tests and small programs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;

use crate::atomic::{AtomicI64, AtomicU64};
use crate::lock::Leaf;
use std::time::{Duration, Instant};

use super::{ErrorType, Metrics};

/// An in-memory metrics sink for development, tests and small programs. Print it, or read
/// [`stats`](DebugMetrics::stats).
#[derive(Debug)]
pub struct DebugMetrics {
    active_connections: AtomicI64,
    active_rooms: AtomicI64,
    connections: AtomicU64,
    received: AtomicU64,
    received_bytes: AtomicU64,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    dropped: AtomicU64,
    joins: AtomicU64,
    leaves: AtomicU64,
    history_gaps: AtomicU64,
    history_evictions: AtomicU64,
    late_replies: AtomicU64,
    call_timeouts: AtomicU64,
    adapter: AdapterCounts,
    latency: Times,
    broadcast: Times,
    errors: Leaf<BTreeMap<ErrorType, u64>>,
    since: Leaf<Instant>,
}

/// All atomics in this file are Relaxed: no other data depends on these counts.
const ORDER: Ordering = Ordering::Relaxed;

#[derive(Debug, Default)]
struct AdapterCounts {
    published: AtomicU64,
    received: AtomicU64,
    dropped: AtomicU64,
    connects: AtomicU64,
    disconnects: AtomicU64,
}

/// The number and total duration of timed operations.
#[derive(Debug, Default)]
struct Times {
    nanos: AtomicU64,
    count: AtomicU64,
}

impl Times {
    fn record(&self, duration: Duration) {
        self.nanos.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), ORDER);
        self.count.fetch_add(1, ORDER);
    }

    fn get(&self) -> Timing {
        Timing { count: self.count.load(ORDER), sum: Duration::from_nanos(self.nanos.load(ORDER)) }
    }

    fn reset(&self) {
        self.nanos.store(0, ORDER);
        self.count.store(0, ORDER);
    }
}

/// The number and total duration of timed operations. The difference of two snapshots gives the average in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Timing {
    /// The number of operations.
    pub count: u64,
    /// The total duration.
    pub sum: Duration,
}

impl Timing {
    /// The average duration; 0 if there was no operation.
    pub fn average(&self) -> Duration {
        let nanos = self.sum.as_nanos().checked_div(self.count.into()).unwrap_or(0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A snapshot of the counts of [`DebugMetrics`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DebugStats {
    /// Clients connected now.
    pub active_connections: i64,
    /// Clients that have connected.
    pub total_connections: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
    /// Messages queued, once for each client.
    pub messages_sent: u64,
    /// Payload bytes queued, once for each client.
    pub bytes_sent: u64,
    /// Messages dropped, once for each client.
    pub messages_dropped: u64,
    /// Joins of rooms.
    pub room_joins: u64,
    /// Leaves of rooms.
    pub room_leaves: u64,
    /// History gaps that were reported to clients.
    pub history_gaps: u64,
    /// Rooms without members that were removed early.
    pub history_evictions: u64,
    /// Rooms that exist now.
    pub active_rooms: i64,
    /// Messages published to other nodes.
    pub adapter_published: u64,
    /// Messages received from other nodes.
    pub adapter_received: u64,
    /// Messages that were not published although there are other nodes.
    pub adapter_dropped: u64,
    /// Answers to calls that are no longer pending.
    pub late_replies: u64,
    /// Calls that have timed out.
    pub call_timeouts: u64,
    /// How often the hub has connected to its message bus.
    pub adapter_connects: u64,
    /// How often the hub has lost the connection to its message bus.
    pub adapter_disconnects: u64,
    /// The handling of messages.
    pub latency: Timing,
    /// The average duration of handling a message.
    pub average_latency: Duration,
    /// Sends to targets other than a single client.
    pub broadcast: Timing,
    /// The average duration of such a send.
    pub average_broadcast: Duration,
    /// Errors by type, without types that have none.
    pub errors: BTreeMap<ErrorType, u64>,
    /// Time since creation or the last reset.
    pub uptime: Duration,
}

impl Default for DebugMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl DebugMetrics {
    /// Creates a sink with all counts zero and starts its clock.
    pub fn new() -> Self {
        Self {
            active_connections: AtomicI64::new(0),
            active_rooms: AtomicI64::new(0),
            connections: AtomicU64::new(0),
            received: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            joins: AtomicU64::new(0),
            leaves: AtomicU64::new(0),
            history_gaps: AtomicU64::new(0),
            history_evictions: AtomicU64::new(0),
            late_replies: AtomicU64::new(0),
            call_timeouts: AtomicU64::new(0),
            adapter: AdapterCounts::default(),
            latency: Times::default(),
            broadcast: Times::default(),
            errors: Leaf::new(BTreeMap::new()),
            since: Leaf::new(Instant::now()),
        }
    }

    /// Takes a snapshot. Counts that change at the same time may be slightly inconsistent.
    pub fn stats(&self) -> DebugStats {
        let (latency, broadcast) = (self.latency.get(), self.broadcast.get());
        // Holds one lock at a time, because a guard lives until the end of its statement.
        let errors = self.errors.lock().clone();
        let uptime = self.since.lock().elapsed();
        DebugStats {
            active_connections: self.active_connections.load(ORDER),
            total_connections: self.connections.load(ORDER),
            messages_received: self.received.load(ORDER),
            bytes_received: self.received_bytes.load(ORDER),
            messages_sent: self.sent.load(ORDER),
            bytes_sent: self.sent_bytes.load(ORDER),
            messages_dropped: self.dropped.load(ORDER),
            room_joins: self.joins.load(ORDER),
            room_leaves: self.leaves.load(ORDER),
            history_gaps: self.history_gaps.load(ORDER),
            history_evictions: self.history_evictions.load(ORDER),
            active_rooms: self.active_rooms.load(ORDER),
            late_replies: self.late_replies.load(ORDER),
            call_timeouts: self.call_timeouts.load(ORDER),
            adapter_published: self.adapter.published.load(ORDER),
            adapter_received: self.adapter.received.load(ORDER),
            adapter_dropped: self.adapter.dropped.load(ORDER),
            adapter_connects: self.adapter.connects.load(ORDER),
            adapter_disconnects: self.adapter.disconnects.load(ORDER),
            latency,
            average_latency: latency.average(),
            broadcast,
            average_broadcast: broadcast.average(),
            errors,
            uptime,
        }
    }

    /// Sets every count to zero and restarts the clock. The counts of current connections and rooms become zero too.
    pub fn reset(&self) {
        for gauge in [&self.active_connections, &self.active_rooms] {
            gauge.store(0, ORDER);
        }
        let AdapterCounts { published, received, dropped, connects, disconnects } = &self.adapter;
        let counters = [&self.connections, &self.received, &self.received_bytes, &self.sent, &self.sent_bytes];
        let counters = counters.into_iter().chain([&self.dropped, &self.joins, &self.leaves]);
        let counters = counters.chain([&self.history_gaps, &self.history_evictions]);
        let counters = counters.chain([&self.late_replies, &self.call_timeouts]);
        for counter in counters.chain([published, received, dropped, connects, disconnects]) {
            counter.store(0, ORDER);
        }
        self.latency.reset();
        self.broadcast.reset();
        self.errors.lock().clear();
        *self.since.lock() = Instant::now();
    }
}

impl Metrics for DebugMetrics {
    fn debug_stats(&self) -> Option<DebugStats> {
        Some(self.stats())
    }

    fn increment_connections(&self) {
        self.active_connections.fetch_add(1, ORDER);
        self.connections.fetch_add(1, ORDER);
    }

    fn decrement_connections(&self) {
        self.active_connections.fetch_sub(1, ORDER);
    }

    fn increment_messages_received(&self) {
        self.received.fetch_add(1, ORDER);
    }

    fn increment_messages_sent(&self, count: usize) {
        self.sent.fetch_add(count as u64, ORDER);
    }

    fn increment_bytes_sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, ORDER);
    }

    fn increment_messages_dropped(&self) {
        self.dropped.fetch_add(1, ORDER);
    }

    fn record_message_size(&self, size: usize) {
        self.received_bytes.fetch_add(size as u64, ORDER);
    }

    fn record_latency(&self, duration: Duration) {
        self.latency.record(duration);
    }

    fn record_broadcast_duration(&self, duration: Duration) {
        self.broadcast.record(duration);
    }

    fn increment_room_joins(&self) {
        self.joins.fetch_add(1, ORDER);
    }

    fn increment_room_leaves(&self) {
        self.leaves.fetch_add(1, ORDER);
    }

    fn increment_history_gaps(&self) {
        self.history_gaps.fetch_add(1, ORDER);
    }

    fn increment_history_evictions(&self) {
        self.history_evictions.fetch_add(1, ORDER);
    }

    fn increment_rooms(&self) {
        self.active_rooms.fetch_add(1, ORDER);
    }

    fn decrement_rooms(&self) {
        self.active_rooms.fetch_sub(1, ORDER);
    }

    fn increment_adapter_published(&self) {
        self.adapter.published.fetch_add(1, ORDER);
    }

    fn increment_adapter_received(&self) {
        self.adapter.received.fetch_add(1, ORDER);
    }

    fn increment_adapter_dropped(&self) {
        self.adapter.dropped.fetch_add(1, ORDER);
    }

    fn increment_late_replies(&self) {
        self.late_replies.fetch_add(1, ORDER);
    }

    fn increment_call_timeouts(&self) {
        self.call_timeouts.fetch_add(1, ORDER);
    }

    fn increment_adapter_connects(&self) {
        self.adapter.connects.fetch_add(1, ORDER);
    }

    fn increment_adapter_disconnects(&self) {
        self.adapter.disconnects.fetch_add(1, ORDER);
    }

    fn increment_errors(&self, error: ErrorType) {
        *self.errors.lock().entry(error).or_default() += 1;
    }
}

impl fmt::Display for DebugMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.stats();
        writeln!(f, "connections  {} now, {} in all", s.active_connections, s.total_connections)?;
        writeln!(f, "rooms        {} now, {} joins, {} leaves", s.active_rooms, s.room_joins, s.room_leaves)?;
        writeln!(f, "received     {} messages, {} bytes", s.messages_received, s.bytes_received)?;
        writeln!(
            f,
            "sent         {} messages, {} bytes, {} dropped",
            s.messages_sent, s.bytes_sent, s.messages_dropped
        )?;
        if s.history_gaps + s.history_evictions > 0 {
            writeln!(f, "histories    {} gaps, {} evictions", s.history_gaps, s.history_evictions)?;
        }
        if s.call_timeouts + s.late_replies > 0 {
            writeln!(f, "calls        {} timed out, {} late replies", s.call_timeouts, s.late_replies)?;
        }
        if s.adapter_connects + s.adapter_published + s.adapter_dropped > 0 {
            write!(f, "cluster      {} published, {} received", s.adapter_published, s.adapter_received)?;
            write!(f, ", {} dropped, ", s.adapter_dropped)?;
            writeln!(f, "{} connects, {} disconnects", s.adapter_connects, s.adapter_disconnects)?;
        }
        writeln!(f, "handlers     {} ran, {:?} on average", s.latency.count, s.average_latency)?;
        writeln!(f, "broadcasts   {}, {:?} on average", s.broadcast.count, s.average_broadcast)?;
        for (error, count) in &s.errors {
            writeln!(f, "error        {count} {error}")?;
        }
        write!(f, "uptime       {:?}", s.uptime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_prints_and_resets() {
        let m = DebugMetrics::new();
        m.increment_connections();
        m.increment_messages_received();
        m.record_message_size(128);
        m.increment_messages_sent(3);
        m.increment_bytes_sent(300);
        m.record_latency(Duration::from_millis(2));
        m.record_latency(Duration::from_millis(4));
        m.increment_errors(ErrorType::Panic);
        m.increment_errors(ErrorType::Custom("till"));
        let s = m.stats();
        assert_eq!((s.active_connections, s.messages_received, s.bytes_received), (1, 1, 128));
        assert_eq!((s.messages_sent, s.bytes_sent, s.average_latency), (3, 300, Duration::from_millis(3)));
        assert_eq!(s.latency, Timing { count: 2, sum: Duration::from_millis(6) });
        assert_eq!(s.errors.iter().map(|(e, n)| (e.as_str(), *n)).collect::<Vec<_>>(), [("panic", 1), ("till", 1)]);
        assert!(m.to_string().contains("error        1 panic"), "{m}");
        m.reset();
        let s = m.stats();
        assert_eq!((s.total_connections, s.messages_sent, s.bytes_sent), (0, 0, 0));
        assert!(s.errors.is_empty() && s.average_latency.is_zero());
    }
}
