//! Histories in this protocol: positions, pages, and publishing.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;

use super::codec::Codec;
use super::error::CommandError;
use super::formats::{Attached, shown};
use super::session::Session;
use super::wire::command;
use super::wire::reply::{Publication, Publications, Push, Reply};
use crate::history::{Epoch, Position, Publish, Range, Recovery};
use crate::{Client, Hub, Message};

/// The subject of unrecorded publications between nodes: pushes in protobuf, in base64.
pub(super) const PUSHES: &str = "centrifuge.push";

/// A position as sent to clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) epoch: String,
    pub(super) offset: u64,
}

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch().to_string(), offset: position.offset() }
    }
}

/// The position from a client. An empty epoch means the history's own epoch; an epoch of another form belongs to no
/// history. `None` if the history's own epoch is needed and the room does not exist.
pub(super) fn position(hub: &Hub, channel: &str, epoch: &str, offset: u64) -> Option<Position> {
    if let Ok(epoch) = epoch.parse::<Epoch>() {
        return Some(Position::new(epoch, offset));
    }
    // An offset beyond the top is as one of another epoch.
    let offset = if epoch.is_empty() { offset } else { u64::MAX };
    Some(Position::new(hub.position(channel)?.epoch(), offset))
}

/// A page of the history.
pub(super) fn page(hub: &Hub, wanted: &command::History, max: usize) -> Result<Publications, CommandError> {
    if !hub.has_history(&wanted.channel) {
        return Err(CommandError::NOT_AVAILABLE);
    }
    let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX).min(max);
    let mut range = if wanted.reverse { Range::newest_first() } else { Range::oldest_first() }.limit(limit);
    if let Some(since) = &wanted.since {
        match position(hub, &wanted.channel, &since.epoch, since.offset) {
            Some(since) => range = range.since(since),
            None if since.epoch.is_empty() => {}
            None => return Err(CommandError::UNRECOVERABLE_POSITION),
        }
    }
    // A history that holds nothing is empty, and gets its epoch with its first message.
    let Some(page) = hub.history(&wanted.channel, range) else { return Ok(Publications::default()) };
    if page.recovery == Recovery::OtherEpoch {
        return Err(CommandError::UNRECOVERABLE_POSITION);
    }
    let Place { epoch, offset } = page.position.into();
    Ok(Publications { publications: page.publications.iter().map(shown).collect(), epoch, offset })
}

/// Removes the publications; the position stays.
pub(super) fn remove(hub: &Hub, channel: &str) -> Result<(), CommandError> {
    if !hub.has_history(channel) {
        return Err(CommandError::NOT_AVAILABLE);
    }
    hub.clear_history(channel);
    Ok(())
}

/// How a publication is recorded in the history.
#[derive(Debug, Clone, Copy)]
pub(super) enum Recording {
    /// Not recorded.
    Skipped,
    /// Queued: in a shared history its position is not known yet.
    Queued,
    /// Queued, and the caller waits for its position.
    Awaited(Duration),
}

/// Publishes to a channel. Returns the place in the history; `None` if the publication is not recorded, or if a shared
/// history has not answered in time.
///
/// # Errors
///
/// A shared history takes no more messages.
pub(super) fn publish(
    hub: &Hub,
    channel: &str,
    data: &Message,
    attached: &Attached,
    recording: Recording,
) -> Result<Option<Place>, CommandError> {
    let published = match recording {
        Recording::Queued | Recording::Awaited(_) if !hub.has_history(channel) => None,
        Recording::Skipped => None,
        Recording::Queued => Some(hub.publish(channel, attached.to(Publish::new(data)))),
        Recording::Awaited(time) => {
            let publish = attached.to(Publish::new(data));
            let Some(published) = hub.publish_confirmed(channel, publish, time) else {
                // It is queued: an error would have the caller publish it again.
                return Ok(None);
            };
            Some(published)
        }
    };
    if let Some(published) = published {
        let is_taken = published.position.is_some() || published.delivery.published;
        return if is_taken { Ok(published.position.map(Place::from)) } else { Err(CommandError::TOO_MANY_REQUESTS) };
    }
    let Attached { info, tags } = attached.clone();
    let publication = Publication { data: data.payload().clone(), info, tags, ..Publication::default() };
    let push = Push { channel: channel.to_owned(), publication: Some(publication), ..Push::default() };
    broadcast(hub, &push, |_, _| true);
    hub.tell_nodes(PUSHES, &STANDARD.encode(push.encode_to_vec()));
    Ok(None)
}

/// Passes another node's unrecorded publication on to the subscribers here.
pub(super) fn hear_push(hub: &Hub, data: &str) {
    let bytes = STANDARD.decode(data).unwrap_or_default();
    if let Some(push) = Push::decode(&*bytes).ok().filter(|push| push.publication.is_some()) {
        broadcast(hub, &push, |_, _| true);
    }
}

/// Sends a push to the subscribers of its channel that are `chosen`, encoded once for each codec.
pub(super) fn broadcast(hub: &Hub, push: &Push, chosen: impl Fn(&Client, &Session) -> bool) {
    let replies = [Reply { push: Some(push.clone()), ..Reply::default() }];
    let mut frames = [Codec::Json, Codec::Protobuf].map(|codec| (codec, None::<Message>));
    let _cork = hub.cork();
    for client in hub.room_clients(&push.channel) {
        let Some(session) = Session::of(&client).filter(|session| chosen(&client, session)) else { continue };
        let frame = frames.iter_mut().find(|(codec, _)| *codec == session.codec);
        if let Some((codec, frame)) = frame {
            // The hub's policy drops it for slow clients.
            let _ = Client::send(&client, &*frame.get_or_insert_with(|| codec.encode(&replies)));
        }
    }
}
