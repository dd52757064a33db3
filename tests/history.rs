//! Rooms with a history: positions, recovery, order, catching up, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::mpsc;
use std::time::Duration;

use common::{TestServer, eventually};
use wshub::cluster::{Cluster, MemoryBus};
use wshub::health::QueueDepth;
use wshub::history::{Gap, Joined, Position, Publication, Range, Recovery, WhenBehind, WithPosition};
use wshub::{Client, Config, DropPolicy, Hub, Limits, Message, RoomOptions, Target};

fn with_history(options: RoomOptions) -> TestServer {
    TestServer::new(Hub::builder().rooms("news*", options))
}

fn texts(hub: &Hub, range: Range) -> Vec<String> {
    let page = hub.history("news", range).unwrap();
    page.publications.iter().map(|p| p.message().as_text().unwrap().to_owned()).collect()
}

#[test]
fn what_is_published_is_remembered_and_sent() {
    let server = with_history(RoomOptions::history().messages(3));
    let hub = &server.hub;
    assert_eq!(hub.position("news"), None);
    let (mut socket, client) = server.pair();
    client.join("news").unwrap();
    for n in 1..=5 {
        let published = hub.publish("news", n.to_string());
        assert_eq!((published.delivery.queued, published.delivery.dropped), (1, 0));
        assert_eq!(published.position.unwrap().offset(), n);
        assert_eq!(socket.text(), n.to_string());
    }
    assert_eq!(texts(hub, Range::oldest_first()), ["3", "4", "5"]);
    assert_eq!(texts(hub, Range::newest_first().limit(2)), ["5", "4"]);
    assert_eq!(hub.send(Target::room("news"), "6").unwrap().queued, 1, "a send to the room is recorded, too");
    assert_eq!(hub.position("news").unwrap().offset(), 6);
    hub.send(Target::rooms(["news", "other"]), "union").unwrap();
    hub.send(Target::all(), "all").unwrap();
    assert_eq!(hub.position("news").unwrap().offset(), 6, "unions have no single order");
    assert_eq!([socket.text(), socket.text(), socket.text()], ["6", "union", "all"]);
    assert_eq!(hub.publish("other", "x").position, None);
    assert_eq!(hub.publish("", "x").position, None);
}

#[test]
fn who_comes_back_gets_what_it_missed_once() {
    let server = with_history(RoomOptions::history().messages(10));
    let hub = &server.hub;
    let start = hub.publish("news", "1").position.unwrap();
    for n in 2..=4 {
        hub.publish("news", n.to_string());
    }
    let (mut socket, client) = server.pair();
    let joined = client.join_from("news", Some(start)).unwrap();
    assert_eq!((joined.recovery, joined.replayed), (Recovery::Complete, 3));
    assert_eq!(joined.position, hub.position("news"));
    hub.publish("news", "5");
    assert_eq!([socket.text(), socket.text(), socket.text(), socket.text()], ["2", "3", "4", "5"]);

    let (mut second, client) = server.pair();
    let top = hub.position("news").unwrap();
    let joined = client.join_from("news", Some(top)).unwrap();
    assert_eq!((joined.recovery, joined.replayed), (Recovery::Complete, 0));
    for n in 6..=20 {
        hub.publish("news", n.to_string());
        assert_eq!(second.text(), n.to_string());
    }

    let (mut late, client) = server.pair();
    let joined = client.join_from("news", Some(start)).unwrap();
    assert_eq!((joined.recovery, joined.replayed), (Recovery::Gap { first_held: 11 }, 10));
    assert_eq!(late.text(), "11");

    // Where the history begins: nothing is missing from 10 on, and one message from 9 on.
    let recovery = |offset| {
        let (_socket, client) = server.pair();
        let joined = client.join_from("news", Some(Position::new(start.epoch(), offset))).unwrap();
        (joined.recovery, joined.replayed)
    };
    assert_eq!([10, 11].map(recovery), [(Recovery::Complete, 10), (Recovery::Complete, 9)]);
    assert_eq!(recovery(9), (Recovery::Gap { first_held: 11 }, 10));
    assert_eq!(recovery(21), (Recovery::OtherEpoch, 10));

    let (mut foreign, client) = server.pair();
    let joined = client.join_from("news", "abcdefgh.3".parse().ok()).unwrap();
    assert_eq!((joined.recovery, joined.replayed), (Recovery::OtherEpoch, 10));
    assert_eq!(foreign.text(), "11");
}

