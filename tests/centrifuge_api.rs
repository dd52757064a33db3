//! The HTTP API of `protocol::centrifuge`, as any program may call it. tests/sdk has the official client library.
#![cfg(feature = "centrifuge")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::TestServer;
use serde_json::{Value, json};
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
