//! The server survives full descriptor tables, refused threads and floods of handshakes. The tests change the limits of
//! the process, so they have a process of their own and run one after the other.
// Not over TLS: it counts descriptors.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::limits::{self, Lowered, ask, descriptors, unconnected};
use common::{CLOSE, PATIENCE, TestServer, WsClient, crate_threads, deep_queue, errors, eventually, stall};
use rlimit::Resource;
use socket2::Socket;
use wshub::{
    Config, Hub,
    metrics::{DebugMetrics, ErrorType},
    server::AcceptError,
};

/// No process has room for such a stack.
const ABSURD: usize = if usize::BITS > 32 { 1_usize.wrapping_shl(50) } else { 1 << 30 };

static ALONE: Mutex<()> = Mutex::new(());

/// One test at a time, because limits are those of the process. A 32-bit process has room for [`ABSURD`] stacks, so it
/// gets less address space.
fn alone() -> (Option<Lowered>, MutexGuard<'static, ()>) {
    let turn = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // The first field is dropped first: the limit is raised again before the next test begins.
    ((usize::BITS == 32).then(|| Lowered::space(512 << 20)), turn)
}

/// Takes every descriptor that is left.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// The status of an answer that has come or will come.
fn status(stream: &mut TcpStream) -> u16 {
    limits::status(stream, PATIENCE).unwrap()
}

fn upgrade(socket: Socket, addr: SocketAddr) -> TcpStream {
    socket.connect(&addr.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    ask(&mut stream);
    stream
}

/// Whether the server's accept thread is asleep: normally, because it waits for a connection.
fn acceptor_sleeps() -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    stats.any(|stat| stat.contains("(wshub-accept) S"))
}

fn echo(socket: &mut WsClient) {
    socket.send_text("hi");
    assert_eq!(socket.text(), "hi");
}

fn echo_server() -> TestServer {
    TestServer::new(Hub::builder().on_message(|c, m| Ok(c.send(m)?)))
}

#[test]
fn accept_survives_a_full_descriptor_table() {
    let _alone = alone();
    let server = echo_server();
    let mut before = server.connect();
    let spare: Vec<_> = (0..6).map(|_| unconnected()).collect();
    eventually("the server waits for connections", acceptor_sleeps);
    let _limit = Lowered::new(Resource::NOFILE, 256);
    let taken = take_all();
    let mut asked: Vec<_> = spare.into_iter().map(|socket| upgrade(socket, server.addr)).collect();
    // An accept that waited already has its descriptor: the first may be served, all others are told.
    let statuses: Vec<_> = asked.iter_mut().map(status).collect();
    assert!([101, 503].contains(&statuses[0]), "{statuses:?}");
    assert!(statuses[1..].iter().all(|s| *s == 503), "{statuses:?}");
    echo(&mut before);
    drop((taken, asked));
    // The first accept after the table has room may still have begun before.
    eventually("new clients are served", || WsClient::try_connect(server.addr, "/ws", "").0.contains(" 101 "));
    echo(&mut server.connect());
    echo(&mut before);
}

#[cfg(feature = "tls")]
#[test]
fn a_full_descriptor_table_sends_nothing_in_plaintext_to_clients_of_tls() {
    let _alone = alone();
    let hub = Hub::new();
    let listener = wshub::server::Listener::tcp("127.0.0.1:0").unwrap().tls(&common::tls::server_side());
    let handle = wshub::Server::on(listener).websocket("/ws", &hub).spawn().unwrap();
    let addr = handle.local_addr().unwrap();
    let spare: Vec<_> = (0..6).map(|_| unconnected()).collect();
    eventually("the server waits for connections", acceptor_sleeps);
    let limit = Lowered::new(Resource::NOFILE, 256);
    let taken = take_all();
    let mut asked: Vec<_> = spare.into_iter().map(|socket| upgrade(socket, addr)).collect();
    // The first may be served: what it sends is no TLS, which an alert says. All others are closed.
    for socket in &mut asked {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut answer, mut chunk) = (Vec::new(), [0; 512]);
        while let Ok(n @ 1..) = socket.read(&mut chunk) {
            answer.extend_from_slice(&chunk[..n]);
        }
        assert!(answer.is_empty() || answer[0] == 0x15, "{:?}", String::from_utf8_lossy(&answer));
    }
    drop((taken, limit));
    handle.shutdown(PATIENCE).unwrap();
}

