//! What the benches share: cases that are run in several ways by turns, and the table of their ratios.
//!
//! A sample of criterion runs every way of a case, ours and the floor, in an order that changes from sample to sample.
//! So a machine that is slow for a while is slow for all of them, and the ratio, the median over the samples, says more
//! than the times. Criterion's own lines and its comparison with the run before are about ours alone.
#![allow(dead_code, reason = "each bench uses a part")]

use std::hint::black_box;
use std::io::Read;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode};
use wshub::{Hub, RequestHead, server::Transport};

/// An upgrade request.
pub(crate) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// One way of doing what a case does: so many turns, and how long they took.
pub(crate) type Way<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

/// Whether every case is only to be run once, to see that it works: `cargo bench -- --test`, `cargo test --benches`.
/// Criterion decides in the same way.
pub(crate) fn is_smoke() -> bool {
    let has = |name: &str| std::env::args().any(|argument| argument == name);
    has("--test") || !has("--bench")
}

/// A way that repeats one operation.
pub(crate) fn each<'a, T>(mut operation: impl FnMut() -> T + 'a) -> Way<'a> {
    Box::new(move |turns| {
        let started = Instant::now();
        (0..turns).for_each(|_| _ = black_box(operation()));
        started.elapsed()
    })
}

/// The head of an upgrade request.
pub(crate) fn head() -> RequestHead {
    RequestHead::parse(REQUEST).unwrap().unwrap().0
}

/// A short text as a client sends it, masked with zeros.
pub(crate) fn masked_text(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    assert!(text.len() < 126, "a longer one has another header");
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Hands one end of a pair of sockets to the hub, with a thread of its own, and reads the answer to the handshake from
/// the other.
pub(crate) fn connect<S: Into<Transport>, F: Read>(hub: &Hub, (near, mut far): (S, F)) -> F {
    hub.accept(near, head(), &[]).detach().unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        far.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    far
}

/// A bench: cases, and at the end a table.
pub(crate) struct Bench {
    criterion: Criterion,
    name: &'static str,
    /// The ways beside ours.
    others: &'static [&'static str],
    rows: Vec<Row>,
}

struct Row {
    case: String,
    /// For each sample the time of one turn in nanoseconds, by way.
    samples: Vec<Vec<f64>>,
}

impl Bench {
    /// Takes about `seconds` for each case, in so many samples, unless the command line says otherwise.
    pub(crate) fn new(name: &'static str, others: &'static [&'static str], samples: usize, seconds: f64) -> Self {
        let criterion = Criterion::default().without_plots().sample_size(samples).nresamples(2000);
        let criterion = criterion.warm_up_time(Duration::from_secs_f64(seconds / 4.0));
        let criterion = criterion.measurement_time(Duration::from_secs_f64(seconds)).configure_from_args();
        Self { criterion, name, others, rows: Vec::new() }
    }

    /// Measures one case; the first way is ours, the others are in the order of their names.
    pub(crate) fn case(&mut self, case: impl Into<String>, mut ways: Vec<Way<'_>>) {
        assert_eq!(ways.len(), self.others.len() + 1);
        let case = case.into();
        let mut samples: Vec<(u64, Vec<f64>)> = Vec::new();
        let mut group = self.criterion.benchmark_group(self.name);
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function(BenchmarkId::from_parameter(&case), |bencher| {
            bencher.iter_custom(|turns| {
                let mut times = vec![Duration::ZERO; ways.len()];
                for step in 0..ways.len() {
                    let at = (step + samples.len()) % ways.len();
                    times[at] = ways[at](turns);
                }
                #[allow(clippy::cast_precision_loss, reason = "a mean")]
                samples.push((turns, times.iter().map(|time| time.as_secs_f64() * 1e9 / turns as f64).collect()));
                times[0]
            });
        });
        group.finish();
        // None at all: the case was filtered out. Flat sampling has the same number of turns in every sample; those
        // with other numbers have warmed up.
        if let Some(&(measured, _)) = samples.last() {
            let samples = samples.into_iter().filter(|(turns, _)| *turns == measured).map(|(_, times)| times).collect();
            self.rows.push(Row { case, samples });
        }
    }

    /// Prints the table; nothing where each case has run only once.
    pub(crate) fn finish(self) {
        if is_smoke() {
            return;
        }
        print!("\n| {} | ours |", self.name);
        self.others.iter().for_each(|other| print!(" {other} | ratio |"));
        println!("\n|{}", " --- |".repeat(2 + 2 * self.others.len()));
        for Row { case, samples } in self.rows {
            print!("| {case} | {} |", time(median(samples.iter().map(|times| times[0]))));
            for other in 1..=self.others.len() {
                let floor = median(samples.iter().map(|times| times[other]));
                print!(" {} | {:.2} |", time(floor), median(samples.iter().map(|times| times[0] / times[other])));
            }
            println!();
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Three digits and a unit.
fn time(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n => (n / 1e6, "ms"),
    };
    match value {
        v if v < 10.0 => format!("{v:.2} {unit}"),
        v if v < 100.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}
