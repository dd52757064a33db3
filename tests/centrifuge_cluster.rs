//! The client protocol of Centrifugo on several nodes: presence, joins and leaves, the HTTP API, unrecorded
//! publications. On a bus in memory, and on a real Redis.
#![cfg(feature = "centrifuge")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod centrifuge_suite;
mod common;

use std::time::Duration;

use centrifuge_suite::*;
#[cfg(feature = "redis")]
use common::broker::{Broker, Kind};
use common::{TestServer, WsClient, bus, eventually};
use serde_json::{Value, json};
use wshub::cluster::{Cluster, MemoryBus};
use wshub::protocol::centrifuge::{Api, Centrifuge, ConnectionToken};
use wshub::{Hub, RoomOptions};

const KEY: &str = "X-API-Key: key\r\n";

fn node(cluster: Cluster) -> TestServer {
    let hub = Hub::builder()
        .rooms("*", RoomOptions::history().with_connections())
        .rooms("plain*", RoomOptions::default().with_connections())
        .map_config(|config| config.close_timeout(Duration::from_millis(50)))
        .cluster(cluster.presence(Duration::from_secs(1)));
    // The token is the user, with info.
    let protocol = Centrifuge::new().connection_tokens(|user| {
        let info = json!({"name": user.to_uppercase(), "long": "x".repeat(if user == "long" { 2000 } else { 0 })});
        Ok(ConnectionToken::user(user).info(info.to_string()))
    });
    let hub = protocol.install(hub).build().unwrap();
    let api = Api::new(&hub).key("key");
    let server = TestServer::of(hub, |server| api.mount(server, "/api"));
    bus::connected(&server.hub);
    server
}

fn api(server: &TestServer, method: &str, body: &Value) -> Value {
    let body = body.to_string();
    let length = body.len();
    let request = format!("POST /api/{method} HTTP/1.1\r\nHost: x\r\n{KEY}Content-Length: {length}\r\n\r\n{body}");
    let answer: Value =
        serde_json::from_str(&common::split_answer(&common::exchange(server.addr, request.as_bytes())).1).unwrap();
    assert!(answer["result"].is_object(), "{answer}");
    answer["result"].clone()
}

/// A subscriber that is told of joins.
fn subscriber(server: &TestServer, user: &str, channel: &str) -> (WsClient, String) {
    let (mut socket, reply) = connect(server, &json!({ "token": user }));
    let reply = (subscribe(&mut socket, &json!({"channel": channel, "join_leave": true})), reply);
    assert!(reply.0["subscribe"].is_object(), "{reply:?}");
    (socket, reply.1["connect"]["client"].as_str().unwrap().to_owned())
}

/// The next objects. Joins are reported in batches: Bob may still be told of Ann, who came before him.
fn later(socket: &mut WsClient) -> Vec<Value> {
    next(socket).into_iter().filter(|object| object["push"]["join"]["info"]["user"] != "ann").collect()
}

/// The next object of these.
fn one_later(socket: &mut WsClient) -> Value {
    loop {
        let mut objects = later(socket);
        assert!(objects.len() < 2, "{objects:?}");
        if let Some(object) = objects.pop() {
            return object;
        }
    }
}

fn ask_later(socket: &mut WsClient, command: &Value) -> Value {
    send(socket, command);
    one_later(socket)
}

/// The next pushes of this kind, each with the user: so many of them, in alphabetical order.
fn users_of(socket: &mut WsClient, kind: &str, count: usize) -> Vec<String> {
    let mut users = Vec::new();
    while users.len() < count {
        for push in later(socket) {
            assert!(push["push"][kind].is_object(), "{push}");
            users.push(push["push"][kind]["info"]["user"].as_str().unwrap().to_owned());
        }
    }
    users.sort();
    users
}

