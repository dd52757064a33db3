//! Hubs that share a Redis server: the tests of every broker, and the adapter's own guarantees.
// Not over TLS: the cluster sees no sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod broker_suite;
mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use broker_suite::fake::Fake;
use broker_suite::{Bus, GIVE_UP, early_node, node, outage, settings, suite};
use common::broker::{Broker, Kind};
use common::bus::connected;
use common::{errors, eventually};
use wshub::{
    Target,
    cluster::{AdapterState, Cluster, RedisAdapter},
    metrics::ErrorType,
};

struct Redis;

impl Bus for Redis {
    const KIND: Kind = Kind::Redis;
    const OPTION: &'static str = "redis";

    fn cluster(url: &str) -> Cluster {
        let adapter = RedisAdapter::new(url).unwrap();
        Cluster::new(adapter.connect_timeout(GIVE_UP).response_timeout(GIVE_UP).idle(GIVE_UP / 2))
    }

    fn publish(broker: &Broker, payload: &[u8]) {
        redis::cmd("PUBLISH").arg("wshub:messages").arg(payload).exec(&mut client(broker)).unwrap();
    }
}

suite! { Redis }

fn client(broker: &Broker) -> redis::Connection {
    redis::Client::open(broker.url()).unwrap().get_connection().unwrap()
}

/// Adds an ACL user without a password, with these rules; gives the URL with its name.
fn user(broker: &Broker, name: &str, rules: &str) -> String {
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg(name).arg("on").arg("nopass").arg("resetchannels").arg("-@all");
    rules.split(' ').for_each(|rule| _ = command.arg(rule));
    command.exec(&mut client(broker)).unwrap();
    format!("redis://{name}:any@127.0.0.1:{}", broker.port())
}

fn soon(cluster: Cluster, id: &str) -> Cluster {
    cluster.node_id(id).backoff(Duration::from_millis(20), Duration::from_millis(100))
}

