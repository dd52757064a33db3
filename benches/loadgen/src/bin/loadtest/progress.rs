//! What a terminal shows while a measurement runs. Standard error; nothing when that is no terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const PAUSE: Duration = Duration::from_millis(100);

/// One bar for one phase of a scenario; it vanishes when this is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    next: Instant,
}

impl Progress {
    pub(crate) fn new(is_quiet: bool, scenario: &str, phase: &'static str, length: u64) -> Self {
        let bar = if is_quiet { ProgressBar::hidden() } else { ProgressBar::new(length) };
        if let Ok(style) = ProgressStyle::with_template("{prefix:>8} {wide_bar} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(scenario.to_owned());
        bar.set_message(phase);
        Self { bar, next: Instant::now() }
    }

    /// Ten times a second at most, whatever it is called.
    pub(crate) fn at(&mut self, now: Instant, position: u64) {
        if now >= self.next {
            self.next = now + PAUSE;
            self.bar.set_position(position);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
