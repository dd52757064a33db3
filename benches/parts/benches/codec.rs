//! `cargo bench --bench codec`, in `benches/parts`.
//!
//! Messages to frames and frames to messages, by size.
//!
//! The floor is what nobody can leave out, as the bytes of the message itself:
//!
//! - encode: copying them into a buffer of their own, because a frame is shared by its recipients and outlives the
//!   call. A server's frames are not masked, and what is sent is text already: text and binary cost the same;
//! - decode: copying them into a buffer that is used again, in place of the kernel's copy, taking the mask off there
//!   (XOR, eight bytes at a time), and for text `std::str::from_utf8`. A client's frames are always masked; some
//!   clients mask with zero. What ours does beyond that: headers, sizes, a buffer of its own for each message.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and may fail by a panic")]

mod common;

use std::hint::black_box;

use common::{Bench, Way, each};
use wshub::MessageKind;
use wshub::internals::{Decoder, Event, encode};

const SIZES: [(&str, usize); 5] =
    [("16 B", 16), ("128 B", 128), ("1 KiB", 1 << 10), ("16 KiB", 1 << 14), ("1 MiB", 1 << 20)];
/// As the default of `Config::read_buffer`.
const READ_BUFFER: usize = 4096;
const MASK: [u8; 4] = [0x9c, 0x27, 0x51, 0xe8];

/// What decode is given.
struct Input {
    name: &'static str,
    is_text: bool,
    mask: [u8; 4],
    pattern: &'static str,
}

const ASCII: &str = "a reading of 21.5 degrees, noon.";
const INPUTS: [Input; 4] = [
    Input { name: "binary, mask zero", is_text: false, mask: [0; 4], pattern: ASCII },
    Input { name: "binary", is_text: false, mask: MASK, pattern: ASCII },
    Input { name: "text", is_text: true, mask: MASK, pattern: ASCII },
    // Two to four bytes a letter.
    Input { name: "text, not ASCII", is_text: true, mask: MASK, pattern: "ñандұ 羽毛 ñ😀" },
];

/// So many bytes of whole letters.
fn payload(pattern: &str, size: usize) -> Vec<u8> {
    let mut text = String::new();
    for letter in pattern.chars().cycle() {
        if text.len() + letter.len_utf8() > size {
            break;
        }
        text.push(letter);
    }
    while text.len() < size {
        text.push('.');
    }
    text.into_bytes()
}

/// Takes a mask off.
fn unmask(bytes: &mut [u8], [a, b, c, d]: [u8; 4]) {
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let value = u64::from_ne_bytes(word.try_into().unwrap()) ^ wide;
        word.copy_from_slice(&value.to_ne_bytes());
    }
    words.into_remainder().iter_mut().zip([a, b, c, d].iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// A client's frame.
fn frame(is_text: bool, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = encode(if is_text { MessageKind::Text } else { MessageKind::Binary }, payload);
    let header = frame.len() - payload.len();
    frame[1] |= 0x80;
    unmask(&mut frame[header..], mask);
    frame.splice(header..header, mask);
    frame
}

fn encoding(bench: &mut Bench) {
    for (size, bytes) in SIZES {
        let payload = payload(ASCII, bytes);
        let payload = payload.as_slice();
        assert!(encode(MessageKind::Text, payload).ends_with(payload));
        let ways = vec![each(|| encode(MessageKind::Text, black_box(payload))), each(|| black_box(payload).to_vec())];
        bench.case(format!("encode {size}"), ways);
    }
}

/// Decodes so many frames that come in one read.
fn decoding(bench: &mut Bench, case: String, input: &Input, size: usize, count: usize) {
    let payload = payload(input.pattern, size);
    let frames = frame(input.is_text, input.mask, &payload).repeat(count);
    let message = if input.is_text { Event::Text(payload.clone()) } else { Event::Binary(payload.clone()) };
    let mut decoder = Decoder::new(READ_BUFFER, usize::MAX, false);
    let mut events = Vec::new();
    decoder.feed(&frames, &mut events).unwrap();
    assert!(events.len() == count && events.iter().all(|event| *event == message), "not what was sent");

    let mut masked = payload;
    unmask(&mut masked, input.mask);
    let mut buffer = vec![0; size];
    let floor: Way<'_> = each(move || {
        for _ in 0..count {
            buffer.copy_from_slice(black_box(&masked));
            unmask(&mut buffer, black_box(input.mask));
            assert!(!input.is_text || std::str::from_utf8(&buffer).is_ok());
            black_box(&mut buffer);
        }
    });
    let ours = each(move || {
        events.clear();
        decoder.feed(black_box(&frames), &mut events).unwrap();
        black_box(&mut events);
    });
    bench.case(case, vec![ours, floor]);
}

fn main() {
    let mut bench = Bench::new("codec", &["floor"], 20, 1.0);
    encoding(&mut bench);
    for input in &INPUTS {
        for (size, bytes) in SIZES {
            decoding(&mut bench, format!("decode {}, {size}", input.name), input, bytes, 1);
        }
    }
    decoding(&mut bench, "decode text, 100 of 16 B in one read".into(), &INPUTS[2], 16, 100);
    bench.finish();
}