#[test]
fn the_greeting_comes_before_the_replay_and_the_replay_before_the_rest() {
    let server = with_history(RoomOptions::history().rewind(2));
    let hub = &server.hub;
    (1..=3).for_each(|n| _ = hub.publish("news", n.to_string()));
    let (mut socket, client) = server.pair();
    let greet = |joined: &Joined| {
        hub.publish("news", "4");
        client.send(format!("welcome {}", joined.replayed)).unwrap();
    };
    client.join_with("news", None, greet).unwrap();
    hub.publish("news", "5");
    let got: Vec<_> = (0..5).map(|_| socket.text()).collect();
    assert_eq!(got, ["welcome 2", "2", "3", "4", "5"]);

    let (mut socket, client) = server.pair();
    let since = hub.history("news", Range::oldest_first().limit(1)).unwrap().publications[0].position();
    let collected = client.join_collecting("news", Some(since), |joined, publications| {
        hub.publish("news", "6");
        client.send("answer").unwrap();
        assert_eq!(joined.recovery, Recovery::Complete);
        publications.iter().map(Publication::offset).collect::<Vec<_>>()
    });
    assert_eq!(collected.unwrap(), [2, 3, 4, 5]);
    assert_eq!([socket.text(), socket.text()], ["answer", "6"]);
}

#[test]
fn who_was_left_out_gets_the_message_only_by_coming_back() {
    let server = with_history(RoomOptions::history());
    let hub = &server.hub;
    let (mut author, client) = server.pair();
    let (mut other, second) = server.pair();
    client.join("news").unwrap();
    second.join("news").unwrap();
    let start = hub.position("news").unwrap();
    hub.send(Target::room("news").except(client.id()), "1").unwrap();
    hub.publish("news", "2");
    assert_eq!([author.text(), other.text(), other.text()], ["2", "1", "2"]);
    let (mut back, client) = server.pair();
    client.join_from("news", Some(start)).unwrap();
    assert_eq!([back.text(), back.text()], ["1", "2"]);
}

#[test]
fn a_room_is_remembered_for_its_linger_and_no_longer() {
    let options = RoomOptions::history().linger(Duration::from_secs(2));
    let server = with_history(options);
    let hub = &server.hub;
    let (_socket, client) = server.pair();
    client.join("news").unwrap();
    let before = hub.publish("news", "1").position.unwrap();
    client.leave("news").unwrap();
    assert!(!hub.room_exists("news"));
    client.join_from("news", Some(before)).unwrap();
    assert_eq!(hub.position("news"), Some(before), "it outlives its last member");
    client.leave("news").unwrap();
    eventually("the room ends", || hub.position("news").is_none());
    let joined = client.join_from("news", Some(before)).unwrap();
    assert_eq!(joined.recovery, Recovery::OtherEpoch);
    let none = with_history(RoomOptions::history().linger(Duration::ZERO));
    let (_socket, client) = none.pair();
    client.join("news").unwrap();
    client.leave("news").unwrap();
    assert_eq!(none.hub.position("news"), None);
}

#[test]
fn a_room_may_be_remembered_for_ever() {
    let server = with_history(RoomOptions::history().linger(Duration::MAX).age(Duration::MAX));
    let (mut socket, client) = server.pair();
    let start = client.join_from("news", None).unwrap().position;
    server.hub.publish("news", "1");
    assert_eq!(socket.text(), "1");
    client.leave("news").unwrap();
    client.join_from("news", start).unwrap();
    assert_eq!(socket.text(), "1");
}

