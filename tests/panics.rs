//! A panic in any application code ends at most its own connection, with 1011. It is counted, and everything else
//! continues with the right counts.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Log, PATIENCE, TestServer, WsClient, eventually, get};
use wshub::{
    Admission, Client, Config, Hub, HubBuilder, Limits, Message, OriginPolicy, RequestHead, RoomError, Target,
    metrics::{DebugMetrics, ErrorType, Metrics},
};

fn boom() -> ! {
    panic!("on purpose")
}

fn is_victim(client: &Client) -> bool {
    is_victims(client.request())
}

fn is_victims(head: &RequestHead) -> bool {
    head.query() == Some("victim")
}

fn is_boom(message: &Message) -> bool {
    message.as_text() == Some("boom")
}

fn identify(head: &RequestHead) -> Admission {
    let name = if is_victims(head) { "victim" } else { "bystander" };
    Admission::user(name).room(name)
}

/// A server with one well-behaved client on it, before and after each panic.
struct Scene {
    bystander: WsClient,
    server: TestServer,
    metrics: Arc<DebugMetrics>,
}

impl Scene {
    fn new(change: impl FnOnce(HubBuilder) -> HubBuilder) -> Self {
        let metrics = Arc::new(DebugMetrics::new());
        let builder = Hub::builder().metrics(metrics.clone()).on_upgrade(|head| Ok(identify(head)));
        let server = TestServer::new(change(builder));
        let mut bystander = server.connect();
        bystander.sync();
        Self { bystander, server, metrics }
    }

    fn victim(&self) -> (WsClient, Client) {
        self.server.pair_to("/ws?victim")
    }

    fn panics(&self) -> u64 {
        self.metrics.stats().errors.get(&ErrorType::Panic).copied().unwrap_or(0)
    }

    /// The victim is closed with 1011, and all is well.
    fn expect_closed(self, mut victim: WsClient) {
        assert_eq!(victim.expect_close(), (1011, String::new()));
        self.expect_gone();
    }

    /// No trace of the victim is left, and the bystander has not noticed anything.
    fn expect_gone(mut self) {
        let hub = self.server.hub.clone();
        eventually("only the bystander is left", || hub.client_count() == 1);
        eventually("the panic is counted", || self.panics() > 0);
        assert_eq!((hub.user_count(), hub.user_connection_count("bystander")), (1, 1));
        let rooms = hub.rooms();
        assert_eq!((rooms.len(), &*rooms[0].name, rooms[0].clients), (1, "bystander", 1));
        eventually("the counts are right", || {
            let stats = self.metrics.stats();
            (stats.active_connections, stats.active_rooms) == (1, 1)
        });
        assert_eq!(hub.send(Target::room("bystander"), "well?").unwrap().queued, 1);
        assert_eq!(self.bystander.text(), "well?");
        self.bystander.sync();
        let mut newcomer = self.server.connect();
        newcomer.sync();
        assert_eq!(hub.user_connection_count("bystander"), 2);
        drop((newcomer, self.bystander));
        // Only succeeds if every connection has run to its very end.
        self.server.handle.shutdown(PATIENCE).unwrap();
        assert_eq!((hub.client_count(), hub.room_names().len(), hub.user_count()), (0, 0, 0));
    }

    /// A refused upgrade.
    fn expect_refused(self, status: &str) {
        let (head, _) = WsClient::try_connect(self.server.addr, "/ws?victim", "");
        assert_eq!(&head[9..12], status);
        self.expect_gone();
    }
}

/// Connects the victim and lets it send one message, which some code panics at.
fn message_case(change: impl FnOnce(HubBuilder) -> HubBuilder) {
    let scene = Scene::new(change);
    let (mut victim, _) = scene.victim();
    victim.send_text("boom");
    scene.expect_closed(victim);
}

#[test]
fn upgrade_hook() {
    let builder = |b: HubBuilder| b.on_upgrade(|head| if is_victims(head) { boom() } else { Ok(identify(head)) });
    Scene::new(builder).expect_refused("500");
}

#[test]
fn origin_policy() {
    let policy = OriginPolicy::custom(|head| if is_victims(head) { boom() } else { true });
    Scene::new(|b| b.origins(policy)).expect_refused("403");
}

#[test]
fn join_hook_of_an_admission() {
    // Long, so that whatever still waits for the close of a client that never was fails the test.
    let config = Config::default().close_timeout(3 * PATIENCE);
    let builder = |b: HubBuilder| b.config(config).before_room_join(|c, _| if is_victim(c) { boom() } else { Ok(()) });
    let started = Instant::now();
    Scene::new(builder).expect_refused("403");
    assert!(started.elapsed() < 2 * PATIENCE, "the shutdown waited for the close timeout");
}

