//! Threads that do handshakes, one at a time each, and answer plain HTTP. A connection that becomes a client gets a
//! thread of its own.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::listener::Arrival;
use super::{Running, exchange, slots::Slot};
use crate::conn;
use crate::guard;
use crate::handover::handover;
use crate::headroom;
use crate::lock::{Condition, Leaf};
use crate::transport::Transport;

/// How long a thread waits for its next connection.
const LINGER: Duration = Duration::from_secs(1);

/// A connection that has been accepted.
struct Job {
    arrival: Arrival,
    /// Its place among the handshakes.
    handshake: Slot,
    /// Its place among the connections, until its end.
    connection: Slot,
}

/// The handshake threads of one listener. They end with it.
#[derive(Default)]
pub(super) struct Workers(Arc<Idle<Job>>);

/// The threads that wait for their next connection, behind a leaf lock.
struct Idle<J> {
    state: Leaf<IdleState<J>>,
    changed: Condition,
}

struct IdleState<J> {
    waiting: usize,
    /// At most one for each waiting thread.
    jobs: Vec<J>,
    is_over: bool,
}

impl<J> Default for Idle<J> {
    fn default() -> Self {
        let state = IdleState { waiting: 0, jobs: Vec::new(), is_over: false };
        Self { state: Leaf::new(state), changed: Condition::new() }
    }
}

impl<J> Idle<J> {
    /// Gives the job to a thread that waits, or back.
    fn give(&self, job: J) -> Result<(), J> {
        let mut state = self.state.lock();
        if state.jobs.len() >= state.waiting {
            return Err(job);
        }
        state.jobs.push(job);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for a job. `None` after a while, or when the listener is gone.
    fn take(&self) -> Option<J> {
        let deadline = Instant::now() + LINGER;
        let mut state = self.state.lock();
        state.waiting += 1;
        while state.jobs.is_empty() && !state.is_over && !self.changed.wait_until(&mut state, deadline) {}
        state.waiting -= 1;
        // Also one that came at the last moment: it counts on this thread.
        state.jobs.pop()
    }

    fn end(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Workers {
    /// Passes the connection to a waiting thread, or to a new one. Returns it if no thread can be started, or if memory
    /// for its later thread as a client is short.
    pub(super) fn serve(
        &self,
        shared: &Arc<Running>,
        arrival: Arrival,
        handshake: Slot,
    ) -> Result<(), (Transport, io::Error)> {
        let job = Job { arrival, handshake, connection: shared.threads.take(0).expect("no limit") };
        if let Err(error) = headroom::check(shared.stack) {
            return Err((job.arrival.transport, error));
        }
        match self.0.give(job) {
            Ok(()) => Ok(()),
            Err(job) => self.start(shared, job),
        }
    }

    fn start(&self, shared: &Arc<Running>, job: Job) -> Result<(), (Transport, io::Error)> {
        let (giver, first) = handover();
        let (idle, context, place) = (Arc::clone(&self.0), Arc::clone(shared), shared.workers.take(0));
        let thread = move || {
            let mut job = first.take();
            while let Some(taken) = job {
                guard::catch(|| work(&context, taken));
                job = idle.take();
            }
            drop(place);
        };
        match headroom::spawn("wshub-handshake", shared.stack, thread) {
            Ok(()) => {
                giver.give(job);
                Ok(())
            }
            Err(error) => Err((job.arrival.transport, error)),
        }
    }
}

fn work(shared: &Arc<Running>, job: Job) {
    let Some(upgraded) = exchange::serve(shared, job.arrival, job.handshake) else { return };
    if let Err(error) = conn::start(upgraded, shared.stack, job.connection) {
        shared.cannot_serve(&format!("no thread for a connection: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn wait_for(idle: &Idle<u8>, waiting: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while idle.state.lock().waiting != waiting {
            assert!(Instant::now() < deadline, "no thread waits");
            thread::yield_now();
        }
    }

    #[test]
    fn a_job_goes_to_a_thread_that_waits_or_back() {
        let idle = Arc::new(Idle::default());
        assert_eq!(idle.give(1), Err(1), "nobody waits");
        let taker = Arc::clone(&idle);
        let thread = thread::spawn(move || {
            // Each wait ends after a while.
            std::iter::repeat_with(|| taker.take()).flatten().next()
        });
        wait_for(&idle, 1);
        // The thread may be between two waits, but a job that is accepted is taken.
        while idle.give(2).is_err() {}
        assert_eq!(thread.join().ok(), Some(Some(2)));
    }

    #[test]
    fn nobody_waits_for_a_listener_that_is_gone() {
        let idle = Idle::<u8>::default();
        idle.end();
        let begun = Instant::now();
        assert_eq!(idle.take(), None);
        assert!(begun.elapsed() < LINGER);
    }
}
