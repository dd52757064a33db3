//! Rooms: joining and leaving with their checks, hooks and limits, rooms of an admission, and sending to rooms.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Log, TestServer, WsClient, eventually};
use wshub::{
    Admission, ClientId, CloseError, Hub, HubBuilder, Limits, RoomError, SendError, Target, limit::MAX_ROOM_NAME,
    metrics::DebugMetrics,
};

fn sorted(mut names: Vec<Arc<str>>) -> Vec<String> {
    names.sort();
    names.iter().map(ToString::to_string).collect()
}

/// Logs every room hook; `before_room_join` refuses rooms that begin with `closed`.
fn logged(log: &Log) -> HubBuilder {
    let logs: [Log; 4] = std::array::from_fn(|_| log.clone());
    let [before_join, after_join, before_leave, after_leave] = logs;
    Hub::builder()
        .before_room_join(move |client, room| {
            before_join.add(format!("before_join {room} in={}", client.in_room(room)));
            if room.starts_with("closed") { Err("members only".into()) } else { Ok(()) }
        })
        .after_room_join(move |client, room| after_join.add(format!("after_join {room} in={}", client.in_room(room))))
        .before_room_leave(move |client, room| {
            before_leave.add(format!("before_leave {room} in={}", client.in_room(room)));
        })
        .after_room_leave(move |client, room| {
            after_leave.add(format!("after_leave {room} in={}", client.in_room(room)));
        })
}

/// Upgrades join the rooms that the query names.
fn admitting_rooms(builder: HubBuilder) -> HubBuilder {
    builder.on_upgrade(|head| {
        let rooms = head.query_param("rooms").unwrap_or_default();
        let names = rooms.split(',').filter(|_| head.query().is_some());
        Ok(names.fold(Admission::anonymous(), Admission::room))
    })
}

