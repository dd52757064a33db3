//! Turns a frame into replies.

use super::codec::Violation;
use super::connect;
use super::error::{CommandError, Disconnect, Refusal};
use super::formats::Attached;
use super::members;
use super::message_of;
use super::outgoing::Outgoing;
use super::recover::{self, Recording};
use super::session::{Phase, Session};
use super::settings::{Access, ChannelOptions};
use super::subscribe;
use super::tokens::seconds_until;
use super::wire::command::{self, Command, Data, Empty};
use super::wire::reply::{Expiry, Presence, Reply};
use crate::metrics::ErrorType;
use crate::{Client, HandlerError, HandlerResult, Message};

/// Handles the commands of a client, one after the other.
pub(super) struct Dispatch<'a> {
    pub(super) client: &'a Client,
    pub(super) session: &'a Session,
}

impl Dispatch<'_> {
    /// Handles every command of a frame.
    pub(super) fn frame(&self, frame: &Message) -> HandlerResult {
        let commands = self.session.codec.decode(frame).map_err(|violation| broken(&violation))?;
        let mut out = Outgoing::new(self.client, self.session.codec);
        for command in commands {
            let id = command.id;
            match self.command(command, &mut out) {
                Ok(Some(reply)) => out.add(Reply { id, ..reply }),
                Ok(None) => {}
                Err(Refusal::Error(error)) => {
                    out.add(Reply { id, error: Some(error.reply()), ..Reply::default() });
                    if self.phase() == Phase::New {
                        // The remaining commands were meant for a connection that was not established.
                        break;
                    }
                }
                Err(Refusal::Close(disconnect)) => {
                    out.flush();
                    return Err(closed(&disconnect).into());
                }
            }
        }
        out.flush();
        Ok(())
    }

    fn phase(&self) -> Phase {
        self.session.state.lock().phase
    }

    /// Returns the reply to a command; `None` if it has none, or if the reply has been sent.
    fn command(&self, command: Command, out: &mut Outgoing<'_>) -> Result<Option<Reply>, Refusal> {
        let Command {
            id,
            connect,
            subscribe,
            unsubscribe,
            publish,
            presence,
            presence_stats,
            history,
            ping,
            send,
            rpc,
            refresh,
            sub_refresh,
        } = command;
        if let Some(wish) = connect {
            connect::connect(self.client, self.session, &wish, &mut |connect| {
                out.add(Reply { id, connect: Some(connect), ..Reply::default() });
                out.flush();
            })?;
            return Ok(None);
        }
        if self.phase() == Phase::New {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        if let Some(wish) = subscribe {
            subscribe::subscribe(self.client, self.session, &wish, |subscribe| {
                out.add(Reply { id, subscribe: Some(subscribe), ..Reply::default() });
                out.flush();
            })?;
            return Ok(None);
        }
        let reply = Reply::default();
        Ok(Some(if let Some(wish) = unsubscribe {
            subscribe::unsubscribe(self.client, self.session, &wish.channel);
            Reply { unsubscribe: Some(Empty {}), ..reply }
        } else if let Some(wish) = publish {
            self.publish(&wish)?;
            Reply { publish: Some(Empty {}), ..reply }
        } else if let Some(wish) = presence {
            self.allow(&wish.channel, |options| options.presence)?;
            let presence = members::presence(self.client.hub(), &wish.channel);
            Reply { presence: Some(Presence { presence }), ..reply }
        } else if let Some(wish) = presence_stats {
            self.allow(&wish.channel, |options| options.presence)?;
            let stats = members::presence_stats(self.client.hub(), &wish.channel);
            Reply { presence_stats: Some(stats), ..reply }
        } else if let Some(wish) = history {
            self.allow(&wish.channel, |options| options.history)?;
            let page = recover::page(self.client.hub(), &wish, self.session.settings().max_history)?;
            Reply { history: Some(page), ..reply }
        } else if ping.is_some() {
            Reply { ping: Some(Empty {}), ..reply }
        } else if let Some(Data { data }) = send {
            if let Some(callback) = &self.session.callbacks().on_send {
                callback(self.client, &message_of(&data));
            }
            return Ok(None);
        } else if let Some(wish) = rpc {
            Reply { rpc: Some(self.rpc(&wish)?), ..reply }
        } else if let Some(wish) = refresh {
            let refresh = connect::refresh(self.client, self.session, &wish.token)?;
            Reply { refresh: Some(refresh), ..reply }
        } else if let Some(wish) = sub_refresh {
            Reply { sub_refresh: Some(self.sub_refresh(&wish)?), ..reply }
        } else if id != 0 {
            return Err(CommandError::METHOD_NOT_FOUND.into());
        } else {
            self.session.state.lock().pong_due = None;
            return Ok(None);
        }))
    }

    /// Checks whether the client may do something in a channel.
    fn allow(&self, channel: &str, what: impl Fn(ChannelOptions) -> Access) -> Result<(), CommandError> {
        match what(subscribe::channel_options(self.session.callbacks(), channel)?) {
            Access::Everyone => Ok(()),
            Access::Subscribers if self.session.is_subscribed(channel) => Ok(()),
            Access::Subscribers => Err(CommandError::PERMISSION_DENIED),
            Access::Nobody => Err(CommandError::NOT_AVAILABLE),
        }
    }

    fn publish(&self, wish: &command::Publish) -> Result<(), Refusal> {
        if wish.data.is_empty() {
            return Err(CommandError::BAD_REQUEST.into());
        }
        self.allow(&wish.channel, |options| options.publish).map_err(|error| {
            // The channel supports publishing, but not by clients.
            if error == CommandError::NOT_AVAILABLE { CommandError::PERMISSION_DENIED } else { error }
        })?;
        let data = message_of(&wish.data);
        if let Some(callback) = &self.session.callbacks().on_publish {
            callback(self.client, &wish.channel, &data)?;
        }
        let chan_info = self.session.subscription(&wish.channel).map(|s| s.info).unwrap_or_default();
        let info = self.session.client_info(self.client, chan_info);
        let attached = Attached { info: Some(info), ..Attached::default() };
        recover::publish(self.client.hub(), &wish.channel, &data, &attached, Recording::Queued)?;
        Ok(())
    }

    fn rpc(&self, wish: &command::Rpc) -> Result<Data, CommandError> {
        let method = self.session.callbacks().rpc.get(&wish.method).ok_or(CommandError::METHOD_NOT_FOUND)?;
        let data = method(self.client, &message_of(&wish.data))?;
        Ok(Data { data: data.payload().clone() })
    }

    fn sub_refresh(&self, wish: &command::SubRefresh) -> Result<Expiry, Refusal> {
        if !self.session.is_subscribed(&wish.channel) {
            return Err(CommandError::BAD_REQUEST.into());
        }
        let token = match subscribe::read_token(self.session.callbacks(), self.client, &wish.channel, &wish.token) {
            Err(Refusal::Error(error)) if error == CommandError::TOKEN_EXPIRED => {
                return Err(CommandError::EXPIRED.into());
            }
            other => other?,
        };
        self.session.change(&wish.channel, |subscription| subscription.expires_at = token.expires_at);
        self.session.state.lock().is_rescheduled = true;
        let ttl = seconds_until(token.expires_at);
        Ok(Expiry { expires: ttl.is_some(), ttl: ttl.unwrap_or_default() })
    }
}

/// The peer does not speak the protocol, so it must not reconnect.
fn broken(violation: &Violation) -> HandlerError {
    let reason = Disconnect::new(Disconnect::BAD_REQUEST.code(), violation.to_string());
    HandlerError::close(reason.code(), reason.reason()).counted_as(ErrorType::ProtocolError)
}

fn closed(disconnect: &Disconnect) -> HandlerError {
    let error = HandlerError::close(disconnect.code(), disconnect.reason());
    if *disconnect == Disconnect::BAD_REQUEST { error.counted_as(ErrorType::ProtocolError) } else { error }
}
