//! Serving until a signal or another reason to end. One test at a time, because signals concern the whole process.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, WsClient, eventually, get};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::raise;
use wshub::{Config, Hub, Server, health::HubState};

/// Nobody has to notice that the server drains.
fn config() -> Config {
    Config::default().lame_duck(Duration::ZERO)
}

/// A hub whose idle clients are closed soon while it drains.
fn hub() -> Hub {
    let config = config().drain_timeout(Duration::from_millis(50)).drain_spread(Duration::ZERO);
    Hub::builder().config(config).build().unwrap()
}

fn server(hub: &Hub) -> (Server, SocketAddr) {
    let server = Server::bind("127.0.0.1:0").unwrap().websocket("/ws", hub).probes(hub);
    let addr = server.local_addr().unwrap();
    (server, addr)
}

/// Runs the server on a thread; when it has returned, so has `ended`.
fn run(run: impl FnOnce() + Send + 'static) -> impl FnOnce() {
    let (told, ended) = channel();
    thread::spawn(move || {
        run();
        told.send(()).unwrap();
    });
    move || ended.recv_timeout(PATIENCE * 2).unwrap()
}

#[test]
fn what_ends_it_drains_and_then_closes() {
    let hub = hub();
    let (server, addr) = server(&hub);
    let (stop, stopped) = channel::<()>();
    let ended = run(move || server.run_until(move || stopped.recv().unwrap()).unwrap());
    let mut client = WsClient::connect(addr, "/ws", "");
    client.sync();
    stop.send(()).unwrap();
    assert_eq!(client.expect_close().0, 1001);
    ended();
    assert_eq!(hub.state(), HubState::Stopped);
    assert!(TcpStream::connect(addr).is_err(), "nobody listens any more");
}

#[test]
fn signals_end_it_and_a_second_one_at_once() {
    for signal in [SIGTERM, SIGINT] {
        let hub = hub();
        let (server, addr) = server(&hub);
        let ended = run(move || server.run_until_signal().unwrap());
        let mut client = WsClient::connect(addr, "/ws", "");
        client.sync();
        raise(signal).unwrap();
        assert_eq!(client.expect_close().0, 1001, "signal {signal}");
        ended();
        assert_eq!(hub.state(), HubState::Stopped);
    }
    // Clients that are never idle: only the second signal ends it before the grace is over.
    let hub = Hub::builder().config(config().drain_timeout(Duration::ZERO)).build().unwrap();
    let (server, addr) = server(&hub);
    let grace = PATIENCE * 10;
    let ended = run(move || server.grace(grace).run_until_signal().unwrap());
    let mut client = WsClient::connect(addr, "/ws", "");
    client.sync();
    let begun = Instant::now();
    raise(SIGTERM).unwrap();
    eventually("it drains", || hub.state() != HubState::Running);
    assert_eq!(get(addr, "/healthz").0, 200, "probes are answered meanwhile");
    client.sync();
    raise(SIGTERM).unwrap();
    assert_eq!(client.expect_close().0, 1001);
    ended();
    assert!(begun.elapsed() < grace);
}

#[test]
fn a_guard_stops_its_server() {
    let hub = hub();
    let (server, addr) = server(&hub);
    let guard = server.spawn().unwrap().stop_on_drop(PATIENCE);
    let mut client = WsClient::connect(addr, "/ws", "");
    client.sync();
    assert_eq!((guard.local_addr(), guard.load().connections()), (Some(addr), 1));
    let closing = thread::spawn(move || client.expect_close().0);
    drop(guard);
    assert_eq!(closing.join().unwrap(), 1001);
    assert_eq!(hub.state(), HubState::Stopped);
}
