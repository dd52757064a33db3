//! Why a call has no answer.

use std::error::Error;
use std::fmt;

/// Why a call was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// No answer came in time. It is unknown whether the client has acted on the call.
    Timeout,
    /// The connection is closing or has ended.
    Closed,
    /// The client answered with an error.
    Refused {
        /// The code, for programs.
        code: String,
        /// The text, for people.
        message: String,
    },
    /// 64 calls to this client are already waiting for an answer, or its queue is full.
    TooMany,
    /// The calling thread is the connection's own, which would have to read the answer. Use
    /// [`Client::call_then`](crate::Client::call_then).
    OwnThread,
    /// The hub has no [`CallFormat`](crate::calls::CallFormat), the client reads an event stream, or the format, or the
    /// bus to the client's node, cannot carry the payload.
    Unsupported,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("the call timed out"),
            Self::Closed => f.write_str("the connection is closed"),
            Self::Refused { code, message } => write!(f, "the call was refused: {code}: {message}"),
            Self::TooMany => f.write_str("too many calls wait for an answer of this client"),
            Self::OwnThread => f.write_str("a blocking call from the connection's own thread"),
            Self::Unsupported => f.write_str("the client cannot be called"),
        }
    }
}

impl Error for CallError {}

impl From<CallRefusal> for CallError {
    fn from(refusal: CallRefusal) -> Self {
        Self::Refused { code: refusal.code, message: refusal.message }
    }
}

/// The error with which either side answers a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRefusal {
    code: String,
    message: String,
}

impl CallRefusal {
    /// Creates a refusal with a code for programs and a text for people.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// The code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The text.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for CallRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl Error for CallRefusal {}
