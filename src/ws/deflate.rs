//! Compression of messages (RFC 7692 §7.2), without context from one message to the next. No I/O.
//!
//! Compressors and decompressors are large (some 40 to 300 KiB) and used for moments: a few are kept for whoever comes
//! next, whatever the number of connections.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use parking_lot::Mutex;

use super::Violation;

/// What a sync flush ends with, and what is left out on the wire (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Kept for the next message.
const KEPT: usize = 4;
/// The first space for decompressed bytes, and the least that it grows by.
const STEP: usize = 1024;

/// How messages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    level: u32,
    window_bits: u8,
}

/// Leaf locks: nothing is taken under them.
static COMPRESSORS: Mutex<Vec<(Kind, Compress)>> = Mutex::new(Vec::new());
static DECOMPRESSORS: Mutex<Vec<Decompress>> = Mutex::new(Vec::new());

/// The payload of a compressed message; `None` if that is not shorter.
pub(crate) fn compress(payload: &[u8], level: u32, window_bits: u8) -> Option<Vec<u8>> {
    let kind = Kind { level, window_bits };
    let mut compressor = take_compressor(kind);
    let mut out = Vec::with_capacity(payload.len() / 2 + 64);
    loop {
        let used = usize::try_from(compressor.total_in()).unwrap_or(usize::MAX);
        compressor.compress_vec(payload.get(used..)?, &mut out, FlushCompress::Sync).ok()?;
        // Space that is left means that the flush is complete.
        if out.len() < out.capacity() {
            break;
        }
        if out.len() > payload.len() {
            return None;
        }
        out.reserve(payload.len() / 4 + 64);
    }
    put_compressor(kind, compressor);
    if !out.ends_with(&TAIL) || out.len() - TAIL.len() >= payload.len() {
        return None;
    }
    out.truncate(out.len() - TAIL.len());
    Some(out)
}

fn take_compressor(kind: Kind) -> Compress {
    let found = {
        let mut kept = COMPRESSORS.lock();
        kept.iter().position(|(other, _)| *other == kind).map(|at| kept.swap_remove(at).1)
    };
    found.unwrap_or_else(|| Compress::new_with_window_bits(Compression::new(kind.level), false, kind.window_bits))
}

fn put_compressor(kind: Kind, mut compressor: Compress) {
    compressor.reset();
    let mut kept = COMPRESSORS.lock();
    if kept.len() == KEPT {
        // Another kind may be wanted now: the oldest makes room.
        kept.remove(0);
    }
    kept.push((kind, compressor));
}

/// Decompresses one message, as it comes.
#[derive(Debug)]
pub(crate) struct Inflater(Option<Decompress>);

impl Inflater {
    /// One, if the message is compressed.
    pub(crate) fn for_message(is_compressed: bool) -> Option<Self> {
        is_compressed.then(Self::new)
    }

    fn new() -> Self {
        let kept = DECOMPRESSORS.lock().pop();
        Self(Some(kept.unwrap_or_else(|| Decompress::new(false))))
    }

    /// Appends what these bytes decompress to; at most `max` bytes in all, so that no bomb goes off.
    pub(crate) fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>, max: usize) -> Result<(), Violation> {
        let Some(inflate) = &mut self.0 else { return Ok(()) };
        loop {
            if out.len() == out.capacity() {
                // One byte more than is allowed shows that there is more.
                let most = max.saturating_add(1) - out.len();
                out.reserve_exact(out.len().max(STEP).min(most));
            }
            let before = inflate.total_in();
            let status = inflate.decompress_vec(input, out, FlushDecompress::None);
            if out.len() > max {
                return Err(Violation::too_big());
            }
            let used = usize::try_from(inflate.total_in() - before).unwrap_or(usize::MAX);
            input = input.get(used..).unwrap_or_default();
            match status {
                // A final block ends the stream, not the message (RFC 7692 §7.2.3.4).
                Ok(Status::StreamEnd) => inflate.reset(false),
                Ok(Status::Ok) => {}
                // No progress: it wants more input, or more space.
                Ok(Status::BufError) if out.len() == out.capacity() => continue,
                Ok(Status::BufError) if input.is_empty() => return Ok(()),
                Ok(Status::BufError) | Err(_) => return Err(Violation::deflate()),
            }
            if input.is_empty() && out.len() < out.capacity() {
                return Ok(());
            }
        }
    }

    /// The end of the message: what was left out on the wire.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>, max: usize) -> Result<(), Violation> {
        self.push(&TAIL, out, max)
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        let Some(mut inflate) = self.0.take() else { return };
        inflate.reset(false);
        let mut kept = DECOMPRESSORS.lock();
        if kept.len() < KEPT {
            kept.push(inflate);
        }
    }
}

#[cfg(test)]
#[path = "deflate_tests.rs"]
mod tests;
