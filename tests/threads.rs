//! After a shutdown no thread of the crate is left. Alone in its process, because it counts threads.
// Not over TLS: it counts threads.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::stream::SseClient;
use common::{PATIENCE, TestServer, WsClient, crate_threads, deep_queue, eventually, get, stall};
use wshub::{Config, Hub, dashboard::Dashboard, server::Listener};

fn has(name: &str) -> bool {
    crate_threads().iter().any(|n| n == name)
}

fn nobody_left(what: &str) {
    // A thread that has been joined or counted out may still be listed for a moment.
    eventually(what, || crate_threads().is_empty());
}

/// Every kind of thread at once; some peers answer the close, some never will.
fn a_busy_server() {
    let config = deep_queue(Config::default()).close_timeout(3 * PATIENCE).write_timeout(3 * PATIENCE);
    let server = TestServer::with(Hub::builder().config(config), |s| s.also_on(Listener::tcp("127.0.0.1:0").unwrap()));
    let (_stalled_socket, stalled) = server.pair();
    stall(&stalled);
    let (_silent_socket, silent) = server.pair();
    silent.close(1000, "").unwrap();
    let mut decent: Vec<_> = (0..10).map(|_| server.connect()).collect();
    let mut half = TcpStream::connect(server.addr).unwrap();
    half.write_all(b"GET /").unwrap();
    assert_eq!(get(server.addr, "/healthz").0, 200);
    for name in ["wshub-accept", "wshub-conn", "wshub-writer", "wshub-closes"] {
        eventually(name, || has(name));
    }
    std::thread::scope(|scope| {
        for socket in &mut decent {
            scope.spawn(|| assert_eq!(socket.expect_close().0, 1001));
        }
        server.handle.shutdown(Duration::from_millis(500)).unwrap();
    });
    nobody_left("no thread after a forced shutdown");
}

/// Writers that were started with their connections end with them.
fn eager_writers() {
    let server = TestServer::new(Hub::builder().config(Config::default().eager_writers(true)));
    let sockets: Vec<_> = (0..5).map(|_| server.connect()).collect();
    eventually("a writer each", || crate_threads().iter().filter(|n| *n == "wshub-writer").count() == 5);
    sockets.into_iter().for_each(WsClient::close);
    eventually("the writers end", || !has("wshub-writer") && !has("wshub-conn"));
    server.handle.shutdown(PATIENCE).unwrap();
    nobody_left("no thread after a shutdown of an idle server");
}

/// The dashboard's thread runs while somebody watches, and comes back with the next who does.
fn a_watched_server() {
    let hub = Hub::new();
    let dashboard = Dashboard::new(&hub).auth(|_| Ok("ann".into()));
    let server = TestServer::of(hub, |server| server.dashboard("/admin", dashboard));
    let _client = server.connect();
    assert!(!has("wshub-dashboard"), "nobody watches");
    for _ in 0..2 {
        let mut first = SseClient::connect(server.addr, "/admin/events", "");
        let second = SseClient::connect(server.addr, "/admin/events", "");
        assert!(first.data().contains("instance") && first.data().contains("uptime_ms"));
        assert_eq!(crate_threads().iter().filter(|n| *n == "wshub-dashboard").count(), 1);
        drop(second);
        assert!(first.data().contains("uptime_ms"));
        drop(first);
        eventually("it ends with the last viewer", || !has("wshub-dashboard"));
    }
    let _watching = SseClient::connect(server.addr, "/admin/events", "");
    server.handle.shutdown(PATIENCE).unwrap();
    nobody_left("no thread after a shutdown of a watched server");
}

/// A hub without a server, which is dropped and never shut down.
fn a_hub_of_its_own() {
    let head = common::upgrade_head("/");
    let hub = Hub::new();
    let peers: Vec<_> = (0..3)
        .map(|_| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            hub.accept(ours, head.clone(), &[]).detach().unwrap();
            theirs
        })
        .collect();
    hub.clients()[0].close(1000, "").unwrap();
    eventually("threads of its own", || has("wshub-conn") && has("wshub-closes"));
    drop(hub);
    drop(peers);
    nobody_left("no thread once the peers are gone");
}

#[test]
fn none_is_left() {
    assert_eq!(crate_threads(), [""; 0]);
    a_busy_server();
    eager_writers();
    a_watched_server();
    a_hub_of_its_own();
}
