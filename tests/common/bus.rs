//! A cluster in one process: nodes on a bus in memory, and a bus that a test holds in its hands.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use wshub::{
    Hub, HubBuilder,
    cluster::{Adapter, AdapterError, AdapterState, Cluster, Envelope, EnvelopeKind, Inbox, MemoryAdapter, MemoryBus},
};

use super::{TestServer, eventually};

/// Waits until the hub publishes and is subscribed.
pub(crate) fn connected(hub: &Hub) {
    eventually("connected", || hub.adapter_state() == Some(AdapterState::Connected));
}

/// A node with a server, connected. At its end it does not wait for clients that do not answer its close.
pub(crate) fn node(builder: HubBuilder, cluster: Cluster) -> TestServer {
    let builder = builder.map_config(|c| c.close_timeout(Duration::from_millis(50)));
    let server = TestServer::new(builder.cluster(cluster));
    connected(&server.hub);
    server
}

/// A node of this name on a bus, whose hub does nothing of its own.
pub(crate) fn plain_node(bus: &MemoryBus, id: &str) -> TestServer {
    node(Hub::builder(), Cluster::new(bus.adapter()).node_id(id))
}

/// A connection to a bus in memory that loses what its node says, once the switch is on. What comes to it still comes.
pub(crate) fn lossy(bus: &MemoryBus) -> (impl Adapter, Arc<AtomicBool>) {
    let is_cut = Arc::new(AtomicBool::new(false));
    (Lossy { bus: bus.adapter(), is_cut: Arc::clone(&is_cut) }, is_cut)
}

struct Lossy {
    bus: MemoryAdapter,
    is_cut: Arc<AtomicBool>,
}

impl Adapter for Lossy {
    fn publish(&self, envelope: &[u8]) -> Result<(), AdapterError> {
        if self.is_cut.load(Ordering::SeqCst) { Ok(()) } else { self.bus.publish(envelope) }
    }

    fn subscribe(&self, inbox: &Inbox) -> Result<(), AdapterError> {
        self.bus.subscribe(inbox)
    }

    fn close(&self) {
        self.bus.close();
    }
}

/// What a [`Wire`] does when it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Works,
    Unavailable,
    Rejects,
    Panics,
    /// Blocks until the adapter is closed or the mood changes.
    Blocks,
    /// Blocks until the mood changes, closed or not.
    Hangs,
}

/// The far side of an adapter: records what is published, and puts in what is to be received.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    connects: AtomicUsize,
    subscribes: AtomicUsize,
}

struct State {
    publish: Mood,
    subscribe: Mood,
    closed: bool,
    published: Vec<Vec<u8>>,
    inbox: Option<Inbox>,
}

