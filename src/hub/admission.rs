//! The results of the upgrade hook: an admission or a rejection.

use std::any::Any;
use std::sync::Arc;
use std::time::SystemTime;

use super::extensions::Extensions;
use super::members::{MemberError, metadata};
use crate::guard;
use crate::history::{Format, FormatRef};
use crate::http::{RequestHead, Response};

/// A named value that an application stores on a client.
pub(crate) type Metadata = Arc<dyn Any + Send + Sync>;

/// A check of a request that runs before `on_upgrade`.
pub(crate) type Check = Box<dyn Fn(&RequestHead) -> Result<(), Rejection> + Send + Sync>;

/// An endpoint's own decision on a request, instead of `on_upgrade`.
pub(crate) type Admit = Box<dyn Fn(&RequestHead) -> Result<Admission, Rejection> + Send + Sync>;

/// Admits a client. [`Admission::default`] admits it without a user id, rooms or metadata.
#[derive(Default)]
#[must_use]
pub struct Admission {
    pub(crate) user: Option<Arc<str>>,
    pub(crate) metadata: Vec<(String, Metadata)>,
    pub(crate) extensions: Extensions,
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

    /// Admits a connection of this user, which counts against `max_connections_per_user`. An empty id is refused with
    /// 400, because it usually means a missing id, and so is one longer than
    /// [`MAX_USER_ID`](crate::limit::MAX_USER_ID). See [`anonymous`](Admission::anonymous).
    pub fn user(id: impl Into<String>) -> Self {
        Self { user: Some(id.into().into()), ..Self::default() }
    }

    /// Stores a value on the client. [`Client::metadata`](crate::Client::metadata) reads it.
    pub fn metadata<T: Any + Send + Sync>(mut self, key: impl Into<String>, value: T) -> Self {
        self.metadata.push((key.into(), Arc::new(value)));
        self
    }

    /// Stores a value on the client. [`Client::extension`](crate::Client::extension) finds it by its type. A later
    /// value of the same type replaces it.
    pub fn extension<T: Any + Send + Sync>(mut self, value: T) -> Self {
        guard::dispose(self.extensions.insert(Arc::new(value)));
        self
    }

    /// Joins a room before the client learns that it is connected. The `before_room_join` hook and the limits apply. If
    /// they refuse, the upgrade is refused: with 403 by the hook, 503 by a limit, 400 for an invalid name. Naming a
    /// room twice joins it once.
    pub fn room(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.rooms.contains(&name) {
            self.rooms.push(name);
        }
        self
    }

    /// Closes the connection at this time with 4100 `expired`, for example when its token expires. The client may
    /// reconnect with a new token. [`Client::set_expiry`](crate::Client::set_expiry) changes the time. Default: never.
    /// If the time is already over, the connection closes once it is open.
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires_at = Some(time);
        self
    }

    /// Sets the metadata that others see of this connection in rooms with members: JSON of at most 1 KiB. See
    /// [`Client::set_member`](crate::Client::set_member).
    ///
    /// # Errors
    ///
    /// Fails if the value cannot be serialised or its JSON is too long.
    pub fn member(mut self, value: &impl serde::Serialize) -> Result<Self, MemberError> {
        self.member = Some(metadata(value)?);
        Ok(self)
    }

    /// Chooses a subprotocol that the client has offered, instead of the first match of
    /// [`Config::subprotocols`](crate::Config::subprotocols). A subprotocol that the client has not offered is ignored.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocol = Some(name.into());
        self
    }

    /// Sets this client's wire format of publications in rooms with a history or state. Default: the format of
    /// [`HubBuilder::format`](crate::HubBuilder::format). Event streams have their own format; see
    /// [`sse`](crate::protocol::sse).
    pub fn format(mut self, format: &'static dyn Format) -> Self {
        self.format = Some(FormatRef::new(format));
        self
    }
}

impl Admission {
    /// Merges this admission with a later one: the rooms, metadata and extensions of both, and the later one's user and
    /// subprotocol where it sets them. If both set a metadata key or an extension type, the later value wins.
    pub(super) fn merge(mut self, later: Self) -> Self {
        self.user = later.user.or(self.user);
        self.subprotocol = later.subprotocol.or(self.subprotocol);
        self.member = later.member.or(self.member);
        self.expires_at = [self.expires_at, later.expires_at].into_iter().flatten().min();
        self.format = later.format.or(self.format);
        self.metadata.extend(later.metadata);
        self.extensions.extend(later.extensions);
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
    /// Creates a refusal with this status and a plain-text body.
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Response::text(status, body).into()
    }

    /// 403: the client is known and may not connect.
    pub fn forbidden() -> Self {
        Self::new(403, "forbidden\n")
    }

    /// 401: the client's credentials are missing or invalid. Names the scheme `Bearer`, because a 401 must name a
    /// scheme (RFC 9110 §15.5.2). For another scheme, convert a [`Response`] with its own `WWW-Authenticate`.
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
    /// Refuses with any response, for example with extra headers or a JSON body. A status below 300 becomes 403, so
    /// that a refusal cannot be mistaken for success.
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
