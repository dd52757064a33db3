//! One relay connection for each device, and the hooks that report when it connects and disconnects.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;

use crate::Client;
use crate::guard::catch;
use crate::levels::{Edge, Levels};
use crate::lock::Leaf;

/// The holder of a device: a connection, or one that is being upgraded.
#[derive(Debug)]
struct Holder {
    place: u64,
    client: Option<Client>,
}

#[derive(Debug, Default)]
struct State {
    holders: HashMap<Arc<str>, Holder>,
    /// The place of the connection that the hooks were last told about. Changed together with `holders`.
    telling: Levels<Arc<str>, u64>,
    places: u64,
}

/// Devices and their connections.
#[derive(Debug, Default)]
pub(super) struct Devices(Leaf<State>);

/// The duty to call the hooks of one device.
#[derive(Debug, Clone)]
#[must_use = "the hooks of this device wait for it"]
pub(super) struct Ticket(Arc<str>);

/// The result of [`Devices::connect`].
#[derive(Debug)]
pub(super) enum Connect {
    /// The connection is now the device's relay; the client is the one that it replaces. There is no ticket if another
    /// thread has it.
    Relay(Option<Client>, Option<Ticket>),
    /// A newer connection already is the device's relay.
    Outdated,
}

impl Devices {
    /// Returns a place for a new connection; later connections have higher places.
    pub(super) fn place(&self) -> u64 {
        let mut state = self.0.lock();
        state.places += 1;
        state.places
    }

    /// Reserves the device for this place. Returns false if another connection has it, even one that is closing.
    pub(super) fn reserve(&self, device: &str, place: u64) -> bool {
        let mut state = self.0.lock();
        if state.holders.contains_key(device) {
            return false;
        }
        state.holders.insert(device.into(), Holder { place, client: None });
        true
    }

    /// Cancels a reservation that no connection has used.
    pub(super) fn cancel(&self, device: &str, place: u64) {
        let mut state = self.0.lock();
        if state.holders.get(device).is_some_and(|holder| holder.place == place && holder.client.is_none()) {
            state.holders.remove(device);
        }
    }

    /// Makes the connection the device's relay, unless a connection with a higher place already is.
    pub(super) fn connect(&self, device: &str, place: u64, client: &Client) -> Connect {
        let mut state = self.0.lock();
        if state.holders.get(device).is_some_and(|holder| holder.place > place) {
            return Connect::Outdated;
        }
        let before = state.level(device);
        let old = state.holders.insert(device.into(), Holder { place, client: Some(client.clone()) });
        let ticket = state.changed(device, before);
        drop(state);
        Connect::Relay(old.and_then(|holder| holder.client), ticket)
    }

    /// Removes the connection of this place, which has ended.
    pub(super) fn disconnect(&self, device: &str, place: u64) -> Option<Ticket> {
        let mut state = self.0.lock();
        let before = state.level(device).filter(|level| *level == place)?;
        let holder = state.holders.remove(device);
        let ticket = state.changed(device, Some(before));
        drop(state);
        // This can be the last handle of the client, whose drop runs the application's code: not under the lock.
        drop(holder);
        ticket
    }

    pub(super) fn client(&self, device: &str) -> Option<Client> {
        self.0.lock().holders.get(device)?.client.clone()
    }

    /// Reports what the calling thread has caused: at most that a relay is gone and another has connected. `later` gets
    /// the ticket if other threads have caused further changes in the meantime. A panic of the hook resumes at the end.
    pub(super) fn tell(&self, ticket: Ticket, hook: impl Fn(&str, Edge), later: impl FnOnce(Ticket)) {
        let mut has_panicked = false;
        let mut told = 0;
        let is_done = loop {
            let Some(edge) = self.next_edge(&ticket) else { break true };
            has_panicked |= catch(|| hook(&ticket.0, edge)).is_none();
            told += 1;
            if told == 2 {
                break self.with_level(&ticket, Levels::give_back);
            }
        };
        if !is_done {
            later(ticket);
        }
        if has_panicked {
            resume_unwind(Box::new("a hook of a device"));
        }
    }

    /// Reports until hooks and levels agree.
    pub(super) fn tell_all(&self, ticket: &Ticket, hook: impl Fn(&str, Edge)) {
        while let Some(edge) = self.next_edge(ticket) {
            hook(&ticket.0, edge);
        }
    }

    /// Returns the next edge to report; `None` means that the ticket is returned.
    fn next_edge(&self, ticket: &Ticket) -> Option<Edge> {
        self.with_level(ticket, Levels::next)
    }

    fn with_level<T>(
        &self,
        Ticket(device): &Ticket,
        look: impl FnOnce(&mut Levels<Arc<str>, u64>, &str, Option<u64>) -> T,
    ) -> T {
        let mut state = self.0.lock();
        let level = state.level(device);
        look(&mut state.telling, device, level)
    }
}

impl State {
    /// The place of the device's relay.
    fn level(&self, device: &str) -> Option<u64> {
        self.holders.get(device).filter(|holder| holder.client.is_some()).map(|holder| holder.place)
    }

    fn changed(&mut self, device: &str, before: Option<u64>) -> Option<Ticket> {
        let device: Arc<str> = device.into();
        self.telling.changed(Arc::clone(&device), before).then_some(Ticket(device))
    }
}
