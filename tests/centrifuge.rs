//! The client protocol of Centrifugo on the wire. tests/sdk has the official SDKs as clients.
#![cfg(feature = "centrifuge")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod centrifuge_suite;
mod common;

use std::thread;
use std::time::{Duration, Instant};

use centrifuge_suite::*;
use common::{BINARY, CLOSE, PATIENCE, TestServer, counted, errors, eventually};
use serde_json::{Value, json};
use wshub::metrics::ErrorType;
use wshub::protocol::centrifuge::{Centrifuge, ChannelOptions};
use wshub::{Admission, Config, Hub, Limits, Message, RoomOptions, Target};

#[test]
fn connect_comes_first_and_once() {
    let server = serve(protocol());
    let (_, reply) = connect(&server, &json!({"name": "test", "unknown": {"x": 1}}));
    let id = reply["connect"]["client"].as_str().unwrap();
    assert_eq!(id.len(), 36);
    let version = concat!("wshub ", env!("CARGO_PKG_VERSION"));
    assert_eq!(reply, json!({"id": 1, "connect": {"client": id, "version": version, "ping": 25, "pong": true}}));
    for early in [r#"{"id":1,"ping":{}}"#, r#"{"id":1,"subscribe":{"channel":"a"}}"#, r#"{"send":{"data":1}}"#, "{}"] {
        let mut socket = server.connect();
        socket.send_text(early);
        assert_eq!(socket.expect_close(), (3501, "bad request".into()), "{early}");
    }
    let mut twice = connected(&server);
    send(&mut twice, &json!({"id": 2, "connect": {}}));
    assert_eq!(twice.expect_close().0, 3501);
}

#[test]
fn connect_must_come_in_time() {
    let server = serve(protocol().connect_timeout(Duration::from_millis(50)));
    assert_eq!(server.connect().expect_close(), (3502, "stale".into()));
    let mut socket = connected(&server);
    assert_eq!(ask(&mut socket, &json!({"id": 2, "ping": {}})), json!({"id": 2, "ping": {}}));
}

