//! The end of a connection (RFC 6455 §7): by either side, in order, in time.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::{BINARY, CLOSE, Frame, PATIENCE, TEXT, TestServer, WsClient, client_frame, counted, errors, eventually};
use wshub::{
    Client, CloseError, Config, HandlerError, Hub, HubBuilder, Message, SendError, SendJsonError, metrics::ErrorType,
};

fn echo() -> HubBuilder {
    Hub::builder().on_message(|client, message| Ok(client.send(message)?))
}

/// Closes in the way that a text asks for: `4000 reason`.
fn closes_on_demand() -> HubBuilder {
    Hub::builder().on_message(|client, message| {
        let (code, reason) = message.as_text().and_then(|t| t.split_once(' ')).ok_or("not understood")?;
        Ok(client.close(code.parse()?, reason)?)
    })
}

/// Tells of every client that has gone.
fn telling(builder: HubBuilder) -> (Receiver<Client>, HubBuilder) {
    let (tell, gone) = channel();
    // Nobody may listen any more when the server is shut down.
    let hook = move |client: &Client| drop(tell.send(client.clone()));
    (gone, builder.after_disconnect(hook))
}

/// A client and the server's handle to it.
fn connect(server: &TestServer) -> (WsClient, Client) {
    let client = server.connect();
    (client, server.hub.clients().remove(0))
}

fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// Sends until the client's socket and queue are full; how many messages are on their way.
fn stall(client: &Client, message: &Message) -> usize {
    let mut sent = 0;
    while client.send_timeout(message, Duration::from_millis(300)).is_ok() {
        sent += 1;
    }
    sent
}

#[test]
fn the_clients_close_is_answered_with_its_code() {
    let (gone, builder) = telling(echo());
    let server = TestServer::new(builder);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        for reason in ["", "bye", &"x".repeat(123), "grüße"] {
            let mut client = server.connect();
            client.send_text("last words");
            client.send_frame(CLOSE, &close_payload(code, reason));
            assert_eq!(client.text(), "last words");
            assert_eq!(client.frame(), Frame { first: CLOSE, payload: code.to_be_bytes().to_vec() });
            client.expect_end();
            assert!(gone.recv_timeout(PATIENCE).unwrap().closed_at().is_some());
        }
    }
    let mut client = server.connect();
    client.send_frame(CLOSE, b"");
    assert_eq!(client.frame(), Frame { first: CLOSE, payload: Vec::new() }, "no code: none in the answer");
    client.expect_end();
}

#[test]
fn malformed_close_frames_are_answered_with_what_is_wrong() {
    let (metrics, builder) = counted(echo());
    let server = TestServer::new(builder);
    let mut cases: Vec<(Vec<u8>, u16)> = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
        .map(|code| (close_payload(code, "reason"), 1002))
        .into();
    cases.push((b"\x03".to_vec(), 1002));
    cases.push((b"\x03\xe8\xff".to_vec(), 1007));
    cases.push((b"\x03\xe8bye \xc3".to_vec(), 1007));
    for (payload, expected) in &cases {
        let mut client = server.connect();
        client.send_frame(CLOSE, payload);
        assert_eq!(client.expect_close().0, *expected, "{payload:x?}");
    }
    eventually("all are counted", || errors(&metrics, ErrorType::ProtocolError) == cases.len() as u64);
}

