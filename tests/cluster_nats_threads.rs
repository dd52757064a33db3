//! The one thread of the NATS adapter. In a process of its own, because it counts threads.
// Not over TLS: it counts threads.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use common::broker::{Broker, Kind};
use common::bus::connected;
use common::{PATIENCE, crate_threads, eventually};
use wshub::{
    Hub, Target,
    cluster::{Adapter, Cluster, NatsAdapter},
};

/// Tests that count threads run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn nats_threads() -> usize {
    crate_threads().iter().filter(|name| name.starts_with("wshub-nats")).count()
}

#[test]
fn one_thread_from_the_first_connection_until_it_is_closed() {
    if Kind::Nats.is_missing() {
        return;
    }
    let _alone = alone();
    let broker = Broker::nats();
    let adapter = NatsAdapter::new(&broker.url()).unwrap();
    assert_eq!(nats_threads(), 0);
    adapter.connect().unwrap();
    adapter.connect().unwrap();
    adapter.publish(b"x").unwrap();
    assert_eq!(nats_threads(), 1);
    adapter.close();
    adapter.close();
    eventually("the thread ends", || nats_threads() == 0);
    assert!(adapter.connect().is_err() && adapter.publish(b"x").is_err());
    assert_eq!(nats_threads(), 0);
}

#[test]
fn dropping_it_ends_its_thread() {
    if Kind::Nats.is_missing() {
        return;
    }
    let _alone = alone();
    let broker = Broker::nats();
    let adapter = NatsAdapter::new(&broker.url()).unwrap();
    adapter.connect().unwrap();
    assert_eq!(nats_threads(), 1);
    drop(adapter);
    // The kernel may list it for a moment.
    eventually("the thread ends", || nats_threads() == 0);
}

#[test]
fn a_hub_has_one_and_leaves_none() {
    if Kind::Nats.is_missing() {
        return;
    }
    let _alone = alone();
    let mut broker = Broker::nats();
    let cluster = Cluster::new(NatsAdapter::new(&broker.url()).unwrap()).presence(Duration::from_millis(50));
    let hub =
        Hub::builder().cluster(cluster.backoff(Duration::from_millis(5), Duration::from_millis(50))).build().unwrap();
    for _ in 0..3 {
        connected(&hub);
        hub.send(Target::all(), "x").unwrap();
        assert_eq!(nats_threads(), 1);
        broker.kill();
        broker.start();
    }
    hub.shutdown(PATIENCE).unwrap();
    eventually("the thread ends", || nats_threads() == 0);
}

#[test]
fn closing_frees_who_waits_for_a_server_that_sleeps() {
    if Kind::Nats.is_missing() {
        return;
    }
    let _alone = alone();
    let broker = Broker::nats();
    let adapter = NatsAdapter::new(&broker.url()).unwrap().connect_timeout(PATIENCE * 9).response_timeout(PATIENCE * 9);
    adapter.connect().unwrap();
    broker.pause();
    thread::scope(|scope| {
        let start = Instant::now();
        let publishing = scope.spawn(|| adapter.publish(b"x"));
        // Most likely in the middle of it; before it, closing is as good.
        thread::sleep(Duration::from_millis(50));
        adapter.close();
        assert!(publishing.join().unwrap().is_err());
        assert!(start.elapsed() < PATIENCE);
    });
    broker.resume();
    eventually("the thread ends", || nats_threads() == 0);
}

#[test]
fn ended_sessions_leave_no_sockets() {
    if Kind::Nats.is_missing() {
        return;
    }
    let _alone = alone();
    let sockets = || {
        let links =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    };
    let mut broker = Broker::nats();
    let adapter = NatsAdapter::new(&broker.url()).unwrap();
    adapter.connect().unwrap();
    let before = sockets();
    for _ in 0..5 {
        broker.kill();
        broker.start();
        eventually("it is there again", || adapter.connect().is_ok());
    }
    eventually("sockets are closed", || sockets() <= before);
}
