//! The relay handle: its operations, and its part in each hook of its hub.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::devices::{Connect, Devices, Ticket};
use super::subscriptions::Subscriptions;
use super::types::{Conn, DevicePolicy, Identity, Inner, Relay, RelayBuilder, SESSION, Session};
use super::{REPLACED, RelayMessage};
use crate::calls::{CallError, JsonCalls};
use crate::guard::{catch, record_limited};
use crate::levels::Edge;
use crate::lock::Leaf;
use crate::{
    Admission, Client, Delivery, HandlerResult, Hub, HubBuilder, Rejection, RequestHead, Target, limit::RateLimiter,
};

impl Relay {
    /// Sets up a relay. `authenticate` runs before the upgrade and returns the identity of a connection; an empty id is
    /// refused with 400.
    pub fn builder(
        authenticate: impl Fn(&RequestHead) -> Result<Identity, Rejection> + Send + Sync + 'static,
    ) -> RelayBuilder {
        RelayBuilder::new(Box::new(authenticate))
    }

    /// Returns the relay that is [installed](RelayBuilder::install) on the hub; `None` if there is none.
    pub fn of(hub: &Hub) -> Option<Self> {
        Some(Self::new(hub.extension()?, hub.clone()))
    }

    pub(super) fn new(inner: Arc<Inner>, hub: Hub) -> Self {
        Self { inner, hub }
    }

    /// The hub, to be served. Users' connections have the user's id there; relays of devices have no user.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Whether the device has a relay connection.
    pub fn is_device_online(&self, device: &str) -> bool {
        self.inner.devices.client(device).is_some()
    }

    /// Whether the user has any connection; relays of devices do not count.
    pub fn is_user_online(&self, user: &str) -> bool {
        self.hub.is_user_online(user)
    }

    /// Sends to the device's relay. Returns false if there is none or its queue is full.
    pub fn send_to_device(&self, device: &str, message: &RelayMessage) -> bool {
        self.inner.devices.client(device).is_some_and(|client| client.send(message).is_ok())
    }

    /// Calls the device's relay and waits for its answer, like [`Client::call`], in the format of [`JsonCalls`]. Blocks
    /// for at most `timeout`.
    ///
    /// # Errors
    ///
    /// Same as [`Client::call`]; [`CallError::Closed`] if the device has no relay.
    pub fn call_device(
        &self,
        device: &str,
        method: &str,
        payload: impl Into<crate::Message>,
        timeout: Duration,
    ) -> Result<crate::Message, CallError> {
        self.inner.devices.client(device).ok_or(CallError::Closed)?.call(method, payload, timeout)
    }

    /// Sends to every connection of the user.
    pub fn send_to_user(&self, user: &str, message: &RelayMessage) -> Delivery {
        self.send(Target::user(user), message)
    }

    /// Sends to every connection of every user that is subscribed to the device.
    pub fn broadcast_to_device(&self, device: &str, message: &RelayMessage) -> Delivery {
        let users = self.inner.subscriptions.users_of(device);
        self.send(Target::users(users.iter().map(|user| &**user)), message)
    }

    /// Loads the user's subscriptions, on this thread. The relay does this itself for users with a connection; for
    /// other users, the caller must [`remove`](Relay::remove) the subscriptions again.
    pub fn load(&self, user: &str) {
        self.inner.subscriptions.load(user, &self.inner.builder.loader);
    }

    /// Drops the user's subscriptions, whether or not it is connected.
    pub fn remove(&self, user: &str) {
        self.inner.subscriptions.remove(user);
    }

    /// Loads the user's subscriptions again, on this thread, and discards loads that are under way. Call it after the
    /// user's access has changed. It does nothing for a user that is not loaded.
    pub fn invalidate_user(&self, user: &str) {
        self.inner.subscriptions.reload(user, &self.inner.builder.loader);
    }

    /// Calls [`invalidate_user`](Relay::invalidate_user) for every user that is subscribed to the device or being
    /// loaded. A user that gains access to the device must be invalidated by its own id.
    pub fn invalidate_device(&self, device: &str) {
        for user in self.inner.subscriptions.touched_by(device) {
            self.invalidate_user(&user);
        }
    }

