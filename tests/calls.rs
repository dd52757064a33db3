//! Calls: each ends in exactly one answer, refusal, timeout or end of the connection, and no thread ever waits for
//! itself.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use common::stream::SseClient;
use common::{PATIENCE, TEXT, TestServer, WsClient, counted, eventually};
use serde_json::{Value, json};
use wshub::calls::{CallError, CallRefusal, JsonCalls};
use wshub::protocol::events::Events;
use wshub::protocol::relay::{Identity, Relay};
use wshub::router::Router;
use wshub::{Client, Hub, HubBuilder, Message, Target};

const PONG: u8 = 0x8a;
const PING: u8 = 0x89;

fn router() -> Router {
    Router::json_field("type").on_not_found(|_, _| Ok(()))
}

fn server() -> TestServer {
    TestServer::new(router().install(Hub::builder()))
}

/// The next call that the peer gets: its id, method and data. Pings are answered.
fn asked(socket: &mut WsClient) -> (Value, String, Value) {
    let call = event(socket);
    assert_eq!(call["type"], "call", "{call}");
    (call["id"].clone(), call["method"].as_str().unwrap().to_owned(), call["data"].clone())
}

fn event(socket: &mut WsClient) -> Value {
    loop {
        let frame = socket.frame();
        match frame.first {
            PING => socket.send_frame(PONG, &frame.payload),
            TEXT => return serde_json::from_slice(&frame.payload).unwrap(),
            other => panic!("{other:#x}"),
        }
    }
}

fn reply(socket: &mut WsClient, id: &Value, data: &Value) {
    socket.send_text(&json!({"type": "reply", "id": id, "data": data}).to_string());
}

fn refuse(socket: &mut WsClient, id: &Value, code: &str) {
    socket.send_text(&json!({"type": "error", "id": id, "data": {"code": code, "message": "m"}}).to_string());
}

fn refused(code: &str) -> CallError {
    CallError::Refused { code: code.into(), message: "m".into() }
}

#[test]
fn a_call_is_answered_or_refused() {
    let server = server();
    let (mut socket, client) = server.pair_to("/ws");
    thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let first = client.call("set", Message::json(&json!({"n": 1})).unwrap(), PATIENCE);
            (first, client.call("get", "null", PATIENCE))
        });
        let (id, method, data) = asked(&mut socket);
        assert_eq!((&method[..], data), ("set", json!({"n": 1})));
        reply(&mut socket, &id, &json!([1, "x"]));
        let (other, ..) = asked(&mut socket);
        assert_ne!(id, other);
        refuse(&mut socket, &other, "busy");
        let (first, second) = answers.join().unwrap();
        assert_eq!(first.unwrap().as_text(), Some(r#"[1,"x"]"#));
        assert_eq!(second, Err(refused("busy")));
    });
    assert_eq!(client.pending_calls(), 0);
}

#[test]
fn a_call_that_is_not_answered_times_out_and_a_late_answer_is_counted() {
    let (metrics, builder) = counted(router().install(Hub::builder()));
    let server = TestServer::new(builder);
    let (mut socket, client) = server.pair_to("/ws");
    assert_eq!(client.call("m", "1", Duration::from_millis(20)), Err(CallError::Timeout));
    assert_eq!((client.pending_calls(), metrics.stats().call_timeouts), (0, 1));
    let (id, ..) = asked(&mut socket);
    reply(&mut socket, &id, &json!(1));
    reply(&mut socket, &id, &json!(1));
    eventually("both are counted", || metrics.stats().late_replies == 2);
    // Others' messages go on.
    thread::scope(|scope| {
        let answer = scope.spawn(|| client.call("m", "2", PATIENCE));
        let (id, _, data) = asked(&mut socket);
        assert_eq!(data, 2);
        reply(&mut socket, &id, &json!(2));
        assert_eq!(answer.join().unwrap().unwrap().as_text(), Some("2"));
    });
    assert_eq!((metrics.stats().late_replies, metrics.stats().call_timeouts), (2, 1));
}

