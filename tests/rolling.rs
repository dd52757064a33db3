//! A rolling restart behind a real HAProxy with its default checks: two nodes, clients that reconnect at once, and the
//! numbers of the lifecycle guide. No client is refused. Skipped without `haproxy`.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use common::skip::is_missing;
use common::{CLOSE, KEY, PATIENCE, TestServer, WsClient, client_frame, eventually};
use wshub::{Config, Hub};

const CLIENTS: usize = 40;

/// The settings of the guide.
fn node() -> TestServer {
    TestServer::new(Hub::builder().config(Config::default().drain_timeout(Duration::from_secs(2))))
}

/// A running HAProxy; it ends with this.
struct Proxy {
    process: Child,
    addr: SocketAddr,
    folder: std::path::PathBuf,
}

impl Proxy {
    /// `None` where HAProxy is not installed.
    fn start(nodes: &[SocketAddr]) -> Option<Self> {
        if is_missing("haproxy") {
            return None;
        }
        // Free until HAProxy takes it.
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let servers: Vec<String> =
            nodes.iter().enumerate().map(|(at, node)| format!("  server n{at} {node} check")).collect();
        let config = format!(
            "defaults\n  mode http\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n  timeout tunnel 1h\n\
             frontend front\n  bind {addr}\n  default_backend nodes\n\
             backend nodes\n  balance roundrobin\n  option httpchk GET /readyz\n{}\n",
            servers.join("\n")
        );
        let folder = std::env::temp_dir().join(format!("wshub-rolling-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("haproxy.cfg");
        fs::write(&file, config).unwrap();
        // Debian keeps it where an ordinary user does not look.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let mut command = Command::new("haproxy");
        command.env("PATH", path).arg("-f").arg(&file).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let proxy = Self { process, addr, folder };
        eventually("the proxy listens", || TcpStream::connect(addr).is_ok());
        Some(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What all clients have met.
#[derive(Default)]
struct Seen {
    connects: AtomicUsize,
    refusals: AtomicUsize,
    is_over: AtomicBool,
}

/// Stays connected: reads until the server closes, and comes back after 25 to 75 ms.
fn visitor(proxy: SocketAddr, number: usize, seen: &Seen) {
    let mut random = common::Random::new(number as u64);
    while !seen.is_over.load(Ordering::SeqCst) {
        match upgrade(proxy) {
            Some(client) => {
                seen.connects.fetch_add(1, Ordering::SeqCst);
                stay(client, seen);
            }
            None => drop(seen.refusals.fetch_add(1, Ordering::SeqCst)),
        }
        thread::sleep(Duration::from_millis(25 + random.below(50) as u64));
    }
}

/// `None` for any answer but the 101.
fn upgrade(proxy: SocketAddr) -> Option<WsClient> {
    let mut stream = TcpStream::connect(proxy).ok()?;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {proxy}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut client = WsClient::on(stream);
    client.read_head().starts_with("HTTP/1.1 101 ").then_some(client)
}

/// Until the server closes or the test is over.
fn stay(mut client: WsClient, seen: &Seen) {
    client.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while !seen.is_over.load(Ordering::SeqCst) {
        match client.stream.peek(&mut [0]) {
            Ok(1..) => {
                let Some(frame) = client.next_frame() else { return };
                if frame.first == CLOSE {
                    let _ = client.stream.write_all(&client_frame(CLOSE, &frame.payload[..2]));
                    return;
                }
                client.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

#[test]
fn a_rolling_restart_refuses_nobody() {
    let (first, second) = (node(), node());
    let Some(proxy) = Proxy::start(&[first.addr, second.addr]) else { return };
    let seen = Seen::default();
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (addr, seen) = (proxy.addr, &seen);
            scope.spawn(move || visitor(addr, number, seen));
        }
        eventually("all are connected", || seen.connects.load(Ordering::SeqCst) == CLIENTS);
        eventually("both nodes have clients", || first.hub.client_count() > 0 && second.hub.client_count() > 0);
        let begun = Instant::now();
        let drained = first.hub.drain(2 * PATIENCE);
        let left = second.hub.client_count();
        // Whoever still reads must not keep the scope from ending, whatever has gone wrong.
        let is_back = wait_for(|| second.hub.client_count() == CLIENTS);
        seen.is_over.store(true, Ordering::SeqCst);
        assert_eq!(drained, Ok(()), "after {:?}", begun.elapsed());
        assert!(is_back, "{left} clients on the other node");
    });
    assert_eq!(seen.refusals.load(Ordering::SeqCst), 0);
    assert!(seen.connects.load(Ordering::SeqCst) > CLIENTS);
    assert_eq!(first.hub.client_count(), 0);
}

fn wait_for(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    condition()
}
