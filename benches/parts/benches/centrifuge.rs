//! `cargo bench --bench centrifuge`, in `benches/parts`.
//!
//! From the publishing of one message until the last of a thousand clients has it, over TCP on the loopback: clients of
//! `protocol::centrifuge` that are subscribed to a room with a history, and plain clients that get the same bytes by a
//! broadcast.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and may fail by a panic")]

mod common;
#[path = "fanout/readers.rs"]
mod readers;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use common::{Bench, Way, connect, masked_text};
use readers::Readers;
use wshub::internals::encode;
use wshub::protocol::centrifuge::{Centrifuge, ChannelOptions};
use wshub::{Config, Hub, HubBuilder, Message, MessageKind, RoomOptions, Target};

const CLIENTS: usize = 1_000;
/// Publications before the first that is timed: so that all offsets have as many digits.
const BEFORE: u64 = 100_000;

fn builder() -> HubBuilder {
    // The clients here do not answer pings.
    Hub::builder().config(Config::default().pong_timeout(Duration::ZERO)).rooms("room", RoomOptions::history())
}

fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_nodelay(true).unwrap();
    (near, far)
}

struct Clients {
    hub: Hub,
    readers: Readers,
}

impl Clients {
    fn new(hub: Hub, begin: impl Fn(&mut TcpStream)) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let streams = (0..CLIENTS).map(|_| {
            let mut stream = connect(&hub, pair(&listener));
            begin(&mut stream);
            stream
        });
        Self { readers: Readers::new(streams.collect()), hub }
    }

    fn plain() -> Self {
        Self::new(builder().build().unwrap(), |_| {})
    }

    fn subscribed() -> Self {
        let protocol = Centrifuge::new().ping_interval(Duration::from_secs(86_400));
        let protocol = protocol.channels(|_| Some(ChannelOptions::default().join_leave(false)));
        let hub = protocol.install(builder()).build().unwrap();
        (0..BEFORE).for_each(|_| _ = hub.publish("room", "0"));
        Self::new(hub, |stream| {
            stream.write_all(&masked_text(r#"{"id":1,"connect":{}}"#)).unwrap();
            stream.write_all(&masked_text(r#"{"id":2,"subscribe":{"channel":"room"}}"#)).unwrap();
            let mut read = Vec::new();
            // The last reply ends with the offset, and nothing follows it.
            while !read.ends_with(b"}}") || !read.windows(6).any(|bytes| bytes == b"\"id\":2") {
                let mut chunk = [0; 512];
                let count = stream.read(&mut chunk).unwrap();
                read.extend_from_slice(&chunk[..count]);
            }
        })
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // The close frames.
        self.readers.ignore();
        let _ = self.hub.shutdown(Duration::ZERO);
    }
}

fn main() {
    // Two for each connection.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let mut bench = Bench::new("centrifuge", &["plain"], 20, 5.0);
    let (subscribed, plain) = (Clients::subscribed(), Clients::plain());
    for (size, bytes) in [("128 B", 128), ("1 KiB", 1 << 10), ("16 KiB", 1 << 14)] {
        let data = format!("\"{}\"", "x".repeat(bytes - 2));
        let push = format!(r#"{{"push":{{"channel":"room","pub":{{"data":{data},"offset":{BEFORE}}}}}}}"#);
        let frame = encode(MessageKind::Text, push.as_bytes()).len();
        let (data, push) = (Message::text(data), Message::text(push));
        let publish = || assert_eq!(subscribed.hub.publish("room", &data).delivery.queued, CLIENTS);
        let send = || assert_eq!(plain.hub.send(Target::all(), &push).unwrap().queued, CLIENTS);
        let ways: Vec<Way<'_>> = vec![
            Box::new(|turns| (0..turns).map(|_| subscribed.readers.time(frame, publish)).sum()),
            Box::new(|turns| (0..turns).map(|_| plain.readers.time(frame, send)).sum()),
        ];
        bench.case(format!("{CLIENTS} clients, {size}"), ways);
    }
    bench.finish();
}
