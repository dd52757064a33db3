//! A handle to one connection.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use super::Hub;
use super::admission::Metadata;
use super::calls::Calls;
use super::extensions::Extensions;
use super::load::{Dropped, QueueDepth};
use super::target::Target;
use crate::atomic::AtomicU64;
use crate::client_id::ClientId;
use crate::config::MAX_USER_ID;
use crate::error::{HandlerError, HandlerResult, RoomError, UserError};
use crate::guard;
use crate::history::{FormatRef, FrameKind, STREAM};
use crate::http::RequestHead;
use crate::levels::Levels;
use crate::lock::{Ranked, rank};
use crate::message::{Encoded, Message, WireFormat};
use crate::outbox::Outbox;
use crate::sorted_map::SortedMap;

/// A handle to one connection. Cloning it is cheap, and it stays valid after the connection has ended.
///
/// After the connection's last hook, the hub closes the descriptor and drops the queue, metadata and callbacks, even if
/// handles remain. A handle then keeps the request head and a few hundred bytes. To remember a client beyond its
/// connection, keep its [`id`](Client::id).
///
/// All methods may be called from any thread. Only [`send_timeout`](Client::send_timeout) and [`call`](Client::call)
/// wait for the peer.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    id: ClientId,
    hub: Hub,
    /// Weak, because the connection's thread and the hub's lists own the outbox: the socket closes when the connection
    /// ends.
    outbox: Weak<Outbox>,
    wire: WireFormat,
    head: RequestHead,
    subprotocol: Option<String>,
    format: FormatRef,
    connected_at: SystemTime,
    /// The connection's thread sets this once, when the connection has ended.
    closed: OnceLock<Closed>,
    /// Nanoseconds since the hub was built; see `activity.rs`. The connection's thread writes it, a drain reads it.
    last_message: AtomicU64,
    state: Ranked<{ rank::CLIENT }, ClientState>,
    /// Calls to this client that wait for an answer.
    calls: Calls,
}

/// The remains of an outbox after its connection has ended.
struct Closed {
    at: SystemTime,
    /// The number of dropped messages and their wire bytes.
    dropped: (u64, u64),
}

/// A client's mutable state, guarded by its own lock. The maps are ordered ones, because these are small when empty and
/// need no random seed.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct ClientState {
    pub(super) user: Option<Arc<str>>,
    /// Changes only while the room's lock is held too, so that both sides agree.
    pub(super) rooms: BTreeSet<Arc<str>>,
    /// The state last reported to the room hooks; changes together with `rooms`.
    pub(super) telling: Levels<Arc<str>>,
    /// The client's metadata as other members see them, in JSON.
    pub(super) member: Option<Arc<str>>,
    /// The same for single rooms, by name.
    pub(super) member_in: SortedMap<Arc<str>, Arc<str>>,
    /// The connection is ending. The client joins no more rooms and gets no user.
    pub(super) gone: bool,
    /// `on_close` has been taken. New callbacks are not stored.
    pub(super) is_closed: bool,
    /// The last hook has run. New metadata and extensions are not stored.
    pub(super) is_released: bool,
    /// The connection's thread has run its last hook.
    pub(super) is_over: bool,
    pub(super) metadata: SortedMap<String, Metadata>,
    pub(super) extensions: Extensions,
    pub(super) callbacks: Callbacks,
}

impl ClientState {
    /// The client's metadata as other members of a room see them.
    pub(super) fn member_of(&self, room: &str) -> Option<&Arc<str>> {
        self.member_in.get(room).or(self.member.as_ref())
    }
}

pub(super) type Handler = dyn Fn(&Client, &Message) -> HandlerResult + Send + Sync;
pub(super) type OfClient = dyn Fn(&Client) + Send + Sync;
pub(super) type OfError = dyn Fn(&Client, &HandlerError) + Send + Sync;

/// A client's own callbacks, which may be set at any time.
#[derive(Default)]
#[allow(clippy::struct_field_names, reason = "named as the methods that set them")]
pub(crate) struct Callbacks {
    pub(crate) on_message: Option<Arc<Handler>>,
    pub(crate) on_close: Option<Arc<OfClient>>,
    pub(crate) on_error: Option<Arc<OfError>>,
}

