//! Counts over all nodes: heartbeats, farewells, and nodes that fall silent.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::time::{Duration, Instant};

use common::bus::{Mood, Wire, connected, node, plain_node};
use common::{PATIENCE, TestServer, WsClient, counted, errors, eventually};
use wshub::{
    Admission, Hub, HubBuilder, Target,
    cluster::{Cluster, Envelope, MemoryBus, Presence},
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
    let presence = Presence { node_id: id.into(), client_count: clients, rooms, ts, gone: false };
    Envelope::presence(&presence).encode()
}

#[test]
fn every_node_counts_the_clients_of_all() {
    let bus = MemoryBus::new();
    let nodes = ["a", "b", "c"].map(|id| beating(&bus, id, OFTEN));
    let global = |clients: usize, lobby: usize, side: usize| {
        for node in &nodes {
            eventually("the counts agree", || {
                let rooms = (node.hub.global_room_count("lobby"), node.hub.global_room_count("side"));
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
    assert_eq!((one.hub.global_client_count(), one.hub.global_room_count("none")), (1, 0));
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
        assert_eq!((patient.hub.global_client_count(), patient.hub.global_room_count("r")), (7, 5));
        eventually("it is silent", || hasty.hub.global_client_count() == 0);
        assert_eq!((others(&hasty).len(), hasty.hub.global_room_count("r")), (0, 0));
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
        assert_eq!((one.hub.global_client_count(), one.hub.global_room_count("r")), (clients, clients));
    }
    wire.receive(beat("go", 2, &[], 0));
    assert_eq!((one.hub.global_client_count(), one.hub.global_room_count("r")), (2, 0));
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
