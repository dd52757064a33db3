//! Gauges: values that are computed when they are scraped.

use super::names::{
    CALLS_PENDING, HANDSHAKES, HISTORY_BYTES, HISTORY_MESSAGES, HISTORY_ROOMS, MEMBERS, QUEUE_BYTES, QUEUE_CLIENTS,
    QUEUE_MESSAGES, STATE_VALUES, Series, WRITER_THREADS,
};
use crate::hub::{Hub, HubLoad, WeakHub};
use crate::server::{Server, ServerLoad};

/// The hubs and servers whose gauges a scrape shows, summed up: queues and writer threads of hubs, handshakes of
/// servers.
///
/// Gauges are computed on each scrape, in a time that grows with the number of clients, and cost nothing otherwise.
/// This type keeps neither hubs nor servers alive.
///
/// ```no_run
/// use std::sync::Arc;
/// use wshub::{Hub, Server, metrics::{DebugMetrics, Gauges}};
///
/// let metrics = Arc::new(DebugMetrics::new());
/// let hub = Hub::builder().metrics(metrics.clone()).build()?;
/// let server = Server::bind("127.0.0.1:8080")?.websocket("/ws", &hub);
/// let gauges = Gauges::new().hub(&hub).server(&server);
/// server.handle("/metrics", metrics.handler(gauges)).run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Gauges {
    hubs: Vec<WeakHub>,
    servers: Vec<ServerLoad>,
}

impl Gauges {
    /// Creates an empty set of gauges.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the gauges of a hub: `queue_messages`, `queue_bytes`, `queue_clients`, `writer_threads`, `history_rooms`,
    /// `history_messages`, `history_bytes`, `state_values`, `members`, `calls_pending`.
    pub fn hub(mut self, hub: &Hub) -> Self {
        self.hubs.push(hub.downgrade());
        self
    }

    /// Adds the gauge of a server: `handshakes_active`.
    pub fn server(mut self, server: &Server) -> Self {
        self.servers.push(server.load());
        self
    }

    /// The current values. A hub that is gone counts as empty.
    pub(super) fn read(&self) -> Vec<(Series, usize)> {
        let loads: Vec<HubLoad> = self.hubs.iter().filter_map(WeakHub::upgrade).map(|hub| hub.load()).collect();
        let sum = |part: fn(&HubLoad) -> usize| loads.iter().map(part).sum();
        let mut shown = Vec::new();
        if !self.hubs.is_empty() {
            shown.push((QUEUE_MESSAGES, sum(|load| load.queued_messages)));
            shown.push((QUEUE_BYTES, sum(|load| load.queued_bytes)));
            shown.push((QUEUE_CLIENTS, sum(|load| load.waiting_clients)));
            shown.push((WRITER_THREADS, sum(|load| load.writer_threads)));
            shown.push((HISTORY_ROOMS, sum(|load| load.remembering_rooms)));
            shown.push((HISTORY_MESSAGES, sum(|load| load.history_messages)));
            shown.push((HISTORY_BYTES, sum(|load| load.history_bytes)));
            shown.push((STATE_VALUES, sum(|load| load.state_values)));
            shown.push((MEMBERS, sum(|load| load.members)));
            shown.push((CALLS_PENDING, sum(|load| load.pending_calls)));
        }
        if !self.servers.is_empty() {
            shown.push((HANDSHAKES, self.servers.iter().map(ServerLoad::handshakes).sum()));
        }
        shown
    }
}
