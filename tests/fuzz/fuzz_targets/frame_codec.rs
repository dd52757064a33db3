//! The decoder of frames against tungstenite's: the same messages in the same order, and the same verdict.
//!
//! Where they differ on purpose:
//!
//! - ours refuses as soon as it can: bad text at its first bad byte, a bad header before its payload has come.
//!   tungstenite waits for the whole frame; it gets the rest as zeros, and must then refuse as well;
//! - a close frame with a code that must not be sent is refused with 1002; tungstenite hands it out as 1002, "Protocol
//!   violation"; and 1014, which may be sent, is unknown to it;
//! - a frame with several faults: ours looks at the header's bits before its length, tungstenite the other way round;
//!   ours looks at a close frame's code before its reason.
#![no_main]

use std::io::{self, Read, Write};

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::{CloseFrame, Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};
use wshub::internals::{Decoder, Event};

const VIOLATION: &str = "Protocol violation";

/// How a conversation goes on after the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Waits,
    Closed,
    Refused(u16),
}

#[derive(Debug, Arbitrary)]
struct Setting {
    idle_buffer: u8,
    max_message: u16,
    steps: [u8; 4],
    is_raw: bool,
}

#[derive(Debug, Arbitrary)]
struct Shape<'a> {
    first: u8,
    mask: [u8; 4],
    /// Which form the length takes, whether there is a mask, whether the payload comes many times.
    form: u8,
    payload: &'a [u8],
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Unstructured::new(bytes);
    let Ok(setting) = Setting::arbitrary(&mut input) else { return };
    let bytes = if setting.is_raw { input.take_rest().to_vec() } else { frames(&mut input) };
    let max = usize::from(setting.max_message);
    let (our_events, ours) = by_us(&bytes, &setting, max);
    let (their_events, theirs) = by_them(&bytes, max);
    agree(&our_events, ours, &their_events, theirs).unwrap_or_else(|what| {
        panic!("{what}: {our_events:?}, {ours:?}; tungstenite: {their_events:?}, {theirs:?}; bytes {bytes:02x?}")
    });
});

/// Frames that are mostly well-formed.
fn frames(input: &mut Unstructured<'_>) -> Vec<u8> {
    let mut wire = Vec::new();
    while !input.is_empty() && wire.len() < 200_000 {
        let Ok(Shape { first, mask, form, payload }) = Shape::arbitrary(input) else { break };
        let payload = payload.repeat(if form & 0x30 == 0x30 { 300 } else { 1 });
        // Reserved bits and opcodes are rare.
        let first = if form & 0xc0 == 0xc0 {
            first
        } else {
            [0, 1, 2, 8, 9, 10, 0, 1][usize::from(first & 7)] | (first & 0x80)
        };
        let mask_bit = if form & 0x0f == 0x0f { 0 } else { 0x80 };
        wire.push(first);
        match (u8::try_from(payload.len()), u16::try_from(payload.len()), form & 3) {
            (Ok(n @ 0..126), _, 0 | 1) => wire.push(mask_bit | n),
            // Longer forms than are needed: both take them.
            (_, Ok(n), 0..3) => wire.extend([[mask_bit | 126].as_slice(), &n.to_be_bytes()].concat()),
            _ => wire.extend([[mask_bit | 127].as_slice(), &(payload.len() as u64).to_be_bytes()].concat()),
        }
        if mask_bit != 0 {
            wire.extend(mask);
        }
        let key = if mask_bit == 0 { [0; 4] } else { mask };
        wire.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
    wire
}

fn by_us(bytes: &[u8], setting: &Setting, max: usize) -> (Vec<Event>, Verdict) {
    let mut decoder = Decoder::new(256 + usize::from(setting.idle_buffer), max, false);
    let mut events = Vec::new();
    let mut rest = bytes;
    for step in setting.steps.iter().cycle() {
        let (now, later) = rest.split_at(rest.len().min(1 + usize::from(*step) * usize::from(*step)));
        if let Err(code) = decoder.feed(now, &mut events) {
            return (events, Verdict::Refused(code));
        }
        if matches!(events.last(), Some(Event::Close(..))) {
            return (events, Verdict::Closed);
        }
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    (events, Verdict::Waits)
}

/// What they say of the bytes, and what of the bytes and enough zeros behind them to end the last frame.
fn by_them(bytes: &[u8], max: usize) -> (Vec<Event>, [Verdict; 2]) {
    let (events, verdict) = read_all(Stream { bytes, zeros: 0 }, max);
    let (_, later) = read_all(Stream { bytes, zeros: max.max(125) }, max);
    (events, [verdict, later])
}

fn read_all(stream: Stream<'_>, max: usize) -> (Vec<Event>, Verdict) {
    // Control frames may be larger than messages.
    let largest = Some(max.max(125));
    let config = WebSocketConfig::default().max_message_size(Some(max)).max_frame_size(largest).read_buffer_size(512);
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    let mut events = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Close(close)) => {
                events.push(closed(close));
                return (events, Verdict::Closed);
            }
            Ok(Message::Text(text)) => events.push(Event::Text(text.as_bytes().to_vec())),
            Ok(Message::Binary(payload)) => events.push(Event::Binary(payload.to_vec())),
            Ok(Message::Ping(payload)) => events.push(Event::Ping(payload.to_vec())),
            Ok(Message::Pong(_)) => events.push(Event::Pong),
            Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => return (events, Verdict::Waits),
            Err(Error::Protocol(_)) => return (events, Verdict::Refused(1002)),
            Err(Error::Utf8(_)) => return (events, Verdict::Refused(1007)),
            Err(Error::Capacity(_)) => return (events, Verdict::Refused(1009)),
            other => panic!("{other:?}"),
        }
    }
}

