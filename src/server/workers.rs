//! Threads that do handshakes, one at a time each, and answer plain HTTP. A connection that becomes a client gets a
//! thread of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::listener::Arrival;
use super::{Running, exchange, slots::Slot};
use crate::conn;
use crate::guard;
use crate::headroom;
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
pub(super) struct Workers {
    /// Without a buffer, so a job is sent only if a thread waits for it.
    sender: Sender<Job>,
    receiver: Receiver<Job>,
}

impl Workers {
    pub(super) fn new() -> Self {
        let (sender, receiver) = bounded(0);
        Self { sender, receiver }
    }

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
        match self.sender.try_send(job) {
            Ok(()) => Ok(()),
            Err(nobody) => self.start(shared, nobody.into_inner()),
        }
    }

    fn start(&self, shared: &Arc<Running>, job: Job) -> Result<(), (Transport, io::Error)> {
        let (first_sender, first) = bounded(1);
        let (next, context, place) = (self.receiver.clone(), Arc::clone(shared), shared.workers.take(0));
        let thread = move || {
            let mut job = first.recv().ok();
            while let Some(taken) = job {
                guard::catch(|| work(&context, taken));
                job = next.recv_timeout(LINGER).ok();
            }
            drop(place);
        };
        match headroom::spawn("wshub-handshake", shared.stack, thread) {
            Ok(()) => {
                // The thread waits for exactly this.
                let _ = first_sender.send(job);
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
