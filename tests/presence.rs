//! Counts over all nodes: heartbeats, farewells, and nodes that fall silent.
// Not over TLS: the cluster sees no sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::bus::{Mood, Wire, connected, node, plain_node};
use common::{PATIENCE, TestServer, WsClient, counted, errors, eventually};
use wshub::{
    Admission, Hub, HubBuilder, Limits, Target,
    cluster::{Adapter, AdapterError, Cluster, Envelope, Inbox, MemoryBus, Presence},
    limit::MAX_ROOM_NAME,
    metrics::ErrorType,
};

/// No heartbeat is sent because its time has come.
const NEVER: Duration = Duration::from_secs(24 * 3600);
const OFTEN: Duration = Duration::from_millis(50);

fn hub() -> HubBuilder {
    Hub::builder().on_upgrade(|head| Ok(Admission::anonymous().room(head.query_param("room").unwrap_or("none".into()))))
}

fn beating(bus: &MemoryBus, id: &str, interval: Duration) -> TestServer {
    node(hub(), Cluster::new(bus.adapter()).node_id(id).presence(interval))
}

/// Each other node that this one knows, with its clients.
fn others(server: &TestServer) -> Vec<(String, usize)> {
    server.hub.cluster_nodes().into_iter().skip(1).map(|n| (n.id, n.clients)).collect()
}

fn beat(id: &str, clients: u64, rooms: &[(&str, u64)], ts: i64) -> Vec<u8> {
    let rooms = rooms.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    let presence = Presence::new(id, clients, rooms, ts);
    Envelope::presence(&presence).encode()
}

#[test]
fn every_node_counts_the_clients_of_all() {
    let bus = MemoryBus::new();
    let nodes = ["a", "b", "c"].map(|id| beating(&bus, id, OFTEN));
    let global = |clients: usize, lobby: usize, side: usize| {
        for node in &nodes {
            eventually("the counts agree", || {
                let rooms = (node.hub.global_room_size("lobby"), node.hub.global_room_size("side"));
                (node.hub.global_client_count(), rooms) == (clients, (lobby, side))
            });
        }
    };
    global(0, 0, 0);
    let sockets: Vec<_> = [(0, "lobby"), (0, "lobby"), (1, "lobby"), (2, "side")]
        .map(|(node, room)| nodes[node].connect_to(&format!("/ws?room={room}")))
        .into();
    global(4, 3, 1);
    let client = nodes[2].hub.clients()[0].clone();
    client.join("lobby").unwrap();
    global(4, 4, 1);
    client.leave("side").unwrap();
    global(4, 4, 0);
    sockets.into_iter().for_each(WsClient::close);
    global(0, 0, 0);
    let list = nodes[1].hub.cluster_nodes();
    assert_eq!(list.iter().map(|n| n.id.as_str()).collect::<Vec<_>>(), ["b", "a", "c"], "itself first");
    assert_eq!(list[0].last_seen, Duration::ZERO);
}

#[test]
fn without_presence_a_node_counts_itself() {
    let bus = MemoryBus::new();
    let (one, two) = (plain_node(&bus, "one"), plain_node(&bus, "two"));
    let (_here, _far) = (one.connect(), two.connect());
    assert_eq!((one.hub.global_client_count(), one.hub.global_room_size("none")), (1, 0));
    assert_eq!(others(&one), []);
    let alone = Hub::new();
    assert_eq!((alone.global_client_count(), alone.cluster_nodes().len()), (0, 1));
}

#[test]
fn a_node_that_comes_knows_all_and_is_known_at_once() {
    let bus = MemoryBus::new();
    let mut nodes: Vec<TestServer> = Vec::new();
    for id in ["a", "b", "c", "d"] {
        nodes.push(beating(&bus, id, NEVER));
        for node in &nodes {
            eventually("all know all", || others(node).len() == nodes.len() - 1);
        }
    }
    let ids: Vec<_> = nodes[1].hub.cluster_nodes().into_iter().map(|n| n.id).collect();
    assert_eq!(ids, ["b", "a", "c", "d"]);
}

