//! The feed: the same envelopes over WebSocket, as Server-Sent Events and to subscribers of the program's own.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use common::stream::SseClient;
use common::{Log, PATIENCE, TestServer, eventually};
use serde_json::{Value, json};
use wshub::protocol::feed::{Feed, FeedBuilder, FeedEvent, Subscriber};
use wshub::{Client, Hub, Message, Target};

/// Writes down what it gets.
#[derive(Clone, Default)]
struct Recorder {
    log: Log,
    full: Arc<AtomicBool>,
}

impl Subscriber for Recorder {
    fn send(&self, message: &Message) -> bool {
        self.log.add(message.as_text().unwrap_or("binary"));
        // SeqCst: a test's flag.
        !self.full.load(Ordering::SeqCst)
    }

    fn close(&self) {
        self.log.add("closed");
    }
}

struct Panics;

impl Subscriber for Panics {
    fn send(&self, _: &Message) -> bool {
        panic!("on purpose")
    }

    fn close(&self) {
        panic!("on purpose, again")
    }
}

fn serve(builder: FeedBuilder) -> (Feed, TestServer) {
    let feed = builder.build().unwrap();
    let hub = feed.hub().clone();
    let server = TestServer::of(hub.clone(), |server| server.event_stream("/events", &hub));
    (feed, server)
}

