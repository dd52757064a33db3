//! `cargo run --release --example broadcast -- --addr 127.0.0.1:8080`
//!
//! Every message that a client sends to `/ws` goes to every client, including the sender. `--compression` negotiates
//! permessage-deflate with clients that offer it. `--fanout-threads N` sets the number of helper threads. `--tls CERT
//! KEY` (two PEM files; `--features tls`) serves `wss`.

mod common;

use wshub::{Config, Hub, Server, Target};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut config = Config::default().compression(common::flag("compression"));
    config.fanout_threads = common::option("fanout-threads", &config.fanout_threads.to_string()).parse()?;
    let hub = Hub::builder()
        .config(config)
        .on_message(|client, message| {
            client.hub().send(Target::all(), message)?;
            Ok(())
        })
        .build()?;
    let server = Server::on(common::listener("127.0.0.1:8080")?);
    common::serve(server.websocket("/ws", &hub).probes(&hub))
}
