//! The server side: admission, the handling of each frame, and the announcement of joins and leaves.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::conn::{CLAIMS, emit};
use super::{Claims, Conn, Frame, ROOT};
use crate::lock::Leaf;
use crate::{
    Admission, Client, ClientId, Config, DropPolicy, HandlerError, HandlerResult, HubBuilder, Rejection, RequestHead,
    RoomError, Target, close_code, metrics::ErrorType,
};

const JOIN: &str = "join";
const LEAVE: &str = "leave";
const JOIN_ACK: &str = "join_ack";
const LEAVE_ACK: &str = "leave_ack";
const NEW_MEMBER: &str = "new_member";
const MEMBER_LEFT: &str = "member_left";
/// Largest inbound message, in bytes.
const MAX_MESSAGE: usize = 65_536;

type Authorizer = dyn Fn(&RequestHead) -> Result<Claims, Rejection> + Send + Sync;
type Handler = dyn Fn(&Conn, &Frame) -> HandlerResult + Send + Sync;

/// Sets up a hub that speaks the protocol, with an authorizer and handlers.
pub struct BinaryRooms {
    authorize: Box<Authorizer>,
    handlers: HashMap<String, Box<Handler>>,
}

/// The members that `new_member` has announced and `member_left` has not, by room, in the order of their announcements.
/// Lists of members are made from these, not from the hub's rooms: a client that joins and leaves before its hooks run
/// is not announced, so no leave would follow.
#[derive(Debug, Default)]
struct Announced(Leaf<HashMap<String, Vec<ClientId>>>);

impl Announced {
    fn insert(&self, room: &str, id: ClientId) {
        let mut rooms = self.0.lock();
        match rooms.get_mut(room) {
            Some(members) => members.push(id),
            None => _ = rooms.insert(room.to_owned(), vec![id]),
        }
    }

    fn remove(&self, room: &str, id: ClientId) {
        let mut rooms = self.0.lock();
        let Some(members) = rooms.get_mut(room) else { return };
        members.retain(|member| *member != id);
        if members.is_empty() {
            rooms.remove(room);
        }
    }

    fn members(&self, room: &str) -> Vec<ClientId> {
        self.0.lock().get(room).cloned().unwrap_or_default()
    }
}

thread_local! {
    /// Acknowledgements sent by this thread. It shows whether a hook has already answered the request that caused it.
    static ACKNOWLEDGED: Cell<u64> = const { Cell::new(0) };
}

/// Why a handler could not be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// The event name is empty.
    EmptyName,
    /// A handler is already registered for the event.
    Duplicate,
    /// The event is one of the protocol's own six, which never reach a handler.
    Reserved,
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyName => "the event name is empty",
            Self::Duplicate => "the event already has a handler",
            Self::Reserved => "the event is the protocol's own",
        })
    }
}

impl std::error::Error for RegisterError {}

impl BinaryRooms {
    /// Admits connections to which `authorize` gives claims. Empty claims are refused with 401, an error with its own
    /// status. `authorize` runs before the upgrade, on the connection's thread.
    pub fn new(authorize: impl Fn(&RequestHead) -> Result<Claims, Rejection> + Send + Sync + 'static) -> Self {
        Self { authorize: Box::new(authorize), handlers: HashMap::new() }
    }

    /// Sets the handler for an event that a client sends, which then does not go to the room. It runs on the sender's
    /// thread. The message's `src` is the sender's id, and the sender need not be in the message's room. An error goes
    /// to the hub's `on_error` hook.
    ///
    /// # Errors
    ///
    /// A [`RegisterError`]; the earlier handler stays.
    pub fn register_handler(
        &mut self,
        event: impl Into<String>,
        handler: impl Fn(&Conn, &Frame) -> HandlerResult + Send + Sync + 'static,
    ) -> Result<(), RegisterError> {
        let event = event.into();
        if event.is_empty() {
            return Err(RegisterError::EmptyName);
        }
        if matches!(event.as_str(), JOIN | LEAVE) || is_servers_own(&event) {
            return Err(RegisterError::Reserved);
        }
        if self.handlers.contains_key(&event) {
            return Err(RegisterError::Duplicate);
        }
        self.handlers.insert(event, Box::new(handler));
        Ok(())
    }

