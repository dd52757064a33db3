//! A hub's helper threads, which flush part of large fan-outs: see [`share`](super::share).
//!
//! The threads start with the first fan-out that is large enough while a core is idle. They end with the hub. They run
//! no handlers or hooks, and no destructors of payloads. One of them may drop the last handle of its hub, and with it what
//! the hooks hold.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::idle_cores::idle_cores;
use super::share::{How, Job, List};
use crate::disposal;
use crate::guard;
use crate::lock::{Condition, Leaf};

/// Minimum number of outboxes for each helper. With so many, waking a helper costs a hundredth of the time that it
/// saves.
const WORTH: usize = 128;
/// The pause between two attempts to start a thread.
const RETRY: Duration = Duration::from_secs(1);
/// Stack size of a helper in bytes. Destructors of what hooks hold are the only user code that it runs.
const STACK: usize = 256 * 1024;

/// The helper threads of one hub.
#[derive(Debug)]
pub(crate) struct Helpers {
    most: usize,
    crew: Arc<Crew>,
}

/// The state that the threads share.
#[derive(Debug, Default)]
struct Crew {
    state: Leaf<State>,
    /// Signalled when there is a call for a sleeping thread.
    called: Condition,
}

#[derive(Debug, Default)]
struct State {
    calls: VecDeque<Call>,
    threads: Vec<JoinHandle<()>>,
    is_over: bool,
    /// When the last attempt to start a thread failed.
    refused: Option<Instant>,
}

/// A job that needs helpers. Weak, because helpers may come late: a job that is over keeps no clients, and so no
/// sockets.
#[derive(Debug)]
struct Call {
    job: Weak<Job>,
    wanted: usize,
}

impl Helpers {
    pub(super) fn new(most: usize) -> Self {
        Self { most, crew: Arc::default() }
    }

    /// Whether a fan-out to this many clients is worth sharing.
    #[inline]
    pub(crate) fn are_worth(&self, len: usize) -> bool {
        self.most > 0 && len >= WORTH
    }

