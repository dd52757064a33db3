//! The order of all hooks for a connection and for a message, and what each can change.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{BINARY, Log, TestServer, WsClient, eventually};
use wshub::{
    Admission, Client, Config, HandlerError, Hub, HubBuilder, Limits, Message, Target,
    limit::RatePolicy,
    metrics::{DebugMetrics, ErrorType},
};

fn text(message: &Message) -> &str {
    message.as_text().unwrap_or("<binary>")
}

fn outcome(result: &Result<(), HandlerError>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |()| "ok".into())
}

/// Logs everything that happens to a message. Handlers fail for texts that begin with `bad`.
fn message_hooks(log: &Log) -> HubBuilder {
    let logs: [Log; 4] = std::array::from_fn(|_| log.clone());
    let [before, handler, after, error] = logs;
    Hub::builder()
        .before_message(move |_, message| {
            before.add(format!("before {}", text(&message)));
            match text(&message) {
                "refuse" => Err("refused".into()),
                "replace" => Ok(Message::text("replaced")),
                _ => Ok(message),
            }
        })
        .on_message(move |_, message| {
            handler.add(format!("hub {}", text(message)));
            if text(message).starts_with("bad") { Err("hub failed".into()) } else { Ok(()) }
        })
        .after_message(move |_, message, result| after.add(format!("after {} {}", text(message), outcome(result))))
        .on_error(move |_, e| error.add(format!("error {e}")))
}

/// Sets the client's own callbacks. Its handler fails for `own bad`.
fn own_callbacks(client: &Client, log: &Log) {
    let (handler, error, close) = (log.clone(), log.clone(), log.clone());
    client.on_message(move |_, message| {
        handler.add(format!("own {}", text(message)));
        if text(message) == "own bad" { Err("own failed".into()) } else { Ok(()) }
    });
    client.on_error(move |_, e| error.add(format!("own error {e}")));
    client.on_close(move |c| close.add(format!("own close {}", c.closed_at().is_some())));
}

#[test]
fn the_life_of_a_connection_in_order() {
    let log = Log::default();
    let logs: [Log; 11] = std::array::from_fn(|_| log.clone());
    let [upgrade, before_join, online, connect, after_join, message, before, offline, before_leave, after_leave, after] =
        logs;
    let own = log.clone();
    let builder = Hub::builder()
        .on_upgrade(move |_| {
            upgrade.add("on_upgrade");
            Ok(Admission::user("ann").room("x"))
        })
        .before_room_join(move |c, _| {
            before_join.add(format!("before_room_join listed={}", c.hub().client(c.id()).is_some()));
            Ok(())
        })
        .on_user_online(move |_, user| online.add(format!("on_user_online {user}")))
        .after_connect(move |c| {
            connect.add("after_connect");
            own_callbacks(c, &own);
        })
        .after_room_join(move |_, _| after_join.add("after_room_join"))
        .on_message(move |_, _| {
            message.add("on_message");
            Ok(())
        })
        .before_disconnect(move |c| {
            before.add(format!("before_disconnect room={} user={}", c.in_room("x"), c.hub().is_user_online("ann")));
        })
        .on_user_offline(move |hub, user| offline.add(format!("on_user_offline {user} room={}", hub.room_size("x"))))
        .before_room_leave(move |c, _| before_leave.add(format!("before_room_leave {}", c.in_room("x"))))
        .after_room_leave(move |c, _| {
            after_leave.add(format!("after_room_leave listed={}", c.hub().client(c.id()).is_some()));
        })
        .after_disconnect(move |c| {
            after.add(format!("after_disconnect listed={}", c.hub().client(c.id()).is_some()));
        });
    let server = TestServer::new(builder);
    let mut socket = server.connect();
    socket.send_text("hi");
    socket.close();
    log.wait("after_disconnect listed=false");
    assert_eq!(
        log.all(),
        [
            "on_upgrade",
            "before_room_join listed=true",
            "on_user_online ann",
            "after_connect",
            "after_room_join",
            "own hi",
            "on_message",
            "before_disconnect room=true user=true",
            "on_user_offline ann room=1",
            "before_room_leave true",
            "after_room_leave listed=true",
            "own close true",
            "after_disconnect listed=false",
        ]
    );
}

#[test]
fn hooks_of_a_connection_run_on_its_thread() {
    let log = Log::default();
    let logs: [Log; 3] = std::array::from_fn(|_| log.clone());
    let [connect, message, end] = logs;
    let me = |what: &str| format!("{what} {:?}", thread::current().id());
    let builder = Hub::builder()
        .after_connect(move |_| connect.add(me("thread")))
        .on_message(move |_, _| {
            message.add(me("thread"));
            Ok(())
        })
        .after_disconnect(move |_| {
            end.add(me("thread"));
            end.add("end");
        });
    let server = TestServer::new(builder);
    let mut socket = server.connect();
    socket.send_text("hi");
    socket.close();
    log.wait("end");
    let entries = log.all();
    assert!(entries.len() == 4 && entries[..3].iter().all(|e| *e == entries[0]), "{entries:?}");
}

