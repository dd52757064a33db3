//! Ends closes that take longer than the close timeout.
//!
//! A connection's own thread watches the closes that begin on it, in a handler. It cannot watch those that begin on
//! other threads, because it may be blocked in a read. One thread of the hub watches these. It is started when such a
//! close begins and ends when none is left.
//!
//! The watcher owns no client. For each close it holds the deadline, the client's id and a weak reference to the
//! outbox, so it keeps neither a descriptor nor a value of the application alive, and no destructor of the application
//! runs on it: a connection empties its outbox before it lets go of it. The watcher takes what is due under its lock,
//! and cuts and logs after releasing it, each within [`guard::catch`]. So a logger or a payload that closes or sends
//! cannot deadlock it, and one that panics cannot end it.
//!
//! A connection's entry is removed when the connection ends. So the number of entries is bounded by that of the
//! connections that are closing, and the queue of deadlines by twice that plus a constant.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::Hub;
use crate::client_id::ClientId;
use crate::config::deadline_after;
use crate::guard::{self, record, record_limited};
use crate::lock::{Condition, Leaf};
use crate::outbox::Outbox;

/// Stack of the watcher's thread in bytes. It runs the program's logger.
const STACK: usize = 256 * 1024;

/// Maximum number of obsolete deadlines in the queue before they are removed.
const SPARE: usize = 64;

thread_local! {
    /// The connection that this thread runs.
    static OWN: Cell<Option<ClientId>> = const { Cell::new(None) };
}

/// The hub's unfinished closes, and the thread that watches them.
#[derive(Debug, Default)]
pub(super) struct CloseWatch {
    state: Leaf<State>,
    /// Signals the end of the last close.
    changed: Condition,
}

#[derive(Debug, Default)]
struct State {
    /// Closes that began on a thread other than the connection's.
    closing: HashMap<ClientId, Weak<Outbox>>,
    /// The deadlines, sorted because every close has the same timeout. If an id is not in `closing`, its close has
    /// ended.
    deadlines: VecDeque<(Instant, ClientId)>,
    /// Connections that wait for the peer's end of the stream. They watch their own deadlines and are listed only so
    /// that a shutdown can cut them.
    lingering: HashMap<ClientId, Weak<Outbox>>,
    thread: Option<JoinHandle<()>>,
    is_running: bool,
}

impl Hub {
    /// Watches a close that has begun on the calling thread and ends it at the close timeout.
    pub(super) fn watch_close(&self, id: ClientId, outbox: &Arc<Outbox>) {
        if OWN.get() == Some(id) {
            return;
        }
        if !CloseWatch::add(&self.inner().close_watch, id, outbox, self.config().close_timeout) {
            record_limited!(Warn, "wshub::hub", "could not start the thread that watches closes; {id} is cut");
            outbox.kill();
        }
    }

    /// Marks this thread as the one that runs the connection, until the guard is dropped.
    pub(crate) fn run_on_this_thread(id: ClientId) -> ConnectionThread {
        OWN.set(Some(id));
        ConnectionThread(())
    }

    /// Lets a shutdown cut a connection that is no longer registered but still waits for its peer's end.
    pub(crate) fn begin_linger(&self, id: ClientId, outbox: &Arc<Outbox>) {
        self.inner().close_watch.state.lock().lingering.insert(id, Arc::downgrade(outbox));
    }

    /// Stops watching a connection that has ended.
    pub(super) fn unwatch(&self, id: ClientId) {
        let watch = &self.inner().close_watch;
        let mut state = watch.state.lock();
        state.lingering.remove(&id);
        let was_last = state.closing.remove(&id).is_some() && state.closing.is_empty();
        state.forget_ended();
        drop(state);
        if was_last {
            watch.changed.notify_all();
        }
    }

    /// Cuts every connection that is closing or waits for its peer's end.
    pub(super) fn cut_closing(&self) {
        let outboxes: Vec<Weak<Outbox>> = {
            let state = self.inner().close_watch.state.lock();
            state.closing.values().chain(state.lingering.values()).cloned().collect()
        };
        outboxes.iter().filter_map(Weak::upgrade).for_each(|outbox| outbox.kill());
    }

    /// Waits for the watcher thread to end. Call it when no connection is left.
    pub(super) fn join_close_watch(&self) {
        let watch = &self.inner().close_watch;
        let thread = watch.state.lock().thread.take();
        watch.changed.notify_all();
        // A logger may call this on the watcher thread, which must not wait for itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id()) {
            // The thread cannot panic: see the module's documentation.
            let _ = thread.join();
        }
    }
}

/// See [`Hub::run_on_this_thread`].
#[derive(Debug)]
pub(crate) struct ConnectionThread(());

