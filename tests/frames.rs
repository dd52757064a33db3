//! Frames and messages (RFC 6455 §5): echoes, and refusals with their codes.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use common::{
    BINARY, CLOSE, Frame, PATIENCE, PING, PONG, TEXT, TestServer, WsClient, client_frame, counted, errors, eventually,
};
use wshub::{Config, Hub, HubBuilder, Message, SendError, metrics::ErrorType};

/// First bytes of frames that do not end their message.
const TEXT_START: u8 = 0x01;
const BINARY_START: u8 = 0x02;
const MIDDLE: u8 = 0x00;
const LAST: u8 = 0x80;

fn echo() -> HubBuilder {
    Hub::builder().on_message(|client, message| Ok(client.send(message)?))
}

fn echo_server() -> TestServer {
    TestServer::new(echo())
}

/// The header of a masked frame (mask 0) that announces any length in its longest form.
fn announce(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xff], length.to_be_bytes().as_slice(), &[0; 4]].concat()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| b'a' + u8::try_from(i % 26).unwrap()).collect()
}

fn frame(first: u8, payload: &[u8]) -> Frame {
    Frame { first, payload: payload.to_vec() }
}

/// Sends bytes to a fresh connection and expects to be failed with this code.
fn assert_fails(server: &TestServer, what: &str, bytes: &[u8], code: u16) {
    let mut client = server.connect();
    client.stream.write_all(bytes).unwrap();
    assert_eq!(client.expect_close().0, code, "{what}");
}

#[test]
fn messages_of_every_length_form_come_back() {
    let config = Config::default().max_message_size(1 << 20).queue_bytes(2 << 20);
    let server = TestServer::new(echo().config(config));
    let mut client = server.connect();
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 1 << 20] {
        for kind in [TEXT, BINARY] {
            client.send_frame(kind, &pattern(length));
            assert!(client.frame() == frame(kind, &pattern(length)), "{length} bytes of {kind:#x}");
        }
    }
    client.close();
}

#[test]
fn a_length_in_a_longer_form_than_needed_is_understood() {
    let server = echo_server();
    let mut client = server.connect();
    client.stream.write_all(&[&announce(TEXT, 2), b"hi".as_slice()].concat()).unwrap();
    client.stream.write_all(b"\x81\xfe\x00\x02\0\0\0\0ho").unwrap();
    assert_eq!((client.text().as_str(), client.text().as_str()), ("hi", "ho"));
    client.close();
}

#[test]
fn a_message_of_64_mib_comes_back_when_it_is_allowed() {
    // Without optimization, TLS takes half a minute for so much.
    let size = if common::over_tls::is_wanted() { 8 << 20 } else { 64 << 20 };
    // An emulated processor takes longer than between two pings.
    let config = Config::default().ping_period(Duration::from_secs(600)).pong_timeout(Duration::from_secs(1200));
    let server = TestServer::new(echo().config(config.max_message_size(size).queue_bytes(size)));
    let mut client = server.connect();
    let message = vec![0x5a; size];
    client.send_frame(BINARY, &message);
    let answer = client.frame();
    assert_eq!((answer.first, answer.payload.len()), (BINARY, size));
    assert!(answer.payload == message);
    client.close();
}

#[test]
fn fragments_make_one_message() {
    let server = echo_server();
    let mut client = server.connect();
    let cuts: [&[&str]; 5] =
        [&["", "hello"], &["hello", ""], &["h", "e", "l", "l", "o"], &["", "", "", ""], &["he", "llo"]];
    for (start, whole) in [(TEXT_START, TEXT), (BINARY_START, BINARY)] {
        for parts in cuts {
            for (i, part) in parts.iter().enumerate() {
                let first = if i == 0 { start } else { MIDDLE } | if i + 1 == parts.len() { LAST } else { 0 };
                client.send_frame(first, part.as_bytes());
            }
            assert_eq!(client.frame(), frame(whole, parts.concat().as_bytes()), "{parts:?}");
        }
    }
    client.close();
}

