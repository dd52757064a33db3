//! What tokens say; reading them is left to the application.

use std::time::SystemTime;

use super::error::{CommandError, Disconnect, Refusal};
use crate::Message;

/// What a connection token says, once the application has checked it.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ConnectionToken {
    pub(super) user: String,
    pub(super) expires_at: Option<SystemTime>,
    pub(super) info: Option<Message>,
    pub(super) channels: Vec<String>,
}

impl ConnectionToken {
    /// A token of this user; empty for nobody.
    pub fn user(id: impl Into<String>) -> Self {
        Self { user: id.into(), ..Self::default() }
    }

    /// When it expires; default never. The SDK is told to refresh it in time. A time that has passed is answered with
    /// error 109.
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires_at = Some(time);
        self
    }

    /// What others see of this connection in presence, joins and publications (`conn_info`); default nothing.
    pub fn info(mut self, info: impl Into<Message>) -> Self {
        self.info = Some(info.into());
        self
    }

    /// Adds a server-side subscription.
    pub fn channel(mut self, name: impl Into<String>) -> Self {
        self.channels.push(name.into());
        self
    }
}

/// What a subscription token says, once the application has checked it.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct SubscriptionToken {
    pub(super) user: String,
    pub(super) channel: String,
    pub(super) expires_at: Option<SystemTime>,
    pub(super) info: Option<Message>,
}

impl SubscriptionToken {
    /// A token of this user for this channel. One of another user or channel is refused with error 103.
    pub fn new(user: impl Into<String>, channel: impl Into<String>) -> Self {
        Self { user: user.into(), channel: channel.into(), ..Self::default() }
    }

    /// As [`ConnectionToken::expires_at`], for the subscription alone.
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires_at = Some(time);
        self
    }

    /// What others see of this subscription in presence, joins and publications (`chan_info`); default nothing.
    pub fn info(mut self, info: impl Into<Message>) -> Self {
        self.info = Some(info.into());
        self
    }
}

/// Why a token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// It has expired: error 109, and the SDK asks its application for a new one.
    Expired,
    /// It is not ours, or is broken: the connection is closed with 3500, and the SDK stays away.
    Invalid,
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired => CommandError::TOKEN_EXPIRED.into(),
            TokenError::Invalid => Disconnect::INVALID_TOKEN.into(),
        }
    }
}

/// Whether a time has come.
pub(super) fn has_passed(time: Option<SystemTime>) -> bool {
    time.is_some_and(|time| time <= SystemTime::now())
}

/// Whole seconds until then, rounded up; `None` for never.
pub(super) fn seconds_until(time: Option<SystemTime>) -> Option<u32> {
    let left = time?.duration_since(SystemTime::now()).unwrap_or_default();
    let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
    // An SDK with `expires` and no time would refresh in a loop.
    Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1))
}
