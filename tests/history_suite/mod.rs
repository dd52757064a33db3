//! What every store of shared histories must do: alone, and under two hubs.
#![allow(dead_code, reason = "each test file uses a part")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::{TestServer, WsClient, eventually};
use wshub::history::{Bounds, HistoryStore, Position, Recovery, StoreError, StoreEvent, Stored};
use wshub::{Admission, Hub, RoomOptions};

pub(crate) const BOUNDS: Bounds = Bounds::new(3, Duration::from_secs(60), Duration::from_secs(120));

fn offsets(stored: &Stored) -> Vec<u64> {
    stored.entries.iter().map(|(offset, _)| *offset).collect()
}

/// Offsets are contiguous, bounded, and of one epoch until that is renewed.
pub(crate) fn appends_are_one_order(store: &impl HistoryStore) {
    let empty = store.read("room", 0, BOUNDS).unwrap();
    assert_eq!((empty.position.offset(), empty.entries.len()), (0, 0));
    let epoch = empty.position.epoch();
    for n in 1..=5_u64 {
        let position = store.append("room", format!("entry {n}\n\0").as_bytes(), BOUNDS).unwrap();
        assert_eq!(position, Position::new(epoch, n));
    }
    let stored = store.read("room", 0, BOUNDS).unwrap();
    assert_eq!((stored.position, offsets(&stored)), (Position::new(epoch, 5), vec![3, 4, 5]));
    assert_eq!(&stored.entries[2].1[..], b"entry 5\n\0");
    assert_eq!(offsets(&store.read("room", 4, BOUNDS).unwrap()), [5]);
    assert_eq!(offsets(&store.read("room", 5, BOUNDS).unwrap()), [0; 0]);
    let other = store.append("other {room}", b"", BOUNDS).unwrap();
    assert_eq!(other.offset(), 1);
    assert_ne!(other.epoch(), epoch);
    store.clear("room").unwrap();
    let cleared = store.read("room", 0, BOUNDS).unwrap();
    assert_eq!((cleared.position, cleared.entries.len()), (Position::new(epoch, 5), 0));
    assert_eq!(store.append("room", b"6", BOUNDS).unwrap(), Position::new(epoch, 6));
    assert_eq!(store.renew("room", other.epoch()).unwrap(), epoch, "it is of another epoch already");
    let renewed = store.renew("room", epoch).unwrap();
    assert_ne!(renewed, epoch);
    assert_eq!(store.renew("room", epoch).unwrap(), renewed, "only the first one renews");
    let stored = store.read("room", 0, BOUNDS).unwrap();
    assert_eq!((stored.position, stored.entries.len()), (Position::new(renewed, 0), 0));
    assert_eq!(store.append("room", b"1", BOUNDS).unwrap(), Position::new(renewed, 1));
}

/// Many append at once; a follower is told of all, in order, once.
pub(crate) fn followers_are_told_everything_in_order(store: &impl HistoryStore) {
    const EACH: u64 = 200;
    let (is_following, mut told) = (AtomicBool::new(false), Vec::new());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                eventually("it is followed", || is_following.load(Ordering::SeqCst));
                for n in 0..EACH {
                    store.append(if n % 2 == 0 { "even" } else { "odd" }, &n.to_be_bytes(), BOUNDS).unwrap();
                }
            });
        }
        let followed = store.follow(&mut |event| {
            match event {
                StoreEvent::Following => is_following.store(true, Ordering::SeqCst),
                StoreEvent::Nothing => {}
                StoreEvent::Appended { room, position, .. } => told.push((room.to_owned(), position.offset())),
                other => panic!("{other:?} is not expected"),
            }
            told.len() as u64 != 3 * EACH
        });
        assert_eq!(followed, Ok::<_, StoreError>(()));
    });
    for room in ["even", "odd"] {
        let offsets: Vec<u64> = told.iter().filter(|(name, _)| name == room).map(|(_, offset)| *offset).collect();
        assert_eq!(offsets, (1..=3 * EACH / 2).collect::<Vec<_>>(), "{room}");
    }
}

