//! Rooms with a history under load. While clients publish, join, stall and reconnect, each member gets every message
//! once and in order, or a report of what it misses.
#![allow(
    clippy::unwrap_used,
    clippy::items_after_statements,
    clippy::cast_possible_truncation,
    reason = "a test fails by a panic, and counts little"
)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{TestServer, WsClient, eventually};
use proptest::prelude::*;
use wshub::history::{Position, Range, Recovery, WithPosition};
use wshub::{Config, Hub, Message, RoomOptions};

fn server(options: RoomOptions) -> TestServer {
    let config = Config::default().write_timeout(Duration::from_secs(600));
    TestServer::new(Hub::builder().config(config).rooms("r", options).format(&WithPosition))
}

/// What a reader knows: the offset of the last message that it has got, or was told not to get.
#[derive(Debug, Default)]
struct Reader {
    last: Option<Position>,
    got: Vec<u64>,
    missed: u64,
}

impl Reader {
    /// Takes one message of the room: it must follow on what is known.
    fn take(&mut self, text: &str) {
        let event: serde_json::Value = serde_json::from_str(text).unwrap();
        let position: Position = event["position"].as_str().unwrap().parse().unwrap();
        let next = self.last.map_or(position.offset(), |last| last.offset() + 1);
        if event["type"] == "gap" {
            assert_eq!(event["from"].as_u64(), Some(next), "a gap begins where the reader is");
            assert!(position.offset() >= next);
            self.missed += position.offset() + 1 - next;
        } else {
            assert_eq!(position.offset(), next, "behind {:?}", self.last);
            self.got.push(next);
        }
        self.last = Some(position);
    }

    fn offset(&self) -> u64 {
        self.last.map_or(0, |last| last.offset())
    }

    /// Reads up to this offset.
    fn read_to(&mut self, socket: &mut WsClient, offset: u64) {
        while self.offset() < offset {
            match socket.text() {
                text if text == "direct" => {}
                text => self.take(&text),
            }
        }
    }

