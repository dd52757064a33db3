//! Plain HTTP beside the upgrades: routes, bodies, probes, and the effects of a stopping server.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::{PATIENCE, TestServer, WsClient, client_frame, exchange, status, upgrade_request};
use wshub::{
    Hub, Response, Server,
    server::{Listener, Request},
};

fn describe(request: &Request) -> Response {
    let body = String::from_utf8_lossy(request.body()).into_owned();
    let head = request.head();
    Response::text(200, format!("{} {} {:?} {body}", head.method(), head.path(), head.query()))
}

/// A server with a few plain routes.
fn server() -> TestServer {
    TestServer::with(Hub::builder(), |server| {
        server.max_body(1000).handle("/echo", describe).handle("/panic", |_| panic!("on purpose")).handle(
            "/json",
            |request| match request.json::<Vec<u32>>() {
                Ok(numbers) => Response::json(200, &numbers.iter().sum::<u32>()),
                Err(e) => Response::text(400, e.to_string()),
            },
        )
    })
}

/// Sends a request of these lines and body; gives the head and the body of the answer.
fn ask(server: &TestServer, lines: &str, body: &str) -> (String, String) {
    let request = format!("{}\r\n\r\n{body}", lines.replace('\n', "\r\n"));
    let answer = exchange(server.addr, request.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{lines}: no answer: {answer:?}"));
    (head.to_owned(), body.to_owned())
}

#[test]
fn a_route_gets_the_whole_request_and_closes() {
    let server = server();
    let (head, body) = ask(&server, "PUT /echo?a=1 HTTP/1.1\nHost: a\nContent-Length: 5", "hello");
    assert_eq!(body, "PUT /echo Some(\"a=1\") hello");
    let (before, rest) = head.split_once("Date: ").unwrap();
    assert_eq!(before, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n");
    let (date, after) = rest.split_once("\r\n").unwrap();
    let age = httpdate::parse_http_date(date).unwrap().elapsed().unwrap();
    assert!(age < Duration::from_secs(60), "{date}");
    assert_eq!(after, "Content-Length: 27\r\nConnection: close");
    let (_, body) = ask(&server, "POST /json HTTP/1.1\nHost: a\nContent-Length: 7", "[1,2,3]");
    assert_eq!(body, "6");
    let (_, body) = ask(&server, "GET /echo HTTP/1.0", "");
    assert_eq!(body, "GET /echo None ");
}

#[test]
fn a_route_knows_whose_request_it_is() {
    let server = TestServer::with(Hub::builder(), |server| {
        server.handle("/who", |request| {
            let (addr, of_head) = (request.remote_addr(), request.head().remote_addr());
            Response::text(200, format!("{:?} {}", addr.map(|addr| addr.ip().is_loopback()), addr == of_head))
        })
    });
    assert_eq!(ask(&server, "GET /who HTTP/1.1\nHost: a", "").1, "Some(true) true");
}

#[test]
fn the_answer_ends_the_connection_without_waiting_for_the_client() {
    let server = server();
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), 200, "one answer, and the second request is not looked at");
}

#[test]
fn unknown_paths_get_404_unless_there_is_a_fallback() {
    let server = server();
    for path in ["/", "/nothing", "/WS", "/ws/", "/echo/x", "//ws", "*"] {
        let (head, body) = ask(&server, &format!("GET {path} HTTP/1.1\nHost: a"), "");
        assert_eq!((status(&head), body.as_str()), (404, "not found\n"), "{path}");
    }
    let server = TestServer::with(Hub::builder(), |server| server.fallback(describe));
    let (head, body) = ask(&server, "GET /nothing HTTP/1.1\nHost: a", "");
    assert_eq!((status(&head), body.as_str()), (200, "GET /nothing None "));
    server.connect().close();
}

#[test]
fn head_requests_get_heads_only() {
    let server = server();
    for (path, expected, length) in [("/echo", 200, 16), ("/nothing", 404, 10), ("/panic", 500, 15)] {
        let (head, body) = ask(&server, &format!("HEAD {path} HTTP/1.1\nHost: a"), "");
        assert_eq!((status(&head), body.as_str()), (expected, ""), "{path}");
        assert!(head.contains(&format!("\r\nContent-Length: {length}\r\n")), "{head}");
    }
    assert_eq!(ask(&server, "HEAD /readyz HTTP/1.1\nHost: a", "").1, "");
}