#[test]
fn a_first_heartbeat_is_sent_at_once_and_answered_once() {
    let wire = Wire::new(Mood::Works);
    let one = node(hub(), Cluster::new(wire.adapter()).node_id("n").presence(Duration::from_secs(2)));
    eventually("the first", || !wire.beats().is_empty());
    let first: Presence = serde_json::from_str(&wire.beats()[0]).unwrap();
    assert_eq!((first.node_id.as_str(), first.client_count, first.gone), ("n", 0, false));
    let started = Instant::now();
    // A thousand newcomers do not make a thousand answers.
    (0..1000).for_each(|n| wire.receive(beat(&format!("node {n}"), 1, &[], 0)));
    eventually("an answer", || wire.beats().len() > 1);
    let allowed = 4 + usize::try_from(started.elapsed().as_millis() / 100).unwrap();
    assert!(wire.beats().len() <= allowed, "{} heartbeats", wire.beats().len());
    assert_eq!((others(&one).len(), one.hub.global_client_count()), (1000, 1000));
}

#[test]
fn the_heartbeat_is_that_of_go_nodes() {
    let wire = Wire::new(Mood::Works);
    let one = node(hub(), Cluster::new(wire.adapter()).node_id("n").presence(OFTEN));
    let _sockets = ["z", "a&", "z"].map(|room| one.connect_to(&format!("/ws?room={}", room.replace('&', "%26"))));
    let start = r#"{"node_id":"n","client_count":3,"rooms":{"a\u0026":1,"z":2},"ts":1"#;
    eventually("counts", || wire.beats().last().is_some_and(|b| b.starts_with(start)));
    let last = wire.beats().pop().unwrap();
    assert!(last[start.len()..].trim_end_matches('}').bytes().all(|b| b.is_ascii_digit()), "{last}");
    one.handle.shutdown(PATIENCE).unwrap();
    let last = wire.beats().pop().unwrap();
    assert!(last.starts_with(r#"{"node_id":"n","client_count":0,"rooms":{},"ts":1"#), "{last}");
    assert!(last.ends_with(r#","gone":true}"#), "{last}");
}

#[test]
fn a_node_that_ends_says_farewell() {
    let bus = MemoryBus::new();
    let interval = Duration::from_secs(20);
    let one = beating(&bus, "one", interval);
    for by_drop in [false, true] {
        let cluster = Cluster::new(bus.adapter()).node_id("two").presence(interval);
        let two = Hub::builder().cluster(cluster).build().unwrap();
        eventually("it is known", || others(&one) == [("two".to_owned(), 0)]);
        if by_drop {
            drop(two);
        } else {
            two.shutdown(PATIENCE).unwrap();
        }
        // Its time would come only after three intervals.
        eventually("it is gone", || others(&one).is_empty());
    }
}

#[test]
fn a_silent_node_expires_by_this_node_s_clock() {
    let (near, far) = (Wire::new(Mood::Works), Wire::new(Mood::Works));
    let hasty = node(hub(), Cluster::new(near.adapter()).presence(OFTEN));
    let patient = node(hub(), Cluster::new(far.adapter()).presence(NEVER));
    // Whatever its own clock says.
    for ts in [0, i64::MIN, i64::MAX] {
        let beat = beat("go", 7, &[("r", 5)], ts);
        near.receive(&beat);
        far.receive(&beat);
        assert_eq!((patient.hub.global_client_count(), patient.hub.global_room_size("r")), (7, 5));
        eventually("it is silent", || hasty.hub.global_client_count() == 0);
        assert_eq!((others(&hasty).len(), hasty.hub.global_room_size("r")), (0, 0));
    }
    let stays = patient.hub.cluster_nodes().swap_remove(1);
    assert_eq!((stays.id.as_str(), stays.clients, stays.rooms["r"]), ("go", 7, 5));
}

#[test]
fn a_node_that_keeps_beating_stays_and_its_last_word_counts() {
    let wire = Wire::new(Mood::Works);
    let one = node(hub(), Cluster::new(wire.adapter()).node_id("n").presence(NEVER));
    for clients in [3, 9, 0, 4] {
        wire.receive(beat("go", clients, &[("r", clients)], 0));
        let clients = usize::try_from(clients).unwrap();
        assert_eq!((one.hub.global_client_count(), one.hub.global_room_size("r")), (clients, clients));
    }
    wire.receive(beat("go", 2, &[], 0));
    assert_eq!((one.hub.global_client_count(), one.hub.global_room_size("r")), (2, 0));
    // Its own, come back.
    wire.receive(beat("n", 50, &[], 0));
    assert_eq!(one.hub.global_client_count(), 2);
}

#[test]
fn a_malformed_heartbeat_is_counted() {
    let wire = Wire::new(Mood::Works);
    let (metrics, builder) = counted(hub());
    let one = node(builder, Cluster::new(wire.adapter()).presence(NEVER));
    for data in ["", "null", "bnVsbA==", "e30=", "eyJub2RlX2lkIjoieCIsImNsaWVudF9jb3VudCI6LTF9"] {
        wire.receive(format!(r#"{{"node_id":"x","type":"presence","msg_type":0,"data":"{data}"}}"#));
    }
    assert_eq!((errors(&metrics, ErrorType::AdapterDecode), others(&one).len()), (5, 0));
}

#[test]
fn counts_return_after_the_bus_was_away() {
    let wire = Wire::new(Mood::Works);
    let backoff = Duration::from_millis(5);
    let cluster = Cluster::new(wire.adapter()).node_id("n").presence(Duration::from_secs(30)).backoff(backoff, backoff);
    let one = node(hub(), cluster);
    eventually("the first", || wire.beats().len() == 1);
    wire.both(Mood::Unavailable);
    eventually("disconnected", || one.hub.adapter_state() != Some(wshub::cluster::AdapterState::Connected));
    wire.both(Mood::Works);
    // Long before its next is due.
    eventually("told again", || wire.beats().len() > 1);
    connected(&one.hub);
    // Heartbeats that are on their way have been sent when something behind them is lost.
    wire.publishing(Mood::Unavailable);
    one.hub.send(Target::all(), "lost").unwrap();
    eventually("only publishing has failed", || {
        one.hub.adapter_state() != Some(wshub::cluster::AdapterState::Connected)
    });
    let before = wire.beats().len();
    wire.publishing(Mood::Works);
    eventually("told again", || wire.beats().len() > before);
}

/// A bus in memory that refuses envelopes over `limit` bytes, and takes its time.
struct Narrow {
    bus: wshub::cluster::MemoryAdapter,
    limit: usize,
    tells: bool,
    delay: Duration,
}

impl Adapter for Narrow {
    fn publish(&self, envelope: &[u8]) -> Result<(), AdapterError> {
        std::thread::sleep(self.delay);
        if envelope.len() > self.limit {
            return Err(AdapterError::rejected(format!("{} bytes", envelope.len())));
        }
        self.bus.publish(envelope)
    }

    fn max_envelope(&self) -> Option<usize> {
        self.tells.then_some(self.limit)
    }

    fn subscribe(&self, inbox: &Inbox) -> Result<(), AdapterError> {
        self.bus.subscribe(inbox)
    }

    fn close(&self) {
        self.bus.close();
    }
}

#[test]
fn heartbeats_of_many_rooms_are_held_to_the_limit_of_the_bus() {
    const ROOMS: usize = 3000;
    for (limit, tells, max_envelope) in [(60_000, true, 1 << 20), (60_000, false, 1 << 20), (1 << 20, false, 60_000)] {
        let bus = MemoryBus::new();
        let often = Duration::from_millis(300);
        let other = beating(&bus, "other", often);
        let narrow = Narrow { bus: bus.adapter(), limit, tells, delay: Duration::ZERO };
        let (metrics, builder) = counted(hub().limits(Limits::default()));
        let cluster = Cluster::new(narrow).node_id("many").presence(often).max_envelope(max_envelope);
        let many = node(builder, cluster);
        let (_socket, client) = many.pair_to("/ws?room=none");
        let room = |n: usize| format!("sensors/building-{n}/temperature");
        (0..ROOMS).for_each(|n| client.join(&room(n)).unwrap());
        eventually("all rooms are known", || {
            others(&other) == [("many".to_owned(), 1)] && (0..ROOMS).all(|n| other.hub.global_room_size(&room(n)) == 1)
        });
        client.leave(&room(7)).unwrap();
        eventually("a change is known", || {
            (other.hub.global_room_size(&room(7)), other.hub.global_room_size(&room(8))) == (0, 1)
        });
        assert_eq!(errors(&metrics, ErrorType::AdapterPublish) > 0, limit == 60_000 && !tells, "{limit} {tells}");
    }
}

#[test]
fn a_room_that_fits_into_no_heartbeat_is_reported_and_the_rest_counts() {
    let bus = MemoryBus::new();
    let other = beating(&bus, "other", OFTEN);
    let (metrics, builder) = counted(hub());
    let narrow = Narrow { bus: bus.adapter(), limit: 400, tells: true, delay: Duration::ZERO };
    let many = node(builder, Cluster::new(narrow).node_id("many").presence(OFTEN));
    let (_socket, client) = many.pair_to("/ws?room=short");
    let long = "x".repeat(MAX_ROOM_NAME);
    client.join(&long).unwrap();
    eventually("what fits is known", || other.hub.global_room_size("short") == 1);
    eventually("the rest is reported", || errors(&metrics, ErrorType::AdapterPublish) > 0);
    eventually("its count is", || others(&other) == [("many".to_owned(), 1)]);
    assert_eq!(other.hub.global_room_size(&long), 0);
}

#[test]
fn messages_and_heartbeats_take_turns_on_a_slow_bus() {
    let bus = MemoryBus::new();
    let other = plain_node(&bus, "other");
    let mut socket = other.connect();
    // Each heartbeat takes longer than it is from one to the next.
    let slow = Narrow { bus: bus.adapter(), limit: usize::MAX, tells: true, delay: Duration::from_millis(40) };
    let cluster = Cluster::new(slow).node_id("slow").presence(Duration::from_millis(20)).max_age(PATIENCE * 10);
    let one = node(hub(), cluster);
    for n in 0..20 {
        one.hub.send(Target::all(), n.to_string()).unwrap();
        assert_eq!(socket.text(), n.to_string());
    }
    // Behind a crowd of messages, too, heartbeats are not late for long.
    let watcher = beating(&bus, "watcher", Duration::from_secs(1));
    eventually("it is known", || others(&watcher).len() == 1);
    (0..40).for_each(|n| _ = one.hub.send(Target::all(), n.to_string()).unwrap());
    (0..40).for_each(|n| assert_eq!(socket.text(), n.to_string()));
}

#[test]
fn dropping_the_last_handle_publishes_what_was_accepted() {
    let wire = Wire::new(Mood::Works);
    let held = Arc::new(());
    let probe = Arc::clone(&held);
    let (metrics, builder) = counted(hub().on_message(move |_, _| {
        let _ = &probe;
        Ok(())
    }));
    let cluster = Cluster::new(wire.adapter()).node_id("n").presence(Duration::from_millis(10));
    let hub = builder.cluster(cluster).build().unwrap();
    eventually("a heartbeat", || !wire.beats().is_empty());
    wire.publishing(Mood::Blocks);
    (0..2000).for_each(|n| assert!(hub.send(Target::all(), n.to_string()).unwrap().published));
    let dropping = std::thread::spawn(move || drop(hub));
    eventually("the hub is gone, and a heartbeat is due", || Arc::strong_count(&held) == 1);
    wire.publishing(Mood::Works);
    dropping.join().unwrap();
    assert!(wire.payloads().into_iter().eq((0..2000).map(|n| n.to_string())), "{} published", wire.payloads().len());
    assert!(wire.beats().pop().unwrap().ends_with(r#","gone":true}"#));
    assert_eq!((metrics.stats().adapter_published, metrics.stats().adapter_dropped), (2000, 0), "counted to the end");
}

#[test]
fn a_successor_of_the_same_id_outlives_the_farewell_of_the_old_node() {
    let bus = MemoryBus::new();
    let watcher = beating(&bus, "watcher", NEVER);
    let (mut socket, _) = watcher.pair_to("/ws?room=none");
    let mut old = beating(&bus, "web-1", NEVER);
    for _ in 0..3 {
        let new = beating(&bus, "web-1", NEVER);
        eventually("the new one is answered", || others(&new) == [("watcher".to_owned(), 1)]);
        old.hub.shutdown(PATIENCE).unwrap();
        // Behind the farewell in the watcher's queue.
        new.hub.send(Target::room("none"), "later").unwrap();
        assert_eq!(socket.text(), "later");
        assert_eq!(others(&watcher), [("web-1".to_owned(), 0)]);
        old = new;
    }
    old.hub.shutdown(PATIENCE).unwrap();
    eventually("its own farewell ends it", || others(&watcher).is_empty());
}

#[test]
fn a_node_that_hears_its_namesake_leave_announces_itself() {
    let wire = Wire::new(Mood::Works);
    let _one = node(hub(), Cluster::new(wire.adapter()).node_id("n").presence(NEVER));
    eventually("the first", || wire.beats().len() == 1);
    let own: Presence = serde_json::from_str(&wire.beats()[0]).unwrap();
    // Its own, come back, and an ordinary one: nothing follows.
    wire.receive(Envelope::presence(&own).encode());
    let farewell = r#"{"node_id":"n","client_count":0,"rooms":{},"ts":1,"run":"another","gone":true}"#;
    let presence = |payload: &str| {
        let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, payload);
        format!(r#"{{"node_id":"n","type":"presence","msg_type":0,"data":"{data}"}}"#)
    };
    wire.receive(presence(farewell));
    eventually("it says that it is there", || wire.beats().len() == 2);
    assert_eq!(serde_json::from_str::<Presence>(&wire.beats()[1]).unwrap().client_count, 0);
}

type Change = fn(Cluster) -> Cluster;

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let settings = |change: fn(Cluster) -> Cluster| {
        let cluster = change(Cluster::new(MemoryBus::new().adapter()));
        Hub::builder().cluster(cluster).build().map(|_| ()).map_err(|error| error.field())
    };
    let wrong: [(&str, Change); 12] = [
        ("presence", |c| c.presence(Duration::from_nanos(1))),
        ("presence", |c| c.presence(Duration::from_micros(9_999))),
        ("presence", |c| c.presence(Duration::MAX)),
        ("node_id", |c| c.node_id("")),
        ("node_id", |c| c.node_id("x".repeat(257))),
        ("queue_messages", |c| c.queue_messages(usize::MAX)),
        ("queue_bytes", |c| c.queue_bytes(usize::MAX)),
        ("max_envelope", |c| c.max_envelope(100)),
        ("max_envelope", |c| c.max_envelope(usize::MAX)),
        ("max_age", |c| c.max_age(Duration::from_nanos(1))),
        ("max_age", |c| c.max_age(Duration::from_secs(367 * 24 * 3600))),
        ("backoff", |c| c.backoff(Duration::from_secs(2), Duration::from_secs(1))),
    ];
    for (field, change) in wrong {
        assert_eq!(settings(change), Err(field));
    }
    assert_eq!(settings(|c| c.presence(Duration::ZERO)), Ok(()));
    assert_eq!(settings(|c| c.presence(Duration::from_millis(10)).max_envelope(128).node_id("x".repeat(256))), Ok(()));
}
