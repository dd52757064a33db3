//! The writer thread of a connection. It takes over while the socket pushes back, and ends when it is no longer needed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Outbox;
use crate::disposal;
use crate::lock::{Condition, Leaf};
use crate::sync::thread::{self, JoinHandle};

/// How long the thread waits for the next call before it ends.
const IDLE_TIME: Duration = Duration::from_secs(3);
/// The pause between two attempts to start the thread.
const RETRY: Duration = Duration::from_secs(1);

/// The writer thread of one outbox. It starts when the socket pushes back. With `eager_writers` it starts with the
/// connection and stays.
#[derive(Debug, Default)]
pub(super) struct Writer {
    state: Leaf<State>,
    called: Condition,
}

#[derive(Debug, Default)]
struct State {
    /// The socket has been handed over, and the thread has not started on it yet.
    work: bool,
    stop: bool,
    thread: Option<JoinHandle<()>>,
    /// When the last attempt to start the thread failed.
    refused: Option<Instant>,
}

impl Writer {
    /// Hands the socket over. Returns false, with nothing handed over, if the thread is not running and cannot be
    /// started.
    pub(super) fn call(&self, outbox: &Arc<Outbox>) -> bool {
        let mut state = self.state.lock();
        if !state.stop && !Self::ensure_thread(&mut state, outbox) {
            return false;
        }
        state.work = true;
        self.called.notify_one();
        true
    }

    /// Starts the thread without work. Returns false if the thread cannot be started.
    pub(super) fn start(&self, outbox: &Arc<Outbox>) -> bool {
        Self::ensure_thread(&mut self.state.lock(), outbox)
    }

    /// Ends the thread and waits for it. The socket must be dead or idle, or this waits for the write timeout.
    pub(super) fn stop(&self) {
        let thread = {
            let mut state = self.state.lock();
            state.stop = true;
            self.called.notify_one();
            state.thread.take()
        };
        if let Some(thread) = thread {
            // The thread runs no user code. A panic in it would be a bug in this crate, and joining must not spread it.
            let _ = thread.join();
        }
    }

    /// Whether there is a thread.
    pub(super) fn is_running(&self) -> bool {
        self.state.lock().thread.is_some()
    }

    fn ensure_thread(state: &mut State, outbox: &Arc<Outbox>) -> bool {
        if state.thread.is_some() || state.stop {
            return true;
        }
        if state.refused.is_some_and(|at| at.elapsed() < RETRY) {
            return false;
        }
        let outbox = Arc::clone(outbox);
        let builder = thread::Builder::new().name("wshub-writer".into()).stack_size(outbox.settings.writer_stack);
        state.thread = builder.spawn(move || outbox.writer.run(&outbox)).ok();
        state.refused = state.thread.is_none().then(Instant::now);
        state.thread.is_some()
    }

    fn run(&self, outbox: &Arc<Outbox>) {
        disposal::keep_off_this_thread();
        let idle_time = (!outbox.settings.eager_writers).then_some(IDLE_TIME);
        while self.wait(idle_time) {
            outbox.write_blocking();
        }
    }

    /// Sleeps until there is work (true), the connection ends, or the idle time passes without work (false).
    fn wait(&self, idle_time: Option<Duration>) -> bool {
        let mut state = self.state.lock();
        while !state.work && !state.stop {
            let Some(idle_time) = idle_time else {
                self.called.wait(&mut state);
                continue;
            };
            let is_timeout = self.called.wait_for(&mut state, idle_time);
            if is_timeout && !state.work && !state.stop {
                // The next call, under this lock, starts another thread.
                state.thread = None;
                return false;
            }
        }
        let work = state.work && !state.stop;
        state.work = false;
        work
    }
}
