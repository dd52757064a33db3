//! A one-way feed of JSON events, over WebSocket and Server-Sent Events alike, and to whatever else subscribes.
//!
//! ```
//! use wshub::Server;
//! use wshub::protocol::feed::Feed;
//!
//! let feed = Feed::builder().build()?;
//! let server = Server::bind("127.0.0.1:0")?.websocket("/ws", feed.hub()).event_stream("/events", feed.hub());
//! let running = server.spawn()?;
//! let delivery = feed.broadcast_json("price", serde_json::json!({"cents": 120}))?;
//! assert_eq!(delivery.queued, 0, "nobody is there yet");
//! running.shutdown(std::time::Duration::from_secs(1))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The wire
//!
//! Every broadcast is one JSON object, the same for all subscribers:
//! `{"type","payload","timestamp"}`, the timestamp in RFC 3339 with nine digits of a second, UTC. Over WebSocket it is
//! a text message, over Server-Sent Events the data of an event (see [`sse`](super::sse)). [`Feed::broadcast_event`]
//! takes any other shape.
//!
//! Its WebSocket clients may send: what they say goes to the hub's `on_message` handler, by default to nobody.
//!
//! # Clients that come back
//!
//! With [`FeedBuilder::history`] all clients are in a room, `feed`, that remembers what is broadcast. Event streams
//! carry its positions as `id:`, so a browser that reconnects goes on where it was, without a line of code. If
//! something is missing, it gets an event `gap` first, see [`sse`](super::sse#coming-back). Over WebSocket the envelope
//! stays as it is. A client whose admission is the application's own, by `Accept::admission`, is in the room only if
//! that says so.
//!
//! # Who gets it
//!
//! Every client of the hub, and every [`Subscriber`] that the program has registered. A hub's client has rooms and a
//! user like any other: to reach only some, send a [`FeedEvent`]'s message to a [`Target`]:
//!
//! ```
//! # use wshub::{Target, protocol::feed::{Feed, FeedEvent}};
//! # let feed = Feed::builder().build()?;
//! feed.hub().send(Target::room("metals"), FeedEvent::new("price", 120).message()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A broadcast never blocks: the hub's [`DropPolicy`](crate::DropPolicy) decides about clients that do not keep up, and
//! a subscriber of another kind must decide for itself.

mod event;
mod rfc3339;
mod subscribers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::{Admission, ConfigError, DeadlineError, Delivery, Hub, HubBuilder, Message, RoomOptions, Target};

pub use event::FeedEvent;
pub use subscribers::{Subscriber, SubscriberId};

use subscribers::{Registry, guarded};

/// Everybody is in this room, if the feed remembers.
const ROOM: &str = "feed";

type OfSubscriber = dyn Fn(&dyn Subscriber) + Send + Sync;

/// Sets up a [`Feed`]. The callbacks run without a lock held.
#[derive(Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct FeedBuilder {
    on_connect: Option<Box<OfSubscriber>>,
    on_disconnect: Option<Box<OfSubscriber>>,
    history: Option<RoomOptions>,
}

impl FeedBuilder {
    /// Sets what runs when a subscriber takes part: for a client on its connection's thread, for another on the thread
    /// that registers it.
    pub fn on_connect(mut self, callback: impl Fn(&dyn Subscriber) + Send + Sync + 'static) -> Self {
        self.on_connect = Some(Box::new(callback));
        self
    }

    /// Sets what runs when a subscriber has gone: a client whose connection has ended, another that has been taken out
    /// and closed.
    pub fn on_disconnect(mut self, callback: impl Fn(&dyn Subscriber) + Send + Sync + 'static) -> Self {
        self.on_disconnect = Some(Box::new(callback));
        self
    }

    /// Remembers what is broadcast, for clients that come back: see [above](self#clients-that-come-back). Default:
    /// nothing.
    pub fn history(mut self, options: RoomOptions) -> Self {
        self.history = Some(options.with_history());
        self
    }

    /// Puts the feed on a hub: it uses the hooks `after_connect`, `after_disconnect` and `on_shutdown`. Hooks that the
    /// builder has already run before the feed's, those set later after them. [`Feed::of`] gives the handle.
    pub fn install(self, builder: HubBuilder) -> HubBuilder {
        self.put_on(builder).0
    }

    fn put_on(mut self, mut builder: HubBuilder) -> (HubBuilder, Arc<Shared>) {
        let history = self.history.take();
        let is_remembering = history.is_some();
        if let Some(options) = history {
            builder = builder.rooms(ROOM, options).on_upgrade(|_| Ok(Admission::anonymous().room(ROOM)));
        }
        let shared = Arc::new(Shared { registry: Registry::default(), callbacks: self, is_remembering });
        let [connect, disconnect, stop] = std::array::from_fn(|_| Arc::clone(&shared));
        let builder = builder
            .extension(Arc::clone(&shared))
            .after_connect(move |client| connect.connected(client))
            .after_disconnect(move |client| disconnect.disconnected(client))
            .on_shutdown(move |_| stop.registry.close().iter().for_each(|(_, subscriber)| stop.end(&**subscriber)));
        (builder, shared)
    }