#[test]
fn a_full_table_that_has_passed_refuses_nobody() {
    let _alone = alone();
    let server = echo_server();
    let mut refused = 0;
    for _ in 0..5 {
        let [first, second] = [unconnected(), unconnected()];
        let limit = Lowered::new(Resource::NOFILE, 256);
        let taken = take_all();
        // Uses the descriptor of the accept that waits; the next accept finds none, and nobody waiting either. It may
        // have to wait itself, if the spare descriptor was among those taken.
        let mut first = upgrade(first, server.addr);
        first.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let _ = first.read(&mut [0; 12]);
        drop(taken);
        drop(limit);
        refused += usize::from(status(&mut upgrade(second, server.addr)) == 503);
    }
    // In one round the second may have come in the very moment of the failure.
    assert!(refused <= 1, "{refused} of 5 were refused without need");
}

#[test]
fn accept_survives_refused_threads() {
    // Of a 32-bit process' address space, handshakes and connections of the tests before may hold a good part.
    const STACK: usize = if usize::BITS > 32 { 1 << 28 } else { 1 << 26 };
    let _alone = alone();
    let server = TestServer::with(Hub::builder().on_message(|c, m| Ok(c.send(m)?)), |s| s.stack_size(STACK));
    let mut before = server.connect();
    // Room for everything but such a stack.
    let limit = Lowered::space(STACK as u64 / 2);
    for _ in 0..3 {
        let (head, mut rest) = WsClient::try_connect(server.addr, "/ws", "");
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nRetry-After: "), "{head}");
        assert_eq!(rest.bytes_until_end(), b"overloaded\n");
        echo(&mut before);
    }
    drop(limit);
    let mut after = server.connect();
    echo(&mut after);
    echo(&mut before);
    assert_eq!(server.hub.client_count(), 2);
}

/// With 64 MiB more of address space there is room for some hundred stacks. The rest are refused while there is memory
/// for those that are served, and the server comes back when memory does.
#[test]
fn a_process_that_runs_out_of_memory_refuses_in_time_and_comes_back() {
    let _alone = alone();
    let server = echo_server();
    echo(&mut server.connect());
    let _limit = Lowered::space(64 * 1024 * 1024);
    let mut clients = Vec::new();
    let refusal = loop {
        let (head, client) = WsClient::try_connect(server.addr, "/ws", "");
        if !head.contains(" 101 ") {
            break head;
        }
        clients.push(client);
        assert!(clients.len() < 1000, "more stacks than memory");
    };
    assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
    assert!(clients.len() > 10, "only {} were served", clients.len());
    for _ in 0..50 {
        assert!(WsClient::try_connect(server.addr, "/ws", "").0.starts_with("HTTP/1.1 503 "));
        // More than a stack, so the last thread cannot have taken what is left.
        assert!(Vec::<u8>::new().try_reserve_exact(768 * 1024).is_ok(), "no memory is left for those that are served");
    }
    clients.iter_mut().for_each(echo);
    // What they may still need for rooms and messages.
    let needed = clients.len() * 48 * 1024;
    assert!(
        Vec::<u8>::new().try_reserve_exact(needed).is_ok(),
        "{needed} bytes are not left for those that are served"
    );
    let half = clients.len() / 2;
    clients.truncate(half);
    eventually("new clients are served", || WsClient::try_connect(server.addr, "/ws", "").0.contains(" 101 "));
    clients.iter_mut().for_each(echo);
}

#[test]
fn a_server_that_never_gets_a_thread_lives_and_ends() {
    let _alone = alone();
    let server = TestServer::with(Hub::builder(), |s| s.stack_size(ABSURD));
    for _ in 0..3 {
        assert!(WsClient::try_connect(server.addr, "/ws", "").0.starts_with("HTTP/1.1 503 "));
    }
    assert_eq!(server.hub.client_count(), 0);
    server.handle.shutdown(PATIENCE).unwrap();
}

#[test]
fn a_detached_connection_without_a_thread_was_never_connected() {
    let _alone = alone();
    let metrics = Arc::new(DebugMetrics::new());
    let config = Config::default().reader_stack(ABSURD);
    let builder = Hub::builder().config(config).metrics(metrics.clone());
    let hub = builder.on_upgrade(|_| Ok(wshub::Admission::user("ann").room("x"))).build().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let head = common::upgrade_head("/");
    assert!(matches!(hub.accept(ours, head, &[]).detach(), Err(AcceptError::Thread(_))));
    assert_eq!((hub.client_count(), hub.user_count(), hub.room_names().len()), (0, 0, 0));
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    theirs.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "never told that it was connected: {answer}");
    assert_eq!(metrics.stats().total_connections, 0);
    hub.shutdown(PATIENCE).unwrap();
}

