//! The relay protocol over raw sockets: users, devices, subscriptions, refusals and races.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{BINARY, Log, PATIENCE, WsClient, eventually, exchange, status, upgrade_request};
use serde_json::{Value, json};
use wshub::metrics::Metrics;
use wshub::protocol::relay::{Conn, DevicePolicy, Identity, Relay, RelayBuilder, RelayMessage};
use wshub::{Hub, Limits, Rejection, Server, ServerHandle};

/// Who may see what; tests change it.
type Access = Arc<Mutex<HashMap<String, Vec<String>>>>;

fn access(lists: &[(&str, &[&str])]) -> Access {
    let lists = lists.iter().map(|(user, devices)| ((*user).into(), devices.iter().map(|&d| d.into()).collect()));
    Arc::new(Mutex::new(lists.collect()))
}

fn set(access: &Access, user: &str, devices: &[&str]) {
    access.lock().unwrap().insert(user.into(), devices.iter().map(|&d| d.into()).collect());
}

/// A relay as most programs have it: `?user=U&device=D`, messages from devices to their users and back.
fn builder(access: &Access) -> RelayBuilder {
    let access = Arc::clone(access);
    Relay::builder(|head| {
        let user = head.query_param("user").ok_or_else(Rejection::unauthorized)?;
        Ok(Identity::new(user, head.query_param("device")))
    })
    .loader(move |user| Ok(access.lock().unwrap().get(user).cloned().unwrap_or_default()))
    .on_message(|conn, message| {
        forward(conn, message);
        Ok(())
    })
}

fn forward(conn: &Conn, mut message: RelayMessage) {
    if let Some(device) = conn.device() {
        message.device_id = Some(device.to_owned());
        conn.relay().broadcast_to_device(device, &message);
        return;
    }
    message.user_id = Some(conn.user().to_owned());
    let device = message.device_id.clone().unwrap_or_default();
    if !conn.may_see(&device) {
        conn.send_error("forbidden", "no access");
    } else if !conn.relay().send_to_device(&device, &message) {
        conn.send_error("offline", "not connected");
    }
}

/// Logs every transition of users and devices, and what is online at that moment.
fn watched(builder: RelayBuilder, log: &Log) -> RelayBuilder {
    let [user_on, user_off, device_on, device_off] = std::array::from_fn(|_| log.clone());
    builder
        .on_user_connect(move |relay, user| user_on.add(format!("+{user} {}", relay.user_devices(user).len())))
        .on_user_disconnect(move |relay, user| user_off.add(format!("-{user} {}", relay.user_devices(user).len())))
        .on_device_connect(move |_, device| device_on.add(format!("+{device}")))
        .on_device_disconnect(move |_, device| device_off.add(format!("-{device}")))
}

struct TestRelay {
    relay: Relay,
    addr: SocketAddr,
    handle: ServerHandle,
}

impl TestRelay {
    fn new(builder: RelayBuilder) -> Self {
        Self::of(builder.build().unwrap())
    }

    fn of(relay: Relay) -> Self {
        let handle = Server::bind("127.0.0.1:0").unwrap().websocket("/ws", relay.hub()).spawn().unwrap();
        Self { relay, addr: handle.local_addr().unwrap(), handle }
    }

    /// Returns when the relay knows the connection: its own hooks have run before it reads.
    fn connect(&self, query: &str) -> WsClient {
        let mut socket = WsClient::connect(self.addr, &format!("/ws?{query}"), "");
        socket.sync();
        socket
    }

    /// Connects as soon as the relay lets it.
    fn connect_at_last(&self, query: &str) -> WsClient {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (head, mut socket) = WsClient::try_connect(self.addr, &format!("/ws?{query}"), "");
            if head.starts_with("HTTP/1.1 101 ") {
                socket.sync();
                return socket;
            }
            assert!(Instant::now() < deadline, "{head}");
            thread::yield_now();
        }
    }

    fn status(&self, query: &str) -> u16 {
        status(&exchange(self.addr, upgrade_request(&format!("GET /ws?{query} HTTP/1.1"), &[]).as_bytes()))
    }
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        let _ = self.handle.shutdown(Duration::from_secs(5));
    }
}

fn parsed(socket: &mut WsClient) -> Value {
    serde_json::from_str(&socket.text()).unwrap()
}

/// The code of the `error` message that comes next.
fn error_code(socket: &mut WsClient) -> String {
    let message = parsed(socket);
    assert_eq!(message["type"], "error");
    message["payload"]["code"].as_str().unwrap().to_owned()
}

