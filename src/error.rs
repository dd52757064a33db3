//! One small error type per family of operations. The error of sends is in `message`, because it returns the message.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use crate::metrics::ErrorType;

/// An invalid setting: its name, its value and its bounds.
///
/// Reported once, when the hub, the server or the adapter is built. The crate never replaces an invalid value silently.
///
/// ```
/// use wshub::{Config, Hub};
/// let error = Hub::builder().config(Config::default().queue_messages(0)).build().unwrap_err();
/// assert_eq!(error.to_string(), "queue_messages 0 must be 1 to 1048576");
/// assert_eq!((error.field(), error.value()), ("queue_messages", "0"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    field: &'static str,
    value: String,
    bound: Cow<'static, str>,
}

impl ConfigError {
    pub(crate) const fn new(field: &'static str, reason: &'static str) -> Self {
        Self { field, value: String::new(), bound: Cow::Borrowed(reason) }
    }

    /// Creates an error with a reason that is known only at run time.
    pub(crate) const fn because(field: &'static str, reason: String) -> Self {
        Self { field, value: String::new(), bound: Cow::Owned(reason) }
    }

    /// Creates an error for a value outside of its bounds, for a protocol's own settings: see
    /// [`HubBuilder::invalid`](crate::HubBuilder::invalid). The text is "FIELD VALUE BOUND", as in `messages 0 must be
    /// 1 to 100`.
    pub fn out_of_bounds(field: &'static str, value: impl fmt::Debug, bound: impl Into<Cow<'static, str>>) -> Self {
        Self { field, value: format!("{value:?}"), bound: bound.into() }
    }

    /// The setting's name, as it is written in code.
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// The value, as it is written in code. Empty if it may be secret or is not a single value.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The bounds of the value, or the fault.
    pub fn bound(&self) -> &str {
        &self.bound
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_str() {
            "" => write!(f, "{}: {}", self.field, self.bound),
            value => write!(f, "{} {value} {}", self.field, self.bound),
        }
    }
}

impl Error for ConfigError {}

/// Why a client did not join or leave a room. The checks run in the order of the variants.
#[derive(Debug)]
#[non_exhaustive]
pub enum RoomError {
    /// The room's name is empty.
    EmptyName,
    /// The room's name is longer than [`MAX_ROOM_NAME`](crate::limit::MAX_ROOM_NAME) bytes.
    NameTooLong,
    /// The client is not, or no longer, connected to this hub.
    ClientNotFound,
    /// The `before_room_join` hook refused. Its error is the source.
    Refused(Box<dyn Error + Send + Sync>),
    /// The room has reached `max_clients_per_room`.
    Full,
    /// The client is already in the room.
    AlreadyJoined,
    /// The client has reached `max_rooms_per_client`.
    TooManyRooms,
    /// No room with that name exists.
    NotFound,
    /// The client is not in the room.
    NotJoined,
}

impl fmt::Display for RoomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyName => f.write_str("the room name is empty"),
            Self::NameTooLong => f.write_str("the room name is longer than 256 bytes"),
            Self::ClientNotFound => f.write_str("the client is not connected"),
            Self::Refused(why) => write!(f, "joining was refused: {why}"),
            Self::Full => f.write_str("the room is full"),
            Self::AlreadyJoined => f.write_str("the client is already in the room"),
            Self::TooManyRooms => f.write_str("the client has reached max_rooms_per_client"),
            Self::NotFound => f.write_str("no such room"),
            Self::NotJoined => f.write_str("the client is not in the room"),
        }
    }
}

impl Error for RoomError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Refused(why) => Some(&**why),
            _ => None,
        }
    }
}

/// Why a client did not get a user id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserError {
    /// The client is not, or no longer, connected.
    ClientNotFound,
    /// The user id is empty.
    EmptyId,
    /// The user id is longer than [`MAX_USER_ID`](crate::limit::MAX_USER_ID).
    IdTooLong,
    /// The user has reached `max_connections_per_user`.
    TooManyConnections,
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientNotFound => "the client is not connected",
            Self::EmptyId => "the user id is empty",
            Self::IdTooLong => "the user id is longer than 4096 bytes",
            Self::TooManyConnections => "the user has reached max_connections_per_user",
        })
    }
}

impl Error for UserError {}