#[test]
fn the_server_closes_with_code_and_reason_and_waits_for_the_answer() {
    let (gone, builder) = telling(closes_on_demand());
    let server = TestServer::new(builder);
    for (code, reason) in [(1000, ""), (1001, "grüße"), (1014, "x"), (3000, "x"), (4999, &*"x".repeat(123))] {
        let mut client = server.connect();
        client.send_text(&format!("{code} {reason}"));
        let frame = client.frame();
        assert_eq!(frame.close(), (code, reason));
        // Still connected: the handshake needs this side's answer too.
        assert_eq!(server.hub.client_count(), 1);
        assert!(gone.try_recv().is_err());
        client.send_close(code);
        client.expect_end();
        gone.recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn closing_twice_sends_the_first_close_alone() {
    let (gone, builder) = telling(echo());
    let server = TestServer::new(builder);
    let (mut client, handle) = connect(&server);
    handle.close(4001, "first").unwrap();
    handle.close(4002, "second").unwrap();
    assert!(handle.is_closed());
    assert!(matches!(handle.send("late"), Err(SendError::Closed(m)) if m.as_text() == Some("late")));
    assert_eq!(client.expect_close(), (4001, "first".into()));
    let same = gone.recv_timeout(PATIENCE).unwrap();
    assert!(same == handle);
    handle.close(4003, "third").unwrap();
}

#[test]
fn codes_and_reasons_that_may_not_be_sent_are_refused_and_the_connection_stays() {
    let server = TestServer::new(echo());
    let (mut client, handle) = connect(&server);
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        assert_eq!(handle.close(code, ""), Err(CloseError::InvalidCode(code)));
    }
    assert_eq!(handle.close(1000, &"é".repeat(62)), Err(CloseError::ReasonTooLong(124)));
    assert!(!handle.is_closed());
    client.send_text("still here");
    assert_eq!(client.text(), "still here");
    client.close();
}

#[test]
fn queued_messages_arrive_before_the_close_frame() {
    let server = TestServer::new(echo().config(Config::default().close_timeout(PATIENCE)));
    let (mut client, handle) = connect(&server);
    let mut sent = stall(&handle, &Message::binary(vec![7; 32 * 1024]));
    assert!(handle.queue_depth().messages > 0);
    // A small one still fits.
    while handle.send("small").is_ok() && sent < 100_000 {
        sent += 1;
    }
    handle.close(1000, "done").unwrap();
    for i in 0..sent {
        let frame = client.frame();
        assert!(frame.first == BINARY || frame.first == TEXT, "frame {i} of {sent}: {:x}", frame.first);
    }
    assert_eq!(client.expect_close(), (1000, "done".into()));
}

#[test]
fn queued_messages_arrive_before_the_answer_to_the_clients_close() {
    let server = TestServer::new(echo().config(Config::default().close_timeout(PATIENCE)));
    let (mut client, handle) = connect(&server);
    let sent = stall(&handle, &Message::binary(vec![7; 32 * 1024]));
    client.send_close(1000);
    for i in 0..sent {
        assert_eq!(client.frame().first, BINARY, "frame {i} of {sent}");
    }
    assert_eq!(client.frame().close().0, 1000);
    client.expect_end();
}

#[test]
fn a_client_that_never_answers_a_close_is_cut_after_the_close_timeout() {
    let (gone, builder) = telling(closes_on_demand());
    let server = TestServer::new(builder.config(Config::default().close_timeout(Duration::from_millis(200))));
    // Begun by another thread, by the connection's own, and with a client that goes on talking.
    let (mut client, handle) = connect(&server);
    // Long enough for the connection's thread to be asleep in a read.
    client.wait_quietly(Duration::from_millis(50));
    handle.close(4000, "outside").unwrap();
    assert_eq!(client.frame().close(), (4000, "outside"));
    client.expect_end();
    gone.recv_timeout(PATIENCE).unwrap();

    let mut client = server.connect();
    client.send_text("4001 inside");
    assert_eq!(client.frame().close(), (4001, "inside"));
    client.expect_end();
    gone.recv_timeout(PATIENCE).unwrap();

    let (mut client, handle) = connect(&server);
    let mut writer = client.stream.try_clone().unwrap();
    let talking = std::thread::spawn(move || while writer.write_all(&client_frame(TEXT, b"4002 again")).is_ok() {});
    assert_eq!(client.frame().close(), (4002, "again"));
    client.expect_end();
    gone.recv_timeout(PATIENCE).unwrap();
    // The handle keeps the socket's descriptor, and with it bytes that nobody will read.
    drop(handle);
    talking.join().unwrap();
}

#[test]
fn a_client_that_reads_nothing_is_cut_after_the_close_timeout() {
    let (gone, builder) = telling(echo());
    let config = Config::default().close_timeout(Duration::from_millis(200)).write_timeout(PATIENCE * 3);
    let server = TestServer::new(builder.config(config));
    let (mut client, handle) = connect(&server);
    stall(&handle, &Message::binary(vec![7; 32 * 1024]));
    handle.close(1000, "").unwrap();
    gone.recv_timeout(PATIENCE).unwrap();
    // What was in the socket may still be read; the close frame was not.
    while let Some(frame) = client.next_frame() {
        assert_eq!(frame.first, BINARY);
    }
}

#[test]
fn nothing_is_handled_after_a_close() {
    let (gone, builder) = telling(Hub::builder());
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let server = TestServer::new(builder.on_message(move |client, message| {
        count.fetch_add(1, Ordering::SeqCst);
        match message.as_text() {
            Some("close") => Ok(client.close(4000, "")?),
            _ => Ok(client.send(message)?),
        }
    }));
    let late = client_frame(TEXT, b"late");
    // The client closes and goes on; in one write, and with what is not even a frame.
    let mut client = server.connect();
    let bytes =
        [client_frame(TEXT, b"one"), client_frame(CLOSE, b"\x03\xe8"), late.clone(), b"\xff\xff".to_vec()].concat();
    client.stream.write_all(&bytes).unwrap();
    assert_eq!((client.text().as_str(), client.frame().close().0), ("one", 1000));
    client.expect_end();
    gone.recv_timeout(PATIENCE).unwrap();
    // The server closes, and the client has not heard of it yet.
    let mut client = server.connect();
    client.stream.write_all(&[client_frame(TEXT, b"close"), late.clone(), late.clone()].concat()).unwrap();
    assert_eq!(client.frame().close().0, 4000);
    client.stream.write_all(&[late.clone(), client_frame(common::PING, b"?"), late].concat()).unwrap();
    client.send_close(4000);
    client.expect_end();
    gone.recv_timeout(PATIENCE).unwrap();
    assert_eq!(handled.load(Ordering::SeqCst), 2);
}

#[test]
fn a_client_that_just_goes_is_gone() {
    let (metrics, builder) = counted(echo());
    let (gone, builder) = telling(builder);
    let server = TestServer::new(builder);
    // At the end of a frame, and inside one.
    for sent in [&b""[..], b"\x81", b"\x81\x85\0\0\0\0hel"] {
        let mut client = server.connect();
        client.stream.write_all(sent).unwrap();
        client.stream.shutdown(Shutdown::Write).unwrap();
        client.expect_end();
        gone.recv_timeout(PATIENCE).unwrap();
        // A reset instead of an end.
        let mut client = server.connect();
        client.stream.write_all(sent).unwrap();
        socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        gone.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(server.hub.client_count(), 0);
    let stats = metrics.stats();
    assert_eq!((stats.active_connections, stats.total_connections), (0, 6));
    assert!(stats.errors.is_empty(), "going is no error: {:?}", stats.errors);
}

#[test]
fn send_json_returns_the_message() {
    let server = TestServer::new(Hub::builder());
    let (mut socket, client) = server.pair();
    let value = BTreeMap::from([("a", 1)]);
    client.send_json(&value).unwrap();
    assert_eq!(socket.text(), r#"{"a":1}"#);
    let error = client.send_json(&BTreeMap::from([([1, 2], 3)])).unwrap_err();
    assert!(matches!(error, SendJsonError::Serialize(_)) && error.source().is_some(), "JSON has no such keys");
    assert!(error.into_message().is_none());
    socket.close();
    eventually("the client is gone", || client.closed_at().is_some());
    let error = client.send_json(&value).unwrap_err();
    assert!(matches!(error, SendJsonError::Send(SendError::Closed(_))), "{error}");
    assert_eq!(error.into_message().unwrap().as_text(), Some(r#"{"a":1}"#));
}

#[test]
fn handlers_close_by_their_error() {
    let server = TestServer::new(Hub::builder().on_message(|_, message| match message.as_text() {
        Some("valid") => Err(HandlerError::close(4321, "because").into()),
        Some("invalid code") => Err(HandlerError::close(1005, "because").into()),
        Some("invalid reason") => Err(HandlerError::close(4321, "x".repeat(124)).into()),
        Some("panic") => panic!("on purpose"),
        _ => Err("the connection stays".into()),
    }));
    for (text, expected) in [
        ("valid", (4321, "because")),
        ("invalid code", (1011, "")),
        ("invalid reason", (1011, "")),
        ("panic", (1011, "")),
    ] {
        let mut client = server.connect();
        client.send_text("error");
        client.send_text(text);
        client.send_text("error");
        assert_eq!(client.expect_close(), (expected.0, expected.1.to_owned()), "{text}");
    }
}

#[test]
fn the_end_comes_without_waiting_for_hooks() {
    let (go_on, wait) = channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let server = TestServer::new(closes_on_demand().before_disconnect(move |_| {
        let _ = wait.lock().recv_timeout(PATIENCE * 3);
    }));
    let mut by_client = server.connect();
    by_client.send_close(1000);
    assert_eq!(by_client.frame().close().0, 1000);
    by_client.expect_end();

    let mut by_server = server.connect();
    by_server.send_text("4000 x");
    assert_eq!(by_server.expect_close().0, 4000);

    let mut failed = server.connect();
    failed.send_frame(0xc1, b"");
    assert_eq!(failed.frame().close().0, 1002);
    failed.expect_end();
    assert_eq!(server.hub.client_count(), 3, "all are in their hooks");
    for _ in 0..3 {
        go_on.send(()).unwrap();
    }
    eventually("all have gone", || server.hub.client_count() == 0);
}