/// A server that can start no writer thread.
fn without_writers(config: Config) -> (Arc<DebugMetrics>, TestServer) {
    let metrics = Arc::new(DebugMetrics::new());
    let config = deep_queue(config.writer_stack(ABSURD));
    let builder = Hub::builder().config(config).metrics(metrics.clone()).on_message(|c, m| Ok(c.send(m)?));
    (metrics, TestServer::new(builder))
}

#[test]
fn a_connection_without_a_writer_thread_is_served_without_one() {
    let _alone = alone();
    for eager in [false, true] {
        let (metrics, server) = without_writers(Config::default().eager_writers(eager));
        let mut other = server.connect();
        let (mut socket, client) = server.pair();
        // More than the socket takes: nobody sends anything afterwards that would carry the rest along.
        for n in 0..100 {
            client.send(format!("{n} {}", "x".repeat(100_000))).unwrap();
        }
        assert!(client.queue_depth().messages > 0, "the socket has taken everything");
        echo(&mut other);
        for n in 0..100 {
            assert!(socket.text().starts_with(&format!("{n} ")));
        }
        client.send("after it").unwrap();
        assert_eq!(socket.text(), "after it");
        client.close(1000, "bye").unwrap();
        assert_eq!(socket.expect_close(), (1000, "bye".to_owned()));
        assert_eq!(metrics.stats().errors.len(), 0);
        echo(&mut other);
    }
}

#[test]
fn a_close_and_a_silent_peer_need_no_writer_thread_either() {
    let _alone = alone();
    // The close frame goes behind what waits.
    let (_, server) = without_writers(Config::default().write_timeout(3 * PATIENCE));
    let (mut socket, client) = server.pair();
    stall(&client);
    client.close(1000, "bye").unwrap();
    let mut last = socket.frame();
    while last.first != CLOSE {
        last = socket.frame();
    }
    assert_eq!(last.close(), (1000, "bye"));
    drop((socket, server));
    // One that reads nothing is cut by the write timeout.
    let (metrics, server) = without_writers(Config::default().write_timeout(Duration::from_millis(300)));
    let mut other = server.connect();
    let (_socket, stalled) = server.pair();
    stall(&stalled);
    eventually("it has ended", || server.hub.client_count() == 1);
    assert_eq!(errors(&metrics, ErrorType::WriteDeadlineError), 1);
    echo(&mut other);
}

#[test]
fn writer_threads_are_given_back() {
    let _alone = alone();
    let server = TestServer::new(Hub::builder().config(deep_queue(Config::default())));
    let (mut socket, client) = server.pair();
    for _ in 0..2 {
        client.send(vec![0; 10_000_000]).unwrap();
        eventually("it has a writer", || server.hub.load().writer_threads == 1);
        assert_eq!(socket.frame().payload.len(), 10_000_000);
        eventually("the writer has gone", || server.hub.load().writer_threads == 0);
        eventually("and its thread", || !crate_threads().iter().any(|name| name == "wshub-writer"));
        client.send("without one").unwrap();
        assert_eq!(socket.text(), "without one");
    }
}

#[test]
fn refused_connections_are_not_kept() {
    let _alone = alone();
    let server = TestServer::with(Hub::builder(), |s| s.stack_size(ABSURD));
    // Then it has the descriptor that it keeps to spare, too.
    eventually("the server waits for connections", acceptor_sleeps);
    let before = descriptors().len();
    let mut refused: Vec<_> = (0..20).map(|_| upgrade(unconnected(), server.addr)).collect();
    assert!(refused.iter_mut().map(status).all(|s| s == 503));
    drop(refused);
    // Nobody else connects: it is the server that lets go of them, after a moment.
    eventually("their descriptors are free", || descriptors().len() <= before);
    assert!(WsClient::try_connect(server.addr, "/ws", "").0.starts_with("HTTP/1.1 503 "), "and it goes on");
}

#[test]
fn more_handshakes_than_allowed_are_answered_with_503() {
    let _alone = alone();
    let builder = Hub::builder().on_message(|c, m| Ok(c.send(m)?));
    let server = TestServer::with(builder, |s| s.max_handshakes(2).handshake_timeout(3 * PATIENCE));
    // Established connections do not count.
    let mut established: Vec<_> = (0..5).map(|_| server.connect()).collect();
    let mut slow: Vec<_> = (0..2).map(|_| TcpStream::connect(server.addr).unwrap()).collect();
    for _ in 0..3 {
        let (head, _) = WsClient::try_connect(server.addr, "/ws", "");
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nRetry-After: "), "{head}");
    }
    established.iter_mut().for_each(echo);
    slow.pop();
    eventually("a place is free", || WsClient::try_connect(server.addr, "/ws", "").0.contains(" 101 "));
    // The other one was only slow.
    ask(&mut slow[0]);
    assert_eq!(status(&mut slow[0]), 101);
}