#[test]
fn connect_hook() {
    let scene = Scene::new(|b| {
        b.after_connect(|c| {
            if is_victim(c) {
                boom()
            }
        })
    });
    let victim = scene.server.connect_to("/ws?victim");
    scene.expect_closed(victim);
}

#[test]
fn message_hooks_and_handlers() {
    let fail = |_: &Client, m: &Message| if is_boom(m) { Err("told".into()) } else { Ok(()) };
    message_case(|b| b.before_message(|_, m| if is_boom(&m) { boom() } else { Ok(m) }));
    message_case(|b| b.on_message(|_, m| if is_boom(m) { boom() } else { Ok(()) }));
    message_case(|b| {
        b.after_message(|_, m, _| {
            if is_boom(m) {
                boom()
            }
        })
    });
    message_case(move |b| b.on_message(fail).on_error(|_, _| boom()));
    message_case(|b| b.after_connect(|c| c.on_message(|_, m| if is_boom(m) { boom() } else { Ok(()) })));
    message_case(move |b| b.on_message(fail).after_connect(|c| c.on_error(|_, _| boom())));
}

#[test]
fn a_panicking_handler_is_an_error_to_the_hooks_after_it() {
    let log = Log::default();
    let (after, error) = (log.clone(), log.clone());
    message_case(move |b| {
        b.on_message(|_, m| if is_boom(m) { boom() } else { Ok(()) })
            .after_message(move |_, _, result| after.add(format!("after {}", result.is_err())))
            .on_error(move |_, _| error.add("error"))
    });
    assert_eq!(log.all(), ["after true", "error"]);
}

#[test]
fn rate_limit_hook() {
    let limits = Limits::default().max_message_rate(1);
    let scene = Scene::new(|b| b.limits(limits).on_rate_limited(|_, _| boom()));
    let (mut victim, _) = scene.victim();
    for _ in 0..50 {
        victim.send_text("much");
    }
    scene.expect_closed(victim);
}

#[test]
fn room_hooks() {
    let at_x = |c: &Client, room: &str| {
        if is_victim(c) && room == "x" {
            boom()
        }
    };
    let scene = Scene::new(move |b| {
        b.before_room_join(move |c, room| {
            at_x(c, room);
            Ok(())
        })
    });
    let (victim, client) = scene.victim();
    assert!(matches!(client.join("x"), Err(RoomError::Refused(_))));
    scene.expect_closed(victim);

    let scene = Scene::new(move |b| b.after_room_join(at_x));
    let (victim, client) = scene.victim();
    client.join("x").unwrap();
    scene.expect_closed(victim);

    let scene = Scene::new(move |b| b.before_room_leave(at_x));
    let (victim, client) = scene.victim();
    client.join("x").unwrap();
    client.leave("x").unwrap();
    scene.expect_closed(victim);

    let scene = Scene::new(move |b| b.after_room_leave(at_x));
    let (victim, client) = scene.victim();
    client.join("x").unwrap();
    client.leave("x").unwrap();
    scene.expect_closed(victim);
}

#[test]
fn room_hooks_of_an_admission_and_of_a_disconnect() {
    let hook = |c: &Client, _: &str| {
        if is_victim(c) {
            boom()
        }
    };
    let scene = Scene::new(move |b| b.after_room_join(hook));
    let victim = scene.server.connect_to("/ws?victim");
    scene.expect_closed(victim);

    let scene = Scene::new(move |b| b.before_room_leave(hook).after_room_leave(hook));
    let (victim, client) = scene.victim();
    client.join("x").unwrap();
    victim.close();
    eventually("two hooks in two rooms", || scene.panics() == 4);
    scene.expect_gone();
}

#[test]
fn disconnect_hooks_and_close_callback() {
    let hook = |c: &Client| {
        if is_victim(c) {
            boom()
        }
    };
    let scene = Scene::new(move |b| b.before_disconnect(hook).after_disconnect(hook));
    let (victim, client) = scene.victim();
    client.on_close(|_| boom());
    victim.close();
    eventually("all three", || scene.panics() == 3);
    scene.expect_gone();
}

