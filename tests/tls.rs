//! TLS: the handshake, both directions, partial writes, ends; and the same hub behind it.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::skip::is_missing;
use common::stream::SseClient;
use common::tls::{AUTHORITY, CERTIFICATE, KEY, bridge, client_side, server_side};
use common::{PATIENCE, WsClient, counted, deep_queue, errors, eventually, exchange, split_answer, status};
use rustls::StreamOwned;
use socket2::SockRef;
use wshub::{
    Client, Config, Hub, HubBuilder, Message, RequestHead, Response, Server, ServerHandle, Target,
    metrics::ErrorType,
    server::{Listener, Transport},
    tls::Tls,
};

/// A hub behind TLS; `addr` is a bridge to it, for clients without TLS.
struct Secure {
    hub: Hub,
    direct: SocketAddr,
    addr: SocketAddr,
    handle: ServerHandle,
}

impl Secure {
    fn new(builder: HubBuilder) -> Self {
        Self::with(builder, |server| server)
    }

    fn with(builder: HubBuilder, change: impl FnOnce(Server) -> Server) -> Self {
        let hub = builder.build().unwrap();
        let server = Server::on(Listener::tcp("127.0.0.1:0").unwrap().tls(&server_side()));
        let server = server.websocket("/ws", &hub).event_stream("/events", &hub).probes(&hub);
        let handle = change(server).spawn().unwrap();
        let direct = handle.local_addr().unwrap();
        Self { hub, direct, addr: bridge(direct), handle }
    }

    fn pair(&self) -> (WsClient, Client) {
        let before = self.hub.clients();
        let socket = WsClient::connect(self.addr, "/ws", "");
        let client = self.hub.clients().into_iter().find(|c| !before.contains(c)).unwrap();
        (socket, client)
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.handle.shutdown(Duration::from_secs(5));
    }
}

fn echo() -> HubBuilder {
    Hub::builder().on_message(|client, message| Ok(client.send(message)?))
}

#[test]
fn messages_of_all_sizes_come_back() {
    let config = Config::default().max_message_size(4 << 20).queue_bytes(8 << 20);
    let server = Secure::new(echo().config(config));
    let (mut socket, _) = server.pair();
    for size in [0, 1, 2, 125, 126, 1000, 16_383, 16_384, 16_385, 65_536, 300_000, 3_000_000] {
        let payload: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        socket.send_frame(common::BINARY, &payload);
        assert!(socket.frame().payload == payload, "{size} bytes");
    }
    socket.close();
    eventually("it is gone", || server.hub.client_count() == 0);
}