#[test]
fn a_device_speaks_to_its_users_byte_for_byte() {
    let server =
        TestRelay::new(builder(&access(&[("ann", &["lock"]), ("bob", &["lock", "lamp"]), ("eve", &["lamp"])])));
    let (mut ann1, mut ann2) = (server.connect("user=ann"), server.connect("user=ann"));
    let (mut bob, mut eve) = (server.connect("user=bob"), server.connect("user=eve"));
    let mut lock = server.connect("user=bob&device=lock");
    lock.send_text(r#"{"payload":{"b": 1.50,  "a":"\u00e9"},"deviceId":"forged","type":"state"}"#);
    let expected = r#"{"type":"state","deviceId":"lock","payload":{"b": 1.50,  "a":"\u00e9"}}"#;
    for socket in [&mut ann1, &mut ann2, &mut bob] {
        assert_eq!(socket.text(), expected);
        socket.sync();
    }
    eve.sync();
    lock.sync();
}

#[test]
fn a_user_speaks_to_devices_that_it_may_see() {
    let server = TestRelay::new(builder(&access(&[("ann", &["lock", "lamp"])])));
    let mut ann = server.connect("user=ann");
    let mut lock = server.connect("user=eve&device=lock");
    ann.send_text(r#"{"type":"open","deviceId":"lock","userId":"forged","payload":null}"#);
    assert_eq!(lock.text(), r#"{"type":"open","deviceId":"lock","userId":"ann","payload":null}"#);
    ann.send_text(r#"{"type":"open","deviceId":"lamp"}"#);
    assert_eq!(ann.text(), r#"{"type":"error","payload":{"code":"offline","message":"not connected"}}"#);
    ann.send_text(r#"{"type":"open","deviceId":"door"}"#);
    assert_eq!(error_code(&mut ann), "forbidden");
    ann.send_text(r#"{"type":"open"}"#);
    assert_eq!(error_code(&mut ann), "forbidden");
}

#[test]
fn the_servers_verbs() {
    let server = TestRelay::new(builder(&access(&[("ann", &["lock"])])));
    let relay = &server.relay;
    let news = RelayMessage::new("news").user("ann").payload(&json!({"n": 1})).unwrap();
    assert!(!relay.is_user_online("ann") && !relay.is_device_online("lock"));
    assert!(!relay.send_to_device("lock", &news));
    assert_eq!(relay.send_to_user("ann", &news).queued, 0);
    assert_eq!(relay.broadcast_to_device("lock", &news).queued, 0);
    let (mut ann1, mut ann2) = (server.connect("user=ann"), server.connect("user=ann"));
    let mut lock = server.connect("user=ann&device=lock");
    assert!(relay.is_user_online("ann") && relay.is_device_online("lock") && !relay.is_user_online("lock"));
    assert_eq!(relay.send_to_user("ann", &news).queued, 2);
    assert_eq!(relay.broadcast_to_device("lock", &news).queued, 2);
    assert!(relay.send_to_device("lock", &news));
    let wire = r#"{"type":"news","userId":"ann","payload":{"n":1}}"#;
    assert_eq!([ann1.text(), ann1.text(), ann2.text(), ann2.text(), lock.text()], [wire; 5]);
    lock.close();
    eventually("the lock is offline", || !relay.is_device_online("lock"));
    assert!(!relay.send_to_device("lock", &news));
}

#[test]
fn users_and_devices_come_and_go_once() {
    let log = Log::default();
    let server = TestRelay::new(watched(builder(&access(&[("ann", &["lock", "lamp"])])), &log));
    let (first, second) = (server.connect("user=ann"), server.connect("user=ann"));
    let lock = server.connect("user=ann&device=lock");
    assert_eq!(log.take(), ["+ann 2", "+lock"]);
    first.close();
    lock.close();
    log.wait("-lock");
    assert_eq!(log.take(), ["-lock"]);
    second.close();
    log.wait("-ann 2");
    eventually("the subscriptions are gone", || server.relay.user_devices("ann").is_empty());
    assert_eq!(log.take(), ["-ann 2"]);
}

#[test]
fn the_newer_relay_replaces_the_older() {
    let log = Log::default();
    let server = TestRelay::new(watched(builder(&access(&[])), &log));
    let mut older = server.connect("user=ann&device=lock");
    let mut newer = server.connect("user=bob&device=lock");
    assert_eq!(log.take(), ["+lock", "-lock", "+lock"]);
    assert_eq!(older.expect_close(), (4001, "replaced".into()));
    eventually("the older is gone", || server.relay.hub().client_count() == 1);
    assert!(server.relay.is_device_online("lock"));
    assert!(server.relay.send_to_device("lock", &RelayMessage::new("hello")));
    assert_eq!(newer.text(), r#"{"type":"hello"}"#);
    newer.close();
    log.wait("-lock");
    assert_eq!(log.all(), ["-lock"]);
    eventually("nobody is left", || !server.relay.is_device_online("lock"));
}

#[test]
fn a_second_relay_can_be_refused() {
    let log = Log::default();
    let server = TestRelay::new(watched(builder(&access(&[])), &log).device_policy(DevicePolicy::Refuse));
    let mut lock = server.connect("user=ann&device=lock");
    assert_eq!(server.status("user=bob&device=lock"), 409);
    lock.sync();
    lock.close();
    log.wait("-lock");
    let again = server.connect("user=bob&device=lock");
    assert_eq!(log.all(), ["+lock", "-lock", "+lock"]);
    again.close();
}

#[test]
fn a_refused_upgrade_gives_the_device_back() {
    let relay = builder(&access(&[])).device_policy(DevicePolicy::Refuse);
    let hub = relay.install(Hub::builder().limits(Limits::default().max_connections(1))).build().unwrap();
    let relay = Relay::of(&hub).unwrap();
    let server = TestRelay::of(relay);
    let ann = server.connect("user=ann");
    assert_eq!(server.status("user=ann&device=lock"), 503);
    ann.close();
    eventually("there is room", || server.relay.hub().client_count() == 0);
    // The device is given back when the refusal has been answered: not a moment sooner.
    let _lock = server.connect_at_last("user=ann&device=lock");
    assert!(server.relay.is_device_online("lock"));
}

#[test]
fn who_one_is_must_be_said() {
    let server = TestRelay::new(builder(&access(&[])));
    for (query, expected) in [("", 401), ("device=lock", 401), ("user=", 400), ("user=ann&device=", 400)] {
        assert_eq!(server.status(query), expected, "{query}");
    }
}

#[test]
fn what_is_no_message_is_answered_and_the_connection_stays() {
    let server = TestRelay::new(builder(&access(&[])));
    let mut ann = server.connect("user=ann");
    for bad in ["", "{", "[]", "1", "{}", r#"{"type":1}"#, r#"{"type":"t","deviceId":1}"#, r#"{"type":"t"} x"#] {
        ann.send_text(bad);
        assert_eq!(error_code(&mut ann), "bad_message", "{bad}");
    }
    ann.send_frame(BINARY, br#"{"type":"t"}"#);
    assert_eq!(error_code(&mut ann), "bad_message");
    let deep = "[".repeat(10_000);
    ann.send_text(&format!(r#"{{"type":"t","payload":{deep}}}"#));
    assert_eq!(error_code(&mut ann), "bad_message");
    ann.sync();
}

#[test]
fn messages_over_the_rate_are_answered_with_when_to_come_back() {
    let server = TestRelay::new(builder(&access(&[("ann", &["lock"])])).rate_limit(3, Duration::from_secs(60)));
    let (mut ann, mut lock) = (server.connect("user=ann"), server.connect("user=ann&device=lock"));
    for _ in 0..5 {
        ann.send_text(r#"{"type":"t","deviceId":"lock"}"#);
    }
    for _ in 0..2 {
        let error = parsed(&mut ann);
        assert_eq!((&error["type"], &error["payload"]["code"]), (&json!("error"), &json!("rate_limited")));
        let wait = error["payload"]["retryAfterMs"].as_u64().unwrap();
        assert!((30_000..=60_000).contains(&wait), "{wait}");
    }
    (0..3).for_each(|_| assert!(lock.text().starts_with(r#"{"type":"t""#)));
    lock.sync();
    // Each connection has a limit of its own.
    let mut other = server.connect("user=ann");
    other.send_text(r#"{"type":"t","deviceId":"lock"}"#);
    lock.text();
}

#[test]
fn invalidation_loads_again() {
    let lists = access(&[("ann", &["lock"]), ("bob", &["lock"])]);
    let server = TestRelay::new(builder(&lists));
    let relay = &server.relay;
    let (_ann, _bob) = (server.connect("user=ann"), server.connect("user=bob"));
    assert_eq!(relay.device_users("lock").len(), 2);
    set(&lists, "ann", &["lamp"]);
    assert!(relay.is_subscribed("ann", "lock"), "nobody has said so");
    relay.invalidate_user("ann");
    assert!(relay.is_subscribed("ann", "lamp") && !relay.is_subscribed("ann", "lock"));
    set(&lists, "bob", &[]);
    relay.invalidate_device("lock");
    assert_eq!(relay.device_users("lock").len(), 0);
    relay.invalidate_user("nobody");
    assert_eq!(relay.user_devices("nobody").len(), 0);
    set(&lists, "offline", &["lock"]);
    relay.load("offline");
    assert_eq!(relay.device_users("lock").len(), 1);
    relay.remove("offline");
    assert_eq!(relay.device_users("lock").len(), 0);
}

/// The loader reads, the source changes and is invalidated, and only then the loader returns.
#[test]
fn a_load_that_is_overtaken_by_an_invalidation_counts_for_nothing() {
    let (is_reading, reading) = mpsc::channel();
    let (go_on, gone_on) = mpsc::channel::<()>();
    let calls = Mutex::new((0, gone_on));
    let relay = builder(&access(&[])).loader(move |_| {
        let mut calls = calls.try_lock().ok();
        let Some(calls) = calls.as_mut().filter(|calls| calls.0 == 0) else { return Ok(vec!["new".into()]) };
        calls.0 += 1;
        is_reading.send(()).unwrap();
        calls.1.recv_timeout(PATIENCE).unwrap();
        Ok(vec!["old".into()])
    });
    let server = TestRelay::new(relay);
    thread::scope(|scope| {
        let connecting = scope.spawn(|| server.connect("user=ann"));
        reading.recv_timeout(PATIENCE).unwrap();
        server.relay.invalidate_device("old");
        assert!(server.relay.is_subscribed("ann", "new"));
        go_on.send(()).unwrap();
        let _ann = connecting.join().unwrap();
        assert!(server.relay.is_subscribed("ann", "new") && !server.relay.is_subscribed("ann", "old"));
    });
}

#[test]
fn a_loader_that_fails_takes_access_away_until_it_succeeds() {
    let is_down = Arc::new(AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    let relay = builder(&access(&[]))
        .loader(move |_| if down.load(Ordering::SeqCst) { Err("no database".into()) } else { Ok(vec!["lock".into()]) });
    let server = TestRelay::new(relay);
    let mut ann = server.connect("user=ann");
    ann.sync();
    assert!(!server.relay.is_subscribed("ann", "lock"));
    is_down.store(false, Ordering::SeqCst);
    let mut second = server.connect("user=ann");
    second.sync();
    assert!(server.relay.is_subscribed("ann", "lock"), "the next connection loads again");
    is_down.store(true, Ordering::SeqCst);
    server.relay.invalidate_user("ann");
    assert!(!server.relay.is_subscribed("ann", "lock"), "access that cannot be confirmed is none");
    is_down.store(false, Ordering::SeqCst);
    server.relay.load("ann");
    assert!(server.relay.is_subscribed("ann", "lock"));
}

#[test]
fn racing_relays_leave_one_and_tell_it_in_turns() {
    const RACERS: usize = 8;
    let log = Log::default();
    let server = TestRelay::new(watched(builder(&access(&[])), &log));
    let barrier = Barrier::new(RACERS);
    let sockets: Vec<WsClient> = thread::scope(|scope| {
        let connect = || {
            barrier.wait();
            WsClient::connect(server.addr, "/ws?user=ann&device=lock", "")
        };
        let racers: Vec<_> = (0..RACERS).map(|_| scope.spawn(connect)).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    eventually("one is left", || server.relay.hub().clients().iter().filter(|c| !c.is_closed()).count() == 1);
    drop(sockets);
    eventually("none is left", || server.relay.hub().client_count() == 0);
    eventually("all has been told", || log.all().last().is_some_and(|entry| entry == "-lock"));
    // Replacements that happen while a hook runs are told as one.
    let told = log.all();
    assert!(told.len() % 2 == 0 && (2..=2 * RACERS).contains(&told.len()), "{told:?}");
    assert!(told.iter().step_by(2).all(|entry| entry == "+lock"), "{told:?}");
    assert!(told.iter().skip(1).step_by(2).all(|entry| entry == "-lock"), "{told:?}");
}

/// Keeps the first connection between its admission and its hooks until it is told to go on.
struct SlowFirst(AtomicBool, Mutex<mpsc::Receiver<()>>);

impl Metrics for SlowFirst {
    fn increment_connections(&self) {
        if !self.0.swap(true, Ordering::SeqCst) {
            self.1.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
    }
}

#[test]
fn an_older_connection_that_is_slow_does_not_throw_out_the_newer() {
    let (go_on, gone_on) = mpsc::channel();
    let metrics = Arc::new(SlowFirst(AtomicBool::new(false), Mutex::new(gone_on)));
    let log = Log::default();
    let relay = watched(builder(&access(&[])), &log);
    let hub = relay.install(Hub::builder().metrics(metrics.clone())).build().unwrap();
    let server = TestRelay::of(Relay::of(&hub).unwrap());
    let mut older = WsClient::connect(server.addr, "/ws?user=ann&device=lock", "");
    eventually("the older waits", || metrics.0.load(Ordering::SeqCst));
    let mut newer = server.connect("user=ann&device=lock");
    go_on.send(()).unwrap();
    assert_eq!(older.expect_close(), (4001, "replaced".into()));
    assert!(server.relay.send_to_device("lock", &RelayMessage::new("hello")));
    assert_eq!(newer.text(), r#"{"type":"hello"}"#);
    assert_eq!(log.all(), ["+lock"], "the older never was the relay");
}

#[test]
fn flaps_of_a_device_are_told_as_one_and_capture_no_connection() {
    let (go_on, gone_on) = mpsc::channel();
    let (log, gone_on) = (Log::default(), Mutex::new(gone_on));
    let relay = watched(builder(&access(&[])), &log).on_device_connect({
        let log = log.clone();
        move |_, device| {
            log.add(format!("+{device}"));
            if log.all().len() == 1 {
                gone_on.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            }
        }
    });
    let server = TestRelay::new(relay);
    let mut first = WsClient::connect(server.addr, "/ws?user=ann&device=lock", "");
    log.wait("+lock");
    let mut last = None;
    for _ in 0..30 {
        // Its own hooks do not wait for the first one's.
        let next = server.connect("user=ann&device=lock");
        last.replace(next).into_iter().for_each(|mut old: WsClient| assert_eq!(old.expect_close().0, 4001));
    }
    go_on.send(()).unwrap();
    assert_eq!(first.expect_close(), (4001, "replaced".into()));
    last.unwrap().close();
    eventually("all is told", || log.all().len() >= 2 && log.all().last().is_some_and(|entry| entry == "-lock"));
    let told = log.all();
    assert!(told == ["+lock", "-lock"] || told == ["+lock", "-lock", "+lock", "-lock"], "{told:?}");
}

#[test]
fn of_racing_relays_one_is_let_in_and_the_others_are_refused() {
    let server = TestRelay::new(builder(&access(&[])).device_policy(DevicePolicy::Refuse));
    let barrier = Barrier::new(8);
    let heads: Vec<(String, WsClient)> = thread::scope(|scope| {
        let connect = || {
            barrier.wait();
            WsClient::try_connect(server.addr, "/ws?user=ann&device=lock", "")
        };
        let racers: Vec<_> = (0..8).map(|_| scope.spawn(connect)).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    let mut statuses: Vec<u16> = heads.iter().map(|(head, _)| status(head)).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [101, 409, 409, 409, 409, 409, 409, 409]);
}

#[test]
fn a_user_that_comes_back_at_once_keeps_its_subscriptions() {
    let server = TestRelay::new(builder(&access(&[("ann", &["lock"])])));
    let mut lock = server.connect("user=eve&device=lock");
    for round in 0..100 {
        let mut ann = WsClient::connect(server.addr, "/ws?user=ann", "");
        ann.send_text(&format!(r#"{{"type":"t","deviceId":"lock","payload":{round}}}"#));
        assert!(lock.text().ends_with(&format!("\"payload\":{round}}}")));
        // Gone without a close: its end races the next connect.
        drop(ann);
    }
    eventually("ann is gone", || server.relay.user_devices("ann").is_empty() && !server.relay.is_user_online("ann"));
}

#[test]
fn a_hook_that_panics_ends_one_connection_and_the_device_works_on() {
    let log = Log::default();
    let relay = watched(builder(&access(&[])), &log).on_device_connect({
        let log = log.clone();
        move |_, device| {
            log.add(format!("+{device}"));
            assert!(log.all().len() > 1, "the first time");
        }
    });
    let server = TestRelay::new(relay);
    let mut first = WsClient::connect(server.addr, "/ws?user=ann&device=lock", "");
    assert_eq!(first.expect_close().0, 1011);
    log.wait("-lock");
    let _second = server.connect("user=ann&device=lock");
    assert_eq!(log.all(), ["+lock", "-lock", "+lock"]);
}
