//! Names of rooms and users as callers pass them, and the entries of a list of rooms.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of a room or the id of a user in a [`Target`](crate::Target). Converts from everything that names one:
/// `&str`, `String`, the `Arc<str>` of [`Client::rooms`](crate::Client::rooms) and [`Hub::users`](crate::Hub::users),
/// and [`RoomInfo`]. No conversion copies text.
#[derive(Clone)]
pub struct Name<'a>(Text<'a>);

#[derive(Clone)]
enum Text<'a> {
    Of(Cow<'a, str>),
    /// A name that the hub has handed out: clones share it.
    Shared(Arc<str>),
}

impl Name<'_> {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Of(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl Deref for Name<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Name<'_> {}

impl Serialize for Name<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Name<'_> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::from)
    }
}

impl<'a> From<&'a str> for Name<'a> {
    fn from(text: &'a str) -> Self {
        Self(Text::Of(Cow::Borrowed(text)))
    }
}

impl<'a> From<&'a String> for Name<'a> {
    fn from(text: &'a String) -> Self {
        Self(Text::Of(Cow::Borrowed(text)))
    }
}

impl From<String> for Name<'_> {
    fn from(text: String) -> Self {
        Self(Text::Of(Cow::Owned(text)))
    }
}

impl<'a> From<Cow<'a, str>> for Name<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self(Text::Of(text))
    }
}

impl From<Arc<str>> for Name<'_> {
    fn from(text: Arc<str>) -> Self {
        Self(Text::Shared(text))
    }
}

impl<'a> From<&'a Arc<str>> for Name<'a> {
    fn from(text: &'a Arc<str>) -> Self {
        Self::from(&**text)
    }
}

impl From<RoomInfo> for Name<'_> {
    fn from(room: RoomInfo) -> Self {
        room.name.into()
    }
}

impl<'a> From<&'a RoomInfo> for Name<'a> {
    fn from(room: &'a RoomInfo) -> Self {
        Self::from(&*room.name)
    }
}

/// A room and the number of its clients; see [`Hub::rooms`](crate::Hub::rooms). Serialises as `{"name","clients"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RoomInfo {
    /// The room's name.
    pub name: Arc<str>,
    /// The number of clients that are connected to this hub and are in the room.
    pub clients: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_from_everything_that_names_a_room() {
        let shared: Arc<str> = "x".into();
        let info = RoomInfo { name: Arc::clone(&shared), clients: 2 };
        assert_eq!(serde_json::to_string(&info).expect("JSON"), r#"{"name":"x","clients":2}"#);
        let owned = String::from("x");
        let names: [Name<'_>; 8] = [
            "x".into(),
            (&owned).into(),
            owned.clone().into(),
            Cow::Borrowed("x").into(),
            (&shared).into(),
            shared.clone().into(),
            (&info).into(),
            info.clone().into(),
        ];
        assert!(names.iter().all(|name| **name == *"x" && format!("{name} {name:?}") == r#"x "x""#));
        assert_eq!(Arc::strong_count(&shared), 4, "shared names are not copied");
    }

    #[test]
    fn names_in_targets_take_no_more_memory_than_a_string() {
        assert_eq!(size_of::<Name<'_>>(), size_of::<String>());
    }
}