fn presence_and_the_api_cover_all_nodes(cluster: impl Fn() -> Cluster) {
    let nodes = [node(cluster()), node(cluster())];
    eventually("the nodes know each other", || nodes.iter().all(|node| node.hub.cluster_nodes().len() == 2));
    for channel in ["news", "plain"] {
        let (mut ann, ann_id) = subscriber(&nodes[0], "ann", channel);
        assert_eq!(one(&mut ann)["push"]["join"]["info"]["user"], "ann", "of its own join it is told, too");
        let (mut bob, bob_id) = subscriber(&nodes[1], "bob", channel);
        assert_eq!(users_of(&mut ann, "join", 1), ["bob"]);
        assert_eq!(users_of(&mut bob, "join", 1), ["bob"]);
        let expected = json!({
            &ann_id: {"client": &ann_id, "user": "ann", "conn_info": {"name": "ANN", "long": ""}},
            &bob_id: {"client": &bob_id, "user": "bob", "conn_info": {"name": "BOB", "long": ""}},
        });
        for (node, socket) in nodes.iter().zip([&mut ann, &mut bob]) {
            let reply = ask_later(socket, &json!({"id": 3, "presence": {"channel": channel}}));
            assert_eq!(reply["presence"]["presence"], expected, "{channel}: {reply}");
            let reply = ask_later(socket, &json!({"id": 4, "presence_stats": {"channel": channel}}));
            assert_eq!(reply["presence_stats"], json!({"num_clients": 2, "num_users": 2}));
            assert_eq!(api(node, "presence", &json!({ "channel": channel }))["presence"], expected);
            eventually("heartbeats have told of both", || {
                api(node, "channels", &json!({}))["channels"][channel]["num_clients"] == 2
            });
        }
        // Info that is too long for a member stays here.
        let (long, id) = subscriber(&nodes[1], "long", channel);
        assert_eq!([users_of(&mut ann, "join", 1), users_of(&mut bob, "join", 1)], [["long"], ["long"]]);
        let reply = api(&nodes[0], "presence", &json!({ "channel": channel }));
        assert_eq!(reply["presence"][&id], json!({"client": &id, "user": "long"}));
        drop(long);
        assert_eq!([users_of(&mut ann, "leave", 1), users_of(&mut bob, "leave", 1)], [["long"], ["long"]]);
        // Published on one node, it reaches the subscribers of both.
        api(&nodes[0], "publish", &json!({"channel": channel, "data": {"n": 1}}));
        for socket in [&mut ann, &mut bob] {
            assert_eq!(one_later(socket)["push"]["pub"]["data"], json!({"n": 1}), "{channel}");
        }
        Centrifuge::publish(&nodes[1].hub, channel, "2").unwrap();
        for socket in [&mut ann, &mut bob] {
            assert_eq!(one_later(socket)["push"]["pub"]["data"], 2, "{channel}");
        }
        // The API ends a subscription and a connection, whichever node is asked.
        api(&nodes[0], "unsubscribe", &json!({"user": "bob", "channel": channel}));
        assert_eq!(one_later(&mut bob)["push"]["unsubscribe"]["code"], 2000);
        assert_eq!(users_of(&mut ann, "leave", 1), ["bob"]);
        api(&nodes[0], "subscribe", &json!({"user": "bob", "channel": channel, "data": {"why": "x"}}));
        assert_eq!(one_later(&mut bob)["push"]["subscribe"]["data"], json!({"why": "x"}));
        assert_eq!(users_of(&mut ann, "join", 1), ["bob"]);
        assert_eq!(users_of(&mut bob, "join", 1), ["bob"]);
        let (mut kept, kept_id) = connect(&nodes[1], &json!({ "token": "bob" }));
        let kept_id = kept_id["connect"]["client"].clone().take();
        let kept_id = kept_id.as_str().unwrap();
        let disconnect = json!({"code": 4500, "reason": "enough"});
        let wish = json!({"user": "bob", "disconnect": disconnect, "whitelist": [kept_id]});
        api(&nodes[0], "disconnect", &wish);
        assert_eq!(bob.expect_close(), (4500, "enough".into()));
        assert_eq!(ask(&mut kept, &json!({"id": 9, "ping": {}}))["id"], 9, "it is on the list");
        assert_eq!(users_of(&mut ann, "leave", 1), ["bob"]);
    }
    let known = api(&nodes[0], "info", &json!({}))["nodes"].clone();
    let ids: Vec<&str> = known.as_array().unwrap().iter().map(|node| node["uid"].as_str().unwrap()).collect();
    assert_eq!(ids, [nodes[0].hub.node_id(), nodes[1].hub.node_id()]);
    // A node that ends takes its subscribers along.
    let (mut ann, id) = subscriber(&nodes[0], "ann", "end");
    assert_eq!(one(&mut ann)["push"]["join"]["info"]["user"], "ann");
    let _far = [subscriber(&nodes[1], "bob", "end"), subscriber(&nodes[1], "bob", "end")];
    assert_eq!(users_of(&mut ann, "join", 2), ["bob", "bob"]);
    let reply = ask(&mut ann, &json!({"id": 4, "presence_stats": {"channel": "end"}}));
    assert_eq!(reply["presence_stats"], json!({"num_clients": 3, "num_users": 2}));
    let [first, second] = nodes;
    second.hub.shutdown(Duration::ZERO).unwrap();
    assert_eq!(users_of(&mut ann, "leave", 2), ["bob", "bob"]);
    let reply = api(&first, "presence", &json!({"channel": "end"}));
    assert_eq!(reply["presence"].as_object().unwrap().keys().collect::<Vec<_>>(), [&id]);
}

#[test]
fn presence_and_the_api_cover_all_nodes_of_a_bus_in_memory() {
    let bus = MemoryBus::new();
    presence_and_the_api_cover_all_nodes(|| Cluster::new(bus.adapter()));
}

