//! The chunked transfer coding (RFC 9112 §7.1): bodies of requests are decoded, event streams are encoded. No I/O.

/// Maximum length of the line with a chunk's size and extensions, in bytes.
const MAX_SIZE_LINE: usize = 256;
/// Maximum size of the trailer section, in bytes.
const MAX_TRAILER: usize = 4096;

/// The last chunk, without trailers. It ends a body.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Encodes one chunk. `data` must not be empty, because an empty chunk ends the body.
pub(crate) fn encode_chunk(data: &[u8]) -> Vec<u8> {
    debug_assert!(!data.is_empty(), "an empty chunk ends the body");
    let size = format!("{:X}\r\n", data.len());
    [size.as_bytes(), data, b"\r\n"].concat()
}

/// Why a chunked body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkError {
    /// The body exceeds the limit.
    TooLarge,
    /// The coding is invalid. Contains the reason.
    Malformed(&'static str),
}

/// The part that the decoder expects next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expecting {
    /// The line of a chunk's size.
    Size,
    /// This many bytes of data.
    Data(usize),
    /// The CR LF after a chunk's data.
    DataEnd,
    /// A line of the trailer section, or the empty line that ends it.
    Trailer,
    Nothing,
}

/// Decodes a chunked body as it arrives.
///
/// It is strict, so that every reader of the same bytes finds the same end: lines end with CR LF, and sizes consist of
/// hexadecimal digits only. Extensions and trailers are discarded.
#[derive(Debug)]
pub(crate) struct ChunkedDecoder {
    expecting: Expecting,
    /// An unfinished line.
    line: Vec<u8>,
    /// Bytes of trailers so far.
    trailer: usize,
    max_body: usize,
    body: Vec<u8>,
}

impl ChunkedDecoder {
    /// Creates a decoder for bodies of at most `max_body` bytes.
    pub(crate) fn new(max_body: usize) -> Self {
        Self { expecting: Expecting::Size, line: Vec::new(), trailer: 0, max_body, body: Vec::new() }
    }

    /// Decodes received bytes. Returns true at the end of the body; further bytes are ignored.
    pub(crate) fn push(&mut self, mut input: &[u8]) -> Result<bool, ChunkError> {
        while !input.is_empty() && self.expecting != Expecting::Nothing {
            input = match self.expecting {
                Expecting::Data(left) => {
                    let (data, rest) = input.split_at(left.min(input.len()));
                    self.body.extend_from_slice(data);
                    self.expecting =
                        if data.len() == left { Expecting::DataEnd } else { Expecting::Data(left - data.len()) };
                    rest
                }
                _ => self.push_line(input)?,
            };
        }
        Ok(self.expecting == Expecting::Nothing)
    }

    /// Returns the body, once [`push`](Self::push) has returned true.
    pub(crate) fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// Takes bytes up to the end of the line. Returns the rest.
    fn push_line<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], ChunkError> {
        let end = input.iter().position(|b| *b == b'\n').map_or(input.len(), |at| at + 1);
        let (part, rest) = input.split_at(end);
        self.line.extend_from_slice(part);
        let limit = if self.expecting == Expecting::Trailer { MAX_TRAILER - self.trailer } else { MAX_SIZE_LINE };
        if self.line.len() > limit {
            return Err(ChunkError::Malformed("line of a chunked body too long"));
        }
        if part.ends_with(b"\n") {
            let line = std::mem::take(&mut self.line);
            self.take_line(text_of(&line)?)?;
        }
        Ok(rest)
    }

    fn take_line(&mut self, line: &[u8]) -> Result<(), ChunkError> {
        self.expecting = match self.expecting {
            Expecting::Size => match size_of(line)? {
                0 => Expecting::Trailer,
                size if size > self.max_body - self.body.len() => return Err(ChunkError::TooLarge),
                size => Expecting::Data(size),
            },
            Expecting::DataEnd if line.is_empty() => Expecting::Size,
            Expecting::DataEnd => return Err(ChunkError::Malformed("chunk longer than its size")),
            Expecting::Trailer if line.is_empty() => Expecting::Nothing,
            Expecting::Trailer => {
                self.trailer += line.len() + 2;
                Expecting::Trailer
            }
            Expecting::Data(_) | Expecting::Nothing => return Ok(()),
        };
        Ok(())
    }
}

/// Returns the line without its CR LF.
fn text_of(line: &[u8]) -> Result<&[u8], ChunkError> {
    let text = line.strip_suffix(b"\r\n").ok_or(ChunkError::Malformed("bare LF in a chunked body"))?;
    let is_plain = !text.iter().any(|b| matches!(b, b'\r' | 0));
    is_plain.then_some(text).ok_or(ChunkError::Malformed("bare CR or NUL in a chunked body"))
}

