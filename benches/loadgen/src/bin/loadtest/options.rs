//! The command line.

use std::ffi::OsString;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt as _};

use super::stamp;
use super::url::Url;

pub(crate) const HELP: &str = "\
Usage: loadtest [SCENARIO] [OPTIONS]

Scenarios, with what they measure (default: all)
  connect   connections a second, handshake latency, memory of a connection
  fanout    one client publishes, all receive
  rooms     clients spread over rooms, one publisher in each
  echo      each client sends, waits for its message to come back, sends again
  churn     clients come and go while a broadcast goes on to the others
  stall     some clients never read; how the others fare, without them and with them
  all       each in turn; not with --url

Options
  --scenario NAME         the same as SCENARIO
  --clients N             connections, default 1000
  --duration SECONDS      of each measurement, default 5
  --size BYTES            of a message's payload, 32 to 16777216, default 128
  --rate PER_SECOND       messages of each publisher, default 100; 0: as fast as they are received
  --in-flight N           with --rate 0, messages on their way at once, default 8
  --rooms N               default 10
  --churn-rate PER_SECOND connections that come, default 100
  --stalled N             of the clients, those that never read; default a tenth
  --timeout SECONDS       how long an answer may take, default 10
  --url ws://HOST:PORT/PATH  a server that runs already, instead of one of our own; no TLS
  --pid PID               with --url, the server's process: measures its CPU time and memory
  --json FILE             writes the figures
  --svg FILE              draws them
  --quiet                 no progress bars
  --help

Exit status: 0 on success, 1 if a message or connection was lost or a measurement failed, 2 for bad options.
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Connect,
    Fanout,
    Rooms,
    Echo,
    Churn,
    Stall,
}

impl Scenario {
    pub(crate) const ALL: [Self; 6] = [Self::Connect, Self::Fanout, Self::Rooms, Self::Echo, Self::Churn, Self::Stall];

    pub(crate) fn name(self) -> &'static str {
        ["connect", "fanout", "rooms", "echo", "churn", "stall"][self as usize]
    }
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    Run(Box<Options>),
    /// Be the server; for messages of this size.
    Serve(usize),
    Help,
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) clients: usize,
    pub(crate) duration: Duration,
    pub(crate) size: usize,
    /// Messages a second of each publisher; 0 is a closed loop.
    pub(crate) rate: f64,
    pub(crate) in_flight: u64,
    pub(crate) rooms: usize,
    pub(crate) churn_rate: f64,
    pub(crate) stalled: usize,
    pub(crate) timeout: Duration,
    pub(crate) url: Option<Url>,
    pub(crate) pid: Option<u32>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) svg: Option<PathBuf>,
    pub(crate) is_quiet: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scenarios: Vec::new(),
            clients: 1000,
            duration: Duration::from_secs(5),
            size: 128,
            rate: 100.0,
            in_flight: 8,
            rooms: 10,
            churn_rate: 100.0,
            stalled: 0,
            timeout: Duration::from_secs(10),
            url: None,
            pid: None,
            json: None,
            svg: None,
            is_quiet: false,
        }
    }
}

/// Reads the arguments, without the program's name.
///
/// # Errors
///
/// A sentence for the user.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = Parser::from_args(args);
    let mut options = Options::default();
    let (mut stalled, mut rooms, mut is_server) = (None, None, false);
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Long("serve") => is_server = true,
            Arg::Long("scenario") => choose(&mut options, &text(&mut parser)?)?,
            Arg::Value(name) => choose(&mut options, &name.to_string_lossy())?,
            Arg::Long("clients") => options.clients = number(&mut parser, "--clients", 1..=1_000_000)?,
            Arg::Long("duration") => options.duration = seconds(&mut parser, "--duration")?,
            Arg::Long("size") => options.size = number(&mut parser, "--size", stamp::SIZE..=16 << 20)?,
            Arg::Long("rate") => options.rate = number(&mut parser, "--rate", 0.0..=1e6)?,
            Arg::Long("in-flight") => options.in_flight = number(&mut parser, "--in-flight", 1..=1_000_000)?,
            Arg::Long("rooms") => rooms = Some(number(&mut parser, "--rooms", 1..=1_000_000)?),
            Arg::Long("churn-rate") => options.churn_rate = number(&mut parser, "--churn-rate", 0.1..=1e5)?,
            Arg::Long("stalled") => stalled = Some(number(&mut parser, "--stalled", 0..=1_000_000)?),
            Arg::Long("timeout") => options.timeout = seconds(&mut parser, "--timeout")?,
            Arg::Long("url") => {
                options.url = Some(Url::parse(&text(&mut parser)?).map_err(|why| format!("--url: {why}"))?);
            }
            Arg::Long("pid") => options.pid = Some(number(&mut parser, "--pid", 1..=u32::MAX)?),
            Arg::Long("json") => options.json = Some(text(&mut parser)?.into()),
            Arg::Long("svg") => options.svg = Some(text(&mut parser)?.into()),
            Arg::Long("quiet") => options.is_quiet = true,
            Arg::Long(_) | Arg::Short(_) => return Err(arg.unexpected().to_string()),
        }
    }
    if is_server {
        return Ok(Command::Serve(options.size));
    }
    check(&mut options, rooms, stalled)?;
    Ok(Command::Run(Box::new(options)))
}

fn choose(options: &mut Options, name: &str) -> Result<(), String> {
    let names = || Scenario::ALL.map(Scenario::name).join(", ");
    if !options.scenarios.is_empty() {
        return Err(format!("{name:?}: one scenario at a time, or all"));
    }
    options.scenarios = match Scenario::ALL.into_iter().find(|scenario| scenario.name() == name) {
        Some(scenario) => vec![scenario],
        None if name == "all" => Scenario::ALL.into(),
        None => return Err(format!("there is no scenario {name:?}, only {} and all", names())),
    };
    Ok(())
}

/// What fits only together.
fn check(options: &mut Options, rooms: Option<usize>, stalled: Option<usize>) -> Result<(), String> {
    if options.scenarios.is_empty() {
        options.scenarios = Scenario::ALL.into();
    }
    if options.url.is_some() && options.scenarios.len() > 1 {
        return Err("--url needs one scenario: what one URL answers is not what all of them need".into());
    }
    if options.pid.is_some() && options.url.is_none() {
        return Err("--pid needs --url: the process of a server of our own is known".into());
    }
    let clients = options.clients;
    options.rooms = rooms.unwrap_or(options.rooms.min(clients));
    options.stalled = stalled.unwrap_or(clients.div_ceil(10).min(clients - 1));
    if options.rooms > clients {
        return Err(format!("--rooms {}: each needs a client, and there are {clients}", options.rooms));
    }
    if options.stalled >= clients && options.scenarios.contains(&Scenario::Stall) {
        return Err(format!("--stalled {}: one of the {clients} clients must read", options.stalled));
    }
    Ok(())
}

fn text(parser: &mut Parser) -> Result<String, String> {
    let value = parser.value().map_err(|error| error.to_string())?;
    value.string().map_err(|error| error.to_string())
}

fn number<T: FromStr + PartialOrd + Display>(
    parser: &mut Parser,
    name: &str,
    range: RangeInclusive<T>,
) -> Result<T, String> {
    let text = text(parser)?;
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("{name} takes a number from {} to {}, not {text:?}", range.start(), range.end()))
}

/// Up to a day.
fn seconds(parser: &mut Parser, name: &str) -> Result<Duration, String> {
    Ok(Duration::from_secs_f64(number(parser, name, 0.01..=86_400.0)?))
}
