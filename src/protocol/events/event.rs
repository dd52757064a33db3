//! Events from the server: envelopes and their recipients.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::Serialize;

use crate::{Client, ClientId, Delivery, Hub, Message, SendJsonError, Target, rooms::Name};

/// Sent to a client when it is connected; data `{"clientId"}`.
pub const CONNECTION_ESTABLISHED: &str = "connection.established";
/// For applications that announce a client that is gone; the module itself does not send it.
pub const CONNECTION_CLOSED: &str = "connection.closed";
/// Sent instead of the requested answer; data `{"code","message"}`.
pub const ERROR: &str = "error";
/// The answer to `ping`; data `{"timestamp"}`.
pub const PONG: &str = "pong";
/// The answer to `subscribe`; data `{"room"}`.
pub const SUBSCRIBED: &str = "subscribed";
/// The answer to `unsubscribe`; data `{"room"}`.
pub const UNSUBSCRIBED: &str = "unsubscribed";
/// The answer to `authenticate`; data `{"userId","status":"success"}`.
pub const AUTHENTICATED: &str = "authenticated";

/// The answer to `history`, a part of a room's history; data `{"room","position","recovery","events"}`.
pub const HISTORY: &str = "history";
/// Sent to a member of a room with a history that misses some of it; data `{"room","from","to","position"}`.
pub const GAP: &str = "gap";
/// Sent to members of a room with a state, for each change; data `{"room","key","value"}` or
/// `{"room","key","removed":true}`.
pub const STATE: &str = "state";
/// Sent to a client that joins a room with a state; data `{"room","state":{KEY:VALUE}}`.
pub const SNAPSHOT: &str = "snapshot";

/// The answer to `members`, the members of a room; data `{"room","members":[{"id","metadata"}]}`.
pub const MEMBERS: &str = "members";
/// Sent to the members of such a room, at most every 50 ms; data `{"room","joined","updated","left"}`, non-empty lists
/// of members.
pub const MEMBER_CHANGE: &str = "member_change";

/// An envelope, `{"type","data","timestamp"}`, and its recipients. An event without recipients goes to no client.
///
/// ```
/// use wshub::{Hub, protocol::events::{Event, emit}};
/// let hub = Hub::new();
/// let event = Event::new("price", serde_json::json!({"cents": 120})).to_room("ticker").to_users(["ann"]);
/// assert_eq!(emit(&hub, &event)?.queued, 0, "nobody is there");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
pub struct Event<'a, T = serde_json::Value> {
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    pub(super) data: T,
    timestamp: u64,
    /// `None` means no recipients.
    #[serde(skip)]
    target: Option<Target<'a>>,
}

impl<'a, T: Serialize> Event<'a, T> {
    /// Creates an event of this type with the current time and no recipients. `()` as data is sent as `null`.
    pub fn new(kind: impl Into<Cow<'a, str>>, data: T) -> Self {
        Self { kind: kind.into(), data, timestamp: unix_seconds(SystemTime::now()), target: None }
    }

    /// The type.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The data.
    pub fn data(&self) -> &T {
        &self.data
    }

    /// The creation time, in whole seconds since 1970.
    pub fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// Sets the creation time.
    pub(super) fn at(mut self, time: SystemTime) -> Self {
        self.timestamp = unix_seconds(time);
        self
    }

    /// Adds recipients. A connection that matches several of them gets one copy.
    pub fn to(mut self, target: Target<'a>) -> Self {
        self.target = Some(match self.target {
            Some(before) => before.and(target),
            None => target,
        });
        self
    }

    /// Adds a room's members; see [`to`](Event::to).
    pub fn to_room(self, room: impl Into<Name<'a>>) -> Self {
        self.to(Target::room(room))
    }

