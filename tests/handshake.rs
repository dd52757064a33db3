//! The upgrade (RFC 6455 §4.2): accepted requests, and every refusal with its status. A refusal leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use common::{KEY, TestServer, WsClient, counted, errors, eventually, exchange, status, upgrade_request};
use wshub::{
    Admission, Config, Hub, HubBuilder, Limits, OriginPolicy, Rejection, RequestHead, Response, health::HubState,
    metrics::ErrorType,
};

const GET: &str = "GET /ws HTTP/1.1";

/// Sends a changed upgrade request; gives the whole answer.
fn ask(server: &TestServer, line: &str, changes: &[&str]) -> String {
    exchange(server.addr, upgrade_request(line, changes).as_bytes())
}

/// Opens a connection for a target with further headers; gives the status.
fn open(server: &TestServer, target: &str, headers: &str) -> (u16, WsClient) {
    let (head, client) = WsClient::try_connect(server.addr, target, headers);
    (status(&head), client)
}

/// Names its users by the query: `/ws?user=ann`.
fn with_users() -> HubBuilder {
    Hub::builder().on_upgrade(|head| Ok(head.query_param("user").map_or_else(Admission::anonymous, Admission::user)))
}

fn assert_empty(hub: &Hub) {
    assert_eq!((hub.client_count(), hub.user_count(), hub.room_names().len()), (0, 0, 0));
}

/// A path with a query, as the client asks for it.
fn at(query: &str) -> String {
    format!("/ws?{query}")
}