impl Client {
    /// Creates a client that is not registered yet. Its outbox holds all messages back until it is opened.
    pub(crate) fn new(
        hub: &Hub,
        outbox: &Arc<Outbox>,
        head: RequestHead,
        subprotocol: Option<String>,
        format: FormatRef,
        metadata: Vec<(String, Metadata)>,
        extensions: Extensions,
    ) -> Self {
        let mut state = ClientState { extensions, ..ClientState::default() };
        // Of two values with one name, the later one stays.
        metadata.into_iter().for_each(|(name, value)| guard::dispose(state.metadata.insert(name, value)));
        Self(Arc::new(Inner {
            id: ClientId::random(),
            hub: hub.clone(),
            outbox: Arc::downgrade(outbox),
            wire: outbox.format(),
            head,
            subprotocol,
            format,
            connected_at: SystemTime::now(),
            closed: OnceLock::new(),
            last_message: AtomicU64::new(0),
            state: Ranked::new(state),
            calls: Calls::default(),
        }))
    }

    /// The unique id of this connection.
    pub fn id(&self) -> ClientId {
        self.0.id
    }

    /// The connection's hub.
    pub fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// The head of the upgrade request: path, query, headers.
    pub fn request(&self) -> &RequestHead {
        &self.0.head
    }

    /// The peer's address; `None` for Unix sockets.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.0.head.remote_addr()
    }

    /// Whether this client reads Server-Sent Events instead of WebSocket messages. Such a client receives only text and
    /// sends nothing.
    pub fn is_event_stream(&self) -> bool {
        self.0.wire.is_event_stream()
    }

    /// Whether the connection uses permessage-deflate.
    pub fn is_compressed(&self) -> bool {
        self.0.wire.is_deflate()
    }

    /// The negotiated subprotocol.
    pub fn subprotocol(&self) -> Option<&str> {
        self.0.subprotocol.as_deref()
    }

    /// When the connection was admitted.
    pub fn connected_at(&self) -> SystemTime {
        self.0.connected_at
    }

    /// When the connection ended, or `None` while it is open.
    pub fn closed_at(&self) -> Option<SystemTime> {
        self.0.closed.get().map(|closed| closed.at)
    }

    /// Whether the connection is closing or closed and so accepts no more messages.
    pub fn is_closed(&self) -> bool {
        !self.outbox().is_some_and(|outbox| outbox.is_open())
    }

    /// The messages in this client's queue. Nothing after the connection has ended.
    pub fn queue_depth(&self) -> QueueDepth {
        self.outbox().map(|outbox| QueueDepth::of(&outbox)).unwrap_or_default()
    }

    /// A number that changes when the peer has acknowledged output that had filled its socket: the peer is alive,
    /// however long it takes to read what is queued before a message that it should answer. 0 after the connection has
    /// ended.
    pub fn output_progress(&self) -> u32 {
        self.outbox().map_or(0, |outbox| outbox.acknowledged())
    }

    /// The messages that were dropped for this client since it connected, because its queue was full or a
    /// `send_timeout` gave up.
    pub fn dropped(&self) -> Dropped {
        // The outbox first: once it is gone, `closed` is set.
        let lost = self.outbox().map(|outbox| outbox.lost());
        let (messages, bytes) = lost.or_else(|| self.0.closed.get().map(|closed| closed.dropped)).unwrap_or_default();
        Dropped { messages, bytes }
    }

    /// The connection's user, if it has one.
    pub fn user_id(&self) -> Option<Arc<str>> {
        self.0.state.read().user.clone()
    }

    /// Assigns this connection to a user, updates the user index and runs the online and offline hooks.
    /// [`clear_user`](Client::clear_user) removes the user.
    ///
    /// # Errors
    ///
    /// [`UserError::EmptyId`] or [`UserError::IdTooLong`] for an unusable id, [`UserError::TooManyConnections`] at the
    /// limit, [`UserError::ClientNotFound`] after the connection has ended. Nothing changes then.
    pub fn set_user(&self, user_id: &str) -> Result<(), UserError> {
        match user_id.len() {
            0 => Err(UserError::EmptyId),
            1..=MAX_USER_ID => self.hub().set_user(self, Some(user_id)),
            _ => Err(UserError::IdTooLong),
        }
    }

    /// Removes this connection from its user.
    ///
    /// # Errors
    ///
    /// [`UserError::ClientNotFound`] after the connection has ended.
    pub fn clear_user(&self) -> Result<(), UserError> {
        self.hub().set_user(self, None)
    }

    /// Joins a room; see [`Hub::join`].
    ///
    /// # Errors
    ///
    /// As [`Hub::join`].
    #[doc(alias("subscribe"))]
    pub fn join(&self, room: &str) -> Result<(), RoomError> {
        self.hub().join(self, room)
    }

    /// Leaves a room; see [`Hub::leave`].
    ///
    /// # Errors
    ///
    /// As [`Hub::leave`].
    #[doc(alias("unsubscribe"))]
    pub fn leave(&self, room: &str) -> Result<(), RoomError> {
        self.hub().leave(self, room)
    }

    /// The client's rooms, in no particular order.
    pub fn rooms(&self) -> Vec<Arc<str>> {
        self.0.state.read().rooms.iter().cloned().collect()
    }

    /// The number of rooms that this client is in.
    pub fn room_count(&self) -> usize {
        self.0.state.read().rooms.len()
    }

    /// Whether this client is in the room.
    pub fn in_room(&self, room: &str) -> bool {
        self.0.state.read().rooms.contains(room)
    }

    /// Encodes a message for this connection. `None` if the connection cannot carry it.
    pub(super) fn encode(&self, message: &Message) -> Option<Encoded> {
        Encoded::new(message, self.0.wire, self.hub().compressed())
    }

    /// The wire form in which this client reads publications.
    pub(super) fn frame_kind(&self) -> FrameKind {
        let wire = self.0.wire;
        let format = if wire.is_event_stream() { STREAM } else { self.0.format };
        FrameKind { wire, format }
    }

    /// The client's outbox, or `None` when the connection has ended.
    pub(crate) fn outbox(&self) -> Option<Arc<Outbox>> {
        self.0.outbox.upgrade()
    }

    /// The address of the client's outbox. It is unique as long as a handle to the client exists.
    pub(super) fn place(&self) -> usize {
        self.0.outbox.as_ptr().addr()
    }

    /// Whether this is the client's outbox. Compares addresses and so avoids touching the outbox's memory.
    pub(super) fn has_outbox(&self, outbox: &Arc<Outbox>) -> bool {
        std::ptr::eq(self.0.outbox.as_ptr(), Arc::as_ptr(outbox))
    }

    pub(super) fn last_message(&self) -> &AtomicU64 {
        &self.0.last_message
    }

    /// Records the end of the connection and its drop counts.
    pub(super) fn set_closed(&self, dropped: (u64, u64)) {
        // Only the thread that ends the connection calls this, once.
        let _ = self.0.closed.set(Closed { at: SystemTime::now(), dropped });
    }

    /// Sets the client's metadata for other members. Called before registration.
    pub(crate) fn set_member_json(&self, json: Option<Arc<str>>) {
        self.0.state.write().member = json;
    }

    pub(super) fn calls(&self) -> &Calls {
        &self.0.calls
    }

    pub(super) fn state(&self) -> &Ranked<{ rank::CLIENT }, ClientState> {
        &self.0.state
    }
}

impl Drop for Inner {
    /// Drops the application's values of a client that was never registered. Other clients hold none at this point.
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let Callbacks { on_message, on_close, on_error } = std::mem::take(&mut state.callbacks);
        on_message.into_iter().for_each(guard::dispose);
        on_close.into_iter().for_each(guard::dispose);
        on_error.into_iter().for_each(guard::dispose);
        std::mem::take(&mut state.metadata).into_values().for_each(guard::dispose);
        std::mem::take(&mut state.extensions).into_values().for_each(guard::dispose);
    }
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Client {}

/// Targets this connection only.
impl From<&Client> for Target<'_> {
    fn from(client: &Client) -> Self {
        Self::client(client)
    }
}

impl From<&Client> for ClientId {
    fn from(client: &Client) -> Self {
        client.id()
    }
}

impl From<Client> for ClientId {
    fn from(client: Client) -> Self {
        client.id()
    }
}

/// Hashes the connection's id, consistent with equality.
impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.0.id)
            .field("remote_addr", &self.remote_addr())
            .finish_non_exhaustive()
    }
}
