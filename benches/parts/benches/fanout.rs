//! `cargo bench --bench fanout`, in `benches/parts`.
//!
//! From the send of one message until the last of so many clients has it, over TCP on the
//! loopback.
//!
//! The clients are read for by one thread with a poller, which takes part in the times of all ways alike. The floor is
//! one thread that writes the frame to one socket after the other, blocking, without a queue or a lock: any client
//! could hold it up. The peer is tokio-tungstenite on two worker threads, with a pair of tasks and a bounded queue for
//! each client, filled by the same thread that calls `Hub::send` in ours. The three take turns.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and may fail by a panic")]

mod common;
#[path = "fanout/peer.rs"]
mod peer;
#[path = "fanout/readers.rs"]
mod readers;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use common::{Bench, Way, connect};
use peer::Peer;
use readers::Readers;
use tokio_tungstenite::tungstenite;
use wshub::internals::encode;
use wshub::{Config, Hub, Message, MessageKind, Target};

const SIZES: [(&str, usize); 3] = [("32 B", 32), ("1 KiB", 1 << 10), ("16 KiB", 1 << 14)];
const CLIENTS: [usize; 3] = [10, 100, 1_000];

/// Both ends of so many connections.
fn pairs(count: usize) -> impl Iterator<Item = (TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    (0..count).map(move |_| {
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nodelay(true).unwrap();
        (near, far)
    })
}

struct Ours {
    hub: Hub,
    readers: Readers,
}

impl Ours {
    fn new(clients: usize) -> Self {
        // The clients here do not answer pings.
        let hub = Hub::builder().config(Config::default().pong_timeout(Duration::ZERO)).build().unwrap();
        let streams = pairs(clients).map(|pair| connect(&hub, pair)).collect();
        Self { readers: Readers::new(streams), hub }
    }

    fn way(&self, payload: &[u8]) -> Way<'_> {
        let message = Message::binary(payload.to_vec());
        let frame = encode(MessageKind::Binary, payload).len();
        let send = move || assert_eq!(self.hub.send(Target::all(), &message).unwrap().dropped, 0);
        Box::new(move |turns| (0..turns).map(|_| self.readers.time(frame, &send)).sum())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // The close frames.
        self.readers.ignore();
        let _ = self.hub.shutdown(Duration::ZERO);
    }
}

struct Floor {
    streams: Vec<TcpStream>,
    readers: Readers,
}

impl Floor {
    fn new(clients: usize) -> Self {
        let (near, far) = pairs(clients).unzip();
        Self { streams: near, readers: Readers::new(far) }
    }

    fn way(&self, payload: &[u8]) -> Way<'_> {
        let payload = payload.to_vec();
        Box::new(move |turns| {
            let send = || {
                let frame = encode(MessageKind::Binary, &payload);
                self.streams.iter().for_each(|mut stream| stream.write_all(&frame).unwrap());
            };
            let frame = encode(MessageKind::Binary, &payload).len();
            (0..turns).map(|_| self.readers.time(frame, send)).sum()
        })
    }
}

struct Tokio {
    peer: Peer,
    readers: Readers,
}

impl Tokio {
    fn new(clients: usize) -> Self {
        let (near, far) = pairs(clients).unzip();
        Self { peer: Peer::new(near), readers: Readers::new(far) }
    }

    fn way(&self, payload: &[u8]) -> Way<'_> {
        let message = tungstenite::Message::binary(payload.to_vec());
        let frame = encode(MessageKind::Binary, payload).len();
        Box::new(move |turns| (0..turns).map(|_| self.readers.time(frame, || self.peer.send(&message))).sum())
    }
}

fn main() {
    // Two for each connection.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let mut bench = Bench::new("fanout", &["floor", "tokio"], 20, 5.0);
    for clients in CLIENTS {
        let (ours, floor, tokio) = (Ours::new(clients), Floor::new(clients), Tokio::new(clients));
        for (size, bytes) in SIZES {
            let payload = vec![0x5a; bytes];
            let ways = vec![ours.way(&payload), floor.way(&payload), tokio.way(&payload)];
            bench.case(format!("{clients} clients, {size}"), ways);
        }
    }
    bench.finish();
}
