//! Members, calls and commands over a broker, which may go away meanwhile.

use serde_json::{Value, json};
use wshub::router::Router;
use wshub::{Admission, Hub, Limits, Message, RoomOptions, Target};

use super::{Bus, INTERVAL, settings};
use crate::common::broker::Broker;
use crate::common::bus::connected;
use crate::common::{PATIENCE, TestServer, WsClient, eventually};

fn node<B: Bus>(broker: &Broker, id: &str) -> TestServer {
    let hub = Router::json_field("type").install(Hub::builder().rooms("m:*", RoomOptions::members()));
    let hub = hub.on_upgrade(|head| {
        let user = head.query_param("user").unwrap_or_default();
        Ok(Admission::user(user).member(&"metadata").unwrap().room("m:x"))
    });
    let node = TestServer::new(hub.cluster(settings::<B>(broker, id).presence(INTERVAL)));
    connected(&node.hub);
    node
}

/// A room whose list, and whose call, need many messages of this broker: both reach a node that comes later.
pub(crate) fn a_large_room_crosses<B: Bus>(broker: &Broker, members: usize, metadata: usize) {
    let node = |id: &str| {
        let hub = Router::json_field("type").install(Hub::builder().rooms("m:*", RoomOptions::members()));
        let hub =
            hub.limits(Limits::default().max_connections(0).max_connections_per_address(0)).on_upgrade(move |head| {
                let user = head.query_param("user").unwrap_or_default();
                Ok(Admission::user(user).member(&"x".repeat(metadata)).unwrap().room("m:x"))
            });
        let node = TestServer::new(hub.cluster(settings::<B>(broker, id).presence(INTERVAL * 10)));
        connected(&node.hub);
        node
    };
    let one = node("one");
    let mut sockets: Vec<_> = (0..members).map(|n| one.connect_to(&format!("/ws?user=user-{n}"))).collect();
    let two = node("two");
    let list = || two.hub.members("m:x");
    eventually("it knows them all", || list().len() == members && list() == one.hub.members("m:x"));
    eventually("it knows its node", || two.hub.cluster_nodes().len() == 2);
    let answers = two.hub.call(Target::room("m:x"), "m", "1", PATIENCE * 10);
    sockets.iter_mut().for_each(|socket| answer(socket, &json!(1)));
    let answered: Vec<_> = answers.map(|(_, answer)| answer).collect();
    assert_eq!((answered.len(), answered.iter().filter(|answer| answer.is_ok()).count()), (members, members));
}

fn agree(nodes: &[TestServer], expected: &[&str]) {
    eventually(&format!("{expected:?}"), || {
        nodes.iter().all(|node| node.hub.members("m:x").iter().map(|member| &*member.id).eq(expected.iter().copied()))
    });
}

fn answer(socket: &mut WsClient, data: &Value) {
    let call: Value = serde_json::from_str(&socket.text()).unwrap();
    socket.send_text(&json!({"type": "reply", "id": call["id"], "data": data}).to_string());
}

pub(crate) fn members_calls_and_commands_cross_and_survive_an_outage<B: Bus>() {
    let mut broker = B::broker();
    let nodes = ["a", "b", "c"].map(|id| node::<B>(&broker, id));
    let (mut ann, client) = nodes[1].pair_to("/ws?user=ann");
    let _bob = nodes[2].connect_to("/ws?user=bob");
    agree(&nodes, &["ann", "bob"]);
    let mut answers = nodes[0].hub.call(client.id(), "m", "1", PATIENCE * 10);
    answer(&mut ann, &json!(7));
    assert_eq!(answers.next(), Some((client.id(), Ok(Message::raw_json("7")))));
    assert_eq!(answers.next(), None);
    broker.kill();
    let eve = nodes[0].connect_to("/ws?user=eve");
    broker.start();
    agree(&nodes, &["ann", "bob", "eve"]);
    broker.pause();
    drop(eve);
    let _zoe = nodes[0].connect_to("/ws?user=zoe");
    broker.resume();
    agree(&nodes, &["ann", "bob", "zoe"]);
    // At most once: what is sent while a node connects anew may be lost.
    eventually("the command arrives", || {
        nodes[0].hub.close_user("ann", 4500, "banned").unwrap();
        client.is_closed()
    });
    drop(ann);
    agree(&nodes, &["bob", "zoe"]);
}
