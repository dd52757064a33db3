//! `echo`: each client sends, waits for its own message to come back, and sends again.

use std::time::{Duration, Instant};

use super::crowd;
use super::drain;
use super::failure::Failure;
use super::ground::{Ground, Meter};
use super::histogram::Latencies;
use super::link::Link;
use super::outcome::Outcome;
use super::pool::{Clock, Pool, Watcher};
use super::stamp::{Letter, Stamp};

const TICK: Duration = Duration::from_millis(50);

/// The clients, and what each waits for.
#[derive(Debug)]
struct Callers {
    letter: Letter,
    clock: Clock,
    /// The message that each has sent last.
    numbers: Vec<u64>,
    waits: Vec<bool>,
    is_probing: bool,
    is_over: bool,
    sent: u64,
    received: u64,
    disordered: u64,
    stray: u64,
    latency: Latencies,
    foreign: Option<String>,
    lost_connections: u64,
    farewell: Option<String>,
}

impl Callers {
    fn new(pool: &Pool, clients: usize, size: usize) -> Self {
        Self {
            letter: Letter::new(size),
            clock: pool.clock(),
            numbers: vec![0; clients],
            waits: vec![false; clients],
            is_probing: true,
            is_over: false,
            sent: 0,
            received: 0,
            disordered: 0,
            stray: 0,
            latency: Latencies::new(),
            foreign: None,
            lost_connections: 0,
            farewell: None,
        }
    }

    fn call(&mut self, link: &mut Link) {
        let id = link.id;
        self.numbers[id] += 1;
        self.waits[id] = true;
        self.sent += u64::from(!self.is_probing);
        let stamp = Stamp { at: self.clock.nanos(), is_probe: self.is_probing, sender: id, number: self.numbers[id] };
        link.send(self.letter.stamped(stamp));
    }

    fn call_all(&mut self, pool: &mut Pool) {
        for id in 0..self.numbers.len() {
            if let Some(link) = pool.link(id) {
                self.call(link);
            }
        }
    }

    fn waiting(&self) -> u64 {
        self.waits.iter().filter(|waits| **waits).count() as u64
    }

    fn report(&self, outcome: &mut Outcome) {
        (outcome.sent, outcome.expected, outcome.received) = (self.sent, self.sent, self.received);
        (outcome.disordered, outcome.stray) = (self.disordered, self.stray);
        outcome.lost_connections = self.lost_connections;
        outcome.latency = self.latency.percentiles();
        outcome.notes.extend(self.farewell.clone());
    }
}

impl Watcher for Callers {
    fn opened(&mut self, _: &mut Link, _: Duration) {}

    fn message(&mut self, link: &mut Link, payload: &[u8], at: u64) {
        let id = link.id;
        match Stamp::parse(payload) {
            None => self.foreign = Some(String::from_utf8_lossy(&payload[..payload.len().min(60)]).into_owned()),
            Some(stamp) if stamp.sender != id => self.stray += 1,
            Some(stamp) if stamp.number != self.numbers[id] || !self.waits[id] => self.disordered += 1,
            Some(stamp) => {
                self.waits[id] = false;
                if !stamp.is_probe {
                    self.received += 1;
                    self.latency.record_nanos(at.saturating_sub(stamp.at));
                    if !self.is_over {
                        self.call(link);
                    }
                }
            }
        }
    }

    fn gone(&mut self, id: usize, _: bool, why: &str) {
        // What it waits for never comes, and is lost.
        self.waits[id] = false;
        self.lost_connections += 1;
        self.farewell = Some(format!("client {id}: {why}"));
    }
}

pub(crate) fn run(ground: &mut Ground<'_>, mut outcome: Outcome) -> Result<Outcome, Failure> {
    let url = ground.url.clone();
    let mut pool = crowd::gather(ground, &mut outcome, |_| url.clone())?;
    let mut callers = Callers::new(&pool, outcome.clients, ground.options.size);
    warm_up(ground, &mut pool, &mut callers)?;
    let meter = Meter::start(ground);
    let end = meter.start + ground.options.duration;
    let mut progress = ground.progress("ms", ground.options.duration.as_millis() as u64);
    callers.call_all(&mut pool);
    while !ground.is_stopped() && Instant::now() < end {
        pool.turn(TICK.min(end.saturating_duration_since(Instant::now())), &mut callers)?;
        let now = Instant::now();
        progress.at(now, now.saturating_duration_since(meter.start).as_millis() as u64);
    }
    callers.is_over = true;
    drain::drain(ground, &meter, &mut outcome, |time| {
        pool.turn(time, &mut callers)?;
        Ok(callers.waiting())
    })?;
    outcome.is_interrupted = ground.is_stopped();
    callers.report(&mut outcome);
    Ok(outcome)
}

/// One message of each client that does not count.
fn warm_up(ground: &mut Ground<'_>, pool: &mut Pool, callers: &mut Callers) -> Result<(), Failure> {
    let deadline = Instant::now() + ground.options.timeout;
    callers.call_all(pool);
    while callers.waiting() > 0 || callers.stray > 0 {
        if ground.is_stopped() {
            return Err(Failure::Interrupted);
        }
        let answered = callers.numbers.len() as u64 - callers.waiting();
        let why = if let Some(why) = callers.farewell.take() {
            why
        } else if callers.stray > 0 {
            "a client got the message of another; for echo, each must go back to its sender alone".into()
        } else if Instant::now() < deadline {
            pool.turn(TICK, callers)?;
            continue;
        } else if let Some(text) = &callers.foreign {
            format!("what comes is not what was sent, but {text:?}; for echo, each message must go back to its sender")
        } else {
            format!("{answered} of {} clients got their message back; for echo, each must", callers.numbers.len())
        };
        return Err(ground.failure(&why));
    }
    callers.is_probing = false;
    Ok(())
}
