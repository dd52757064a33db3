use proptest::prelude::*;

use super::*;
use crate::ws::close_code;

fn inflate(parts: &[&[u8]], max: usize) -> Result<Vec<u8>, Violation> {
    let mut inflater = Inflater::new();
    let mut out = Vec::new();
    parts.iter().try_for_each(|part| inflater.push(part, &mut out, max))?;
    inflater.finish()?;
    Ok(out)
}

/// Bytes that do not compress.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(&mut next).take(count).collect()
}

#[test]
fn the_example_of_the_rfc() {
    // RFC 7692 §7.2.3.1: "Hello" in one block.
    let wire = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(inflate(&[&wire], 5), Ok(b"Hello".to_vec()));
    assert_eq!(inflate(&[&wire[..3], &wire[3..]], 5), Ok(b"Hello".to_vec()));
    // §7.2.3.3: a block without compression; §7.2.3.4: a final block; §7.2.3.5: two blocks.
    let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
    assert_eq!(inflate(&[&stored], 5), Ok(b"Hello".to_vec()));
    assert_eq!(inflate(&[&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]], 5), Ok(b"Hello".to_vec()));
    let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(inflate(&[&two], 5), Ok(b"Hello".to_vec()));
    // An empty message.
    assert_eq!(inflate(&[&[0x00]], 0), Ok(Vec::new()));
}

#[test]
fn each_message_stands_alone() {
    let text = "the same words again and again, ".repeat(20);
    let first = compress(text.as_bytes(), 1, 15).expect("shorter");
    for _ in 0..3 {
        assert_eq!(compress(text.as_bytes(), 1, 15).as_ref(), Some(&first), "no context is taken over");
        assert_eq!(inflate(&[&first], text.len()), Ok(text.clone().into_bytes()));
    }
}

#[test]
fn what_does_not_get_shorter_stays_as_it_is() {
    assert_eq!(compress(b"", 1, 15), None);
    assert_eq!(compress(b"abc", 1, 15), None);
    assert_eq!(compress(&noise(5000), 9, 15), None);
}

#[test]
fn a_window_is_kept_to() {
    // Two copies of 2,000 bytes of noise: worth something only to a window that reaches over one.
    let twice = noise(2000).repeat(2);
    let short = compress(&twice, 6, 15).expect("shorter");
    assert!(short.len() < 2600, "{}", short.len());
    assert_eq!(inflate(&[&short], twice.len()), Ok(twice.clone()));
    assert!(compress(&twice, 6, 9).is_none_or(|narrow| narrow.len() > 3500));
    for bits in 9..=15 {
        let text = b"abcdefgh".repeat(1000);
        let wire = compress(&text, 1, bits).expect("shorter");
        let mut narrow = Decompress::new_with_window_bits(false, bits);
        let mut out = Vec::with_capacity(text.len() + 1);
        narrow.decompress_vec(&wire, &mut out, FlushDecompress::Sync).expect("within the window");
        assert_eq!(out, text);
    }
}

#[test]
fn a_bomb_does_not_go_off() {
    let wire = compress(&vec![0; 10_000_000], 9, 15).expect("shorter");
    assert!(wire.len() < 20_000);
    let mut inflater = Inflater::new();
    let mut out = Vec::new();
    let refused = inflater.push(&wire, &mut out, 100_000).expect_err("over the limit");
    assert_eq!(refused.code, close_code::MESSAGE_TOO_BIG);
    assert!(out.capacity() <= 100_001, "{}", out.capacity());
    assert_eq!(inflate(&[&wire], 10_000_000).map(|out| out.len()), Ok(10_000_000));
    assert_eq!(inflate(&[&wire], 9_999_999).map_err(|e| e.code), Err(close_code::MESSAGE_TOO_BIG));
}

#[test]
fn nonsense_is_refused() {
    for wire in [&[0xff][..], b"hello there", &[0x06, 0, 0]] {
        assert_eq!(inflate(&[wire], 1000).map_err(|e| e.code), Err(close_code::INVALID_PAYLOAD), "{wire:?}");
    }
    // The one before leaves nothing behind.
    assert_eq!(inflate(&[&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]], 5), Ok(b"Hello".to_vec()));
}

proptest! {
    #[test]
    fn messages_come_back(
        payload in proptest::collection::vec(0u8..8, 0..5000), level in 1u32..=9, bits in 9u8..=15, cut in 0usize..5000,
    ) {
        if let Some(wire) = compress(&payload, level, bits) {
            prop_assert!(wire.len() < payload.len());
            let cut = cut.min(wire.len());
            prop_assert_eq!(inflate(&[&wire[..cut], &wire[cut..]], payload.len()), Ok(payload));
        }
    }

    #[test]
    fn any_bytes_are_survived(wire in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(out) = inflate(&[&wire], 2000) {
            prop_assert!(out.len() <= 2000);
        }
    }
}
