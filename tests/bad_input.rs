//! Malformed handshakes and frames through real sockets, each with its answer. After all of them the server still
//! works.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "a test may fail by a panic, and tables are long")]

mod common;

use std::io::Write;

use common::{CLOSE, KEY, PING, PONG, TEXT, TestServer, client_frame, eventually, exchange, status, upgrade_request};
use wshub::{Config, Hub, Response};

const GET: &str = "GET /ws HTTP/1.1";

/// What a peer sends that is not a decent request, and the status that it gets; 0 for none at all.
fn handshakes() -> Vec<(&'static str, Vec<u8>, u16)> {
    let ask = |changes: &[&str]| upgrade_request(GET, changes).into_bytes();
    let line = |line: &str| upgrade_request(line, &[]).into_bytes();
    let raw = |from: &str, to: &str| upgrade_request(GET, &["X: y"]).replace(from, to).into_bytes();
    let behind = |bytes: &[u8]| [upgrade_request(GET, &[]).as_bytes(), bytes].concat();
    vec![
        // Two readers of one request could see two requests, or two hosts.
        ("two Host headers", ask(&["+Host: a"]), 400),
        ("two Host headers that differ in case", ask(&["+hOST: b"]), 400),
        ("no Host", ask(&["-Host"]), 400),
        ("a Host with a space", ask(&["Host: exa mple"]), 400),
        ("a Host that is a URL", ask(&["Host: http://a"]), 400),
        ("a Host with a user", ask(&["Host: user@a"]), 400),
        ("a Host with a port of letters", ask(&["Host: a:b"]), 400),
        ("a Host with half a bracket", ask(&["Host: [::1"]), 400),
        ("a Host with a path", ask(&["Host: a/b"]), 400),
        ("a Host with an address that is none", ask(&["Host: [::g]"]), 400),
        ("a Host with an empty port", ask(&["Host: a:"]), 101),
        ("a Host with an underscore", ask(&["Host: a_b"]), 101),
        ("a Host with a comma", ask(&["Host: a,b"]), 101),
        ("a Host that is an IPv6 address", ask(&["Host: [::1]:8080"]), 101),
        ("two Authorizations", ask(&["+Authorization: Bearer a", "+Authorization: Bearer b"]), 400),
        ("two User-Agents", ask(&["+User-Agent: a", "+User-Agent: b"]), 400),
        ("a Host that is not UTF-8", raw("Host: a", "Host: \u{80}").replace_bytes("\u{80}", b"\xff"), 400),
        ("Content-Length with a body", [ask(&["Content-Length: 5"]), b"hello".to_vec()].concat(), 400),
        ("Content-Length without its body", ask(&["Content-Length: 5"]), 400),
        ("two Content-Lengths", ask(&["Content-Length: 0", "+Content-Length: 0"]), 400),
        ("a list of Content-Lengths", ask(&["Content-Length: 0, 0"]), 400),
        ("a signed Content-Length", ask(&["Content-Length: +0"]), 400),
        ("an empty Content-Length", ask(&["Content-Length: "]), 400),
        ("a Content-Length over 64 bits", ask(&["Content-Length: 18446744073709551616"]), 400),
        ("Transfer-Encoding", [ask(&["Transfer-Encoding: chunked"]), b"0\r\n\r\n".to_vec()].concat(), 400),
        ("Transfer-Encoding of nothing known", ask(&["Transfer-Encoding: x"]), 400),
        ("both lengths", ask(&["Content-Length: 0", "Transfer-Encoding: chunked"]), 400),
        ("a second request behind the first", behind(&line("GET /plain HTTP/1.1")), 400),
        ("a frame behind the request", behind(&client_frame(TEXT, b"early")), 400),
        ("garbage behind the request", behind(b"\0"), 400),
        ("two Upgrade headers", ask(&["+Upgrade: websocket"]), 400),
        ("two Upgrade headers that differ", ask(&["+Upgrade: h2c"]), 400),
        ("two Origins", ask(&["Origin: http://a", "+Origin: http://b"]), 400),
        // Line ends and spaces.
        ("a bare CR in a header", raw("X: y", "X: y\rX-Smuggled: z"), 400),
        ("a bare CR at the end of a header", raw("X: y\r\n", "X: y\r\r\n"), 400),
        ("a bare LF in a header", raw("X: y", "X: y\nX-Smuggled: z"), 400),
        ("bare LF everywhere", raw("\r\n", "\n"), 400),
        ("bare LF behind empty lines", [b"\r\n\r\n".to_vec(), raw("\r\n", "\n")].concat(), 400),
        ("LF CR", raw("X: y\r\n", "X: y\n\r"), 400),
        ("a folded header", raw("X: y", "X: y\r\n folded"), 400),
        ("a header folded with a tab", raw("X: y", "X: y\r\n\tfolded"), 400),
        ("a first header that is folded", raw("Host: a", " Host: a"), 400),
        ("NUL in a header", raw("X: y", "X: y\0z"), 400),
        ("NUL in a name", raw("X: y", "X\0: y"), 400),
        ("NUL in the target", line("GET /ws\0 HTTP/1.1"), 400),
        ("a control character in a header", raw("X: y", "X: \u{1}"), 400),
        ("a space before the colon", raw("Host: a", "Host : a"), 400),
        ("a space in a name", raw("X: y", "X Y: z"), 400),
        ("a header without a name", raw("X: y", ": y"), 400),
        ("a header without a colon", raw("X: y", "X"), 400),
        ("a name that is not ASCII", raw("X: y", "Xé: y"), 400),
        ("a value that is not ASCII", raw("X: y", "X: é"), 101),
        ("a value that is not UTF-8", raw("X: y", "X: \u{80}").replace_bytes("\u{80}", b"\xff"), 101),
        // Request lines.
        ("an absolute target of the same host", line("GET http://a/ws HTTP/1.1"), 101),
        ("an absolute target of another host", line("GET http://b/ws HTTP/1.1"), 400),
        ("an absolute target with a user", line("GET http://a@b/ws HTTP/1.1"), 400),
        ("an absolute target of another scheme", line("GET ftp://a/ws HTTP/1.1"), 400),
        ("an absolute target without a host", line("GET http:///ws HTTP/1.1"), 400),
        ("a target of two slashes", line("GET //a/ws HTTP/1.1"), 404),
        ("an empty target", line("GET  HTTP/1.1"), 400),
        ("no target", line("GET HTTP/1.1"), 400),
        ("the target *", line("GET * HTTP/1.1"), 404),
        ("OPTIONS *", line("OPTIONS * HTTP/1.1"), 404),
        ("a target without a slash", line("GET ws HTTP/1.1"), 400),
        ("a target with a space", line("GET /ws x HTTP/1.1"), 400),
        ("a target that climbs", line("GET /x/../ws HTTP/1.1"), 404),
        ("an encoded target", line("GET /%77s HTTP/1.1"), 404),
        ("a fragment", line("GET /ws#x HTTP/1.1"), 404),
        ("CONNECT", line("CONNECT a:80 HTTP/1.1"), 400),
        ("a lower-case method", line("get /ws HTTP/1.1"), 405),
        ("an unknown method", line("BREW /ws HTTP/1.1"), 405),
        ("a method that is no token", line("G(T /ws HTTP/1.1"), 400),
        ("no method", line(" /ws HTTP/1.1"), 400),
        ("two spaces", line("GET  /ws HTTP/1.1"), 400),
        ("a tab for a space", line("GET\t/ws HTTP/1.1"), 400),
        ("HTTP/0.9", b"GET /ws\r\n\r\n".to_vec(), 400),
        ("HTTP/1.0", line("GET /ws HTTP/1.0"), 400),
        ("HTTP/1.2", line("GET /ws HTTP/1.2"), 400),
        ("HTTP/2.0", line("GET /ws HTTP/2.0"), 400),
        ("a lower-case version", line("GET /ws http/1.1"), 400),
        // Other protocols.
        ("an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 400),
        ("a TLS ClientHello", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(), 400),
        ("an SSH banner", b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec(), 400),
        ("a frame instead of a request", client_frame(TEXT, b"hello"), 400),
        ("zeros", vec![0; 5000], 400),
        ("high bytes", vec![0xff; 5000], 400),
        ("nothing", Vec::new(), 0),
        ("half a request", upgrade_request(GET, &[]).as_bytes()[..50].to_vec(), 0),
        ("empty lines without end", b"\r\n".repeat(5000), 431),
        ("a method without end", vec![b'A'; 9000], 431),
        // Sizes.
        ("a head of 9 KiB", ask(&[&format!("X: {}", "x".repeat(9 * 1024))]), 431),
        ("a target of 9 KiB", line(&format!("GET /ws?{} HTTP/1.1", "x".repeat(9 * 1024))), 431),
        ("a header name of 9 KiB", ask(&[&format!("{}: x", "X".repeat(9 * 1024))]), 431),
        ("65 headers", ask(&["+X: y"; 60]), 431),
        ("2000 empty headers", ask(&["+X:"; 2000]), 431),
        // The upgrade itself.
        ("no key", ask(&["-Sec-WebSocket-Key"]), 400),
        ("a short key", ask(&["Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="]), 400),
        ("a long key", ask(&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSBpcyBsb25n"]), 400),
        ("a key without padding", ask(&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"]), 400),
        ("a key in the URL alphabet", ask(&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25-_w=="]), 400),
        ("a key with bits left over", ask(&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="]), 400),
        ("two keys", ask(&[&format!("+Sec-WebSocket-Key: {KEY}")]), 400),
        ("two keys in one", ask(&[&format!("Sec-WebSocket-Key: {KEY}, {KEY}")]), 400),
        ("no version", ask(&["-Sec-WebSocket-Version"]), 426),
        ("an old version", ask(&["Sec-WebSocket-Version: 8"]), 426),
        ("a list of versions", ask(&["Sec-WebSocket-Version: 13, 8, 7"]), 426),
        ("two versions", ask(&["+Sec-WebSocket-Version: 13"]), 400),
        ("a version with a zero", ask(&["Sec-WebSocket-Version: 013"]), 426),
        ("no Upgrade", ask(&["-Upgrade"]), 400),
        ("an Upgrade to something else", ask(&["Upgrade: h2c"]), 400),
        ("no Connection", ask(&["-Connection"]), 400),
        ("a Connection that keeps alive", ask(&["Connection: keep-alive"]), 400),
        ("an Origin from elsewhere", ask(&["Origin: http://b"]), 403),
        ("an Origin that is not UTF-8", raw("X: y", "Origin: \u{80}").replace_bytes("\u{80}", b"\xff"), 403),
        ("an empty Origin", ask(&["Origin: "]), 403),
        ("an empty Host", ask(&["Host: "]), 101),
        ("an extension with odd parameters", ask(&["Sec-WebSocket-Extensions: ;;=\"x,, permessage-deflate; =="]), 101),
        ("an odd subprotocol", ask(&["Sec-WebSocket-Protocol: ,,\"x\" y,"]), 101),
    ]
}

trait ReplaceBytes {
    fn replace_bytes(self, from: &str, to: &[u8]) -> Self;
}

impl ReplaceBytes for Vec<u8> {
    /// For what a string cannot hold.
    fn replace_bytes(mut self, from: &str, to: &[u8]) -> Self {
        let at = self.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        self.splice(at..at + from.len(), to.iter().copied());
        self
    }
}

/// What a connected peer sends that is not decent, and the close code that it gets; 0 for an end without one.
fn frames() -> Vec<(&'static str, Vec<u8>, u16)> {
    let header = |first: u8, length: u64| [&[first, 0xff], length.to_be_bytes().as_slice(), &[0; 4]].concat();
    let many = |frames: &[(u8, &[u8])]| frames.iter().flat_map(|(f, p)| client_frame(*f, p)).collect::<Vec<u8>>();
    vec![
        ("unmasked text", b"\x81\x05hello".to_vec(), 1002),
        ("an unmasked empty frame", b"\x81\x00".to_vec(), 1002),
        (
            "an unmasked continuation of a masked start",
            [client_frame(0x01, b"a"), b"\x80\x01b".to_vec()].concat(),
            1002,
        ),
        ("RSV1 without an extension", client_frame(0xc1, b"a"), 1002),
        ("RSV2", client_frame(0xa1, b"a"), 1002),
        ("RSV3", client_frame(0x91, b"a"), 1002),
        ("RSV1 on a continuation", many(&[(0x01, b"a"), (0xc0, b"b")]), 1002),
        ("RSV1 on a ping", client_frame(0xc9, b""), 1002),
        ("opcode 3", client_frame(0x83, b""), 1002),
        ("opcode 7", client_frame(0x87, b""), 1002),
        ("opcode 11", client_frame(0x8b, b""), 1002),
        ("opcode 15", client_frame(0x8f, b""), 1002),
        ("a reserved opcode that does not end", client_frame(0x03, b""), 1002),
        ("a ping in fragments", many(&[(0x09, b"a"), (0x80, b"b")]), 1002),
        ("a close in fragments", many(&[(0x08, b"\x03"), (0x80, b"\xe8")]), 1002),
        ("a long ping", client_frame(PING, &[0; 126]), 1002),
        ("a long pong", client_frame(PONG, &[0; 1000]), 1002),
        ("a long close", client_frame(CLOSE, &[b'x'; 126]), 1002),
        ("a ping that announces a TiB", header(PING, 1 << 40), 1002),
        ("a continuation of nothing", client_frame(0x80, b"a"), 1002),
        ("an empty continuation of nothing", client_frame(0x00, b""), 1002),
        ("a second end", many(&[(0x01, b"a"), (0x80, b"b"), (0x80, b"c")]), 1002),
        ("a text inside a text", many(&[(0x01, b"a"), (0x81, b"b")]), 1002),
        ("a binary inside a text", many(&[(0x01, b"a"), (0x02, b"b")]), 1002),
        ("a length of 2^63", header(0x82, 1 << 63), 1002),
        ("a length of 2^64 - 1", header(0x82, u64::MAX), 1002),
        ("a length of 2^63 - 1", header(0x82, (1 << 63) - 1), 1009),
        ("a byte too many", client_frame(0x82, &[0; 1001]), 1009),
        ("a byte too many in fragments", many(&[(0x02, &[0; 1000]), (0x80, &[0; 1])]), 1009),
        (
            "a limit that is passed while a frame is announced",
            [client_frame(0x02, b"a"), header(0x80, u64::MAX >> 1)].concat(),
            1009,
        ),
        ("a byte that is not UTF-8", client_frame(TEXT, b"a\xff"), 1007),
        ("a surrogate", client_frame(TEXT, b"\xed\xa0\x80"), 1007),
        ("an overlong slash", client_frame(TEXT, b"\xc0\xaf"), 1007),
        ("an end inside a character", client_frame(TEXT, b"\xe2\x82"), 1007),
        ("an end inside a character, in fragments", many(&[(0x01, b"\xe2"), (0x80, b"\x82")]), 1007),
        ("a bad byte in a frame that never ends", [header(TEXT, 1000), b"a\xff".to_vec()].concat(), 1007),
        ("a close of one byte", client_frame(CLOSE, b"\x03"), 1002),
        ("a close with code 0", client_frame(CLOSE, b"\0\0"), 1002),
        ("a close with 1005", client_frame(CLOSE, b"\x03\xed"), 1002),
        ("a close with 1006", client_frame(CLOSE, b"\x03\xee"), 1002),
        ("a close with 5000", client_frame(CLOSE, b"\x13\x88"), 1002),
        ("a close with a reason that is not UTF-8", client_frame(CLOSE, b"\x03\xe8\xff"), 1007),
        ("a close inside a message", many(&[(0x01, b"a"), (CLOSE, b"\x03\xe8")]), 1000),
        ("frames behind a close", many(&[(CLOSE, b"\x0f\xa0"), (TEXT, b"late"), (0xff, b"?")]), 4000),
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 1002),
        ("zeros", vec![0; 5000], 1002),
        ("high bytes", vec![0xff; 5000], 1002),
        ("half a header", b"\x81".to_vec(), 0),
        ("half a length", b"\x81\xfe\x01".to_vec(), 0),
        ("half a mask", b"\x81\x85\0\0".to_vec(), 0),
        ("half a payload", b"\x81\x85\0\0\0\0hel".to_vec(), 0),
        ("half a message", client_frame(0x01, b"hello"), 0),
    ]
}

#[test]
fn every_odd_input_has_its_answer_and_hurts_nobody() {
    let hub = Hub::builder().config(Config::default().max_message_size(1000));
    let server = TestServer::with(hub.on_message(|client, message| Ok(client.send(message)?)), |server| {
        server.handle("/plain", |_| Response::text(200, "plain"))
    });
    let mut bystander = server.connect();
    let (handshakes, frames) = (handshakes(), frames());
    assert!(handshakes.len() + frames.len() >= 150);
    let mut wrong = Vec::new();
    for (what, bytes, expected) in &handshakes {
        let answer = exchange(server.addr, bytes);
        if status(&answer) != *expected {
            wrong.push(format!("{what}: {} instead of {expected}", status(&answer)));
        }
    }
    for (what, bytes, expected) in &frames {
        let mut client = server.connect();
        client.stream.write_all(bytes).unwrap();
        if *expected == 0 {
            client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let mut got = 0;
        while let Some(frame) = client.next_frame() {
            assert_eq!(got, 0, "{what}: {frame:?} behind the close frame");
            if frame.first == CLOSE {
                got = frame.close().0;
                // The connection ends when this side ends.
                client.stream.shutdown(std::net::Shutdown::Write).unwrap();
            }
        }
        if got != *expected {
            wrong.push(format!("{what}: {got} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");

    // All of them have left, and everything works.
    eventually("only the bystander is left", || server.hub.client_count() == 1);
    bystander.send_text("still here");
    assert_eq!(bystander.text(), "still here");
    assert!(exchange(server.addr, b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n").ends_with("\r\n\r\nplain"));
    let mut late = server.connect();
    late.send_text("hello");
    assert_eq!(late.text(), "hello");
    late.close();
    bystander.close();
}
