//! What the server sends: envelopes, and whom they go to.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::Serialize;

use crate::HandlerResult;
use crate::Message;
use crate::{Client, ClientId, Delivery, Hub, Target};

/// To a client when it is connected; data `{"clientId"}`.
pub const CONNECTION_ESTABLISHED: &str = "connection.established";
/// For applications that tell others of a client that has gone; the module sends none itself.
pub const CONNECTION_CLOSED: &str = "connection.closed";
/// Instead of what a client asked for; data `{"code","message"}`.
pub const ERROR: &str = "error";
/// The answer to `ping`; data `{"timestamp"}`.
pub const PONG: &str = "pong";
/// The answer to `subscribe`; data `{"room"}`.
pub const SUBSCRIBED: &str = "subscribed";
/// The answer to `unsubscribe`; data `{"room"}`.
pub const UNSUBSCRIBED: &str = "unsubscribed";
/// The answer to `authenticate`; data `{"userId","status":"success"}`.
pub const AUTHENTICATED: &str = "authenticated";

/// A part of a room's history, the answer to `history`; data `{"room","position","recovery","events"}`.
pub const HISTORY: &str = "history";
/// To a member of a room with a history that misses some of it; data `{"room","from","to","position"}`.
pub const GAP: &str = "gap";
/// To members of a room with a state, for each change; data `{"room","key","value"}` or `{"room","key","removed":true}`.
pub const STATE: &str = "state";
/// To who joins a room with a state; data `{"room","state":{KEY:VALUE}}`.
pub const SNAPSHOT: &str = "snapshot";

/// Who is in a room with members, the answer to `members`; data `{"room","members":[{"id","metadata"}]}`.
pub const MEMBERS: &str = "members";
/// To the members of such a room, at most every 50 ms; data `{"room","joined","updated","left"}`, lists of members, without
/// those that are empty.
pub const MEMBER_CHANGE: &str = "member_change";

/// An envelope, `{"type","data","timestamp"}`, and its recipients. An event that names no recipients reaches nobody.
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
    /// `None` is nobody.
    #[serde(skip)]
    target: Option<Target<'a>>,
}

impl<'a, T: Serialize> Event<'a, T> {
    /// Makes an event of this type, for nobody yet, with the current time. `()` as data is sent as `null`.
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

    /// When it was made, in whole seconds since 1970.
    pub fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// Sets when it was made.
    pub(super) fn at(mut self, time: SystemTime) -> Self {
        self.timestamp = unix_seconds(time);
        self
    }

    /// Adds recipients. A connection that several of them match gets one copy.
    pub fn to(mut self, target: Target<'a>) -> Self {
        self.target = Some(match self.target {
            Some(before) => before.and(target),
            None => target,
        });
        self
    }

    /// Adds a room's members; see [`to`](Event::to).
    pub fn to_room(self, room: impl Into<Cow<'a, str>>) -> Self {
        self.to(Target::room(room))
    }

    /// Adds the members of rooms; see [`to`](Event::to).
    pub fn to_rooms<S: Into<Cow<'a, str>>>(self, rooms: impl IntoIterator<Item = S>) -> Self {
        self.to(Target::rooms(rooms))
    }

    /// Adds all connections of users; see [`to`](Event::to).
    pub fn to_users<S: Into<Cow<'a, str>>>(self, users: impl IntoIterator<Item = S>) -> Self {
        self.to(Target::users(users))
    }

    /// Adds single clients; see [`to`](Event::to).
    pub fn to_clients(self, clients: impl IntoIterator<Item = ClientId>) -> Self {
        self.to(Target::clients(clients))
    }

    /// Addresses every client of the hub.
    pub fn to_all(self) -> Self {
        self.to(Target::all())
    }

    /// The message that goes over the wire.
    ///
    /// # Errors
    ///
    /// What the data's `Serialize` implementation reports.
    pub fn message(&self) -> Result<Message, serde_json::Error> {
        Message::json(self)
    }

    /// Sends it to this client alone, whatever its recipients are.
    ///
    /// # Errors
    ///
    /// What the data's `Serialize` implementation reports, or a [`SendError`](crate::SendError).
    pub fn send_to(&self, client: &Client) -> HandlerResult {
        client.send(self.message()?)?;
        Ok(())
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Sends an event to its recipients, by the hub's drop policy; never blocks on a peer. Returns how many connections it
/// was queued for. An event without recipients, or whose recipients are not connected, is no error.
///
/// # Errors
///
/// What the data's `Serialize` implementation reports; nothing has been sent then. The same holds for all `emit`
/// functions.
pub fn emit<T: Serialize>(hub: &Hub, event: &Event<'_, T>) -> Result<Delivery, serde_json::Error> {
    let message = event.message()?;
    Ok(event.target.clone().map_or_else(Delivery::default, |target| deliver(hub, target, message)))
}

/// Emits an event to everyone; as [`emit`].
///
/// # Errors
///
/// As [`emit`].
pub fn emit_broadcast<T: Serialize>(hub: &Hub, kind: &str, data: T) -> Result<Delivery, serde_json::Error> {
    emit(hub, &Event::new(kind, data).to_all())
}

/// Emits an event to a room; as [`emit`].
///
/// # Errors
///
/// As [`emit`].
pub fn emit_to_room<T: Serialize>(hub: &Hub, kind: &str, data: T, room: &str) -> Result<Delivery, serde_json::Error> {
    emit(hub, &Event::new(kind, data).to_room(room))
}

/// Emits an event to rooms, one copy for each connection; as [`emit`].
///
/// # Errors
///
/// As [`emit`].
pub fn emit_to_rooms<'a, T: Serialize, S: Into<Cow<'a, str>>>(
    hub: &Hub,
    kind: &'a str,
    data: T,
    rooms: impl IntoIterator<Item = S>,
) -> Result<Delivery, serde_json::Error> {
    emit(hub, &Event::new(kind, data).to_rooms(rooms))
}

/// Emits an event to all connections of users; as [`emit`].
///
/// # Errors
///
/// As [`emit`].
pub fn emit_to_users<'a, T: Serialize, S: Into<Cow<'a, str>>>(
    hub: &Hub,
    kind: &'a str,
    data: T,
    users: impl IntoIterator<Item = S>,
) -> Result<Delivery, serde_json::Error> {
    emit(hub, &Event::new(kind, data).to_users(users))
}

/// Emits an event to single clients; those that are gone are left out; as [`emit`].
///
/// # Errors
///
/// As [`emit`].
pub fn emit_to_clients<T: Serialize>(
    hub: &Hub,
    kind: &str,
    data: T,
    clients: impl IntoIterator<Item = ClientId>,
) -> Result<Delivery, serde_json::Error> {
    emit(hub, &Event::new(kind, data).to_clients(clients))
}

/// Sends text to everyone as it is, without an envelope.
pub fn broadcast_raw(hub: &Hub, text: impl Into<String>) -> Delivery {
    deliver(hub, Target::all(), Message::raw_json(text))
}

fn deliver(hub: &Hub, target: Target<'_>, message: Message) -> Delivery {
    // The only error is a single client that is gone: nobody got it.
    hub.send(target, message).unwrap_or_default()
}
