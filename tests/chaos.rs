//! Thousands of hostile peers, hundreds at a time, while descriptors and threads run out now and then. Well-behaved
//! clients notice nothing, and in the end no resource is left. Alone in its process, because it measures the process.
//!
//! `WSHUB_CHAOS_SECONDS` sets a longer run than sixteen seconds. `WSHUB_CHAOS_SEED` repeats the peers' choices, but not
//! their timing.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by a panic, and reports what it has measured"
)]

mod chaos {
    pub(crate) mod clients;
    pub(crate) mod famine;
    pub(crate) mod peers;
}
mod common;
#[path = "common/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use chaos::clients::{Ear, SPEAKERS, listener, speaker};
use chaos::famine::{STACK, no_descriptors, no_threads};
use chaos::peers::{Doors, KINDS, Peer};
use common::limits::descriptors;
use common::stream::SseClient;
use common::tls::{bridge, server_side};
use common::{PATIENCE, Random, WsClient, crate_threads, errors, eventually};
use counting::{live_bytes, resident_kib};
use rlimit::Resource;
use wshub::{
    Admission, Client, HandlerResult, Hub, Message, Server, ServerHandle, Target,
    metrics::{DebugMetrics, ErrorType},
    server::Listener,
};

/// Threads that act for the bad peers, and peers of each at one time.
const HANDS: usize = 8;
const PEERS: usize = 50;
const ROOMS: usize = 4;
/// Event streams of each room.
const STREAMS: usize = 2;
/// Bytes that may be in use afterwards beyond those before: compressors and decompressors are kept for the next message
/// (up to 1.5 MiB), and what threads and the standard library have made once.
const MARGIN: usize = 2 << 20;
/// The same for resident memory, in KiB: only against what has no end. The allocator keeps in its arenas what the storm
/// needed at its height, 30 to 110 MiB as the runs differ; what is in use is counted exactly.
const RESIDENT_MARGIN: usize = 256 << 10;

/// What must not happen: panics of the crate's threads, and records at `error`.
static SCANDALS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Listening;

impl log::Log for Listening {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() == log::Level::Error
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            SCANDALS.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn watch() {
    log::set_logger(&Listening).unwrap();
    log::set_max_level(log::LevelFilter::Error);
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if thread::current().name().is_some_and(|name| name.starts_with("wshub-")) {
            SCANDALS.lock().unwrap().push(info.to_string());
        }
        previous(info);
    }));
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Joins and leaves rooms as it is told; anything else goes to the room that the client began with.
fn on_message(client: &Client, message: &Message) -> HandlerResult {
    let Some(text) = message.as_text() else { return Ok(()) };
    match text.split_once(' ') {
        Some(("join", room)) => client.join(room)?,
        Some(("leave", room)) => client.leave(room)?,
        _ => {
            let room = client.request().query_param("room").unwrap_or_default();
            client.hub().send(Target::room(room), text)?;
        }
    }
    Ok(())
}

fn hub(metrics: &Arc<DebugMetrics>) -> Hub {
    let builder = Hub::builder().metrics(metrics.clone()).map_config(|config| {
        let config = config.compression(true).compression_min_size(100).max_message_size(64 * 1024);
        // Decent clients must be able to wait for a processor; nobody else may wait for much.
        let config = config.queue_messages(100_000).queue_bytes(1 << 20).write_timeout(Duration::from_secs(3));
        let config = config.ping_period(Duration::from_secs(3)).pong_timeout(Duration::from_secs(8));
        config.heartbeat(Duration::from_secs(1)).close_timeout(Duration::from_secs(1))
    });
    let builder = builder.on_upgrade(|head| match head.query_param("room") {
        Some(room) => Ok(Admission::anonymous().room(room)),
        None => Ok(Admission::anonymous()),
    });
    builder.on_message(on_message).build().unwrap()
}

/// A plain listener, one with TLS, and one whose connections need an absurd stack.
fn servers(hub: &Hub, metrics: &Arc<DebugMetrics>) -> [ServerHandle; 3] {
    let listener = || Listener::tcp("127.0.0.1:0").unwrap();
    let setups = [(listener(), 256 * 1024), (listener().tls(&server_side()), 256 * 1024), (listener(), STACK)];
    setups.map(|(listener, stack)| {
        let server = Server::on(listener).websocket("/ws", hub).event_stream("/events", hub);
        let server = server.metrics(metrics.clone()).stack_size(stack).max_handshakes(100);
        server.handshake_timeout(Duration::from_secs(5)).spawn().unwrap()
    })
}