#[test]
fn all_rooms_together_are_bounded() {
    let limit = 64 * 1024;
    let builder = Hub::builder().rooms("*", RoomOptions::history()).limits(Limits::default().history_bytes(limit));
    let server = TestServer::new(builder);
    let hub = &server.hub;
    let text = "x".repeat(1000);
    let first = hub.publish("room 0", &*text).position;
    let (_socket, client) = server.pair();
    client.join("busy").unwrap();
    let busy = hub.publish("busy", &*text).position;
    for n in 1..200 {
        hub.publish(&format!("room {n}"), &*text);
        assert!(hub.load().history_bytes <= limit, "{} bytes", hub.load().history_bytes);
    }
    assert!(first.is_some() && hub.position("room 0").is_none(), "the least recently used room goes first");
    assert_eq!(hub.position("busy"), busy, "a room with members stays");
    for _ in 0..200 {
        hub.publish("busy", &*text);
    }
    assert!(hub.load().history_bytes <= limit);
    let page = hub.history("busy", Range::oldest_first()).unwrap();
    assert!(page.publications.len() > 20 && page.publications.last().unwrap().position() == page.position);
}

/// Reads until `last` comes: the offsets and the gaps told on the wire, as a line.
fn offsets_until(socket: &mut common::WsClient, last: u64) -> Vec<std::ops::RangeInclusive<u64>> {
    let mut told = Vec::new();
    loop {
        let event: serde_json::Value = serde_json::from_str(&socket.text()).unwrap();
        if event["type"] == "gap" {
            told.push(event["from"].as_u64().unwrap()..=event["to"].as_u64().unwrap());
            continue;
        }
        let position: Position = event["position"].as_str().unwrap().parse().unwrap();
        told.push(position.offset()..=position.offset());
        if position.offset() == last {
            return told;
        }
    }
}

fn assert_contiguous(told: &[std::ops::RangeInclusive<u64>], first: u64) {
    let mut next = first;
    for range in told {
        assert_eq!(*range.start(), next, "in {told:?}");
        next = range.end() + 1;
    }
}

fn padded(n: u64) -> Message {
    Message::text(format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(4000)))
}

/// A server whose clients stall soon, and whose gaps are told here.
fn stalling(options: RoomOptions) -> (TestServer, mpsc::Receiver<(Client, Gap)>) {
    let (tell, told) = mpsc::channel();
    let builder = Hub::builder()
        .config(Config::default().write_timeout(Duration::from_secs(600)).send_buffer(64 * 1024))
        .rooms("news", options)
        .format(&WithPosition)
        .on_gap(move |client, gap| tell.send((client.clone(), gap.clone())).unwrap());
    (TestServer::new(builder), told)
}

#[test]
fn a_client_that_stalls_catches_up_without_a_hole() {
    let (server, told) = stalling(RoomOptions::history().messages(5000).bytes(100 << 20));
    let hub = &server.hub;
    let (mut slow, client) = server.pair();
    client.join("news").unwrap();
    for n in 1..=3000 {
        let delivery = hub.publish("news", padded(n)).delivery;
        assert_eq!((delivery.queued, delivery.dropped), (1, 0));
    }
    let QueueDepth { messages, bytes, .. } = client.queue_depth();
    assert!(messages <= 33 && bytes <= 80_000, "{messages} messages of {bytes} bytes wait");
    let offsets = offsets_until(&mut slow, 3000);
    assert_contiguous(&offsets, 1);
    assert_eq!(offsets.len(), 3000);
    hub.publish("news", padded(3001));
    assert_contiguous(&offsets_until(&mut slow, 3001), 3001);
    assert_eq!(client.dropped().messages, 0);
    assert!(told.try_recv().is_err());
}

