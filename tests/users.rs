//! Users: the index of their connections, its limit, going online and offline; and the data of a client handle.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::SystemTime;

use common::{Log, PATIENCE, TestServer, WsClient, eventually};
use wshub::{
    Admission, Config, Hub, HubBuilder, Limits, Rejection, Target, UserError,
    health::QueueDepth,
    limit::MAX_USER_ID,
    metrics::{DebugMetrics, ErrorType},
};

/// The query names the user: `?user=ann`; nobody without it.
fn named(builder: HubBuilder) -> HubBuilder {
    builder.on_upgrade(|head| match head.query_param("user") {
        Some(user) => Ok(Admission::user(user)),
        None => Ok(Admission::anonymous()),
    })
}

/// Logs `+user` and `-user`.
fn watched(log: &Log) -> HubBuilder {
    let (online, offline) = (log.clone(), log.clone());
    named(Hub::builder())
        .on_user_online(move |hub, user| online.add(format!("+{user} {}", hub.is_user_online(user))))
        .on_user_offline(move |hub, user| offline.add(format!("-{user} {}", hub.is_user_online(user))))
}

#[test]
fn a_user_has_all_its_connections_and_no_others() {
    let server = TestServer::new(named(Hub::builder()));
    let hub = &server.hub;
    let (a1, ann1) = server.pair_to("/ws?user=ann");
    let (_a2, ann2) = server.pair_to("/ws?user=ann");
    let (_b, bob) = server.pair_to("/ws?user=bob");
    let (_c, nobody) = server.pair();
    assert_eq!(hub.user_count(), 2);
    assert_eq!((hub.user_connection_count("ann"), hub.user_connection_count("bob")), (2, 1));
    let clients = hub.user_clients("ann");
    assert!(clients.len() == 2 && clients.contains(&ann1) && clients.contains(&ann2));
    assert!(hub.is_user_online("ann") && !hub.is_user_online("eve"));
    assert_eq!((hub.user_connection_count("eve"), hub.user_clients("eve").len()), (0, 0));
    assert_eq!((bob.user_id().as_deref(), nobody.user_id()), (Some("bob"), None));
    a1.close();
    eventually("one connection of ann is left", || hub.user_connection_count("ann") == 1);
    assert_eq!(hub.user_clients("ann"), [ann2]);
}

