//! What one measurement has found, and what of it is a fault.

use std::time::Duration;

use super::histogram::Percentiles;
use super::options::Options;
use super::pace;

/// One row of the report. What does not apply to its scenario is 0 or `None`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) scenario: &'static str,
    pub(crate) clients: usize,
    /// Of these, those that never read.
    pub(crate) stalled: usize,
    pub(crate) rooms: usize,
    pub(crate) size: usize,
    /// Of each publisher; `None` in a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) elapsed: Duration,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) expected: u64,
    /// Came twice, or after one that was sent later.
    pub(crate) disordered: u64,
    /// Came to whom they were not for.
    pub(crate) stray: u64,
    /// Connections that were to stay and did not.
    pub(crate) lost_connections: u64,
    /// Connections that were made, and those that could not be.
    pub(crate) connects: u64,
    pub(crate) failed_connects: u64,
    pub(crate) connects_per_second: Option<f64>,
    pub(crate) latency: Option<Percentiles>,
    pub(crate) handshake: Option<Percentiles>,
    pub(crate) cpu: Option<Duration>,
    pub(crate) kib_per_connection: Option<f64>,
    pub(crate) threads: Option<u64>,
    /// By the server, for full queues.
    pub(crate) dropped: Option<u64>,
    /// The part of the time that the generator's thread was on a CPU.
    pub(crate) busy: Option<f64>,
    pub(crate) late_share: f64,
    pub(crate) is_interrupted: bool,
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    pub(crate) fn new(scenario: &'static str, options: &Options) -> Self {
        Self { scenario, clients: options.clients, size: options.size, ..Self::default() }
    }

    pub(crate) fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.received)
    }

    /// Deliveries a second; of `connect`, connections.
    pub(crate) fn per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        if self.is_about_connections() {
            self.connects_per_second.unwrap_or(0.0)
        } else {
            self.received as f64 / seconds
        }
    }

    /// Server CPU for each delivery, in microseconds; of `connect`, for each connection. `None` also when it was too
    /// little for the system's clock.
    pub(crate) fn cpu_micros(&self) -> Option<f64> {
        let count = if self.is_about_connections() { self.connects } else { self.received };
        let cpu = self.cpu.filter(|cpu| !cpu.is_zero())?;
        Some(cpu.as_secs_f64() * 1e6 / count.max(1) as f64)
    }

    /// Of messages; of `connect`, of handshakes.
    pub(crate) fn main_latency(&self) -> Option<Percentiles> {
        if self.is_about_connections() { self.handshake } else { self.latency }
    }

    /// Whether it is `connect`, in which no messages are sent.
    pub(crate) fn is_about_connections(&self) -> bool {
        self.scenario == "connect"
    }

    /// Why its figures say more about the generator than about the server, if they do.
    pub(crate) fn generator_bound(&self) -> Option<String> {
        pace::generator_bound(self.busy, self.late_share)
    }

    /// What must not be.
    pub(crate) fn faults(&self) -> Vec<String> {
        let counts = [
            (self.lost(), "messages lost"),
            (self.disordered, "messages twice or out of order"),
            (self.stray, "messages to the wrong clients"),
            (self.lost_connections, "connections lost"),
            (self.failed_connects, "connections failed"),
        ];
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_missing_is_a_fault() {
        let whole = Outcome { sent: 2, expected: 4, received: 4, ..Outcome::default() };
        assert!(whole.faults().is_empty());
        let less = Outcome { received: 3, lost_connections: 1, ..whole.clone() };
        assert_eq!(less.faults(), ["1 messages lost", "1 connections lost"]);
        for odd in [
            Outcome { disordered: 1, ..whole.clone() },
            Outcome { stray: 1, ..whole.clone() },
            Outcome { failed_connects: 1, ..whole.clone() },
        ] {
            assert_eq!(odd.faults().len(), 1, "{odd:?}");
        }
    }

    #[test]
    fn figures_are_of_deliveries_or_of_connections() {
        let (elapsed, cpu) = (Duration::from_secs(2), Some(Duration::from_millis(1)));
        let fanout = Outcome { expected: 100, received: 100, elapsed, cpu, ..Outcome::default() };
        assert_eq!((fanout.per_second(), fanout.cpu_micros()), (50.0, Some(10.0)));
        let connect = Outcome {
            scenario: "connect",
            connects: 10,
            connects_per_second: Some(5.0),
            elapsed,
            cpu,
            ..Outcome::default()
        };
        assert_eq!((connect.per_second(), connect.cpu_micros()), (5.0, Some(100.0)));
    }
}
