//! Enforces the close timeout of connections that are closed from outside their own thread, which is blocked reading.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::Hub;
use super::client::Client;
use crate::client_id::ClientId;
use crate::config::deadline_after;
use crate::guard::record;

thread_local! {
    /// The connection whose thread this is: it watches its own close.
    static OWN: Cell<Option<ClientId>> = const { Cell::new(None) };
}

/// One thread for a hub, which lives only while somebody is closing.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    /// A leaf lock.
    desk: Mutex<Desk>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Desk {
    /// All waits are equally long, so the first in line is the first due.
    closing: VecDeque<(Instant, Client)>,
    thread: Option<JoinHandle<()>>,
    running: bool,
}

impl Hub {
    /// Sees to it that a close that has begun ends within the close timeout.
    pub(super) fn watch_close(&self, client: &Client) {
        if OWN.get() == Some(client.id()) {
            return;
        }
        let reaper = &self.inner().reaper;
        let deadline = deadline_after(self.config().close_timeout);
        if !reaper.add(reaper, deadline, client) {
            record!(Warn, "wshub::hub", "no thread to watch a close: {} is cut", client.id());
            client.outbox().kill();
        }
    }

    /// Says that this thread runs the connection of `client`, until the guard is dropped.
    pub(crate) fn own_thread(client: &Client) -> OwnThread {
        OWN.set(Some(client.id()));
        OwnThread(())
    }

    /// After a connection has ended: its close needs no watching any more.
    pub(super) fn close_is_over(&self) {
        self.inner().reaper.nudge();
    }

    /// Waits for the reaper's thread to end; only sensible when all connections have.
    pub(super) fn join_reaper(&self) {
        let thread = self.inner().reaper.desk.lock().thread.take();
        self.inner().reaper.nudge();
        if let Some(thread) = thread {
            // It runs no user code and cannot panic short of a bug here.
            let _ = thread.join();
        }
    }
}

/// See [`Hub::own_thread`].
#[derive(Debug)]
pub(crate) struct OwnThread(());

impl Drop for OwnThread {
    fn drop(&mut self) {
        OWN.set(None);
    }
}

impl Reaper {
    /// False if the thread had to be started and could not be.
    fn add(&self, shared: &Arc<Self>, deadline: Instant, client: &Client) -> bool {
        let mut desk = self.desk.lock();
        desk.closing.push_back((deadline, client.clone()));
        if desk.running {
            return true;
        }
        let this = Arc::clone(shared);
        let builder = thread::Builder::new().name("wshub-reaper".into()).stack_size(64 * 1024);
        let Ok(thread) = builder.spawn(move || this.run()) else {
            desk.closing.pop_back();
            return false;
        };
        desk.running = true;
        // The one before has left its loop; it needs no joining.
        desk.thread = Some(thread);
        true
    }

    fn nudge(&self) {
        self.changed.notify_all();
    }

    fn run(&self) {
        let mut desk = self.desk.lock();
        while let Some((deadline, client)) = desk.closing.front().cloned() {
            let is_over = client.closed_at().is_some();
            if is_over || Instant::now() >= deadline {
                desk.closing.pop_front();
                if !is_over {
                    record!(Debug, "wshub::conn", "{} did not close in time", client.id());
                    client.outbox().kill();
                }
            } else {
                // A nudge may come too early to be heard; the deadline comes anyway.
                self.changed.wait_until(&mut desk, deadline);
            }
        }
        desk.running = false;
    }
}
