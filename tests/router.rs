//! The router: messages go to handlers by event; other messages are errors.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{BINARY, TestServer, WsClient};
use wshub::router::Router;
use wshub::{Hub, HubBuilder, router::InvalidMessage};

#[derive(serde::Deserialize)]
struct Say {
    text: String,
}

fn router() -> Router {
    Router::json_field("type")
        .on("ping", |client, _| Ok(client.send("replaced")?))
        .on("ping", |client, _| Ok(client.send("pong")?))
        .on_json("say", |client, say: Say| Ok(client.send(say.text)?))
}

/// Answers with the kind of error.
fn serve(router: Router) -> HubBuilder {
    Hub::builder().on_message(router.into_handler()).on_error(|client, error| {
        let answer = match error.downcast_ref() {
            Some(InvalidMessage::NoEvent) => "no event".to_owned(),
            Some(InvalidMessage::UnknownEvent(event)) => format!("unknown {event}"),
            Some(InvalidMessage::Payload(_)) => "payload".to_owned(),
            _ => "other".to_owned(),
        };
        drop(client.send(answer));
    })
}

fn ask(socket: &mut WsClient, text: &str) -> String {
    socket.send_text(text);
    socket.text()
}

#[test]
fn messages_reach_the_handler_of_their_event() {
    let server = TestServer::new(serve(router()));
    let mut socket = server.connect();
    assert_eq!(ask(&mut socket, r#"{"type":"ping"}"#), "pong");
    assert_eq!(ask(&mut socket, r#"{"extra":[1,{}],"text":"hi","type":"say"}"#), "hi");
    assert_eq!(ask(&mut socket, r#"{"type":"s\u0061y","text":"hi"}"#), "hi");
}

#[test]
fn what_has_no_handler_is_an_invalid_message_and_the_connection_stays() {
    let server = TestServer::new(serve(router()));
    let mut socket = server.connect();
    for (text, answer) in [
        (r#"{"type":"nope"}"#, "unknown nope"),
        (r#"{"type":"Ping"}"#, "unknown Ping"),
        (r#"{"type":""}"#, "unknown "),
        (r#"{"type":7}"#, "no event"),
        (r#"{"type":"ping","type":"ping"}"#, "no event"),
        (r#"{"type":"ping""#, "no event"),
        (r#"["ping"]"#, "no event"),
        ("", "no event"),
        (r#"{"type":"say"}"#, "payload"),
        (r#"{"type":"say","text":5}"#, "payload"),
        (r#"{"type":"say","text":"a","text":"b"}"#, "payload"),
        (r#"{"type":"ping"}"#, "pong"),
    ] {
        assert_eq!(ask(&mut socket, text), answer, "{text}");
    }
    socket.send_frame(BINARY, br#"{"type":"ping"}"#);
    assert_eq!(socket.text(), "no event");
    assert_eq!(ask(&mut socket, &"[".repeat(100_000)), "no event");
    assert_eq!(ask(&mut socket, &format!(r#"{{"a":{}1{},"type":"ping"}}"#, "[".repeat(9), "]".repeat(9))), "pong");
}

#[test]
fn on_not_found_gets_the_rest() {
    let server = TestServer::new(serve(router().on_not_found(|client, message| Ok(client.send(message)?))));
    let mut socket = server.connect();
    assert_eq!(ask(&mut socket, "anything"), "anything");
    assert_eq!(ask(&mut socket, r#"{"type":"nope"}"#), r#"{"type":"nope"}"#);
    assert_eq!(ask(&mut socket, r#"{"type":"ping"}"#), "pong");
    assert_eq!(ask(&mut socket, r#"{"type":"say"}"#), "payload", "its own handler has refused it");
}

#[test]
fn any_extractor_will_do() {
    let router = Router::new(|message| message.payload().first().map(|byte| format!("op {byte}").into()))
        .on("op 1", |client, _| Ok(client.send("one")?));
    let server = TestServer::new(serve(router));
    let mut socket = server.connect();
    socket.send_frame(BINARY, &[1, 2, 3]);
    assert_eq!(socket.text(), "one");
    socket.send_frame(BINARY, &[]);
    assert_eq!(socket.text(), "no event");
    socket.send_frame(BINARY, &[2]);
    assert_eq!(socket.text(), "unknown op 2");
}
