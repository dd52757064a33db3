//! Metrics in a Prometheus registry.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    DEFAULT_BUCKETS, Error, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use super::gauges::Gauges;
use super::names::{self, ERROR_LABEL, NAMESPACE, Series};
use super::scrape;
use crate::http::Response;
use crate::metrics::{ErrorType, Metrics};
use crate::server::Request;

/// Buckets of broadcast durations, in seconds.
const BROADCAST_BUCKETS: [f64; 9] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// Counts in a Prometheus registry. Feature `prometheus`.
///
/// ```no_run
/// use std::sync::Arc;
/// use wshub::{Hub, Server, metrics::{Gauges, PrometheusMetrics}};
///
/// let metrics = Arc::new(PrometheusMetrics::builder().const_label("hub", "lobby").build()?);
/// let hub = Hub::builder().metrics(metrics.clone()).build()?;
/// let server = Server::bind("127.0.0.1:8080")?.websocket("/ws", &hub);
/// let gauges = Gauges::new().hub(&hub).server(&server);
/// server.handle("/metrics", metrics.handler(gauges)).run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// One instance can count for several hubs, as their sum. To distinguish hubs in one registry, give each its own
/// metrics with a different [`const_label`](PrometheusBuilder::const_label).
pub struct PrometheusMetrics {
    registry: Registry,
    names: Names,
    series: AllSeries,
}

/// Every series; a clone counts into the same ones.
#[derive(Clone)]
struct AllSeries {
    connections_active: IntGauge,
    connections: IntCounter,
    received: IntCounter,
    received_bytes: IntCounter,
    sent: IntCounter,
    sent_bytes: IntCounter,
    dropped: IntCounter,
    latency: Histogram,
    broadcast: Histogram,
    rooms_active: IntGauge,
    joins: IntCounter,
    leaves: IntCounter,
    history_gaps: IntCounter,
    history_evictions: IntCounter,
    call_timeouts: IntCounter,
    late_replies: IntCounter,
    published: IntCounter,
    adapter_received: IntCounter,
    adapter_dropped: IntCounter,
    adapter_connects: IntCounter,
    adapter_disconnects: IntCounter,
    errors: IntCounterVec,
}

/// Prefixes and labels of each series.
#[derive(Debug, Clone)]
struct Names {
    namespace: String,
    subsystem: String,
    labels: HashMap<String, String>,
}

impl Names {
    fn opts(&self, series: Series) -> Opts {
        let opts = Opts::new(series.name, series.help).namespace(&self.namespace).subsystem(&self.subsystem);
        opts.const_labels(self.labels.clone())
    }

    fn counter(&self, series: Series) -> Result<IntCounter, Error> {
        IntCounter::with_opts(self.opts(series))
    }

    fn gauge(&self, series: Series) -> Result<IntGauge, Error> {
        IntGauge::with_opts(self.opts(series))
    }

    fn histogram(&self, series: Series, buckets: Vec<f64>) -> Result<Histogram, Error> {
        Histogram::with_opts(HistogramOpts { common_opts: self.opts(series), buckets })
    }
}

/// Builds [`PrometheusMetrics`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct PrometheusBuilder {
    registry: Option<Registry>,
    names: Names,
    latency_buckets: Vec<f64>,
    broadcast_buckets: Vec<f64>,
}

impl PrometheusBuilder {
    /// Sets the registry, which may contain other metrics. Default: a registry of its own.
    pub fn registry(mut self, registry: &Registry) -> Self {
        self.registry = Some(registry.clone());
        self
    }

