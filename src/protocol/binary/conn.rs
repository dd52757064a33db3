//! The connection type that handlers get, and sends from the server.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::{Frame, ROOT};
use crate::{Client, ClientId, Delivery, Hub, SendError, Target};

/// What the authorizer knows about a connection, such as user and role. Not empty.
pub type Claims = BTreeMap<String, String>;

/// The name under which a client keeps its claims.
pub(super) const CLAIMS: &str = "wshub.binary.claims";

/// A connection that speaks the protocol: a cheap handle around its [`Client`].
#[derive(Clone, PartialEq, Eq)]
pub struct Conn {
    client: Client,
    claims: Arc<Claims>,
}

impl Conn {
    /// Returns the connection of a client; `None` if its hub does not speak this protocol.
    pub fn of(client: &Client) -> Option<Self> {
        Some(Self { client: client.clone(), claims: client.metadata::<Claims>(CLAIMS)? })
    }

    /// The connection's id, in text form the `src` of its messages.
    pub fn id(&self) -> ClientId {
        self.client.id()
    }

    /// The claims from the authorizer.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The client of the hub: rooms, metadata, close.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a message to this connection. Returns false if it is closed or its queue is full, which by default also
    /// closes it. Does not block.
    pub fn try_send(&self, message: &Frame) -> bool {
        self.client.send(message).is_ok()
    }

    /// Sends to the members of a room except this connection, with its id as `src`. The connection need not be in the
    /// room: server code is trusted. Does not block.
    pub fn send_to_room(&self, room: &str, event: &str, payload: impl Into<Bytes>) -> Delivery {
        let message = Frame::new(room, event, "", self.id().to_string(), payload);
        emit(self.client.hub(), Target::room(room).except(self.id()), &message)
    }

    /// Sends a direct message to a connection, with the id of this one as `src`. Does not block.
    ///
    /// # Errors
    ///
    /// [`SendError::ClientNotFound`]. A full queue is not an error: the [`Delivery`] reports it.
    pub fn send_to_client(&self, dst: ClientId, event: &str, payload: impl Into<Bytes>) -> Result<Delivery, SendError> {
        let message = Frame::new(ROOT, event, dst.to_string(), self.id().to_string(), payload);
        self.client.hub().send(dst, &message)
    }
}

impl fmt::Debug for Conn {
    /// Shows the names of the claims, not their values: those may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claims: Vec<&String> = self.claims.keys().collect();
        f.debug_struct("Conn").field("id", &self.id()).field("claims", &claims).finish_non_exhaustive()
    }
}

/// Sends to every member of a room, from the server: `src` is empty. Does not block.
pub fn send_to_room(hub: &Hub, room: &str, event: &str, payload: impl Into<Bytes>) -> Delivery {
    emit(hub, Target::room(room), &Frame::new(room, event, "", "", payload))
}

/// Sends a direct message from the server: `src` is empty. Does not block.
///
/// # Errors
///
/// [`SendError::ClientNotFound`]. A full queue is not an error: the [`Delivery`] reports it.
pub fn send_to_client(hub: &Hub, dst: ClientId, event: &str, payload: impl Into<Bytes>) -> Result<Delivery, SendError> {
    hub.send(dst, Frame::new(ROOT, event, dst.to_string(), "", payload))
}

/// Sends to a room, which may be empty.
pub(super) fn emit(hub: &Hub, room: Target<'_>, message: &Frame) -> Delivery {
    // A send fails only for a single client.
    hub.send(room, message).unwrap_or_default()
}
