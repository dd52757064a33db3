//! `cargo run --release --example centrifuge -- --addr 127.0.0.1:8080`
//!
//! A server for Centrifuge client SDKs: WebSocket at `/connection/websocket`, the HTTP API below `/api/` (`--api-key
//! KEY`, by default `test-api-key`), and a page at `/`. Connection and subscription tokens are JWTs, HS256 with the
//! secret `secret`: `sub` is the user, `exp` the expiry, `channel` the channel of a subscription token.
//!
//! Clients may subscribe to every channel, except `private:…` without a token, and subscribers may publish. The rpc
//! methods are `echo`, `sum` of `{"a","b"}` and `fail`. Channels have a history of 100 publications and five minutes,
//! `smallhistory:…` of two, `nohistory:…` none. With `--redis URL` several nodes share the histories, and
//! presence and the HTTP API cover all of them: `cargo run --features redis …`.

#[path = "../common/mod.rs"]
mod common;
mod tokens;

use std::time::Duration;

use serde::Deserialize;
use wshub::protocol::centrifuge::{Access, Api, Centrifuge, ChannelOptions, CommandError};
use wshub::{ConfigError, Hub, HubBuilder, Message, Response, RoomOptions, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let protocol = Centrifuge::new()
        .connection_tokens(tokens::connection)
        .subscription_tokens(tokens::subscription)
        .channels(|channel| {
            let options = ChannelOptions::default().publish(Access::Subscribers);
            Some(options.needs_token(channel.starts_with("private:")))
        })
        .rpc("echo", |_, data| Ok(data.clone()))
        .rpc("sum", |_, data| sum(data))
        .rpc("fail", |_, _| Err(CommandError::new(400, "refused")));
    let hub = protocol.install(shared(Hub::builder())?).build()?;
    let server = Server::on(common::listener("127.0.0.1:8080")?).websocket("/connection/websocket", &hub).probes(&hub);
    let server = server.handle("/", |request| common::get(request, || Response::html(include_str!("page.html"))));
    common::serve(Api::new(&hub).key(common::option("api-key", "test-api-key")).mount(server, "/api"))
}

/// Sets what rooms remember. With `--redis URL`, nodes share their histories in Redis and form a cluster.
fn shared(hub: HubBuilder) -> Result<HubBuilder, ConfigError> {
    let history = || RoomOptions::history().messages(100).age(Duration::from_secs(300));
    let url = common::option_or_none("redis");
    let share = |options: RoomOptions| if url.is_some() { options.shared() } else { options };
    // Presence covers the connections of all nodes.
    let hub = hub
        .rooms("*", share(history()).with_connections())
        .rooms("smallhistory:*", share(history().messages(2)).with_connections())
        .rooms("nohistory:*", RoomOptions::default().with_connections());
    match &url {
        None => Ok(hub),
        #[cfg(feature = "redis")]
        Some(url) => {
            use wshub::cluster::{Cluster, RedisAdapter, RedisStore};
            let cluster = Cluster::new(RedisAdapter::new(url)?).presence(Duration::from_secs(1));
            Ok(hub.cluster(cluster).history_store(RedisStore::new(url)?))
        }
        #[cfg(not(feature = "redis"))]
        Some(_) => common::fail("--redis needs the feature `redis`: cargo run --features redis …"),
    }
}

#[derive(Deserialize)]
struct Terms {
    a: f64,
    b: f64,
}

fn sum(data: &Message) -> Result<Message, CommandError> {
    let Terms { a, b } = data.parse_json().map_err(|_| CommandError::BAD_REQUEST)?;
    let sum = a + b;
    // Whole numbers stay integers.
    #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    let sum =
        if sum.fract() == 0.0 && sum.abs() < 1e15 { serde_json::json!(sum as i64) } else { serde_json::json!(sum) };
    Message::json(&serde_json::json!({ "sum": sum })).map_err(|_| CommandError::INTERNAL)
}