#[test]
fn the_end_of_a_connection_ends_its_calls_at_once() {
    let server = server();
    for closes in [true, false] {
        let (mut socket, client) = server.pair_to("/ws");
        let start = Instant::now();
        thread::scope(|scope| {
            let answer = scope.spawn(|| client.call("m", "1", PATIENCE * 10));
            asked(&mut socket);
            if closes {
                socket.close();
            } else {
                drop(socket);
            }
            assert_eq!(answer.join().unwrap(), Err(CallError::Closed));
        });
        assert!(start.elapsed() < PATIENCE);
        assert_eq!(client.call("m", "1", PATIENCE), Err(CallError::Closed));
        let (sender, receiver) = channel();
        client.call_then("m", "1", PATIENCE, move |_, result| sender.send(result).unwrap());
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), Err(CallError::Closed));
    }
}

#[test]
fn who_cannot_be_called_is_not() {
    let plain = TestServer::new(Hub::builder());
    let (_socket, client) = plain.pair_to("/ws");
    assert_eq!(client.call("m", "1", PATIENCE), Err(CallError::Unsupported));
    let server = server();
    let (_socket, client) = server.pair_to("/ws");
    for payload in [Message::binary(vec![1]), Message::text("no JSON")] {
        assert_eq!(client.call("m", payload, PATIENCE), Err(CallError::Unsupported));
    }
    let events = wshub::Server::bind("127.0.0.1:0").unwrap().event_stream("/events", &server.hub).spawn().unwrap();
    let _stream = SseClient::connect(events.local_addr().unwrap(), "/events", "");
    eventually("the stream is there", || server.hub.client_count() == 2);
    let stream = server.hub.clients().into_iter().find(Client::is_event_stream).unwrap();
    assert_eq!(stream.call("m", "1", PATIENCE), Err(CallError::Unsupported));
    assert_eq!(stream.pending_calls() + client.pending_calls(), 0);
}

#[test]
fn pending_calls_are_bounded() {
    let server = server();
    let (mut socket, client) = server.pair_to("/ws");
    let (sender, receiver) = channel();
    let then = |sender: &std::sync::mpsc::Sender<_>| {
        let sender = sender.clone();
        move |_: &Client, result| sender.send(result).unwrap()
    };
    (0..64).for_each(|_| client.call_then("m", "1", PATIENCE * 10, then(&sender)));
    assert_eq!(client.pending_calls(), 64);
    assert_eq!(client.call("m", "1", PATIENCE), Err(CallError::TooMany));
    client.call_then("m", "1", PATIENCE, then(&sender));
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), Err(CallError::TooMany));
    let (id, ..) = asked(&mut socket);
    reply(&mut socket, &id, &json!(0));
    assert!(receiver.recv_timeout(PATIENCE).unwrap().is_ok());
    client.call_then("m", "1", PATIENCE * 10, then(&sender));
    drop(socket);
    // Each closure exactly once, whatever the order.
    let ends: Vec<_> = (0..64).map(|_| receiver.recv_timeout(PATIENCE).unwrap()).collect();
    assert!(ends.iter().all(|end| *end == Err(CallError::Closed)), "{ends:?}");
    drop(sender);
    assert!(receiver.recv_timeout(PATIENCE).is_err(), "no closure runs twice");
}

