//! Assembles a client's bytes into messages: framing, masking, fragmentation, sizes, UTF-8.

#![allow(clippy::mut_mut, reason = "what is taken off the front of the input is changed in place: unmasked")]

use std::io::Cursor;
use std::ops::Range;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control as ControlCode, Data, OpCode};

use super::deflate::Inflater;
use super::utf8::Utf8Checker;
use super::{CloseFrame, MessageKind, Violation};

/// Maximum size of a frame's header in bytes: two, a length of eight, a mask of four (RFC 6455 §5.2).
const MAX_HEADER: usize = 14;
/// Minimum number of missing payload bytes for a read directly into the message.
const DIRECT: u64 = 4096;
/// Bounds of one read directly into the message, in bytes. Between them, a read is as long as the data received so far.
const MIN_STEP: usize = 4096;
const MAX_STEP: usize = 256 * 1024;
/// Payload bytes that count as progress of an unfinished frame.
const PROGRESS: u64 = 16 * 1024;

/// A received message, control frame or close.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(CloseFrame),
}

/// A frame whose payload is still arriving.
#[derive(Debug)]
struct Partial {
    header: FrameHeader,
    left: u64,
    /// The offset in the mask for the next payload byte.
    mask_at: usize,
    /// Payload of a control frame; data goes to the message under assembly.
    control: Vec<u8>,
}

impl Partial {
    fn is_data(&self) -> bool {
        matches!(self.header.opcode, OpCode::Data(_))
    }

    /// Unmasks the next payload bytes. Returns how many steps of [`PROGRESS`] bytes they complete.
    fn unmask(&mut self, bytes: &mut [u8]) -> u64 {
        unmask(bytes, self.header.mask.unwrap_or_default(), self.mask_at);
        self.mask_at = (self.mask_at + bytes.len()) % 4;
        let before = self.left / PROGRESS;
        self.left -= bytes.len() as u64;
        before - self.left / PROGRESS
    }
}

/// A data message under assembly, perhaps over several frames.
#[derive(Debug)]
struct Assembly {
    kind: MessageKind,
    payload: Vec<u8>,
    utf8: Utf8Checker,
    /// The message is compressed.
    inflater: Option<Inflater>,
    /// Payload bytes that its frames have announced.
    announced: u64,
}

impl Assembly {
    /// Adds received bytes, which are already unmasked.
    fn push(&mut self, bytes: &[u8], max: usize) -> Result<(), Violation> {
        let from = self.payload.len();
        match &mut self.inflater {
            Some(inflater) => inflater.push(bytes, &mut self.payload, max)?,
            None => self.payload.extend_from_slice(bytes),
        }
        self.check(from..self.payload.len())
    }

    /// Returns the complete message.
    fn finish(mut self) -> Result<Event, Violation> {
        if let Some(inflater) = &mut self.inflater {
            inflater.finish()?;
        }
        if self.kind == MessageKind::Text && !self.utf8.is_complete() {
            return Err(Violation::utf8());
        }
        Ok(Event::Message(self.kind, self.payload))
    }

    /// Checks the text in this range.
    fn check(&mut self, at: Range<usize>) -> Result<(), Violation> {
        let is_good = self.kind != MessageKind::Text || self.utf8.push(&self.payload[at]);
        if is_good { Ok(()) } else { Err(Violation::utf8()) }
    }
}

/// The receiving half of a connection. Pass input to [`next`](Self::next) until that returns `None`. While a large
/// message arrives, read into [`space`](Self::space) instead. Do not use a decoder again after an error.
///
/// A decoder stores only unfinished data: the beginning of a header, a control frame, a message.
#[derive(Debug)]
pub(crate) struct Decoder {
    max_message: usize,
    /// The client has negotiated permessage-deflate.
    deflate: bool,
    /// The first bytes of an incomplete header.
    head: [u8; MAX_HEADER],
    head_len: usize,
    frame: Option<Partial>,
    message: Option<Assembly>,
    /// The bytes of the message's payload that have arrived, while the payload is longer by [`space`](Self::space). The
    /// rest is zeroed once and kept between reads, however little of it a read fills.
    arrived: Option<usize>,
    /// Counts finished frames and large steps of unfinished ones.
    progress: u64,
}

impl Decoder {
    pub(crate) fn new(max_message: usize, deflate: bool) -> Self {
        let head = [0; MAX_HEADER];
        Self { max_message, deflate, head, head_len: 0, frame: None, message: None, arrived: None, progress: 0 }
    }

