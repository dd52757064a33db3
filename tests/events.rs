//! The events protocol on the wire.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::net::SocketAddr;
use std::thread;
use std::time::SystemTime;

use common::{BINARY, TEXT, TestServer, WsClient, client_frame, deep_queue, eventually, split_answer, upgrade_request};
use serde_json::{Value, json};
use wshub::middleware::Recovery;
use wshub::protocol::events::{self, Event, EventError, Events, emit};
use wshub::{Admission, Config, HandlerError, Hub, HubBuilder, Limits, Rejection};

#[derive(serde::Deserialize)]
struct Publish {
    room: String,
    data: Box<serde_json::value::RawValue>,
}

fn app() -> Events {
    Events::new()
        .authenticator(|_, frame| {
            let frame: Value = frame.parse()?;
            let user = frame["token"].as_str().and_then(|token| token.strip_prefix("user:"));
            user.map(str::to_owned).ok_or_else(|| EventError::new("unauthorized", "unknown token"))
        })
        .may_join(|_, room| !room.starts_with("private:"))
        .on("publish", |client, frame| {
            let Publish { room, data } = frame.parse()?;
            events::emit_to_room(client.hub(), "message", data, &room)?;
            Ok(())
        })
        .on("fail", |_, _| Err("the password of the database is 1234".into()))
        .on("panic", |_, _| panic!("as told"))
        .on("leave", |_, _| Err(HandlerError::close(4000, "bye").into()))
        .on("own", |_, _| Err(EventError::new("own", "an error of ours").into()))
}

