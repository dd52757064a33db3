//! Plain requests forwarded to another HTTP server: `tiny_http`, and servers with invalid answers.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{TestServer, exchange, split_answer, status};
use tiny_http::{Header, Response as Page, Server as Pages};
use wshub::Hub;
use wshub::server::Forward;

/// A program on `tiny_http`: it says what it was asked.
struct Program(Arc<Pages>, Option<thread::JoinHandle<()>>);

impl Program {
    fn start() -> Self {
        let pages = Arc::new(Pages::http("127.0.0.1:0").unwrap());
        let same = Arc::clone(&pages);
        let thread = thread::spawn(move || {
            for mut request in same.incoming_requests() {
                let mut body = String::new();
                request.as_reader().read_to_string(&mut body).unwrap();
                let header = |name: &'static str| {
                    let values = request.headers().iter().filter(|h| h.field.equiv(name)).map(|h| h.value.to_string());
                    values.collect::<Vec<_>>().join("|")
                };
                let (forwarded, host) = (header("X-Forwarded-For"), header("Host"));
                let text = format!("{} {} {host} {forwarded} {body}", request.method(), request.url());
                let kind = Header::from_bytes("X-Kind", "page").unwrap();
                let code = if request.url() == "/missing" { 404 } else { 200 };
                // Large answers go out in chunks.
                let text = if request.url() == "/large" { "x".repeat(200_000) } else { text };
                request.respond(Page::from_string(text).with_status_code(code).with_header(kind)).unwrap();
            }
        });
        Self(pages, Some(thread))
    }

    fn addr(&self) -> SocketAddr {
        self.0.server_addr().to_ip().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.0.unblock();
        self.1.take().unwrap().join().unwrap();
    }
}

fn in_front_of(forward: Forward) -> TestServer {
    TestServer::with(Hub::builder(), |server| server.fallback(move |request| forward.answer(request)))
}

#[test]
fn a_program_on_tiny_http_behind_the_hub() {
    let program = Program::start();
    let server = in_front_of(Forward::tcp(program.addr()).unwrap());
    let ask = |lines: &str, body: &str| {
        exchange(server.addr, format!("{}\r\n\r\n{body}", lines.replace('\n', "\r\n")).as_bytes())
    };
    let answer = ask("POST /a?b=c HTTP/1.1\nHost: x.org\nX-Forwarded-For: 6.6.6.6\nContent-Length: 4", "body");
    assert_eq!(split_answer(&answer), (200, "POST /a?b=c x.org 6.6.6.6|127.0.0.1 body".to_owned()));
    assert!(answer.contains("X-Kind: page\r\n"), "{answer}");
    let chunked =
        ask("PUT / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nConnection: X-Own\nX-Own: 1", "2\r\nab\r\n0\r\n\r\n");
    assert_eq!(split_answer(&chunked), (200, "PUT / a 127.0.0.1 ab".to_owned()));
    assert_eq!(status(&ask("GET /missing HTTP/1.1\nHost: a", "")), 404);
    assert_eq!(split_answer(&ask("GET /large HTTP/1.1\nHost: a", "")).1.len(), 200_000);
    let head = ask("HEAD /a HTTP/1.1\nHost: a", "");
    assert!(status(&head) == 200 && head.ends_with("\r\n\r\n"), "{head}");
    // And the hub is there, too.
    server.connect().close();
}

/// A server that says this and closes.
fn saying(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(bytes).unwrap();
    });
    addr
}

#[test]
fn a_server_that_fails_makes_502_and_504() {
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for nonsense in
        [&b"nonsense\r\n\r\n"[..], b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", b"HTTP/1.1 101 X\r\n\r\n"]
    {
        let server = in_front_of(Forward::tcp(saying(nonsense)).unwrap());
        assert_eq!(status(&exchange(server.addr, get)), 502, "{nonsense:?}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(status(&exchange(in_front_of(Forward::tcp(nobody).unwrap()).addr, get)), 502);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = Forward::tcp(silent.local_addr().unwrap()).unwrap().timeout(Duration::from_millis(100)).unwrap();
    assert_eq!(status(&exchange(in_front_of(forward).addr, get)), 504);
    let invalid = saying(b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(
        status(&exchange(in_front_of(Forward::tcp(invalid).unwrap()).addr, get)),
        500,
        "no status for the world"
    );
}

#[test]
fn a_server_behind_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("wshub-{}-forward.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nto the end").unwrap();
    });
    let server = in_front_of(Forward::unix(&path));
    let answer = exchange(server.addr, b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(split_answer(&answer), (200, "to the end".to_owned()));
    thread.join().unwrap();
    std::fs::remove_file(&path).unwrap();
}
