//! The writer thread of a connection: it takes over while the socket pushes back, and sleeps otherwise.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::Outbox;

/// Started when the socket first pushes back, or with the connection (`eager_writers`).
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// A leaf lock: nothing is taken under it.
    desk: Mutex<Desk>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct Desk {
    /// The socket has been handed over and the thread has not looked yet.
    work: bool,
    stop: bool,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Hands the socket over. False if the thread had to be started and could not be.
    pub(super) fn call(&self, outbox: &Arc<Outbox>) -> bool {
        let mut desk = self.desk.lock();
        desk.work = true;
        self.called.notify_one();
        desk.stop || Self::ensure_thread(&mut desk, outbox)
    }

    /// Starts the thread without work.
    pub(super) fn start(&self, outbox: &Arc<Outbox>) -> bool {
        Self::ensure_thread(&mut self.desk.lock(), outbox)
    }

    /// Ends the thread and waits for it. The socket must be dead or idle, or this waits for the write timeout.
    pub(super) fn stop(&self) {
        let thread = {
            let mut desk = self.desk.lock();
            desk.stop = true;
            self.called.notify_one();
            desk.thread.take()
        };
        if let Some(thread) = thread {
            // The thread runs no user code; it panicking would be a bug here, and joining must still not spread it.
            let _ = thread.join();
        }
    }

    /// Whether the thread has been started and not been told to end.
    pub(super) fn is_running(&self) -> bool {
        self.desk.lock().thread.is_some()
    }

    fn ensure_thread(desk: &mut Desk, outbox: &Arc<Outbox>) -> bool {
        if desk.thread.is_some() || desk.stop {
            return true;
        }
        let outbox = Arc::clone(outbox);
        let builder = thread::Builder::new().name("wshub-writer".into()).stack_size(outbox.settings.writer_stack);
        desk.thread = builder.spawn(move || outbox.writer.run(&outbox)).ok();
        desk.thread.is_some()
    }

    fn run(&self, outbox: &Arc<Outbox>) {
        while self.wait() {
            outbox.write_blocking();
        }
    }

    /// Sleeps until there is work (true) or the connection ends (false).
    fn wait(&self) -> bool {
        let mut desk = self.desk.lock();
        while !desk.work && !desk.stop {
            self.called.wait(&mut desk);
        }
        let work = desk.work && !desk.stop;
        desk.work = false;
        work
    }
}
