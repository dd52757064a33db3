//! The counts of [`DebugMetrics`] in Prometheus' text format, for programs that are scraped but need neither histograms
//! nor a registry.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Arc;

use super::gauges::Gauges;
use super::names::{self, ERROR_LABEL, ERRORS, NAMESPACE, Series};
use super::scrape;
use crate::http::Response;
use crate::metrics::{DebugMetrics, DebugStats, ErrorType, Timing};
use crate::server::Request;

impl DebugMetrics {
    /// The counts and these gauges in Prometheus' text format 0.0.4. Names begin with `wshub_`; times are summaries
    /// without quantiles, which give averages. For histograms, labels and a registry, use `PrometheusMetrics`, feature
    /// `prometheus`.
    pub fn prometheus_text(&self, gauges: &Gauges) -> String {
        let stats = self.stats();
        let mut page = Page::default();
        page.gauge(names::CONNECTIONS_ACTIVE, &stats.active_connections);
        page.gauge(names::ROOMS_ACTIVE, &stats.active_rooms);
        for (series, value) in counters(&stats) {
            page.one(series, "counter", &value);
        }
        page.summary(names::LATENCY, stats.latency);
        page.summary(names::BROADCAST, stats.broadcast);
        page.errors(&stats.errors);
        for (series, value) in gauges.read() {
            page.gauge(series, &value);
        }
        page.0
    }

    /// Answers scrapes, for [`Server::handle`](crate::Server::handle):
    /// [`prometheus_text`](DebugMetrics::prometheus_text) for `GET` and `HEAD`, otherwise 405.
    pub fn handler(self: &Arc<Self>, gauges: Gauges) -> impl Fn(&Request) -> Response + Send + Sync + 'static {
        let metrics = Arc::clone(self);
        move |request: &Request| scrape::answer(request, || Ok(metrics.prometheus_text(&gauges)))
    }
}

fn counters(stats: &DebugStats) -> [(Series, u64); 17] {
    [
        (names::CONNECTIONS, stats.total_connections),
        (names::RECEIVED, stats.messages_received),
        (names::RECEIVED_BYTES, stats.bytes_received),
        (names::SENT, stats.messages_sent),
        (names::SENT_BYTES, stats.bytes_sent),
        (names::DROPPED, stats.messages_dropped),
        (names::JOINS, stats.room_joins),
        (names::LEAVES, stats.room_leaves),
        (names::HISTORY_GAPS, stats.history_gaps),
        (names::HISTORY_EVICTIONS, stats.history_evictions),
        (names::CALL_TIMEOUTS, stats.call_timeouts),
        (names::LATE_REPLIES, stats.late_replies),
        (names::ADAPTER_PUBLISHED, stats.adapter_published),
        (names::ADAPTER_RECEIVED, stats.adapter_received),
        (names::ADAPTER_DROPPED, stats.adapter_dropped),
        (names::ADAPTER_CONNECTS, stats.adapter_connects),
        (names::ADAPTER_DISCONNECTS, stats.adapter_disconnects),
    ]
}

/// The text so far. Writing to a `String` cannot fail.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, Series { name, help }: Series, kind: &str) {
        let _ = writeln!(self.0, "# HELP {NAMESPACE}_{name} {help}\n# TYPE {NAMESPACE}_{name} {kind}");
    }

    fn one(&mut self, series: Series, kind: &str, value: &dyn Display) {
        self.head(series, kind);
        let _ = writeln!(self.0, "{NAMESPACE}_{} {value}", series.name);
    }

    fn gauge(&mut self, series: Series, value: &dyn Display) {
        self.one(series, "gauge", value);
    }

    fn summary(&mut self, series: Series, Timing { count, sum }: Timing) {
        self.head(series, "summary");
        let (name, sum) = (series.name, sum.as_secs_f64());
        let _ = writeln!(self.0, "{NAMESPACE}_{name}_sum {sum}\n{NAMESPACE}_{name}_count {count}");
    }

    /// An application's error type may have the name of a built-in one: both then form one series.
    fn errors(&mut self, errors: &BTreeMap<ErrorType, u64>) {
        self.head(ERRORS, "counter");
        let mut by_name = BTreeMap::new();
        for (error, count) in errors {
            *by_name.entry(error.as_str()).or_insert(0) += count;
        }
        for (error, count) in by_name {
            let error = error.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
            let _ = writeln!(self.0, "{NAMESPACE}_{}{{{ERROR_LABEL}=\"{error}\"}} {count}", ERRORS.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn labels_are_escaped_and_equal_ones_added_up() {
        let metrics = DebugMetrics::new();
        metrics.increment_errors(ErrorType::Custom("a\"b\\c\nd"));
        metrics.increment_errors(ErrorType::Custom("panic"));
        metrics.increment_errors(ErrorType::Panic);
        let text = metrics.prometheus_text(&Gauges::new());
        assert!(text.contains("\nwshub_errors_total{type=\"a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
        assert!(text.contains("\nwshub_errors_total{type=\"panic\"} 2\n"), "{text}");
        assert!(!text.contains("queue_messages"), "{text}");
    }
}
