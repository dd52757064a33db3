//! A client's own callbacks, and the release of its values when its connection ends.

use std::sync::Arc;

use super::client::{Callbacks, Client, Handler, OfClient, OfError};
use crate::error::{HandlerError, HandlerResult};
use crate::guard;
use crate::message::Message;

impl Client {
    /// Sets this client's own message handler. It runs before the hub's handler, on the connection's thread.
    pub fn on_message(&self, handler: impl Fn(&Client, &Message) -> HandlerResult + Send + Sync + 'static) {
        let handler: Arc<Handler> = Arc::new(handler);
        guard::dispose(self.set_callback(|c| &mut c.on_message, handler));
    }

    /// Sets a callback for the end of this connection. It runs once, before the `after_disconnect` hook, on the
    /// connection's thread. It also runs for a client that a hook has seen but whose upgrade is then refused. If the
    /// connection has already ended, it runs at once, on the calling thread.
    pub fn on_close(&self, callback: impl Fn(&Client) + Send + Sync + 'static) {
        let callback: Arc<OfClient> = Arc::new(callback);
        if let Err(late) = self.set_callback(|c| &mut c.on_close, callback) {
            self.run_on_close(late);
        }
    }

    /// Sets a callback for this client's errors, which runs after the `on_error` hook.
    pub fn on_error(&self, callback: impl Fn(&Client, &HandlerError) + Send + Sync + 'static) {
        let callback: Arc<OfError> = Arc::new(callback);
        guard::dispose(self.set_callback(|c| &mut c.on_error, callback));
    }

    /// Returns one of the callbacks, to be called without the lock.
    pub(crate) fn callback<C: ?Sized>(&self, choose: impl FnOnce(&Callbacks) -> &Option<Arc<C>>) -> Option<Arc<C>> {
        choose(&self.state().read().callbacks).clone()
    }

    /// Replaces a callback. Returns the new one if the connection has ended.
    fn set_callback<C: ?Sized>(
        &self,
        choose: impl FnOnce(&mut Callbacks) -> &mut Option<Arc<C>>,
        callback: Arc<C>,
    ) -> Result<(), Arc<C>> {
        let mut state = self.state().write();
        if state.is_closed {
            return Err(callback);
        }
        let old = choose(&mut state.callbacks).replace(callback);
        drop(state);
        // Dropped without the lock, because closures hold the application's types.
        guard::dispose(old);
        Ok(())
    }

    fn run_on_close(&self, callback: Arc<OfClient>) {
        self.hub().guarded(None, "the client's on_close", || callback(self));
        self.hub().guarded(None, "a destructor of a callback", || drop(callback));
    }

    /// Records the end of the connection and its drop counts, and runs `on_close`. Callbacks that are set later are not
    /// stored.
    pub(super) fn mark_closed(&self, dropped: (u64, u64)) {
        self.set_closed(dropped);
        let callbacks = {
            let mut state = self.state().write();
            state.is_closed = true;
            std::mem::take(&mut state.callbacks)
        };
        let Callbacks { on_message, on_close, on_error } = callbacks;
        self.hub().guarded(None, "a destructor of a callback", || drop(on_message));
        self.hub().guarded(None, "a destructor of a callback", || drop(on_error));
        if let Some(on_close) = on_close {
            self.run_on_close(on_close);
        }
    }

    /// Drops metadata and extensions, after the last hook. They may hold this client, which would otherwise keep itself
    /// alive.
    pub(super) fn release(&self) {
        self.state().write().is_over = true;
        self.release_if_over();
    }

    /// While another thread runs hooks of this client's rooms, whose last one reports the end, the values remain for
    /// them. Then that thread drops the values: it calls this when its hooks have returned.
    pub(super) fn release_if_over(&self) {
        let (metadata, extensions) = {
            let mut state = self.state().write();
            if !state.is_over || state.is_released || !state.telling.is_empty() {
                return;
            }
            state.is_released = true;
            (std::mem::take(&mut state.metadata), std::mem::take(&mut state.extensions))
        };
        // One by one: a second panic during a drop would end the process.
        for value in metadata.into_values().chain(extensions.into_values()) {
            self.hub().guarded(None, "a destructor of a client's value", || drop(value));
        }
    }
}