fn closed(close: Option<CloseFrame>) -> Event {
    match close {
        None => Event::Close(None, String::new()),
        Some(close) => Event::Close(Some(close.code.into()), close.reason.as_str().to_owned()),
    }
}

fn agree(ours: &[Event], our: Verdict, theirs: &[Event], [their, later]: [Verdict; 2]) -> Result<(), &'static str> {
    use Verdict::{Closed, Refused, Waits};
    let same = |what: bool| if what { Ok(()) } else { Err("not the same") };
    match (our, their) {
        (Waits, Waits) => same(ours == theirs),
        (Closed, Closed) => {
            let (last, before) = ours.split_last().ok_or("closed by nothing")?;
            let (their_last, their_before) = theirs.split_last().ok_or("closed by nothing")?;
            let is_1014 = matches!(last, Event::Close(Some(1014), _));
            same(before == their_before && (last == their_last || (is_1014 && is_violation(their_last))))
        }
        // A code that must not be sent.
        (Refused(1002), Closed) => {
            let (last, before) = theirs.split_last().ok_or("closed by nothing")?;
            same(ours == before && is_violation(last))
        }
        (Refused(code), Refused(their_code)) => same(ours == theirs && may_stand_for(code, their_code)),
        // Refused before the frame was whole.
        (Refused(code), Waits) => match later {
            Refused(their_code) => same(ours == theirs && may_stand_for(code, their_code)),
            Waits | Closed => Err("refused too early"),
        },
        _ => Err("another verdict"),
    }
}

/// The same code, or that of another fault of the same frame.
fn may_stand_for(ours: u16, theirs: u16) -> bool {
    ours == theirs || (ours == 1002 && theirs != 1002)
}

fn is_violation(event: &Event) -> bool {
    matches!(event, Event::Close(Some(1002), reason) if reason == VIOLATION)
}

/// The bytes, then zeros, then nothing more for now.
#[derive(Debug)]
struct Stream<'a> {
    bytes: &'a [u8],
    zeros: usize,
}

impl Read for Stream<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if !self.bytes.is_empty() {
            return self.bytes.read(space);
        }
        let n = self.zeros.min(space.len());
        space[..n].fill(0);
        self.zeros -= n;
        if n == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