/// Keeps a number of peers busy; gives how many there have been of each kind.
fn hand(doors: Doors, mut random: Random, end: Instant) -> [usize; KINDS.len()] {
    let mut counts = [0; KINDS.len()];
    let mut peers: Vec<Peer> = Vec::new();
    while Instant::now() < end {
        // A few at a time, and now and then all at once.
        let storm = if random.below(100) == 0 { PEERS } else { 3 };
        for _ in 0..storm.min(PEERS - peers.len()) {
            let kind = random.below(KINDS.len());
            // It may fail: there are not always descriptors.
            if let Ok(peer) = Peer::begin(&KINDS[kind], doors, &mut random) {
                peers.push(peer);
                counts[kind] += 1;
            }
        }
        let now = Instant::now();
        peers.retain_mut(|peer| peer.step(now));
        thread::sleep(Duration::from_millis(5));
    }
    counts
}

/// Something to be deaf to.
fn make_noise(hub: &Hub, is_over: &AtomicBool) {
    let (loud, din) = ("noise ".repeat(200), "noise ".repeat(10_000));
    while !is_over.load(Ordering::SeqCst) {
        hub.send(Target::room("loud"), loud.as_str()).unwrap();
        hub.send(Target::room("din"), din.as_str()).unwrap();
        thread::sleep(Duration::from_millis(40));
    }
}

/// Takes descriptors and threads away, again and again; gives how many peers were told that there are none.
fn starve(doors: Doors, roomy: std::net::SocketAddr, end: Instant) -> usize {
    let mut refused = 0;
    let mut rounds = 0;
    while Instant::now() < end {
        refused += no_descriptors(doors.plain);
        no_threads(roomy);
        rounds += 1;
        thread::sleep(Duration::from_secs(2));
    }
    eprintln!("{rounds} times without descriptors and threads; {refused} were told so");
    refused
}

/// Decent clients; what they have heard.
fn decent(doors: Doors, end: Instant) -> Vec<Ear> {
    let began = Instant::now();
    let secure = bridge(doors.tls);
    let all = Barrier::new(ROOMS * (SPEAKERS + STREAMS));
    thread::scope(|scope| {
        let mut ears = Vec::new();
        for room in 0..ROOMS {
            for number in 0..SPEAKERS {
                // One in each room has TLS.
                let addr = if number == 0 { secure } else { doors.plain };
                let socket = WsClient::connect(addr, &format!("/ws?room={room}"), "");
                let all = &all;
                ears.push(scope.spawn(move || speaker(socket, (room, number), began, end, all)));
            }
            for _ in 0..STREAMS {
                let stream = SseClient::connect(doors.plain, &format!("/events?room={room}"), "");
                let all = &all;
                ears.push(scope.spawn(move || listener(stream, room, began, all)));
            }
        }
        ears.into_iter().map(|ear| ear.join().unwrap()).collect()
    })
}

