//! The wire format between nodes: JSON, byte-identical to that of the Go package `wshub`.
//!
//! The fields and their order are those of that package's `AdapterMessage`. Three further fields carry what it does not
//! know. They are omitted when empty, and its decoder ignores them.

use std::error::Error;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::fields::{EnvelopeEvent, Presence, Recipient, from_base64, is_false, or_empty, to_base64};
use super::gojson;
use crate::message::Message;
use crate::ws::MessageKind;

/// One message between the nodes of a cluster.
///
/// The fields are public so that an adapter, a bridge or a test can read them. [`decode`](Envelope::decode) returns
/// only envelopes with consistent fields.
///
/// ```
/// let json = br#"{"node_id":"a","type":"room","room":"lobby","msg_type":1,"data":"aGVsbG8="}"#;
/// let envelope = wshub::cluster::Envelope::decode(json)?;
/// assert_eq!((envelope.room.as_str(), &envelope.data[..]), ("lobby", &b"hello"[..]));
/// assert_eq!(envelope.encode(), json);
/// # Ok::<(), wshub::cluster::EnvelopeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Envelope {
    /// The sending node. A node ignores envelopes with its own id. Never empty.
    pub node_id: String,
    /// The kind of message; `type` on the wire.
    #[serde(rename = "type")]
    pub kind: EnvelopeKind,
    /// The room, for `room` and `room_except`; otherwise empty and omitted on the wire.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "or_empty")]
    pub room: String,
    /// The user, for `user`; otherwise empty and omitted on the wire.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "or_empty")]
    pub user_id: String,
    /// The client, for `client`; otherwise empty and omitted on the wire.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "or_empty")]
    pub client_id: String,
    /// Clients that get no copy. Go nodes apply it to `broadcast_except` and `room_except` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_empty")]
    pub except: Vec<String>,
    /// 1 for text, 2 for binary, 0 for presence.
    pub msg_type: u8,
    /// The payload, in base64 on the wire. For presence, the JSON of a [`Presence`].
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub data: Bytes,
    /// All parts of a union of targets, in the envelope of its first part. The fields above name only that part, for Go
    /// nodes. Empty, and omitted on the wire, if the target has one part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub union: Vec<Recipient>,
    /// Marks a further part of a union. Only Go nodes use it, because the envelope of the first part holds the whole
    /// union. Omitted on the wire when false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub part: bool,
    /// The message's fields for clients on an event stream, besides its text. Omitted on the wire if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EnvelopeEvent>,
}

/// The kind of an [`Envelope`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EnvelopeKind {
    /// To everyone.
    Broadcast,
    /// To everyone except the clients in `except`.
    BroadcastExcept,
    /// To a room.
    Room,
    /// To a room except the clients in `except`.
    RoomExcept,
    /// To a user's connections.
    User,
    /// To one client.
    Client,
    /// The sending node's client counts; nothing to deliver.
    Presence,
}

impl Envelope {
    /// Creates an envelope with a message to one recipient. Returns `None` if the recipient cannot be named on the
    /// wire: an empty name, or a room name over [`MAX_ROOM_NAME`](crate::limit::MAX_ROOM_NAME).
    pub fn message(node_id: &str, to: &Recipient, except: Vec<String>, message: &Message) -> Option<Self> {
        let kind = match to {
            Recipient::All if except.is_empty() => EnvelopeKind::Broadcast,
            Recipient::All => EnvelopeKind::BroadcastExcept,
            Recipient::Room(_) if except.is_empty() => EnvelopeKind::Room,
            Recipient::Room(_) => EnvelopeKind::RoomExcept,
            Recipient::User(_) => EnvelopeKind::User,
            Recipient::Client(_) => EnvelopeKind::Client,
        };
        let mut envelope = Self::empty(node_id, kind);
        match to.clone() {
            Recipient::All => {}
            Recipient::Room(name) => envelope.room = name,
            Recipient::User(id) => envelope.user_id = id,
            Recipient::Client(id) => envelope.client_id = id,
        }
        envelope.except = except;
        envelope.msg_type = if message.is_text() { 1 } else { 2 };
        envelope.data = message.payload().clone();
        envelope.event = EnvelopeEvent::of(message);
        to.is_valid().then_some(envelope)
    }

