//! A sent message never waits for application code: not for the handler of the next message, not for a hook, not for
//! the rest of a batch from the bus. In every test the application's code blocks until the messages sent before have
//! arrived.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::bus::{Mood, Wire, node};
use common::stream::SseClient;
use common::{Link, PATIENCE, TEXT, TestServer, WsClient, accept, client_frame, eventually};
use wshub::{
    Admission, Client, Config, Delivery, Hub, HubBuilder, Message, Target,
    cluster::{Cluster, Envelope},
    metrics::Metrics,
};

/// A number that threads wait for.
#[derive(Clone, Default)]
struct Counter(Arc<(Mutex<usize>, Condvar)>);

impl Counter {
    fn add(&self) {
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_all();
    }

    /// Waits until it has reached `n`; false after the time that no test waits longer than.
    fn reaches(&self, n: usize) -> bool {
        let deadline = Instant::now() + 2 * PATIENCE;
        let mut count = self.0.0.lock().unwrap();
        while *count < n {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            count = self.0.1.wait_timeout(count, left).unwrap().0;
        }
        true
    }
}

/// Everyone is in the room `room`, as the user that the query names, if it does.
fn hub() -> HubBuilder {
    Hub::builder().on_upgrade(|head| {
        let admission = head.query_param("user").map_or_else(Admission::anonymous, Admission::user);
        Ok(admission.room("room"))
    })
}

fn user(name: &str) -> String {
    format!("/ws?user={name}")
}

/// One write for all.
fn send_together(client: &mut WsClient, texts: &[&str]) {
    let frames: Vec<u8> = texts.iter().flat_map(|text| client_frame(TEXT, text.as_bytes())).collect();
    client.stream.write_all(&frames).unwrap();
}

#[test]
fn what_a_handler_sends_does_not_wait_for_the_next_handler() {
    type Send = fn(&Client);
    let ways: [(&str, Send); 7] = [
        ("a room", |client| _ = client.hub().send(Target::room("room").except(client.id()), "1").unwrap()),
        ("everyone", |client| _ = client.hub().send(Target::all().except(client.id()), "1").unwrap()),
        ("a user", |client| _ = client.hub().send(Target::user("observer"), "1").unwrap()),
        ("a union", |client| {
            client.hub().send(Target::user("observer").and(Target::user("nobody")), "1").unwrap();
        }),
        ("another client", |client| {
            let other = client.hub().clients().into_iter().find(|other| other != client).unwrap();
            other.send("1").unwrap();
        }),
        ("under a cork of its own", |client| {
            let _cork = client.hub().cork();
            client.hub().send(Target::user("observer"), "1").unwrap();
        }),
        ("waiting", |client| _ = client.hub().send_timeout(Target::user("observer"), "1", PATIENCE).unwrap()),
    ];
    for (what, way) in ways {
        let heard = Counter::default();
        let wait = heard.clone();
        let server = TestServer::new(hub().on_message(move |client, message| {
            match message.as_text() {
                Some("1") => way(client),
                _ => assert!(wait.reaches(1), "{what}: the observer hears nothing"),
            }
            Ok(())
        }));
        let mut observer = server.connect_to(&user("observer"));
        let mut sender = server.connect_to(&user("sender"));
        // Two texts, masked with zeros.
        sender.stream.write_all(b"\x81\x81\0\0\0\x001\x81\x81\0\0\0\x002").unwrap();
        assert_eq!(observer.text(), "1", "{what}");
        heard.add();
    }
}

#[test]
fn event_streams_hear_at_once_too() {
    let heard = Counter::default();
    let wait = heard.clone();
    let builder = Hub::builder().on_message(move |client, message| {
        if message.as_text() == Some("1") {
            client.hub().send(Target::all(), message)?;
        } else {
            assert!(wait.reaches(1), "the observer hears nothing");
        }
        Ok(())
    });
    let hub = builder.build().unwrap();
    let server = TestServer::of(hub.clone(), |server| server.event_stream("/events", &hub));
    let mut observer = SseClient::connect(server.addr, "/events", "");
    let mut sender = server.connect();
    send_together(&mut sender, &["1", "2"]);
    assert_eq!(observer.data(), "1");
    heard.add();
}