    /// Sets the namespace at the front of each name. Default: `wshub`. Empty = none.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.names.namespace = namespace.into();
        self
    }

    /// Sets the subsystem between namespace and name. Default: none.
    pub fn subsystem(mut self, subsystem: impl Into<String>) -> Self {
        self.names.subsystem = subsystem.into();
        self
    }

    /// Adds a label to every series.
    pub fn const_label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.names.labels.insert(name.into(), value.into());
        self
    }

    /// Sets the upper bounds of the buckets of `message_latency_seconds`, ascending. Default: Prometheus' own, 5 ms to
    /// 10 s.
    pub fn latency_buckets(mut self, buckets: impl Into<Vec<f64>>) -> Self {
        self.latency_buckets = buckets.into();
        self
    }

    /// Sets the upper bounds of the buckets of `broadcast_duration_seconds`, ascending. Default: 0.1 ms to 1 s.
    pub fn broadcast_buckets(mut self, buckets: impl Into<Vec<f64>>) -> Self {
        self.broadcast_buckets = buckets.into();
        self
    }

    /// Creates the series and registers all of them or none.
    ///
    /// # Errors
    ///
    /// Prometheus does not allow a name, label or bucket, or the registry already has series of these names and labels.
    pub fn build(self) -> Result<PrometheusMetrics, Error> {
        let Self { registry, names, latency_buckets, broadcast_buckets } = self;
        let registry = registry.unwrap_or_default();
        let series = AllSeries {
            connections_active: names.gauge(names::CONNECTIONS_ACTIVE)?,
            connections: names.counter(names::CONNECTIONS)?,
            received: names.counter(names::RECEIVED)?,
            received_bytes: names.counter(names::RECEIVED_BYTES)?,
            sent: names.counter(names::SENT)?,
            sent_bytes: names.counter(names::SENT_BYTES)?,
            dropped: names.counter(names::DROPPED)?,
            latency: names.histogram(names::LATENCY, latency_buckets)?,
            broadcast: names.histogram(names::BROADCAST, broadcast_buckets)?,
            rooms_active: names.gauge(names::ROOMS_ACTIVE)?,
            joins: names.counter(names::JOINS)?,
            leaves: names.counter(names::LEAVES)?,
            history_gaps: names.counter(names::HISTORY_GAPS)?,
            history_evictions: names.counter(names::HISTORY_EVICTIONS)?,
            call_timeouts: names.counter(names::CALL_TIMEOUTS)?,
            late_replies: names.counter(names::LATE_REPLIES)?,
            published: names.counter(names::ADAPTER_PUBLISHED)?,
            adapter_received: names.counter(names::ADAPTER_RECEIVED)?,
            adapter_dropped: names.counter(names::ADAPTER_DROPPED)?,
            adapter_connects: names.counter(names::ADAPTER_CONNECTS)?,
            adapter_disconnects: names.counter(names::ADAPTER_DISCONNECTS)?,
            errors: IntCounterVec::new(names.opts(names::ERRORS), &[ERROR_LABEL])?,
        };
        registry.register(Box::new(series.clone()))?;
        Ok(PrometheusMetrics { registry, names, series })
    }
}

impl PrometheusMetrics {
    /// Creates metrics with the defaults, in a registry of their own.
    ///
    /// # Errors
    ///
    /// Same as [`PrometheusBuilder::build`]; with the defaults none is known.
    pub fn new() -> Result<Self, Error> {
        Self::builder().build()
    }

    /// Sets other names, labels, buckets or another registry.
    pub fn builder() -> PrometheusBuilder {
        PrometheusBuilder {
            registry: None,
            names: Names { namespace: NAMESPACE.into(), subsystem: String::new(), labels: HashMap::new() },
            latency_buckets: DEFAULT_BUCKETS.to_vec(),
            broadcast_buckets: BROADCAST_BUCKETS.to_vec(),
        }
    }

    /// The registry of these metrics.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the gauges as a collector, named and labelled like the other series, for a registry that is scraped
    /// without [`handler`](PrometheusMetrics::handler).
    ///
    /// # Errors
    ///
    /// None is known, because the same names have already been accepted.
    pub fn collector(&self, gauges: Gauges) -> Result<impl Collector + 'static, Error> {
        GaugeCollector::new(self.names.clone(), gauges)
    }

    /// Everything in the registry plus these gauges, in the text exposition format 0.0.4. Do not pass gauges that a
    /// [`collector`](PrometheusMetrics::collector) in the registry already shows.
    ///
    /// # Errors
    ///
    /// Another collector in the same registry yields metrics that cannot be encoded.
    pub fn text(&self, gauges: &Gauges) -> Result<String, Error> {
        let mut families = self.registry.gather();
        families.extend(GaugeCollector::new(self.names.clone(), gauges.clone())?.collect());
        TextEncoder::new().encode_to_string(&families)
    }

    /// Answers scrapes, for [`Server::handle`](crate::Server::handle): [`text`](PrometheusMetrics::text) for `GET` and
    /// `HEAD`, otherwise 405.
    pub fn handler(self: &Arc<Self>, gauges: Gauges) -> impl Fn(&Request) -> Response + Send + Sync + 'static {
        let metrics = Arc::clone(self);
        move |request: &Request| scrape::answer(request, || metrics.text(&gauges).map_err(|error| error.to_string()))
    }
}

