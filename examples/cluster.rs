//! `cargo run --release --example cluster -- --addr 127.0.0.1:8080 --node a`
//!
//! One node of a cluster. Every message that a client sends to `/ws` goes to every client of every node, the sender
//! included; a client of `/ws?room=R` joins the room R, and its messages go to that room only. `GET /presence` tells what
//! the cluster consists of: `{"node":ID,"nodes":[ID,…],"clients":COUNT,"rooms":{NAME:COUNT,…}}`.
//!
//! `--redis URL` or `--nats URL` names the message bus that joins the nodes. Without either, the node is alone on a bus
//! inside its process.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use wshub::{Admission, Client, Cluster, HandlerResult, Hub, MemoryBus, Message, Response, Server, Target};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut cluster = cluster().presence(Duration::from_secs(5));
    if let Some(id) = common::option_or_none("node") {
        cluster = cluster.node_id(id);
    }
    let hub = Hub::builder()
        .cluster(cluster)
        .on_upgrade(|head| {
            let room = head.query_param("room").filter(|room| !room.is_empty());
            Ok(room.into_iter().fold(Admission::anonymous(), Admission::room))
        })
        .on_message(pass_on)
        .build()?;
    let nodes = hub.clone();
    let server = Server::bind(common::option("addr", "127.0.0.1:8080"))?
        .websocket("/ws", &hub)
        .probes(&hub)
        .handle("/presence", move |request| common::get(request, || presence(&nodes)));
    common::serve(server)
}

/// The bus that the options name.
fn cluster() -> Cluster {
    // Each broker's adapter is one line here: `(Some(url), None) => Cluster::new(RedisAdapter::new(&url)?)`.
    match (common::option_or_none("redis"), common::option_or_none("nats")) {
        (None, None) => Cluster::new(MemoryBus::new().adapter()),
        (Some(_), None) => common::fail("--redis: this build has no adapter for Redis"),
        (None, Some(_)) => common::fail("--nats: this build has no adapter for NATS"),
        (Some(_), Some(_)) => common::fail("--redis or --nats, not both"),
    }
}

fn pass_on(client: &Client, message: &Message) -> HandlerResult {
    match client.rooms().as_slice() {
        [] => client.hub().send(Target::all(), message)?,
        [room, ..] => client.hub().send(Target::room(&**room), message)?,
    };
    Ok(())
}

fn presence(hub: &Hub) -> Response {
    let nodes = hub.cluster_nodes();
    let mut rooms = BTreeMap::<&str, usize>::new();
    for (name, count) in nodes.iter().flat_map(|node| &node.rooms) {
        *rooms.entry(name).or_default() += count;
    }
    let mut ids: Vec<_> = nodes.iter().map(|node| &node.id).collect();
    ids.sort();
    let clients: usize = nodes.iter().map(|node| node.clients).sum();
    let body = serde_json::json!({ "node": hub.node_id(), "nodes": ids, "clients": clients, "rooms": rooms });
    Response::json(200, &body)
}
