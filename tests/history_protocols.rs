//! Rooms that remember, as clients of events, event streams and feeds see them.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::time::Duration;

use common::stream::SseClient;
use common::{TestServer, WsClient, eventually};
use serde_json::{Value, json};
use wshub::history::Position;
use wshub::protocol::events::{Events, emit_to_room};
use wshub::protocol::feed::Feed;
use wshub::{Admission, Hub, HubBuilder, Message, RoomOptions};

fn events(options: RoomOptions) -> TestServer {
    TestServer::new(Events::new().install(Hub::builder().rooms("r*", options)))
}

fn event(socket: &mut WsClient) -> Value {
    let mut event: Value = serde_json::from_str(&socket.text()).unwrap();
    event.as_object_mut().unwrap().remove("timestamp").unwrap();
    event
}

/// Connects and skips the greeting.
fn connect(server: &TestServer) -> WsClient {
    let mut socket = server.connect();
    assert_eq!(event(&mut socket)["type"], "connection.established");
    socket
}

#[test]
fn subscribers_come_back_with_a_position() {
    let server = events(RoomOptions::history().messages(3));
    let mut socket = connect(&server);
    socket.send_text(r#"{"type":"subscribe","room":"r"}"#);
    let first = event(&mut socket);
    let start: Position = first["data"]["position"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        first,
        json!({"type": "subscribed", "data": {"room": "r", "position": start, "recovery": "none", "replayed": 0}})
    );
    emit_to_room(&server.hub, "news", 1, "r").unwrap();
    let at = |offset| Position::new(start.epoch(), offset);
    assert_eq!(event(&mut socket), json!({"type": "news", "data": 1, "position": at(1)}));
    emit_to_room(&server.hub, "news", 2, "r").unwrap();
    emit_to_room(&server.hub, "news", 3, "r").unwrap();

    let mut back = connect(&server);
    back.send_text(&format!(r#"{{"type":"subscribe","room":"r","since":"{}"}}"#, at(1)));
    let data = json!({"room": "r", "position": at(3), "recovery": "complete", "replayed": 2});
    assert_eq!(event(&mut back), json!({"type": "subscribed", "data": data}));
    assert_eq!(event(&mut back), json!({"type": "news", "data": 2, "position": at(2)}));
    assert_eq!(event(&mut back), json!({"type": "news", "data": 3, "position": at(3)}));
    back.send_text(r#"{"type":"subscribe","room":"r"}"#);
    assert_eq!(event(&mut back), json!({"type": "subscribed", "data": {"room": "r"}}), "it is in the room already");

    (4..=6).for_each(|n| _ = emit_to_room(&server.hub, "news", n, "r").unwrap());
    for (since, recovery) in [(at(1).to_string(), "gap"), ("7".into(), "other_epoch"), (String::new(), "other_epoch")] {
        let mut late = connect(&server);
        late.send_text(&json!({"type": "subscribe", "room": "r", "since": since}).to_string());
        let data = json!({"room": "r", "position": at(6), "recovery": recovery, "replayed": 3});
        assert_eq!(event(&mut late)["data"], data);
        assert_eq!(event(&mut late)["position"], json!(at(4)));
    }
}

#[test]
fn rooms_without_a_history_are_what_they_were() {
    let server = events(RoomOptions::history());
    let mut socket = connect(&server);
    socket.send_text(r#"{"type":"subscribe","room":"other","since":"abcdefgh.1"}"#);
    assert_eq!(event(&mut socket), json!({"type": "subscribed", "data": {"room": "other"}}));
    emit_to_room(&server.hub, "news", 1, "other").unwrap();
    assert_eq!(event(&mut socket), json!({"type": "news", "data": 1}));
    socket.send_text(r#"{"type":"history","room":"other"}"#);
    assert_eq!(event(&mut socket)["data"]["code"], "no_history");
    socket.send_text(r#"{"type":"history","room":"r"}"#);
    assert_eq!(event(&mut socket)["data"]["code"], "not_subscribed");
}

#[test]
fn members_read_the_history() {
    let server = events(RoomOptions::history());
    let mut socket = connect(&server);
    socket.send_text(r#"{"type":"subscribe","room":"r"}"#);
    event(&mut socket);
    for n in 1..=3 {
        emit_to_room(&server.hub, "news", n, "r").unwrap();
        event(&mut socket);
    }
    server.hub.publish("r", "no JSON");
    assert_eq!(socket.text(), "no JSON");
    let mut page = |request: Value| {
        socket.send_text(&request.to_string());
        let page = event(&mut socket);
        assert_eq!(page["type"], "history", "{page}");
        page["data"].clone()
    };
    let all = page(json!({"type": "history", "room": "r"}));
    assert_eq!((&all["room"], &all["recovery"]), (&json!("r"), &json!("none")));
    let data: Vec<_> = all["events"].as_array().unwrap().iter().map(|e| e["data"].clone()).collect();
    assert_eq!(data, [json!(1), json!(2), json!(3), Value::Null]);
    assert_eq!(all["events"][3], "no JSON");
    let newest = page(json!({"type": "history", "room": "r", "limit": 2, "newest_first": true}));
    assert_eq!(newest["events"][1]["data"], 3);
    let since = &all["events"][0]["position"];
    let rest = page(json!({"type": "history", "room": "r", "since": since, "limit": 1}));
    assert_eq!((&rest["recovery"], &rest["events"][0]["data"]), (&json!("complete"), &json!(2)));
}

#[test]
fn a_state_comes_as_a_snapshot_and_then_as_changes() {
    let server = events(RoomOptions::state());
    let hub = &server.hub;
    hub.set("r", "a", r#"{"x":1}"#).unwrap();
    hub.set("r", "b", "no JSON").unwrap();
    let mut socket = connect(&server);
    socket.send_text(r#"{"type":"subscribe","room":"r"}"#);
    assert_eq!(event(&mut socket), json!({"type": "subscribed", "data": {"room": "r"}}));
    let state = json!({"a": {"x": 1}, "b": "no JSON"});
    assert_eq!(event(&mut socket), json!({"type": "snapshot", "data": {"room": "r", "state": state}}));
    hub.set("r", "", "2").unwrap();
    assert_eq!(event(&mut socket), json!({"type": "state", "data": {"room": "r", "key": "", "value": 2}}));
    assert!(hub.unset("r", "a") && !hub.unset("r", "a"));
    assert_eq!(event(&mut socket), json!({"type": "state", "data": {"room": "r", "key": "a", "removed": true}}));
    hub.set_for("r", "c", "3", Duration::from_millis(50)).unwrap();
    assert_eq!(event(&mut socket), json!({"type": "state", "data": {"room": "r", "key": "c", "value": 3}}));
    assert_eq!(event(&mut socket), json!({"type": "state", "data": {"room": "r", "key": "c", "removed": true}}));
}

/// A server with an event stream at `/events`.
fn serve(builder: HubBuilder) -> TestServer {
    let hub = streams_hub(builder);
    TestServer::of(hub.clone(), |server| server.event_stream("/events", &hub))
}

fn streams_hub(builder: HubBuilder) -> Hub {
    builder.on_upgrade(|_| Ok(Admission::anonymous().room("r"))).build().unwrap()
}

fn stream(server: &TestServer, last: &str) -> SseClient {
    let header = if last.is_empty() { String::new() } else { format!("Last-Event-ID: {last}\r\n") };
    SseClient::connect(server.addr, "/events", &header)
}

/// What an `EventSource` keeps: the id and the data of the next event.
fn next(stream: &mut SseClient) -> (String, String, String) {
    let event = stream.event();
    (event.name.unwrap_or_default(), event.id.unwrap_or_default(), event.data)
}

#[test]
fn an_event_stream_goes_on_where_it_was() {
    let server = serve(Hub::builder().rooms("r", RoomOptions::history().messages(3)));
    let hub = &server.hub;
    let mut first = stream(&server, "");
    let (name, begin, data) = next(&mut first);
    assert_eq!((&*name, &*data), ("", ""), "only an id: a browser dispatches nothing");
    let start: Position = begin.parse().unwrap();
    assert_eq!(start.offset(), 0);
    let at = |offset| Position::new(start.epoch(), offset).to_string();
    hub.publish("r", "one");
    assert_eq!(next(&mut first), (String::new(), at(1), "one".into()));
    (2..=3).for_each(|n| _ = hub.publish("r", n.to_string()));
    for mut back in
        [stream(&server, &at(1)), SseClient::connect(server.addr, &format!("/events?lastEventId={}", at(1)), "")]
    {
        assert_eq!(next(&mut back).1, at(1));
        assert_eq!(next(&mut back), (String::new(), at(2), "2".into()));
        assert_eq!(next(&mut back), (String::new(), at(3), "3".into()));
    }
    // Cut before anything has come: its id is the place where it began.
    let mut idle = stream(&server, &at(3));
    assert_eq!(next(&mut idle).1, at(3));

    (4..=6).for_each(|n| _ = hub.publish("r", n.to_string()));
    let mut late = stream(&server, &at(1));
    let gap = format!(r#"{{"room":"r","from":2,"to":3,"position":"{}"}}"#, at(3));
    assert_eq!(next(&mut late), ("gap".into(), at(3), gap));
    assert_eq!(next(&mut late), (String::new(), at(4), "4".into()));
    for foreign in ["abcdefgh.5", "17", &at(7)] {
        let mut other = stream(&server, foreign);
        let gap = format!(r#"{{"room":"r","from":null,"to":3,"position":"{}"}}"#, at(3));
        assert_eq!(next(&mut other), ("gap".into(), at(3), gap), "{foreign}");
        assert_eq!(next(&mut other).2, "4");
    }
}

#[test]
fn an_event_stream_gets_the_state_as_events() {
    let server = serve(Hub::builder().rooms("r", RoomOptions::state()));
    let hub = &server.hub;
    hub.set("r", "a", "1").unwrap();
    let mut stream = stream(&server, "");
    assert_eq!(next(&mut stream), ("state".into(), String::new(), r#"{"room":"r","key":"a","value":1}"#.into()));
    hub.unset("r", "a");
    assert_eq!(next(&mut stream).2, r#"{"room":"r","key":"a","removed":true}"#);
}

#[test]
fn a_feed_with_a_history_keeps_its_envelope_and_recovers() {
    let builder = Feed::builder().history(RoomOptions::history().messages(2)).install(Hub::builder());
    let hub = builder.build().unwrap();
    let feed = Feed::of(&hub).unwrap();
    let server = TestServer::of(hub.clone(), |server| server.event_stream("/events", &hub));
    let mut socket = server.connect();
    let mut first = stream(&server, "");
    let start: Position = next(&mut first).1.parse().unwrap();
    eventually("both are there", || feed.subscriber_count() == 2);
    (1..=3).for_each(|n| assert_eq!(feed.broadcast_json("price", n).unwrap().queued, 2));
    let text = socket.text();
    assert!(text.starts_with(r#"{"type":"price","payload":1,"timestamp":""#) && !text.contains("position"), "{text}");
    let (name, id, data) = next(&mut first);
    assert_eq!((&*name, &*data), ("", &*text));
    assert_eq!(id.parse::<Position>().unwrap().offset(), 1);
    let mut back = stream(&server, &start.to_string());
    assert_eq!(next(&mut back).0, "gap");
    assert!(next(&mut back).2.contains("\"payload\":2"));
    assert!(next(&mut back).2.contains("\"payload\":3"));
}

#[test]
fn a_binary_message_is_recorded_and_not_shown_to_streams() {
    let server = serve(Hub::builder().rooms("r", RoomOptions::history()));
    let hub = &server.hub;
    let mut stream = stream(&server, "");
    next(&mut stream);
    let published = hub.publish("r", Message::binary(vec![1]));
    assert_eq!((published.delivery.queued, published.delivery.refused), (0, 1));
    hub.publish("r", "text");
    assert_eq!(next(&mut stream).2, "text");
    assert_eq!(hub.position("r").unwrap().offset(), 2);
}
