//! A handle to one connection.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, SystemTime};

use super::Hub;
use super::admission::Metadata;
use super::calls::Calls;
use super::target::Target;
use crate::atomic::AtomicU64;
use crate::client_id::ClientId;
use crate::config::deadline_after;
use crate::error::{CloseError, HandlerError, HandlerResult, RoomError, UserError};
use crate::guard::{self, record};
use crate::history::{FormatRef, FrameKind, STREAM};
use crate::http::RequestHead;
use crate::levels::Levels;
use crate::lock::{Ranked, rank};
use crate::message::{Encoded, Message, SendError, WireFormat};
use crate::outbox::{GaveUp, Outbox, Sent};
use crate::trace;
use crate::ws::{check_close, close_code};

/// One connection to the hub: a cheap handle that stays valid after the connection has ended.
///
/// After the last hook of a connection, its descriptor is closed and its queue, metadata and callbacks are dropped,
/// whoever still holds a handle. A handle then keeps the request head and a few hundred bytes: to remember a client
/// beyond its connection, keep its [`id`](Client::id).
///
/// All methods may be called from any thread; none blocks but [`send_timeout`](Client::send_timeout).
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    id: ClientId,
    hub: Hub,
    /// Owned by the connection's thread and by the hub's lists, so that the socket is closed when the connection ends.
    outbox: Weak<Outbox>,
    wire: WireFormat,
    head: RequestHead,
    subprotocol: Option<String>,
    format: FormatRef,
    connected_at: SystemTime,
    /// Set once, by the connection's thread, when the connection has ended.
    closed: OnceLock<Closed>,
    /// Nanoseconds since the hub was built, see `activity.rs`. Written by the connection's thread, read by a drain.
    last_message: AtomicU64,
    state: Ranked<{ rank::CLIENT }, State>,
    /// The calls to it that wait for an answer.
    calls: Calls,
}

/// What is left of an outbox when its connection has ended.
struct Closed {
    at: SystemTime,
    /// Messages that were dropped, and their bytes on the wire.
    dropped: (u64, u64),
}

/// Guarded by the client's own lock. Ordered maps: empty they are small, and their making asks for no random numbers.
#[derive(Default)]
pub(super) struct State {
    pub(super) user: Option<Arc<str>>,
    /// Changed only while the room's lock is held too, so that both sides agree.
    pub(super) rooms: BTreeSet<Arc<str>>,
    /// What the room hooks were told of this client; changed together with `rooms`.
    pub(super) telling: Levels<Arc<str>>,
    /// JSON: what others see of it in rooms with members.
    pub(super) member: Option<Arc<str>>,
    /// The connection is ending: nothing may be joined or indexed any more.
    pub(super) gone: bool,
    /// `on_close` has been taken: callbacks are kept no longer.
    pub(super) is_closed: bool,
    /// The last hook has run: metadata are kept no longer.
    pub(super) is_released: bool,
    pub(super) metadata: BTreeMap<String, Metadata>,
    pub(super) callbacks: Callbacks,
}

pub(super) type Handler = dyn Fn(&Client, &Message) -> HandlerResult + Send + Sync;
pub(super) type OfClient = dyn Fn(&Client) + Send + Sync;
pub(super) type OfError = dyn Fn(&Client, &HandlerError) + Send + Sync;

/// A client's own callbacks; they may be set at any time.
#[derive(Default)]
#[allow(clippy::struct_field_names, reason = "named as the methods that set them")]
pub(crate) struct Callbacks {
    pub(crate) on_message: Option<Arc<Handler>>,
    pub(crate) on_close: Option<Arc<OfClient>>,
    pub(crate) on_error: Option<Arc<OfError>>,
}

