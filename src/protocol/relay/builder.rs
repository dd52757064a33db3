//! Setting up a relay: who connects, what it may see, and the application's code.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Message;
use super::types::{Authenticate, Conn, DevicePolicy, Inner, Relay, RelayBuilder};
use crate::calls::{CallHandlers, CallRefusal};
use crate::guard::record_limited;
use crate::{ConfigError, HandlerResult, Hub, HubBuilder};

/// Any error; `?` and `.into()` make one.
type LoadError = Box<dyn Error + Send + Sync>;

impl RelayBuilder {
    pub(super) fn new(authenticate: Box<Authenticate>) -> Self {
        Self {
            authenticate,
            loader: Box::new(|_| Some(Vec::new())),
            policy: DevicePolicy::default(),
            rate: None,
            on_connect: None,
            on_message: None,
            calls: CallHandlers::new(),
            has_calls: false,
            on_user_connect: None,
            on_user_disconnect: None,
            on_device_connect: None,
            on_device_disconnect: None,
        }
    }

    /// Sets where the devices of a user come from; default none. It may block: only the connection that needs its
    /// result waits.
    ///
    /// An error is logged, and the user sees no device until a later load succeeds: the next connection of the user and
    /// the next invalidation load again.
    pub fn loader(mut self, loader: impl Fn(&str) -> Result<Vec<String>, LoadError> + Send + Sync + 'static) -> Self {
        self.loader = Box::new(move |user| loader(user).inspect_err(log_failure).ok());
        self
    }

    /// Sets what happens when a relay comes for a device that has one; default [`DevicePolicy::Replace`].
    pub fn device_policy(mut self, policy: DevicePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Handles at most `max` messages of each connection in each window; those above are answered with an `error` that
    /// carries `retryAfterMs`, and dropped. Default: no limit.
    pub fn rate_limit(mut self, max: u32, window: Duration) -> Self {
        self.rate = Some((max, window));
        self
    }

    /// A connection has come, of a user or a device. Its messages are read after this returns.
    pub fn on_connect(mut self, hook: impl Fn(&Conn) + Send + Sync + 'static) -> Self {
        self.on_connect = Some(Box::new(hook));
        self
    }

    /// Handles a message. An error goes to the hub's `on_error` hook, and the connection stays unless the error says
    /// otherwise.
    pub fn on_message(mut self, hook: impl Fn(&Conn, Message) -> HandlerResult + Send + Sync + 'static) -> Self {
        self.on_message = Some(Box::new(hook));
        self
    }

    /// Sets the handler of a method that users and devices call, in the format of [`JsonCalls`](crate::calls::JsonCalls): what
    /// it returns is sent back, as a reply or as an error. Once there is one, messages of the type `call` that have an
    /// `id` and a `method` do not come to `on_message`; answers to [`Relay::call_device`] never do.
    pub fn on_call(
        mut self,
        method: impl Into<String>,
        handler: impl Fn(&Conn, &crate::Message) -> Result<crate::Message, CallRefusal> + Send + Sync + 'static,
    ) -> Self {
        self.has_calls = true;
        self.calls.insert(method, move |client, data| match Conn::of(client) {
            Some(conn) => handler(&conn, data),
            None => Err(CallRefusal::new("internal", "not a connection of the relay")),
        });
        self
    }

    /// The first connection of a user has come, and its subscriptions are loaded. In turns with `on_user_disconnect`.
    pub fn on_user_connect(mut self, hook: impl Fn(&Relay, &str) + Send + Sync + 'static) -> Self {
        self.on_user_connect = Some(Box::new(hook));
        self
    }

    /// The last connection of a user has gone; its subscriptions are dropped after this returns.
    pub fn on_user_disconnect(mut self, hook: impl Fn(&Relay, &str) + Send + Sync + 'static) -> Self {
        self.on_user_disconnect = Some(Box::new(hook));
        self
    }

    /// A device's relay has come. In turns with `on_device_disconnect`.
    pub fn on_device_connect(mut self, hook: impl Fn(&Relay, &str) + Send + Sync + 'static) -> Self {
        self.on_device_connect = Some(Box::new(hook));
        self
    }

    /// A device's relay has gone or been replaced.
    pub fn on_device_disconnect(mut self, hook: impl Fn(&Relay, &str) + Send + Sync + 'static) -> Self {
        self.on_device_disconnect = Some(Box::new(hook));
        self
    }

    /// Puts the relay on a hub: it uses the hooks `on_upgrade`, `on_message`, `after_connect`, `before_disconnect`,
    /// `after_disconnect`, `on_user_online` and `on_user_offline`. Hooks that the builder has already run before the relay's, those set later
    /// after them. [`Relay::of`] gives the handle.
    pub fn install(self, builder: HubBuilder) -> HubBuilder {
        Arc::new(Inner::new(self)).put_on(builder)
    }

    /// Builds the relay on a hub with default settings: short for `Relay::of(&self.install(Hub::builder()).build()?)`.
    ///
    /// # Errors
    ///
    /// As [`HubBuilder::build`].
    pub fn build(self) -> Result<Relay, ConfigError> {
        let inner = Arc::new(Inner::new(self));
        let hub = inner.put_on(Hub::builder()).build()?;
        Ok(Relay::new(inner, hub))
    }
}

/// Without the user, who is nobody's business here.
fn log_failure(error: &LoadError) {
    record_limited!(Error, "wshub::relay", "loading a user's devices failed: {error}");
}

impl fmt::Debug for RelayBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayBuilder").field("policy", &self.policy).field("rate", &self.rate).finish_non_exhaustive()
    }
}
