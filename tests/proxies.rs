//! Behind real proxies, with the configurations of the guide. If a proxy is not installed, its test is skipped with a
//! line.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::proxy::{Proxy, guide};
use common::skip::is_missing;
use common::stream::SseClient;
use common::{KEY, PATIENCE, WsClient, eventually, status};
use socket2::{Domain, Socket, Type};
use wshub::server::{ForwardedHeader, Listener};
use wshub::{Admission, Hub, Limits, Server, ServerHandle, Target};

/// A hub that tells each client its address, and a server that trusts the loopback.
struct Node {
    hub: Hub,
    handle: ServerHandle,
}

impl Node {
    fn new() -> Self {
        Self::on(Listener::tcp("127.0.0.1:0").unwrap(), &["127.0.0.1"])
    }

    fn on(listener: Listener, trusted: &[&str]) -> Self {
        Self::with(listener, |server| server.trusted_proxies(trusted))
    }

    fn with(listener: Listener, change: impl FnOnce(Server) -> Server) -> Self {
        let hub = Hub::builder()
            .limits(Limits::default().max_connections_per_address(1))
            .on_upgrade(|head| Ok(Admission::anonymous().metadata("addr", head.remote_addr())))
            .on_message(|client, _| {
                let addr = client.remote_addr();
                assert_eq!(
                    client.metadata::<Option<SocketAddr>>("addr").as_deref(),
                    Some(&addr),
                    "the hook's is the same"
                );
                Ok(client.send(addr.map_or_else(|| "unix".to_owned(), |addr| addr.ip().to_string()))?)
            })
            .build()
            .unwrap();
        let server = Server::on(listener).websocket("/ws", &hub).event_stream("/events", &hub).probes(&hub);
        let server = server.handle("/who", |request| {
            let addr = request.remote_addr();
            wshub::Response::text(200, addr.map_or_else(|| "unix".to_owned(), |addr| addr.ip().to_string()))
        });
        Self { hub, handle: change(server).spawn().unwrap() }
    }

    fn addr(&self) -> SocketAddr {
        self.handle.local_addr().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.handle.shutdown(Duration::from_secs(5));
    }
}

