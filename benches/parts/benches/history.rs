//! `cargo bench --bench history`, in `benches/parts`.
//!
//! What a history costs: from the publishing of one message until the last of so many clients has it, over TCP on the
//! loopback. `publish` records and gives every member one order; `broadcast` is a send to a room that remembers
//! nothing. The two take turns. The clients are read for by one thread with a poller, which takes part in both times
//! alike.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and may fail by a panic")]

mod common;
#[path = "fanout/readers.rs"]
mod readers;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Bench, Way, connect};
use readers::Readers;
use wshub::internals::encode;
use wshub::{Config, Hub, Message, MessageKind, RoomOptions, Target};

const SIZES: [(&str, usize); 2] = [("32 B", 32), ("1 KiB", 1 << 10)];
const CLIENTS: [usize; 3] = [10, 100, 1_000];

struct Members {
    hub: Hub,
    readers: Readers,
}

impl Members {
    fn new(clients: usize, options: RoomOptions) -> Self {
        // The clients here do not answer pings.
        let config = Config::default().pong_timeout(Duration::ZERO);
        let hub = Hub::builder().config(config).rooms("room", options).build().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let streams = (0..clients).map(|_| {
            let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (near, _) = listener.accept().unwrap();
            near.set_nodelay(true).unwrap();
            connect(&hub, (near, far))
        });
        let streams = streams.collect();
        hub.clients().iter().for_each(|client| client.join("room").unwrap());
        Self { readers: Readers::new(streams), hub }
    }

    fn way(&self, payload: &[u8]) -> Way<'_> {
        let message = Message::binary(payload.to_vec());
        let frame = encode(MessageKind::Binary, payload).len();
        let send = move || assert_eq!(self.hub.send(Target::room("room"), &message).unwrap().dropped, 0);
        Box::new(move |turns| (0..turns).map(|_| self.readers.time(frame, &send)).sum())
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        // The close frames.
        self.readers.ignore();
        let _ = self.hub.shutdown(Duration::ZERO);
    }
}

fn main() {
    // Two for each connection.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let mut bench = Bench::new("publish", &["broadcast"], 20, 5.0);
    for clients in CLIENTS {
        let publish = Members::new(clients, RoomOptions::history());
        let plain = Members::new(clients, RoomOptions::default());
        for (size, bytes) in SIZES {
            let payload = vec![0x5a; bytes];
            bench.case(format!("{clients} clients, {size}"), vec![publish.way(&payload), plain.way(&payload)]);
        }
    }
    bench.finish();
    if !common::is_smoke() {
        joins();
    }
}

/// How long a join takes in a room with a history and 9,000 members, while a thread publishes there all the time.
fn joins() {
    const MEMBERS: usize = 9_000;
    const JOINS: usize = 2_000;
    let members = Members::new(MEMBERS, RoomOptions::history());
    // Nothing waits for what comes.
    members.readers.ignore();
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let _far = connect(&members.hub, (near, far));
    let client = members.hub.clients().into_iter().find(|client| !client.in_room("room")).unwrap();
    let is_over = AtomicBool::new(false);
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                members.hub.publish("room", Message::binary(vec![0x5a; 32]));
            }
        });
        let join = |_| {
            let started = Instant::now();
            client.join_from("room", None).unwrap();
            let time = started.elapsed();
            client.leave("room").unwrap();
            std::thread::sleep(Duration::from_millis(1));
            time
        };
        let times = (0..JOINS).map(join).collect();
        is_over.store(true, Ordering::Relaxed);
        times
    });
    times.sort();
    let [median, late, last] = [JOINS / 2, JOINS * 99 / 100, JOINS - 1].map(|at| times[at]);
    println!("joining a room of {MEMBERS} that is published to: median {median:?}, 99 % {late:?}, longest {last:?}");
}