pub(crate) fn node(store: impl HistoryStore) -> TestServer {
    let options = RoomOptions::history().messages(1000).shared();
    let hub = Hub::builder().rooms("shared*", options).history_store(store).on_upgrade(|head| {
        let room = head.query_param("room");
        Ok(room.into_iter().fold(Admission::anonymous(), Admission::room))
    });
    TestServer::new(hub)
}

fn texts(socket: &mut WsClient, count: usize) -> Vec<String> {
    (0..count).map(|_| socket.text()).collect()
}

/// Two nodes publish to one room: all members get one order, and a client that changes the node recovers there.
pub(crate) fn nodes_share_one_order(store: &(impl HistoryStore + Clone)) {
    const EACH: usize = 200;
    let nodes = [node(store.clone()), node(store.clone())];
    let mut readers: Vec<WsClient> = nodes.iter().map(|node| node.connect_to("/ws?room=shared")).collect();
    eventually("both are in", || nodes.iter().all(|node| node.hub.room_size("shared") == 1));
    thread::scope(|scope| {
        for (n, node) in nodes.iter().enumerate() {
            scope.spawn(move || {
                for k in 0..EACH {
                    assert!(node.hub.publish("shared", format!("{n} {k}")).delivery.published);
                    if k % 50 == 0 {
                        // Not more than the queue takes.
                        node.hub.publish_confirmed("shared-pause", "x", Duration::from_secs(20)).unwrap();
                    }
                }
            });
        }
    });
    let orders: Vec<Vec<String>> = readers.iter_mut().map(|reader| texts(reader, 2 * EACH)).collect();
    assert_eq!(orders[0], orders[1]);
    let positions: Vec<_> = nodes.iter().map(|node| node.hub.position("shared").unwrap()).collect();
    assert_eq!(positions[0], positions[1]);
    assert_eq!(positions[0].offset(), 2 * EACH as u64);
    // A node that has not seen the room reads it.
    let third = node(store.clone());
    let (_socket, client) = third.pair_to("/ws");
    let since = Position::new(positions[0].epoch(), 2 * EACH as u64 - 7);
    let (recovery, missed) =
        client.join_collecting("shared", Some(since), |joined, missed| (joined.recovery, missed)).unwrap();
    assert_eq!((recovery, missed.len()), (Recovery::Complete, 7));
    let texts: Vec<&str> = missed.iter().map(|p| p.message().as_text().unwrap()).collect();
    assert_eq!(texts, orders[0][2 * EACH - 7..]);
    let confirmed = third.hub.publish_confirmed("shared", "last", Duration::from_secs(20)).unwrap();
    assert_eq!(confirmed.position.unwrap().offset(), 2 * EACH as u64 + 1);
    for reader in &mut readers {
        assert_eq!(reader.text(), "last");
    }
}

/// While the store is away each node delivers by itself, under a new epoch; then a new shared one begins.
pub(crate) fn an_outage_is_bridged(store: &(impl HistoryStore + Clone), set_down: impl Fn(bool)) {
    let nodes = [node(store.clone()), node(store.clone())];
    let mut readers: Vec<WsClient> = nodes.iter().map(|node| node.connect_to("/ws?room=shared")).collect();
    let wait = Duration::from_secs(20);
    let before = nodes[0].hub.publish_confirmed("shared", "before", wait).unwrap().position.unwrap();
    for reader in &mut readers {
        assert_eq!(reader.text(), "before");
    }
    set_down(true);
    eventually("it is noticed", || {
        let here = nodes[0].hub.publish_confirmed("shared", "alone", wait).unwrap().position;
        here.is_some_and(|here| here.epoch() != before.epoch())
    });
    while readers[0].text() != "alone" {}
    set_down(false);
    eventually("both are of one new epoch", || {
        let positions =
            nodes.each_ref().map(|node| node.hub.publish_confirmed("shared", "after", wait).unwrap().position);
        let epochs = positions.map(|position| position.map(|position| position.epoch()));
        epochs[0] == epochs[1] && epochs[0].is_some_and(|epoch| epoch != before.epoch())
    });
    nodes[1].hub.publish_confirmed("shared", "end", wait).unwrap();
    for reader in &mut readers {
        let mut last = String::new();
        while last != "end" {
            last = reader.text();
        }
    }
    let [first, second] = nodes.each_ref().map(|node| node.hub.position("shared"));
    assert_eq!(first, second);
}
