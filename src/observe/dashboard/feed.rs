//! The viewers, and the thread that takes snapshots for them. It runs only while there are viewers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::rows::millis;
use super::snapshot::{Sample, Snapshot, Sources};
use super::view::{MAX_ROWS, View};
use crate::guard::{self, record};
use crate::hub::{Client, Hub, Target};
use crate::lock::{Condition, Leaf};
use crate::message::Message;
use crate::random;
use crate::server::EndpointInfo;

/// Time between snapshots.
const EVERY: Duration = Duration::from_secs(1);
/// Number of chart points that are kept: five minutes.
const HISTORY: usize = 300;

/// What the viewers of one dashboard share.
pub(super) struct Feed {
    sources: Sources,
    title: String,
    endpoints: Arc<OnceLock<Vec<EndpointInfo>>>,
    /// Lets a page that reconnects detect a restart of the process.
    instance: String,
    /// A leaf lock.
    state: Leaf<State>,
    /// Signals that the last viewer has left.
    changed: Condition,
}

#[derive(Debug, Default)]
struct State {
    viewers: usize,
    is_running: bool,
    history: VecDeque<Sample>,
    /// The last snapshot; `None` without viewers.
    latest: Option<Arc<Snapshot>>,
}

/// The key of what a viewer has once it has been greeted.
const GREETED: &str = "greeted";

impl Feed {
    pub(super) fn new(sources: Sources, title: String, endpoints: Arc<OnceLock<Vec<EndpointInfo>>>) -> Self {
        let instance = random::uuid().to_string();
        Self { sources, title, endpoints, instance, state: Leaf::default(), changed: Condition::new() }
    }

    /// Greets a viewer, sends it the last snapshot, and starts the thread if needed. Runs on the viewer's thread.
    pub(super) fn arrived(self: &Arc<Self>, viewer: &Client) {
        let (starts, history) = {
            let mut state = self.state.lock();
            state.viewers += 1;
            let starts = !std::mem::replace(&mut state.is_running, true);
            (starts, state.history.clone())
        };
        let _ = viewer.send(self.greeting(&history));
        // From here on it gets every snapshot; the greeting comes first.
        viewer.set_metadata(GREETED, true);
        let latest = self.state.lock().latest.clone();
        if let Some(snapshot) = latest {
            let _ = viewer.send(self.tick(&snapshot, &view_of(viewer)));
        }
        if starts {
            self.start(viewer.hub().clone());
        }
    }

    /// A viewer has gone.
    pub(super) fn left(&self) {
        self.state.lock().viewers -= 1;
        self.changed.notify_all();
    }

    fn start(self: &Arc<Self>, viewers: Hub) {
        let feed = Arc::clone(self);
        let builder = thread::Builder::new().name("wshub-dashboard".into()).stack_size(256 * 1024);
        let spawned = builder.spawn(move || {
            // A snapshot calls code of the application. A panic there does not prevent the next one.
            guard::catch(|| feed.look(&viewers));
            while feed.rest() {
                guard::catch(|| feed.look(&viewers));
            }
        });
        if let Err(error) = spawned {
            self.state.lock().is_running = false;
            record!(Warn, "wshub::dashboard", "could not start the thread that feeds the dashboard: {error}");
        }
    }

    /// Takes one snapshot and sends it to all viewers.
    fn look(&self, viewers: &Hub) {
        let (snapshot, sample) = Snapshot::take(&self.sources);
        let snapshot = Arc::new(snapshot);
        {
            let mut state = self.state.lock();
            if state.history.len() == HISTORY {
                state.history.pop_front();
            }
            state.history.push_back(sample);
            state.latest = Some(Arc::clone(&snapshot));
        }
        let mut views: HashMap<View, Vec<_>> = HashMap::new();
        for viewer in viewers.clients().into_iter().filter(|viewer| viewer.metadata::<bool>(GREETED).is_some()) {
            views.entry(view_of(&viewer)).or_default().push(viewer.id());
        }
        for (view, ids) in views {
            let _ = viewers.send(Target::clients(ids), self.tick(&snapshot, &view));
        }
    }

    /// Waits until the next snapshot is due. Returns false without viewers: then the thread must end.
    fn rest(&self) -> bool {
        let next = Instant::now() + EVERY;
        let mut state = self.state.lock();
        while state.viewers > 0 {
            if self.changed.wait_until(&mut state, next) {
                return true;
            }
        }
        state.is_running = false;
        state.latest = None;
        false
    }

    fn tick(&self, snapshot: &Snapshot, view: &View) -> Message {
        Message::text(snapshot.render(&self.sources.hub, view)).with_event_name("tick")
    }

    /// The constant part, and the history of the charts.
    fn greeting(&self, history: &VecDeque<Sample>) -> Message {
        let Sources { hub, tracer, .. } = &self.sources;
        let config = hub.config();
        let greeting = json!({
            "instance": self.instance,
            "title": self.title,
            "version": env!("CARGO_PKG_VERSION"),
            "node": hub.node_id(),
            "now": millis(std::time::SystemTime::now()),
            "has_metrics": self.sources.stats().is_some(),
            "has_tracer": tracer.is_some(),
            "endpoints": self.endpoints.get(),
            "queue": [config.queue_messages, config.queue_bytes],
            "max_connections": hub.limits().max_connections,
            "max_rows": MAX_ROWS,
            "history": history,
        });
        Message::text(greeting.to_string()).with_event_name("hello")
    }
}

/// The view that the viewer's request asks for.
fn view_of(viewer: &Client) -> View {
    viewer.metadata::<View>("view").map_or_else(|| View::of(viewer.request()), |view| (*view).clone())
}
