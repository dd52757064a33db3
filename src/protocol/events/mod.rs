//! JSON events: `{"type","data","timestamp"}` to clients, `{"type",…}` from them, with built-in subscriptions.
//!
//! ```
//! use serde::Deserialize;
//! use serde_json::value::RawValue;
//! use wshub::protocol::events::{EventError, Events, emit_to_room};
//! use wshub::{Hub, Limits};
//!
//! #[derive(Deserialize)]
//! struct Publish {
//!     room: String,
//!     data: Box<RawValue>,
//! }
//!
//! #[derive(Deserialize)]
//! struct Login {
//!     token: String,
//! }
//!
//! let hub = Events::new()
//!     .authenticator(|_, frame| match frame.parse::<Login>()?.token.strip_prefix("secret-of-") {
//!         Some(user) => Ok(user.to_owned()),
//!         None => Err(EventError::new("unauthorized", "this token is not known")),
//!     })
//!     .may_join(|client, room| !room.starts_with("staff:") || client.user_id().is_some())
//!     .on("publish", |client, frame| {
//!         let Publish { room, data } = frame.parse()?;
//!         if !client.in_room(&room) {
//!             return Err(EventError::new("not_subscribed", "subscribe to the room first").into());
//!         }
//!         emit_to_room(client.hub(), "message", data, &room)?;
//!         Ok(())
//!     })
//!     .install(Hub::builder().limits(Limits::default().max_rooms_per_client(100)))
//!     .build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What clients send
//!
//! Clients send text messages that hold a JSON object with a string `type`. The protocol answers the following types
//! itself; a handler can replace only `history`, `members`, `call`, `reply` and `error`:
//!
//! | from the client | answer: `type`, `data` |
//! | --- | --- |
//! | `{"type":"ping"}` | `pong`, `{"timestamp"}` |
//! | `{"type":"subscribe","room"}` | `subscribed`, `{"room"}`; also if the client is already in the room |
//! | `{"type":"subscribe","room","since"}`, to a room with a history | `subscribed`, `{"room","position","recovery","replayed"}`, then the replayed events |
//! | `{"type":"history","room","since","limit","newest_first"}`, from a member; all but `room` are optional | `history`, `{"room","position","recovery","events"}` |
//! | `{"type":"members","room"}`, from a member | `members`, `{"room","members":[{"id","metadata"}]}` |
//! | `{"type":"unsubscribe","room"}` | `unsubscribed`, `{"room"}`; also if the client is not in the room |
//! | `{"type":"authenticate",…}` | `authenticated`, `{"userId","status":"success"}` |
//! | `{"type":"call","id","method","data"}` | `{"type":"reply","id","data"}`, or an `error` with the `id`: see [`Events::on_call`] |
//! | `{"type":"reply","id","data"}`, or `error` | nothing: it is the answer to a [`Client::call`] |
//! | others | handled by [`Events::on`] or [`Events::on_message`] |
//!
//! The first event is [`CONNECTION_ESTABLISHED`]. Timestamps are whole seconds since 1970. Unknown fields are ignored;
//! a repeated known field is an error.
//!
//! # Rooms that remember
//!
//! In a room with a [history](crate::guide::history) every event has a last field, `position`. A client sends it as
//! `since` when it reconnects. `recovery` is `complete` if nothing is missing, `gap` or `other_epoch` if something is,
//! and `none` if no position was given. A client that is so far behind that the history no longer holds its next event
//! gets a `gap` event with data `{"room","from","to","position"}`.
//!
//! A client that subscribes to a room with a state gets the state as a `snapshot` event, data
//! `{"room","state":{KEY:VALUE}}`, and each change as a `state` event, data `{"room","key","value"}` or
//! `{"room","key","removed":true}`.
//!
//! # Errors
//!
//! Errors are sent as an `error` event, data `{"code","message"}`, and the connection stays open. They are counted and
//! go to the hub's `on_error` hook like any handler error. The codes:
//!
//! | code | reason |
//! | --- | --- |
//! | `bad_request` | not a JSON object with a `type`, a binary message, a missing field, a field of the wrong type |
//! | `unknown_event` | no handler for this type |
//! | `unauthorized` | no authenticator is set; by convention also used by an authenticator that refuses |
//! | `forbidden` | `may_join` or the `before_room_join` hook has refused |
//! | `not_subscribed`, `no_history` | `history` or `members` of a room that the client is not in, or `history` of a room without one |
//! | `invalid_room`, `room_full`, `too_many_rooms` | a [`RoomError`](crate::RoomError) |
//! | `too_many_connections` | the user has too many connections |
//! | `internal` | a handler has failed; only the log and the `on_error` hook get the reason |
//!
//! A message over [`Config::max_message_size`](crate::Config#structfield.max_message_size) closes with 1009, because
//! the connection cannot continue after it. A connection over a limit is refused with 503 or 429 and the JSON body
//! `{"error"}`.
//!
//! A slow client is closed after ten consecutive drops, see [`Events::max_consecutive_drops`].

