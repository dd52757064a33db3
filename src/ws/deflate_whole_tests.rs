//! Which compressed messages are whole: the inflater's answer is compared with that of a reader that follows RFC 1951
//! bit by bit.

use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::*;
use crate::ws::close_code;

const LIMIT: usize = 1 << 20;

/// What the inflater gives for a message that arrives in two parts.
fn receive(wire: &[u8], cut: usize) -> Result<Vec<u8>, u16> {
    let (mut inflater, mut out) = (Inflater::new(), Vec::new());
    let (first, second) = wire.split_at(cut.min(wire.len()));
    let pushed = inflater.push(first, &mut out, LIMIT).and_then(|()| inflater.push(second, &mut out, LIMIT));
    pushed.and_then(|()| inflater.finish()).map(|()| out).map_err(|violation| violation.code)
}

/// A reader of deflate that only finds the ends of blocks.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What a block's end leaves.
#[derive(PartialEq)]
enum Block {
    /// Another block follows.
    Inner,
    /// The stream has ended.
    Final,
    /// The data ended where the two lengths of a stored block stand.
    WithoutLengths,
}

/// Whether a prefix of valid deflate data is a whole message.
fn is_whole(wire: &[u8]) -> bool {
    let mut bits = Bits { bytes: wire, at: 0 };
    let mut last = Block::Final;
    while last != Block::Final || bits.at < wire.len() * 8 {
        match bits.block() {
            Some(Block::WithoutLengths) => return true,
            Some(block) => last = block,
            None => return false,
        }
        if last == Block::Final {
            bits.align();
        }
    }
    true
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<usize> {
        let bit = |at: usize| Some(usize::from(self.bytes.get(at / 8)? >> (at % 8) & 1));
        let value = (0..count).try_fold(0, |value, n| Some(value | bit(self.at + n)? << n))?;
        self.at += count;
        Some(value)
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }

    /// Reads one block; `None` if the data ends within it.
    fn block(&mut self) -> Option<Block> {
        let is_final = self.take(1)? == 1;
        match self.take(2)? {
            0 => {
                self.align();
                if self.at == self.bytes.len() * 8 {
                    return Some(Block::WithoutLengths);
                }
                let (len, _inverted) = (self.take(16)?, self.take(16)?);
                self.take(len * 8 % 8)?;
                self.at += len * 8;
                if self.at > self.bytes.len() * 8 {
                    return None;
                }
            }
            1 => {
                let literals = |n| {
                    if n < 144 {
                        8
                    } else if n < 256 {
                        9
                    } else if n < 280 {
                        7
                    } else {
                        8
                    }
                };
                let literals: Vec<usize> = (0..288).map(literals).collect();
                self.codes(&literals, &[5; 30])?;
            }
            2 => {
                let (literals, distances) = self.tables()?;
                self.codes(&literals, &distances)?;
            }
            _ => panic!("no valid data"),
        }
        Some(if is_final { Block::Final } else { Block::Inner })
    }

    /// The code lengths of a block with codes of its own.
    fn tables(&mut self) -> Option<(Vec<usize>, Vec<usize>)> {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let (literals, distances, lengths) = (self.take(5)? + 257, self.take(5)? + 1, self.take(4)? + 4);
        let mut of_lengths = [0; 19];
        for place in &ORDER[..lengths] {
            of_lengths[*place] = self.take(3)?;
        }
        let mut all = Vec::new();
        while all.len() < literals + distances {
            let (value, times) = match self.symbol(&of_lengths)? {
                16 => (*all.last().expect("valid data"), 3 + self.take(2)?),
                17 => (0, 3 + self.take(3)?),
                18 => (0, 11 + self.take(7)?),
                length => (length, 1),
            };
            all.extend(std::iter::repeat_n(value, times));
        }
        let rest = all.split_off(literals);
        Some((all, rest))
    }

    /// Reads literals and copies up to the end of the block.
    fn codes(&mut self, literals: &[usize], distances: &[usize]) -> Option<()> {
        loop {
            match self.symbol(literals)? {
                0..256 => continue,
                256 => return Some(()),
                length @ 265..285 => self.take((length - 261) / 4)?,
                _ => 0,
            };
            let distance = self.symbol(distances)?;
            self.take(if distance < 4 { 0 } else { distance / 2 - 1 })?;
        }
    }

    /// Reads one code of the canonical Huffman code with these lengths.
    fn symbol(&mut self, lengths: &[usize]) -> Option<usize> {
        let (mut code, mut first) = (0, 0);
        for length in 1..=15 {
            code = code << 1 | self.take(1)?;
            let mut of_length = lengths.iter().enumerate().filter(|(_, l)| **l == length).map(|(symbol, _)| symbol);
            let count = of_length.clone().count();
            if code - first < count {
                return of_length.nth(code - first);
            }
            first = (first + count) << 1;
        }
        panic!("no valid data");
    }
}

