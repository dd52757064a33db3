//! The dashboard's actions, and refused ones.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use common::bus::connected;
use common::operator::{PASSWORD, Viewer, act, ask, builder, credentials, own_headers, serve};
use common::{eventually, status};
use serde_json::{Value, json};
use wshub::cluster::{Cluster, MemoryBus};
use wshub::router::Router;
use wshub::{Config, health::HubState};

#[test]
fn messages_are_sent_to_whom_they_are_for() {
    let server = serve(builder());
    let (mut ann, client) = server.pair_to("/ws?user=ann&room=lobby");
    let mut bob = server.connect_to("/ws?user=bob");
    let id = client.id();
    for (to, text, queued) in [
        ("\"all\"".to_owned(), "1", 2),
        (json!({ "room": "lobby" }).to_string(), "2", 1),
        (json!({ "user": "ann" }).to_string(), "3", 1),
        (json!({ "client": id }).to_string(), "4", 1),
    ] {
        let (status, answer) = act(&server, &format!("{{\"action\":\"send\",\"to\":{to},\"text\":\"{text}\"}}"));
        assert_eq!((status, &answer["queued"], &answer["dropped"]), (200, &json!(queued), &json!(0)), "{to} {answer}");
    }
    assert_eq!([ann.text(), ann.text(), ann.text(), ann.text()], ["1", "2", "3", "4"]);
    assert_eq!(bob.text(), "1");
    bob.sync();
    for to in [json!({ "room": "nowhere" }), json!({ "user": "zoe" }), json!({ "client": uuid::Uuid::nil() })] {
        let (status, answer) = act(&server, &json!({ "action": "send", "to": to, "text": "x" }).to_string());
        assert_eq!(status, 404, "{to}");
        assert!(answer["error"].as_str().unwrap().starts_with("no recipient"), "{answer}");
    }
}

#[test]
fn a_client_is_closed_with_code_and_reason() {
    let server = serve(builder());
    let (mut socket, client) = server.pair();
    let close = |id: &str, code: i64, reason: &str| {
        act(&server, &json!({ "action": "close", "client": id, "code": code, "reason": reason }).to_string())
    };
    let id = client.id().to_string();
    assert_eq!(close(&id, 1005, "").0, 422);
    assert_eq!(close(&id, 1000, &"x".repeat(124)).0, 422);
    for code in [-1, 70_000] {
        assert_eq!(close(&id, code, "").0, 400, "{code}");
    }
    assert_eq!(close(&uuid::Uuid::nil().to_string(), 1000, "").0, 404);
    assert_eq!(close("no id", 1000, "").0, 400);
    socket.sync();
    assert_eq!(close(&id, 4001, "bye").0, 200);
    assert_eq!(socket.expect_close(), (4001, "bye".into()));
    eventually("gone", || server.hub.client_count() == 0);
    assert_eq!(close(&id, 1000, "").0, 404);
}

