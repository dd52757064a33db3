//! Rooms over binary frames: length-prefixed fields instead of JSON, with direct messages and handlers by event.
//!
//! Each WebSocket message is one binary message of five fields, in this order: room, event, dst, src, payload. Each
//! field is its length in bytes (unsigned, 32 bits, big-endian), followed by the bytes. The first four are UTF-8.
//! [`Frame`] represents this frame.
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
//! The first matching row applies:
//!
//! | frame | effect |
//! | --- | --- |
//! | event `join` | the sender joins `room` and gets `join_ack`; the other members get `new_member` |
//! | event `leave` | the sender leaves `room` and gets `leave_ack`; the remaining members get `member_left` |
//! | a server event from the next table | refused |
//! | `dst` is not empty | goes to that client only, with the room field `root` |
//! | a handler is registered for the event | goes to the handler |
//! | any other | goes to the members of `room` except the sender, who must be a member |
//!
//! | server event | src | payload |
//! | --- | --- | --- |
//! | `join_ack` | the receiver's own id | JSON array of the ids in the room, including the receiver's |
//! | `leave_ack` | the receiver's own id | the same id |
//! | `new_member`, `member_left` | empty | the id of the client that joined or left |
//!
//! The server always writes `src` and ignores the sender's value. A join of a room that the client is already in, or a
//! leave of one that it is not in, is acknowledged again, and no other member is told. Every connection joins [`ROOT`]
//! before its first message. Joins and leaves that the server causes ([`Client::join`](crate::Client::join), the end
//! of a connection) are announced in the same way. `join_ack` and the `new_member` and `member_left` events after it
//! add up to the exact set of members. An event for a client that joins or leaves at the same moment may repeat what
//! `join_ack` already contains.
//!
//! # What is refused
//!
//! - A connection without claims: 401, or the [`Rejection`](crate::Rejection) that the authorizer returns.
//! - A malformed frame ([`DecodeError`]): close code 1002. A text message: 1003. A message over 65,536 bytes: 1009.
//!   The first two count as [`ErrorType::ProtocolError`](crate::metrics::ErrorType::ProtocolError). No part of such a
//!   frame is used.
//! - A send to a room that the client is not in or to a client that does not exist, and a join that the hub refuses.
//!   The protocol has no error frame: the error goes to the hub's `on_error` hook, and the connection stays open.

mod conn;
mod frame;
mod rooms;

pub use conn::{Claims, Conn, send_to_client, send_to_room};
pub use frame::{DecodeError, Frame};
pub use rooms::{BinaryRooms, RegisterError};

/// The room that every connection joins first, and the room field of direct messages.
pub const ROOT: &str = "root";