#[test]
fn the_way_of_a_message_in_order() {
    let log = Log::default();
    let server = TestServer::new(message_hooks(&log));
    let (mut socket, client) = server.pair();
    socket.send_text("plain");
    socket.sync();
    assert_eq!(log.take(), ["before plain", "hub plain", "after plain ok"]);
    own_callbacks(&client, &log);
    socket.send_text("hi");
    socket.send_frame(BINARY, b"\0\xff");
    socket.sync();
    assert_eq!(
        log.take(),
        [
            "before hi",
            "own hi",
            "hub hi",
            "after hi ok",
            "before <binary>",
            "own <binary>",
            "hub <binary>",
            "after <binary> ok"
        ]
    );
}

#[test]
fn before_message_replaces_or_refuses() {
    let log = Log::default();
    let server = TestServer::new(message_hooks(&log));
    let (mut socket, client) = server.pair();
    own_callbacks(&client, &log);
    socket.send_text("replace");
    socket.sync();
    assert_eq!(log.take(), ["before replace", "own replaced", "hub replaced", "after replaced ok"]);
    socket.send_text("refuse");
    socket.sync();
    assert_eq!(log.take(), ["before refuse", "after refuse refused", "error refused", "own error refused"]);
}

#[test]
fn an_error_is_told_and_the_connection_stays() {
    let log = Log::default();
    let metrics = Arc::new(DebugMetrics::new());
    let server = TestServer::new(message_hooks(&log).metrics(metrics.clone()));
    let (mut socket, client) = server.pair();
    own_callbacks(&client, &log);
    socket.send_text("bad");
    socket.sync();
    assert_eq!(
        log.take(),
        ["before bad", "own bad", "hub bad", "after bad hub failed", "error hub failed", "own error hub failed"]
    );
    socket.send_text("own bad");
    socket.sync();
    assert_eq!(
        log.take(),
        ["before own bad", "own own bad", "after own bad own failed", "error own failed", "own error own failed"],
        "the client's error keeps the hub's handler from running"
    );
    assert_eq!(metrics.stats().errors.get(&ErrorType::MessageHandling), Some(&2));
    client.send("still here").unwrap();
    assert_eq!(socket.text(), "still here");
    assert!(!client.is_closed());
}

#[test]
fn an_error_may_ask_to_close() {
    let log = Log::default();
    let sink = log.clone();
    let builder = Hub::builder()
        .on_message(|_, message| match text(message) {
            "bye" => Err(HandlerError::close(4001, "bye").into()),
            _ => Err(HandlerError::close(1005, "may not be sent").into()),
        })
        .after_message(move |c, _, result| {
            let error = result.as_ref().unwrap_err();
            sink.add(format!("open={} {:?} {}", !c.is_closed(), error.close_code(), error.close_reason()));
        });
    let server = TestServer::new(builder);
    let mut socket = server.connect();
    socket.send_text("bye");
    socket.send_text("never handled");
    assert_eq!(socket.expect_close(), (4001, "bye".into()));
    assert_eq!(log.take(), ["open=true Some(4001) bye"], "after_message comes before the close");
    let mut socket = server.connect();
    socket.send_text("odd");
    assert_eq!(socket.expect_close(), (1011, String::new()));
}

#[test]
fn callbacks_are_replaced_and_freed() {
    let log = Log::default();
    let server = TestServer::new(Hub::builder());
    let (mut socket, client) = server.pair();
    let token = Arc::new(());
    for name in ["first", "second"] {
        let (log, token) = (log.clone(), Arc::clone(&token));
        client.on_message(move |_, _| {
            let _ = &token;
            log.add(name);
            Ok(())
        });
    }
    assert_eq!(Arc::strong_count(&token), 2, "the first handler is gone");
    socket.send_text("hi");
    socket.sync();
    assert_eq!(log.all(), ["second"]);
    socket.close();
    eventually("a closed client keeps no callbacks", || Arc::strong_count(&token) == 1);
}

#[test]
fn a_handler_may_do_everything() {
    let server = TestServer::new(Hub::builder().on_message(|client, message| {
        let hub = client.hub();
        client.join(text(message))?;
        client.set_user("ann")?;
        client.set_metadata("last", text(message).to_owned());
        client.on_message(|_, _| Ok(()));
        hub.send(Target::room(text(message)), format!("{} {}", hub.client_count(), client.rooms().len()))?;
        client.leave(text(message))?;
        Ok(())
    }));
    let mut socket = server.connect();
    socket.send_text("x");
    assert_eq!(socket.text(), "1 1");
    socket.sync();
    assert!(!server.hub.room_exists("x") && server.hub.is_user_online("ann"));
}

