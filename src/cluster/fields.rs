//! The field types of envelopes.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::config::MAX_ROOM_NAME;
use crate::message::Message;

/// One part of a target, in its wire form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Recipient {
    /// Everyone.
    #[serde(rename = "all")]
    All,
    /// Everyone in the room.
    #[serde(rename = "room")]
    Room(String),
    /// Every connection of the user.
    #[serde(rename = "user_id")]
    User(String),
    /// The client with this id.
    #[serde(rename = "client_id")]
    Client(String),
}

impl Recipient {
    /// Returns whether it can be named on the wire, where an empty name means no name.
    pub(super) fn is_valid(&self) -> bool {
        match self {
            Self::All => true,
            Self::Room(name) => !name.is_empty() && name.len() <= MAX_ROOM_NAME,
            Self::User(id) | Self::Client(id) => !id.is_empty(),
        }
    }
}

/// The event stream fields set by [`Message::with_event_name`], [`with_event_id`](Message::with_event_id) and
/// [`with_retry`](Message::with_retry).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EnvelopeEvent {
    /// The name of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The id of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The pause before a reconnect, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<u64>,
}

impl EnvelopeEvent {
    pub(super) fn of(message: &Message) -> Option<Self> {
        let fields = message.event_fields()?;
        let retry = fields.retry.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        Some(Self { name: fields.name.clone(), id: fields.id.clone(), retry })
    }

    /// Sets these fields on a message. Each becomes a single line, whatever its form on the wire.
    pub(super) fn set_on(self, mut message: Message) -> Message {
        if let Some(name) = self.name {
            message = message.with_event_name(name);
        }
        if let Some(id) = self.id {
            message = message.with_event_id(id);
        }
        if let Some(millis) = self.retry {
            message = message.with_retry(Duration::from_millis(millis));
        }
        message
    }
}

/// The payload of a presence envelope: a node's client counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Presence {
    /// The node's id.
    pub node_id: String,
    /// Number of clients on the node.
    pub client_count: u64,
    /// Number of clients in each of its rooms.
    #[serde(deserialize_with = "or_empty", default)]
    pub rooms: BTreeMap<String, u64>,
    /// When the node sent it, in Unix milliseconds by the sender's clock. For diagnostics only.
    #[serde(default)]
    pub ts: i64,
    /// The node is leaving. Omitted on the wire when false. Go nodes see a node without clients until it expires.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gone: bool,
}

impl Presence {
    /// Creates the counts of a node that stays.
    pub fn new(node_id: impl Into<String>, client_count: u64, rooms: BTreeMap<String, u64>, ts: i64) -> Self {
        Self { node_id: node_id.into(), client_count, rooms, ts, gone: false }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn is_false(flag: &bool) -> bool {
    !flag
}

/// Go writes an empty slice or map as `null`.
pub(super) fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

pub(super) fn to_base64<S: Serializer>(data: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(data))
}

pub(super) fn from_base64<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    struct Base64;

    impl Visitor<'_> for Base64 {
        type Value = Bytes;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("base64 or null")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
            STANDARD.decode(text).map(Bytes::from).map_err(E::custom)
        }

        fn visit_unit<E: de::Error>(self) -> Result<Bytes, E> {
            Ok(Bytes::new())
        }
    }
    from.deserialize_any(Base64)
}
