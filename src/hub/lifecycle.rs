//! Running, draining, stopped: how a hub ends, and what probes are told.
//!
//! | state | new connections | left by |
//! | --- | --- | --- |
//! | running | admitted | `drain` → draining, `shutdown` → stopped |
//! | draining | 503 | `shutdown` → stopped |
//! | stopped | 503 | – |

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Hub;
use super::client::Client;
use crate::client_id::ClientId;
use crate::cluster::AdapterState;
use crate::config::deadline_after;
use crate::error::DeadlineError;
use crate::guard::record;
use crate::lock::{Condition, Leaf};
use crate::ws::close_code;

/// Where a hub is in its life; it only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HubState {
    /// New connections are admitted.
    Running,
    /// New connections are refused with 503; those that exist finish.
    Draining,
    /// Shut down.
    Stopped,
}

/// What a health probe is told; serialises to the JSON of `/healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The hub is not stopped.
    pub alive: bool,
    /// New connections are admitted.
    pub ready: bool,
    /// The state behind the two.
    pub state: HubState,
    /// Nanoseconds since the hub was built.
    pub uptime_ns: u64,
    /// Connected clients.
    pub clients: usize,
    /// How the hub stands with its message bus; absent without one. It makes the hub neither dead nor unready: the
    /// clients that it has are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterState>,
}

/// How long after the deadline of a shutdown the cut connections may take to run their last hooks.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Lifecycle {
    /// A [`HubState`]. Stored before the client list is looked at, and read by a connect under that list's lock: so a
    /// connect is either in the list or sees the new state. SeqCst: it is rarely written.
    state: AtomicU8,
    built: Instant,
    /// Connections that have not run their last hook, and threads that tell hooks.
    live: Leaf<usize>,
    /// `live` has become 0, or the state has changed.
    changed: Condition,
    /// Since when each client has been idle, for the one drain that looks after them.
    idle: parking_lot::Mutex<HashMap<ClientId, Instant>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(HubState::Running as u8),
            built: Instant::now(),
            live: Leaf::new(0),
            changed: Condition::new(),
            idle: parking_lot::Mutex::default(),
        }
    }
}

impl Lifecycle {
    fn state(&self) -> HubState {
        match self.state.load(Ordering::SeqCst) {
            0 => HubState::Running,
            1 => HubState::Draining,
            _ => HubState::Stopped,
        }
    }