    /// A number that changes whenever the peer makes progress: a frame ends, or 16 KiB more of a frame arrive.
    pub(crate) fn progress(&self) -> u64 {
        self.progress
    }

    /// Whether a frame or message has begun and not ended.
    pub(crate) fn is_mid_message(&self) -> bool {
        self.head_len > 0 || self.frame.is_some() || self.message.is_some()
    }

    /// While a large frame arrives, returns the free end of its message. Reading there avoids a copy of the payload.
    /// Never empty. Its length grows with the received data, not with the announced length. `None` if the caller must
    /// read into its own buffer and pass that to [`next`](Self::next).
    pub(crate) fn space(&mut self) -> Option<&mut [u8]> {
        let frame = self.frame.as_ref().filter(|frame| frame.left >= DIRECT && frame.is_data())?;
        let message = self.message.as_mut().filter(|message| message.inflater.is_none())?;
        let arrived = *self.arrived.get_or_insert(message.payload.len());
        let step = arrived.clamp(MIN_STEP, MAX_STEP).min(usize::try_from(frame.left).unwrap_or(MAX_STEP));
        message.payload.resize(arrived + step, 0);
        Some(&mut message.payload[arrived..])
    }

    /// Processes `n` bytes that were read into [`space`](Self::space). Call it after each use of `space`, even with 0.
    pub(crate) fn filled(&mut self, n: usize) -> Result<(), Violation> {
        let (Some(from), Some(frame), Some(message)) = (self.arrived, &mut self.frame, &mut self.message) else {
            return Ok(());
        };
        let to = from + n;
        self.progress += frame.unmask(&mut message.payload[from..to]);
        if frame.left >= DIRECT {
            self.arrived = Some(to);
        } else {
            // The rest is copied from a buffer of the caller.
            self.arrived = None;
            message.payload.truncate(to);
        }
        message.check(from..to)
    }

    /// Takes the next event from the start of `input`. `None` if `input` is used up and more is needed.
    pub(crate) fn next(&mut self, input: &mut &mut [u8]) -> Result<Option<Event>, Violation> {
        loop {
            if self.frame.is_none() {
                match self.parse_header(input)? {
                    Some(frame) => self.frame = Some(frame),
                    None => return Ok(None),
                }
            }
            self.take_payload(input)?;
            match self.frame.take() {
                Some(frame) if frame.left > 0 => {
                    self.frame = Some(frame);
                    return Ok(None);
                }
                Some(frame) => {
                    self.progress += 1;
                    if let Some(event) = self.finish(frame)? {
                        return Ok(Some(event));
                    }
                }
                None => return Ok(None),
            }
        }
    }

    fn parse_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Partial>, Violation> {
        let before = self.head_len;
        let parsed = if before == 0 {
            parse(input)?
        } else {
            let more = input.len().min(MAX_HEADER - before);
            self.head[before..before + more].copy_from_slice(&input[..more]);
            parse(&self.head[..before + more])?
        };
        let Some((header, len, used)) = parsed else {
            // Less than a header: all of it is stored.
            let rest = take(input, input.len());
            if before == 0 {
                self.head[..rest.len()].copy_from_slice(rest);
            }
            self.head_len = before + rest.len();
            return Ok(None);
        };
        self.check_header(&header, len)?;
        self.head_len = 0;
        take(input, used - before);
        self.begin(&header, len, input.len());
        Ok(Some(Partial { header, left: len, mask_at: 0, control: Vec::new() }))
    }

    /// Checks a header completely, before any payload is stored.
    fn check_header(&self, header: &FrameHeader, len: u64) -> Result<(), Violation> {
        // RFC 7692 §6: the first frame of a message says whether it is compressed.
        let may_be_compressed = self.deflate && matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
        if (header.rsv1 && !may_be_compressed) || header.rsv2 || header.rsv3 {
            return Err(Violation::protocol("reserved bit set"));
        }
        if header.mask.is_none() {
            return Err(Violation::protocol("client frame without mask"));
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final => Err(Violation::protocol("fragmented control frame")),
            OpCode::Control(_) if len > 125 => Err(Violation::protocol("control frame over 125 bytes")),
            OpCode::Control(_) => Ok(()),
            OpCode::Data(Data::Continue) if self.message.is_none() => {
                Err(Violation::protocol("continuation of nothing"))
            }
            OpCode::Data(Data::Text | Data::Binary) if self.message.is_some() => {
                Err(Violation::protocol("new message inside a fragmented one"))
            }
            OpCode::Data(_) => self.check_size(header.rsv1, len),
        }
    }

