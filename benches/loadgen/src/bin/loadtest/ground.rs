//! What every scenario stands on: its options, the server, the wish to stop, and what is measured around it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::child::OwnServer;
use super::console;
use super::failure::Failure;
use super::options::Options;
use super::outcome::Outcome;
use super::process;
use super::progress::Progress;
use super::url::Url;

/// For one measurement.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) scenario: &'static str,
    pub(crate) options: &'a Options,
    pub(crate) url: Url,
    stop: &'a Arc<AtomicBool>,
    own: Option<OwnServer>,
}

impl<'a> Ground<'a> {
    /// Starts a server of our own, unless the options name one; `path` is of our own.
    pub(crate) fn new(
        scenario: &'static str,
        path: &str,
        options: &'a Options,
        stop: &'a Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        if let Some(url) = options.url.clone() {
            return Ok(Self { scenario, options, url, stop, own: None });
        }
        let own = OwnServer::start(options.size)?;
        console::announce(own.addr);
        Ok(Self { scenario, options, url: Url::at(own.addr, path), stop, own: Some(own) })
    }

    pub(crate) fn is_stopped(&self) -> bool {
        // Relaxed: the signal's handler writes nothing else.
        self.stop.load(Ordering::Relaxed)
    }

    /// The server's process, where it is known.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.own.as_ref().map(OwnServer::pid).or(self.options.pid)
    }

    pub(crate) fn progress(&self, phase: &'static str, length: u64) -> Progress {
        Progress::new(self.options.is_quiet, self.scenario, phase, length)
    }

    /// Messages that a server of our own has dropped.
    pub(crate) fn dropped(&self) -> Option<u64> {
        self.own.as_ref()?.dropped()
    }

    /// A failure, with what may have led to it.
    pub(crate) fn failure(&mut self, why: &str) -> Failure {
        let url = &self.url;
        let end = self.own.as_mut().and_then(OwnServer::end).map(|end| format!("; {end}")).unwrap_or_default();
        Failure::because(format!("{url}: {why}{end}"))
    }
}

/// Measures from [`Meter::start`] to [`Meter::end`], on the thread that sends and receives.
#[derive(Debug)]
pub(crate) struct Meter {
    pid: Option<u32>,
    pub(crate) start: Instant,
    own_cpu: Duration,
    cpu: Option<Duration>,
}

impl Meter {
    pub(crate) fn start(ground: &Ground<'_>) -> Self {
        let pid = ground.pid();
        Self { pid, cpu: pid.and_then(process::cpu_time), own_cpu: process::thread_time(), start: Instant::now() }
    }

    pub(crate) fn end(&self, outcome: &mut Outcome) {
        outcome.elapsed = self.start.elapsed();
        let own = process::thread_time().saturating_sub(self.own_cpu);
        outcome.busy = Some(own.as_secs_f64() / outcome.elapsed.as_secs_f64().max(1e-9));
        let cpu = self.pid.and_then(process::cpu_time);
        outcome.cpu = cpu.zip(self.cpu).map(|(after, before)| after.saturating_sub(before));
    }
}
