//! A message bus that is away, broken, slow or misbehaving: local delivery continues, no sender waits, and everything
//! is counted.
// Not over TLS: the cluster sees no sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::bus::{Mood, Wire, connected, node};
use common::{PATIENCE, TestServer, WsClient, counted, errors, eventually};
use wshub::{
    ClientId, Hub, Target,
    cluster::{AdapterState, Cluster, MemoryBus},
    metrics::{DebugMetrics, ErrorType},
};

const LONG: Duration = Duration::from_secs(3600);

/// Tries again soon.
fn hasty(wire: &Wire) -> Cluster {
    Cluster::new(wire.adapter()).node_id("n").backoff(Duration::from_millis(2), Duration::from_millis(20)).max_age(LONG)
}

fn start(cluster: Cluster) -> (TestServer, Arc<DebugMetrics>, WsClient) {
    let (metrics, builder) = counted(Hub::builder());
    let builder = builder.map_config(|c| c.close_timeout(Duration::from_millis(50)));
    let server = TestServer::new(builder.cluster(cluster));
    let socket = server.connect();
    (server, metrics, socket)
}

fn disconnected(server: &TestServer) {
    eventually("disconnected", || server.hub.adapter_state() == Some(AdapterState::Disconnected));
}

const FROM_AFAR: &str = r#"{"node_id":"x","type":"broadcast","msg_type":1,"data":"YWZhcg=="}"#;

#[test]
fn a_bus_that_is_away_at_the_start_is_found_later() {
    let wire = Wire::new(Mood::Unavailable);
    let (server, metrics, mut socket) = start(hasty(&wire));
    disconnected(&server);
    for n in 0..3 {
        let delivery = server.hub.send(Target::all(), n.to_string()).unwrap();
        assert_eq!((delivery.queued, delivery.published), (1, true));
        assert_eq!(socket.text(), n.to_string());
    }
    let unknown: ClientId = "246173a9-650a-4d6f-9630-e7533aed5d60".parse().unwrap();
    assert_eq!(server.hub.send(unknown, "3").unwrap().queued, 0);
    eventually("it is tried again and again", || wire.attempts().0 > 3 && wire.attempts().1 > 3);
    assert_eq!(metrics.stats().adapter_connects, 0);
    wire.both(Mood::Works);
    connected(&server.hub);
    eventually("what has waited is published in order", || wire.payloads() == ["0", "1", "2", "3"]);
    wire.receive(FROM_AFAR);
    assert_eq!(socket.text(), "afar");
    eventually("counted", || metrics.stats().adapter_published == 4);
    let stats = metrics.stats();
    assert_eq!((stats.adapter_dropped, stats.adapter_connects, stats.adapter_disconnects), (0, 1, 0));
    assert!(errors(&metrics, ErrorType::AdapterPublish) > 3 && errors(&metrics, ErrorType::AdapterSubscribe) > 3);
}

#[test]
fn a_bus_that_comes_and_goes_is_subscribed_to_again() {
    let wire = Wire::new(Mood::Works);
    let (server, metrics, mut socket) = start(hasty(&wire));
    connected(&server.hub);
    for round in 1..4 {
        wire.both(Mood::Unavailable);
        disconnected(&server);
        server.hub.send(Target::all(), round.to_string()).unwrap();
        assert_eq!(socket.text(), round.to_string());
        let before = wire.attempts();
        eventually("it is tried again", || wire.attempts().0 > before.0 + 2 && wire.attempts().1 > before.1 + 2);
        wire.both(Mood::Works);
        connected(&server.hub);
        wire.receive(FROM_AFAR);
        assert_eq!(socket.text(), "afar");
        eventually("published", || wire.payloads().len() == round);
        eventually("both transitions are counted", || {
            let stats = metrics.stats();
            (stats.adapter_connects, stats.adapter_disconnects) == (round as u64 + 1, round as u64)
        });
    }
    assert_eq!(wire.payloads(), ["1", "2", "3"]);
}

#[test]
fn a_subscription_that_ends_alone_is_renewed_and_the_other_connection_checked() {
    let wire = Wire::new(Mood::Works);
    let (server, metrics, mut socket) = start(hasty(&wire));
    connected(&server.hub);
    let before = wire.attempts();
    // Ends with an error, or with none.
    wire.subscribing(Mood::Unavailable);
    disconnected(&server);
    server.hub.send(Target::all(), "x").unwrap();
    eventually("publishing goes on", || wire.payloads() == ["x"]);
    assert_eq!(socket.text(), "x");
    wire.subscribing(Mood::Works);
    connected(&server.hub);
    assert!(wire.attempts().0 > before.0, "a connection may have broken unnoticed");
    assert_eq!((metrics.stats().adapter_dropped, errors(&metrics, ErrorType::AdapterPublish)), (0, 0));
}