#[test]
fn plain_http_and_event_streams_too() {
    let server =
        Secure::with(Hub::builder(), |server| server.handle("/", |_| Response::text(200, "x".repeat(400_000))));
    let (code, body) = split_answer(&exchange(server.addr, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!((code, body.len()), (200, 400_000));
    let mut stream = SseClient::connect(server.addr, "/events", "");
    server.hub.send(Target::all(), "hello").unwrap();
    assert_eq!(stream.data(), "hello");
    let client = server.hub.clients().pop().unwrap();
    client.close(4000, "bye").unwrap();
    assert_eq!(stream.expect_close(), "closed 4000 bye");
}

#[test]
fn a_stalled_client_gets_everything_whole_when_it_reads_again() {
    let server = Secure::new(Hub::builder().config(deep_queue(Config::default()).write_timeout(PATIENCE)));
    let (mut socket, client) = server.pair();
    let sent = common::stall(&client);
    assert!(sent > 1);
    // While it does not read, it can still be heard.
    socket.send_text("ignored");
    let mut received = 0;
    while received < sent {
        let frame = socket.frame();
        assert_eq!((frame.first, frame.payload.len()), (common::BINARY, 256 * 1024));
        received += 1;
    }
    client.send("after").unwrap();
    assert_eq!(socket.text(), "after");
}

#[test]
fn small_frames_survive_partial_writes_in_their_order() {
    let config = |config: Config| deep_queue(config).queue_messages(100_000).write_timeout(PATIENCE);
    let server = Secure::new(Hub::builder().map_config(config));
    let (mut socket, client) = server.pair();
    let texts: Vec<String> = (0..40_000).map(|n: u32| format!("{n} {}", "y".repeat((n % 90) as usize))).collect();
    thread::scope(|scope| {
        scope.spawn(|| texts.iter().for_each(|text| client.send_timeout(text.as_str(), PATIENCE).unwrap()));
        // Reads by fits and starts, and asks for pongs between: they go between frames, never into one.
        for (n, text) in texts.iter().enumerate() {
            if n % 1000 == 0 {
                socket.send_frame(common::PING, b"");
                thread::yield_now();
            }
            loop {
                let frame = socket.frame();
                if frame.first != common::PONG {
                    assert_eq!(frame.text(), text);
                    break;
                }
            }
        }
    });
}

#[test]
fn broadcasts_reach_secure_and_plain_clients_alike() {
    let server = Secure::new(Hub::builder());
    let plain = Server::bind("127.0.0.1:0").unwrap().websocket("/ws", &server.hub).spawn().unwrap();
    let mut sockets: Vec<_> = (0..20).map(|_| server.pair().0).collect();
    sockets.extend((0..20).map(|_| WsClient::connect(plain.local_addr().unwrap(), "/ws", "")));
    for n in 0..50 {
        assert_eq!(server.hub.send(Target::all(), n.to_string()).unwrap().queued, 40);
    }
    for socket in &mut sockets {
        (0..50).for_each(|n| assert_eq!(socket.text(), n.to_string()));
    }
}

#[test]
fn both_ends_say_goodbye() {
    let server = Secure::new(Hub::builder());
    let mut tls = StreamOwned::new(client_side(&[]), TcpStream::connect(server.direct).unwrap());
    tls.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    tls.write_all(common::upgrade_request("GET /ws HTTP/1.1", &[]).as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tls.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    server.hub.clients()[0].close(4000, "").unwrap();
    tls.write_all(&common::client_frame(common::CLOSE, &4000u16.to_be_bytes())).unwrap();
    let mut rest = Vec::new();
    // Without the goodbye of TLS this would be an error: the end might have been forged.
    tls.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [0x88, 2, 0x0f, 0xa0]);
}

#[test]
fn whoever_speaks_no_tls_hurts_nobody() {
    let (metrics, builder) = counted(Hub::builder());
    let counter = metrics.clone();
    let server = Secure::with(builder, |server| server.metrics(counter).handshake_timeout(Duration::from_millis(1500)));
    for bytes in
        [&b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], b"\x16\x03\x01\x00\x05hello", b""]
    {
        let mut socket = TcpStream::connect(server.direct).unwrap();
        let _ = socket.write_all(bytes);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(errors(&metrics, ErrorType::UpgradeFailed) >= 2);
    let mut other = StreamOwned::new(client_side(&["h2"]), TcpStream::connect(server.direct).unwrap());
    assert!(other.write_all(b"x").and_then(|()| other.read(&mut [0])).is_err(), "nothing but http/1.1 is spoken");
    let (mut socket, client) = server.pair();
    client.send("still here").unwrap();
    assert_eq!(socket.text(), "still here");
}

#[test]
fn a_handshake_that_stops_half_way_times_out() {
    let server = Secure::with(Hub::builder(), |server| server.handshake_timeout(Duration::from_millis(200)));
    let mut hello = Vec::new();
    client_side(&[]).write_tls(&mut hello).unwrap();
    let mut socket = TcpStream::connect(server.direct).unwrap();
    socket.write_all(&hello[..hello.len() / 2]).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
}

#[test]
fn a_stream_of_the_programs_own() {
    let hub = echo().build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let same = hub.clone();
    let serving = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        SockRef::from(&stream).set_send_buffer_size(4096).unwrap();
        let transport = Transport::from(stream).tls(&server_side()).unwrap();
        let request = common::upgrade_request("GET / HTTP/1.1", &[]);
        let head = RequestHead::parse(request.as_bytes()).unwrap().unwrap().0;
        same.accept(transport, head, &[]).serve()
    });
    // The request counts as read, so the first thing that the client gets is the 101.
    let mut socket = WsClient::on(TcpStream::connect(bridge(addr)).unwrap());
    assert!(socket.read_head().starts_with("HTTP/1.1 101 "));
    let large = Message::binary(vec![7; 300_000]);
    socket.send_frame(common::BINARY, large.payload());
    assert!(socket.frame().payload == large.payload()[..]);
    socket.close();
    serving.join().unwrap().unwrap();
}

#[test]
fn certificates_are_checked_when_they_are_loaded() {
    let foreign = include_str!("tls/foreign.key");
    for (chain, key) in
        [(CERTIFICATE, foreign), (CERTIFICATE, CERTIFICATE), (KEY, KEY), ("", ""), ("nonsense", "nonsense")]
    {
        assert!(Tls::from_pem(chain.as_bytes(), key.as_bytes()).is_err());
    }
    let error = Tls::from_pem_files("no such file", "no such file").unwrap_err();
    assert!(error.to_string().contains("no such file"), "{error}");
}

