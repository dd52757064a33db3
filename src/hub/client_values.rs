//! Values that an application stores on a client: metadata by name, extensions by type.

use std::any::Any;
use std::sync::Arc;

use super::admission::Metadata;
use super::client::Client;
use super::extensions::Value;
use crate::guard;

impl Client {
    /// Stores a value on this client under a name and replaces an earlier one. After the connection's last hook, the
    /// value is dropped at once.
    pub fn set_metadata<T: Any + Send + Sync>(&self, key: impl Into<String>, value: T) {
        // Conversion and drops happen outside of the lock, because they run the application's code.
        let (key, value): (String, Metadata) = (key.into(), Arc::new(value));
        let mut state = self.state().write();
        let unwanted = if state.is_released { Some(value) } else { state.metadata.insert(key, value) };
        drop(state);
        guard::dispose(unwanted);
    }

    /// The value stored under the name. `None` if there is none or it is not a `T`, and after the connection's last
    /// hook.
    pub fn metadata<T: Any + Send + Sync>(&self, key: &str) -> Option<Arc<T>> {
        let value = self.state().read().metadata.get(key).cloned()?;
        value.downcast().ok()
    }

    /// Removes the value stored under the name. Returns false if there was none.
    pub fn remove_metadata(&self, key: &str) -> bool {
        let old = self.state().write().metadata.remove(key);
        old.is_some()
    }

    /// Stores a value on this client, found by its type, and replaces an earlier one of that type. Give the value a
    /// type of its own, so that no other part of the program uses the same.
    ///
    /// The value is dropped after the connection's last hook, even if the program still holds this handle; then nothing
    /// is stored any more. A replaced or unwanted value is dropped on the calling thread, outside of all locks.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// use wshub::Hub;
    ///
    /// #[derive(Default)]
    /// struct Seen(AtomicU32);
    ///
    /// let hub = Hub::builder()
    ///     .after_connect(|client| client.set_extension(Seen::default()))
    ///     .on_message(|client, _| {
    ///         let seen = client.extension::<Seen>().ok_or("the connection has ended")?;
    ///         seen.0.fetch_add(1, Ordering::Relaxed);
    ///         Ok(())
    ///     })
    ///     .build()?;
    /// # Ok::<(), wshub::ConfigError>(())
    /// ```
    pub fn set_extension<T: Any + Send + Sync>(&self, value: T) {
        let value = Arc::new(value);
        let mut state = self.state().write();
        let unwanted = if state.is_released { Some(value as Value) } else { state.extensions.insert(value) };
        drop(state);
        guard::dispose(unwanted);
    }

    /// The value of this type, from [`set_extension`](Client::set_extension) or
    /// [`Admission::extension`](crate::Admission::extension). `None` if there is none, and after the connection's last
    /// hook.
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.state().read().extensions.get()
    }

    /// Removes the value of this type and drops it on the calling thread. Returns false if there was none.
    pub fn remove_extension<T: Any + Send + Sync>(&self) -> bool {
        let old = self.state().write().extensions.remove::<T>();
        let was_there = old.is_some();
        guard::dispose(old);
        was_there
    }
}
