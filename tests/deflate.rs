//! permessage-deflate over real sockets: negotiation, compression, refusals.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::stream::SseClient;
use common::{BINARY, CLOSE, Frame, Log, TEXT, TestServer, WsClient, client_frame, counted, errors, eventually};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use wshub::{Config, DropPolicy, Hub, HubBuilder, Message, Target, metrics::ErrorType};

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
/// FIN and RSV1.
const COMPRESSED: u8 = 0xc0;

fn compressing(builder: HubBuilder) -> HubBuilder {
    builder.map_config(|config| config.compression(true).compression_min_size(100))
}

fn echo() -> HubBuilder {
    compressing(Hub::builder().on_message(|client, message| Ok(client.send(message)?)))
}

fn connect(server: &TestServer) -> WsClient {
    let (head, socket) = WsClient::try_connect(server.addr, "/ws", OFFER);
    let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert!(head.contains(&format!("\r\nSec-WebSocket-Extensions: {answer}\r\n")), "{head}");
    socket
}

fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 100);
    Compress::new(Compression::new(6), false).compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

/// What a frame carries; and whether it was compressed.
fn payload(frame: &Frame) -> (String, bool) {
    if frame.first & 0x40 == 0 {
        return (String::from_utf8(frame.payload.clone()).unwrap(), false);
    }
    let wire = [&frame.payload[..], &[0, 0, 0xff, 0xff]].concat();
    let mut out = Vec::with_capacity(1 << 21);
    Decompress::new(false).decompress_vec(&wire, &mut out, FlushDecompress::Sync).unwrap();
    (String::from_utf8(out).unwrap(), true)
}

#[test]
fn nothing_is_agreed_on_unless_both_sides_want_it() {
    let off = TestServer::new(Hub::builder());
    assert!(!WsClient::try_connect(off.addr, "/ws", OFFER).0.contains("Extensions"));
    let on = TestServer::new(echo());
    assert!(!WsClient::try_connect(on.addr, "/ws", "").0.contains("Extensions"));
    let bad = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n";
    let (head, mut socket) = WsClient::try_connect(on.addr, "/ws", bad);
    assert!(head.starts_with("HTTP/1.1 101 ") && !head.contains("Extensions"), "{head}");
    socket.send_text(&"x".repeat(200));
    assert_eq!(socket.text(), "x".repeat(200));
    let narrow = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10\r\n";
    let (head, _narrow) = WsClient::try_connect(on.addr, "/ws", narrow);
    assert!(head.contains("; server_max_window_bits=10\r\n"), "{head}");
    assert_eq!(on.hub.clients().iter().filter(|client| client.is_compressed()).count(), 1);
}

#[test]
fn messages_go_both_ways_compressed_when_that_pays() {
    let server = TestServer::new(echo());
    let mut socket = connect(&server);
    let long = "a long text, ".repeat(1000);
    for (text, is_compressed) in [("short", false), (long.as_str(), true), ("", false), (&long[..100], true)] {
        socket.send_frame(TEXT | COMPRESSED, &deflate(text.as_bytes()));
        assert_eq!(payload(&socket.frame()), (text.to_owned(), is_compressed));
        socket.send_text(text);
        assert_eq!(payload(&socket.frame()), (text.to_owned(), is_compressed), "a client need not compress");
    }
    socket.send_frame(BINARY | COMPRESSED, &deflate(long.as_bytes()));
    assert_eq!(socket.frame().first, BINARY | COMPRESSED);
}

#[test]
fn a_compressed_message_may_come_in_fragments_with_pings_between() {
    let server = TestServer::new(echo());
    let mut socket = connect(&server);
    let text = "fragment by fragment, ".repeat(100);
    let wire = deflate(text.as_bytes());
    for step in [1, 7, wire.len()] {
        let mut parts = wire.chunks(step).peekable();
        let mut first = 0x41;
        while let Some(part) = parts.next() {
            socket.send_frame(first | if parts.peek().is_none() { 0x80 } else { 0 }, part);
            if parts.peek().is_some() {
                socket.sync();
            }
            first = 0;
        }
        assert_eq!(payload(&socket.frame()).0, text);
    }
}

#[test]
fn violations_close_with_their_codes() {
    let (metrics, builder) = counted(echo());
    let server = TestServer::new(builder.map_config(|config| config.max_message_size(100_000)));
    let cases: [(u16, Vec<Vec<u8>>); 10] = [
        // RSV1 on a continuation, on a control frame, other reserved bits.
        (1002, vec![client_frame(0x41, &deflate(b"ab")[..1]), client_frame(0xc0, &deflate(b"ab")[1..])]),
        (1002, vec![client_frame(0xc9, b"")]),
        (1002, vec![client_frame(0xe1, b"")]),
        (1007, vec![client_frame(TEXT | COMPRESSED, &[0xff, 0xff, 0xff])]),
        (1007, vec![client_frame(TEXT | COMPRESSED, &deflate(b"\xff\xfe"))]),
        // Cut messages: of codes, of a stored block, and in fragments of which the last is empty.
        (1007, vec![client_frame(TEXT | COMPRESSED, &[0xf2, 0x48, 0xcd])]),
        (1007, vec![client_frame(BINARY | COMPRESSED, b"\x00\x64\x00\x9b\xff0123456789")]),
        (1007, vec![client_frame(0x41, &deflate(b"{\"amount\":1000000}")[..14]), client_frame(0x80, b"")]),
        // A bomb, and a message that is announced to be far too long.
        (1009, vec![client_frame(BINARY | COMPRESSED, &deflate(&vec![0; 100_001]))]),
        (1009, vec![vec![0xc2, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]]),
    ];
    for (number, (code, frames)) in cases.into_iter().enumerate() {
        let mut socket = connect(&server);
        for frame in frames {
            std::io::Write::write_all(&mut socket.stream, &frame).unwrap();
        }
        let frame = socket.frame();
        assert_eq!((frame.first, frame.close().0), (CLOSE, code), "case {number}");
    }
    // Counted after the close frame is sent.
    eventually("all are counted", || errors(&metrics, ErrorType::ProtocolError) == 10);
    let mut plain = server.connect();
    plain.send_frame(TEXT | COMPRESSED, &deflate(b"x"));
    assert_eq!(plain.frame().close().0, 1002, "nothing was agreed on");
    let mut fits = connect(&server);
    fits.send_frame(BINARY | COMPRESSED, &deflate(&vec![0; 100_000]));
    assert_eq!(fits.frame().first, BINARY | COMPRESSED);
}

