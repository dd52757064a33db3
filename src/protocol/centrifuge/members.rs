//! Presence in a channel, and announcements of joins and leaves.

use std::collections::{BTreeMap, HashSet};

use super::recover::broadcast;
use super::session::{Session, Subscription};
use super::wire::reply::{ClientInfo, Member, PresenceStats, Push};
use crate::{Client, Hub};

/// The subscribers of a channel on this node, by client id.
pub(super) fn presence(hub: &Hub, channel: &str) -> BTreeMap<String, ClientInfo> {
    let info = |client: &Client| {
        let session = Session::of(client)?;
        let subscription = session.subscription(channel)?;
        Some((client.id().to_string(), session.client_info(client, subscription.info)))
    };
    hub.room_clients(channel).iter().filter_map(info).collect()
}

/// The number of a channel's subscribers on this node, and of their users.
pub(super) fn presence_stats(hub: &Hub, channel: &str) -> PresenceStats {
    let subscribers = hub.room_clients(channel);
    let users: HashSet<_> = subscribers.iter().map(Client::user_id).collect();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    PresenceStats { num_clients: count(subscribers.len()), num_users: count(users.len()) }
}

/// Tells interested subscribers that the client has joined.
pub(super) fn tell_join(client: &Client, session: &Session, channel: &str, subscription: &Subscription) {
    if subscription.tells_joins {
        let info = Some(session.client_info(client, subscription.info.clone()));
        tell(client.hub(), &Push { channel: channel.to_owned(), join: Some(Member { info }), ..Push::default() });
    }
}

/// Tells interested subscribers that the client has left.
pub(super) fn tell_leave(client: &Client, session: &Session, channel: &str, subscription: &Subscription) {
    if subscription.tells_joins && subscription.is_live {
        let info = Some(session.client_info(client, subscription.info.clone()));
        tell(client.hub(), &Push { channel: channel.to_owned(), leave: Some(Member { info }), ..Push::default() });
    }
}

fn tell(hub: &Hub, push: &Push) {
    broadcast(hub, push, |session| {
        session.subscription(&push.channel).is_some_and(|subscription| subscription.wants_joins)
    });
}
