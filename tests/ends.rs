//! How connections end on the wire: data in transit arrives, whatever the peer still sends; TLS sends `close_notify`;
//! and an ordinary departure is no error (RFC 9112 §9.6, RFC 8446 §6.1).
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::tls::{client_side, server_side};
use common::{BINARY, CLOSE, Frame, PATIENCE, PING, PONG, client_frame, counted, eventually, upgrade_request};
use rustls::{ClientConnection, StreamOwned};
use socket2::SockRef;
use wshub::server::Listener;
use wshub::{Client, Config, Hub, HubBuilder, Message, Response, Server, ServerHandle, Target};

const EVENTS: &str = "GET /events HTTP/1.1\r\nHost: a\r\n\r\n";
const PLAIN: &str = "GET /plain HTTP/1.1\r\nHost: a\r\n\r\n";
/// Bytes of the answer at `/plain`.
const LARGE: usize = 1_500_000;

/// A hub behind a plain listener and one with TLS.
struct Ends {
    hub: Hub,
    plain: SocketAddr,
    tls: SocketAddr,
    handle: ServerHandle,
}

impl Ends {
    fn new(builder: HubBuilder) -> Self {
        let hub = builder.build().unwrap();
        let listener = || Listener::tcp("127.0.0.1:0").unwrap();
        let server = Server::on(listener()).also_on(listener().tls(&server_side()));
        let server = server.websocket("/ws", &hub).event_stream("/events", &hub);
        let server = server.handle("/plain", |_| Response::text(200, "x".repeat(LARGE)));
        let handle = server.spawn().unwrap();
        let addrs = handle.local_addrs();
        Self { hub, plain: addrs[0], tls: addrs[1], handle }
    }

    /// A connection on which a request has been sent; with TLS or without.
    fn request(&self, is_secure: bool, request: &str) -> Peer {
        let socket = TcpStream::connect(if is_secure { self.tls } else { self.plain }).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut peer = if is_secure {
            Peer::Secure(Box::new(StreamOwned::new(client_side(&["http/1.1"]), socket)))
        } else {
            Peer::Plain(socket)
        };
        peer.write_all(request.as_bytes()).unwrap();
        peer
    }

    /// The same, with the response head read; and the hub's handle.
    fn pair(&self, is_secure: bool, request: &str) -> (Peer, Client) {
        let before = self.hub.clients();
        let mut peer = self.request(is_secure, request);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            peer.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let client = self.hub.clients().into_iter().find(|client| !before.contains(client)).unwrap();
        (peer, client)
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.handle.shutdown(Duration::from_secs(5));
    }
}

enum Peer {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Peer {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Secure(tls) => &tls.sock,
        }
    }

    /// Everything up to the end, which must be an orderly one: neither a reset nor, with TLS, a cut.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.read_to_end(&mut rest).unwrap_or_else(|error| panic!("{error} after {} bytes", rest.len()));
        rest
    }
}

impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Secure(tls) => tls.read(buffer),
        }
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Secure(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn upgrade() -> String {
    upgrade_request("GET /ws HTTP/1.1", &[])
}

/// Puts 1.5 MB into the queue of a client that does not read yet.
fn queue_large(client: &Client) -> usize {
    let message = Message::binary(vec![7; 100_000]);
    (0..15).for_each(|_| client.send_timeout(&message, PATIENCE).unwrap());
    15 * (100_000 + 10)
}

fn roomy() -> HubBuilder {
    let config = Config::default().queue_bytes(4 << 20).close_timeout(PATIENCE).write_timeout(PATIENCE);
    Hub::builder().config(config)
}

/// The peer's close, and in the same write many pings that nobody will read.
fn close_and_pings() -> Vec<u8> {
    let mut bytes = client_frame(CLOSE, &1000_u16.to_be_bytes());
    bytes.extend(client_frame(PING, b"").repeat(1000));
    bytes
}

#[test]
fn what_is_under_way_survives_unread_input() {
    for is_secure in [false, true] {
        let ends = Ends::new(roomy());
        let (mut peer, client) = ends.pair(is_secure, &upgrade());
        let sent = queue_large(&client);
        peer.write_all(&close_and_pings()).unwrap();
        let all = peer.rest();
        assert!(all.len() >= sent + 4, "TLS {is_secure}: {} bytes of {sent}", all.len());
        assert!(all.ends_with(b"\x88\x02\x03\xe8"), "TLS {is_secure}: the close is answered");
    }
}

#[test]
fn and_however_long_the_hooks_take() {
    let end = |is_secure| {
        // Longer than the close timeout, and not until the peer has read.
        let config = Config::default().queue_bytes(4 << 20).write_timeout(PATIENCE);
        let hook = |_: &Client| thread::sleep(Duration::from_secs(2));
        let builder = Hub::builder().config(config.close_timeout(Duration::from_secs(1)));
        let ends = Ends::new(builder.before_disconnect(hook));
        let (mut peer, client) = ends.pair(is_secure, &upgrade());
        client.send(Message::binary(vec![7; 60_000])).unwrap();
        peer.write_all(&close_and_pings()).unwrap();
        eventually("the end has begun", || client.is_closed());
        // While the hook runs, and after it, more comes that nobody will read.
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(100));
            peer.socket().write_all(b"more").unwrap();
        }
        let all = peer.rest();
        assert!(all.len() >= 60_004 && all.ends_with(b"\x88\x02\x03\xe8"), "TLS {is_secure}: {} bytes", all.len());
    };
    thread::scope(|scope| {
        scope.spawn(|| end(false));
        scope.spawn(|| end(true));
    });
}