#[test]
fn on_close_and_after_disconnect_see_each_kind_of_end() {
    let log = Log::default();
    let (connect, end) = (log.clone(), log.clone());
    let builder = Hub::builder()
        .after_connect(move |c| own_callbacks(c, &connect))
        .after_disconnect(move |_| end.add("disconnected"));
    let server = TestServer::new(builder);
    let ends: [fn(&TestServer, WsClient); 4] = [
        |_, socket| socket.close(),
        |_, socket| drop(socket),
        |_, mut socket| socket.send_frame(0x83, b"reserved opcode"),
        |server, mut socket| {
            server.hub.clients()[0].close(4000, "done").unwrap();
            assert_eq!(socket.expect_close(), (4000, "done".into()));
        },
    ];
    for end in ends {
        let mut socket = server.connect();
        socket.sync();
        end(&server, socket);
        log.wait("disconnected");
        let is_end = |entry: &String| !entry.starts_with("own error");
        assert_eq!(log.take().into_iter().filter(is_end).collect::<Vec<_>>(), ["own close true", "disconnected"]);
    }
}

#[test]
fn a_broken_connection_is_told_to_on_error() {
    let log = Log::default();
    let (errors, ends, own) = (log.clone(), log.clone(), log.clone());
    let config = Config::default().ping_period(Duration::from_millis(20)).pong_timeout(Duration::from_millis(80));
    let builder = Hub::builder()
        .config(config)
        .after_connect(move |client| {
            let own = own.clone();
            client.on_error(move |_, error| own.add(format!("own {}", error.error_type())));
        })
        .on_error(move |_, error| errors.add(format!("{}: {error}", error.error_type())))
        .after_disconnect(move |_| ends.add("gone"));
    let server = TestServer::new(builder);
    let mut broken = server.connect();
    broken.send_frame(0x83, b"reserved opcode");
    log.wait("gone");
    let all = log.take();
    assert!(all[0].starts_with("protocol_error: the peer broke the protocol: "), "{all:?}");
    assert_eq!(all[1..], ["own protocol_error", "gone"]);
    let _silent = server.connect();
    log.wait("gone");
    let silent = ["read_deadline_error: no data received within `pong_timeout`", "own read_deadline_error", "gone"];
    assert_eq!(log.take(), silent);
    drop(server.connect());
    log.wait("gone");
    assert_eq!(log.take(), ["gone"], "to go is no error");
}

#[test]
fn a_slow_disconnect_hook_delays_only_its_own_connection() {
    let log = Log::default();
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let (sink, wait) = (log.clone(), std::sync::Mutex::new(wait));
    let builder = Hub::builder()
        .on_message(|c, m| Ok(c.send(m)?))
        .before_disconnect(move |c| {
            if c.in_room("slow") {
                sink.add("slow");
                let _ = wait.lock().unwrap().recv_timeout(common::PATIENCE);
            }
        })
        .after_disconnect({
            let log = log.clone();
            move |c| log.add(format!("gone {}", c.id()))
        });
    let server = TestServer::new(builder);
    let (slow_socket, slow) = server.pair();
    let (quick_socket, quick) = server.pair();
    let (mut other, _) = server.pair();
    slow.join("slow").unwrap();
    slow_socket.close();
    log.wait("slow");
    other.send_text("hi");
    assert_eq!(other.text(), "hi");
    quick_socket.close();
    log.wait(&format!("gone {}", quick.id()));
    assert!(!log.has(&format!("gone {}", slow.id())) && server.hub.room_exists("slow"));
    release.send(()).unwrap();
    log.wait(&format!("gone {}", slow.id()));
}