#[test]
fn bodies_are_held_to_their_length() {
    let server = server();
    let post = |headers: &str, body: &str| ask(&server, &format!("POST /echo HTTP/1.1\nHost: a\n{headers}"), body);
    let longest = "x".repeat(1000);
    let (head, body) = post("Content-Length: 1000", &longest);
    assert_eq!(status(&head), 200);
    assert!(body.ends_with(&longest));
    assert_eq!(status(&post("Content-Length: 1001", &longest).0), 413);
    assert_eq!(status(&post("Content-Length: 18446744073709551615", "").0), 413);
    assert_eq!(status(&post("Content-Length: 3\nTransfer-Encoding: chunked", "abc").0), 400);
    for bad in ["x", "", "-1", "+1", "0x10", "1, 1", "1.0", "18446744073709551616"] {
        assert_eq!(status(&post(&format!("Content-Length: {bad}"), "x").0), 400, "{bad}");
    }
    assert_eq!(status(&post("Content-Length: 10", "short").0), 400, "ends before its length");
    assert_eq!(post("Content-Length: 2", "two and more").1, "POST /echo None tw");
}

#[test]
fn bodies_may_come_in_chunks() {
    let server = server();
    let post = |headers: &str, body: &str| ask(&server, &format!("POST /echo HTTP/1.1\nHost: a\n{headers}"), body);
    let chunked = "Transfer-Encoding: chunked";
    let (head, body) = post(chunked, "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1");
    assert_eq!((status(&head), body.as_str()), (200, "POST /echo None hello world"));
    assert_eq!(post("transfer-encoding: CHUNKED", "0\r\n\r\n").1, "POST /echo None ");
    let of_length = |n: usize| format!("{n:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(n));
    assert_eq!(status(&post(chunked, &of_length(1000)).0), 200);
    assert_eq!(status(&post(chunked, &of_length(1001)).0), 413);
    assert_eq!(status(&post(chunked, &"1\r\nx\r\n".repeat(1001)).0), 413, "without an end in sight");
    assert_eq!(status(&post(chunked, "ffffffffffffffffff\r\n").0), 413);
    for bad in ["5\nhello\n0\n\n", "5\r\nhello!\r\n0\r\n\r\n", "-1\r\n", "\r\n", "5\r\nhel", "5\r\nhello\r\n0\r\n", ""]
    {
        assert_eq!(status(&post(chunked, bad).0), 400, "{bad:?}");
    }
    for unknown in ["gzip", "gzip, chunked", "chunked, gzip", "x"] {
        assert_eq!(status(&post(&format!("Transfer-Encoding: {unknown}"), "0\r\n\r\n").0), 501, "{unknown}");
    }
    let old = ask(&server, "POST /echo HTTP/1.0\nTransfer-Encoding: chunked", "0\r\n\r\n");
    assert_eq!(status(&old.0), 400, "HTTP/1.0 knows no chunks");
}

#[test]
fn a_chunked_body_may_arrive_in_any_pieces() {
    let server = server();
    let body = b"5\r\nhello\r\n1;a=b\r\n!\r\n0\r\nX: y\r\n\r\n";
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    for step in [1, 2, 5, body.len()] {
        let mut client = WsClient::on(TcpStream::connect(server.addr).unwrap());
        client.stream.set_nodelay(true).unwrap();
        client.stream.write_all(head).unwrap();
        assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
        for piece in body.chunks(step) {
            client.stream.write_all(piece).unwrap();
        }
        assert_eq!(status(&client.read_head()), 200);
        assert_eq!(client.bytes_until_end(), b"POST /echo None hello!");
    }
}

#[test]
fn http_1_0_is_not_told_to_continue() {
    let server = server();
    let mut client = WsClient::on(TcpStream::connect(server.addr).unwrap());
    client.stream.write_all(b"POST /echo HTTP/1.0\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").unwrap();
    client.wait_quietly(Duration::from_millis(50));
    client.stream.write_all(b"body").unwrap();
    assert_eq!(status(&client.read_head()), 200);
}

#[test]
fn a_client_that_asks_is_told_to_send_its_body() {
    let server = server();
    let mut client = WsClient::on(TcpStream::connect(server.addr).unwrap());
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    client.stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.stream.write_all(b"body").unwrap();
    assert_eq!(status(&client.read_head()), 200);
    // One that will not be read is not asked for.
    client = WsClient::on(TcpStream::connect(server.addr).unwrap());
    client.stream.write_all(head.replace(": 4", ": 4000").as_bytes()).unwrap();
    assert_eq!(status(&client.read_head()), 413);
}

#[test]
fn a_body_that_takes_too_long_gets_408() {
    let server = TestServer::with(Hub::builder(), |server| {
        server.handle("/echo", describe).handshake_timeout(Duration::from_millis(200))
    });
    let mut client = WsClient::on(TcpStream::connect(server.addr).unwrap());
    client.stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbod").unwrap();
    assert_eq!(status(&client.read_head()), 408);
    let mut client = WsClient::on(TcpStream::connect(server.addr).unwrap());
    let chunked = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
    client.stream.write_all(chunked).unwrap();
    assert_eq!(status(&client.read_head()), 408);
}

#[test]
fn a_body_that_gets_on_may_take_longer() {
    let timeout = Duration::from_secs(3);
    let server = TestServer::with(Hub::builder(), |server| server.handle("/echo", describe).handshake_timeout(timeout));
    let mut client = WsClient::on(TcpStream::connect(server.addr).unwrap());
    client.stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 8192\r\n\r\n").unwrap();
    let begun = Instant::now();
    for _ in 0..8 {
        client.wait_quietly(timeout / 6);
        client.stream.write_all(&[b'x'; 1024]).unwrap();
    }
    assert!(begun.elapsed() > timeout);
    assert_eq!(status(&client.read_head()), 200);
}

#[test]
fn an_answer_that_is_read_slowly_comes_whole() {
    const LENGTH: usize = 24 << 20;
    let server = TestServer::with(Hub::builder(), |server| {
        server.handle("/large", |_| Response::new(200).body(vec![b'x'; LENGTH]))
    });
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    // In 11 s: longer than an answer may pause, but it does not pause.
    let (begun, mut buffer, mut length) = (Instant::now(), vec![0; 1 << 20], 0);
    loop {
        let n = stream.read(&mut buffer).unwrap();
        length += n;
        if n == 0 {
            break;
        }
        let due = begun + Duration::from_millis(11_000 * length as u64 / LENGTH as u64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_secs(1)));
    }
    assert!(length > LENGTH, "{length} bytes after {:?}", begun.elapsed());
}

