//! What a server tells about its endpoints, and refusals as the application words them.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{TestServer, exchange, split_answer, status, upgrade_request};
use wshub::{Endpoint, ErrorType, Hub, Response, Server};

const DESCRIBED: &str = r#"[{"path":"/ws","description":"","tags":{},"middleware":[],"kind":"websocket"},{"path":"/b","description":"Second","tags":{"a":"3","b":"2"},"middleware":["outer","inner"],"kind":"websocket"},{"path":"/c","description":"","tags":{},"middleware":[],"kind":"event_stream"}]"#;

#[test]
fn endpoints_are_listed_in_their_order() {
    let second = Endpoint::new("/b", &Hub::new()).description("Second").tag("b", "2").tag("a", "1").tag("a", "3");
    let server = TestServer::with(Hub::builder(), |server| {
        server.mount(second.middleware("outer").middleware("inner")).event_stream("/c", &Hub::new())
    });
    assert_eq!(serde_json::to_string(server.handle.endpoints()).unwrap(), DESCRIBED);
    server.connect_to("/b").sync();
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
