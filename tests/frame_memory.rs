//! Memory follows the received data, not the announced length. Alone in its process, so that its memory is its own.
// Not over TLS: it measures memory.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::io::Write;

use common::{TEXT, TestServer, WsClient};
use wshub::{Config, Hub};

/// A TiB; on 32-bit processors the largest limit.
const HUGE: usize = if usize::BITS > 32 { 1_usize.wrapping_shl(40) } else { isize::MAX.unsigned_abs() };
const MIB: u64 = 1 << 20;

/// Peaks of the process in MiB: resident, and address space.
fn peaks() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    };
    (field("VmHWM:"), field("VmPeak:"))
}

/// Announces a text of that length and sends its first kilobyte.
fn begin(client: &mut WsClient, length: u64) {
    client
        .stream
        .write_all(&[&[TEXT, 0xff], length.to_be_bytes().as_slice(), &[0; 4], &[b'a'; 1024]].concat())
        .unwrap();
}

/// Goes on with a byte that no text may hold: the close frame says that the server has seen all before it.
fn spoil(mut client: WsClient) {
    client.stream.write_all(b"\xff").unwrap();
    assert_eq!(client.expect_close().0, 1007);
}

#[test]
fn announced_lengths_take_no_memory() {
    headers_alone_take_no_memory();
    let server = TestServer::new(Hub::builder().config(Config::default().max_message_size(HUGE)));
    // The first connections make the process's threads, stacks and allocator arenas.
    (0..8).map(|_| server.connect()).collect::<Vec<_>>().into_iter().for_each(spoil_after_a_little);
    let (resident, _) = peaks();
    let mut clients: Vec<WsClient> = (0..8).map(|_| server.connect()).collect();
    for client in &mut clients {
        begin(client, 64 * MIB);
    }
    clients.into_iter().for_each(spoil);
    let grown = peaks().0 - resident;
    // 512 MiB were announced and 8 KiB sent; 32 MiB leave room for stacks, buffers and the allocator.
    assert!(grown < 32, "{grown} MiB more are resident");

    // Reserved but untouched memory is not resident, it shows in the address space: a TiB is more than all arenas.
    let (_, space) = peaks();
    let mut client = server.connect();
    begin(&mut client, HUGE as u64);
    spoil(client);
    let grown = peaks().1 - space;
    assert!(grown < 64 * 1024, "{grown} MiB more of address space");
}

/// Fourteen bytes are a header. A buffer for each of what they announce would be 50 MiB, at 256 KiB.
fn headers_alone_take_no_memory() {
    const MANY: usize = 200;
    let server = TestServer::new(Hub::builder().config(Config::default().max_message_size(HUGE)));
    // Idle ones first: what they take is not counted.
    let mut clients: Vec<WsClient> = (0..MANY).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(WsClient::sync);
    let (resident, _) = peaks();
    for client in &mut clients {
        let header = [&[TEXT, 0xff], (256 * 1024_u64).to_be_bytes().as_slice(), &[0; 4]].concat();
        assert_eq!(header.len(), 14);
        client.stream.write_all(&header).unwrap();
    }
    clients.into_iter().for_each(spoil);
    let grown = peaks().0 - resident;
    assert!(grown < 6, "{grown} MiB more are resident for {MANY} headers");
}

fn spoil_after_a_little(mut client: WsClient) {
    begin(&mut client, 2048);
    spoil(client);
}
