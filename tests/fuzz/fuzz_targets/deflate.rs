//! permessage-deflate: the offers of an upgrade, compressed messages that a peer may send, and our own.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use libfuzzer_sys::fuzz_target;
use wshub::internals::{Decoder, Event, encode_compressed, negotiate};

const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

#[derive(Debug, Arbitrary)]
struct Setting {
    /// The largest message, in bytes.
    max: u16,
    level: u8,
    window_bits: u8,
    /// Payload bytes in each frame, and bytes in each read.
    cuts: [u8; 2],
    /// How often the payload is repeated.
    times: u8,
    /// Where a foreign compressor begins a new block.
    flushes: [u8; 3],
}

fuzz_target!(|bytes: &[u8]| {
    offers(bytes);
    let mut input = Unstructured::new(bytes);
    let Ok(setting) = Setting::arbitrary(&mut input) else { return };
    let rest = input.take_rest();
    any_bytes(&setting, rest);
    let times = usize::from(setting.times & 0x3f).min(20_000 / rest.len().max(1));
    let payload = rest.repeat(1 + times);
    // Compressors are slow to make: one of them at a time.
    if setting.times & 0x80 == 0 {
        ours_come_back(&setting, &payload);
    } else {
        theirs_are_understood(&setting, &payload);
    }
});

/// The answer is that of a slow second reader of the header; it keeps to what was asked for.
fn offers(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let values: Vec<&str> = text.split('\n').collect();
    let answer = negotiate(&values);
    assert_eq!(answer, by_the_book(&values));
    let Some((response, bits)) = answer else { return };
    assert!((9..=15).contains(&bits));
    // A client that gets this answer can read it.
    assert_eq!(negotiate(&[&response]), Some((response.clone(), bits)));
}

/// One byte at a time.
fn by_the_book(values: &[&str]) -> Option<(String, u8)> {
    values.iter().flat_map(|value| pieces(value, b',')).find_map(|offer| {
        let mut parts = pieces(&offer, b';').into_iter().map(|part| part.trim().to_owned());
        if parts.next()? != "permessage-deflate" {
            return None;
        }
        let parts: Vec<(String, Option<String>)> = parts
            .map(|part| match part.find('=') {
                Some(at) => (part[..at].trim().to_owned(), Some(part[at + 1..].trim().to_owned())),
                None => (part, None),
            })
            .collect();
        let mut window = None;
        for (n, (name, value)) in parts.iter().enumerate() {
            if parts[..n].iter().any(|(other, _)| other == name) {
                return None;
            }
            let bits = value.as_ref().and_then(|value| {
                (8..=15_u8).find(|bits| *value == bits.to_string() || *value == format!("\"{bits}\""))
            });
            match (name.as_str(), value, bits) {
                ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None, _)
                | ("client_max_window_bits", _, Some(_)) => {}
                ("server_max_window_bits", _, Some(bits @ 9..)) => window = Some(bits),
                _ => return None,
            }
        }
        let mut response = "permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned();
        if let Some(bits) = window {
            response += &format!("; server_max_window_bits={bits}");
        }
        Some((response, window.unwrap_or(15)))
    })
}

/// The parts between separators that do not stand in quotes.
fn pieces(text: &str, separator: u8) -> Vec<String> {
    let mut parts = vec![Vec::new()];
    let (mut is_quoted, mut bytes) = (false, text.bytes());
    while let Some(byte) = bytes.next() {
        if byte == separator && !is_quoted {
            parts.push(Vec::new());
            continue;
        }
        is_quoted ^= byte == b'"';
        let part = parts.last_mut().expect("one at least");
        part.push(byte);
        if byte == b'\\' && is_quoted {
            part.extend(bytes.next());
        }
    }
    parts.into_iter().map(|part| String::from_utf8(part).expect("cut at ASCII")).collect()
}

/// A compressed message of any bytes: never more than the limit, and the same as from flate2 in one go.
fn any_bytes(setting: &Setting, wire: &[u8]) {
    let max = usize::from(setting.max);
    let wanted = match inflate(wire, max) {
        _ if wire.len() > 2 * max + 1024 => Err(1009),
        wanted => wanted,
    };
    assert_eq!(receive(setting, wire, max), wanted);
}

