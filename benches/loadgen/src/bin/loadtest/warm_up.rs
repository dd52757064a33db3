//! Before a broadcast is measured: does everyone hear it, and is whoever does not read really stalled?

use std::time::{Duration, Instant};

use super::audience::Audience;
use super::failure::Failure;
use super::ground::Ground;
use super::pool::Pool;
use super::publishers::Publishers;

const TICK: Duration = Duration::from_millis(50);
/// Until everyone has heard one, probes are sent this often.
const PROBE: Duration = Duration::from_millis(250);
/// Probes are no larger than this: nobody waits for the first before the second is sent.
const LARGEST: usize = 4096;
/// What fills a stalled connection: first the buffers of the kernel, some 50 KB with the segments of such a client, by
/// few messages; then a server's queue for it, by many.
const FILL: [(u64, usize); 2] = [(32, 4096), (320, 32)];
/// So many of these are on their way at one time.
const AT_ONCE: u64 = 8;

/// Until every client has heard its publisher: a server may count a client in only after it has agreed.
pub(crate) fn all_hear(
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
        let is_there = now < next || publishers.probe(pool, ground.options.size.min(LARGEST));
        if now >= next {
            next = now + PROBE;
        }
        if let Some(why) = audience.farewell.take().or_else(|| (!is_there).then(|| "a publisher is gone".into())) {
            return Err(ground.failure(&why));
        }
        pool.turn(TICK, audience)?;
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

/// Sends until a client that does not read can take no more; the others hear all of it, and none of it counts.
pub(crate) fn fill(
    ground: &mut Ground<'_>,
    pool: &mut Pool,
    audience: &mut Audience,
    publishers: &mut Publishers,
) -> Result<(), Failure> {
    let mut progress = ground.progress("stalling", FILL.iter().map(|(count, _)| count).sum());
    let before = publishers.probes;
    for size in FILL.iter().flat_map(|(count, size)| (0..*count).map(|_| *size)) {
        let is_there = publishers.probe(pool, size);
        let deadline = Instant::now() + ground.options.timeout;
        progress.at(Instant::now(), publishers.probes - before);
        while audience.probed() + AT_ONCE <= publishers.probes || !is_there {
            if ground.is_stopped() {
                return Err(Failure::Interrupted);
            }
            if let Some(why) = audience.farewell.take() {
                return Err(ground.failure(&why));
            }
            if !is_there || Instant::now() > deadline {
                return Err(ground.failure("clients that read got nothing more once others did not read"));
            }
            pool.turn(TICK, audience)?;
        }
    }
    Ok(())
}
