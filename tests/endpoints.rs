//! Descriptions of endpoints, and refusals in the application's words.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::net::TcpStream;
use std::sync::Arc;

use common::{Log, TestServer, eventually, exchange, split_answer, status, upgrade_request};
use wshub::{
    Admission, Hub, Rejection, Response, Server,
    metrics::{DebugMetrics, ErrorType},
    server::Endpoint,
};

const DESCRIBED: &str = concat!(
    r#"[{"path":"/ws","description":"","tags":{},"middleware":[],"kind":"websocket"},"#,
    r#"{"path":"/b","description":"Second","tags":{"a":"3","b":"2"},"middleware":["outer","inner"],"kind":"websocket"},"#,
    r#"{"path":"/c","description":"","tags":{},"middleware":[],"kind":"event_stream"}]"#,
);

#[test]
fn endpoints_are_listed_in_their_order() {
    let second = Endpoint::new("/b", &Hub::new()).description("Second").tag("b", "2").tag("a", "1").tag("a", "3");
    let server = TestServer::with(Hub::builder(), |server| {
        server.mount(second.lists_middleware("outer").lists_middleware("inner")).event_stream("/c", &Hub::new())
    });
    assert_eq!(serde_json::to_string(server.handle.endpoints()).unwrap(), DESCRIBED);
    server.connect_to("/b").sync();
}

#[test]
fn an_endpoint_checks_its_own_requests_before_the_hub_does() {
    let log = Log::default();
    let (first, second, hook) = (log.clone(), log.clone(), log.clone());
    let hub = Hub::builder()
        .on_upgrade(move |head| {
            assert!(head.remote_addr().is_some_and(|addr| addr.ip().is_loopback()));
            hook.add("hub");
            Ok(Admission::anonymous())
        })
        .build()
        .unwrap();
    let guarded = Endpoint::new("/guarded", &hub)
        .check("key", move |head| {
            first.add("key");
            if head.query_param("key").is_some() { Ok(()) } else { Err(Rejection::unauthorized()) }
        })
        .check("panic", move |head| {
            second.add("panic");
            assert!(head.query_param("panic").is_none(), "as told");
            Ok(())
        })
        .lists_middleware("recovery");
    let server = TestServer::of(hub, |server| server.mount(guarded));
    assert_eq!(server.handle.endpoints()[1].middleware, ["key", "panic", "recovery"]);
    let ask = |path: &str| {
        let request = upgrade_request(&format!("GET {path} HTTP/1.1"), &[]);
        status(&exchange(server.addr, request.as_bytes()))
    };
    assert_eq!((ask("/guarded"), log.take()), (401, vec!["key".into()]));
    assert_eq!((ask("/guarded?key=1&panic=1"), log.take()), (500, vec!["key".into(), "panic".into()]));
    assert_eq!((ask("/guarded?key=1"), log.take()), (101, vec!["key".into(), "panic".into(), "hub".into()]));
    assert_eq!((ask("/ws"), log.take()), (101, vec!["hub".into()]), "the other endpoint is open");
}

#[test]
fn an_endpoint_admits_its_own_clients_and_the_hub_those_of_others() {
    let log = Log::default();
    let hook = log.clone();
    let refusing = Hub::builder().on_upgrade(move |_| {
        hook.add("hub");
        Err(Rejection::unauthorized())
    });
    let hub = refusing.build().unwrap();
    let own = Endpoint::new("/devices/{id}", &hub)
        .check("key", |head| head.query_param("key").map(|_| ()).ok_or_else(Rejection::forbidden))
        .admit(|head| match head.path_param("id") {
            Some("panic") => panic!("as told"),
            Some("unknown") => Err(Rejection::new(404, "no such device\n")),
            id => Ok(Admission::user(id.unwrap_or_default()).room("devices")),
        });
    let server = TestServer::of(hub, |server| server.mount(own));
    let ask = |path: &str| {
        let request = upgrade_request(&format!("GET {path} HTTP/1.1"), &[]);
        status(&exchange(server.addr, request.as_bytes()))
    };
    assert_eq!(ask("/devices/lock"), 403, "checks come first");
    assert_eq!((ask("/devices/unknown?key=1"), ask("/devices/panic?key=1")), (404, 500));
    let _socket = server.connect_to("/devices/lock?key=1");
    eventually("it is in", || server.hub.room_size("devices") == 1);
    assert_eq!(server.hub.users().iter().map(|user| &**user).collect::<Vec<_>>(), ["lock"]);
    assert!(log.take().is_empty(), "the hub was not asked");
    assert_eq!((ask("/ws"), log.take()), (401, vec!["hub".into()]));
}

