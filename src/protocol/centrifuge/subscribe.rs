//! Subscribing and unsubscribing, asked for by the client or by the program.

use std::sync::Arc;

use super::error::{CommandError, Disconnect, Refusal};
use super::members::{tell_join, tell_leave};
use super::message_of;
use super::outgoing::{Start, push};
use super::recover::{self, Place, Recovery};
use super::session::{Phase, Session, Subscription};
use super::settings::{Callbacks, ChannelOptions, Subscribing};
use super::tokens::{SubscriptionToken, has_passed, seconds_until};
use super::wire::command::Subscribe;
use super::wire::reply::{Push, SubscribePush, Subscribed, Unsubscribe};
use crate::limit::MAX_ROOM_NAME;
use crate::{Client, Message, RoomError};

/// The SDK's bit in `flag`: error 112 instead of a recovery that fails.
const REJECT_UNRECOVERED: i64 = 2;

/// Codes of unsubscribe pushes. From 2500 on the SDK subscribes again.
pub(super) const BY_SERVER: u32 = 2000;
const INSUFFICIENT_STATE: u32 = 2500;
const EXPIRED: u32 = 2501;

/// Checks a subscribe command and reserves the subscription; the reply, and what begins once it is sent.
pub(super) fn subscribe(client: &Client, session: &Session, wish: &Subscribe) -> Result<(Subscribed, Start), Refusal> {
    let options = channel_options(session.callbacks(), &wish.channel)?;
    let token = check_token(session.callbacks(), client, wish, options)?;
    if session.is_subscribed(&wish.channel) {
        return Err(CommandError::ALREADY_SUBSCRIBED.into());
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
        is_live: false,
    };
    begin(client, session, wish, subscription, data)
}