impl fmt::Debug for PrometheusMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrometheusMetrics").field("names", &self.names).finish_non_exhaustive()
    }
}

impl AllSeries {
    fn each(&self) -> [&dyn Collector; 22] {
        [
            &self.connections_active,
            &self.connections,
            &self.received,
            &self.received_bytes,
            &self.sent,
            &self.sent_bytes,
            &self.dropped,
            &self.latency,
            &self.broadcast,
            &self.rooms_active,
            &self.joins,
            &self.leaves,
            &self.history_gaps,
            &self.history_evictions,
            &self.call_timeouts,
            &self.late_replies,
            &self.published,
            &self.adapter_received,
            &self.adapter_dropped,
            &self.adapter_connects,
            &self.adapter_disconnects,
            &self.errors,
        ]
    }
}

/// One collector for all series, so that all or none are registered.
impl Collector for AllSeries {
    fn desc(&self) -> Vec<&Desc> {
        self.each().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.each().into_iter().flat_map(Collector::collect).collect()
    }
}

/// Gauges that are read on each scrape.
struct GaugeCollector {
    names: Names,
    gauges: Gauges,
    descriptions: Vec<Desc>,
}

impl GaugeCollector {
    fn new(names: Names, gauges: Gauges) -> Result<Self, Error> {
        let one = |series| Ok(names.gauge(series)?.desc().into_iter().cloned().collect::<Vec<_>>());
        let described: Result<Vec<Vec<Desc>>, Error> =
            gauges.read().into_iter().map(|(series, _)| one(series)).collect();
        Ok(Self { descriptions: described?.concat(), names, gauges })
    }
}

impl Collector for GaugeCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let shown = self.gauges.read().into_iter();
        let gauges = shown.filter_map(|(series, value)| {
            // `new` has already accepted the name.
            let gauge = self.names.gauge(series).ok()?;
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            Some(gauge)
        });
        gauges.flat_map(|gauge| gauge.collect()).collect()
    }
}

impl Metrics for PrometheusMetrics {
    fn increment_connections(&self) {
        self.series.connections_active.inc();
        self.series.connections.inc();
    }

    fn decrement_connections(&self) {
        self.series.connections_active.dec();
    }

    fn increment_messages_received(&self) {
        self.series.received.inc();
    }

    fn increment_messages_sent(&self, count: usize) {
        self.series.sent.inc_by(count as u64);
    }

    fn increment_bytes_sent(&self, bytes: usize) {
        self.series.sent_bytes.inc_by(bytes as u64);
    }

    fn increment_messages_dropped(&self) {
        self.series.dropped.inc();
    }

    fn record_message_size(&self, size: usize) {
        self.series.received_bytes.inc_by(size as u64);
    }

    fn record_latency(&self, duration: Duration) {
        self.series.latency.observe(duration.as_secs_f64());
    }

    fn record_broadcast_duration(&self, duration: Duration) {
        self.series.broadcast.observe(duration.as_secs_f64());
    }

    fn increment_room_joins(&self) {
        self.series.joins.inc();
    }

    fn increment_room_leaves(&self) {
        self.series.leaves.inc();
    }

    fn increment_history_gaps(&self) {
        self.series.history_gaps.inc();
    }

    fn increment_history_evictions(&self) {
        self.series.history_evictions.inc();
    }

    fn increment_call_timeouts(&self) {
        self.series.call_timeouts.inc();
    }

    fn increment_late_replies(&self) {
        self.series.late_replies.inc();
    }

    fn increment_rooms(&self) {
        self.series.rooms_active.inc();
    }

    fn decrement_rooms(&self) {
        self.series.rooms_active.dec();
    }

    fn increment_adapter_published(&self) {
        self.series.published.inc();
    }

    fn increment_adapter_received(&self) {
        self.series.adapter_received.inc();
    }

    fn increment_adapter_dropped(&self) {
        self.series.adapter_dropped.inc();
    }

    fn increment_adapter_connects(&self) {
        self.series.adapter_connects.inc();
    }

    fn increment_adapter_disconnects(&self) {
        self.series.adapter_disconnects.inc();
    }

    fn increment_errors(&self, error: ErrorType) {
        self.series.errors.with_label_values(&[error.as_str()]).inc();
    }
}
