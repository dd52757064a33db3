//! Threads that subscribe and unsubscribe one client of the Centrifuge protocol at the same time: what the client and
//! others were told last is what is.
#![cfg(feature = "centrifuge")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod centrifuge_suite;
mod common;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use centrifuge_suite::*;
use common::{PATIENCE, TestServer, WsClient, deep_queue};
use serde_json::{Value, json};
use wshub::members::MemberChange;
use wshub::protocol::centrifuge::{Api, ChannelOptions};
use wshub::{Client, Hub, RoomOptions};

const ROUNDS: usize = 150;

fn api(server: &TestServer, method: &str) {
    let body = r#"{"user":"ann","channel":"a"}"#;
    let head = format!("POST /api/{method} HTTP/1.1\r\nHost: x\r\nX-API-Key: key\r\nContent-Length: {}", body.len());
    let answer = common::exchange(server.addr, format!("{head}\r\nConnection: close\r\n\r\n{body}").as_bytes());
    assert_eq!(common::status(&answer), 200, "{answer}");
}

/// All objects up to the reply to a last ping.
fn until_now(socket: &mut WsClient) -> Vec<Value> {
    send(socket, &json!({"id": 999_999, "ping": {}}));
    let mut all = Vec::new();
    while all.last().is_none_or(|object: &Value| object["id"] != 999_999) {
        all.extend(next(socket));
    }
    all
}

/// What the client takes itself for: subscribed or not.
fn own_view(objects: &[Value]) -> Option<bool> {
    let told = |object: &Value| match object {
        _ if object["subscribe"].is_object() || object["push"]["subscribe"].is_object() => Some(true),
        _ if object["push"]["unsubscribe"].is_object() => Some(false),
        _ => None,
    };
    objects.iter().filter_map(told).next_back()
}

/// What another takes the client for. Joins and leaves alternate.
fn others_view(objects: &[Value]) -> bool {
    let mut is_in = false;
    for push in objects.iter().map(|object| &object["push"]) {
        let has = |kind: &str| push[kind]["info"]["user"] == "ann";
        if has("join") || has("leave") {
            assert_eq!(has("join"), !is_in, "{push}, after {objects:?}");
            is_in = has("join");
        }
    }
    is_in
}

/// The program joins and leaves by two threads, a program beside it by the API, and the client subscribes itself.
#[test]
fn acts_of_several_threads_end_with_what_is_told() {
    let hub = protocol().install(builder().map_config(|config| deep_queue(config).queue_messages(100_000)));
    let hub = hub.build().unwrap();
    let api_of = Api::new(&hub).key("key");
    let server = TestServer::of(hub, |server| api_of.mount(server, "/api"));
    let (mut bob, _) = connect(&server, &json!({"token": "bob"}));
    subscribe(&mut bob, &json!({"channel": "a", "join_leave": true}));
    for acts in 0..6 {
        let (mut ann, _) = connect(&server, &json!({"token": "ann"}));
        let client = server.hub.user_client("ann").unwrap();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        let _ = client.join("a");
                        let _ = client.leave("a");
                    }
                    // The last word of one of them.
                    if acts % 2 == 0 {
                        let _ = client.join("a");
                    }
                });
            }
            if acts % 3 != 0 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS / 10 {
                        api(&server, "unsubscribe");
                        api(&server, "subscribe");
                    }
                });
            }
            if acts % 3 != 1 {
                (0..ROUNDS).for_each(|n| send(&mut ann, &json!({"id": n + 2, "subscribe": {"channel": "a"}})));
            }
        });
        // A thread that runs hooks for others may still be at work: until it is over, what is may change.
        let mut objects = until_now(&mut ann);
        wait("nobody acts", || !common::crate_threads().iter().any(|name| name == "wshub-hooks"));
        wait("the client is told what is", || {
            objects.extend(until_now(&mut ann));
            own_view(&objects) == Some(client.in_room("a"))
        });
        let is_in = client.in_room("a");
        let mut others = until_now(&mut bob);
        wait("others are told what is", || {
            others.extend(until_now(&mut bob));
            others_view(&others) == is_in
        });
        assert_eq!(client.in_room("a"), is_in);
        let presence = ask(&mut bob, &json!({"id": 9, "presence": {"channel": "a"}}));
        let users = presence["presence"]["presence"].as_object().unwrap().values().filter(|c| c["user"] == "ann");
        assert_eq!(users.count(), usize::from(is_in));
        // A publication reaches exactly who takes itself for subscribed.
        server.hub.publish("a", "7");
        let publications = until_now(&mut ann).iter().filter(|object| object["push"]["pub"]["data"] == 7).count();
        assert_eq!(publications, usize::from(is_in));
        ann.close();
        common::eventually("she is gone", || server.hub.client_count() == 1);
        wait("others are told of the end", || {
            others.extend(until_now(&mut bob));
            !others_view(&others)
        });
    }
}

/// The members are reported after the program's join and before the subscription, which introduces the member.
#[test]
fn who_is_introduced_late_is_told_of_once_known() {
    let held = Arc::new(Mutex::new(None::<Client>));
    let (holding, report) = (Arc::clone(&held), Arc::clone(&held));
    let protocol = protocol().channels(move |_| {
        let is_free = || !holding.lock().unwrap().as_ref().is_some_and(|client| client.in_room("a"));
        wait("her membership is reported", is_free);
        Some(ChannelOptions::default())
    });
    let tracked = Hub::builder().rooms("*", RoomOptions::history().with_connections());
    let hooked = tracked.on_member_change(move |_, _, change| {
        if matches!(change, MemberChange::Joined(member) if member.metadata.is_none()) {
            *report.lock().unwrap() = None;
        }
    });
    let server = TestServer::new(protocol.install(hooked));
    let [mut bob, mut cleo, ann] = ["bob", "cleo", "ann"].map(|user| connect(&server, &json!({"token": user})).0);
    subscribe(&mut cleo, &json!({"channel": "a"}));
    subscribe(&mut bob, &json!({"channel": "a", "join_leave": true}));
    let client = server.hub.user_client("ann").unwrap();
    *held.lock().unwrap() = Some(client.clone());
    thread::scope(|scope| {
        scope.spawn(|| client.join("a").unwrap());
        common::eventually("she is in the room", || client.in_room("a"));
        // A report of another's leave is one of her join.
        send(&mut cleo, &json!({"id": 9, "unsubscribe": {"channel": "a"}}));
    });
    let mut others = until_now(&mut bob);
    wait("her join is told", || {
        others.extend(until_now(&mut bob));
        others_view(&others)
    });
    ann.close();
    wait("her leave is told", || {
        others.extend(until_now(&mut bob));
        !others_view(&others)
    });
}

/// Waits until it is so.
fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::yield_now();
    }
}
