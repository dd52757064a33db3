//! Frames of RFC 6455, as far as a client needs them: no I/O.

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// A server that announces more than this is not waited for.
const MAX_PAYLOAD: u64 = 64 << 20;

/// What stands in front of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) is_last: bool,
    pub(crate) opcode: u8,
    /// Bytes of the header itself.
    pub(crate) head: usize,
    /// Bytes of the payload that follows.
    pub(crate) len: usize,
}

impl Header {
    /// The header at the front of `bytes`; `None` while it is not whole.
    ///
    /// # Errors
    ///
    /// What no server may send to this client: a mask, a reserved bit, or a payload that is too large.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        if second & 0x80 != 0 {
            return Err("a masked frame");
        }
        if first & 0x70 != 0 {
            return Err("a frame of an extension that was not agreed on");
        }
        let number = |digits: usize| bytes.get(2..2 + digits).map(|b| b.iter().fold(0, |n, b| n << 8 | u64::from(*b)));
        let (head, len) = match second {
            126 => (4, number(2)),
            127 => (10, number(8)),
            n => (2, Some(u64::from(n))),
        };
        let Some(len) = len else { return Ok(None) };
        if len > MAX_PAYLOAD {
            return Err("a frame of more than 64 MiB");
        }
        Ok(Some(Self { is_last: first & 0x80 != 0, opcode: first & 0xf, head, len: len as usize }))
    }
}

/// Appends a whole frame from a client. Its mask is zero, so the payload stands in it as it is.
pub(crate) fn put(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        n if n < 126 => out.push(0x80 | n as u8),
        n if n <= 0xffff => {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_every_length_are_read_once_they_are_whole() {
        for (len, head) in [(0, 2), (125, 2), (126, 4), (0xffff, 4), (0x1_0000, 10)] {
            let mut frame = Vec::new();
            put(TEXT, &vec![b'x'; len], &mut frame);
            assert_eq!(frame.len(), head + 4 + len);
            assert!(Header::parse(&frame).is_err(), "from a server it must not be masked");
            frame[1] &= 0x7f;
            for part in 0..head {
                assert_eq!(Header::parse(&frame[..part]), Ok(None), "{len} {part}");
            }
            let header = Header { is_last: true, opcode: TEXT, head, len };
            assert_eq!(Header::parse(&frame), Ok(Some(header)));
        }
        assert!(Header::parse(&[0xc1, 0]).is_err());
        assert!(Header::parse(&[0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
