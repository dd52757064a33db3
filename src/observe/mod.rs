//! What an operator can see of a running hub: counts, gauges and scrapes.

#[cfg(feature = "dashboard")]
mod dashboard;
mod gauges;
mod names;
mod pair;
#[cfg(feature = "prometheus")]
mod prometheus;
mod scrape;
mod text;

#[cfg(feature = "dashboard")]
pub use dashboard::Dashboard;
pub use gauges::Gauges;
pub use pair::MetricsPair;
#[cfg(feature = "prometheus")]
pub use prometheus::{PrometheusBuilder, PrometheusMetrics};
