//! `fanout`, `rooms`, `churn` and each half of `stall`: publishers send, everyone in their rooms receives.

use std::time::{Duration, Instant};

use super::audience::Audience;
use super::churn::Churn;
use super::crowd;
use super::failure::Failure;
use super::ground::{Ground, Meter};
use super::outcome::Outcome;
use super::pace::Pace;
use super::pool::Pool;
use super::publishers::Publishers;

const TICK: Duration = Duration::from_millis(100);
/// Until everyone has heard one, probes are sent this often.
const PROBE: Duration = Duration::from_millis(250);
/// After the last message: how long nothing may arrive before the rest counts as lost.
const SILENCE: Duration = Duration::from_secs(3);

/// Runs it with the outcome's clients, stalled clients and rooms (0: one room for all, without a name), and fills in the
/// rest. Visitors come if the scenario has any.
pub(crate) fn run(ground: &mut Ground<'_>, mut outcome: Outcome, has_visitors: bool) -> Result<Outcome, Failure> {
    let options = ground.options;
    let (url, rooms) = (ground.url.clone(), outcome.rooms);
    let room_url = move |id: usize| if rooms == 0 { url.clone() } else { url.room(id % rooms) };
    let mut pool = crowd::gather(ground, &mut outcome, room_url)?;
    let visitors = has_visitors.then(|| Churn::new(ground.url.clone(), options.churn_rate, options.timeout));
    let mut audience = Audience::new(&outcome, visitors);
    let mut publishers = Publishers::new(audience.rooms, options.size, options.in_flight);
    warm_up(ground, &mut pool, &mut audience, &mut publishers)?;
    let meter = Meter::start(ground);
    outcome.rate = (options.rate > 0.0).then_some(options.rate);
    publishers.pace = outcome.rate.map(|rate| Pace::new(meter.start, rate * audience.rooms as f64));
    publish(ground, &mut pool, &mut audience, &mut publishers, meter.start)?;
    drain(ground, &mut pool, &mut audience, &publishers.sent)?;
    meter.end(&mut outcome);
    outcome.late_share = publishers.pace.as_ref().map_or(0.0, Pace::late_share);
    outcome.is_interrupted = ground.is_stopped();
    audience.report(&mut outcome, &publishers.sent);
    Ok(outcome)
}

/// Until every client has heard its publisher: a server may count a client in only after it has agreed.
fn warm_up(
    ground: &mut Ground<'_>,
    pool: &mut Pool,
    audience: &mut Audience,
    publishers: &mut Publishers,
) -> Result<(), Failure> {
    let start = Instant::now();
    let (deadline, mut next) = (start + ground.options.timeout, start);
    loop {
        let now = Instant::now();
        let (first, others) = audience.warm();
        if audience.stray() > 0 || now > deadline {
            let why = what_is_wrong(ground.scenario, audience, (first, others));
            return Err(ground.failure(&why));
        }
        if first + others == audience.len() {
            return Ok(());
        }
        if ground.is_stopped() {
            return Err(Failure::Interrupted);
        }
        let is_there = now < next || publishers.probe(pool);
        if now >= next {
            next = now + PROBE;
        }
        if let Some(why) = audience.farewell.take().or_else(|| (!is_there).then(|| "a publisher is gone".into())) {
            return Err(ground.failure(&why));
        }
        pool.turn(TICK / 2, audience)?;
    }
}

/// What the server does instead of a broadcast.
fn what_is_wrong(scenario: &str, audience: &Audience, (publishers, others): (usize, usize)) -> String {
    let need = match audience.rooms {
        1 => "each message must go to every client, its sender included".to_owned(),
        _ => "each message must go to every client of its sender's room (`room=N` in the query), its sender included"
            .to_owned(),
    };
    let found = match (publishers, others) {
        _ if audience.stray() > 0 => "a client got a message from another room".to_owned(),
        (0, 0) => match &audience.foreign {
            Some(text) => format!("what comes is not what was sent, but {text:?}"),
            None => "nothing comes back".to_owned(),
        },
        (_, 0) => "messages only go back to their senders".to_owned(),
        (0, _) => "messages do not go back to their senders".to_owned(),
        (some, more) => format!("messages go to {} of {} clients only", some + more, audience.len()),
    };
    format!("{found}; for {scenario}, {need}")
}

fn publish(
    ground: &mut Ground<'_>,
    pool: &mut Pool,
    audience: &mut Audience,
    publishers: &mut Publishers,
    start: Instant,
) -> Result<(), Failure> {
    let end = start + ground.options.duration;
    let mut progress = ground.progress("ms", ground.options.duration.as_millis() as u64);
    if let Some(visitors) = &mut audience.visitors {
        visitors.start(start, ground.options.churn_rate);
    }
    loop {
        let now = Instant::now();
        if now >= end || ground.is_stopped() {
            return Ok(());
        }
        if !publishers.turn(pool, audience, now) {
            let why = audience.farewell.take().unwrap_or_default();
            return Err(ground.failure(&format!("a publisher's connection was lost: {why}")));
        }
        if let Some(visitors) = &mut audience.visitors {
            visitors.turn(pool, now);
        }
        progress.at(now, now.saturating_duration_since(start).as_millis() as u64);
        let paces = publishers.pace.iter().chain(audience.visitors.as_ref().map(|visitors| &visitors.pace));
        let next = paces.map(Pace::next).fold(end.min(now + TICK), Instant::min);
        pool.turn(next.saturating_duration_since(Instant::now()), audience)?;
    }
}

/// Waits for what is on its way.
fn drain(ground: &mut Ground<'_>, pool: &mut Pool, audience: &mut Audience, sent: &[u64]) -> Result<(), Failure> {
    let mut left = audience.outstanding(sent);
    let mut patience = Instant::now() + SILENCE.min(ground.options.timeout);
    while left > 0 && Instant::now() < patience {
        pool.turn(TICK, audience)?;
        let now_left = audience.outstanding(sent);
        if now_left < left {
            (left, patience) = (now_left, Instant::now() + SILENCE.min(ground.options.timeout));
        }
    }
    Ok(())
}