/// A close code or reason that may not be sent (RFC 6455 §7.4, §5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseError {
    /// The code is not one of 1000–1003, 1007–1014 or 3000–4999.
    InvalidCode(u16),
    /// The reason is longer than 123 bytes, the limit of a control frame. Contains the length.
    ReasonTooLong(usize),
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidCode(code) => write!(f, "{code} is not a close code that may be sent"),
            Self::ReasonTooLong(n) => write!(f, "a close reason of {n} bytes exceeds 123 bytes"),
        }
    }
}

impl Error for CloseError {}

/// The deadline of a drain or shutdown passed while clients were still connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadlineError {
    /// How many connections were left.
    pub remaining: usize,
}

impl fmt::Display for DeadlineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections left at the deadline", self.remaining)
    }
}

impl Error for DeadlineError {}

/// The error of a handler, or of a hook that refuses, as the hub reports it.
///
/// Handlers return a [`HandlerResult`], whose error is a box: `?` and `.into()` convert any error, `&str` or `String`.
/// The hub passes it on as a `HandlerError`, to the `after_message` and `on_error` hooks, and the connection stays
/// open. A handler returns a `HandlerError` itself to close the connection, or to have the error counted as another
/// type.
///
/// As with [`std::io::Error`], text and source are those of the wrapped error, which
/// [`get_ref`](HandlerError::get_ref) returns.
///
/// ```
/// use wshub::{HandlerError, HandlerResult};
///
/// fn greet(text: Option<&str>) -> HandlerResult<u8> {
///     let text = text.ok_or("text only")?;
///     if text == "bye" {
///         return Err(HandlerError::close(4000, "bye").into());
///     }
///     Ok(text.parse()?)
/// }
///
/// assert_eq!(HandlerError::new(greet(None).unwrap_err()).to_string(), "text only");
/// let error = HandlerError::new(greet(Some("bye")).unwrap_err());
/// assert_eq!(error.close_code(), Some(4000));
/// let error = HandlerError::new(greet(Some("x")).unwrap_err());
/// assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
/// ```
#[derive(Debug)]
pub struct HandlerError {
    close: Option<(u16, String)>,
    counts_as: ErrorType,
    wrapped: Box<dyn Error + Send + Sync>,
}

impl HandlerError {
    /// Wraps an error, `&str` or `String`. A box that contains a `HandlerError` becomes that error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(error) => *error,
            Err(wrapped) => Self { close: None, counts_as: ErrorType::MessageHandling, wrapped },
        }
    }

    /// Closes the connection with this code and reason after the `after_message` hook has run. An invalid code or
    /// reason (see [`CloseError`]) becomes 1011 without a reason.
    pub fn close(code: u16, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { close: Some((code, reason.clone())), ..Self::new(format!("close {code}: {reason}")) }
    }

    /// Counts this error as the given type instead of [`ErrorType::MessageHandling`]. So a protocol's handler can
    /// distinguish a peer's violations from its own failures.
    #[must_use]
    pub fn counted_as(mut self, error: ErrorType) -> Self {
        self.counts_as = error;
        self
    }

    /// The error's type in metrics: the type set by [`counted_as`](Self::counted_as), [`ErrorType::Panic`] for a
    /// [`HandlerPanic`], otherwise [`ErrorType::MessageHandling`].
    pub fn error_type(&self) -> ErrorType {
        let is_panic = self.counts_as == ErrorType::MessageHandling && self.wrapped.is::<HandlerPanic>();
        if is_panic { ErrorType::Panic } else { self.counts_as }
    }

    /// The type that a handler's error counts as in metrics, for middleware that counts errors; see
    /// [`error_type`](Self::error_type).
    pub fn type_of(error: &(dyn Error + 'static)) -> ErrorType {
        match error.downcast_ref::<Self>() {
            Some(error) => error.error_type(),
            None if error.is::<HandlerPanic>() => ErrorType::Panic,
            None => ErrorType::MessageHandling,
        }
    }

    /// The close code, or `None` if the connection stays open.
    pub fn close_code(&self) -> Option<u16> {
        self.close.as_ref().map(|(code, _)| *code)
    }

    /// The close reason; empty if the connection stays open or the close has no reason.
    pub fn close_reason(&self) -> &str {
        self.close.as_ref().map_or("", |(_, reason)| reason)
    }

    /// The wrapped error.
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.wrapped
    }

    /// The wrapped error, if it is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.wrapped.downcast_ref()
    }

    /// Returns the wrapped error without its close code and type.
    pub fn into_inner(self) -> Box<dyn Error + Send + Sync> {
        self.wrapped
    }
}