#[test]
fn user_hooks_cost_no_connection() {
    let hook = |_: &Hub, user: &str| {
        if user == "victim" {
            boom()
        }
    };
    let scene = Scene::new(move |b| b.on_user_online(hook).on_user_offline(hook));
    let (mut victim, client) = scene.victim();
    victim.sync();
    assert_eq!((scene.panics(), scene.server.hub.user_count()), (1, 2));
    client.set_user("other").unwrap();
    assert_eq!((scene.panics(), scene.server.hub.is_user_online("victim")), (2, false));
    client.set_user("victim").unwrap();
    assert_eq!(scene.panics(), 3, "a panic does not end the user's turns");
    victim.sync();
    victim.close();
    eventually("offline", || scene.panics() == 4);
    scene.expect_gone();
}

/// Sends to a victim that does not read, until `give` has called the hook under test.
fn stalled_case(change: impl FnOnce(HubBuilder) -> HubBuilder, give: impl Fn(&Hub, &Client, Message)) {
    let config = Config::default().queue_messages(4).close_timeout(PATIENCE);
    let scene = Scene::new(|b| change(b.config(config)));
    let (mut victim, client) = scene.victim();
    let large = Message::binary(vec![0; 64 * 1024]);
    let deadline = Instant::now() + PATIENCE;
    while scene.panics() == 0 {
        assert!(Instant::now() < deadline, "the hook was never called");
        give(&scene.server.hub, &client, large.clone());
    }
    assert!(client.is_closed());
    let last = std::iter::from_fn(|| Some(victim.frame())).find(|frame| frame.first != common::BINARY).unwrap();
    assert_eq!(last.close(), (1011, ""));
    victim.send_close(1011);
    victim.expect_end();
    scene.expect_gone();
}

#[test]
fn drop_hook() {
    stalled_case(
        |b| b.on_send_dropped(|_, _| boom()),
        |hub, victim, large| {
            hub.send(Target::client(victim.id()), large).unwrap();
        },
    );
    stalled_case(
        |b| b.on_send_dropped(|_, _| boom()),
        |_, victim, large| {
            let _ = victim.send(large);
        },
    );
}

#[test]
fn send_timeout_hook() {
    stalled_case(
        |b| b.on_send_timeout(|_, _| boom()),
        |hub, victim, large| {
            hub.send_timeout(Target::client(victim.id()), large, Duration::from_millis(50)).unwrap();
        },
    );
}

#[test]
fn plain_http_handler() {
    let server = TestServer::with(Hub::builder(), |server| server.handle("/boom", |_| boom()));
    let mut bystander = server.connect();
    for _ in 0..3 {
        assert_eq!(get(server.addr, "/boom").0, 500);
    }
    bystander.sync();
    assert_eq!(get(server.addr, "/healthz").0, 200);
    bystander.close();
}

/// A value of the application whose destructor panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        boom()
    }
}

#[test]
fn destructors_of_callbacks() {
    let scene = Scene::new(|b| b);
    let (victim, client) = scene.victim();
    let bomb = Bomb;
    client.on_message(move |_, _| {
        let _ = &bomb;
        Ok(())
    });
    victim.close();
    scene.expect_gone();
}

#[test]
fn destructors_of_metadata() {
    let server =
        TestServer::new(Hub::builder().on_upgrade(|head| {
            Ok(if is_victims(head) { identify(head).metadata("bomb", Bomb) } else { identify(head) })
        }));
    let mut bystander = server.connect();
    server.connect_to("/ws?victim").close();
    eventually("the victim is gone", || server.hub.client_count() == 1);
    bystander.sync();
    bystander.close();
    server.handle.shutdown(PATIENCE).unwrap();
}

/// Panics whenever it is told of anything after the first connection.
#[derive(Default)]
struct Broken;

impl Metrics for Broken {
    fn increment_messages_received(&self) {
        boom()
    }

    fn increment_messages_sent(&self, _count: usize) {
        boom()
    }

    fn decrement_connections(&self) {
        boom()
    }

    fn increment_errors(&self, _error: ErrorType) {
        boom()
    }

    fn increment_room_leaves(&self) {
        boom()
    }
}

#[test]
fn metrics_cost_nothing_but_counts() {
    let server = TestServer::new(Hub::builder().metrics(Arc::new(Broken)).on_message(|c, m| Ok(c.send(m)?)));
    let (mut socket, client) = server.pair();
    client.join("x").unwrap();
    socket.send_text("hi");
    assert_eq!(socket.text(), "hi");
    socket.close();
    eventually("the client is gone", || server.hub.client_count() == 0);
    assert!(server.hub.room_names().is_empty());
    server.handle.shutdown(PATIENCE).unwrap();
}
