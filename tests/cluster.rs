//! Several hubs as one: what crosses nodes and what does not.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{TestServer, WsClient, eventually};
use wshub::{AdapterState, Cluster, Hub, HubBuilder, MemoryBus, Target};

fn node(bus: &MemoryBus, id: &str, builder: HubBuilder) -> TestServer {
    let server = TestServer::new(builder.cluster(Cluster::new(bus.adapter()).node_id(id)));
    eventually("connected", || server.hub.adapter_state() == Some(AdapterState::Connected));
    server
}

#[test]
fn a_broadcast_reaches_every_node_once() {
    let bus = MemoryBus::new();
    let nodes = ["a", "b", "c"].map(|id| node(&bus, id, Hub::builder()));
    let mut clients: Vec<_> = nodes.iter().map(|n| WsClient::connect(n.addr, "/ws", "")).collect();
    let delivery = nodes[0].hub.send(Target::all(), "x").unwrap();
    assert_eq!((delivery.queued, delivery.published), (1, true));
    nodes[0].hub.send(Target::all(), "end").unwrap();
    for client in &mut clients {
        assert_eq!(client.texts_until_end(), ["x"]);
    }
}
