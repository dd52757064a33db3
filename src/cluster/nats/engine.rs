//! The single thread that runs the NATS client.

use std::future::Future;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::cluster::adapter::AdapterError;
use crate::lock::Leaf;

/// Stack size of the thread, in bytes; TLS handshakes need the most.
const STACK: usize = 512 * 1024;
/// Time beyond its limit that a task may take before the thread counts as stuck.
const SLACK: Duration = Duration::from_secs(1);

/// A thread with an async runtime. The thread and all tasks on it end when the engine is stopped or dropped.
pub(super) struct Engine {
    handle: Handle,
    /// Dropped to end the thread.
    stop: Leaf<Option<oneshot::Sender<()>>>,
    thread: Leaf<Option<JoinHandle<()>>>,
}

impl Engine {
    pub(super) fn start() -> io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        // Resolving a host name takes a second thread for a moment.
        builder.max_blocking_threads(1).thread_name("wshub-nats-dns").thread_keep_alive(Duration::from_secs(1));
        let runtime = builder.enable_io().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            // Returns an error when the sender is dropped, which is the signal to stop.
            let _ = runtime.block_on(stopped);
            // Does not wait for the resolver.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("wshub-nats".into()).stack_size(STACK).spawn(run)?;
        Ok(Self { handle, stop: Leaf::new(Some(stop)), thread: Leaf::new(Some(thread)) })
    }

    /// Runs a task on the thread and waits for it, for at most `limit` plus one second.
    ///
    /// # Errors
    ///
    /// Fails if the task takes too long, panics, or the thread has been stopped. The task is dropped then.
    pub(super) fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, AdapterError> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let _task = self.spawn(async move {
            // An error means that the caller no longer waits.
            let _ = answer.send(tokio::time::timeout(limit, work).await);
        });
        match answered.recv_timeout(limit.saturating_add(SLACK)) {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(AdapterError::unavailable("the server does not answer in time")),
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => Err(AdapterError::unavailable("the thread is stuck")),
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => Err(AdapterError::unavailable("it has ended")),
        }
    }

    /// Starts a task that runs until it ends or panics, or until its handle or the engine is dropped.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(self.handle.spawn(work).abort_handle())
    }

    /// Makes the thread end soon. Does not block.
    pub(super) fn stop(&self) {
        drop(self.stop.lock().take());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.lock().take() {
            // Panics of tasks do not reach the thread, so there is none to report.
            let _ = thread.join();
        }
    }
}

/// Aborts its task when dropped.
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
