//! The contents of tokens; the application reads and checks the tokens themselves.

use std::time::SystemTime;

use super::error::{CommandError, Disconnect, Refusal};
use crate::Message;

/// The contents of a connection token that the application has checked.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ConnectionToken {
    pub(super) user: String,
    pub(super) expires_at: Option<SystemTime>,
    pub(super) info: Option<Message>,
    pub(super) channels: Vec<String>,
}

impl ConnectionToken {
    /// Creates a token of this user; empty for none.
    pub fn user(id: impl Into<String>) -> Self {
        Self { user: id.into(), ..Self::default() }
    }

    /// Sets when the token expires. Default: never. The SDK gets the time, to refresh it. A time in the past is
    /// answered with error 109.
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires_at = Some(time);
        self
    }

    /// Sets the `conn_info` that others see in presence, joins and publications. Default: none.
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

/// The contents of a subscription token that the application has checked.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct SubscriptionToken {
    pub(super) user: String,
    pub(super) channel: String,
    pub(super) expires_at: Option<SystemTime>,
    pub(super) info: Option<Message>,
}

impl SubscriptionToken {
    /// Creates a token of this user for this channel. One of another user or channel is refused with error 103.
    pub fn new(user: impl Into<String>, channel: impl Into<String>) -> Self {
        Self { user: user.into(), channel: channel.into(), ..Self::default() }
    }

    /// Like [`ConnectionToken::expires_at`], for the subscription only.
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.expires_at = Some(time);
        self
    }

    /// Sets the `chan_info` that others see in presence, joins and publications. Default: none.
    pub fn info(mut self, info: impl Into<Message>) -> Self {
        self.info = Some(info.into());
        self
    }
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// The token has expired: error 109, and the SDK asks its application for a new one.
    Expired,
    /// The token is invalid: the connection is closed with 3500, and the SDK stays away.
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

/// Whether a time has passed.
pub(super) fn has_passed(time: Option<SystemTime>) -> bool {
    time.is_some_and(|time| time <= SystemTime::now())
}

/// Whole seconds until the time, rounded up; `None` for never.
pub(super) fn seconds_until(time: Option<SystemTime>) -> Option<u32> {
    let left = time?.duration_since(SystemTime::now()).unwrap_or_default();
    let seconds = left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0));
    // An SDK that gets `expires` without a time would refresh in a loop.
    Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1))
}