/// A connection from another address of the loopback.
fn connect_from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source: Ipv4Addr = source.parse().unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// Asks for an upgrade from an address, with further headers; gives the status.
fn upgrade_from(source: &str, to: SocketAddr, headers: &str) -> (u16, WsClient) {
    let mut stream = connect_from(source, to);
    write!(
        stream,
        "GET /ws HTTP/1.1\r\nHost: {to}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
    .unwrap();
    let mut client = WsClient::on(stream);
    (status(&client.read_head()), client)
}

/// What the hub takes for the client's address.
fn address_of(client: &mut WsClient) -> String {
    client.send_text("who am I?");
    client.text()
}

/// Everything that depends on whose address it is, through a proxy.
fn addresses_are_the_clients(node: &Node, proxy: SocketAddr) {
    let (code, mut first) = upgrade_from("127.0.0.5", proxy, "X-Forwarded-For: 6.6.6.6\r\n");
    assert_eq!((code, address_of(&mut first)), (101, "127.0.0.5".to_owned()), "not what it says itself");
    assert_eq!(upgrade_from("127.0.0.5", proxy, "").0, 429, "the limit counts the client's address");
    let (code, mut second) = upgrade_from("127.0.0.6", proxy, "X-Forwarded-For: 127.0.0.5\r\n");
    assert_eq!((code, address_of(&mut second)), (101, "127.0.0.6".to_owned()));
    first.close();
    second.close();
    eventually("both are gone", || node.hub.client_count() == 0);
}

/// Events come at once, whole and in order; the end is an end.
fn events_come_at_once(node: &Node, proxy: SocketAddr, headers: &str) {
    let mut stream = SseClient::connect(proxy, "/events", headers);
    assert!(!stream.head.to_lowercase().contains("content-encoding"), "{}", stream.head);
    eventually("it is there", || node.hub.client_count() == 1);
    for n in 0..20 {
        node.hub.send(Target::all(), format!("{n}")).unwrap();
        // The next is sent when this one is here: nothing waits for more to come.
        assert_eq!(stream.data(), n.to_string());
    }
    node.hub.clients()[0].close(1000, "").unwrap();
    assert_eq!(stream.expect_close(), "closed 1000 ");
    drop(stream);
    eventually("it is gone", || node.hub.client_count() == 0);
}

/// The guide's `HAProxy` in front of these nodes.
fn haproxy(nodes: &[SocketAddr], more: &str) -> String {
    let mut config = guide("haproxy");
    for (name, port, addr) in [("a", 8080, nodes.first()), ("b", 8081, nodes.get(1))] {
        let line = format!("    server {name} 127.0.0.1:{port}\n");
        assert!(config.contains(&line), "{config}");
        config =
            config.replace(&line, &addr.map_or_else(String::new, |addr| format!("    server {name} {addr}{more}\n")));
    }
    config
}

/// The guide's nginx in front of this node: an address, or a path after `unix:`.
fn nginx(node: &str) -> String {
    let config = guide("nginx");
    assert!(config.contains("server 127.0.0.1:8080;"), "{config}");
    config.replace("server 127.0.0.1:8080;", &format!("server {node};"))
}

#[test]
fn haproxy_tells_whose_address_it_is() {
    if is_missing("haproxy") {
        return;
    }
    let node = Node::new();
    let proxy = Proxy::haproxy(&haproxy(&[node.addr()], ""));
    addresses_are_the_clients(&node, proxy.addr);
    // Without the proxy, nobody is believed.
    let (code, mut direct) = upgrade_from("127.0.0.7", node.addr(), "X-Forwarded-For: 6.6.6.6\r\n");
    assert_eq!((code, address_of(&mut direct)), (101, "127.0.0.7".to_owned()));
}

#[test]
fn haproxy_speaks_the_proxy_protocol() {
    if is_missing("haproxy") {
        return;
    }
    for version in [" send-proxy", " send-proxy-v2"] {
        let node = Node::on(Listener::tcp("127.0.0.1:0").unwrap().proxy_protocol(), &[]);
        let config = haproxy(&[node.addr()], version).replace("    option forwardfor\n", "");
        let proxy = Proxy::haproxy(&config);
        addresses_are_the_clients(&node, proxy.addr);
        events_come_at_once(&node, proxy.addr, "");
    }
}

#[test]
fn haproxy_passes_events_on_at_once_even_if_it_compresses() {
    if is_missing("haproxy") {
        return;
    }
    let node = Node::new();
    let compressing = "frontend web\n    compression algo gzip\n    compression type text/event-stream text/plain\n";
    let config = haproxy(&[node.addr()], "").replace("frontend web\n", compressing);
    let proxy = Proxy::haproxy(&config);
    events_come_at_once(&node, proxy.addr, "Accept-Encoding: gzip\r\n");
}

#[test]
fn haproxy_sends_nobody_to_a_node_that_is_not_ready() {
    if is_missing("haproxy") {
        return;
    }
    let nodes = [Node::new(), Node::new()];
    let config = haproxy(&[nodes[0].addr(), nodes[1].addr()], "").replace("inter 2s", "inter 100ms");
    let proxy = Proxy::haproxy(&config);
    nodes[0].hub.shutdown(PATIENCE).unwrap();
    let counted = || nodes[1].hub.client_count();
    // Within some checks, everyone comes to the other.
    let mut clients: Vec<WsClient> = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while clients.len() < 8 {
        assert!(Instant::now() < deadline, "the checks do not see it: {}", proxy.output());
        let source = format!("127.0.1.{}", clients.len() + 1);
        let (code, client) = upgrade_from(&source, proxy.addr, "");
        if code == 101 {
            clients.push(client);
        } else {
            assert_eq!(code, 503, "before it is noticed");
            clients.clear();
            eventually("they are gone", || counted() == 0);
        }
    }
    assert_eq!(counted(), 8);
}

#[test]
fn nginx_tells_whose_address_it_is_and_passes_events_on_at_once() {
    if is_missing("nginx") {
        return;
    }
    let node = Node::new();
    let proxy = Proxy::nginx(&nginx(&node.addr().to_string()));
    addresses_are_the_clients(&node, proxy.addr);
    events_come_at_once(&node, proxy.addr, "");
    // nginx gives up a client that ends its own side.
    let mut client = WsClient::on(TcpStream::connect(proxy.addr).unwrap());
    client.stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(status(&client.read_head()), 200);
}

#[test]
fn nginx_passes_the_host_on_so_that_own_pages_may_connect() {
    if is_missing("nginx") {
        return;
    }
    let node = Node::new();
    let proxy = Proxy::nginx(&nginx(&node.addr().to_string()));
    let own = format!("Origin: http://{}\r\n", proxy.addr);
    assert_eq!(upgrade_from("127.0.0.5", proxy.addr, &own).0, 101);
    assert_eq!(upgrade_from("127.0.0.6", proxy.addr, "Origin: http://evil.example\r\n").0, 403);
}

#[test]
fn nginx_comes_over_a_unix_socket_whose_mode_lets_it() {
    if is_missing("nginx") {
        return;
    }
    let path = socket_path("nginx");
    for (mode, expected) in [(0o666, 101), (0o600, 502)] {
        let node = Node::on(Listener::unix_with_mode(&path, mode).unwrap(), &["unix"]);
        let proxy = Proxy::nginx(&nginx(&format!("unix:{}", path.display())));
        // Where nginx runs as the same user, it is let in by any mode.
        let is_own = !proxy_is_another_user();
        let (code, mut client) = upgrade_from("127.0.0.5", proxy.addr, "");
        assert_eq!(code, if is_own { 101 } else { expected }, "{mode:o}: {}", proxy.output());
        if code == 101 {
            assert_eq!(address_of(&mut client), "127.0.0.5");
        }
        drop(node);
    }
}

/// nginx gives up root for its workers, and nothing else.
fn proxy_is_another_user() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

fn socket_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("wshub-{}-{name}.sock", std::process::id()))
}

