//! Races: joins against last leaves, users that connect and disconnect, connects against the end of the hub. Debug
//! builds also check the order of locks.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use common::{KEY, Link, PATIENCE, Random, TestServer, WsClient, accept, eventually};
use wshub::{
    Admission, Client, Config, Hub, Limits, RequestHead, RoomError, Target, UserError, metrics::DebugMetrics,
    server::AcceptError,
};

/// Threads that race; more than this machine's processors, so that they are also interrupted in bad places.
const THREADS: usize = 4;

/// Clients that are not read answer no pings: a slow processor must not take them for dead.
fn patient() -> Config {
    Config::default().ping_period(PATIENCE * 10).pong_timeout(PATIENCE * 20)
}

/// A million joins and leaves in few rooms that keep emptying. Each thread moves clients of its own, so it knows where
/// they must be.
#[test]
fn a_join_never_lands_in_a_room_that_a_last_leave_removes() {
    const ROUNDS: usize = 500;
    const TRIALS: usize = 500;
    const ROOMS: [&str; 3] = ["a", "b", "c"];
    let metrics = Arc::new(DebugMetrics::new());
    let hub = Hub::builder().config(patient()).metrics(metrics.clone()).build().unwrap();
    let mut clients: Vec<(WsClient, Client)> = (0..THREADS * 2).map(|_| accept(&hub, Link::Unix, "/")).collect();
    let handles: Vec<Client> = clients.iter().map(|c| c.1.clone()).collect();
    let expected: Vec<Mutex<BTreeSet<&str>>> = handles.iter().map(|_| Mutex::default()).collect();
    for round in 0..ROUNDS {
        thread::scope(|scope| {
            for (number, own) in handles.chunks(2).enumerate() {
                let expected = &expected;
                scope.spawn(move || {
                    let mut random = Random::new((round * THREADS + number) as u64);
                    for _ in 0..TRIALS {
                        let which = random.below(own.len());
                        let mut rooms = expected[number * 2 + which].lock().unwrap();
                        toggle(&own[which], ROOMS[random.below(ROOMS.len())], &mut rooms);
                    }
                });
            }
        });
        check_rooms(&hub, &ROOMS, &mut clients, &expected, &round.to_string());
    }
    handles.iter().for_each(|client| hub.leave_all(client));
    assert_eq!((hub.rooms().len(), metrics.stats().active_rooms), (0, 0));
    assert_eq!(metrics.stats().room_joins, metrics.stats().room_leaves);
    drop(clients);
    hub.shutdown(PATIENCE).unwrap();
}

/// Holds every list against where the clients must be, and sends to every room.
fn check_rooms(
    hub: &Hub,
    rooms: &[&str],
    clients: &mut [(WsClient, Client)],
    expected: &[Mutex<BTreeSet<&str>>],
    text: &str,
) {
    for room in rooms {
        let is_in = |at: &usize| expected[*at].lock().unwrap().contains(room);
        let members: Vec<usize> = (0..clients.len()).filter(is_in).collect();
        let listed: BTreeSet<_> = hub.room_clients(room).iter().map(Client::id).collect();
        assert_eq!(listed, members.iter().map(|at| clients[*at].1.id()).collect(), "room {room}");
        assert_eq!(hub.room_exists(room), !members.is_empty());
        let delivery = hub.send(Target::room(*room), format!("{room} {text}")).unwrap();
        assert_eq!(delivery.queued, members.len());
        members.iter().for_each(|at| assert_eq!(clients[*at].0.text(), format!("{room} {text}")));
    }
    for ((_, client), rooms) in clients.iter().zip(expected) {
        assert_eq!(client.rooms().iter().map(|r| &**r).collect::<BTreeSet<_>>(), *rooms.lock().unwrap());
    }
}

/// Joins or leaves, and what is the other way round is refused.
fn toggle<'a>(client: &Client, room: &'a str, rooms: &mut BTreeSet<&'a str>) {
    if rooms.remove(room) {
        client.leave(room).unwrap();
        assert!(matches!(client.leave(room), Err(RoomError::NotJoined | RoomError::NotFound)));
    } else {
        client.join(room).unwrap();
        assert!(matches!(client.join(room), Err(RoomError::AlreadyJoined)));
        rooms.insert(room);
    }
}

/// Disconnects take members out of rooms that others join.
#[test]
fn disconnects_leave_no_member_behind() {
    let server = TestServer::new(Hub::builder().on_upgrade(|_| Ok(Admission::anonymous().room("a").room("b"))));
    let (mut stays, resident) = accept(&server.hub, Link::Unix, "/");
    resident.leave("b").unwrap();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let server = &server;
            scope.spawn(move || {
                for n in 0..100 {
                    let client = server.connect();
                    if (number + n) % 2 == 0 { client.close() } else { drop(client) }
                }
            });
        }
    });
    eventually("only the resident is left", || server.hub.client_count() == 1);
    let rooms = server.hub.rooms();
    assert_eq!((rooms.len(), &*rooms[0].name, rooms[0].clients), (1, "a", 1));
    assert_eq!(server.hub.room_clients("a"), [resident]);
    assert_eq!(server.hub.send(Target::room("a"), "hello").unwrap().queued, 1);
    assert_eq!(stays.text(), "hello");
}

