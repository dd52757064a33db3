//! Log records: one connection can be followed by its id, and secrets do not appear.
// Not over TLS: the addresses of clients would be those of the bridge.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use common::{TestServer, WsClient, eventually, exchange, status};
use log::{Level, LevelFilter, Log, Metadata, Record};
use wshub::{Admission, Config, Hub, HubBuilder, Limits, Rejection, limit::RatePolicy};

/// Keeps every record, as `RUST_LOG=wshub=debug` would print it.
#[derive(Default)]
struct Sink(Mutex<Vec<(Level, String)>>);

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("wshub") && metadata.level() <= Level::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("{}: {}", record.target(), record.args());
            self.0.lock().unwrap().push((record.level(), line));
        }
    }

    fn flush(&self) {}
}

impl Sink {
    fn lines(&self) -> Vec<(Level, String)> {
        self.0.lock().unwrap().clone()
    }

    /// Records that contain the text, without what varies: the text itself and times.
    fn of(&self, text: &str) -> Vec<String> {
        let lines = self.lines().into_iter().filter(|(_, line)| line.contains(text));
        lines.map(|(_, line)| line.replace(text, "ID")).collect()
    }
}

/// The sink of the process, for one test at a time.
fn sink() -> (&'static Sink, MutexGuard<'static, ()>) {
    static SINK: OnceLock<Sink> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let sink = SINK.get_or_init(Sink::default);
    if log::set_logger(sink).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
    sink.0.lock().unwrap().clear();
    (sink, turn)
}

