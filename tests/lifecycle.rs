//! States, probes and health; shutdown, whatever peers and handlers do.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{BINARY, CLOSE, Log, PATIENCE, TestServer, WsClient, deep_queue, eventually, exchange, get, stall};
use serde_json::Value;
use wshub::{Config, Hub, Target, health::HubState};

/// So short that shutdowns must force what does not end by itself.
const SHORT: Duration = Duration::from_millis(200);

/// Longer than any test: whatever waits for it fails the test.
fn slow_to_close() -> Config {
    Config::default().close_timeout(5 * PATIENCE).write_timeout(5 * PATIENCE)
}

/// `code` must not wait for anything that takes long.
fn promptly<T>(code: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = code();
    assert!(started.elapsed() < PATIENCE, "took {:?}", started.elapsed());
    result
}

fn flags(hub: &Hub) -> [bool; 4] {
    [hub.is_running(), hub.is_draining(), hub.alive(), hub.ready()]
}

#[test]
fn states_only_move_forward() {
    let hub = Hub::builder().config(Config::default().lame_duck(Duration::ZERO)).build().unwrap();
    assert_eq!((hub.state(), flags(&hub)), (HubState::Running, [true, false, true, true]));
    hub.drain(PATIENCE).unwrap();
    assert_eq!((hub.state(), flags(&hub)), (HubState::Draining, [false, true, true, false]));
    hub.shutdown(PATIENCE).unwrap();
    assert_eq!((hub.state(), flags(&hub)), (HubState::Stopped, [false, false, false, false]));
    hub.drain(PATIENCE).unwrap();
    assert_eq!(hub.state(), HubState::Stopped);
    assert!(HubState::Running < HubState::Draining && HubState::Draining < HubState::Stopped);
    let straight = Hub::new();
    straight.shutdown(PATIENCE).unwrap();
    assert_eq!(straight.state(), HubState::Stopped);
    straight.shutdown(Duration::ZERO).unwrap();
}

#[test]
fn health_has_exactly_these_keys() {
    let server = TestServer::new(Hub::builder());
    let _socket = server.connect();
    let uptime = server.hub.uptime();
    let health = server.hub.health();
    assert!(u128::from(health.uptime_ns) >= uptime.as_nanos() && health.uptime_ns > 0);
    let json = serde_json::to_string(&health).unwrap();
    let expected =
        format!(r#"{{"alive":true,"ready":true,"state":"running","uptime_ns":{},"clients":1}}"#, health.uptime_ns);
    assert_eq!(json, expected);
}

fn probe(server: &TestServer, path: &str) -> (u16, bool, bool, String, u64) {
    let (status, body) = get(server.addr, path);
    let json: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json.as_object().unwrap().len(), 5, "{body}");
    assert!(json["uptime_ns"].as_u64().unwrap() > 0);
    let state = json["state"].as_str().unwrap().to_owned();
    (status, json["alive"] == true, json["ready"] == true, state, json["clients"].as_u64().unwrap())
}

#[test]
fn probes_in_each_state() {
    let server = TestServer::new(Hub::builder());
    let socket = server.connect();
    let both = |server: &TestServer| (probe(server, "/healthz"), probe(server, "/readyz"));
    let running = (200, true, true, "running".to_owned(), 1);
    assert_eq!(both(&server), (running.clone(), running));

    assert_eq!(server.hub.drain(Duration::ZERO).map_err(|error| error.remaining), Err(1));
    let draining = |status| (status, true, false, "draining".to_owned(), 1);
    assert_eq!(both(&server), (draining(200), draining(503)));

    socket.close();
    server.hub.shutdown(PATIENCE).unwrap();
    let stopped = (503, false, false, "stopped".to_owned(), 0);
    assert_eq!(both(&server), (stopped.clone(), stopped));
    assert!(WsClient::try_connect(server.addr, "/ws", "").0.starts_with("HTTP/1.1 503 "));
}

#[test]
fn probes_answer_get_and_head_only() {
    let server = TestServer::new(Hub::builder());
    let ask = |method: &str| exchange(server.addr, format!("{method} /healthz HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    let head = ask("HEAD");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(ask("GET").contains("\r\nContent-Type: application/json\r\n"));
    assert!(ask("GET").contains("\r\nCache-Control: no-store\r\n"));
    let post = ask("POST");
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("\r\nAllow: GET, HEAD\r\n"), "{post}");
}

#[test]
fn a_shutdown_says_goodbye_after_what_was_queued() {
    let server = TestServer::new(Hub::builder().config(slow_to_close()));
    let sockets: Vec<_> = (0..20).map(|_| server.connect()).collect();
    thread::scope(|scope| {
        for mut socket in sockets {
            scope.spawn(move || {
                assert_eq!(socket.text(), "last words");
                assert_eq!(socket.expect_close(), (1001, "server shutting down".into()));
            });
        }
        server.hub.send(Target::all(), "last words").unwrap();
        promptly(|| server.handle.shutdown(PATIENCE).unwrap());
    });
    assert_eq!((server.hub.client_count(), server.hub.state()), (0, HubState::Stopped));
    assert!(!server.listens(), "nobody listens any more");
    server.handle.shutdown(Duration::ZERO).unwrap();
}

#[test]
fn a_peer_that_never_answers_is_cut_at_the_deadline() {
    let server = TestServer::new(Hub::builder().config(slow_to_close()));
    let mut silent = server.connect();
    let mut decent = server.connect();
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(decent.expect_close().0, 1001));
        promptly(|| server.hub.shutdown(SHORT).unwrap());
    });
    assert_eq!(server.hub.client_count(), 0);
    assert_eq!(silent.frame().first, CLOSE, "its close frame was sent all the same");
    silent.expect_end();
}

