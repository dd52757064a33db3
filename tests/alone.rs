//! A hub without other nodes, with the feature `cluster` and without: members, calls and commands work on this node.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::time::Instant;

use common::{Log, PATIENCE, TEXT, TestServer, eventually};
use serde_json::{Value, json};
use wshub::calls::{CallHandlers, JsonCalls};
use wshub::{Admission, Hub, HubBuilder, RoomOptions, Target};

fn builder() -> HubBuilder {
    Hub::builder().on_upgrade(|head| Ok(Admission::user(head.query_param("name").unwrap()).room("lobby")))
}

#[test]
fn commands_act_here_and_are_published_nowhere() {
    let server = TestServer::new(builder());
    let (mut ann, mut bob) = (server.connect_to("/ws?name=ann"), server.connect_to("/ws?name=bob"));
    eventually("both are in", || server.hub.room_size("lobby") == 2);
    let joined = server.hub.join_user("ann", "side");
    assert_eq!((joined.here, joined.published, server.hub.room_size("side")), (1, false, 1));
    let left = server.hub.leave_user("ann", "side");
    assert_eq!((left.here, left.published, server.hub.room_size("side")), (1, false, 0));
    let sent = server.hub.send(Target::user("ann").and(Target::room("lobby")), "to both").unwrap();
    assert_eq!((sent.queued, sent.published), (2, false));
    assert_eq!((ann.text(), bob.text()), ("to both".to_owned(), "to both".to_owned()));
    let closed = server.hub.close_user("bob", 4500, "bye").unwrap();
    assert_eq!((closed.here, closed.published), (1, false));
    assert_eq!(bob.expect_close(), (4500, "bye".to_owned()));
    eventually("bob is gone", || server.hub.room_size("lobby") == 1);
    assert_eq!(server.hub.close_room("lobby", 4501, "all").unwrap().here, 1);
    assert_eq!(ann.expect_close().0, 4501);
}

#[test]
fn members_come_and_go() {
    let told = Log::default();
    let hook = told.clone();
    let server = TestServer::new(
        builder()
            .rooms("lobby", RoomOptions::members())
            .on_member_change(move |_, room, change| hook.add(format!("{room}: {}", change.member().id))),
    );
    let ann = server.connect_to("/ws?name=ann");
    eventually("ann is a member", || told.all() == ["lobby: ann"]);
    assert_eq!(server.hub.members("lobby").iter().map(|member| &*member.id).collect::<Vec<_>>(), ["ann"]);
    ann.close();
    eventually("ann has left", || told.all().len() == 2 && server.hub.members("lobby").is_empty());
}

/// A call to a room is over when its clients have answered: nobody waits for nodes that do not exist.
#[test]
fn a_call_is_over_when_the_clients_here_have_answered() {
    let calls = CallHandlers::new();
    let server = TestServer::new(
        builder()
            .call_format(JsonCalls)
            .on_message(move |client, message| calls.handle(client, message).unwrap_or(Ok(()))),
    );
    let mut ann = server.connect_to("/ws?name=ann");
    eventually("ann is in", || server.hub.room_size("lobby") == 1);
    let started = Instant::now();
    let mut answers = server.hub.call(Target::room("lobby"), "read", "null", PATIENCE * 100);
    let frame = ann.frame();
    assert_eq!(frame.first, TEXT);
    let id = serde_json::from_slice::<Value>(&frame.payload).unwrap()["id"].clone();
    ann.send_text(&json!({"type": "reply", "id": id, "data": 7}).to_string());
    assert_eq!(answers.next().unwrap().1.unwrap().as_text(), Some("7"));
    assert!(answers.next().is_none() && started.elapsed() < PATIENCE * 50);
}

#[test]
fn health_and_names_do_not_need_a_cluster() {
    let hub = Hub::new();
    let health = serde_json::to_value(hub.health()).unwrap();
    assert_eq!((&health["ready"], health.get("adapter")), (&json!(true), None));
    assert_ne!(hub.node_id(), Hub::new().node_id(), "a random name for each hub");
}
