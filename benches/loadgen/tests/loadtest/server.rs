//! A server to be measured.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use wshub::{Hub, HubBuilder, Server, ServerHandle};

/// No test waits longer than this for anything that is going to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a free port of the loopback, with its hub at `/ws`. It is shut down when dropped.
pub(crate) struct TestServer {
    pub(crate) hub: Hub,
    pub(crate) addr: SocketAddr,
    handle: ServerHandle,
}

impl TestServer {
    pub(crate) fn new(builder: HubBuilder) -> Self {
        let hub = builder.build().unwrap();
        let handle = Server::bind("127.0.0.1:0").unwrap().websocket("/ws", &hub).spawn().unwrap();
        Self { hub, addr: handle.local_addr().unwrap(), handle }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.handle.shutdown(Duration::from_secs(5));
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
