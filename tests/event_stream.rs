//! Server-Sent Events: clients of the hub that only listen.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::stream::{Item, SseClient};
use common::{Log, PATIENCE, TestServer, counted, errors, eventually, exchange, split_answer, status};
use wshub::{
    Admission, Client, Config, DropPolicy, Hub, HubBuilder, Limits, Message, OriginPolicy, Rejection, RequestHead,
    SendError, Target, metrics::ErrorType,
};

/// Serves the hub at `/events` too.
fn serve(builder: HubBuilder) -> TestServer {
    let hub = builder.build().unwrap();
    let same = hub.clone();
    TestServer::of(hub, move |server| server.event_stream("/events", &same))
}

fn listen(server: &TestServer) -> (SseClient, Client) {
    let before = server.hub.clients();
    let stream = SseClient::connect(server.addr, "/events", "");
    let client = server.hub.clients().into_iter().find(|c| !before.contains(c)).unwrap();
    (stream, client)
}

fn refused(server: &TestServer, lines: &str) -> (u16, String) {
    let answer = exchange(server.addr, format!("{}\r\n\r\n", lines.replace('\n', "\r\n")).as_bytes());
    (status(&answer), answer)
}

/// The milliseconds of the `retry` field.
fn retry(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("retry: "));
    line.unwrap_or_else(|| panic!("no retry: {text:?}")).parse().unwrap()
}