/// A payload that compresses well, badly or not at all.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let words = proptest::sample::select(vec!["{\"amount\":", "1000000", ",", "\"name\":\"", "ä", "0", "\n"]);
    let text = proptest::collection::vec(words, 0..40).prop_map(|words| words.concat().into_bytes());
    let bytes = |range: std::ops::RangeInclusive<u8>| proptest::collection::vec(range, 0..150);
    prop_oneof![text, bytes(0..=3), bytes(0..=255)]
}

/// How a foreign compressor ends a message.
#[derive(Debug, Clone, Copy)]
enum End {
    Sync,
    Full,
    /// A final block, and the header of an empty stored block behind it (RFC 7692 §7.2.3.4).
    Final,
    /// The same without that header, as some peers send it.
    FinalAlone,
}

/// The wire bytes of a message in several parts, each flushed in a way of its own.
fn message(parts: &[(Vec<u8>, FlushCompress)], level: u32, bits: u8, end: End) -> Vec<u8> {
    let mut compress = Compress::new_with_window_bits(Compression::new(level), false, bits);
    let mut wire = Vec::with_capacity(8192);
    for (part, flush) in parts {
        compress.compress_vec(part, &mut wire, *flush).expect("compresses");
    }
    let last = match end {
        End::Sync => FlushCompress::Sync,
        End::Full => FlushCompress::Full,
        End::Final | End::FinalAlone => FlushCompress::Finish,
    };
    compress.compress_vec(&[], &mut wire, last).expect("compresses");
    assert!(wire.len() < wire.capacity(), "all of it");
    match end {
        End::Sync | End::Full => {
            assert!(wire.ends_with(&TAIL));
            wire.truncate(wire.len() - TAIL.len());
        }
        End::Final => wire.push(0),
        End::FinalAlone => {}
    }
    wire
}

fn parts() -> impl Strategy<Value = Vec<(Vec<u8>, FlushCompress)>> {
    let flushes = [FlushCompress::None, FlushCompress::Sync, FlushCompress::Full, FlushCompress::Partial];
    proptest::collection::vec((payload(), proptest::sample::select(flushes.to_vec())), 1..4)
}

fn check_prefixes(wire: &[u8], expected: &[u8]) {
    assert_eq!(receive(wire, wire.len() / 2).as_deref(), Ok(expected), "{wire:02x?}");
    for end in 0..wire.len() {
        let prefix = &wire[..end];
        match receive(prefix, end / 3) {
            Ok(out) => assert!(is_whole(prefix) && expected.starts_with(&out), "{prefix:02x?} of {wire:02x?}"),
            Err(code) => {
                assert!(!is_whole(prefix), "{prefix:02x?} is whole");
                assert_eq!(code, close_code::INVALID_PAYLOAD);
            }
        }
    }
}

#[test]
fn truncated_messages_are_refused_and_whole_ones_are_not() {
    // "Hel" of "Hello", a stored block of 100 bytes of which ten came, a final block that is cut, a lone half of
    // lengths.
    let cut: [&[u8]; 7] = [
        &[0xf2, 0x48, 0xcd],
        b"\x00\x64\x00\x9b\xff0123456789",
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9],
        &[0x00, 0x00],
        &[0x00, 0x00, 0x00, 0xff],
        &[0x05, 0xe0],
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07],
    ];
    for wire in cut {
        assert_eq!(receive(wire, 1), Err(close_code::INVALID_PAYLOAD), "{wire:02x?}");
    }
    let whole: [(&[u8], &[u8]); 7] = [
        (&[], b""),
        (&[0x00], b""),
        (&[0x01], b""),
        // Final blocks, with the header of an empty block behind them or without.
        (&[0x03, 0x00], b""),
        (&[0x03, 0x00, 0x00], b""),
        (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], b"HelloHello"),
    ];
    for (wire, text) in whole {
        assert_eq!(receive(wire, 1).as_deref(), Ok(text), "{wire:02x?}");
    }
}

/// Messages of zlib 1.2.13 with every strategy (default, filtered, Huffman only, runs, fixed), level and memory
/// setting.
#[test]
fn messages_of_other_compressors_are_whole_and_their_prefixes_are_not() {
    let vectors = include_str!("../../tests/vectors/deflated.jsonl");
    let mut count = 0;
    for line in vectors.lines() {
        let vector: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let bytes = |name: &str| -> Vec<u8> {
            use base64::Engine as _;
            let text = vector[name].as_str().expect("a field");
            base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
        };
        check_prefixes(&bytes("wire"), &bytes("plain"));
        count += 1;
    }
    assert_eq!(count, 200);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_prefix_is_judged_as_by_the_book(
        parts in parts(), level in 0u32..=9, bits in 9u8..=15,
        end in proptest::sample::select(vec![End::Sync, End::Full, End::Final, End::FinalAlone]),
    ) {
        let plain: Vec<u8> = parts.iter().flat_map(|(part, _)| part.iter().copied()).collect();
        check_prefixes(&message(&parts, level, bits, end), &plain);
    }

    #[test]
    fn our_own_messages_are_whole(plain in payload(), level in 1u32..=9, bits in 9u8..=15) {
        if let Some(wire) = compress(&plain, level, bits) {
            check_prefixes(&wire, &plain);
        }
    }
}
