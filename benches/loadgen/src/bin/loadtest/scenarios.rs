//! Which scenario is which measurement.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::failure::Failure;
use super::ground::Ground;
use super::options::{Options, Scenario};
use super::outcome::Outcome;
use super::{broadcast, crowd, echo};

/// Runs one; `tell` hears of each measurement as soon as it is there: `stall` makes two.
///
/// # Errors
///
/// When a measurement has no figures.
pub(crate) fn run(
    scenario: Scenario,
    options: &Options,
    stop: &Arc<AtomicBool>,
    mut tell: impl FnMut(Outcome),
) -> Result<(), Failure> {
    let name = scenario.name();
    let outcome = Outcome::new(name, options);
    let ground = |name: &'static str, path: &str| Ground::new(name, path, options, stop);
    match scenario {
        Scenario::Connect => tell(connect(&mut ground(name, "/broadcast")?, outcome)?),
        Scenario::Fanout => tell(broadcast::run(&mut ground(name, "/broadcast")?, outcome, false)?),
        Scenario::Rooms => {
            let outcome = Outcome { rooms: options.rooms, ..outcome };
            tell(broadcast::run(&mut ground(name, "/rooms")?, outcome, false)?);
        }
        Scenario::Echo => tell(echo::run(&mut ground(name, "/echo")?, outcome)?),
        Scenario::Churn => tell(broadcast::run(&mut ground(name, "/broadcast")?, outcome, true)?),
        Scenario::Stall => {
            let base = Outcome { clients: options.clients - options.stalled, ..outcome.clone() };
            let base = Outcome { scenario: "stall_none", ..base };
            tell(broadcast::run(&mut ground("stall_none", "/broadcast")?, base, false)?);
            let outcome = Outcome { stalled: options.stalled, ..outcome };
            tell(broadcast::run(&mut ground(name, "/broadcast")?, outcome, false)?);
        }
    }
    Ok(())
}

fn connect(ground: &mut Ground<'_>, mut outcome: Outcome) -> Result<Outcome, Failure> {
    let url = ground.url.clone();
    crowd::gather(ground, &mut outcome, |_| url.clone())?;
    Ok(outcome)
}
