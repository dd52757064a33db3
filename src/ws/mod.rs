//! The WebSocket protocol without I/O: bytes to frames to messages and back.
//!
//! Only this module uses a WebSocket crate: frame headers, opcodes and close codes are tungstenite's. The assembly is
//! this crate's own, because it validates text as it arrives and allocates only for received data.

mod assemble;
mod close;
#[cfg(feature = "deflate")]
mod deflate;
#[cfg(not(feature = "deflate"))]
#[path = "no_deflate.rs"]
mod deflate;
#[cfg(feature = "deflate")]
mod extensions;
mod frame;
mod utf8;

pub(crate) use assemble::{Decoder, Event};
pub use close::close_code;
pub(crate) use close::{CloseFrame, check_close};
#[cfg(feature = "deflate")]
pub(crate) use extensions::negotiate;
pub(crate) use frame::{Control, encode_compressed, encode_control, encode_joined_text, encode_message};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha1::{Digest, Sha1};

/// The kind of a message. Serialises as `text` or `binary`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageKind {
    /// UTF-8 text (opcode 1).
    Text,
    /// Arbitrary bytes (opcode 2).
    Binary,
}

/// The value of `Sec-WebSocket-Accept` for a key (RFC 6455 §4.2.2).
pub(crate) fn accept_key(key: &str) -> String {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Whether a `Sec-WebSocket-Key` is the base64 of 16 bytes (RFC 6455 §4.1): 22 digits and two paddings.
pub(crate) fn is_valid_key(key: &str) -> bool {
    let digits = key.strip_suffix("==").unwrap_or_default();
    // 16 bytes leave four zero bits in the last digit.
    digits.len() == 22
        && digits.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
        && digits.ends_with(['A', 'Q', 'g', 'w'])
}

/// A peer's violation of the protocol: the close code to send and the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

impl Violation {
    pub(crate) const fn protocol(reason: &'static str) -> Self {
        Self { code: close_code::PROTOCOL_ERROR, reason }
    }

    pub(crate) const fn utf8() -> Self {
        Self { code: close_code::INVALID_PAYLOAD, reason: "invalid UTF-8" }
    }

    #[cfg(feature = "deflate")]
    pub(crate) const fn deflate() -> Self {
        Self { code: close_code::INVALID_PAYLOAD, reason: "invalid compressed data" }
    }

    #[cfg(feature = "deflate")]
    pub(crate) const fn truncated() -> Self {
        Self { code: close_code::INVALID_PAYLOAD, reason: "truncated compressed data" }
    }

    pub(crate) const fn too_big() -> Self {
        Self { code: close_code::MESSAGE_TOO_BIG, reason: "message too big" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_key_of_the_rfc_and_refuses_others() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(is_valid_key("dGhlIHNhbXBsZSBub25jZQ=="));
        for bad in ["", "==", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZR==", "dGhlIHNhbXBsZSBub25jZ?=="] {
            assert!(!is_valid_key(bad), "{bad}");
        }
    }
}