fn serve(events: Events, builder: HubBuilder) -> TestServer {
    TestServer::new(events.install(builder))
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// The next event, which must be byte for byte an envelope with a timestamp of now.
fn next(socket: &mut WsClient) -> (String, Value) {
    let text = socket.text();
    let event: Value = serde_json::from_str(&text).unwrap();
    let timestamp = event["timestamp"].as_u64().unwrap();
    assert!(now() - timestamp <= 20, "{text}");
    assert!(text.starts_with(r#"{"type":""#) && text.ends_with(&format!(r#","timestamp":{timestamp}}}"#)), "{text}");
    assert_eq!(event.as_object().unwrap().len(), 3, "{text}");
    (event["type"].as_str().unwrap().to_owned(), event["data"].clone())
}

fn connect(server: &TestServer) -> WsClient {
    let mut socket = server.connect();
    assert_eq!(next(&mut socket).0, "connection.established");
    socket
}

fn ask(socket: &mut WsClient, text: &str) -> (String, Value) {
    socket.send_text(text);
    next(socket)
}

/// Asks and expects an error event; gives its code.
fn refused(socket: &mut WsClient, text: &str) -> String {
    socket.send_text(text);
    refusal(socket)
}

fn refusal(socket: &mut WsClient) -> String {
    let (kind, data) = next(socket);
    assert_eq!(kind, "error");
    assert!(data["message"].as_str().is_some_and(|m| !m.is_empty()) && data.as_object().unwrap().len() == 2);
    data["code"].as_str().unwrap().to_owned()
}

fn timeless(text: &str) -> &str {
    text.rsplit_once(",\"timestamp\":").unwrap().0
}

#[test]
fn the_built_ins_answer_byte_for_byte() {
    let server = serve(app(), Hub::builder());
    let (mut socket, client) = server.pair();
    let id = client.id();
    let established = socket.text();
    assert_eq!(timeless(&established), format!(r#"{{"type":"connection.established","data":{{"clientId":"{id}"}}"#));
    socket.send_text(r#"{"type":"ping"}"#);
    let pong = socket.text();
    let at = serde_json::from_str::<Value>(&pong).unwrap()["timestamp"].as_u64().unwrap();
    assert_eq!(pong, format!(r#"{{"type":"pong","data":{{"timestamp":{at}}},"timestamp":{at}}}"#));
    for (frame, answer) in [
        (r#"{"type":"subscribe","room":"a"}"#, r#"{"type":"subscribed","data":{"room":"a"}"#),
        (r#"{"room":"a","type":"subscribe"}"#, r#"{"type":"subscribed","data":{"room":"a"}"#),
        (r#"{"type":"unsubscribe","room":"a"}"#, r#"{"type":"unsubscribed","data":{"room":"a"}"#),
        (r#"{"type":"unsubscribe","room":"a"}"#, r#"{"type":"unsubscribed","data":{"room":"a"}"#),
        (
            r#"{"type":"authenticate","token":"user:ann","userId":"root"}"#,
            r#"{"type":"authenticated","data":{"userId":"ann","status":"success"}"#,
        ),
        (r#"{"type":"own"}"#, r#"{"type":"error","data":{"code":"own","message":"an error of ours"}"#),
    ] {
        socket.send_text(frame);
        assert_eq!(timeless(&socket.text()), answer, "{frame}");
    }
    assert_eq!(client.user_id().as_deref(), Some("ann"));
}

#[test]
fn the_strings_are_stable() {
    let all = [
        events::CONNECTION_ESTABLISHED,
        events::CONNECTION_CLOSED,
        events::ERROR,
        events::PONG,
        events::SUBSCRIBED,
        events::UNSUBSCRIBED,
        events::AUTHENTICATED,
    ];
    let expected =
        ["connection.established", "connection.closed", "error", "pong", "subscribed", "unsubscribed", "authenticated"];
    assert_eq!(all, expected);
}

#[test]
fn every_error_is_an_event_and_the_connection_stays() {
    let limits = Limits::default().max_rooms_per_client(1).max_clients_per_room(1).max_connections_per_user(1);
    let builder = Hub::builder().limits(limits).before_room_join(|_, room| match room {
        "hooked" => Err("a secret reason".into()),
        _ => Ok(()),
    });
    let server = serve(app(), builder);
    let (mut ann, mut bob) = (connect(&server), connect(&server));
    ask(&mut ann, r#"{"type":"authenticate","token":"user:ann"}"#);
    ask(&mut ann, r#"{"type":"subscribe","room":"full"}"#);
    let long = format!(r#"{{"type":"subscribe","room":"{}"}}"#, "x".repeat(257));
    for (frame, code) in [
        (r#"{"type":"subscribe","room":"full"}"#, "room_full"),
        (r#"{"type":"subscribe","room":""}"#, "invalid_room"),
        (&long, "invalid_room"),
        (r#"{"type":"subscribe","room":"private:x"}"#, "forbidden"),
        (r#"{"type":"subscribe","room":"hooked"}"#, "forbidden"),
        (r#"{"type":"unsubscribe","room":""}"#, "invalid_room"),
        (r#"{"type":"authenticate","token":"root"}"#, "unauthorized"),
        (r#"{"type":"authenticate","token":"user:"}"#, "unauthorized"),
        (r#"{"type":"authenticate","userId":"root"}"#, "unauthorized"),
        (r#"{"type":"authenticate","token":"user:ann"}"#, "too_many_connections"),
        (r#"{"type":"nonsense"}"#, "unknown_event"),
        (r#"{"type":"connection.closed"}"#, "unknown_event"),
        (r#"{"type":"own"}"#, "own"),
        (r#"{"type":"fail"}"#, "internal"),
    ] {
        assert_eq!(refused(&mut bob, frame), code, "{frame}");
    }
    assert_eq!(refused(&mut ann, r#"{"type":"subscribe","room":"second"}"#), "too_many_rooms");
    assert_eq!(ask(&mut bob, r#"{"type":"ping"}"#).0, "pong");
    assert_eq!(server.hub.user_connection_count("root"), 0);
}

#[test]
fn an_internal_error_keeps_its_reason() {
    let server = serve(app(), Hub::builder());
    let mut socket = connect(&server);
    let (_, data) = ask(&mut socket, r#"{"type":"fail"}"#);
    assert_eq!(data, json!({"code": "internal", "message": "internal error"}));
}

#[test]
fn bad_frames_of_every_kind() {
    let server = serve(app(), Hub::builder());
    let mut socket = connect(&server);
    let deep = "[".repeat(100_000);
    for frame in [
        "",
        " ",
        "{",
        "null",
        "[]",
        "5",
        r#""ping""#,
        "{}",
        r#"{"type":null}"#,
        r#"{"type":5}"#,
        r#"{"type":["ping"]}"#,
        r#"{"type":"ping""#,
        r#"{"type":"ping"} {}"#,
        r#"{"type":"ping","type":"ping"}"#,
        r"{'type':'ping'}",
        r#"{"type":"\ud800"}"#,
        r#"{"type":"subscribe"}"#,
        r#"{"type":"subscribe","room":null}"#,
        r#"{"type":"subscribe","room":7}"#,
        r#"{"type":"subscribe","room":["a"]}"#,
        r#"{"type":"subscribe","room":"a","room":"b"}"#,
        r#"{"type":"unsubscribe","room":{}}"#,
        r#"{"type":"publish","room":"a"}"#,
        &deep,
    ] {
        assert_eq!(refused(&mut socket, frame), "bad_request", "{frame:.80}");
    }
    socket.send_frame(BINARY, br#"{"type":"ping"}"#);
    assert_eq!(refusal(&mut socket), "bad_request");
    assert_eq!(ask(&mut socket, r#"{"type":"ping"}"#).0, "pong");
    assert_eq!(server.hub.rooms().len(), 0);
}

#[test]
fn what_breaks_the_websocket_protocol_closes() {
    let server = serve(app(), Hub::builder().config(Config::default().max_message_size(1000)));
    let mut large = connect(&server);
    large.send_text(&format!(r#"{{"type":"ping","x":"{}"}}"#, "x".repeat(1000)));
    assert_eq!(large.expect_close().0, 1009);
    let mut not_utf8 = connect(&server);
    not_utf8.send_frame(TEXT, b"{\"type\":\"\xff\"}");
    assert_eq!(not_utf8.expect_close().0, 1007);
    // Half a frame, and gone.
    let mut truncated = connect(&server);
    let frame = client_frame(TEXT, br#"{"type":"ping"}"#);
    std::io::Write::write_all(&mut truncated.stream, &frame[..10]).unwrap();
    drop(truncated);
    eventually("all are gone", || server.hub.client_count() == 0);
}

#[test]
fn panics_and_closes_of_handlers() {
    let plain = serve(app(), Hub::builder());
    let mut socket = connect(&plain);
    socket.send_text(r#"{"type":"panic"}"#);
    assert_eq!(socket.expect_close().0, 1011);
    let mut socket = connect(&plain);
    socket.send_text(r#"{"type":"leave"}"#);
    assert_eq!(socket.expect_close(), (4000, "bye".to_owned()));
    let recovering = serve(app().wrap(Recovery), Hub::builder());
    let mut socket = connect(&recovering);
    assert_eq!(refused(&mut socket, r#"{"type":"panic"}"#), "internal");
}

#[test]
fn without_an_authenticator_nobody_is_anybody() {
    let server = serve(Events::new(), Hub::builder());
    let (mut socket, client) = server.pair();
    next(&mut socket);
    assert_eq!(refused(&mut socket, r#"{"type":"authenticate","userId":"root"}"#), "unauthorized");
    assert_eq!(client.user_id(), None);
}

#[test]
fn built_ins_do_not_reach_the_handler_and_all_else_does() {
    let events = Events::new().on_connect(|client| drop(client.send("hello"))).on_message(|client, message| {
        client.send(message)?;
        Ok(())
    });
    let server = serve(events.on("ping", |_, _| panic!("a built-in")), Hub::builder());
    let mut socket = connect(&server);
    assert_eq!(socket.text(), "hello");
    for built_in in ["ping", "subscribe", "unsubscribe", "authenticate"] {
        let (kind, _) = ask(&mut socket, &json!({"type": built_in, "room": "a"}).to_string());
        assert_ne!(kind, built_in);
    }
    for text in ["no JSON", r#"{"type":"mine"}"#, r#"{"type":7}"#] {
        socket.send_text(text);
        assert_eq!(socket.text(), text);
    }
    socket.send_frame(BINARY, &[0, 255]);
    assert_eq!(socket.frame().payload, [0, 255]);
}

#[test]
fn emit_reaches_each_target_once() {
    let builder = Hub::builder().on_upgrade(|head| {
        let user = head.query_param("user").ok_or(Rejection::unauthorized())?;
        Ok(Admission::user(user).room("all").room("more"))
    });
    let server = serve(Events::new(), builder);
    let (mut ann, client) = server.pair_to("/ws?user=ann");
    let mut bob = server.connect_to("/ws?user=bob");
    next(&mut ann);
    next(&mut bob);
    let hub = &server.hub;
    assert_eq!(events::emit_broadcast(hub, "1", ()).unwrap().queued, 2);
    assert_eq!(events::emit_to_room(hub, "2", 2, "all").unwrap().queued, 2);
    assert_eq!(events::emit_to_rooms(hub, "3", 3, ["all", "more", "none"]).unwrap().queued, 2);
    assert_eq!(events::emit_to_users(hub, "4", 4, ["ann", "nobody"]).unwrap().queued, 1);
    assert_eq!(events::emit_to_clients(hub, "5", 5, [client.id()]).unwrap().queued, 1);
    let event = Event::new("6", json!({"a": null})).to_room("all").to_users(["bob"]).to_clients([client.id()]);
    assert_eq!(emit(hub, &event).unwrap().queued, 2);
    assert_eq!(emit(hub, &Event::new("x", 0).to_users(["ann"]).to_all()).unwrap().queued, 2);
    assert_eq!(emit(hub, &Event::new("x", 0).to_rooms(Vec::<String>::new())).unwrap().queued, 0);
    assert_eq!(events::broadcast_raw(hub, "raw").queued, 2);
    let kinds = |socket: &mut WsClient, count| (0..count).map(|_| next(socket).0).collect::<String>();
    assert_eq!(timeless(&ann.text()), r#"{"type":"1","data":null"#);
    assert_eq!(kinds(&mut ann, 6), "23456x");
    assert_eq!(kinds(&mut bob, 5), "1236x");
    assert_eq!((ann.text(), bob.text()), ("raw".to_owned(), "raw".to_owned()));
    ann.close();
    eventually("ann is gone", || hub.client_count() == 1);
    assert_eq!(events::emit_to_clients(hub, "7", 7, [client.id()]).unwrap().queued, 0, "gone is no error");
}

#[test]
fn a_map_that_is_no_json_is_an_error() {
    let keys = std::collections::HashMap::from([((1, 2), 3)]);
    assert!(events::emit_broadcast(&Hub::new(), "x", keys).is_err());
}

#[test]
fn data_is_passed_on_as_it_came() {
    let server = serve(app(), Hub::builder());
    let mut socket = connect(&server);
    ask(&mut socket, r#"{"type":"subscribe","room":"a"}"#);
    let data = r#"{"z":1e400,"a":123456789012345678901234567890,"z":"<&>\u2028"}"#;
    socket.send_text(&format!(r#"{{"type":"publish","room":"a","data":{data}}}"#));
    assert_eq!(timeless(&socket.text()), format!(r#"{{"type":"message","data":{data}"#));
}

#[test]
fn a_client_that_does_not_keep_up_is_closed_after_ten_drops() {
    let server = serve(app(), Hub::builder().config(deep_queue(Config::default())));
    let (_socket, client) = server.pair();
    common::stall(&client);
    // The stall has met one full queue. The kernel may still take a message later, which ends the run of drops.
    let mut in_a_row = 1;
    for _ in 0..1000 {
        let delivery = events::emit_broadcast(&server.hub, "x", "y".repeat(300_000)).unwrap();
        in_a_row = if delivery.dropped == 1 { in_a_row + 1 } else { 0 };
        assert!(in_a_row <= 10);
        if client.is_closed() {
            break;
        }
    }
    assert_eq!((in_a_row, client.is_closed()), (10, true));
    let patient = serve(app().max_consecutive_drops(0), Hub::builder().config(deep_queue(Config::default())));
    let (_socket, client) = patient.pair();
    common::stall(&client);
    for _ in 0..50 {
        let _ = events::emit_broadcast(&patient.hub, "x", "y".repeat(300_000)).unwrap();
    }
    assert!(!client.is_closed());
}

#[test]
fn one_connection_too_many_gets_a_503_in_json() {
    let server = serve(app(), Hub::builder().limits(Limits::default().max_connections(1)));
    let _first = connect(&server);
    let answer = common::exchange(server.addr, upgrade_request("GET /ws HTTP/1.1", &[]).as_bytes());
    assert!(answer.contains("\r\nContent-Type: application/json\r\n"), "{answer}");
    assert_eq!(split_answer(&answer), (503, r#"{"error":"too many connections"}"#.to_owned()));
    // A refusal that is no limit is left as it is.
    let answer = common::exchange(server.addr, upgrade_request("GET /ws HTTP/1.1", &["Origin: http://b"]).as_bytes());
    assert_eq!(split_answer(&answer), (403, "origin not allowed\n".to_owned()));
}

#[test]
fn a_thousand_joins_and_back() {
    let server = serve(app(), Hub::builder().config(deep_queue(Config::default())));
    let (mut socket, client) = server.pair();
    next(&mut socket);
    for i in 0..1000 {
        assert_eq!(ask(&mut socket, &json!({"type": "subscribe", "room": i.to_string()}).to_string()).0, "subscribed");
    }
    assert_eq!((client.room_count(), server.hub.rooms().len()), (1000, 1000));
    for i in 0..1000 {
        let frame = json!({"type": "unsubscribe", "room": i.to_string()}).to_string();
        assert_eq!(ask(&mut socket, &frame).0, "unsubscribed");
    }
    assert_eq!((client.room_count(), server.hub.rooms().len()), (0, 0));
}

/// Runs `what` for two greeted clients, each on a thread.
fn two_at_once<T: Send + 'static>(addr: SocketAddr, what: fn(WsClient) -> T) -> Vec<T> {
    let racer = move || {
        let mut socket = WsClient::connect(addr, "/ws", "");
        next(&mut socket);
        what(socket)
    };
    let racers = [thread::spawn(racer), thread::spawn(racer)];
    racers.into_iter().map(|racer| racer.join().unwrap()).collect()
}

#[test]
fn two_clients_race_for_the_same_rooms() {
    let server = serve(app(), Hub::builder());
    let mut sockets = two_at_once(server.addr, |mut socket| {
        for _ in 0..300 {
            assert_eq!(ask(&mut socket, r#"{"type":"subscribe","room":"r"}"#).0, "subscribed");
            assert_eq!(ask(&mut socket, r#"{"type":"unsubscribe","room":"r"}"#).0, "unsubscribed");
        }
        assert_eq!(ask(&mut socket, r#"{"type":"subscribe","room":"r"}"#).0, "subscribed");
        socket
    });
    assert_eq!(server.hub.room_size("r"), 2);
    sockets[0].send_text(r#"{"type":"publish","room":"r","data":[1]}"#);
    for socket in &mut sockets {
        assert_eq!(next(socket), ("message".to_owned(), json!([1])));
    }
}

#[test]
fn two_clients_race_to_be_the_only_ann() {
    let server = serve(app(), Hub::builder().limits(Limits::default().max_connections_per_user(1)));
    let results = two_at_once(server.addr, |mut socket| {
        (ask(&mut socket, r#"{"type":"authenticate","token":"user:ann"}"#).0, socket)
    });
    let mut answers: Vec<_> = results.iter().map(|(answer, _)| answer.as_str()).collect();
    answers.sort_unstable();
    assert_eq!(answers, ["authenticated", "error"]);
    assert_eq!(server.hub.user_connection_count("ann"), 1);
}
