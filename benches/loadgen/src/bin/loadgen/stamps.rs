//! When a received message was sent, at a cost that does not disturb the measurement.

use std::collections::VecDeque;

use flate2::{Decompress, FlushDecompress};

use crate::payload::{COMPRESSED, STAMP};

/// Messages under way at a time that are recognised.
const KNOWN: usize = 16;

/// Reads the stamps of payloads. A server that compresses a broadcast once sends everybody the same bytes: they are
/// decompressed when they are first seen, and recognised afterwards. Otherwise each is decompressed, as far as its
/// stamp.
#[derive(Default)]
pub struct Stamps {
    known: VecDeque<(Vec<u8>, u64)>,
    /// Received messages that were compressed.
    pub compressed: u64,
    /// Payload bytes as they came over the wire.
    pub bytes: u64,
}

impl Stamps {
    /// The stamp, in nanoseconds; `first` is the first byte of the frame.
    pub fn read(&mut self, first: u8, payload: &[u8]) -> Option<u64> {
        self.bytes += payload.len() as u64;
        if first & COMPRESSED == 0 {
            return number(payload);
        }
        self.compressed += 1;
        if let Some((_, stamp)) = self.known.iter().rev().find(|(bytes, _)| bytes == payload) {
            return Some(*stamp);
        }
        let stamp = number(&inflated_stamp(payload))?;
        if self.known.len() == KNOWN {
            self.known.pop_front();
        }
        self.known.push_back((payload.to_vec(), stamp));
        Some(stamp)
    }
}

fn number(payload: &[u8]) -> Option<u64> {
    std::str::from_utf8(payload.get(..STAMP)?).ok()?.parse().ok()
}

fn inflated_stamp(payload: &[u8]) -> [u8; STAMP] {
    let mut stamp = [0; STAMP];
    let mut inflate = Decompress::new(false);
    inflate.decompress(payload, &mut stamp, FlushDecompress::Sync).expect("what came is compressed");
    stamp
}
