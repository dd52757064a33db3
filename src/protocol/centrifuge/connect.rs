//! The connect command, and the refresh of its token.

use std::sync::Arc;
use std::time::Instant;

use super::error::{CommandError, Disconnect, Refusal};
use super::outgoing::Start;
use super::session::{Phase, Session};
use super::settings::{Callbacks, Connecting, Settings};
use super::subscribe::{begin, server_side};
use super::tokens::{ConnectionToken, has_passed, seconds_until};
use super::wire::command::{Connect, Subscribe};
use super::wire::reply::{Connected, Refreshed};
use super::{VERSION, message_of};
use crate::{Client, UserError};

/// Identifies the client and begins its server-side subscriptions.
pub(super) fn connect(client: &Client, session: &Session, wish: &Connect) -> Result<(Connected, Vec<Start>), Refusal> {
    if session.state.lock().phase != Phase::New {
        return Err(Disconnect::BAD_REQUEST.into());
    }
    let (callbacks, settings) = (session.callbacks(), session.settings());
    let token = if wish.token.is_empty() { None } else { Some(read_token(callbacks, &wish.token)?) };
    let has_token = token.is_some();
    if let Some(token) = &token {
        client.set_user(&token.user).map_err(|error| match error {
            UserError::TooManyConnections => Disconnect::CONNECTION_LIMIT,
            _ => Disconnect::SERVER_ERROR,
        })?;
    }
    let data = match &callbacks.on_connecting {
        Some(callback) => {
            let (user, data) = (client.user_id(), message_of(&wish.data));
            let user = user.as_deref().unwrap_or_default();
            callback(client, &Connecting { user, has_token, data: &data, name: &wish.name, version: &wish.version })?
        }
        None => None,
    };
    let token = token.unwrap_or_default();
    begin_session(settings, session, &token);
    let mut reply = Connected {
        client: client.id().to_string(),
        version: VERSION.to_owned(),
        expires: token.expires_at.is_some(),
        ttl: seconds_until(token.expires_at).unwrap_or_default(),
        data: data.map(|data| data.payload().clone()).unwrap_or_default(),
        ping: u32::try_from(settings.ping.as_secs()).unwrap_or(u32::MAX),
        pong: true,
        ..Connected::default()
    };
    let starts = subscribe_all(client, session, wish, token.channels, &mut reply);
    Ok((reply, starts))
}

fn begin_session(settings: &Settings, session: &Session, token: &ConnectionToken) {
    let mut state = session.state.lock();
    state.phase = state.phase.max(Phase::Connected);
    state.info = token.info.as_ref().map(|info| info.payload().clone()).unwrap_or_default();
    state.expires_at = token.expires_at;
    state.is_rescheduled = true;
    state.due = Instant::now() + settings.ping;
}

/// The rooms of the admission and the channels of the token become server-side subscriptions.
fn subscribe_all(
    client: &Client,
    session: &Session,
    wish: &Connect,
    mut channels: Vec<String>,
    reply: &mut Connected,
) -> Vec<Start> {
    let rooms = client.rooms();
    for room in &rooms {
        // They are joined again behind the reply: what is pushed before it is lost on the client.
        let _ = client.leave(room);
    }
    channels.extend(rooms.iter().map(|room: &Arc<str>| room.to_string()));
    let mut starts = Vec::new();
    for channel in channels {
        let Some(options) = session.callbacks().options(&channel) else { continue };
        let place = wish.subs.get(&channel).cloned().unwrap_or_default();
        let wish = Subscribe { channel: channel.clone(), flag: 0, ..place };
        let begun = begin(client, session, &wish, server_side(options, bytes::Bytes::new()), None);
        if let Ok((subscribed, start)) = begun {
            reply.subs.insert(channel, subscribed);
            starts.push(start);
        }
    }
    starts
}

fn read_token(callbacks: &Callbacks, token: &str) -> Result<ConnectionToken, Refusal> {
    let reader = callbacks.connection_tokens.as_ref().ok_or(Disconnect::INVALID_TOKEN)?;
    let token = reader(token)?;
    if has_passed(token.expires_at) { Err(CommandError::TOKEN_EXPIRED.into()) } else { Ok(token) }
}

/// Takes a new token of the same user. An expired one closes: the SDK comes back and asks its application for another.
pub(super) fn refresh(client: &Client, session: &Session, token: &str) -> Result<Refreshed, Refusal> {
    let token = match read_token(session.callbacks(), token) {
        Err(Refusal::Error(error)) if error == CommandError::TOKEN_EXPIRED => return Err(Disconnect::EXPIRED.into()),
        other => other?,
    };
    if token.user != client.user_id().as_deref().unwrap_or_default() {
        return Err(Disconnect::INVALID_TOKEN.into());
    }
    let mut state = session.state.lock();
    state.expires_at = token.expires_at;
    state.is_rescheduled = true;
    drop(state);
    Ok(Refreshed {
        client: client.id().to_string(),
        version: VERSION.to_owned(),
        expires: token.expires_at.is_some(),
        ttl: seconds_until(token.expires_at).unwrap_or_default(),
    })
}
