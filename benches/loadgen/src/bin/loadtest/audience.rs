//! Who hears what: the clients of a broadcast, what each must have heard, and what they heard instead.

use std::time::Duration;

use super::churn::Churn;
use super::histogram::Latencies;
use super::link::Link;
use super::outcome::Outcome;
use super::pool::Watcher;
use super::stamp::Stamp;

/// Client `n` is in room `n` modulo the number of rooms; the publisher of a room is its first client, whose number is
/// the room's. Numbers from `clients` on are those of visitors, which come and go.
#[derive(Debug)]
pub(crate) struct Audience {
    listeners: Vec<Listener>,
    pub(crate) rooms: usize,
    clients: usize,
    /// Deliveries, for each room.
    pub(crate) received: Vec<u64>,
    disordered: u64,
    stray: u64,
    lost_connections: u64,
    latency: Latencies,
    pub(crate) visitors: Option<Churn>,
    /// The beginning of a message that is none of ours.
    pub(crate) foreign: Option<String>,
    /// Why a client was lost last.
    pub(crate) farewell: Option<String>,
}

/// A client that stays and reads.
#[derive(Debug, Clone, Default)]
struct Listener {
    /// The number of the message that comes next.
    next: u64,
    /// The number of the probe that it has heard last; 0 for none.
    probe: u64,
    is_gone: bool,
}

impl Audience {
    /// Of the outcome's clients and rooms.
    pub(crate) fn new(outcome: &Outcome, visitors: Option<Churn>) -> Self {
        let (clients, rooms) = (outcome.clients, outcome.rooms.max(1));
        Self {
            listeners: vec![Listener::default(); clients - outcome.stalled],
            rooms,
            clients,
            received: vec![0; rooms],
            disordered: 0,
            stray: 0,
            lost_connections: 0,
            latency: Latencies::new(),
            visitors,
            foreign: None,
            farewell: None,
        }
    }

    /// How many clients are there to hear what is said in a room.
    pub(crate) fn size(&self, room: usize) -> u64 {
        let count = self.listeners.len();
        (count / self.rooms + usize::from(room < count % self.rooms)) as u64
    }

    /// How many deliveries these numbers of messages, one for each room, make.
    pub(crate) fn expected(&self, sent: &[u64]) -> u64 {
        sent.iter().enumerate().map(|(room, sent)| sent * self.size(room)).sum()
    }

    /// Deliveries that are still on their way to clients that are still there.
    pub(crate) fn outstanding(&self, sent: &[u64]) -> u64 {
        let present = self.listeners.iter().enumerate().filter(|(_, listener)| !listener.is_gone);
        present.map(|(id, listener)| sent[id % self.rooms].saturating_sub(listener.next)).sum()
    }

    /// Those that have heard a probe: the publishers, and the others.
    pub(crate) fn warm(&self) -> (usize, usize) {
        let (publishers, others) = self.listeners.split_at(self.rooms);
        let heard = |listeners: &[Listener]| listeners.iter().filter(|listener| listener.probe > 0).count();
        (heard(publishers), heard(others))
    }

    /// The number of the last probe that all have heard who are still there.
    pub(crate) fn probed(&self) -> u64 {
        self.listeners.iter().filter(|listener| !listener.is_gone).map(|listener| listener.probe).min().unwrap_or(0)
    }

    pub(crate) fn len(&self) -> usize {
        self.listeners.len()
    }

    pub(crate) fn stray(&self) -> u64 {
        self.stray
    }

    pub(crate) fn report(&self, outcome: &mut Outcome, sent: &[u64]) {
        outcome.sent = sent.iter().sum();
        outcome.expected = self.expected(sent);
        outcome.received = self.received.iter().sum();
        outcome.disordered = self.disordered;
        outcome.stray = self.stray;
        outcome.lost_connections = self.lost_connections;
        outcome.latency = self.latency.percentiles();
        outcome.notes.extend(self.farewell.clone());
        if let Some(visitors) = &self.visitors {
            visitors.report(outcome);
        }
    }
}

impl Watcher for Audience {
    fn opened(&mut self, link: &mut Link, took: Duration) {
        if let Some(visitors) = &mut self.visitors {
            visitors.arrived(link.id, took);
        }
    }

    fn message(&mut self, link: &mut Link, payload: &[u8], at: u64) {
        let room = link.id % self.rooms;
        let Some(listener) = self.listeners.get_mut(link.id) else { return };
        match Stamp::parse(payload) {
            None => {
                let start = |payload: &[u8]| String::from_utf8_lossy(&payload[..payload.len().min(60)]).into_owned();
                self.foreign.get_or_insert_with(|| start(payload));
            }
            Some(stamp) if stamp.sender != room => self.stray += 1,
            Some(stamp) if stamp.is_probe => listener.probe = stamp.number,
            Some(stamp) if stamp.number < listener.next => self.disordered += 1,
            Some(stamp) => {
                listener.next = stamp.number + 1;
                self.received[room] += 1;
                self.latency.record_nanos(at.saturating_sub(stamp.at));
            }
        }
    }

    fn gone(&mut self, id: usize, _: bool, why: &str) {
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.is_gone = true;
            self.lost_connections += 1;
            self.farewell = Some(format!("client {id}: {why}"));
        } else if id >= self.clients
            && let Some(visitors) = &mut self.visitors
        {
            visitors.gone(id, why);
        }
    }
}