    /// Whether the user is loaded and subscribed to the device.
    pub fn is_subscribed(&self, user: &str, device: &str) -> bool {
        self.inner.subscriptions.contains(user, device)
    }

    /// Users that are subscribed to the device, in no particular order.
    pub fn device_users(&self, device: &str) -> Vec<Arc<str>> {
        self.inner.subscriptions.users_of(device)
    }

    /// Devices that the user is subscribed to, in no particular order.
    pub fn user_devices(&self, user: &str) -> Vec<Arc<str>> {
        self.inner.subscriptions.devices_of(user)
    }

    fn send(&self, users: Target<'_>, message: &RelayMessage) -> Delivery {
        // A send fails only for a single client.
        self.hub.send(users, message).unwrap_or_default()
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn new(builder: RelayBuilder) -> Self {
        Self { builder, devices: Devices::default(), subscriptions: Subscriptions::default() }
    }

    /// Sets the hub's hooks, and stores the relay with the hub.
    pub(super) fn put_on(self: &Arc<Self>, hub: HubBuilder) -> HubBuilder {
        let [upgrade, message, connect, disconnect, gone, online, offline] = std::array::from_fn(|_| Arc::clone(self));
        hub.extension(Arc::clone(self))
            .call_format(JsonCalls)
            .on_upgrade(move |head| upgrade.admit(head))
            .on_message(move |client, frame| message.receive(client, frame))
            .after_connect(move |client| connect.connected(client))
            .before_disconnect(move |client| disconnect.disconnecting(client))
            .after_disconnect(move |client| gone.disconnected(client))
            .on_user_online(move |hub, user| online.user_online(hub, user))
            .on_user_offline(move |hub, user| offline.user_offline(hub, user))
    }

    fn admit(self: &Arc<Self>, head: &RequestHead) -> Result<Admission, Rejection> {
        let identity = (self.builder.authenticate)(head)?;
        if identity.user.is_empty() || identity.device.as_deref() == Some("") {
            return Err(Rejection::new(400, "empty user or device\n"));
        }
        let place = self.devices.place();
        let admission = match &identity.device {
            None => Admission::user(&identity.user),
            Some(device) => {
                if self.builder.policy == DevicePolicy::Refuse && !self.devices.reserve(device, place) {
                    return Err(Rejection::new(409, "the device is connected\n"));
                }
                Admission::anonymous()
            }
        };
        let limiter = self.builder.rate.map(|(max, window)| Leaf::new(RateLimiter::new(max, window)));
        Ok(admission.metadata(SESSION, Session { inner: Arc::clone(self), identity, place, limiter }))
    }

    fn connected(self: &Arc<Self>, client: &Client) {
        let Some(conn) = Conn::of(client) else { return };
        match conn.device() {
            Some(device) => self.device_connected(&conn, device),
            // Another thread may still be loading, for the user's first connection.
            None => self.subscriptions.load_missing(conn.user(), &self.builder.loader),
        }
        if let Some(hook) = &self.builder.on_connect {
            hook(&conn);
        }
    }

    fn device_connected(self: &Arc<Self>, conn: &Conn, device: &str) {
        let (replaced, ticket) = match self.devices.connect(device, conn.session.place, &conn.client) {
            Connect::Relay(old, ticket) => (old, ticket),
            // A newer connection was faster.
            Connect::Outdated => (Some(conn.client.clone()), None),
        };
        if let Some(replaced) = replaced {
            // This code and reason are valid in a close frame.
            let _ = replaced.close(REPLACED, "replaced");
        }
        self.tell(conn, ticket);
    }

    fn disconnecting(self: &Arc<Self>, client: &Client) {
        let Some(conn) = Conn::of(client) else { return };
        if let Some(device) = conn.device() {
            let ticket = self.devices.disconnect(device, conn.session.place);
            self.tell(&conn, ticket);
        }
    }

    fn disconnected(&self, client: &Client) {
        if let Some(conn) = Conn::of(client).filter(|conn| conn.device().is_none()) {
            self.forget_if_offline(client.hub(), conn.user());
        }
    }

    /// Reports this connection's changes. A separate thread reports changes that others cause in the meantime.
    fn tell(self: &Arc<Self>, conn: &Conn, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return };
        let relay = &conn.relay;
        self.devices.tell(
            ticket,
            |device, edge| self.device_hook(relay, device, edge),
            |rest| self.hand_over(relay, &rest),
        );
    }