#[test]
fn openssl_talks_to_it() {
    if is_missing("openssl") {
        return;
    }
    let server = Secure::new(Hub::builder());
    let certificate = std::env::temp_dir().join(format!("wshub-tls-{}.pem", std::process::id()));
    std::fs::write(&certificate, AUTHORITY).unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let output = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                "-alpn",
                "http/1.1",
                "-servername",
                "localhost",
                version,
            ])
            .args(["-CAfile", certificate.to_str().unwrap(), "-connect", &server.direct.to_string(), "-ign_eof"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                child.stdin.take().unwrap().write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
                child.wait_with_output()
            })
            .expect("openssl is installed");
        let answer = String::from_utf8_lossy(&output.stdout);
        assert_eq!(status(&answer), 200, "{version}: {answer} {}", String::from_utf8_lossy(&output.stderr));
    }
    std::fs::remove_file(certificate).unwrap();
}

/// Sends a byte of an unfinished record now and then, until the server has had enough.
fn drip(mut socket: &TcpStream, record: [u8; 5]) {
    // Whatever the server says meanwhile is not read: only its end is waited for.
    let mut head = record.iter().copied().chain(std::iter::repeat(1));
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if socket.write_all(&[head.next().unwrap()]).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("the server has waited for {PATIENCE:?}");
}

#[test]
fn a_handshake_in_drips_times_out() {
    let server = Secure::with(Hub::builder(), |server| server.handshake_timeout(Duration::from_millis(200)));
    drip(&TcpStream::connect(server.direct).unwrap(), [0x16, 3, 1, 0x40, 0]);
}

#[test]
fn a_record_in_drips_keeps_nothing_alive() {
    let brief = Duration::from_millis(200);
    let (metrics, builder) = counted(Hub::builder());
    let builder = builder.map_config(|config| config.ping_period(brief).pong_timeout(2 * brief).heartbeat(brief));
    let server = Secure::new(builder);
    for request in [common::upgrade_request("GET /ws HTTP/1.1", &[]), "GET /events HTTP/1.1\r\nHost: a\r\n\r\n".into()]
    {
        let mut tls = StreamOwned::new(client_side(&[]), TcpStream::connect(server.direct).unwrap());
        tls.write_all(request.as_bytes()).unwrap();
        assert!(tls.read(&mut [0; 1000]).unwrap() > 0);
        if request.contains("Upgrade") {
            drip(&tls.sock, [0x17, 3, 3, 0x40, 0]);
            eventually("it is gone", || server.hub.client_count() == 0);
            assert_eq!(errors(&metrics, ErrorType::ReadDeadlineError), 1);
            continue;
        }
        // An event stream goes on, and with it the heartbeats.
        let mut socket = &tls.sock;
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(&[0x17, 3, 3, 0x40, 0]).unwrap();
        thread::scope(|scope| {
            let beats = scope.spawn(|| {
                let mut heard = 0;
                while heard < 3 * 24 {
                    heard += (&tls.sock).read(&mut [0; 1000]).expect("heartbeats come");
                }
            });
            while !beats.is_finished() {
                let _ = socket.write_all(&[1]);
                thread::sleep(Duration::from_millis(20));
            }
        });
    }
}

#[test]
fn a_renewed_certificate_is_taken_without_a_restart() {
    if is_missing("openssl") {
        return;
    }
    let folder = std::env::temp_dir().join(format!("wshub-{}-reload", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let files = [folder.join("chain.pem"), folder.join("key.pem")];
    let write = |chain: &str, key: &str| {
        std::fs::write(&files[0], chain).unwrap();
        std::fs::write(&files[1], key).unwrap();
    };
    // At first one that the client does not trust.
    let made = Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost".split(' '),
        )
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .arg("-out")
        .arg(&files[0])
        .arg("-keyout")
        .arg(&files[1])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let other = files.each_ref().map(|file| std::fs::read_to_string(file).unwrap());
    let tls = Tls::from_pem_files(&files[0], &files[1]).unwrap();
    let hub = echo().build().unwrap();
    let server = Server::on(Listener::tcp("127.0.0.1:0").unwrap().tls(&tls)).websocket("/ws", &hub);
    let handle = server.spawn().unwrap().stop_on_drop(Duration::from_secs(5));
    let addr = handle.local_addr().unwrap();
    let is_trusted = || {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        client_side(&["http/1.1"]).complete_io(&mut stream).is_ok()
    };
    assert!(!is_trusted());
    write("nonsense", "nonsense");
    assert!(tls.reload_pem_files(&files[0], &files[1]).is_err(), "and nothing changes");
    assert!(!is_trusted());
    write(CERTIFICATE, KEY);
    tls.reload_pem_files(&files[0], &files[1]).unwrap();
    assert!(is_trusted());
    let mut socket = WsClient::connect(bridge(addr), "/ws", "");
    // Those who are there keep theirs.
    write(&other[0], &other[1]);
    tls.reload_pem_files(&files[0], &files[1]).unwrap();
    assert!(!is_trusted());
    socket.send_text("still here");
    assert_eq!(socket.text(), "still here");
    socket.close();
    std::fs::remove_dir_all(&folder).unwrap();
}
