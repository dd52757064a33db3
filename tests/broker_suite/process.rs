//! Nodes as processes of their own: the example `cluster`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::{Bus, INTERVAL};
use crate::common::broker::{Broker, signal};
use crate::common::{PATIENCE, WsClient, eventually, get};

/// A node in a process of its own. It is killed when this is dropped.
pub(crate) struct Node {
    process: Child,
    pub(crate) addr: SocketAddr,
}

impl Node {
    pub(crate) fn start<B: Bus>(broker: &Broker, id: &str, presence_ms: u128) -> Self {
        Self::with::<B>(&broker.url(), id, presence_ms, |_| {})
    }

    pub(crate) fn with<B: Bus>(url: &str, id: &str, presence_ms: u128, change: impl FnOnce(&mut Command)) -> Self {
        let own = std::env::current_exe().unwrap();
        let program = own.parent().and_then(|deps| deps.parent()).unwrap().join("examples/cluster");
        let mut command = Command::new(program);
        command.args(["--addr", "127.0.0.1:0", "--node", id, &format!("--{}", B::OPTION), url]);
        command.args(["--presence", &presence_ms.to_string()]).stdout(Stdio::piped());
        change(&mut command);
        let mut process = command.spawn().expect("it is built: cargo build --all-features --example cluster");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().rsplit(' ').next().and_then(|addr| addr.parse().ok());
        Self { process, addr: addr.unwrap_or_else(|| panic!("it said {line:?}")) }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends it as a service manager does.
    fn terminate(mut self) {
        signal(&self.process, libc::SIGTERM);
        assert!(self.process.wait().unwrap().success());
    }

    pub(crate) fn is_connected(&self) -> bool {
        get(self.addr, "/healthz").1.contains(r#""adapter":"connected""#)
    }

    /// Waits until it says this of the nodes and their clients.
    pub(crate) fn knows(&self, nodes: &[&str], clients: usize) {
        let names: Vec<_> = nodes.iter().map(|id| format!("{id:?}")).collect();
        let names = format!(r#""nodes":[{}]"#, names.join(","));
        eventually(&format!("{names}, {clients} clients"), || {
            let (_, body) = get(self.addr, "/presence");
            body.contains(&names) && body.contains(&format!(r#""clients":{clients}"#))
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn nodes_of_their_own_processes_share_clients<B: Bus>() {
    const MESSAGES: usize = 200;
    let broker = B::broker();
    let ids = ["a", "b", "c"];
    for count in [2, 3] {
        let ids = &ids[..count];
        let nodes: Vec<_> = ids.iter().map(|id| Node::start::<B>(&broker, id, INTERVAL.as_millis())).collect();
        let mut sockets: Vec<_> = nodes.iter().map(|node| WsClient::connect(node.addr, "/ws", "")).collect();
        let mut rooms: Vec<_> = nodes.iter().map(|node| WsClient::connect(node.addr, "/ws?room=r", "")).collect();
        for node in &nodes {
            node.knows(ids, 2 * count);
        }
        for n in 0..MESSAGES {
            for (id, socket) in ids.iter().zip(&mut sockets) {
                socket.send_text(&format!("{id} {n}"));
            }
        }
        for (id, socket) in ids.iter().zip(&mut rooms) {
            socket.send_text(&format!("{id} room"));
        }
        for socket in &mut sockets {
            let texts: Vec<_> = (0..count * MESSAGES).map(|_| socket.text()).collect();
            for id in ids {
                let own = texts.iter().filter_map(|t| t.strip_prefix(id)?.trim().parse::<usize>().ok());
                assert!(own.eq(0..MESSAGES), "from {id}");
            }
        }
        for socket in &mut rooms {
            // Everything to all comes here too.
            let mut texts: Vec<_> = (0..count * (MESSAGES + 1)).map(|_| socket.text()).collect();
            texts.retain(|text| text.ends_with("room"));
            texts.sort();
            assert!(texts.iter().zip(ids).all(|(text, id)| *text == format!("{id} room")), "{texts:?}");
        }
        // One copy each, and no more.
        for socket in sockets.iter_mut().chain(&mut rooms) {
            socket.sync();
        }
    }
}

pub(crate) fn a_killed_node_leaves_the_counts_and_a_farewell_leaves_at_once<B: Bus>() {
    let broker = B::broker();
    let [a, b] = ["a", "b"].map(|id| Node::start::<B>(&broker, id, INTERVAL.as_millis()));
    let _clients = [&a, &b, &b].map(|node| WsClient::connect(node.addr, "/ws", ""));
    a.knows(&["a", "b"], 3);
    b.kill();
    a.knows(&["a"], 1);
    drop(a);

    // Whoever is silent here counts for longer than this test waits.
    let interval = PATIENCE.as_millis();
    let [a, b] = ["a", "b"].map(|id| Node::start::<B>(&broker, id, interval));
    a.knows(&["a", "b"], 0);
    b.knows(&["a", "b"], 0);
    b.terminate();
    a.knows(&["a"], 0);
}

/// With everything logged that can be.
pub(crate) fn transitions_are_logged_and_never_the_password<B: Bus>() {
    let mut broker = Broker::absent(B::KIND);
    broker.set_password(Some("sesame-1"));
    broker.start();
    let path = broker.folder().join("log");
    let file = File::create(&path).unwrap();
    let node = Node::with::<B>(&broker.url(), "a", INTERVAL.as_millis(), |command| {
        command.env("RUST_LOG", "trace").stderr(file);
    });
    let wait = |what: &str| eventually(what, || std::fs::read_to_string(&path).unwrap().contains(what));
    wait("INFO  wshub::cluster] a: connected (was connecting)");
    broker.kill();
    wait("a: disconnected (was connected)");
    wait("WARN  wshub::cluster] a: the subscription failed");
    broker.start();
    wait("a: connected (was disconnected)");
    node.terminate();
    wait("a: closed (was connected)");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("sesame"), "{text}");
}