fn status(server: &TestServer, target: &str) -> String {
    let (head, _) = WsClient::try_connect(server.addr, target, "");
    head.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn rooms_come_with_the_first_member_and_go_with_the_last() {
    let server = TestServer::new(Hub::builder());
    let hub = &server.hub;
    let (_a, ann) = server.pair();
    let (_b, bob) = server.pair();
    assert!(!hub.room_exists("x") && hub.room_names().is_empty());
    assert_eq!((hub.room_size("x"), hub.room_clients("x").len()), (0, 0));

    ann.join("x").unwrap();
    hub.join(&bob, "x").unwrap();
    bob.join("y").unwrap();
    assert_eq!(sorted(hub.room_names()), ["x", "y"]);
    assert_eq!((hub.room_size("x"), hub.room_size("y")), (2, 1));
    assert!(hub.room_clients("x").contains(&ann) && hub.room_clients("x").contains(&bob));
    let mut rooms = hub.rooms();
    rooms.sort_by(|a, b| a.name.cmp(&b.name));
    let counts: Vec<_> = rooms.iter().map(|room| (&*room.name, room.clients)).collect();
    assert_eq!((counts, hub.room_count()), (vec![("x", 2), ("y", 1)], 2));
    assert_eq!((sorted(bob.rooms()), bob.room_count()), (vec!["x".to_owned(), "y".to_owned()], 2));
    assert!(ann.in_room("x") && !ann.in_room("y"));

    ann.leave("x").unwrap();
    assert!(!ann.in_room("x") && hub.room_exists("x"));
    hub.leave_all(&bob);
    assert!(!hub.room_exists("x") && !hub.room_exists("y"));
    assert_eq!((hub.rooms().len(), hub.room_count(), bob.room_count()), (0, 0, 0));
    hub.leave_all(&bob);
}

#[test]
fn names_have_up_to_256_bytes() {
    let server = TestServer::new(Hub::builder());
    let (_socket, client) = server.pair();
    assert_eq!(MAX_ROOM_NAME, 256);
    let longest = "é".repeat(128);
    client.join(&longest).unwrap();
    assert_eq!(server.hub.room_size(&longest), 1);
    assert!(matches!(client.join(&format!("{longest}x")), Err(RoomError::NameTooLong)));
    client.leave(&longest).unwrap();
}

#[test]
fn the_checks_of_a_join_come_in_their_order() {
    let log = Log::default();
    let limits = Limits::default().max_clients_per_room(1).max_rooms_per_client(1);
    let server = TestServer::new(logged(&log).limits(limits));
    let (_a, ann) = server.pair();
    let (_b, bob) = server.pair();
    let (c, gone) = server.pair();
    c.close();
    eventually("the client is gone", || gone.closed_at().is_some());
    ann.join("x").unwrap();
    bob.join("y").unwrap();
    log.take();

    // Each line fails several checks; the first one tells.
    assert!(matches!(gone.join(""), Err(RoomError::EmptyName)));
    assert!(matches!(gone.join(&"x".repeat(257)), Err(RoomError::NameTooLong)));
    assert!(matches!(gone.join("closed"), Err(RoomError::ClientNotFound)));
    assert_eq!(log.take(), [""; 0], "no hook before these checks");
    assert!(matches!(ann.join("closed"), Err(RoomError::Refused(why)) if why.to_string() == "members only"));
    assert!(matches!(ann.join("x"), Err(RoomError::Full)), "full comes before already joined");
    assert!(matches!(ann.join("y"), Err(RoomError::Full)), "full comes before too many rooms");
    assert!(matches!(ann.join("z"), Err(RoomError::TooManyRooms)));
    assert_eq!(
        log.take(),
        ["before_join closed in=false", "before_join x in=true", "before_join y in=false", "before_join z in=false"]
    );
    assert!(!server.hub.room_exists("z") && !server.hub.room_exists("closed"));
    assert_eq!((ann.room_count(), server.hub.room_size("x")), (1, 1));
}

#[test]
fn joining_twice_is_an_error_before_too_many_rooms() {
    let server = TestServer::new(Hub::builder().limits(Limits::default().max_rooms_per_client(1)));
    let (_socket, client) = server.pair();
    client.join("x").unwrap();
    assert!(matches!(client.join("x"), Err(RoomError::AlreadyJoined)));
    assert_eq!(server.hub.room_size("x"), 1);
}

#[test]
fn a_client_of_another_hub_is_not_found() {
    let server = TestServer::new(Hub::builder());
    let (_socket, client) = server.pair();
    let other = Hub::new();
    assert!(matches!(other.join(&client, "x"), Err(RoomError::ClientNotFound)));
    assert!(!other.room_exists("x") && !server.hub.room_exists("x"));
}

#[test]
fn the_checks_of_a_leave_come_in_their_order() {
    let log = Log::default();
    let server = TestServer::new(logged(&log));
    let (_a, ann) = server.pair();
    let (_b, bob) = server.pair();
    ann.join("x").unwrap();
    log.take();
    assert!(matches!(bob.leave(""), Err(RoomError::EmptyName)));
    assert!(matches!(bob.leave("nowhere"), Err(RoomError::NotFound)));
    assert!(matches!(bob.leave("x"), Err(RoomError::NotJoined)));
    assert_eq!(log.take(), [""; 0], "no hook for a leave that fails");
    assert_eq!(server.hub.room_size("x"), 1);
}

#[test]
fn hooks_surround_joins_and_leaves() {
    let log = Log::default();
    let server = TestServer::new(logged(&log));
    let (_socket, client) = server.pair();
    client.join("x").unwrap();
    client.leave("x").unwrap();
    assert_eq!(
        log.take(),
        ["before_join x in=false", "after_join x in=true", "before_leave x in=true", "after_leave x in=false"]
    );
}

#[test]
fn a_disconnect_leaves_every_room_with_its_hooks() {
    let log = Log::default();
    let (sink, metrics) = (log.clone(), Arc::new(DebugMetrics::new()));
    let builder = logged(&log).after_disconnect(move |_| sink.add("disconnected")).metrics(metrics.clone());
    let server = TestServer::new(builder);
    let (socket, client) = server.pair();
    for room in ["x", "y", "z"] {
        client.join(room).unwrap();
    }
    log.take();
    socket.close();
    log.wait("disconnected");
    let entries = log.all();
    assert_eq!((entries.len(), entries.last().map(String::as_str)), (7, Some("disconnected")));
    for room in ["x", "y", "z"] {
        let at = |what: &str| entries.iter().position(|e| *e == format!("{what} {room} in={}", what == "before_leave"));
        assert!(at("before_leave").unwrap() < at("after_leave").unwrap(), "{entries:?}");
    }
    assert!(server.hub.room_names().is_empty() && client.rooms().is_empty());
    let stats = metrics.stats();
    assert_eq!((stats.room_joins, stats.room_leaves, stats.active_rooms), (3, 3, 0));
}

#[test]
fn a_room_limit_frees_its_place() {
    let server = TestServer::new(Hub::builder().limits(Limits::default().max_clients_per_room(2)));
    let pairs: Vec<_> = (0..3).map(|_| server.pair()).collect();
    pairs[0].1.join("x").unwrap();
    pairs[1].1.join("x").unwrap();
    assert!(matches!(pairs[2].1.join("x"), Err(RoomError::Full)));
    pairs[0].1.leave("x").unwrap();
    pairs[2].1.join("x").unwrap();
    assert_eq!(server.hub.room_size("x"), 2);
}

#[test]
fn rooms_of_an_admission_are_joined_before_the_client_knows() {
    let log = Log::default();
    let sink = log.clone();
    let builder =
        admitting_rooms(logged(&log)).after_connect(move |c| sink.add(format!("connected {}", c.room_count())));
    let server = TestServer::new(builder);
    for _ in 0..20 {
        let mut socket = server.connect_to("/ws?rooms=x,y");
        // The 101 has just come: whoever sends now must reach this client.
        assert_eq!(server.hub.send(Target::room("x"), "hi").unwrap().queued, 1);
        assert_eq!(socket.text(), "hi");
        assert_eq!(server.hub.room_size("y"), 1);
        log.wait("after_join y in=true");
        assert_eq!(
            log.take(),
            [
                "before_join x in=false",
                "before_join y in=false",
                "connected 2",
                "after_join x in=true",
                "after_join y in=true"
            ]
        );
        socket.close();
        eventually("the rooms are empty", || server.hub.client_count() == 0);
        log.take();
    }
}

#[test]
fn a_room_named_twice_by_an_admission_is_joined_once() {
    let log = Log::default();
    let metrics = Arc::new(DebugMetrics::new());
    let limits = Limits::default().max_clients_per_room(1);
    let server = TestServer::new(admitting_rooms(logged(&log)).metrics(metrics.clone()).limits(limits));
    let mut socket = server.connect_to("/ws?rooms=x,x");
    socket.sync();
    assert_eq!(log.all(), ["before_join x in=false", "after_join x in=true"]);
    assert_eq!(metrics.stats().room_joins, 1);
}

#[test]
fn an_admission_that_cannot_join_is_refused_and_leaves_nothing() {
    let log = Log::default();
    let metrics = Arc::new(DebugMetrics::new());
    let limits = Limits::default().max_clients_per_room(1).max_rooms_per_client(2);
    let server = TestServer::new(admitting_rooms(logged(&log)).limits(limits).metrics(metrics.clone()));
    let _first = server.connect_to("/ws?rooms=x");
    log.wait("after_join x in=true");
    log.take();
    for (rooms, expected) in [
        ("x", "503"),
        ("a,x", "503"),
        ("a,b,c", "503"),
        ("a,closed", "403"),
        ("a,", "400"),
        (&*format!("a,{}", "r".repeat(257)), "400"),
    ] {
        assert_eq!(status(&server, &format!("/ws?rooms={rooms}")), expected, "{rooms}");
        assert_eq!(server.hub.client_count(), 1, "{rooms}");
        assert_eq!(sorted(server.hub.room_names()), ["x"], "{rooms}");
    }
    let hooks = log.take();
    assert!(hooks.iter().all(|e| e.starts_with("before_join")), "the refused never joined or left: {hooks:?}");
    let stats = metrics.stats();
    assert_eq!((stats.room_joins, stats.room_leaves, stats.active_rooms), (1, 0, 1));
    assert_eq!((stats.active_connections, stats.total_connections), (1, 1));
    let _second = server.connect_to("/ws?rooms=a,b");
}

/// Four clients: two in `x`, one of them and another in `y`, one in none.
struct Crowd {
    /// Dropped before the server, which would wait for their close frames.
    sockets: Vec<WsClient>,
    server: TestServer,
    ids: Vec<ClientId>,
}

impl Crowd {
    fn new() -> Self {
        let server = TestServer::new(Hub::builder());
        let (sockets, clients): (Vec<_>, Vec<_>) = (0..4).map(|_| server.pair()).unzip();
        for (at, room) in [(0, "x"), (1, "x"), (1, "y"), (2, "y")] {
            clients[at].join(room).unwrap();
        }
        let ids = clients.iter().map(wshub::Client::id).collect();
        Self { sockets, server, ids }
    }

    /// Sends and says how many copies each client got.
    fn copies(&mut self, target: Target<'_>) -> [usize; 4] {
        let delivery = self.server.hub.send(target, "m").unwrap();
        self.server.hub.send(Target::all(), "end").unwrap();
        let copies: Vec<usize> = self.sockets.iter_mut().map(|s| s.texts_until_end().len()).collect();
        assert_eq!((delivery.queued, delivery.dropped), (copies.iter().sum(), 0));
        copies.try_into().unwrap()
    }
}

#[test]
fn targets_reach_each_connection_once() {
    let mut crowd = Crowd::new();
    let id = crowd.ids.clone();
    assert_eq!(crowd.copies(Target::all()), [1, 1, 1, 1]);
    assert_eq!(crowd.copies(Target::room("x")), [1, 1, 0, 0]);
    assert_eq!(crowd.copies(Target::room("nowhere")), [0, 0, 0, 0]);
    assert_eq!(crowd.copies(Target::rooms(["x", "y"])), [1, 1, 1, 0]);
    assert_eq!(crowd.copies(Target::rooms(["y", "nowhere"])), [0, 1, 1, 0]);
    assert_eq!(crowd.copies(Target::rooms([""; 0])), [0, 0, 0, 0]);
    assert_eq!(crowd.copies(Target::client(id[3])), [0, 0, 0, 1]);
    assert_eq!(crowd.copies(id[3].into()), [0, 0, 0, 1]);
    assert_eq!(crowd.copies(Target::clients([id[3], id[3], id[0]])), [1, 0, 0, 1]);
    assert_eq!(crowd.copies(Target::room("x").and(Target::room("y")).and(Target::client(id[1]))), [1, 1, 1, 0]);
    assert_eq!(crowd.copies(Target::all().and(Target::room("x"))), [1, 1, 1, 1]);
}

#[test]
fn targets_come_from_clients_and_from_lists() {
    let mut crowd = Crowd::new();
    let hub = crowd.server.hub.clone();
    let (last, everyone, rooms) = (hub.client(crowd.ids[3]).unwrap(), hub.clients(), hub.rooms());
    assert_eq!(crowd.copies((&last).into()), [0, 0, 0, 1]);
    assert_eq!(crowd.copies(Target::clients(&everyone).except(&last)), [1, 1, 1, 0]);
    assert_eq!(
        crowd.copies(Target::all().except_all(everyone.into_iter().filter(|client| *client != last))),
        [0, 0, 0, 1]
    );
    assert_eq!(crowd.copies(Target::rooms(&rooms)), [1, 1, 1, 0]);
    assert_eq!(crowd.copies(Target::rooms(hub.room_names())), [1, 1, 1, 0]);
    let x = rooms.iter().find(|room| &*room.name == "x").unwrap();
    assert_eq!((crowd.copies(x.into()), x.clients), ([1, 1, 0, 0], 2));
    let names = serde_json::to_string(&last.rooms()).unwrap();
    assert_eq!((names.as_str(), serde_json::to_value(x).unwrap()["name"].as_str()), ("[]", Some("x")));
}

#[test]
fn exceptions_hold_for_the_whole_target() {
    let mut crowd = Crowd::new();
    let id = crowd.ids.clone();
    assert_eq!(crowd.copies(Target::all().except(id[0])), [0, 1, 1, 1]);
    assert_eq!(crowd.copies(Target::all().except_all([id[0], id[3]])), [0, 1, 1, 0]);
    assert_eq!(crowd.copies(Target::room("x").except(id[1]).and(Target::room("y"))), [1, 0, 1, 0]);
    assert_eq!(crowd.copies(Target::room("x").except(id[3])), [1, 1, 0, 0]);
    assert_eq!(crowd.copies(Target::client(id[2]).except(id[2])), [0, 0, 0, 0]);
}

#[test]
fn a_target_is_closed_but_for_its_exceptions() {
    let mut crowd = Crowd::new();
    let (hub, id) = (crowd.server.hub.clone(), crowd.ids.clone());
    assert!(matches!(hub.close(Target::all(), 1005, ""), Err(CloseError::InvalidCode(1005))));
    assert!(matches!(hub.close(Target::all(), 4000, &"x".repeat(124)), Err(CloseError::ReasonTooLong(124))));
    assert_eq!(hub.close(Target::room("nowhere"), 4000, ""), Ok(0));
    assert_eq!(crowd.copies(Target::all()), [1, 1, 1, 1], "all are open");
    let union = Target::room("x").and(Target::rooms(["y"])).except(id[2]);
    assert_eq!(hub.close(union.clone(), 4000, "moved"), Ok(2), "the client in both rooms counts once");
    for socket in &mut crowd.sockets[..2] {
        assert_eq!(socket.expect_close(), (4000, "moved".into()));
    }
    eventually("two are left", || hub.client_count() == 2);
    assert_eq!(hub.close(union, 4000, "again"), Ok(0));
    assert_eq!(hub.close(id[3], 4001, ""), Ok(1));
    assert_eq!(crowd.sockets[3].expect_close(), (4001, String::new()));
    assert!(!hub.client(id[2]).unwrap().is_closed(), "the exception stays");
}

#[test]
fn one_unknown_client_is_an_error_that_returns_the_message() {
    let mut crowd = Crowd::new();
    let gone = crowd.ids[3];
    crowd.sockets.pop().unwrap().close();
    eventually("the client is gone", || crowd.server.hub.client(gone).is_none());
    let error = crowd.server.hub.send(Target::client(gone), "precious").unwrap_err();
    assert!(matches!(error, SendError::ClientNotFound(_)));
    assert_eq!(error.into_message().as_text(), Some("precious"));
    let delivery = crowd.server.hub.send(Target::clients([gone, crowd.ids[0]]), "m").unwrap();
    assert_eq!(delivery.queued, 1, "in a union the missing are passed over");
    assert_eq!(crowd.sockets[0].text(), "m");
}

#[test]
fn a_broadcast_follows_every_join_and_leave() {
    let server = TestServer::new(Hub::builder());
    let (mut a, ann) = server.pair();
    let (mut b, bob) = server.pair();
    let send = |text: &str| server.hub.send(Target::room("x"), text).unwrap().queued;
    ann.join("x").unwrap();
    assert_eq!(send("1"), 1);
    bob.join("x").unwrap();
    assert_eq!(send("2"), 2);
    ann.leave("x").unwrap();
    assert_eq!(send("3"), 1);
    bob.leave("x").unwrap();
    assert_eq!(send("4"), 0);
    server.hub.send(Target::all(), "end").unwrap();
    assert_eq!((a.texts_until_end().join(""), b.texts_until_end().join("")), ("12".into(), "23".into()));
}

/// The connection ends while another thread runs the hook of its join: that thread reports the leave, and the hook
/// finds what the program has stored on the client. Afterwards it is let go.
#[test]
fn a_leave_that_is_told_late_finds_the_clients_values() {
    let (go, gone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (log, value) = (Log::default(), Arc::new(()));
    let (may_go, is_gone, leaves) = (Arc::clone(&go), Arc::clone(&gone), log.clone());
    let builder = Hub::builder()
        .after_room_join(move |_, _| eventually("the connection is over", || may_go.load(Ordering::SeqCst)))
        .after_room_leave(move |client, room| {
            leaves.add(format!("left {room}, value {}", client.metadata::<Arc<()>>("value").is_some()));
        })
        .after_disconnect(move |_| is_gone.store(true, Ordering::SeqCst));
    let server = TestServer::new(builder);
    let (socket, client) = server.pair();
    client.set_metadata("value", Arc::clone(&value));
    std::thread::scope(|scope| {
        scope.spawn(|| client.join("x").unwrap());
        eventually("it is in the room", || client.in_room("x"));
        socket.close();
        eventually("its last hook has run", || gone.load(Ordering::SeqCst));
        go.store(true, Ordering::SeqCst);
    });
    log.wait("left x, value true");
    eventually("the value is let go", || Arc::strong_count(&value) == 1);
}
