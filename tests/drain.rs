//! Draining: new connections are refused, idle ones closed, busy ones waited for.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{BINARY, Link, PATIENCE, TestServer, WsClient, accept, deep_queue, eventually, get, stall};
use wshub::{
    Config, Hub, Message, Target,
    health::HubState,
    metrics::{DebugMetrics, ErrorType},
};

/// Closes idle clients soon, all at once.
fn brisk() -> Config {
    patient().drain_timeout(Duration::from_millis(50)).drain_spread(Duration::ZERO)
}

/// Does not close idle clients.
fn patient() -> Config {
    Config::default().lame_duck(Duration::ZERO).drain_timeout(Duration::ZERO)
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
        assert_eq!(error.remaining, 3);
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
        assert_eq!(hasty.map_err(|error| error.remaining), Err(1), "each has its own deadline");
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
    for round in 0..2000 {
        let hub = Hub::builder().config(patient()).build().unwrap();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (ours, theirs) = UnixStream::pair().unwrap();
                // The peer is gone at once: the connection ends by itself, soon.
                drop(theirs);
                let accept = hub.accept(ours, common::upgrade_head("/ws"), &[]);
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

#[test]
fn a_lame_duck_fails_its_readiness_and_does_everything_else() {
    let config = patient().lame_duck(3 * PATIENCE);
    let server = TestServer::new(Hub::builder().config(config).on_message(|c, m| Ok(c.send(m)?)));
    let mut old = server.connect();
    thread::scope(|scope| {
        let drain = scope.spawn(|| server.hub.drain(3 * PATIENCE));
        eventually("the drain has begun", || server.hub.is_draining());
        let (ready, _) = get(server.addr, "/readyz");
        let (alive, health) = get(server.addr, "/healthz");
        assert_eq!((ready, alive), (503, 200));
        assert!(health.contains(r#""ready":false,"state":"draining""#), "{health}");
        let mut new = server.connect();
        for socket in [&mut old, &mut new] {
            socket.send_text("hi");
            assert_eq!(socket.text(), "hi");
        }
        assert!(server.hub.is_admitting() && !server.hub.ready());
        let hasty = server.hub.drain(Duration::from_millis(20));
        assert_eq!(hasty.map_err(|error| error.remaining), Err(2), "a second call does not wait longer than it wants");
        assert!(server.hub.is_admitting() && !drain.is_finished(), "nor does it end the time of the first");
        scope.spawn(|| [old, new].map(|mut socket| assert_eq!(socket.expect_close().0, 1001)));
        server.hub.shutdown(PATIENCE).unwrap();
        assert_eq!(drain.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_lame_duck_refuses_and_closes_when_its_time_is_over() {
    let server = TestServer::new(Hub::builder().config(brisk().lame_duck(Duration::from_millis(400))));
    let begun = Instant::now();
    let mut socket = server.connect();
    thread::scope(|scope| {
        let drain = scope.spawn(|| server.hub.drain(PATIENCE));
        assert_eq!(socket.expect_close(), (1001, "server draining".into()));
        assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
        assert_eq!(drain.join().unwrap(), Ok(()));
    });
    assert!(!server.hub.is_admitting());
    let (head, _) = WsClient::try_connect(server.addr, "/ws", "");
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nRetry-After: "), "{head}");
}

#[test]
fn a_drain_with_less_time_than_its_lame_duck_refuses_at_its_deadline() {
    let server = TestServer::new(Hub::builder());
    let _socket = server.connect();
    assert_eq!(server.hub.drain(Duration::from_millis(50)).map_err(|error| error.remaining), Err(1));
    assert!(!server.hub.is_admitting());
    // A later call goes on without another lame duck's time.
    assert_eq!(server.hub.drain(Duration::from_millis(50)).map_err(|error| error.remaining), Err(1));
}

/// Looks that are taken a few times in `drain_timeout` would close all of them in one moment.
#[test]
fn the_closes_are_spread_over_a_window_that_is_shorter_than_the_patience() {
    let config = brisk().drain_timeout(Duration::from_secs(3)).drain_spread(Duration::from_millis(700));
    let server = TestServer::new(Hub::builder().config(config));
    let sockets: Vec<_> = (0..32).map(|_| server.connect()).collect();
    let ends = Mutex::new(Vec::new());
    let begun = Instant::now();
    thread::scope(|scope| {
        for mut socket in sockets {
            let ends = &ends;
            scope.spawn(move || {
                assert_eq!(socket.frame().close().0, 1001);
                ends.lock().unwrap().push(begun.elapsed());
            });
        }
        assert_eq!(server.hub.drain(PATIENCE), Ok(()));
    });
    let mut ends = ends.into_inner().unwrap();
    ends.sort();
    assert!(ends[0] >= Duration::from_secs(3), "{:?}", ends[0]);
    assert!(ends[31].saturating_sub(ends[0]) >= Duration::from_millis(150), "{ends:?}");
}

#[test]
fn a_client_is_idle_when_its_last_message_was_long_ago() {
    let patience = Duration::from_secs(2);
    let handled = Arc::new(Mutex::new(None));
    let sink = Arc::clone(&handled);
    let builder = Hub::builder().config(brisk().drain_timeout(patience)).on_message(move |_, _| {
        *sink.lock().unwrap() = Some(Instant::now());
        Ok(())
    });
    let server = TestServer::new(builder);
    let mut socket = server.connect();
    thread::scope(|scope| {
        let drain = scope.spawn(|| server.hub.drain(PATIENCE));
        eventually("the drain has begun", || server.hub.is_draining());
        socket.wait_quietly(patience / 2);
        socket.send_text("still here");
        assert_eq!(socket.frame().close().0, 1001);
        let closed = Instant::now();
        let handled = handled.lock().unwrap().expect("the message came before the close");
        assert!(closed - handled >= patience, "closed {:?} after the last message", closed - handled);
        drop(socket);
        assert_eq!(drain.join().unwrap(), Ok(()));
    });
}

#[test]
fn a_client_is_idle_when_its_output_has_been_taken_long_ago() {
    let patience = Duration::from_secs(2);
    let config = deep_queue(brisk().drain_timeout(patience).write_timeout(3 * PATIENCE));
    let hub = Hub::builder().config(config).build().unwrap();
    let (mut socket, client) = accept(&hub, Link::TinyUnix, "/");
    thread::scope(|scope| {
        let drain = scope.spawn(|| hub.drain(PATIENCE));
        eventually("the drain has begun", || hub.is_draining());
        socket.wait_quietly(patience / 2);
        // Between two looks: nothing waits when the client is due.
        client.send(Message::binary(vec![0; 256 * 1024])).unwrap();
        let sent = Instant::now();
        assert_eq!(socket.frame().first, BINARY);
        assert_eq!(socket.frame().close().0, 1001);
        assert!(sent.elapsed() >= patience, "closed {:?} after that", sent.elapsed());
        drop(socket);
        assert_eq!(drain.join().unwrap(), Ok(()));
    });
}

#[test]
fn slow_readers_under_constant_broadcasts_are_closed_after_twice_the_patience() {
    let config = brisk().drain_timeout(Duration::from_millis(300)).close_timeout(Duration::from_secs(1));
    let hub = Hub::builder().config(config.queue_messages(16)).build().unwrap();
    let (mut slow, client) = accept(&hub, Link::TinyUnix, "/");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                hub.send(Target::all(), Message::binary(vec![0; 64 * 1024])).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        // Reads all the time, and is always behind.
        scope.spawn(move || {
            let mut chunk = [0; 4096];
            while slow.stream.read(&mut chunk).is_ok_and(|n| n > 0) {
                thread::sleep(Duration::from_millis(1));
            }
        });
        eventually("it is behind", || client.dropped().messages > 8);
        assert_eq!(hub.drain(PATIENCE), Ok(()));
        is_over.store(true, Ordering::SeqCst);
    });
}