    /// Adds the members of rooms; see [`to`](Event::to).
    pub fn to_rooms<N: Into<Name<'a>>>(self, rooms: impl IntoIterator<Item = N>) -> Self {
        self.to(Target::rooms(rooms))
    }

    /// Adds all connections of users; see [`to`](Event::to).
    pub fn to_users<N: Into<Name<'a>>>(self, users: impl IntoIterator<Item = N>) -> Self {
        self.to(Target::users(users))
    }

    /// Adds single clients; see [`to`](Event::to).
    pub fn to_clients<C: Into<ClientId>>(self, clients: impl IntoIterator<Item = C>) -> Self {
        self.to(Target::clients(clients))
    }

    /// Addresses every client of the hub.
    pub fn to_all(self) -> Self {
        self.to(Target::all())
    }

    /// The wire form of the event.
    ///
    /// # Errors
    ///
    /// An error of the data's `Serialize` implementation.
    pub fn message(&self) -> Result<Message, serde_json::Error> {
        Message::json(self)
    }

    /// Sends the event only to this client, whatever its recipients are.
    ///
    /// # Errors
    ///
    /// As [`Client::send_json`].
    pub fn send_to(&self, client: &Client) -> Result<(), SendJsonError> {
        let message = self.message().map_err(SendJsonError::Serialize)?;
        client.send(message).map_err(SendJsonError::Send)
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Sends an event to its recipients, with the hub's drop policy; never blocks on a peer. Returns the number of
/// connections for which it was queued. An event without recipients, or with none connected, is not an error.
///
/// # Errors
///
/// An error of the data's `Serialize` implementation; nothing is sent then. The same applies to all `emit` functions.
pub fn emit<T: Serialize>(hub: &Hub, event: &Event<'_, T>) -> Result<Delivery, serde_json::Error> {
    let message = event.message()?;
    Ok(event.target.clone().map_or_else(Delivery::default, |target| deliver(hub, target, message)))
}

/// Emits an event to all clients; see [`emit`].
///
/// # Errors
///
/// Same as [`emit`].
pub fn emit_broadcast<T: Serialize>(hub: &Hub, kind: &str, data: T) -> Result<Delivery, serde_json::Error> {
    emit(hub, &Event::new(kind, data).to_all())
}

/// Emits an event to a room; see [`emit`].
///
/// # Errors
///
/// Same as [`emit`].
pub fn emit_to_room<T: Serialize>(hub: &Hub, kind: &str, data: T, room: &str) -> Result<Delivery, serde_json::Error> {
    emit(hub, &Event::new(kind, data).to_room(room))
}

/// Emits an event to rooms, one copy for each connection; see [`emit`].
///
/// # Errors
///
/// Same as [`emit`].
pub fn emit_to_rooms<'a, T: Serialize, N: Into<Name<'a>>>(
    hub: &Hub,
    kind: &'a str,
    data: T,
    rooms: impl IntoIterator<Item = N>,
) -> Result<Delivery, serde_json::Error> {
    emit(hub, &Event::new(kind, data).to_rooms(rooms))
}

/// Emits an event to all connections of users; see [`emit`].
///
/// # Errors
///
/// Same as [`emit`].
pub fn emit_to_users<'a, T: Serialize, N: Into<Name<'a>>>(
    hub: &Hub,
    kind: &'a str,
    data: T,
    users: impl IntoIterator<Item = N>,
) -> Result<Delivery, serde_json::Error> {
    emit(hub, &Event::new(kind, data).to_users(users))
}

/// Emits an event to single clients and skips those that are gone; see [`emit`].
///
/// # Errors
///
/// Same as [`emit`].
pub fn emit_to_clients<T: Serialize, C: Into<ClientId>>(
    hub: &Hub,
    kind: &str,
    data: T,
    clients: impl IntoIterator<Item = C>,
) -> Result<Delivery, serde_json::Error> {
    emit(hub, &Event::new(kind, data).to_clients(clients))
}

/// Sends text unchanged to all clients, without an envelope.
pub fn broadcast_raw(hub: &Hub, text: impl Into<String>) -> Delivery {
    deliver(hub, Target::all(), Message::raw_json(text))
}

fn deliver(hub: &Hub, target: Target<'_>, message: Message) -> Delivery {
    // A send fails only for a single client that is gone.
    hub.send(target, message).unwrap_or_default()
}
