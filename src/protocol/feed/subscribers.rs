//! Subscribers that are not clients of the hub.

use std::sync::Arc;

use crate::guard::{self, record_limited};
use crate::lock::Leaf;
use crate::{Client, Delivery, Message, close_code};

/// A receiver of the broadcasts of a [`Feed`](super::Feed): a line printer, another protocol's connection, a test.
/// [`Client`] is one.
///
/// A panic in either method is caught and logged; the subscriber is then removed from the feed.
pub trait Subscriber: Send + Sync {
    /// Takes a message. It must not block, because it runs on the broadcasting thread. Returns false if it drops the
    /// message.
    fn send(&self, message: &Message) -> bool;

    /// Asks the subscriber to end. It can be called more than once, and from any thread.
    fn close(&self);

    /// The hub's client behind this subscriber; `None`, the default, for any other subscriber.
    fn as_client(&self) -> Option<&Client> {
        None
    }
}

/// Sends with the hub's drop policy, closes with 1000.
impl Subscriber for Client {
    fn send(&self, message: &Message) -> bool {
        Client::send(self, message).is_ok()
    }

    fn close(&self) {
        // This code and reason are valid in a close frame.
        let _ = Client::close(self, close_code::NORMAL, "");
    }

    fn as_client(&self) -> Option<&Client> {
        Some(self)
    }
}

impl<S: Subscriber + ?Sized> Subscriber for Arc<S> {
    fn send(&self, message: &Message) -> bool {
        (**self).send(message)
    }

    fn close(&self) {
        (**self).close();
    }

    fn as_client(&self) -> Option<&Client> {
        (**self).as_client()
    }
}

/// Identifies a registered subscriber, so that it can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberId(u64);

type Entry = (SubscriberId, Arc<dyn Subscriber>);

/// The subscribers that the program has registered. Its lock is a leaf: no subscriber code runs under it.
#[derive(Default)]
pub(super) struct Registry {
    state: Leaf<State>,
}

#[derive(Default)]
struct State {
    /// Replaced as a whole on each change: a broadcast uses the list that it has taken.
    entries: Arc<[Entry]>,
    last_id: u64,
    is_closed: bool,
}

impl Registry {
    pub(super) fn len(&self) -> usize {
        self.state.lock().entries.len()
    }

    /// `None` after [`close`](Self::close).
    pub(super) fn insert(&self, subscriber: Arc<dyn Subscriber>) -> Option<SubscriberId> {
        let mut state = self.state.lock();
        if state.is_closed {
            return None;
        }
        state.last_id += 1;
        let id = SubscriberId(state.last_id);
        state.entries = state.entries.iter().cloned().chain([(id, subscriber)]).collect();
        Some(id)
    }

    pub(super) fn remove(&self, id: SubscriberId) -> Option<Arc<dyn Subscriber>> {
        let mut state = self.state.lock();
        let (_, found) = state.entries.iter().find(|(other, _)| *other == id).cloned()?;
        state.entries = state.entries.iter().filter(|(other, _)| *other != id).cloned().collect();
        Some(found)
    }

    /// Removes all subscribers and accepts no more.
    pub(super) fn close(&self) -> Arc<[Entry]> {
        let mut state = self.state.lock();
        state.is_closed = true;
        std::mem::take(&mut state.entries)
    }

    /// Adds to `delivery`; returns the subscribers that have panicked.
    pub(super) fn send(&self, message: &Message, delivery: &mut Delivery) -> Vec<SubscriberId> {
        let entries = Arc::clone(&self.state.lock().entries);
        let mut broken = Vec::new();
        for (id, subscriber) in entries.iter() {
            match guarded(|| subscriber.send(message)) {
                Some(true) => delivery.queued += 1,
                Some(false) => delivery.dropped += 1,
                None => {
                    delivery.dropped += 1;
                    broken.push(*id);
                }
            }
        }
        broken
    }
}

/// Runs code; returns `None` after a panic, which is logged.
pub(super) fn guarded<T>(code: impl FnOnce() -> T) -> Option<T> {
    let result = guard::catch(code);
    if result.is_none() {
        record_limited!(Error, "wshub::feed", "a subscriber panicked");
    }
    result
}
