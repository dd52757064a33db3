//! Histories as this protocol sees them: positions, recovery, pages, and publishing.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::codec::Codec;
use super::error::CommandError;
use super::session::Session;
use super::wire::command;
use super::wire::reply::{ClientInfo, Publication, Publications, Push, Reply};
use crate::{Client, ClientId, Hub, Message, RoomError, Target};

/// A position as clients know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) epoch: String,
    pub(super) offset: u64,
}

/// What a client that subscribes is told of the history.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// The top; `None` if the room has no history.
    pub(super) top: Option<Place>,
    pub(super) recovered: bool,
    pub(super) publications: Vec<Publication>,
}

/// What comes after a position.
pub(super) fn recover(_hub: &Hub, _channel: &str, _wanted: Option<&Place>) -> Recovery {
    Recovery::default()
}

/// Joins the room so that what is pushed begins after the position; false if that is no longer held.
pub(super) fn join(client: &Client, channel: &str, _from: Option<&Place>) -> Result<bool, RoomError> {
    client.join(channel).map(|()| true)
}

/// A page of the history.
pub(super) fn page(_hub: &Hub, _wanted: &command::History, _max: usize) -> Result<Publications, CommandError> {
    Err(CommandError::NOT_AVAILABLE)
}

/// What goes with the data of a publication.
#[derive(Debug)]
pub(super) struct Publishing {
    /// The client that publishes; none for the program.
    pub(super) info: Option<ClientInfo>,
    pub(super) tags: BTreeMap<String, String>,
    /// It enters the history.
    pub(super) is_recorded: bool,
}

impl Default for Publishing {
    fn default() -> Self {
        Self { info: None, tags: BTreeMap::new(), is_recorded: true }
    }
}

/// Forgets what has been published; the position stays.
pub(super) fn remove(_hub: &Hub, _channel: &str) -> Result<(), CommandError> {
    Err(CommandError::NOT_AVAILABLE)
}

/// Publishes to a channel; where in the history it is.
pub(super) fn publish(hub: &Hub, channel: &str, data: &Message, publishing: Publishing) -> Option<Place> {
    let Publishing { info, tags, is_recorded: _ } = publishing;
    let publication = Publication { data: Bytes::clone(data.payload()), info, tags, ..Publication::default() };
    let push = Push { channel: channel.to_owned(), publication: Some(publication), ..Push::default() };
    broadcast(hub, channel, &push, |_, _| true);
    None
}

/// Sends a push to the subscribers of a channel that `chosen` names, encoded once for each codec.
pub(super) fn broadcast(hub: &Hub, channel: &str, push: &Push, chosen: impl Fn(&Client, &Session) -> bool) {
    let subscribers = hub.room_clients(channel);
    for codec in [Codec::Json, Codec::Protobuf] {
        let is_chosen = |client: &&Client| {
            Session::of(client).is_some_and(|session| session.codec == codec && chosen(client, &session))
        };
        let ids: Vec<ClientId> = subscribers.iter().filter(is_chosen).map(Client::id).collect();
        if !ids.is_empty() {
            let frame = codec.encode(&[Reply { push: Some(push.clone()), ..Reply::default() }]);
            // The only error is a single client that has gone.
            let _ = hub.send(Target::clients(ids), frame);
        }
    }
}
