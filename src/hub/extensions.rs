//! Values of arbitrary types, stored by type.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::Hub;

/// Stores at most one value of each type.
#[derive(Default)]
pub(super) struct Extensions(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Extensions {
    pub(super) fn insert<T: Any + Send + Sync>(&mut self, value: Arc<T>) {
        self.0.insert(TypeId::of::<T>(), value);
    }

    fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>())?.clone().downcast().ok()
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