#[test]
fn each_of_200_pipelined_requests_is_answered_before_the_next_is_handled() {
    const REQUESTS: usize = 200;
    let answered = Counter::default();
    let wait = answered.clone();
    let server = TestServer::new(Hub::builder().on_message(move |client, message| {
        let n: usize = message.as_text().unwrap().parse().unwrap();
        assert!(wait.reaches(n), "request {n} is handled while the answer before it is held back");
        client.send(message)?;
        Ok(())
    }));
    let mut client = server.connect();
    let requests: Vec<String> = (0..REQUESTS).map(|n| n.to_string()).collect();
    send_together(&mut client, &requests.iter().map(String::as_str).collect::<Vec<_>>());
    for n in 0..REQUESTS {
        assert_eq!(client.text(), n.to_string());
        answered.add();
    }
}

#[test]
fn a_handler_may_ask_another_client_and_wait_for_its_answer() {
    let answers = Counter::default();
    let asked = answers.clone();
    let server = TestServer::new(hub().on_message(move |client, message| {
        match message.as_text().unwrap() {
            "answer" => asked.add(),
            "ask" => {
                client.hub().send(Target::user("expert"), "question")?;
                client.send(if asked.reaches(1) { "answered" } else { "no answer" })?;
            }
            _ => _ = client.hub().send(Target::user("expert"), "hello")?,
        }
        Ok(())
    }));
    let mut expert = server.connect_to(&user("expert"));
    let mut client = server.connect_to(&user("client"));
    send_together(&mut client, &["hello", "ask", "hello"]);
    assert_eq!([expert.text(), expert.text()], ["hello", "question"]);
    expert.send_text("answer");
    assert_eq!(client.text(), "answered");
}

#[test]
fn hooks_around_a_message_hold_nothing_back() {
    for hook in ["before", "after"] {
        let heard = Counter::default();
        let (before, after) = (heard.clone(), heard.clone());
        let builder = hub()
            .on_message(|client, message| client.send(message).map_err(Into::into))
            .before_message(move |_, message| {
                let is_second = hook == "before" && message.as_text() == Some("2");
                assert!(!is_second || before.reaches(1), "the answer is held back");
                Ok(message)
            })
            .after_message(move |_, message, _| {
                let is_second = hook == "after" && message.as_text() == Some("2");
                assert!(!is_second || after.reaches(1), "the answer is held back");
            });
        let server = TestServer::new(builder);
        let mut client = server.connect();
        send_together(&mut client, &["1", "2", "3"]);
        assert_eq!(client.text(), "1");
        heard.add();
        assert_eq!([client.text(), client.text()], ["2", "3"]);
    }
}

#[test]
fn an_explicit_cork_holds_back_until_it_is_dropped() {
    let release = Counter::default();
    let wait = release.clone();
    let server = TestServer::new(Hub::builder().on_message(move |client, message| {
        let _cork = (message.as_text() == Some("2")).then(|| client.hub().cork());
        client.send(message)?;
        let is_corked = message.as_text() == Some("2");
        assert!(!is_corked || wait.reaches(1));
        Ok(())
    }));
    let mut client = server.connect();
    send_together(&mut client, &["1", "2", "3"]);
    assert_eq!(client.text(), "1");
    client.wait_quietly(Duration::from_millis(50));
    release.add();
    assert_eq!([client.text(), client.text()], ["2", "3"]);
}

/// An envelope from another node, for everyone.
fn envelope(text: &str) -> Vec<u8> {
    let sender = Wire::new(Mood::Works);
    let far = node(Hub::builder(), Cluster::new(sender.adapter()).node_id("far"));
    far.hub.send(Target::all(), text).unwrap();
    eventually("it is published", || !sender.published().is_empty());
    sender.published()[0].clone().into_bytes()
}

/// A node whose clients are in `room`, and its bus.
fn near(change: impl FnOnce(Cluster) -> Cluster) -> (TestServer, Wire) {
    let wire = Wire::new(Mood::Works);
    let cluster = change(Cluster::new(wire.adapter()).node_id("near"));
    (node(hub(), cluster), wire)
}

#[test]
fn a_batch_from_the_bus_is_delivered_while_the_bus_makes_the_rest() {
    let (server, wire) = near(|cluster| cluster);
    let mut client = server.connect();
    let (one, two) = (envelope("one"), envelope("two"));
    assert_eq!(Envelope::decode(&one).unwrap().node_id, "far");
    let heard = Counter::default();
    let wait = heard.clone();
    let bus = thread::spawn(move || {
        let batch = [&one[..], &two].into_iter().enumerate().map(|(at, envelope)| {
            assert!(at == 0 || wait.reaches(at), "the first waits for the second");
            envelope
        });
        wire.inbox().receive_all(batch);
    });
    assert_eq!(client.text(), "one");
    heard.add();
    assert_eq!(client.text(), "two");
    bus.join().unwrap();
}