#[test]
fn whole_messages_of_unusual_forms_are_taken() {
    let server = TestServer::new(echo());
    let mut socket = connect(&server);
    let final_block: &[u8] = &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    for (wire, text) in [(&[][..], ""), (&[0], ""), (&[3, 0], ""), (final_block, "Hello"), (&[], "")] {
        socket.send_frame(TEXT | COMPRESSED, wire);
        assert_eq!(socket.text(), text, "{wire:02x?}");
    }
    // Nothing of a cut message reaches the next connection, which may use the same decompressor.
    for _ in 0..8 {
        let mut cut = connect(&server);
        cut.send_frame(TEXT | COMPRESSED, &[0xf2, 0x48, 0xcd]);
        assert_eq!(cut.frame().close().0, 1007);
        socket.send_frame(TEXT | COMPRESSED, final_block);
        assert_eq!(socket.text(), "Hello");
    }
}

#[test]
fn a_broadcast_reaches_every_kind_of_client_in_its_form() {
    let server = TestServer::with(compressing(Hub::builder()), |server| server);
    let events = wshub::Server::bind("127.0.0.1:0").unwrap().event_stream("/events", &server.hub).spawn().unwrap();
    let mut compressed = connect(&server);
    let narrow = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n";
    let (_, mut narrow) = WsClient::try_connect(server.addr, "/ws", narrow);
    let mut plain = server.connect();
    let mut stream = SseClient::connect(events.local_addr().unwrap(), "/events", "");
    let text = "the same for all; ".repeat(100);
    assert_eq!(server.hub.send(Target::all(), text.as_str()).unwrap().queued, 4);
    assert_eq!(payload(&compressed.frame()), (text.clone(), true));
    assert_eq!(payload(&narrow.frame()), (text.clone(), true));
    assert_eq!((plain.text(), stream.data()), (text.clone(), text));
}

#[test]
fn what_is_dropped_comes_back_as_it_was() {
    let log = Log::default();
    let dropped = log.clone();
    let config = |config: Config| config.queue_messages(1).drop_policy(DropPolicy::DropOldest);
    let builder = compressing(Hub::builder()).map_config(config);
    let server = TestServer::new(builder.on_send_dropped(move |_, message| dropped.add(message.as_text().unwrap())));
    let _socket = connect(&server);
    let client = server.hub.clients().pop().unwrap();
    let text = "compressible ".repeat(50);
    let mut noise = common::Random::new(7);
    while log.all().is_empty() {
        let large: String = (0..100_000).map(|_| char::from(32 + u8::try_from(noise.below(94)).unwrap())).collect();
        client.send(large).unwrap();
    }
    log.take();
    (0..3).for_each(|_| client.send(text.as_str()).unwrap());
    assert!(log.all().contains(&text));
}

#[test]
fn coalesced_texts_are_joined_from_what_they_were() {
    let server = TestServer::new(compressing(Hub::builder()).map_config(|config| config.coalesce_writes(true)));
    let mut socket = connect(&server);
    let client = server.hub.clients().pop().unwrap();
    let text = "joined ".repeat(50);
    {
        let _cork = server.hub.cork();
        client.send(text.as_str()).unwrap();
        client.send("short").unwrap();
        client.send(Message::binary(vec![0; 200])).unwrap();
    }
    assert_eq!(payload(&socket.frame()).0, format!("{text}\nshort"));
    assert_eq!(socket.frame().first, BINARY | COMPRESSED);
}

#[test]
fn bad_levels_are_refused() {
    for level in [0, 10] {
        let error = Hub::builder().config(Config::default().compression_level(level)).build().unwrap_err();
        assert_eq!(error.field(), "compression_level");
    }
    let smallest = |level: u32| {
        let server = TestServer::new(echo().map_config(|config| config.compression_level(level)));
        let mut socket = connect(&server);
        let text: String = (0..3000).map(|n: u32| (n * n).to_string()).collect();
        socket.send_text(&text);
        let frame = socket.frame();
        assert_eq!(payload(&frame), (text, true));
        frame.payload.len()
    };
    assert!(smallest(9) <= smallest(1));
    let server = TestServer::new(echo());
    drop(connect(&server));
    eventually("it is gone", || server.hub.client_count() == 0);
}
