//! Hubs that share a NATS server: the tests of every broker, and the adapter's own guarantees.
// Not over TLS: the cluster sees no sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod broker_suite;
mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use broker_suite::far::a_large_room_crosses;
use broker_suite::{Bus, GIVE_UP, suite};
use common::broker::{Broker, Kind};
use common::bus::connected;
use common::{PATIENCE, TestServer, counted, deep_queue, errors, eventually};
use wshub::{
    Hub, Message, Target,
    cluster::{Adapter, AdapterError, AdapterState, Cluster, NatsAdapter},
    metrics::{DebugMetrics, ErrorType},
};

struct Nats;

impl Bus for Nats {
    const KIND: Kind = Kind::Nats;
    const OPTION: &'static str = "nats";

    fn cluster(url: &str) -> Cluster {
        Cluster::new(adapter(url))
    }

    fn publish(broker: &Broker, payload: &[u8]) {
        Foreign::new(broker, "elsewhere").publish("wshub.messages", payload);
    }
}

suite! { Nats }

fn adapter(url: &str) -> NatsAdapter {
    let adapter = NatsAdapter::new(url).unwrap();
    adapter.connect_timeout(GIVE_UP).response_timeout(GIVE_UP).idle(Duration::from_millis(200))
}

fn node(adapter: NatsAdapter, id: &str) -> (TestServer, Arc<DebugMetrics>) {
    let (metrics, builder) = counted(Hub::builder());
    let builder = builder.map_config(|c| deep_queue(c).close_timeout(Duration::from_millis(50)));
    let cluster = Cluster::new(adapter).node_id(id).backoff(Duration::from_millis(20), Duration::from_millis(200));
    (TestServer::new(builder.cluster(cluster)), metrics)
}

fn is_unavailable(result: &Result<(), AdapterError>) -> bool {
    matches!(result, Err(AdapterError::Unavailable(_)))
}

/// A client of NATS that is no node: it speaks the protocol by hand.
struct Foreign(BufReader<TcpStream>);

impl Foreign {
    /// Connects and subscribes to this.
    fn new(broker: &Broker, subject: &str) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, broker.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut foreign = Self(BufReader::new(stream));
        assert!(foreign.line().starts_with("INFO {"));
        foreign.say(&format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {subject} 1\r\n"));
        foreign.sync();
        foreign
    }

    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The server has done all that was said.
    fn sync(&mut self) {
        self.say("PING\r\n");
        assert_eq!(self.line(), "PONG");
    }

    fn publish(&mut self, subject: &str, payload: impl AsRef<[u8]>) {
        let payload = payload.as_ref();
        let head = format!("PUB {subject} {}\r\n", payload.len());
        self.0.get_mut().write_all(&[head.as_bytes(), payload, b"\r\n"].concat()).unwrap();
        self.sync();
    }

    /// Subject and payload of the next message.
    fn message(&mut self) -> (String, String) {
        let line = self.line();
        let words: Vec<_> = line.split(' ').collect();
        let ["MSG", subject, "1", len] = words[..] else { panic!("no message: {line}") };
        let mut payload = vec![0; len.parse::<usize>().unwrap() + 2];
        self.0.read_exact(&mut payload).unwrap();
        (subject.to_owned(), String::from_utf8(payload).unwrap().trim_end().to_owned())
    }
}

/// What a node of the Go package `wshub` put on its bus.
fn of_a_go_node() -> impl Iterator<Item = &'static str> {
    include_str!("vectors/s3-envelopes.jsonl").lines()
}

