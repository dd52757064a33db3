//! Serves until the program must end, then drains and shuts down.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Server;
use super::handle::ServerHandle;
use crate::config::deadline_after;
use crate::error::DeadlineError;
use crate::guard::record;
use crate::hub::Hub;

/// Maximum part of the grace period that is reserved for the shutdown: close frames and last hooks.
const SHUTDOWN_SHARE: Duration = Duration::from_secs(5);

impl Server {
    /// Sets how long [`run_until`](Server::run_until) and [`run_until_signal`](Server::run_until_signal) may take to
    /// end after the signal. Default: 25 s, because Kubernetes kills after 30 s. Docker kills after 10 s: set less
    /// there, or raise its `--stop-timeout`.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Serves until SIGTERM or SIGINT (Ctrl-C), then drains every mounted hub and shuts down, within
    /// [`grace`](Server::grace). A drain begins with [`Config::lame_duck`](crate::Config#structfield.lame_duck), 10 s
    /// by default, even if no client is connected. A second signal shuts down at once. Blocks.
    ///
    /// The signals are caught for the whole process, from here until its end.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Server::spawn), and when the signals cannot be caught.
    #[doc(alias("graceful shutdown", "SIGTERM", "ctrl-c"))]
    pub fn run_until_signal(self) -> io::Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let (grace, signals_handle) = (self.grace, signals.handle());
        let handle = self.spawn()?;
        signals.forever().next();
        record!(Info, "wshub::server", "draining for at most {grace:?}; another signal shuts down at once");
        thread::scope(|scope| {
            let impatient = || {
                if signals.forever().next().is_some() {
                    let _ = handle.shutdown(SHUTDOWN_SHARE.min(grace));
                }
            };
            // Without this thread a second signal does nothing.
            let _ = thread::Builder::new().name("wshub-signals".into()).spawn_scoped(scope, impatient);
            end(&handle, grace);
            signals_handle.close();
        });
        Ok(())
    }

    /// Serves until `stop` returns, then drains every mounted hub and shuts down, within [`grace`](Server::grace).
    /// `stop` runs on the calling thread and waits for the program's own signal to end. Blocks.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Server::spawn).
    pub fn run_until(self, stop: impl FnOnce()) -> io::Result<()> {
        let grace = self.grace;
        let handle = self.spawn()?;
        stop();
        end(&handle, grace);
        Ok(())
    }
}

impl ServerHandle {
    /// Drains every mounted hub, all at once (see [`Hub::drain`]), then [shuts down](ServerHandle::shutdown); all of it
    /// within `grace`, of which a fifth and at most 5 s are kept for the shutdown. Probes are answered in the meantime.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// As [`shutdown`](ServerHandle::shutdown).
    pub fn drain_and_shutdown(&self, grace: Duration) -> Result<(), DeadlineError> {
        let deadline = deadline_after(grace);
        let drain_for = grace.saturating_sub(SHUTDOWN_SHARE.min(grace / 5));
        thread::scope(|scope| {
            for hub in self.hubs() {
                // If the thread cannot be started, this hub is not drained, only shut down.
                let drain = move || drained(hub, drain_for);
                let _ = thread::Builder::new().name("wshub-drain".into()).spawn_scoped(scope, drain);
            }
        });
        self.shutdown(deadline.saturating_duration_since(Instant::now()))
    }
}

fn drained(hub: &Hub, patience: Duration) {
    if let Err(error) = hub.drain(patience) {
        record!(Info, "wshub::server", "drain: {error}");
    }
}

/// Drains and shuts down; logs an error, because no caller can handle it.
fn end(handle: &ServerHandle, grace: Duration) {
    if let Err(error) = handle.drain_and_shutdown(grace) {
        record!(Warn, "wshub::server", "shutdown: {error}");
    }
}
