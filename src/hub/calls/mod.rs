//! Calls: messages with an answer, from the hub to clients and back.
//!
//! ```text
//! client.call ── pending ── CallFormat::encode ──▶ the client ──▶ a message ── CallHandlers ── pending ── the caller
//! ```

mod client;
mod error;
mod handlers;
mod json;
mod many;
mod pending;
#[cfg(feature = "cluster")]
mod remote;
#[cfg(not(feature = "cluster"))]
#[path = "no_remote.rs"]
mod remote;

pub use error::{CallError, CallRefusal};
pub use handlers::CallHandlers;
pub use json::{CallFormat, JsonCalls};
pub use many::Answers;

pub(super) use pending::Calls;
#[cfg(feature = "cluster")]
pub(super) use remote::RemoteCalls;

use std::fmt;

/// The hub's format for calls, if it has one.
#[derive(Default)]
pub(super) struct FormatOfCalls(pub(super) Option<Box<dyn CallFormat>>);

impl fmt::Debug for FormatOfCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FormatOfCalls").field(&self.0.is_some()).finish()
    }
}
