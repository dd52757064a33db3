//! What an operator sees of a running hub: counts, gauges, scrapes.

mod gauges;
mod names;
#[cfg(feature = "prometheus")]
mod prometheus;
mod scrape;
mod text;

pub use gauges::Gauges;
#[cfg(feature = "prometheus")]
pub use prometheus::{PrometheusBuilder, PrometheusMetrics};
