//! Latencies: recorded in nanoseconds, told in milliseconds.

use hdrhistogram::Histogram;
use std::time::Duration;

/// Longer latencies count as this.
const LONGEST_NANOS: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// Latencies, each known to three significant digits.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_max(LONGEST_NANOS, DIGITS);
        Self(histogram.unwrap_or_else(|error| unreachable!("constant bounds: {error}")))
    }

    pub(crate) fn record_nanos(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.record_nanos(u64::try_from(time.as_nanos()).unwrap_or(LONGEST_NANOS));
    }

    /// `None` when nothing was recorded.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let ms = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e6;
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(ms);
        // The upper end of the bucket, as the others: so that no percentile is above the maximum.
        (!self.0.is_empty()).then(|| Percentiles { count: self.0.len(), p50, p90, p99, p999, max: ms(1.0) })
    }
}

/// In milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Percentiles {
    /// With their names, from the least to the greatest.
    pub(crate) fn named(&self) -> [(&'static str, f64); 5] {
        [("p50", self.p50), ("p90", self.p90), ("p99", self.p99), ("p99.9", self.p999), ("max", self.max)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.percentiles(), None);
        (1..=10_000).for_each(|micros| latencies.record(Duration::from_micros(micros)));
        let percentiles = latencies.percentiles().unwrap();
        assert_eq!(percentiles.count, 10_000);
        for ((name, ms), expected) in percentiles.named().into_iter().zip([5.0, 9.0, 9.9, 9.99, 10.0]) {
            assert!((ms / expected - 1.0).abs() < 0.001, "{name}: {ms}");
        }
        latencies.record(Duration::MAX);
        assert!(latencies.percentiles().unwrap().max >= 3_600_000.0);
    }
}
