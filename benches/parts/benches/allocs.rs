//! `cargo bench --bench allocs`, in `benches/parts`.
//!
//! Allocations of one operation, of all threads, and the bytes that they ask for.
//!
//! Counted by the allocator over many turns, so there is nothing to time and no statistics: a count that is not the
//! same in every run comes from tables that grow now and then. The floor is what cannot be left out:
//!
//! - broadcast: the frame that the recipients share, whatever their number: header and payload;
//! - echo: the message that the handler gets, as its own bytes, and the frame of the answer;
//! - join and leave: nothing, where the room has other members;
//! - connect and disconnect: the client itself. The request's head has been read before; without a thread. With one,
//!   and two sockets: the same, and what the thread and the peer's side of this bench need.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and may fail by a panic")]

mod common;
#[path = "../../../tests/common/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use common::{connect, head, is_smoke, masked_text};
use counting::all_allocations;
use wshub::internals::SinkClient;
use wshub::{Admission, Hub, Message, Target};

const MESSAGE: &str = "a reading of 21.5 degrees, noon.";
const HEADER: usize = 2;
/// Turns before those that are counted.
const WARM_UP: usize = 20;

/// What one turn allocates, over so many, and what it must.
struct Row {
    case: String,
    turns: usize,
    ours: (usize, usize),
    floor: (usize, usize),
}

/// Turns that are counted.
fn turns() -> usize {
    if is_smoke() { 1 } else { 1000 }
}

/// Runs a case; the first turns make what is made once.
fn count(case: impl Into<String>, floor: (usize, usize), mut turn: impl FnMut()) -> Row {
    let turns = turns();
    (0..WARM_UP).for_each(|_| turn());
    let before = all_allocations();
    (0..turns).for_each(|_| turn());
    let after = all_allocations();
    Row { case: case.into(), turns, ours: (after.0 - before.0, after.1 - before.1), floor }
}

fn member(hub: &Hub) -> SinkClient {
    SinkClient::connect(hub, head(), Admission::anonymous().room("room")).unwrap()
}

fn broadcast(clients: usize) -> Row {
    let hub = Hub::new();
    let _clients: Vec<_> = (0..clients).map(|_| member(&hub)).collect();
    let message = Message::text(MESSAGE);
    count(format!("broadcast to {clients}"), (1, HEADER + MESSAGE.len()), || {
        assert_eq!(hub.send(Target::all(), &message).unwrap().queued, clients);
    })
}

fn echo() -> Row {
    let hub = Hub::builder().on_message(|client, message| Ok(client.send(message)?)).build().unwrap();
    let mut socket = connect(&hub, UnixStream::pair().unwrap());
    let frame = masked_text(MESSAGE);
    count("echo", (2, HEADER + 2 * MESSAGE.len()), || {
        socket.write_all(&frame).unwrap();
        let mut answer = [0; HEADER + MESSAGE.len()];
        socket.read_exact(&mut answer).unwrap();
        assert!(answer.ends_with(MESSAGE.as_bytes()));
    })
}

fn join_and_leave() -> Row {
    let hub = Hub::new();
    let _others = [member(&hub), member(&hub)];
    let guest = SinkClient::connect(&hub, head(), Admission::anonymous()).unwrap();
    count("join and leave", (0, 0), || {
        guest.client().join("room").unwrap();
        guest.client().leave("room").unwrap();
    })
}

fn connects() -> [Row; 2] {
    let hub = Hub::new();
    let _others = [member(&hub), member(&hub)];
    let mut heads: Vec<_> = (0..WARM_UP + turns()).map(|_| head()).collect();
    let ours = count("connect and disconnect", (1, 0), || {
        drop(SinkClient::connect(&hub, heads.pop().unwrap(), Admission::anonymous()).unwrap());
    });
    let with_thread = count("the same, with a thread and sockets", (1, 0), || {
        let mut socket = connect(&hub, UnixStream::pair().unwrap());
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        // Until the hub's side has ended too.
        while !matches!(socket.read(&mut [0; 64]), Ok(0) | Err(_)) {}
    });
    [ours, with_thread]
}

fn main() {
    let sizes = if is_smoke() { &[10, 100][..] } else { &[10, 100, 1_000, 10_000] };
    let mut rows: Vec<Row> = sizes.iter().map(|clients| broadcast(*clients)).collect();
    rows.extend([echo(), join_and_leave()]);
    rows.extend(connects());
    let of_broadcasts = rows[0].ours;
    let grows = |row: &Row| row.case.starts_with("broadcast") && row.ours != of_broadcasts;
    assert!(!rows.iter().any(grows), "a broadcast allocates the more the more clients there are");
    print_table(&rows);
}

#[allow(clippy::cast_precision_loss, reason = "small numbers")]
fn print_table(rows: &[Row]) {
    println!("| case | allocations | floor | ratio | bytes | floor | ratio |\n|{}", " --- |".repeat(7));
    for Row { case, turns, ours, floor } in rows {
        print!("| {case} |");
        for (ours, floor) in [(ours.0, floor.0), (ours.1, floor.1)] {
            let ours = ours as f64 / *turns as f64;
            let ratio = if floor == 0 { "–".into() } else { format!("{:.2}", ours / floor as f64) };
            print!(" {ours:.1} | {floor} | {ratio} |");
        }
        println!();
    }
}