#[test]
fn a_refused_origin_is_told_with_the_host_that_it_was_compared_with() {
    let (sink, _turn) = sink();
    let server = TestServer::new(Hub::builder());
    let request = common::upgrade_request("GET /ws HTTP/1.1", &["Host: hub.lan", "Origin: http://hub.lan:8443"]);
    assert_eq!(status(&exchange(server.addr, request.as_bytes())), 403);
    let told = sink.of("origin_rejected");
    assert!(told[0].contains(r#", origin "http://hub.lan:8443", host "hub.lan""#), "{told:?}");
}

fn builder() -> HubBuilder {
    Hub::builder()
        .on_upgrade(|head| match head.query_param("token").as_deref() {
            Some("sesame") => Ok(Admission::user("ann").room("lobby")),
            _ => Err(Rejection::unauthorized()),
        })
        .on_message(|client, message| match message.as_text() {
            Some("login") => Ok(client.set_user("bob")?),
            Some("leave") => Ok(client.leave("lobby")?),
            _ => Err("no such command".into()),
        })
}

#[test]
fn a_connection_is_followed_by_its_id_from_accept_to_end() {
    let (sink, _turn) = sink();
    let server = TestServer::new(builder());
    let (mut socket, client) = server.pair_to("/ws?token=sesame");
    let peer = socket.stream.local_addr().unwrap().to_string();
    for text in ["login", "leave", "unknown"] {
        socket.send_text(text);
    }
    socket.sync();
    client.join("till").unwrap();
    client.close(4000, "enough").unwrap();
    socket.expect_close();
    drop(socket);
    let id = client.id().to_string();
    eventually("it is gone", || sink.of(&id).last().is_some_and(|line| line.contains(" disconnected after ")));
    let accepted = format!("wshub::server: {peer} accepted");
    assert!(sink.lines().iter().any(|(_, line)| *line == accepted), "{:#?}", sink.lines());
    let mut story = sink.of(&id);
    let last = story.pop().unwrap();
    assert!(last.starts_with("wshub::conn: ID disconnected after "), "{last}");
    let expected = [
        &format!("wshub::upgrade: ID is {peer} at \"/ws\""),
        "wshub::conn: ID connected as user \"ann\"",
        "wshub::hub: ID joined \"lobby\"",
        "wshub::hub: ID is now of user Some(\"bob\")",
        "wshub::hub: ID left \"lobby\"",
        "wshub::conn: ID handler error: no such command",
        "wshub::hub: ID joined \"till\"",
        "wshub::conn: ID closing with 4000 \"enough\"",
        "wshub::conn: ID ended: closed with Some(4000) \"\"",
        "wshub::hub: ID left \"till\"",
    ];
    assert_eq!(story, expected);
}

#[test]
fn ends_say_why() {
    let (sink, _turn) = sink();
    let config = Config::default().ping_period(Duration::from_millis(50)).pong_timeout(Duration::from_millis(100));
    let config = config.close_timeout(Duration::from_millis(200));
    let limits = Limits::default().max_message_rate(1).rate_policy(RatePolicy::Close);
    let server = TestServer::new(builder().config(config).limits(limits));
    let ending = |act: fn(&mut WsClient), why: &str| {
        let (mut socket, client) = server.pair_to("/ws?token=sesame");
        act(&mut socket);
        let id = client.id().to_string();
        drop(client);
        eventually("it is gone", || sink.of(&id).last().is_some_and(|line| line.contains(" disconnected after ")));
        let story = sink.of(&id);
        assert!(story.iter().any(|line| line.contains(why)), "no {why:?} in {story:#?}");
    };
    ending(|socket| socket.send_frame(0x80, b"x"), "the peer broke the protocol");
    ending(|_| (), "no data received within `pong_timeout`");
    ending(|socket| socket.stream.shutdown(std::net::Shutdown::Both).unwrap(), "ended: Eof");
    ending(|socket| (0..3).for_each(|_| socket.send_text("x")), "exceeded max_message_rate");
}

#[test]
fn nothing_secret_is_logged_at_info_or_above() {
    const SECRETS: [&str; 5] = ["sesame", "cookie-value", "no such command", "body of the message", "reason-text"];
    let (sink, _turn) = sink();
    let server = TestServer::with(builder().after_disconnect(|_| panic!("a test's panic")), |server| {
        server.handle("/plain", |_| panic!("a test's panic"))
    });
    let header = "Cookie: cookie-value\r\n";
    let (answer, _) = WsClient::try_connect(server.addr, "/ws?token=wrong-sesame", header);
    assert_eq!(status(&answer), 401);
    assert_eq!(status(&exchange(server.addr, b"GET /plain?sesame HTTP/1.1\r\nHost: cookie-value\r\n\r\n")), 500);
    assert_eq!(status(&exchange(server.addr, b"GET /?sesame HTTP/1.1 sesame\r\nCookie: cookie-value\r\n\r\n")), 400);
    assert_eq!(status(&exchange(server.addr, b"GET /none?sesame HTTP/1.1\r\nHost: cookie-value\r\n\r\n")), 404);
    let mut socket = WsClient::connect(server.addr, "/ws?token=sesame", header);
    socket.send_text("body of the message");
    socket.sync();
    let client = server.hub.clients().pop().unwrap();
    client.close(4000, "reason-text").unwrap();
    socket.expect_close();
    let id = client.id().to_string();
    eventually("it is gone", || sink.of(&id).iter().any(|line| line.contains(" disconnected after ")));
    let lines = sink.lines();
    let loud: Vec<_> = lines.iter().filter(|(level, _)| *level <= Level::Info).map(|(_, line)| line).collect();
    assert!(loud.len() >= 4, "refusal, bad request and two panics: {loud:#?}");
    for secret in SECRETS {
        assert!(loud.iter().all(|line| !line.contains(secret)), "{secret} in {loud:#?}");
    }
    // What identifies a request without telling anything: method, path and status.
    assert!(loud.iter().any(|line| line.contains("RequestHead(GET /ws)") && line.contains("401")), "{loud:#?}");
    // Queries and headers are not even there at debug.
    assert!(lines.iter().all(|(_, line)| !line.contains("cookie-value") && !line.contains("sesame")), "{lines:#?}");
}