/// What the server at `addr` takes for the client's address, after these bytes and this request.
fn ask(addr: SocketAddr, first: &[u8], headers: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /who HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    stream.write_all(&[first, request.as_bytes()].concat()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned())
}

#[test]
fn all_lines_count_and_only_the_chosen_header() {
    let node = Node::new();
    let two = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=7.7.7.7\r\n";
    assert_eq!(ask(node.addr(), b"", two), "1.2.3.4");
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let node = Node::with(listener, |server| {
        server.trusted_proxies(["127.0.0.0/8"]).forwarded_header(ForwardedHeader::Forwarded)
    });
    assert_eq!(ask(node.addr(), b"", two), "7.7.7.7");
}

#[test]
fn a_unix_socket_is_trusted_only_by_name() {
    for (trusted, expected) in [(&["unix"][..], "1.2.3.4"), (&["127.0.0.1"], "unix")] {
        let path = socket_path("trust");
        let _node = Node::on(Listener::unix(&path).unwrap(), trusted);
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /who HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "{trusted:?}: {answer}");
    }
}

#[test]
fn a_proxy_header_comes_in_any_pieces_and_nothing_else_is_taken() {
    let node = Node::on(Listener::tcp("127.0.0.1:0").unwrap().proxy_protocol(), &[]);
    let v1 = b"PROXY TCP4 1.2.3.4 5.6.7.8 567 80\r\n";
    assert_eq!(ask(node.addr(), v1, ""), "1.2.3.4");
    assert_eq!(ask(node.addr(), b"PROXY UNKNOWN\r\n", ""), "127.0.0.1");
    let mut stream = TcpStream::connect(node.addr()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for byte in [&v1[..], b"GET /who HTTP/1.1\r\nHost: a\r\n\r\n"].concat() {
        stream.write_all(&[byte]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("1.2.3.4"), "{answer}");
    for bad in [&b""[..], b"PROXY TCP4 1.2.3.4\r\n", b"\r\n\r\n\0\r\nQUIT\n\x11", b"GET / HTTP/1.1\r\n"] {
        assert_eq!(ask(node.addr(), bad, ""), "", "no answer, for it may be no HTTP: {bad:?}");
    }
}

#[test]
fn a_listener_of_ones_own_tells_the_address() {
    let hub = Hub::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    let request = common::upgrade_request("GET / HTTP/1.1", &[]);
    let (head, _) = wshub::RequestHead::parse(request.as_bytes()).unwrap().unwrap();
    let told: SocketAddr = "1.2.3.4:567".parse().unwrap();
    let client = hub.accept(near, head, b"").remote_addr(told).detach().unwrap();
    assert_eq!(client.remote_addr(), Some(told));
    drop(far);
}

#[test]
fn proxies_that_are_none_are_named() {
    for bad in ["10.0.0.0/33", "proxy.example.org", "", "127.0.0.1:80"] {
        let server = Server::bind("127.0.0.1:0").unwrap().trusted_proxies(["127.0.0.1", bad]);
        let error = server.spawn().unwrap_err().to_string();
        assert!(error.contains("trusted_proxies") && error.contains(&format!("{bad:?}")), "{error}");
    }
}