#[test]
fn answers_survive_unread_requests() {
    for is_secure in [false, true] {
        let ends = Ends::new(roomy());
        let mut peer = ends.request(is_secure, &PLAIN.repeat(200));
        // The answer to the first is under way while the others lie unread.
        thread::sleep(Duration::from_millis(200));
        let all = peer.rest();
        assert!(all.len() > LARGE, "TLS {is_secure}: {} bytes", all.len());
    }
}

#[test]
fn event_streams_survive_unread_input() {
    for is_secure in [false, true] {
        let ends = Ends::new(roomy());
        let (mut peer, client) = ends.pair(is_secure, EVENTS);
        let event = "x".repeat(100_000);
        (0..15).for_each(|_| client.send_timeout(&*event, PATIENCE).unwrap());
        peer.write_all(&b"never asked for".repeat(300)).unwrap();
        client.close(4000, "bye").unwrap();
        let all = peer.rest();
        assert!(all.len() > 1_500_000, "TLS {is_secure}: {} bytes", all.len());
        assert!(String::from_utf8_lossy(&all).contains("closed 4000 bye"), "TLS {is_secure}");
    }
}

#[test]
fn tls_says_goodbye_at_every_orderly_end() {
    type End = fn(&Ends, &Client, &mut Peer);
    let close: End = |_, client, _| client.close(4000, "").unwrap();
    let drain: End = |ends, _, _| {
        let hub = ends.hub.clone();
        drop(thread::spawn(move || hub.drain(PATIENCE)));
    };
    let shut_down: End = |ends, _, _| {
        let hub = ends.hub.clone();
        drop(thread::spawn(move || hub.shutdown(PATIENCE)));
    };
    let slow: End = |_, client, _| {
        while client.send(Message::text("x".repeat(100_000))).is_ok() {}
    };
    for (what, end) in [("close", close), ("drain", drain), ("shutdown", shut_down), ("a slow consumer", slow)] {
        for request in [&*upgrade(), EVENTS] {
            let config = Config::default()
                .lame_duck(Duration::ZERO)
                .drain_timeout(Duration::from_millis(1))
                .drain_spread(Duration::ZERO)
                .drop_policy(wshub::DropPolicy::Disconnect)
                .queue_bytes(150_000);
            let ends = Ends::new(Hub::builder().config(config));
            let (mut peer, client) = ends.pair(true, request);
            end(&ends, &client, &mut peer);
            if request != EVENTS {
                // The answer to the close frame that is coming.
                let code = 1000_u16;
                peer.write_all(&client_frame(CLOSE, &code.to_be_bytes())).unwrap();
            }
            let rest = peer.rest();
            assert!(!rest.is_empty(), "{what}");
        }
    }
}

#[test]
fn a_full_socket_does_not_swallow_the_goodbye() {
    // The end of TLS is due when the socket takes nothing, so it is the writer's to send.
    for request in [&*upgrade(), EVENTS] {
        let ends = Ends::new(roomy());
        let (mut peer, client) = ends.pair(true, request);
        let event = "x".repeat(100_000);
        while client.send(&*event).is_ok() {}
        client.close(4000, "bye").unwrap();
        if request != EVENTS {
            peer.write_all(&client_frame(CLOSE, &4000_u16.to_be_bytes())).unwrap();
        }
        assert!(peer.rest().len() > 4_000_000);
    }
}

