//! Bounds of settings. Every number and duration has a minimum and a maximum; the error names setting, value and
//! bounds.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::ConfigError;

/// The longest duration besides "for ever", which is [`Duration::MAX`]. Adding it to a clock does not overflow.
pub(crate) const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
/// The shortest timeout or period. Shorter ones would keep a processor busy.
pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
/// Maximum size of anything that is kept in memory, in bytes.
pub(crate) const GIB: usize = 1 << 30;
/// Maximum of every count: more than a machine can hold.
pub(crate) const COUNT: usize = 1 << 30;
/// Maximum size of what all connections or rooms hold together: 1 TiB, or 1 GiB on 32-bit systems.
pub(crate) const ALL_MEMORY: usize = GIB << (if usize::BITS > 32 { 10 } else { 0 });
/// Maximum number of events a second.
pub(crate) const PER_SECOND: u32 = 1_000_000;

/// A value that has bounds.
pub(crate) trait Bounded: Debug + Copy + PartialOrd + Default {
    /// The value that means "no end". It is allowed whatever the upper bound is.
    const FOR_EVER: Option<Self>;
}

impl Bounded for usize {
    const FOR_EVER: Option<Self> = None;
}

impl Bounded for u32 {
    const FOR_EVER: Option<Self> = None;
}

impl Bounded for Duration {
    const FOR_EVER: Option<Self> = Some(Self::MAX);
}

/// Refuses a value outside of its bounds.
pub(crate) fn check<T: Bounded>(setting: &'static str, value: T, bounds: RangeInclusive<T>) -> Result<(), ConfigError> {
    if bounds.contains(&value) || T::FOR_EVER == Some(value) {
        return Ok(());
    }
    Err(ConfigError::out_of_bounds(setting, value, format!("must be {}", text(&bounds))))
}

/// As [`check`], for a setting in which 0 has a meaning of its own.
pub(crate) fn check_or_zero<T: Bounded>(
    setting: &'static str,
    value: T,
    bounds: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if value == T::default() || check(setting, value, bounds.clone()).is_ok() {
        return Ok(());
    }
    Err(ConfigError::out_of_bounds(setting, value, format!("must be 0 or {}", text(&bounds))))
}

/// Refuses a duration outside of its bounds. It must not be for ever.
#[cfg(any(feature = "cluster", feature = "protocols"))]
pub(crate) fn check_finite(
    setting: &'static str,
    value: Duration,
    bounds: &RangeInclusive<Duration>,
) -> Result<(), ConfigError> {
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(ConfigError::out_of_bounds(setting, value, format!("must be {}", range(bounds))))
}

fn text<T: Bounded>(bounds: &RangeInclusive<T>) -> String {
    let end = if T::FOR_EVER.is_some() { ", or Duration::MAX for no end" } else { "" };
    range(bounds) + end
}

/// Both bounds as text. A year is shown in days.
fn range<T: Debug>(bounds: &RangeInclusive<T>) -> String {
    let year = format!("{YEAR:?}");
    format!("{:?} to {:?}", bounds.start(), bounds.end()).replace(&year, "366 days")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_name_setting_value_and_bounds() {
        let error = check("queue_messages", 0_usize, 1..=64).unwrap_err();
        assert_eq!(error.to_string(), "queue_messages 0 must be 1 to 64");
        assert_eq!((error.field(), error.value(), error.bound()), ("queue_messages", "0", "must be 1 to 64"));
        let error = check_or_zero("heartbeat", Duration::from_nanos(1), MILLISECOND..=YEAR).unwrap_err();
        let bound = "heartbeat 1ns must be 0 or 1ms to 366 days, or Duration::MAX for no end";
        assert_eq!(error.to_string(), bound);
    }

    proptest! {
        #[test]
        fn what_is_inside_passes_and_nothing_else(value in any::<u32>(), a in any::<u32>(), b in any::<u32>()) {
            let (least, most) = (a.min(b), a.max(b));
            let is_inside = least <= value && value <= most;
            prop_assert_eq!(check("x", value, least..=most).is_ok(), is_inside);
            prop_assert_eq!(check_or_zero("x", value, least..=most).is_ok(), is_inside || value == 0);
        }

        #[test]
        fn durations_may_be_for_ever(nanos in any::<u64>()) {
            let value = Duration::from_nanos(nanos);
            let is_inside = (MILLISECOND..=Duration::from_secs(60)).contains(&value);
            prop_assert_eq!(check("x", value, MILLISECOND..=Duration::from_secs(60)).is_ok(), is_inside);
            prop_assert!(check("x", Duration::MAX, MILLISECOND..=Duration::from_secs(60)).is_ok());
        }
    }
}