#[test]
fn a_client_is_called_and_its_answer_refusal_or_timeout_shown() {
    let server = serve(Router::json_field("type").install(builder()));
    let (mut socket, client) = server.pair_to("/ws?user=ann");
    let (mut viewer, _) = Viewer::open(&server, "");
    let call =
        |id: &str, more: &str| act(&server, &format!(r#"{{"action":"call","client":"{id}","method":"read",{more}}}"#));
    let id = client.id().to_string();
    let mut answered = |more: &str, data: Value, reply: Value| {
        thread::scope(|scope| {
            let answer = scope.spawn(|| call(&id, more));
            let asked: Value = serde_json::from_str(&socket.text()).unwrap();
            assert_eq!((&asked["type"], &asked["method"], &asked["data"]), (&json!("call"), &json!("read"), &data));
            let shown = |tick: &Value| tick["clients"]["rows"][0]["calls"] == 1 && tick["hub"]["calls"] == 1;
            viewer.until("it is in flight", shown);
            let mut reply = reply;
            reply["id"] = asked["id"].clone();
            socket.send_text(&reply.to_string());
            answer.join().unwrap()
        })
    };
    let (status, answer) = answered(
        r#""data":{"channel": 3},"seconds":30"#,
        json!({ "channel": 3 }),
        json!({ "type": "reply", "data": [1.5, "x"] }),
    );
    assert_eq!((status, &answer["answer"], answer.get("refused")), (200, &json!([1.5, "x"]), None));
    let refusal = json!({ "code": "busy", "message": "later" });
    let (status, answer) = answered(r#""seconds":30"#, Value::Null, json!({ "type": "error", "data": refusal }));
    assert_eq!((status, &answer["refused"], answer.get("answer")), (200, &refusal, None));
    let (status, answer) = call(&id, r#""seconds":1"#);
    assert_eq!((status, &answer["error"]), (504, &json!("no answer within 1 s")));
    viewer.until("it is over", |tick| tick["hub"]["calls"] == 0);
    for seconds in [0, 31] {
        assert_eq!(call(&id, &format!(r#""seconds":{seconds}"#)).0, 422);
    }
    assert_eq!(call(&uuid::Uuid::nil().to_string(), r#""seconds":1"#).0, 404);
    assert_eq!(call(&id, r#""data":{,"seconds":1"#).0, 400);
    // A hub that knows no calls.
    let server = serve(builder());
    let (_socket, client) = server.pair();
    let action = json!({ "action": "call", "client": client.id(), "method": "read", "seconds": 1 });
    assert_eq!(act(&server, &action.to_string()).0, 422);
}

#[test]
fn a_user_is_closed_on_all_nodes() {
    let bus = MemoryBus::new();
    let node = |id| serve(builder().cluster(Cluster::new(bus.adapter()).node_id(id)));
    let (near, far) = (node("near"), node("far"));
    [&near, &far].iter().for_each(|node| connected(&node.hub));
    let mut anns = [&near, &near, &far].map(|node| node.connect_to("/ws?user=ann"));
    let mut bob = far.connect_to("/ws?user=bob");
    let close = |code: u16| act(&near, &json!({ "action": "close_user", "user": "ann", "code": code }).to_string());
    assert_eq!(close(1005).0, 422);
    let (status, answer) = close(4500);
    assert_eq!((status, &answer["here"], &answer["published"]), (200, &json!(2), &json!(true)), "{answer}");
    for ann in &mut anns {
        assert_eq!(ann.expect_close(), (4500, String::new()));
    }
    bob.sync();
    let alone = serve(builder());
    let (status, answer) = act(&alone, r#"{"action":"close_user","user":"ann","code":4500,"reason":"x"}"#);
    assert_eq!((status, &answer["error"]), (404, &json!("no recipient: user \"ann\"")));
}

#[test]
fn a_drain_must_be_confirmed_and_begins_once() {
    let server = serve(
        builder()
            .map_config(|config: Config| config.lame_duck(Duration::ZERO).drain_timeout(Duration::from_millis(100))),
    );
    let mut socket = server.connect();
    assert_eq!(act(&server, r#"{"action":"drain","seconds":60,"confirm":false}"#).0, 400);
    assert_eq!(act(&server, r#"{"action":"drain","seconds":60}"#).0, 400);
    for seconds in [0, 100_000] {
        assert_eq!(act(&server, &format!(r#"{{"action":"drain","seconds":{seconds},"confirm":true}}"#)).0, 422);
    }
    assert_eq!(server.hub.state(), HubState::Running);
    let (mut viewer, _) = Viewer::open(&server, "");
    assert_eq!(act(&server, r#"{"action":"drain","seconds":60,"confirm":true}"#).0, 200);
    viewer.until("it shows", |tick| tick["hub"]["state"] == "draining");
    assert_eq!(socket.expect_close().0, 1001);
    assert_eq!(act(&server, r#"{"action":"drain","seconds":60,"confirm":true}"#).0, 409);
    viewer.until("the dashboard stays", |tick| tick["hub"]["clients"] == 0);
}

#[test]
fn actions_that_a_foreign_page_could_cause_are_refused() {
    let server = serve(builder());
    let mut socket = server.connect();
    let forged = r#"{"action":"send","to":"all","text":"forged"}"#;
    let origin = format!("Origin: http://{}\r\n", server.addr);
    let base = credentials(PASSWORD);
    let (json, own) = ("Content-Type: application/json\r\n", "X-Wshub-Dashboard: 1\r\n");
    for (headers, code) in [
        (format!("{base}{json}"), 403),
        (format!("{base}{json}{origin}"), 403),
        (format!("{base}{json}{own}Origin: http://evil.example\r\n"), 403),
        (format!("{base}{json}{own}Origin: null\r\n"), 403),
        (format!("{base}{json}{own}{origin}Sec-Fetch-Site: same-site\r\n"), 403),
        (format!("{base}{json}{own}{origin}Sec-Fetch-Site: cross-site\r\n"), 403),
        (format!("{base}{json}{own}Sec-Fetch-Site: none\r\n"), 403),
        (format!("{base}{own}{origin}"), 415),
        (format!("{base}{own}{origin}Content-Type: text/plain\r\n"), 415),
        (format!("{base}{own}{origin}Content-Type: application/x-www-form-urlencoded\r\n"), 415),
        (format!("{base}{own}{origin}Content-Type: application/jsonx\r\n"), 415),
        (format!("{json}{own}{origin}"), 401),
        (format!("{}{json}{own}{origin}", credentials("wrong")), 401),
    ] {
        let answer = ask(&server, "POST /admin/actions", &headers, forged);
        assert_eq!(status(&answer), code, "{headers}");
        assert!(!answer.contains("Access-Control"), "{answer}");
    }
    let preflight = ask(&server, "OPTIONS /admin/actions", &format!("{base}Origin: http://evil.example\r\n"), "");
    assert_eq!(status(&preflight), 405);
    socket.sync();
    let good =
        format!("{base}Content-Type: Application/JSON; charset=utf-8\r\n{own}{origin}Sec-Fetch-Site: same-origin\r\n");
    assert_eq!(status(&ask(&server, "POST /admin/actions", &good, forged)), 200);
    assert_eq!(socket.text(), "forged");
}

#[test]
fn bodies_that_are_no_action_are_refused() {
    let server = serve(builder());
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"drain\"",
        "{}",
        r#"{"action":"explode"}"#,
        r#"{"action":"send"}"#,
        r#"{"action":"send","to":"everybody","text":"x"}"#,
        r#"{"action":"send","to":{"room":1},"text":"x"}"#,
        r#"{"action":"send","to":{"room":"a","user":"b"},"text":"x"}"#,
        r#"{"action":"send","to":"all","text":"x","more":1}"#,
        r#"{"action":"send","to":"all","text":7}"#,
        r#"{"action":"close","client":5,"code":1000}"#,
        r#"{"action":"closeuser","user":"ann","code":1000}"#,
        r#"{"action":"close_user","user":"ann"}"#,
        r#"{"action":"call","client":"x","method":"m","seconds":1}"#,
        "{\"action\":\"send\",\"to\":\"all\",\"text\":\"\u{fffd}\"}x",
    ] {
        let (status, answer) = act(&server, body);
        assert_eq!(status, 400, "{body}");
        assert!(answer["error"].is_string(), "{answer}");
    }
    let large = format!(r#"{{"action":"send","to":"all","text":"{}"}}"#, "x".repeat(600 * 1024));
    assert_eq!(status(&ask(&server, "POST /admin/actions", &own_headers(), &large)), 413);
}

/// Keeps what the dashboard logs.
struct Recorder;

static RECORDS: OnceLock<Mutex<Vec<String>>> = OnceLock::new();

impl log::Log for Recorder {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() == "wshub::dashboard"
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            RECORDS.get_or_init(Mutex::default).lock().unwrap().push(format!("{} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

#[test]
fn actions_are_logged_without_what_they_say() {
    log::set_logger(&Recorder).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let server = serve(builder());
    let (_socket, client) = server.pair_to("/ws?room=logged%0Aroom");
    let id = client.id();
    assert_eq!(act(&server, r#"{"action":"send","to":{"room":"logged\nroom"},"text":"secret words"}"#).0, 200);
    assert_eq!(
        act(&server, &json!({ "action": "close", "client": id, "code": 4007, "reason": "why" }).to_string()).0,
        200
    );
    eventually("a wrong password is logged, though not each", || {
        assert_eq!(status(&ask(&server, "POST /admin/actions", &credentials("secret wrong"), "")), 401);
        RECORDS
            .get()
            .unwrap()
            .lock()
            .unwrap()
            .iter()
            .any(|r| r.starts_with("INFO wrong credentials from Some(127.0.0.1:"))
    });
    let records = RECORDS.get().unwrap().lock().unwrap().clone();
    let has = |part: &str| records.iter().any(|r| r.starts_with("INFO ") && r.contains(part));
    assert!(has("\"ann\" from Some(127.0.0.1:"), "{records:?}");
    assert!(has("sent 12 bytes to room \"logged\\nroom\""), "{records:?}");
    assert!(has(&format!("closed {id} with 4007 \"why\"")), "{records:?}");
    assert!(!has("secret"), "{records:?}");
}
