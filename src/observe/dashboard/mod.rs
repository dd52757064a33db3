//! A page for operators: connected clients, traffic, slow clients, and reasons for refusals.
//!
//! The page is one document (`page.rs`). Its data arrives over an event stream of the crate's own: viewers are clients
//! of a private hub (`feed.rs`), whose thread takes one snapshot of the observed hub each second (`snapshot.rs`) and
//! sends every viewer the part that it requests (`view.rs`). An operator's actions arrive as `POST` (`actions.rs`).

mod actions;
mod auth;
mod feed;
#[cfg(feature = "cluster")]
mod nodes;
#[cfg(not(feature = "cluster"))]
#[path = "no_nodes.rs"]
mod nodes;
mod page;
mod rows;
mod snapshot;
mod view;

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::config::{Config, DropPolicy, Limits};
use crate::error::ConfigError;
use crate::http::{RequestHead, Response};
use crate::hub::{Admission, Client, Hub, Rejection};
use crate::metrics::DebugMetrics;
use crate::server::{EndpointInfo, Request, Server};
use crate::trace::Tracer;
use auth::Auth;
use feed::Feed;
use rows::Namer;
use snapshot::Sources;
use view::View;

/// Maximum number of viewers at one time; one more gets 503.
const MAX_VIEWERS: usize = 64;

/// A page that shows an operator the activity of a hub, for [`Server::dashboard`].
///
/// ```
/// use std::sync::Arc;
/// use wshub::{Hub, Server, dashboard::Dashboard, metrics::DebugMetrics};
///
/// let metrics = Arc::new(DebugMetrics::new());
/// let hub = Hub::builder().metrics(metrics.clone()).build()?;
/// let dashboard = Dashboard::new(&hub).auth(Dashboard::basic("admin", "correct horse")).metrics(metrics);
/// let server = Server::bind("127.0.0.1:0")?.websocket("/ws", &hub).dashboard("/admin", dashboard);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The [guide](crate::guide::dashboard) describes what it shows and does, and its cost.
#[must_use = "a dashboard does nothing until a server has it"]
pub struct Dashboard {
    hub: Hub,
    title: String,
    auth: Option<Arc<Auth>>,
    metrics: Option<Arc<DebugMetrics>>,
    tracer: Option<Tracer>,
    namer: Option<Box<Namer>>,
    endpoints: Option<Vec<EndpointInfo>>,
}

impl Dashboard {
    /// Creates a dashboard of this hub. It admits no request until [`auth`](Dashboard::auth) is set.
    pub fn new(hub: &Hub) -> Self {
        Self {
            hub: hub.clone(),
            title: "wshub".into(),
            auth: None,
            metrics: None,
            tracer: None,
            namer: None,
            endpoints: None,
        }
    }

    /// Sets the callback that decides who may see the page and act on it. It returns `Ok` with a name for the log, or
    /// the refusal. It runs for every request of the page, on the connection's thread, before anything else. A panic
    /// refuses with 500.
    ///
    /// It can only use data that the browser sends by itself: Basic credentials, a cookie, a header that a proxy adds.
    pub fn auth(mut self, auth: impl Fn(&RequestHead) -> Result<String, Rejection> + Send + Sync + 'static) -> Self {
        self.auth = Some(Arc::new(auth));
        self
    }

    /// A callback for [`auth`](Dashboard::auth): one user with a password, by HTTP Basic authentication. Other requests
    /// get 401, which makes the browser ask. The comparison takes constant time for passwords of the same length. An
    /// empty password admits no request.
    ///
    /// The password is sent unencrypted: use it on the loopback, in a trusted network, or behind TLS.
    pub fn basic(
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> impl Fn(&RequestHead) -> Result<String, Rejection> + Send + Sync + 'static {
        auth::basic(user.into(), &password.into())
    }

