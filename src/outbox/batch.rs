//! Batches: frames that have left the queue and are being written to the socket.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};

use crate::disposal;
use crate::message::{Encoded, Message};
use crate::ws;

/// Maximum number of frames in one system call, and in a batch from the queue.
const MAX_FRAMES: usize = 64;
/// A batch takes no further frame from the queue once it holds this many bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Frames of at most this many bytes together are copied into one buffer.
const MAX_JOINED: usize = 8 * 1024;

#[derive(Debug)]
enum Chunk {
    Message(Encoded),
    /// A control frame, a joined frame, or bytes that precede the first frame.
    Bytes(Vec<u8>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Message(frame) => frame.wire(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The number of bytes that it keeps in memory.
    fn held(&self) -> usize {
        match self {
            Self::Message(frame) => frame.held(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    fn release(self, done: &mut Done) {
        if let Self::Message(frame) = self {
            done.add(frame);
        }
    }
}

/// Written messages. Their payloads may be the application's memory, whose destructors are application code. So
/// messages are collected under the socket's mutex and dropped after it is released.
#[derive(Debug, Default)]
pub(super) struct Done(Vec<Message>);

impl Done {
    /// Adds a written frame.
    #[inline]
    pub(super) fn add(&mut self, frame: Encoded) {
        self.0.extend(frame.release());
    }

    /// Drops the messages. Call it while no lock is held.
    #[inline]
    pub(super) fn dispose(self) {
        disposal::dispose_all(self.0);
    }
}

/// The result of [`Batch::write`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing is left in the batch.
    Written,
    /// Nothing is left, and the last frame was the close frame.
    Closed,
    /// The socket takes no more.
    Blocked,
}

/// An ordered run of frames. The first may be half written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    chunks: VecDeque<Chunk>,
    /// The number of bytes of the first chunk that are written.
    offset: usize,
    bytes: usize,
    /// The last frame is the close frame.
    closes: bool,
}

thread_local! {
    /// An empty batch whose allocation the thread's next flush reuses.
    static SCRATCH: Cell<Batch> = const { Cell::new(Batch::new()) };
    /// The buffer into which small frames are copied together.
    static JOINED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Batch {
    const fn new() -> Self {
        Self { chunks: VecDeque::new(), offset: 0, bytes: 0, closes: false }
    }

    /// Returns an empty batch, with the allocation of an earlier one if there is one.
    pub(super) fn scratch() -> Self {
        SCRATCH.try_with(Cell::take).unwrap_or_default()
    }

    /// Keeps the allocation of an empty batch for the thread's next flush.
    pub(super) fn into_scratch(self) {
        debug_assert!(self.is_empty(), "only an empty batch may be used again");
        // A thread's first access to the cell makes memory for it, so a batch without an allocation stays out.
        if self.chunks.capacity() > 0 {
            // Fails at the end of a thread, where a destructor of a thread-local value may still send.
            let _ = SCRATCH.try_with(|scratch| scratch.set(self));
        }
    }

    /// Frees the memory that the batch does not use: all of it if it is empty.
    pub(super) fn shrink(&mut self) {
        self.chunks.shrink_to_fit();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether the batch contains the close frame. Nothing may follow it (RFC 6455 §5.5.1).
    pub(super) fn closes(&self) -> bool {
        self.closes
    }

    /// Adds the first frame, of which `written` bytes are already in the socket.
    pub(super) fn push_partial(&mut self, frame: &Encoded, written: usize) {
        debug_assert!(self.is_empty(), "only the first frame can be half written");
        self.offset = written;
        self.push(Chunk::Message(frame.clone()));
    }

    /// Adds a frame that goes out next, after only a half-written one.
    pub(super) fn push_urgent(&mut self, bytes: Vec<u8>) {
        self.bytes += bytes.len();
        self.chunks.insert(usize::from(self.offset > 0), Chunk::Bytes(bytes));
    }

    /// Adds the close frame as the last frame.
    pub(super) fn push_close(&mut self, bytes: Vec<u8>) {
        self.closes = true;
        self.push_last(bytes);
    }

    /// Adds a message at the end.
    pub(super) fn push_message(&mut self, frame: Encoded) {
        self.push(Chunk::Message(frame));
    }

    /// Adds a frame at the end.
    pub(super) fn push_last(&mut self, bytes: Vec<u8>) {
        self.push(Chunk::Bytes(bytes));
    }

    /// Abandons the remaining frames.
    pub(super) fn abandon(self, done: &mut Done) {
        self.chunks.into_iter().for_each(|chunk| chunk.release(done));
    }

    /// Fills the batch from `pop`. With `join`, adjacent texts become one text frame.
    pub(super) fn refill(&mut self, join: bool, done: &mut Done, mut pop: impl FnMut() -> Option<Encoded>) {
        let mut texts: Vec<Encoded> = Vec::new();
        let mut joined = 0;
        while self.chunks.len() + texts.len() < MAX_FRAMES && self.bytes + joined < MAX_BYTES {
            let Some(frame) = pop() else { break };
            if join && frame.is_text() {
                joined += frame.held();
                texts.push(frame);
            } else {
                self.push_joined(&mut texts, done);
                joined = 0;
                self.push(Chunk::Message(frame));
            }
        }
        self.push_joined(&mut texts, done);
    }

    /// Writes until nothing is left or `send` would block.
    pub(super) fn write(
        &mut self,
        done: &mut Done,
        mut send: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<Progress> {
        while let Some(first) = self.chunks.front() {
            let result = match self.chunks.len() {
                1 => send(&[IoSlice::new(&first.bytes()[self.offset..])]),
                _ if self.bytes <= MAX_JOINED => self.write_joined(&mut send),
                _ => self.write_many(&mut send),
            };
            match result {
                Ok(n) => self.advance(n, done),
                Err(e) if crate::transport::is_timeout(&e) => return Ok(Progress::Blocked),
                Err(e) => return Err(e),
            }
        }
        Ok(if self.closes { Progress::Closed } else { Progress::Written })
    }

    /// Writes many small frames in one system call. Copying them together costs less than the kernel's walk over a
    /// vector.
    fn write_joined(&self, send: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        let mut joined = JOINED.try_with(Cell::take).unwrap_or_default();
        joined.clear();
        self.chunks.iter().for_each(|chunk| joined.extend_from_slice(chunk.bytes()));
        let result = send(&[IoSlice::new(&joined[self.offset..])]);
        let _ = JOINED.try_with(|buffer| buffer.set(joined));
        result
    }

    /// Writes many frames in one system call. Not inlined, because its kilobyte of stack would become resident in every
    /// connection.
    #[inline(never)]
    fn write_many(&self, send: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_FRAMES];
        let count = self.chunks.len().min(MAX_FRAMES);
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk.bytes());
        }
        slices[0].advance(self.offset);
        send(&slices[..count])
    }

    fn push(&mut self, chunk: Chunk) {
        self.bytes += chunk.held();
        self.chunks.push_back(chunk);
    }

    fn push_joined(&mut self, texts: &mut Vec<Encoded>, done: &mut Done) {
        match texts.len() {
            0 => {}
            1 => texts.drain(..).for_each(|text| self.push(Chunk::Message(text))),
            _ => {
                self.push(Chunk::Bytes(ws::encode_joined_text(texts.iter().map(Encoded::payload))));
                texts.drain(..).for_each(|text| done.add(text));
            }
        }
    }

    fn advance(&mut self, mut n: usize, done: &mut Done) {
        while let Some(first) = self.chunks.front() {
            let len = first.bytes().len();
            let left = len - self.offset;
            if n < left {
                self.offset += n;
                return;
            }
            n -= left;
            self.offset = 0;
            self.bytes -= first.held();
            if let Some(chunk) = self.chunks.pop_front() {
                chunk.release(done);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Compressed, Message, WireFormat};

    fn frame(message: &Message) -> Encoded {
        Encoded::new(message, WireFormat::WebSocket, Compressed::default()).expect("carries all")
    }

    fn frames(texts: &[&str]) -> impl FnMut() -> Option<Encoded> {
        let mut list: VecDeque<_> = texts.iter().map(|t| frame(&Message::text(*t))).collect();
        move || list.pop_front()
    }

    /// Writes through a socket that takes `step` bytes a call and is full after `limit` in all.
    fn write(batch: &mut Batch, out: &mut Vec<u8>, step: usize, limit: usize) -> Progress {
        let send = |slices: &[IoSlice<'_>]| {
            let all: Vec<u8> = slices.iter().flat_map(|s| s.to_vec()).collect();
            let n = step.min(all.len()).min(limit.saturating_sub(out.len()));
            out.extend_from_slice(&all[..n]);
            if n == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
        };
        batch.write(&mut Done::default(), send).expect("no hard error")
    }

    #[test]
    fn partial_writes_keep_every_byte_in_order() {
        for step in 1..12 {
            let mut batch = Batch::default();
            batch.refill(false, &mut Done::default(), frames(&["one", "two", "three"]));
            let mut out = Vec::new();
            assert_eq!(write(&mut batch, &mut out, step, 7), Progress::Blocked);
            batch.push_urgent(b"\x8a\x00".to_vec());
            assert_eq!(write(&mut batch, &mut out, step, usize::MAX), Progress::Written);
            assert_eq!(out, b"\x81\x03one\x81\x03two\x8a\x00\x81\x05three", "step {step}");
            assert!(batch.is_empty());
        }
    }

    #[test]
    fn urgent_frames_go_first_between_frames() {
        let mut batch = Batch::default();
        batch.refill(false, &mut Done::default(), frames(&["a"]));
        batch.push_urgent(b"!".to_vec());
        let mut out = Vec::new();
        assert_eq!(write(&mut batch, &mut out, 100, 100), Progress::Written);
        assert_eq!(out, b"!\x81\x01a");
    }

    #[test]
    fn joined_texts_are_one_frame_and_binary_goes_alone() {
        let mut list: VecDeque<_> =
            [Message::text("a"), Message::text("b"), Message::binary(vec![1]), Message::text("c")]
                .iter()
                .map(frame)
                .collect();
        let mut batch = Batch::default();
        batch.refill(true, &mut Done::default(), || list.pop_front());
        let mut out = Vec::new();
        write(&mut batch, &mut out, 100, 100);
        assert_eq!(out, b"\x81\x03a\nb\x82\x01\x01\x81\x01c");
    }

    #[test]
    fn a_batch_is_bounded_in_frames_and_bytes() {
        let mut endless = || Some(frame(&Message::text("x")));
        let mut batch = Batch::default();
        batch.refill(false, &mut Done::default(), &mut endless);
        assert_eq!(batch.chunks.len(), MAX_FRAMES);
        let mut large = || Some(frame(&Message::binary(vec![0; 40_000])));
        let mut batch = Batch::default();
        batch.refill(false, &mut Done::default(), &mut large);
        assert_eq!(batch.chunks.len(), 2);
    }
}