#[test]
fn the_own_thread_is_not_made_to_wait_for_itself() {
    let (sender, receiver) = channel();
    let sender = std::sync::Mutex::new(sender);
    let router = router().on("go", move |client, _| {
        let start = Instant::now();
        let blocking = client.call("m", "1", PATIENCE * 100);
        let many: Vec<_> = client.hub().call(client.id(), "m", "1", PATIENCE * 100).collect();
        assert_eq!(many, [(client.id(), Err(CallError::OwnThread))]);
        assert!(start.elapsed() < PATIENCE, "at once");
        let (own, sender) = (thread::current().id(), sender.lock().unwrap().clone());
        client.call_then("m", "2", PATIENCE, move |client, result| {
            client.send("done").unwrap();
            sender.send((blocking, result, thread::current().id() == own)).unwrap();
        });
        Ok(())
    });
    let server = TestServer::new(router.install(Hub::builder()));
    let mut socket = server.connect();
    socket.send_text(r#"{"type":"go"}"#);
    let (id, _, data) = asked(&mut socket);
    assert_eq!(data, 2, "the blocking one was not sent");
    reply(&mut socket, &id, &json!("yes"));
    assert_eq!(socket.text(), "done");
    let (blocking, answer, same_thread) = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!((blocking, answer.unwrap().as_text()), (Err(CallError::OwnThread), Some("\"yes\"")));
    assert!(same_thread);
}

#[test]
fn a_closure_learns_of_its_timeout_on_the_connections_thread() {
    let (threads, thread_of) = channel();
    let (results, result) = channel();
    let builder = router().on("go", {
        let results = std::sync::Mutex::new(results.clone());
        move |client, _| {
            let results = results.lock().unwrap().clone();
            client.call_then("m", "1", Duration::from_millis(30), move |_, result| {
                results.send((result, thread::current().id())).unwrap();
            });
            Ok(())
        }
    });
    let threads = std::sync::Mutex::new(threads);
    let builder = builder.install(Hub::builder()).after_connect(move |_| {
        threads.lock().unwrap().send(thread::current().id()).unwrap();
    });
    let server = TestServer::new(builder);
    let (mut socket, client) = server.pair_to("/ws");
    let own = thread_of.recv_timeout(PATIENCE).unwrap();
    for round in 0..3 {
        socket.send_text(r#"{"type":"go"}"#);
        asked(&mut socket);
        let (outcome, on) = result.recv_timeout(PATIENCE).unwrap();
        assert_eq!((outcome, on == own), (Err(CallError::Timeout), true), "round {round}");
    }
    // From another thread, while the connection's is blocked in a read.
    let sender = results.clone();
    client.call_then("m", "1", Duration::from_millis(30), move |_, result| {
        sender.send((result, thread::current().id())).unwrap();
    });
    thread::scope(|scope| {
        scope.spawn(|| {
            asked(&mut socket);
            let frame = socket.frame();
            assert_eq!(frame.first, PING, "it wakes the connection's thread");
            socket.send_frame(PONG, &frame.payload);
        });
        let (outcome, on) = result.recv_timeout(PATIENCE).unwrap();
        assert_eq!((outcome, on == own), (Err(CallError::Timeout), true));
    });
    socket.sync();
}

#[test]
fn calls_do_not_keep_a_silent_peer_alive() {
    let config = |c: wshub::Config| c.ping_period(Duration::from_millis(100)).pong_timeout(Duration::from_millis(300));
    let server = TestServer::new(router().install(Hub::builder()).map_config(config));
    let (_socket, client) = server.pair_to("/ws");
    let (sender, receiver) = channel();
    // Each read ends early for one of them, and none of them counts as a sign of life.
    for n in 0..60 {
        let sender = sender.clone();
        client.call_then("m", "1", Duration::from_millis(20 * n), move |_, _| _ = sender.send(()));
    }
    eventually("it is gone", || server.hub.client_count() == 0);
    (0..60).for_each(|_| receiver.recv_timeout(PATIENCE).unwrap());
}

#[test]
fn many_are_asked_at_once_and_answer_as_they_like() {
    let (metrics, builder) = counted(router().install(Hub::builder()));
    let server = TestServer::new(builder);
    let mut pairs: Vec<_> = (0..4).map(|_| server.pair_to("/ws")).collect();
    for (_, client) in &pairs {
        client.join("sensors").unwrap();
    }
    let mut answers = server.hub.call(Target::room("sensors"), "read", "null", Duration::from_secs(3));
    let ids: Vec<Value> = pairs.iter_mut().map(|(socket, _)| asked(socket).0).collect();
    reply(&mut pairs[2].0, &ids[2], &json!(2));
    assert_eq!(answers.next(), Some((pairs[2].1.id(), Ok(Message::raw_json("2")))));
    refuse(&mut pairs[0].0, &ids[0], "broken");
    assert_eq!(answers.next(), Some((pairs[0].1.id(), Err(refused("broken")))));
    let (socket, closed) = pairs.pop().unwrap();
    drop(socket);
    assert_eq!(answers.next(), Some((closed.id(), Err(CallError::Closed))));
    assert_eq!(answers.next(), Some((pairs[1].1.id(), Err(CallError::Timeout))));
    assert_eq!((answers.next(), answers.next()), (None, None));
    let dropped = server.hub.call(Target::all(), "read", "null", PATIENCE);
    assert_eq!((pairs[1].1.pending_calls(), server.hub.load().pending_calls), (1, pairs.len()));
    drop(dropped);
    assert_eq!((server.hub.load().pending_calls, metrics.stats().call_timeouts), (0, 1), "given up is not timed out");
    assert_eq!(pairs[1].1.pending_calls(), 0);
    assert_eq!(server.hub.call(Target::room("nobody"), "m", "1", PATIENCE).count(), 0);
}

/// A call leaves at once, also within a cork of its caller.
#[test]
fn a_caller_does_not_wait_for_the_end_of_its_own_cork() {
    let server = server();
    let (mut socket, client) = server.pair_to("/ws");
    thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let _cork = server.hub.cork();
            client.call("m", "1", PATIENCE)
        });
        let (id, ..) = asked(&mut socket);
        reply(&mut socket, &id, &json!(1));
        assert!(answer.join().unwrap().is_ok());
    });
}