/// Parses the size at the start of the line. A semicolon begins extensions; some senders put spaces before it.
fn size_of(line: &[u8]) -> Result<usize, ChunkError> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let rest = line[digits..].trim_ascii_start();
    let is_good = digits > 0 && (line.len() == digits || rest.starts_with(b";"));
    if !is_good {
        return Err(ChunkError::Malformed("invalid chunk size"));
    }
    let number = std::str::from_utf8(&line[..digits]).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    // A size above 64 bits, or above what this machine can address, exceeds every limit.
    number.and_then(|size| usize::try_from(size).ok()).ok_or(ChunkError::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(input: &[u8], step: usize, max: usize) -> Result<Option<Vec<u8>>, ChunkError> {
        let mut decoder = ChunkedDecoder::new(max);
        for part in input.chunks(step) {
            if decoder.push(part)? {
                return Ok(Some(decoder.into_body()));
            }
        }
        Ok(None)
    }

    #[test]
    fn bodies_in_many_shapes() {
        for (input, body) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\nGET / HTTP/1.1", "hello"),
            ("00000000000000000005\r\nhello\r\n000\r\n\r\n", "hello"),
            ("5;name=value\r\nhello\r\n0;x\r\n\r\n", "hello"),
            ("5 ;x\r\nhello\r\n0\r\nExpires: never\r\nX: y\r\n\r\n", "hello"),
            ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
        ] {
            for step in [1, 2, 3, 100] {
                assert_eq!(decode(input.as_bytes(), step, 10), Ok(Some(body.into())), "{input:?} by {step}");
            }
        }
    }

    #[test]
    fn what_two_readers_could_take_differently_is_refused() {
        for input in [
            "\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "-1\r\n",
            "5 \r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5\r\nhello!\r\n0\r\n\r\n",
            "5,\r\nhello",
            "5;a\rb\r\nhello",
            ";x\r\n",
            "g\r\n",
            "5\r\r\nhello\r\n",
            "0\r\nX: a\n\r\n",
            "5;\0\r\nhello",
        ] {
            for step in [1, 100] {
                let decoded = decode(input.as_bytes(), step, 100);
                assert!(matches!(decoded, Err(ChunkError::Malformed(_))), "{input:?} by {step}: {decoded:?}");
            }
        }
    }

    #[test]
    fn everything_is_bounded() {
        assert_eq!(decode(b"5\r\nhello\r\n0\r\n\r\n", 100, 4), Err(ChunkError::TooLarge));
        assert_eq!(decode(b"3\r\nhel\r\n2\r\n", 100, 4), Err(ChunkError::TooLarge), "before it has come");
        for size in ["ffffffffffffffff", "10000000000000000", "fffffffffffffffffffff"] {
            assert_eq!(decode(format!("{size}\r\n").as_bytes(), 100, 1 << 30), Err(ChunkError::TooLarge), "{size}");
        }
        let long = [b"5;".as_slice(), &[b'x'; MAX_SIZE_LINE]].concat();
        assert!(matches!(decode(&long, 7, 100), Err(ChunkError::Malformed(_))), "without a line end");
        let trailers = [b"0\r\n".to_vec(), b"X: y\r\n".repeat(MAX_TRAILER)].concat();
        assert!(matches!(decode(&trailers, 1000, 100), Err(ChunkError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_in_any_pieces(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
            step in 1_usize..400,
            cut: prop::sample::Index,
        ) {
            let chunked = chunks.iter().flat_map(|chunk| encode_chunk(chunk));
            let encoded: Vec<u8> = chunked.chain(LAST_CHUNK.to_vec()).collect();
            let body = chunks.concat();
            prop_assert_eq!(decode(&encoded, step, body.len()), Ok(Some(body.clone())));
            let prefix = &encoded[..cut.index(encoded.len())];
            prop_assert_eq!(decode(prefix, step, body.len()), Ok(None), "a prefix is not whole");
            if let Some(less) = body.len().checked_sub(1) {
                prop_assert_eq!(decode(&encoded, step, less), Err(ChunkError::TooLarge));
            }
        }

        #[test]
        fn no_input_panics_and_pieces_make_no_difference(
            input in prop::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), any::<u8>()],
                0..60,
            ),
            step in 1_usize..10,
        ) {
            prop_assert_eq!(decode(&input, step, 100), decode(&input, 100, 100));
        }
    }
}