#[test]
fn urls_that_name_no_server_are_refused_and_told_without_the_password() {
    let wrong = [
        ("", "redis, rediss"),
        ("127.0.0.1:6379", "redis, rediss"),
        ("http://:sesame@host", "redis, rediss"),
        ("redis://:sesame@", "host or port"),
        ("redis://:sesame@host:port", "host or port"),
        ("redis:///1", "hostname"),
        ("redis://:sesame@host/one", "database"),
        ("redis://:sesame@0.0.0.0", "wildcard"),
        ("redis://:%ff@host", "Password"),
        ("unix://?pass=sesame", "path"),
        #[cfg(not(feature = "redis-tls"))]
        ("rediss://:sesame@host", "redis-tls"),
        #[cfg(feature = "redis-tls")]
        ("rediss://:sesame@host#anything", "fragment"),
    ];
    for (url, named) in wrong {
        let error = RedisAdapter::new(url).unwrap_err();
        let text = format!("{error} {error:?}");
        assert_eq!(error.field(), "url");
        assert!(text.contains(named) && !text.contains("sesame"), "{url}: {text}");
    }
    let adapter = RedisAdapter::new("valkey://ann:sesame@[::1]:7/3?protocol=resp3").unwrap().channel("c");
    let text = format!("{adapter:?}");
    assert!(text.contains("[::1]:7") || text.contains("::1:7"), "{text}");
    assert!(!text.contains("sesame") && text.contains(r#""c""#), "{text}");
}

#[test]
fn a_unix_socket_joins_nodes_too_and_a_channel_keeps_clusters_apart() {
    if Kind::Redis.is_missing() {
        return;
    }
    let mut broker = Broker::absent(Kind::Redis);
    broker.add_args(&["--unixsocket", "socket"]);
    broker.start();
    let url = format!("unix://{}/socket", broker.folder().display());
    let on = |url: &str, channel: &str, id: &str| {
        let node = early_node(soon(Cluster::new(RedisAdapter::new(url).unwrap().channel(channel)), id)).0;
        connected(&node.hub);
        node
    };
    let (one, two) = (on(&url, "mine", "one"), on(&broker.url(), "mine", "two"));
    let other = on(&url, "other", "three");
    let mut stranger = other.connect();
    outage::flows(&one, &two);
    outage::flows(&two, &one);
    other.hub.send(Target::all(), "end").unwrap();
    assert_eq!(stranger.texts_until_end(), [""; 0]);
}

#[test]
fn a_user_who_may_not_publish_still_receives_and_each_refusal_is_counted() {
    if Kind::Redis.is_missing() {
        return;
    }
    let broker = Redis::broker();
    let (one, sender) = node::<Redis>(&broker, "one");
    let url = user(&broker, "reader", "+ping +subscribe &wshub:messages");
    let (two, metrics) = early_node(soon(Redis::cluster(&url), "two"));
    connected(&two.hub);
    for _ in 0..5 {
        two.hub.send(Target::all(), "not allowed").unwrap();
    }
    eventually("refusals", || metrics.stats().adapter_dropped == 5);
    assert_eq!(errors(&metrics, ErrorType::AdapterPublish), 5);
    outage::flows(&one, &two);
    let stats = metrics.stats();
    assert_eq!((stats.adapter_published, stats.adapter_connects, stats.adapter_disconnects), (0, 1, 0));
    assert_eq!(sender.stats().adapter_received, 0);
}

#[test]
fn a_user_who_may_not_subscribe_is_never_connected() {
    if Kind::Redis.is_missing() {
        return;
    }
    let broker = Redis::broker();
    for rules in ["+ping +publish &wshub:messages", "+ping +publish +subscribe &elsewhere"] {
        let url = user(&broker, "writer", rules);
        let (one, metrics) = early_node(soon(Redis::cluster(&url), "one"));
        eventually("refusals", || errors(&metrics, ErrorType::AdapterSubscribe) > 2);
        assert_eq!(one.hub.adapter_state(), Some(AdapterState::Disconnected));
        assert_eq!(metrics.stats().adapter_connects, 0);
    }
}

#[test]
fn what_has_come_together_is_published_in_few_writes() {
    const MESSAGES: u64 = 1000;
    if Kind::Redis.is_missing() {
        return;
    }
    let mut broker = Broker::absent(Kind::Redis);
    let (one, metrics) = early_node(settings::<Redis>(&broker, "one").max_age(common::PATIENCE));
    for n in 0..MESSAGES {
        one.hub.send(Target::all(), n.to_string()).unwrap();
    }
    broker.start();
    eventually("all is published", || metrics.stats().adapter_published == MESSAGES);
    let info: String = redis::cmd("INFO").arg("stats").query(&mut client(&broker)).unwrap();
    let figure = |name: &str| -> u64 {
        info.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|v| v.trim_start_matches(':').parse().ok())
            .unwrap()
    };
    let (commands, reads) = (figure("total_commands_processed"), figure("total_reads_processed"));
    assert!(commands >= MESSAGES && reads < MESSAGES / 4, "{commands} commands in {reads} reads");
}

const SUBSCRIBED: &[u8] = b"*3\r\n$9\r\nsubscribe\r\n$14\r\nwshub:messages\r\n:1\r\n";

/// A server that knows the commands of an adapter; `publish` answers the nth PUBLISH, and `subscribed` has the
/// connection once a subscription stands.
fn fake(publish: fn(usize) -> &'static [u8], subscribed: fn(&mut TcpStream)) -> Fake {
    Fake::new(move |mut stream| {
        let (mut count, mut chunk) = (0, vec![0; 64 * 1024]);
        while let Ok(n @ 1..) = stream.read(&mut chunk) {
            let text = String::from_utf8_lossy(&chunk[..n]).into_owned();
            let mut answer = Vec::new();
            for _ in text.matches("PUBLISH\r\n") {
                answer.extend(publish(count));
                count += 1;
            }
            if text.contains("\r\nPING\r\n") {
                answer.extend(b"+PONG\r\n");
            }
            if text.contains("\r\nSUBSCRIBE\r\n") {
                let _ = stream.write_all(SUBSCRIBED);
                subscribed(&mut stream);
            }
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    })
}

#[test]
fn errors_among_the_answers_lose_the_messages_that_they_are_for() {
    let every_third = |n: usize| if n % 3 == 2 { &b"-OOM command not allowed\r\n"[..] } else { b":1\r\n" };
    let fake = fake(every_third, |_| {});
    let adapter = RedisAdapter::new(&format!("redis://{}", fake.addr)).unwrap();
    let (one, metrics) = early_node(soon(Cluster::new(adapter), "one"));
    connected(&one.hub);
    for n in 0..300 {
        one.hub.send(Target::all(), n.to_string()).unwrap();
    }
    eventually("all is settled", || metrics.stats().adapter_published + metrics.stats().adapter_dropped == 300);
    let stats = metrics.stats();
    assert_eq!((stats.adapter_published, stats.adapter_dropped), (200, 100));
    assert_eq!((errors(&metrics, ErrorType::AdapterPublish), stats.adapter_disconnects), (100, 0));
    assert_eq!(one.hub.adapter_state(), Some(AdapterState::Connected));
}

#[test]
fn a_server_that_loads_its_data_is_away() {
    let fake = fake(|_| b"-LOADING Redis is loading the dataset in memory\r\n", |_| {});
    let adapter = RedisAdapter::new(&format!("redis://{}", fake.addr)).unwrap();
    let (one, metrics) = early_node(soon(Cluster::new(adapter), "one"));
    connected(&one.hub);
    one.hub.send(Target::all(), "lost").unwrap();
    eventually("the outage", || metrics.stats().adapter_disconnects == 1);
    assert_eq!((metrics.stats().adapter_published, metrics.stats().adapter_dropped), (0, 1));
}

#[test]
fn a_message_that_comes_in_pieces_arrives() {
    let fake = fake(
        |_| b":1\r\n",
        |stream| {
            let envelope = br#"{"node_id":"far","type":"broadcast","msg_type":1,"data":"ZW5k"}"#;
            let mut bytes =
                format!("*3\r\n$7\r\nmessage\r\n$14\r\nwshub:messages\r\n${}\r\n", envelope.len()).into_bytes();
            bytes.extend(envelope);
            bytes.extend(b"\r\n");
            for piece in
                [&bytes[..3], &bytes[3..30], &bytes[30..60], &bytes[60..bytes.len() - 1], &bytes[bytes.len() - 1..]]
            {
                let _ = stream.write_all(piece);
                // Longer than the adapter waits at a time.
                thread::sleep(Duration::from_millis(250));
            }
        },
    );
    let adapter = RedisAdapter::new(&format!("redis://{}", fake.addr)).unwrap();
    let (one, metrics) = early_node(soon(Cluster::new(adapter), "one"));
    let mut socket = one.connect();
    assert_eq!(socket.texts_until_end(), [""; 0]);
    assert_eq!(errors(&metrics, ErrorType::AdapterDecode) + errors(&metrics, ErrorType::AdapterSubscribe), 0);
}

#[cfg(feature = "redis-tls")]
#[test]
fn tls_checks_the_server_and_joins_nodes() {
    use broker_suite::process::Node;

    if Kind::Redis.is_missing() {
        return;
    }
    let mut broker = Broker::absent(Kind::Redis);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls");
    let port = common::broker::free_port();
    broker.add_args(&["--tls-port", &port.to_string(), "--tls-auth-clients", "no"]);
    let [cert, key] = ["server.pem", "server.key"].map(|name| format!("{folder}/{name}"));
    broker.add_args(&["--tls-cert-file", &cert, "--tls-key-file", &key]);
    broker.start();
    let url = format!("rediss://localhost:{port}");
    let authority = format!("{folder}/ca.pem");
    let trusting =
        |id: &str| Node::with::<Redis>(&url, id, 200, |command| _ = command.env("SSL_CERT_FILE", &authority));
    let (one, two) = (trusting("one"), trusting("two"));
    let wary = Node::with::<Redis>(&url, "wary", 200, |_| {});
    one.knows(&["one", "two"], 0);
    two.knows(&["one", "two"], 0);
    eventually("a failure", || common::get(wary.addr, "/healthz").1.contains(r#""adapter":"disconnected""#));
    assert!(!wary.is_connected());
}
