//! One thread per process that sends pings. It runs only while there are any.
//!
//! A connection's thread could send its own pings. But Linux keeps a 32 KiB buffer for each thread that sends on TCP,
//! until the thread ends. That is more than an idle connection costs otherwise, apart from its stack.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::disposal;
use crate::guard;
use crate::headroom;
use crate::lock::{Condition, Leaf};
use crate::outbox::Outbox;

/// How long the thread waits for further pings before it ends.
const LINGER: Duration = Duration::from_millis(100);
const STACK: usize = 256 * 1024;

static PINGS: Pings = Pings { due: Leaf::new(Due { outboxes: Vec::new(), is_running: false }), more: Condition::new() };

struct Pings {
    due: Leaf<Due>,
    /// Signals that an outbox was added.
    more: Condition,
}

struct Due {
    outboxes: Vec<Arc<Outbox>>,
    is_running: bool,
}

/// Sends a ping soon, on the ping thread, or on this one if that cannot be started. Never blocks.
pub(super) fn send(outbox: &Arc<Outbox>) {
    PINGS.add(outbox);
}

impl Pings {
    /// Queues a ping and starts the thread if necessary. If the thread cannot be started, sends all due pings here.
    fn add(&'static self, outbox: &Arc<Outbox>) {
        let is_running = {
            let mut due = self.due.lock();
            due.outboxes.push(Arc::clone(outbox));
            std::mem::replace(&mut due.is_running, true)
        };
        if is_running {
            self.more.notify_one();
        } else if headroom::spawn("wshub-pings", STACK, || self.run()).is_err() {
            // Other threads may have added outboxes in the meantime.
            ping(self.end());
        }
    }

    fn run(&self) {
        disposal::keep_off_this_thread();
        while let Some(outboxes) = self.wait() {
            ping(outboxes);
        }
    }

    /// Waits for due pings and takes them. `None` if there were none for [`LINGER`]; the thread must then end.
    fn wait(&self) -> Option<Vec<Arc<Outbox>>> {
        let mut due = self.due.lock();
        let deadline = Instant::now() + LINGER;
        while due.outboxes.is_empty() {
            if self.more.wait_until(&mut due, deadline) && due.outboxes.is_empty() {
                due.is_running = false;
                return None;
            }
        }
        Some(std::mem::take(&mut due.outboxes))
    }

    /// Takes the due pings and records that no thread is running.
    fn end(&self) -> Vec<Arc<Outbox>> {
        let mut due = self.due.lock();
        due.is_running = false;
        std::mem::take(&mut due.outboxes)
    }
}

/// Sends pings. Does not block: the writer thread sends the ping to a full socket.
fn ping(outboxes: Vec<Arc<Outbox>>) {
    for outbox in outboxes {
        // A panic would be a bug in this crate. It costs one ping.
        guard::catch(|| outbox.ping());
    }
}
