//! `cargo run --release --example gateway -- --addr 127.0.0.1:8080`
//!
//! A program with its own work: the main thread reads (simulated) sensors and publishes their readings. The hub runs
//! beside it and never blocks it. The program prints memory and threads every five seconds. SIGTERM or SIGINT stops the
//! readings, drains the clients and ends the program.
//!
//! A client of `/ws` first gets the text message `sensors NAME NAME …`. It sends `subscribe NAME` or `unsubscribe NAME`
//! and gets `subscribed NAME`, `unsubscribed NAME` or `error WHY`. After a subscription it gets
//! `{"sensor":NAME,"value":NUMBER,"at":UNIX_MS}` for the last and every further reading of the sensor. `history NAME`
//! returns the last hundred readings, `{"sensor":NAME,"history":[…]}`. `watch` returns the last reading of each sensor
//! at once, and then the newest readings at most ten times a second, however fast the sensors are. The page does both.
//!
//! A client can also call for a command to a sensor: `{"type":"call","id":1,"method":"read","data":{"sensor":NAME}}`.
//! `read` returns its value now; `interval`, with `{"sensor":NAME,"ms":NUMBER}`, sets the time between readings. The
//! answer is a `reply` with `data`. If the sensor does not answer within two seconds, it is an `error` with the code
//! `timeout`. The page has buttons for both. `--silent NAME` makes a sensor answer no command.
//!
//! `--admin-password P` serves the dashboard at `/admin`, user `admin`. From there a page can be called: `identify`
//! makes it light up. `--tick-us N` sets the duration of a tick in microseconds; default 10,000.
#![allow(clippy::print_stdout, reason = "the report goes to standard output")]

#[path = "../common/mod.rs"]
mod common;
mod sensors;

use std::path::Path;
use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sensors::{SENSORS, Sensor};
use signal_hook::consts::{SIGINT, SIGTERM};
use wshub::calls::{CallHandlers, JsonCalls};
use wshub::history::Range;
use wshub::{Client, Config, DropPolicy, HandlerResult, Hub, Limits, Message, Response, RoomOptions, Server};

/// The number of ticks between reports: five seconds with default ticks.
const REPORT: u64 = 500;
/// The room whose state is the last reading of each sensor.
const VALUES: &str = "values";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    log_to_stderr();
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
    let tick = Duration::from_micros(common::option("tick-us", "10000").parse()?);
    let (sensors, commands) = sensors::all(tick, common::option_or_none("silent").as_deref());
    let calls = handlers(commands);
    let hub = Hub::builder()
        .config(config)
        .rooms("sensor/*", RoomOptions::history().messages(100).bytes(64 * 1024).rewind(1))
        .rooms(VALUES, RoomOptions::state().at_most(10))
        .limits(limits)
        .after_connect(|client| drop(client.send(format!("sensors {}", SENSORS.map(|(name, _)| name).join(" ")))))
        .call_format(JsonCalls)
        .on_message(move |client, message| calls.handle(client, message).unwrap_or_else(|| receive(client, message)))
        .on_error(|client, error| drop(client.send(format!("error {error}"))))
        .build()?;
    let server = Server::bind(common::option("addr", "127.0.0.1:8080"))?
        .websocket("/ws", &hub)
        .probes(&hub)
        .handle("/", |request| common::get(request, || Response::html(include_str!("page.html"))));
    let handle = with_dashboard(server, &hub).spawn()?;
    common::announce(&handle.local_addr().map(|a| a.to_string()).unwrap_or_default());

    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&is_over))?;
    }
    work(&hub, sensors, tick, &is_over)?;
    if let Err(late) = hub.drain(Duration::from_secs(5)) {
        println!("{late}");
    }
    handle.shutdown(Duration::from_secs(2))?;
    println!("stopped");
    Ok(())
}

/// Warnings and errors, or what `RUST_LOG` names: one level for all targets. A small program does without `env_logger`,
/// which takes 20 KB.
fn log_to_stderr() {
    struct Stderr;
    impl log::Log for Stderr {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            common::note(&format!("{} {}: {}", record.level(), record.target(), record.args()));
        }
        fn flush(&self) {}
    }
    let level = std::env::var("RUST_LOG").ok().and_then(|level| level.parse().ok());
    log::set_max_level(level.unwrap_or(log::LevelFilter::Warn));
    // Fails only if there is a logger already.
    let _ = log::set_logger(&Stderr);
}

/// At most 500, or fewer where the machine or a control group of this process has less memory: 80 KiB for each and, for a
/// tenth of them, a full queue, within half of what is left.
fn connections_that_fit(config: &Config) -> usize {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    let available =
        available.and_then(|kib| kib.parse::<usize>().ok()).map_or(usize::MAX, |kib| kib.saturating_mul(1024));
    let each = 80 * 1024 + (config.queue_bytes + 64 * 1024) / 10;
    (available.min(left_by_groups()) / 2 / each).clamp(1, 500)
}

/// What this process's control group, and those above it, have left of their memory (cgroup v2).
fn left_by_groups() -> usize {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let read = |group: &Path, file| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<usize>().ok();
    // A group without a limit has "max" there.
    let left = |group: &Path| Some(read(group, "memory.max")?.saturating_sub(read(group, "memory.current")?));
    Path::new("/sys/fs/cgroup").join(own).ancestors().filter_map(left).min().unwrap_or(usize::MAX)
}

/// What clients can call.
fn handlers(commands: sensors::Commands) -> CallHandlers {
    let commands = Arc::new(commands);
    let mut calls = CallHandlers::new();
    let reads = Arc::clone(&commands);
    calls.insert("read", move |_, data| reads.read(data));
    calls.insert("interval", move |_, data| commands.interval(data));
    calls
}

#[cfg(feature = "dashboard")]
fn with_dashboard(server: Server, hub: &Hub) -> Server {
    use wshub::dashboard::Dashboard;
    match common::option_or_none("admin-password") {
        Some(password) => {
            let dashboard = Dashboard::new(hub).title("gateway").auth(Dashboard::basic("admin", &password));
            server.dashboard("/admin", dashboard)
        }
        None => server,
    }
}

#[cfg(not(feature = "dashboard"))]
fn with_dashboard(server: Server, _: &Hub) -> Server {
    server
}

/// The program's main loop.
fn work(
    hub: &Hub,
    mut sensors: Vec<Sensor>,
    tick_time: Duration,
    is_over: &AtomicBool,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut next = Instant::now();
    for tick in 1_u64.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        {
            // All readings of one tick go to each client in one system call.
            let _cork = hub.cork();
            for sensor in &mut sensors {
                for reading in sensor.tick(tick) {
                    let reading = Message::json(&reading)?;
                    hub.publish(sensor.name, &reading);
                    hub.set(VALUES, sensor.name, reading)?;
                }
            }
        }
        if tick % REPORT == 0 {
            report(hub);
        }
        next += tick_time;
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

/// Memory and threads as reported by Linux; on other systems only the clients.
fn report(hub: &Hub) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let facts = status.lines().filter(|line| line.starts_with("VmRSS:") || line.starts_with("Threads:"));
    let facts: Vec<String> = facts.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    println!("{} clients, {}", hub.client_count(), facts.join(", "));
}
