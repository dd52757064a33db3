//! The states of a hub, and their health reports.
//!
//! | phase | public state | `/readyz` | new connections | left by |
//! | --- | --- | --- | --- | --- |
//! | running | running | 200 | admitted | `drain`, `shutdown` |
//! | lame duck | draining | 503 | admitted | time, `shutdown` |
//! | draining | draining | 503 | 503 | `shutdown` |
//! | stopped | stopped | 503 | 503 | – |

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Hub;
#[cfg(feature = "cluster")]
use crate::cluster::AdapterState;
use crate::lock::{Condition, Leaf};

/// A hub's state, which only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HubState {
    /// The hub is ready for new connections.
    Running,
    /// The hub lets its clients finish. It is not ready, and after
    /// [`lame_duck`](crate::Config#structfield.lame_duck) it refuses new connections with 503.
    Draining,
    /// Shut down.
    Stopped,
}

/// A health report. Serialises to the JSON of `/healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The hub is not stopped.
    pub alive: bool,
    /// The hub is running: load balancers may send new connections.
    pub ready: bool,
    /// The hub's state.
    pub state: HubState,
    /// Nanoseconds since the hub was built.
    pub uptime_ns: u64,
    /// Connected clients.
    pub clients: usize,
    /// The state of the connection to the message bus; absent without a cluster. It affects neither liveness nor
    /// readiness, because the hub still serves its clients.
    #[cfg(feature = "cluster")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterState>,
}

/// See the table above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    LameDuck,
    Draining,
    Stopped,
}

/// The times of the drain, set by the first call.
#[derive(Debug, Clone, Copy)]
struct DrainTimes {
    begun: Instant,
    lame_until: Instant,
}

#[derive(Debug)]
pub(super) struct Lifecycle {
    /// A [`Phase`]. A drain or shutdown stores it before it reads the client list, and a connect reads it under that
    /// list's lock. So a connect is either in the list or sees the new phase. SeqCst, because writes are rare.
    phase: AtomicU8,
    built: Instant,
    drain: OnceLock<DrainTimes>,
    /// The number of connections that have not run their last hook, plus threads that run hooks.
    live: Leaf<usize>,
    /// `live` has become 0, or the phase has changed.
    changed: Condition,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Running as u8),
            built: Instant::now(),
            drain: OnceLock::new(),
            live: Leaf::new(0),
            changed: Condition::new(),
        }
    }
}

impl Lifecycle {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Running,
            1 => Phase::LameDuck,
            2 => Phase::Draining,
            _ => Phase::Stopped,
        }
    }

    /// Moves the phase forward. Returns whether this call has changed it.
    pub(super) fn advance(&self, to: Phase) -> bool {
        let before = self.phase.fetch_max(to as u8, Ordering::SeqCst);
        drop(self.live.lock());
        self.changed.notify_all();
        before < to as u8
    }

    /// When the drain began and when its lame-duck phase ends, as set by the first call.
    pub(super) fn begin_drain(&self, lame_duck: Duration) -> (Instant, Instant) {
        let times = self.drain.get_or_init(|| {
            let begun = Instant::now();
            DrainTimes { begun, lame_until: begun.checked_add(lame_duck).unwrap_or(begun) }
        });
        (times.begun, times.lame_until)
    }

    pub(super) fn begin_connection(&self) {
        *self.live.lock() += 1;
    }

    pub(super) fn end_connection(&self) {
        let mut live = self.live.lock();
        *live -= 1;
        if *live == 0 {
            self.changed.notify_all();
        }
    }

    /// The number of connections and of threads that run hooks.
    pub(super) fn live(&self) -> usize {
        *self.live.lock()
    }

    /// Sleeps until no connection is left, `until` returns true or the deadline passes. Returns the number of
    /// connections left.
    pub(super) fn wait_empty(&self, deadline: Instant, until: impl Fn() -> bool) -> usize {
        let mut live = self.live.lock();
        while *live > 0 && !until() && !self.changed.wait_until(&mut live, deadline) {}
        *live
    }

    /// Sleeps until the deadline, or until `until` returns true.
    pub(super) fn sleep_until(&self, deadline: Instant, until: impl Fn() -> bool) {
        let mut live = self.live.lock();
        while Instant::now() < deadline && !until() && !self.changed.wait_until(&mut live, deadline) {}
    }
}

/// A guard that keeps a drain or shutdown waiting.
#[derive(Debug)]
pub(super) struct Live(Hub);

impl Live {
    pub(super) fn new(hub: &Hub) -> Self {
        hub.inner().lifecycle.begin_connection();
        Self(hub.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.inner().lifecycle.end_connection();
    }
}

impl Hub {
    /// The state of the hub.
    pub fn state(&self) -> HubState {
        match self.inner().lifecycle.phase() {
            Phase::Running => HubState::Running,
            Phase::LameDuck | Phase::Draining => HubState::Draining,
            Phase::Stopped => HubState::Stopped,
        }
    }

    /// Whether the hub is running: it neither drains nor is stopped.
    pub fn is_running(&self) -> bool {
        self.state() == HubState::Running
    }

    /// Whether the hub drains.
    pub fn is_draining(&self) -> bool {
        self.state() == HubState::Draining
    }

    /// Whether new connections are admitted: while the hub is running, and in the lame-duck phase of a drain.
    pub fn is_admitting(&self) -> bool {
        matches!(self.inner().lifecycle.phase(), Phase::Running | Phase::LameDuck)
    }

    /// Whether the hub is not stopped.
    pub fn alive(&self) -> bool {
        self.state() != HubState::Stopped
    }

    /// Whether load balancers may send new connections, as `/readyz` reports.
    pub fn ready(&self) -> bool {
        self.is_running()
    }

    pub(super) fn built(&self) -> Instant {
        self.inner().lifecycle.built
    }

    /// Time since the hub was built.
    pub fn uptime(&self) -> Duration {
        self.inner().lifecycle.built.elapsed()
    }

    /// The report for health probes.
    pub fn health(&self) -> Health {
        let state = self.state();
        Health {
            alive: state != HubState::Stopped,
            ready: state == HubState::Running,
            state,
            uptime_ns: u64::try_from(self.uptime().as_nanos()).unwrap_or(u64::MAX),
            clients: self.client_count(),
            #[cfg(feature = "cluster")]
            adapter: self.adapter_state(),
        }
    }
}
