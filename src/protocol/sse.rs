//! Server-Sent Events: hub clients that only listen.
//!
//! A browser's `EventSource`, or `curl -N`, reads them over plain HTTP, even through proxies that do not support
//! WebSocket, and a browser reconnects by itself. [`Server::event_stream`](crate::Server::event_stream) mounts a path;
//! [`PendingConnection::event_stream`](crate::server::PendingConnection::event_stream) takes a socket from the
//! program's own listener.
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
//! `X-Accel-Buffering: no`; it ends with the connection. The body follows the WHATWG HTML standard:
//!
//! | bytes | when |
//! | --- | --- |
//! | `data: TEXT` and an empty line | for a text message. Each line of the text is its own `data` line; CR LF and CR arrive as LF |
//! | `event:`, `id:` and `retry:` lines before it | if the message has them, see [`Message::with_event_name`](crate::Message::with_event_name), [`with_event_id`](crate::Message::with_event_id), [`with_retry`](crate::Message::with_retry) |
//! | a comment, `:` | every [`Config::heartbeat`](crate::Config#structfield.heartbeat), 15 s by default |
//! | a comment, `: closed CODE REASON`, and the end | when the client is closed, drained, or too slow |
//!
//! Binary messages are refused: a send to one client returns [`SendError::Binary`](crate::SendError::Binary); other
//! sends count them in [`Delivery::refused`](crate::Delivery).
//!
//! # What is the same as over WebSocket
//!
//! Everything else. A client on an event stream is a [`Client`](crate::Client). The same hooks give it an id, a user,
//! rooms and metadata. It counts against the same limits, has the same queue with the same drop policy, and is drained
//! and shut down with the others. A broadcast encodes its event once for all such clients.
//!
//! # Coming back
//!
//! In a room with a [history](crate::guide::history) every message has its position as `id:`. A client reconnects with
//! such a position in its `Last-Event-ID` header (browsers do this by themselves), or else in its query parameter
//! `lastEventId`. It first gets what it has missed, from the rooms of its [`Admission`](crate::Admission), without any
//! code in the application.
//!
//! | bytes | when |
//! | --- | --- |
//! | `id: POSITION` without data | first: a browser stores its start position and dispatches no event |
//! | an event `gap`, data `{"room","from","to","position"}` | instead of that, if the id belongs to another history or is older than the held messages. The held messages follow. `from` is `null` if it is unknown what is missing |
//! | an event `state`, data `{"room","key","value"}` or `{"room","key","removed":true}` | first the whole state of a room with a state, then each change |
//!
//! A stream has one last id. If it is in several rooms with histories, it can resume in only one of them; the others
//! send all held messages, after a `gap`.
//!
//! # What is refused before the 200
//!
//! The same as for an upgrade: 503 while the hub does not run, 405 for any method except GET (also `HEAD`), 400 for a
//! request with a body, 403 for an origin that the [`OriginPolicy`](crate::OriginPolicy) does not allow, the status
//! with which `on_upgrade` refuses, and 429 and 503 for limits. A page of another, allowed origin gets
//! `Access-Control-Allow-Origin` with its origin.
//!
//! `EventSource` reconnects after a connection has ended, but not after a status other than 200.

use std::borrow::Cow;

use crate::RequestHead;

/// The id of the last event that the client got before it reconnected, from its `Last-Event-ID` header or else its
/// query parameter `lastEventId`. `None` on a first visit, and if no message had an id.
///
/// Streams whose rooms have a history need no help from the application: see [above](self#coming-back).
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
