//! Whom a message is for.

use std::borrow::Cow;
use std::fmt;

use crate::client_id::ClientId;

/// Recipients of a message: everyone, rooms, users, clients, or any union of these, less exceptions.
///
/// Each connection gets one copy however many parts match it.
///
/// ```
/// use wshub::Target;
/// let target = Target::room("lobby").and(Target::users(["ann", "bob"]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a target does nothing until it is sent to"]
pub struct Target<'a> {
    /// Most targets have one part: it needs no allocation.
    pub(super) first: Option<Part<'a>>,
    pub(super) more: Vec<Part<'a>>,
    pub(super) except: Vec<ClientId>,
}

/// One kind of recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part<'a> {
    All,
    Room(Cow<'a, str>),
    OneOf(Cow<'a, str>),
    User(Cow<'a, str>),
    Client(ClientId),
}

impl<'a> Target<'a> {
    fn from_parts(mut parts: impl Iterator<Item = Part<'a>>) -> Self {
        Self { first: parts.next(), more: parts.collect(), except: Vec::new() }
    }

    fn one(part: Part<'a>) -> Self {
        Self::from_parts(std::iter::once(part))
    }

    /// Every client of the hub.
    pub fn all() -> Self {
        Self::one(Part::All)
    }

    /// Every client in the room.
    pub fn room(name: impl Into<Cow<'a, str>>) -> Self {
        Self::one(Part::Room(name.into()))
    }

    /// Every client in any of the rooms.
    pub fn rooms<S: Into<Cow<'a, str>>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::from_parts(names.into_iter().map(|n| Part::Room(n.into())))
    }

    /// One client in the room, each in its turn: for work that one of them has to do. A send chooses among the clients of
    /// this node; [`Hub::call`](crate::Hub::call) asks one of another node if this one has none.
    pub fn one_of(room: impl Into<Cow<'a, str>>) -> Self {
        Self::one(Part::OneOf(room.into()))
    }

    /// Every connection of the user.
    pub fn user(id: impl Into<Cow<'a, str>>) -> Self {
        Self::one(Part::User(id.into()))
    }

    /// Every connection of any of the users.
    pub fn users<S: Into<Cow<'a, str>>>(ids: impl IntoIterator<Item = S>) -> Self {
        Self::from_parts(ids.into_iter().map(|id| Part::User(id.into())))
    }

    /// One client.
    pub fn client(id: ClientId) -> Self {
        Self::one(Part::Client(id))
    }

    /// Several clients.
    pub fn clients(ids: impl IntoIterator<Item = ClientId>) -> Self {
        Self::from_parts(ids.into_iter().map(Part::Client))
    }

    /// The union with `other`; exceptions of both apply to the whole.
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

    /// Leaves one client out.
    pub fn except(mut self, id: ClientId) -> Self {
        self.except.push(id);
        self
    }

    /// Leaves several clients out.
    pub fn except_all(mut self, ids: impl IntoIterator<Item = ClientId>) -> Self {
        self.except.extend(ids);
        self
    }

    /// The room of which one client is meant, if that is all.
    pub(super) fn one_of_room(&self) -> Option<&str> {
        match self.single() {
            Some(Part::OneOf(room)) => Some(room),
            _ => None,
        }
    }

    /// The only client that is meant, if it is one.
    pub(super) fn only_client(&self) -> Option<ClientId> {
        match self.single() {
            Some(Part::Client(id)) => Some(*id),
            _ => None,
        }
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &Part<'a>> {
        self.first.iter().chain(&self.more)
    }

    /// The only part, if there is just one.
    pub(super) fn single(&self) -> Option<&Part<'a>> {
        self.first.as_ref().filter(|_| self.more.is_empty())
    }
}

/// For people: `all`, `room "lobby" + user "ann"`, `all except 2 clients`.
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

/// What became of a message, counted in connections of this hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Delivery {
    /// Connections into whose socket or queue the message went.
    pub queued: usize,
    /// Messages that were dropped because a queue was full: this one under drop-newest, older ones under drop-oldest.
    pub dropped: usize,
    /// Connections that cannot carry the message: a binary one for clients on event streams.
    pub refused: usize,
    /// The message was queued for the other nodes of the cluster; whether it reaches them is not known. False without a
    /// cluster, when their queue is full, and when all of its recipients are clients that are connected here.
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