#[test]
fn a_batch_from_the_bus_is_delivered_while_a_hook_runs() {
    let heard = Counter::default();
    let wait = heard.clone();
    let (server, wire) = near(|cluster| {
        cluster.on_decode_error(move |_, _| assert!(wait.reaches(1), "the hook holds back what came before"))
    });
    let mut client = server.connect();
    let (one, two) = (envelope("one"), envelope("two"));
    let bus = thread::spawn(move || wire.inbox().receive_all([&one[..], b"no envelope", &two]));
    assert_eq!(client.text(), "one");
    heard.add();
    assert_eq!(client.text(), "two");
    bus.join().unwrap();
}

/// A client that does not read and whose queue is full, and one behind it in every broadcast.
fn full_and_healthy(hub: &Hub) -> ((WsClient, Client), (WsClient, Client)) {
    let slow = accept(hub, Link::TinyUnix, "/");
    slow.1.send(vec![0; 300_000]).unwrap();
    eventually("it is before the socket", || slow.1.queue_depth().messages == 0);
    while slow.1.queue_depth().messages < 4 {
        slow.1.send("queued").unwrap();
    }
    (slow, accept(hub, Link::Unix, "/"))
}

fn news_from_a_thread(hub: &Hub) -> thread::JoinHandle<Delivery> {
    let hub = hub.clone();
    thread::spawn(move || hub.send(Target::all(), "news").unwrap())
}

fn small_queues() -> Config {
    Config::default().queue_messages(4).write_timeout(3 * PATIENCE)
}

#[test]
fn a_drop_hook_holds_back_nobody_behind_the_slow_client() {
    let heard = Counter::default();
    let wait = heard.clone();
    let builder = Hub::builder().config(small_queues()).on_send_dropped(move |_, _| {
        assert!(wait.reaches(1), "the hook holds back the others");
    });
    let hub = builder.build().unwrap();
    let (_slow, (mut healthy, _)) = full_and_healthy(&hub);
    let sender = news_from_a_thread(&hub);
    assert_eq!(healthy.text(), "news");
    heard.add();
    let delivery = sender.join().unwrap();
    assert_eq!((delivery.queued, delivery.dropped), (1, 1));
    hub.shutdown(Duration::ZERO).unwrap();
}

/// Metrics that take their time when something is dropped.
struct SlowMetrics(Counter, AtomicUsize);

impl Metrics for SlowMetrics {
    fn increment_messages_dropped(&self) {
        if self.0.reaches(1) {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[test]
fn metrics_of_drops_hold_back_nobody() {
    let heard = Counter::default();
    let metrics = Arc::new(SlowMetrics(heard.clone(), AtomicUsize::new(0)));
    let hub = Hub::builder().config(small_queues()).metrics(metrics.clone()).build().unwrap();
    let (_slow, (mut healthy, _)) = full_and_healthy(&hub);
    let sender = news_from_a_thread(&hub);
    assert_eq!(healthy.text(), "news");
    heard.add();
    sender.join().unwrap();
    assert_eq!(metrics.1.load(Ordering::SeqCst), 1);
    hub.shutdown(Duration::ZERO).unwrap();
}

#[test]
fn a_waiting_send_does_not_keep_the_others_waiting() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let builder = Hub::builder().config(small_queues()).on_send_timeout(move |_, message: &Message| {
        log.lock().unwrap().push(message.as_text().unwrap().to_owned());
    });
    let hub = builder.build().unwrap();
    let ((mut slow, slow_client), (mut healthy, _)) = full_and_healthy(&hub);
    let sender = {
        let hub = hub.clone();
        thread::spawn(move || hub.send_timeout(Target::all(), "news", 10 * PATIENCE).unwrap())
    };
    assert_eq!(healthy.text(), "news");
    assert_eq!(slow.frame().payload.len(), 300_000);
    (0..4).for_each(|_| assert_eq!(slow.text(), "queued"));
    assert_eq!(slow.text(), "news");
    let delivery = sender.join().unwrap();
    assert_eq!((delivery.queued, delivery.dropped), (2, 0));
    // Once more, to one that never reads: it is told of once, and the other has its message.
    slow_client.send(vec![0; 300_000]).unwrap();
    eventually("it is before the socket", || slow_client.queue_depth().messages == 0);
    (0..4).for_each(|_| slow_client.send("queued").unwrap());
    let delivery = hub.send_timeout(Target::all(), "late", Duration::from_millis(20)).unwrap();
    assert_eq!((delivery.queued, delivery.dropped), (1, 1));
    assert_eq!(healthy.text(), "late");
    assert_eq!(*told.lock().unwrap(), ["late"]);
    hub.shutdown(Duration::ZERO).unwrap();
}
