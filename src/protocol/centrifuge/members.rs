//! Presence in a channel, and announcements of joins and leaves.
//!
//! In rooms that track connections the hub knows the subscribers of all nodes, and reports their joins and leaves. In
//! other rooms this file does both, for the subscribers of this node.

use std::collections::{BTreeMap, HashSet};

use super::recover::broadcast;
use super::session::{Session, Subscription};
use super::wire::reply::{self, ClientInfo, PresenceStats, Push};
use crate::members::MemberChange;
use crate::{Client, ClientId, Hub};

/// The subscribers of a channel, by client id.
pub(super) fn presence(hub: &Hub, channel: &str) -> BTreeMap<String, ClientInfo> {
    if hub.tracks_connections(channel) {
        return hub
            .members(channel)
            .iter()
            .filter_map(|m| Some((m.id.to_string(), info_of(m.metadata.as_deref())?)))
            .collect();
    }
    let info = |client: &Client| {
        let session = Session::of(client)?;
        let subscription = session.subscription(channel)?;
        Some((client.id().to_string(), session.client_info(client, subscription.info)))
    };
    hub.room_clients(channel).iter().filter_map(info).collect()
}

/// The number of a channel's subscribers, and of their users.
pub(super) fn presence_stats(hub: &Hub, channel: &str) -> PresenceStats {
    let subscribers = presence(hub, channel);
    let users: HashSet<_> = subscribers.values().map(|info| &info.user).collect();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    PresenceStats { num_clients: count(subscribers.len()), num_users: count(users.len()) }
}

/// The client's info is the member's metadata. `None` for a client of another protocol, and for one that the program
/// has joined to the room, until its subscription begins.
fn info_of(metadata: Option<&str>) -> Option<ClientInfo> {
    serde_json::from_str(metadata?).ok()
}

/// Before the client joins the room: what all nodes will know of it there.
pub(super) fn introduce(client: &Client, session: &Session, channel: &str, subscription: &Subscription) {
    if !client.hub().tracks_connections(channel) {
        return;
    }
    let info = session.client_info(client, subscription.info.clone());
    if client.set_member_in(channel, &info).is_err() {
        // Too long for a member: it is known by its names alone.
        let ClientInfo { user, client: id, .. } = info;
        let _ = client.set_member_in(channel, &ClientInfo { user, client: id, ..ClientInfo::default() });
    }
}

/// Tells interested subscribers that the client has joined, itself among them.
pub(super) fn tell_join(client: &Client, session: &Session, channel: &str, subscription: &Subscription) {
    if !subscription.tells_joins {
        return;
    }
    let is_tracked = client.hub().tracks_connections(channel);
    let push = join(channel, session.client_info(client, subscription.info.clone()));
    // The hub reports a tracked join to the others, perhaps before the reply to this client.
    tell(client.hub(), &push, |other| !is_tracked || other == client);
}

/// Tells interested subscribers that the client has left.
pub(super) fn tell_leave(client: &Client, session: &Session, channel: &str, subscription: &Subscription) {
    if subscription.tells_joins && !client.hub().tracks_connections(channel) {
        let push = leave(channel, session.client_info(client, subscription.info.clone()));
        tell(client.hub(), &push, |_| true);
    }
}

/// A connection of any node has joined or left a room that tracks connections.
pub(super) fn changed(hub: &Hub, channel: &str, change: &MemberChange) {
    if !hub.tracks_connections(channel) {
        return;
    }
    let info = info_of(change.member().metadata.as_deref());
    let (before, now) = match change {
        MemberChange::Joined(_) => (None, info),
        MemberChange::Left(_) => (info, None),
        MemberChange::Updated { before, .. } => (info_of(before.as_deref()), info),
    };
    let (own, push) = match (before, now) {
        (None, Some(info)) => (info.client.parse::<ClientId>().ok(), join(channel, info)),
        (Some(info), None) => (info.client.parse::<ClientId>().ok(), leave(channel, info)),
        _ => return,
    };
    tell(hub, &push, |client| Some(client.id()) != own);
}

fn join(channel: &str, info: ClientInfo) -> Push {
    Push { channel: channel.to_owned(), join: Some(reply::Member { info: Some(info) }), ..Push::default() }
}

fn leave(channel: &str, info: ClientInfo) -> Push {
    Push { channel: channel.to_owned(), leave: Some(reply::Member { info: Some(info) }), ..Push::default() }
}

/// Sends the push to the `chosen` subscribers that want joins and leaves.
fn tell(hub: &Hub, push: &Push, chosen: impl Fn(&Client) -> bool) {
    broadcast(hub, push, |client, session| {
        let wants_joins = |subscription: Subscription| subscription.wants_joins;
        chosen(client) && session.subscription(&push.channel).is_some_and(wants_joins)
    });
}
