//! JSON forms of fields: payloads unchanged, `null` as absent.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;

/// A field that is `null` has its default, as in Centrifugo.
pub(super) fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(json: D) -> Result<T, D::Error> {
    Option::deserialize(json).map(Option::unwrap_or_default)
}

/// A JSON object only: a derived struct would also accept an array.
pub(in super::super) struct Object<T>(pub(in super::super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(Fields(PhantomData))
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
    }
}

/// A field that is an object or absent.
pub(super) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(json: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(json)?.map(|object| object.0))
}

/// Keeps a payload's text; `null` is a payload.
pub(super) fn from_raw<'de, D: Deserializer<'de>>(json: D) -> Result<Bytes, D::Error> {
    Box::<RawValue>::deserialize(json).map(|raw| Bytes::from(String::from(Box::<str>::from(raw))))
}

/// Writes a payload: JSON unchanged, other text as a JSON string, other bytes as a JSON string in base64.
///
/// A line end separates messages in a frame. In JSON it occurs only between tokens, where a space is equivalent.
pub(super) fn to_raw<S: Serializer>(payload: &Bytes, json: S) -> Result<S::Ok, S::Error> {
    match (serde_json::from_slice::<&RawValue>(payload), std::str::from_utf8(payload)) {
        (Ok(raw), _) if !raw.get().contains(['\n', '\r']) => raw.serialize(json),
        (Ok(raw), _) => match RawValue::from_string(raw.get().replace(['\n', '\r'], " ")) {
            Ok(line) => line.serialize(json),
            Err(_) => json.serialize_str(raw.get()),
        },
        (Err(_), Ok(text)) => json.serialize_str(text),
        (Err(_), Err(_)) => json.serialize_str(&STANDARD.encode(payload)),
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
