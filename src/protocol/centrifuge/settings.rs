//! What an application sets, and its callbacks.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::error::{CommandError, Refusal};
use super::tokens::{ConnectionToken, SubscriptionToken, TokenError};
use crate::{Client, Message};

/// Who may do something in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No client; the program itself may.
    Nobody,
    /// Clients that are subscribed.
    Subscribers,
    /// All connected clients.
    Everyone,
}

/// What clients may do in a channel; see [`Centrifuge::channels`](super::Centrifuge::channels). Whether it has a
/// history is said by the hub's options for the room of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct ChannelOptions {
    pub(super) publish: Access,
    pub(super) presence: Access,
    pub(super) history: Access,
    pub(super) join_leave: bool,
    pub(super) token: bool,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            publish: Access::Nobody,
            presence: Access::Subscribers,
            history: Access::Subscribers,
            join_leave: true,
            token: false,
        }
    }
}

impl ChannelOptions {
    /// Who may publish; default nobody.
    pub fn publish(mut self, who: Access) -> Self {
        self.publish = who;
        self
    }

    /// Who may ask who is there; default subscribers. With [`Access::Nobody`] it is error 108.
    pub fn presence(mut self, who: Access) -> Self {
        self.presence = who;
        self
    }

    /// Who may read the history, if there is one; default subscribers. Recovery is always allowed.
    pub fn history(mut self, who: Access) -> Self {
        self.history = who;
        self
    }

    /// Whether subscribers that ask for it are told who joins and leaves; default true.
    pub fn join_leave(mut self, is_told: bool) -> Self {
        self.join_leave = is_told;
        self
    }

    /// Whether a subscription needs a token; default false. Without one it is error 103.
    pub fn needs_token(mut self, token: bool) -> Self {
        self.token = token;
        self
    }
}

/// A connect command, for [`Centrifuge::on_connecting`](super::Centrifuge::on_connecting).
#[derive(Debug)]
#[non_exhaustive]
pub struct Connecting<'a> {
    /// The user: of the token, else of the admission; empty for nobody.
    pub user: &'a str,
    /// Whether a token has been checked.
    pub has_token: bool,
    /// What the application sent along; empty if nothing.
    pub data: &'a Message,
    /// The name and version that the application gave its SDK.
    pub name: &'a str,
    /// The version.
    pub version: &'a str,
}

/// A subscribe command, for [`Centrifuge::on_subscribe`](super::Centrifuge::on_subscribe).
#[derive(Debug)]
#[non_exhaustive]
pub struct Subscribing<'a> {
    /// The channel.
    pub channel: &'a str,
    /// Whether a token for it has been checked.
    pub has_token: bool,
    /// What the application sent along; empty if nothing.
    pub data: &'a Message,
}

type ConnectionTokens = Box<dyn Fn(&str) -> Result<ConnectionToken, TokenError> + Send + Sync>;
type SubscriptionTokens = Box<dyn Fn(&str) -> Result<SubscriptionToken, TokenError> + Send + Sync>;
type OnConnecting = Box<dyn Fn(&Client, &Connecting<'_>) -> Result<Option<Message>, Refusal> + Send + Sync>;
type Channels = Box<dyn Fn(&str) -> Option<ChannelOptions> + Send + Sync>;
type OnSubscribe = Box<dyn Fn(&Client, &Subscribing<'_>) -> Result<Option<Message>, Refusal> + Send + Sync>;
type OnPublish = Box<dyn Fn(&Client, &str, &Message) -> Result<(), Refusal> + Send + Sync>;
type Rpc = Box<dyn Fn(&Client, &Message) -> Result<Message, CommandError> + Send + Sync>;
type OnSend = Box<dyn Fn(&Client, &Message) + Send + Sync>;

/// The application's part.
#[derive(Default)]
pub(super) struct Callbacks {
    pub(super) connection_tokens: Option<ConnectionTokens>,
    pub(super) subscription_tokens: Option<SubscriptionTokens>,
    pub(super) on_connecting: Option<OnConnecting>,
    pub(super) channels: Option<Channels>,
    pub(super) on_subscribe: Option<OnSubscribe>,
    pub(super) on_publish: Option<OnPublish>,
    pub(super) on_send: Option<OnSend>,
    pub(super) rpc: HashMap<String, Rpc>,
}

impl Callbacks {
    /// `None` if there is no such channel.
    pub(super) fn options(&self, channel: &str) -> Option<ChannelOptions> {
        self.channels.as_ref().map_or_else(|| Some(ChannelOptions::default()), |channels| channels(channel))
    }
}

/// All of it, as each session holds it.
pub(super) struct Shared {
    pub(super) callbacks: Callbacks,
    pub(super) settings: Settings,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Times and bounds.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) ping: Duration,
    pub(super) pong_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) expiry_grace: Duration,
    pub(super) max_subscriptions: usize,
    pub(super) max_history: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            connect_timeout: Duration::from_secs(10),
            expiry_grace: Duration::from_secs(25),
            max_subscriptions: 512,
            max_history: 1000,
        }
    }
}