#[test]
fn one_of_a_room_is_asked_in_turn() {
    let server = server();
    let mut pairs: Vec<_> = (0..3).map(|_| server.pair_to("/ws")).collect();
    for (_, client) in &pairs {
        client.join("workers").unwrap();
    }
    let mut asked_clients = Vec::new();
    for _ in 0..6 {
        let mut answers = server.hub.call(Target::one_of("workers"), "work", "1", PATIENCE);
        let at = pairs.iter().position(|(_, client)| client.pending_calls() == 1).unwrap();
        let (id, ..) = asked(&mut pairs[at].0);
        reply(&mut pairs[at].0, &id, &json!(at));
        assert_eq!(answers.next().unwrap().1.unwrap().as_text(), Some(&at.to_string()[..]));
        assert_eq!(answers.next(), None, "one of them only");
        asked_clients.push(at);
    }
    assert_eq!(asked_clients[..3], asked_clients[3..], "in turn");
    asked_clients.sort_unstable();
    assert_eq!(asked_clients, [0, 0, 1, 1, 2, 2]);
    let skipped = Target::one_of("workers").except(pairs[0].1.id()).except(pairs[1].1.id());
    for _ in 0..3 {
        assert_eq!(server.hub.send(skipped.clone(), "x").unwrap().queued, 1);
        assert_eq!(pairs[2].0.text(), "x");
    }
    assert_eq!(server.hub.send(Target::one_of("empty"), "x").unwrap().queued, 0);
}

