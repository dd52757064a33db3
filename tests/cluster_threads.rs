//! The threads of a hub's cluster end with the hub, however it ends. Alone in its process, because it counts threads.
// Not over TLS: it counts threads.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::bus::{Mood, Wire, connected};
use common::{PATIENCE, crate_threads, eventually};
use wshub::{
    Hub, Target,
    cluster::{Adapter, Cluster, MemoryBus},
    metrics::DebugMetrics,
};

fn start(adapter: impl Adapter) -> Hub {
    let cluster = Cluster::new(adapter).presence(Duration::from_secs(1));
    let hub = Hub::builder().cluster(cluster).build().unwrap();
    eventually("both threads", || crate_threads().len() >= 2);
    hub
}

fn nobody_left(what: &str) {
    // A thread that has been joined may still be listed for a moment.
    eventually(what, || crate_threads().is_empty());
}

#[test]
fn no_thread_outlives_its_hub() {
    let hub = start(MemoryBus::new().adapter());
    let mut names = crate_threads();
    names.sort();
    assert_eq!(names, ["wshub-publish", "wshub-subscribe"].map(|n| n[..15.min(n.len())].to_owned()));
    hub.shutdown(PATIENCE).unwrap();
    nobody_left("after a shutdown");
    hub.shutdown(PATIENCE).unwrap();
    assert!(!hub.send(Target::all(), "x").unwrap().published);

    drop(start(MemoryBus::new().adapter()));
    nobody_left("after the last handle was dropped");

    for mood in [Mood::Unavailable, Mood::Panics, Mood::Blocks] {
        let wire = Wire::new(mood);
        drop(start(wire.adapter()));
        nobody_left("though the bus does not work");
        let hub = start(Wire::new(mood).adapter());
        hub.send(Target::all(), "x").unwrap();
        hub.shutdown(PATIENCE).unwrap();
        nobody_left("though something waits");
    }

    hubs_that_end_while_something_arrives();
    nobody_left("after hubs that ended while something arrived");
}

/// The last handle may be the one that a delivery holds for a moment.
fn hubs_that_end_while_something_arrives() {
    let bus = MemoryBus::new();
    let sender = start(bus.adapter());
    connected(&sender);
    let (received, done) = (Arc::new(DebugMetrics::new()), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                sender.send(Target::all(), "x").unwrap();
            }
        });
        for _ in 0..100 {
            let cluster = Cluster::new(bus.adapter());
            let hub = Hub::builder().metrics(received.clone()).cluster(cluster).build().unwrap();
            received.reset();
            eventually("it receives", || received.stats().adapter_received > 0);
            drop(hub);
        }
        done.store(true, Ordering::Relaxed);
    });
}