/// Checks that it is byte for byte an envelope, made now; gives type and payload.
fn envelope(text: &str) -> (String, Value) {
    let value: Value = serde_json::from_str(text).unwrap();
    let [kind, timestamp] = [&value["type"], &value["timestamp"]].map(|v| v.as_str().unwrap().to_owned());
    let time = humantime(&timestamp);
    let age = SystemTime::now().duration_since(time).unwrap();
    assert!(age < PATIENCE, "{timestamp}");
    assert_eq!((timestamp.len(), &timestamp[19..20], &timestamp[29..]), (30, ".", "Z"), "{timestamp}");
    assert!(text.starts_with(r#"{"type":""#) && text.ends_with(&format!(r#","timestamp":"{timestamp}"}}"#)), "{text}");
    assert_eq!(value.as_object().unwrap().len(), 3);
    (kind, value["payload"].clone())
}

fn humantime(text: &str) -> SystemTime {
    let numbers: Vec<u64> = text.split(['-', 'T', ':', '.', 'Z']).filter_map(|part| part.parse().ok()).collect();
    let [year, month, day, hour, minute, second, nanos] = numbers[..] else { panic!("{text}") };
    // Days since 1970, by counting.
    let is_leap = |y: u64| (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    let years: u64 = (1970..year).map(|y| if is_leap(y) { 366 } else { 365 }).sum();
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let months: u64 = lengths.iter().take(usize::try_from(month - 1).unwrap()).sum();
    let seconds = ((years + months + day - 1) * 24 + hour) * 3600 + minute * 60 + second;
    SystemTime::UNIX_EPOCH + Duration::new(seconds, u32::try_from(nanos).unwrap())
}

#[test]
fn every_subscriber_gets_the_same_envelope() {
    let (feed, server) = serve(Feed::builder());
    let mut stream = SseClient::connect(server.addr, "/events", "");
    let mut socket = server.connect();
    let recorder = Recorder::default();
    feed.register(recorder.clone()).unwrap();
    assert_eq!(feed.subscriber_count(), 3);
    let delivery = feed.broadcast_json("note", json!({"text": "a\nb \"c\" ü"})).unwrap();
    assert_eq!((delivery.queued, delivery.dropped), (3, 0));
    let text = socket.text();
    assert_eq!(envelope(&text), ("note".into(), json!({"text": "a\nb \"c\" ü"})));
    assert_eq!(stream.data(), text);
    assert_eq!(recorder.log.all(), [text]);
}

#[test]
fn any_value_and_any_message_can_be_broadcast() {
    let (feed, server) = serve(Feed::builder());
    let mut socket = server.connect();
    let mut stream = SseClient::connect(server.addr, "/events", "");
    feed.broadcast_event(&json!({"own": [1, 2]})).unwrap();
    assert_eq!((socket.text(), stream.data()), (r#"{"own":[1,2]}"#.into(), r#"{"own":[1,2]}"#.into()));
    feed.broadcast(Message::text("raw").with_event_id("9"));
    assert_eq!((socket.text(), stream.event().id.as_deref()), ("raw".into(), Some("9")));
    let delivery = feed.broadcast(Message::binary(vec![1]));
    assert_eq!((delivery.queued, delivery.refused), (1, 1));
    let unnamed = std::collections::BTreeMap::from([((1, 2), 3)]);
    assert!(feed.broadcast_json("bad", unnamed).is_err());
    feed.broadcast("after");
    assert_eq!(stream.data(), "after");
}

#[test]
fn an_event_can_go_to_some() {
    let (feed, server) = serve(Feed::builder());
    let (mut member, client) = server.pair();
    let mut other = server.connect();
    client.join("metals").unwrap();
    feed.hub().send(Target::room("metals"), FeedEvent::new("price", 120).message().unwrap()).unwrap();
    feed.broadcast("all");
    assert_eq!(envelope(&member.text()), ("price".into(), json!(120)));
    assert_eq!((member.text(), other.text()), ("all".into(), "all".into()));
}

#[test]
fn clients_are_subscribers_too() {
    let (_, server) = serve(Feed::builder());
    let (mut socket, client) = server.pair();
    let subscriber: &dyn Subscriber = &client;
    assert!(subscriber.send(&Message::text("x")));
    assert_eq!(socket.text(), "x");
    subscriber.close();
    subscriber.close();
    assert!(!subscriber.send(&Message::text("late")));
    assert_eq!(socket.expect_close(), (1000, String::new()));
}

#[test]
fn a_subscriber_that_is_full_counts_as_dropped_and_stays() {
    let feed = Feed::builder().build().unwrap();
    let recorder = Recorder::default();
    let id = feed.register(recorder.clone()).unwrap();
    recorder.full.store(true, Ordering::SeqCst);
    let delivery = feed.broadcast("a");
    assert_eq!((delivery.queued, delivery.dropped), (0, 1));
    recorder.full.store(false, Ordering::SeqCst);
    assert_eq!(feed.broadcast("b").queued, 1);
    assert!(feed.unregister(id));
    assert!(!feed.unregister(id));
    assert_eq!(feed.broadcast("c").queued, 0);
    assert_eq!(recorder.log.all(), ["a", "b", "closed"]);
}

#[test]
fn a_subscriber_that_panics_is_taken_out_and_hurts_nobody() {
    let (feed, server) = serve(Feed::builder());
    let mut socket = server.connect();
    let recorder = Recorder::default();
    feed.register(Panics).unwrap();
    feed.register(recorder.clone()).unwrap();
    let delivery = feed.broadcast("a");
    assert_eq!((delivery.queued, delivery.dropped), (2, 1));
    assert_eq!(feed.subscriber_count(), 2);
    assert_eq!(feed.broadcast("b").queued, 2);
    assert_eq!((socket.text(), socket.text()), ("a".into(), "b".into()));
    assert_eq!(recorder.log.all(), ["a", "b"]);
}

#[test]
fn coming_and_going_is_told_for_every_kind() {
    let log = Log::default();
    let (came, went) = (log.clone(), log.clone());
    let builder = Feed::builder().on_connect(move |subscriber| {
        came.add(if subscriber.as_client().is_some() { "client" } else { "other" });
        assert!(subscriber.send(&Message::text("welcome")));
    });
    let (feed, server) = serve(builder.on_disconnect(move |_| went.add("went")));
    let mut socket = server.connect();
    assert_eq!(socket.text(), "welcome");
    let mut stream = SseClient::connect(server.addr, "/events", "");
    assert_eq!(stream.data(), "welcome");
    let recorder = Recorder::default();
    let id = feed.register(recorder.clone()).unwrap();
    assert_eq!(recorder.log.all(), ["welcome"]);
    assert_eq!(log.take(), ["client", "client", "other"]);
    feed.unregister(id);
    assert_eq!(log.take(), ["went"]);
    socket.close();
    drop(stream);
    eventually("both are gone", || log.all() == ["went", "went"]);
}

#[test]
fn a_shutdown_closes_every_kind_once_and_takes_in_no_more() {
    let log = Log::default();
    let went = log.clone();
    let (feed, server) = serve(Feed::builder().on_disconnect(move |_| went.add("went")));
    let mut socket = server.connect();
    let recorder = Recorder::default();
    feed.register(recorder.clone()).unwrap();
    feed.register(Panics).unwrap();
    let stopping = {
        let feed = feed.clone();
        thread::spawn(move || feed.shutdown(PATIENCE))
    };
    assert_eq!(socket.expect_close().0, 1001);
    stopping.join().unwrap().unwrap();
    feed.shutdown(PATIENCE).unwrap();
    assert_eq!(recorder.log.all(), ["closed"]);
    assert_eq!(log.all(), ["went", "went", "went"]);
    assert_eq!(feed.subscriber_count(), 0);
    let late = Recorder::default();
    assert_eq!(feed.register(late.clone()), None);
    assert_eq!(late.log.all(), ["closed"]);
    assert_eq!(feed.broadcast("late").queued, 0);
}

#[test]
fn registering_races_broadcasts_and_loses_nothing() {
    let feed = Feed::builder().build().unwrap();
    let steady = Recorder::default();
    feed.register(steady.clone()).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let id = feed.register(Recorder::default()).unwrap();
                    assert!(feed.unregister(id));
                }
            });
        }
        scope.spawn(|| (0..500).for_each(|n| assert!(feed.broadcast(n.to_string()).queued > 0)));
    });
    assert_eq!(steady.log.all(), (0..500).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(feed.subscriber_count(), 1);
}

#[test]
fn the_hub_is_set_up_as_any() {
    let log = Log::default();
    let heard = log.clone();
    let builder = Hub::builder().on_message(move |_: &Client, message| {
        heard.add(message.as_text().unwrap());
        Ok(())
    });
    let hub = Feed::builder().install(builder).build().unwrap();
    let feed = Feed::of(&hub).unwrap();
    let server = TestServer::of(feed.hub().clone(), |server| server);
    let mut socket = server.connect();
    socket.send_text("hello");
    log.wait("hello");
    let bad = Feed::builder().install(Hub::builder().map_config(|config| config.queue_messages(0))).build();
    assert_eq!(bad.unwrap_err().field(), "queue_messages");
}
