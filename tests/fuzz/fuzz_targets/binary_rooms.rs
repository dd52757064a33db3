//! The codec of `wshub::protocol::binary`: bytes that a peer may send, and messages that a program may send.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use wshub::protocol::binary::{DecodeError, Frame};

const NAMES: [&str; 5] = ["room", "event", "dst", "src", "payload"];

#[derive(Debug, Arbitrary)]
struct Fields<'a> {
    /// Where to cut the encoded message.
    cut: u16,
    room: &'a str,
    event: &'a str,
    dst: &'a str,
    src: &'a str,
    payload: &'a [u8],
}

fuzz_target!(|bytes: &[u8]| {
    raw(bytes);
    if let Ok(fields) = Fields::arbitrary_take_rest(Unstructured::new(bytes)) {
        structured(&fields);
    }
});

/// Any bytes: the answer is that of the slow decoder below, and what decodes encodes to the same bytes.
fn raw(bytes: &[u8]) {
    let decoded = Frame::decode(bytes);
    assert_eq!(decoded, by_the_book(bytes));
    match decoded {
        Ok(message) => assert_eq!(message.encode(), bytes),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Any message comes back; with bytes missing or left over it is refused.
fn structured(fields: &Fields<'_>) {
    let Fields { cut, room, event, dst, src, payload } = *fields;
    let message = Frame::new(room, event, dst, src, payload.to_vec());
    let mut wire = message.encode();
    let short = &wire[..usize::from(cut) % wire.len()];
    assert!(matches!(Frame::decode(short), Err(DecodeError::Truncated { .. })));
    assert_eq!(Frame::decode(&wire), Ok(message));
    wire.push(0);
    assert_eq!(Frame::decode(&wire), Err(DecodeError::TrailingBytes(1)));
}

/// The same rules, byte by byte and without sharing code with the crate.
fn by_the_book(bytes: &[u8]) -> Result<Frame, DecodeError> {
    let mut at = 0;
    let mut fields = Vec::new();
    for field in NAMES {
        let mut length: u64 = 0;
        for _ in 0..4 {
            length = length * 256 + u64::from(*bytes.get(at).ok_or(DecodeError::Truncated { field })?);
            at += 1;
        }
        let mut value = Vec::new();
        while (value.len() as u64) < length {
            value.push(*bytes.get(at).ok_or(DecodeError::Truncated { field })?);
            at += 1;
        }
        if field != "payload" && std::str::from_utf8(&value).is_err() {
            return Err(DecodeError::InvalidUtf8 { field });
        }
        fields.push(value);
    }
    if at < bytes.len() {
        return Err(DecodeError::TrailingBytes(bytes.len() - at));
    }
    let [room, event, dst, src] = [0, 1, 2, 3].map(|n: usize| String::from_utf8(fields[n].clone()).unwrap_or_default());
    Ok(Frame::new(room, event, dst, src, fields.remove(4)))
}