#[test]
fn what_goes_wrong_before_a_hub_is_counted() {
    // The bridge's connections are not the clients' own.
    if common::over_tls::is_wanted() {
        return;
    }
    let metrics = Arc::new(DebugMetrics::new());
    let counter = Arc::clone(&metrics);
    let server =
        TestServer::with(Hub::builder(), |server| server.metrics(counter).handle("/panic", |_| panic!("as told")));
    let count = |error| common::errors(&metrics, error);
    assert_eq!(status(&exchange(server.addr, b"nonsense\r\n\r\n")), 400);
    assert_eq!(count(ErrorType::UpgradeFailed), 1);
    assert_eq!(status(&exchange(server.addr, b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n")), 500);
    assert_eq!(count(ErrorType::Panic), 1);
    let counter = Arc::clone(&metrics);
    let server = TestServer::with(Hub::builder(), |server| server.metrics(counter).max_handshakes(1));
    eventually("there is no place", || {
        // Takes the place, unless the request before is still there.
        let _idle = TcpStream::connect(server.addr).unwrap();
        status(&exchange(server.addr, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")) == 503
    });
    assert!(count(ErrorType::ConnectionLimit) >= 1);
}

#[test]
fn the_metrics_of_a_hub_count_what_goes_wrong_before_it() {
    let (metrics, builder) = common::counted(Hub::builder());
    let server = TestServer::with(builder, |server| server.handle("/panic", |_| panic!("as told")));
    assert_eq!(status(&exchange(server.addr, b"nonsense\r\n\r\n")), 400);
    assert_eq!(status(&exchange(server.addr, b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n")), 500);
    let count = |error| common::errors(&metrics, error);
    assert_eq!((count(ErrorType::UpgradeFailed), count(ErrorType::Panic)), (1, 1), "given once, counted once");
}

#[test]
fn a_path_is_mounted_once() {
    let hub = Hub::new();
    let server = Server::bind("127.0.0.1:0").unwrap().mount(Endpoint::new("/ws", &hub));
    assert_eq!(server.endpoints().len(), 1);
    assert!(server.mount(Endpoint::new("/ws", &hub)).spawn().is_err());
    assert!(Server::bind("127.0.0.1:0").unwrap().mount(Endpoint::new("ws", &hub)).spawn().is_err());
}

#[test]
fn refusals_are_worded_by_the_application() {
    let builder = Hub::builder().map_refusal(|head, error, response| match head.path() {
        "/ws" => Response::json(418, &[error.as_str(), std::str::from_utf8(response.content()).unwrap().trim_end()]),
        "/ok" => Response::new(200),
        "/101" => Response::new(101),
        path => panic!("{error} {path}"),
    });
    let server = TestServer::with(builder, |server| server);
    let others = Server::bind("127.0.0.1:0").unwrap().websocket("*", &server.hub).spawn().unwrap();
    let ask = |path: &str| {
        let request = upgrade_request(&format!("GET {path} HTTP/1.1"), &["Origin: http://b"]);
        exchange(others.local_addr().unwrap(), request.as_bytes())
    };
    assert_eq!(ErrorType::OriginRejected.as_str(), "origin_rejected");
    assert_eq!(split_answer(&ask("/ws")), (418, r#"["origin_rejected","origin not allowed"]"#.to_owned()));
    for path in ["/ok", "/101", "/panic"] {
        assert_eq!(status(&ask(path)), 403, "{path}: no success, and no panic, lets anybody in");
    }
}