#[test]
fn envelopes_of_go_nodes_are_delivered() {
    if Kind::Nats.is_missing() {
        return;
    }
    let broker = Broker::nats();
    let (server, metrics) = node(adapter(&broker.url()), "rust");
    connected(&server.hub);
    let mut client = server.connect();
    let mut go = Foreign::new(&broker, "elsewhere");
    of_a_go_node().for_each(|line| go.publish("wshub.messages", line));
    assert_eq!(client.text(), "plain text");
    assert_eq!(client.frame().payload, b"\0\x01\xfe\xff");
    let messages = of_a_go_node().filter(|line| !line.contains("\"presence\"")).count() as u64;
    eventually("all are taken", || metrics.stats().adapter_received == messages);
    assert_eq!(errors(&metrics, ErrorType::AdapterDecode), 0);
}

#[test]
fn a_burst_of_many_small_envelopes_arrives() {
    const MESSAGES: usize = 50_000;
    if Kind::Nats.is_missing() {
        return;
    }
    let broker = Broker::nats();
    let (server, metrics) = node(adapter(&broker.url()), "one");
    connected(&server.hub);
    let mut go = Foreign::new(&broker, "elsewhere");
    let line = of_a_go_node().next().unwrap();
    let request = format!("PUB wshub.messages {}\r\n{line}\r\n", line.len());
    go.say(&request.repeat(MESSAGES));
    go.sync();
    eventually("all are taken", || metrics.stats().adapter_received == MESSAGES as u64);
}

#[test]
fn envelopes_are_those_of_a_go_node() {
    if Kind::Nats.is_missing() {
        return;
    }
    let broker = Broker::nats();
    let (server, _) = node(adapter(&broker.url()), "node-a");
    connected(&server.hub);
    let mut go = Foreign::new(&broker, "wshub.messages");
    let mut lines = of_a_go_node();
    for message in [Message::text("plain text"), Message::binary(vec![0, 1, 0xfe, 0xff])] {
        server.hub.send(Target::all(), message).unwrap();
        assert_eq!(go.message(), ("wshub.messages".to_owned(), lines.next().unwrap().to_owned()));
    }
}

#[test]
fn a_subject_of_ones_own_is_a_cluster_of_its_own() {
    if Kind::Nats.is_missing() {
        return;
    }
    let broker = Broker::nats();
    let (one, _) = node(adapter(&broker.url()).subject("elsewhere.x").unwrap(), "one");
    let (two, _) = node(adapter(&broker.url()), "two");
    let (three, _) = node(adapter(&broker.url()).subject("elsewhere.x").unwrap(), "three");
    [&one, &two, &three].into_iter().for_each(|node| connected(&node.hub));
    let (mut second, mut third) = (two.connect(), three.connect());
    one.hub.send(Target::all(), "hello").unwrap();
    assert_eq!(third.text(), "hello");
    two.hub.send(Target::all(), "end").unwrap();
    assert_eq!(second.texts_until_end(), [""; 0]);
}

#[test]
fn somebody_who_listens_to_everything_does_not_disturb() {
    if Kind::Nats.is_missing() {
        return;
    }
    let broker = Broker::nats();
    let _foreign = Foreign::new(&broker, ">");
    let adapter = adapter(&broker.url());
    adapter.connect().unwrap();
    adapter.publish(b"x").unwrap();
}

#[test]
fn an_envelope_over_the_servers_limit_is_refused_alone() {
    if Kind::Nats.is_missing() {
        return;
    }
    let mut broker = Broker::absent(Kind::Nats);
    broker.set_config("max_payload: 1000");
    broker.start();
    let (one, metrics) = node(adapter(&broker.url()), "one");
    let (two, _) = node(adapter(&broker.url()), "two");
    [&one, &two].into_iter().for_each(|node| connected(&node.hub));
    let mut far = two.connect();
    one.hub.send(Target::all(), "before").unwrap();
    one.hub.send(Target::all(), "x".repeat(2000)).unwrap();
    one.hub.send(Target::all(), "end").unwrap();
    assert_eq!(far.texts_until_end(), ["before"]);
    eventually("counted", || metrics.stats().adapter_dropped == 1 && metrics.stats().adapter_published == 2);
    assert_eq!(errors(&metrics, ErrorType::AdapterPublish), 1);
    assert_eq!((metrics.stats().adapter_connects, metrics.stats().adapter_disconnects), (1, 0));
}

