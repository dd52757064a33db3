//! The sensors, simulated: each has a queue of commands, which the main loop reads as a driver would.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use wshub::Message;
use wshub::calls::CallRefusal;

/// Sensors, and the number of ticks between their readings: 1, 10 and 100 readings a second with default ticks.
pub(crate) const SENSORS: [(&str, u64); 4] =
    [("sensor/temperature", 100), ("sensor/humidity", 100), ("sensor/pressure", 10), ("sensor/vibration", 1)];
/// How long a client waits for a sensor to answer its command.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum number of commands that wait for one sensor.
const QUEUE: usize = 8;

enum Command {
    Read,
    /// Sets the number of ticks between readings.
    Every(u64),
}

type Queued = (Command, Sender<Value>);

/// A sensor on the program's side.
pub(crate) struct Sensor {
    pub(crate) name: &'static str,
    every: u64,
    /// `None`: it sends readings, and answers no command.
    commands: Option<Receiver<Queued>>,
}

impl Sensor {
    /// Carries out the commands that wait, and returns the readings of this tick.
    pub(crate) fn tick(&mut self, tick: u64) -> Vec<Value> {
        let mut readings = Vec::new();
        for (command, answer) in self.commands.iter().flat_map(Receiver::try_iter) {
            let done = match command {
                Command::Read => {
                    let reading = self.read();
                    readings.push(reading.clone());
                    reading
                }
                Command::Every(ticks) => {
                    self.every = ticks;
                    Value::Null
                }
            };
            // Who has asked may have given up.
            let _ = answer.send(done);
        }
        if tick % self.every == 0 {
            readings.push(self.read());
        }
        readings
    }

    /// A value that rises and falls.
    fn read(&self) -> Value {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let period = if self.name == "sensor/vibration" { 0.1 } else { 10.0 };
        let value = 20.0 + (now.as_secs_f64() / period).sin();
        json!({"sensor": self.name, "value": value, "at": u64::try_from(now.as_millis()).unwrap_or(u64::MAX)})
    }
}

/// Passes clients' commands to the sensors.
pub(crate) struct Commands {
    queues: HashMap<&'static str, SyncSender<Queued>>,
    tick: Duration,
}

/// Creates all sensors and their command queues. The silent one, if any, answers no command.
pub(crate) fn all(tick: Duration, silent: Option<&str>) -> (Vec<Sensor>, Commands) {
    let (mut sensors, mut queues) = (Vec::new(), HashMap::new());
    for (name, every) in SENSORS {
        let (queue, commands) = sync_channel(QUEUE);
        queues.insert(name, queue);
        if silent == Some(name) {
            // Its queue stays open.
            std::mem::forget(commands);
            sensors.push(Sensor { name, every, commands: None });
        } else {
            sensors.push(Sensor { name, every, commands: Some(commands) });
        }
    }
    (sensors, Commands { queues, tick })
}

impl Commands {
    /// Answers `read`, `{"sensor"}`: the sensor's value now.
    pub(crate) fn read(&self, data: &Message) -> Result<Message, CallRefusal> {
        let data: Value = parse(data)?;
        self.give(&data, Command::Read).map(|reading| Message::raw_json(reading.to_string()))
    }

    /// Answers `interval`, `{"sensor","ms"}`: the milliseconds between readings, in whole ticks, from now on.
    pub(crate) fn interval(&self, data: &Message) -> Result<Message, CallRefusal> {
        let data: Value = parse(data)?;
        let ms = data["ms"].as_u64().filter(|ms| (1..=60_000).contains(ms));
        let ms = ms.ok_or_else(|| CallRefusal::new("bad_request", "ms is a number from 1 to 60000"))?;
        let tick = self.tick.as_micros().max(1);
        let ticks = u64::try_from(u128::from(ms) * 1000 / tick).unwrap_or(u64::MAX).max(1);
        self.give(&data, Command::Every(ticks))?;
        Ok(Message::raw_json(json!({"sensor": data["sensor"], "ms": u128::from(ticks) * tick / 1000}).to_string()))
    }

    /// Blocks the client's own thread: its other messages wait meanwhile, those of others do not.
    fn give(&self, data: &Value, command: Command) -> Result<Value, CallRefusal> {
        let queue = data["sensor"].as_str().and_then(|name| self.queues.get(name));
        let queue = queue.ok_or_else(|| CallRefusal::new("unknown_sensor", "no such sensor"))?;
        let (answer, answered) = channel();
        let sent = queue.try_send((command, answer));
        sent.map_err(|_| CallRefusal::new("busy", format!("{QUEUE} commands wait for the sensor")))?;
        answered.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => CallRefusal::new("timeout", format!("no answer within {PATIENCE:?}")),
            RecvTimeoutError::Disconnected => CallRefusal::new("gone", "the sensor was removed"),
        })
    }
}

fn parse(data: &Message) -> Result<Value, CallRefusal> {
    data.parse_json().map_err(|error| CallRefusal::new("bad_request", error.to_string()))
}