mod dispatch;
mod error;
mod event;
mod inbound;
mod rooms;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::Message;
use crate::calls::{CallHandlers, CallRefusal, JsonCalls};
use crate::metrics::ErrorType;
use crate::middleware::{Chain, Middleware};
use crate::{Client, HubBuilder};
use crate::{HandlerError, HandlerResult};
use crate::{RequestHead, Response};

pub use error::EventError;
pub use event::{
    AUTHENTICATED, CONNECTION_CLOSED, CONNECTION_ESTABLISHED, ERROR, Event, GAP, HISTORY, MEMBER_CHANGE, MEMBERS, PONG,
    SNAPSHOT, STATE, SUBSCRIBED, UNSUBSCRIBED, broadcast_raw, emit, emit_broadcast, emit_to_clients, emit_to_room,
    emit_to_rooms, emit_to_users,
};
pub use inbound::Inbound;

type Authenticator = Box<dyn Fn(&Client, &Inbound<'_>) -> Result<String, EventError> + Send + Sync>;
type MayJoin = Box<dyn Fn(&Client, &str) -> bool + Send + Sync>;
type OnConnect = Box<dyn Fn(&Client) + Send + Sync>;
type OnEvent = Box<dyn Fn(&Client, &Inbound<'_>) -> HandlerResult + Send + Sync>;
type OnMessage = Box<dyn Fn(&Client, &Message) -> HandlerResult + Send + Sync>;

/// The application's callbacks.
#[derive(Default)]
struct Callbacks {
    authenticator: Option<Authenticator>,
    may_join: Option<MayJoin>,
    on_connect: Option<OnConnect>,
    on_message: Option<OnMessage>,
    handlers: HashMap<String, OnEvent>,
    calls: CallHandlers,
}

/// Sets up a hub that speaks the events protocol. All callbacks run on the connection's thread, with no lock held.
#[must_use = "it does nothing until it is installed"]
pub struct Events {
    callbacks: Callbacks,
    middleware: Vec<Box<dyn Middleware>>,
    max_consecutive_drops: u32,
}

impl Default for Events {
    fn default() -> Self {
        Self { callbacks: Callbacks::default(), middleware: Vec::new(), max_consecutive_drops: 10 }
    }
}

impl Events {
    /// Only the built-in types: no client can authenticate, and every room may be joined.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the callback that turns an `authenticate` frame into a user id. Only its result counts, whatever the frame
    /// claims. Default: none, and `authenticate` is answered with an error.
    pub fn authenticator(
        mut self,
        callback: impl Fn(&Client, &Inbound<'_>) -> Result<String, EventError> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.authenticator = Some(Box::new(callback));
        self
    }

    /// Sets which rooms a client may subscribe to. Default: all. The hub's `before_room_join` hook and its limits also
    /// apply.
    pub fn may_join(mut self, callback: impl Fn(&Client, &str) -> bool + Send + Sync + 'static) -> Self {
        self.callbacks.may_join = Some(Box::new(callback));
        self
    }

    /// Sets the callback that runs when a client is connected, after its `connection.established`.
    pub fn on_connect(mut self, callback: impl Fn(&Client) + Send + Sync + 'static) -> Self {
        self.callbacks.on_connect = Some(Box::new(callback));
        self
    }

    /// Sets the handler of an event type, replacing an earlier one. It never gets `ping`, `subscribe`, `unsubscribe`
    /// and `authenticate`. A handler for `call`, `reply` or `error` gets those frames, which then are not treated as
    /// calls.
    pub fn on(
        mut self,
        kind: impl Into<String>,
        handler: impl Fn(&Client, &Inbound<'_>) -> HandlerResult + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.handlers.insert(kind.into(), Box::new(handler));
        self
    }

    /// Sets the handler of a method that clients call. It gets the call's data; its return value is sent back as a
    /// reply or an error. Neither closes the connection. [`JsonCalls`] describes the wire format.
    pub fn on_call(
        mut self,
        method: impl Into<String>,
        handler: impl Fn(&Client, &Message) -> Result<Message, CallRefusal> + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.calls.insert(method, handler);
        self
    }

    /// Sets the handler for all other messages, including binary ones and text that is not an event. Default: an error.
    pub fn on_message(mut self, handler: impl Fn(&Client, &Message) -> HandlerResult + Send + Sync + 'static) -> Self {
        self.callbacks.on_message = Some(Box::new(handler));
        self
    }

    /// Adds middleware around built-in types and handlers; the first is the outermost. Error events are made from the
    /// result of the outermost.
    pub fn wrap(mut self, middleware: impl Middleware + 'static) -> Self {
        self.middleware.push(Box::new(middleware));
        self
    }

    /// Sets the number of consecutive drops after which a slow client is closed with 1013 (`slow consumer`). Default:
    /// 10; 0 = never.
    pub fn max_consecutive_drops(mut self, drops: u32) -> Self {
        self.max_consecutive_drops = drops;
        self
    }

    /// Installs the protocol on a hub. It uses the hooks `after_connect` (use [`on_connect`](Events::on_connect)),
    /// `on_message` and `map_refusal`, and sets
    /// [`Config::max_consecutive_drops`](crate::Config#structfield.max_consecutive_drops). It leaves all other settings
    /// alone.
    pub fn install(self, builder: HubBuilder) -> HubBuilder {
        let callbacks = Arc::new(self.callbacks);
        let greeting = Arc::clone(&callbacks);
        let dispatch = Chain::new(move |client, message| dispatch::handle(&callbacks, client, message));
        let chain = self.middleware.into_iter().fold(dispatch, Chain::wrap);
        builder
            .map_config(|config| config.max_consecutive_drops(self.max_consecutive_drops))
            .format(&rooms::EventFormat)
            .call_format(JsonCalls)
            .announce_members(dispatch::member_change)
            .map_refusal(json_refusal)
            .after_connect(move |client| dispatch::welcome(&greeting, client))
            .on_message(move |client, message| {
                chain.handle(client, message).map_err(|error| {
                    let error = HandlerError::new(error);
                    dispatch::report(client, &error);
                    error.into()
                })
            })
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("events", &self.callbacks.handlers.keys()).finish_non_exhaustive()
    }
}

/// Formats refusals by a limit, or by a hub that no longer runs, as JSON.
fn json_refusal(_: &RequestHead, error: ErrorType, response: &Response) -> Response {
    if !matches!(error, ErrorType::ConnectionLimit | ErrorType::ConnectionRejectedDraining) {
        return response.clone();
    }
    let reason = String::from_utf8_lossy(response.content());
    Response::json(response.status(), &serde_json::json!({ "error": reason.trim_end() }))
}