#[test]
fn an_answer_is_checked_before_it_leaves() {
    let server = TestServer::with(Hub::builder(), |server| {
        server.handle("/status", |request| {
            let status = request.head().query().unwrap().parse().unwrap();
            Response::text(status, "body").header("Content-Length", "4")
        })
    });
    let server = (server, |query: &str| format!("GET /status?{query} HTTP/1.1\nHost: a"));
    for bad in ["0", "42", "100", "101", "199", "600", "65535"] {
        let (head, body) = ask(&server.0, &server.1(bad), "");
        assert_eq!((status(&head), body.as_str()), (500, "internal error\n"), "{bad}");
    }
    for empty in ["204", "205", "304"] {
        let (head, body) = ask(&server.0, &server.1(empty), "");
        assert_eq!((status(&head).to_string().as_str(), body.as_str()), (empty, ""));
        assert_eq!(head.contains("Content-Length"), empty == "205", "{head}");
    }
}

#[test]
fn headers_of_the_application_do_not_stand_twice_and_are_valid() {
    let server = TestServer::with(Hub::builder(), |server| {
        let framed = |_: &Request| {
            Response::text(200, "four")
                .header("Content-Length", "400")
                .header("connection", "keep-alive")
                .header("Transfer-Encoding", "chunked")
                .header("CONTENT-TYPE", "text/csv")
        };
        server
            .handle("/framed", framed)
            .handle("/name", |_| Response::text(200, "x").header("X Y", "z"))
            .handle("/empty", |_| Response::text(200, "x").header("", "z"))
            .handle("/value", |_| Response::text(200, "x").header("X", "z\r\nInjected: 1"))
            .handle("/head", |_| Response::new(200).header("Content-Length", "123456"))
    });
    let (head, body) = ask(&server, "GET /framed HTTP/1.1\nHost: a", "");
    assert_eq!(body, "four");
    let named = |name: &str| head.to_lowercase().matches(&format!("\r\n{name}:")).count();
    assert_eq!(
        ["content-length", "connection", "transfer-encoding", "content-type"].map(named),
        [1, 1, 0, 1],
        "{head}"
    );
    assert!(head.contains("Content-Length: 4\r\n") && head.contains(": text/csv\r\n"), "{head}");
    for path in ["name", "empty", "value"] {
        let (head, body) = ask(&server, &format!("GET /{path} HTTP/1.1\nHost: a"), "");
        assert_eq!((status(&head), body.as_str()), (500, "internal error\n"), "{path}");
        assert!(!head.contains("Injected"), "{head}");
    }
    let (head, body) = ask(&server, "HEAD /head HTTP/1.1\nHost: a", "");
    assert!(head.contains("\r\nContent-Length: 123456\r\n") && body.is_empty(), "{head}");
}

