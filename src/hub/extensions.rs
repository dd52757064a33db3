//! Values of arbitrary types, stored by type on hubs and clients.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use super::Hub;
use crate::guard;
use crate::sorted_map::SortedMap;

/// A value of the application.
pub(super) type Value = Arc<dyn Any + Send + Sync>;

/// Stores at most one value of each type.
///
/// Values are the application's, so a removed value is dropped without a lock held.
#[derive(Default)]
pub(crate) struct Extensions(SortedMap<TypeId, Value>);

impl Extensions {
    /// Returns the value that was replaced.
    #[must_use]
    pub(super) fn insert<T: Any + Send + Sync>(&mut self, value: Arc<T>) -> Option<Value> {
        self.0.insert(TypeId::of::<T>(), value)
    }

    pub(super) fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>())?.clone().downcast().ok()
    }

    #[must_use]
    pub(super) fn remove<T: Any + Send + Sync>(&mut self) -> Option<Value> {
        self.0.remove(&TypeId::of::<T>())
    }

    /// Adds the other values, which win over own ones of the same type.
    pub(super) fn extend(&mut self, other: Self) {
        for (id, value) in other.0 {
            guard::dispose(self.0.insert(id, value));
        }
    }

    pub(super) fn into_values(self) -> impl Iterator<Item = Value> {
        self.0.into_values()
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Extensions").field(&self.0.len()).finish()
    }
}

impl Hub {
    /// The value of this type from [`HubBuilder::extension`](crate::HubBuilder::extension), or `None`.
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.inner().extensions.get()
    }
}