    /// The protocol's settings: [`Config::default`], but messages have at most 65,536 bytes, and a client whose queue
    /// of 256 messages is full is closed ([`DropPolicy::Disconnect`]).
    pub fn config() -> Config {
        Config::default().max_message_size(MAX_MESSAGE).drop_policy(DropPolicy::Disconnect)
    }

    /// Installs the protocol on a hub. It sets the hooks `on_upgrade`, `on_message`, `after_room_join` and
    /// `after_room_leave`, and the message size and drop policy of [`BinaryRooms::config`]. Hooks that are already set
    /// run before the protocol's; hooks set later run after them.
    ///
    /// Peers choose the names of rooms.
    /// [`Limits::max_rooms_per_client`](crate::Limits#structfield.max_rooms_per_client) limits how many each can
    /// create, including [`ROOT`].
    pub fn install(self, builder: HubBuilder) -> HubBuilder {
        let rooms = Arc::new(self);
        let [on_upgrade, on_message] = std::array::from_fn(|_| Arc::clone(&rooms));
        builder
            .map_config(|config| config.max_message_size(MAX_MESSAGE).drop_policy(DropPolicy::Disconnect))
            .on_upgrade(move |head| on_upgrade.admit(head))
            .on_message(move |client, message| on_message.receive(client, message))
            .extension(Arc::<Announced>::default())
            .after_room_join(tell_join)
            .after_room_leave(tell_leave)
    }

    fn admit(&self, head: &RequestHead) -> Result<Admission, Rejection> {
        let claims = (self.authorize)(head)?;
        if claims.is_empty() {
            return Err(Rejection::unauthorized());
        }
        Ok(Admission::anonymous().metadata(CLAIMS, claims).room(ROOT))
    }

    fn receive(&self, client: &Client, frame: &crate::Message) -> HandlerResult {
        if frame.is_text() {
            return Err(violation(close_code::UNSUPPORTED, "binary messages only").into());
        }
        let message = Frame::decode(frame.payload())
            .map_err(|error| violation(close_code::PROTOCOL_ERROR, &error.to_string()))?;
        self.dispatch(client, Frame { src: client.id().to_string(), ..message })
    }

    fn dispatch(&self, client: &Client, message: Frame) -> HandlerResult {
        crate::trace::name_event(&message.event);
        match message.event.as_str() {
            JOIN => join(client, &message.room),
            LEAVE => leave(client, &message.room),
            event if is_servers_own(event) => Err(format!("{event} is sent by the server only").into()),
            _ if !message.dst.is_empty() => send_direct(client, message),
            event => match self.handlers.get(event) {
                Some(handler) => handler(&Conn::of(client).ok_or("the client's claims are gone")?, &message),
                None => send_to_own_room(client, &message),
            },
        }
    }
}

impl fmt::Debug for BinaryRooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events: Vec<&String> = self.handlers.keys().collect();
        f.debug_struct("BinaryRooms").field("handlers", &events).finish_non_exhaustive()
    }
}

fn is_servers_own(event: &str) -> bool {
    matches!(event, JOIN_ACK | LEAVE_ACK | NEW_MEMBER | MEMBER_LEFT)
}

fn violation(code: u16, reason: &str) -> HandlerError {
    HandlerError::close(code, reason).counted_as(ErrorType::ProtocolError)
}

fn join(client: &Client, room: &str) -> HandlerResult {
    let before = ACKNOWLEDGED.get();
    match client.join(room) {
        Ok(()) | Err(RoomError::AlreadyJoined) => {}
        Err(error) => return Err(error.into()),
    }
    // This thread has sent no answer if the client was already a member, or if another thread announces the join now.
    if ACKNOWLEDGED.get() == before {
        acknowledge_join(client, room);
    }
    Ok(())
}

