//! Measures the memory cost of one of each and compares it with the table in the guide to embedding. The tests run one
//! after the other, because they measure the memory of the process. Each prints its result; the guide's figures are
//! from single tests in a release build.
// The guide's figures are those of 64 bits.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by a panic, and reports what it has measured"
)]

mod common;
#[path = "common/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::tls::{client_side, server_side};
use common::{PATIENCE, eventually, upgrade_request};
use counting::{live_bytes, resident_kib};
use rustls::StreamOwned;
use socket2::SockRef;
use wshub::{
    Client, Config, Hub, RequestHead, RoomOptions, Server, ServerHandle,
    calls::{CallError, JsonCalls},
    health::QueueDepth,
    server::{Endpoint, Listener},
};

/// Bytes of TLS sessions that are kept for resumption: 256 of them, whatever the number of connections.
const SESSIONS: usize = 256 * 1024;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate";

const SHORT: Duration = Duration::from_millis(50);

/// How many of a thing are made to weigh one.
const MANY: usize = 200;

const GUIDE: &str = include_str!("../src/guide/embedding.md");

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Heap bytes and resident KiB that the guide's table gives for a row; resident 0 where it gives none.
fn documented(row: &str) -> (usize, usize) {
    let line = GUIDE.lines().find(|line| line.starts_with(&format!("| {row} |")));
    let line = line.unwrap_or_else(|| panic!("the guide has no row {row:?}"));
    let number = |cell: &str| {
        let digits: String = cell.chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    };
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    (number(cells[2]), number(cells[3]))
}

/// What `make` has added for each of `count` things; it gives what keeps them alive.
fn weigh<T>(row: &str, count: usize, make: impl FnOnce() -> T) -> T {
    let before = (live_bytes(), resident_kib());
    let kept = make();
    let heap = live_bytes().saturating_sub(before.0) / count;
    let resident = resident_kib().saturating_sub(before.1) / count;
    let (heap_expected, resident_expected) = documented(row);
    eprintln!(
        "{row}: {heap} bytes of the heap, guide {heap_expected}; {resident} KiB resident, guide {resident_expected}"
    );
    // A fifth and a little: tables grow by doubling, names are longer or shorter.
    let margin = heap_expected / 5 + 64;
    assert!(heap.abs_diff(heap_expected) <= margin, "{row}: {heap} bytes of the heap");
    if resident_expected > 0 {
        // Twice and a little: builds without optimization use more of their stacks.
        assert!(resident <= 2 * resident_expected + 16, "{row}: {resident} KiB resident");
    }
    kept
}

/// A hub with default settings, but for compression, behind a plain listener and one with TLS.
fn serve(config: Config) -> (Hub, [SocketAddr; 2], ServerHandle) {
    serve_hub(Hub::builder().config(config.compression(true)).build().unwrap())
}

fn serve_hub(hub: Hub) -> (Hub, [SocketAddr; 2], ServerHandle) {
    let listener = || Listener::tcp("127.0.0.1:0").unwrap();
    let server = Server::on(listener()).also_on(listener().tls(&server_side()));
    let handle = server.websocket("/ws", &hub).event_stream("/events", &hub).spawn().unwrap();
    let addrs = [handle.local_addrs()[0], handle.local_addrs()[1]];
    // What the first connection makes once.
    drop(asked(addrs[0], &upgrade_request("GET /ws HTTP/1.1", &[])));
    drop(secure(addrs[1]));
    eventually("they have left", || hub.client_count() == 0 && common::crate_threads().len() == 2);
    (hub, addrs, handle)
}

/// A connection on which the whole answer to this request has come.
fn asked(addr: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    stream
}

/// The same with TLS; its own state of it is given up, the connection is not.
fn secure(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut tls = StreamOwned::new(client_side(&["http/1.1"]), stream);
    tls.write_all(upgrade_request("GET /ws HTTP/1.1", &[]).as_bytes()).unwrap();
    assert!(tls.read(&mut [0; 1000]).unwrap() > 0);
    tls.sock
}

/// Weighs idle connections, and that nothing of them stays.
fn idle(row: &str, connect: impl Fn([SocketAddr; 2]) -> TcpStream) {
    let _alone = alone();
    let (hub, addrs, handle) = serve(Config::default());
    let before = live_bytes();
    let sockets = weigh(row, MANY, || {
        let sockets: Vec<_> = (0..MANY).map(|_| connect(addrs)).collect();
        assert_eq!(hub.client_count(), MANY);
        sockets
    });
    drop(sockets);
    eventually("all have left", || hub.client_count() == 0 && common::crate_threads().len() == 2);
    // The table of clients keeps its places.
    eventually("and left nothing", || live_bytes() <= before + SESSIONS + 64 * MANY);
    handle.shutdown(PATIENCE).unwrap();
}

