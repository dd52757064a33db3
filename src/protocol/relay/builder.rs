//! Sets up a relay: authentication, subscriptions and the application's callbacks.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::RelayMessage;
use super::types::{Authenticate, Conn, DevicePolicy, Inner, Relay, RelayBuilder};
use crate::bounds::{MILLISECOND, PER_SECOND, YEAR, check, check_finite};
use crate::calls::{CallHandlers, CallRefusal};
use crate::guard::record_limited;
use crate::{ConfigError, HandlerResult, Hub, HubBuilder};

/// Any error; create it with `?` or `.into()`.
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

    /// Sets the loader of a user's devices. Default: none. It may block: only the connection that needs its result
    /// waits.
    ///
    /// An error is logged, and the user sees no device until a later load succeeds. The user's next connection and the
    /// next invalidation load again.
    pub fn loader(mut self, loader: impl Fn(&str) -> Result<Vec<String>, LoadError> + Send + Sync + 'static) -> Self {
        self.loader = Box::new(move |user| loader(user).inspect_err(log_failure).ok());
        self
    }

    /// Sets what happens when a relay connects for a device that has one. Default: [`DevicePolicy::Replace`].
    pub fn device_policy(mut self, policy: DevicePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Handles at most `max` messages of each connection in each window. Further ones are dropped and answered with an
    /// `error` that carries `retryAfterMs`. Default: no limit. `max` is at least 1, the window 1 ms to 366 days.
    pub fn rate_limit(mut self, max: u32, window: Duration) -> Self {
        self.rate = Some((max, window));
        self
    }

    /// Runs when a user or device connects. Its messages are read after this returns.
    pub fn on_connect(mut self, hook: impl Fn(&Conn) + Send + Sync + 'static) -> Self {
        self.on_connect = Some(Box::new(hook));
        self
    }

    /// Handles a message. An error goes to the hub's `on_error` hook, and the connection stays open unless the error
    /// closes it.
    pub fn on_message(mut self, hook: impl Fn(&Conn, RelayMessage) -> HandlerResult + Send + Sync + 'static) -> Self {
        self.on_message = Some(Box::new(hook));
        self
    }

    /// Sets the handler of a method that users and devices call, in the format of
    /// [`JsonCalls`](crate::calls::JsonCalls). Its return value is sent back as a reply or an error. With such a
    /// handler, messages of type `call` that have an `id` and a `method` do not reach `on_message`. Answers to
    /// [`Relay::call_device`] never do; a `reply` or `error` with any other `id` does.
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

    /// Runs when a user's first connection is open and its subscriptions are loaded. Alternates with
    /// `on_user_disconnect`.
    pub fn on_user_connect(mut self, hook: impl Fn(&Relay, &str) + Send + Sync + 'static) -> Self {
        self.on_user_connect = Some(Box::new(hook));
        self
    }

    /// Runs when a user's last connection is gone; its subscriptions are dropped after this returns.
    pub fn on_user_disconnect(mut self, hook: impl Fn(&Relay, &str) + Send + Sync + 'static) -> Self {
        self.on_user_disconnect = Some(Box::new(hook));
        self
    }

    /// Runs when a device's relay connects. Alternates with `on_device_disconnect`.
    pub fn on_device_connect(mut self, hook: impl Fn(&Relay, &str) + Send + Sync + 'static) -> Self {
        self.on_device_connect = Some(Box::new(hook));
        self
    }

    /// Runs when a device's relay is gone or was replaced.
    pub fn on_device_disconnect(mut self, hook: impl Fn(&Relay, &str) + Send + Sync + 'static) -> Self {
        self.on_device_disconnect = Some(Box::new(hook));
        self
    }

    /// Installs the relay on a hub; it uses the hooks `on_upgrade`, `on_message`, `after_connect`, `before_disconnect`,
    /// `after_disconnect`, `on_user_online` and `on_user_offline`. Hooks that are already set run before the relay's;
    /// hooks set later run after them. [`Relay::of`] returns the handle. An invalid setting makes
    /// [`build`](HubBuilder::build) fail.
    pub fn install(self, builder: HubBuilder) -> HubBuilder {
        let builder = self.checked(builder);
        Arc::new(Inner::new(self)).put_on(builder)
    }

    /// Builds the relay on a hub with default settings: short for `Relay::of(&self.install(Hub::builder()).build()?)`.
    ///
    /// # Errors
    ///
    /// Same as [`HubBuilder::build`].
    pub fn build(self) -> Result<Relay, ConfigError> {
        let builder = self.checked(Hub::builder());
        let inner = Arc::new(Inner::new(self));
        let hub = inner.put_on(builder).build()?;
        Ok(Relay::new(inner, hub))
    }

    /// Reports an invalid setting to the hub's builder.
    fn checked(&self, builder: HubBuilder) -> HubBuilder {
        let Some((max, window)) = self.rate else { return builder };
        let checked = check("rate_limit", max, 1..=PER_SECOND)
            .and_then(|()| check_finite("rate_limit", window, &(MILLISECOND..=YEAR)));
        match checked {
            Ok(()) => builder,
            Err(error) => builder.invalid(error),
        }
    }
}

/// Logs the failure without the user, to keep user ids out of the log.
fn log_failure(error: &LoadError) {
    record_limited!(Error, "wshub::relay", "loading a user's devices failed: {error}");
}

impl fmt::Debug for RelayBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayBuilder").field("policy", &self.policy).field("rate", &self.rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rejection;

    #[test]
    fn an_invalid_rate_limit_fails_the_build_and_is_named() {
        let relay = |max, window| Relay::builder(|_| Err(Rejection::forbidden())).rate_limit(max, window);
        let error = relay(0, Duration::from_secs(1)).install(Hub::builder()).build().unwrap_err();
        assert_eq!(error.to_string(), "rate_limit 0 must be 1 to 1000000");
        let error = relay(1, Duration::ZERO).build().map(drop).unwrap_err();
        assert_eq!(error.to_string(), "rate_limit 0ns must be 1ms to 366 days");
        assert!(relay(1, Duration::from_secs(1)).build().is_ok());
    }
}
