//! Server-Sent Events: the clients of a hub that only listen.
//!
//! A browser's `EventSource`, or `curl -N`, reads them over plain HTTP, through proxies that know no WebSocket, and comes
//! back by itself when the connection breaks. [`Server::event_stream`](crate::Server::event_stream) mounts a path,
//! [`Accept::event_stream`](crate::server::Accept::event_stream) takes a socket of the program's own listener.
//!
//! ```
//! use wshub::protocol::sse;
//! use wshub::{Admission, Hub, Message, Rejection, Server, Target};
//!
//! let hub = Hub::builder()
//!     .on_upgrade(|head| match head.query_param("user") {
//!         Some(user) => Ok(Admission::user(user).room("news")),
//!         None => Err(Rejection::unauthorized()),
//!     })
//!     .after_connect(|client| {
//!         if let Some(id) = sse::last_event_id(client.request()) {
//!             // What it has missed; lost if the queue is full, as any message.
//!             let _ = client.send(format!("welcome back, {id} was your last"));
//!         }
//!     })
//!     .build()?;
//! let server = Server::bind("127.0.0.1:0")?.event_stream("/events", &hub);
//! hub.send(Target::room("news"), Message::text("first line\nsecond line").with_event_id("17"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What goes over the wire
//!
//! The response has the status 200 and the headers `Content-Type: text/event-stream`, `Cache-Control: no-cache` and
//! `X-Accel-Buffering: no`; it ends with the connection. Then, as the WHATWG HTML standard has it:
//!
//! | bytes | when |
//! | --- | --- |
//! | `data: TEXT` and an empty line | for a text message. Each line of the text is a `data` line of its own; CR LF and CR arrive as LF |
//! | `event:`, `id:` and `retry:` lines before it | when the message has them, see [`Message::with_event_name`](crate::Message::with_event_name), [`with_event_id`](crate::Message::with_event_id), [`with_retry`](crate::Message::with_retry) |
//! | a comment, `:` | every [`Config::heartbeat`](crate::Config#structfield.heartbeat), 15 s by default |
//! | a comment, `: closed CODE REASON`, and the end | when the client is closed, drained, or too slow |
//!
//! Binary messages are refused: [`SendError::Binary`](crate::SendError::Binary) from a send to one client, counted in
//! [`Delivery::refused`](crate::Delivery) by others.
//!
//! # What is the same as over WebSocket
//!
//! Everything else. A client on an event stream is a [`Client`](crate::Client): it has an id, a user, rooms and metadata by
//! the same hooks, counts against the same limits, has the same queue with the same drop policy, and is drained and shut
//! down with the others. A broadcast makes its event once, whatever the number of such clients.
//!
//! # Coming back
//!
//! In a room with a [history](crate::guide::history) every message has its position as `id:`. A client that comes back with
//! such a position as its `Last-Event-ID` header (browsers do that by themselves), or else as its query parameter
//! `lastEventId`, gets what it has missed before all else, from the rooms of its [`Admission`](crate::Admission). The
//! application need not do anything for it.
//!
//! | bytes | when |
//! | --- | --- |
//! | `id: POSITION` without data | first: a browser notes where it begins, and dispatches nothing |
//! | an event `gap`, data `{"room","from","to","position"}` | instead of that: the id is of another history, or older than what is held. What is held follows. `from` is `null` if it is not known what is missing |
//! | an event `state`, data `{"room","key","value"}` or `{"room","key","removed":true}` | first the whole state of a room that has one, then each change |
//!
//! A stream has one last id. If it is in several rooms with histories, it can go on in only one of them; the others give
//! all that they hold, behind a `gap`.
//!
//! # What is refused before the 200
//!
//! As an upgrade: 503 while the hub does not run, 405 for any method but GET, `HEAD` too, 400 for a request with a body,
//! 403 for an origin that the [`OriginPolicy`](crate::OriginPolicy) does not allow, what `on_upgrade` refuses with, and the
//! limits' 429 and 503. A page of another origin that is allowed gets `Access-Control-Allow-Origin` with its origin.
//!
//! `EventSource` comes back after a connection has ended, but not after a status other than 200.

use std::borrow::Cow;

use crate::RequestHead;

/// The id of the last event that the client got before it reconnected: its `Last-Event-ID` header, else its query parameter
/// `lastEventId`. `None` on a first visit, and when no message has had an id.
///
/// A stream whose rooms have a history is answered without the application's help: see [above](self#coming-back).
pub fn last_event_id(head: &RequestHead) -> Option<Cow<'_, str>> {
    let id = head.header("last-event-id").map(Cow::Borrowed).filter(|id| !id.is_empty());
    id.or_else(|| head.query_param("lastEventId").filter(|id| !id.is_empty()).map(Cow::Owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_id_is_read_from_the_header() {
        let head = |headers: &[(&str, &str)]| {
            let all = [("Host", "a")].iter().chain(headers).copied();
            RequestHead::from_parts("GET", "/?lastEventId=a+8", all).expect("valid")
        };
        assert_eq!(last_event_id(&head(&[("last-event-id", "ä 7")])).as_deref(), Some("ä 7"));
        assert_eq!(last_event_id(&head(&[("Last-Event-ID", "")])).as_deref(), Some("a 8"));
        assert_eq!(last_event_id(&head(&[])).as_deref(), Some("a 8"));
    }
}
