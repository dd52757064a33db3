//! The frame: five fields, each a 32-bit big-endian length and its bytes. Pure: bytes in, bytes out.

use std::fmt;

use bytes::Bytes;

/// Size of a field's length prefix, in bytes.
const LENGTH: usize = 4;

/// One frame of the protocol, in either direction.
///
/// ```
/// use wshub::protocol::binary::Frame;
/// let message = Frame::new("lobby", "chat", "", "", "hi");
/// let bytes = message.encode();
/// assert_eq!(bytes[..9], *b"\0\0\0\x05lobby");
/// assert_eq!(Frame::decode(&bytes), Ok(message));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Frame {
    /// The room that the message concerns; `root` for direct messages.
    pub room: String,
    /// The event name, such as `join` or an event of the application.
    pub event: String,
    /// The id of the recipient; empty for a message to the room.
    pub dst: String,
    /// The id of the sender; empty for messages from the server itself.
    pub src: String,
    /// Any bytes.
    pub payload: Bytes,
}

impl Frame {
    /// Creates a message from its fields.
    pub fn new(
        room: impl Into<String>,
        event: impl Into<String>,
        dst: impl Into<String>,
        src: impl Into<String>,
        payload: impl Into<Bytes>,
    ) -> Self {
        Self { room: room.into(), event: event.into(), dst: dst.into(), src: src.into(), payload: payload.into() }
    }

    /// The wire form of the message.
    ///
    /// # Panics
    ///
    /// If a field is longer than 4 GiB, which its length prefix cannot express.
    pub fn encode(&self) -> Vec<u8> {
        let fields = self.fields();
        let mut out = Vec::with_capacity(fields.iter().map(|field| LENGTH + field.len()).sum());
        for field in fields {
            let Ok(length) = u32::try_from(field.len()) else { panic!("a field of {} bytes", field.len()) };
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(field);
        }
        out
    }

    /// Parses a message that occupies exactly these bytes. Memory follows the actual bytes, not a claimed length.
    ///
    /// # Errors
    ///
    /// The first error, in the order of the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        let message = Self {
            room: take_name(&mut rest, "room")?,
            event: take_name(&mut rest, "event")?,
            dst: take_name(&mut rest, "dst")?,
            src: take_name(&mut rest, "src")?,
            payload: Bytes::copy_from_slice(take(&mut rest, "payload")?),
        };
        if rest.is_empty() { Ok(message) } else { Err(DecodeError::TrailingBytes(rest.len())) }
    }

    fn fields(&self) -> [&[u8]; 5] {
        [self.room.as_bytes(), self.event.as_bytes(), self.dst.as_bytes(), self.src.as_bytes(), &self.payload]
    }
}

impl From<&Frame> for crate::Message {
    fn from(message: &Frame) -> Self {
        Self::binary(message.encode())
    }
}

impl From<Frame> for crate::Message {
    fn from(message: Frame) -> Self {
        Self::from(&message)
    }
}

fn take<'a>(rest: &mut &'a [u8], field: &'static str) -> Result<&'a [u8], DecodeError> {
    let truncated = DecodeError::Truncated { field };
    let (length, behind) = rest.split_first_chunk::<LENGTH>().ok_or(truncated)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| truncated)?;
    let (bytes, behind) = behind.split_at_checked(length).ok_or(truncated)?;
    *rest = behind;
    Ok(bytes)
}

fn take_name(rest: &mut &[u8], field: &'static str) -> Result<String, DecodeError> {
    let bytes = take(rest, field)?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError::InvalidUtf8 { field })
}

/// Why bytes are not a [`Frame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside this field or its length.
    Truncated {
        /// `room`, `event`, `dst`, `src` or `payload`.
        field: &'static str,
    },
    /// This field is not UTF-8.
    InvalidUtf8 {
        /// `room`, `event`, `dst` or `src`.
        field: &'static str,
    },
    /// This many bytes follow the payload.
    TrailingBytes(usize),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { field } => write!(f, "frame ends inside {field}"),
            Self::InvalidUtf8 { field } => write!(f, "{field} is not UTF-8"),
            Self::TrailingBytes(count) => write!(f, "{count} bytes after the payload"),
        }
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
