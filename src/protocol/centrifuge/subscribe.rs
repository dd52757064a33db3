//! Subscribing and unsubscribing, requested by the client or by the program.

use bytes::Bytes;

use super::error::{CommandError, Disconnect, Refusal};
use super::formats::shown;
use super::members::{introduce, tell_join, tell_leave};
use super::message_of;
use super::outgoing::push;
use super::recover::{Place, position};
use super::session::{Origin, Phase, Session, Subscription};
use super::settings::{Callbacks, ChannelOptions, Subscribing};
use super::tokens::{SubscriptionToken, has_passed, seconds_until};
use super::wire::command::Subscribe;
use super::wire::reply::{Push, SubscribePush, Subscribed, Unsubscribe};
use crate::history::{Joined, Publication, Recovery};
use crate::limit::MAX_ROOM_NAME;
use crate::{Client, Message, RoomError};

/// The SDK's bit in `flag`: error 112 instead of a failed recovery.
const REJECT_UNRECOVERED: i64 = 2;

/// Codes of unsubscribe pushes. From 2500 on the SDK subscribes again.
pub(super) const BY_SERVER: u32 = 2000;
const EXPIRED: u32 = 2501;

/// Checks a subscribe command and begins the subscription; `tell` sends the reply.
pub(super) fn subscribe(
    client: &Client,
    session: &Session,
    wish: &Subscribe,
    tell: impl FnOnce(Subscribed),
) -> Result<(), Refusal> {
    let options = channel_options(session.callbacks(), &wish.channel)?;
    let token = check_token(session.callbacks(), client, wish, options)?;
    if session.is_subscribed(&wish.channel) {
        if !wish.recover {
            return Err(CommandError::ALREADY_SUBSCRIBED.into());
        }
        // The client was told of a gap, or has lost the push that ended the subscription.
        unsubscribe(client, session, &wish.channel);
    }
    let data = match &session.callbacks().on_subscribe {
        Some(callback) => {
            let data = message_of(&wish.data);
            callback(client, &Subscribing { channel: &wish.channel, has_token: token.is_some(), data: &data })?
        }
        None => None,
    };
    let token = token.unwrap_or_default();
    let subscription = Subscription {
        info: token.info.map(|info| info.payload().clone()).unwrap_or_default(),
        expires_at: token.expires_at,
        wants_joins: wish.join_leave && options.join_leave,
        tells_joins: options.join_leave,
        origin: Origin::Client,
        is_cache: options.is_cache,
        is_live: false,
    };
    Ok(begin(client, session, wish, subscription, data, tell)?)
}

/// Reserves the subscription and joins the room. `tell` sends the reply, before any push.
pub(super) fn begin(
    client: &Client,
    session: &Session,
    wish: &Subscribe,
    subscription: Subscription,
    data: Option<Message>,
    tell: impl FnOnce(Subscribed),
) -> Result<(), CommandError> {
    let (expires_at, wants_joins) = (subscription.expires_at, subscription.wants_joins);
    // The client gets no joins before its reply.
    let subscription = Subscription { wants_joins: false, ..subscription };
    reserve(client, session, &wish.channel, subscription.clone())?;
    introduce(client, session, &wish.channel, &subscription);
    let since = wish.recover.then(|| position(client.hub(), &wish.channel, &wish.epoch, wish.offset)).flatten();
    let is_told = client.join_collecting(&wish.channel, since, |joined, missed| {
        let mut reply = answer(wish, subscription.is_cache, joined, &missed);
        if wish.flag & REJECT_UNRECOVERED != 0 && reply.was_recovering && !reply.recovered {
            return false;
        }
        reply.expires = expires_at.is_some();
        reply.ttl = seconds_until(expires_at).unwrap_or_default();
        reply.data = data.map(|data| data.payload().clone()).unwrap_or_default();
        session.change(&wish.channel, |subscription| subscription.is_live = true);
        tell(reply);
        session.change(&wish.channel, |subscription| subscription.wants_joins = wants_joins);
        true
    });
    match is_told {
        Ok(true) => {
            if let Some(subscription) = session.subscription(&wish.channel) {
                tell_join(client, session, &wish.channel, &subscription);
            }
            // If the program removes the client between the reply and the report of the join, the hub reports neither.
            left(client, session, &wish.channel);
            Ok(())
        }
        Ok(false) => {
            unsubscribe(client, session, &wish.channel);
            Err(CommandError::UNRECOVERABLE_POSITION)
        }
        Err(error) => {
            session.remove(&wish.channel);
            client.clear_member_in(&wish.channel);
            Err(refused(&error))
        }
    }
}