    /// Builds the feed on a hub with default settings: short for `Feed::of(&self.install(Hub::builder()).build()?)`.
    ///
    /// # Errors
    ///
    /// As [`HubBuilder::build`].
    pub fn build(self) -> Result<Feed, ConfigError> {
        let (builder, shared) = self.put_on(Hub::builder());
        Ok(Feed { hub: builder.build()?, shared })
    }
}

impl fmt::Debug for FeedBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedBuilder").finish_non_exhaustive()
    }
}

/// Broadcasts events to all its subscribers: a cheap handle, shared by cloning. Nothing blocks but
/// [`shutdown`](Feed::shutdown).
#[derive(Clone)]
pub struct Feed {
    hub: Hub,
    shared: Arc<Shared>,
}

/// What the handles and the hub's hooks share. It does not hold the hub, whose hooks hold it.
struct Shared {
    registry: Registry,
    callbacks: FeedBuilder,
    /// All clients are in [`ROOM`], which has a history.
    is_remembering: bool,
}

impl Feed {
    /// Sets up a feed.
    pub fn builder() -> FeedBuilder {
        FeedBuilder::default()
    }

    /// The feed that is [installed](FeedBuilder::install) on the hub; `None` if none is.
    pub fn of(hub: &Hub) -> Option<Self> {
        Some(Self { hub: hub.clone(), shared: hub.extension()? })
    }

    /// The hub, to be served by [`Server::websocket`](crate::Server::websocket) and
    /// [`Server::event_stream`](crate::Server::event_stream).
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Sends `{"type","payload","timestamp"}`, made now, to every subscriber.
    ///
    /// # Errors
    ///
    /// What the payload's `Serialize` implementation reports; nothing has been sent then.
    pub fn broadcast_json<T: Serialize>(&self, kind: &str, payload: T) -> Result<Delivery, serde_json::Error> {
        self.broadcast_event(&FeedEvent::new(kind, payload))
    }

    /// Sends any value as JSON to every subscriber.
    ///
    /// # Errors
    ///
    /// What the value's `Serialize` implementation reports; nothing has been sent then.
    pub fn broadcast_event<T: Serialize + ?Sized>(&self, event: &T) -> Result<Delivery, serde_json::Error> {
        Ok(self.broadcast(Message::json(event)?))
    }

    /// Sends a message as it is to every subscriber.
    pub fn broadcast(&self, message: impl Into<Message>) -> Delivery {
        let message = message.into();
        // Only a send to one client can fail.
        let target = if self.shared.is_remembering { Target::room(ROOM) } else { Target::all() };
        let mut delivery = self.hub.send(target, &message).unwrap_or_default();
        for broken in self.shared.registry.send(&message, &mut delivery) {
            self.unregister(broken);
        }
        delivery
    }

    /// Adds a subscriber, which takes part until it is [taken out](Feed::unregister) or the hub is shut down. `None`
    /// after that: the subscriber has been closed. `on_connect` runs first, on this thread, so that nothing is
    /// broadcast to it before.
    ///
    /// Who wants to keep a handle registers a clone of an `Arc`.
    pub fn register(&self, subscriber: impl Subscriber + 'static) -> Option<SubscriberId> {
        let subscriber: Arc<dyn Subscriber> = Arc::new(subscriber);
        self.shared.connected(&*subscriber);
        let id = self.shared.registry.insert(Arc::clone(&subscriber));
        if id.is_none() {
            self.shared.end(&*subscriber);
        }
        id
    }

    /// Takes a registered subscriber out and closes it. False if it is out already.
    pub fn unregister(&self, id: SubscriberId) -> bool {
        let removed = self.shared.registry.remove(id);
        if let Some(subscriber) = &removed {
            self.shared.end(&**subscriber);
        }
        removed.is_some()
    }

    /// Clients of the hub and registered subscribers.
    pub fn subscriber_count(&self) -> usize {
        self.hub.client_count() + self.shared.registry.len()
    }

    /// Closes every subscriber and shuts the hub down, see [`Hub::shutdown`]. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Hub::shutdown`].
    pub fn shutdown(&self, timeout: Duration) -> Result<(), DeadlineError> {
        self.hub.shutdown(timeout)
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("hub", &self.hub).field("registered", &self.shared.registry.len()).finish()
    }
}

impl Shared {
    fn connected(&self, subscriber: &dyn Subscriber) {
        if let Some(callback) = &self.callbacks.on_connect {
            callback(subscriber);
        }
    }

    fn disconnected(&self, subscriber: &dyn Subscriber) {
        if let Some(callback) = &self.callbacks.on_disconnect {
            callback(subscriber);
        }
    }

    /// Closes a subscriber that has been taken out. One that panics does not keep the others from being closed.
    fn end(&self, subscriber: &dyn Subscriber) {
        guarded(|| subscriber.close());
        guarded(|| self.disconnected(subscriber));
    }
}