    /// Creates an envelope with a node's counts.
    pub fn presence(presence: &Presence) -> Self {
        Self::presence_of(&presence.node_id, gojson::to_vec(presence))
    }

    /// Creates a presence envelope with this payload.
    pub(super) fn presence_of(node_id: &str, payload: Vec<u8>) -> Self {
        Self { data: payload.into(), ..Self::empty(node_id, EnvelopeKind::Presence) }
    }

    fn empty(node_id: &str, kind: EnvelopeKind) -> Self {
        Self {
            node_id: node_id.to_owned(),
            kind,
            room: String::new(),
            user_id: String::new(),
            client_id: String::new(),
            except: Vec::new(),
            msg_type: 0,
            data: Bytes::new(),
            union: Vec::new(),
            part: false,
            event: None,
        }
    }

    /// Encodes the envelope for the wire.
    pub fn encode(&self) -> Vec<u8> {
        gojson::to_vec(self)
    }

    /// Decodes an envelope. Unknown fields are ignored, and a `null` payload becomes an empty one.
    ///
    /// # Errors
    ///
    /// Fails if the input is not JSON, if fields are missing or malformed, or if they are inconsistent.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let envelope: Self = serde_json::from_slice(bytes).map_err(EnvelopeError::Json)?;
        envelope.check()?;
        Ok(envelope)
    }

    fn check(&self) -> Result<(), EnvelopeError> {
        let refuse = |why| Err(EnvelopeError::Invalid(why));
        if self.node_id.is_empty() {
            return refuse("the node id is empty");
        }
        if self.kind == EnvelopeKind::Presence {
            return if self.msg_type == 0 { Ok(()) } else { refuse("presence with a message type") };
        }
        if self.recipients().iter().any(|to| !to.is_valid()) {
            return refuse("a room, user or client without a name, or with too long a one");
        }
        match self.msg_type {
            1 if std::str::from_utf8(&self.data).is_err() => refuse("a text that is not UTF-8"),
            1 | 2 => Ok(()),
            _ => refuse("neither text nor binary"),
        }
    }

    /// Returns the recipients: all parts of a union, otherwise the one that the fields name. Empty for presence.
    pub fn recipients(&self) -> Vec<Recipient> {
        if !self.union.is_empty() {
            return self.union.clone();
        }
        match self.kind {
            EnvelopeKind::Broadcast | EnvelopeKind::BroadcastExcept => vec![Recipient::All],
            EnvelopeKind::Room | EnvelopeKind::RoomExcept => vec![Recipient::Room(self.room.clone())],
            EnvelopeKind::User => vec![Recipient::User(self.user_id.clone())],
            EnvelopeKind::Client => vec![Recipient::Client(self.client_id.clone())],
            EnvelopeKind::Presence => Vec::new(),
        }
    }

    /// Returns the message to deliver, or `None` for presence.
    pub fn into_message(self) -> Option<Message> {
        let kind = match self.msg_type {
            1 => MessageKind::Text,
            2 => MessageKind::Binary,
            _ => return None,
        };
        let message = Message::received(kind, self.data.into());
        Some(match self.event {
            Some(event) => event.set_on(message),
            None => message,
        })
    }

    /// Returns the counts of a presence envelope.
    ///
    /// # Errors
    ///
    /// Fails if the envelope is not presence, or if its payload is not the JSON of a [`Presence`].
    pub fn to_presence(&self) -> Result<Presence, EnvelopeError> {
        if self.kind != EnvelopeKind::Presence {
            return Err(EnvelopeError::Invalid("not presence"));
        }
        serde_json::from_slice(&self.data).map_err(EnvelopeError::Json)
    }
}

/// The reason why bytes are not a valid [`Envelope`].
#[derive(Debug)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The envelope, of this many bytes, exceeds [`Cluster::max_envelope`](crate::cluster::Cluster::max_envelope).
    TooLarge(usize),
    /// The bytes are not JSON, or lack the form of an envelope.
    Json(serde_json::Error),
    /// The fields are inconsistent.
    Invalid(&'static str),
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(len) => write!(f, "envelope of {len} bytes exceeds max_envelope"),
            Self::Json(error) => error.fmt(f),
            Self::Invalid(why) => f.write_str(why),
        }
    }
}

impl Error for EnvelopeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Json(error) => Some(error),
            Self::TooLarge(_) | Self::Invalid(_) => None,
        }
    }
}