#[test]
fn tls_says_goodbye_after_plain_answers() {
    let ends = Ends::new(roomy());
    for (request, status) in [
        (PLAIN, "200"),
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        ("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let all = ends.request(true, request).rest();
        assert_eq!(&String::from_utf8_lossy(&all[9..12]), status, "{request}");
    }
}

#[test]
fn tls_answers_a_goodbye() {
    let ends = Ends::new(roomy());
    for request in [&*upgrade(), EVENTS] {
        let (mut peer, _) = ends.pair(true, request);
        let Peer::Secure(tls) = &mut peer else { unreachable!() };
        tls.conn.send_close_notify();
        while tls.conn.wants_write() {
            tls.conn.write_tls(&mut tls.sock).unwrap();
        }
        peer.socket().shutdown(Shutdown::Write).unwrap();
        peer.rest();
    }
}

#[test]
fn alerts_are_sent() {
    let ends = Ends::new(roomy());
    for request in [&*upgrade(), EVENTS] {
        let (mut peer, _) = ends.pair(true, request);
        // A record that nobody can decrypt, and more behind it that nobody will read.
        let forged = [&[0x17, 3, 3, 0, 40][..], &[7; 40]].concat();
        peer.socket().write_all(&forged.repeat(200)).unwrap();
        let error = peer.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("alert"), "{error}");
    }
    // In the handshake: not TLS at all. An alert record comes, and nothing in plain text.
    let mut socket = TcpStream::connect(ends.tls).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(&PLAIN.repeat(500).into_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert_eq!(answer[0], 0x15, "an alert: {answer:x?}");
    assert_eq!(answer.len(), 7, "and nothing else: {answer:x?}");
}

/// Counts what a hub reports as errors, by its hook.
fn reporting(builder: HubBuilder) -> (Arc<AtomicUsize>, HubBuilder) {
    let count = Arc::new(AtomicUsize::new(0));
    let reported = Arc::clone(&count);
    (count, builder.on_error(move |_, _| _ = reported.fetch_add(1, Ordering::Relaxed)))
}

#[test]
fn departures_during_broadcasts_are_no_errors() {
    let (metrics, builder) = counted(Hub::builder());
    let (reported, builder) = reporting(builder);
    let ends = Ends::new(builder);
    for is_secure in [false, true] {
        thread::scope(|scope| {
            let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let stop = Arc::clone(&is_over);
            let hub = ends.hub.clone();
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    hub.send(Target::all(), "a broadcast").unwrap();
                }
            });
            for n in 0..150 {
                let request = if n % 5 == 4 { EVENTS.to_owned() } else { upgrade() };
                let (mut peer, _) = ends.pair(is_secure, &request);
                if n % 5 < 2 {
                    peer.write_all(&client_frame(CLOSE, &1001_u16.to_be_bytes())).unwrap();
                }
                if n % 2 == 0 {
                    SockRef::from(peer.socket()).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        eventually("all are gone", || ends.hub.client_count() == 0);
    }
    assert_eq!(reported.load(Ordering::Relaxed), 0, "{:?}", metrics.stats().errors);
    assert!(metrics.stats().errors.is_empty(), "{:?}", metrics.stats().errors);
}

#[test]
fn a_close_and_a_reset_are_no_error() {
    let (metrics, builder) = counted(Hub::builder());
    let (reported, builder) = reporting(builder);
    let ends = Ends::new(builder);
    for n in 0..200 {
        let (mut peer, _) = ends.pair(n % 4 == 0, &upgrade());
        peer.write_all(b"\x88\x82\0\0\0\0\x03\xe8").unwrap();
        SockRef::from(peer.socket()).set_linger(Some(Duration::ZERO)).unwrap();
    }
    eventually("all are gone", || ends.hub.client_count() == 0);
    assert_eq!(reported.load(Ordering::Relaxed), 0);
    assert!(metrics.stats().errors.is_empty(), "{:?}", metrics.stats().errors);
}

#[test]
fn a_peer_that_does_not_end_is_waited_for_within_the_close_timeout_only() {
    for is_secure in [false, true] {
        let ends = Ends::new(Hub::builder().config(Config::default().close_timeout(Duration::from_millis(300))));
        let (mut peer, _) = ends.pair(is_secure, &upgrade());
        peer.write_all(&client_frame(CLOSE, b"")).unwrap();
        assert_eq!(peer.rest(), b"\x88\x00");
        // It stays, and sends for ever; the server has had enough at some time.
        let mut writing = peer.socket().try_clone().unwrap();
        writing.set_write_timeout(Some(PATIENCE)).unwrap();
        let error = loop {
            match writing.write_all(&[0; 100]) {
                Ok(()) => thread::sleep(Duration::from_millis(5)),
                Err(error) => break error,
            }
        };
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
        ends.hub.shutdown(PATIENCE).unwrap();
    }
}

#[test]
fn a_shutdown_cuts_those_that_linger_at_its_deadline() {
    let ends = Ends::new(Hub::builder().config(Config::default().close_timeout(Duration::from_secs(3600))));
    let peers: Vec<_> = (0..3)
        .map(|_| {
            let (mut peer, _) = ends.pair(false, &upgrade());
            peer.write_all(&client_frame(CLOSE, b"")).unwrap();
            assert_eq!(peer.rest(), b"\x88\x00");
            peer
        })
        .collect();
    eventually("none is registered", || ends.hub.client_count() == 0);
    // Succeeds only if every connection has ended.
    ends.hub.shutdown(Duration::from_millis(200)).unwrap();
    drop(peers);
}

#[test]
fn a_lone_ping_is_still_answered_before_a_close() {
    let ends = Ends::new(Hub::builder());
    let (mut peer, _) = ends.pair(true, &upgrade());
    peer.write_all(&[client_frame(PING, b"?"), client_frame(CLOSE, b"")].concat()).unwrap();
    let pong = Frame { first: PONG, payload: b"?".to_vec() };
    let expected = [&[pong.first, 1][..], &pong.payload, b"\x88\x00"].concat();
    assert_eq!(peer.rest(), expected);
    assert_eq!(BINARY, 0x82);
}
