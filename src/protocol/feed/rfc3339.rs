//! Timestamps in the form of RFC 3339.

use std::fmt;
use std::time::Duration;

/// A time since 1970 as `YYYY-MM-DDThh:mm:ss.nnnnnnnnnZ`. The year has four digits: callers must avoid later times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rfc3339(pub(super) Duration);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let nanos = self.0.subsec_nanos();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }
}

/// Year, month and day of the Gregorian calendar, from the days since 1970.
///
/// Years begin in March here, so that the leap day is the last day of a year and months follow one formula. An era of
/// 400 years has 146,097 days. 1970-01-01 is day 719,468 since 0000-03-01.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    // Removes the leap days: one in 4 years, none in 100, one in 400.
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // March is 0. Every five months have 153 days: 31, 30, 31, 30, 31.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let is_next_year = month >= 10;
    (400 * era + year_of_era + u64::from(is_next_year), if is_next_year { month - 9 } else { month + 3 }, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, 999_999_999, "2000-02-28T23:59:59.999999999Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000000000Z"),
            (951_868_800, 1, "2000-03-01T00:00:00.000000001Z"),
            (1_700_000_000, 1_020_300, "2023-11-14T22:13:20.001020300Z"),
            (4_107_542_399, 0, "2100-02-28T23:59:59.000000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59.000000000Z"),
        ] {
            assert_eq!(Rfc3339(Duration::new(seconds, nanos)).to_string(), text);
        }
    }

    /// Counts day by day with the calendar's rules, until the year 10000.
    #[test]
    fn every_day_follows_the_day_before() {
        let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0.. {
            if year == 10_000 {
                break;
            }
            assert_eq!(date(days), (year, month, day));
            let february = if is_leap(year) { 29 } else { 28 };
            let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            day += 1;
            if day > lengths[usize::try_from(month).unwrap() - 1] {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
