//! Compression of messages (RFC 7692 §7.2), without context from one message to the next. No I/O.
//!
//! Compressors and decompressors are large (40 to 300 KiB), and each is used only briefly. A few are kept for later
//! messages, independent of the number of connections.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Violation;
use crate::lock::Leaf;

/// The end of a sync flush, which is not sent (RFC 7692 §7.2.1): the two lengths of an empty stored block.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// An empty stored block that is marked as final, from a byte boundary on.
const FINAL_BLOCK: [u8; 5] = [1, 0, 0, 0xff, 0xff];
/// The number of compressors, and of decompressors, kept for later messages.
const KEPT: usize = 4;
/// The initial capacity for decompressed bytes, and its minimum growth.
const STEP: usize = 1024;

/// The settings of a compressor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    level: u32,
    window_bits: u8,
}

/// Leaf locks: nothing is taken under them.
static COMPRESSORS: Leaf<Vec<(Kind, Compress)>> = Leaf::new(Vec::new());
static DECOMPRESSORS: Leaf<Vec<Decompress>> = Leaf::new(Vec::new());

/// Compresses a payload. `None` if the result is not shorter.
pub(crate) fn compress(payload: &[u8], level: u32, window_bits: u8) -> Option<Vec<u8>> {
    let kind = Kind { level, window_bits };
    let mut compressor = take_compressor(kind);
    let mut out = Vec::with_capacity(payload.len() / 2 + 64);
    loop {
        let used = usize::try_from(compressor.total_in()).unwrap_or(usize::MAX);
        compressor.compress_vec(payload.get(used..)?, &mut out, FlushCompress::Sync).ok()?;
        // Remaining space means that the flush is complete.
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
        // The settings in use may have changed, so the oldest is removed.
        kept.remove(0);
    }
    kept.push((kind, compressor));
}

/// Decompresses one message as it arrives.
#[derive(Debug)]
pub(crate) struct Inflater {
    /// `None` only in `drop`.
    inflate: Option<Decompress>,
    /// No input yet, or the last input byte ended a final block.
    is_between_streams: bool,
}

impl Inflater {
    /// Creates an inflater for a compressed message; `None` for a plain one.
    pub(crate) fn for_message(is_compressed: bool) -> Option<Self> {
        is_compressed.then(Self::new)
    }

    fn new() -> Self {
        let kept = DECOMPRESSORS.lock().pop();
        Self { inflate: Some(kept.unwrap_or_else(|| Decompress::new(false))), is_between_streams: true }
    }

    /// Decompresses these bytes and appends the result. `max` bounds the whole message, in bytes.
    pub(crate) fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>, max: usize) -> Result<(), Violation> {
        let Some(inflate) = &mut self.inflate else { return Ok(()) };
        loop {
            if out.len() == out.capacity() {
                // One byte beyond the limit shows that the message is too large.
                let most = max.saturating_add(1) - out.len();
                out.reserve_exact(out.len().max(STEP).min(most));
            }
            let before = inflate.total_in();
            let status = inflate.decompress_vec(input, out, FlushDecompress::None);
            if out.len() > max {
                return Err(Violation::too_big());
            }
            let used = usize::try_from(inflate.total_in() - before).unwrap_or(usize::MAX);
            self.is_between_streams &= used == 0;
            input = input.get(used..).unwrap_or_default();
            match status {
                // A final block ends the stream, not the message (RFC 7692 §7.2.3.4).
                Ok(Status::StreamEnd) => {
                    inflate.reset(false);
                    self.is_between_streams = true;
                }
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

    /// Checks at the end of the message that it is complete (RFC 7692 §7.2.2). All of its output has already been
    /// appended.
    ///
    /// A complete message is empty, ends with a final block, or ends inside the header of an empty stored block, whose
    /// lengths are [`TAIL`]. In the third case the tail completes that block: it yields no output, and the decompressor
    /// is then between two blocks, where it accepts a final block. If the message was cut elsewhere, the decompressor
    /// reads the tail as codes, data or invalid lengths, and one of the two checks fails.
    pub(crate) fn finish(&mut self) -> Result<(), Violation> {
        let is_whole = self.is_between_streams
            || match self.take_silently(&TAIL) {
                // The empty stored block is itself marked as final.
                Some(Status::StreamEnd) => true,
                Some(_) => self.take_silently(&FINAL_BLOCK) == Some(Status::StreamEnd),
                None => false,
            };
        if is_whole { Ok(()) } else { Err(Violation::truncated()) }
    }

    /// Feeds bytes and returns the decompressor's status. `None` if it does not take all of them or yields output.
    fn take_silently(&mut self, input: &[u8]) -> Option<Status> {
        let inflate = self.inflate.as_mut()?;
        let (read, written) = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress(input, &mut [0], FlushDecompress::None).ok()?;
        let is_silent = inflate.total_out() == written && inflate.total_in() - read == input.len() as u64;
        is_silent.then_some(status)
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        let Some(mut inflate) = self.inflate.take() else { return };
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

#[cfg(test)]
#[path = "deflate_whole_tests.rs"]
mod whole_tests;
