//! Errors that are sent to clients.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use serde::Serialize;

use crate::{HandlerError, RoomError, UserError};

/// The data of an `error` event: a code for programs and a message for people.
///
/// If a handler returns this error, the client receives it. Any other handler error is sent as code `internal` without
/// its text, which may be confidential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventError {
    code: Cow<'static, str>,
    message: Cow<'static, str>,
}

impl EventError {
    /// Creates an error with this code and message.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// The code, such as `bad_request`.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The error that a client gets for a handler's error.
    pub(super) fn of(error: &HandlerError) -> Self {
        let own = error.downcast_ref::<Self>().cloned();
        own.unwrap_or_else(|| Self::new("internal", "internal error"))
    }

    pub(super) fn bad_request(why: impl fmt::Display) -> Self {
        Self::new("bad_request", why.to_string())
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for EventError {}

impl From<RoomError> for EventError {
    /// The text of a refusing hook stays on the server.
    fn from(error: RoomError) -> Self {
        let code = match &error {
            RoomError::EmptyName | RoomError::NameTooLong => "invalid_room",
            RoomError::Refused(_) => return Self::new("forbidden", "joining the room was refused"),
            RoomError::Full => "room_full",
            RoomError::TooManyRooms => "too_many_rooms",
            _ => "room",
        };
        Self::new(code, error.to_string())
    }
}

impl From<UserError> for EventError {
    fn from(error: UserError) -> Self {
        match error {
            UserError::TooManyConnections => Self::new("too_many_connections", error.to_string()),
            // An authenticator that returns an unusable id has refused.
            UserError::EmptyId | UserError::IdTooLong => Self::new("unauthorized", error.to_string()),
            _ => Self::new("internal", "internal error"),
        }
    }
}
