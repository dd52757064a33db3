//! `cargo run --release --bin loadtest -- fanout --clients 1000`, in `benches/loadgen`
//!
//! Measures a WebSocket server with real connections, end to end. `--help` lists the scenarios and options; without
//! any, each scenario runs in turn, 5 seconds each, and a table is printed. `--json FILE` writes the figures (`json.rs`
//! describes them), `--svg FILE` draws them.
//!
//! The server is this program once more, as a process of its own, so that its CPU time and memory are measured apart
//! from those of the clients. `--url ws://HOST:PORT/PATH` measures a server that runs already; TLS is not spoken. What
//! such a server must do with a text message depends on the scenario:
//!
//! ```text
//! connect               nothing
//! echo                  send it back to its sender, and to nobody else
//! fanout, churn, stall  send it to every client, the sender included
//! rooms                 send it to every client of the sender's room, the sender included; the room is the number N
//!                       that a client gives as `room=N` in the query, which is appended to the URL
//! ```
//!
//! Messages come back as they were: each payload begins with a stamp. Before a measurement each client must have heard
//! one message; a server that does something else is told what it should. Of a server of ours, the paths are `/echo`,
//! `/broadcast` and `/rooms`. Clients connect 64 at a time; in `churn`, at their rate.
//!
//! All clients are on one thread, which measures itself: when it is busy for more than 90 % of the time, or sends late,
//! the figures say more about it than about the server, and a warning says so. Latencies count from when a message is
//! really sent. A message or connection that is lost and must not be makes the exit status 1; only stalled clients may
//! lose any.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people; what is sent and received fits anywhere"
)]

mod audience;
mod broadcast;
mod child;
mod churn;
mod console;
mod crowd;
mod drain;
mod echo;
mod failure;
mod frame;
mod ground;
mod histogram;
mod inbox;
mod json;
mod link;
mod options;
#[cfg(test)]
mod options_tests;
mod outcome;
mod pace;
mod pool;
mod process;
mod progress;
mod publishers;
mod scenarios;
mod server;
mod stamp;
mod svg;
mod table;
mod url;
mod warm_up;

use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use failure::Failure;
use options::{Command, HELP, Options, Scenario};
use outcome::Outcome;

const LOST: u8 = 1;
const BAD_OPTIONS: u8 = 2;
/// Descriptors besides those of the clients, with a reserve.
const OTHERS: u64 = 64;
/// How long a visitor of `churn` keeps a descriptor, at most, in seconds.
const VISIT: f64 = 2.5;

fn main() -> ExitCode {
    env_logger::init();
    let status = match options::parse(env::args_os().skip(1)) {
        Ok(Command::Run(options)) => match prepare(&options) {
            Ok(stop) => run(&options, &stop),
            Err(why) => bad_options(&why),
        },
        Ok(Command::Serve(size)) => match server::serve(size) {
            Ok(()) => 0,
            Err(error) => {
                console::note(&format!("the server: {error}"));
                LOST
            }
        },
        Ok(Command::Help) => {
            print(HELP);
            0
        }
        Err(why) => bad_options(&format!("{why}\nloadtest --help lists the options")),
    };
    ExitCode::from(status)
}

fn bad_options(why: &str) -> u8 {
    console::note(&format!("loadtest: {why}"));
    BAD_OPTIONS
}

/// Whoever reads may have gone.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Finds out before the first measurement whether what is asked for is possible here.
fn prepare(options: &Options) -> Result<Arc<AtomicBool>, String> {
    let visitors = if options.scenarios.contains(&Scenario::Churn) { options.churn_rate * VISIT } else { 0.0 };
    let needed = options.clients as u64 + visitors as u64 + OTHERS;
    // The server's process takes the limit over.
    let limit = rlimit::increase_nofile_limit(u64::MAX).map_err(|error| format!("descriptors: {error}"))?;
    if limit < needed {
        return Err(format!(
            "{} clients need {needed} descriptors, and the limit is {limit}: take fewer, or raise it (ulimit -Hn)",
            options.clients
        ));
    }
    if let Some(pid) = options.pid
        && process::cpu_time(pid).is_none()
    {
        return Err(format!("--pid {pid}: there is no such process, or no /proc that tells about it"));
    }
    for (name, path) in [("--json", &options.json), ("--svg", &options.svg)] {
        let created = path.as_ref().map_or(Ok(()), |path| File::create(path).map(drop));
        created.map_err(|error| format!("{name} {}: {error}", path.clone().unwrap_or_default().display()))?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second one ends the program at once: this looks before the first has been noted.
        flag::register_conditional_shutdown(signal, 130, stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(|error| error.to_string())?;
    }
    Ok(stop)
}

/// Runs the scenarios and reports; gives the exit status.
fn run(options: &Options, stop: &Arc<AtomicBool>) -> u8 {
    let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
    // Relaxed: the signal's handler writes nothing else.
    let is_stopped = || stop.load(Ordering::Relaxed);
    for scenario in &options.scenarios {
        let result = scenarios::run(*scenario, options, stop, |outcome| {
            warn(&outcome);
            outcomes.push(outcome);
        });
        if let Err(Failure::Because(why)) = result {
            console::note(&format!("{}: {why}", scenario.name()));
            failures.push((scenario.name(), why));
        }
        if is_stopped() {
            break;
        }
    }
    print(&table::table(&outcomes));
    if let Err(why) = save(options, is_stopped(), &outcomes, &failures) {
        console::note(&why);
        failures.push(("report", why));
    }
    let is_whole = failures.is_empty() && outcomes.iter().all(|outcome| outcome.faults().is_empty());
    if is_whole { 0 } else { LOST }
}

fn warn(outcome: &Outcome) {
    let scenario = outcome.scenario;
    if let Some(why) = outcome.generator_bound() {
        console::note(&format!("{scenario}: WARNING: the load generator is the bottleneck: {why}"));
    }
    for fault in outcome.faults() {
        console::note(&format!("{scenario}: FAULT: {fault}"));
    }
}

fn save(
    options: &Options,
    is_interrupted: bool,
    outcomes: &[Outcome],
    failures: &[(&str, String)],
) -> Result<(), String> {
    let url = options.url.as_ref().map(ToString::to_string);
    if let Some(path) = &options.svg {
        let what = url.as_deref().unwrap_or("wshub, a server of its own");
        let seconds = options.duration.as_secs_f64();
        let title = format!("{what}: {} clients, {} bytes, {seconds} s", options.clients, options.size);
        fs::write(path, svg::draw(&title, outcomes)).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(path) = &options.json {
        let report = json::report(url.as_deref(), is_interrupted, outcomes, failures);
        fs::write(path, format!("{report:#}\n")).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