#[test]
fn who_breaks_the_protocol_stays_away() {
    let (metrics, builder) = counted(builder());
    let server = TestServer::new(protocol().install(builder));
    let many = "{\"id\":1,\"ping\":{}}\n".repeat(65);
    let frames = ["", "x", "[]", "{\"id\":1", r#"{"id":1,"ping":{},"rpc":{}}"#, r#"{"rpc":{"method":"echo"}}"#, &many];
    for frame in frames {
        let mut socket = connected(&server);
        socket.send_text(frame);
        let (code, reason) = socket.expect_close();
        assert_eq!(code, 3501, "{frame}: {reason}");
        assert!(!reason.is_empty());
    }
    let mut socket = connected(&server);
    socket.send_frame(0x80 | BINARY, b"\x00");
    assert_eq!(socket.expect_close(), (3501, "binary message in the JSON protocol".into()));
    eventually("all are counted", || errors(&metrics, ErrorType::ProtocolError) == frames.len() as u64 + 1);
    // An unknown command is no violation: a newer SDK may have it.
    assert_eq!(code(&ask(&mut connected(&server), &json!({"id": 2, "future": {}}))), 104);
}

#[test]
fn frames_that_break_websocket_and_floods_end_with_codes_of_the_protocol() {
    let limits = Limits::default().max_message_rate(5).rate_policy(wshub::limit::RatePolicy::Close);
    let server = TestServer::new(protocol().install(builder().limits(limits)));
    let mut socket = connected(&server);
    socket.send_frame(0x80 | 0x3, b"reserved opcode");
    assert_eq!(socket.expect_close().0, 3501);
    let mut socket = connected(&server);
    socket.send_frame(0x81, &[0xff, 0xfe]);
    assert_eq!(socket.expect_close().0, 3501);
    let mut socket = connected(&server);
    for id in 2..30 {
        send(&mut socket, &json!({"id": id, "ping": {}}));
    }
    let end = loop {
        let frame = socket.frame();
        if frame.first == common::CLOSE {
            break frame.close().0;
        }
    };
    assert_eq!(end, 3013);
}

#[test]
fn no_time_is_too_long_for_the_clock() {
    let protocol = protocol().ping_interval(Duration::from_secs(1)).pong_timeout(Duration::MAX);
    let server = serve(protocol.connect_timeout(Duration::MAX).expiry_grace(Duration::MAX));
    let mut socket = connected(&server);
    // The first is never answered.
    for _ in 0..2 {
        assert_eq!(socket.text(), "{}");
    }
    assert_eq!(ask(&mut socket, &json!({"id": 2, "ping": {}}))["id"], 2);
}

#[test]
fn pings_want_an_answer() {
    let server = serve(protocol().ping_interval(Duration::from_secs(1)).pong_timeout(Duration::from_millis(500)));
    let mut lively = connected(&server);
    let mut silent = connected(&server);
    for _ in 0..2 {
        assert_eq!(lively.text(), "{}");
        lively.send_text("{}");
    }
    assert_eq!(silent.text(), "{}");
    assert_eq!(silent.expect_close(), (3012, "no pong".into()));
    assert_eq!(ask(&mut lively, &json!({"id": 2, "ping": {}}))["id"], 2);
}

/// The ping waits behind output that takes longer to read than the answer may take.
#[test]
fn a_slow_reader_is_not_taken_for_a_silent_one() {
    // Small kernel buffers: what they hold when the queue is empty is read well within the time for the answer.
    let config = common::deep_queue(Config::default()).send_buffer(64 * 1024);
    let protocol = protocol().ping_interval(Duration::from_secs(1)).pong_timeout(Duration::from_secs(2));
    let server = TestServer::new(protocol.install(builder().config(config)));
    let mut socket = connected(&server);
    socket2::SockRef::from(&socket.stream).set_recv_buffer_size(64 * 1024).unwrap();
    let client = server.hub.clients().pop().unwrap();
    let before = client.output_progress();
    let large = Message::text("x".repeat(64 * 1024));
    let count = std::iter::repeat_with(|| client.send(large.clone())).take(240).take_while(Result::is_ok).count();
    let mut read = 0;
    while read < count {
        match &socket.text()[..] {
            "{}" => socket.send_text("{}"),
            _ => read += 1,
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert!(count > 200 && client.output_progress() != before && !client.is_closed(), "{count}");
    // Then it reads and does not answer.
    let end = loop {
        let frame = socket.frame();
        if frame.first == common::CLOSE {
            break frame.close().0;
        }
    };
    assert_eq!(end, 3012);
}

#[test]
fn tokens_are_read_checked_and_refused() {
    let server = serve(protocol());
    let (_, reply) = connect(&server, &json!({"token": "ann+100"}));
    assert_eq!(reply["connect"]["expires"], true);
    assert!((90..=100).contains(&reply["connect"]["ttl"].as_u64().unwrap()), "{reply}");
    let mut bad = server.connect();
    send(&mut bad, &json!({"id": 1, "connect": {"token": "bad"}}));
    assert_eq!(bad.expect_close(), (3500, "invalid token".into()));
    // What comes in the frame of a connect that is refused is not answered, and the client may try again.
    for old in ["old", "ann+0"] {
        let mut socket = server.connect();
        let connect = json!({"id": 1, "connect": {"token": old}});
        socket.send_text(&format!("{connect}\n{}", json!({"id": 2, "subscribe": {"channel": "a"}})));
        assert_eq!(one(&mut socket), json!({"id": 1, "error": {"code": 109, "message": "token expired"}}));
        assert!(ask(&mut socket, &json!({"id": 3, "connect": {"token": "ann"}})).get("connect").is_some());
    }
    let without = serve(Centrifuge::new());
    let mut socket = without.connect();
    send(&mut socket, &json!({"id": 1, "connect": {"token": "ann"}}));
    assert_eq!(socket.expect_close().0, 3500, "nobody can read it");
}

#[test]
fn subscriptions_are_refused_with_their_codes() {
    let limits = Limits::default().max_clients_per_room(2);
    let hub =
        builder().limits(limits).before_room_join(|_, room| if room == "shut" { Err("no".into()) } else { Ok(()) });
    let server = TestServer::new(protocol().max_subscriptions(3).install(hub));
    let (mut socket, _) = connect(&server, &json!({"token": "ann"}));
    let long = "x".repeat(257);
    for (wish, expected) in [
        (json!({"channel": "nowhere"}), 102),
        (json!({"channel": "secret"}), 103),
        (json!({"channel": "secret", "token": "bob"}), 103),
        (json!({"channel": "other", "token": "ann"}), 103),
        (json!({"channel": "secret", "token": "old"}), 109),
        (json!({"channel": "secret", "token": "ann+0"}), 109),
        (json!({"channel": "shut"}), 103),
        (json!({"channel": ""}), 107),
        (json!({"channel": long}), 107),
        (json!({"channel": "a", "recover": true, "epoch": "gone", "flag": 2}), 112),
    ] {
        assert_eq!(code(&subscribe(&mut socket, &wish)), expected, "{wish}");
    }
    for channel in ["a", "b", "secret"] {
        let wish = json!({"channel": channel, "token": if channel == "secret" { "ann" } else { "" }});
        assert!(subscribe(&mut socket, &wish).get("subscribe").is_some(), "{channel}");
    }
    assert_eq!(code(&subscribe(&mut socket, &json!({"channel": "a"}))), 105);
    assert_eq!(code(&subscribe(&mut socket, &json!({"channel": "d"}))), 106);
    assert_eq!(
        ask(&mut socket, &json!({"id": 3, "unsubscribe": {"channel": "b"}})),
        json!({"id": 3, "unsubscribe": {}})
    );
    assert!(subscribe(&mut socket, &json!({"channel": "d"})).get("subscribe").is_some());
    let mut others = [connected(&server), connected(&server)];
    assert!(subscribe(&mut others[0], &json!({"channel": "a"})).get("subscribe").is_some());
    assert_eq!(code(&subscribe(&mut others[1], &json!({"channel": "a"}))), 106, "the room is full");
    assert_eq!(code(&ask(&mut others[1], &json!({"id": 4, "sub_refresh": {"channel": "a", "token": "ann"}}))), 107);
    let (mut bad, _) = connect(&server, &json!({"token": "ann"}));
    send(&mut bad, &json!({"id": 2, "subscribe": {"channel": "secret", "token": "bad"}}));
    assert_eq!(bad.expect_close().0, 3500);
}

#[test]
fn what_is_not_refreshed_ends() {
    let server = serve(protocol().expiry_grace(Duration::from_millis(300)));
    let (mut late, _) = connect(&server, &json!({"token": "ann+1"}));
    let (mut in_time, _) = connect(&server, &json!({"token": "ann+1"}));
    let (mut of_channel, _) = connect(&server, &json!({"token": "ann"}));
    let reply = subscribe(&mut of_channel, &json!({"channel": "secret", "token": "ann+1"}));
    assert_eq!((&reply["subscribe"]["expires"], &reply["subscribe"]["ttl"]), (&json!(true), &json!(1)));
    let reply = ask(&mut in_time, &json!({"id": 2, "refresh": {"token": "ann+100"}}));
    assert_eq!(reply["refresh"]["expires"], true);
    assert_eq!(late.expect_close(), (3005, "connection expired".into()));
    let push = json!({"channel": "secret", "unsubscribe": {"code": 2501, "reason": "expired"}});
    assert_eq!(one(&mut of_channel), json!({"push": push}));
    assert!(subscribe(&mut of_channel, &json!({"channel": "secret", "token": "ann"})).get("subscribe").is_some());
    let reply = ask(&mut of_channel, &json!({"id": 3, "sub_refresh": {"channel": "secret", "token": "ann+50"}}));
    assert_eq!(reply["sub_refresh"]["expires"], true);
    assert_eq!(
        code(&ask(&mut of_channel, &json!({"id": 4, "sub_refresh": {"channel": "secret", "token": "old"}}))),
        110
    );
    for (token, expected) in [("bob", 3500), ("old", 3005)] {
        let (mut socket, _) = connect(&server, &json!({"token": "ann"}));
        send(&mut socket, &json!({"id": 2, "refresh": {"token": token}}));
        assert_eq!(socket.expect_close().0, expected, "{token}");
    }
    assert_eq!(ask(&mut in_time, &json!({"id": 3, "ping": {}}))["id"], 3);
}

#[test]
fn what_the_program_publishes_is_one_line_of_json() {
    let server = serve(protocol());
    let mut socket = connected(&server);
    let top = subscribe(&mut socket, &json!({"channel": "a"}));
    let epoch = server.hub.position("a").unwrap().epoch().to_string();
    let subscribed = json!({"recoverable": true, "positioned": true, "epoch": epoch});
    assert_eq!(top, json!({"id": 2, "subscribe": subscribed}));
    let texts = ["{\n\"a\":\r\n1}", "plain", "[1,\n2]", "null"];
    let shown = [json!({"a": 1}), json!("plain"), json!([1, 2]), json!(null)];
    for (n, (text, data)) in texts.iter().zip(shown).enumerate() {
        server.hub.publish("a", *text);
        let push = json!({"channel": "a", "pub": {"data": data, "offset": n + 1}});
        assert_eq!(one(&mut socket), json!({"push": push}));
    }
    server.hub.send(Target::room("a"), wshub::Message::binary(vec![0, 255])).unwrap();
    assert_eq!(one(&mut socket)["push"]["pub"], json!({"data": "AP8=", "offset": 5}));
}

#[test]
fn joins_and_leaves_by_the_program_are_pushed() {
    let hub = builder().on_upgrade(|_| Ok(Admission::user("ann").room("own")));
    let server = TestServer::new(protocol().install(hub));
    server.hub.publish("own", "1");
    let (mut socket, reply) = connect(&server, &json!({}));
    let epoch = server.hub.position("own").unwrap().epoch().to_string();
    let own = json!({"recoverable": true, "positioned": true, "epoch": epoch, "offset": 1});
    assert_eq!(reply["connect"]["subs"], json!({"own": own}));
    // It is told of its own join, as of any.
    assert_eq!(one(&mut socket)["push"]["join"]["info"]["user"], "ann");
    server.hub.publish("own", "2");
    assert_eq!(one(&mut socket)["push"], json!({"channel": "own", "pub": {"data": 2, "offset": 2}}));
    let client = server.hub.user_client("ann").unwrap();
    server.hub.publish("later", "1");
    client.join("later").unwrap();
    let epoch = server.hub.position("later").unwrap().epoch().to_string();
    let later = json!({"recoverable": true, "epoch": epoch, "offset": 1, "positioned": true});
    assert_eq!(one(&mut socket)["push"], json!({"channel": "later", "subscribe": later}));
    assert_eq!(one(&mut socket)["push"]["join"]["info"]["user"], "ann");
    server.hub.publish("later", "2");
    assert_eq!(one(&mut socket)["push"]["pub"], json!({"data": 2, "offset": 2}));
    client.leave("later").unwrap();
    let unsubscribe = json!({"code": 2000, "reason": "server unsubscribe"});
    assert_eq!(one(&mut socket)["push"], json!({"channel": "later", "unsubscribe": unsubscribe}));
    // Recovered with the connect command.
    drop(socket);
    server.hub.publish("own", "3");
    let subs = json!({"own": {"recover": true, "offset": 2, "epoch": reply["connect"]["subs"]["own"]["epoch"]}});
    let (_, reply) = connect(&server, &json!({"subs": subs}));
    let own = &reply["connect"]["subs"]["own"];
    assert_eq!((&own["recovered"], &own["offset"]), (&json!(true), &json!(2)));
    assert_eq!(own["publications"], json!([{"data": 3, "offset": 3}]));
}

/// Clients subscribe, with their position, while others publish: nothing is missed, nothing comes twice.
#[test]
fn subscribing_in_the_middle_of_a_flood_misses_nothing() {
    const COUNT: u64 = 3000;
    let hub = Hub::builder().rooms("flood", RoomOptions::history().messages(10_000).bytes(16 << 20));
    let server = TestServer::new(protocol().install(hub));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..COUNT / 3 {
                    server.hub.publish("flood", "0");
                }
            });
        }
        for reader in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let (mut at, mut epoch, mut rounds) = (0, String::new(), 0);
                while at < COUNT {
                    let mut socket = connected(server);
                    let wish = json!({"channel": "flood", "recover": true, "offset": at, "epoch": epoch});
                    let reply = subscribe(&mut socket, &wish)["subscribe"].clone();
                    assert_eq!((&reply["recovered"], reply["offset"].as_u64().unwrap_or(0)), (&json!(true), at));
                    reply["epoch"].as_str().unwrap().clone_into(&mut epoch);
                    let recovered = reply["publications"].as_array().cloned().unwrap_or_default();
                    for publication in recovered {
                        at += 1;
                        assert_eq!(publication["offset"], at);
                    }
                    rounds += 1;
                    let leave_at = at + 50 + 40 * reader;
                    while at < leave_at.min(COUNT) {
                        for object in next(&mut socket) {
                            at += 1;
                            assert_eq!(object["push"]["pub"]["offset"], at, "{object}");
                        }
                    }
                }
                assert!(rounds >= 1);
            });
        }
    });
}