fn report(ears: &[Ear]) {
    let mut delays: Vec<u32> = ears.iter().flat_map(|ear| &ear.delays).copied().collect();
    delays.sort_unstable();
    let at = |share: f64| {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place"
        )]
        let place = (delays.len() as f64 * share) as usize;
        f64::from(delays[place.min(delays.len() - 1)]) / 1000.0
    };
    let count = delays.len();
    eprintln!(
        "{count} messages heard; delay in ms: median {:.1}, 90 % {:.1}, 99 % {:.1}, 99.9 % {:.1}, all {:.1}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

/// Each listener accepts once more. One that was robbed of its spare descriptor in a famine has it again after that,
/// and it would seem to be left over in the end.
fn visit(servers: &[ServerHandle; 3]) {
    for server in servers {
        let mut stream = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"nonsense\r\n\r\n").unwrap();
        // Whatever the answer is.
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

/// Everything at once, until `end`; gives how many were refused for want of descriptors.
fn storm(hub: &Hub, servers: &[ServerHandle; 3], seed: u64, end: Instant) -> usize {
    let addr = |n: usize| servers[n].local_addr().unwrap();
    let doors = Doors { plain: addr(0), tls: addr(1) };
    let is_over = AtomicBool::new(false);
    let most = AtomicUsize::new(0);
    thread::scope(|scope| {
        let decent = scope.spawn(move || decent(doors, end));
        // Their descriptors are there before anybody takes them away.
        eventually("the decent clients are in", || hub.client_count() == ROOMS * (SPEAKERS + STREAMS));
        scope.spawn(|| make_noise(hub, &is_over));
        let roomy = addr(2);
        let starving = scope.spawn(move || starve(doors, roomy, end));
        let hands: Vec<_> = (0..HANDS as u64)
            .map(|number| scope.spawn(move || hand(doors, Random::new(seed.wrapping_mul(31) + number), end)))
            .collect();
        while Instant::now() < end {
            most.fetch_max(hub.client_count(), Ordering::Relaxed);
            thread::sleep(Duration::from_millis(20));
        }
        is_over.store(true, Ordering::SeqCst);
        let mut counts = [0; KINDS.len()];
        for hand in hands {
            counts.iter_mut().zip(hand.join().unwrap()).for_each(|(sum, n)| *sum += n);
        }
        let refused = starving.join().unwrap();
        report(&decent.join().unwrap());
        let total: usize = counts.iter().sum();
        eprintln!("{total} bad peers, at most {} clients at one time", most.load(Ordering::Relaxed));
        let played: Vec<_> = KINDS.iter().zip(counts).map(|(kind, n)| format!("{n} × {}", kind.0)).collect();
        eprintln!("{}", played.join(", "));
        assert!(counts.iter().all(|n| *n > 0), "every kind has been there");
        refused
    })
}

#[test]
fn bad_peers_cost_decent_ones_nothing_and_leave_nothing() {
    let seconds = variable("WSHUB_CHAOS_SECONDS").unwrap_or(16);
    let seed = variable("WSHUB_CHAOS_SEED").unwrap_or_else(|| std::process::id().into());
    eprintln!("WSHUB_CHAOS_SEED={seed}");
    let (_, hard) = Resource::NOFILE.get().unwrap();
    Resource::NOFILE.set(hard.min(8192), hard).unwrap();
    watch();
    let metrics = Arc::new(DebugMetrics::new());
    let hub = hub(&metrics);
    let servers = servers(&hub, &metrics);
    // What is made once is there before anything is counted.
    storm(&hub, &servers, seed, Instant::now() + Duration::from_secs(5));
    let rest = || hub.client_count() == 0 && crate_threads() == ["wshub-accept"; 3];
    eventually("all have left after the warming up", rest);
    visit(&servers);
    eventually("and the visitors", rest);
    let before = (descriptors(), live_bytes(), resident_kib());
    let refused = storm(&hub, &servers, seed + 1, Instant::now() + Duration::from_secs(seconds));
    assert!(refused > 0, "descriptors have never run out");

    eventually("all have left", rest);
    assert_eq!((hub.user_count(), hub.room_names().len(), hub.clients().len()), (0, 0, 0));
    let stats = metrics.stats();
    assert_eq!((stats.active_connections, stats.active_rooms), (0, 0));
    assert_eq!(stats.room_joins, stats.room_leaves);
    eprintln!("{} connections; errors: {:?}", stats.total_connections, stats.errors);
    // The storm has been one.
    let expected = [
        ErrorType::ProtocolError,
        ErrorType::UpgradeFailed,
        ErrorType::ConnectionLimit,
        ErrorType::WriteDeadlineError,
        ErrorType::ReadDeadlineError,
    ];
    for error in expected {
        assert!(errors(&metrics, error) > 0, "no {error} at all");
    }
    // The address that the bridge listens on stays: its thread has no end.
    let deadline = Instant::now() + PATIENCE;
    while descriptors().len() > before.0.len() + 1 {
        assert!(Instant::now() < deadline, "descriptors before: {:#?}, after: {:#?}", before.0, descriptors());
        thread::sleep(Duration::from_millis(10));
    }
    let after = (live_bytes(), resident_kib());
    eprintln!("bytes in use: {} before, {} after; resident KiB: {} and {}", before.1, after.0, before.2, after.1);
    assert!(after.0 <= before.1 + MARGIN, "memory is in use that was not");
    assert!(after.1 <= before.2 + RESIDENT_MARGIN, "resident memory has grown");
    servers.iter().for_each(|server| server.shutdown(PATIENCE).unwrap());
    eventually("no thread is left", || crate_threads().is_empty());
    let scandals = SCANDALS.lock().unwrap();
    assert!(scandals.is_empty(), "{scandals:#?}");
}
