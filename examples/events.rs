//! `cargo run --release --example events -- --addr 127.0.0.1:8080`
//!
//! JSON events at `/ws`. Send `{"type":"authenticate","token":"user:ann"}` to become ann,
//! `{"type":"subscribe","room":"a"}` to join a room (none that begins with `private:`), and
//! `{"type":"publish","room":"a","data":…}` to send an event of type `message` to the members of a room that you are
//! in. `unsubscribe` and `ping` also work.

mod common;

use serde::Deserialize;
use serde_json::value::RawValue;
use wshub::protocol::events::{EventError, Events, Inbound, emit_to_room};
use wshub::{Client, HandlerResult, Hub, Limits, Server};

#[derive(Deserialize)]
struct Login {
    token: String,
}

#[derive(Deserialize)]
struct Publish {
    room: String,
    /// Passed on unchanged.
    data: Box<RawValue>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let hub = Events::new()
        .authenticator(authenticate)
        .may_join(|_, room| !room.starts_with("private:"))
        .on("publish", publish)
        .install(Hub::builder().limits(Limits::default().max_rooms_per_client(1000)))
        .build()?;
    let server = Server::bind(common::option("addr", "127.0.0.1:8080"))?;
    common::serve(server.websocket("/ws", &hub).probes(&hub))
}

/// A real program checks a signature or asks its session store.
fn authenticate(_: &Client, frame: &Inbound<'_>) -> Result<String, EventError> {
    let login: Login = frame.parse()?;
    match login.token.strip_prefix("user:") {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(EventError::new("unauthorized", "this token is not known")),
    }
}

fn publish(client: &Client, frame: &Inbound<'_>) -> HandlerResult {
    let Publish { room, data } = frame.parse()?;
    if !client.in_room(&room) {
        return Err(EventError::new("not_subscribed", "subscribe to the room first").into());
    }
    emit_to_room(client.hub(), "message", data, &room)?;
    Ok(())
}