#[test]
fn what_the_history_no_longer_holds_is_told_as_a_gap() {
    let (server, told) = stalling(RoomOptions::history().messages(50).bytes(100 << 20));
    let hub = &server.hub;
    let (mut slow, client) = server.pair();
    client.join("news").unwrap();
    (1..=3000).for_each(|n| _ = hub.publish("news", padded(n)));
    let offsets = offsets_until(&mut slow, 3000);
    assert_contiguous(&offsets, 1);
    let gaps: Vec<_> = offsets.iter().filter(|range| range.start() != range.end()).collect();
    assert!(!gaps.is_empty() && offsets.len() < 3000, "{} items", offsets.len());
    let (who, gap) = told.recv_timeout(common::PATIENCE).unwrap();
    assert_eq!((who, gap.room(), gap.from(), gap.to()), (client, "news", Some(*gaps[0].start()), *gaps[0].end()));
}

#[test]
fn the_old_ways_are_there_for_who_wants_them() {
    let options = || RoomOptions::history().messages(50);
    let (server, _) = stalling(options().when_behind(WhenBehind::Drop));
    let (_slow, client) = server.pair();
    client.join("news").unwrap();
    (1..=3000).for_each(|n| _ = server.hub.publish("news", padded(n)));
    assert!(client.dropped().messages > 0 && !client.is_closed());
    let (server, _) = stalling(options().when_behind(WhenBehind::Close));
    let (mut slow, client) = server.pair();
    client.join("news").unwrap();
    (1..=3000).for_each(|n| _ = server.hub.publish("news", padded(n)));
    assert!(client.is_closed());
    while let Some(frame) = slow.next_frame() {
        if frame.first == common::CLOSE {
            assert_eq!(&frame.payload[..2], [0x03, 0xf5]);
            return;
        }
    }
    panic!("no close frame");
}

#[test]
fn what_other_messages_push_out_of_a_queue_is_told_as_a_gap() {
    let (tell, told) = mpsc::channel();
    let config = Config::default().write_timeout(Duration::from_secs(600)).drop_policy(DropPolicy::DropOldest);
    let builder = Hub::builder()
        .config(config)
        .rooms("news", RoomOptions::history().messages(1000).bytes(100 << 20))
        .on_gap(move |_, gap| tell.send((gap.from().unwrap(), gap.to())).unwrap());
    let server = TestServer::new(builder);
    let hub = &server.hub;
    let (mut slow, client) = server.pair();
    client.join("news").unwrap();
    // The kernel's buffers are full and stay so; then publications wait in the queue, behind others that would go
    // first.
    let mut full_looks = 0;
    while full_looks < 30 {
        if client.queue_depth().messages < 5 {
            full_looks = 0;
            hub.send(client.id(), Message::text("x".repeat(10_000))).unwrap();
        } else {
            full_looks += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    (1..=3).for_each(|n| _ = hub.publish("news", n.to_string()));
    for _ in 0..600 {
        hub.send(client.id(), "flood").unwrap();
    }
    hub.send(client.id(), "end").unwrap();
    let got: Vec<u64> = slow.texts_until_end().iter().filter_map(|text| text.parse().ok()).collect();
    let mut all = got.clone();
    while all.len() < 3 {
        let (from, to) = told.recv_timeout(common::PATIENCE).unwrap();
        all.extend(from..=to);
    }
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3], "got {got:?}");
    assert!(got.len() < 3, "the flood has pushed nothing out");
}

#[test]
fn in_a_cluster_each_node_has_its_own_history_and_says_so() {
    let bus = MemoryBus::new();
    let node = || {
        let cluster = Cluster::new(bus.adapter());
        TestServer::new(Hub::builder().rooms("news", RoomOptions::history()).cluster(cluster))
    };
    let (here, there) = (node(), node());
    let (mut socket, client) = there.pair();
    client.join("news").unwrap();
    eventually("the message travels", || {
        here.hub.publish("news", "1");
        there.hub.position("news").is_some_and(|position| position.offset() > 0)
    });
    assert_eq!(socket.text(), "1");
    let position = here.hub.position("news").unwrap();
    assert_ne!(there.hub.position("news").unwrap().epoch(), position.epoch());
    let (mut moved, client) = there.pair();
    let joined = client.join_from("news", Some(position)).unwrap();
    assert_eq!(joined.recovery, Recovery::OtherEpoch);
    assert_eq!(moved.text(), "1", "what is held is replayed");
}