/// With the server's own limit of 1 MiB, which the list exceeds, and with a small one that only the server knows.
#[test]
fn lists_of_a_large_room_keep_to_the_servers_limit() {
    if Kind::Nats.is_missing() {
        return;
    }
    a_large_room_crosses::<Nats>(&Broker::nats(), 1000, 1000);
    let mut broker = Broker::absent(Kind::Nats);
    broker.set_config("max_payload: 2000");
    broker.start();
    a_large_room_crosses::<Nats>(&broker, 60, 100);
}

#[test]
fn each_envelope_of_a_batch_has_its_result() {
    if Kind::Nats.is_missing() {
        return;
    }
    let mut broker = Broker::absent(Kind::Nats);
    broker.set_config("max_payload: 50000");
    broker.start();
    let adapter = adapter(&broker.url());
    let mut foreign = Foreign::new(&broker, "wshub.messages");
    let sizes = [10, 60_000, 20_000, 3, 50_001, 9_000, 9_000];
    let results = adapter.publish_all(&sizes.map(|size| vec![b'x'; size].into()));
    let refused: Vec<_> = results.iter().map(|r| matches!(r, Err(AdapterError::Rejected(_)))).collect();
    assert_eq!(refused, [false, true, false, false, true, false, false]);
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 5, "{results:?}");
    let came: Vec<_> = (0..5).map(|_| foreign.message().1.len()).collect();
    assert_eq!(came, [10, 20_000, 3, 9_000, 9_000]);
}

#[test]
fn a_user_without_rights_is_told_so() {
    if Kind::Nats.is_missing() {
        return;
    }
    let mut broker = Broker::absent(Kind::Nats);
    broker.set_config(
        r#"authorization { users: [
            { user: all, password: "p@ss" },
            { user: mute, password: x, permissions: { publish: "_INBOX.>", subscribe: ">" } },
            { user: deaf, password: x, permissions: { publish: ">", subscribe: "_INBOX.>" } },
            { user: own, password: x, permissions: { publish: ["wshub.messages", "mine.>"], subscribe: ["wshub.messages", "mine.>"] } },
        ] }"#,
    );
    broker.start();
    let host = format!("127.0.0.1:{}", broker.port());
    let login = |user: &str| adapter(&format!("nats://{user}@{host}"));
    login("all:p%40ss").publish(b"x").unwrap();
    adapter(&host).user_and_password("all", "p@ss").publish(b"x").unwrap();
    let refused = adapter(&host).connect().unwrap_err();
    assert!(refused.to_string().contains("authorization violation"), "{refused}");
    assert!(is_unavailable(&login("all:wrong").connect()));

    let mute = login("mute:x");
    mute.connect().unwrap();
    match mute.publish(b"x") {
        Err(AdapterError::Rejected(why)) => assert!(why.to_string().contains("wshub.messages"), "{why}"),
        other => panic!("{other:?}"),
    }
    // The connection stands.
    mute.connect().unwrap();

    let (deaf, metrics) = node(login("deaf:x"), "deaf");
    eventually("refused", || errors(&metrics, ErrorType::AdapterSubscribe) > 1);
    assert_eq!(deaf.hub.adapter_state(), Some(AdapterState::Disconnected));

    let refused = login("own:x").connect().unwrap_err();
    assert!(refused.to_string().contains("_INBOX."), "{refused}");
    login("own:x").inbox_prefix("mine").unwrap().publish(b"x").unwrap();
}

#[test]
fn tokens_open_too() {
    if Kind::Nats.is_missing() {
        return;
    }
    let mut broker = Broker::absent(Kind::Nats);
    broker.set_config("authorization { token: sesame }");
    broker.start();
    let host = format!("127.0.0.1:{}", broker.port());
    assert!(is_unavailable(&adapter(&host).connect()));
    adapter(&host).token("sesame").connect().unwrap();
    adapter(&format!("nats://sesame@{host}")).connect().unwrap();
}