#[test]
fn control_frames_between_fragments_are_answered_at_once() {
    let server = echo_server();
    let mut client = server.connect();
    for start in [TEXT_START, BINARY_START] {
        client.send_frame(start, b"one ");
        for (first, payload) in [(PING, "a"), (PONG, "not asked for"), (PING, "b")] {
            client.send_frame(first, payload.as_bytes());
            if first == PING {
                // Before anything else of the message is sent.
                assert_eq!(client.frame(), frame(PONG, payload.as_bytes()));
            }
            client.send_frame(MIDDLE, b"more ");
        }
        client.send_frame(LAST, b"end");
        assert_eq!(client.frame(), frame(start | 0x80, b"one more more more end"));
    }
    client.send_frame(TEXT_START, b"never finished");
    client.close();
}

#[test]
fn every_mask_is_taken_off() {
    let server = echo_server();
    let mut client = server.connect();
    for mask in [[0; 4], [0xff; 4], [1, 2, 3, 4], [0, 0, 0, 0x80]] {
        for length in [1, 3, 4, 7, 8, 9, 100] {
            let plain = pattern(length);
            let masked = plain.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m);
            let head = [0x81, 0x80 | u8::try_from(length).unwrap()];
            let bytes: Vec<u8> = head.into_iter().chain(mask).chain(masked).collect();
            client.stream.write_all(&bytes).unwrap();
            assert_eq!(client.text().as_bytes(), plain, "{mask:?}");
        }
    }
    client.close();
}

