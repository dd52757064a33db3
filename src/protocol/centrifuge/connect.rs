//! The connect command, and the refresh of its token.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;

use super::error::{CommandError, Disconnect, Refusal};
use super::session::{Phase, Session};
use super::settings::{Callbacks, Connecting};
use super::subscribe::{begin, server_side, subscribe_by_server};
use super::tokens::{ConnectionToken, has_passed, seconds_until};
use super::wire::command::{Connect, Subscribe};
use super::wire::reply::{Connected, Refreshed};
use super::{VERSION, message_of};
use crate::{Client, UserError};

/// Maximum number of server-side subscriptions in the reply; further ones follow as pushes. They begin nested in each
/// other.
const MAX_IN_REPLY: usize = 32;

/// Identifies the client and begins its server-side subscriptions; `tell` sends the reply.
pub(super) fn connect(
    client: &Client,
    session: &Session,
    wish: &Connect,
    tell: &mut dyn FnMut(Connected),
) -> Result<(), Refusal> {
    if session.state.lock().phase != Phase::New {
        return Err(Disconnect::BAD_REQUEST.into());
    }
    let callbacks = session.callbacks();
    let token = if wish.token.is_empty() { None } else { Some(read_token(callbacks, &wish.token)?) };
    let has_token = token.is_some();
    if let Some(user) = token.as_ref().map(|token| &token.user) {
        let user = if user.is_empty() { client.clear_user() } else { client.set_user(user) };
        user.map_err(|error| match error {
            UserError::TooManyConnections => Disconnect::CONNECTION_LIMIT,
            UserError::IdTooLong => Disconnect::INVALID_TOKEN,
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
    begin_session(session, &token);
    let reply = Connected {
        client: client.id().to_string(),
        version: VERSION.to_owned(),
        expires: token.expires_at.is_some(),
        ttl: seconds_until(token.expires_at).unwrap_or_default(),
        data: data.map(|data| data.payload().clone()).unwrap_or_default(),
        ping: u32::try_from(session.settings().ping.as_secs()).unwrap_or(u32::MAX),
        pong: true,
        ..Connected::default()
    };
    subscribe_all(client, session, wish, token.channels, reply, tell);
    Ok(())
}

fn begin_session(session: &Session, token: &ConnectionToken) {
    let mut state = session.state.lock();
    state.phase = state.phase.max(Phase::Connected);
    state.info = token.info.as_ref().map(|info| info.payload().clone()).unwrap_or_default();
    state.expires_at = token.expires_at;
    state.is_rescheduled = true;
    state.due = Instant::now() + session.settings().ping;
}

/// Makes the rooms of the admission and the channels of the token server-side subscriptions.
fn subscribe_all(
    client: &Client,
    session: &Session,
    wish: &Connect,
    channels: Vec<String>,
    reply: Connected,
    tell: &mut dyn FnMut(Connected),
) {
    let rooms = client.rooms();
    for room in &rooms {
        // They are joined again after the reply, because the client loses pushes before it.
        let _ = client.leave(room);
    }
    let mut names = BTreeSet::from_iter(channels);
    names.extend(rooms.iter().map(ToString::to_string));
    let mut wishes: Vec<Subscribe> = names
        .into_iter()
        .map(|channel| {
            let place = wish.subs.get(&channel).cloned().unwrap_or_default();
            Subscribe { channel, flag: 0, ..place }
        })
        .collect();
    let later = wishes.split_off(wishes.len().min(MAX_IN_REPLY));
    let mut reply = reply;
    Nested { client, session, tell }.begin(&wishes, &mut reply);
    for wish in later {
        // Subscriptions that a limit or a hook refuses are not reported, as in the reply.
        let _ = subscribe_by_server(client, session, &wish, None, Bytes::new());
    }
}

/// Subscriptions that begin together, with one reply: each is held until all are known and the reply is sent.
struct Nested<'a> {
    client: &'a Client,
    session: &'a Session,
    tell: &'a mut dyn FnMut(Connected),
}

impl Nested<'_> {
    fn begin(&mut self, wishes: &[Subscribe], reply: &mut Connected) {
        let Some((wish, rest)) = wishes.split_first() else {
            (self.tell)(std::mem::take(reply));
            return;
        };
        let mut is_begun = false;
        if let Some(options) = self.session.callbacks().options(&wish.channel) {
            let (client, session) = (self.client, self.session);
            // Subscriptions that a limit or a hook refuses are omitted.
            let _ = begin(client, session, wish, server_side(options, Bytes::new()), None, |subscribed| {
                is_begun = true;
                reply.subs.insert(wish.channel.clone(), subscribed);
                self.begin(rest, reply);
            });
        }
        if !is_begun {
            self.begin(rest, reply);
        }
    }
}

fn read_token(callbacks: &Callbacks, token: &str) -> Result<ConnectionToken, Refusal> {
    let reader = callbacks.connection_tokens.as_ref().ok_or(Disconnect::INVALID_TOKEN)?;
    let token = reader(token)?;
    if has_passed(token.expires_at) { Err(CommandError::TOKEN_EXPIRED.into()) } else { Ok(token) }
}

/// Takes a new token of the same user. An expired one closes: the SDK reconnects and asks its application for another.
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
