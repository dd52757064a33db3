//! Payloads that are the application's memory (`Bytes::from_owner`): their destructors are its code, and run where they
//! hurt nobody, whether they send, panic or take their time.
#![cfg(feature = "deflate")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::bus::{Mood, Wire, connected};
use common::{PATIENCE, TestServer, WsClient, eventually};
use flate2::{Decompress, FlushDecompress};
use wshub::cluster::Cluster;
use wshub::{Client, Config, DropPolicy, Hub, Message, Target};

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

/// Memory of the application, with a destructor.
struct Owned<F: Fn() + Send + 'static> {
    bytes: Vec<u8>,
    on_drop: F,
}

impl<F: Fn() + Send + 'static> AsRef<[u8]> for Owned<F> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<F: Fn() + Send + 'static> Drop for Owned<F> {
    fn drop(&mut self) {
        (self.on_drop)();
    }
}

/// A message of this number, which compresses well.
fn message(number: usize, on_drop: impl Fn() + Send + 'static) -> Message {
    let bytes = format!("{number} {}", "x".repeat(3000)).into_bytes();
    Message::binary(Bytes::from_owner(Owned { bytes, on_drop }))
}

fn config() -> Config {
    Config::default().compression(true).compression_min_size(100).close_timeout(PATIENCE)
}

fn connect(server: &TestServer) -> (WsClient, Client) {
    let before = server.hub.clients();
    let (head, socket) = WsClient::try_connect(server.addr, "/ws", OFFER);
    assert!(head.contains("permessage-deflate"), "{head}");
    (socket, server.hub.clients().into_iter().find(|client| !before.contains(client)).unwrap())
}

/// The number of the next message, which must be whole; `None` for one of another kind.
fn number(socket: &mut WsClient) -> Option<usize> {
    let frame = socket.frame();
    if frame.first != 0xc2 {
        return None;
    }
    let wire = [&frame.payload[..], &[0, 0, 0xff, 0xff]].concat();
    let mut out = Vec::with_capacity(8192);
    Decompress::new(false).decompress_vec(&wire, &mut out, FlushDecompress::Sync).unwrap();
    let text = String::from_utf8(out).unwrap();
    let (number, rest) = text.split_once(' ').unwrap();
    assert_eq!(rest.len(), 3000);
    Some(number.parse().unwrap())
}

/// Sends to a client that reads late, so that payloads are dropped by whoever writes; everything arrives, whole.
fn all_arrive(on_drop: impl Fn(&Hub) + Clone + Send + Sync + 'static) {
    const MANY: usize = 3000;
    let server = TestServer::new(Hub::builder().config(config().queue_messages(4 * MANY).queue_bytes(64 << 20)));
    let (mut socket, client) = connect(&server);
    let dropped = Arc::new(AtomicUsize::new(0));
    for n in 0..MANY {
        let (hub, on_drop, dropped) = (server.hub.clone(), on_drop.clone(), dropped.clone());
        let send = move || {
            dropped.fetch_add(1, Ordering::Relaxed);
            on_drop(&hub);
        };
        // A panic in the destructor of the last handle, if it is the caller's own, is the caller's.
        client.send(message(n, send)).unwrap();
    }
    let mut next = 0;
    while next < MANY {
        if let Some(number) = number(&mut socket) {
            assert_eq!(number, next);
            next += 1;
        }
    }
    eventually("every payload is dropped", || dropped.load(Ordering::Relaxed) == MANY);
    assert_eq!(server.hub.health().clients, 1);
    server.hub.send(Target::all(), "the end").unwrap();
    while socket.frame().payload != b"the end" {}
}

#[test]
fn destructors_that_send() {
    all_arrive(|hub| {
        hub.send(Target::all(), "from a destructor").unwrap();
        assert!(hub.health().alive);
    });
}

#[test]
fn evicted_payloads_whose_destructors_send() {
    let config = config().queue_messages(8).drop_policy(DropPolicy::DropOldest).write_timeout(PATIENCE);
    let server = TestServer::new(Hub::builder().config(config));
    let (_deaf, deaf) = connect(&server);
    let (mut other, _) = connect(&server);
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut sent = 0;
    while dropped.load(Ordering::Relaxed) < 100 {
        let (hub, dropped, id) = (server.hub.clone(), dropped.clone(), deaf.id());
        let on_drop = move || {
            dropped.fetch_add(1, Ordering::Relaxed);
            let _ = (hub.send(Target::all().except(id), "from a destructor"), hub.room_names(), hub.load());
        };
        server.hub.send(Target::client(deaf.id()), message(sent, on_drop)).unwrap();
        sent += 1;
    }
    assert_eq!(other.text(), "from a destructor");
    // What still waits goes with the client.
    deaf.close(1000, "").unwrap();
    server.hub.shutdown(Duration::from_millis(100)).unwrap();
    drop(deaf);
    eventually("every payload is dropped", || dropped.load(Ordering::Relaxed) == sent);
}

#[test]
fn destructors_that_panic_tear_no_frame() {
    let armed = Arc::new(AtomicUsize::new(0));
    let server = TestServer::new(Hub::builder().config(config().queue_messages(10_000).queue_bytes(64 << 20)));
    let (mut socket, client) = connect(&server);
    // Handles are kept until everything is queued, so that no destructor runs in this thread.
    let mut kept = Vec::new();
    for n in 0..3000 {
        let count = armed.clone();
        let message = message(n, move || {
            count.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose");
        });
        client.send(&message).unwrap();
        kept.push(message);
    }
    // The rest is dropped by whoever has written it, or here.
    for message in kept {
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(message)));
    }
    (0..3000).for_each(|n| assert_eq!(number(&mut socket), Some(n)));
    eventually("every payload is dropped", || armed.load(Ordering::Relaxed) == 3000);
    client.send("still here").unwrap();
    assert_eq!(socket.text(), "still here");
    socket.close();
    server.handle.shutdown(PATIENCE).unwrap();
}

#[test]
fn the_publisher_survives_destructors_that_send_and_panic() {
    let wire = Wire::new(Mood::Works);
    let hub = Hub::builder().cluster(Cluster::new(wire.adapter()).queue_messages(4)).build().unwrap();
    connected(&hub);
    let published = |hub: &Hub, n: usize, on_drop: Box<dyn Fn() + Send + Sync>| {
        let message = message(n, on_drop);
        let published = hub.send(Target::all(), message.clone()).unwrap().published;
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(message)));
        published
    };
    let ran = Arc::new(AtomicUsize::new(0));
    for n in 0..20 {
        let (count, same) = (ran.clone(), hub.clone());
        let on_drop = move || {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = same.send(Target::all(), "from a destructor");
            panic!("on purpose");
        };
        let before = wire.published().len();
        assert!(published(&hub, n, Box::new(on_drop)));
        eventually("it is published", || wire.published().len() > before);
    }
    // A full queue gives payloads back to their senders.
    wire.publishing(Mood::Blocks);
    for n in 0..20 {
        let (count, same) = (ran.clone(), hub.clone());
        let on_drop = move || {
            count.fetch_add(1, Ordering::Relaxed);
            assert!(same.health().alive);
        };
        published(&hub, n, Box::new(on_drop));
    }
    wire.publishing(Mood::Works);
    eventually("every payload is dropped", || ran.load(Ordering::Relaxed) == 40);
    hub.shutdown(PATIENCE).unwrap();
}