#[test]
fn violations_of_the_framing_get_1002() {
    let (metrics, builder) = counted(echo());
    let server = TestServer::new(builder);
    let mut cases = vec![
        ("unmasked text".to_owned(), b"\x81\x02hi".to_vec()),
        ("unmasked ping".to_owned(), b"\x89\x00".to_vec()),
        ("unmasked close".to_owned(), b"\x88\x02\x03\xe8".to_vec()),
        ("a ping in fragments".to_owned(), client_frame(0x09, b"a")),
        ("a pong in fragments".to_owned(), client_frame(0x0a, b"a")),
        ("a close in fragments".to_owned(), client_frame(0x08, b"")),
        ("a ping of 126 bytes".to_owned(), client_frame(PING, &[0; 126])),
        ("a pong of 126 bytes".to_owned(), client_frame(PONG, &[0; 126])),
        ("a ping of 64 KiB, announced".to_owned(), announce(PING, 65_536)),
        ("a continuation of nothing".to_owned(), client_frame(MIDDLE, b"a")),
        ("an end of nothing".to_owned(), client_frame(LAST, b"a")),
        ("a text inside a text".to_owned(), [TEXT_START, TEXT].map(|first| client_frame(first, b"a")).concat()),
        ("a start inside a binary".to_owned(), [BINARY_START, BINARY_START].map(|f| client_frame(f, b"a")).concat()),
        ("a length of 2^63".to_owned(), announce(BINARY, 1 << 63)),
        ("a length of 2^64 - 1".to_owned(), announce(TEXT, u64::MAX)),
    ];
    for bits in 1..8u8 {
        for opcode in [1, 2, 9, 10] {
            let first = 0x80 | bits << 4 | opcode;
            cases.push((format!("reserved bits: {first:#x}"), client_frame(first, b"a")));
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push((format!("reserved opcode {opcode}"), client_frame(0x80 | opcode, b"")));
    }
    for (what, bytes) in &cases {
        // A text in front, half of another behind.
        let bytes = [client_frame(TEXT, b"good"), bytes.clone(), client_frame(TEXT, b"late")[..7].to_vec()].concat();
        let mut client = server.connect();
        client.stream.write_all(&bytes).unwrap();
        assert_eq!(client.text(), "good", "{what}");
        assert_eq!(client.expect_close().0, 1002, "{what}");
    }
    eventually("all are counted", || errors(&metrics, ErrorType::ProtocolError) == cases.len() as u64);
}

#[test]
fn characters_may_be_cut_anywhere() {
    let server = echo_server();
    let mut client = server.connect();
    let text = "aé€😀\u{10ffff}\u{0}";
    for a in 0..=text.len() {
        for b in a..=text.len() {
            let [x, y, z] = [&text.as_bytes()[..a], &text.as_bytes()[a..b], &text.as_bytes()[b..]];
            let frames = [(TEXT_START, x), (MIDDLE, y), (LAST, z)].map(|(first, part)| client_frame(first, part));
            client.stream.write_all(&frames.concat()).unwrap();
            assert_eq!(client.text(), text, "cut at {a} and {b}");
        }
    }
    client.close();
}

#[test]
fn text_that_is_not_utf8_gets_1007() {
    let server = echo_server();
    let bad: [&[u8]; 9] = [
        b"\xff",
        b"\x80",
        b"ok \xc0\xaf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"ends early \xc3",
        b"ends early \xf0\x9f\x98",
    ];
    for bytes in bad {
        assert_fails(&server, &format!("{bytes:x?}"), &client_frame(TEXT, bytes), 1007);
        let parts = [client_frame(TEXT_START, &bytes[..1]), client_frame(LAST, &bytes[1..])].concat();
        assert_fails(&server, &format!("{bytes:x?} in fragments"), &parts, 1007);
        let mut client = server.connect();
        client.send_frame(BINARY, bytes);
        assert_eq!(client.frame(), frame(BINARY, bytes), "any bytes are good binary");
        client.close();
    }
}

#[test]
fn bad_text_fails_inside_an_unfinished_frame() {
    let server = echo_server();
    for bad in [b"fine \xff".as_slice(), b"\xf4\x90", b"\xed\xa0"] {
        assert_fails(&server, "the rest of the frame never comes", &[&announce(TEXT, 1000), bad].concat(), 1007);
        let fragment = client_frame(TEXT_START, bad);
        assert_fails(&server, "the rest of the message never comes", &fragment, 1007);
    }
}

#[test]
fn messages_over_the_limit_get_1009_by_their_header_alone() {
    let server = TestServer::new(echo().config(Config::default().max_message_size(1000)));
    let parts = |lengths: [usize; 3]| {
        let [a, b, c] = lengths.map(pattern);
        [client_frame(BINARY_START, &a), client_frame(MIDDLE, &b), client_frame(LAST, &c)].concat()
    };
    assert_fails(&server, "a header", &announce(BINARY, 1001), 1009);
    assert_fails(&server, "a header of a fragment", &announce(TEXT_START, 1001), 1009);
    assert_fails(&server, "the largest length", &announce(BINARY, (1 << 63) - 1), 1009);
    assert_fails(&server, "a sum", &parts([999, 1, 1]), 1009);
    assert_fails(
        &server,
        "a sum that overflows",
        &[client_frame(BINARY_START, b"a"), announce(LAST, (1 << 63) - 1)].concat(),
        1009,
    );
    let mut client = server.connect();
    for message in [client_frame(BINARY, &pattern(1000)), parts([998, 1, 1]), parts([1000, 0, 0])] {
        client.stream.write_all(&message).unwrap();
        assert_eq!(client.frame().payload.len(), 1000);
    }
    client.close();
}

#[test]
fn a_client_that_sends_the_whole_of_a_large_message_still_reads_why_it_was_refused() {
    let server = echo_server();
    let mut client = server.connect();
    client.send_text("first");
    client.send_frame(BINARY, &vec![0; 4 << 20]);
    assert_eq!(client.text(), "first");
    assert_eq!(client.expect_close(), (1009, "message too big".into()));
}

#[test]
fn a_limit_of_0_leaves_empty_messages() {
    let server = TestServer::new(echo().config(Config::default().max_message_size(0)));
    let mut client = server.connect();
    client.send_text("");
    assert_eq!(client.text(), "");
    client.send_text("a");
    assert_eq!(client.expect_close().0, 1009);
}

#[test]
fn messages_before_a_violation_are_answered_and_those_behind_it_are_not() {
    let server = echo_server();
    for violation in [client_frame(0xc1, b"x"), client_frame(TEXT, b"\xff"), announce(BINARY, 1 << 40)] {
        let mut client = server.connect();
        let mut bytes: Vec<u8> = (0..100).flat_map(|i| client_frame(TEXT, i.to_string().as_bytes())).collect();
        bytes.extend(violation);
        bytes.extend(client_frame(TEXT, b"late"));
        client.stream.write_all(&bytes).unwrap();
        for i in 0..100 {
            assert_eq!(client.text(), i.to_string());
        }
        assert!(matches!(client.expect_close().0, 1002 | 1007 | 1009));
    }
}

#[test]
fn pings_come_back_as_pongs_with_the_same_payload() {
    let server = echo_server();
    let mut client = server.connect();
    for payload in [&b""[..], b"x", &[0xff; 124], &[0; 125]] {
        client.send_frame(PING, payload);
        assert_eq!(client.frame(), frame(PONG, payload));
    }
    client.close();
}

#[test]
fn pongs_that_nobody_asked_for_are_ignored() {
    let server = echo_server();
    let mut client = server.connect();
    for payload in [&b""[..], b"x", &[0; 125]] {
        client.send_frame(PONG, payload);
    }
    client.send_text("still here");
    assert_eq!(client.frame(), frame(TEXT, b"still here"));
    client.close();
}

#[test]
fn a_full_queue_neither_drops_nor_delays_a_pong() {
    let (report, marks) = channel();
    let server =
        TestServer::new(Hub::builder().on_message(move |client, _| Ok(report.send(client.queue_depth().messages)?)));
    let mut client = server.connect();
    let message = Message::binary(vec![0; 32 * 1024]);
    let stalled = &server.hub.clients()[0];
    let mut queued = 0;
    for _ in 0..10 {
        // Full for half a second: the socket takes no more, and the queue is full besides.
        while stalled.send_timeout(&message, Duration::from_millis(500)).is_ok() {
            queued += 1;
        }
        assert!(matches!(stalled.send(&message), Err(SendError::Full(_))));
        // What the client sends tells the kernel again how much it would take, which may be more than before.
        client.send_text("mark");
        if marks.recv_timeout(PATIENCE).unwrap() > 16 {
            break;
        }
    }
    client.send_frame(PING, b"are you there?");
    client.send_text("mark");
    // The reading side does not wait for the writing one.
    let in_queue = marks.recv_timeout(PATIENCE).unwrap();
    let (mut before, mut after) = (0, None);
    while before + after.unwrap_or(0) < queued || after.is_none() {
        let frame = client.frame();
        match (frame.first, after.as_mut()) {
            (BINARY, None) => before += 1,
            (BINARY, Some(n)) => *n += 1,
            _ => {
                assert_eq!((frame.first, frame.payload.as_slice()), (PONG, b"are you there?".as_slice()));
                after = Some(0);
            }
        }
    }
    // It goes before all that was still in the queue then, but for a batch that was just being taken from it.
    assert!(after.is_some_and(|n| n + 4 > in_queue), "{after:?} of {queued} came behind the pong, not {in_queue}");
    client.close();
}

#[test]
fn frames_may_drip_in() {
    let server = echo_server();
    let mut client = server.connect();
    let stream = [
        client_frame(TEXT, "drop by dröp".as_bytes()),
        client_frame(BINARY, &pattern(300)),
        client_frame(TEXT_START, b"a"),
        client_frame(PING, b"p"),
        client_frame(LAST, b"b"),
        client_frame(CLOSE, b"\x03\xe8done"),
    ]
    .concat();
    for byte in stream {
        client.stream.write_all(&[byte]).unwrap();
    }
    let mut frames: Vec<Frame> = (0..5).map(|_| client.frame()).collect();
    // A pong may overtake messages.
    let pong = frames.iter().position(|frame| frame.first == PONG).unwrap();
    assert_eq!(frames.remove(pong), frame(PONG, b"p"));
    let expected = [
        frame(TEXT, "drop by dröp".as_bytes()),
        frame(BINARY, &pattern(300)),
        frame(TEXT, b"ab"),
        frame(CLOSE, b"\x03\xe8"),
    ];
    assert_eq!(frames, expected);
    client.expect_end();
}

#[test]
fn thousands_of_frames_in_one_write_come_back_in_order() {
    let server = TestServer::new(echo().config(Config::default().queue_messages(5000).queue_bytes(8 << 20)));
    let client = server.connect();
    let mut writer: TcpStream = client.stream.try_clone().unwrap();
    let mut reader: WsClient = client;
    let bytes: Vec<u8> = (0..5000).flat_map(|i| client_frame(TEXT, format!("message {i}").as_bytes())).collect();
    let sending = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    for i in 0..5000 {
        assert_eq!(reader.text(), format!("message {i}"));
    }
    sending.join().unwrap();
    reader.close();
}