#[test]
fn a_client_that_falls_behind_the_history_subscribes_again() {
    let hub = Hub::builder().rooms("small", RoomOptions::history().messages(2));
    // A small kernel buffer is soon full, and a slow machine is not taken for a slow reader.
    let hub = hub.map_config(|config| config.queue_messages(8).send_buffer(64 * 1024).write_timeout(PATIENCE * 10));
    let server = TestServer::new(protocol().install(hub));
    let mut socket = connected(&server);
    socket2::SockRef::from(&socket.stream).set_recv_buffer_size(64 * 1024).unwrap();
    let first = subscribe(&mut socket, &json!({"channel": "small"}));
    let epoch = first["subscribe"]["epoch"].clone();
    // Far more than the socket and the queue take, while the client reads nothing.
    let large = format!("\"{}\"", "x".repeat(60_000));
    for _ in 0..100 {
        server.hub.publish("small", large.as_str());
    }
    let mut last = 0;
    let code = loop {
        let push = one(&mut socket)["push"].clone();
        if let Some(offset) = push["pub"]["offset"].as_u64() {
            assert_eq!(offset, last + 1, "no hole before the client is told");
            last = offset;
        } else {
            break push["unsubscribe"]["code"].clone();
        }
    };
    assert_eq!(code, 2500);
    assert!(last < 100);
    send(
        &mut socket,
        &json!({"id": 9, "subscribe": {"channel": "small", "recover": true, "offset": last, "epoch": epoch}}),
    );
    let reply = loop {
        let object = one(&mut socket);
        if object["id"] == 9 {
            break object["subscribe"].clone();
        }
    };
    assert_eq!((&reply["was_recovering"], reply.get("recovered"), &reply["offset"]), (&json!(true), None, &json!(100)));
    server.hub.publish("small", "1");
    assert_eq!(one(&mut socket)["push"]["pub"], json!({"data": 1, "offset": 101}));
}

