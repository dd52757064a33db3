//! The HTTP API of `protocol::centrifuge`, called over plain HTTP. tests/sdk has the official client library.
#![cfg(feature = "centrifuge")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::TestServer;
use serde_json::{Value, json};
use wshub::history::{Bounds, Epoch, HistoryStore, MemoryStore, Position, StoreError, StoreEvent, Stored};
use wshub::protocol::centrifuge::{Api, Centrifuge};
use wshub::{Hub, HubBuilder, RoomOptions};

fn builder() -> HubBuilder {
    Hub::builder().rooms("*", RoomOptions::history()).rooms("plain*", RoomOptions::default())
}

fn post(server: &TestServer, method: &str, headers: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!("POST /api/{method} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    common::split_answer(&common::exchange(server.addr, request.as_bytes()))
}

#[test]
fn the_api_wants_a_key_and_says_what_is_wrong() {
    let hub = Centrifuge::new().install(builder()).build().unwrap();
    let api = Api::new(&hub).key("first").key("").key("second key");
    let server = TestServer::of(hub, |server| api.mount(server, "/api/"));
    for headers in
        ["", "X-API-Key: \r\n", "X-API-Key: firs\r\n", "X-API-Key: First\r\n", "Authorization: Bearer first\r\n"]
    {
        assert_eq!(post(&server, "info", headers, "{}").0, 401, "{headers}");
    }
    for headers in ["X-API-Key: first\r\n", "Authorization: apikey first\r\n", "x-api-key: second key\r\n"] {
        assert_eq!(post(&server, "info", headers, "{}").0, 200, "{headers}");
    }
    let key = "X-API-Key: first\r\n";
    assert_eq!(common::get(server.addr, "/api/info").0, 405);
    assert_eq!(post(&server, "nothing", key, "{}").0, 404);
    assert_eq!(post(&server, "publish", key, "[").0, 400);
    let answer =
        |method: &str, body: &str| -> Value { serde_json::from_str(&post(&server, method, key, body).1).unwrap() };
    let bad = json!({"error": {"code": 107, "message": "bad request"}});
    for (method, body) in [
        ("publish", r#"{"channel":"","data":1}"#),
        ("publish", r#"{"channel":"a"}"#),
        ("publish", r#"{"channel":"a","b64data":"!"}"#),
        ("broadcast", r#"{"data":1}"#),
        ("disconnect", "{}"),
        ("subscribe", r#"{"user":"ann"}"#),
        ("presence", "{}"),
    ] {
        assert_eq!(answer(method, body), bad, "{method} {body}");
    }
    let first = answer("publish", r#"{"channel":"a","data":{"n":1},"idempotency_key":"k"}"#);
    assert_eq!(first["result"]["offset"], 1);
    assert_eq!(answer("publish", r#"{"channel":"a","data":{"n":1},"idempotency_key":"k"}"#), first);
    assert_eq!(answer("publish", r#"{"channel":"b","data":{"n":1},"idempotency_key":"k"}"#)["result"]["offset"], 1);
    assert_eq!(
        answer("history", r#"{"channel":"a","limit":9}"#)["result"]["publications"],
        json!([{"data": {"n": 1}, "offset": 1}])
    );
    assert_eq!(answer("history", r#"{"channel":"plain","limit":9}"#)["error"]["code"], 108);
    assert_eq!(answer("publish", r#"{"channel":"plain","data":1}"#), json!({"result": {}}));
}

/// A store whose appends wait while it is stuck.
#[derive(Debug, Clone, Default)]
struct Slow {
    store: MemoryStore,
    is_stuck: Arc<AtomicBool>,
}

impl HistoryStore for Slow {
    fn append(&self, room: &str, entry: &[u8], bounds: Bounds) -> Result<Position, StoreError> {
        while self.is_stuck.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(10));
        }
        self.store.append(room, entry, bounds)
    }

    fn read(&self, room: &str, after: u64, bounds: Bounds) -> Result<Stored, StoreError> {
        self.store.read(room, after, bounds)
    }

    fn renew(&self, room: &str, old: Epoch) -> Result<Epoch, StoreError> {
        self.store.renew(room, old)
    }

    fn clear(&self, room: &str) -> Result<(), StoreError> {
        self.store.clear(room)
    }

    fn follow(&self, on: &mut dyn FnMut(StoreEvent<'_>) -> bool) -> Result<(), StoreError> {
        self.store.follow(on)
    }
}

#[test]
fn a_slow_shared_history_does_not_have_messages_published_twice() {
    let store = Slow::default();
    let rooms = Hub::builder().rooms("*", RoomOptions::history().shared()).history_store(store.clone());
    let hub = Centrifuge::new().install(rooms).build().unwrap();
    let api = Api::new(&hub).key("key");
    let server = TestServer::of(hub, |server| api.mount(server, "/api/"));
    let answer = |method: &str, body: &str| -> Value {
        serde_json::from_str(&post(&server, method, "X-API-Key: key\r\n", body).1).unwrap()
    };
    let publish =
        |key: &str| answer("publish", &json!({"channel": "a", "data": key, "idempotency_key": key}).to_string());
    assert_eq!(publish("first")["result"]["offset"], 1);
    store.is_stuck.store(true, Ordering::SeqCst);
    assert_eq!(publish("slow"), json!({"result": {}}), "taken, its place is not known yet");
    while server.hub.publish("full", "x").delivery.published {}
    assert_eq!(publish("refused")["error"]["code"], 111);
    store.is_stuck.store(false, Ordering::SeqCst);
    common::eventually("the queue is empty", || server.hub.publish("full", "x").delivery.published);
    assert_eq!(publish("slow"), json!({"result": {}}));
    assert_eq!(publish("refused")["result"]["offset"], 3);
    let history = answer("history", r#"{"channel":"a","limit":9}"#);
    let data: Vec<&Value> =
        history["result"]["publications"].as_array().unwrap().iter().map(|publication| &publication["data"]).collect();
    assert_eq!(data, ["first", "slow", "refused"]);
}
