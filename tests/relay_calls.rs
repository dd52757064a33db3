//! Calls in the relay protocol: a device is called, and all that is no answer to a call is passed on as it always was.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::thread;

use common::{PATIENCE, TestServer, WsClient, eventually};
use serde_json::{Value, json};
use wshub::calls::CallError;
use wshub::protocol::relay::{Conn, Identity, Relay, RelayMessage};
use wshub::{Hub, HubBuilder};

/// The only user sees the only device, and messages go from each to the other.
fn passing_on() -> HubBuilder {
    let relay = Relay::builder(|head| {
        Ok(Identity::new(head.query_param("user").unwrap_or_default(), head.query_param("device")))
    });
    let relay = relay.loader(|_| Ok(vec!["lock".into()])).on_message(|conn, message| {
        pass_on(conn, message);
        Ok(())
    });
    relay.install(Hub::builder())
}

fn pass_on(conn: &Conn, mut message: RelayMessage) {
    if let Some(device) = conn.device() {
        message.device_id = Some(device.to_owned());
        conn.relay().send_to_user("ann", &message);
    } else {
        message.user_id = Some(conn.user().to_owned());
        assert!(conn.relay().send_to_device("lock", &message));
    }
}

fn event(socket: &mut WsClient) -> Value {
    serde_json::from_str(&socket.text()).unwrap()
}

/// Only an answer to a call is taken. All other frames of these types, which programs had before there were calls, are
/// the application's, byte for byte.
#[test]
fn replies_and_errors_that_answer_no_call_are_messages_like_others() {
    let server = TestServer::new(passing_on());
    let relay = Relay::of(&server.hub).unwrap();
    let mut ann = server.connect_to("/ws?user=ann");
    let mut lock = server.connect_to("/ws?user=bob&device=lock");
    ann.sync();
    lock.sync();
    let passes = |ann: &mut WsClient, lock: &mut WsClient, rest: &str| {
        for kind in ["reply", "error", "call"] {
            lock.send_text(&format!(r#"{{"type":"{kind}",{rest}"payload":{{"b": 1.50}}}}"#));
            assert_eq!(ann.text(), format!(r#"{{"type":"{kind}","deviceId":"lock","payload":{{"b": 1.50}}}}"#));
            ann.send_text(&format!(r#"{{"type":"{kind}","deviceId":"lock",{rest}"payload":1}}"#));
            assert_eq!(lock.text(), format!(r#"{{"type":"{kind}","deviceId":"lock","userId":"ann","payload":1}}"#));
        }
    };
    for rest in [r#""id":1,"#, r#""id":0,"#, r#""id":18446744073709551615,"#, r#""id":"x","#, r#""data":1,"#, ""] {
        passes(&mut ann, &mut lock, rest);
    }
    thread::scope(|scope| {
        let answer = scope.spawn(|| relay.call_device("lock", "open", "null", PATIENCE));
        assert_eq!(event(&mut lock)["id"], 1);
        // Not this call's, and not of this device.
        lock.send_text(r#"{"type":"reply","id":2,"payload":2}"#);
        assert_eq!(ann.text(), r#"{"type":"reply","deviceId":"lock","payload":2}"#);
        ann.send_text(r#"{"type":"reply","deviceId":"lock","id":1,"payload":3}"#);
        assert_eq!(lock.text(), r#"{"type":"reply","deviceId":"lock","userId":"ann","payload":3}"#);
        lock.send_text(r#"{"type":"reply","id":1,"data":"opened"}"#);
        assert_eq!(answer.join().unwrap().unwrap().as_text(), Some(r#""opened""#));
    });
    // A second answer is a late one.
    lock.send_text(r#"{"type":"reply","id":1,"data":"again"}"#);
    lock.send_text(r#"{"type":"state"}"#);
    assert_eq!(ann.text(), r#"{"type":"state","deviceId":"lock"}"#);
    passes(&mut ann, &mut lock, r#""id":2,"#);
}

#[test]
fn a_device_is_called_through_its_relay() {
    let relay = Relay::builder(|head| Ok(Identity::new("ann", head.query_param("device"))));
    let server = TestServer::new(relay.install(Hub::builder()));
    let relay = Relay::of(&server.hub).unwrap();
    assert_eq!(relay.call_device("lock", "open", "null", PATIENCE), Err(CallError::Closed));
    let mut device = server.connect_to("/ws?device=lock");
    eventually("it is online", || relay.is_device_online("lock"));
    thread::scope(|scope| {
        let answer = scope.spawn(|| relay.call_device("lock", "open", r#"{"force":1}"#, PATIENCE));
        let call = event(&mut device);
        assert_eq!((&call["method"], &call["data"]), (&json!("open"), &json!({"force": 1})));
        device.send_text(&json!({"type": "reply", "id": call["id"], "data": "opened"}).to_string());
        assert_eq!(answer.join().unwrap().unwrap().as_text(), Some(r#""opened""#));
    });
}
