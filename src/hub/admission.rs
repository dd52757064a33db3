//! What the upgrade hook decides: who comes in as whom, or why not.

use std::any::Any;
use std::sync::Arc;
use std::time::SystemTime;

use super::members::{MemberError, metadata};
use crate::history::{Format, FormatRef};
use crate::http::{RequestHead, Response};

/// A named value that an application keeps on a client.
pub(crate) type Metadata = Arc<dyn Any + Send + Sync>;

/// Decides about a request before `on_upgrade` does.
pub(crate) type Check = Box<dyn Fn(&RequestHead) -> Result<(), Rejection> + Send + Sync>;

/// Lets a client in. [`Admission::default`] admits it without a user id, rooms or metadata.
#[derive(Default)]
#[must_use]
pub struct Admission {
    pub(crate) user: Option<Arc<str>>,
    pub(crate) metadata: Vec<(String, Metadata)>,
    pub(crate) rooms: Vec<String>,
    pub(crate) subprotocol: Option<String>,
    pub(crate) member: Option<Arc<str>>,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) format: Option<FormatRef>,
}

impl Admission {
    /// Admits without a user id.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Admits as a connection of this user, who counts against `max_connections_per_user`. An empty id is refused with
    /// 400: it is a missing one more often than a meant one. See [`anonymous`](Admission::anonymous).
    pub fn user(id: impl Into<String>) -> Self {
        Self { user: Some(id.into().into()), ..Self::default() }
    }

    /// Keeps a value on the client, to be read with [`Client::metadata`](crate::Client::metadata).
    pub fn metadata<T: Any + Send + Sync>(mut self, key: impl Into<String>, value: T) -> Self {
        self.metadata.push((key.into(), Arc::new(value)));
        self
    }

    /// Joins a room before the client learns that it is connected. The `before_room_join` hook and the limits apply:
    /// if they refuse, the upgrade is refused (403 by the hook, 503 by a limit, 400 for an unusable name). A room that
    /// is named twice is joined once.
    pub fn room(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.rooms.contains(&name) {
            self.rooms.push(name);
        }
        self
    }

    /// Closes the connection at this time with 4100 `expired`, for instance when the token that it came with expires: the
    /// client may come back with a new one. [`Client::set_expiry`](crate::Client::set_expiry) sets another time. Default:
    /// never. A time that is over closes the connection once it is open.
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires_at = Some(time);
        self
    }

    /// Sets what others see of this connection in rooms with members: JSON of at most 1 KiB; see
    /// [`Client::set_member`](crate::Client::set_member).
    ///
    /// # Errors
    ///
    /// It cannot be written as JSON, or is longer.
    pub fn member(mut self, value: &impl serde::Serialize) -> Result<Self, MemberError> {
        self.member = Some(metadata(value)?);
        Ok(self)
    }

    /// Chooses a subprotocol that the client has offered, instead of the first match of
    /// [`Config::subprotocols`](crate::Config::subprotocols). One that it has not offered is ignored.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocol = Some(name.into());
        self
    }

    /// Sets how publications of rooms that remember look to this client; default: as
    /// [`HubBuilder::format`](crate::HubBuilder::format) says. Event streams have a form of their own, see
    /// [`sse`](crate::protocol::sse).
    pub fn format(mut self, format: &'static dyn Format) -> Self {
        self.format = Some(FormatRef::new(format));
        self
    }
}

impl Admission {
    /// What this admission and a later one grant together: rooms and metadata of both; the later one's user and
    /// subprotocol, where it has them. The later one's value of a metadata key counts.
    pub(super) fn merge(mut self, later: Self) -> Self {
        self.user = later.user.or(self.user);
        self.subprotocol = later.subprotocol.or(self.subprotocol);
        self.member = later.member.or(self.member);
        self.expires_at = [self.expires_at, later.expires_at].into_iter().flatten().min();
        self.format = later.format.or(self.format);
        self.metadata.extend(later.metadata);
        later.rooms.into_iter().fold(self, Self::room)
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<&str> = self.metadata.iter().map(|(key, _)| key.as_str()).collect();
        f.debug_struct("Admission")
            .field("user", &self.user)
            .field("metadata", &keys)
            .field("rooms", &self.rooms)
            .field("subprotocol", &self.subprotocol)
            .finish_non_exhaustive()
    }
}

/// Refuses an upgrade with an HTTP response. The default is 403.
#[derive(Debug, Clone)]
#[must_use]
pub struct Rejection {
    response: Box<Response>,
}

impl Default for Rejection {
    fn default() -> Self {
        Self::forbidden()
    }
}

impl Rejection {
    /// A refusal with this status and plain-text body.
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Response::text(status, body).into()
    }

    /// 403: the client is known and may not connect.
    pub fn forbidden() -> Self {
        Self::new(403, "forbidden\n")
    }

    /// 401: the client has not said who it is, or is not believed. Names the scheme `Bearer`, because a 401 must name
    /// one (RFC 9110 §15.5.2); for another, convert a [`Response`] with its own `WWW-Authenticate`.
    pub fn unauthorized() -> Self {
        Response::text(401, "unauthorized\n").header("WWW-Authenticate", "Bearer").into()
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.response.status()
    }

    /// The response that the client gets.
    pub fn response(&self) -> &Response {
        &self.response
    }
}

impl From<Response> for Rejection {
    /// Any response: its own headers, a JSON body. A status below 300 becomes 403, so that a refusal cannot be
    /// mistaken for success.
    fn from(response: Response) -> Self {
        let response = if response.status() < 300 { response.with_status(403) } else { response };
        Self { response: Box::new(response) }
    }
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "refused with status {}", self.status())
    }
}

impl std::error::Error for Rejection {}
