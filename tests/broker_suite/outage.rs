//! A broker that goes and comes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wshub::{
    Hub, Target,
    cluster::AdapterState,
    metrics::{DebugMetrics, ErrorType},
};

use super::{Bus, early_node, node, settings};
use crate::common::broker::Broker;
use crate::common::bus::connected;
use crate::common::{PATIENCE, TestServer, WsClient, errors, eventually, get};

/// Sends from the one until the other's client gets it: the way is open again. What comes before it is thrown away.
pub(crate) fn flows(from: &TestServer, to: &TestServer) {
    let mut socket = to.connect();
    let way = format!("from {} to {}", from.hub.node_id(), to.hub.node_id());
    let is_there = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while socket.text() != way {}
            is_there.store(true, Ordering::SeqCst);
        });
        eventually(&way, || {
            from.hub.send(Target::all(), way.as_str()).unwrap();
            thread::sleep(Duration::from_millis(5));
            is_there.load(Ordering::SeqCst)
        });
    });
}

pub(crate) fn a_broker_that_comes_late_is_found<B: Bus>() {
    let mut broker = Broker::absent(B::KIND);
    let (one, metrics) = early_node(settings::<B>(&broker, "one").max_age(PATIENCE));
    let (two, _) = early_node(settings::<B>(&broker, "two"));
    let (mut here, mut there) = (one.connect(), two.connect());
    eventually("failures", || {
        errors(&metrics, ErrorType::AdapterPublish) > 1 && errors(&metrics, ErrorType::AdapterSubscribe) > 1
    });
    assert_eq!(one.hub.adapter_state(), Some(AdapterState::Disconnected));
    assert!(one.hub.send(Target::all(), "it waits").unwrap().published);
    assert_eq!(here.text(), "it waits", "local clients notice nothing");
    broker.start();
    for node in [&one, &two] {
        connected(&node.hub);
    }
    flows(&one, &two);
    flows(&two, &one);
    // Whether the first message found the other node subscribed is luck; everything since then is not.
    two.hub.send(Target::all(), "end").unwrap();
    assert!(there.texts_until_end().iter().all(|text| text == "it waits" || text.starts_with("from ")));
    assert_eq!(metrics.stats().adapter_dropped, 0);
}

/// Sends numbers, a burst every few milliseconds, while `disturb` runs and until the way is open again; how many.
fn load(from: &Hub, disturb: impl FnOnce() + Send) -> usize {
    thread::scope(|scope| {
        let disturbance = scope.spawn(disturb);
        let mut sent = 0;
        while !disturbance.is_finished() {
            for _ in 0..20 {
                from.send(Target::all(), sent.to_string()).unwrap();
                sent += 1;
            }
            thread::sleep(Duration::from_millis(4));
        }
        disturbance.join().unwrap();
        sent
    })
}

fn numbers(socket: &mut WsClient) -> Vec<usize> {
    socket.texts_until_end().iter().filter_map(|text| text.parse().ok()).collect()
}

/// Whether each message has been published, or counted as dropped.
fn settled(metrics: &DebugMetrics, sent: usize) -> bool {
    let stats = metrics.stats();
    stats.adapter_published + stats.adapter_dropped == sent as u64
}

pub(crate) fn a_broker_that_is_killed_under_load_comes_back<B: Bus>() {
    let mut broker = B::broker();
    let (one, sender) = node::<B>(&broker, "one");
    let (two, receiver) = node::<B>(&broker, "two");
    let (mut here, mut there) = (one.connect(), two.connect());
    let sent = load(&one.hub, || {
        for _ in 0..2 {
            eventually("messages cross", || receiver.stats().adapter_received > 100);
            broker.kill();
            eventually("the outage is noticed", || {
                [&one, &two].iter().all(|n| n.hub.adapter_state() == Some(AdapterState::Disconnected))
            });
            broker.start();
            for node in [&one, &two] {
                connected(&node.hub);
            }
            let before = receiver.stats().adapter_received;
            eventually("it flows again", || receiver.stats().adapter_received > before + 100);
        }
    });
    eventually("all is settled", || settled(&sender, sent));
    let (published, dropped) = (sender.stats().adapter_published, sender.stats().adapter_dropped);
    one.hub.send(Target::all(), "end").unwrap();
    let (near, far) = (numbers(&mut here), numbers(&mut there));
    assert!(near.into_iter().eq(0..sent), "local clients get everything");
    assert!(far.is_sorted(), "out of order");
    assert_eq!(far.iter().collect::<BTreeSet<_>>().len(), far.len(), "twice");
    assert!(far.contains(&(sent - 1)), "what is sent after the recovery arrives");
    let missed = sent - far.len();
    eprintln!(
        "{}: {sent} sent, {published} published, {dropped} counted as dropped; {} received, {missed} missed",
        B::OPTION,
        far.len()
    );
    // What is missing was counted, or was published while the other node was not subscribed.
    assert!(receiver.stats().adapter_received >= far.len() as u64);
    assert!(far.len() as u64 <= published + dropped);
}

pub(crate) fn a_broker_that_wants_a_password_lets_in_who_knows_it<B: Bus>() {
    let mut broker = B::broker();
    let open = settings::<B>(&broker, "without");
    broker.set_password(Some("sesame-1"));
    let knowing = [settings::<B>(&broker, "one"), settings::<B>(&broker, "two")];
    broker.kill();
    broker.start();
    let (without, metrics) = early_node(open);
    let [(one, _), (two, _)] = knowing.map(early_node);
    for node in [&one, &two] {
        connected(&node.hub);
    }
    flows(&one, &two);
    eventually("refusals", || {
        errors(&metrics, ErrorType::AdapterPublish) > 1 && errors(&metrics, ErrorType::AdapterSubscribe) > 1
    });
    assert_ne!(without.hub.adapter_state(), Some(AdapterState::Connected));
    assert_eq!(metrics.stats().adapter_connects, 0);
    let mut here = without.connect();
    without.hub.send(Target::all(), "here").unwrap();
    assert_eq!(here.text(), "here");
    // And nodes that were connected when the password came.
    broker.kill();
    broker.start();
    for node in [&one, &two] {
        connected(&node.hub);
    }
    flows(&two, &one);
}

pub(crate) fn each_transition_is_counted_and_in_the_health_document<B: Bus>() {
    let mut broker = Broker::absent(B::KIND);
    let (one, metrics) = early_node(settings::<B>(&broker, "one"));
    let counts = || (metrics.stats().adapter_connects, metrics.stats().adapter_disconnects);
    let health = |state: &str| {
        let wanted = format!(r#""adapter":"{state}""#);
        let deadline = Instant::now() + PATIENCE;
        while !get(one.addr, "/healthz").1.contains(&wanted) {
            assert!(Instant::now() < deadline, "{wanted} does not come: {}", get(one.addr, "/healthz").1);
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(one.hub.health().adapter.map(AdapterState::as_str), Some(state));
        assert_eq!(get(one.addr, "/healthz").0, 200);
    };
    health("disconnected");
    assert_eq!(counts(), (0, 0));
    for n in 1..=2 {
        broker.start();
        health("connected");
        eventually("one more is counted", || counts() == (n, n - 1));
        broker.kill();
        health("disconnected");
        eventually("one more is counted", || counts() == (n, n));
    }
    one.hub.shutdown(PATIENCE).unwrap();
    assert_eq!(one.hub.adapter_state(), Some(AdapterState::Closed));
    assert_eq!(counts(), (2, 2));
}
