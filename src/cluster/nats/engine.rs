//! The one thread on which the NATS client runs.

use std::future::Future;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::cluster::adapter::AdapterError;
use crate::lock::Leaf;

/// Stack of the thread, in bytes; TLS handshakes need the most.
const STACK: usize = 512 * 1024;
/// How much later than promised a piece of work may answer, before its thread counts as stuck.
const SLACK: Duration = Duration::from_secs(1);

/// A thread with an async runtime. The thread ends when this is stopped or dropped, and with it all work on it.
pub(super) struct Engine {
    handle: Handle,
    /// Dropped to end the thread.
    stop: Leaf<Option<oneshot::Sender<()>>>,
    thread: Leaf<Option<JoinHandle<()>>>,
}

impl Engine {
    pub(super) fn start() -> io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        // Resolving a host's name takes a second thread for a moment.
        builder.max_blocking_threads(1).thread_name("wshub-nats-dns").thread_keep_alive(Duration::from_secs(1));
        let runtime = builder.enable_io().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            // An error: the sender has been dropped, which is how it ends.
            let _ = runtime.block_on(stopped);
            // Does not wait for the resolver.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("wshub-nats".into()).stack_size(STACK).spawn(run)?;
        Ok(Self { handle, stop: Leaf::new(Some(stop)), thread: Leaf::new(Some(thread)) })
    }

    /// Does a piece of work on the thread and waits for it, for at most `limit` and a second.
    ///
    /// # Errors
    ///
    /// It took too long, it panicked, or the thread has been stopped; the work is dropped then.
    pub(super) fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, AdapterError> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let _task = self.spawn(async move {
            // Nobody waits any more: it came too late.
            let _ = answer.send(tokio::time::timeout(limit, work).await);
        });
        match answered.recv_timeout(limit.saturating_add(SLACK)) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(AdapterError::unavailable("the server does not answer in time")),
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => Err(AdapterError::unavailable("the thread is stuck")),
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => Err(AdapterError::unavailable("it has ended")),
        }
    }

    /// Starts a piece of work that goes on until it ends, panics, or its handle or this is dropped.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(self.handle.spawn(work).abort_handle())
    }

    /// Lets the thread end soon. Does not block.
    pub(super) fn stop(&self) {
        drop(self.stop.lock().take());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.lock().take() {
            // Panics of tasks do not reach it, so there is none to tell.
            let _ = thread.join();
        }
    }
}

/// Ends a piece of work when dropped.
pub(super) struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn work_answers_panics_or_takes_too_long() {
        let engine = Engine::start().unwrap();
        assert_eq!(engine.call(LONG, async { 7 }).unwrap(), 7);
        let panicked = engine.call::<()>(LONG, async { panic!("on purpose") });
        assert_eq!(panicked.unwrap_err().to_string(), "it has ended");
        let late = engine.call::<()>(Duration::from_millis(1), std::future::pending());
        assert_eq!(late.unwrap_err().to_string(), "the server does not answer in time");
        assert_eq!(engine.call(LONG, async { 8 }).unwrap(), 8);
    }

    #[test]
    fn stopping_ends_work_that_is_waited_for() {
        let engine = Engine::start().unwrap();
        thread::scope(|scope| {
            let (begun, has_begun) = crossbeam_channel::bounded(1);
            let waiting = scope.spawn(|| {
                engine.call::<()>(LONG, async move {
                    begun.send(()).unwrap();
                    std::future::pending::<()>().await;
                })
            });
            has_begun.recv().unwrap();
            engine.stop();
            assert_eq!(waiting.join().unwrap().unwrap_err().to_string(), "it has ended");
        });
        assert_eq!(engine.call(LONG, async { 7 }).unwrap_err().to_string(), "it has ended");
    }
}
