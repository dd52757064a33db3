//! One thread per process that sends pings. It runs only while there are any.
//!
//! A connection's thread could send its own, but Linux gives each thread that sends on TCP 32 KiB for what it sends,
//! until the thread ends: more than all else that an idle connection costs beside its stacks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::guard;
use crate::headroom;
use crate::lock::{Condition, Leaf};
use crate::outbox::Outbox;

/// How long the thread waits for more before it ends.
const LINGER: Duration = Duration::from_millis(100);
const STACK: usize = 256 * 1024;

static PINGS: Pings = Pings { due: Leaf::new(Due { outboxes: Vec::new(), is_running: false }), more: Condition::new() };

struct Pings {
    due: Leaf<Due>,
    /// Something has been added.
    more: Condition,
}

struct Due {
    outboxes: Vec<Arc<Outbox>>,
    is_running: bool,
}

/// Sends a ping, soon and on another thread; on this one if there is no other. Never blocks.
pub(super) fn send(outbox: &Arc<Outbox>) {
    PINGS.add(outbox);
}

impl Pings {
    /// Never fails: if the thread cannot be started, this one sends what is due.
    fn add(&'static self, outbox: &Arc<Outbox>) {
        let is_running = {
            let mut due = self.due.lock();
            due.outboxes.push(Arc::clone(outbox));
            std::mem::replace(&mut due.is_running, true)
        };
        if is_running {
            self.more.notify_one();
        } else if headroom::spawn("wshub-pings", STACK, || self.run()).is_err() {
            // Other threads may have added theirs meanwhile.
            ping(self.end());
        }
    }

    fn run(&self) {
        while let Some(outboxes) = self.wait() {
            ping(outboxes);
        }
    }

    /// What is due; `None` once nothing has been for a while, and the thread must end.
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

    /// What is due, now that there is no thread.
    fn end(&self) -> Vec<Arc<Outbox>> {
        let mut due = self.due.lock();
        due.is_running = false;
        std::mem::take(&mut due.outboxes)
    }
}

/// Does not block: a full socket gets its ping from its writer thread.
fn ping(outboxes: Vec<Arc<Outbox>>) {
    for outbox in outboxes {
        // A panic would be a bug of ours. It costs one ping.
        guard::catch(|| outbox.ping());
    }
}
