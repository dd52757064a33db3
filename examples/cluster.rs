//! `cargo run --release --example cluster -- --addr 127.0.0.1:8080 --node a`
//!
//! One node of a cluster. Every message that a client sends to `/ws` goes to every client of every node, including the
//! sender. A client of `/ws?room=R` joins the room R, and its messages go only to that room; one of `/ws?user=U` is a
//! connection of the user U. `GET /presence` describes the cluster:
//! `{"node":ID,"nodes":[ID,…],"clients":COUNT,"rooms":{NAME:COUNT,…}}`.
//!
//! `--redis URL` or `--nats URL` selects the message bus that joins the nodes. Without either, the node is alone on a
//! bus inside its process. They need the features `redis` and `nats`: `cargo run --features redis …`. `--presence
//! MILLISECONDS` sets the heartbeat interval; default 5000. `--admin-password P` serves the dashboard at `/admin`, user
//! `admin`.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use wshub::{
    Admission, Client, ConfigError, HandlerResult, Hub, Message, Response, Server, Target,
    cluster::{Cluster, MemoryBus},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let interval = common::option("presence", "5000").parse().map(Duration::from_millis)?;
    let mut cluster = cluster()?.presence(interval);
    if let Some(id) = common::option_or_none("node") {
        cluster = cluster.node_id(id);
    }
    let hub = Hub::builder()
        .cluster(cluster)
        .on_upgrade(|head| {
            let param = |name| head.query_param(name).filter(|value| !value.is_empty());
            let admission = param("user").map_or_else(Admission::anonymous, Admission::user);
            Ok(param("room").into_iter().fold(admission, Admission::room))
        })
        .on_message(pass_on)
        .build()?;
    let nodes = hub.clone();
    let server = Server::bind(common::option("addr", "127.0.0.1:8080"))?
        .websocket("/ws", &hub)
        .probes(&hub)
        .handle("/presence", move |request| common::get(request, || presence(&nodes)));
    common::serve(with_dashboard(server, &hub))
}

#[cfg(feature = "dashboard")]
fn with_dashboard(server: Server, hub: &Hub) -> Server {
    use wshub::dashboard::Dashboard;
    let Some(password) = common::option_or_none("admin-password") else { return server };
    server.dashboard("/admin", Dashboard::new(hub).title("cluster").auth(Dashboard::basic("admin", &password)))
}

#[cfg(not(feature = "dashboard"))]
fn with_dashboard(server: Server, _: &Hub) -> Server {
    server
}

/// The bus that the options select.
fn cluster() -> Result<Cluster, ConfigError> {
    match (common::option_or_none("redis"), common::option_or_none("nats")) {
        (None, None) => Ok(Cluster::new(MemoryBus::new().adapter())),
        (Some(url), None) => redis(&url),
        (None, Some(url)) => nats(&url),
        (Some(_), Some(_)) => common::fail("--redis or --nats, not both"),
    }
}

#[cfg(feature = "redis")]
fn redis(url: &str) -> Result<Cluster, ConfigError> {
    wshub::cluster::RedisAdapter::new(url).map(Cluster::new)
}

#[cfg(not(feature = "redis"))]
fn redis(_: &str) -> Result<Cluster, ConfigError> {
    common::fail("--redis: this build has no adapter for Redis; it needs the feature `redis`")
}

#[cfg(feature = "nats")]
fn nats(url: &str) -> Result<Cluster, ConfigError> {
    wshub::cluster::NatsAdapter::new(url).map(Cluster::new)
}

#[cfg(not(feature = "nats"))]
fn nats(_: &str) -> Result<Cluster, ConfigError> {
    common::fail("--nats: this build has no adapter for NATS; it needs the feature `nats`")
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
