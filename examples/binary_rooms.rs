//! `cargo run --release --example binary_rooms -- --addr 127.0.0.1:8080`
//!
//! Rooms over binary frames, at `/ws?token=NAME`; without a token the answer is 401. The event `echo` returns to its
//! sender; all other events follow `wshub::protocol::binary`.

mod common;

use wshub::protocol::binary::{BinaryRooms, Claims, Conn, Frame};
use wshub::{HandlerResult, Hub, Rejection, RequestHead, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut rooms = BinaryRooms::new(authorize);
    rooms.register_handler("echo", echo)?;
    let hub = rooms.install(Hub::builder()).build()?;
    let server = Server::bind(common::option("addr", "127.0.0.1:8080"))?;
    common::serve(server.websocket("/ws", &hub).probes(&hub))
}

/// Runs before the 101. A real program checks a signature or asks its session store.
fn authorize(head: &RequestHead) -> Result<Claims, Rejection> {
    match head.query_param("token").filter(|token| !token.is_empty()) {
        Some(name) => Ok(Claims::from([("user".into(), name)])),
        None => Err(Rejection::unauthorized()),
    }
}

/// Sends the event back to its sender.
fn echo(conn: &Conn, message: &Frame) -> HandlerResult {
    conn.send_to_client(conn.id(), &message.event, message.payload.clone())?;
    Ok(())
}
