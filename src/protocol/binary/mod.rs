//! Rooms over binary frames: length-prefixed fields instead of JSON, with direct messages and handlers by event.
//!
//! Each WebSocket message is one binary message of five fields, in this order: room, event, dst, src, payload. Each
//! field is its length in bytes (unsigned, 32 bits, big-endian) and then the bytes; the first four are UTF-8.
//! [`Message`] is that frame.
//!
//! ```
//! use wshub::protocol::binary::{BinaryRooms, Claims};
//! use wshub::{Hub, Rejection, Server};
//!
//! let mut rooms = BinaryRooms::new(|head| match head.query_param("token") {
//!     Some(name) => Ok(Claims::from([("user".into(), name)])),
//!     None => Err(Rejection::unauthorized()),
//! });
//! rooms.register_handler("whoami", |conn, message| {
//!     let user = conn.claims().get("user").cloned().unwrap_or_default();
//!     conn.send_to_client(conn.id(), &message.event, user)?;
//!     Ok(())
//! })?;
//! let hub = rooms.install(Hub::builder()).build()?;
//! let server = Server::bind("127.0.0.1:0")?.websocket("/ws", &hub);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What happens to a frame
//!
//! The first line that fits decides:
//!
//! | frame | effect |
//! | --- | --- |
//! | event `join` | the sender joins `room` and gets `join_ack`; the other members get `new_member` |
//! | event `leave` | the sender leaves `room` and gets `leave_ack`; the members that stay get `member_left` |
//! | an event of the server's own, from the next table | refused |
//! | `dst` is not empty | goes to that client alone, with the room field `root` |
//! | a handler is registered for the event | goes to the handler |
//! | any other | goes to the members of `room` but the sender, who must be one of them |
//!
//! | server's event | src | payload |
//! | --- | --- | --- |
//! | `join_ack` | the receiver's own id | JSON array of the ids in the room, the receiver's among them |
//! | `leave_ack` | the receiver's own id | the same id |
//! | `new_member`, `member_left` | empty | the id of who came or went |
//!
//! `src` is always written by the server, whatever the sender put there. Joining a room that one is in and leaving a
//! room that one is not in are acknowledged again, and nobody else hears of it. Every connection joins [`ROOT`] before
//! its first message. Joins and leaves that the server causes ([`Client::join`](crate::Client::join), the end of a
//! connection) are told in the same way. What a member is told adds up: `join_ack` and every `new_member` and
//! `member_left` after it give exactly the members, taken as a set: news of somebody who comes or goes at the same moment
//! may repeat what `join_ack` has said already.
//!
//! # What is refused
//!
//! - A connection without claims: 401, or whatever [`Rejection`](crate::Rejection) the authorizer returns.
//! - A malformed frame ([`DecodeError`]): close code 1002. A text message: 1003. A message over 65,536 bytes: 1009.
//!   The first two count as [`ErrorType::ProtocolError`](crate::metrics::ErrorType::ProtocolError); nothing of such a frame is
//!   used.
//! - Sending to a room that one is not in, to a client that does not exist, and joins that the hub refuses. The protocol
//!   has no frame for errors: the refusal goes to the hub's `on_error` hook, and the connection stays.

mod conn;
mod frame;
mod rooms;

pub use conn::{Claims, Conn, send_to_client, send_to_room};
pub use frame::{DecodeError, Message};
pub use rooms::{BinaryRooms, RegisterError};

/// The room that every connection joins first, and the room field of direct messages.
pub const ROOT: &str = "root";