/// Reserves the subscription and looks at the history.
pub(super) fn begin(
    client: &Client,
    session: &Session,
    wish: &Subscribe,
    subscription: Subscription,
    data: Option<Message>,
) -> Result<(Subscribed, Start), Refusal> {
    let expires_at = subscription.expires_at;
    let channel = reserve(client, session, &wish.channel, subscription)?;
    let wanted = wish.recover.then(|| Place { epoch: wish.epoch.clone(), offset: wish.offset });
    let Recovery { top, recovered, publications } = recover::recover(client.hub(), &channel, wanted.as_ref());
    if wish.recover && !recovered && wish.flag & REJECT_UNRECOVERED != 0 {
        session.remove(&channel);
        return Err(CommandError::UNRECOVERABLE_POSITION.into());
    }
    let from = top.clone().map(|top| Place { offset: publications.last().map_or(top.offset, |p| p.offset), ..top });
    let told = wanted.filter(|_| recovered).map(|wanted| wanted.offset);
    let (epoch, offset) = top.map(|top| (top.epoch, top.offset)).unzip();
    let reply = Subscribed {
        expires: expires_at.is_some(),
        ttl: seconds_until(expires_at).unwrap_or_default(),
        recoverable: epoch.is_some(),
        positioned: epoch.is_some(),
        epoch: epoch.unwrap_or_default(),
        offset: told.or(offset).unwrap_or_default(),
        publications,
        recovered,
        data: data.map(|data| data.payload().clone()).unwrap_or_default(),
        was_recovering: wish.recover,
    };
    Ok((reply, Start { channel, from }))
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

/// Has a subscription token checked: it must be for this user and channel.
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

fn reserve(
    client: &Client,
    session: &Session,
    channel: &str,
    subscription: Subscription,
) -> Result<Arc<str>, CommandError> {
    let limits = client.hub().limits();
    let is_reached = |limit: usize, count: usize| limit != 0 && count >= limit;
    let of_room = client.hub().room_count(channel);
    let mut state = session.state.lock();
    let count = state.subscriptions.len();
    if is_reached(session.settings().max_subscriptions, count)
        || is_reached(limits.max_rooms_per_client, count)
        || is_reached(limits.max_clients_per_room, of_room)
    {
        return Err(CommandError::LIMIT_EXCEEDED);
    }
    let channel: Arc<str> = channel.into();
    state.is_rescheduled |= subscription.expires_at.is_some();
    if state.subscriptions.contains_key(&channel) {
        return Err(CommandError::ALREADY_SUBSCRIBED);
    }
    state.subscriptions.insert(Arc::clone(&channel), subscription);
    Ok(channel)
}

/// Joins the room of a subscription whose reply is sent.
pub(super) fn go_live(client: &Client, session: &Session, start: &Start) {
    let channel = &*start.channel;
    match recover::join(client, channel, start.from.as_ref()) {
        Ok(true) | Err(RoomError::AlreadyJoined) => {
            session.change(channel, |subscription| subscription.is_live = true);
            if let Some(subscription) = session.subscription(channel) {
                tell_join(client, session, channel, &subscription);
            }
        }
        // Between the reply and now more has been published than the history holds.
        Ok(false) => end(client, session, channel, INSUFFICIENT_STATE, "insufficient state"),
        Err(_) => end(client, session, channel, BY_SERVER, "joining was refused"),
    }
}

/// Ends a subscription as the client wants it.
pub(super) fn unsubscribe(client: &Client, session: &Session, channel: &str) {
    if let Some(subscription) = session.remove(channel) {
        // The program may have taken the client out meanwhile.
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

/// Publications are missing for this client: it is to subscribe again, which recovers or tells the application.
pub(super) fn end_behind(client: &Client, session: &Session, channel: &str) {
    end(client, session, channel, INSUFFICIENT_STATE, "insufficient state");
}

fn push_unsubscribe(client: &Client, session: &Session, channel: &str, code: u32, reason: &str) {
    let unsubscribe = Some(Unsubscribe { code, reason: reason.to_owned() });
    push(client, session.codec, Push { channel: channel.to_owned(), unsubscribe, ..Push::default() });
}

/// Subscribes a connected client because the program wants it; told by a push.
pub(super) fn subscribe_by_server(
    client: &Client,
    session: &Session,
    wish: &Subscribe,
    data: Option<Message>,
    info: bytes::Bytes,
) -> Result<(), CommandError> {
    let options = channel_options(session.callbacks(), &wish.channel)?;
    let subscription = server_side(options, info);
    let (told, mut start) = match begin(client, session, wish, subscription, data) {
        Ok(begun) => begun,
        Err(Refusal::Error(error)) => return Err(error),
        Err(Refusal::Close(_)) => return Err(CommandError::INTERNAL),
    };
    // The push has no room for publications: they are pushed behind it.
    if let Some(from) = start.from.as_mut().filter(|_| told.recovered) {
        from.offset = told.offset;
    }
    let subscribe = SubscribePush {
        recoverable: told.recoverable,
        epoch: told.epoch,
        offset: told.offset,
        positioned: told.positioned,
        data: told.data,
    };
    push(client, session.codec, Push { channel: wish.channel.clone(), subscribe: Some(subscribe), ..Push::default() });
    go_live(client, session, &start);
    Ok(())
}

/// A subscription that the program has made.
pub(super) fn server_side(options: ChannelOptions, info: bytes::Bytes) -> Subscription {
    Subscription { info, wants_joins: options.join_leave, tells_joins: options.join_leave, ..Subscription::default() }
}

/// The client has joined a room without this protocol: a server-side subscription begins.
pub(super) fn joined_by_program(client: &Client, session: &Session, channel: &str) {
    if !session.is_connected() || session.is_subscribed(channel) {
        return;
    }
    // What is published before the push of the subscription would be lost on the client: it joins again behind it.
    let _ = client.leave(channel);
    let wish = Subscribe { channel: channel.to_owned(), ..Subscribe::default() };
    let _ = subscribe_by_server(client, session, &wish, None, bytes::Bytes::new());
}

/// The client has left a room, by whatever way. One that this protocol has begun is no longer listed.
pub(super) fn left(client: &Client, session: &Session, channel: &str) {
    let is_ended = session.state.lock().phase == Phase::Ended;
    // Told late, when the client has subscribed anew: not of this subscription.
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
