//! A client that does not read harms only itself.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Link, PATIENCE, WsClient, accept, eventually};
use wshub::{
    Client, Config, DropPolicy, Hub, Target,
    health::QueueDepth,
    metrics::{DebugMetrics, ErrorType},
};

/// Far longer than any test: whoever waits for a stalled client fails its test.
const FOR_EVER: Duration = Duration::from_secs(3600);

fn config() -> Config {
    Config::default().queue_messages(64).write_timeout(FOR_EVER).close_timeout(FOR_EVER)
}

/// Runs `work` and fails, instead of hanging, when it blocks.
fn without_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(work);
    eventually("nothing blocks", || thread.is_finished());
    thread.join().unwrap()
}

/// Clients that do not read, whose queues are full.
fn stall(hub: &Hub, count: usize) -> Vec<(WsClient, Client)> {
    let links = [Link::TinyUnix, Link::TinyTcp];
    let clients: Vec<_> = (0..count).map(|n| accept(hub, links[n % 2], "/stalled")).collect();
    for (_, client) in &clients {
        // Kernels take more of a TCP stream than they are told to, so until nothing fits.
        eventually("the queue is full", || client.send(vec![0; 300_000]).is_err());
    }
    clients
}

#[test]
fn others_and_the_sender_are_not_delayed() {
    const MESSAGES: usize = 2000;
    for eager in [false, true] {
        let hub = Hub::builder().config(config().queue_messages(4096).queue_bytes(1 << 20).eager_writers(eager));
        let hub = hub.build().unwrap();
        let stalled = stall(&hub, 4);
        let healthy: Vec<_> = (0..4).map(|n| accept(&hub, [Link::Unix, Link::Tcp][n % 2], "/")).collect();
        let readers: Vec<_> = healthy
            .into_iter()
            .map(|(mut reader, _)| {
                thread::spawn(move || (0..MESSAGES).for_each(|n| assert_eq!(reader.text(), format!("{n:0>100}"))))
            })
            .collect();
        let sender = hub.clone();
        without_blocking(move || {
            for n in 0..MESSAGES {
                let delivery = sender.send(Target::all(), format!("{n:0>100}")).unwrap();
                assert!(delivery.queued >= 4, "{delivery:?}");
            }
        });
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        for (_, client) in &stalled {
            assert!(!client.is_closed());
        }
        hub.shutdown(Duration::ZERO).unwrap();
    }
}

/// The first to find the socket full may be the end of a cork, or a sender that writes what others have queued.
#[test]
fn whoever_meets_a_full_socket_goes_on() {
    let hub = Hub::builder().config(config().queue_messages(10_000).queue_bytes(1 << 30)).build().unwrap();
    for link in [Link::TinyUnix, Link::TinyTcp] {
        let (_reader, client) = accept(&hub, link, "/");
        let corking = client.clone();
        without_blocking(move || {
            let _cork = corking.hub().cork();
            (0..200).for_each(|_| corking.send(vec![0; 100_000]).unwrap());
        });
        assert!(client.queue_depth().messages > 0);
        let (_reader, client) = accept(&hub, link, "/");
        let senders: Vec<_> = (0..4).map(|_| client.clone()).collect();
        without_blocking(move || {
            thread::scope(|scope| {
                for client in &senders {
                    scope.spawn(move || (0..500).for_each(|_| client.send(vec![0; 10_000]).unwrap()));
                }
            });
        });
        assert!(client.queue_depth().messages > 0);
    }
    hub.shutdown(Duration::ZERO).unwrap();
}

#[test]
fn shutdown_cuts_stalled_clients_at_its_deadline() {
    let hub = Hub::builder().config(config()).build().unwrap();
    let _stalled = stall(&hub, 4);
    let (mut healthy, _) = accept(&hub, Link::Unix, "/");
    let started = Instant::now();
    let reader = thread::spawn(move || healthy.expect_close());
    hub.shutdown(Duration::from_millis(200)).unwrap();
    assert!(started.elapsed() < PATIENCE);
    assert_eq!(reader.join().unwrap(), (1001, "server shutting down".to_owned()));
    assert_eq!(hub.client_count(), 0);
}

