//! Calls of clients, answered by handlers.

use std::fmt;

use super::error::CallRefusal;
use super::json::{Frame, answer};
use crate::error::HandlerResult;
use crate::hub::Client;
use crate::message::Message;
use crate::sorted_map::SortedMap;

type Handler = Box<dyn Fn(&Client, &Message) -> Result<Message, CallRefusal> + Send + Sync>;

/// Handlers of clients' calls, by method. Also delivers clients' answers to the hub's own calls. Both use the format
/// of [`JsonCalls`](crate::calls::JsonCalls).
#[derive(Default)]
pub struct CallHandlers(SortedMap<String, Handler>);

impl CallHandlers {
    /// Creates a set without handlers. Calls of unknown methods are refused with `unknown_method`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the handler of a method and replaces an earlier one. The handler gets the call's data and runs on the
    /// connection's thread. Its result is sent to the client, as a reply or as a refusal; neither closes the
    /// connection.
    pub fn insert(
        &mut self,
        method: impl Into<String>,
        handler: impl Fn(&Client, &Message) -> Result<Message, CallRefusal> + Send + Sync + 'static,
    ) {
        self.0.insert(method.into(), Box::new(handler));
    }

    /// Handles a message that is a call or the answer to a call. Returns `None` for any other message, such as an
    /// answer with an id that the client was never called with: that is the application's. A late or repeated answer is
    /// counted and ignored. If a handler's reply is not JSON, the client gets an error with the code `internal`.
    ///
    /// # Errors
    ///
    /// The answer could not be sent.
    pub fn handle(&self, client: &Client, message: &Message) -> Option<HandlerResult> {
        match Frame::parse(message)? {
            Frame::Answer { id, .. } if !client.calls().was_begun(id) => None,
            Frame::Answer { id, result } => {
                client.answer_call(id, result);
                Some(Ok(()))
            }
            Frame::Call { id, method, data } => {
                let result = match self.0.get(&method) {
                    Some(handler) => handler(client, &data),
                    None => Err(CallRefusal::new("unknown_method", format!("no method {method:?}"))),
                };
                Some(client.send(answer(id, &result)).map_err(Into::into))
            }
        }
    }
}

impl fmt::Debug for CallHandlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(method, _)| method)).finish()
    }
}