    /// Joins where it is, and takes what the join says of gaps into account.
    fn join(&mut self, client: &wshub::Client, start: Position) {
        let since = self.last.unwrap_or(start);
        let joined = client.join_from("r", Some(since)).unwrap();
        match joined.recovery {
            Recovery::Complete => self.last = Some(since),
            Recovery::Gap { first_held } => {
                assert!(first_held > since.offset() + 1, "{since} and {first_held}: nothing is missing");
                self.missed += first_held - 1 - since.offset();
                self.last = Some(Position::new(since.epoch(), first_held - 1));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn publishers_and_joiners_race_and_nobody_misses_anything() {
    let server = server(RoomOptions::history().messages(100_000).bytes(1 << 30));
    let hub = &server.hub;
    let start = Position::new(hub.publish("r", "{}").position.unwrap().epoch(), 0);
    const PUBLISHERS: u64 = 4;
    const EACH: u64 = 1500;
    let is_over = AtomicBool::new(false);
    let rejoins = AtomicUsize::new(0);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (mut socket, client) = server.pair();
                let (is_over, rejoins) = (&is_over, &rejoins);
                scope.spawn(move || {
                    let mut reader = Reader::default();
                    loop {
                        let last_round = is_over.load(Ordering::SeqCst);
                        reader.join(&client, start);
                        let until = if last_round { PUBLISHERS * EACH + 1 } else { reader.offset() + 20 };
                        reader.read_to(&mut socket, until);
                        if last_round {
                            return reader;
                        }
                        // What is on its way is read, so that the next round begins where this one ends.
                        client.leave("r").unwrap();
                        client.send("left").unwrap();
                        loop {
                            match socket.text() {
                                text if text == "left" => break,
                                text => reader.take(&text),
                            }
                        }
                        rejoins.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|who| {
                scope.spawn(move || {
                    for n in 0..EACH {
                        let _cork = (n % 7 == 0).then(|| hub.cork());
                        hub.publish("r", format!("{{\"who\":{who},\"n\":{n}}}"));
                        if n % 100 == 0 {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        is_over.store(true, Ordering::SeqCst);
        // Whoever waits for more in an unfinished round gets it.
        let mut extra = 0;
        for reader in readers {
            while !reader.is_finished() {
                thread::sleep(Duration::from_millis(1));
                if extra < 40 {
                    hub.publish("r", "{}");
                    extra += 1;
                }
            }
            let reader = reader.join().unwrap();
            assert_eq!(reader.missed, 0);
            assert_eq!(reader.got.len() as u64, reader.offset());
        }
    });
    assert!(rejoins.load(Ordering::Relaxed) > 10, "{rejoins:?}");
    // One order for all, and in it each publisher's own.
    let page = hub.history("r", Range::oldest_first()).unwrap();
    let mut next = [0; PUBLISHERS as usize];
    for publication in page.publications {
        let event: serde_json::Value = publication.message().parse_json().unwrap();
        if let Some(who) = event["who"].as_u64() {
            assert_eq!(event["n"], next[who as usize]);
            next[who as usize] += 1;
        }
    }
    assert_eq!(next, [EACH; PUBLISHERS as usize]);
}

/// Members fall behind in every burst and catch up while other bursts are published: the way back to the live path is
/// taken very often.
#[test]
fn bursts_are_caught_up_with_while_others_publish() {
    let server = server(RoomOptions::history().messages(100_000).bytes(1 << 30));
    let hub = &server.hub;
    const PUBLISHERS: u64 = 3;
    const BURSTS: u64 = 60;
    const BURST: u64 = 50;
    let start = Position::new(hub.publish("r", "{}").position.unwrap().epoch(), 0);
    thread::scope(|scope| {
        for _ in 0..3 {
            let (mut socket, client) = server.pair();
            let mut reader = Reader::default();
            reader.join(&client, start);
            scope.spawn(move || {
                reader.read_to(&mut socket, PUBLISHERS * BURSTS * BURST + 1);
                assert_eq!(reader.missed, 0);
            });
        }
        for _ in 0..PUBLISHERS {
            scope.spawn(|| {
                for _ in 0..BURSTS {
                    let _cork = hub.cork();
                    (0..BURST).for_each(|_| _ = hub.publish("r", "{}"));
                }
            });
        }
    });
}

#[derive(Debug, Clone)]
enum Step {
    Publish { count: u64, size: usize },
    Corked { count: u64 },
    Read { who: usize },
    Cut { who: usize },
    Direct { who: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0_usize..3;
    prop_oneof![
        4 => (1_u64..40, prop_oneof![Just(10_usize), Just(3000), Just(60_000)])
            .prop_map(|(count, size)| Step::Publish { count, size }),
        1 => (1_u64..80).prop_map(|count| Step::Corked { count }),
        3 => who.clone().prop_map(|who| Step::Read { who }),
        2 => who.clone().prop_map(|who| Step::Cut { who }),
        1 => who.prop_map(|who| Step::Direct { who }),
    ]
}

/// A reader's connection, and what it knows.
struct Peer {
    socket: WsClient,
    client: wshub::Client,
    reader: Reader,
}

impl Peer {
    fn connect(server: &TestServer, mut reader: Reader, start: Position) -> Self {
        let (socket, client) = server.pair();
        reader.join(&client, start);
        Self { socket, client, reader }
    }

    /// Reads everything that has been published.
    fn drain(&mut self, top: u64) {
        self.reader.read_to(&mut self.socket, top);
        self.client.send("marker").unwrap();
        let rest: Vec<_> = std::iter::from_fn(|| Some(self.socket.text()).filter(|text| text != "marker")).collect();
        assert!(rest.iter().all(|text| text == "direct"), "nothing comes twice: {} messages", rest.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Readers that read late, or never before they are cut: what they get and what they are told to miss is what was
    /// published.
    #[test]
    fn delivered_and_told_gaps_are_what_was_published(
        messages in prop_oneof![Just(1_usize), Just(5), Just(40), Just(1000)],
        steps in proptest::collection::vec(step(), 5..40),
    ) {
        let server = server(RoomOptions::history().messages(messages).bytes(1 << 30));
        let hub = &server.hub;
        let start = Position::new(hub.publish("r", "{}").position.unwrap().epoch(), 0);
        let mut peers: Vec<_> = (0..3).map(|_| Peer::connect(&server, Reader::default(), start)).collect();
        let mut top = 1;
        let mut publish = |count: u64, size: usize| {
            for _ in 0..count {
                let pad = "x".repeat(size);
                let delivery = hub.publish("r", Message::text(format!("{{\"pad\":\"{pad}\"}}"))).delivery;
                assert_eq!(delivery.dropped, 0);
                top += 1;
            }
            top
        };
        let mut published = 1;
        for step in steps {
            match step {
                Step::Publish { count, size } => published = publish(count, size),
                Step::Corked { count } => {
                    let _cork = hub.cork();
                    published = publish(count, 100);
                }
                Step::Read { who } => peers[who].drain(published),
                Step::Cut { who } => {
                    let old = peers.remove(who);
                    drop(old.socket);
                    peers.insert(who, Peer::connect(&server, old.reader, start));
                }
                Step::Direct { who } => _ = peers[who].client.send("direct"),
            }
        }
        for mut peer in peers {
            peer.drain(published);
            prop_assert_eq!(peer.reader.got.len() as u64 + peer.reader.missed, published);
        }
    }
}

#[test]
fn a_history_is_replayed_to_a_thousand_clients_without_encoding() {
    let server = server(RoomOptions::history().messages(50));
    let hub = &server.hub;
    let (_live, first) = server.pair();
    first.join("r").unwrap();
    let start = Position::new(hub.position("r").unwrap().epoch(), 0);
    (0..50).for_each(|_| _ = hub.publish("r", "{}"));
    let before = hub.load().history_encodings;
    let mut sockets: Vec<_> = (0..100).map(|_| server.pair()).collect();
    for _ in 0..10 {
        for (socket, client) in &mut sockets {
            let joined = client.join_from("r", Some(start)).unwrap();
            assert_eq!((joined.recovery, joined.replayed), (Recovery::Complete, 50));
            let mut reader = Reader { last: Some(start), ..Reader::default() };
            reader.read_to(socket, 50);
            client.leave("r").unwrap();
        }
    }
    assert_eq!(hub.load().history_encodings, before);
    eventually("all have been counted", || hub.room_size("r") == 1);
}