#[test]
fn a_hook_that_is_set_again_joins_the_one_before() {
    let log = Log::default();
    let logs: [Log; 8] = std::array::from_fn(|_| log.clone());
    let [connect_1, connect_2, handle_1, handle_2, filter_1, filter_2, join, close] = logs;
    let builder = Hub::builder()
        .on_upgrade(|_| Ok(Admission::user("ann").room("a")))
        .on_upgrade(|head| match head.query_param("refuse") {
            Some(_) => Err(wshub::Rejection::forbidden()),
            None => Ok(Admission::anonymous().room("b")),
        })
        .after_connect(move |_| connect_1.add("connect 1"))
        .after_connect(move |_| connect_2.add("connect 2"))
        .before_message(move |_, message| {
            filter_1.add("filter 1");
            Ok(Message::text(format!("{}!", text(&message))))
        })
        .before_message(move |_, message| {
            filter_2.add(format!("filter 2 {}", text(&message)));
            Ok(message)
        })
        .on_message(move |_, message| {
            handle_1.add(format!("handle 1 {}", text(message)));
            if text(message).starts_with("bad") { Err("refused".into()) } else { Ok(()) }
        })
        .on_message(move |_, message| {
            handle_2.add(format!("handle 2 {}", text(message)));
            Ok(())
        })
        .before_room_join(|_, room| if room == "closed" { Err("closed".into()) } else { Ok(()) })
        .before_room_join(move |_, room| {
            join.add(format!("may join {room}"));
            Ok(())
        })
        .after_disconnect(|_| panic!("on purpose"))
        .after_disconnect(move |_| close.add("closed"));
    let server = TestServer::new(builder);
    let (answer, _) = WsClient::try_connect(server.addr, "/ws?refuse=1", "");
    assert_eq!(common::status(&answer), 403);
    let mut socket = server.connect();
    socket.send_text("hello");
    socket.send_text("bad");
    log.wait("handle 1 bad!");
    let client = server.hub.clients().remove(0);
    assert_eq!(client.user_id().as_deref(), Some("ann"));
    assert!(client.in_room("a") && client.in_room("b"));
    assert!(client.join("closed").is_err());
    drop(socket);
    log.wait("closed");
    let all = log.all();
    let expected = [
        "may join a",
        "may join b",
        "connect 1",
        "connect 2",
        "filter 1",
        "filter 2 hello!",
        "handle 1 hello!",
        "handle 2 hello!",
        "filter 1",
        "filter 2 bad!",
        "handle 1 bad!",
        "closed",
    ];
    assert_eq!(all, expected);
}

/// A rate of two messages a second: of a burst, the first two pass.
fn limited(log: &Log, policy: RatePolicy, metrics: &Arc<DebugMetrics>) -> HubBuilder {
    let limited = log.clone();
    message_hooks(log)
        .limits(Limits::default().max_message_rate(2).rate_policy(policy))
        .metrics(metrics.clone())
        .on_rate_limited(move |_, m| limited.add(format!("limited {}", text(m))))
}

/// Sends in one piece, so that the messages come as fast as can be.
fn burst(socket: &mut WsClient, count: usize) {
    use std::io::Write;
    let frames: Vec<u8> =
        (0..count).flat_map(|n| common::client_frame(common::TEXT, n.to_string().as_bytes())).collect();
    socket.stream.write_all(&frames).unwrap();
}

#[test]
fn messages_over_the_rate_are_dropped_and_told() {
    let (log, metrics) = (Log::default(), Arc::new(DebugMetrics::new()));
    let server = TestServer::new(limited(&log, RatePolicy::Drop, &metrics));
    let mut socket = server.connect();
    burst(&mut socket, 50);
    socket.sync();
    let entries = log.all();
    let count = |what: &str| entries.iter().filter(|e| e.starts_with(what)).count();
    // The bucket refills while the messages are handled, so a slow machine lets a few more pass.
    assert_eq!(entries[..6], ["before 0", "hub 0", "after 0 ok", "before 1", "hub 1", "after 1 ok"]);
    assert_eq!((count("hub") + count("limited"), count("before")), (50, count("hub")));
    assert!(count("limited") >= 1, "{entries:?}");
    let stats = metrics.stats();
    assert_eq!(stats.errors.get(&ErrorType::RateLimitExceeded), Some(&(count("limited") as u64)));
    assert_eq!(stats.messages_received, 50);
    // The bucket refills with time.
    let handled = count("hub");
    let deadline = std::time::Instant::now() + common::PATIENCE;
    while log.all().iter().filter(|e| e.starts_with("hub")).count() == handled {
        assert!(std::time::Instant::now() < deadline, "the bucket never refilled");
        burst(&mut socket, 1);
        socket.sync();
    }
}

#[test]
fn messages_over_the_rate_may_close() {
    let (log, metrics) = (Log::default(), Arc::new(DebugMetrics::new()));
    let server = TestServer::new(limited(&log, RatePolicy::Close, &metrics));
    let mut socket = server.connect();
    burst(&mut socket, 50);
    assert_eq!(socket.expect_close(), (1008, "rate limit exceeded".into()));
    let entries = log.all();
    assert_eq!(entries.iter().filter(|e| e.starts_with("limited")).count(), 1, "{entries:?}");
    assert!(entries.last().is_some_and(|e| e.starts_with("limited")), "nothing after it is handled: {entries:?}");
    assert_eq!(metrics.stats().errors.get(&ErrorType::RateLimitExceeded), Some(&1));
    eventually("the client is gone", || server.hub.client_count() == 0);
}