#[test]
fn a_message_whose_publishing_fails_is_lost_and_those_behind_it_are_not() {
    let wire = Wire::new(Mood::Works);
    let (server, metrics, _socket) = start(hasty(&wire));
    connected(&server.hub);
    wire.publishing(Mood::Blocks);
    (0..5).for_each(|n| _ = server.hub.send(Target::all(), n.to_string()).unwrap());
    // The first is in the adapter's hands by now, or will be: it fails, and what it has become nobody knows.
    wire.publishing(Mood::Unavailable);
    eventually("the first is lost", || metrics.stats().adapter_dropped == 1);
    disconnected(&server);
    wire.publishing(Mood::Works);
    eventually("the others go out in order", || wire.payloads() == ["1", "2", "3", "4"]);
    assert_eq!(metrics.stats().adapter_dropped, 1);
    connected(&server.hub);
}

#[test]
fn a_message_that_the_bus_refuses_is_lost_alone() {
    let wire = Wire::new(Mood::Works);
    let (server, metrics, _socket) = start(hasty(&wire).max_envelope(10_000));
    connected(&server.hub);
    wire.publishing(Mood::Rejects);
    (0..3).for_each(|n| _ = server.hub.send(Target::all(), n.to_string()).unwrap());
    eventually("all are refused", || metrics.stats().adapter_dropped == 3);
    assert_eq!(server.hub.adapter_state(), Some(AdapterState::Connected));
    wire.publishing(Mood::Works);
    for size in [9_000, 20_000, 5_000] {
        server.hub.send(Target::all(), "y".repeat(size)).unwrap();
    }
    eventually("only what fits in an envelope", || wire.payloads().len() == 1 && metrics.stats().adapter_dropped == 5);
    assert_eq!(wire.payloads()[0].len(), 5_000);
    assert_eq!((metrics.stats().adapter_disconnects, errors(&metrics, ErrorType::AdapterPublish)), (0, 3));
}

#[test]
fn panics_of_an_adapter_are_errors_of_an_adapter() {
    let wire = Wire::new(Mood::Panics);
    let (server, metrics, mut socket) = start(hasty(&wire));
    disconnected(&server);
    server.hub.send(Target::all(), "1").unwrap();
    assert_eq!(socket.text(), "1");
    eventually("publishing has panicked too", || metrics.stats().adapter_dropped == 1);
    wire.both(Mood::Works);
    connected(&server.hub);
    server.hub.send(Target::all(), "2").unwrap();
    eventually("published", || wire.payloads() == ["2"]);
    wire.receive(FROM_AFAR);
    assert_eq!((socket.text(), socket.text()), ("2".into(), "afar".into()));
    assert!(errors(&metrics, ErrorType::Panic) >= 2);
}

#[test]
fn what_an_adapter_loses_is_counted() {
    let wire = Wire::new(Mood::Works);
    let (server, metrics, mut socket) = start(hasty(&wire));
    connected(&server.hub);
    wire.lose(3);
    wire.receive(FROM_AFAR);
    assert_eq!(socket.text(), "afar");
    assert_eq!((errors(&metrics, ErrorType::AdapterSubscribe), metrics.stats().adapter_received), (3, 1));
    assert_eq!(server.hub.adapter_state(), Some(AdapterState::Connected), "it goes on");
}

#[test]
fn a_bus_that_takes_nothing_costs_the_queue_and_no_sender_its_time() {
    let wire = Wire::new(Mood::Works);
    let (server, metrics, mut socket) = start(hasty(&wire).queue_messages(10));
    connected(&server.hub);
    wire.publishing(Mood::Blocks);
    let published: Vec<bool> =
        (0..50).map(|n| server.hub.send(Target::all(), n.to_string()).unwrap().published).collect();
    (0..50).for_each(|n| assert_eq!(socket.text(), n.to_string()));
    // Ten wait, and as many may be in the adapter's hands.
    let accepted = published.iter().filter(|p| **p).count();
    assert!((10..=20).contains(&accepted) && published[..10].iter().all(|p| *p), "{published:?}");
    assert_eq!(metrics.stats().adapter_dropped, 50 - accepted as u64);
    wire.receive(FROM_AFAR);
    assert_eq!(socket.text(), "afar", "what comes is not held up by what does not go");
    wire.publishing(Mood::Works);
    eventually("what has waited", || wire.payloads().len() == accepted);
    let expected: Vec<_> = (0..50).filter(|n| published[*n]).map(|n| n.to_string()).collect();
    assert_eq!(wire.payloads(), expected);
}

