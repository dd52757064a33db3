//! Members and calls under hostile peers and broken handlers: each gets its error, and nothing else is hurt.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::{Log, PATIENCE, TestServer, WsClient, counted, errors, eventually};
use serde_json::{Value, json};
use wshub::calls::{CallError, CallRefusal};
use wshub::members::{MemberChange, MemberError};
use wshub::metrics::ErrorType;
use wshub::protocol::events::Events;
use wshub::protocol::relay::{Identity, Relay};
use wshub::router::Router;
use wshub::{Admission, Client, Config, Hub, HubBuilder, Message, RoomOptions, Target};

/// Logs what it does not understand.
fn router(log: &Log) -> Router {
    let log = log.clone();
    Router::json_field("type").on_not_found(move |_, message| {
        log.add(message.as_text().unwrap_or_default());
        Ok(())
    })
}

/// The next message; pings are answered.
fn event(socket: &mut WsClient) -> Value {
    loop {
        let frame = socket.frame();
        match frame.first {
            common::TEXT => return serde_json::from_slice(&frame.payload).unwrap(),
            0x89 => socket.send_frame(0x8a, &frame.payload),
            other => panic!("{other:#x}"),
        }
    }
}

fn asked(socket: &mut WsClient) -> Value {
    let call = event(socket);
    assert_eq!(call["type"], "call", "{call}");
    call["id"].clone()
}

fn reply(socket: &mut WsClient, id: &Value, data: &Value) {
    socket.send_text(&json!({"type": "reply", "id": id, "data": data}).to_string());
}

/// The close code that comes after any other frames.
fn close_code(socket: &mut WsClient) -> u16 {
    loop {
        let frame = socket.frame();
        if frame.first == common::CLOSE {
            return frame.close().0;
        }
    }
}

#[test]
fn a_member_hook_that_panics_loses_its_report_and_nothing_else() {
    let log = Log::default();
    let told = log.clone();
    let (metrics, builder) = counted(Hub::builder());
    let builder = Events::new().install(builder.rooms("m:*", RoomOptions::members()));
    let builder = builder.on_member_change(move |_, room, change| {
        let id = &change.member().id;
        assert!(!id.starts_with("bad"), "a hook's own");
        told.add(format!("{room} {} {id}", if matches!(change, MemberChange::Left(_)) { "left" } else { "joined" }));
    });
    let server = TestServer::new(
        builder.on_upgrade(|head| Ok(Admission::user(head.query_param("user").unwrap()).room("m:x").room("m:y"))),
    );
    let mut ann = server.connect_to("/ws?user=ann");
    let bad = server.connect_to("/ws?user=bad");
    log.wait("m:y joined ann");
    let bob = server.connect_to("/ws?user=bob");
    log.wait("m:x joined bob");
    log.wait("m:y joined bob");
    eventually("two panics are counted, one a room", || errors(&metrics, ErrorType::Panic) == 2);
    let ids: Vec<_> = server.hub.members("m:x").iter().map(|member| member.id.to_string()).collect();
    assert_eq!(ids, ["ann", "bad", "bob"], "the list does not depend on the hook");
    bad.close();
    bob.close();
    log.wait("m:x left bob");
    log.wait("m:y left bob");
    eventually("four panics", || errors(&metrics, ErrorType::Panic) == 4);
    // Clients were told of all, the hook's failure or not.
    let mut known = BTreeSet::new();
    let mut heard = 0;
    while heard < 10 {
        let change = event(&mut ann);
        for (list, is_in) in [("joined", true), ("left", false)] {
            for member in change["data"][list].as_array().into_iter().flatten() {
                let key = format!("{} {}", change["data"]["room"], member["id"]);
                heard += 1;
                assert!(if is_in { known.insert(key) } else { known.remove(&key) }, "{change}");
            }
        }
    }
    ann.sync();
}