impl Drop for ConnectionThread {
    fn drop(&mut self) {
        OWN.set(None);
    }
}

impl CloseWatch {
    /// Returns false if the thread is not running and cannot be started.
    fn add(this: &Arc<Self>, id: ClientId, outbox: &Arc<Outbox>, timeout: std::time::Duration) -> bool {
        let mut state = this.state.lock();
        if outbox.is_dead() {
            // The close has already ended. Checked under the lock, because `unwatch` runs after the outbox has died:
            // either `unwatch` finds the entry, or this check sees the dead outbox.
            return true;
        }
        state.closing.insert(id, Arc::downgrade(outbox));
        // Computed under the lock, so that the queue stays sorted.
        state.deadlines.push_back((deadline_after(timeout), id));
        if state.is_running {
            return true;
        }
        let watch = Arc::clone(this);
        let builder = thread::Builder::new().name("wshub-closes".into()).stack_size(STACK);
        let Ok(thread) = builder.spawn(move || watch.run()) else {
            state.closing.remove(&id);
            state.deadlines.pop_back();
            return false;
        };
        state.is_running = true;
        // The previous thread has left its loop and needs no joining.
        state.thread = Some(thread);
        true
    }

    fn run(&self) {
        while let Some((id, outbox)) = self.next_due() {
            guard::catch(|| cut(id, &outbox));
            guard::dispose(outbox);
        }
    }

    /// Sleeps until a close is due. Returns `None` when none is left; the thread must then end.
    fn next_due(&self) -> Option<(ClientId, Arc<Outbox>)> {
        let mut state = self.state.lock();
        loop {
            if state.closing.is_empty() {
                state.deadlines.clear();
                state.is_running = false;
                return None;
            }
            let &(deadline, id) = state.deadlines.front()?;
            if !state.closing.contains_key(&id) {
                state.deadlines.pop_front();
            } else if Instant::now() < deadline {
                // Wakes early when the last close ends.
                self.changed.wait_until(&mut state, deadline);
            } else {
                state.deadlines.pop_front();
                let outbox = state.closing.remove(&id).and_then(|outbox| outbox.upgrade());
                if let Some(outbox) = outbox {
                    return Some((id, outbox));
                }
            }
        }
    }
}

impl State {
    /// Removes obsolete deadlines to keep the queue short.
    fn forget_ended(&mut self) {
        if self.deadlines.len() > 2 * self.closing.len() + SPARE {
            let closing = &self.closing;
            self.deadlines.retain(|(_, id)| closing.contains_key(id));
        }
    }
}

fn cut(id: ClientId, outbox: &Outbox) {
    outbox.kill();
    record!(Debug, "wshub::conn", "{id} did not close within close_timeout");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::message::WireFormat;
    use crate::transport::Transport;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(600);

    fn outbox() -> (Arc<Outbox>, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        (Outbox::new(Transport::from(near), Arc::default(), WireFormat::WebSocket, Vec::new()), far)
    }

    #[test]
    fn what_is_due_is_cut_and_what_has_ended_keeps_nothing() {
        let hub = Hub::builder().config(Config::default().close_timeout(LONG)).build().expect("valid");
        let watch = &hub.inner().close_watch;
        let (silent, _peer) = outbox();
        hub.watch_close(ClientId::random(), &silent);
        let ended: Vec<_> = (0..500).map(|_| (ClientId::random(), outbox())).collect();
        for (id, (outbox, _)) in &ended {
            hub.watch_close(*id, outbox);
        }
        for (id, (outbox, mut peer)) in ended {
            hub.unwatch(id);
            drop(outbox);
            assert_eq!(peer.read(&mut [0]).expect("an end"), 0, "its descriptor is closed");
        }
        let state = watch.state.lock();
        assert_eq!(state.closing.len(), 1);
        assert!(state.deadlines.len() <= 2 + SPARE, "{} deadlines", state.deadlines.len());
        drop(state);

        let (due, mut peer) = outbox();
        assert!(CloseWatch::add(watch, ClientId::random(), &due, Duration::ZERO));
        hub.cut_closing();
        assert_eq!(peer.read(&mut [0]).expect("an end"), 0);
    }

    #[test]
    fn the_thread_ends_with_the_last_close_and_cuts_at_the_deadline() {
        let hub =
            Hub::builder().config(Config::default().close_timeout(Duration::from_millis(1))).build().expect("valid");
        let (silent, mut peer) = outbox();
        hub.watch_close(ClientId::random(), &silent);
        assert_eq!(peer.read(&mut [0]).expect("an end"), 0);
        hub.join_close_watch();
        let state = hub.inner().close_watch.state.lock();
        assert!(!state.is_running && state.closing.is_empty() && state.deadlines.is_empty());
    }
}
