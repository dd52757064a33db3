//! Payloads in the application's memory (`Bytes::from_owner`): their destructors are application code. They run where
//! they harm nothing, whether they send, panic or block.
#![cfg(feature = "deflate")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use common::bus::{Mood, Wire, connected};
use common::{PATIENCE, TestServer, WsClient, eventually};
use flate2::{Decompress, FlushDecompress};
use wshub::cluster::Cluster;
use wshub::{Client, Config, DropPolicy, Hub, Limits, Message, RoomOptions, Target};

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

/// A publication that pushes another room out of memory, whose payload's destructor waits for that publication.
#[test]
fn members_have_a_publication_before_the_payloads_that_it_displaces_are_dropped() {
    const LIMIT: usize = 64 * 1024;
    let limits = Limits::default().history_bytes(LIMIT);
    let server = TestServer::new(Hub::builder().limits(limits).rooms("*", RoomOptions::history().bytes(LIMIT)));
    let (mut socket, client) = server.pair();
    client.join("busy").unwrap();
    let (arrived, arrival) = mpsc::channel();
    let (say, said) = mpsc::channel();
    let arrival = Mutex::new(arrival);
    let idle = move || say.send(arrival.lock().unwrap().recv_timeout(PATIENCE)).unwrap();
    server.hub.publish("idle", message(0, idle));
    // The member says so as soon as it has the publication that displaces the other room.
    let reader = thread::spawn(move || {
        while socket.text().len() == 1000 {}
        arrived.send(()).unwrap();
    });
    let hub = &server.hub;
    while hub.load().history_bytes + 8000 < LIMIT {
        hub.publish("busy", "x".repeat(1000));
    }
    assert!(hub.position("idle").is_some(), "it is still there");
    hub.publish("busy", "y".repeat(12_000));
    said.recv_timeout(PATIENCE).expect("the room is displaced").expect("the member has the publication by then");
    reader.join().unwrap();
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

/// A message that compresses to half its size.
fn long_message(number: usize, on_drop: impl Fn() + Send + 'static) -> Message {
    let noise = (0..24_000_u64).map(|n| (n + number as u64 * 24_000).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60);
    let bytes = noise.map(|digit| b'a' + u8::try_from(digit).unwrap()).collect();
    Message::binary(Bytes::from_owner(Owned { bytes, on_drop }))
}

/// Sends so many messages to a client that reads late, so that its writer thread writes most of them and drops their
/// payloads; then reads all of them.
fn written_by_the_writer(many: usize, on_drop: impl Fn() + Clone + Send + Sync + 'static) {
    let config = config().queue_messages(many).queue_bytes(64 << 20).send_buffer(4096).write_timeout(PATIENCE);
    let server = TestServer::new(Hub::builder().config(config));
    let (mut socket, client) = connect(&server);
    for n in 0..many {
        client.send(long_message(n, on_drop.clone())).unwrap();
    }
    assert!(client.queue_depth().messages > many / 10, "the peer is not slow: {:?}", client.queue_depth());
    (0..many).for_each(|_| assert_eq!(socket.frame().first, 0xc2));
}

/// Whether this is a thread of the crate other than the one of the connection.
fn is_background() -> bool {
    thread::current().name().is_some_and(|name| name.starts_with("wshub") && name != "wshub-conn")
}

#[test]
#[allow(clippy::large_stack_arrays, reason = "the destructor needs stack")]
fn destructors_that_need_more_stack_than_a_writer_thread_has() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = dropped.clone();
    written_by_the_writer(600, move || {
        // Writer threads have 64 KiB.
        std::hint::black_box([1_u8; 200 * 1024]);
        count.fetch_add(usize::from(is_background()), Ordering::Relaxed);
    });
    eventually("some are dropped in the background", || dropped.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_destructor_that_waits_stops_no_writer_thread() {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(gate));
    written_by_the_writer(600, move || {
        if is_background() {
            // Returns when the test is over.
            let _ = gate.lock().unwrap().recv();
        }
    });
    drop(open);
}

#[test]
fn payloads_of_a_history_whose_destructors_panic_together() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let hub = Hub::builder().rooms("h", RoomOptions::history()).rooms("s", RoomOptions::state()).build().unwrap();
    let publish = || {
        for n in 0..5 {
            let message = || {
                let count = dropped.clone();
                message(n, move || {
                    count.fetch_add(1, Ordering::Relaxed);
                    panic!("on purpose");
                })
            };
            hub.publish("h", message());
            hub.set("s", &n.to_string(), message()).unwrap();
        }
    };
    publish();
    hub.clear_history("h").unwrap();
    assert_eq!(dropped.load(Ordering::Relaxed), 5);
    publish();
    drop(hub);
    eventually("every payload is dropped", || dropped.load(Ordering::Relaxed) == 20);
}

/// Says farewell to all clients when its thread ends: under a cork, and directly.
struct Farewell(Hub);

impl Drop for Farewell {
    fn drop(&mut self) {
        let cork = self.0.cork();
        (0..3).for_each(|_| _ = self.0.send(Target::all(), "bye").unwrap());
        drop(cork);
        self.0.send(Target::all(), "bye").unwrap();
    }
}

thread_local! {
    static FAREWELL: RefCell<Option<Farewell>> = const { RefCell::new(None) };
}

#[test]
fn a_thread_local_value_that_sends_when_its_thread_ends() {
    // Thread-local values are dropped in the order of their first use, or in the reverse order.
    for is_first in [false, true] {
        let server = TestServer::new(Hub::builder());
        let mut socket = WsClient::connect(server.addr, "/ws", "");
        let hub = server.hub.clone();
        let send = |hub: &Hub| {
            let _cork = hub.cork();
            (0..2).for_each(|_| _ = hub.send(Target::all(), "hello").unwrap());
        };
        let thread = thread::spawn(move || {
            if is_first {
                send(&hub);
            }
            FAREWELL.with(|farewell| *farewell.borrow_mut() = Some(Farewell(hub.clone())));
            if !is_first {
                send(&hub);
            }
        });
        thread.join().unwrap();
        let expected = ["hello", "hello", "bye", "bye", "bye", "bye"];
        expected.iter().for_each(|text| assert_eq!(socket.text(), *text));
    }
}
