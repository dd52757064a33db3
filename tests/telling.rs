//! Hooks report states: each join comes before its leave and each leave after its join, whichever threads cause them
//! and however they race. The same holds for users and devices. No connection's thread runs hooks for changes that
//! others cause.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use common::{KEY, Link, Log, PATIENCE, Random, TestServer, WsClient, accept, eventually, status, upgrade_request};
use wshub::{Admission, Client, Hub, HubBuilder};

/// What room hooks have said of each client and room.
#[derive(Default)]
struct Told {
    /// True for a join.
    log: Mutex<HashMap<(String, String), Vec<bool>>>,
    joins: AtomicUsize,
}

impl Told {
    fn watch(self: &Arc<Self>, builder: HubBuilder) -> HubBuilder {
        let (join, leave) = (Arc::clone(self), Arc::clone(self));
        builder
            .after_room_join(move |client, room| join.note(client, room, true))
            .after_room_leave(move |client, room| leave.note(client, room, false))
    }

    fn note(&self, client: &Client, room: &str, is_join: bool) {
        self.joins.fetch_add(usize::from(is_join), Ordering::SeqCst);
        // A hook that takes a moment invites the others to overtake it.
        thread::yield_now();
        self.log.lock().unwrap().entry((client.id().to_string(), room.into())).or_default().push(is_join);
    }

    fn are_all_out(&self) -> bool {
        self.log.lock().unwrap().values().all(|log| log.last() == Some(&false))
    }

    fn check(&self) {
        for (key, log) in &*self.log.lock().unwrap() {
            let alternates = log.iter().enumerate().all(|(at, is_join)| *is_join == (at % 2 == 0));
            assert!(alternates, "{key:?}: {log:?}");
        }
    }
}

#[test]
fn a_join_from_another_thread_is_told_before_the_leave_of_a_client_that_goes() {
    let told = Arc::new(Told::default());
    let (metrics, builder) = common::counted(told.watch(Hub::builder()));
    let server = TestServer::new(builder);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..2 {
            let (hub, is_over) = (&server.hub, &is_over);
            scope.spawn(move || {
                let mut random = Random::new(number);
                while !is_over.load(Ordering::SeqCst) {
                    for client in hub.clients() {
                        let room = ["a", "b"][random.below(2)];
                        if random.below(3) == 0 {
                            client.leave(room).err()
                        } else {
                            client.join(room).err()
                        };
                    }
                }
            });
        }
        for _ in 0..400 {
            let mut client = server.connect();
            client.sync();
            drop(client);
        }
        is_over.store(true, Ordering::SeqCst);
    });
    eventually("nobody is left", || server.hub.client_count() == 0 && told.are_all_out());
    server.hub.drain(PATIENCE).unwrap();
    told.check();
    assert!(told.joins.load(Ordering::SeqCst) > 100, "the race took place");
    let stats = metrics.stats();
    assert_eq!((stats.room_joins, stats.room_joins), (stats.room_leaves, told.joins.load(Ordering::SeqCst) as u64));
}

#[test]
fn a_room_of_the_admission_that_after_connect_leaves_is_never_told() {
    let log = Log::default();
    let (join, leave) = (log.clone(), log.clone());
    let (metrics, builder) = common::counted(Hub::builder());
    let builder = builder
        .on_upgrade(|_| Ok(Admission::anonymous().room("left").room("back").room("kept")))
        .after_connect(|client| {
            client.leave("left").unwrap();
            client.leave("back").unwrap();
            client.join("back").unwrap();
        })
        .after_room_join(move |_, room| join.add(format!("+{room}")))
        .after_room_leave(move |_, room| leave.add(format!("-{room}")));
    let server = TestServer::new(builder);
    let mut socket = server.connect();
    socket.sync();
    assert_eq!(log.take(), ["+back", "+kept"]);
    socket.close();
    eventually("the client is gone", || server.hub.client_count() == 0);
    assert_eq!(log.take(), ["-back", "-kept"]);
    assert_eq!((metrics.stats().room_joins, metrics.stats().room_leaves), (2, 2));
}

