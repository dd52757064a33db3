use proptest::prelude::*;

use super::*;

const NAMES: [&str; 5] = ["room", "event", "dst", "src", "payload"];

fn sample() -> Frame {
    Frame::new("löbby", "chat", "dst-id", "src-id", vec![0, 255, 1, 254])
}

/// The start of each field's length prefix, and the end of the frame.
fn starts(message: &Frame) -> Vec<usize> {
    let ends = message.fields().into_iter().scan(0, |at, field| {
        *at += LENGTH + field.len();
        Some(*at)
    });
    std::iter::once(0).chain(ends).collect()
}

#[test]
fn the_wire_is_exact() {
    let wire = Frame::new("lobby", "chat", "", "abc", &b"\x00\xff"[..]).encode();
    assert_eq!(wire, b"\0\0\0\x05lobby\0\0\0\x04chat\0\0\0\0\0\0\0\x03abc\0\0\0\x02\x00\xff");
    assert_eq!(Frame::default().encode(), [0; 20]);
    assert_eq!(Frame::decode(&[0; 20]), Ok(Frame::default()));
    let long = Frame::new("r", "e", "", "", vec![7; 70_000]);
    assert_eq!(long.encode()[18..22], [0, 1, 17, 112]);
    assert_eq!(crate::Message::from(&long).payload(), &long.encode());
    assert!(!crate::Message::from(long).is_text());
}

#[test]
fn every_truncation_is_refused_and_names_the_field() {
    let message = sample();
    let wire = message.encode();
    let starts = starts(&message);
    for length in 0..wire.len() {
        let field = NAMES[starts.iter().rposition(|start| *start <= length).expect("the first starts at 0")];
        assert_eq!(Frame::decode(&wire[..length]), Err(DecodeError::Truncated { field }), "{length} bytes");
    }
}

#[test]
fn every_wrong_length_is_refused() {
    let message = sample();
    let wire = message.encode();
    for start in &starts(&message)[..5] {
        let length = u32::from_be_bytes(wire[*start..start + 4].try_into().expect("four bytes"));
        for wrong in [length.wrapping_sub(1), length + 1, 1 << 16, 1 << 31, u32::MAX] {
            let mut bytes = wire.clone();
            bytes[*start..start + 4].copy_from_slice(&wrong.to_be_bytes());
            assert!(Frame::decode(&bytes).is_err(), "{wrong} at {start}");
        }
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let mut wire = sample().encode();
    for count in 1..=40 {
        wire.push(0);
        assert_eq!(Frame::decode(&wire), Err(DecodeError::TrailingBytes(count)));
    }
}

#[test]
fn names_must_be_utf8_and_payloads_need_not() {
    for bad in [&b"\xff"[..], b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80"] {
        for (at, field) in NAMES[..4].iter().enumerate() {
            let wire: Vec<u8> = (0..5u8)
                .flat_map(|n| {
                    let bytes = if usize::from(n) == at { bad } else { b"ok" };
                    let length = u32::try_from(bytes.len()).expect("short");
                    [&length.to_be_bytes(), bytes].concat()
                })
                .collect();
            assert_eq!(Frame::decode(&wire), Err(DecodeError::InvalidUtf8 { field }));
        }
        let message = Frame::new("r", "e", "", "", bad);
        assert_eq!(Frame::decode(&message.encode()), Ok(message));
    }
}

#[test]
fn errors_say_what_is_wrong() {
    assert_eq!(DecodeError::Truncated { field: "src" }.to_string(), "frame ends inside src");
    assert_eq!(DecodeError::InvalidUtf8 { field: "room" }.to_string(), "room is not UTF-8");
    assert_eq!(DecodeError::TrailingBytes(2).to_string(), "2 bytes after the payload");
}

fn any_message() -> impl Strategy<Value = Frame> {
    let payload = proptest::collection::vec(any::<u8>(), 0..300);
    (".{0,20}", ".{0,20}", ".{0,40}", ".{0,40}", payload)
        .prop_map(|(room, event, dst, src, payload)| Frame::new(room, event, dst, src, payload))
}

proptest! {
    #[test]
    fn messages_come_back(message in any_message()) {
        prop_assert_eq!(Frame::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn prefixes_never_decode(message in any_message(), cut in any::<proptest::sample::Index>()) {
        let wire = message.encode();
        let is_truncated = matches!(Frame::decode(&wire[..cut.index(wire.len())]), Err(DecodeError::Truncated { .. }));
        prop_assert!(is_truncated);
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(bytes in proptest::collection::vec(0u8..3, 0..60)) {
        if let Ok(message) = Frame::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(message) = Frame::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }
}