#[test]
fn handlers_may_ask_other_clients_also_when_messages_come_together() {
    let router = router().on("ask", |client, _| {
        let other = client.hub().clients().into_iter().find(|other| other != client).unwrap();
        let answer = other.call("m", "1", PATIENCE)?;
        Ok(client.send(answer)?)
    });
    let server = TestServer::new(router.install(Hub::builder()));
    let (mut one, mut two) = (server.connect(), server.connect());
    let ask = common::client_frame(TEXT, br#"{"type":"ask"}"#);
    std::io::Write::write_all(&mut one.stream, &ask.repeat(3)).unwrap();
    for n in 0..3 {
        let (id, ..) = asked(&mut two);
        reply(&mut two, &id, &json!(n));
    }
    (0..3).for_each(|n| assert_eq!(one.text(), n.to_string()));
}

fn calls_of_clients(builder: HubBuilder) {
    let server = TestServer::new(builder);
    let mut socket = server.connect();
    let mut answer = |frame: Value| {
        socket.send_text(&frame.to_string());
        loop {
            let event = event(&mut socket);
            if event["type"] != "connection.established" {
                return event;
            }
        }
    };
    let call = |id: Value, method: &str, data: Value| json!({"type": "call", "id": id, "method": method, "data": data});
    assert_eq!(answer(call(json!(7), "double", json!(21))), json!({"type": "reply", "id": 7, "data": 42}));
    let refused = |code: &str| json!({"code": code, "message": "no number"});
    let wrong = answer(call(json!("a"), "double", json!("x")));
    assert_eq!(wrong, json!({"type": "error", "id": "a", "data": refused("bad_request")}));
    let unknown = answer(call(json!(1.5), "other", json!(null)));
    assert_eq!((&unknown["id"], &unknown["data"]["code"]), (&json!(1.5), &json!("unknown_method")));
    let missing = answer(json!({"type": "call", "id": 8, "method": "double"}));
    assert_eq!(missing["data"]["code"], "bad_request");
}

fn double(_: &Client, data: &Message) -> Result<Message, CallRefusal> {
    let number: i64 = data.parse_json().map_err(|_| CallRefusal::new("bad_request", "no number"))?;
    Ok(Message::text((number * 2).to_string()))
}

#[test]
fn clients_call_routers_and_events_and_relays() {
    calls_of_clients(router().on_call("double", double).install(Hub::builder()));
    calls_of_clients(Events::new().on_call("double", double).install(Hub::builder()));
    let identity = |_: &wshub::RequestHead| Ok(Identity::new("ann", None));
    let relay = Relay::builder(identity).on_call("double", |conn, data| double(conn.client(), data));
    calls_of_clients(relay.install(Hub::builder()));
}

#[test]
fn an_events_hub_calls_and_its_own_handlers_come_first() {
    let server = TestServer::new(Events::new().install(Hub::builder()));
    let (mut socket, client) = server.pair_to("/ws");
    assert_eq!(event(&mut socket)["type"], "connection.established");
    thread::scope(|scope| {
        let answer = scope.spawn(|| client.call("m", "1", PATIENCE));
        let (id, ..) = asked(&mut socket);
        reply(&mut socket, &id, &json!({"ok": true}));
        assert_eq!(answer.join().unwrap().unwrap().as_text(), Some(r#"{"ok":true}"#));
    });
    socket.send_text(r#"{"type":"call"}"#);
    assert_eq!(event(&mut socket)["data"]["code"], "bad_request");
    let own = Events::new().on("call", |client, _| Ok(client.send("mine")?));
    let server = TestServer::new(own.install(Hub::builder()));
    let mut socket = server.connect();
    event(&mut socket);
    socket.send_text(r#"{"type":"call","id":1,"method":"m"}"#);
    assert_eq!(socket.text(), "mine");
}

#[test]
fn a_format_that_panics_refuses_and_a_closure_that_panics_closes() {
    struct Panics;
    impl wshub::calls::CallFormat for Panics {
        fn encode(&self, _: u64, _: &str, _: &Message) -> Option<Message> {
            panic!("a format's own");
        }
    }
    let server = TestServer::new(Hub::builder().call_format(Panics));
    let (_socket, client) = server.pair_to("/ws");
    assert_eq!(client.call("m", "1", PATIENCE), Err(CallError::Unsupported));
    let server = TestServer::new(router().install(Hub::builder()).call_format(JsonCalls));
    let (mut socket, client) = server.pair_to("/ws");
    client.call_then("m", "1", PATIENCE, |_, _| panic!("a closure's own"));
    let (id, ..) = asked(&mut socket);
    reply(&mut socket, &id, &json!(1));
    let close = loop {
        let frame = socket.frame();
        if frame.first != PING {
            break frame.close().0;
        }
    };
    assert_eq!(close, 1011);
}