/// What the online and offline hooks have said of each user, and whether two of one user have ever overlapped.
#[derive(Default)]
struct Presence {
    log: Mutex<HashMap<String, Vec<bool>>>,
    inside: Mutex<HashMap<String, usize>>,
    has_overlapped: AtomicBool,
}

impl Presence {
    fn note(&self, user: &str, is_online: bool) {
        let enter = |n: usize| {
            let mut inside = self.inside.lock().unwrap();
            let count = inside.entry(user.to_owned()).or_default();
            *count = *count + n - 1;
            *count > 1
        };
        if enter(2) {
            self.has_overlapped.store(true, Ordering::SeqCst);
        }
        thread::yield_now();
        self.log.lock().unwrap().entry(user.to_owned()).or_default().push(is_online);
        enter(0);
    }

    /// Online and offline in turn, beginning with online.
    fn check(&self) {
        assert!(!self.has_overlapped.load(Ordering::SeqCst), "two hooks of one user at a time");
        for (user, log) in &*self.log.lock().unwrap() {
            let alternates = log.iter().enumerate().all(|(n, is_online)| *is_online == (n % 2 == 0));
            assert!(alternates, "{user}: {log:?}");
        }
    }

    fn is_online(&self, user: &str) -> bool {
        self.log.lock().unwrap().get(user).and_then(|log| log.last().copied()).unwrap_or(false)
    }
}

fn watched(presence: &Arc<Presence>) -> wshub::HubBuilder {
    let (on, off) = (Arc::clone(presence), Arc::clone(presence));
    Hub::builder()
        .on_user_online(move |_, user| on.note(user, true))
        .on_user_offline(move |_, user| off.note(user, false))
}

/// A client can be found, and its user set, before the user that it brings is known.
#[test]
fn a_user_that_is_set_during_registration_is_not_left_behind() {
    let hub = Hub::builder().config(patient()).on_upgrade(|_| Ok(Admission::user("ann"))).build().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = None;
            while !is_over.load(Ordering::SeqCst) {
                // Once each: a second time would put it right again.
                let newest = hub.clients().pop().filter(|client| Some(client.id()) != last);
                let Some(client) = newest else { continue };
                client.set_user("bob").unwrap_or_default();
                last = Some(client.id());
            }
        });
        for _ in 0..5000 {
            assert!(connect_and_leave(&hub));
        }
        is_over.store(true, Ordering::SeqCst);
    });
    eventually("nobody is left", || hub.client_count() == 0);
    assert_eq!((hub.user_count(), hub.is_user_online("bob")), (0, false));
}

#[test]
fn callbacks_that_are_set_at_once_are_all_kept() {
    let hub = Hub::new();
    let (_socket, client) = accept(&hub, Link::Unix, "/");
    let begin = Barrier::new(2);
    // A closure lives while it is a callback of the client; its mark tells.
    let keep = |set: &dyn Fn(Arc<()>)| {
        begin.wait();
        let lost = (0..100_000).filter(|_| {
            let mark = Arc::new(());
            let is_kept = Arc::downgrade(&mark);
            set(mark);
            thread::yield_now();
            is_kept.upgrade().is_none()
        });
        assert_eq!(lost.count(), 0);
    };
    thread::scope(|scope| {
        scope.spawn(|| keep(&|mark| client.on_close(move |_| assert!(Arc::strong_count(&mark) > 0))));
        keep(&|mark| client.on_error(move |_, _| assert!(Arc::strong_count(&mark) > 0)));
    });
}

const USERS: [&str; 3] = ["ann", "bob", "cid"];

