//! Timed events of connections: pings, missing pongs, expired tokens. One thread serves all connections.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::error::Disconnect;
use super::session::{Phase, Session, Stage, State};
use super::settings::Settings;
use super::subscribe::end_expired;
use super::wire::reply::Reply;
use crate::guard::record;
use crate::lock::{Condition, Leaf};
use crate::{Client, ClientId};

/// When each connection is checked next. The lock is a leaf: no other code runs under it.
#[derive(Debug)]
pub(super) struct Timers {
    settings: Settings,
    queue: Leaf<Queue>,
    /// Signals an entry that is earlier than the others.
    changed: Condition,
}

#[derive(Debug, Default)]
struct Queue {
    /// One for each connection, earliest first.
    entries: BTreeMap<(Instant, ClientId), Client>,
    times: HashMap<ClientId, Instant>,
    /// Whether the thread runs. It ends when no connection is left.
    is_running: bool,
}

impl Timers {
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self { settings, queue: Leaf::default(), changed: Condition::new() })
    }

    /// Checks the connection at that time instead of its earlier scheduled time.
    pub(super) fn schedule(self: &Arc<Self>, client: &Client, at: Instant) {
        let mut queue = self.queue.lock();
        let before = queue.times.insert(client.id(), at);
        let old = before.and_then(|before| queue.entries.remove(&(before, client.id())));
        queue.entries.insert((at, client.id()), client.clone());
        let must_start = !std::mem::replace(&mut queue.is_running, true);
        drop(queue);
        drop(old);
        self.changed.notify_one();
        if must_start {
            self.start();
        }
    }

    /// Checks the connection at once, because something has changed.
    pub(super) fn reschedule(self: &Arc<Self>, client: &Client) {
        self.schedule(client, Instant::now());
    }

    /// Removes a connection that has ended.
    pub(super) fn remove(&self, client: &Client) {
        let mut queue = self.queue.lock();
        let before = queue.times.remove(&client.id());
        let old = before.and_then(|before| queue.entries.remove(&(before, client.id())));
        drop(queue);
        drop(old);
        self.changed.notify_one();
    }

    fn start(self: &Arc<Self>) {
        let own = Arc::clone(self);
        let thread = thread::Builder::new().name("wshub-centrifuge".into()).stack_size(256 * 1024);
        if let Err(error) = thread.spawn(move || own.run()) {
            self.queue.lock().is_running = false;
            record!(Warn, "wshub::conn", "could not start the thread for pings, trying again: {error}");
        }
    }

    fn run(self: Arc<Self>) {
        while let Some(client) = self.next() {
            if let Some(at) = self.look_at(&client) {
                self.schedule_if_known(&client, at);
            }
        }
    }

    /// Sleeps until a connection is due; `None` when none is left.
    fn next(&self) -> Option<Client> {
        let mut queue = self.queue.lock();
        loop {
            let Some((&(at, id), _)) = queue.entries.first_key_value() else {
                if queue.times.is_empty() {
                    queue.is_running = false;
                    return None;
                }
                self.changed.wait(&mut queue);
                continue;
            };
            if at <= Instant::now() {
                return queue.entries.remove(&(at, id));
            }
            self.changed.wait_until(&mut queue, at);
        }
    }

    /// Schedules the connection, unless it has ended or was scheduled again during the check.
    fn schedule_if_known(&self, client: &Client, at: Instant) {
        let mut queue = self.queue.lock();
        let Some(time) = queue.times.get(&client.id()).copied() else { return };
        if !queue.entries.contains_key(&(time, client.id())) {
            queue.times.insert(client.id(), at);
            queue.entries.insert((at, client.id()), client.clone());
        }
    }

    /// Does what is due; returns when something is due next.
    fn look_at(&self, client: &Client) -> Option<Instant> {
        let session = Session::of(client)?;
        let progress = client.output_progress();
        let due = self.due(&mut session.state.lock(), progress);
        match due {
            Due::Later(at) => return Some(at),
            Due::Nothing => return None,
            Due::Close(disconnect) => {
                disconnect.close(client);
                return None;
            }
            Due::Ping => {}
            Due::Expired(channels) => {
                channels.iter().for_each(|channel| end_expired(client, &session, channel));
                return Some(Instant::now());
            }
        }
        if client.send(session.codec.encode(&[Reply::default()])).is_err() {
            // A client whose queue is full cannot answer what it has not got.
            session.state.lock().pong_due = None;
        }
        Some(Instant::now())
    }

    /// Determines what is due. A ping counts as sent from here on, because its answer may arrive before the sender
    /// continues.
    fn due(&self, state: &mut State, progress: u32) -> Due {
        let now = Instant::now();
        match state.phase {
            Phase::Ended => return Due::Nothing,
            Phase::New if now >= state.due => return Due::Close(Disconnect::STALE),
            Phase::New => return Due::Later(state.due),
            Phase::Connected => {}
        }
        if state.pong_due.is_some_and(|at| now >= at) {
            if state.progress == progress {
                return Due::Close(Disconnect::NO_PONG);
            }
            // The ping waits behind output that the client keeps acknowledging.
            (state.pong_due, state.progress) = (Some(now + self.settings.pong_timeout), progress);
        }
        let left = |expires_at: Option<SystemTime>| {
            let end = expires_at?.checked_add(self.settings.expiry_grace)?;
            Some(end.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO))
        };
        let own = left(state.expires_at);
        if own == Some(Duration::ZERO) {
            return Due::Close(Disconnect::EXPIRED);
        }
        // The thread that begins or ends another one is still at work.
        let live = state.subscriptions.iter().filter(|(_, subscription)| subscription.stage == Stage::Live);
        let of_subscriptions =
            live.filter_map(|(channel, subscription)| Some((channel, left(subscription.expires_at)?)));
        let expired: Vec<Arc<str>> = of_subscriptions
            .clone()
            .filter(|(_, left)| left.is_zero())
            .map(|(channel, _)| Arc::clone(channel))
            .collect();
        if !expired.is_empty() {
            return Due::Expired(expired);
        }
        if now >= state.due {
            state.due = now + self.settings.ping;
            // Any answer counts, so the time of an earlier ping continues.
            if state.pong_due.is_none() {
                (state.pong_due, state.progress) = (Some(now + self.settings.pong_timeout), progress);
            }
            return Due::Ping;
        }
        let expiry = of_subscriptions.map(|(_, left)| left).chain(own).min();
        // The system clock may change in the meantime, so check at least at every ping.
        let expiry = expiry.and_then(|left| now.checked_add(left));
        Due::Later([Some(state.due), state.pong_due, expiry].into_iter().flatten().min().unwrap_or(state.due))
    }
}

/// The action that is due for a connection.
enum Due {
    Nothing,
    Later(Instant),
    Ping,
    Close(Disconnect),
    Expired(Vec<Arc<str>>),
}