    /// Whether this call has moved the state.
    fn advance(&self, to: HubState) -> bool {
        let before = self.state.fetch_max(to as u8, Ordering::SeqCst);
        drop(self.live.lock());
        self.changed.notify_all();
        before < to as u8
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

    /// Sleeps until no connection is left, `until` says so or the deadline comes; how many are left.
    fn wait_empty(&self, deadline: Instant, until: impl Fn() -> bool) -> usize {
        let mut live = self.live.lock();
        while *live > 0 && !until() && !self.changed.wait_until(&mut live, deadline) {}
        *live
    }
}

/// Keeps a drain or shutdown waiting while it exists.
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
        self.inner().lifecycle.state()
    }

    /// Whether new connections are admitted.
    pub fn is_running(&self) -> bool {
        self.state() == HubState::Running
    }

    /// Whether the hub drains.
    pub fn is_draining(&self) -> bool {
        self.state() == HubState::Draining
    }

    /// Whether the hub is not stopped.
    pub fn alive(&self) -> bool {
        self.state() != HubState::Stopped
    }

    /// Whether the hub is ready for new connections.
    pub fn ready(&self) -> bool {
        self.is_running()
    }

    /// Time since the hub was built.
    pub fn uptime(&self) -> Duration {
        self.inner().lifecycle.built.elapsed()
    }

    /// What health probes are told.
    pub fn health(&self) -> Health {
        let state = self.state();
        Health {
            alive: state != HubState::Stopped,
            ready: state == HubState::Running,
            state,
            uptime_ns: u64::try_from(self.uptime().as_nanos()).unwrap_or(u64::MAX),
            clients: self.client_count(),
            adapter: self.adapter_state(),
        }
    }

    /// Refuses new connections from now on and waits until those that exist are gone, for at most `timeout`. Clients
    /// whose queue has been empty for `drain_timeout` are closed with 1001 `server draining`, spread over
    /// `drain_spread`. Blocks; a second call waits for the same end; after a shutdown it returns at once.
    ///
    /// Do not call it from a handler or hook: it would wait for its own connection until the deadline.
    ///
    /// # Errors
    ///
    /// How many connections were left at the deadline.
    pub fn drain(&self, timeout: Duration) -> Result<(), DeadlineError> {
        let deadline = deadline_after(timeout);
        let lifecycle = &self.inner().lifecycle;
        lifecycle.advance(HubState::Draining);
        record!(Info, "wshub::hub", "draining {} clients", self.client_count());
        let tick = (self.config().drain_timeout / 4).max(Duration::from_millis(100));
        loop {
            self.close_idle();
            let stopped = || self.state() == HubState::Stopped;
            let remaining = lifecycle.wait_empty(deadline.min(deadline_after(tick)), stopped);
            if remaining == 0 || stopped() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(DeadlineError { remaining });
            }
        }
    }

    /// Closes every connection with 1001 `server shutting down` and waits until they are gone, for at most `timeout`;
    /// then cuts the rest and gives their last hooks one more second. In a cluster, what waits is published and the other
    /// nodes are told, for at most two seconds more. Ends a drain that waits. Blocks.
    ///
    /// Do not call it from a handler or hook: it would wait for its own connection until the deadline.
    ///
    /// # Errors
    ///
    /// How many connections are left even so, because user code does not return.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), DeadlineError> {
        self.begin_shutdown();
        let lifecycle = &self.inner().lifecycle;
        let mut remaining = lifecycle.wait_empty(deadline_after(timeout), || false);
        if remaining > 0 {
            record!(Warn, "wshub::hub", "cutting {remaining} connections at the deadline");
            self.everyone().iter().for_each(|member| member.outbox.kill());
            remaining = lifecycle.wait_empty(Instant::now() + GRACE, || false);
        }
        // After the last connection: what their hooks have sent is published, and then the farewell.
        self.stop_link();
        if remaining > 0 {
            return Err(DeadlineError { remaining });
        }
        self.join_reaper();
        Ok(())
    }

    /// The part of a shutdown that does not wait.
    pub(crate) fn begin_shutdown(&self) {
        let is_first = self.inner().lifecycle.advance(HubState::Stopped);
        record!(Info, "wshub::hub", "shutting down with {} clients", self.client_count());
        for member in self.everyone().iter() {
            member.client.close_checked(close_code::GOING_AWAY, "server shutting down");
        }
        if let Some(hook) = self.hooks().on_shutdown.as_ref().filter(|_| is_first) {
            self.guarded(None, "on_shutdown", || hook(self));
        }
    }

    /// One look at who is idle for how long; only one drain at a time does it.
    fn close_idle(&self) {
        let patience = self.config().drain_timeout;
        let Some(mut idle) = self.inner().lifecycle.idle.try_lock() else { return };
        if patience.is_zero() {
            return;
        }
        let now = Instant::now();
        let clients = self.everyone();
        let is_idle = |client: &Client| client.outbox().is_idle();
        let still: HashMap<ClientId, Instant> = clients
            .iter()
            .filter(|m| is_idle(&m.client))
            .map(|m| (m.client.id(), idle.get(&m.client.id()).copied().unwrap_or(now)))
            .collect();
        *idle = still;
        for member in clients.iter() {
            let Some(since) = idle.get(&member.client.id()) else { continue };
            let due = patience.saturating_add(self.drain_offset(member.client.id()));
            if now.saturating_duration_since(*since) >= due {
                member.client.close_checked(close_code::GOING_AWAY, "server draining");
            }
        }
    }

    /// A client's place in the window over which drain closes are spread: random, because its id is.
    fn drain_offset(&self, id: ClientId) -> Duration {
        let share = id.as_uuid().as_u128() & 0xffff_ffff;
        let nanos = (self.config().drain_spread.as_nanos() * share) >> 32;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
