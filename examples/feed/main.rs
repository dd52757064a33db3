//! `cargo run --release --example feed -- --addr 127.0.0.1:8080`
//!
//! A feed of JSON events: the same over WebSocket at `/ws` and as Server-Sent Events at `/events`. Publish with
//! `curl -d '{"type":"price","payload":{"cents":120}}' http://127.0.0.1:8080/publish`, listen with `curl -N
//! http://127.0.0.1:8080/events`, or open the page. `--allow-origin https://example.org` lets pages of that origin
//! listen, too.

#[path = "../common/mod.rs"]
mod common;

use serde::Deserialize;
use serde_json::value::RawValue;
use wshub::protocol::feed::Feed;
use wshub::protocol::sse;
use wshub::{Client, Hub, OriginPolicy, Response, RoomOptions, Server, server::Request};

const PAGE: &str = include_str!("page.html");

#[derive(Deserialize)]
struct Publish {
    #[serde(rename = "type")]
    kind: String,
    /// Passed on unchanged.
    payload: Box<RawValue>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut builder = Hub::builder().before_disconnect(log_end);
    if let Some(origin) = common::option_or_none("allow-origin") {
        builder = builder.origins(OriginPolicy::allow([origin]));
    }
    let hub = Feed::builder().history(RoomOptions::history()).install(builder).build()?;
    let feed = Feed::of(&hub).ok_or("no feed on this hub")?;
    let server = Server::bind(common::option("addr", "127.0.0.1:8080"))?
        .websocket("/ws", feed.hub())
        .event_stream("/events", feed.hub())
        .probes(feed.hub())
        .handle("/", |request| common::get(request, || Response::html(PAGE)));
    common::serve(server.handle("/publish", move |request| publish(&feed, request)))
}

/// A real program authenticates the publisher here. A body over 512 KiB has already been answered with 413.
fn publish(feed: &Feed, request: &Request) -> Response {
    if request.head().method() != "POST" {
        return Response::text(405, "method not allowed\n").header("Allow", "POST");
    }
    let event: Publish = match request.json() {
        Ok(event) => event,
        Err(error) => return Response::json(400, &serde_json::json!({ "error": error.to_string() })),
    };
    match feed.broadcast_json(&event.kind, event.payload) {
        Ok(done) => Response::json(200, &serde_json::json!({ "queued": done.queued, "dropped": done.dropped })),
        Err(error) => Response::json(500, &serde_json::json!({ "error": error.to_string() })),
    }
}

fn log_end(client: &Client) {
    let kind = if client.is_event_stream() { "event stream" } else { "WebSocket" };
    let since = sse::last_event_id(client.request()).unwrap_or("the beginning".into());
    log::info!("{kind} {} ends; it asked for events since {since}", client.id());
}