#[test]
fn the_101_is_exact() {
    let server = TestServer::new(Hub::builder());
    let (head, client) = WsClient::try_connect(server.addr, "/ws", "Sec-WebSocket-Extensions: permessage-foo\r\n");
    assert_eq!(
        head,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
    client.close();
}

#[test]
fn a_request_may_be_written_in_many_ways() {
    let server = TestServer::new(Hub::builder());
    let good: [(&str, &[&str]); 7] = [
        (GET, &["Upgrade: WebSocket", "Connection: upgrade"]),
        (GET, &["Connection: keep-alive, Upgrade"]),
        (GET, &["Connection: keep-alive", "+Connection: ,\tUPGRADE ,"]),
        (GET, &["-Upgrade", "uPGRADE: h2c, websocket"]),
        (GET, &["Content-Length: 0"]),
        ("GET /ws?a=b&c HTTP/1.1", &[]),
        ("GET http://a/ws HTTP/1.1", &["Host: A"]),
    ];
    for (line, changes) in good {
        assert_eq!(status(&ask(&server, line, changes)), 101, "{line} {changes:?}");
    }
    let request = format!("\r\n{}", upgrade_request(GET, &[]));
    assert_eq!(status(&exchange(server.addr, request.as_bytes())), 101, "an empty line before the request");
}

#[test]
fn the_request_may_arrive_in_any_pieces() {
    let server = TestServer::new(Hub::builder());
    let request = upgrade_request(GET, &[]);
    for step in [1, 2, 3, 7, 50, request.len() - 1] {
        let mut stream = TcpStream::connect(server.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in request.as_bytes().chunks(step) {
            stream.write_all(piece).unwrap();
        }
        let mut client = WsClient::on(stream);
        assert_eq!(status(&client.read_head()), 101, "pieces of {step}");
        client.close();
    }
}

#[test]
fn malformed_requests_get_400() {
    let (metrics, builder) = counted(Hub::builder());
    let server = TestServer::new(builder);
    let bad: [(&str, &[&str]); 12] = [
        ("GET /ws HTTP/1.0", &[]),
        (GET, &["-Host"]),
        (GET, &["-Upgrade"]),
        (GET, &["Upgrade: websockets"]),
        (GET, &["-Connection"]),
        (GET, &["Connection: close"]),
        (GET, &["-Sec-WebSocket-Key"]),
        (GET, &["Sec-WebSocket-Key: "]),
        (GET, &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="]),
        (GET, &["Content-Length: 1"]),
        (GET, &["Transfer-Encoding: chunked"]),
        (GET, &["Content-Length: -1"]),
    ];
    for (line, changes) in bad {
        assert_eq!(status(&ask(&server, line, changes)), 400, "{line} {changes:?}");
    }
    let early = upgrade_request(GET, &[]) + "early";
    assert_eq!(status(&exchange(server.addr, early.as_bytes())), 400, "bytes behind the request");
    // The hub's metrics also count requests that are too malformed to reach a hub.
    assert_eq!(errors(&metrics, ErrorType::UpgradeFailed), 13);
    assert_empty(&server.hub);
}

#[test]
fn other_methods_get_405_and_are_told_which_is_right() {
    let (metrics, builder) = counted(Hub::builder());
    let server = TestServer::new(builder);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "get"] {
        let answer = ask(&server, &format!("{method} /ws HTTP/1.1"), &[]);
        assert_eq!(status(&answer), 405, "{method}");
        assert!(answer.contains("\r\nAllow: GET\r\n"), "{answer}");
    }
    let answer = ask(&server, "HEAD /ws HTTP/1.1", &[]);
    assert_eq!(status(&answer), 405);
    assert!(answer.ends_with("\r\n\r\n"), "an answer to HEAD has no body: {answer}");
    assert_eq!(errors(&metrics, ErrorType::UpgradeFailed), 6);
}

#[test]
fn other_versions_get_426_and_are_told_which_is_right() {
    let server = TestServer::new(Hub::builder());
    let versions: [&[&str]; 5] = [
        &["-Sec-WebSocket-Version"],
        &["Sec-WebSocket-Version: 8"],
        &["Sec-WebSocket-Version: 13, 8"],
        &["Sec-WebSocket-Version: 013"],
        &["Sec-WebSocket-Version: "],
    ];
    for changes in versions {
        let answer = ask(&server, GET, changes);
        assert_eq!(status(&answer), 426, "{changes:?}");
        assert!(answer.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{answer}");
        // RFC 9110 §7.8: Upgrade is a header of this connection.
        assert!(answer.contains("\r\nUpgrade: websocket\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: Upgrade, close\r\n"), "{answer}");
    }
}

#[test]
fn origins_get_403_by_the_policy() {
    let has_token = |head: &RequestHead| head.header("x-token") == Some("1");
    let tables: [(OriginPolicy, &[(&str, u16)]); 4] = [
        (
            OriginPolicy::default(),
            &[
                ("", 101),
                ("Origin: http://a", 101),
                ("Origin: https://A", 101),
                ("Origin: http://b", 403),
                ("Origin: http://a:8080", 403),
                ("Origin: null", 403),
            ],
        ),
        (
            OriginPolicy::allow(["https://x.org", "http://b"]),
            &[("", 101), ("Origin: http://B", 101), ("Origin: http://a", 403), ("Origin: http://x.org", 403)],
        ),
        (OriginPolicy::allow_all(), &[("", 101), ("Origin: http://b", 101), ("Origin: null", 101)]),
        (OriginPolicy::custom(has_token), &[("", 403), ("X-Token: 1", 101), ("Origin: http://a", 403)]),
    ];
    for (policy, cases) in tables {
        let name = format!("{policy:?}");
        let (metrics, builder) = counted(Hub::builder().origins(policy));
        let server = TestServer::new(builder);
        for (header, expected) in cases {
            let changes: Vec<&str> = [*header].into_iter().filter(|h| !h.is_empty()).collect();
            assert_eq!(status(&ask(&server, GET, &changes)), *expected, "{name} {header:?}");
        }
        let refused = cases.iter().filter(|(_, status)| *status == 403).count();
        assert_eq!(errors(&metrics, ErrorType::OriginRejected), refused as u64, "{name}");
    }
}

#[test]
fn a_panicking_origin_policy_refuses() {
    let server = TestServer::new(Hub::builder().origins(OriginPolicy::custom(|_| panic!("on purpose"))));
    assert_eq!(status(&ask(&server, GET, &[])), 403);
    assert_empty(&server.hub);
}

#[test]
fn on_upgrade_refuses_with_any_status() {
    let (metrics, builder) = counted(Hub::builder().on_upgrade(|head| match head.query() {
        Some("who") => Err(Rejection::unauthorized()),
        Some("default") => Err(Rejection::default()),
        Some("teapot") => Err(Rejection::new(418, "short and stout")),
        Some("busy") => Err(Response::json(503, &[1]).header("Retry-After", "7").into()),
        Some("fine") => Err(Response::text(200, "no").into()),
        Some("panic") => panic!("on purpose"),
        _ => Ok(Admission::anonymous()),
    }));
    let server = TestServer::new(builder);
    let ask = |query: &str| ask(&server, &format!("GET {} HTTP/1.1", at(query)), &[]);
    assert_eq!(status(&ask("who")), 401);
    assert_eq!(status(&ask("default")), 403);
    let teapot = ask("teapot");
    assert!(teapot.starts_with("HTTP/1.1 418 ") && teapot.ends_with("\r\n\r\nshort and stout"), "{teapot}");
    let busy = ask("busy");
    assert!(busy.starts_with("HTTP/1.1 503 ") && busy.contains("\r\nRetry-After: 7\r\n"), "{busy}");
    assert_eq!(status(&ask("fine")), 403, "a refusal must not look like success");
    assert_eq!(status(&ask("panic")), 500);
    assert_eq!(errors(&metrics, ErrorType::ConnectionRejected), 6);
    assert_eq!(errors(&metrics, ErrorType::Panic), 1);
    assert_empty(&server.hub);
    server.connect().close();
}

#[test]
fn a_refusal_that_is_no_answer_becomes_500() {
    let server = TestServer::new(Hub::builder().on_upgrade(|head| match head.query() {
        Some("status") => Err(Rejection::new(65535, "no")),
        _ => Err(Response::text(403, "no").header("X", "a\r\nb").into()),
    }));
    for query in ["status", "header"] {
        assert_eq!(open(&server, &at(query), "").0, 500, "{query}");
    }
}

#[test]
fn origins_that_can_never_match_are_refused_when_the_hub_is_built() {
    for bad in ["a.org", "https://*.a.org", "https://a.org/path", "*"] {
        let error = Hub::builder().origins(OriginPolicy::allow(["https://b.org", bad])).build().unwrap_err();
        assert_eq!(error.field(), "origins");
        assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
    }
    let server = TestServer::new(Hub::builder().origins(OriginPolicy::allow(["HTTPS://A.org:443/"])));
    assert_eq!(status(&ask(&server, GET, &["Origin: https://a.org"])), 101);
}

#[test]
fn on_upgrade_is_not_asked_about_bad_requests() {
    let (asked, questions) = channel();
    let server = TestServer::new(Hub::builder().on_upgrade(move |_| {
        asked.send(()).unwrap();
        Ok(Admission::anonymous())
    }));
    ask(&server, "POST /ws HTTP/1.1", &[]);
    ask(&server, GET, &["Sec-WebSocket-Version: 8"]);
    ask(&server, GET, &["-Sec-WebSocket-Key"]);
    ask(&server, GET, &["Origin: http://b"]);
    assert_eq!(questions.try_iter().count(), 0);
    ask(&server, GET, &[]);
    assert_eq!(questions.try_iter().count(), 1);
}

#[test]
fn heads_over_the_limits_get_431() {
    let server = TestServer::new(Hub::builder());
    let padded = |size: usize| {
        let bare = upgrade_request(GET, &["X: "]).len();
        upgrade_request(GET, &[&format!("X: {}", "x".repeat(size - bare))])
    };
    for (size, expected) in
        [(wshub::server::MAX_HEAD, 101), (wshub::server::MAX_HEAD + 1, 431), (9 * 1024, 431), (100 * 1024, 431)]
    {
        let request = padded(size);
        assert_eq!(request.len(), size);
        assert_eq!(status(&exchange(server.addr, request.as_bytes())), expected, "{size} bytes");
    }
    for (count, expected) in [(wshub::server::MAX_HEADERS, 101), (wshub::server::MAX_HEADERS + 1, 431)] {
        let more = vec!["+X: y"; count - 5];
        assert_eq!(status(&ask(&server, GET, &more)), expected, "{count} headers");
    }
}

#[test]
fn a_head_that_takes_too_long_gets_408() {
    let server = TestServer::with(Hub::builder(), |s| s.handshake_timeout(Duration::from_millis(200)));
    let request = upgrade_request(GET, &[]);
    for sent in [0, 1, request.len() - 1] {
        let mut stream = TcpStream::connect(server.addr).unwrap();
        stream.write_all(&request.as_bytes()[..sent]).unwrap();
        let mut client = WsClient::on(stream);
        assert_eq!(status(&client.read_head()), 408, "after {sent} bytes");
    }
    // Drops do not extend the time: it is for the whole head.
    let mut dripping = TcpStream::connect(server.addr).unwrap();
    dripping.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut first = [0; 12];
    let answered = request.bytes().cycle().take(1000).find(|byte| {
        let _ = dripping.write_all(&[*byte]);
        std::io::Read::read(&mut dripping, &mut first).is_ok()
    });
    assert!(answered.is_some());
    assert_eq!(&first, b"HTTP/1.1 408");
}

#[test]
fn connections_over_the_limit_get_503() {
    let (metrics, builder) = counted(Hub::builder().limits(Limits::default().max_connections(2)));
    let server = TestServer::new(builder);
    let (first, second) = (server.connect(), server.connect());
    assert_eq!(open(&server, "/ws", "").0, 503);
    assert_eq!(errors(&metrics, ErrorType::ConnectionLimit), 1);
    first.close();
    eventually("a place is free", || server.hub.client_count() == 1);
    server.connect().close();
    second.close();
}

#[test]
fn users_over_their_limit_get_429() {
    let (metrics, builder) = counted(with_users());
    let limits = Limits::default().max_connections(2).max_connections_per_user(1);
    let server = TestServer::new(builder.limits(limits));
    let ann = server.connect_to(&at("user=ann"));
    for _ in 0..3 {
        assert_eq!(open(&server, &at("user=ann"), "").0, 429);
    }
    assert_eq!(errors(&metrics, ErrorType::ConnectionLimit), 3);
    // The refused ones hold no place among the connections.
    assert_eq!((server.hub.client_count(), server.hub.user_connection_count("ann")), (1, 1));
    let bob = server.connect_to(&at("user=bob"));
    assert_eq!(open(&server, &at("user=eve"), "").0, 503);
    assert!(!server.hub.is_user_online("eve"));
    ann.close();
    bob.close();
    eventually("everyone has gone", || server.hub.user_count() == 0);
}

#[test]
fn addresses_over_their_limit_get_429() {
    let server = TestServer::new(with_users().limits(Limits::default().max_connections_per_address(2)));
    let first = server.connect();
    let _second = server.connect();
    for _ in 0..3 {
        assert_eq!(open(&server, &at("user=ann"), "").0, 429);
    }
    assert_eq!((server.hub.client_count(), server.hub.user_count()), (2, 0));
    first.close();
    eventually("a place is free", || server.hub.client_count() == 1);
    server.connect().close();
}

#[test]
fn rooms_of_the_admission_can_refuse_it() {
    let long = "x".repeat(wshub::limit::MAX_ROOM_NAME + 1);
    let builder = Hub::builder()
        .limits(Limits::default().max_clients_per_room(1).max_rooms_per_client(2))
        .on_upgrade(move |head| {
            let rooms = head.query().unwrap_or_default().split('+').map(|r| r.replace("LONG", &long));
            Ok(rooms.fold(Admission::user("ann"), Admission::room))
        })
        .before_room_join(|_, room| if room == "secret" { Err("no".into()) } else { Ok(()) });
    let server = TestServer::new(builder);
    let member = server.connect_to(&at("full"));
    for (rooms, expected) in [("a+secret", 403), ("a+full", 503), ("a+b+c", 503), ("a+", 400), ("a+LONG", 400)] {
        assert_eq!(open(&server, &at(rooms), "").0, expected, "{rooms}");
        let hub = &server.hub;
        assert_eq!(
            (hub.client_count(), hub.user_connection_count("ann"), hub.room_names().len()),
            (1, 1, 1),
            "{rooms}"
        );
    }
    member.close();
    eventually("the room is gone", || server.hub.room_names().is_empty());
}

#[test]
fn draining_and_stopped_hubs_answer_503() {
    let (metrics, builder) =
        counted(Hub::builder().config(Config::default().lame_duck(Duration::ZERO).drain_timeout(Duration::ZERO)));
    let server = TestServer::new(builder);
    let mut client = server.connect();
    let hub = server.hub.clone();
    let drain = std::thread::spawn(move || hub.drain(common::PATIENCE));
    eventually("the hub refuses", || !server.hub.is_admitting());
    assert_eq!(open(&server, "/ws", "").0, 503);
    assert_eq!(status(&ask(&server, "POST /ws HTTP/1.1", &[])), 503, "the state is looked at first");
    client.send_text("still served");
    client.close();
    drain.join().unwrap().unwrap();
    server.hub.shutdown(common::PATIENCE).unwrap();
    assert_eq!(server.hub.state(), HubState::Stopped);
    assert_eq!(open(&server, "/ws", "").0, 503);
    assert_eq!(errors(&metrics, ErrorType::ConnectionRejectedDraining), 3);
}

#[test]
fn handshakes_over_the_limit_get_503_and_upgraded_connections_do_not_count() {
    // The bridge's connections are not the clients' own.
    if common::over_tls::is_wanted() {
        return;
    }
    let server = TestServer::with(Hub::builder(), |s| s.max_handshakes(1));
    let client = server.connect();
    let idle = TcpStream::connect(server.addr).unwrap();
    let mut refused = WsClient::on(TcpStream::connect(server.addr).unwrap());
    let head = refused.read_head();
    assert_eq!(status(&head), 503);
    assert!(head.contains("\r\nRetry-After: "), "{head}");
    drop(idle);
    eventually("the place is free", || open(&server, "/ws", "").0 == 101);
    client.close();
}

#[test]
fn one_address_has_only_its_share_of_the_handshakes() {
    // The bridge's connections come from one address.
    if common::over_tls::is_wanted() {
        return;
    }
    let server = TestServer::with(Hub::builder(), |s| s.max_handshakes(8).max_handshakes_per_address(3));
    // An address of the loopback of its own, which over TLS the bridge does not have.
    let from = |last: u8| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
        socket.connect(&server.handle.local_addr().unwrap().into()).unwrap();
        WsClient::on(socket.into())
    };
    let silent: Vec<_> = (0..3).map(|_| from(2)).collect();
    eventually("they have their places", || server.handle.load().handshakes() == 3);
    assert_eq!(status(&from(2).read_head()), 503);
    let mut other = from(3);
    other.stream.write_all(upgrade_request(GET, &[]).as_bytes()).unwrap();
    assert_eq!(status(&other.read_head()), 101, "another address is served");
    drop(silent);
    eventually("the places are free", || server.handle.load().handshakes() == 0);
    let mut again = from(2);
    again.stream.write_all(upgrade_request(GET, &[]).as_bytes()).unwrap();
    assert_eq!(status(&again.read_head()), 101);
}

#[test]
fn the_first_subprotocol_of_ours_that_is_offered_is_chosen() {
    let builder = Hub::builder().config(Config::default().subprotocols(["chat.v2", "chat.v1"])).on_upgrade(|head| {
        Ok(head.query_param("choose").map_or_else(Admission::default, |p| Admission::default().subprotocol(p)))
    });
    let server = TestServer::new(builder.on_message(|client, _| {
        client.send(client.subprotocol().unwrap_or("none"))?;
        Ok(())
    }));
    let cases = [
        ("/ws", "", "none"),
        ("/ws", "Sec-WebSocket-Protocol: chat.v1, chat.v2\r\n", "chat.v2"),
        ("/ws", "Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: chat.v1\r\n", "chat.v1"),
        ("/ws", "Sec-WebSocket-Protocol: CHAT.V1, x\r\n", "none"),
        ("/ws?choose=x", "Sec-WebSocket-Protocol: chat.v1, x\r\n", "x"),
        ("/ws?choose=y", "Sec-WebSocket-Protocol: chat.v1, x\r\n", "chat.v1"),
        ("/ws?choose=y", "", "none"),
    ];
    for (target, headers, expected) in cases {
        let (head, mut client) = WsClient::try_connect(server.addr, target, headers);
        let line = head.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Protocol: "));
        assert_eq!(line.unwrap_or("none"), expected, "{target} {headers:?}");
        client.send_text("which?");
        assert_eq!(client.text(), expected);
        client.close();
    }
}

#[test]
fn a_client_knows_its_request() {
    // The bridge's connections are not the clients' own.
    if common::over_tls::is_wanted() {
        return;
    }
    let server = TestServer::new(Hub::builder().on_message(|client, _| {
        let head = client.request();
        let key = head.header("sec-websocket-key") == Some(KEY);
        let agent = head.header("user-agent").unwrap_or_default();
        client.send(format!("{} {:?} {agent} {key} {:?}", head.path(), head.query(), client.remote_addr()))?;
        Ok(())
    }));
    let mut client = WsClient::connect(server.addr, "/ws?a=1", "User-Agent: test/1\r\n");
    client.send_text("?");
    let own = client.stream.local_addr().unwrap();
    assert_eq!(client.text(), format!("/ws Some(\"a=1\") test/1 true {:?}", Some(own)));
    client.close();
}
