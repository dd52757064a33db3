//! Two metrics at once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::metrics::{DebugStats, ErrorType, Metrics, guarded};

/// Forwards everything to two metrics sinks: a registry that is scraped, and a
/// [`DebugMetrics`](crate::metrics::DebugMetrics) for the program or its dashboard. For more, pair a pair.
///
/// ```
/// use std::sync::Arc;
/// use wshub::{Hub, metrics::{DebugMetrics, MetricsPair}};
///
/// let (one, other) = (Arc::new(DebugMetrics::new()), Arc::new(DebugMetrics::new()));
/// let hub = Hub::builder().metrics(Arc::new(MetricsPair::new(one, other))).build()?;
/// # Ok::<(), wshub::ConfigError>(())
/// ```
pub struct MetricsPair(Arc<dyn Metrics>, Arc<dyn Metrics>);

impl MetricsPair {
    /// Combines two sinks, called in this order. A panic of one does not stop the other from counting.
    pub fn new(first: Arc<dyn Metrics>, second: Arc<dyn Metrics>) -> Self {
        Self(first, second)
    }
}

impl fmt::Debug for MetricsPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsPair")
    }
}

/// Must list every method of the trait: a missing one would do nothing.
macro_rules! forward {
    ($($name:ident($($argument:ident: $kind:ty)?);)*) => {
        impl Metrics for MetricsPair {
            $(fn $name(&self $(, $argument: $kind)?) {
                guarded(|| self.0.$name($($argument)?));
                guarded(|| self.1.$name($($argument)?));
            })*

            /// Returns the stats of the first sink that has any.
            fn debug_stats(&self) -> Option<DebugStats> {
                self.0.debug_stats().or_else(|| self.1.debug_stats())
            }
        }
    };
}

forward! {
    increment_connections();
    decrement_connections();
    increment_messages_received();
    increment_messages_sent(count: usize);
    increment_bytes_sent(bytes: usize);
    increment_messages_dropped();
    record_message_size(size: usize);
    record_latency(duration: Duration);
    record_broadcast_duration(duration: Duration);
    increment_room_joins();
    increment_room_leaves();
    increment_rooms();
    decrement_rooms();
    increment_history_gaps();
    increment_history_evictions();
    increment_adapter_published();
    increment_adapter_received();
    increment_adapter_dropped();
    increment_late_replies();
    increment_call_timeouts();
    increment_adapter_connects();
    increment_adapter_disconnects();
    increment_errors(error: ErrorType);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::DebugMetrics;

    struct Broken;

    impl Metrics for Broken {
        fn increment_messages_sent(&self, _count: usize) {
            panic!("on purpose");
        }
    }

    #[test]
    fn both_count_and_neither_keeps_the_other_from_it() {
        let (one, other) = (Arc::new(DebugMetrics::new()), Arc::new(DebugMetrics::new()));
        let inner = MetricsPair::new(Arc::new(Broken), other.clone());
        let pair = MetricsPair::new(one.clone(), Arc::new(inner));
        pair.increment_messages_sent(3);
        pair.increment_errors(ErrorType::Panic);
        for stats in [one.stats(), other.stats()] {
            assert_eq!((stats.messages_sent, stats.errors[&ErrorType::Panic]), (3, 1));
        }
    }

    #[test]
    fn every_method_of_the_trait_is_passed_on() {
        let names = |text: &str, mark: &str| -> Vec<String> {
            let name = |line: &str| Some(line.trim().strip_prefix(mark)?.split('(').next()?.to_owned());
            text.lines().filter_map(name).collect()
        };
        let source = include_str!("../metrics/mod.rs");
        let of_trait = source.split("pub trait Metrics").nth(1).and_then(|rest| rest.split("\n}").next());
        let mut declared = names(of_trait.expect("the trait"), "fn ");
        // It only reads stats and counts nothing.
        declared.retain(|name| name != "debug_stats");
        let passed_on = include_str!("pair.rs").split("\nforward! {").nth(1).and_then(|rest| rest.split("\n}").next());
        assert_eq!(names(passed_on.expect("the list"), ""), [vec![String::new()], declared].concat());
    }
}