/// Centrifugo's recovery mode `cache`: only the last publication counts.
#[test]
fn cache_recovery_brings_the_last_publication_alone() {
    let hub = Hub::builder().rooms("*", RoomOptions::history().messages(2));
    let options = ChannelOptions::default().cache_recovery(true);
    let server = TestServer::new(Centrifuge::new().channels(move |_| Some(options)).install(hub));
    let subscribed = |wish: &Value| subscribe(&mut connected(&server), wish)["subscribe"].clone();
    let facts = |wish: &Value| {
        let reply = subscribed(wish);
        let offsets: Vec<u64> = reply["publications"]
            .as_array()
            .map_or_else(Vec::new, |all| all.iter().map(|p| p["offset"].as_u64().unwrap()).collect());
        (reply["recovered"] == true, offsets, reply["offset"].as_u64().unwrap_or(0))
    };
    // `since: {}` of an SDK.
    let empty = json!({"channel": "a", "recover": true});
    assert_eq!(facts(&empty), (false, vec![], 0), "nothing was ever published");
    (1..=5).for_each(|n| _ = server.hub.publish("a", n.to_string()));
    let epoch = server.hub.position("a").unwrap().epoch().to_string();
    assert_eq!(facts(&empty), (true, vec![5], 5));
    assert_eq!(facts(&json!({"channel": "a"})), (false, vec![], 5), "it has not asked");
    for (offset, of, expected) in
        [(4, &*epoch, vec![5]), (1, &epoch, vec![5]), (5, &epoch, vec![]), (3, "gone", vec![5])]
    {
        let wish = json!({"channel": "a", "recover": true, "offset": offset, "epoch": of});
        assert_eq!(facts(&wish), (true, expected, 5), "{wish}");
    }
    server.hub.clear_history("a");
    assert_eq!(facts(&empty), (false, vec![], 5), "the last one is gone");
    let wish = json!({"channel": "a", "recover": true, "offset": 5, "epoch": epoch});
    assert_eq!(facts(&wish), (true, vec![], 5), "it has the last one");
}

