//! Pings, and clients that do not answer them. The periods are short and the tests not exact: they check that something
//! happens at all, and wait many periods before they conclude that something does not happen.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Frame, PATIENCE, PING, PONG, TEXT, TestServer, client_frame, counted, errors, eventually};
use wshub::{Config, Hub, Message, metrics::ErrorType};

/// Ping period and pong timeout, in milliseconds.
fn timing(period: u64, timeout: u64) -> Config {
    Config::default().ping_period(Duration::from_millis(period)).pong_timeout(Duration::from_millis(timeout))
}

#[test]
fn a_silent_client_is_pinged_and_then_cut() {
    let (metrics, builder) = counted(Hub::builder().config(timing(50, 300)));
    let server = TestServer::new(builder);
    let mut client = server.connect();
    assert_eq!(client.frame(), Frame { first: PING, payload: Vec::new() });
    client.expect_end();
    eventually("it is counted", || errors(&metrics, ErrorType::ReadDeadlineError) == 1);
    eventually("it has gone", || server.hub.client_count() == 0);
}

#[test]
fn whatever_a_client_sends_keeps_it_alive() {
    let server = TestServer::new(Hub::builder().config(timing(150, 3000)));
    std::thread::scope(|scope| {
        for (first, payload) in [(PONG, ""), (TEXT, "not a pong")] {
            let mut client = server.connect();
            scope.spawn(move || {
                let started = Instant::now();
                // For longer than the pong timeout.
                while started.elapsed() < Duration::from_secs(4) {
                    assert_eq!(client.frame(), Frame { first: PING, payload: Vec::new() });
                    client.send_frame(first, payload.as_bytes());
                }
                client.close();
            });
        }
    });
}

#[test]
fn one_frame_byte_by_byte_does_not() {
    let (metrics, builder) = counted(Hub::builder().config(timing(200, 500)));
    let server = TestServer::new(builder);
    let unfinished = [client_frame(0x01, b"x"), client_frame(0x00, b"x")].concat();
    // A frame that never ends, and one that never ends inside a message of many.
    for begin in [Vec::new(), unfinished] {
        let before = errors(&metrics, ErrorType::ReadDeadlineError);
        let mut client = server.connect();
        client.stream.write_all(&begin).unwrap();
        client.stream.write_all(&[if begin.is_empty() { 0x82 } else { 0x80 }, 0xfe, 0x3f, 0xff, 0, 0, 0, 0]).unwrap();
        client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "it is kept alive");
            match client.stream.read(&mut [0; 100]) {
                Ok(1..) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Ok(0) | Err(_) => break,
            }
            // May fail when the server has just cut the connection: the next read tells.
            let _ = client.stream.write_all(b"x");
        }
        eventually("it is counted", || errors(&metrics, ErrorType::ReadDeadlineError) == before + 1);
    }
}

#[test]
fn a_large_frame_that_comes_slowly_but_steadily_is_read() {
    let server = TestServer::new(Hub::builder().config(timing(1000, 2500)).on_message(|client, message| {
        client.send(message.len().to_string())?;
        Ok(())
    }));
    let mut client = server.connect();
    let message = client_frame(0x82, &vec![1; 400 * 1024]);
    // 16 KiB are progress: 25 of them in more than the pong timeout, each well inside it.
    for piece in message.chunks(4 * 1024) {
        client.wait_quietly(Duration::from_millis(35));
        client.stream.write_all(piece).unwrap();
    }
    assert_eq!(client.text(), (400 * 1024).to_string());
    client.close();
}

#[test]
fn a_healthy_slow_reader_is_not_silent() {
    // A feed of much more than the client reads: the ping waits behind megabytes in the kernel's buffers, for longer
    // than the pong timeout.
    let config = timing(1000, 4000).write_timeout(PATIENCE).queue_bytes(256 * 1024);
    let (metrics, builder) = counted(Hub::builder().config(config));
    let server = TestServer::new(builder);
    let (mut client, handle) = server.pair();
    let is_over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&is_over);
    let feeding = std::thread::spawn(move || {
        let message = Message::binary(vec![7; 16 * 1024]);
        while !stop.load(Ordering::Relaxed) {
            let _ = handle.send_timeout(&message, Duration::from_millis(20));
        }
    });
    let (started, mut pings) = (Instant::now(), 0);
    // For several pong timeouts.
    while started.elapsed() < Duration::from_secs(10) {
        let frame = client.next_frame().expect("it is not cut");
        if frame.first == PING {
            client.send_frame(PONG, b"");
            pings += 1;
        }
        // Its pace: 16 KiB in 20 ms.
        std::thread::sleep(Duration::from_millis(20));
    }
    is_over.store(true, Ordering::Relaxed);
    feeding.join().unwrap();
    assert_eq!(errors(&metrics, ErrorType::ReadDeadlineError), 0, "after {pings} pings");
}

#[test]
fn a_reader_that_takes_nothing_is_silent_however_much_it_is_sent() {
    let config = timing(100, 400).write_timeout(PATIENCE * 3);
    let (metrics, builder) = counted(Hub::builder().config(config));
    let server = TestServer::new(builder);
    let (_client, handle) = server.pair();
    eventually("it is cut", || {
        let _ = handle.send_timeout(vec![7; 64 * 1024], Duration::from_millis(10));
        handle.closed_at().is_some()
    });
    assert_eq!(errors(&metrics, ErrorType::ReadDeadlineError), 1);
}

#[test]
fn without_a_pong_timeout_there_are_no_pings() {
    let server = TestServer::new(Hub::builder().config(timing(10, 0)).on_message(|c, m| Ok(c.send(m)?)));
    let mut client = server.connect();
    client.wait_quietly(Duration::from_millis(300));
    client.send_text("still here");
    assert_eq!(client.frame().text(), "still here");
    client.close();
}