#[cfg(feature = "redis")]
#[test]
fn presence_and_the_api_cover_all_nodes_of_a_redis() {
    if Kind::Redis.is_missing() {
        return;
    }
    let broker = Broker::redis();
    presence_and_the_api_cover_all_nodes(|| Cluster::new(wshub::cluster::RedisAdapter::new(&broker.url()).unwrap()));
}

/// Who is refused leaves no trace in its connection, however often it tries.
#[test]
fn refused_subscribers_are_no_members() {
    let hub = Hub::builder()
        .rooms("*", RoomOptions::history().with_connections())
        .before_room_join(|_, room| if room == "shut" { Err("no".into()) } else { Ok(()) });
    let server = TestServer::new(protocol().install(hub));
    let mut socket = connected(&server);
    assert_eq!(code(&subscribe(&mut socket, &json!({"channel": "shut"}))), 103);
    assert_eq!(server.hub.members("shut"), []);
    let client = server.hub.clients().remove(0);
    client.join("open").unwrap();
    assert_eq!(one(&mut socket)["push"]["subscribe"]["recoverable"], true);
    assert_eq!(server.hub.members("open").len(), 1);
}

/// Each join and each leave is told once, however it comes about. Acts of different threads have no order, so each is
/// waited for.
#[test]
fn others_are_told_once_of_each_join_and_leave() {
    let server = serve(protocol());
    let (mut ann, _) = connect(&server, &json!({"token": "ann"}));
    subscribe(&mut ann, &json!({"channel": "a", "join_leave": true}));
    assert_eq!(told(&mut ann), "join ann");
    let (mut bob, _) = connect(&server, &json!({"token": "bob"}));
    let client = server.hub.user_client("bob").unwrap();
    subscribe(&mut bob, &json!({"channel": "a"}));
    assert_eq!(told(&mut ann), "join bob");
    ask(&mut bob, &json!({"id": 3, "unsubscribe": {"channel": "a"}}));
    assert_eq!(told(&mut ann), "leave bob");
    subscribe(&mut bob, &json!({"channel": "a"}));
    assert_eq!(told(&mut ann), "join bob");
    client.leave("a").unwrap();
    assert_eq!(one(&mut bob)["push"]["unsubscribe"]["code"], 2000);
    assert_eq!(told(&mut ann), "leave bob");
    client.join("a").unwrap();
    assert_eq!(one(&mut bob)["push"]["subscribe"]["recoverable"], true);
    assert_eq!(told(&mut ann), "join bob");
    bob.close();
    assert_eq!(told(&mut ann), "leave bob");
    assert_eq!(ask(&mut ann, &json!({"id": 9, "ping": {}}))["id"], 9, "and of nothing else");
}

/// Each node counts its own users; one that does not answer counts none.
#[test]
fn info_tells_the_users_of_all_nodes() {
    let bus = MemoryBus::new();
    let [a, b] = ["a", "b"].map(|id| node(Cluster::new(bus.adapter()).node_id(id)));
    let _clients = [(&a, "ann"), (&a, "ann"), (&b, "ann"), (&b, "bob"), (&b, "eve")]
        .map(|(server, user)| subscriber(server, user, "info"));
    eventually("heartbeats tell of the clients", || [&a, &b].iter().all(|node| node.hub.global_client_count() == 5));
    for asked in [&a, &b] {
        let nodes = api(asked, "info", &json!({}))["nodes"].as_array().unwrap().clone();
        let mut users: Vec<_> = nodes.iter().map(|node| (node["uid"].as_str().unwrap(), &node["num_users"])).collect();
        users.sort_unstable_by_key(|(id, _)| *id);
        assert_eq!(users, [("a", &json!(1)), ("b", &json!(3))]);
        assert_eq!(nodes[0]["uid"], asked.hub.node_id(), "the asked one comes first");
        assert!(nodes.iter().all(|node| node["uptime"].is_u64()));
    }
    // A node without the protocol does not answer.
    let plain = bus::node(Hub::builder(), Cluster::new(bus.adapter()).node_id("c").presence(Duration::from_secs(1)));
    eventually("it is known", || a.hub.cluster_nodes().len() == 3);
    let nodes = api(&a, "info", &json!({}))["nodes"].as_array().unwrap().clone();
    let users: Vec<_> = nodes.iter().map(|node| node["num_users"].as_u64().unwrap()).collect();
    assert_eq!(users, [1, 3, 0]);
    drop(plain);
}

/// The next join or leave, and whose it is.
fn told(socket: &mut WsClient) -> String {
    let push = one(socket)["push"].clone();
    let kind = if push["join"].is_object() { "join" } else { "leave" };
    format!("{kind} {}", push[kind]["info"]["user"].as_str().unwrap())
}
