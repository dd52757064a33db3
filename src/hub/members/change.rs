//! Members and their changes, as programs see them.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Maximum length of one connection's metadata, in bytes of JSON.
pub(in crate::hub) const MAX_METADATA: usize = 1024;

/// A member of a room: a user with any number of connections, on any node, or a connection without a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Member {
    /// The user id; the client id of a connection that has no user.
    #[serde(serialize_with = "name")]
    pub id: Arc<str>,
    /// JSON text that a connection of the member has set last; `None` if none has set any. If connections on several
    /// nodes have metadata, all nodes choose the same.
    #[serde(serialize_with = "raw", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Arc<str>>,
}

fn name<S: Serializer>(id: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(id)
}

#[allow(clippy::ref_option, reason = "serde passes the field")]
fn raw<S: Serializer>(metadata: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
    let json = metadata.as_deref().unwrap_or("null");
    serde_json::from_str::<&RawValue>(json).map_err(serde::ser::Error::custom)?.serialize(to)
}

/// A change of a room's members.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberChange {
    /// The member's first connection has joined.
    Joined(Member),
    /// The member's metadata has changed.
    #[non_exhaustive]
    Updated {
        /// With the new metadata.
        member: Member,
        /// The metadata that was reported last.
        before: Option<Arc<str>>,
    },
    /// The member's last connection has left, and the room's
    /// [`member_linger`](crate::history::RoomOptions::member_linger) has passed.
    Left(Member),
}

impl MemberChange {
    /// The member, after the change.
    pub fn member(&self) -> &Member {
        match self {
            Self::Joined(member) | Self::Updated { member, .. } | Self::Left(member) => member,
        }
    }
}

/// Why metadata of a member is not accepted.
#[derive(Debug)]
#[non_exhaustive]
pub enum MemberError {
    /// The value cannot be serialised as JSON.
    Json(serde_json::Error),
    /// The JSON has this many bytes; 1024 are allowed.
    TooLarge(usize),
}

impl fmt::Display for MemberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => error.fmt(f),
            Self::TooLarge(len) => write!(f, "metadata of {len} bytes exceeds {MAX_METADATA}"),
        }
    }
}

impl Error for MemberError {}

/// Serialises a value as metadata.
pub(in crate::hub) fn metadata(value: &impl Serialize) -> Result<Arc<str>, MemberError> {
    let json = serde_json::to_string(value).map_err(MemberError::Json)?;
    if json.len() > MAX_METADATA { Err(MemberError::TooLarge(json.len())) } else { Ok(json.into()) }
}
