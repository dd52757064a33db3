//! Draining: new connections are refused, idle ones closed, busy ones waited for.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{BINARY, KEY, PATIENCE, TestServer, WsClient, deep_queue, eventually, stall};
use wshub::{
    Config, DeadlineError, Hub, RequestHead,
    health::HubState,
    metrics::{DebugMetrics, ErrorType},
};

/// Closes idle clients soon, all at once.
fn brisk() -> Config {
    Config::default().drain_timeout(Duration::from_millis(50)).drain_spread(Duration::ZERO)
}

/// Does not close idle clients.
fn patient() -> Config {
    Config::default().drain_timeout(Duration::ZERO)
}

#[test]
fn an_empty_hub_is_drained_at_once_and_admits_nobody() {
    let metrics = Arc::new(DebugMetrics::new());
    let server = TestServer::new(Hub::builder().metrics(metrics.clone()));
    assert_eq!(server.hub.drain(Duration::ZERO), Ok(()));
    assert_eq!(server.hub.state(), HubState::Draining);
    let (head, _) = WsClient::try_connect(server.addr, "/ws", "");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(metrics.stats().errors.get(&ErrorType::ConnectionRejectedDraining), Some(&1));
    assert_eq!(server.hub.drain(PATIENCE), Ok(()), "again");
}

#[test]
fn idle_clients_are_closed_with_1001() {
    let server = TestServer::new(Hub::builder().config(brisk()));
    let sockets: Vec<_> = (0..3).map(|_| server.connect()).collect();
    thread::scope(|scope| {
        let drain = scope.spawn(|| server.hub.drain(PATIENCE));
        for mut socket in sockets {
            assert_eq!(socket.expect_close(), (1001, "server draining".into()));
        }
        assert_eq!(drain.join().unwrap(), Ok(()));
    });
    assert_eq!((server.hub.client_count(), server.hub.state()), (0, HubState::Draining));
}