    /// Sets the metrics from which rates, errors and average times are read; the hub must count in them. Default: the
    /// [`DebugMetrics`] that the hub was given, alone or in a [`MetricsPair`](crate::metrics::MetricsPair). Without
    /// any, the page shows only what the hub itself knows.
    pub fn metrics(mut self, metrics: Arc<DebugMetrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Sets the tracer whose traces are shown. Default: none. It must be the [tracer of the
    /// hub](crate::HubBuilder::tracer).
    pub fn tracer(mut self, tracer: Tracer) -> Self {
        self.tracer = Some(tracer);
        self
    }

    /// Sets the endpoints to show. Default: those of the server that has the dashboard. Use it for a dashboard on a
    /// separate server, such as one that listens only on the loopback.
    pub fn endpoints(mut self, endpoints: &[EndpointInfo]) -> Self {
        self.endpoints = Some(endpoints.to_vec());
        self
    }

    /// Sets the callback that names a client in the list, beside its user. Default: none. It runs for every client once
    /// a second while there are viewers, on the dashboard's thread, with no lock held: keep it fast.
    pub fn name_clients(mut self, name: impl Fn(&Client) -> Option<String> + Send + Sync + 'static) -> Self {
        self.namer = Some(Box::new(name));
        self
    }

    /// Sets the title of the page. Default: `wshub`.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard").field("hub", &self.hub).field("title", &self.title).finish_non_exhaustive()
    }
}

impl Server {
    /// Serves a dashboard at this path, such as `/admin`, and at paths below it. Its requests and viewers are not
    /// clients of the observed hub, and its stream is not among the [`endpoints`](Server::endpoints).
    ///
    /// Without [`Dashboard::auth`], [`spawn`](Server::spawn) fails.
    pub fn dashboard(self, path: &str, dashboard: Dashboard) -> Self {
        let Dashboard { hub, title, auth, metrics, tracer, namer, endpoints } = dashboard;
        let Some(auth) = auth else {
            return self.invalid("dashboard", format!("{path:?}: no auth is set, see Dashboard::auth"));
        };
        let told = endpoints.map_or_else(|| self.told_endpoints(), |list| Arc::new(OnceLock::from(list)));
        let base = path.trim_end_matches('/').to_owned();
        let feed = Arc::new(Feed::new(Sources { hub: hub.clone(), metrics, tracer, namer }, title, told));
        let viewers = match viewers(&auth, feed) {
            Ok(viewers) => viewers,
            Err(error) => return self.invalid("dashboard", format!("{path:?}: {error}")),
        };
        let guard = Arc::clone(&auth);
        let page = move |request: &Request| page::answer(&*guard, request);
        let mut server = self.unlisted_event_stream(&format!("{base}/events"), &viewers);
        server = server.handle(&format!("{base}/actions"), move |request| actions::answer(&hub, &*auth, request));
        if !base.is_empty() {
            server = server.handle(&base, page.clone());
        }
        server.handle(&format!("{base}/"), page)
    }
}

/// The private hub of the viewers. It is shut down with the server, which finds it through the route of its stream.
fn viewers(auth: &Arc<Auth>, feed: Arc<Feed>) -> Result<Hub, ConfigError> {
    let auth = Arc::clone(auth);
    let (arriving, leaving) = (Arc::clone(&feed), feed);
    // A viewer that falls behind misses old states; only the newest matters.
    let config = Config::default().queue_messages(8).queue_bytes(4 << 20).drop_policy(DropPolicy::DropOldest);
    Hub::builder()
        .config(config)
        .limits(Limits::default().max_connections(MAX_VIEWERS))
        .on_upgrade(move |head| Ok(Admission::user(auth(head)?).metadata("view", View::of(head))))
        // Refusals of this hub also carry the page's headers.
        .map_refusal(|_, _, response| page::guarded(response.clone()))
        .after_connect(move |viewer| arriving.arrived(viewer))
        .after_disconnect(move |_| leaving.left())
        .build()
}

/// Returns the name from `auth`, or its refusal as a response.
fn admitted(auth: &Auth, head: &RequestHead) -> Result<String, Response> {
    auth(head).map_err(|refusal| page::guarded(refusal.response().clone()))
}