#[test]
fn users_come_and_go_once_in_a_storm_of_connections() {
    let presence = Arc::new(Presence::default());
    let server = TestServer::new(
        watched(&presence)
            .on_upgrade(|head| Ok(Admission::user(head.query_param("user").unwrap_or_default())))
            .on_message(|client, message| Ok(client.set_user(message.as_text().unwrap_or_default())?)),
    );
    let last: Vec<WsClient> = thread::scope(|scope| {
        let storm = |number: u64| {
            let server = &server;
            move || {
                let mut random = Random::new(number);
                for _ in 0..150 {
                    let mut client = server.connect_to(&format!("/ws?user={}", USERS[random.below(3)]));
                    if random.below(2) == 0 {
                        client.send_text(USERS[random.below(3)]);
                    }
                    if random.below(2) == 0 {
                        client.close();
                    }
                }
                server.connect_to("/ws?user=ann")
            }
        };
        let threads: Vec<_> = (0..THREADS as u64).map(|n| scope.spawn(storm(n))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    eventually("only the last ones are left", || server.hub.client_count() == last.len());
    eventually("the hooks tell of it", || USERS.map(|u| presence.is_online(u)) == [true, false, false]);
    assert_eq!((server.hub.user_connection_count("ann"), server.hub.user_count()), (last.len(), 1));
    drop(last);
    eventually("nobody is left", || server.hub.client_count() == 0 && !presence.is_online("ann"));
    presence.check();
    assert_eq!(server.hub.user_count(), 0);
}

#[test]
fn users_come_and_go_once_when_connections_change_hands() {
    let presence = Arc::new(Presence::default());
    let hub = watched(&presence).build().unwrap();
    let clients: Vec<(WsClient, Client)> = (0..THREADS).map(|_| accept(&hub, Link::Unix, "/")).collect();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let clients = &clients;
            scope.spawn(move || {
                let mut random = Random::new(number as u64);
                for _ in 0..20_000 {
                    let client = &clients[random.below(clients.len())].1;
                    match random.below(4) {
                        3 => client.clear_user().unwrap(),
                        user => client.set_user(USERS[user]).unwrap(),
                    }
                }
            });
        }
    });
    presence.check();
    let mut users: HashMap<Arc<str>, usize> = HashMap::new();
    clients.iter().filter_map(|c| c.1.user_id()).for_each(|user| *users.entry(user).or_default() += 1);
    for user in USERS {
        let count = users.get(user).copied().unwrap_or(0);
        assert_eq!(hub.user_connection_count(user), count, "{user}");
        assert_eq!(hub.is_user_online(user), count > 0, "{user}");
        // A thread of the hub's may still be at it.
        eventually("the hooks tell of it", || presence.is_online(user) == (count > 0));
    }
    drop(clients);
    eventually("nobody is left", || hub.client_count() == 0);
    eventually("the hooks tell of it", || USERS.iter().all(|user| !presence.is_online(user)));
    presence.check();
}

#[test]
fn the_limit_per_user_holds_against_racing_changes() {
    const LIMIT: usize = 2;
    let hub =
        Hub::builder().config(patient()).limits(Limits::default().max_connections_per_user(LIMIT)).build().unwrap();
    let clients: Vec<(WsClient, Client)> = (0..THREADS).map(|_| accept(&hub, Link::Unix, "/")).collect();
    for _ in 0..2000 {
        let begin = Barrier::new(THREADS);
        let got = AtomicUsize::new(0);
        thread::scope(|scope| {
            for (_, client) in &clients {
                let (begin, got) = (&begin, &got);
                scope.spawn(move || {
                    client.clear_user().unwrap();
                    begin.wait();
                    match client.set_user("ann") {
                        Ok(()) => drop(got.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => assert!(matches!(error, UserError::TooManyConnections), "{error}"),
                    }
                });
            }
        });
        assert_eq!((got.into_inner(), hub.user_connection_count("ann")), (LIMIT, LIMIT));
    }
    // And against connections that bring the user with them.
    clients.iter().for_each(|c| c.1.clear_user().unwrap());
    let server = TestServer::new(
        Hub::builder()
            .limits(Limits::default().max_connections_per_user(LIMIT))
            .on_upgrade(|_| Ok(Admission::user("ann"))),
    );
    let admitted: Vec<WsClient> = thread::scope(|scope| {
        let connect = || {
            let (head, client) = WsClient::try_connect(server.addr, "/ws", "");
            assert!(head.contains(" 101 ") || head.contains(" 429 "), "{head}");
            head.contains(" 101 ").then_some(client)
        };
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(connect)).collect();
        threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
    });
    assert_eq!((admitted.len(), server.hub.user_connection_count("ann")), (LIMIT, LIMIT));
}

/// A connection attempt that breaks off at once if it succeeds; false if it is refused.
fn connect_and_leave(hub: &Hub) -> bool {
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    );
    let (head, _) = RequestHead::parse(request.as_bytes()).unwrap().unwrap();
    drop(far);
    match hub.accept(near, head, &[]).detach() {
        Ok(_) => true,
        Err(AcceptError::Refused(status)) => {
            assert_eq!(status, 503);
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// Who connects while a drain or shutdown begins is either refused or waited for.
#[test]
fn no_client_slips_in_behind_a_drain_or_shutdown() {
    for round in 0..3000 {
        let (is_over, is_late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let builder = Hub::builder().config(Config::default().lame_duck(Duration::ZERO).drain_timeout(Duration::ZERO));
        let look = |late: &Arc<AtomicBool>| {
            let (over, late) = (Arc::clone(&is_over), Arc::clone(late));
            move |_: &Client| late.store(late.load(Ordering::SeqCst) || over.load(Ordering::SeqCst), Ordering::SeqCst)
        };
        let hub = builder.after_connect(look(&is_late)).after_disconnect(look(&is_late)).build().unwrap();
        let begin = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                begin.wait();
                while connect_and_leave(&hub) {}
            });
            begin.wait();
            let result = if round % 2 == 0 { hub.drain(PATIENCE) } else { hub.shutdown(PATIENCE) };
            is_over.store(true, Ordering::SeqCst);
            assert_eq!(hub.client_count(), 0, "round {round}");
            result.unwrap();
        });
        assert_eq!(hub.client_count(), 0, "round {round}");
        assert!(!is_late.load(Ordering::SeqCst), "a hook has run after the end, round {round}");
    }
}
