//! After the last message: what is on its way must arrive.

use std::io;
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::ground::{Ground, Meter};
use super::outcome::Outcome;

const TICK: Duration = Duration::from_millis(50);
/// For one who has sent a signal and waits.
const IMPATIENCE: Duration = Duration::from_secs(2);

/// Waits until nothing is missing, or nothing has come for the time that an answer may take. The measurement ends with
/// what came last. `turn` handles what comes in at most the time given, and says how much is still missing.
pub(crate) fn drain(
    ground: &Ground<'_>,
    meter: &Meter,
    outcome: &mut Outcome,
    mut turn: impl FnMut(Duration) -> io::Result<u64>,
) -> Result<(), Failure> {
    let (mut left, mut since, mut is_measured) = (turn(Duration::ZERO)?, Instant::now(), false);
    while left > 0 {
        let patience =
            if ground.is_stopped() { ground.options.timeout.min(IMPATIENCE) } else { ground.options.timeout };
        if since.elapsed() > patience {
            break;
        }
        let now_left = turn(TICK)?;
        if now_left < left {
            (left, since, is_measured) = (now_left, Instant::now(), false);
        } else if !is_measured {
            meter.end(outcome);
            is_measured = true;
        }
    }
    if !is_measured {
        meter.end(outcome);
    }
    Ok(())
}
