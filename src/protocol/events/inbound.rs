//! Frames from clients.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use super::error::EventError;
use crate::Message;
use crate::router::json_field;

/// A frame from a client: a JSON object with a string `type`.
#[derive(Debug, Clone)]
pub struct Inbound<'m> {
    kind: Cow<'m, str>,
    message: &'m Message,
}

impl<'m> Inbound<'m> {
    /// Reads a message's type; [`parse`](Inbound::parse) reads the rest.
    ///
    /// # Errors
    ///
    /// `bad_request`: a binary message, or not a JSON object with exactly one `type`, a string.
    pub fn new(message: &'m Message) -> Result<Self, EventError> {
        let kind = json_field(message, "type");
        let kind = kind.ok_or_else(|| EventError::bad_request("not a JSON object with a string \"type\""))?;
        Ok(Self { kind, message })
    }

    /// The type.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The whole message.
    pub fn message(&self) -> &'m Message {
        self.message
    }

    /// Parses the whole frame as a `T`.
    ///
    /// # Errors
    ///
    /// `bad_request`, with the reason, if it does not parse as `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, EventError> {
        self.message.parse_json().map_err(EventError::bad_request)
    }
}
