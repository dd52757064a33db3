//! The end of a hub: a drain lets clients finish, a shutdown does not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::Hub;
use super::client::Client;
use super::drain_clock::{Activity, DrainClock, Verdict};
use super::lifecycle::{HubState, Phase};
use super::recipients::share;
use crate::client_id::ClientId;
use crate::config::deadline_after;
use crate::error::DeadlineError;
use crate::guard::record;
use crate::ws::close_code;

/// How long cut connections may run their last hooks after a shutdown's deadline.
const GRACE: Duration = Duration::from_secs(1);

impl Hub {
    /// Lets clients finish and blocks until they are gone, for at most `timeout`.
    ///
    /// 1. For [`lame_duck`](crate::Config#structfield.lame_duck), but no longer than `timeout`, readiness fails and
    ///    everything else continues, new connections included. Load balancers learn that this node is going away and
    ///    send clients elsewhere.
    /// 2. New connections are refused with 503. Clients are closed with 1001 `server draining`: each one once it has
    ///    been idle for [`drain_timeout`](crate::Config#structfield.drain_timeout), and a busy one after twice that
    ///    time, spread over [`drain_spread`](crate::Config#structfield.drain_spread). Event streams are told to return
    ///    in 1 to 5 seconds.
    ///
    /// A second call waits for the same drain with its own deadline; the phases keep the first call's times. If the
    /// first call gave up at its deadline, the second one continues the drain. After a shutdown the call returns at
    /// once.
    ///
    /// Do not call it from a handler or hook: it would wait for its own connection until the deadline.
    ///
    /// # Errors
    ///
    /// [`DeadlineError`] with the number of connections left at the deadline.
    #[doc(alias("graceful shutdown", "rolling restart"))]
    pub fn drain(&self, timeout: Duration) -> Result<(), DeadlineError> {
        let deadline = deadline_after(timeout);
        let lifecycle = &self.inner().lifecycle;
        let stopped = || self.state() == HubState::Stopped;
        let (begun, lame_until) = lifecycle.begin_drain(self.config().lame_duck.min(timeout));
        if lifecycle.advance(Phase::LameDuck) {
            record!(Info, "wshub::hub", "draining {} clients", self.client_count());
        }
        lifecycle.sleep_until(lame_until.min(deadline), stopped);
        if Instant::now() < lame_until && !stopped() {
            // The first call still waits for the end of the lame-duck phase, which this call does not shorten.
            let remaining = lifecycle.live();
            return if remaining == 0 { Ok(()) } else { Err(DeadlineError { remaining }) };
        }
        if lifecycle.advance(Phase::Draining) {
            record!(Info, "wshub::hub", "refusing new connections; closing {} clients when idle", self.client_count());
        }
        let mut closing = Closing::new(self, begun, lame_until.saturating_duration_since(begun));
        loop {
            let next = closing.close_due();
            let wake = next.map_or(deadline, |next| next.min(deadline));
            let remaining = lifecycle.wait_empty(wake, stopped);
            if remaining == 0 || stopped() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(DeadlineError { remaining });
            }
        }
    }

    /// Closes every connection with 1001 `server shutting down` and blocks until they are gone, for at most `timeout`.
    /// Then it cuts the rest and gives their last hooks one more second. In a cluster, the hub publishes queued
    /// messages and tells the other nodes that it leaves, for at most two more seconds. A waiting drain ends.
    ///
    /// A second call does the same with its own deadline, without the `on_shutdown` hook. After the end it returns at
    /// once.
    ///
    /// Do not call it from a handler or hook: it would wait for its own connection until the deadline.
    ///
    /// # Errors
    ///
    /// [`DeadlineError`] with the number of connections that are still left, because user code does not return.
    #[doc(alias("graceful shutdown", "close"))]
    pub fn shutdown(&self, timeout: Duration) -> Result<(), DeadlineError> {
        self.begin_shutdown();
        let lifecycle = &self.inner().lifecycle;
        let mut remaining = lifecycle.wait_empty(deadline_after(timeout), || false);
        if remaining > 0 {
            record!(Warn, "wshub::hub", "cutting {remaining} connections at the deadline");
            self.everyone().iter().for_each(|member| member.outbox.kill());
            self.cut_closing();
            remaining = lifecycle.wait_empty(Instant::now() + GRACE, || false);
        }
        // After the last connection, so that messages from its hooks are published before the farewell.
        self.stop_link();
        if remaining > 0 {
            return Err(DeadlineError { remaining });
        }
        self.join_close_watch();
        self.inner().group.helpers().stop();
        Ok(())
    }

    /// The non-blocking part of a shutdown.
    pub(crate) fn begin_shutdown(&self) {
        let is_first = self.inner().lifecycle.advance(Phase::Stopped);
        if is_first {
            record!(Info, "wshub::hub", "shutting down with {} clients", self.client_count());
        }
        share(self.inner().group.helpers(), &self.everyone(), |member, how| {
            member.client.close_how(close_code::GOING_AWAY, "server shutting down", how);
        });
        if let Some(hook) = self.hooks().on_shutdown.as_ref().filter(|_| is_first) {
            self.guarded(None, "on_shutdown", || hook(self));
        }
    }
}

/// The clients that a drain has not closed yet, ordered by the time of their next check. Contains ids, so that no ended
/// client is kept alive.
struct Closing<'a> {
    hub: &'a Hub,
    begun: Instant,
    clock: DrainClock,
    looks: BinaryHeap<Reverse<(Duration, ClientId)>>,
}

impl<'a> Closing<'a> {
    /// Lists all of the hub's clients. No client is admitted after refusals have begun.
    fn new(hub: &'a Hub, begun: Instant, lame_duck: Duration) -> Self {
        let config = hub.config();
        let clock = DrainClock { lame_duck, idle_for: config.drain_timeout, spread: config.drain_spread };
        let looks = hub.everyone().iter().map(|member| Reverse((Duration::ZERO, member.client.id()))).collect();
        Self { hub, begun, clock, looks }
    }

    /// Closes the clients that are due and returns the time of the next check.
    fn close_due(&mut self) -> Option<Instant> {
        loop {
            let now = self.begun.elapsed();
            let Reverse((at, id)) = self.looks.peek().copied()?;
            if at > now {
                return self.begun.checked_add(at);
            }
            self.looks.pop();
            let Some(client) = self.hub.client(id) else { continue };
            match self.clock.verdict(now, self.activity(&client), place(id)) {
                Verdict::Close => client.close_checked(close_code::GOING_AWAY, "server draining"),
                Verdict::LookAgain(at) => self.looks.push(Reverse((at, id))),
                Verdict::Keep => {}
            }
        }
    }

    fn activity(&self, client: &Client) -> Activity {
        match client.idle_since(self.begun) {
            None => Activity::Busy,
            Some(since) => Activity::IdleSince(since.saturating_duration_since(self.begun)),
        }
    }
}

/// A client's place in the window over which closes are spread. It is random because the id is random.
fn place(id: ClientId) -> u32 {
    let [a, b, c, d, ..] = *id.as_uuid().as_bytes();
    u32::from_be_bytes([a, b, c, d])
}