#[test]
fn a_peer_that_never_reads_is_cut_at_the_deadline() {
    let server = TestServer::new(Hub::builder().config(deep_queue(slow_to_close())));
    let (mut socket, client) = server.pair();
    stall(&client);
    promptly(|| server.handle.shutdown(SHORT).unwrap());
    assert!(client.closed_at().is_some());
    // What was under way may still come, whole or torn; no close frame overtakes it.
    while let Some(frame) = socket.next_frame() {
        assert_eq!(frame.first, BINARY);
    }
}

#[test]
fn a_handler_that_blocks_is_reported_and_ends_later() {
    let log = Log::default();
    let (release, wait) = mpsc::channel::<()>();
    let (entered, left, wait) = (log.clone(), log.clone(), Mutex::new(wait));
    let builder = Hub::builder()
        .config(slow_to_close())
        .on_message(move |_, _| {
            entered.add("blocked");
            let _ = wait.lock().unwrap().recv_timeout(5 * PATIENCE);
            Ok(())
        })
        .after_disconnect(move |_| left.add("disconnected"));
    let server = TestServer::new(builder);
    let mut blocked = server.connect();
    let _free = server.connect();
    blocked.send_text("block");
    log.wait("blocked");
    promptly(|| assert_eq!(server.hub.shutdown(SHORT).map_err(|error| error.remaining), Err(1)));
    promptly(|| assert_eq!(server.handle.shutdown(SHORT).map_err(|error| error.remaining), Err(1)));
    assert_eq!(log.all(), ["blocked", "disconnected"], "the free one has ended");
    release.send(()).unwrap();
    promptly(|| server.handle.shutdown(PATIENCE).unwrap());
    assert_eq!((server.hub.client_count(), log.all().len()), (0, 3));
}

#[test]
fn a_request_that_is_still_coming_does_not_delay_a_shutdown() {
    let server = TestServer::with(Hub::builder(), |s| s.handshake_timeout(5 * PATIENCE));
    let mut halves = [TcpStream::connect(server.addr).unwrap(), TcpStream::connect(server.addr).unwrap()];
    halves[0].write_all(b"GET /ws HTTP/1.1\r\nHost:").unwrap();
    // Served after the two, so they have their threads.
    assert_eq!(get(server.addr, "/healthz").0, 200);
    promptly(|| server.handle.shutdown(PATIENCE).unwrap());
    for half in &mut halves {
        half.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        half.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer:?}");
    }
}

#[test]
fn join_waits_for_the_shutdown() {
    let server = Arc::new(TestServer::new(Hub::builder()));
    let waiting = thread::spawn({
        let server = Arc::clone(&server);
        move || server.handle.join()
    });
    let socket = server.connect();
    assert!(!waiting.is_finished());
    socket.close();
    server.handle.shutdown(PATIENCE).unwrap();
    promptly(|| waiting.join().unwrap());
    promptly(|| server.handle.join());
}

#[test]
fn no_shutdown_misses_the_end_of_a_close() {
    let head = common::upgrade_head("/ws");
    for _ in 0..500 {
        let hub = Hub::builder().config(slow_to_close()).build().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        hub.accept(ours, head.clone(), &[]).detach().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                theirs.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut bytes = [0; 512];
                let mut seen = Vec::new();
                while !seen.ends_with(b"server shutting down") {
                    let n = theirs.read(&mut bytes).unwrap();
                    assert!(n > 0, "ended without a close frame");
                    seen.extend_from_slice(&bytes[..n]);
                }
                theirs.write_all(&common::client_frame(CLOSE, &1001_u16.to_be_bytes())).unwrap();
                while matches!(theirs.read(&mut bytes), Ok(1..)) {}
            });
            promptly(|| hub.shutdown(PATIENCE).unwrap());
        });
    }
}

#[test]
fn settings_may_be_for_ever() {
    let config = Config::default()
        .close_timeout(Duration::MAX)
        .write_timeout(Duration::MAX)
        .pong_timeout(Duration::MAX)
        .drain_timeout(Duration::MAX)
        .drain_spread(Duration::MAX);
    let builder = Hub::builder().config(config).on_message(|c, m| Ok(c.send_timeout(m, Duration::MAX)?));
    let server = TestServer::with(builder, |s| s.handshake_timeout(Duration::MAX));
    let mut socket = server.connect();
    socket.send_text("hi");
    assert_eq!(socket.text(), "hi");
    assert_eq!(server.hub.drain(SHORT).map_err(|error| error.remaining), Err(1));
    thread::scope(|scope| {
        scope.spawn(move || assert_eq!(socket.expect_close().0, 1001));
        server.handle.shutdown(Duration::MAX).unwrap();
    });
    eventually("all is over", || server.hub.client_count() == 0);
}
