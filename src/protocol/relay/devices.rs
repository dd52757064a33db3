//! One relay connection for each device, and the moments when it comes and goes.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Client;
use crate::guard;

/// A device's relay has come or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    Connected,
    Disconnected,
}

/// Who has a device: a connection, or one that is being upgraded.
#[derive(Debug)]
struct Holder {
    place: u64,
    client: Option<Client>,
}

#[derive(Debug, Default)]
struct State {
    holders: HashMap<Arc<str>, Holder>,
    /// Transitions whose hooks are still to be run. A device is a key while a thread runs its hooks.
    waiting: HashMap<Arc<str>, VecDeque<Transition>>,
    places: u64,
}

/// Devices and their connections; a leaf lock guards them.
#[derive(Debug, Default)]
pub(super) struct Devices(Mutex<State>);

/// The duty to run the hooks of a device's transitions, given to one thread at a time.
#[derive(Debug)]
#[must_use = "the transitions of this device wait for it"]
pub(super) struct Turn(Arc<str>);

impl Devices {
    /// A place for a connection that is about to come.
    pub(super) fn place(&self) -> u64 {
        let mut state = self.0.lock();
        state.places += 1;
        state.places
    }

    /// Keeps the device for this place. False if another connection has it, be it one that is closing.
    pub(super) fn reserve(&self, device: &str, place: u64) -> bool {
        let mut state = self.0.lock();
        if state.holders.contains_key(device) {
            return false;
        }
        state.holders.insert(device.into(), Holder { place, client: None });
        true
    }

    /// Gives up a reservation that no connection has come for.
    pub(super) fn cancel(&self, device: &str, place: u64) {
        let mut state = self.0.lock();
        if state.holders.get(device).is_some_and(|holder| holder.place == place && holder.client.is_none()) {
            state.holders.remove(device);
        }
    }

    /// Makes the connection the device's relay. Gives the one that it replaces.
    pub(super) fn connect(&self, device: &str, place: u64, client: &Client) -> (Option<Client>, Option<Turn>) {
        let mut state = self.0.lock();
        let old = state.holders.insert(device.into(), Holder { place, client: Some(client.clone()) });
        let old = old.and_then(|holder| holder.client);
        let turn = match old {
            Some(_) => state.record(device, &[Transition::Disconnected, Transition::Connected]),
            None => state.record(device, &[Transition::Connected]),
        };
        (old, turn)
    }

    /// The connection of this place has ended.
    pub(super) fn disconnect(&self, device: &str, place: u64) -> Option<Turn> {
        let mut state = self.0.lock();
        let is_holder = state.holders.get(device).is_some_and(|holder| holder.place == place);
        // The client that comes out may be the last handle, whose drop runs the application's code: not here.
        let holder = is_holder.then(|| state.holders.remove(device)).flatten();
        let turn = holder.is_some().then(|| state.record(device, &[Transition::Disconnected])).flatten();
        drop(state);
        drop(holder);
        turn
    }

    pub(super) fn client(&self, device: &str) -> Option<Client> {
        self.0.lock().holders.get(device)?.client.clone()
    }

    /// Runs the hooks of a device's transitions, those that come meanwhile too. A panic goes on when all have run.
    pub(super) fn run(&self, turn: Option<Turn>, hook: impl Fn(&str, Transition)) {
        let Some(Turn(device)) = turn else { return };
        let mut panic = None;
        while let Some(transition) = self.next(&device) {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| hook(&device, transition))) {
                match &panic {
                    None => panic = Some(payload),
                    // Its destructor is the application's code.
                    Some(_) => guard::dispose(payload),
                }
            }
        }
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    fn next(&self, device: &str) -> Option<Transition> {
        let mut state = self.0.lock();
        let next = state.waiting.get_mut(device).and_then(VecDeque::pop_front);
        if next.is_none() {
            state.waiting.remove(device);
        }
        next
    }
}

impl State {
    /// Notes transitions; the turn goes to the caller if nobody has it.
    fn record(&mut self, device: &str, transitions: &[Transition]) -> Option<Turn> {
        if let Some(waiting) = self.waiting.get_mut(device) {
            waiting.extend(transitions);
            return None;
        }
        let device: Arc<str> = device.into();
        self.waiting.insert(Arc::clone(&device), transitions.iter().copied().collect());
        Some(Turn(device))
    }
}
