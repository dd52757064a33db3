//! Server frames: never masked (RFC 6455 §5.1), one header and the payload in one buffer.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding;

use super::MessageKind;
use super::deflate::compress;

/// The control frames a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    Ping,
    Pong,
    Close,
}

/// Encodes one unfragmented data frame.
pub(crate) fn encode_message(kind: MessageKind, payload: &[u8]) -> Vec<u8> {
    encode(opcode(kind), false, payload.len(), |out| out.extend_from_slice(payload))
}

/// Encodes one unfragmented data frame with a compressed payload. `None` if compression does not make it shorter.
pub(crate) fn encode_compressed(kind: MessageKind, payload: &[u8], level: u32, window_bits: u8) -> Option<Vec<u8>> {
    let payload = compress(payload, level, window_bits)?;
    Some(encode(opcode(kind), true, payload.len(), |out| out.extend_from_slice(&payload)))
}

fn opcode(kind: MessageKind) -> coding::OpCode {
    coding::OpCode::Data(match kind {
        MessageKind::Text => coding::Data::Text,
        MessageKind::Binary => coding::Data::Binary,
    })
}

/// Encodes several texts as one text frame, joined by `\n`.
pub(crate) fn encode_joined_text<'a>(texts: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let len = texts.clone().map(|t| t.len() + 1).sum::<usize>().saturating_sub(1);
    encode(opcode(MessageKind::Text), false, len, |out| {
        for (i, text) in texts.enumerate() {
            if i > 0 {
                out.push(b'\n');
            }
            out.extend_from_slice(text);
        }
    })
}

/// Encodes a control frame. The payload is cut at 125 bytes (RFC 6455 §5.5).
pub(crate) fn encode_control(control: Control, payload: &[u8]) -> Vec<u8> {
    let opcode = coding::OpCode::Control(match control {
        Control::Ping => coding::Control::Ping,
        Control::Pong => coding::Control::Pong,
        Control::Close => coding::Control::Close,
    });
    let payload = &payload[..payload.len().min(125)];
    encode(opcode, false, payload.len(), |out| out.extend_from_slice(payload))
}

fn encode(opcode: coding::OpCode, rsv1: bool, len: usize, payload: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let header = FrameHeader { opcode, rsv1, ..FrameHeader::default() };
    let mut out = Vec::with_capacity(header.len(len as u64) + len);
    let written = header.format(len as u64, &mut out);
    // Not `expect`: its text would bring tungstenite's errors, with all that they contain, into small programs.
    debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
    payload(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        for (len, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let frame = encode_message(MessageKind::Binary, &vec![7; len]);
            assert_eq!((frame.len(), frame.capacity()), (head + len, head + len));
            assert_eq!(frame[0], 0x82);
        }
        assert_eq!(encode_message(MessageKind::Text, b"hi"), b"\x81\x02hi");
    }

    #[test]
    fn joined_texts_and_controls() {
        assert_eq!(encode_joined_text([b"a".as_slice(), b"bc"].into_iter()), b"\x81\x04a\nbc");
        assert_eq!(encode_control(Control::Pong, b"x"), b"\x8a\x01x");
        assert_eq!(encode_control(Control::Ping, &[0; 200]).len(), 127);
        assert_eq!(encode_control(Control::Close, &[3, 232]), b"\x88\x02\x03\xe8");
    }
}
