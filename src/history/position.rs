//! A reader's position in the history of a room.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::random;

/// Number of characters of an epoch.
const EPOCH_LEN: usize = 8;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The name of one history: 8 random letters and digits, created with it. Positions of different epochs cannot be
/// compared: the history was lost in between, or belongs to another node.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; EPOCH_LEN]);

impl Epoch {
    /// Creates a new epoch. The chance that two are equal is 1 in 2·10¹⁴.
    pub(crate) fn random() -> Self {
        let mut random = random::uuid().as_u128();
        Self(std::array::from_fn(|_| {
            let digit = random % ALPHABET.len() as u128;
            random /= ALPHABET.len() as u128;
            ALPHABET[digit as usize]
        }))
    }

    /// The 8 characters.
    pub fn as_str(&self) -> &str {
        // Letters and digits by construction.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; EPOCH_LEN] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_alphanumeric).then_some(Self(bytes))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Epoch {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        Self::parse(text).ok_or(PositionError)
    }
}

/// A position in the history of a room: everything up to `offset` has been read.
///
/// Its text form is `EPOCH.OFFSET`, for example `Zk3vQ0aB.17`; event streams use it as `id:`. Offset 0 is the position
/// before the first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    epoch: Epoch,
    offset: u64,
}

impl Position {
    /// Creates the position after the message with this offset.
    pub const fn new(epoch: Epoch, offset: u64) -> Self {
        Self { epoch, offset }
    }

    /// The history that the position belongs to.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The offset of the last message read; the first message of a history has offset 1.
    pub const fn offset(&self) -> u64 {
        self.offset
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.offset)
    }
}

/// Accepts exactly the form that `Display` writes.
impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (epoch, offset) = text.split_once('.').ok_or(PositionError)?;
        let is_canonical = offset.bytes().all(|b| b.is_ascii_digit()) && (offset == "0" || !offset.starts_with('0'));
        match (Epoch::parse(epoch), offset.parse()) {
            (Some(epoch), Ok(offset)) if is_canonical => Ok(Self { epoch, offset }),
            _ => Err(PositionError),
        }
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The text is not a valid [`Position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionError;

impl fmt::Display for PositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a position: 8 letters and digits, a dot and a number")
    }
}

impl Error for PositionError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn epochs_are_eight_letters_and_digits_and_differ() {
        let epochs: std::collections::HashSet<Epoch> = (0..1000).map(|_| Epoch::random()).collect();
        assert_eq!(epochs.len(), 1000);
        assert!(epochs.iter().all(|e| e.as_str().len() == 8 && e.as_str().bytes().all(|b| b.is_ascii_alphanumeric())));
    }

    #[test]
    fn only_the_canonical_form_is_a_position() {
        let good = ["abcdefgh.0", "ABCDEF12.18446744073709551615"];
        for text in good {
            assert_eq!(text.parse::<Position>().expect(text).to_string(), text);
        }
        let bad = [
            "",
            ".",
            "abcdefgh",
            "abcdefgh.",
            "abcdefg.1",
            "abcdefghi.1",
            "abcdefgh.01",
            "abcdefgh.+1",
            "abcdefgh.-1",
            "abcdefgh.18446744073709551616",
            "abc efgh.1",
            "äbcdefg.1",
            "abcdefgh.1 ",
            "abcdefgh.1.2",
            "17",
        ];
        for text in bad {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_json_give_the_position_back(offset: u64) {
            let position = Position::new(Epoch::random(), offset);
            prop_assert_eq!(position.to_string().parse::<Position>(), Ok(position));
            let json = serde_json::to_string(&position).expect("json");
            prop_assert_eq!(serde_json::from_str::<Position>(&json).expect("json"), position);
        }

        #[test]
        fn no_text_panics(text: String) {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string(), text);
            }
        }
    }
}