#[test]
fn a_message_of_members_that_panics_is_not_sent() {
    let (metrics, builder) = counted(Hub::builder().rooms("m:*", RoomOptions::members()));
    let server = TestServer::new(builder.announce_members(|room, changes| {
        assert!(room != "m:bad", "a format's own");
        Some(Message::text(changes.len().to_string()))
    }));
    let (mut socket, client) = server.pair_to("/ws");
    client.join("m:bad").unwrap();
    eventually("its panic is counted", || errors(&metrics, ErrorType::Panic) == 1);
    client.join("m:good").unwrap();
    assert_eq!(socket.text(), "1");
    assert_eq!(server.hub.members("m:bad").len(), 1);
    socket.sync();
}

#[allow(clippy::unnecessary_wraps, reason = "as a handler gives it")]
fn panics(data: &Message) -> Result<Message, CallRefusal> {
    assert!(data.as_text() != Some("13"), "a handler's own");
    Ok(data.clone())
}

#[test]
fn a_call_handler_that_panics_closes_its_connection_alone() {
    let log = Log::default();
    let identity = |_: &wshub::RequestHead| Ok(Identity::new("ann", None));
    let relay = Relay::builder(identity).on_call("m", |_, data| panics(data));
    let builders: [Box<dyn Fn(HubBuilder) -> HubBuilder>; 3] = [
        Box::new(move |hub| router(&log).on_call("m", |_, data| panics(data)).install(hub)),
        Box::new(|hub| Events::new().on_call("m", |_, data| panics(data)).install(hub)),
        Box::new({
            let relay = std::sync::Mutex::new(Some(relay));
            move |hub| relay.lock().unwrap().take().unwrap().install(hub)
        }),
    ];
    for build in builders {
        let (metrics, builder) = counted(Hub::builder());
        let server = TestServer::new(build(builder));
        let (mut bad, mut good) = (server.connect(), server.connect());
        bad.send_text(r#"{"type":"call","id":1,"method":"m","data":13}"#);
        assert_eq!(close_code(&mut bad), 1011);
        good.send_text(r#"{"type":"call","id":"1","method":"m","data":7}"#);
        let answer = loop {
            let event = event(&mut good);
            if event["type"] != "connection.established" {
                break event;
            }
        };
        assert_eq!(answer, json!({"type": "reply", "id": "1", "data": 7}));
        assert_eq!(errors(&metrics, ErrorType::Panic), 1);
    }
}

/// Answers that are forged, repeated, huge or of another's call answer nothing, and the call goes on.
#[test]
fn only_the_asked_client_answers_its_call_and_once() {
    let log = Log::default();
    let (metrics, builder) = counted(router(&log).install(Hub::builder()));
    let server = TestServer::new(builder);
    let (mut ann, client) = server.pair_to("/ws");
    let mut eve = server.connect();
    thread::scope(|scope| {
        let answer = scope.spawn(|| client.call("m", "1", PATIENCE * 10));
        let id = asked(&mut ann);
        // Of another's call.
        let forged = json!({"type": "reply", "id": id, "data": "forged"}).to_string();
        eve.send_text(&forged);
        log.wait(&forged);
        // With ids that no call has.
        let nines = "9".repeat(129);
        for id in
            ["18446744073709551616", "-1", "1.0", "1e0", "0", "\"1\"", "[1]", "null", "{}", "true", &nines[1..], &nines]
        {
            let text = format!(r#"{{"type":"reply","id":{id},"data":"no"}}"#);
            ann.send_text(&text);
            log.wait(&text);
        }
        assert_eq!((client.pending_calls(), metrics.stats().late_replies), (1, 0));
        reply(&mut ann, &id, &json!("yes"));
        reply(&mut ann, &id, &json!("twice"));
        ann.send_text(&json!({"type": "error", "id": id, "data": {}}).to_string());
        assert_eq!(answer.join().unwrap().unwrap().as_text(), Some(r#""yes""#));
        eventually("the others came late", || metrics.stats().late_replies == 2);
    });
    // A megabyte of id belongs to nobody's call, and is no frame too many.
    let server = TestServer::new(router(&log).install(Hub::builder()).map_config(|c| c.max_message_size(2 << 20)));
    let mut socket = server.connect();
    let huge = format!(r#"{{"type":"reply","id":{},"data":1}}"#, "1".repeat(1 << 20));
    socket.send_text(&huge);
    log.wait(&huge);
    socket.sync();
}

#[test]
fn depth_of_json_hurts_nobody() {
    let log = Log::default();
    let router = router(&log).on_call("echo", |_, data| Ok(data.clone()));
    let router = router.on_call("parse", |_, data| match data.parse_json::<Value>() {
        Ok(_) => Ok(Message::text("1")),
        Err(error) => Err(CallRefusal::new("bad_request", error.to_string())),
    });
    let server = TestServer::new(router.install(Hub::builder().map_config(|c| c.max_message_size(1 << 20))));
    let (mut socket, client) = server.pair_to("/ws");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    socket.send_text(&format!(r#"{{"type":"call","id":1,"method":"echo","data":{deep}}}"#));
    assert_eq!(socket.text(), format!(r#"{{"type":"reply","id":1,"data":{deep}}}"#));
    socket.send_text(&format!(r#"{{"type":"call","id":2,"method":"parse","data":{deep}}}"#));
    assert_eq!(event(&mut socket)["data"]["code"], "bad_request");
    thread::scope(|scope| {
        let answer = scope.spawn(|| client.call("m", &deep[..], PATIENCE));
        let call = socket.text();
        assert!(call.ends_with(&format!(r#""data":{deep}}}"#)));
        socket.send_text(&format!(r#"{{"type":"reply","id":1,"data":{deep}}}"#));
        let answer = answer.join().unwrap().unwrap();
        assert_eq!(answer.as_text(), Some(&deep[..]));
        assert!(answer.parse_json::<Value>().is_err());
        // A refusal that is no refusal is told as it came.
        let answer = scope.spawn(|| client.call("m", "1", PATIENCE));
        let id = asked(&mut socket);
        socket.send_text(&format!(r#"{{"type":"error","id":{id},"data":{deep}}}"#));
        let expected = CallError::Refused { code: String::new(), message: deep.clone() };
        assert_eq!(answer.join().unwrap(), Err(expected));
    });
}

/// Callers on many threads, and a client that goes in the middle: each ends at once, with an answer or as closed.
#[test]
fn calls_to_a_client_that_goes_end_at_once_and_once() {
    let log = Log::default();
    let server = TestServer::new(router(&log).install(Hub::builder()));
    for round in 0..20 {
        let (mut socket, client) = server.pair_to("/ws");
        let begin = Barrier::new(5);
        let start = Instant::now();
        let results: Vec<_> = thread::scope(|scope| {
            let call = || {
                begin.wait();
                (0..10).map(|_| client.call("m", "1", PATIENCE * 10)).collect::<Vec<_>>()
            };
            let callers: Vec<_> = (0..4).map(|_| scope.spawn(call)).collect();
            begin.wait();
            for _ in 0..round {
                let id = asked(&mut socket);
                reply(&mut socket, &id, &json!(1));
            }
            drop(socket);
            callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
        });
        let answered = results.iter().filter(|result| result.is_ok()).count();
        assert!(answered <= round && results.len() == 40);
        assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(CallError::Closed))), "{results:?}");
        assert!(start.elapsed() < PATIENCE * 5);
        assert_eq!(client.pending_calls(), 0);
    }
}

/// A drain takes a client with a pending call for an idle one, and its call ends with the connection.
#[test]
fn calls_work_during_a_drain_and_end_with_their_connection() {
    let log = Log::default();
    let patient = |config: Config| {
        let config = config.lame_duck(Duration::from_millis(300)).drain_timeout(Duration::from_millis(100));
        config.drain_spread(Duration::ZERO)
    };
    let server = TestServer::new(router(&log).install(Hub::builder().map_config(patient)));
    let (mut socket, client) = server.pair_to("/ws");
    let (_silent, other) = server.pair_to("/ws");
    thread::scope(|scope| {
        let drain = scope.spawn(|| server.hub.drain(PATIENCE));
        eventually("it drains", || server.hub.state() == wshub::health::HubState::Draining);
        // Still there: it is asked, and answers.
        let answer = scope.spawn(|| client.call("m", "1", PATIENCE));
        let id = asked(&mut socket);
        reply(&mut socket, &id, &json!("still here"));
        assert_eq!(answer.join().unwrap().unwrap().as_text(), Some(r#""still here""#));
        let silent = scope.spawn(|| other.call("m", "1", PATIENCE * 10));
        assert_eq!(close_code(&mut socket), 1001);
        socket.send_close(1001);
        drop(socket);
        assert_eq!(silent.join().unwrap(), Err(CallError::Closed));
        let _ = drain.join().unwrap();
    });
    assert_eq!(client.call("m", "1", PATIENCE), Err(CallError::Closed));
    assert_eq!(server.hub.call(Target::all(), "m", "1", PATIENCE).count(), 0);
}

#[test]
fn metadata_that_is_no_metadata_changes_nothing() {
    struct Broken;
    impl serde::Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("a value's own"))
        }
    }
    let server = TestServer::new(Hub::builder().rooms("m:*", RoomOptions::members()));
    let (_socket, client) = server.pair_to("/ws");
    client.join("m:x").unwrap();
    client.set_member(&"before").unwrap();
    let listed = || server.hub.members("m:x")[0].metadata.as_deref().map(str::to_owned);
    for too_large in [1023, 1_000_000] {
        let value = "x".repeat(too_large);
        for result in [client.set_member(&value), client.set_member_in("m:x", &value)] {
            assert!(matches!(result, Err(MemberError::TooLarge(len)) if len == too_large + 2));
        }
    }
    for result in [client.set_member(&Broken), client.set_member_in("m:x", &Broken)] {
        assert!(matches!(result, Err(MemberError::Json(_))));
    }
    assert_eq!(listed().as_deref(), Some(r#""before""#));
    // The largest that is allowed, of text that JSON escapes.
    client.set_member_in("m:x", &"\u{1}".repeat(170)).unwrap();
    assert_eq!(listed().map(|json| json.len()), Some(2 + 170 * 6));
}

/// A thousand joins and leaves in a moment, by many connections: each member is told of the outcome in few messages.
#[test]
fn a_thousand_joins_by_many_connections_are_few_messages() {
    let server = TestServer::new(Hub::builder().rooms("m:*", RoomOptions::members()).announce_members(|_, changes| {
        let text = |change: &MemberChange| match change {
            MemberChange::Left(member) => format!("-{}", member.id),
            change => format!("+{}", change.member().id),
        };
        Some(Message::text(changes.iter().map(text).collect::<Vec<_>>().join(" ")))
    }));
    let (mut watcher, client) = server.pair_to("/ws");
    client.join("m:x").unwrap();
    assert_eq!(watcher.text(), format!("+{}", client.id()));
    let others: Vec<(WsClient, Client)> = (0..40).map(|_| server.pair_to("/ws")).collect();
    let start = Instant::now();
    thread::scope(|scope| {
        for half in others.chunks(20) {
            scope.spawn(move || {
                for n in 0..25 {
                    for (_, other) in half {
                        other.join("m:x").unwrap();
                        if n < 24 {
                            other.leave("m:x").unwrap();
                        }
                    }
                }
            });
        }
    });
    let elapsed = start.elapsed();
    let (mut known, mut messages) = (BTreeSet::new(), 0);
    while known.len() < 40 || server.hub.members("m:x").len() < 41 {
        messages += 1;
        for word in watcher.text().split(' ') {
            let is_new = match word.strip_prefix('-') {
                Some(id) => known.remove(id),
                None => known.insert(word[1..].to_owned()),
            };
            assert!(is_new, "{word}");
        }
    }
    let most = 3 + u32::try_from(elapsed.as_millis() / 50).unwrap();
    assert!(messages <= most, "{messages} messages in {elapsed:?}");
    watcher.sync();
}
