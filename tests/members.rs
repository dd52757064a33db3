//! Members of rooms: exact on this node, soon the same on all nodes, and reported in batches.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::bus::{Mood, Wire, lossy, node};
use common::{PATIENCE, TestServer, WsClient, eventually};
use serde_json::{Value, json};
use wshub::cluster::{Cluster, MemoryBus};
use wshub::history::Range;
use wshub::members::{MemberChange, MemberError};
use wshub::protocol::events::Events;
use wshub::{Admission, Hub, HubBuilder, RoomOptions};

const INTERVAL: Duration = Duration::from_millis(200);

/// What a hook was told, added up; and whether it ever made no sense.
type Told = Arc<Mutex<BTreeMap<String, Option<String>>>>;

fn hub(options: RoomOptions) -> (HubBuilder, Told) {
    let told = Told::default();
    let sum = Arc::clone(&told);
    let builder = Hub::builder().rooms("m:*", options).on_upgrade(|head| {
        let user = head.query_param("user");
        let admission = user.map_or_else(Admission::anonymous, Admission::user);
        let admission = match head.query_param("meta") {
            Some(meta) => admission.member(&meta).unwrap(),
            None => admission,
        };
        Ok(admission.room("m:x"))
    });
    let builder = builder.on_member_change(move |_, room, change| {
        assert_eq!(room, "m:x");
        let mut sum = sum.lock().unwrap();
        let member = change.member();
        let metadata = member.metadata.as_deref().map(str::to_owned);
        let (before, is_known) = match change {
            MemberChange::Left(_) => (sum.remove(&*member.id), true),
            MemberChange::Updated { .. } => (sum.insert(member.id.to_string(), metadata), true),
            _ => (sum.insert(member.id.to_string(), metadata), false),
        };
        assert_eq!(before.is_some(), is_known, "{change:?}");
    });
    (builder, told)
}

fn listed(hub: &Hub) -> BTreeMap<String, Option<String>> {
    let members = hub.members("m:x").into_iter();
    members.map(|member| (member.id.to_string(), member.metadata.as_deref().map(str::to_owned))).collect()
}

fn ids(hub: &Hub) -> Vec<String> {
    listed(hub).into_keys().collect()
}