    /// The number of threads.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.crew.state.lock().threads.len()
    }

    /// Whether no thread has ended.
    #[cfg(test)]
    pub(crate) fn are_alive(&self) -> bool {
        self.crew.state.lock().threads.iter().all(|thread| !thread.is_finished())
    }

    /// Calls `deliver` once for each of `len` outboxes, in ranges, and shares the flushes that `deliver` leaves to a
    /// later time. `list` names the same outboxes. If no helper is available, one call covers all of them.
    pub(crate) fn share(
        &self,
        len: usize,
        list: impl FnOnce() -> Box<dyn List>,
        mut deliver: impl FnMut(Range<usize>, How),
    ) {
        let wanted = (len / WORTH).min(self.most);
        let wanted = if wanted > 0 { wanted.min(idle_cores()) } else { 0 };
        match self.call(wanted, list) {
            Some((job, called)) => job.run(called, deliver),
            None => deliver(0..len, How::Now),
        }
    }

    /// Calls up to `wanted` helpers to a new job. Returns the job and the number of helpers called.
    fn call(&self, wanted: usize, list: impl FnOnce() -> Box<dyn List>) -> Option<(Arc<Job>, usize)> {
        if wanted == 0 {
            return None;
        }
        let job = Arc::new(Job::new(list()));
        let called = {
            let mut state = self.crew.state.lock();
            // Helpers that have not come to earlier jobs are not scheduled at the moment.
            if state.is_over || state.calls.len() >= self.most {
                return None;
            }
            let called = self.crew.at_least(&mut state, wanted);
            if called == 0 {
                return None;
            }
            state.calls.push_back(Call { job: Arc::downgrade(&job), wanted: called });
            called
        };
        (0..called).for_each(|_| self.crew.called.notify_one());
        Some((job, called))
    }

    /// Ends the threads and waits for them.
    pub(crate) fn stop(&self) {
        let threads = {
            let mut state = self.crew.state.lock();
            state.is_over = true;
            state.calls.clear();
            std::mem::take(&mut state.threads)
        };
        self.crew.called.notify_all();
        for thread in threads {
            // A helper may drop the last handle of the hub, along with a job's list. It cannot join itself.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Crew {
    /// Starts threads until there are `wanted`. Returns how many there are.
    fn at_least(self: &Arc<Self>, state: &mut State, wanted: usize) -> usize {
        let may_try = state.refused.is_none_or(|at| at.elapsed() >= RETRY);
        while may_try && state.threads.len() < wanted {
            let crew = Arc::clone(self);
            let builder = thread::Builder::new().name("wshub-fanout".into()).stack_size(STACK);
            let Ok(thread) = builder.spawn(move || crew.run()) else {
                state.refused = Some(Instant::now());
                break;
            };
            state.threads.push(thread);
        }
        state.threads.len().min(wanted)
    }

    fn run(&self) {
        disposal::keep_off_this_thread();
        while let Some(job) = self.next() {
            // A panic here would be a bug in this crate. It must not end the thread.
            let _ = guard::catch(|| job.help());
            // This may be the last handle to the job's clients.
            guard::dispose(job);
        }
    }

    /// Sleeps until a job needs a helper. Returns `None` at the end of the hub.
    fn next(&self) -> Option<Arc<Job>> {
        let mut state = self.state.lock();
        loop {
            if state.is_over {
                return None;
            }
            while let Some(call) = state.calls.front_mut() {
                call.wanted -= 1;
                let (job, is_spent) = (call.job.upgrade(), call.wanted == 0);
                if is_spent {
                    state.calls.pop_front();
                }
                // `None` if the job is over.
                if job.is_some() {
                    return job;
                }
            }
            self.called.wait(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::message::WireFormat;
    use crate::outbox::Outbox;
    use crate::transport::Transport;
    use std::os::unix::net::UnixStream;

    /// Outboxes at which helpers wait for the gate to open.
    #[derive(Debug)]
    struct Gated {
        outboxes: Vec<Arc<Outbox>>,
        gate: Arc<std::sync::Mutex<()>>,
        /// Signals helpers that have arrived.
        came: std::sync::mpsc::Sender<()>,
    }

    impl List for Gated {
        fn len(&self) -> usize {
            self.outboxes.len()
        }

        fn outbox(&self, at: usize) -> &Arc<Outbox> {
            if thread::current().name() == Some("wshub-fanout") {
                let _ = self.came.send(());
                drop(self.gate.lock());
            }
            &self.outboxes[at]
        }
    }

    fn outboxes() -> Vec<Arc<Outbox>> {
        let outbox = || {
            let (near, _far) = UnixStream::pair().expect("a pair");
            let group = Arc::new(Config::default().into());
            Outbox::new(Transport::from(near), group, WireFormat::WebSocket, Vec::new())
        };
        (0..WORTH).map(|_| outbox()).collect()
    }

    #[test]
    fn a_job_that_is_over_keeps_no_client_while_the_helpers_are_busy_elsewhere() {
        let helpers = Helpers::new(1);
        let gate = Arc::new(std::sync::Mutex::new(()));
        let (came, first_came) = std::sync::mpsc::channel();
        let share = |outboxes: &[Arc<Outbox>], came: std::sync::mpsc::Sender<()>, wait: &dyn Fn()| {
            let list = Gated { outboxes: outboxes.to_vec(), gate: Arc::clone(&gate), came };
            helpers.share(
                WORTH,
                || Box::new(list),
                |_, how| {
                    if how == How::Now {
                        wait();
                    }
                },
            );
        };
        let closed = gate.lock().expect("no panic");
        let waited = std::cell::Cell::new(false);
        share(&outboxes(), came, &|| {
            if !waited.replace(true) {
                first_came.recv_timeout(Duration::from_secs(60)).expect("a helper comes");
            }
        });
        // The only helper waits at the gate of that job.
        let second = outboxes();
        share(&second, std::sync::mpsc::channel().0, &|| ());
        assert_eq!(helpers.crew.state.lock().calls.len(), 1, "the helper has been called");
        assert!(second.iter().all(|outbox| Arc::strong_count(outbox) == 1), "nobody keeps its clients");
        drop(closed);
        helpers.stop();
    }
}
