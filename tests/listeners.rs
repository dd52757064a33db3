//! Several hubs on one server, several listeners, Unix sockets and their files.
// Not over TLS: the addresses of clients would be those of the bridge.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use common::{KEY, PATIENCE, TestServer, WsClient, eventually, get, split_answer};
use wshub::{Hub, Server, ServerHandle, Target, health::HubState, server::Listener};

/// A path of its own for a socket file, gone at the end.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("wshub-{}-{name}.sock", std::process::id())))
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Asks over a Unix socket; gives status and body.
fn ask(path: &SocketPath, target: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(&path.0).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    split_answer(&answer)
}

fn serve(listener: impl Into<Listener>, hub: &Hub) -> ServerHandle {
    Server::on(listener).websocket("/ws", hub).probes(hub).spawn().unwrap()
}

#[test]
fn hubs_of_one_server_are_apart() {
    let other = Hub::new();
    let server = TestServer::with(Hub::builder(), |s| s.websocket("/other", &other));
    let mut here = server.connect();
    let mut there = WsClient::connect(server.addr, "/other", "");
    assert_eq!((server.hub.client_count(), other.client_count()), (1, 1));
    assert_eq!(server.hub.send(Target::all(), "here").unwrap().queued, 1);
    assert_eq!(other.send(Target::all(), "there").unwrap().queued, 1);
    assert_eq!((here.text(), there.text()), ("here".into(), "there".into()));

    there.close();
    other.shutdown(PATIENCE).unwrap();
    assert!(WsClient::try_connect(server.addr, "/other", "").0.starts_with("HTTP/1.1 503 "));
    here.sync();
    assert_eq!(get(server.addr, "/readyz").0, 200, "the probes are of the hub that they were given");
    let mut more = server.connect();
    more.sync();
    drop((here, more));
    server.handle.shutdown(PATIENCE).unwrap();
    assert_eq!(server.hub.state(), HubState::Stopped);
}

#[test]
fn a_shutdown_closes_the_clients_of_every_hub() {
    let other = Hub::new();
    let server = TestServer::with(Hub::builder(), |s| s.websocket("/other", &other));
    let mut sockets = [server.connect(), WsClient::connect(server.addr, "/other", "")];
    std::thread::scope(|scope| {
        for socket in &mut sockets {
            scope.spawn(|| assert_eq!(socket.expect_close(), (1001, "server shutting down".into())));
        }
        server.handle.shutdown(PATIENCE).unwrap();
    });
    assert_eq!((server.hub.client_count(), other.client_count()), (0, 0));
    assert_eq!((server.hub.state(), other.state()), (HubState::Stopped, HubState::Stopped));
}

