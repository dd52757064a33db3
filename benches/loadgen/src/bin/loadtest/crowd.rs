//! The clients of a scenario: connected all at once, so far as a server bears it.

use std::time::{Duration, Instant};

use super::failure::Failure;
use super::ground::{Ground, Meter};
use super::histogram::Latencies;
use super::link::Link;
use super::outcome::Outcome;
use super::pool::{Pool, Watcher};
use super::process;
use super::url::Url;

/// Connections that are being made at one time.
const AT_ONCE: usize = 64;
/// What a server does after the last of them, before its memory is read.
const SETTLE: Duration = Duration::from_millis(300);

/// Counts those that are connected.
#[derive(Debug)]
struct Door {
    open: usize,
    handshake: Latencies,
    fault: Option<String>,
}

impl Watcher for Door {
    fn opened(&mut self, _: &mut Link, took: Duration) {
        self.open += 1;
        self.handshake.record(took);
    }

    fn message(&mut self, _: &mut Link, _: &[u8], _: u64) {}

    fn gone(&mut self, id: usize, was_open: bool, why: &str) {
        let when = if was_open { "was connected, then" } else { "could not connect" };
        self.fault.get_or_insert_with(|| format!("client {id} {when}: {why}"));
    }
}

/// Connects the clients, numbered from 0; the last `stalled` of them never read. `outcome` gets all that is known about
/// connections, and is not about messages yet.
///
/// # Errors
///
/// When one of them is refused, is not answered in time, or is closed.
pub(crate) fn gather(
    ground: &mut Ground<'_>,
    outcome: &mut Outcome,
    url: impl Fn(usize) -> Url,
) -> Result<Pool, Failure> {
    let (count, reading) = (outcome.clients, outcome.clients - outcome.stalled);
    let mut pool = Pool::new(count)?;
    let mut door = Door { open: 0, handshake: Latencies::new(), fault: None };
    let mut progress = ground.progress("connected", count as u64);
    let rss = ground.pid().and_then(process::resident_kib);
    let meter = Meter::start(ground);
    let (mut begun, mut seen, mut patience) = (0, 0, Instant::now() + ground.options.timeout);
    while door.open < count {
        while begun < count && begun - door.open < AT_ONCE {
            let opened = pool.open(&url(begun), begun < reading);
            opened.map_err(|error| ground.failure(&format!("client {begun} could not connect: {error}")))?;
            begun += 1;
        }
        turn(ground, &mut pool, &mut door)?;
        let now = Instant::now();
        progress.at(now, door.open as u64);
        if door.open > seen {
            (seen, patience) = (door.open, now + ground.options.timeout);
        } else if now > patience {
            let seconds = ground.options.timeout.as_secs_f64();
            let why = format!("no answer to the upgrade within {seconds} s; {seen} of {count} clients are connected");
            return Err(ground.failure(&why));
        }
    }
    meter.end(outcome);
    outcome.connects = count as u64;
    outcome.connects_per_second = Some(count as f64 / outcome.elapsed.as_secs_f64().max(1e-9));
    outcome.handshake = door.handshake.percentiles();
    let settled = Instant::now() + SETTLE;
    while Instant::now() < settled {
        turn(ground, &mut pool, &mut door)?;
    }
    let grown = ground.pid().and_then(process::resident_kib).zip(rss);
    // A server that had more clients before needs no new memory for these; then nothing is known.
    let grown = grown.and_then(|(after, before)| after.checked_sub(before)).filter(|kib| *kib > 0);
    outcome.kib_per_connection = grown.map(|kib| kib as f64 / count as f64);
    outcome.threads = ground.pid().and_then(process::threads);
    Ok(pool)
}

fn turn(ground: &mut Ground<'_>, pool: &mut Pool, door: &mut Door) -> Result<(), Failure> {
    pool.turn(SETTLE / 4, door)?;
    match door.fault.take() {
        Some(why) => Err(ground.failure(&why)),
        None if ground.is_stopped() => Err(Failure::Interrupted),
        None => Ok(()),
    }
}
