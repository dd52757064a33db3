//! `cargo run --release --example gateway -- --addr 127.0.0.1:8080`
//!
//! A program with its own work that others only watch: the main thread reads (simulated) sensors and publishes their
//! readings; the hub runs beside it and never blocks it. The program prints memory and threads every five seconds.
//! SIGTERM or SIGINT stops the readings, drains the clients and ends the program.
//!
//! A client of `/ws` first gets the text message `sensors NAME NAME …`. It sends `subscribe NAME` or `unsubscribe NAME`
//! and gets `subscribed NAME`, `unsubscribed NAME` or `error WHY`. After a subscription it gets
//! `{"sensor":NAME,"value":NUMBER,"at":UNIX_MS}` for the last and every further reading of the sensor. `history NAME`
//! returns the last hundred readings, `{"sensor":NAME,"history":[…]}`. `watch` returns the last reading of each sensor
//! at once, and then the newest readings at most ten times a second, however fast the sensors are. The page does both.
//! `--tick-us N` sets the duration of a tick in microseconds; default 10,000.
#![allow(clippy::print_stdout, reason = "the report goes to standard output")]

mod common;

use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use signal_hook::consts::{SIGINT, SIGTERM};
use wshub::history::Range;
use wshub::{Client, Config, DropPolicy, HandlerResult, Hub, Limits, Message, Response, RoomOptions, Server};

/// Sensors, and the number of ticks between their readings: 1, 10 and 100 readings a second.
const SENSORS: [(&str, u64); 4] =
    [("sensor/temperature", 100), ("sensor/humidity", 100), ("sensor/pressure", 10), ("sensor/vibration", 1)];
/// The number of ticks between reports: five seconds with default ticks.
const REPORT: u64 = 500;
/// The room whose state is the last reading of each sensor.
const VALUES: &str = "values";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    // A small device: little memory for each client; a slow client misses old readings, not new ones.
    let config = Config::default()
        .read_buffer(512)
        .max_message_size(256)
        .queue_messages(200)
        .queue_bytes(32 * 1024)
        .drop_policy(DropPolicy::DropOldest)
        .lame_duck(Duration::ZERO)
        .drain_timeout(Duration::from_millis(500))
        .drain_spread(Duration::from_secs(1));
    let limits = Limits::default().max_connections(connections_that_fit(&config)).max_message_rate(20);
    let hub = Hub::builder()
        .config(config)
        .rooms("sensor/*", RoomOptions::history().messages(100).bytes(64 * 1024).rewind(1))
        .rooms(VALUES, RoomOptions::state().at_most(10))
        .limits(limits)
        .after_connect(|client| drop(client.send(format!("sensors {}", SENSORS.map(|(name, _)| name).join(" ")))))
        .on_message(receive)
        .on_error(|client, error| drop(client.send(format!("error {error}"))))
        .build()?;
    let handle = Server::bind(common::option("addr", "127.0.0.1:8080"))?
        .websocket("/ws", &hub)
        .probes(&hub)
        .handle("/", |request| common::get(request, || Response::html(include_str!("gateway.html"))))
        .spawn()?;
    common::announce(&handle.local_addr().map(|a| a.to_string()).unwrap_or_default());

    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&is_over))?;
    }
    work(&hub, &is_over)?;
    if let Err(late) = hub.drain(Duration::from_secs(5)) {
        println!("{late}");
    }
    handle.shutdown(Duration::from_secs(2))?;
    println!("stopped");
    Ok(())
}

/// At most 500, or fewer where the machine or this process's control group has less memory: 80 KiB for each and, for a
/// tenth of them, a full queue, within half of what is left.
fn connections_that_fit(config: &Config) -> usize {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    let available =
        available.and_then(|kib| kib.parse::<usize>().ok()).map_or(usize::MAX, |kib| kib.saturating_mul(1024));
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").unwrap_or_default();
    let allowed = group.trim().parse().unwrap_or(usize::MAX);
    let each = 80 * 1024 + (config.queue_bytes + 64 * 1024) / 10;
    (available.min(allowed) / 2 / each).clamp(1, 500)
}

/// The program's main loop.
fn work(hub: &Hub, is_over: &AtomicBool) -> Result<(), Box<dyn std::error::Error>> {
    let tick_us = common::option("tick-us", "10000").parse()?;
    let mut next = Instant::now();
    for tick in 1_u64.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        {
            // All readings of one tick go to each client in one system call.
            let _cork = hub.cork();
            for (sensor, _) in SENSORS.iter().filter(|(_, ticks)| tick % ticks == 0) {
                let reading = serde_json::json!({"sensor": sensor, "value": measure(sensor), "at": unix_ms()});
                let reading = Message::json(&reading)?;
                hub.publish(sensor, &reading);
                hub.set(VALUES, sensor, reading)?;
            }
        }
        if tick % REPORT == 0 {
            report(hub);
        }
        next += Duration::from_micros(tick_us);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn receive(client: &Client, message: &Message) -> HandlerResult {
    let text = message.as_text().unwrap_or_default();
    if text == "watch" {
        return client.join_with(VALUES, None, |_| client.send("watching"))?.map_err(Into::into);
    }
    let request = text.split_once(' ');
    let (verb, sensor) = request.filter(|(_, name)| SENSORS.iter().any(|(s, _)| s == name)).ok_or("no such sensor")?;
    match verb {
        // The answer comes before the last reading.
        "subscribe" => client.join_with(sensor, None, |_| client.send(format!("subscribed {sensor}")))??,
        "unsubscribe" => {
            client.leave(sensor)?;
            client.send(format!("unsubscribed {sensor}"))?;
        }
        "history" => {
            let page = client.hub().history(sensor, Range::oldest_first()).ok_or("nothing has been read yet")?;
            let readings: Vec<_> = page.publications.iter().filter_map(|p| p.message().as_text()).collect();
            client.send(format!("{{\"sensor\":\"{sensor}\",\"history\":[{}]}}", readings.join(",")))?;
        }
        _ => return Err("subscribe, unsubscribe or history".into()),
    }
    Ok(())
}

/// A simulated value that rises and falls.
fn measure(sensor: &str) -> f64 {
    let seconds = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64();
    20.0 + (seconds / if sensor == "sensor/vibration" { 0.1 } else { 10.0 }).sin()
}

fn unix_ms() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Memory and threads as reported by Linux; on other systems only the clients.
fn report(hub: &Hub) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let facts = status.lines().filter(|line| line.starts_with("VmRSS:") || line.starts_with("Threads:"));
    let facts: Vec<String> = facts.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    println!("{} clients, {}", hub.client_count(), facts.join(", "));
}
