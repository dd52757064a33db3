//! Dispatches a frame to the built-in type that answers it, or to the application's handler.

use serde::{Deserialize, Serialize};

use super::Callbacks;
use super::error::EventError;
use super::event::{AUTHENTICATED, CONNECTION_ESTABLISHED, ERROR, Event, MEMBER_CHANGE, MEMBERS, PONG, UNSUBSCRIBED};
use super::inbound::Inbound;
use super::rooms;
use crate::Message;
use crate::members::{Member, MemberChange};
use crate::trace::name_event;
use crate::{Client, ClientId};
use crate::{HandlerError, HandlerResult, RoomError};

#[derive(Debug, Serialize, Deserialize)]
struct Room {
    room: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Established {
    client_id: ClientId,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Authenticated<'a> {
    user_id: &'a str,
    status: &'static str,
}

#[derive(Serialize)]
struct Pong {
    timestamp: u64,
}

/// Greets a new client.
pub(super) fn welcome(callbacks: &Callbacks, client: &Client) {
    // A client that is already gone needs no greeting.
    let _ = Event::new(CONNECTION_ESTABLISHED, Established { client_id: client.id() }).send_to(client);
    if let Some(callback) = &callbacks.on_connect {
        callback(client);
    }
}

/// Sends a handler's error to the client, unless it is about to be closed.
pub(super) fn report(client: &Client, error: &HandlerError) {
    if error.close_code().is_none() {
        // A client that is gone or whose queue is full cannot be told.
        let _ = Event::new(ERROR, EventError::of(error)).send_to(client);
    }
}

/// Handles one message: built-in types first, then the application.
pub(super) fn handle(callbacks: &Callbacks, client: &Client, message: &Message) -> HandlerResult {
    let inbound = match (Inbound::new(message), &callbacks.on_message) {
        (Ok(inbound), _) => inbound,
        (Err(_), Some(handler)) => return handler(client, message),
        (Err(error), None) => return Err(error.into()),
    };
    name_event(inbound.kind());
    match inbound.kind() {
        "ping" => pong(client),
        "subscribe" => subscribe(callbacks, client, &inbound),
        "history" if !callbacks.handlers.contains_key("history") => rooms::history(client, &inbound),
        "unsubscribe" => unsubscribe(client, &inbound),
        "authenticate" => authenticate(callbacks, client, &inbound),
        kind => match (callbacks.handlers.get(kind), &callbacks.on_message) {
            (Some(handler), _) => handler(client, &inbound),
            _ if matches!(kind, "call" | "reply" | "error") => call(callbacks, client, message),
            _ if kind == "members" => members(client, &inbound),
            (None, Some(handler)) => handler(client, message),
            (None, None) => Err(EventError::new("unknown_event", "no event of this type is understood").into()),
        },
    }
}

/// Sends a member the list of the room's members.
fn members(client: &Client, inbound: &Inbound<'_>) -> HandlerResult {
    let Room { room } = inbound.parse()?;
    if !client.in_room(&room) {
        return Err(EventError::new("not_subscribed", "subscribe to the room first").into());
    }
    let members = client.hub().members(&room);
    Ok(Event::new(MEMBERS, Members { room: &room, members: &members }).send_to(client)?)
}

/// The message that tells a room's clients about changes of its members.
pub(super) fn member_change(room: &str, changes: &[MemberChange]) -> Option<Message> {
    let mut data = MemberChanges { room, joined: Vec::new(), updated: Vec::new(), left: Vec::new() };
    for change in changes {
        match change {
            MemberChange::Joined(member) => data.joined.push(member),
            MemberChange::Updated { member, .. } => data.updated.push(member),
            MemberChange::Left(member) => data.left.push(member),
        }
    }
    Event::new(MEMBER_CHANGE, data).message().ok()
}

#[derive(Serialize)]
struct Members<'a> {
    room: &'a str,
    members: &'a [Member],
}

#[derive(Serialize)]
struct MemberChanges<'a> {
    room: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    joined: Vec<&'a Member>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    updated: Vec<&'a Member>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left: Vec<&'a Member>,
}

/// A client's call, or the answer to a call of the server.
fn call(callbacks: &Callbacks, client: &Client, message: &Message) -> HandlerResult {
    let result = callbacks.calls.handle(client, message);
    let other = || match &callbacks.on_message {
        Some(handler) => handler(client, message),
        None => Err(EventError::bad_request("not a call and no answer to one").into()),
    };
    result.unwrap_or_else(other)
}

fn pong(client: &Client) -> HandlerResult {
    let mut event = Event::new(PONG, Pong { timestamp: 0 });
    event.data.timestamp = event.timestamp();
    Ok(event.send_to(client)?)
}

fn subscribe(callbacks: &Callbacks, client: &Client, inbound: &Inbound<'_>) -> HandlerResult {
    let wish: rooms::Subscribe = inbound.parse()?;
    if callbacks.may_join.as_ref().is_some_and(|may_join| !may_join(client, &wish.room)) {
        return Err(EventError::new("forbidden", "this room may not be joined").into());
    }
    rooms::subscribe(client, &wish)
}

fn unsubscribe(client: &Client, inbound: &Inbound<'_>) -> HandlerResult {
    let wish: Room = inbound.parse()?;
    match client.leave(&wish.room) {
        Ok(()) | Err(RoomError::NotFound | RoomError::NotJoined) => Ok(Event::new(UNSUBSCRIBED, wish).send_to(client)?),
        Err(error) => Err(EventError::from(error).into()),
    }
}

/// The authenticator alone determines the user id, whatever the frame claims.
fn authenticate(callbacks: &Callbacks, client: &Client, inbound: &Inbound<'_>) -> HandlerResult {
    let authenticator = callbacks.authenticator.as_ref();
    let authenticator = authenticator.ok_or_else(|| EventError::new("unauthorized", "no authenticator is set"))?;
    let user = authenticator(client, inbound)?;
    client.set_user(&user).map_err(EventError::from)?;
    Ok(Event::new(AUTHENTICATED, Authenticated { user_id: &user, status: "success" }).send_to(client)?)
}
