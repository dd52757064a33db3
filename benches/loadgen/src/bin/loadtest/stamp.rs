//! What stands at the front of each payload: when it was sent, by whom, and its number. No I/O.

use super::frame;

/// Bytes of a stamp, and so the smallest payload: 32 hexadecimal digits and letters, which may be sent as text.
pub(crate) const SIZE: usize = 32;
/// A message that counts, and one that only finds out whether messages arrive.
const KINDS: [u8; 2] = *b"mp";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Nanoseconds on the clock of this program.
    pub(crate) at: u64,
    /// Sent before the measurement, to find out whether messages arrive.
    pub(crate) is_probe: bool,
    /// The client that sent it.
    pub(crate) sender: usize,
    /// Counts the messages of a sender from 0.
    pub(crate) number: u64,
}

impl Stamp {
    /// The stamp of a payload; `None` when it is not one of ours.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let digits = payload.first_chunk::<SIZE>()?;
        let kind = KINDS.iter().position(|kind| *kind == digits[16])?;
        Some(Self {
            at: hex(&digits[..16])?,
            is_probe: kind == 1,
            sender: usize::try_from(hex(&digits[17..23])?).ok()?,
            number: hex(&digits[23..])?,
        })
    }

    fn write(self, out: &mut [u8]) {
        put_hex(self.at, &mut out[..16]);
        out[16] = KINDS[usize::from(self.is_probe)];
        put_hex(self.sender as u64, &mut out[17..23]);
        put_hex(self.number, &mut out[23..SIZE]);
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |n, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(n << 4 | u64::from(value))
    })
}

fn put_hex(mut number: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// A text frame in which only the stamp changes from message to message.
#[derive(Debug)]
pub(crate) struct Letter {
    frame: Vec<u8>,
    start: usize,
}

impl Letter {
    /// Of `size` payload bytes, at least those of a stamp.
    pub(crate) fn new(size: usize) -> Self {
        let payload = vec![b'x'; size.max(SIZE)];
        let mut frame = Vec::new();
        frame::put(frame::TEXT, &payload, &mut frame);
        Self { start: frame.len() - payload.len(), frame }
    }

    /// The frame with this stamp.
    pub(crate) fn stamped(&mut self, stamp: Stamp) -> &[u8] {
        stamp.write(&mut self.frame[self.start..self.start + SIZE]);
        &self.frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_as_it_was() {
        for stamp in [
            Stamp { at: 0, is_probe: true, sender: 0, number: 0 },
            Stamp { at: u64::MAX, is_probe: false, sender: 0xff_ffff, number: 0xf_ffff_ffff },
            Stamp { at: 1_234_567_890, is_probe: false, sender: 999, number: 123 },
        ] {
            for size in [0, SIZE, 128, 100_000] {
                let mut letter = Letter::new(size);
                let start = letter.start;
                let frame = letter.stamped(stamp);
                assert_eq!(frame.len() - start, size.max(SIZE));
                assert_eq!(Stamp::parse(&frame[start..]), Some(stamp));
            }
        }
    }

    #[test]
    fn other_payloads_have_none() {
        for payload in [&b""[..], b"hello", &[b'x'; 40], &[0xff; 40]] {
            assert_eq!(Stamp::parse(payload), None);
        }
    }
}