#[test]
fn a_refused_upgrade_leaves_no_join_without_its_leave() {
    let log = Log::default();
    let [before, join, leave, online, offline] = std::array::from_fn(|_| log.clone());
    let (metrics, builder) = common::counted(Hub::builder());
    let builder = builder
        .on_upgrade(|_| Ok(Admission::user("ann").room("hall").room("closed")))
        .before_room_join(move |client, room| {
            before.add(format!("?{room}"));
            if room == "closed" {
                // What any thread may do that finds the client in the hub's list.
                client.join("extra").unwrap();
                client.set_user("bob").unwrap();
                return Err("closed".into());
            }
            Ok(())
        })
        .after_room_join(move |_, room| join.add(format!("+{room}")))
        .after_room_leave(move |_, room| leave.add(format!("-{room}")))
        .on_user_online(move |_, user| online.add(format!("+{user}")))
        .on_user_offline(move |_, user| offline.add(format!("-{user}")));
    let server = TestServer::new(builder);
    let answer = common::exchange(server.addr, upgrade_request("GET /ws HTTP/1.1", &[]).as_bytes());
    assert_eq!(status(&answer), 403);
    eventually("the client is gone", || server.hub.client_count() == 0 && log.has("-extra"));
    assert_eq!(log.take(), ["?hall", "?closed", "?extra", "+extra", "+bob", "-bob", "-extra"]);
    assert_eq!((metrics.stats().room_joins, metrics.stats().room_leaves), (1, 1));
    assert_eq!((server.hub.rooms().len(), server.hub.user_count()), (0, 0));
}

/// A hook that blocks until it is opened, and tells how many wait in it.
#[derive(Default)]
struct Barrier(Mutex<(bool, usize)>, Condvar);

impl Barrier {
    fn wait(&self) {
        let mut state = self.0.lock().unwrap();
        state.1 += 1;
        while !state.0 {
            let (next, timeout) = self.1.wait_timeout(state, PATIENCE).unwrap();
            assert!(!timeout.timed_out(), "nobody opened it");
            state = next;
        }
    }

    fn open(&self) {
        self.0.lock().unwrap().0 = true;
        self.1.notify_all();
    }

