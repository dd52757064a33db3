//! JSON as Go's `encoding/json` writes it: `<`, `>`, `&` and two line separators are escaped, which makes it safe in
//! HTML.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// Cannot fail for the types used here: structs, strings, numbers, and maps with string keys.
pub(super) fn to_vec<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let result = value.serialize(&mut Serializer::with_formatter(&mut bytes, Go));
    debug_assert!(result.is_ok(), "{result:?}");
    bytes
}

struct Go;

impl Formatter for Go {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        // Both separators begin with 0xe2. A loop without an early exit checks many bytes at a time, and base64
        // payloads contain none of these.
        let is_suspect = |byte: &u8| matches!(byte, b'<' | b'>' | b'&' | 0xe2);
        if !text.as_bytes().iter().fold(false, |found, byte| found | is_suspect(byte)) {
            return CompactFormatter.write_string_fragment(writer, text);
        }
        let is_special = |c| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        let mut rest = text;
        while let Some((at, special)) = rest.char_indices().find(|(_, c)| is_special(*c)) {
            CompactFormatter.write_string_fragment(writer, &rest[..at])?;
            write!(writer, "\\u{:04x}", u32::from(special))?;
            rest = &rest[at + special.len_utf8()..];
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        String::from_utf8(to_vec(&text)).expect("UTF-8")
    }

    #[test]
    fn escapes_as_go_does() {
        assert_eq!(json("a<b>&c"), r#""a\u003cb\u003e\u0026c""#);
        assert_eq!(json("\u{2028}\u{2029}x"), r#""\u2028\u2029x""#);
        assert_eq!(json("\"\\\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}"), "\"\\\"\\\\\\n\\r\\t\\b\\f\\u0001\\u001f\u{7f}\"");
        assert_eq!(json("grüß 😀"), "\"grüß 😀\"");
    }
}