#[test]
fn a_drain_leaves_them_to_its_deadline_and_says_how_many() {
    let hub = Hub::builder().config(
        config().lame_duck(Duration::ZERO).drain_timeout(Duration::from_millis(1)).drain_spread(Duration::ZERO),
    );
    let hub = hub.build().unwrap();
    let _stalled = stall(&hub, 2);
    let (mut healthy, _) = accept(&hub, Link::Unix, "/");
    let reader = thread::spawn(move || healthy.expect_close());
    let error = hub.drain(Duration::from_millis(500)).unwrap_err();
    assert_eq!(reader.join().unwrap(), (1001, "server draining".to_owned()));
    assert_eq!(error.remaining, 2);
    hub.shutdown(Duration::ZERO).unwrap();
}

#[test]
fn the_write_timeout_ends_a_peer_that_takes_nothing() {
    for link in [Link::TinyUnix, Link::TinyTcp] {
        let metrics = Arc::new(DebugMetrics::new());
        let config = config().write_timeout(Duration::from_millis(100));
        let hub = Hub::builder().config(config).metrics(metrics.clone()).build().unwrap();
        let (mut dead, client) = accept(&hub, link, "/");
        eventually("the queue is full", || client.is_closed() || client.send(vec![0; 300_000]).is_err());
        eventually("it is gone", || hub.client_count() == 0);
        assert!(client.is_closed());
        eventually("it is over", || client.closed_at().is_some());
        assert_eq!(metrics.stats().errors.get(&ErrorType::WriteDeadlineError), Some(&1), "{metrics}");
        while dead.next_frame().is_some() {}
        hub.shutdown(PATIENCE).unwrap();
    }
}

/// A peer that reads little by little is slow, not dead.
#[test]
fn the_write_timeout_does_not_end_a_peer_that_takes_a_little() {
    const SIZE: usize = 400_000;
    let hub = Hub::builder().config(config().write_timeout(Duration::from_secs(3))).build().unwrap();
    let (mut slow, client) = accept(&hub, Link::TinyUnix, "/");
    client.send(vec![7; SIZE]).unwrap();
    let mut left = SIZE + 10;
    let started = Instant::now();
    while left > 0 {
        // In all longer than the timeout, however fast the machine.
        if started.elapsed() < Duration::from_millis(4500) {
            thread::sleep(Duration::from_millis(20));
        }
        let mut chunk = [0; 4096];
        slow.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let n = std::io::Read::read(&mut slow.stream, &mut chunk[..left.min(4096)]).unwrap();
        assert!(n > 0, "it was ended with {left} bytes to go");
        left -= n;
    }
    client.send("alive").unwrap();
    assert_eq!(slow.text(), "alive");
}

#[test]
fn what_waits_for_a_stalled_client_is_bounded() {
    for policy in [DropPolicy::DropNewest, DropPolicy::DropOldest] {
        let hub = Hub::builder().config(config().queue_messages(200).queue_bytes(50_000).drop_policy(policy));
        let hub = hub.build().unwrap();
        let (_reader, client) = accept(&hub, Link::TinyUnix, "/");
        let most = AtomicUsize::new(0);
        thread::scope(|scope| {
            for sender in 0..4 {
                let (client, most) = (&client, &most);
                scope.spawn(move || {
                    for n in 0..3000 {
                        let _ = client.send(vec![0; if sender == 0 { 3000 } else { n % 300 }]);
                        let QueueDepth { messages, bytes, .. } = client.queue_depth();
                        assert!(messages <= 200 && bytes <= 50_000, "{messages} messages, {bytes} bytes");
                        most.fetch_max(messages, Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(most.into_inner() > 0, "nothing has waited");
        hub.shutdown(Duration::ZERO).unwrap();
    }
}
