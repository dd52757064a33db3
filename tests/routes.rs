//! Paths with parameters and prefixes.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::stream::SseClient;
use common::{TestServer, WsClient, get};
use wshub::server::Request;
use wshub::{Admission, Hub, Rejection, Response, Server, Target};

fn tell(name: &'static str, param: &'static str) -> impl Fn(&Request) -> Response + Send + Sync + 'static {
    move |request| Response::text(200, format!("{name} {:?}", request.head().path_param(param)))
}

#[test]
fn a_room_is_named_by_the_path() {
    let builder = Hub::builder().on_upgrade(|head| {
        let room = head.path_param("room").ok_or_else(Rejection::forbidden)?;
        Ok(Admission::anonymous().room(room))
    });
    let hub = builder.build().unwrap();
    let same = hub.clone();
    let server = TestServer::of(hub, move |server| {
        server.websocket("/rooms/{room}/ws", &same).event_stream("/rooms/{room}/events", &same)
    });
    let mut socket = WsClient::connect(server.addr, "/rooms/a%20b/ws?x", "");
    let mut stream = SseClient::connect(server.addr, "/rooms/a%20b/events", "");
    assert_eq!(server.hub.room_size("a b"), 2);
    server.hub.send(Target::room("a b"), "hello").unwrap();
    assert_eq!((socket.text(), stream.data()), ("hello".into(), "hello".into()));
    assert_eq!(server.hub.clients()[0].request().path_param("room"), Some("a b"));
    assert_eq!(WsClient::try_connect(server.addr, "/rooms//ws", "").0[..13], *"HTTP/1.1 404 ");
    assert_eq!(WsClient::try_connect(server.addr, "/ws", "").0[..13], *"HTTP/1.1 403 ", "a path without parameters");
}

#[test]
fn who_says_more_answers() {
    let server = TestServer::with(Hub::builder(), |server| {
        server
            .handle("/files/*", tell("rest", "*"))
            .handle("/files/{name}", tell("one", "name"))
            .handle("/files/index", tell("exact", "name"))
            .handle("/{user}/index", tell("user", "user"))
            .fallback(tell("fallback", "*"))
    });
    for (path, expected) in [
        ("/files/index", "exact None"),
        ("/files/a.txt", "one Some(\"a.txt\")"),
        ("/files/a/b", "rest Some(\"a/b\")"),
        ("/files/", "rest Some(\"\")"),
        ("/ann/index", "user Some(\"ann\")"),
        ("/files/%FF", "fallback None"),
        ("/ann/other", "fallback None"),
    ] {
        assert_eq!(get(server.addr, path), (200, expected.to_owned()), "{path}");
    }
}

#[test]
fn paths_that_cannot_be_are_named() {
    let bind = || Server::bind("127.0.0.1:0").unwrap();
    for (server, named) in [
        (bind().handle("/{a}", tell("", "")).handle("/{b}", tell("", "")), "/{b}"),
        (bind().handle("/*/a", tell("", "")), "/*/a"),
        (bind().handle("/a{b}", tell("", "")), "/a{b}"),
    ] {
        let error = server.spawn().unwrap_err();
        let inner = error.get_ref().unwrap().downcast_ref::<wshub::ConfigError>().unwrap();
        assert_eq!(inner.field(), "route");
        assert!(error.to_string().contains(&format!("{named:?}")), "{error}");
    }
}