/// As [`HandlerError::new`].
impl From<Box<dyn Error + Send + Sync>> for HandlerError {
    fn from(error: Box<dyn Error + Send + Sync>) -> Self {
        Self::new(error)
    }
}

impl From<&str> for HandlerError {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for HandlerError {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wrapped.fmt(f)
    }
}

impl Error for HandlerError {
    /// The source of the wrapped error. The wrapped error itself has the same text, and a report that follows sources
    /// prints each text once.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.wrapped.source()
    }
}

/// A message that no handler accepts: the error of a [`Router`](crate::router::Router).
#[derive(Debug)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// The message names no event.
    NoEvent,
    /// The message names an event without a handler.
    UnknownEvent(String),
    /// The message's contents do not match its event.
    Payload(serde_json::Error),
}

impl fmt::Display for InvalidMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEvent => f.write_str("invalid message: no event named"),
            Self::UnknownEvent(event) => write!(f, "invalid message: unknown event {event:?}"),
            Self::Payload(error) => write!(f, "invalid message: {error}"),
        }
    }
}

impl Error for InvalidMessage {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Payload(error) => Some(error),
            Self::NoEvent | Self::UnknownEvent(_) => None,
        }
    }
}

/// A handler's panic, caught by [`Recovery`](crate::middleware::Recovery).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerPanic {
    message: String,
}

impl HandlerPanic {
    pub(crate) fn new(message: String) -> Self {
        Self { message }
    }

    /// The panic message; empty if it was not a string.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for HandlerPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a handler panicked: {}", self.message)
    }
}

impl Error for HandlerPanic {}

/// The result of a message handler or of a hook that may refuse. `?` and `.into()` convert any error, `&str` or
/// `String`, and a [`HandlerError`], which says more than a text.
pub type HandlerResult<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer;

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&UserError::EmptyId)
        }
    }

    #[test]
    fn strings_and_errors_become_handler_errors() {
        assert_eq!(HandlerError::from("no").to_string(), "no");
        assert_eq!(HandlerError::from(String::from("no")).to_string(), "no");
        let wrapped = HandlerError::new(UserError::ClientNotFound);
        assert_eq!(wrapped.to_string(), "the client is not connected");
        assert_eq!(wrapped.downcast_ref(), Some(&UserError::ClientNotFound));
        assert!(wrapped.source().is_none() && wrapped.get_ref().is::<UserError>());
        let close = HandlerError::close(4000, "x");
        assert_eq!((close.close_code(), close.close_reason()), (Some(4000), "x"));
        assert_eq!((wrapped.close_code(), wrapped.close_reason()), (None, ""));
        assert_eq!(close.error_type(), ErrorType::MessageHandling);
        let counted = close.counted_as(ErrorType::ProtocolError);
        assert_eq!((counted.close_code(), counted.error_type()), (Some(4000), ErrorType::ProtocolError));
    }

    /// Middleware may turn an error into a `HandlerError` and back as often as it likes.
    #[test]
    fn a_boxed_handler_error_keeps_its_code_and_type() {
        let boxed: Box<dyn Error + Send + Sync> =
            HandlerError::close(4000, "x").counted_as(ErrorType::ProtocolError).into();
        let again: Box<dyn Error + Send + Sync> = HandlerError::from(boxed).into();
        let error = HandlerError::new(again);
        assert_eq!(error.close_code(), Some(4000));
        assert_eq!((error.error_type(), error.to_string()), (ErrorType::ProtocolError, "close 4000: x".into()));
    }

    #[test]
    fn a_report_that_follows_sources_prints_each_text_once() {
        let error = HandlerError::new(Outer);
        let mut texts = Vec::new();
        let mut next: Option<&dyn Error> = Some(&error);
        while let Some(error) = next {
            texts.push(error.to_string());
            next = error.source();
        }
        assert_eq!(texts, ["outer", "the user id is empty"]);
        assert!(error.downcast_ref::<Outer>().is_some() && error.into_inner().is::<Outer>());
    }
}