    fn waiting(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

#[test]
fn flaps_of_a_user_cost_one_pending_state_and_nobodys_thread() {
    let (log, barrier) = (Log::default(), Arc::new(Barrier::default()));
    let (online, offline, gate) = (log.clone(), log.clone(), Arc::clone(&barrier));
    let builder = Hub::builder()
        .on_message(|client, message| {
            client.set_user(message.as_text().unwrap_or_default())?;
            client.send("done")?;
            Ok(())
        })
        .on_user_online(move |_, user| {
            online.add(format!("+{user} {:?}", thread::current().name()));
            if online.all().len() == 1 {
                gate.wait();
            }
        })
        .on_user_offline(move |_, user| offline.add(format!("-{user} {:?}", thread::current().name())));
    let server = TestServer::new(builder);
    let mut first = server.connect();
    let (mut second, flapping) = server.pair();
    first.send_text("ann");
    eventually("the hook runs", || barrier.waiting() == 1);
    // The first connection's thread is in the hook of ann's coming. The second one is ann, too, again and again.
    first.send_text("nobody");
    for _ in 0..400 {
        flapping.set_user("ann").unwrap();
        flapping.clear_user().unwrap();
    }
    second.send_text("eve");
    assert_eq!(second.text(), "done", "who flaps waits for nobody");
    barrier.open();
    assert_eq!([first.text(), first.text()], ["done", "done"]);
    eventually("all is told", || log.all().iter().any(|entry| entry.starts_with("-ann")));
    let told: Vec<String> = log.all().into_iter().filter(|entry| entry.contains("ann")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn what_others_cause_while_a_hook_runs_is_told_by_a_thread_of_its_own() {
    let (log, barrier) = (Log::default(), Arc::new(Barrier::default()));
    let (join, leave, gate) = (log.clone(), log.clone(), Arc::clone(&barrier));
    let builder = Hub::builder()
        .after_room_join(move |_, room| {
            join.add(format!("+{room} {}", thread::current().name().unwrap()));
            gate.wait();
        })
        .after_room_leave(move |_, room| {
            leave.add(format!("-{room} {}", thread::current().name().unwrap()));
            assert_ne!(room, "panics", "one hook's panic does not keep others from being told");
        });
    let hub = builder.build().unwrap();
    for room in ["a", "panics"] {
        let (_socket, client) = accept(&hub, Link::Unix, "/");
        thread::scope(|scope| {
            let before = barrier.waiting();
            let inside = thread::Builder::new().name("joins".into());
            inside.spawn_scoped(scope, || client.join(room).unwrap()).unwrap();
            eventually("the hook runs", || barrier.waiting() > before);
            // Returns although the other thread is in the hook.
            client.leave(room).unwrap();
            barrier.open();
        });
        // A drain waits for the thread that still tells.
        log.wait(&format!("-{room} wshub-hooks"));
        assert_eq!(log.take(), [format!("+{room} joins"), format!("-{room} wshub-hooks")]);
        barrier.0.lock().unwrap().0 = false;
    }
    barrier.open();
    hub.shutdown(PATIENCE).unwrap();
    eventually("its threads are gone", || !common::crate_threads().iter().any(|name| name == "wshub-hooks"));
}

#[test]
fn a_hook_may_undo_what_it_is_told() {
    let log = Log::default();
    let (join, leave) = (log.clone(), log.clone());
    let builder = Hub::builder()
        .after_room_join(move |client, room| {
            join.add(format!("+{room}"));
            client.leave(room).unwrap();
        })
        .after_room_leave(move |client, room| {
            leave.add(format!("-{room}"));
            if leave.all().len() < 6 {
                client.join(room).unwrap();
            }
        });
    let hub = builder.build().unwrap();
    let (_socket, client) = accept(&hub, Link::Unix, "/");
    client.join("a").unwrap();
    eventually("all is told", || log.all().len() == 6);
    assert_eq!(log.all(), ["+a", "-a", "+a", "-a", "+a", "-a"]);
    drop(client);
    hub.shutdown(PATIENCE).unwrap();
}

/// The server moves clients between rooms while they go: nobody stays as a ghost in what the others are told.
#[test]
fn members_of_binary_rooms_are_told_no_ghosts() {
    use wshub::protocol::binary::{BinaryRooms, Claims, Frame, ROOT};
    let rooms = BinaryRooms::new(|_| Ok(Claims::from([("user".into(), "ann".into())])));
    let server = TestServer::new(rooms.install(Hub::builder()));
    let mut watcher = server.connect();
    let own = server.hub.clients()[0].clone();
    own.join("lobby").unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..2 {
            let (hub, is_over, own) = (&server.hub, &is_over, &own);
            scope.spawn(move || {
                let mut random = Random::new(number);
                while !is_over.load(Ordering::SeqCst) {
                    for client in hub.clients().iter().filter(|client| *client != own) {
                        if random.below(2) == 0 {
                            client.leave("lobby").err()
                        } else {
                            client.join("lobby").err()
                        };
                    }
                    thread::yield_now();
                }
            });
        }
        let connect = || WsClient::try_connect(server.addr, "/ws", &format!("X-Key: {KEY}\r\n")).1;
        for round in 0..200 {
            drop(connect());
            // The watcher leaves and comes back: its list is made while others come and go.
            if round % 10 == 0 {
                own.leave("lobby").unwrap();
                own.join("lobby").unwrap();
            }
        }
        is_over.store(true, Ordering::SeqCst);
    });
    eventually("the others are gone", || server.hub.client_count() == 1);
    // A leave that another thread caused may be told after the end of its connection.
    // A thread that has just been started does not have its name yet, so one look does not suffice.
    let quiet_looks = std::cell::Cell::new(0);
    eventually("all is told", || {
        let is_quiet = !common::crate_threads().iter().any(|name| name.contains("hooks"));
        quiet_looks.set(if is_quiet { quiet_looks.get() + 1 } else { 0 });
        quiet_looks.get() > 20
    });
    server.hub.send(own.id(), Frame::new(ROOT, "end", "", "", "")).unwrap();
    let mut known: HashMap<String, Vec<String>> = HashMap::new();
    loop {
        let message = Frame::decode(watcher.frame().payload.as_slice()).unwrap();
        let payload = String::from_utf8(message.payload.to_vec()).unwrap();
        let members = known.entry(message.room.clone()).or_default();
        match message.event.as_str() {
            "end" => break,
            "join_ack" => *members = serde_json::from_str(&payload).unwrap(),
            "leave_ack" => members.clear(),
            "new_member" if !members.contains(&payload) => members.push(payload),
            "member_left" => members.retain(|id| *id != payload),
            _ => {}
        }
    }
    assert_eq!(known["lobby"], [own.id().to_string()]);
    assert_eq!(known[ROOT], [own.id().to_string()]);
}
