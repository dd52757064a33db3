//! The recipients of a message.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::names::{Name, RoomInfo};
use crate::client_id::ClientId;

/// The recipients of a message: everyone, rooms, users, clients or any union of these, minus exceptions.
///
/// Each connection gets one copy, however many parts match it.
///
/// ```
/// use wshub::Target;
/// let target = Target::room("lobby").and(Target::users(["ann", "bob"]));
/// assert_eq!(serde_json::to_string(&target)?, r#"{"to":[{"room":"lobby"},{"user":"ann"},{"user":"bob"}]}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// A target serialises as `{"to":[…],"except":[…]}`. The parts are `"all"`, `{"room":name}`, `{"one_of":room}`,
/// `{"user":id}` and `{"client":id}`; without exceptions, `except` is left out. A program that takes a target from a
/// peer lets the peer choose the recipients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Form<'_>", into = "Form<'_>")]
#[must_use = "a target does nothing until it is sent to"]
pub struct Target<'a> {
    /// Separate, because most targets have one part and so need no allocation.
    pub(super) first: Option<Part<'a>>,
    pub(super) more: Vec<Part<'a>>,
    pub(super) except: Vec<ClientId>,
}

/// One kind of recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part<'a> {
    All,
    Room(Name<'a>),
    OneOf(Name<'a>),
    User(Name<'a>),
    Client(ClientId),
}

/// The serialised form of a [`Target`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    to: Vec<Part<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    except: Vec<ClientId>,
}

impl<'a> From<Form<'a>> for Target<'a> {
    fn from(form: Form<'a>) -> Self {
        Self { except: form.except, ..Self::from_parts(form.to.into_iter()) }
    }
}

impl<'a> From<Target<'a>> for Form<'a> {
    fn from(target: Target<'a>) -> Self {
        Self { to: target.first.into_iter().chain(target.more).collect(), except: target.except }
    }
}

impl<'a> Target<'a> {
    fn from_parts(mut parts: impl Iterator<Item = Part<'a>>) -> Self {
        Self { first: parts.next(), more: parts.collect(), except: Vec::new() }
    }

    fn one(part: Part<'a>) -> Self {
        Self::from_parts(std::iter::once(part))
    }

    /// Every client of the hub.
    #[doc(alias("broadcast", "everyone"))]
    pub fn all() -> Self {
        Self::one(Part::All)
    }

    /// Every client in the room.
    pub fn room(name: impl Into<Name<'a>>) -> Self {
        Self::one(Part::Room(name.into()))
    }

    /// Every client in any of the rooms, such as those that [`Hub::rooms`](crate::Hub::rooms) returns.
    pub fn rooms<N: Into<Name<'a>>>(names: impl IntoIterator<Item = N>) -> Self {
        Self::from_parts(names.into_iter().map(|n| Part::Room(n.into())))
    }

    /// One client in the room, in turn: for work that one of them must do. A send chooses among this node's clients;
    /// [`Hub::call`](crate::Hub::call) chooses one on another node if this node has none.
    pub fn one_of(room: impl Into<Name<'a>>) -> Self {
        Self::one(Part::OneOf(room.into()))
    }

    /// Every connection of the user.
    pub fn user(id: impl Into<Name<'a>>) -> Self {
        Self::one(Part::User(id.into()))
    }

    /// Every connection of any of the users.
    pub fn users<N: Into<Name<'a>>>(ids: impl IntoIterator<Item = N>) -> Self {
        Self::from_parts(ids.into_iter().map(|id| Part::User(id.into())))
    }

    /// One client: a [`Client`](crate::Client), a reference to one, or its id.
    pub fn client(client: impl Into<ClientId>) -> Self {
        Self::one(Part::Client(client.into()))
    }

    /// Several clients.
    pub fn clients<C: Into<ClientId>>(clients: impl IntoIterator<Item = C>) -> Self {
        Self::from_parts(clients.into_iter().map(|client| Part::Client(client.into())))
    }

    /// The union with `other`. The exceptions of both apply to the union.
    pub fn and(mut self, other: Target<'a>) -> Self {
        let parts = other.first.into_iter().chain(other.more);
        for part in parts {
            match self.first {
                None => self.first = Some(part),
                Some(_) => self.more.push(part),
            }
        }
        self.except.extend(other.except);
        self
    }

    /// Excludes one client.
    pub fn except(mut self, client: impl Into<ClientId>) -> Self {
        self.except.push(client.into());
        self
    }

    /// Excludes several clients.
    pub fn except_all<C: Into<ClientId>>(mut self, clients: impl IntoIterator<Item = C>) -> Self {
        self.except.extend(clients.into_iter().map(Into::into));
        self
    }

    /// The room, if the target is exactly one client of it in turn.
    pub(super) fn one_of_room(&self) -> Option<&str> {
        match self.single() {
            Some(Part::OneOf(room)) => Some(room),
            _ => None,
        }
    }

    /// The client, if the target is exactly one client.
    #[cfg(feature = "cluster")]
    pub(super) fn only_client(&self) -> Option<ClientId> {
        match self.single() {
            Some(Part::Client(id)) => Some(*id),
            _ => None,
        }
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &Part<'a>> {
        self.first.iter().chain(&self.more)
    }

    /// The part, if the target has exactly one.
    pub(super) fn single(&self) -> Option<&Part<'a>> {
        self.first.as_ref().filter(|_| self.more.is_empty())
    }
}

