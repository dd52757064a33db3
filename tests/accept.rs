//! `Hub::accept`: connections that come from the program's own listener.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use common::{CLOSE, PATIENCE, TEXT, WsClient, client_frame, eventually, exchange, status, upgrade_request};
use wshub::{
    Admission, Hub, Limits, Rejection, RequestHead,
    server::{AcceptError, PendingConnection, Transport},
};

fn echo_hub() -> Hub {
    Hub::builder()
        .limits(Limits::default().max_connections_per_user(1))
        .on_upgrade(|head| Ok(head.query_param("user").map_or_else(Admission::anonymous, Admission::user)))
        .on_message(|client, message| Ok(client.send(message)?))
        .build()
        .unwrap()
}

/// Reads a request head, and whatever comes with it.
fn read_request(stream: &mut impl Read) -> (RequestHead, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).unwrap();
        assert!(n > 0, "the client has closed");
        bytes.extend_from_slice(&chunk[..n]);
        if let Some((head, length)) = RequestHead::parse(&bytes).unwrap() {
            return (head, bytes.split_off(length));
        }
    }
}

/// A program's own listener: takes `count` connections, one after the other, and runs each in its own way.
fn listen(
    hub: &Hub,
    count: usize,
    run: impl Fn(PendingConnection) -> Result<(), AcceptError> + Send + 'static,
) -> (SocketAddr, Receiver<Result<(), AcceptError>>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let hub = hub.clone();
    let (report, results) = channel();
    let thread = thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (head, early) = read_request(&mut stream);
            report.send(run(hub.accept(stream, head, &early))).unwrap();
        }
    });
    (addr, results, thread)
}

#[test]
fn serve_runs_the_connection_and_returns_at_its_end() {
    let hub = echo_hub();
    let (addr, results, thread) = listen(&hub, 2, PendingConnection::serve);
    for _ in 0..2 {
        let mut client = WsClient::connect(addr, "/anything", "");
        client.send_text("hello");
        assert_eq!(client.text(), "hello");
        assert!(results.try_recv().is_err(), "it runs as long as the connection lasts");
        client.close();
        results.recv_timeout(PATIENCE).unwrap().unwrap();
        assert_eq!(hub.client_count(), 0);
    }
    thread.join().unwrap();
}

#[test]
fn detach_returns_at_once() {
    let hub = echo_hub();
    let (addr, results, thread) = listen(&hub, 2, |accept| accept.detach().map(drop));
    let mut first = WsClient::connect(addr, "/", "");
    results.recv_timeout(PATIENCE).unwrap().unwrap();
    let mut second = WsClient::connect(addr, "/", "");
    results.recv_timeout(PATIENCE).unwrap().unwrap();
    thread.join().unwrap();
    for client in [&mut first, &mut second] {
        client.send_text("hello");
        assert_eq!(client.text(), "hello");
    }
    assert_eq!(hub.client_count(), 2);
    first.close();
    second.close();
    hub.shutdown(PATIENCE).unwrap();
}