#[test]
fn bytes_are_bounded_as_well() {
    let wire = Wire::new(Mood::Works);
    let (server, metrics, _socket) = start(hasty(&wire).queue_bytes(100_000));
    connected(&server.hub);
    wire.publishing(Mood::Blocks);
    let send = |len: usize| server.hub.send(Target::room("nobody"), vec![0; len]).unwrap().published;
    assert!(send(1_000_000), "a larger one goes into an empty queue");
    // Until the publisher has it in its hands, the queue is full with it.
    eventually("the queue is empty", || send(90_000));
    assert!(!send(90_000) && send(100));
    assert!(metrics.stats().adapter_dropped >= 1);
    wire.publishing(Mood::Works);
    eventually("all that was taken", || wire.published().len() == 3);
}

#[test]
fn what_has_waited_too_long_is_dropped_even_while_the_bus_is_away() {
    let wire = Wire::new(Mood::Unavailable);
    let cluster = Cluster::new(wire.adapter()).backoff(LONG, LONG).max_age(Duration::from_millis(20));
    let (server, metrics, _socket) = start(cluster);
    disconnected(&server);
    (0..7).for_each(|n| _ = server.hub.send(Target::all(), n.to_string()).unwrap());
    eventually("all are too old", || metrics.stats().adapter_dropped == 7);
    assert!(wire.published().is_empty());
}

#[test]
fn a_shutdown_does_not_wait_for_a_bus_that_blocks() {
    for mood in [Mood::Blocks, Mood::Hangs] {
        let wire = Wire::new(Mood::Works);
        let (server, _metrics, mut socket) = start(hasty(&wire));
        connected(&server.hub);
        wire.publishing(mood);
        server.hub.send(Target::all(), "x").unwrap();
        assert_eq!(socket.text(), "x");
        thread::scope(|scope| {
            scope.spawn(|| socket.expect_close());
            server.hub.shutdown(PATIENCE).unwrap();
        });
        assert_eq!(server.hub.adapter_state(), Some(AdapterState::Closed));
        wire.both(Mood::Works);
    }
}

#[test]
fn a_hub_that_ends_while_its_bus_is_away_ends() {
    let wire = Wire::new(Mood::Unavailable);
    let cluster = Cluster::new(wire.adapter()).backoff(LONG, LONG).max_age(LONG);
    let (server, metrics, socket) = start(cluster);
    disconnected(&server);
    server.hub.send(Target::all(), "x").unwrap();
    drop(socket);
    server.hub.shutdown(PATIENCE).unwrap();
    assert_eq!(server.hub.adapter_state(), Some(AdapterState::Closed));
    assert_eq!(metrics.stats().adapter_dropped, 1, "what nobody will publish is counted");
}

#[test]
fn the_other_node_comes_back_too() {
    // A bus in memory cannot fail, but its hubs can leave and new ones come.
    let bus = MemoryBus::new();
    let one = node(Hub::builder(), Cluster::new(bus.adapter()).node_id("one"));
    for round in 0..3 {
        let two = node(Hub::builder(), Cluster::new(bus.adapter()).node_id("two"));
        let mut socket = two.connect();
        one.hub.send(Target::all(), round.to_string()).unwrap();
        assert_eq!(socket.text(), round.to_string());
    }
}

/// A payload with a destructor of the application's.
struct Payload(Box<dyn Fn() + Send + Sync>);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        b"payload"
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn with_destructor(code: impl Fn() + Send + Sync + 'static) -> wshub::Message {
    wshub::Message::binary(bytes::Bytes::from_owner(Payload(Box::new(code))))
}

#[test]
fn destructors_of_payloads_that_send_or_panic_hold_nobody_up() {
    let wire = Wire::new(Mood::Works);
    let (server, metrics, _socket) = start(hasty(&wire).queue_messages(2).max_age(Duration::from_millis(300)));
    connected(&server.hub);
    let (hub, sent) = (server.hub.clone(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let count = Arc::clone(&sent);
    let sends = move || {
        hub.send(Target::room("nobody"), "from a destructor").unwrap();
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    };
    let done = || sent.load(std::sync::atomic::Ordering::SeqCst);
    // Published, refused by a full queue, too old, or left at the end: each is dropped in another place.
    server.hub.send(Target::room("nobody"), with_destructor(sends.clone())).unwrap();
    eventually("dropped after it was published", || done() == 1);
    wire.publishing(Mood::Blocks);
    (0..9).for_each(|_| _ = server.hub.send(Target::room("nobody"), with_destructor(sends.clone())).unwrap());
    assert!(done() > 1, "some were refused");
    wire.publishing(Mood::Unavailable);
    eventually("all have been dropped", || done() == 10);
    wire.publishing(Mood::Works);
    connected(&server.hub);
    server.hub.send(Target::room("nobody"), with_destructor(|| panic!("a destructor's own"))).unwrap();
    eventually("the publisher has survived it", || {
        _ = server.hub.send(Target::room("nobody"), "after").unwrap();
        wire.published().iter().any(|text| text.contains("YWZ0ZXI="))
    });
    assert!(metrics.stats().adapter_dropped > 0);
}
