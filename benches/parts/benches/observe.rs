//! `cargo bench --bench observe`, in `benches/parts`.
//!
//! What metrics and traces cost, for each delivery of a broadcast and for each inbound
//! message that is echoed.
//!
//! Instructions are counted by valgrind (`callgrind`), which must be installed, as the difference between a run and one
//! of twice the length: user space only, and without the clock, which valgrind replaces. Times are medians of rounds in
//! which the ways take turns, and contain the kernel's share. With `--test`, and in `cargo test`, every way runs once
//! and nothing is measured.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and may fail by a panic")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{connect, is_smoke, masked_text};
use wshub::trace::{Sampling, Tracer};
use wshub::{
    Hub, HubBuilder, Target,
    metrics::{DebugMetrics, PrometheusMetrics},
};

const CLIENTS: u32 = 100;
const MESSAGE: &str = "a reading of 21.5 degrees, made at noon by the sensor in the cellar";
const WAYS: [&str; 6] = ["off", "debug", "prometheus", "tracer off", "tracer 1 in 100", "tracer all"];

fn builder(way: &str) -> HubBuilder {
    let builder = Hub::builder().on_message(|client, message| Ok(client.send(message)?));
    match way {
        "debug" => builder.metrics(Arc::new(DebugMetrics::new())),
        "prometheus" => builder.metrics(Arc::new(PrometheusMetrics::new().unwrap())),
        "tracer off" => builder.tracer(Tracer::new(100).sample(Sampling::Off)),
        "tracer 1 in 100" => builder.tracer(Tracer::new(100).sample(Sampling::OneIn(100))),
        "tracer all" => builder.tracer(Tracer::new(100)),
        _ => builder,
    }
}

struct Bench {
    hub: Hub,
    sockets: Vec<UnixStream>,
    frame: Vec<u8>,
}

impl Bench {
    fn new(way: &str, clients: u32) -> Self {
        let hub = builder(way).build().unwrap();
        let sockets = (0..clients).map(|_| connect(&hub, UnixStream::pair().unwrap())).collect();
        Self { hub, sockets, frame: masked_text(MESSAGE) }
    }

    /// Reads one message from every client.
    fn drain(&mut self) {
        let mut buffer = [0; MESSAGE.len() + 2];
        self.sockets.iter_mut().for_each(|socket| socket.read_exact(&mut buffer).unwrap());
    }

    /// The time of sending alone.
    fn broadcast(&mut self, count: usize) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..count {
            let started = Instant::now();
            let delivery = self.hub.send(Target::all(), MESSAGE).unwrap();
            took += started.elapsed();
            assert_eq!(delivery.queued, self.sockets.len());
            self.drain();
        }
        took
    }

    fn echo(&mut self, count: usize) -> Duration {
        let started = Instant::now();
        for _ in 0..count {
            self.sockets[0].write_all(&self.frame).unwrap();
            let mut buffer = [0; MESSAGE.len() + 2];
            self.sockets[0].read_exact(&mut buffer).unwrap();
        }
        started.elapsed()
    }
}

/// Under valgrind.
fn work(way: &str, what: &str, count: usize) {
    match what {
        "broadcast" => Bench::new(way, CLIENTS).broadcast(count),
        _ => Bench::new(way, 1).echo(count),
    };
    // The threads of connections need not end.
    std::process::exit(0);
}

fn instructions(way: &str, what: &str, count: usize) -> u64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe().unwrap());
    let output = valgrind.args([way, what, &count.to_string()]).output().expect("valgrind is installed");
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|line| line.split("Collected : ").nth(1)).unwrap_or_else(|| panic!("{text}"));
    line.trim().parse().unwrap()
}

/// For each delivery, or each message.
fn instructions_each(way: &str, what: &str) -> u64 {
    let (count, each) = if what == "broadcast" { (100, 100 * u64::from(CLIENTS)) } else { (2000, 2000) };
    (instructions(way, what, 2 * count) - instructions(way, what, count)) / each
}

fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// Medians in nanoseconds, the ways in turn.
fn times(what: &str) -> Vec<f64> {
    const ROUNDS: usize = 31;
    let clients = if what == "broadcast" { CLIENTS } else { 1 };
    let mut benches = WAYS.map(|way| Bench::new(way, clients));
    let mut rounds = vec![Vec::new(); WAYS.len()];
    for _ in 0..ROUNDS {
        for (bench, times) in benches.iter_mut().zip(&mut rounds) {
            times.push(match what {
                "broadcast" => nanos(bench.broadcast(100) / 100 / CLIENTS),
                _ => nanos(bench.echo(1000) / 1000),
            });
        }
    }
    rounds.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    rounds.iter().map(|times| times[ROUNDS / 2]).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [way, what, count] = &arguments[..] {
        work(way, what, count.parse().unwrap());
    }
    if is_smoke() {
        for way in WAYS {
            Bench::new(way, 10).broadcast(1);
            Bench::new(way, 1).echo(1);
        }
        return;
    }
    for what in ["broadcast", "echo"] {
        let times = times(what);
        println!("{what:<16} {:>14} {:>10}", "instructions", "ns");
        for (way, time) in WAYS.iter().zip(times) {
            println!("{way:<16} {:>14} {time:>10.0}", instructions_each(way, what));
        }
    }
}
