//! `fanout`, `rooms`, `churn` and each half of `stall`: publishers send, everyone in their rooms receives.

use std::time::{Duration, Instant};

use super::audience::Audience;
use super::churn::Churn;
use super::crowd;
use super::drain;
use super::failure::Failure;
use super::ground::{Ground, Meter};
use super::outcome::Outcome;
use super::pace::Pace;
use super::pool::Pool;
use super::publishers::Publishers;
use super::warm_up;

const TICK: Duration = Duration::from_millis(100);

/// Runs it with the outcome's clients, stalled clients and rooms (0: one room for all, without a name), and fills in
/// the rest. Visitors come if the scenario has any.
pub(crate) fn run(ground: &mut Ground<'_>, mut outcome: Outcome, has_visitors: bool) -> Result<Outcome, Failure> {
    let options = ground.options;
    let (url, rooms) = (ground.url.clone(), outcome.rooms);
    let room_url = move |id: usize| if rooms == 0 { url.clone() } else { url.room(id % rooms) };
    let mut pool = crowd::gather(ground, &mut outcome, room_url)?;
    let visitors = has_visitors.then(|| Churn::new(ground.url.clone(), options.churn_rate, options.timeout));
    let mut audience = Audience::new(&outcome, visitors);
    let mut publishers = Publishers::new(audience.rooms, options.size, options.in_flight);
    warm_up::all_hear(ground, &mut pool, &mut audience, &mut publishers)?;
    if outcome.stalled > 0 {
        warm_up::fill(ground, &mut pool, &mut audience, &mut publishers)?;
    }
    let meter = Meter::start(ground);
    outcome.rate = (options.rate > 0.0).then_some(options.rate);
    publishers.pace = outcome.rate.map(|rate| Pace::new(meter.start, rate * audience.rooms as f64));
    publish(ground, &mut pool, &mut audience, &mut publishers, meter.start)?;
    drain::drain(ground, &meter, &mut outcome, |time| {
        pool.turn(time, &mut audience)?;
        Ok(audience.outstanding(&publishers.sent))
    })?;
    outcome.late_share = publishers.pace.as_ref().map_or(0.0, Pace::late_share);
    outcome.is_interrupted = ground.is_stopped();
    audience.report(&mut outcome, &publishers.sent);
    if outcome.stalled > 0 {
        // While they are still connected.
        outcome.dropped = ground.dropped();
    }
    if outcome.dropped == Some(0) {
        outcome.notes.push("the stalled clients' queues are not full: nothing was dropped for them".into());
    }
    Ok(outcome)
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