#[test]
fn a_panicking_handler_answers_500_and_the_server_goes_on() {
    let server = server();
    for _ in 0..3 {
        let (head, body) = ask(&server, "GET /panic HTTP/1.1\nHost: a", "");
        assert_eq!((status(&head), body.as_str()), (500, "internal error\n"));
    }
    server.connect().close();
}

#[test]
fn probes_tell_the_state_as_json() {
    let server = server();
    let client = server.connect();
    let health = |path: &str| {
        let (head, body) = ask(&server, &format!("GET {path} HTTP/1.1\nHost: a"), "");
        assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
        assert!(head.contains("\r\nCache-Control: no-store\r\n"), "{head}");
        let mut json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(json["uptime_ns"].as_u64().unwrap() > 0);
        json.as_object_mut().unwrap().remove("uptime_ns");
        (status(&head), json.to_string())
    };
    let json = |alive: bool, ready: bool, state: &str, clients: usize| {
        serde_json::json!({"alive": alive, "ready": ready, "state": state, "clients": clients}).to_string()
    };
    assert_eq!(health("/healthz"), (200, json(true, true, "running", 1)));
    assert_eq!(health("/readyz"), (200, json(true, true, "running", 1)));
    assert_eq!(server.hub.drain(Duration::ZERO).unwrap_err().remaining, 1);
    assert_eq!(health("/healthz"), (200, json(true, false, "draining", 1)));
    assert_eq!(health("/readyz"), (503, json(true, false, "draining", 1)));
    client.close();
    server.hub.shutdown(PATIENCE).unwrap();
    assert_eq!(health("/healthz"), (503, json(false, false, "stopped", 0)));
    assert_eq!(health("/readyz"), (503, json(false, false, "stopped", 0)));
    let (head, _) = ask(&server, "POST /healthz HTTP/1.1\nHost: a", "");
    assert_eq!(status(&head), 405);
    assert!(head.contains("\r\nAllow: GET, HEAD\r\n"), "{head}");
}

#[test]
fn a_stopping_server_answers_half_a_request_with_503() {
    let server = server();
    let mut waiting = WsClient::on(TcpStream::connect(server.addr).unwrap());
    waiting.stream.write_all(b"GET /ws HTTP/1.1\r\nHost: ").unwrap();
    // Behind it in the accept queue: once this one is served, the first has its thread.
    server.connect().close();
    server.handle.shutdown(PATIENCE).unwrap();
    assert_eq!(status(&waiting.read_head()), 503);
    assert!(!server.listens(), "nobody listens any more");
}

#[test]
fn a_unix_socket_serves_the_same() {
    let path = std::env::temp_dir().join(format!("wshub-http-{}.sock", std::process::id()));
    let hub = Hub::builder()
        .on_message(|client, message| {
            assert_eq!(client.remote_addr(), None);
            Ok(client.send(message)?)
        })
        .build()
        .unwrap();
    let server = || Server::bind_unix(&path).unwrap().websocket("/ws", &hub).probes(&hub).spawn().unwrap();
    let handle = server();
    assert!(Listener::unix(&path).is_err(), "somebody listens there");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(upgrade_request("GET /ws HTTP/1.1", &[]).as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream.write_all(&[client_frame(common::TEXT, b"hi"), client_frame(common::CLOSE, b"\x03\xe8")].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"\x81\x02hi\x88\x02\x03\xe8");
    handle.shutdown(PATIENCE).unwrap();
    drop(handle);
    assert!(!path.exists(), "the socket file is removed");
    // A file that a crashed server has left behind is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let handle = server();
    assert!(UnixStream::connect(&path).is_ok());
    handle.shutdown(PATIENCE).unwrap();
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let hub = Hub::new();
    let bind = || Server::bind("127.0.0.1:0").unwrap().websocket("/ws", &hub);
    let cases = [
        (bind().handshake_timeout(Duration::ZERO), "handshake_timeout"),
        (bind().stack_size(1), "stack_size"),
        (bind().websocket("/ws", &hub), "/ws"),
        (bind().handle("x", describe), "\"x\""),
        (bind().fallback(describe).fallback(describe), "\"*\""),
    ];
    for (server, named) in cases {
        let error = server.spawn().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(named), "{error}");
    }
}