#[test]
fn a_user_with_three_tabs_is_one_member_and_the_hook_adds_up() {
    let (builder, told) = hub(RoomOptions::members());
    let server = TestServer::new(builder);
    let mut tabs: Vec<_> = (0..3).map(|_| server.pair_to("/ws?user=ann&meta=blue")).collect();
    let (nobody, client) = server.pair_to("/ws");
    let expected = BTreeMap::from([("ann".to_owned(), Some("\"blue\"".to_owned())), (client.id().to_string(), None)]);
    assert_eq!(listed(&server.hub), expected);
    eventually("the hook knows", || *told.lock().unwrap() == expected);
    tabs[0].1.set_member(&json!({"color": "red"})).unwrap();
    eventually("an update", || told.lock().unwrap()["ann"].as_deref() == Some(r#"{"color":"red"}"#));
    assert_eq!(listed(&server.hub), *told.lock().unwrap());
    drop(nobody);
    tabs.truncate(1);
    eventually("one tab is left", || server.hub.client_count() == 1);
    assert_eq!(ids(&server.hub), ["ann"]);
    // It becomes somebody else, and then leaves.
    tabs[0].1.set_user("bob").unwrap();
    assert_eq!(ids(&server.hub), ["bob"]);
    eventually("the hook knows", || told.lock().unwrap().keys().eq(["bob"]));
    tabs[0].1.leave("m:x").unwrap();
    assert_eq!(ids(&server.hub), [""; 0]);
    eventually("nobody is left", || told.lock().unwrap().is_empty());
    tabs[0].1.join("other").unwrap();
    assert_eq!(server.hub.members("other"), []);
}

#[test]
fn metadata_is_bounded() {
    let (builder, _told) = hub(RoomOptions::members());
    let server = TestServer::new(builder);
    let (_socket, client) = server.pair_to("/ws?user=ann");
    client.set_member(&"x".repeat(1022)).unwrap();
    assert!(matches!(client.set_member(&"x".repeat(1023)), Err(MemberError::TooLarge(1025))));
    assert!(Admission::anonymous().member(&"x".repeat(2000)).is_err());
    assert_eq!(listed(&server.hub)["ann"].as_ref().map(String::len), Some(1024));
}

#[test]
fn who_comes_back_in_time_was_never_away() {
    let (builder, told) = hub(RoomOptions::members().member_linger(Duration::from_millis(400)));
    let server = TestServer::new(builder);
    let changes = Arc::new(Mutex::new(0));
    let socket = server.connect_to("/ws?user=ann");
    eventually("told", || told.lock().unwrap().contains_key("ann"));
    let start = Instant::now();
    drop(socket);
    eventually("it is gone", || server.hub.client_count() == 0);
    let is_there = ids(&server.hub) == ["ann"];
    assert!(is_there || start.elapsed() > Duration::from_millis(300));
    let socket = server.connect_to("/ws?user=ann");
    assert_eq!(ids(&server.hub), ["ann"]);
    drop(socket);
    eventually("it has left", || told.lock().unwrap().is_empty());
    assert_eq!(ids(&server.hub), [""; 0]);
    drop(changes);
}

/// A renamed connection does not linger under its old name. Metadata for a room counts only where its connection is.
#[test]
fn names_and_metadata_are_those_of_connections_in_the_room() {
    let (builder, told) = hub(RoomOptions::members().member_linger(Duration::from_secs(60)));
    let server = TestServer::new(builder);
    let (_first, first) = server.pair_to("/ws?user=ann&meta=blue");
    let (_second, second) = server.pair_to("/ws?user=ann");
    second.leave("m:x").unwrap();
    second.set_member_in("m:x", &"red").unwrap();
    assert_eq!(listed(&server.hub)["ann"].as_deref(), Some("\"blue\""));
    first.set_user("eve").unwrap();
    assert_eq!(ids(&server.hub), ["eve"]);
    eventually("it is told", || told.lock().unwrap().keys().eq(["eve"]));
}

/// At most one report every 50 ms: so many reports take so long.
#[test]
fn reports_of_one_room_have_a_distance() {
    let (builder, told) = hub(RoomOptions::members());
    let server = TestServer::new(builder);
    let start = Instant::now();
    let (_socket, client) = server.pair_to("/ws?user=ann");
    eventually("its join is told", || told.lock().unwrap().contains_key("ann"));
    for n in 1..10 {
        client.set_member(&n).unwrap();
        eventually("it is told", || told.lock().unwrap().get("ann") == Some(&Some(n.to_string())));
    }
    assert!(start.elapsed() >= Duration::from_millis(50) * 9, "{:?}", start.elapsed());
}

/// A heartbeat's digests in parts: each part speaks only of its own range of names. Questions to others are not
/// answered.
#[test]
fn digests_in_parts_and_questions_to_others() {
    let wire = Wire::new(Mood::Works);
    let (builder, _told) = hub(RoomOptions::members());
    let one = node(builder, Cluster::new(wire.adapter()).node_id("one").presence(Duration::from_secs(3600)));
    let hear = |control: Value| {
        let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, control.to_string());
        let head = r#"{"node_id":"two","type":"client","client_id":"wshub.control","msg_type":1,"data":""#;
        wire.receive(format!(r#"{head}{data}"}}"#));
    };
    for room in ["m:a", "m:c"] {
        hear(json!({"op": "changes", "room": room, "since": 0, "version": 5, "changes": [{"id": "ann"}]}));
    }
    let count = |room: &str| one.hub.members(room).len();
    hear(json!({"op": "digests", "from": "", "to": "m:b", "rooms": {"m:a": [5, 1]}}));
    assert_eq!((count("m:a"), count("m:c")), (1, 1), "the first part does not speak of the other room");
    hear(json!({"op": "digests", "from": "m:b", "to": null, "rooms": {}}));
    assert_eq!((count("m:a"), count("m:c")), (1, 0));
    let said = |op: &str| wire.payloads().iter().filter(|text| text.contains(&format!(r#""op":"{op}""#))).count();
    let _bob = one.connect_to("/ws?user=bob");
    eventually("its member is told", || said("changes") == 1);
    hear(json!({"op": "query", "node": "three", "room": "m:x"}));
    let _eve = one.connect_to("/ws?user=eve");
    eventually("the next one is told", || said("changes") == 2);
    assert_eq!(said("list"), 0, "another node was asked");
    hear(json!({"op": "query", "node": "one", "room": "m:x"}));
    eventually("this node was asked", || said("list") == 1);
}

#[test]
fn options_that_cannot_work_are_refused() {
    let build = |options| Hub::builder().rooms("x", options).build().map(|_| ()).map_err(|error| error.field());
    assert_eq!(build(RoomOptions::members().member_linger(Duration::MAX)), Err("member_linger"));
    assert_eq!(build(RoomOptions::history().member_linger(Duration::from_secs(1))), Err("member_linger"));
    assert_eq!(build(RoomOptions::history().with_members().member_linger(Duration::from_secs(1))), Ok(()));
}

fn event(socket: &mut WsClient) -> Value {
    serde_json::from_str(&socket.text()).unwrap()
}

#[test]
fn a_thousand_joins_are_some_tens_of_messages() {
    let options = RoomOptions::members();
    let builder = Events::new().install(Hub::builder().rooms("m:*", options));
    let server = TestServer::new(builder);
    let (mut watcher, client) = server.pair_to("/ws");
    assert_eq!(event(&mut watcher)["type"], "connection.established");
    watcher.send_text(r#"{"type":"members","room":"m:x"}"#);
    assert_eq!(event(&mut watcher)["data"]["code"], "not_subscribed");
    client.set_user("watcher").unwrap();
    watcher.send_text(r#"{"type":"subscribe","room":"m:x"}"#);
    // One connection takes many names, one after the other, which is a join and a leave each.
    let (crowd, other) = server.pair_to("/ws");
    let start = Instant::now();
    other.join("m:x").unwrap();
    for n in 0..1000 {
        other.set_user(&n.to_string()).unwrap();
    }
    let elapsed = start.elapsed();
    let (mut known, mut messages) = (Vec::new(), 0);
    while !known.contains(&"999".to_owned()) {
        let event = event(&mut watcher);
        if event["type"] != "member_change" {
            continue;
        }
        messages += 1;
        let names = |list: &str| {
            let list = event["data"][list].as_array().cloned().unwrap_or_default();
            list.into_iter().map(|member| member["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let (joined, left) = (names("joined"), names("left"));
        known.extend(joined);
        left.iter().for_each(|name| known.retain(|known| known != name));
    }
    known.sort();
    assert_eq!(known, ["999", "watcher"]);
    let most = 3 + u32::try_from(elapsed.as_millis() / 50).unwrap();
    assert!(messages <= most, "{messages} messages in {elapsed:?}");
    watcher.send_text(r#"{"type":"members","room":"m:x"}"#);
    let answer = event(&mut watcher);
    assert_eq!(answer["type"], "members");
    assert_eq!(answer["data"]["members"], json!([{"id": "999"}, {"id": "watcher"}]));
    drop(crowd.stream.shutdown(std::net::Shutdown::Both));
}

/// Changes are of the moment: a history holds what is published, and nothing else.
#[test]
fn changes_are_told_and_not_recorded() {
    let options = RoomOptions::members().with_history();
    let server = TestServer::new(Events::new().install(Hub::builder().rooms("m:*", options)));
    let (mut watcher, client) = server.pair_to("/ws");
    client.set_user("watcher").unwrap();
    assert_eq!(event(&mut watcher)["type"], "connection.established");
    watcher.send_text(r#"{"type":"subscribe","room":"m:x"}"#);
    // Its own change may come first.
    let mut types = [event(&mut watcher), event(&mut watcher)].map(|event| event["type"].as_str().unwrap().to_owned());
    types.sort();
    assert_eq!(types, ["member_change", "subscribed"]);
    let (_other, client) = server.pair_to("/ws");
    client.join("m:x").unwrap();
    let change = event(&mut watcher);
    assert_eq!((&change["type"], change.get("position")), (&json!("member_change"), None));
    let page = server.hub.history("m:x", Range::oldest_first()).unwrap();
    assert_eq!((page.publications.len(), page.position.offset()), (0, 0));
}

#[test]
fn members_are_exact_under_churn() {
    let (builder, told) = hub(RoomOptions::members());
    let server = TestServer::new(builder);
    let pairs: Vec<_> = (0..4).map(|n| server.pair_to(&format!("/ws?user=user-{}", n / 2))).collect();
    thread::scope(|scope| {
        for (n, (_, client)) in pairs.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..200 {
                    let _ = client.leave("m:x");
                    client.set_user(&format!("user-{}", (n + round) % 3)).unwrap();
                    let _ = client.join("m:x");
                    client.set_member(&round).unwrap();
                }
            });
        }
    });
    let mut expected: Vec<String> = pairs.iter().map(|(_, client)| client.user_id().unwrap().to_string()).collect();
    expected.sort();
    expected.dedup();
    assert_eq!(ids(&server.hub), expected);
    eventually("the hook adds up", || *told.lock().unwrap() == listed(&server.hub));
    drop(pairs);
    eventually("nobody is left", || ids(&server.hub).is_empty() && told.lock().unwrap().is_empty());
}

fn member_node(bus: &MemoryBus, id: &str) -> (TestServer, Told, Arc<AtomicBool>) {
    let (adapter, is_cut) = lossy(bus);
    let (builder, told) = hub(RoomOptions::members());
    (node(builder, Cluster::new(adapter).node_id(id).presence(INTERVAL)), told, is_cut)
}

#[test]
fn three_nodes_agree_through_joins_losses_partitions_and_ends() {
    let bus = MemoryBus::new();
    let nodes = ["a", "b", "c"].map(|id| member_node(&bus, id));
    let agree = |what: &str, expected: &[&str]| {
        eventually(what, || {
            let knows = |(server, told, _): &(TestServer, Told, _)| {
                ids(&server.hub) == expected && told.lock().unwrap().keys().eq(expected)
            };
            nodes.iter().all(knows)
        });
    };
    let ann_a = nodes[0].0.connect_to("/ws?user=ann");
    let ann_b = nodes[1].0.connect_to("/ws?user=ann&meta=blue");
    let _bob = nodes[1].0.connect_to("/ws?user=bob");
    agree("all know all", &["ann", "bob"]);
    eventually("metadata crosses", || listed(&nodes[2].0.hub)["ann"].as_deref() == Some("\"blue\""));
    drop(ann_b);
    eventually("it is gone there", || nodes[1].0.hub.client_count() == 1);
    agree("she has another connection", &["ann", "bob"]);
    // What b says is lost; what comes to it is not.
    nodes[1].2.store(true, Ordering::SeqCst);
    let eve = nodes[1].0.connect_to("/ws?user=eve");
    eventually("b is silent, and its members gone", || {
        ids(&nodes[0].0.hub) == ["ann"] && ids(&nodes[2].0.hub) == ["ann"]
    });
    let _zoe = nodes[2].0.connect_to("/ws?user=zoe");
    eventually("b hears", || ids(&nodes[1].0.hub) == ["ann", "bob", "eve", "zoe"]);
    nodes[1].2.store(false, Ordering::SeqCst);
    agree("healed", &["ann", "bob", "eve", "zoe"]);
    // Short losses are healed by the next heartbeat.
    for _ in 0..5 {
        nodes[1].2.store(true, Ordering::SeqCst);
        let short = nodes[1].0.connect_to("/ws?user=short");
        thread::sleep(INTERVAL / 3);
        nodes[1].2.store(false, Ordering::SeqCst);
        agree("she is there", &["ann", "bob", "eve", "short", "zoe"]);
        drop(short);
        agree("she is gone", &["ann", "bob", "eve", "zoe"]);
    }
    drop(eve);
    drop(ann_a);
    agree("all have heard", &["bob", "zoe"]);
    nodes[1].0.hub.shutdown(PATIENCE).unwrap();
    eventually("a farewell takes members along", || ids(&nodes[0].0.hub) == ["zoe"] && ids(&nodes[2].0.hub) == ["zoe"]);
}

#[test]
fn a_long_list_crosses_in_parts_within_the_limit_of_the_bus() {
    let bus = MemoryBus::new();
    let (builder, _told) = hub(RoomOptions::members());
    let small = |id: &str| Cluster::new(bus.adapter()).node_id(id).presence(INTERVAL).max_envelope(20_000);
    let one = node(builder, small("one"));
    let sockets: Vec<_> =
        (0..40).map(|n| one.connect_to(&format!("/ws?user=user-{n}&meta={}", "x".repeat(900)))).collect();
    // It comes later, and has to ask.
    let (builder, told) = hub(RoomOptions::members());
    let two = node(builder, small("two"));
    eventually("it knows them all", || listed(&two.hub) == listed(&one.hub) && two.hub.members("m:x").len() == 40);
    eventually("and is told of them", || *told.lock().unwrap() == listed(&one.hub));
    drop(sockets);
}
