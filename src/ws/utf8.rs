//! UTF-8 checked piece by piece, so that bad text fails as soon as its first bad byte arrives.

/// Remembers the unfinished character at the end of the last piece.
#[derive(Debug, Default)]
pub(super) struct Utf8Checker {
    tail: [u8; 3],
    tail_len: usize,
}

impl Utf8Checker {
    /// Checks the next piece. Returns false once the text can no longer become valid.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> bool {
        while self.tail_len > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return true };
            let mut character = [0; 4];
            character[..self.tail_len].copy_from_slice(&self.tail[..self.tail_len]);
            character[self.tail_len] = byte;
            piece = rest;
            if !self.judge(self.tail_len + 1, character) {
                return false;
            }
        }
        match std::str::from_utf8(piece) {
            Ok(_) => true,
            Err(e) if e.error_len().is_some() => false,
            Err(e) => {
                let tail = &piece[e.valid_up_to()..];
                self.tail[..tail.len()].copy_from_slice(tail);
                self.tail_len = tail.len();
                true
            }
        }
    }

    /// Whether the text may end here.
    pub(super) fn is_complete(&self) -> bool {
        self.tail_len == 0
    }

    fn judge(&mut self, len: usize, character: [u8; 4]) -> bool {
        match std::str::from_utf8(&character[..len]) {
            Ok(_) => self.tail_len = 0,
            Err(e) if e.error_len().is_some() => return false,
            Err(_) => {
                // Incomplete means at most three bytes: four either make a character or an error.
                self.tail.copy_from_slice(&character[..3]);
                self.tail_len = len;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer must be the same however the text is cut.
    #[test]
    fn every_cut_of_every_sample_agrees_with_std() {
        let samples: [&[u8]; 10] = [
            "κόσμε 😀 ascii".as_bytes(),
            b"\xf4\x90\x80\x80",
            b"\xed\xa0\x80",
            b"\xc0\xaf",
            b"ok\xff",
            b"\xf0\x9f\x98",
            b"\xe2\x82",
            b"\x80",
            b"",
            b"\xc3\xa9\xc3",
        ];
        for text in samples {
            for a in 0..=text.len() {
                for b in a..=text.len() {
                    let mut checker = Utf8Checker::default();
                    let pieces = [&text[..a], &text[a..b], &text[b..]];
                    let valid = pieces.iter().all(|p| checker.push(p)) && checker.is_complete();
                    assert_eq!(valid, std::str::from_utf8(text).is_ok(), "{text:?} cut at {a}, {b}");
                }
            }
        }
    }

    #[test]
    fn fails_at_the_first_bad_byte() {
        let mut checker = Utf8Checker::default();
        assert!(checker.push(b"\xf4"));
        assert!(!checker.push(b"\x90"), "above U+10FFFF: known after two bytes");
    }
}
