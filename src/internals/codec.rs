//! Frames to messages and back, without I/O.

use crate::ws;

/// What the peer has said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in RFC 6455")]
pub enum Event {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>, String),
}

impl From<ws::Event> for Event {
    fn from(event: ws::Event) -> Self {
        match event {
            ws::Event::Message(ws::MessageKind::Text, payload) => Self::Text(payload),
            ws::Event::Message(ws::MessageKind::Binary, payload) => Self::Binary(payload),
            ws::Event::Ping(payload) => Self::Ping(payload),
            ws::Event::Pong => Self::Pong,
            ws::Event::Close(close) => Self::Close(close.code, close.reason),
        }
    }
}

/// The receiving half of a connection, driven as the reader of a connection drives it.
#[derive(Debug)]
pub struct Decoder {
    decoder: ws::Decoder,
    chunk: Vec<u8>,
}

impl Decoder {
    /// The sizes are those of one read while nothing large comes in and of the largest message, in bytes.
    pub fn new(chunk: usize, max_message: usize, is_deflate: bool) -> Self {
        Self { decoder: ws::Decoder::new(max_message, is_deflate), chunk: vec![0; chunk] }
    }

    /// Takes bytes as they come from a socket, and appends what they say.
    ///
    /// # Errors
    ///
    /// The close code for a peer that broke the protocol. The decoder must not be used again.
    pub fn feed(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) -> Result<(), u16> {
        let Self { decoder, chunk } = self;
        while !bytes.is_empty() {
            let mut input = &mut [][..];
            if let Some(space) = decoder.space() {
                assert!(!space.is_empty(), "no space for the next read");
                let n = space.len().min(bytes.len());
                space[..n].copy_from_slice(&bytes[..n]);
                decoder.filled(n).map_err(|violation| violation.code)?;
                bytes = &bytes[n..];
            } else {
                let n = chunk.len().min(bytes.len());
                chunk[..n].copy_from_slice(&bytes[..n]);
                bytes = &bytes[n..];
                input = &mut chunk[..n];
            }
            while let Some(event) = decoder.next(&mut input).map_err(|violation| violation.code)? {
                events.push(event.into());
                // Nothing is read after a close frame.
                if matches!(events.last(), Some(Event::Close(..))) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether a frame or message has begun and not ended.
    pub fn is_mid_message(&self) -> bool {
        self.decoder.is_mid_message()
    }
}

/// An unfragmented text or binary frame, as it goes to a client.
pub fn encode(kind: ws::MessageKind, payload: &[u8]) -> Vec<u8> {
    ws::encode_message(kind, payload)
}

/// The answer to an upgrade's offers of extensions, and the window to keep to.
#[cfg(feature = "deflate")]
pub fn negotiate(offers: &[&str]) -> Option<(String, u8)> {
    ws::negotiate(offers.iter().copied()).map(|agreed| (agreed.response(), agreed.window_bits))
}

/// A compressed frame of a binary message; `None` if that does not make it shorter.
#[cfg(feature = "deflate")]
pub fn encode_compressed(payload: &[u8], level: u32, window_bits: u8) -> Option<Vec<u8>> {
    ws::encode_compressed(ws::MessageKind::Binary, payload, level, window_bits)
}
