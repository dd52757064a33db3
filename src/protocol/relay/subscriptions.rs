//! Which users are subscribed to which devices, and loads that race with invalidations.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::lock::Leaf;

/// What one user is subscribed to.
#[derive(Debug, Default)]
struct Entry {
    /// `None` until a load has ended.
    devices: Option<HashSet<Arc<str>>>,
    /// The ticket of the load whose result is stored, or of a later invalidation or removal. A load with a lower ticket
    /// is too late: its data may be outdated.
    latest: u64,
    /// The ticket of the load whose result is stored.
    loaded: u64,
    /// The last ticket with which a connection of the user requested a load.
    touched: u64,
    /// Loads under way. The entry stays while there are any, so that they can detect that they are late.
    loads: usize,
}

#[derive(Debug, Default)]
struct State {
    by_user: HashMap<Arc<str>, Entry>,
    by_device: HashMap<Arc<str>, HashSet<Arc<str>>>,
    /// The generation counter: rises with every load, invalidation and removal.
    ticket: u64,
}

/// Subscriptions in both directions. The loader runs without the lock.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(Leaf<State>);

/// A load under way. It ends when this is dropped, even after a panic of the loader.
struct Load<'a> {
    subscriptions: &'a Subscriptions,
    user: Arc<str>,
    ticket: u64,
    /// The stored subscriptions are outdated and are removed unless the loader returns new ones.
    is_reload: bool,
}

impl Subscriptions {
    /// Loads a user's devices. The result is kept unless a later load, invalidation or removal came first. A failed
    /// loader returns `None`.
    pub(super) fn load(&self, user: &str, loader: impl FnOnce(&str) -> Option<Vec<String>>) {
        let load = self.begin(&mut self.0.lock(), user);
        load.run(loader);
    }

    /// Loads unless a load of this user has already ended.
    pub(super) fn load_missing(&self, user: &str, loader: impl FnOnce(&str) -> Option<Vec<String>>) {
        let mut state = self.0.lock();
        let load = self.begin(&mut state, user);
        let entry = state.by_user.entry(Arc::clone(&load.user)).or_default();
        entry.touched = load.ticket;
        let is_missing = entry.devices.is_none();
        drop(state);
        // A load that does not run ends when it drops.
        if is_missing {
            load.run(loader);
        }
    }

    /// Makes all loads under way late, and loads again; if that fails, nothing remains. Users that were never loaded
    /// stay unloaded.
    pub(super) fn reload(&self, user: &str, loader: impl FnOnce(&str) -> Option<Vec<String>>) {
        let mut state = self.0.lock();
        if !state.by_user.contains_key(user) {
            return;
        }
        // The ticket of this load is higher than theirs; it is stored now, not only when the load has ended.
        let mut load = self.begin(&mut state, user);
        load.is_reload = true;
        state.outdate(user, load.ticket);
        drop(state);
        load.run(loader);
    }

    /// Users that are subscribed to the device, and users that are being loaded and might be.
    pub(super) fn touched_by(&self, device: &str) -> Vec<Arc<str>> {
        let state = self.0.lock();
        let mut users = state.by_device.get(device).cloned().unwrap_or_default();
        users.extend(state.by_user.iter().filter(|(_, entry)| entry.loads > 0).map(|(user, _)| Arc::clone(user)));
        users.into_iter().collect()
    }

    /// Removes a user's subscriptions.
    pub(super) fn remove(&self, user: &str) {
        self.0.lock().remove(user);
    }

    /// Returns a mark for [`remove_unless_touched`](Self::remove_unless_touched).
    pub(super) fn mark(&self) -> u64 {
        self.0.lock().ticket
    }

    /// Removes a user's subscriptions. If a connection of the user has requested them since the mark, keeps them and
    /// returns false.
    pub(super) fn remove_unless_touched(&self, user: &str, mark: u64) -> bool {
        let mut state = self.0.lock();
        let is_touched = state.by_user.get(user).is_some_and(|entry| entry.touched > mark);
        if !is_touched {
            state.remove(user);
        }
        !is_touched
    }

    pub(super) fn users_of(&self, device: &str) -> Vec<Arc<str>> {
        self.0.lock().by_device.get(device).map_or_else(Vec::new, |users| users.iter().cloned().collect())
    }

    pub(super) fn devices_of(&self, user: &str) -> Vec<Arc<str>> {
        let state = self.0.lock();
        let devices = state.by_user.get(user).and_then(|entry| entry.devices.as_ref());
        devices.map_or_else(Vec::new, |devices| devices.iter().cloned().collect())
    }

    pub(super) fn contains(&self, user: &str, device: &str) -> bool {
        self.0.lock().by_device.get(device).is_some_and(|users| users.contains(user))
    }

    fn begin(&self, state: &mut State, user: &str) -> Load<'_> {
        state.ticket += 1;
        let user: Arc<str> = user.into();
        state.by_user.entry(Arc::clone(&user)).or_default().loads += 1;
        Load { subscriptions: self, user, ticket: state.ticket, is_reload: false }
    }
}

impl Load<'_> {
    fn run(mut self, loader: impl FnOnce(&str) -> Option<Vec<String>>) {
        if let Some(devices) = loader(&self.user) {
            self.is_reload = false;
            self.subscriptions.0.lock().finish(&self.user, self.ticket, devices);
        }
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        let mut state = self.subscriptions.0.lock();
        let Some(entry) = state.by_user.get_mut(&self.user) else { return };
        entry.loads -= 1;
        // The loader has failed. The result of a later load stays.
        if self.is_reload && entry.loaded < self.ticket {
            state.install(&self.user, None);
        }
        state.forget_empty(&self.user);
    }
}

impl State {
    fn remove(&mut self, user: &str) {
        self.ticket += 1;
        let ticket = self.ticket;
        self.outdate(user, ticket);
        self.install(user, None);
        self.forget_empty(user);
    }

    fn outdate(&mut self, user: &str, ticket: u64) {
        if let Some(entry) = self.by_user.get_mut(user) {
            entry.latest = entry.latest.max(ticket);
        }
    }

    fn finish(&mut self, user: &str, ticket: u64, devices: Vec<String>) {
        let is_late = self.by_user.get(user).is_none_or(|entry| ticket < entry.latest);
        if !is_late {
            self.outdate(user, ticket);
            self.install(user, Some(devices.into_iter().map(Arc::from).collect()));
            if let Some(entry) = self.by_user.get_mut(user) {
                entry.loaded = ticket;
            }
        }
    }

    fn install(&mut self, user: &str, devices: Option<HashSet<Arc<str>>>) {
        let Some((user, _)) = self.by_user.get_key_value(user) else { return };
        let user = Arc::clone(user);
        let old = self.by_user.get_mut(&user).and_then(|entry| std::mem::replace(&mut entry.devices, devices.clone()));
        for device in old.into_iter().flatten() {
            self.unsubscribe(&user, &device);
        }
        for device in devices.into_iter().flatten() {
            self.by_device.entry(device).or_default().insert(Arc::clone(&user));
        }
    }

    fn unsubscribe(&mut self, user: &str, device: &str) {
        let Some(users) = self.by_device.get_mut(device) else { return };
        users.remove(user);
        if users.is_empty() {
            self.by_device.remove(device);
        }
    }

    fn forget_empty(&mut self, user: &str) {
        if self.by_user.get(user).is_some_and(|entry| entry.loads == 0 && entry.devices.is_none()) {
            self.by_user.remove(user);
        }
    }
}

#[cfg(test)]
#[path = "subscriptions_tests.rs"]
mod tests;
