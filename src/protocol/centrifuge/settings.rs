//! An application's settings and callbacks.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::error::{CommandError, Refusal};
use super::tokens::{ConnectionToken, SubscriptionToken, TokenError};
use crate::bounds::{COUNT, MILLISECOND, YEAR, check, check_finite};
use crate::{Client, ConfigError, Message};

/// Which clients may do something in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// No client; only the program itself.
    Nobody,
    /// Subscribed clients.
    Subscribers,
    /// All connected clients.
    Everyone,
}

/// What clients may do in a channel; see [`Centrifuge::channels`](super::Centrifuge::channels). The hub's options for
/// the room of that name determine whether it has a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct ChannelOptions {
    pub(super) publish: Access,
    pub(super) presence: Access,
    pub(super) history: Access,
    pub(super) join_leave: bool,
    pub(super) token: bool,
    pub(super) is_cache: bool,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            publish: Access::Nobody,
            presence: Access::Subscribers,
            history: Access::Subscribers,
            join_leave: true,
            token: false,
            is_cache: false,
        }
    }
}

impl ChannelOptions {
    /// Sets which clients may publish. Default: none.
    pub fn publish(mut self, who: Access) -> Self {
        self.publish = who;
        self
    }

    /// Sets which clients may query presence. Default: subscribers. With [`Access::Nobody`] a query is error 108.
    pub fn presence(mut self, who: Access) -> Self {
        self.presence = who;
        self
    }

    /// Sets which clients may read the history, if there is one. Default: subscribers. Recovery is always allowed.
    pub fn history(mut self, who: Access) -> Self {
        self.history = who;
        self
    }

    /// Sets whether subscribers that request it get joins and leaves. Default: true.
    pub fn join_leave(mut self, is_told: bool) -> Self {
        self.join_leave = is_told;
        self
    }

    /// Sets whether a client that recovers gets only the last publication, unless it already has that one: Centrifugo's
    /// recovery mode `cache`, for channels whose publications each replace the one before. Default: false; a client
    /// gets everything that it has missed. A history of one message suffices. SDKs also get the last publication with
    /// their first subscription if its options contain `since: {}`.
    pub fn cache_recovery(mut self, is_cache: bool) -> Self {
        self.is_cache = is_cache;
        self
    }

    /// Sets whether a subscription needs a token. Default: false. A missing token is error 103.
    pub fn needs_token(mut self, token: bool) -> Self {
        self.token = token;
        self
    }
}

/// A connect command, for [`Centrifuge::on_connecting`](super::Centrifuge::on_connecting).
#[derive(Debug)]
#[non_exhaustive]
pub struct Connecting<'a> {
    /// The user of the token, else of the admission; empty if there is none.
    pub user: &'a str,
    /// Whether the client had a valid token.
    pub has_token: bool,
    /// Data from the client's application; empty if none.
    pub data: &'a Message,
    /// The name that the application gave its SDK.
    pub name: &'a str,
    /// The version that the application gave its SDK.
    pub version: &'a str,
}

/// A subscribe command, for [`Centrifuge::on_subscribe`](super::Centrifuge::on_subscribe).
#[derive(Debug)]
#[non_exhaustive]
pub struct Subscribing<'a> {
    /// The channel.
    pub channel: &'a str,
    /// Whether the client had a valid token for the channel.
    pub has_token: bool,
    /// Data from the client's application; empty if none.
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

/// The application's callbacks.
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

/// Everything that each session shares.
pub(super) struct Shared {
    pub(super) callbacks: Callbacks,
    pub(super) settings: Settings,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Durations and limits.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) ping: Duration,
    pub(super) pong_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) expiry_grace: Duration,
    pub(super) max_subscriptions: usize,
    pub(super) max_history: usize,
}

impl Settings {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_finite("ping_interval", self.ping, &(Duration::from_secs(1)..=DAY))?;
        check("pong_timeout", self.pong_timeout, MILLISECOND..=YEAR)?;
        check("connect_timeout", self.connect_timeout, MILLISECOND..=YEAR)?;
        check("expiry_grace", self.expiry_grace, Duration::ZERO..=YEAR)?;
        check("max_subscriptions", self.max_subscriptions, 0..=COUNT)?;
        check("max_history", self.max_history, 1..=COUNT)
    }

    /// Rounds pings to the whole seconds of the protocol, and bounds what is added to the clock.
    pub(super) fn simplify(&mut self) {
        self.ping = Duration::from_secs(self.ping.as_secs());
        self.pong_timeout = self.pong_timeout.min(CENTURY);
        self.connect_timeout = self.connect_timeout.min(CENTURY);
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The longest time that is added to the clock. It stands for `Duration::MAX`, which a clock cannot hold.
const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

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

#[cfg(test)]
mod tests {
    use super::super::Centrifuge;
    use super::*;
    use crate::Hub;

    #[test]
    fn an_invalid_setting_fails_the_build_and_is_named() {
        const NANO: Duration = Duration::from_nanos(1);
        let cases = [
            (Centrifuge::new().ping_interval(NANO), "ping_interval 1ns must be 1s to 86400s"),
            (Centrifuge::new().ping_interval(Duration::MAX), "ping_interval 18446744073709551615.999999999s must be"),
            (Centrifuge::new().pong_timeout(NANO), "pong_timeout 1ns must be 1ms to 366 days, or Duration::MAX"),
            (Centrifuge::new().connect_timeout(NANO), "connect_timeout 1ns must be 1ms to 366 days"),
            (Centrifuge::new().expiry_grace(YEAR + NANO), "expiry_grace 31622400.000000001s must be 0ns to 366 days"),
            (Centrifuge::new().max_subscriptions(COUNT + 1), "max_subscriptions 1073741825 must be 0 to 1073741824"),
            (Centrifuge::new().max_history(0), "max_history 0 must be 1 to 1073741824"),
        ];
        for (protocol, expected) in cases {
            let error = protocol.install(Hub::builder()).build().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let bounds = Centrifuge::new().ping_interval(DAY).pong_timeout(Duration::MAX).connect_timeout(MILLISECOND);
        assert!(bounds.install(Hub::builder()).build().is_ok());
    }
}