#[test]
fn the_response_is_a_stream_that_proxies_leave_alone() {
    let server = serve(Hub::builder());
    let (stream, client) = listen(&server);
    let (before, rest) = stream.head.split_once("Date: ").unwrap();
    assert_eq!(
        before,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n\
         X-Accel-Buffering: no\r\n"
    );
    let (_, after) = rest.split_once("\r\n").unwrap();
    assert_eq!(after, "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    assert!(client.is_event_stream());
    assert!(!server.pair().1.is_event_stream());
}

#[test]
fn a_broadcast_reaches_both_kinds_each_in_its_form() {
    let server = serve(Hub::builder());
    let (mut stream, _) = listen(&server);
    let (mut socket, _) = server.pair();
    let text = "one\ntwo\r\nthree\rfour\n";
    let delivery = server.hub.send(Target::all(), text).unwrap();
    assert_eq!((delivery.queued, delivery.dropped, delivery.refused), (2, 0, 0));
    assert_eq!(socket.text(), text);
    assert_eq!(stream.data(), "one\ntwo\nthree\nfour\n");
}

#[test]
fn names_ids_and_pauses_are_fields_of_the_event_only() {
    let server = serve(Hub::builder());
    let (mut stream, _) = listen(&server);
    let (mut socket, _) = server.pair();
    let message = Message::text("x")
        .with_event_name("price\ndata: forged")
        .with_event_id("7\r\n8")
        .with_retry(Duration::from_millis(2500));
    server.hub.send(Target::all(), &message).unwrap();
    assert_eq!(socket.text(), "x");
    let event = stream.event();
    assert_eq!(event.name.as_deref(), Some("price data: forged"));
    assert_eq!(event.id.as_deref(), Some("7  8"));
    assert_eq!((event.retry.as_deref(), event.data.as_str()), (Some("2500"), "x"));
}

#[test]
fn binary_messages_are_refused() {
    let server = serve(Hub::builder());
    let (mut stream, client) = listen(&server);
    let (mut socket, _) = server.pair();
    let binary = Message::binary(vec![1, 2]);
    assert!(matches!(client.send(&binary), Err(SendError::Binary(m)) if m == binary));
    assert!(matches!(client.send_timeout(&binary, PATIENCE), Err(SendError::Binary(_))));
    let delivery = server.hub.send(Target::all(), &binary).unwrap();
    assert_eq!((delivery.queued, delivery.dropped, delivery.refused), (1, 0, 1));
    let delivery = server.hub.send_timeout(client.id(), &binary, PATIENCE).unwrap();
    assert_eq!((delivery.queued, delivery.refused), (0, 1));
    assert_eq!(socket.frame().payload, [1, 2]);
    client.send("after").unwrap();
    assert_eq!(stream.data(), "after", "nothing came of the binary ones");
}

#[test]
fn rooms_users_hooks_and_metadata_are_those_of_any_client() {
    let log = Log::default();
    let (online, offline, joined, left, gone) = (log.clone(), log.clone(), log.clone(), log.clone(), log.clone());
    let builder = Hub::builder()
        .on_upgrade(|head| match head.query_param("user") {
            Some(user) => Ok(Admission::user(user).room("news").metadata("n", 7)),
            None => Err(Rejection::unauthorized()),
        })
        .on_user_online(move |_, user| online.add(format!("online {user}")))
        .on_user_offline(move |_, user| offline.add(format!("offline {user}")))
        .after_room_join(move |_, room| joined.add(format!("join {room}")))
        .after_room_leave(move |_, room| left.add(format!("leave {room}")))
        .after_disconnect(move |_| gone.add("gone"));
    let server = serve(builder);
    assert_eq!(refused(&server, "GET /events HTTP/1.1\nHost: a").0, 401);
    let mut stream = SseClient::connect(server.addr, "/events?user=ann", "");
    log.wait("join news");
    let client = server.hub.user_clients("ann").pop().unwrap();
    assert_eq!(client.metadata::<i32>("n").as_deref(), Some(&7));
    for target in [Target::room("news"), Target::user("ann"), Target::client(client.id())] {
        assert_eq!(server.hub.send(target, "x").unwrap().queued, 1);
        assert_eq!(stream.data(), "x");
    }
    drop(stream);
    log.wait("gone");
    assert_eq!(log.all(), ["online ann", "join news", "offline ann", "leave news", "gone"]);
    assert_eq!((server.hub.client_count(), server.hub.room_exists("news")), (0, false));
}

#[test]
fn requests_that_no_stream_may_have() {
    let (metrics, builder) = counted(Hub::builder());
    let config = Config::default().close_timeout(Duration::from_millis(100)).lame_duck(Duration::ZERO);
    let server = serve(builder.config(config).limits(Limits::default().max_connections(1)));
    for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
        let (status, answer) = refused(&server, &format!("{method} /events HTTP/1.1\nHost: a"));
        assert_eq!(status, 405, "{method}");
        assert!(answer.contains("\r\nAllow: GET\r\n"), "{answer}");
        assert_eq!(answer.ends_with("\r\n\r\n"), method == "HEAD", "{answer}");
    }
    assert_eq!(refused(&server, "GET /events HTTP/1.1\nHost: a\nContent-Length: 3").0, 400);
    assert_eq!(refused(&server, "GET /events HTTP/1.1\nHost: a\nTransfer-Encoding: chunked").0, 400);
    assert_eq!(refused(&server, "GET /events HTTP/1.1\nHost: a\n\nGET / HTTP/1.1").0, 400, "a second request");
    assert_eq!(refused(&server, "GET /events HTTP/1.1\nHost: a\nOrigin: http://b").0, 403);
    assert_eq!(errors(&metrics, ErrorType::OriginRejected), 1);
    let (_stream, _) = listen(&server);
    assert_eq!(refused(&server, "GET /events HTTP/1.1\nHost: a").0, 503);
    assert_eq!(errors(&metrics, ErrorType::ConnectionLimit), 1);
    thread::scope(|scope| {
        let draining = scope.spawn(|| server.hub.drain(PATIENCE));
        eventually("it drains", || !server.hub.is_admitting());
        // For any status but 200 a browser would give up for good.
        let (status, answer) = refused(&server, "GET /events HTTP/1.1\nHost: a");
        assert!(status == 200 && answer.contains("\r\nContent-Type: text/event-stream\r\n"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!((1000..=5000).contains(&retry(body)), "{body}");
        server.hub.shutdown(PATIENCE).unwrap();
        draining.join().unwrap().unwrap();
    });
}

#[test]
fn a_page_of_an_allowed_origin_may_read() {
    let server = serve(Hub::builder().origins(OriginPolicy::allow(["http://b"])));
    let stream = SseClient::connect(server.addr, "/events", "Origin: http://b\r\n");
    for line in ["Access-Control-Allow-Origin: http://b", "Vary: Origin", "Access-Control-Allow-Credentials: true"] {
        assert!(stream.head.contains(&format!("\r\n{line}\r\n")), "{line}: {}", stream.head);
    }
    let open = serve(Hub::builder().origins(OriginPolicy::allow_all()));
    let stream = SseClient::connect(open.addr, "/events", "Origin: http://b\r\n");
    assert!(stream.head.contains("\r\nAccess-Control-Allow-Origin: http://b\r\n"), "{}", stream.head);
    assert!(!stream.head.contains("Credentials"), "not for everyone's pages: {}", stream.head);
}

#[test]
fn a_page_of_an_allowed_origin_may_read_why_it_is_refused() {
    let limits = Limits::default().max_connections(1);
    let builder = Hub::builder().origins(OriginPolicy::allow(["http://b"])).limits(limits);
    let server = serve(builder.on_upgrade(|head| match head.query() {
        Some("no") => Err(Rejection::unauthorized()),
        _ => Ok(Admission::anonymous()),
    }));
    let ask = |line: &str, origin: &str| refused(&server, &format!("{line} HTTP/1.1\nHost: a\nOrigin: {origin}")).1;
    let headers =
        "\r\nAccess-Control-Allow-Origin: http://b\r\nVary: Origin\r\nAccess-Control-Allow-Credentials: true\r\n";
    let one = SseClient::connect(server.addr, "/events", "");
    for (line, expected) in [("GET /events?no", 401), ("GET /events", 503), ("POST /events", 405)] {
        let answer = ask(line, "http://b");
        assert_eq!(status(&answer), expected);
        assert!(answer.contains(headers), "{answer}");
    }
    for line in ["GET /events", "OPTIONS /events"] {
        let foreign = ask(line, "http://c");
        assert!(matches!(status(&foreign), 403 | 405) && !foreign.contains("Access-Control"), "{foreign}");
    }
    drop(one);
    server.hub.shutdown(PATIENCE).unwrap();
    let answer = ask("GET /events", "http://b");
    assert!(answer.contains(headers), "while it does not run: {answer}");
}

#[test]
fn a_browser_that_asks_before_is_told() {
    let (metrics, builder) = counted(Hub::builder());
    let server = serve(builder.origins(OriginPolicy::allow(["http://b"])));
    let ask = |origin: &str, more: &str| {
        refused(&server, &format!("OPTIONS /events HTTP/1.1\nHost: a\nOrigin: {origin}\n{more}"))
    };
    let wants = "Access-Control-Request-Method: GET\nAccess-Control-Request-Headers: last-event-id,authorization";
    let (code, answer) = ask("http://b", wants);
    assert_eq!(code, 204, "{answer}");
    for line in [
        "Access-Control-Allow-Origin: http://b",
        "Access-Control-Allow-Credentials: true",
        "Access-Control-Allow-Methods: GET",
        "Access-Control-Allow-Headers: last-event-id, authorization",
    ] {
        assert!(answer.contains(&format!("\r\n{line}\r\n")), "{line}: {answer}");
    }
    assert!(!answer.contains("Content-Length"), "{answer}");
    assert_eq!(errors(&metrics, ErrorType::UpgradeFailed), 0, "that is no failure");
    assert_eq!(ask("http://c", wants).0, 405);
    assert_eq!(ask("http://b", "X: y").0, 405, "no preflight");
    assert_eq!(server.hub.client_count(), 0);
}

#[test]
fn http_1_0_gets_its_events_without_chunks() {
    let server = serve(Hub::builder());
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.write_all(b"GET /events HTTP/1.0\r\n\r\n").unwrap();
    let mut old = SseClient::on(stream);
    assert!(!old.head.contains("Transfer-Encoding"), "{}", old.head);
    let (mut new, _) = listen(&server);
    for text in ["one\ntwo", "", "\r\n"] {
        server.hub.send(Target::all(), text).unwrap();
        assert_eq!(old.event(), new.event());
    }
    let hub = server.hub.clone();
    let stopping = thread::spawn(move || hub.shutdown(PATIENCE));
    assert_eq!(old.expect_close(), new.expect_close());
    assert!(new.is_whole(), "the end is the last chunk");
    assert_eq!(new.stream().read(&mut [0]).unwrap(), 0, "and the connection ends with it");
    drop((old, new));
    stopping.join().unwrap().unwrap();
}

#[test]
fn a_stream_that_is_cut_has_no_last_chunk() {
    let server = serve(Hub::builder().config(Config::default().write_timeout(Duration::from_millis(100))));
    let (stream, client) = listen(&server);
    let large = "x".repeat(1 << 20);
    let deadline = Instant::now() + PATIENCE;
    while !client.is_closed() && server.hub.client_count() > 0 {
        let _ = client.send(large.as_str());
        assert!(Instant::now() < deadline, "a peer that reads nothing is not cut");
    }
    let mut rest = Vec::new();
    let _ = stream.stream().try_clone().unwrap().read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a reader can tell that something is missing");
    drop(stream);
}

#[test]
fn an_idle_stream_gets_comments() {
    let server = serve(Hub::builder().config(Config::default().heartbeat(Duration::from_millis(20))));
    let (mut stream, client) = listen(&server);
    for _ in 0..3 {
        assert_eq!(stream.next_item(), Some(Item::Comment(String::new())));
    }
    client.send("x").unwrap();
    assert_eq!(stream.data(), "x");
}

#[test]
fn without_a_heartbeat_nothing_comes() {
    let server = serve(Hub::builder().config(Config::default().heartbeat(Duration::ZERO)));
    let (mut stream, client) = listen(&server);
    stream.stream().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(stream.stream().read(&mut [0]).is_err());
    stream.stream().set_read_timeout(Some(PATIENCE)).unwrap();
    client.send("x").unwrap();
    assert_eq!(stream.data(), "x");
}

#[test]
fn a_close_lets_out_what_is_queued_says_why_and_ends() {
    let server = serve(Hub::builder());
    let (mut stream, client) = listen(&server);
    {
        let _cork = server.hub.cork();
        (0..100).for_each(|n| client.send(n.to_string()).unwrap());
        client.close(4000, "enough\ndata: x").unwrap();
    }
    (0..100).for_each(|n| assert_eq!(stream.data(), n.to_string()));
    assert_eq!(stream.expect_close(), "closed 4000 enough data: x");
    assert!(matches!(client.send("late"), Err(SendError::Closed(_))));
    drop(stream);
    eventually("it is gone", || server.hub.client_count() == 0);
}

#[test]
fn a_peer_that_does_not_take_the_end_is_cut() {
    let server = serve(Hub::builder().config(Config::default().close_timeout(Duration::from_millis(100))));
    let (stream, client) = listen(&server);
    client.close(1000, "").unwrap();
    eventually("it is gone", || server.hub.client_count() == 0);
    drop(stream);
}

#[test]
fn a_drain_and_a_shutdown_close_streams() {
    let config = Config::default()
        .lame_duck(Duration::ZERO)
        .drain_timeout(Duration::from_millis(1))
        .drain_spread(Duration::ZERO);
    let server = serve(Hub::builder().config(config));
    let (mut stream, _) = listen(&server);
    thread::scope(|scope| {
        let draining = scope.spawn(|| server.hub.drain(PATIENCE));
        assert_eq!(stream.expect_close(), "closed 1001 server draining");
        drop(stream);
        draining.join().unwrap().unwrap();
    });
    let server = serve(Hub::builder());
    let (mut stream, _) = listen(&server);
    let hub = server.hub.clone();
    let stopping = thread::spawn(move || hub.shutdown(PATIENCE));
    assert_eq!(stream.expect_close(), "closed 1001 server shutting down");
    drop(stream);
    stopping.join().unwrap().unwrap();
}

#[test]
fn a_stalled_stream_drops_and_then_is_closed_as_any_client() {
    let (metrics, builder) = counted(Hub::builder());
    let config = Config::default().queue_messages(4).drop_policy(DropPolicy::Disconnect);
    let server = serve(builder.config(config.close_timeout(Duration::from_millis(200))));
    let (_stream, client) = listen(&server);
    let large = "x".repeat(256 * 1024);
    let deadline = Instant::now() + PATIENCE;
    while client.send(large.as_str()).is_ok() {
        assert!(Instant::now() < deadline, "it never fills up");
    }
    assert!(client.is_closed());
    eventually("it is gone", || server.hub.client_count() == 0);
    assert_eq!(metrics.stats().messages_dropped, 1);
}

#[test]
fn an_evicted_event_comes_back_as_the_message_that_it_was() {
    let log = Log::default();
    let dropped = log.clone();
    let builder = Hub::builder()
        .config(Config::default().queue_messages(2).drop_policy(DropPolicy::DropOldest))
        .on_send_dropped(move |_, message| dropped.add(message.as_text().unwrap()));
    let server = serve(builder);
    let (mut stream, client) = listen(&server);
    let large = Message::text("x".repeat(256 * 1024));
    // Until the socket and the queue are full of large ones.
    while log.all().is_empty() {
        client.send(&large).unwrap();
    }
    log.take();
    let evicted = ["a\nb", "c", "d", "e"];
    evicted.iter().for_each(|text| client.send(*text).unwrap());
    let all = log.all();
    assert!(all.iter().any(|text| text == "a\nb"), "{:?}", all.iter().map(String::len).collect::<Vec<_>>());
    while stream.data() != "e" {}
}

#[test]
fn input_is_ignored_but_not_without_end() {
    let (metrics, builder) = counted(Hub::builder());
    let server = serve(builder);
    let (mut stream, client) = listen(&server);
    let mut writer = stream.stream().try_clone().unwrap();
    writer.write_all(&[b'x'; 1000]).unwrap();
    client.send("x").unwrap();
    assert_eq!(stream.data(), "x");
    // The server may close before it has all.
    let _ = writer.write_all(&vec![b'x'; 200_000]);
    eventually("it is gone", || server.hub.client_count() == 0);
    assert_eq!(errors(&metrics, ErrorType::ProtocolError), 1);
}

#[test]
fn the_end_and_a_reset_by_the_peer_end_the_client() {
    let server = serve(Hub::builder());
    let (stream, _) = listen(&server);
    stream.stream().shutdown(Shutdown::Write).unwrap();
    eventually("it is gone", || server.hub.client_count() == 0);
    let (stream, client) = listen(&server);
    client.send("unread").unwrap();
    stream.stream().peek(&mut [0]).unwrap();
    // Unread bytes make it a reset.
    drop(stream);
    eventually("it is gone", || server.hub.client_count() == 0);
}

#[test]
fn coalescing_leaves_events_apart() {
    let server = serve(Hub::builder().config(Config::default().coalesce_writes(true)));
    let (mut stream, client) = listen(&server);
    {
        let _cork = server.hub.cork();
        ["a", "b", "c"].iter().for_each(|text| client.send(*text).unwrap());
    }
    assert_eq!([stream.data(), stream.data(), stream.data()], ["a", "b", "c"]);
}

#[test]
fn a_socket_of_the_programs_own_listener() {
    let hub = Hub::builder().build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    far.write_all(b"unread by the hub").unwrap();
    let head = RequestHead::from_parts("GET", "/events", [("Host", "a"), ("Last-Event-ID", "41")]).unwrap();
    hub.accept(near, head, &[]).event_stream().detach().unwrap();
    let mut stream = SseClient::on(far);
    let client = hub.clients().pop().unwrap();
    assert_eq!(wshub::protocol::sse::last_event_id(client.request()).as_deref(), Some("41"));
    client.send("x").unwrap();
    assert_eq!(stream.data(), "x");
    hub.shutdown(Duration::from_millis(100)).unwrap();
}

#[test]
fn unix_sockets_too() {
    let folder = std::env::temp_dir().join(format!("wshub-sse-{}", std::process::id()));
    let hub = Hub::builder().build().unwrap();
    let server = wshub::Server::bind_unix(&folder).unwrap().event_stream("/events", &hub).spawn().unwrap();
    let far = std::os::unix::net::UnixStream::connect(&folder).unwrap();
    (&far).write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut stream = SseClient::on(TcpStream::from(std::os::fd::OwnedFd::from(far)));
    hub.send(Target::all(), "x").unwrap();
    assert_eq!(stream.data(), "x");
    drop(stream);
    server.shutdown(PATIENCE).unwrap();
}

#[test]
fn order_holds_for_each_sender_under_load() {
    let server = Arc::new(serve(Hub::builder().config(common::deep_queue(Config::default()).queue_messages(20_000))));
    let (mut stream, _) = listen(&server);
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let server = Arc::clone(&server);
            thread::spawn(move || {
                (0..1000).for_each(|n| {
                    server.hub.send(Target::all(), format!("{sender} {n}")).unwrap();
                });
            })
        })
        .collect();
    let mut next = [0; 4];
    for _ in 0..4000 {
        let data = stream.data();
        let (sender, n) = data.split_once(' ').unwrap();
        let sender: usize = sender.parse().unwrap();
        assert_eq!(n.parse(), Ok(next[sender]), "of sender {sender}");
        next[sender] += 1;
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}

#[test]
fn probes_count_streams() {
    let server = serve(Hub::builder());
    let (_stream, _) = listen(&server);
    let (code, body) = split_answer(&exchange(server.addr, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(code, 200);
    assert!(body.contains(r#""clients":1"#), "{body}");
}
