//! The sensors, simulated: each has a queue of commands, which the main loop reads as a driver would.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use wshub::Message;
use wshub::calls::CallRefusal;

/// Sensors, and the number of ticks between their readings: 1, 10 and 100 readings a second with default ticks.
pub(crate) const SENSORS: [(&str, u64); 4] =
    [("sensor/temperature", 100), ("sensor/humidity", 100), ("sensor/pressure", 10), ("sensor/vibration", 1)];
/// How long a client waits for a sensor to answer its command.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum number of commands that wait for one sensor.
const QUEUE: usize = 8;

#[derive(Clone, Serialize)]
pub(crate) struct Reading {
    sensor: &'static str,
    value: f64,
    at: u64,
}

/// What a client sends with a command.
#[derive(Deserialize)]
struct Wanted {
    sensor: String,
    ms: Option<u64>,
}

#[derive(Serialize)]
struct Interval<'a> {
    sensor: &'a str,
    ms: u64,
}

enum Command {
    Read,
    /// Sets the number of ticks between readings.
    Every(u64),
}

/// What a client waits for: the sensor's reading after its command.
#[derive(Default)]
struct Answer {
    reading: Mutex<Option<Reading>>,
    given: Condvar,
}

type Queue = Mutex<VecDeque<(Command, Arc<Answer>)>>;

/// A sensor on the program's side.
pub(crate) struct Sensor {
    pub(crate) name: &'static str,
    every: u64,
    commands: Arc<Queue>,
    /// It sends readings, and answers no command.
    is_silent: bool,
}

impl Sensor {
    /// Carries out the commands that wait, and returns the readings of this tick.
    pub(crate) fn tick(&mut self, tick: u64) -> Vec<Reading> {
        let mut readings = Vec::new();
        while let Some((command, answer)) = self.next_command() {
            let reading = self.read();
            match command {
                Command::Read => readings.push(reading.clone()),
                Command::Every(ticks) => self.every = ticks,
            }
            *answer.reading.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
            answer.given.notify_one();
        }
        if tick % self.every == 0 {
            readings.push(self.read());
        }
        readings
    }

    fn next_command(&self) -> Option<(Command, Arc<Answer>)> {
        if self.is_silent {
            return None;
        }
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// A value that rises and falls.
    fn read(&self) -> Reading {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let period = if self.name == "sensor/vibration" { 0.1 } else { 10.0 };
        let value = 20.0 + (now.as_secs_f64() / period).sin();
        Reading { sensor: self.name, value, at: u64::try_from(now.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// Passes clients' commands to the sensors.
pub(crate) struct Commands {
    queues: [Arc<Queue>; SENSORS.len()],
    tick: Duration,
}

/// Creates all sensors and their command queues. The silent one, if any, answers no command.
pub(crate) fn all(tick: Duration, silent: Option<&str>) -> (Vec<Sensor>, Commands) {
    let queues = SENSORS.map(|_| Arc::default());
    let sensors = SENSORS.iter().zip(&queues).map(|((name, every), commands)| Sensor {
        name,
        every: *every,
        commands: Arc::clone(commands),
        is_silent: silent == Some(name),
    });
    (sensors.collect(), Commands { queues, tick })
}

impl Commands {
    /// Answers `read`, `{"sensor"}`: the sensor's value now.
    pub(crate) fn read(&self, data: &Message) -> Result<Message, CallRefusal> {
        let wanted = parse(data)?;
        to_json(&self.give(&wanted.sensor, Command::Read)?)
    }

    /// Answers `interval`, `{"sensor","ms"}`: the milliseconds between readings, in whole ticks, from now on.
    pub(crate) fn interval(&self, data: &Message) -> Result<Message, CallRefusal> {
        let wanted = parse(data)?;
        let ms = wanted.ms.filter(|ms| (1..=60_000).contains(ms));
        let ms = ms.ok_or_else(|| CallRefusal::new("bad_request", "ms is a number from 1 to 60000"))?;
        let tick = u64::try_from(self.tick.as_micros()).unwrap_or(u64::MAX).max(1);
        let ticks = (ms * 1000 / tick).max(1);
        self.give(&wanted.sensor, Command::Every(ticks))?;
        to_json(&Interval { sensor: &wanted.sensor, ms: ticks.saturating_mul(tick) / 1000 })
    }

    /// Blocks the client's own thread: its other messages wait meanwhile, those of others do not.
    fn give(&self, sensor: &str, command: Command) -> Result<Reading, CallRefusal> {
        let index = SENSORS.iter().position(|(name, _)| *name == sensor);
        let index = index.ok_or_else(|| CallRefusal::new("unknown_sensor", "no such sensor"))?;
        let answer = Arc::new(Answer::default());
        {
            let mut queue = self.queues[index].lock().unwrap_or_else(PoisonError::into_inner);
            if queue.len() == QUEUE {
                return Err(CallRefusal::new("busy", format!("{QUEUE} commands wait for the sensor")));
            }
            queue.push_back((command, Arc::clone(&answer)));
        }
        let reading = answer.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = answer.given.wait_timeout_while(reading, PATIENCE, |reading| reading.is_none());
        let (mut reading, _) = waited.unwrap_or_else(PoisonError::into_inner);
        reading.take().ok_or_else(|| CallRefusal::new("timeout", format!("no answer within {PATIENCE:?}")))
    }
}

fn parse(data: &Message) -> Result<Wanted, CallRefusal> {
    data.parse_json().map_err(|error| CallRefusal::new("bad_request", error.to_string()))
}

fn to_json(value: &impl Serialize) -> Result<Message, CallRefusal> {
    Message::json(value).map_err(|error| CallRefusal::new("internal", error.to_string()))
}
