//! What is sent: a time stamp, then filler or JSON, plain or compressed, in a masked frame.

use flate2::{Compress, Compression, FlushCompress};

/// What a sync flush ends with, and what is left out on the wire (RFC 7692 §7.2.1).
pub const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Digits at the front of each payload.
pub const STAMP: usize = 20;
/// FIN and the opcode of a text message.
const TEXT: u8 = 0x81;
/// RSV1: the message is compressed.
pub const COMPRESSED: u8 = 0x40;

/// The form of every message of a run.
#[derive(Clone, Copy)]
pub struct Payload {
    /// Bytes, before they are compressed.
    pub size: usize,
    /// Filled with JSON, otherwise with one letter.
    pub is_json: bool,
    pub is_deflated: bool,
}

impl Payload {
    /// A masked text frame that starts with `nanos`. The mask is zero, so the payload's bytes stay readable.
    pub fn frame(self, nanos: u64) -> Vec<u8> {
        let mut payload = format!("{nanos:0STAMP$}");
        let size = self.size.max(STAMP);
        while self.is_json && payload.len() < size {
            push_reading(&mut payload, nanos);
        }
        let mut payload = payload.into_bytes();
        payload.resize(size, b'x');
        if self.is_deflated {
            return masked(TEXT | COMPRESSED, &deflate(&payload));
        }
        masked(TEXT, &payload)
    }
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        n if n < 126 => out.push(0x80 | n as u8),
        n if n < 65_536 => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(payload);
    out
}

/// One reading of a sensor, about a hundred bytes: names that repeat, digits that do not. Different in each message.
fn push_reading(text: &mut String, nanos: u64) {
    // A step of a multiplicative hash: all that is wanted is that digits look like measured ones.
    let noise = (nanos ^ text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let digits = |at: u32, below: u64| (noise >> at) % below;
    let state = ["ok", "ok", "ok", "warning", "stale"][digits(8, 5) as usize];
    let room = ["boiler", "hall", "roof", "cellar"][digits(16, 4) as usize];
    text.push_str(&format!(
        "{}{{\"sensor\":\"{room}-{:02}\",\"time\":{}.{:03},\"celsius\":{}.{:02},\"percent\":{},\"state\":\"{state}\"}}",
        if text.len() == STAMP { "[" } else { "," },
        digits(20, 40),
        1_790_000_000 + nanos / 1_000_000_000,
        digits(24, 1000),
        digits(36, 60),
        digits(42, 100),
        digits(50, 100),
    ));
}

/// As browsers send it: no context from the message before, and without the tail.
fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 64);
    let mut compress = Compress::new(Compression::default(), false);
    compress.compress_vec(payload, &mut out, FlushCompress::Sync).expect("deflate");
    assert!(out.ends_with(&TAIL), "the space suffices");
    out.truncate(out.len() - TAIL.len());
    out
}