impl Client {
    /// A client that is not registered yet. Its outbox holds everything back until it is opened.
    pub(crate) fn new(
        hub: &Hub,
        outbox: &Arc<Outbox>,
        head: RequestHead,
        subprotocol: Option<String>,
        format: FormatRef,
        metadata: Vec<(String, Metadata)>,
    ) -> Self {
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
            state: Ranked::new(State { metadata: metadata.into_iter().collect(), ..State::default() }),
            calls: Calls::default(),
        }))
    }

    /// The unique id of this connection.
    pub fn id(&self) -> ClientId {
        self.0.id
    }

    /// The hub that the connection belongs to.
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

    /// Whether this client reads Server-Sent Events rather than speaking WebSocket: it gets text only and sends
    /// nothing.
    pub fn is_event_stream(&self) -> bool {
        self.0.wire.is_event_stream()
    }

    /// Whether permessage-deflate has been agreed on.
    pub fn is_compressed(&self) -> bool {
        self.0.wire.is_deflate()
    }

    /// The subprotocol that was agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.0.subprotocol.as_deref()
    }

    /// When the connection was admitted.
    pub fn connected_at(&self) -> SystemTime {
        self.0.connected_at
    }

    /// When the connection ended; `None` while it lasts.
    pub fn closed_at(&self) -> Option<SystemTime> {
        self.0.closed.get().map(|closed| closed.at)
    }

    /// Whether the connection is closing or closed: it accepts no more messages.
    pub fn is_closed(&self) -> bool {
        !self.outbox().is_some_and(|outbox| outbox.is_open())
    }

    /// Messages waiting in this client's queue, and the bytes that count against
    /// [`Config::queue_bytes`](crate::Config#structfield.queue_bytes).
    pub fn queue_depth(&self) -> (usize, usize) {
        self.outbox().map_or((0, 0), |outbox| outbox.depth())
    }

    /// Messages that were dropped for this client since it connected, because its queue was full or a `send_timeout`
    /// gave up, and their bytes on the wire.
    pub fn dropped(&self) -> (u64, u64) {
        // The outbox first: when it is gone, what is left of it has been written down.
        let lost = self.outbox().map(|outbox| outbox.lost());
        lost.or_else(|| self.0.closed.get().map(|closed| closed.dropped)).unwrap_or_default()
    }

    /// Sends to this client alone, by the hub's drop policy. Does not block.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`]; [`SendError::Full`] when the policy has dropped the message (and, with
    /// [`DropPolicy::Disconnect`](crate::DropPolicy::Disconnect), begun to close the client); [`SendError::Binary`] for
    /// a binary message on an event stream.
    pub fn send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        let message = message.into();
        let Some(frame) = self.encode(&message) else { return Err(SendError::Binary(message)) };
        let Some(outbox) = self.outbox() else { return Err(SendError::Closed(message)) };
        let span = trace::begin_send(|| Target::client(self.id()).to_string());
        match self.hub().give(&outbox, self, &frame) {
            sent @ (Sent::Queued | Sent::Evicted(_)) => {
                span.sent(1, dispose_evicted(sent), 0, false);
                self.hub().count_sent(1, message.len());
                Ok(())
            }
            Sent::Full | Sent::SlowConsumer => {
                span.sent(0, 1, 0, false);
                Err(SendError::Full(message))
            }
            Sent::Closed => Err(SendError::Closed(message)),
        }
    }

    /// Sends a value as JSON text; see [`send`](Client::send).
    ///
    /// # Errors
    ///
    /// What the value's `Serialize` implementation reports, or a [`SendError`].
    pub fn send_json<T: serde::Serialize + ?Sized>(&self, value: &T) -> HandlerResult {
        self.send(Message::json(value)?)?;
        Ok(())
    }

    /// Waits until the message fits into the client's queue; the drop policy does not apply. Blocks for at most
    /// `timeout` and returns at once when the client closes.
    ///
    /// # Errors
    ///
    /// [`SendError::Timeout`], [`SendError::Closed`] or [`SendError::Binary`].
    pub fn send_timeout(&self, message: impl Into<Message>, timeout: Duration) -> Result<(), SendError> {
        let message = message.into();
        let deadline = deadline_after(timeout);
        let Some(frame) = self.encode(&message) else { return Err(SendError::Binary(message)) };
        let Some(outbox) = self.outbox() else { return Err(SendError::Closed(message)) };
        let span = trace::begin_send(|| Target::client(self.id()).to_string());
        match self.hub().give_waiting(&outbox, self, &frame, deadline) {
            Ok(()) => {
                span.sent(1, 0, 0, false);
                self.hub().count_sent(1, message.len());
                Ok(())
            }
            Err(GaveUp::Timeout) => {
                span.sent(0, 1, 0, false);
                Err(SendError::Timeout(message))
            }
            Err(GaveUp::Closed) => Err(SendError::Closed(message)),
        }
    }

    /// Closes the connection: what is queued is sent, then a close frame with this code and reason, then the peer's
    /// answer is awaited; all of it within the close timeout. Returns at once. Closing again does nothing.
    ///
    /// An event stream has no close frame: it ends behind a comment with the code and reason, and a browser reconnects.
    ///
    /// # Errors
    ///
    /// A code that may not be sent, or a reason over 123 bytes; the connection then stays.
    pub fn close(&self, code: u16, reason: &str) -> Result<(), CloseError> {
        check_close(code, reason)?;
        self.close_checked(code, reason);
        Ok(())
    }

    pub(crate) fn close_checked(&self, code: u16, reason: &str) {
        let Some(outbox) = self.outbox() else { return };
        if outbox.begin_close(Some((code, reason))) {
            // First: nothing that follows, a logger least of all, may keep the close from ending in time.
            self.hub().watch_close(self.id(), &outbox);
            record!(Debug, "wshub::conn", "{} closing with {code} {reason:?}", self.id());
            trace::note_close(self.id(), code, reason);
        }
    }

    /// As an error asks; 1011 if what it asks for may not be sent.
    pub(crate) fn close_as_asked(&self, error: &HandlerError) {
        if error.close_frame().is_some_and(|(code, reason)| self.close(code, reason).is_err()) {
            self.close_checked(close_code::INTERNAL_ERROR, "");
        }
    }

    /// The user that this connection belongs to.
    pub fn user_id(&self) -> Option<Arc<str>> {
        self.0.state.read().user.clone()
    }

    /// Makes this a connection of the user; the user index and the online and offline hooks follow. See
    /// [`clear_user`](Client::clear_user) for none.
    ///
    /// # Errors
    ///
    /// [`UserError::EmptyId`]; [`UserError::TooManyConnections`], which leaves everything as it was; [`UserError::ClientNotFound`] after the
    /// connection has ended.
    pub fn set_user(&self, user_id: &str) -> Result<(), UserError> {
        if user_id.is_empty() {
            return Err(UserError::EmptyId);
        }
        self.hub().set_user(self, Some(user_id))
    }

    /// Takes this connection away from its user.
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
    pub fn join(&self, room: &str) -> Result<(), RoomError> {
        self.hub().join(self, room)
    }

    /// Leaves a room; see [`Hub::leave`].
    ///
    /// # Errors
    ///
    /// As [`Hub::leave`].
    pub fn leave(&self, room: &str) -> Result<(), RoomError> {
        self.hub().leave(self, room)
    }

    /// The rooms that this client is in, in no particular order.
    pub fn rooms(&self) -> Vec<Arc<str>> {
        self.0.state.read().rooms.iter().cloned().collect()
    }

    /// How many rooms this client is in.
    pub fn room_count(&self) -> usize {
        self.0.state.read().rooms.len()
    }

    /// Whether this client is in the room.
    pub fn in_room(&self, room: &str) -> bool {
        self.0.state.read().rooms.contains(room)
    }

    /// Keeps a value on this client under a name, replacing the one before. After the last hook of the connection
    /// nothing is kept: the value is dropped at once.
    pub fn set_metadata<T: Any + Send + Sync>(&self, key: impl Into<String>, value: T) {
        // Outside of the lock, as both drops: these are the application's types.
        let (key, value): (String, Metadata) = (key.into(), Arc::new(value));
        let mut state = self.0.state.write();
        let unwanted = if state.is_released { Some(value) } else { state.metadata.insert(key, value) };
        drop(state);
        guard::dispose(unwanted);
    }

    /// The value kept under the name; `None` also when it is not a `T`, and after the last hook of the connection.
    pub fn metadata<T: Any + Send + Sync>(&self, key: &str) -> Option<Arc<T>> {
        let value = self.0.state.read().metadata.get(key).cloned()?;
        value.downcast().ok()
    }

    /// Removes the value kept under the name; false if there was none.
    pub fn remove_metadata(&self, key: &str) -> bool {
        let old = self.0.state.write().metadata.remove(key);
        old.is_some()
    }

    /// `None` if the client's connection cannot carry the message.
    fn encode(&self, message: &Message) -> Option<Encoded> {
        Encoded::new(message, self.0.wire, self.hub().compressed())
    }

    /// Which wire form of publications it reads.
    pub(super) fn frame_kind(&self) -> FrameKind {
        let wire = self.0.wire;
        let format = if wire.is_event_stream() { STREAM } else { self.0.format };
        FrameKind { wire, format }
    }

    /// The way to the client's socket; `None` when the connection has ended.
    pub(crate) fn outbox(&self) -> Option<Arc<Outbox>> {
        self.0.outbox.upgrade()
    }

    /// The address of the client's outbox, which no other has while there is a handle to the client.
    pub(super) fn place(&self) -> usize {
        self.0.outbox.as_ptr().addr()
    }

    /// Whether this is the client's outbox. Compares addresses, so that the outbox' own memory is not touched.
    pub(super) fn has_outbox(&self, outbox: &Arc<Outbox>) -> bool {
        std::ptr::eq(self.0.outbox.as_ptr(), Arc::as_ptr(outbox))
    }

    pub(super) fn last_message(&self) -> &AtomicU64 {
        &self.0.last_message
    }

    /// Notes that the connection has ended, with what its outbox has dropped.
    pub(super) fn set_closed(&self, dropped: (u64, u64)) {
        // Only the thread that ends the connection comes here, once.
        let _ = self.0.closed.set(Closed { at: SystemTime::now(), dropped });
    }

    /// Before it is registered: what others will see of it.
    pub(crate) fn set_member_json(&self, json: Option<Arc<str>>) {
        self.0.state.write().member = json;
    }

    pub(super) fn calls(&self) -> &Calls {
        &self.0.calls
    }

    pub(super) fn state(&self) -> &Ranked<{ rank::CLIENT }, State> {
        &self.0.state
    }
}

impl Drop for Inner {
    /// For clients that were never registered: the others hold nothing of the application any more.
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let Callbacks { on_message, on_close, on_error } = std::mem::take(&mut state.callbacks);
        on_message.into_iter().for_each(guard::dispose);
        on_close.into_iter().for_each(guard::dispose);
        on_error.into_iter().for_each(guard::dispose);
        std::mem::take(&mut state.metadata).into_values().for_each(guard::dispose);
    }
}

/// How many messages were dropped to make room. Their payloads may be the application's memory.
pub(super) fn dispose_evicted(sent: Sent) -> usize {
    let Sent::Evicted(old) = sent else { return 0 };
    let count = old.len();
    old.into_iter().for_each(guard::dispose);
    count
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Client {}

/// This connection alone.
impl From<&Client> for Target<'_> {
    fn from(client: &Client) -> Self {
        Self::client(client.id())
    }
}

/// By the connection, as equality.
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
