//! A one-way feed of JSON events to WebSocket clients, Server-Sent Events clients and other subscribers.
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
//! Every broadcast is one JSON object, the same for all subscribers: `{"type","payload","timestamp"}`. The timestamp is
//! RFC 3339 in UTC, with nine digits of fractional seconds. WebSocket clients get a text message, Server-Sent Events
//! clients get the data of an event (see [`sse`](super::sse)). [`Feed::broadcast_event`] sends any other shape.
//!
//! WebSocket clients can send messages; they go to the hub's `on_message` handler, by default none.
//!
//! # Clients that come back
//!
//! With [`FeedBuilder::history`] all clients are in the room `feed`, which records broadcasts. Event streams carry
//! positions as `id:`, so a browser that reconnects resumes where it was, without any code. If something is missing, it
//! gets an event `gap` first, see [`sse`](super::sse#coming-back). The WebSocket envelope does not change. A client
//! that the application admits itself, with `PendingConnection::admission`, is in the room only if that admission names
//! it.
//!
//! # Who gets it
//!
//! Every client of the hub, and every [`Subscriber`] that the program has registered. A hub client has rooms and a user
//! like any other. To reach only some clients, send a [`FeedEvent`]'s message to a [`Target`]:
//!
//! ```
//! # use wshub::{Target, protocol::feed::{Feed, FeedEvent}};
//! # let feed = Feed::builder().build()?;
//! feed.hub().send(Target::room("metals"), FeedEvent::new("price", 120).message()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A broadcast never blocks. The hub's [`DropPolicy`](crate::DropPolicy) applies to slow clients; other subscribers
//! must handle a full queue themselves.

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

/// All clients are in this room if the feed has a history.
const ROOM: &str = "feed";

type OfSubscriber = dyn Fn(&dyn Subscriber) + Send + Sync;

/// Sets up a [`Feed`]. The callbacks run with no lock held.
#[derive(Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct FeedBuilder {
    on_connect: Option<Box<OfSubscriber>>,
    on_disconnect: Option<Box<OfSubscriber>>,
    history: Option<RoomOptions>,
}

impl FeedBuilder {
    /// Sets the callback for a new subscriber. It runs on a client's connection thread, or on the thread that registers
    /// another subscriber.
    pub fn on_connect(mut self, callback: impl Fn(&dyn Subscriber) + Send + Sync + 'static) -> Self {
        self.on_connect = Some(Box::new(callback));
        self
    }

    /// Sets the callback for a subscriber that is gone: a client whose connection has ended, or another subscriber that
    /// was removed and closed.
    pub fn on_disconnect(mut self, callback: impl Fn(&dyn Subscriber) + Send + Sync + 'static) -> Self {
        self.on_disconnect = Some(Box::new(callback));
        self
    }

    /// Records broadcasts for clients that reconnect: see [above](self#clients-that-come-back). Default: no history.
    pub fn history(mut self, options: RoomOptions) -> Self {
        self.history = Some(options.with_history());
        self
    }

    /// Installs the feed on a hub; it uses the hooks `after_connect`, `after_disconnect` and `on_shutdown`. Hooks that
    /// are already set run before the feed's; hooks set later run after them. [`Feed::of`] returns the handle.
    pub fn install(self, builder: HubBuilder) -> HubBuilder {
        self.put_on(builder).0
    }

    fn put_on(mut self, mut builder: HubBuilder) -> (HubBuilder, Arc<FeedState>) {
        let history = self.history.take();
        let is_remembering = history.is_some();
        if let Some(options) = history {
            builder = builder.rooms(ROOM, options).on_upgrade(|_| Ok(Admission::anonymous().room(ROOM)));
        }
        let shared = Arc::new(FeedState { registry: Registry::default(), callbacks: self, is_remembering });
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
    /// Same as [`HubBuilder::build`].
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

/// Broadcasts events to all its subscribers: a cheap handle, shared by cloning. Only [`shutdown`](Feed::shutdown)
/// blocks.
#[derive(Clone)]
pub struct Feed {
    hub: Hub,
    shared: Arc<FeedState>,
}

/// State that the handles and the hub's hooks share. It holds no reference to the hub, because the hub's hooks hold it.
struct FeedState {
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

    /// Returns the feed that is [installed](FeedBuilder::install) on the hub; `None` if there is none.
    pub fn of(hub: &Hub) -> Option<Self> {
        Some(Self { hub: hub.clone(), shared: hub.extension()? })
    }

    /// The hub, to serve with [`Server::websocket`](crate::Server::websocket) and
    /// [`Server::event_stream`](crate::Server::event_stream).
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Sends `{"type","payload","timestamp"}`, with the current time, to every subscriber.
    ///
    /// # Errors
    ///
    /// An error of the payload's `Serialize` implementation; nothing is sent then.
    pub fn broadcast_json<T: Serialize>(&self, kind: &str, payload: T) -> Result<Delivery, serde_json::Error> {
        self.broadcast_event(&FeedEvent::new(kind, payload))
    }

    /// Sends any value as JSON to every subscriber.
    ///
    /// # Errors
    ///
    /// An error of the value's `Serialize` implementation; nothing is sent then.
    pub fn broadcast_event<T: Serialize + ?Sized>(&self, event: &T) -> Result<Delivery, serde_json::Error> {
        Ok(self.broadcast(Message::json(event)?))
    }

    /// Sends a message unchanged to every subscriber.
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

    /// Adds a subscriber, which takes part until it is [removed](Feed::unregister) or the hub is shut down. After
    /// shutdown it returns `None` and the subscriber is closed. `on_connect` runs first, on this thread, so the
    /// subscriber gets no broadcast before it.
    ///
    /// To keep a handle, register a clone of an `Arc`.
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

impl FeedState {
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
