//! Wire format of rooms with memory: `subscribe` with a position, `history`, and the events of such rooms.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::EventError;
use super::event::{Event, GAP, HISTORY, SNAPSHOT, STATE, SUBSCRIBED};
use super::inbound::Inbound;
use crate::history::{Format, Gap, Joined, Position, Publication, Range, Sealed, WithPosition};
use crate::{Client, HandlerResult, Message, RoomError};

/// Maximum number of messages in one `history` answer.
const MAX_PAGE: usize = 1000;
/// Number of messages if the request sets no limit.
const DEFAULT_PAGE: usize = 100;

/// A position that no history has, used for clients that send an invalid position.
const NOWHERE: &str = "00000000.0";

#[derive(Debug, Deserialize)]
pub(super) struct Subscribe {
    pub(super) room: String,
    since: Option<String>,
}

#[derive(Debug, Serialize)]
struct Subscribed<'a> {
    room: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct HistoryRequest {
    room: String,
    since: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    newest_first: bool,
}

#[derive(Debug, Serialize)]
struct HistoryPage<'a> {
    room: &'a str,
    position: Position,
    recovery: &'static str,
    events: Vec<Box<RawValue>>,
}

/// Joins the room. The answer precedes the replayed events.
pub(super) fn subscribe(client: &Client, wish: &Subscribe) -> HandlerResult {
    let room = wish.room.as_str();
    if !client.hub().remembers(room) {
        return match client.join(room) {
            Ok(()) | Err(RoomError::AlreadyJoined) => answer(client, room, None),
            Err(error) => Err(EventError::from(error).into()),
        };
    }
    match client.join_with(room, wish.since.as_deref().and_then(position), |joined| answer(client, room, Some(joined)))
    {
        Ok(result) => result,
        Err(RoomError::AlreadyJoined) => answer(client, room, None),
        Err(error) => Err(EventError::from(error).into()),
    }
}

fn answer(client: &Client, room: &str, joined: Option<&Joined>) -> HandlerResult {
    let joined = joined.filter(|joined| joined.position.is_some());
    let data = Subscribed {
        room,
        position: joined.and_then(|joined| joined.position),
        recovery: joined.map(|joined| joined.recovery.as_str()),
        replayed: joined.map(|joined| joined.replayed),
    };
    Ok(Event::new(SUBSCRIBED, data).send_to(client)?)
}

/// Treats an invalid position as one of another history, so the client learns that it may have missed something.
fn position(text: &str) -> Option<Position> {
    text.parse().or_else(|_| NOWHERE.parse()).ok()
}

/// Sends a member a part of a room's history.
pub(super) fn history(client: &Client, inbound: &Inbound<'_>) -> HandlerResult {
    let wish: HistoryRequest = inbound.parse()?;
    if !client.in_room(&wish.room) {
        return Err(EventError::new("not_subscribed", "subscribe to the room first").into());
    }
    let range = if wish.newest_first { Range::newest_first() } else { Range::oldest_first() };
    let range = range.limit(wish.limit.unwrap_or(DEFAULT_PAGE).min(MAX_PAGE));
    let range = wish.since.as_deref().and_then(position).map_or(range, |position| range.since(position));
    let page = client.hub().history(&wish.room, range);
    let page = page.ok_or_else(|| EventError::new("no_history", "this room has no history"))?;
    let events = page.publications.iter().filter_map(|publication| WithPosition.message(publication));
    let events = events.filter_map(|message| raw(&message)).collect();
    let data = HistoryPage { room: &wish.room, position: page.position, recovery: page.recovery.as_str(), events };
    Ok(Event::new(HISTORY, data).send_to(client)?)
}

/// The message as JSON: unchanged if it is JSON, otherwise as a string. `None` for a binary message.
fn raw(message: &Message) -> Option<Box<RawValue>> {
    let text = message.as_text()?;
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => Some(value.to_owned()),
        Err(_) => serde_json::value::to_raw_value(text).ok(),
    }
}

/// The format in which events clients see rooms with memory.
#[derive(Debug)]
pub(super) struct EventFormat;

#[derive(Serialize)]
struct StateData<'a> {
    room: &'a str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
}

#[derive(Serialize)]
struct SnapshotData<'a> {
    room: &'a str,
    #[serde(serialize_with = "in_order")]
    state: Vec<(&'a str, Box<RawValue>)>,
}

fn in_order<S: serde::Serializer>(state: &[(&str, Box<RawValue>)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(state.iter().map(|(key, value)| (key, value)))
}

/// Creates an event with this time.
fn event<T: Serialize>(kind: &'static str, data: T, time: SystemTime) -> Option<Message> {
    Event::new(Cow::Borrowed(kind), data).at(time).message().ok()
}

impl Sealed for EventFormat {}

impl Format for EventFormat {
    fn name(&self) -> &'static str {
        "events"
    }

    fn message(&self, publication: &Publication) -> Option<Message> {
        let Some(key) = publication.key() else { return WithPosition.message(publication) };
        let (room, removed) = (publication.room(), publication.is_removal());
        let value = if removed { None } else { Some(raw(publication.message())?) };
        event(STATE, StateData { room, key, value, removed }, publication.time())
    }

    fn gap(&self, gap: &Gap) -> Option<Message> {
        event(GAP, gap, SystemTime::now())
    }

    fn snapshot(&self, room: &str, values: &[Publication]) -> Option<Message> {
        let state = values.iter().filter_map(|value| Some((value.key()?, raw(value.message())?))).collect();
        event(SNAPSHOT, SnapshotData { room, state }, SystemTime::now())
    }
}