/// The whole message in one piece of memory that is one byte larger than the limit.
fn inflate(wire: &[u8], max: usize) -> Result<Vec<u8>, u16> {
    let mut out = vec![0; max + 1];
    let (mut read, mut written) = (0, 0);
    let mut inflater = Decompress::new(false);
    while read < wire.len() {
        let (before, given) = (inflater.total_in(), inflater.total_out());
        let status = inflater.decompress(&wire[read..], &mut out[written..], FlushDecompress::None);
        read += usize::try_from(inflater.total_in() - before).expect("small");
        written += usize::try_from(inflater.total_out() - given).expect("small");
        match status {
            _ if written > max => return Err(1009),
            Err(_) => return Err(1007),
            // A final block: what follows is a new stream.
            Ok(Status::StreamEnd) => {
                inflater = Decompress::new(false);
                if read == wire.len() {
                    out.truncate(written);
                    return Ok(out);
                }
            }
            Ok(_) => {}
        }
    }
    // Behind a whole message the tail and a final block give nothing and end the stream.
    let ending = if wire.is_empty() { &[][..] } else { &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff] };
    let (before, given) = (inflater.total_in(), inflater.total_out());
    let status = inflater.decompress(ending, &mut [0], FlushDecompress::None);
    let used = inflater.total_in() - before;
    let is_whole = matches!(status, Ok(Status::StreamEnd)) && matches!(used, 4 | 9) && inflater.total_out() == given;
    if !wire.is_empty() && !is_whole {
        return Err(1007);
    }
    out.truncate(written);
    Ok(out)
}

fn ours_come_back(setting: &Setting, payload: &[u8]) {
    let (level, bits) = (1 + u32::from(setting.level % 9), 9 + setting.window_bits % 7);
    let Some(frame) = encode_compressed(payload, level, bits) else { return };
    let wire = unframed(&frame);
    assert!(wire.len() < payload.len());
    assert_eq!(receive(setting, wire, payload.len()).as_deref(), Ok(payload));
    assert_eq!(receive(setting, wire, payload.len() - 1), Err(1009));
    // With no larger window than was asked for.
    let mut narrow = Decompress::new_with_window_bits(false, bits);
    let mut out = vec![0; payload.len() + 1];
    let status = narrow.decompress(&[wire, &TAIL].concat(), &mut out, FlushDecompress::Sync);
    assert!(status.is_ok(), "{status:?}");
    assert_eq!(narrow.total_out(), payload.len() as u64);
}

/// The payload of a server frame.
fn unframed(frame: &[u8]) -> &[u8] {
    assert_eq!(frame[0], 0xc2);
    match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        n => {
            assert!(n < 126);
            &frame[2..]
        }
    }
}

/// What another compressor makes, with blocks that end where it likes, and with a final block or without.
fn theirs_are_understood(setting: &Setting, payload: &[u8]) {
    let bits = 9 + setting.window_bits % 7;
    let level = Compression::new(u32::from(setting.level % 10));
    let mut compress = Compress::new_with_window_bits(level, false, bits);
    let mut wire = Vec::with_capacity(payload.len() * 2 + 1024);
    let mut rest = payload;
    for cut in setting.flushes {
        let (now, later) = rest.split_at(usize::from(cut).min(rest.len()));
        let flush = [FlushCompress::None, FlushCompress::Sync, FlushCompress::Full, FlushCompress::Partial];
        run(&mut compress, now, &mut wire, flush[usize::from(cut % 4)]);
        rest = later;
    }
    if setting.level & 0x80 == 0 {
        run(&mut compress, rest, &mut wire, FlushCompress::Sync);
        assert!(wire.ends_with(&TAIL));
        wire.truncate(wire.len() - TAIL.len());
    } else {
        // RFC 7692 §7.2.3.4: a final block, and an empty one behind it.
        run(&mut compress, rest, &mut wire, FlushCompress::Finish);
        wire.push(0);
    }
    let max = payload.len().max(wire.len());
    assert_eq!(receive(setting, &wire, max).as_deref(), Ok(payload));
    if let Some(less) = payload.len().checked_sub(1) {
        assert_eq!(receive(setting, &wire, less), Err(1009));
    }
}

fn run(compress: &mut Compress, input: &[u8], wire: &mut Vec<u8>, flush: FlushCompress) {
    compress.compress_vec(input, wire, flush).expect("compresses");
    assert!(wire.len() < wire.capacity(), "all of it");
}

/// One binary message through the decoder, over several frames and reads.
fn receive(setting: &Setting, wire: &[u8], max: usize) -> Result<Vec<u8>, u16> {
    let [frame, read] = setting.cuts.map(|cut| 1 + usize::from(cut) * usize::from(cut));
    let mut bytes = Vec::new();
    let mut parts = wire.chunks(frame).peekable();
    let mut first = 0x42;
    loop {
        let part = parts.next().unwrap_or_default();
        let is_last = parts.peek().is_none();
        bytes.extend([first | (u8::from(is_last) << 7), 0x80 | 127]);
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(part);
        first = 0;
        if is_last {
            break;
        }
    }
    let mut decoder = Decoder::new(256, max, true);
    let mut events = Vec::new();
    bytes.chunks(read).try_for_each(|chunk| decoder.feed(chunk, &mut events))?;
    assert!(!decoder.is_mid_message());
    match events.pop() {
        Some(Event::Binary(payload)) if events.is_empty() => {
            assert!(payload.len() <= max && payload.capacity() <= max + 1 + 256, "{} of {max}", payload.capacity());
            Ok(payload)
        }
        other => panic!("{other:?}"),
    }
}