#[test]
fn tls_with_a_certificate_that_is_trusted() {
    if Kind::Nats.is_missing() {
        return;
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls");
    let mut broker = Broker::absent(Kind::Nats);
    broker.set_config(&format!(r#"tls {{ cert_file: "{folder}/server.pem", key_file: "{folder}/server.key" }}"#));
    broker.start();
    let host = format!("localhost:{}", broker.port());
    for scheme in ["tls", "nats"] {
        let url = format!("{scheme}://{host}");
        let trusting = adapter(&url).connect_timeout(PATIENCE).root_certificates(format!("{folder}/ca.pem"));
        trusting.publish(b"x").unwrap();
        let refused = adapter(&url).connect_timeout(PATIENCE).connect().unwrap_err();
        assert!(refused.to_string().contains("certificate"), "{refused}");
    }
    let missing = adapter(&format!("tls://{host}")).root_certificates("/nowhere/ca.pem");
    assert!(is_unavailable(&missing.connect()));
    // Without TLS, a server is not asked for anything else.
    let plain = Broker::nats();
    assert!(is_unavailable(&adapter(&plain.url().replace("nats:", "tls:")).connect()));
}

#[test]
fn the_first_server_of_a_list_that_answers_is_taken() {
    if Kind::Nats.is_missing() {
        return;
    }
    let (absent, there) = (Broker::absent(Kind::Nats), Broker::nats());
    let adapter = adapter(&format!("{},{}", absent.url(), there.url()));
    adapter.connect().unwrap();
    adapter.publish(b"x").unwrap();
}

#[test]
fn a_server_that_does_not_answer_is_noticed_and_nothing_comes_late() {
    if Kind::Nats.is_missing() {
        return;
    }
    let broker = Broker::nats();
    let adapter = adapter(&broker.url());
    adapter.publish(b"before").unwrap();
    let mut foreign = Foreign::new(&broker, "wshub.messages");
    broker.pause();
    let start = Instant::now();
    let batch: Vec<_> = (0..100).map(|n| vec![n; 1000].into()).collect();
    let results = adapter.publish_all(&batch);
    assert!(start.elapsed() < PATIENCE);
    // What may have gone out is no more than one write.
    assert_eq!(results.len(), 16);
    assert!(results.iter().all(is_unavailable));
    assert!(is_unavailable(&adapter.publish(b"lost")));
    broker.resume();
    eventually("it publishes again", || adapter.publish(b"after").is_ok());
    let came: Vec<_> = std::iter::repeat_with(|| foreign.message().1).take_while(|text| text != "after").collect();
    assert!(came.len() <= 16 && !came.contains(&"lost".to_owned()), "{came:?}");
}

#[test]
fn a_silent_subscription_is_noticed_while_nobody_publishes() {
    if Kind::Nats.is_missing() {
        return;
    }
    let broker = Broker::nats();
    let (server, metrics) = node(adapter(&broker.url()), "one");
    connected(&server.hub);
    broker.pause();
    eventually("noticed", || server.hub.adapter_state() == Some(AdapterState::Disconnected));
    assert!(errors(&metrics, ErrorType::AdapterSubscribe) > 0);
    broker.resume();
    connected(&server.hub);
    let mut client = server.connect();
    let envelope = r#"{"node_id":"node-a","type":"broadcast","msg_type":1,"data":"cGxhaW4gdGV4dA=="}"#;
    Foreign::new(&broker, "x").publish("wshub.messages", envelope);
    assert_eq!(client.text(), "plain text");
}

#[test]
fn a_connection_that_broke_unnoticed_costs_no_message() {
    if Kind::Nats.is_missing() {
        return;
    }
    let mut broker = Broker::nats();
    let adapter = adapter(&broker.url());
    adapter.publish(b"before").unwrap();
    broker.kill();
    broker.start();
    let mut foreign = Foreign::new(&broker, "wshub.messages");
    // The socket has been closed; whether that has been seen is luck, and so is one lost message, but not two.
    let first = adapter.publish(b"first");
    if first.is_err() {
        adapter.publish(b"first").unwrap();
    }
    assert_eq!(foreign.message().1, "first");
}

/// A server that says this to whoever connects, and reads what comes.
fn saying(text: &'static [u8]) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    // Ends with the test's process.
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = stream.write_all(text);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
    url
}

#[test]
fn what_is_no_nats_server_is_an_error() {
    let texts: [&[u8]; 7] = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\xff\x00\xff\r\n\r\n",
        b"INFO {\"nonsense\"\r\n",
        b"-ERR 'no'\r\n",
        // The client panics.
        b"-ERR\r\n",
        b"INFO {\"max_payload\":1000}\r\nPONG\r\nMSG x 1 18446744073709551615\r\n",
    ];
    for text in texts {
        let adapter = adapter(&saying(text));
        let start = Instant::now();
        assert!(is_unavailable(&adapter.connect()), "{text:?}");
        assert!(is_unavailable(&adapter.publish(b"x")), "{text:?}");
        assert!(start.elapsed() < PATIENCE);
    }
}

#[test]
fn a_server_that_loses_its_mind_later_is_an_error() {
    // It takes everything, and then says what no server says: the client panics in its own task.
    let (server, metrics) = node(adapter(&saying(b"INFO {\"max_payload\":1000}\r\nPONG\r\n-ERR\r\n")), "one");
    eventually("errors", || {
        errors(&metrics, ErrorType::AdapterSubscribe) > 2 && errors(&metrics, ErrorType::AdapterPublish) > 2
    });
    assert_ne!(server.hub.adapter_state(), Some(AdapterState::Connected));
}

/// Plays the server until something is published to the nodes' subject.
fn play_server(stream: &TcpStream) {
    let (mut input, mut output) = (BufReader::new(stream), stream);
    output.write_all(b"INFO {\"max_payload\":1000}\r\n").unwrap();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["PING"] => output.write_all(b"PONG\r\n").unwrap(),
            ["PUB", "wshub.messages", _] => return,
            ["PUB", subject, len] => {
                let mut payload = vec![0; len.parse::<usize>().unwrap() + 2];
                input.read_exact(&mut payload).unwrap();
                let head = format!("MSG {subject} 1 {len}\r\n");
                output.write_all(&[head.as_bytes(), &payload].concat()).unwrap();
            }
            ["CONNECT" | "SUB", ..] => {}
            _ => panic!("{line:?}"),
        }
    }
}

#[test]
fn what_was_reported_as_lost_is_not_sent_over_a_later_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let adapter = adapter(&format!("nats://{}", listener.local_addr().unwrap())).response_timeout(PATIENCE);
    let accept = || {
        let stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    thread::scope(|scope| {
        let publishing = scope.spawn(|| adapter.publish(b"lost"));
        let first = accept();
        play_server(&first);
        drop(first);
        assert!(is_unavailable(&publishing.join().unwrap()));
    });
    // The client's own attempt: it does not even log in.
    let mut second = accept();
    second.write_all(b"INFO {\"max_payload\":1000}\r\n").unwrap();
    let mut said = String::new();
    second.read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn settings_show_no_passwords() {
    let adapter = NatsAdapter::new("nats://ann:s3cret@localhost,tls://s3cret@[::1]:5000").unwrap();
    let text = format!("{adapter:?}");
    assert!(text.contains("localhost:4222") && text.contains("::1:5000") && !text.contains("s3cret"), "{text}");
    let error = NatsAdapter::new("http://ann:s3cret@localhost").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}