    #[cold]
    fn hand_over(self: &Arc<Self>, relay: &Relay, ticket: &Ticket) {
        let tell_all = |inner: &Self, relay: &Relay, ticket: &Ticket| {
            inner.devices.tell_all(ticket, |device, edge| {
                if catch(|| inner.device_hook(relay, device, edge)).is_none() {
                    record_limited!(Error, "wshub::relay", "a device hook panicked");
                }
            });
        };
        let given = (Arc::clone(self), relay.clone(), ticket.clone());
        let stack = relay.hub().config().reader_stack;
        let builder = thread::Builder::new().name("wshub-hooks".into()).stack_size(stack);
        let spawned = builder.spawn(move || tell_all(&given.0, &given.1, &given.2));
        if let Err(error) = spawned {
            record_limited!(
                Warn,
                "wshub::relay",
                "could not start a wshub-hooks thread: {error}; its caller runs the hooks"
            );
            tell_all(self, relay, ticket);
        }
    }

    fn device_hook(&self, relay: &Relay, device: &str, edge: Edge) {
        let hook = match edge {
            Edge::Up => &self.builder.on_device_connect,
            Edge::Down => &self.builder.on_device_disconnect,
        };
        if let Some(hook) = hook {
            hook(relay, device);
        }
    }

    fn user_online(self: &Arc<Self>, hub: &Hub, user: &str) {
        self.subscriptions.load(user, &self.builder.loader);
        if let Some(hook) = &self.builder.on_user_connect {
            hook(&Relay::new(Arc::clone(self), hub.clone()), user);
        }
    }

    fn user_offline(self: &Arc<Self>, hub: &Hub, user: &str) {
        if let Some(hook) = &self.builder.on_user_disconnect {
            hook(&Relay::new(Arc::clone(self), hub.clone()), user);
        }
        self.forget_if_offline(hub, user);
    }

    /// Drops the subscriptions of a user that has no connection.
    ///
    /// A connection loads missing subscriptions while it is in the hub's index, and calls this after it has left the
    /// index. The last connection therefore always calls it, and no subscription remains. A new connection loses
    /// nothing: either the lookup in the index finds it, or it touches the subscriptions after the mark.
    fn forget_if_offline(&self, hub: &Hub, user: &str) {
        loop {
            let mark = self.subscriptions.mark();
            if hub.is_user_online(user) || self.subscriptions.remove_unless_touched(user, mark) {
                return;
            }
        }
    }

    fn receive(&self, client: &Client, frame: &crate::Message) -> HandlerResult {
        let Some(conn) = Conn::of(client) else { return Ok(()) };
        if !conn.is_within_rate() {
            return Ok(());
        }
        let Some(text) = frame.as_text() else {
            conn.send_error("bad_message", "text messages only");
            return Err("a binary message".into());
        };
        let message = RelayMessage::from_json(text);
        let is_of_call = |kind: &str| match kind {
            "call" => self.builder.has_calls,
            kind => matches!(kind, "reply" | "error"),
        };
        let of_call = message.as_ref().ok().filter(|message| is_of_call(&message.kind));
        if let Some(result) = of_call.and_then(|_| self.builder.calls.handle(client, frame)) {
            return result;
        }
        match (message, &self.builder.on_message) {
            (Ok(message), Some(hook)) => {
                crate::trace::name_event(&message.kind);
                hook(&conn, message)
            }
            (Ok(_), None) => Ok(()),
            (Err(error), _) => {
                conn.send_error("bad_message", &error.to_string());
                Err(error.into())
            }
        }
    }
}