fn leave(client: &Client, room: &str) -> HandlerResult {
    let before = ACKNOWLEDGED.get();
    match client.leave(room) {
        Ok(()) | Err(RoomError::NotFound | RoomError::NotJoined) => {}
        Err(error) => return Err(error.into()),
    }
    if ACKNOWLEDGED.get() == before {
        acknowledge_leave(client, room);
    }
    Ok(())
}

fn tell_join(client: &Client, room: &str) {
    if let Some(announced) = client.hub().extension::<Announced>() {
        announced.insert(room, client.id());
    }
    // The order matters: when a client has its answer, the others have been told.
    tell_others(client, room, NEW_MEMBER);
    acknowledge_join(client, room);
}

fn tell_leave(client: &Client, room: &str) {
    if let Some(announced) = client.hub().extension::<Announced>() {
        announced.remove(room, client.id());
    }
    tell_others(client, room, MEMBER_LEFT);
    acknowledge_leave(client, room);
}

fn send_direct(client: &Client, message: Frame) -> HandlerResult {
    let dst: ClientId = message.dst.parse().map_err(|_| "dst is not the id of a client")?;
    client.hub().send(dst, Frame { room: ROOT.into(), ..message })?;
    Ok(())
}

fn send_to_own_room(client: &Client, message: &Frame) -> HandlerResult {
    if !client.in_room(&message.room) {
        return Err(RoomError::NotJoined.into());
    }
    emit(client.hub(), Target::room(&message.room).except(client.id()), message);
    Ok(())
}

/// Sends the list of members, and then events of clients that joined or left in the meantime.
///
/// The events of a member add up without a lock: the hooks of each other client run one at a time and in order, and
/// their last event goes to every current member. The acknowledgement overrides only events that were sent between the
/// lookup of the members and the acknowledgement. A second lookup finds those clients, and their present state is sent
/// again. If that changes in the meantime, the same clients are looked up once more.
fn acknowledge_join(client: &Client, room: &str) {
    ACKNOWLEDGED.set(ACKNOWLEDGED.get().wrapping_add(1));
    // The acknowledgement leaves after the second look: what its receiver causes others to do is not seen by that look,
    // and so is told once.
    let _cork = client.hub().cork();
    let mut told = members(client, room);
    // Ids are always valid JSON.
    let list = serde_json::to_vec(&told).unwrap_or_default();
    // A client that is gone needs no answer; one whose queue is full is being closed.
    let _ = client.send(Frame::new(room, JOIN_ACK, "", client.id().to_string(), list));
    let mut suspects: Option<HashSet<ClientId>> = None;
    loop {
        let now = members(client, room);
        if now == told || client.is_closed() {
            return;
        }
        let is_suspect = |id: &ClientId| *id != client.id() && suspects.as_ref().is_none_or(|ids| ids.contains(id));
        let (before, after): (HashSet<_>, HashSet<_>) = (told.into_iter().collect(), now.iter().copied().collect());
        let changed: HashSet<_> = before.symmetric_difference(&after).copied().filter(is_suspect).collect();
        if changed.is_empty() {
            return;
        }
        for id in &changed {
            let event = if after.contains(id) { NEW_MEMBER } else { MEMBER_LEFT };
            let _ = client.send(Frame::new(room, event, "", "", id.to_string()));
        }
        (told, suspects) = (now, Some(changed));
    }
}

fn members(client: &Client, room: &str) -> Vec<ClientId> {
    let announced = client.hub().extension::<Announced>();
    let mut members = announced.map_or_else(Vec::new, |announced| announced.members(room));
    if !members.contains(&client.id()) && client.in_room(room) {
        members.push(client.id());
    }
    members
}

fn acknowledge_leave(client: &Client, room: &str) {
    ACKNOWLEDGED.set(ACKNOWLEDGED.get().wrapping_add(1));
    let id = client.id().to_string();
    let _ = client.send(Frame::new(room, LEAVE_ACK, "", id.clone(), id));
}

fn tell_others(client: &Client, room: &str, event: &str) {
    let news = Frame::new(room, event, "", "", client.id().to_string());
    emit(client.hub(), Target::room(room).except(client.id()), &news);
}
