//! Ended connections release their resources (descriptors, metadata, callbacks, queues), whatever handles the program
//! still holds and whatever other connections are doing. The tests count descriptors of the process, so they run one
//! after the other.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{PATIENCE, TestServer, WsClient, eventually};
use wshub::{Admission, Client, Config, Hub, HubBuilder, RoomError, SendError, Target};

/// Longer than any test waits: who waits for it fails.
const FOREVER: Duration = Duration::from_secs(3600);

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// After an answer the server has all descriptors of its own.
fn warm_up(server: &TestServer) {
    assert_eq!(common::get(server.addr, "/healthz").0, 200);
}

/// Waits until there are no more descriptors than before.
fn expect_descriptors(before: usize) {
    let deadline = Instant::now() + PATIENCE;
    while descriptors() > before {
        let left =
            || std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        assert!(Instant::now() < deadline, "more than {before} descriptors: {:?}", left().collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn patient() -> HubBuilder {
    Hub::builder().config(Config::default().close_timeout(FOREVER))
}

/// A server with a client whose close began on another thread and is never answered.
fn with_silent_peer(builder: HubBuilder) -> (TestServer, WsClient) {
    let server = TestServer::new(builder);
    let (mut silent, handle) = server.pair();
    silent.sync();
    handle.close(4000, "").unwrap();
    assert_eq!(silent.frame().close().0, 4000);
    (server, silent)
}

/// Closes from outside of the connection's thread; the peer answers.
fn close_from_outside(mut socket: WsClient, handle: &Client) {
    socket.sync();
    handle.close(4001, "").unwrap();
    assert_eq!(socket.expect_close().0, 4001);
}

/// A value of the application whose destructor does something.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Lets a client whose metadata has this destructor end behind a silent one; the destructor must run at once, and
/// closes and sends must go on.
fn destructor_behind_a_silent_peer(destroy: impl Fn(&Hub, &Client) + Send + Sync + 'static) {
    let _alone = alone();
    let (server, _silent) = with_silent_peer(patient());
    let (mut other, other_handle) = server.pair();
    let (socket, handle) = server.pair();
    let (tell, done) = channel();
    let (hub, destroy, other_too) = (server.hub.clone(), Arc::new(destroy), other_handle.clone());
    let tell = Mutex::new(tell);
    handle.set_metadata(
        "value",
        OnDrop(move || {
            let _told = OnDrop(|| tell.lock().unwrap().send(()).unwrap());
            destroy(&hub, &other_too);
        }),
    );
    close_from_outside(socket, &handle);
    drop(handle);
    done.recv_timeout(PATIENCE).expect("the destructor runs when the connection ends");
    server.hub.send(Target::all(), "end").unwrap();
    while other.text() != "end" {}
    // Closes from outside go on as well.
    if !other_handle.is_closed() {
        close_from_outside(other, &other_handle);
    }
    let (socket, handle) = server.pair();
    close_from_outside(socket, &handle);
}

#[test]
fn a_destructor_that_sends() {
    destructor_behind_a_silent_peer(|hub, _| {
        hub.send(Target::all(), "from a destructor").unwrap();
    });
}

#[test]
fn a_destructor_that_closes() {
    let _alone = alone();
    let (server, _silent) = with_silent_peer(patient());
    let (mut other, other_handle) = server.pair();
    let (socket, handle) = server.pair();
    handle.set_metadata("value", OnDrop(move || other_handle.close(4002, "by a destructor").unwrap()));
    close_from_outside(socket, &handle);
    drop(handle);
    assert_eq!(other.expect_close(), (4002, "by a destructor".into()));
    let (socket, handle) = server.pair();
    close_from_outside(socket, &handle);
}

#[test]
fn a_destructor_that_panics() {
    destructor_behind_a_silent_peer(|_, _| panic!("on purpose"));
}

#[test]
fn a_destructor_that_needs_a_large_stack() {
    #[inline(never)]
    #[allow(clippy::large_stack_arrays, reason = "the stack is the point")]
    fn deep() {
        let large = black_box([1_u8; 100 * 1024]);
        assert_eq!(large.iter().map(|n| usize::from(*n)).sum::<usize>(), large.len());
    }
    destructor_behind_a_silent_peer(|_, _| deep());
}

#[test]
fn after_a_destructor_has_panicked_close_timeouts_still_end_closes() {
    let _alone = alone();
    let config = Config::default().close_timeout(Duration::from_millis(200));
    let server = TestServer::new(Hub::builder().config(config));
    for _ in 0..3 {
        let (silent, silent_handle) = server.pair();
        let (socket, handle) = server.pair();
        handle.set_metadata("bomb", OnDrop(|| panic!("on purpose")));
        silent_handle.close(4000, "").unwrap();
        close_from_outside(socket, &handle);
        drop(handle);
        // It answers nothing and is cut.
        eventually("both are gone", || server.hub.client_count() == 0);
        drop((silent, silent_handle));
    }
}

#[test]
fn two_hundred_finished_clients_keep_no_descriptors_behind_a_silent_one() {
    let _alone = alone();
    let (server, _silent) = with_silent_peer(patient());
    let before = descriptors();
    let mut handles = Vec::new();
    for _ in 0..200 {
        let (socket, handle) = server.pair();
        close_from_outside(socket, &handle);
        handles.push(handle);
    }
    // Their handles are kept, too.
    expect_descriptors(before);
    assert!(handles.iter().all(|handle| handle.closed_at().is_some()));
    assert!(handles.iter().all(|handle| matches!(handle.send("late"), Err(SendError::Closed(_)))));
}

#[test]
fn metadata_that_hold_clients_end_with_them() {
    let _alone = alone();
    let server = TestServer::new(patient());
    warm_up(&server);
    let before = descriptors();
    let probe = Arc::new(());
    let sockets: Vec<_> = (0..100)
        .map(|n| {
            let ((one, first), (two, second)) = (server.pair(), server.pair());
            // Itself, and each other; by closures too.
            first.set_metadata("self", (first.clone(), probe.clone()));
            first.set_metadata("other", (second.clone(), probe.clone()));
            second.set_metadata("other", (first.clone(), probe.clone()));
            let (same, also) = (first.clone(), probe.clone());
            first.on_close(move |_| _ = black_box((&same, &also)));
            let (same, also) = (first.clone(), probe.clone());
            first.on_message(move |_, _| {
                let _ = black_box((&same, &also));
                Ok(())
            });
            if n % 2 == 0 { (one, two) } else { (two, one) }
        })
        .collect();
    drop(sockets);
    eventually("all clients are gone", || server.hub.client_count() == 0);
    eventually("nothing is kept", || Arc::strong_count(&probe) == 1);
    expect_descriptors(before);
}

#[test]
fn callbacks_and_metadata_that_come_late_are_not_kept() {
    let _alone = alone();
    let server = TestServer::new(Hub::builder());
    let (socket, handle) = server.pair();
    let probe = Arc::new(());
    handle.set_metadata("early", probe.clone());
    socket.close();
    eventually("its end is known", || handle.closed_at().is_some());
    eventually("its metadata are gone", || Arc::strong_count(&probe) == 1);
    assert!(handle.metadata::<Arc<()>>("early").is_none());

    let ran = Arc::new(AtomicUsize::new(0));
    for n in 1..=50 {
        let (count, kept) = (ran.clone(), probe.clone());
        handle.on_close(move |client| {
            assert!(client.closed_at().is_some());
            let _ = &kept;
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.load(Ordering::Relaxed), n, "it runs at once");
        let kept = probe.clone();
        handle.on_error(move |_, _| _ = &kept);
        let kept = probe.clone();
        handle.on_message(move |_, _| {
            let _ = &kept;
            Ok(())
        });
        handle.set_metadata("late", probe.clone());
        assert!(handle.metadata::<Arc<()>>("late").is_none());
        assert_eq!(Arc::strong_count(&probe), 1, "nothing is kept");
    }
    // A panic in it is caught, as at the end of a connection.
    handle.on_close(|_| panic!("on purpose"));
}

#[test]
fn on_close_runs_once_when_it_races_the_end() {
    let _alone = alone();
    let server = TestServer::new(Hub::builder());
    for _ in 0..100 {
        let (socket, handle) = server.pair();
        let ran = Arc::new(AtomicUsize::new(0));
        let ending = std::thread::spawn(move || socket.close());
        let count = ran.clone();
        handle.on_close(move |_| _ = count.fetch_add(1, Ordering::Relaxed));
        ending.join().unwrap();
        eventually("it has run", || ran.load(Ordering::Relaxed) > 0);
        eventually("it is gone", || Arc::strong_count(&ran) == 1);
        assert_eq!(ran.load(Ordering::Relaxed), 1);
    }
}

/// A hub that lets nobody into a room, and the handles that its hook has seen.
fn refusing() -> (HubBuilder, Arc<Mutex<Vec<Client>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = seen.clone();
    let builder =
        patient().on_upgrade(|_| Ok(Admission::user("ann").room("closed"))).before_room_join(move |client, _| {
            keep.lock().unwrap().push(client.clone());
            Err("nobody comes in".into())
        });
    (builder, seen)
}

#[test]
fn a_client_whose_registration_is_withdrawn_is_closed() {
    let _alone = alone();
    let (builder, seen) = refusing();
    let server = TestServer::new(builder);
    warm_up(&server);
    let before = descriptors();
    for _ in 0..20 {
        let (head, socket) = WsClient::try_connect(server.addr, "/ws", "");
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        drop(socket);
    }
    let clients = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(clients.len(), 20);
    for client in &clients {
        eventually("its end is known", || client.closed_at().is_some());
        assert!(client.is_closed());
        assert!(matches!(client.send("x"), Err(SendError::Closed(_))));
        let started = Instant::now();
        assert!(matches!(client.send_timeout("x", FOREVER), Err(SendError::Closed(_))));
        assert!(started.elapsed() < PATIENCE);
        assert!(matches!(client.join("other"), Err(RoomError::ClientNotFound)));
        client.close(1000, "").unwrap();
    }
    expect_descriptors(before);
    assert_eq!((server.hub.client_count(), server.hub.user_count()), (0, 0));
}

#[test]
fn a_send_that_waits_returns_when_the_registration_is_withdrawn() {
    let _alone = alone();
    let (tell, told) = channel::<Client>();
    let (go_on, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let tell = Mutex::new(tell);
    let config = Config::default().close_timeout(FOREVER).queue_messages(1);
    let builder = Hub::builder().config(config).on_upgrade(|_| Ok(Admission::anonymous().room("closed")));
    let server = TestServer::new(builder.before_room_join(move |client, _| {
        tell.lock().unwrap().send(client.clone()).unwrap();
        wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Err("nobody comes in".into())
    }));
    let addr = server.addr;
    let connecting = std::thread::spawn(move || WsClient::try_connect(addr, "/ws", "").0);
    let client = told.recv_timeout(PATIENCE).unwrap();
    client.send("fills the queue").unwrap();
    let (begun, has_begun) = channel();
    let sender = client.clone();
    let sending = std::thread::spawn(move || {
        begun.send(()).unwrap();
        sender.send_timeout("waits", FOREVER)
    });
    has_begun.recv_timeout(PATIENCE).unwrap();
    go_on.send(()).unwrap();
    assert!(matches!(sending.join().unwrap(), Err(SendError::Closed(_))));
    assert!(connecting.join().unwrap().starts_with("HTTP/1.1 403 "));
}

#[test]
fn on_close_of_a_withdrawn_registration_runs() {
    let _alone = alone();
    let ran = Arc::new(AtomicUsize::new(0));
    let count = ran.clone();
    let builder = Hub::builder().on_upgrade(|_| Ok(Admission::anonymous().room("closed")));
    let server = TestServer::new(builder.before_room_join(move |client, _| {
        let count = count.clone();
        client.on_close(move |_| _ = count.fetch_add(1, Ordering::Relaxed));
        client.set_metadata("self", client.clone());
        Err("nobody comes in".into())
    }));
    let (head, _) = WsClient::try_connect(server.addr, "/ws", "");
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(ran.load(Ordering::Relaxed), 1);
    eventually("nothing is kept", || Arc::strong_count(&ran) == 2);
}