#[test]
fn an_idle_connection() {
    idle("an idle WebSocket connection", |[plain, _]| asked(plain, &upgrade_request("GET /ws HTTP/1.1", &[])));
}

#[test]
fn an_idle_compressed_connection() {
    let offer = upgrade_request("GET /ws HTTP/1.1", &[OFFER]);
    idle("the same with compression", |[plain, _]| asked(plain, &offer));
}

#[test]
fn an_idle_connection_with_tls() {
    idle("the same with TLS", |[_, tls]| secure(tls));
}

#[test]
fn an_event_stream() {
    idle("an event stream", |[plain, _]| asked(plain, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n"));
}

#[test]
fn rooms_members_and_users() {
    let _alone = alone();
    let (hub, [plain, _], handle) = serve(Config::default());
    let request = upgrade_request("GET /ws HTTP/1.1", &[]);
    let sockets: Vec<_> = (0..MANY).map(|_| asked(plain, &request)).collect();
    let clients = hub.clients();
    let each = |act: &dyn Fn(usize, &Client)| clients.iter().enumerate().for_each(|(n, client)| act(n, client));
    weigh("a room with one member", MANY, || each(&|n, client| client.join(&format!("room {n}")).unwrap()));
    weigh("a further member of a room", MANY, || each(&|_, client| client.join("all").unwrap()));
    weigh("a user with one connection", MANY, || each(&|n, client| client.set_user(&format!("user {n}")).unwrap()));
    drop((clients, sockets));
    handle.shutdown(PATIENCE).unwrap();
}

/// Members are tracked besides the room's own list of clients, and told to hooks and clients, which takes a second
/// copy. At most 64 calls wait for an answer of one client, however long their timeouts are.
#[test]
fn members_and_calls_in_flight() {
    /// Calls that may wait for one client.
    const PENDING: usize = 64;
    const CALLED: usize = 20;
    let _alone = alone();
    let told = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&told);
    let builder = Hub::builder().rooms("team", RoomOptions::members()).call_format(JsonCalls);
    // Relaxed: only the count matters.
    let builder = builder.on_member_change(move |_, _, _| _ = counter.fetch_add(1, Ordering::Relaxed));
    let (hub, [plain, _], handle) = serve_hub(builder.build().unwrap());
    let request = upgrade_request("GET /ws HTTP/1.1", &[]);
    let mut sockets: Vec<_> = (0..MANY).map(|_| asked(plain, &request)).collect();
    let clients = hub.clients();
    weigh("a member of a room that tracks them", MANY, || {
        clients.iter().for_each(|client| client.join("team").unwrap());
        eventually("all are told", || {
            told.load(Ordering::Relaxed) == MANY && common::crate_threads().len() == 2 + MANY
        });
    });
    let year = Duration::from_secs(365 * 24 * 3600);
    let called = &clients[..CALLED];
    weigh("a call in flight", PENDING * CALLED, || {
        for client in called {
            (0..PENDING).for_each(|_| client.call_then("m", "1", year, |_, _| ()));
        }
    });
    for client in called {
        assert_eq!(client.pending_calls(), PENDING);
        assert_eq!(client.call("m", "1", year), Err(CallError::TooMany));
    }
    assert_eq!((hub.load().members, hub.load().pending_calls), (MANY, PENDING * CALLED));
    let before = live_bytes();
    drop((clients, std::mem::take(&mut sockets)));
    eventually("all have left", || hub.client_count() == 0 && hub.load().members == 0);
    eventually("and left nothing", || live_bytes() + PENDING * CALLED * 50 < before);
    handle.shutdown(PATIENCE).unwrap();
}

#[test]
fn rooms_that_remember() {
    let _alone = alone();
    let hub = Hub::builder().rooms("h*", RoomOptions::history()).rooms("s", RoomOptions::state()).build().unwrap();
    let payload = "x".repeat(100);
    let names: Vec<String> = (0..MANY).map(|n| format!("h {n}")).collect();
    weigh("a room with a history and one message of 100 bytes", MANY, || {
        names.iter().for_each(|name| _ = hub.publish(name, &*payload));
    });
    weigh("a further message of 100 bytes in a history", 50 * MANY, || {
        names.iter().for_each(|name| (0..50).for_each(|_| _ = hub.publish(name, &*payload)));
    });
    weigh("a value of 100 bytes in a state", MANY, || {
        names.iter().for_each(|name| _ = hub.set("s", name, &*payload).unwrap());
    });
    // What is counted against `history_bytes` is what is held, and a little more.
    let load = hub.load();
    assert!(load.history_messages == 51 * MANY && load.state_values == MANY, "{load:?}");
}

/// With default settings, rooms without members hold at most `history_bytes`, and nothing when their linger is over.
#[test]
fn all_rooms_that_remember() {
    const LIMIT: usize = 64 << 20;
    let _alone = alone();
    let options = RoomOptions::history();
    let hub = Hub::builder().rooms("*", options.clone()).rooms("short*", options.linger(SHORT)).build().unwrap();
    let before = live_bytes();
    let message = "x".repeat(16 * 1024);
    let mut most = 0;
    for room in 0..400 {
        (0..20).for_each(|_| _ = hub.publish(&format!("room {room}"), &*message));
        assert!(hub.load().history_bytes <= LIMIT, "{} bytes", hub.load().history_bytes);
        most = most.max(live_bytes().saturating_sub(before));
    }
    eprintln!("all rooms that remember: {most} bytes of the heap");
    assert!(most > LIMIT / 2 && most <= LIMIT + LIMIT / 8, "{most} bytes of the heap");
    let (rooms, held) = (hub.load().remembering_rooms, live_bytes());
    (0..50).for_each(|room| (0..10).for_each(|_| _ = hub.publish(&format!("short {room}"), "x")));
    eventually("their linger is over", || hub.load().remembering_rooms <= rooms);
    assert!(live_bytes() <= held + 64 * 1024);
}

#[cfg(feature = "centrifuge")]
#[test]
fn clients_of_centrifuge() {
    use wshub::protocol::centrifuge::{Centrifuge, ChannelOptions};
    let _alone = alone();
    let protocol = Centrifuge::new().channels(|_| Some(ChannelOptions::default().join_leave(false)));
    let hub = protocol.install(Hub::builder().rooms("*", RoomOptions::history())).build().unwrap();
    let mut sockets: Vec<_> = (0..MANY).map(|_| common::accept(&hub, common::Link::Unix, "/").0).collect();
    let text = |socket: &mut common::WsClient, command: &str| {
        socket.send_text(command);
        socket.text()
    };
    for socket in &mut sockets {
        // What the first frame makes: the buffer for input.
        socket.send_frame(0x80 | common::PING, b"");
        assert_eq!(socket.frame().first, 0x80 | common::PONG);
    }
    weigh("a session of Centrifuge", MANY, || {
        sockets.iter_mut().for_each(|socket| assert!(text(socket, r#"{"id":1,"connect":{}}"#).contains("client")));
    });
    weigh("a client's first subscription of Centrifuge", MANY, || {
        sockets
            .iter_mut()
            .for_each(|socket| assert!(text(socket, r#"{"id":2,"subscribe":{"channel":"a"}}"#).contains("epoch")));
    });
    // 512 subscriptions, and no more.
    let socket = &mut sockets[0];
    for n in 1..512 {
        let reply = text(socket, &format!(r#"{{"id":3,"subscribe":{{"channel":"b{n}"}}}}"#));
        assert!(!reply.contains("error"), "{n}: {reply}");
    }
    assert!(text(socket, r#"{"id":3,"subscribe":{"channel":"c"}}"#).contains("106"));
    assert_eq!(hub.clients().iter().map(|client| client.rooms().len()).max(), Some(512));
    // A frame of 512 KiB, and no larger one.
    let large = |bytes: usize| format!(r#"{{"id":4,"rpc":{{"method":"none","data":"{}"}}}}"#, "x".repeat(bytes - 50));
    assert!(text(socket, &large(512 * 1024)).contains("104"));
    socket.send_text(&large(512 * 1024 + 100));
    assert_eq!(socket.expect_close().0, 1009);
    hub.shutdown(Duration::ZERO).unwrap();
}

#[test]
fn an_endpoint() {
    let _alone = alone();
    let hub = Hub::new();
    let server = Server::bind("127.0.0.1:0").unwrap();
    let endpoint = |n: usize| Endpoint::new(format!("/endpoint/{n}"), &hub);
    let _server = weigh("an endpoint", MANY, || (0..MANY).fold(server, |server, n| server.mount(endpoint(n))));
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Plain,
    Compressed,
    EventStream,
}

/// A client that will not read, on a socket that holds a few KiB.
fn deaf(hub: &Hub, kind: Kind) -> (UnixStream, Client) {
    let (near, far) = UnixStream::pair().unwrap();
    SockRef::from(&near).set_send_buffer_size(4096).unwrap();
    let offer: &[&str] = if matches!(kind, Kind::Compressed) { &[OFFER] } else { &[] };
    let (head, _) = RequestHead::parse(upgrade_request("GET / HTTP/1.1", offer).as_bytes()).unwrap().unwrap();
    let accept = hub.accept(near, head, &[]);
    let accept = if matches!(kind, Kind::EventStream) { accept.event_stream() } else { accept };
    let client = accept.detach().unwrap();
    assert_eq!(client.is_compressed(), matches!(kind, Kind::Compressed));
    (far, client)
}

/// The bound of the guide: `queue_bytes`, a message, a batch of 64 KiB, and the queue's places.
#[test]
fn a_stalled_connection() {
    const COUNT: usize = 16;
    const CAP: usize = 256 * 1024;
    const MESSAGE: usize = 4000;
    let _alone = alone();
    for kind in [Kind::Plain, Kind::Compressed, Kind::EventStream] {
        let config = Config::default().compression(true).queue_bytes(CAP).write_timeout(PATIENCE);
        let hub = Hub::builder().config(config).build().unwrap();
        let clients: Vec<_> = (0..COUNT).map(|_| deaf(&hub, kind)).collect();
        let before = (live_bytes(), resident_kib());
        for (_, client) in &clients {
            // What the writer and the socket take has found its way when the queue is full for the second time.
            for _ in 0..2 {
                eventually("its queue is full", || client.send("x".repeat(MESSAGE)).is_err());
            }
            assert!(client.queue_depth().bytes <= CAP);
        }
        let heap = live_bytes().saturating_sub(before.0) / COUNT;
        let resident = resident_kib().saturating_sub(before.1) * 1024 / COUNT;
        eprintln!("stalled, {kind:?}: {heap} bytes of the heap, {resident} resident, above an idle one");
        assert!(heap > CAP / 2, "they are not stalled: {heap}");
        assert!(heap <= CAP + MESSAGE + 96 * 1024, "{heap} bytes");
        // And the writer's stack, and what the allocator does not use.
        assert!(resident <= heap + heap / 4 + 64 * 1024, "{resident} bytes");
        hub.shutdown(Duration::ZERO).unwrap();
    }
}

/// In a room with a history a member that stalls costs a batch in its queue, what is on its way, and a cursor: not a
/// full queue.
#[test]
fn a_stalled_member_of_a_room_with_a_history() {
    const COUNT: usize = 16;
    const MESSAGE: usize = 4000;
    /// What a queued message costs besides its bytes.
    const OVERHEAD: usize = 256;
    /// A batch in the queue, one that is on its way, a message, the queue's places.
    const BOUND: usize = 2 * 64 * 1024 + 3 * MESSAGE + 8 * 1024;
    let _alone = alone();
    for kind in [Kind::Plain, Kind::EventStream] {
        let config = Config::default().queue_bytes(1 << 20).write_timeout(PATIENCE);
        let hub = Hub::builder().config(config).rooms("busy", RoomOptions::history()).build().unwrap();
        let clients: Vec<_> = (0..COUNT).map(|_| deaf(&hub, kind)).collect();
        clients.iter().for_each(|(_, client)| client.join("busy").unwrap());
        for _ in 0..2000 {
            hub.publish("busy", "x".repeat(MESSAGE));
        }
        let before = live_bytes();
        for _ in 0..2000 {
            hub.publish("busy", "x".repeat(MESSAGE));
        }
        assert!(live_bytes().saturating_sub(before) < 64 * 1024, "a busy room costs more and more");
        for (_, client) in &clients {
            let QueueDepth { messages, bytes, .. } = client.queue_depth();
            assert!(
                messages <= 32 && bytes <= 64 * 1024 + 2 * (MESSAGE + OVERHEAD),
                "{kind:?}: {messages} messages of {bytes} bytes"
            );
        }
        // What is gone from the history is held by the clients alone, each frame by all of them.
        hub.clear_history("busy");
        let held = live_bytes();
        let kept: Vec<_> = clients.into_iter().map(|(far, _)| far).collect();
        hub.shutdown(Duration::ZERO).unwrap();
        let heap = held.saturating_sub(live_bytes());
        eprintln!("stalled in a room with a history, {kind:?}: {} bytes of the heap", heap / COUNT);
        assert!(heap <= COUNT * BOUND, "{heap} bytes for {COUNT}");
        drop(kept);
    }
}