#[test]
fn detach_gives_the_client() {
    let hub = echo_hub();
    let (near, far) = UnixStream::pair().unwrap();
    let request = upgrade_request("GET / HTTP/1.1", &[]);
    let (head, _) = RequestHead::parse(request.as_bytes()).unwrap().unwrap();
    let client = hub.accept(near, head, b"").detach().unwrap();
    client.send("welcome").unwrap();
    let mut socket = WsClient::on(TcpStream::from(OwnedFd::from(far)));
    assert!(socket.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(socket.text(), "welcome");
    let (near, far) = UnixStream::pair().unwrap();
    // Or the hub waits for the end of a peer that has been refused.
    drop(far);
    hub.accept(near, RequestHead::from_parts("POST", "/", [("Host", "a")]).unwrap(), b"").detach().unwrap_err();
}

#[test]
fn who_is_known_already_is_not_asked_again() {
    let hub = Hub::builder()
        .limits(Limits::default().max_connections_per_user(1))
        .on_upgrade(|_| Err(Rejection::forbidden()))
        .build()
        .unwrap();
    let admit = |accept: PendingConnection| accept.admission(Admission::user("ann").room("lobby")).detach().map(drop);
    let (addr, results, thread) = listen(&hub, 3, admit);
    let _ann = WsClient::connect(addr, "/", "");
    results.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!((hub.user_connection_count("ann"), hub.room_size("lobby")), (1, 1));
    let refused = exchange(addr, upgrade_request("GET / HTTP/1.1", &[]).as_bytes());
    assert_eq!(status(&refused), 429, "limits hold");
    let refused = exchange(addr, upgrade_request("GET / HTTP/1.1", &["Origin: http://b"]).as_bytes());
    assert_eq!(status(&refused), 403, "origins too");
    thread.join().unwrap();
}

#[test]
fn early_bytes_are_the_first_frames() {
    let hub = echo_hub();
    let long = "long ".repeat(2000);
    let frames = [client_frame(TEXT, b"one"), client_frame(TEXT, long.as_bytes()), client_frame(CLOSE, b"")].concat();
    let runs: [fn(PendingConnection) -> Result<(), AcceptError>; 2] =
        [PendingConnection::serve, |accept| accept.detach().map(drop)];
    for run in runs {
        // Cut in a frame's header, in its payload, behind everything.
        for cut in [0, 1, 7, 12, 5000, frames.len()] {
            let (mut client, mut server) = UnixStream::pair().unwrap();
            for stream in [&client, &server] {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            client.write_all(upgrade_request("GET / HTTP/1.1", &[]).as_bytes()).unwrap();
            let (head, _) = read_request(&mut server);
            client.write_all(&frames[cut..]).unwrap();
            // Or the server would wait for its end.
            client.shutdown(Shutdown::Write).unwrap();
            run(hub.accept(server, head, &frames[..cut])).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            let end = [b"\r\n\r\n\x81\x03one\x81\x7e\x27\x10", long.as_bytes(), b"\x88\x00"].concat();
            assert!(answer.ends_with(&end), "cut at {cut}");
        }
    }
    eventually("everyone has gone", || hub.client_count() == 0);
}

#[test]
fn refusals_are_answered_and_reported() {
    let hub = echo_hub();
    let (addr, results, thread) = listen(&hub, 4, |accept| accept.detach().map(drop));
    let ann = WsClient::connect(addr, "/?user=ann", "");
    results.recv_timeout(PATIENCE).unwrap().unwrap();
    let cases = [
        (upgrade_request("POST / HTTP/1.1", &[]), 405),
        (upgrade_request("GET / HTTP/1.1", &["Origin: http://b"]), 403),
        (upgrade_request("GET /?user=ann HTTP/1.1", &[]), 429),
    ];
    for (request, expected) in cases {
        assert_eq!(status(&exchange(addr, request.as_bytes())), expected);
        let refused = results.recv_timeout(PATIENCE).unwrap().unwrap_err();
        assert!(matches!(refused, AcceptError::Refused(status) if status == expected), "{refused}");
    }
    thread.join().unwrap();
    assert_eq!(hub.client_count(), 1);
    ann.close();
    eventually("ann has gone", || hub.client_count() == 0);
}

#[test]
fn a_stopped_hub_refuses() {
    let hub = echo_hub();
    hub.shutdown(PATIENCE).unwrap();
    let (addr, results, thread) = listen(&hub, 1, PendingConnection::serve);
    assert_eq!(status(&WsClient::try_connect(addr, "/", "").0), 503);
    let refused = results.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(refused, Err(AcceptError::Refused(503))), "{refused:?}");
    thread.join().unwrap();
}

#[test]
fn a_connection_that_is_neither_served_nor_detached_is_closed() {
    let hub = echo_hub();
    let (mut client, server) = UnixStream::pair().unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = RequestHead::from_parts("GET", "/", [("Host", "a")]).unwrap();
    drop(hub.accept(Transport::from(server), head, b""));
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(hub.client_count(), 0);
}

#[test]
fn a_head_from_another_parser_serves_as_well() {
    let hub = echo_hub();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let head = RequestHead::from_parts(
        "GET",
        "/",
        [
            ("Host", "a"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", common::KEY),
        ],
    );
    hub.accept(server, head.unwrap(), b"").detach().unwrap();
    let mut client = WsClient::on(stream);
    assert_eq!(status(&client.read_head()), 101);
    client.send_text("hello");
    assert_eq!(client.text(), "hello");
    client.close();
    hub.shutdown(PATIENCE).unwrap();
}