/// The answer about the history. After a recovery, the offset is the client's own, and the publications follow it;
/// after a failed recovery it is the top. In cache mode it always is, and only the last publication counts.
fn answer(wish: &Subscribe, is_cache: bool, joined: &Joined, missed: &[Publication]) -> Subscribed {
    let Some(top) = joined.position.map(Place::from) else {
        return Subscribed { was_recovering: wish.recover, ..Subscribed::default() };
    };
    let is_complete = wish.recover && joined.recovery == Recovery::Complete;
    // A channel without a last publication has nothing to recover to.
    let has_last = top.offset > 0 && (is_complete || !missed.is_empty());
    let is_cache = is_cache && wish.recover;
    let recovered = if is_cache { has_last } else { is_complete };
    let missed = if is_cache { &missed[missed.len().saturating_sub(1)..] } else { missed };
    // Clients do not get messages after a gap: they begin anew. Without a position it is a rewind.
    let is_shown = recovered || !wish.recover;
    Subscribed {
        recoverable: true,
        positioned: true,
        epoch: top.epoch,
        offset: if recovered && !is_cache { wish.offset } else { top.offset },
        publications: missed.iter().filter(|_| is_shown).map(shown).collect(),
        recovered,
        was_recovering: wish.recover,
        ..Subscribed::default()
    }
}

fn refused(error: &RoomError) -> CommandError {
    match error {
        RoomError::Refused(_) => CommandError::PERMISSION_DENIED,
        RoomError::Full | RoomError::TooManyRooms => CommandError::LIMIT_EXCEEDED,
        RoomError::EmptyName | RoomError::NameTooLong => CommandError::BAD_REQUEST,
        RoomError::AlreadyJoined => CommandError::ALREADY_SUBSCRIBED,
        _ => CommandError::INTERNAL,
    }
}

pub(super) fn channel_options(callbacks: &Callbacks, channel: &str) -> Result<ChannelOptions, CommandError> {
    if channel.is_empty() || channel.len() > MAX_ROOM_NAME {
        return Err(CommandError::BAD_REQUEST);
    }
    callbacks.options(channel).ok_or(CommandError::UNKNOWN_CHANNEL)
}

fn check_token(
    callbacks: &Callbacks,
    client: &Client,
    wish: &Subscribe,
    options: ChannelOptions,
) -> Result<Option<SubscriptionToken>, Refusal> {
    if wish.token.is_empty() {
        return if options.token { Err(CommandError::PERMISSION_DENIED.into()) } else { Ok(None) };
    }
    read_token(callbacks, client, &wish.channel, &wish.token).map(Some)
}

/// Checks a subscription token: it must be for this user and channel.
pub(super) fn read_token(
    callbacks: &Callbacks,
    client: &Client,
    channel: &str,
    token: &str,
) -> Result<SubscriptionToken, Refusal> {
    let reader = callbacks.subscription_tokens.as_ref().ok_or(Disconnect::INVALID_TOKEN)?;
    let token = reader(token)?;
    if token.channel != channel || token.user != client.user_id().as_deref().unwrap_or_default() {
        return Err(CommandError::PERMISSION_DENIED.into());
    }
    if has_passed(token.expires_at) { Err(CommandError::TOKEN_EXPIRED.into()) } else { Ok(token) }
}

fn reserve(client: &Client, session: &Session, channel: &str, new: Subscription) -> Result<(), CommandError> {
    let of_hub = client.hub().limits().max_rooms_per_client;
    let is_reached = |limit: usize, count: usize| limit != 0 && count >= limit;
    let mut state = session.state.lock();
    let count = state.subscriptions.len();
    if state.subscriptions.contains_key(channel) {
        return Err(CommandError::ALREADY_SUBSCRIBED);
    }
    if is_reached(session.settings().max_subscriptions, count) || is_reached(of_hub, count) {
        return Err(CommandError::LIMIT_EXCEEDED);
    }
    state.is_rescheduled |= new.expires_at.is_some();
    state.subscriptions.insert(channel.into(), new);
    Ok(())
}

