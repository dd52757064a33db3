//! Calls and commands across nodes, over a bus in memory: each ends in an answer, a refusal or a timeout, exactly once.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::bus::{Mood, Wire, connected, lossy, node};
use common::{PATIENCE, TestServer, WsClient, eventually};
use serde_json::{Value, json};
use wshub::calls::CallError;
use wshub::cluster::{Cluster, MemoryBus};
use wshub::router::Router;
use wshub::{Admission, CloseError, Hub, HubBuilder, Message, Target};

fn hub() -> HubBuilder {
    let router = Router::json_field("type").on_not_found(|_, _| Ok(()));
    router.install(Hub::builder()).on_upgrade(|head| {
        let admission = head.query_param("user").map_or_else(Admission::anonymous, Admission::user);
        Ok(head.query_param("rooms").unwrap_or_default().split_terminator(',').fold(admission, Admission::room))
    })
}

fn nodes(bus: &MemoryBus) -> [TestServer; 3] {
    let nodes = ["a", "b", "c"]
        .map(|id| node(hub(), Cluster::new(bus.adapter()).node_id(id).presence(Duration::from_millis(500))));
    for node in &nodes {
        eventually("all know all", || node.hub.cluster_nodes().len() == 3);
    }
    nodes
}

fn asked(socket: &mut WsClient) -> (Value, Value) {
    let call: Value = serde_json::from_str(&socket.text()).unwrap();
    assert_eq!(call["type"], "call");
    (call["id"].clone(), call["data"].clone())
}

fn reply(socket: &mut WsClient, data: &Value) {
    let (id, _) = asked(socket);
    socket.send_text(&json!({"type": "reply", "id": id, "data": data}).to_string());
}