/// An SDK does not subscribe again to a server-side subscription, but it connects again.
#[test]
fn a_gap_in_a_server_side_subscription_ends_the_connection() {
    let hub = Hub::builder().rooms("small", RoomOptions::history().messages(2));
    let hub = hub.map_config(|config| config.queue_messages(8));
    let hub = hub.on_upgrade(|_| Ok(Admission::anonymous().room("small")));
    let server = TestServer::new(protocol().install(hub));
    let (mut socket, reply) = connect(&server, &json!({}));
    assert!(reply["connect"]["subs"]["small"].is_object(), "{reply}");
    let large = format!("\"{}\"", "x".repeat(60_000));
    for _ in 0..400 {
        server.hub.publish("small", large.as_str());
    }
    let close = loop {
        let frame = socket.frame();
        if frame.first == CLOSE {
            break frame;
        }
    };
    assert_eq!(close.close(), (3010, "state invalidated"));
    let (_, reply) = connect(&server, &json!({}));
    assert_eq!(reply["connect"]["subs"]["small"]["offset"], 400, "{reply}");
}

#[test]
fn a_client_that_does_not_read_its_replies_is_closed() {
    let (metrics, builder) = counted(builder().map_config(|config| config.queue_messages(4)));
    let server = TestServer::new(protocol().install(builder));
    let (mut socket, client) = {
        let (socket, _) = connect(&server, &json!({}));
        (socket, server.hub.clients().remove(0))
    };
    let begin = Instant::now();
    let data = "x".repeat(400_000);
    let request = json!({"id": 2, "rpc": {"method": "echo", "data": data}}).to_string();
    let writer = thread::spawn(move || {
        while begin.elapsed() < Duration::from_secs(60) && !client.is_closed() {
            socket.send_text(&request);
        }
        client.is_closed()
    });
    assert!(writer.join().unwrap());
    drop(metrics);
}

/// Event streams of the same hub read the same rooms, and are no clients of the protocol.
#[test]
fn event_streams_stand_beside() {
    let hub = builder().on_upgrade(|head| {
        Ok(if head.path() == "/events" { Admission::anonymous().room("a") } else { Admission::anonymous() })
    });
    let hub = protocol().connect_timeout(Duration::from_millis(50)).install(hub).build().unwrap();
    let server = TestServer::of(hub.clone(), |server| server.event_stream("/events", &hub));
    let mut stream = common::stream::SseClient::connect(server.addr, "/events", "");
    let mut socket = connected(&server);
    subscribe(&mut socket, &json!({"channel": "a"}));
    // Longer than a client of the protocol may be silent at first.
    assert_eq!(server.connect().expect_close().0, 3502);
    server.hub.publish("a", "{\"n\":1}");
    let data = loop {
        match stream.next_item() {
            Some(common::stream::Item::Event(event)) if !event.data.is_empty() => break event.data,
            Some(_) => {}
            None => panic!("the stream has ended"),
        }
    };
    assert_eq!(data, "{\"n\":1}");
    assert_eq!(server.hub.room_size("a"), 2);
}
