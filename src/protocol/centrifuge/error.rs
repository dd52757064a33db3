//! Refusals to clients: error replies and close codes.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use super::wire::reply;

/// An error reply: `{code, message, temporary}`.
///
/// The SDKs repeat a command of their own (connect, subscribe, refresh) after a temporary error and after
/// [`TOKEN_EXPIRED`](CommandError::TOKEN_EXPIRED); any other error is final. Codes of an application are 400 to 1999 by
/// convention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    code: u32,
    message: Cow<'static, str>,
    temporary: bool,
}

/// The errors that have fixed codes.
macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:literal $message:literal $temporary:literal;)*) => {
        impl CommandError {
            $($(#[$doc])*
            pub const $name: Self = Self { code: $code, message: Cow::Borrowed($message), temporary: $temporary };)*
        }
    };
}

errors! {
    /// 100: the server has failed; temporary.
    INTERNAL = 100 "internal server error" true;
    /// 101: the client is not sufficiently authenticated.
    UNAUTHORIZED = 101 "unauthorized" false;
    /// 102: the channel does not exist.
    UNKNOWN_CHANNEL = 102 "unknown channel" false;
    /// 103: the client may not do this.
    PERMISSION_DENIED = 103 "permission denied" false;
    /// 104: unknown rpc method or unknown command.
    METHOD_NOT_FOUND = 104 "method not found" false;
    /// 105: the client already has a subscription to this channel.
    ALREADY_SUBSCRIBED = 105 "already subscribed" false;
    /// 106: too many subscriptions, or too many subscribers.
    LIMIT_EXCEEDED = 106 "limit exceeded" false;
    /// 107: invalid command.
    BAD_REQUEST = 107 "bad request" false;
    /// 108: the channel has no history or no presence.
    NOT_AVAILABLE = 108 "not available" false;
    /// 109: the token has expired; the SDK asks the application for a new one.
    TOKEN_EXPIRED = 109 "token expired" false;
    /// 110: the token or subscription to refresh has expired.
    EXPIRED = 110 "expired" false;
    /// 111: the client sends too much; temporary.
    TOO_MANY_REQUESTS = 111 "too many requests" true;
    /// 112: the history does not reach back to the position, and the client asked for this error.
    UNRECOVERABLE_POSITION = 112 "unrecoverable position" false;
}

impl CommandError {
    /// Creates an error of the application. The SDK does not repeat the command.
    pub fn new(code: u32, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), temporary: false }
    }

    /// Makes the SDK repeat connect, subscribe and refresh commands later.
    pub fn temporary(mut self) -> Self {
        self.temporary = true;
        self
    }

    /// The code.
    pub fn code(&self) -> u32 {
        self.code
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the SDK tries again.
    pub fn is_temporary(&self) -> bool {
        self.temporary
    }

    pub(super) fn reply(&self) -> reply::Error {
        reply::Error { code: self.code, message: self.message.to_string(), temporary: self.temporary }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl Error for CommandError {}

/// A close code with its reason. From 3500 to 3999 and from 4500 to 4999 the SDKs stay away, below and from 4000 to
/// 4499 they come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// The close code.
    pub(super) code: u16,
    /// At most 123 bytes.
    pub(super) reason: Cow<'static, str>,
}

/// The close codes that have fixed meanings.
macro_rules! disconnects {
    ($($(#[$doc:meta])* $name:ident = $code:literal $reason:literal;)*) => {
        impl Disconnect {
            $($(#[$doc])*
            pub const $name: Self = Self { code: $code, reason: Cow::Borrowed($reason) };)*
        }
    };
}

disconnects! {
    /// 3004: the server has failed; the SDK reconnects.
    SERVER_ERROR = 3004 "internal server error";
    /// 3005: the token has expired and was not refreshed; the SDK reconnects, with a new token if it can.
    EXPIRED = 3005 "connection expired";
    /// 3008: the client reads its replies too slowly; the SDK reconnects.
    SLOW = 3008 "slow";
    /// 3010: a server-side subscription misses publications; the SDK comes back and is subscribed anew.
    STATE_INVALIDATED = 3010 "state invalidated";
    /// 3012: no answer to a ping; the SDK comes back.
    NO_PONG = 3012 "no pong";
    /// 3013: message rate limit exceeded; the SDK reconnects, with increasing delays.
    TOO_MANY_REQUESTS = 3013 "too many requests";
    /// 3500: invalid token; the SDK stays away.
    INVALID_TOKEN = 3500 "invalid token";
    /// 3501: the peer has violated the protocol; it stays away.
    BAD_REQUEST = 3501 "bad request";
    /// 3502: no connect command in time; the peer stays away.
    STALE = 3502 "stale";
    /// 3503: requested by the program; the SDK stays away.
    FORCE_NO_RECONNECT = 3503 "force disconnect";
    /// 3504: too many connections of this user; the SDK stays away.
    CONNECTION_LIMIT = 3504 "connection limit";
    /// 3507: the client may not connect; the SDK stays away.
    PERMISSION_DENIED = 3507 "permission denied";
}

impl Disconnect {
    /// Creates a close with a code of the application, from 4000 to 4999. A reason over 123 bytes is cut.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        let mut reason = reason.into();
        if reason.len() > 123 {
            let end = (0..=123).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
            reason = Cow::Owned(reason[..end].to_owned());
        }
        Self { code, reason }
    }

    /// The close code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Closes the client; a code that is not valid in a close frame becomes 3004.
    pub(super) fn close(&self, client: &crate::Client) {
        if client.close(self.code, &self.reason).is_err() {
            let _ = client.close(Self::SERVER_ERROR.code, &self.reason);
        }
    }
}

/// A callback's refusal: an error reply, or closing the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The command is answered with this error.
    Error(CommandError),
    /// The connection is closed.
    Close(Disconnect),
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        Self::Error(error)
    }
}

impl From<Disconnect> for Refusal {
    fn from(disconnect: Disconnect) -> Self {
        Self::Close(disconnect)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Close(close) => write!(f, "closed with {}: {}", close.code, close.reason),
        }
    }
}

impl Error for Refusal {}