    fn check_size(&self, begins_compressed: bool, len: u64) -> Result<(), Violation> {
        // RFC 6455 §5.2: the most significant bit of a 64-bit length must be 0.
        if len >> 63 != 0 {
            return Err(Violation::protocol("length over 63 bits"));
        }
        let announced = self.message.as_ref().map_or(0, |m| m.announced);
        let is_compressed = begins_compressed || self.message.as_ref().is_some_and(|m| m.inflater.is_some());
        let max = self.max_message as u64;
        // Decompression checks the decompressed size. A poor compressor may make the compressed form longer than that.
        let limit = if is_compressed { max.saturating_mul(2).saturating_add(1024) } else { max };
        if announced.saturating_add(len) > limit { Err(Violation::too_big()) } else { Ok(()) }
    }

    /// Begins a message with its first data frame, or continues it. Reserves memory for the received data, not for the
    /// announced length. A small, complete message gets exactly its size.
    fn begin(&mut self, header: &FrameHeader, len: u64, arrived: usize) {
        let kind = match header.opcode {
            OpCode::Data(Data::Text) => MessageKind::Text,
            OpCode::Data(Data::Binary) => MessageKind::Binary,
            OpCode::Data(_) => {
                if let Some(message) = &mut self.message {
                    message.announced += len;
                }
                return;
            }
            OpCode::Control(_) => return,
        };
        let arrived = usize::try_from(len).unwrap_or(usize::MAX).min(arrived);
        let inflater = Inflater::for_message(header.rsv1);
        let capacity = if inflater.is_some() { 0 } else { arrived };
        let (payload, utf8) = (Vec::with_capacity(capacity), Utf8Checker::default());
        self.message = Some(Assembly { kind, payload, utf8, inflater, announced: len });
    }

    /// Unmasks and checks the received part of the frame's payload and moves it to its place.
    fn take_payload(&mut self, input: &mut &mut [u8]) -> Result<(), Violation> {
        let Some(frame) = self.frame.as_mut() else { return Ok(()) };
        let n = usize::try_from(frame.left).unwrap_or(usize::MAX).min(input.len());
        if n == 0 {
            return Ok(());
        }
        if let (Some(arrived), Some(message)) = (self.arrived.take(), &mut self.message) {
            // The caller does without the space.
            message.payload.truncate(arrived);
        }
        let bytes = take(input, n);
        self.progress += frame.unmask(bytes);
        match self.message.as_mut() {
            Some(message) if frame.is_data() => message.push(bytes, self.max_message),
            _ => {
                frame.control.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn finish(&mut self, frame: Partial) -> Result<Option<Event>, Violation> {
        match frame.header.opcode {
            OpCode::Control(ControlCode::Ping) => Ok(Some(Event::Ping(frame.control))),
            OpCode::Control(ControlCode::Pong) => Ok(Some(Event::Pong)),
            OpCode::Control(_) => CloseFrame::parse(&frame.control).map(|close| Some(Event::Close(close))),
            OpCode::Data(_) if !frame.header.is_final => Ok(None),
            OpCode::Data(_) => self.finish_message(),
        }
    }

    fn finish_message(&mut self) -> Result<Option<Event>, Violation> {
        let Some(message) = self.message.take() else { return Ok(None) };
        message.finish().map(Some)
    }
}

/// Parses a header. Returns it with its payload's length and its own length, or `None` if bytes are missing.
fn parse(bytes: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, Violation> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation::protocol("reserved opcode"))?;
    let used = usize::try_from(cursor.position()).unwrap_or(bytes.len());
    Ok(parsed.map(|(header, len)| (header, len, used)))
}

/// Splits off the first `n` bytes.
fn take<'a>(input: &mut &'a mut [u8], n: usize) -> &'a mut [u8] {
    let (first, rest) = std::mem::take(input).split_at_mut(n);
    *input = rest;
    first
}

/// Unmasks (RFC 6455 §5.3), eight bytes at a time. `at` is the offset in the mask for the first byte.
fn unmask(bytes: &mut [u8], mut mask: [u8; 4], at: usize) {
    mask.rotate_left(at);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
