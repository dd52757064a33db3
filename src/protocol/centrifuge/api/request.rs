//! Request types. Fields that are not listed are ignored, and `null` means absent.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::super::error::CommandError;
use super::super::wire::command::StreamPosition;
use crate::limit::MAX_ROOM_NAME;

/// Maximum size of an idempotency key, in bytes.
const MAX_KEY: usize = 256;

fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(json: D) -> Result<T, D::Error> {
    Option::deserialize(json).map(Option::unwrap_or_default)
}

/// Fields of publish and broadcast.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Publish {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) channels: Vec<String>,
    pub(super) data: Option<Box<RawValue>>,
    pub(super) b64data: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) skip_history: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) idempotency_key: String,
}

impl Publish {
    /// The payload to publish.
    pub(super) fn payload(&self) -> Result<Bytes, CommandError> {
        if self.idempotency_key.len() > MAX_KEY {
            return Err(CommandError::BAD_REQUEST);
        }
        payload(self.data.as_deref(), self.b64data.as_deref())?.ok_or(CommandError::BAD_REQUEST)
    }
}

/// The payload from JSON, or from base64; `None` if there is neither.
pub(super) fn payload(json: Option<&RawValue>, base64: Option<&str>) -> Result<Option<Bytes>, CommandError> {
    match (base64.filter(|text| !text.is_empty()), json) {
        (Some(text), _) => STANDARD.decode(text).map(|bytes| Some(bytes.into())).map_err(|_| CommandError::BAD_REQUEST),
        (None, Some(raw)) => Ok(Some(Bytes::from(raw.get().to_owned()))),
        (None, None) => Ok(None),
    }
}

/// Fields of subscribe, unsubscribe and disconnect.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct OfUser {
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) whitelist: Vec<String>,
    pub(super) disconnect: Option<Disconnect>,
    pub(super) info: Option<Box<RawValue>>,
    pub(super) b64info: Option<String>,
    pub(super) data: Option<Box<RawValue>>,
    pub(super) b64data: Option<String>,
    pub(super) recover_since: Option<StreamPosition>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Disconnect {
    pub(super) code: u16,
    #[serde(deserialize_with = "or_default")]
    pub(super) reason: String,
}

/// Fields of `presence`, `presence_stats` and `history_remove`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Channel {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Channels {
    #[serde(deserialize_with = "or_default")]
    pub(super) pattern: String,
}

/// Checks that a room can have this name.
pub(super) fn checked(channel: &str) -> Result<&str, CommandError> {
    let fits = !channel.is_empty() && channel.len() <= MAX_ROOM_NAME;
    if fits { Ok(channel) } else { Err(CommandError::BAD_REQUEST) }
}

/// Whether a name matches a pattern in which `*` stands for any characters and `?` for one.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // The pattern after the last `*`, and how much of the name that `*` matches.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                p += 1;
                retry = Some((p, n));
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((behind, taken)) = retry else { return false };
                retry = Some((behind, taken + 1));
                (p, n) = (behind, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_globs() {
        for (pattern, name) in
            [("*", ""), ("*", "a"), ("a*", "a"), ("a*c", "abbc"), ("*b*", "abc"), ("a?c", "aéc"), ("a**", "ab")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("", "a"), ("a", ""), ("a?", "a"), ("a*c", "abd"), ("b*", "ab"), ("*a", "ab")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        let hostile = "*a".repeat(100);
        assert!(!matches(&hostile, &"a".repeat(99)), "and in no time");
    }

    #[test]
    fn payloads_are_json_or_base64() {
        let publish = |json: &str| serde_json::from_str::<Publish>(json).expect("json").payload();
        assert_eq!(publish(r#"{"data":{"a": 1}}"#), Ok(Bytes::from("{\"a\": 1}")));
        assert_eq!(publish(r#"{"data":1,"b64data":"AP8="}"#), Ok(Bytes::from(vec![0, 255])));
        assert_eq!(publish(r#"{"b64data":"?"}"#), Err(CommandError::BAD_REQUEST));
        assert_eq!(publish(r#"{"channel":null}"#), Err(CommandError::BAD_REQUEST));
        let long = format!(r#"{{"data":1,"idempotency_key":"{}"}}"#, "k".repeat(MAX_KEY + 1));
        assert_eq!(publish(&long), Err(CommandError::BAD_REQUEST));
    }
}