#[test]
fn one_client_anywhere_is_called() {
    let bus = MemoryBus::new();
    let nodes = nodes(&bus);
    let (mut socket, client) = nodes[2].pair_to("/ws");
    let mut answers = nodes[0].hub.call(client.id(), "m", r#"{"n":1}"#, PATIENCE * 10);
    let (id, data) = asked(&mut socket);
    assert_eq!(data, json!({"n": 1}));
    socket.send_text(&json!({"type": "error", "id": id, "data": {"code": "busy", "message": "m"}}).to_string());
    let refused = CallError::Refused { code: "busy".into(), message: "m".into() };
    assert_eq!(answers.next(), Some((client.id(), Err(refused))));
    assert_eq!(answers.next(), None, "at once");
    // Nobody of that id: all nodes say so, long before the time is over.
    let start = Instant::now();
    drop(socket);
    eventually("it is gone", || nodes[2].hub.client_count() == 0);
    assert_eq!(nodes[0].hub.call(client.id(), "m", "1", PATIENCE * 10).count(), 0);
    assert!(start.elapsed() < PATIENCE * 5);
}

#[test]
fn a_room_on_all_nodes_is_called_and_each_answers_once() {
    let bus = MemoryBus::new();
    let nodes = nodes(&bus);
    let mut pairs: Vec<_> = nodes.iter().map(|node| node.pair_to("/ws?rooms=sensors")).collect();
    let mut answers = nodes[1].hub.call(Target::room("sensors"), "read", "null", PATIENCE * 10);
    for (n, (socket, _)) in pairs.iter_mut().enumerate() {
        reply(socket, &json!(n));
        let (id, result) = answers.next().unwrap();
        assert_eq!(result.unwrap().as_text(), Some(&n.to_string()[..]));
        assert_eq!(pairs_id(&nodes, n), id);
    }
    assert_eq!(answers.next(), None);
    // A silent one is a timeout, here or there, and one that goes is closed.
    let answers = nodes[1].hub.call(Target::room("sensors"), "read", "null", Duration::from_secs(3));
    reply(&mut pairs[0].0, &json!("yes"));
    asked(&mut pairs[1].0);
    asked(&mut pairs[2].0);
    let mut results: Vec<_> = answers.map(|(_, result)| result).collect();
    results.sort_by_key(Result::is_err);
    assert_eq!(results, [Ok(Message::raw_json("\"yes\"")), Err(CallError::Timeout), Err(CallError::Timeout)]);
    eventually("nothing waits for ever", || pairs.iter().all(|(_, client)| client.pending_calls() == 0));
    let answers = nodes[1].hub.call(Target::room("sensors").except(pairs[1].1.id()), "read", "null", PATIENCE * 10);
    let (mut socket, _) = pairs.pop().unwrap();
    asked(&mut socket);
    reply(&mut pairs[0].0, &json!(1));
    drop(socket);
    let mut results: Vec<_> = answers.map(|(_, result)| result.map(|_| ())).collect();
    results.sort_by_key(Result::is_err);
    assert_eq!(results, [Ok(()), Err(CallError::Closed)]);
}

fn pairs_id(nodes: &[TestServer; 3], n: usize) -> wshub::ClientId {
    nodes[n].hub.room_clients("sensors")[0].id()
}

#[test]
fn one_of_a_room_is_found_on_another_node() {
    let bus = MemoryBus::new();
    let nodes = nodes(&bus);
    let (mut worker, client) = nodes[2].pair_to("/ws?rooms=workers");
    eventually("it is known", || nodes[0].hub.global_room_size("workers") == 1);
    let mut answers = nodes[0].hub.call(Target::one_of("workers"), "work", "1", PATIENCE * 10);
    reply(&mut worker, &json!("done"));
    assert_eq!(answers.next(), Some((client.id(), Ok(Message::raw_json("\"done\"")))));
    assert_eq!(answers.next(), None);
    // One of its own comes first.
    let (mut own, own_client) = nodes[0].pair_to("/ws?rooms=workers");
    for _ in 0..3 {
        let mut answers = nodes[0].hub.call(Target::one_of("workers"), "work", "1", PATIENCE * 10);
        reply(&mut own, &json!("done"));
        assert_eq!(answers.next().unwrap().0, own_client.id());
    }
}

/// Of several nodes with members, one is asked.
#[test]
fn one_of_a_room_is_asked_on_one_of_several_nodes() {
    let bus = MemoryBus::new();
    let nodes = nodes(&bus);
    let mut workers = [1, 2].map(|n: usize| nodes[n].pair_to("/ws?rooms=workers"));
    eventually("both are known", || nodes[0].hub.global_room_size("workers") == 2);
    let mut answers = nodes[0].hub.call(Target::one_of("workers"), "work", "1", PATIENCE * 10);
    eventually("one is asked", || workers.iter().any(|(_, client)| client.pending_calls() == 1));
    let asked = workers.iter().position(|(_, client)| client.pending_calls() == 1).unwrap();
    reply(&mut workers[asked].0, &json!("done"));
    assert_eq!(answers.next(), Some((workers[asked].1.id(), Ok(Message::raw_json("\"done\"")))));
    assert_eq!(answers.next(), None);
    workers.iter_mut().for_each(|(socket, _)| socket.sync());
}

#[test]
fn what_the_bus_loses_is_a_timeout_and_what_it_repeats_is_heard_once() {
    let wire = Wire::new(Mood::Works);
    let one = node(hub(), Cluster::new(wire.adapter()).node_id("one"));
    connected(&one.hub);
    let id = "246173a9-650a-4d6f-9630-e7533aed5d60".parse::<wshub::ClientId>().unwrap();
    let mut answers = one.hub.call(id, "m", "1", Duration::from_millis(200));
    eventually("it is published", || !wire.published().is_empty());
    let call = wire.published().remove(0);
    assert!(call.starts_with(r#"{"node_id":"one","type":"client","client_id":"wshub.control","msg_type":1"#), "{call}");
    assert_eq!(answers.next(), Some((id, Err(CallError::Timeout))), "it may have been asked");
    assert_eq!(answers.next(), None);
    let mut answers = one.hub.call(id, "m", Message::binary("x"), PATIENCE);
    assert_eq!(answers.next(), Some((id, Err(CallError::Unsupported))), "only text crosses nodes");
    assert_eq!(answers.next(), None);
    let mut answers = one.hub.call(id, "m", "1", PATIENCE * 10);
    let control = |control: Value| {
        let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, control.to_string());
        format!(r#"{{"node_id":"two","type":"client","client_id":"wshub.control","msg_type":1,"data":"{data}"}}"#)
    };
    let answer =
        control(json!({"op": "answer", "node": "one", "call": 2, "client": id.to_string(), "result": {"ok": "7"}}));
    (0..3).for_each(|_| wire.receive(&answer));
    assert_eq!(answers.next(), Some((id, Ok(Message::raw_json("7")))));
    assert_eq!(answers.next(), None);
}

/// What a node has asked is told in parts within the limit, and is complete only when all have come. What comes twice
/// counts once.
#[test]
fn lists_of_asked_clients_come_in_parts_and_repetitions_count_once() {
    let wire = Wire::new(Mood::Works);
    let presence = Duration::from_secs(3600);
    let one = node(hub(), Cluster::new(wire.adapter()).node_id("one").presence(presence).max_envelope(1000));
    let payload = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let beat = payload(r#"{"node_id":"two","client_count":3,"rooms":{},"ts":0}"#);
    wire.receive(format!(r#"{{"node_id":"two","type":"presence","msg_type":0,"data":"{beat}"}}"#));
    eventually("it is known", || one.hub.cluster_nodes().len() == 2);
    let control = |control: Value| {
        let data = payload(&control.to_string());
        format!(r#"{{"node_id":"two","type":"client","client_id":"wshub.control","msg_type":1,"data":"{data}"}}"#)
    };
    let ids: Vec<wshub::ClientId> =
        (1..4).map(|n| format!("00000000-0000-4000-8000-00000000000{n}").parse().unwrap()).collect();
    let part = |index: usize, ids: &[wshub::ClientId]| {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        control(json!({"op": "asked", "node": "one", "call": 1, "index": index, "of": 2, "clients": ids}))
    };
    let answer = |n: usize| {
        let id = ids[n].to_string();
        control(json!({"op": "answer", "node": "one", "call": 1, "client": id, "result": {"ok": n.to_string()}}))
    };
    let mut answers = one.hub.call(Target::room("r"), "m", "1", PATIENCE * 10);
    let expected = |n: usize| Some((ids[n], Ok(Message::raw_json(n.to_string()))));
    // Before its part has come, and twice.
    (0..2).for_each(|_| wire.receive(answer(0)));
    assert_eq!(answers.next(), expected(0));
    (0..2).for_each(|_| wire.receive(part(0, &ids[..2])));
    (0..2).for_each(|_| wire.receive(answer(1)));
    assert_eq!(answers.next(), expected(1));
    // Late repetitions of the list do not make answered clients missing again.
    wire.receive(part(0, &ids[..2]));
    wire.receive(part(1, &ids[2..]));
    wire.receive(answer(2));
    assert_eq!(answers.next(), expected(2), "the second part was awaited");
    assert_eq!(answers.next(), None, "at once");
    // This node divides its own lists: 60 clients do not fit into 1,000 bytes.
    let sockets: Vec<_> = (0..60).map(|_| one.pair_to("/ws?rooms=r")).collect();
    let call = json!({"op": "call", "call": 7, "to": [{"room": "r"}], "except": [], "method": "m", "data": "1",
        "timeout_ms": 60_000});
    wire.receive(control(call));
    let asked = || -> Vec<Value> {
        let payloads = wire.payloads().into_iter().map(|text| serde_json::from_str::<Value>(&text).unwrap());
        payloads.filter(|control| control["op"] == "asked").collect()
    };
    let of = |control: &Value| usize::try_from(control["of"].as_u64().unwrap()).unwrap();
    eventually("all parts are out", || asked().first().is_some_and(|first| asked().len() == of(first)));
    let (parts, published) = (asked(), wire.published());
    assert!((4..8).contains(&parts.len()) && parts.iter().enumerate().all(|(n, part)| part["index"] == n));
    assert!(published.iter().all(|envelope| envelope.len() <= 1000));
    let mut told: Vec<&str> =
        parts.iter().flat_map(|part| part["clients"].as_array().unwrap()).map(|id| id.as_str().unwrap()).collect();
    told.sort_unstable();
    let mut expected: Vec<String> = sockets.iter().map(|(_, client)| client.id().to_string()).collect();
    expected.sort_unstable();
    assert_eq!(told, expected);
}

/// What does not fit into a message of the bus is told at once, on both ways.
#[test]
fn calls_and_answers_that_are_too_large_for_the_bus_are_told() {
    let bus = MemoryBus::new();
    let nodes = ["a", "b"].map(|id| {
        let cluster = Cluster::new(bus.adapter()).node_id(id).presence(Duration::from_millis(500));
        node(hub(), cluster.max_envelope(4000))
    });
    eventually("they know each other", || nodes.iter().all(|node| node.hub.cluster_nodes().len() == 2));
    let (mut socket, client) = nodes[1].pair_to("/ws?rooms=r");
    let large = format!("\"{}\"", "x".repeat(3000));
    let mut answers = nodes[0].hub.call(client.id(), "m", &large[..], PATIENCE * 10);
    assert_eq!(answers.next(), Some((client.id(), Err(CallError::Unsupported))));
    assert_eq!(answers.next(), None);
    assert_eq!(nodes[0].hub.call(Target::room("r"), "m", &large[..], PATIENCE * 10).next(), None, "nobody was asked");
    let mut answers = nodes[0].hub.call(client.id(), "m", "1", PATIENCE * 10);
    let (id, data) = asked(&mut socket);
    assert_eq!(data, 1, "the large ones were not delivered");
    socket.send_text(&format!(r#"{{"type":"reply","id":{id},"data":{large}}}"#));
    let (from, result) = answers.next().unwrap();
    assert_eq!(from, client.id());
    assert!(matches!(&result, Err(CallError::Refused { code, .. }) if code == "too_large"), "{result:?}");
    assert_eq!(answers.next(), None);
    socket.sync();
}

/// A node's answers, or its questions, are lost: who is asked is asked once, and who has asked learns of a timeout.
#[test]
fn a_partition_ends_calls_in_a_timeout_and_none_is_made_twice() {
    let bus = MemoryBus::new();
    let cut = ["a", "b"].map(|id| {
        let (adapter, is_cut) = lossy(&bus);
        (node(hub(), Cluster::new(adapter).node_id(id).presence(Duration::from_millis(500))), is_cut)
    });
    let [(a, a_cut), (b, b_cut)] = &cut;
    eventually("they know each other", || cut.iter().all(|(node, _)| node.hub.cluster_nodes().len() == 2));
    let (mut socket, client) = b.pair_to("/ws?rooms=r");
    let id = client.id();
    let timeout = Duration::from_millis(300);
    let timed_out = || Some((id, Err(CallError::Timeout)));
    // The answer is lost; the client was asked.
    b_cut.store(true, Ordering::SeqCst);
    let mut answers = a.hub.call(id, "m", "1", timeout);
    let (call, _) = asked(&mut socket);
    assert_eq!((answers.next(), answers.next()), (timed_out(), None));
    eventually("it is given up there, too", || client.pending_calls() == 0);
    b_cut.store(false, Ordering::SeqCst);
    // Late, and to nobody.
    socket.send_text(&json!({"type": "reply", "id": call, "data": 1}).to_string());
    // The question is lost.
    a_cut.store(true, Ordering::SeqCst);
    let mut answers = a.hub.call(id, "m", "2", timeout);
    assert_eq!((answers.next(), answers.next()), (timed_out(), None));
    a_cut.store(false, Ordering::SeqCst);
    // Healed: the next message of the client is the next call, so none was repeated.
    eventually("they know each other again", || cut.iter().all(|(node, _)| node.hub.cluster_nodes().len() == 2));
    let mut answers = a.hub.call(Target::room("r"), "m", "3", PATIENCE * 10);
    let (call, data) = asked(&mut socket);
    assert_eq!(data, 3);
    socket.send_text(&json!({"type": "reply", "id": call, "data": "done"}).to_string());
    assert_eq!(answers.next(), Some((id, Ok(Message::raw_json("\"done\"")))));
    assert_eq!(answers.next(), None);
    socket.sync();
}

#[test]
fn commands_reach_all_nodes() {
    let bus = MemoryBus::new();
    let nodes = nodes(&bus);
    let mut anns: Vec<_> = nodes.iter().map(|node| node.pair_to("/ws?user=ann")).collect();
    let mut bob = nodes[1].connect_to("/ws?user=bob&rooms=lobby");
    let done = nodes[0].hub.join_user("ann", "lobby");
    assert_eq!((done.here, done.published), (1, true));
    eventually("all are in", || anns.iter().all(|(_, client)| client.in_room("lobby")));
    nodes[2].hub.leave_user("ann", "lobby");
    eventually("all are out", || anns.iter().all(|(_, client)| !client.in_room("lobby")));
    assert!(matches!(nodes[0].hub.close_user("ann", 1005, ""), Err(CloseError::InvalidCode(1005))));
    assert_eq!(nodes[0].hub.close_user("ann", 4500, "banned").unwrap().here, 1);
    for (socket, _) in &mut anns {
        assert_eq!(socket.frame().close(), (4500, "banned"));
    }
    nodes[0].hub.close_room("lobby", 4000, "over").unwrap();
    assert_eq!(bob.frame().close().0, 4000);
    let alone = TestServer::new(hub());
    let (mut socket, _) = alone.pair_to("/ws?user=ann");
    let done = alone.hub.close_user("ann", 4000, "").unwrap();
    assert_eq!((done.here, done.published), (1, false));
    assert_eq!(socket.frame().close().0, 4000);
}