#[test]
fn those_that_exist_go_on_while_new_ones_are_refused() {
    let server = TestServer::new(Hub::builder().config(patient()).on_message(|c, m| Ok(c.send(m)?)));
    let mut socket = server.connect();
    thread::scope(|scope| {
        let drain = scope.spawn(|| server.hub.drain(PATIENCE));
        eventually("the drain has begun", || server.hub.is_draining());
        assert!(WsClient::try_connect(server.addr, "/ws", "").0.starts_with("HTTP/1.1 503 "));
        socket.send_text("still here");
        assert_eq!(socket.text(), "still here");
        assert!(!drain.is_finished());
        socket.close();
        assert_eq!(drain.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_busy_client_stays_until_its_queue_is_empty() {
    let server = TestServer::new(Hub::builder().config(deep_queue(brisk().write_timeout(3 * PATIENCE))));
    let (mut busy_socket, busy) = server.pair();
    let mut idle_socket = server.connect();
    let sent = stall(&busy);
    thread::scope(|scope| {
        let drain = scope.spawn(|| server.hub.drain(PATIENCE));
        assert_eq!(idle_socket.expect_close(), (1001, "server draining".into()));
        // Both were looked at in the same moment.
        assert!(!busy.is_closed() && !drain.is_finished());
        for _ in 0..sent {
            assert_eq!(busy_socket.frame().first, BINARY);
        }
        assert_eq!(busy_socket.expect_close(), (1001, "server draining".into()));
        assert_eq!(drain.join().unwrap(), Ok(()));
    });
}

#[test]
fn the_deadline_tells_how_many_are_left() {
    for config in [Config::default(), patient()] {
        let server = TestServer::new(Hub::builder().config(config));
        let mut sockets: Vec<_> = (0..3).map(|_| server.connect()).collect();
        let error = server.hub.drain(Duration::from_millis(250)).unwrap_err();
        assert_eq!(error, DeadlineError { remaining: 3 });
        assert_eq!(error.to_string(), "3 connections left at the deadline");
        // Nobody was closed.
        sockets.iter_mut().for_each(WsClient::sync);
        assert_eq!(server.hub.state(), HubState::Draining);
    }
}

#[test]
fn a_second_call_waits_for_the_same_end() {
    let server = TestServer::new(Hub::builder().config(patient()));
    let socket = server.connect();
    thread::scope(|scope| {
        let drains: Vec<_> = (0..3).map(|_| scope.spawn(|| server.hub.drain(PATIENCE))).collect();
        eventually("the drain has begun", || server.hub.is_draining());
        let hasty = server.hub.drain(Duration::from_millis(20));
        assert_eq!(hasty, Err(DeadlineError { remaining: 1 }), "each has its own deadline");
        assert!(drains.iter().all(|d| !d.is_finished()));
        socket.close();
        for drain in drains {
            assert_eq!(drain.join().unwrap(), Ok(()));
        }
    });
}

#[test]
fn a_shutdown_ends_a_drain_and_later_ones_return_at_once() {
    let server = TestServer::new(Hub::builder().config(patient().close_timeout(3 * PATIENCE)));
    let mut socket = server.connect();
    thread::scope(|scope| {
        let drain = scope.spawn(|| server.hub.drain(3 * PATIENCE));
        eventually("the drain has begun", || server.hub.is_draining());
        let shutdown = scope.spawn(|| server.hub.shutdown(PATIENCE));
        assert_eq!(drain.join().unwrap(), Ok(()));
        assert_eq!(server.hub.client_count(), 1, "the shutdown still waits for this one");
        assert_eq!(socket.expect_close(), (1001, "server shutting down".into()));
        assert_eq!(shutdown.join().unwrap(), Ok(()));
    });
    assert_eq!(server.hub.drain(Duration::ZERO), Ok(()));
    assert_eq!(server.hub.state(), HubState::Stopped, "a drain does not go back");
}

#[test]
fn the_closes_are_spread_over_a_window() {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&ends);
    let builder = Hub::builder()
        .config(brisk().drain_spread(Duration::from_secs(3)))
        .before_disconnect(move |_| sink.lock().unwrap().push(Instant::now()));
    let server = TestServer::new(builder);
    let sockets: Vec<_> = (0..32).map(|_| server.connect()).collect();
    thread::scope(|scope| {
        for mut socket in sockets {
            scope.spawn(move || assert_eq!(socket.expect_close().0, 1001));
        }
        assert_eq!(server.hub.drain(PATIENCE), Ok(()));
    });
    let ends = ends.lock().unwrap();
    let span = ends.iter().max().unwrap().duration_since(*ends.iter().min().unwrap());
    // Places in the window are random: 32 of them within a tenth of it would be a wonder.
    assert!(ends.len() == 32 && span >= Duration::from_millis(300), "{span:?}");
}

#[test]
fn a_drain_without_a_deadline() {
    let server = TestServer::new(Hub::builder().config(brisk()));
    let mut socket = server.connect();
    thread::scope(|scope| {
        let drain = scope.spawn(|| server.hub.drain(Duration::MAX));
        assert_eq!(socket.expect_close().0, 1001);
        assert_eq!(drain.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_connection_is_either_refused_or_waited_for() {
    let head = || {
        let headers = [
            ("Host", "x"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", KEY),
            ("Sec-WebSocket-Version", "13"),
        ];
        RequestHead::from_parts("GET", "/ws", headers).unwrap()
    };
    for round in 0..2000 {
        let hub = Hub::builder().config(patient()).build().unwrap();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (ours, theirs) = UnixStream::pair().unwrap();
                // The peer is gone at once: the connection ends by itself, soon.
                drop(theirs);
                let accept = hub.accept(ours, head(), &[]);
                start.wait();
                let _ = accept.serve();
            });
            start.wait();
            // What comes before the registration takes about so long.
            for _ in 0..round % 100 * 20 {
                std::hint::spin_loop();
            }
            assert_eq!(hub.drain(PATIENCE), Ok(()));
            assert_eq!(hub.client_count(), 0, "drained, and yet somebody is here");
        });
    }
}
