//! Two thousand clients connect, chat in fifty rooms, and leave; twice. Alone in its process, because it measures the
//! process.
// Not over TLS: it counts descriptors.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;
use std::thread;

use common::{PATIENCE, TestServer, WsClient, crate_threads, eventually};
use rlimit::Resource;
use wshub::{Admission, Hub, Target, metrics::DebugMetrics};

const CLIENTS: usize = 2000;
const ROOMS: usize = 50;
const MEMBERS: usize = CLIENTS / ROOMS;
/// Threads of the test that act for the clients.
const HANDS: usize = 8;

/// Memory that the second round may add, in KiB: 4 KiB a client, a fraction of what a connection takes. Equal rounds
/// differ by up to half of it, because the allocator keeps more or less. What each client owns is counted besides.
const MARGIN: usize = 4 * CLIENTS;

/// A client and the room it is in.
type Guest = (usize, WsClient);

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn connect(server: &TestServer, hand: usize) -> Vec<Guest> {
    let numbers = (0..CLIENTS).filter(|n| n % HANDS == hand);
    numbers.map(|n| (n % ROOMS, server.connect_to(&format!("/ws?user={n}&room={}", n % ROOMS)))).collect()
}

/// Everybody says something, and hears everybody in the room once.
fn chat(guests: &mut [Guest]) {
    for (_, socket) in &mut *guests {
        socket.send_text("hello");
    }
    for (room, socket) in guests {
        for _ in 0..MEMBERS {
            assert_eq!(socket.text(), format!("{room}: hello"));
        }
    }
}

/// Every other client says goodbye; the rest is just gone.
fn leave(guests: Vec<Guest>) {
    for (at, (_, socket)) in guests.into_iter().enumerate() {
        if at % 2 == 0 { socket.close() } else { drop(socket) }
    }
}

/// The memory that is left in use afterwards.
fn round(server: &TestServer, metrics: &DebugMetrics) -> usize {
    let hub = &server.hub;
    metrics.reset();
    let crowds: Vec<Vec<Guest>> = thread::scope(|scope| {
        let hands: Vec<_> = (0..HANDS).map(|hand| scope.spawn(move || connect(server, hand))).collect();
        hands.into_iter().map(|hand| hand.join().unwrap()).collect()
    });
    assert_eq!((hub.client_count(), hub.user_count(), hub.rooms().len()), (CLIENTS, CLIENTS, ROOMS));
    assert!(hub.rooms().iter().all(|room| room.clients == MEMBERS));
    thread::scope(|scope| {
        for mut guests in crowds {
            scope.spawn(move || {
                chat(&mut guests);
                // Whoever left now would be missed by those who still talk.
                for (_, socket) in &mut guests {
                    assert_eq!(socket.text(), "time to go");
                }
                leave(guests);
            });
        }
        eventually("all has been said", || metrics.stats().messages_sent == (CLIENTS * MEMBERS) as u64);
        assert_eq!(hub.send(Target::all(), "time to go").unwrap().queued, CLIENTS);
    });
    eventually("all have left", || hub.client_count() == 0 && crate_threads() == ["wshub-accept"]);
    assert_eq!((hub.user_count(), hub.room_names().len(), hub.clients().len()), (0, 0, 0));
    let stats = metrics.stats();
    assert_eq!((stats.total_connections, stats.active_connections, stats.active_rooms), (CLIENTS as u64, 0, 0));
    assert_eq!((stats.room_joins, stats.room_leaves), (CLIENTS as u64, CLIENTS as u64));
    assert_eq!((stats.messages_received, stats.messages_dropped), (CLIENTS as u64, 0));
    resident_kib()
}

#[test]
fn a_crowd_comes_and_goes_twice() {
    let (_, hard) = Resource::NOFILE.get().unwrap();
    Resource::NOFILE.set(hard, hard).unwrap();
    assert!(hard > 2 * CLIENTS as u64 + 100, "both ends of {CLIENTS} connections need more than {hard} descriptors");
    let metrics = Arc::new(DebugMetrics::new());
    // Every client owns a share of it until it is freed; this test and the hook have one each.
    let owned = Arc::new(());
    let share = Arc::clone(&owned);
    let builder = Hub::builder()
        .metrics(metrics.clone())
        .on_upgrade(move |head| {
            let param = |name| head.query_param(name).unwrap_or_default();
            Ok(Admission::user(param("user")).room(param("room")).metadata("share", Arc::clone(&share)))
        })
        .on_message(|client, message| {
            for room in client.rooms() {
                let text = format!("{room}: {}", message.as_text().unwrap_or_default());
                client.hub().send(Target::room(&*room), text)?;
            }
            Ok(())
        });
    let server = TestServer::new(builder);
    let [first, second] = std::array::from_fn(|_| {
        let resident = round(&server, &metrics);
        eventually("nothing of a client is left", || Arc::strong_count(&owned) == 2);
        resident
    });
    assert!(second <= first + MARGIN, "resident KiB: {first} after the first round, {second} after the second");
    server.handle.shutdown(PATIENCE).unwrap();
    eventually("no thread is left", || crate_threads().is_empty());
}
