//! `cargo run --release --example echo -- --addr 127.0.0.1:8080`
//!
//! Returns text and binary messages of up to 64 MiB unchanged, on any path. `--compression` negotiates
//! permessage-deflate with clients that offer it. With the feature `tls`, `--tls CERT KEY` names two PEM files.

mod common;

use std::time::Duration;

use wshub::{Config, Hub, Server};

const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// How long the server waits for a peer that does not read its answers, without reading from it. Then the answer is
/// lost.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let config = Config::default()
        .max_message_size(MAX_MESSAGE)
        .queue_bytes(MAX_MESSAGE + 1024)
        .compression(common::flag("compression"));
    let hub = Hub::builder()
        .config(config)
        .on_message(|client, message| match client.send(message) {
            Err(wshub::SendError::Full(message)) => Ok(client.send_timeout(message, PATIENCE)?),
            result => Ok(result?),
        })
        .build()?;
    let server = Server::on(common::listener("127.0.0.1:8080")?);
    common::serve(server.websocket("*", &hub))
}