#[test]
fn users_are_listed_once_each() {
    let server = TestServer::new(named(Hub::builder()));
    let users = || {
        let mut users: Vec<String> = server.hub.users().iter().map(ToString::to_string).collect();
        users.sort();
        users
    };
    assert!(users().is_empty());
    let (ann, _) = server.pair_to("/ws?user=ann");
    let (_second, ann2) = server.pair_to("/ws?user=ann");
    let (_bob, _) = server.pair_to("/ws?user=bob");
    let (_nobody, _) = server.pair();
    assert_eq!(users(), ["ann", "bob"]);
    ann.close();
    eventually("one connection of ann is left", || server.hub.user_connection_count("ann") == 1);
    assert_eq!(users(), ["ann", "bob"]);
    ann2.clear_user().unwrap();
    assert_eq!(users(), ["bob"]);
    assert_eq!(serde_json::to_string(&server.hub.users()).unwrap(), r#"["bob"]"#, "ids serialise");
}

#[test]
fn set_user_and_clear_user_move_a_connection_in_the_index() {
    let log = Log::default();
    let server = TestServer::new(watched(&log));
    let hub = &server.hub;
    let (_socket, client) = server.pair();
    client.clear_user().unwrap();
    assert_eq!(log.take(), [""; 0]);
    client.set_user("ann").unwrap();
    client.set_user("ann").unwrap();
    assert_eq!((hub.user_clients("ann"), client.user_id().as_deref()), (vec![client.clone()], Some("ann")));
    assert_eq!(log.take(), ["+ann true"]);
    client.set_user("bob").unwrap();
    assert_eq!((hub.is_user_online("ann"), hub.user_clients("bob").len(), hub.user_count()), (false, 1, 1));
    assert_eq!(log.take(), ["-ann false", "+bob true"]);
    client.clear_user().unwrap();
    client.clear_user().unwrap();
    assert_eq!((client.user_id(), hub.user_count()), (None, 0));
    assert_eq!(log.take(), ["-bob false"]);
}

#[test]
fn a_closed_connection_has_no_user() {
    let log = Log::default();
    let server = TestServer::new(watched(&log));
    let (socket, client) = server.pair_to("/ws?user=ann");
    socket.close();
    eventually("the connection has ended", || client.closed_at().is_some());
    assert_eq!(client.set_user("bob"), Err(UserError::ClientNotFound));
    assert_eq!(client.clear_user(), Err(UserError::ClientNotFound));
    assert_eq!((server.hub.user_count(), client.user_id().as_deref()), (0, Some("ann")));
    assert_eq!(log.take(), ["+ann true", "-ann false"]);
}

#[test]
fn the_limit_per_user_refuses_with_429_and_leaves_everything_as_it_was() {
    let log = Log::default();
    let metrics = Arc::new(DebugMetrics::new());
    let builder = watched(&log).limits(Limits::default().max_connections_per_user(2)).metrics(metrics.clone());
    let server = TestServer::new(builder);
    let hub = &server.hub;
    let (first, _) = server.pair_to("/ws?user=ann");
    let (_second, _) = server.pair_to("/ws?user=ann");
    let (_third, bob) = server.pair_to("/ws?user=bob");
    log.wait("+bob true");
    log.take();

    let (head, _) = WsClient::try_connect(server.addr, "/ws?user=ann", "");
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    assert_eq!(metrics.stats().errors.get(&ErrorType::ConnectionLimit), Some(&1));
    assert_eq!(bob.set_user("ann"), Err(UserError::TooManyConnections));
    assert_eq!((bob.user_id().as_deref(), hub.user_connection_count("bob")), (Some("bob"), 1));
    assert_eq!((hub.client_count(), hub.user_connection_count("ann")), (3, 2));
    assert_eq!(log.take(), [""; 0]);

    first.close();
    eventually("a place is free", || hub.user_connection_count("ann") == 1);
    bob.set_user("ann").unwrap();
    assert_eq!((log.take(), hub.user_connection_count("ann")), (vec!["-bob false".to_owned()], 2));
}

#[test]
fn hooks_run_once_for_each_coming_and_going() {
    let log = Log::default();
    let server = TestServer::new(watched(&log));
    let mut first = server.connect_to("/ws?user=ann");
    let mut second = server.connect_to("/ws?user=ann");
    first.sync();
    second.sync();
    assert_eq!(log.all(), ["+ann true"]);
    first.close();
    eventually("one is left", || server.hub.client_count() == 1);
    assert_eq!(log.all(), ["+ann true"]);
    second.close();
    eventually("none is left", || server.hub.client_count() == 0);
    assert_eq!(log.all(), ["+ann true", "-ann false"]);
    server.connect_to("/ws?user=ann").sync();
    assert_eq!(log.all()[..3], ["+ann true", "-ann false", "+ann true"]);
}

#[test]
fn racing_connections_of_one_user_alternate_strictly() {
    let states = Arc::new(Mutex::new(Vec::new()));
    let running = Arc::new(AtomicBool::new(false));
    let hook = |is_online: bool| {
        let (states, running) = (Arc::clone(&states), Arc::clone(&running));
        move |_: &Hub, _: &str| {
            let is_alone = !running.swap(true, Ordering::SeqCst);
            thread::yield_now();
            states.lock().unwrap().push((is_online, is_alone));
            running.store(false, Ordering::SeqCst);
        }
    };
    let builder = Hub::builder().on_user_online(hook(true)).on_user_offline(hook(false));
    let server = TestServer::new(builder);
    let pairs: Vec<_> = (0..4).map(|_| server.pair()).collect();
    let start = Barrier::new(pairs.len());
    thread::scope(|scope| {
        for (_, client) in &pairs {
            scope.spawn(|| {
                start.wait();
                for _ in 0..500 {
                    client.set_user("ann").unwrap();
                    client.clear_user().unwrap();
                }
            });
        }
    });
    assert_eq!(server.hub.user_count(), 0);
    drop(pairs);
    // It waits for hooks that run on threads of their own.
    server.handle.shutdown(PATIENCE).unwrap();
    let states = states.lock().unwrap();
    assert!(states.len() >= 2 && states.len() % 2 == 0, "{}", states.len());
    for (at, (is_online, is_alone)) in states.iter().enumerate() {
        assert_eq!((*is_online, *is_alone), (at % 2 == 0, true), "transition {at} of {}", states.len());
    }
}

#[test]
fn racing_set_user_never_exceeds_the_limit() {
    let server = TestServer::new(Hub::builder().limits(Limits::default().max_connections_per_user(2)));
    let pairs: Vec<_> = (0..4).map(|_| server.pair()).collect();
    for _ in 0..200 {
        let start = Barrier::new(pairs.len());
        let won: usize = thread::scope(|scope| {
            let race = |(_, client): &(WsClient, wshub::Client)| {
                start.wait();
                usize::from(client.set_user("ann").is_ok())
            };
            let threads: Vec<_> = pairs.iter().map(|pair| scope.spawn(move || race(pair))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!((won, server.hub.user_connection_count("ann")), (2, 2));
        for (_, client) in &pairs {
            client.clear_user().unwrap();
        }
    }
}

#[test]
fn user_targets_reach_every_connection_once() {
    let server = TestServer::new(named(Hub::builder()));
    let users = ["ann", "ann", "bob", "eve"];
    let mut sockets: Vec<_> = users.iter().map(|user| server.connect_to(&format!("/ws?user={user}"))).collect();
    let ann = server.hub.user_clients("ann");
    ann[0].join("x").unwrap();
    let mut copies = |target: Target<'_>| -> Vec<usize> {
        let queued = server.hub.send(target, "m").unwrap().queued;
        server.hub.send(Target::all(), "end").unwrap();
        let copies: Vec<_> = sockets.iter_mut().map(|s| s.texts_until_end().len()).collect();
        assert_eq!(queued, copies.iter().sum::<usize>());
        copies
    };
    assert_eq!(copies(Target::user("ann")), [1, 1, 0, 0]);
    assert_eq!(copies(Target::user("nobody")), [0, 0, 0, 0]);
    assert_eq!(copies(Target::users(["ann", "bob", "nobody"])), [1, 1, 1, 0]);
    assert_eq!(copies(Target::user("ann").and(Target::room("x")).and(Target::user("eve"))), [1, 1, 0, 1]);
    let excepted: usize = copies(Target::user("ann").except(ann[0].id())).iter().sum();
    assert_eq!(excepted, 1);
    drop(sockets);
}

#[test]
fn a_rejection_is_the_http_answer() {
    let builder = Hub::builder().on_upgrade(|head| match head.path() {
        "/ws" if head.query() == Some("401") => Err(Rejection::unauthorized()),
        "/ws" if head.query() == Some("503") => Err(Rejection::new(503, "later\n")),
        "/ws" if head.query() == Some("200") => Err(wshub::Response::json(200, &["no"]).into()),
        _ => Err(Rejection::default()),
    });
    let server = TestServer::new(builder);
    for (query, status) in [("401", "401"), ("503", "503"), ("200", "403"), ("", "403")] {
        let (head, _) = WsClient::try_connect(server.addr, &format!("/ws?{query}"), "");
        assert_eq!(&head[9..12], status, "{query}");
    }
    assert_eq!(server.hub.client_count(), 0);
}

#[test]
fn metadata_is_typed_and_starts_with_the_admission() {
    #[derive(Debug, PartialEq)]
    struct Claims {
        admin: bool,
    }
    let builder = Hub::builder()
        .on_upgrade(|_| Ok(Admission::user("ann").metadata("claims", Claims { admin: true }).metadata("n", 1_u32)));
    let server = TestServer::new(builder);
    let (_socket, client) = server.pair();
    assert_eq!(client.metadata::<Claims>("claims").as_deref(), Some(&Claims { admin: true }));
    assert_eq!(client.metadata::<u32>("n").as_deref(), Some(&1));
    assert_eq!(client.metadata::<String>("n"), None, "another type");
    assert_eq!(client.metadata::<u32>("missing"), None);
    let kept = client.metadata::<u32>("n");
    client.set_metadata("n", "two".to_owned());
    assert_eq!(client.metadata::<String>("n").as_deref().map(String::as_str), Some("two"));
    assert_eq!(kept.as_deref(), Some(&1), "what was taken out stays");
    assert!(client.remove_metadata("n") && !client.remove_metadata("n"));
    assert_eq!(client.metadata::<String>("n"), None);
}

#[test]
fn a_client_knows_its_request_address_and_times() {
    // The bridge's connections are not the clients' own.
    if common::over_tls::is_wanted() {
        return;
    }
    let before = SystemTime::now();
    let server = TestServer::new(Hub::builder());
    let socket = WsClient::connect(server.addr, "/ws?token=a%20b", "User-Agent: test\r\n");
    let client = server.hub.clients().remove(0);
    assert_eq!((client.request().path(), client.request().query_param("token").as_deref()), ("/ws", Some("a b")));
    assert_eq!(client.request().header("user-agent"), Some("test"));
    assert_eq!(client.remote_addr(), Some(socket.stream.local_addr().unwrap()));
    assert_eq!(client.hub(), &server.hub);
    assert_eq!(server.hub.client(client.id()), Some(client.clone()));
    assert!(client.connected_at() >= before && client.connected_at() <= SystemTime::now());
    assert!(client.closed_at().is_none() && !client.is_closed());
    assert_eq!((client.id().as_uuid().get_version_num(), client.queue_depth()), (4, QueueDepth::default()));
    socket.close();
    eventually("the end has a time", || client.closed_at().is_some());
    assert!(client.closed_at().unwrap() >= client.connected_at() && client.is_closed());
    assert_eq!(server.hub.client(client.id()), None);
    assert_eq!(client.request().path(), "/ws", "the handle stays usable");
}

#[test]
fn the_subprotocol_is_the_first_of_ours_or_the_hooks_choice() {
    let config = Config::default().subprotocols(["v2", "v1"]);
    let builder = Hub::builder().config(config).on_upgrade(|head| match head.query_param("want") {
        Some(name) => Ok(Admission::anonymous().subprotocol(name)),
        None => Ok(Admission::anonymous()),
    });
    let server = TestServer::new(builder);
    for (target, offered, chosen) in [
        ("/ws", "v1, v2", Some("v2")),
        ("/ws", "v1", Some("v1")),
        ("/ws", "v9", None),
        ("/ws?want=v9", "v1, v9", Some("v9")),
        ("/ws?want=v8", "v1, v9", Some("v1")),
    ] {
        let header = format!("Sec-WebSocket-Protocol: {offered}\r\n");
        let (head, socket) = WsClient::try_connect(server.addr, target, &header);
        let line = head.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Protocol: "));
        assert_eq!(line, chosen, "{target} {offered}");
        assert_eq!(server.hub.clients()[0].subprotocol(), chosen);
        socket.close();
        eventually("the client is gone", || server.hub.client_count() == 0);
    }
}

#[test]
fn an_empty_id_is_refused() {
    let (metrics, builder) = common::counted(named(Hub::builder()));
    let server = TestServer::new(builder);
    let (head, _) = WsClient::try_connect(server.addr, "/ws?user=", "");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(common::errors(&metrics, ErrorType::ConnectionRejected), 1);
    let (_socket, client) = server.pair_to("/ws?user=ann");
    assert_eq!(client.set_user(""), Err(UserError::EmptyId));
    assert_eq!((client.user_id().as_deref(), server.hub.user_count()), (Some("ann"), 1));
    client.clear_user().unwrap();
    assert_eq!((client.user_id(), server.hub.user_count()), (None, 0));
}

#[test]
fn a_longer_id_than_allowed_is_refused() {
    let (metrics, builder) = common::counted(named(Hub::builder()));
    let server = TestServer::new(builder);
    let (longest, long) = ("é".repeat(MAX_USER_ID / 2), "x".repeat(MAX_USER_ID + 1));
    let (head, _) = WsClient::try_connect(server.addr, &format!("/ws?user={long}"), "");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(common::errors(&metrics, ErrorType::ConnectionRejected), 1);
    let (_socket, client) = server.pair_to("/ws?user=ann");
    assert_eq!(client.set_user(&long), Err(UserError::IdTooLong));
    assert_eq!((client.user_id().as_deref(), server.hub.user_count()), (Some("ann"), 1));
    client.set_user(&longest).unwrap();
    assert_eq!(client.user_id().as_deref(), Some(&*longest));
}

#[test]
fn one_client_of_a_user_is_found() {
    let server = TestServer::new(Hub::builder());
    let (_socket, client) = server.pair();
    assert_eq!(server.hub.user_client("ann"), None);
    client.set_user("ann").unwrap();
    assert_eq!(server.hub.user_client("ann"), Some(client));
}