impl Wire {
    pub(crate) fn new(mood: Mood) -> Self {
        let state = State { publish: mood, subscribe: mood, closed: false, published: Vec::new(), inbox: None };
        let (connects, subscribes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), connects, subscribes }))
    }

    /// The adapter for a hub.
    pub(crate) fn adapter(&self) -> impl Adapter {
        WireAdapter(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().unwrap());
        self.0.changed.notify_all();
    }

    /// Changes what publishing (and connecting) does.
    pub(crate) fn publishing(&self, mood: Mood) {
        self.change(|s| s.publish = mood);
    }

    /// Changes what a subscription does; one that stands ends unless it works.
    pub(crate) fn subscribing(&self, mood: Mood) {
        self.change(|s| s.subscribe = mood);
    }

    pub(crate) fn both(&self, mood: Mood) {
        self.change(|s| (s.publish, s.subscribe) = (mood, mood));
    }

    /// How often `connect` and `subscribe` have been called.
    pub(crate) fn attempts(&self) -> (usize, usize) {
        (self.0.connects.load(Ordering::SeqCst), self.0.subscribes.load(Ordering::SeqCst))
    }

    /// All that has been published, as text, heartbeats left out.
    pub(crate) fn published(&self) -> Vec<String> {
        let state = self.0.state.lock().unwrap();
        let texts = state.published.iter().map(|bytes| String::from_utf8(bytes.clone()).unwrap());
        texts.filter(|text| !text.contains(r#""type":"presence""#)).collect()
    }

    /// The payloads of what has been published.
    pub(crate) fn payloads(&self) -> Vec<String> {
        let envelopes = self.published().into_iter().map(|text| Envelope::decode(text.as_bytes()).unwrap());
        envelopes.map(|e| e.into_message().unwrap().as_text().unwrap().to_owned()).collect()
    }

    /// The payloads of published heartbeats.
    pub(crate) fn beats(&self) -> Vec<String> {
        let state = self.0.state.lock().unwrap();
        let envelopes = state.published.iter().map(|bytes| Envelope::decode(bytes).unwrap());
        let beats = envelopes.filter(|e| e.kind == EnvelopeKind::Presence);
        beats.map(|e| String::from_utf8(e.data.to_vec()).unwrap()).collect()
    }

    /// Where the hub takes what the bus brings.
    pub(crate) fn inbox(&self) -> Inbox {
        self.0.state.lock().unwrap().inbox.clone().unwrap()
    }

    /// Something arrives; delivered when this returns.
    pub(crate) fn receive(&self, bytes: impl AsRef<[u8]>) {
        // A hub that is connected may still be about to subscribe anew.
        eventually("it is subscribed", || self.0.state.lock().unwrap().inbox.is_some());
        let inbox = self.0.state.lock().unwrap().inbox.clone();
        inbox.unwrap().receive(bytes.as_ref());
    }

    /// Several arrive together.
    pub(crate) fn receive_all(&self, texts: &[String]) {
        let inbox = self.0.state.lock().unwrap().inbox.clone();
        inbox.unwrap().receive_all(texts.iter().map(String::as_bytes));
    }

    /// So many have come and are lost before the hub has them.
    pub(crate) fn lose(&self, count: usize) {
        let inbox = self.0.state.lock().unwrap().inbox.clone();
        inbox.unwrap().lost(count);
    }

    fn act(&self, pick: fn(&State) -> Mood) -> Result<(), AdapterError> {
        let mut state = self.0.state.lock().unwrap();
        loop {
            match pick(&state) {
                Mood::Works => return Ok(()),
                Mood::Unavailable => return Err(AdapterError::unavailable("no bus")),
                Mood::Rejects => return Err(AdapterError::rejected("not this one")),
                Mood::Panics => {
                    drop(state);
                    panic!("an adapter's own");
                }
                Mood::Blocks if state.closed => return Err(AdapterError::unavailable("closed")),
                Mood::Blocks | Mood::Hangs => state = self.0.changed.wait(state).unwrap(),
            }
        }
    }
}

struct WireAdapter(Wire);

impl Adapter for WireAdapter {
    fn connect(&self) -> Result<(), AdapterError> {
        self.0.0.connects.fetch_add(1, Ordering::SeqCst);
        // One that refuses or blocks only when it publishes can be connected to.
        self.0.act(|s| if s.publish == Mood::Unavailable { Mood::Unavailable } else { Mood::Works })
    }

    fn publish(&self, envelope: &[u8]) -> Result<(), AdapterError> {
        self.0.act(|s| s.publish)?;
        self.0.change(|s| s.published.push(envelope.to_vec()));
        Ok(())
    }

    fn subscribe(&self, inbox: &Inbox) -> Result<(), AdapterError> {
        self.0.0.subscribes.fetch_add(1, Ordering::SeqCst);
        self.0.act(|s| s.subscribe)?;
        self.0.change(|s| s.inbox = Some(inbox.clone()));
        inbox.subscribed();
        let mut state = self.0.0.state.lock().unwrap();
        while !state.closed && state.subscribe == Mood::Works {
            state = self.0.0.changed.wait(state).unwrap();
        }
        state.inbox = None;
        drop(state);
        self.0.act(|s| s.subscribe)
    }

    fn close(&self) {
        self.0.change(|s| s.closed = true);
    }
}
