//! Subscribing and unsubscribing, requested by the client or by the program.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::{CommandError, Disconnect, Refusal};
use super::formats::shown;
use super::members::{introduce, tell_join, tell_leave};
use super::message_of;
use super::outgoing::push;
use super::recover::{Place, position};
use super::session::{End, Origin, Session, Stage, Subscription};
use super::settings::{Callbacks, ChannelOptions, Subscribing};
use super::tokens::{SubscriptionToken, has_passed, seconds_until};
use super::wire::command::Subscribe;
use super::wire::reply::{Push, SubscribePush, Subscribed, Unsubscribe};
use crate::history::{Joined, Publication, Recovery};
use crate::limit::MAX_ROOM_NAME;
use crate::{Client, Message, RoomError};

/// The SDK's bit in `flag`: error 112 instead of a failed recovery.
const REJECT_UNRECOVERED: i64 = 2;

/// How long a command waits until another thread has ended the subscription.
const PATIENCE: Duration = Duration::from_secs(1);

/// The program ends a subscription: the SDK stays out.
pub(super) const BY_SERVER: End = End { code: 2000, reason: "server unsubscribe" };
/// From code 2500 on the SDK subscribes again.
const EXPIRED: End = End { code: 2501, reason: "expired" };

/// Checks a subscribe command and begins the subscription; `tell` sends the reply.
pub(super) fn subscribe(
    client: &Client,
    session: &Session,
    wish: &Subscribe,
    tell: impl FnOnce(Subscribed),
) -> Result<(), Refusal> {
    let options = channel_options(session.callbacks(), &wish.channel)?;
    let token = check_token(session.callbacks(), client, wish, options)?;
    // A client that was told of the end may be faster than the thread that told it.
    if !session.wait_ended(&wish.channel, Instant::now() + PATIENCE) {
        return Err(CommandError::INTERNAL.into());
    }
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
        ..Subscription::default()
    };
    Ok(begin(client, session, wish, subscription, data, tell)?)
}

/// Begins a subscription and joins the room. `tell` sends the reply, before any push.
pub(super) fn begin(
    client: &Client,
    session: &Session,
    wish: &Subscribe,
    subscription: Subscription,
    data: Option<Message>,
    tell: impl FnOnce(Subscribed),
) -> Result<(), CommandError> {
    let result = begin_one(client, session, wish, subscription, data, tell);
    settle(client, session, &wish.channel);
    result
}

/// Like [`begin`]; the caller settles.
fn begin_one(
    client: &Client,
    session: &Session,
    wish: &Subscribe,
    subscription: Subscription,
    data: Option<Message>,
    tell: impl FnOnce(Subscribed),
) -> Result<(), CommandError> {
    let (expires_at, wants_joins) = (subscription.expires_at, subscription.wants_joins);
    // It is told of no join until its reply is due.
    let subscription = Subscription { wants_joins: false, ..subscription };
    reserve(client, session, &wish.channel, subscription.clone())?;
    if client.in_room(&wish.channel) {
        // The program has joined it to the room. It would lose publications that arrive before the reply.
        let _ = client.leave(&wish.channel);
    }
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
        // From here on, so that no join after the reply is missed; one that others make just now may come before it.
        session.change(&wish.channel, |subscription| subscription.wants_joins = wants_joins);
        tell(reply);
        true
    });
    match is_told {
        Ok(true) => {
            tell_join(client, session, &wish.channel, &subscription);
            session.change(&wish.channel, |subscription| subscription.stage = Stage::Live);
            Ok(())
        }
        Ok(false) => {
            let _ = client.leave(&wish.channel);
            session.remove(&wish.channel);
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
    if let Some(subscription) = session.start_end(channel, Some(BY_SERVER)) {
        let _ = client.leave(channel);
        conclude(client, session, channel, &subscription, None);
        settle(client, session, channel);
    }
}

/// Ends a subscription and tells the client.
pub(super) fn end(client: &Client, session: &Session, channel: &str, end: End) {
    if let Some(subscription) = session.start_end(channel, Some(end)) {
        let _ = client.leave(channel);
        conclude(client, session, channel, &subscription, Some(end));
        settle(client, session, channel);
    }
}

pub(super) fn end_expired(client: &Client, session: &Session, channel: &str) {
    end(client, session, channel, EXPIRED);
}

/// Tells others, and the client if there is a reason to tell, that the subscription has ended, and removes it.
fn conclude(client: &Client, session: &Session, channel: &str, subscription: &Subscription, end: Option<End>) {
    tell_leave(client, session, channel, subscription);
    if let Some(end) = end.filter(|_| !session.has_ended()) {
        push_unsubscribe(client, session, channel, end);
    }
    session.remove(channel);
}

/// Compares the subscription with the room, and does what other threads have left to the one that was beginning or
/// ending it: a client that the program has removed from the room is unsubscribed, one that it has joined is
/// subscribed.
///
/// Each act of the program is noticed: it changes the room first, and then either finds no thread at work and tells the
/// client itself, or leaves that to the thread at work, which looks at the room after its work. A further round is due
/// only if another thread has acted in the meantime.
pub(super) fn settle(client: &Client, session: &Session, channel: &str) {
    loop {
        let Some(subscription) = session.subscription(channel) else {
            if !session.is_connected() || !client.in_room(channel) {
                return;
            }
            let wish = Subscribe { channel: channel.to_owned(), ..Subscribe::default() };
            match subscribe_by_server_one(client, session, &wish, None, Bytes::new()) {
                Err(error) if error != CommandError::ALREADY_SUBSCRIBED => {
                    // No room without a subscription.
                    let _ = client.leave(channel);
                    return;
                }
                _ => continue,
            }
        };
        let is_out = subscription.stage == Stage::Live && !client.in_room(channel);
        let Some(end) = subscription.ends.or(is_out.then_some(BY_SERVER)) else { return };
        let Some(subscription) = session.start_end(channel, Some(end)) else { return };
        if !is_out {
            let _ = client.leave(channel);
        }
        conclude(client, session, channel, &subscription, Some(end));
    }
}

fn push_unsubscribe(client: &Client, session: &Session, channel: &str, end: End) {
    let unsubscribe = Some(Unsubscribe { code: end.code, reason: end.reason.to_owned() });
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
    let result = subscribe_by_server_one(client, session, wish, data, info);
    settle(client, session, &wish.channel);
    result
}

/// Like [`subscribe_by_server`]; the caller settles.
fn subscribe_by_server_one(
    client: &Client,
    session: &Session,
    wish: &Subscribe,
    data: Option<Message>,
    info: Bytes,
) -> Result<(), CommandError> {
    let options = channel_options(session.callbacks(), &wish.channel)?;
    begin_one(client, session, wish, server_side(options, info), data, |told| {
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