/// A readable form: `all`, `room "lobby" + user "ann"`, `all except 2 clients`.
impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.parts().enumerate() {
            f.write_str(if at == 0 { "" } else { " + " })?;
            match part {
                Part::All => f.write_str("all")?,
                Part::Room(name) => write!(f, "room {name:?}")?,
                Part::OneOf(name) => write!(f, "one of room {name:?}")?,
                Part::User(id) => write!(f, "user {id:?}")?,
                Part::Client(id) => write!(f, "client {id}")?,
            }
        }
        match self.except.len() {
            0 => Ok(()),
            1 => f.write_str(" except 1 client"),
            n => write!(f, " except {n} clients"),
        }
    }
}

impl From<ClientId> for Target<'_> {
    fn from(id: ClientId) -> Self {
        Self::client(id)
    }
}

/// Targets the room's clients.
impl<'a> From<&'a RoomInfo> for Target<'a> {
    fn from(room: &'a RoomInfo) -> Self {
        Self::room(room)
    }
}

/// The result of a send, counted in connections of this hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Delivery {
    /// Connections whose socket or queue took the message.
    pub queued: usize,
    /// Messages that were dropped because a queue was full: this one under drop-newest, older ones under drop-oldest.
    pub dropped: usize,
    /// Connections that cannot carry the message: a binary one for clients on event streams.
    pub refused: usize,
    /// Whether the message was queued for the other nodes of the cluster. Delivery is not confirmed. False without a
    /// cluster, if the cluster's queue is full, and if all recipients are clients connected here.
    pub published: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_well() {
        let (a, b) = (ClientId::random(), ClientId::random());
        assert_eq!(Target::all().except_all([a, b]).to_string(), "all except 2 clients");
        let target = Target::room("a\nb").and(Target::user("ann")).and(Target::client(a)).except(b);
        assert_eq!(target.to_string(), format!("room \"a\\nb\" + user \"ann\" + client {a} except 1 client"));
    }

    #[test]
    fn a_target_comes_back_from_json() {
        let id = ClientId::random();
        let one_of_each = Target::all().and(Target::room("r")).and(Target::one_of("w")).and(Target::user("u"));
        let target = one_of_each.and(Target::client(id)).except(id);
        let json = serde_json::to_string(&target).expect("JSON");
        let parts = format!(r#"["all",{{"room":"r"}},{{"one_of":"w"}},{{"user":"u"}},{{"client":"{id}"}}]"#);
        assert_eq!(json, format!(r#"{{"to":{parts},"except":["{id}"]}}"#));
        assert_eq!(serde_json::from_str::<Target<'static>>(&json).expect("what was written"), target);
        let nobody: Target<'_> = serde_json::from_str(r#"{"to":[]}"#).expect("a target");
        assert_eq!(nobody, Target::rooms(Vec::<String>::new()));
        for json in ["{}", r#"{"to":["everyone"]}"#, r#"{"to":[{"client":"x"}]}"#, r#"{"to":["all"],"excpet":[]}"#] {
            assert!(serde_json::from_str::<Target<'_>>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn unions_keep_all_parts_and_exceptions() {
        let (a, b) = (ClientId::random(), ClientId::random());
        let target = Target::rooms(["x", "y"]).except(a).and(Target::user("u").except(b)).and(Target::client(a));
        assert_eq!(target.parts().count(), 4);
        assert_eq!(target.except, [a, b]);
        assert_eq!(target.single(), None);
        assert_eq!(Target::room("x").single(), Some(&Part::Room("x".into())));
        assert_eq!(Target::rooms(Vec::<String>::new()).and(Target::all()).single(), Some(&Part::All));
    }
}