#[test]
fn clients_of_all_listeners_share_the_hub() {
    let path = SocketPath::new("shared");
    let own: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let own = TcpListener::bind(own).unwrap();
    let unix = Listener::unix(&path.0).unwrap();
    let server = TestServer::with(Hub::builder(), |s| {
        s.also_on(Listener::tcp("127.0.0.1:0").unwrap()).also_on(own).also_on(unix)
    });
    let addrs = server.handle.local_addrs();
    assert_eq!((addrs.len(), addrs[0]), (3, server.addr));
    let mut sockets: Vec<_> = addrs.iter().map(|addr| WsClient::connect(*addr, "/ws", "")).collect();

    let mut local = UnixStream::connect(&path.0).unwrap();
    local.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        local,
        "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    )
    .unwrap();
    eventually("all four are there", || server.hub.client_count() == 4);
    assert_eq!(server.hub.clients().iter().filter(|c| c.remote_addr().is_none()).count(), 1);
    assert_eq!(server.hub.send(Target::all(), "to all").unwrap().queued, 4);
    for socket in &mut sockets {
        assert_eq!(socket.text(), "to all");
    }
    let mut seen = Vec::new();
    while !seen.ends_with(b"\x81\x06to all") {
        let mut bytes = [0; 512];
        let n = local.read(&mut bytes).unwrap();
        assert!(n > 0, "ended after {seen:?}");
        seen.extend_from_slice(&bytes[..n]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 101 "));
    drop((sockets, local));
    server.handle.shutdown(PATIENCE).unwrap();
    for addr in server.handle.local_addrs() {
        assert!(std::net::TcpStream::connect(addr).is_err(), "{addr} still listens");
    }
}

#[test]
fn the_socket_file_goes_with_the_server() {
    let path = SocketPath::new("goes");
    let handle = serve(Listener::unix(&path.0).unwrap(), &Hub::new());
    assert_eq!(ask(&path, "/healthz").0, 200);
    assert_eq!((handle.local_addr(), handle.local_addrs().len()), (None, 0));
    handle.shutdown(PATIENCE).unwrap();
    assert!(!path.0.exists(), "with the shutdown, not only with the handle");
    drop(handle);

    let unused = Server::bind_unix(&path.0).unwrap();
    assert!(path.0.exists());
    drop(unused);
    assert!(!path.0.exists(), "a server that never ran");
}

#[test]
fn a_new_server_may_take_the_path_before_the_old_handle_is_gone() {
    let path = SocketPath::new("next");
    let old = serve(Listener::unix(&path.0).unwrap(), &Hub::new());
    old.shutdown(PATIENCE).unwrap();
    let new = serve(Listener::unix(&path.0).unwrap(), &Hub::new());
    drop(old);
    assert_eq!(ask(&path, "/healthz").0, 200, "the old handle has not removed the new file");
    new.shutdown(PATIENCE).unwrap();
}

#[test]
fn a_stale_file_is_replaced_and_a_used_path_refused() {
    let path = SocketPath::new("stale");
    drop(UnixListener::bind(&path.0).unwrap());
    assert!(path.0.exists(), "nobody listens, but the file is there");
    let handle = serve(Listener::unix(&path.0).unwrap(), &Hub::new());
    let error = Listener::unix(&path.0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(ask(&path, "/healthz").0, 200, "the attempt has not hurt the one that listens");
    handle.shutdown(PATIENCE).unwrap();

    std::fs::write(&path.0, "precious").unwrap();
    assert!(Listener::unix(&path.0).is_err());
    assert_eq!(std::fs::read_to_string(&path.0).unwrap(), "precious", "no file but a socket is replaced");
}

#[test]
fn a_listener_of_ones_own_keeps_its_file() {
    let path = SocketPath::new("own");
    let handle = serve(UnixListener::bind(&path.0).unwrap(), &Hub::new());
    assert_eq!(ask(&path, "/healthz").0, 200);
    handle.shutdown(PATIENCE).unwrap();
    drop(handle);
    assert!(path.0.exists());
}

#[test]
fn a_peer_that_resets_right_after_its_request_keeps_its_address() {
    let log = common::Log::default();
    let (plain, upgraded, refused) = (log.clone(), log.clone(), log.clone());
    let tell = |addr: Option<SocketAddr>| addr.map_or_else(|| "nobody".to_owned(), |addr| addr.ip().to_string());
    let builder = Hub::builder()
        .on_upgrade(move |head| {
            upgraded.add(tell(head.remote_addr()));
            Ok(wshub::Admission::anonymous())
        })
        .after_connect(move |client| refused.add(tell(client.remote_addr())));
    let server = TestServer::with(builder, |server| {
        server.handle("/plain", move |request| {
            plain.add(tell(request.remote_addr()));
            wshub::Response::new(204)
        })
    });
    for round in 1..=20 {
        for request in
            [common::upgrade_request("GET /ws HTTP/1.1", &[]), "GET /plain HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()]
        {
            let before = log.all().len();
            let mut stream = std::net::TcpStream::connect(server.addr).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            // Closing it is a reset now.
            socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(stream);
            eventually("it is told", || log.all().len() > before);
        }
        assert!(log.all().iter().all(|entry| entry == "127.0.0.1"), "round {round}: {:?}", log.all());
    }
}

#[test]
fn listeners_and_streams_in_non_blocking_mode_are_set_blocking() {
    let (tcp, path) = (TcpListener::bind("127.0.0.1:0").unwrap(), SocketPath::new("blocking"));
    let unix = UnixListener::bind(&path.0).unwrap();
    tcp.set_nonblocking(true).unwrap();
    unix.set_nonblocking(true).unwrap();
    let addr = tcp.local_addr().unwrap();
    let hub = Hub::builder().on_message(|client, message| Ok(client.send(message)?)).build().unwrap();
    let handle = Server::on(tcp).also_on(unix).websocket("/ws", &hub).probes(&hub).spawn().unwrap();
    let mut socket = WsClient::connect(addr, "/ws", "");
    socket.wait_quietly(std::time::Duration::from_millis(20));
    socket.send_text("still here");
    assert_eq!(socket.text(), "still here");
    assert_eq!(ask(&path, "/healthz").0, 200);

    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = std::net::TcpStream::connect(own.local_addr().unwrap()).unwrap();
    let (near, addr) = own.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    let request = common::upgrade_request("GET / HTTP/1.1", &[]);
    let (head, _) = wshub::RequestHead::parse(request.as_bytes()).unwrap().unwrap();
    let client = hub.accept(near, head, b"").remote_addr(addr).detach().unwrap();
    assert_eq!(client.remote_addr(), Some(addr));
    let mut far = WsClient::on(far);
    assert!(far.read_head().starts_with("HTTP/1.1 101 "));
    far.wait_quietly(std::time::Duration::from_millis(20));
    far.send_text("hello");
    assert_eq!(far.text(), "hello");
    drop((socket, far));
    handle.shutdown(PATIENCE).unwrap();
}

#[test]
fn mistakes_of_the_setup_are_errors_that_name_them() {
    let hub = Hub::new();
    let server = || Server::bind("127.0.0.1:0").unwrap().websocket("/ws", &hub);
    for (mistake, named) in [
        (server().websocket("/ws", &hub), "/ws"),
        (server().probes(&hub).probes(&hub), "/healthz"),
        (server().websocket("relative", &hub), "relative"),
        (server().handshake_timeout(std::time::Duration::ZERO), "handshake_timeout"),
        (server().stack_size(1), "stack_size"),
    ] {
        let error = mistake.spawn().unwrap_err();
        assert!(error.kind() == std::io::ErrorKind::InvalidInput && error.to_string().contains(named), "{error}");
    }
    let taken = server();
    let error = Server::bind(taken.local_addr().unwrap()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}