/// Ends a subscription at the client's request.
pub(super) fn unsubscribe(client: &Client, session: &Session, channel: &str) {
    if let Some(subscription) = session.remove(channel) {
        // The program may have removed the client in the meantime.
        let _ = client.leave(channel);
        tell_leave(client, session, channel, &subscription);
    }
}

/// Ends a subscription and tells the client.
pub(super) fn end(client: &Client, session: &Session, channel: &str, code: u32, reason: &str) {
    if session.is_subscribed(channel) {
        unsubscribe(client, session, channel);
        push_unsubscribe(client, session, channel, code, reason);
    }
}

pub(super) fn end_expired(client: &Client, session: &Session, channel: &str) {
    end(client, session, channel, EXPIRED, "expired");
}

fn push_unsubscribe(client: &Client, session: &Session, channel: &str, code: u32, reason: &str) {
    let unsubscribe = Some(Unsubscribe { code, reason: reason.to_owned() });
    push(client, session.codec, Push { channel: channel.to_owned(), unsubscribe, ..Push::default() });
}

/// Subscribes a connected client at the program's request. Sends a push, and then the recovered publications.
pub(super) fn subscribe_by_server(
    client: &Client,
    session: &Session,
    wish: &Subscribe,
    data: Option<Message>,
    info: Bytes,
) -> Result<(), CommandError> {
    let options = channel_options(session.callbacks(), &wish.channel)?;
    begin(client, session, wish, server_side(options, info), data, |told| {
        let Subscribed { recoverable, epoch, offset, positioned, data, publications, .. } = told;
        let channel = || wish.channel.clone();
        let subscribe = Some(SubscribePush { recoverable, epoch, offset, positioned, data });
        push(client, session.codec, Push { channel: channel(), subscribe, ..Push::default() });
        for publication in publications {
            let publication = Some(publication);
            push(client, session.codec, Push { channel: channel(), publication, ..Push::default() });
        }
    })
}

/// A subscription that the program has made.
pub(super) fn server_side(options: ChannelOptions, info: Bytes) -> Subscription {
    Subscription {
        info,
        wants_joins: options.join_leave,
        tells_joins: options.join_leave,
        origin: Origin::Server,
        is_cache: options.is_cache,
        ..Subscription::default()
    }
}

/// The client misses publications of the channel. The unsubscribe push of the format ends a server-side subscription
/// for good, because SDKs subscribe again only to what they have subscribed to: so they must connect again.
pub(super) fn missed(client: &Client, session: &Session, channel: &str) {
    if session.subscription(channel).is_some_and(|subscription| subscription.origin == Origin::Server) {
        Disconnect::STATE_INVALIDATED.close(client);
    }
}

/// Begins a server-side subscription, because the client has joined a room without this protocol.
pub(super) fn joined_by_program(client: &Client, session: &Session, channel: &str) {
    if !session.is_connected() || session.is_subscribed(channel) {
        return;
    }
    // The client would lose publications that arrive before the subscription's push, so it joins again after the push.
    let _ = client.leave(channel);
    let wish = Subscribe { channel: channel.to_owned(), ..Subscribe::default() };
    let _ = subscribe_by_server(client, session, &wish, None, Bytes::new());
}

/// The client has left a room, in whatever way. If this protocol began the leave, the subscription is already removed.
pub(super) fn left(client: &Client, session: &Session, channel: &str) {
    let is_ended = session.state.lock().phase == Phase::Ended;
    // A late report, after the client has subscribed again, does not concern this subscription.
    let is_of_another = |subscription: Subscription| !subscription.is_live || client.in_room(channel);
    if !is_ended && session.subscription(channel).is_none_or(is_of_another) {
        return;
    }
    let Some(subscription) = session.remove(channel) else { return };
    tell_leave(client, session, channel, &subscription);
    if !is_ended {
        push_unsubscribe(client, session, channel, BY_SERVER, "server unsubscribe");
    }
}
