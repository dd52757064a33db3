//! Addresses where no broker is, and how a hub ends in such a case.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wshub::{
    Hub, Target,
    cluster::{AdapterState, Cluster},
    metrics::ErrorType,
};

use super::fake::Fake;
use super::{Bus, early_node, settings};
use crate::common::broker::Broker;
use crate::common::bus::connected;
use crate::common::{PATIENCE, errors, eventually};

fn cluster<B: Bus>(addr: SocketAddr) -> Cluster {
    let url = format!("{}://{addr}", B::OPTION);
    B::cluster(&url).backoff(Duration::from_millis(20), Duration::from_millis(100))
}

/// A node that tries, fails, says so, tries again, and serves its own clients all the while; how many messages it has
/// given up meanwhile.
fn fails_and_serves(cluster: Cluster, what: &str) -> u64 {
    let (node, metrics) = early_node(cluster);
    let mut here = node.connect();
    eventually(what, || {
        node.hub.send(Target::all(), "x").unwrap();
        errors(&metrics, ErrorType::AdapterPublish) + errors(&metrics, ErrorType::AdapterSubscribe) > 3
            && errors(&metrics, ErrorType::AdapterSubscribe) > 1
    });
    assert_eq!(metrics.stats().adapter_connects, 0, "{what}");
    assert_ne!(node.hub.adapter_state(), Some(AdapterState::Connected), "{what}");
    assert_eq!(errors(&metrics, ErrorType::Panic), 0, "{what}");
    node.hub.send(Target::all(), "end").unwrap();
    assert!(here.texts_until_end().iter().all(|text| text == "x"), "{what}");
    metrics.stats().adapter_dropped
}

/// Everything may wait for as long as a test takes.
fn patient(cluster: Cluster) -> Cluster {
    cluster.queue_messages(1_000_000).max_age(PATIENCE * 10)
}

pub(crate) fn nobody_listens<B: Bus>() {
    let broker = Broker::absent(B::KIND);
    assert_eq!(fails_and_serves(patient(settings::<B>(&broker, "one")), "nobody listens"), 0);
}

pub(crate) fn somebody_accepts_and_never_answers<B: Bus>() {
    let fake = Fake::silent();
    // No message is thrown at a connection that has not answered once.
    assert_eq!(fails_and_serves(patient(cluster::<B>(fake.addr)), "silence"), 0);
    assert!(fake.connections() > 2);
}

pub(crate) fn somebody_answers_garbage<B: Bus>() {
    let nested: &[u8] = b"*1\r\n".repeat(100_000).leak();
    let garbage: [&[u8]; 13] = [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        b"\x00\xff\xfe\r\n\x80",
        b"-ERR go away\r\n",
        b"-LOADING the dataset\r\n",
        b"+OK\r\n",
        b"$99999999999\r\n",
        b"*99999999999\r\n",
        b"$-7\r\n*-3\r\n:x\r\n",
        b"INFO {}\r\n",
        b"INFO {\"max_payload\":1}\r\n-ERR 'Authorization Violation'\r\n",
        b"INFO nonsense\r\n",
        b"MSG wshub.messages 1 99999999999\r\n",
        nested,
    ];
    for text in garbage {
        let fake = Fake::saying(text);
        let what = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
        fails_and_serves(cluster::<B>(fake.addr), &what);
    }
}

/// Shuts a hub down, and waits until its threads have ended: they hold the settings, and the settings hold a probe.
fn ends(what: &str, cluster: Cluster, prepare: impl FnOnce(&Hub)) {
    let probe = Arc::new(());
    let held = Arc::clone(&probe);
    let hub = Hub::builder().cluster(cluster.on_decode_error(move |_, _| assert_eq!(*held, ()))).build().unwrap();
    prepare(&hub);
    (0..50).for_each(|n| _ = hub.send(Target::all(), n.to_string()).unwrap());
    let start = Instant::now();
    hub.shutdown(PATIENCE).unwrap();
    assert!(start.elapsed() < PATIENCE / 2, "{what}: the shutdown took {:?}", start.elapsed());
    assert_eq!(hub.adapter_state(), Some(AdapterState::Closed), "{what}");
    drop(hub);
    eventually(&format!("{what}: the threads end"), || Arc::strong_count(&probe) == 1);
}

pub(crate) fn a_hub_ends_in_every_state<B: Bus>() {
    let absent = Broker::absent(B::KIND);
    ends("nobody listens, at once", settings::<B>(&absent, "one"), |_| {});
    ends("nobody listens", settings::<B>(&absent, "one"), |hub| {
        eventually("a failure", || hub.adapter_state() == Some(AdapterState::Disconnected));
    });
    let silent = Fake::silent();
    ends("silence", cluster::<B>(silent.addr), |_| eventually("a connection", || silent.connections() > 1));
    let rude = Fake::saying(b"-ERR no\r\n");
    ends("refusals", cluster::<B>(rude.addr), |_| eventually("connections", || rude.connections() > 2));

    let mut broker = B::broker();
    ends("connected", settings::<B>(&broker, "one"), connected);
    ends("killed", settings::<B>(&broker, "one"), |hub| {
        connected(hub);
        broker.kill();
    });
    broker.start();
    ends("paused", settings::<B>(&broker, "one"), |hub| {
        connected(hub);
        broker.pause();
    });
    ends("paused from the start", settings::<B>(&broker, "one"), |_| {});
}
