//! Finds the options of a room: by its name, or by the longest prefix of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::options::RoomOptions;
use crate::config::MAX_ROOM_NAME;
use crate::error::ConfigError;

/// Options by names and prefixes. Written only while a hub is set up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patterns {
    exact: HashMap<Box<str>, Arc<RoomOptions>>,
    /// Longest first.
    prefixes: Vec<(Box<str>, Arc<RoomOptions>)>,
    /// The first error among the added patterns.
    fault: Option<ConfigError>,
}

impl Patterns {
    /// Adds a pattern: a name, or a prefix that ends in `*`. An existing pattern gets the new options.
    pub(crate) fn add(&mut self, pattern: &str, options: RoomOptions) {
        let fault = options.validate().and_then(|()| Self::check(pattern)).err();
        self.fault = self.fault.take().or(fault);
        let options = Arc::new(options);
        let Some(prefix) = pattern.strip_suffix('*') else {
            self.exact.insert(pattern.into(), options);
            return;
        };
        self.prefixes.retain(|(other, _)| **other != *prefix);
        let at = self.prefixes.partition_point(|(other, _)| other.len() >= prefix.len());
        self.prefixes.insert(at, (prefix.into(), options));
    }

    fn check(pattern: &str) -> Result<(), ConfigError> {
        if pattern.is_empty() {
            return Err(ConfigError::new("rooms", "the pattern is empty"));
        }
        if pattern.strip_suffix('*').unwrap_or(pattern).len() > MAX_ROOM_NAME {
            return Err(ConfigError::new("rooms", "the pattern is longer than 256 bytes"));
        }
        Ok(())
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// Whether any room shares its history.
    #[cfg(feature = "cluster")]
    pub(crate) fn is_any_shared(&self) -> bool {
        self.exact.values().chain(self.prefixes.iter().map(|(_, options)| options)).any(|options| options.shared)
    }

    /// Whether any room tracks its members.
    #[cfg(feature = "cluster")]
    pub(crate) fn has_members(&self) -> bool {
        self.exact.values().chain(self.prefixes.iter().map(|(_, options)| options)).any(|options| options.members)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }

    /// The options of the longest match; an exact name takes precedence over any prefix.
    pub(crate) fn find(&self, room: &str) -> Option<&Arc<RoomOptions>> {
        let by_prefix = || self.prefixes.iter().find(|(prefix, _)| room.starts_with(&**prefix)).map(|(_, o)| o);
        self.exact.get(room).or_else(by_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn found(patterns: &Patterns, room: &str) -> Option<usize> {
        patterns.find(room).map(|options| options.messages)
    }

    #[test]
    fn the_longest_match_wins() {
        let mut patterns = Patterns::default();
        for (pattern, messages) in [("*", 1), ("a:*", 2), ("a:b*", 3), ("a:b", 4), ("a:b*", 5), ("x*y", 6)] {
            patterns.add(pattern, RoomOptions::history().messages(messages));
        }
        assert_eq!(patterns.validate(), Ok(()));
        let expected = [("", 1), ("z", 1), ("a:", 2), ("a:c", 2), ("a:b", 4), ("a:bc", 5), ("x*y", 6), ("x1y", 1)];
        for (room, messages) in expected {
            assert_eq!(found(&patterns, room), Some(messages), "{room}");
        }
        assert_eq!(found(&Patterns::default(), "a"), None);
    }

    #[test]
    fn options_that_make_no_sense_are_errors_by_their_name() {
        let fault = |options: RoomOptions| {
            let mut patterns = Patterns::default();
            patterns.add("a", RoomOptions::history());
            patterns.add("b", options);
            patterns.validate().err().map(|e| e.field())
        };
        assert_eq!(fault(RoomOptions::history()), None);
        assert_eq!(fault(RoomOptions::default()), None);
        assert_eq!(fault(RoomOptions::history().messages(0)), Some("messages"));
        assert_eq!(fault(RoomOptions::history().bytes(0)), Some("bytes"));
        let nano = Duration::from_nanos(1);
        let year_and_more = Duration::from_secs(367 * 24 * 3600);
        for wrong in [Duration::ZERO, nano, year_and_more, Duration::MAX.saturating_sub(nano)] {
            assert_eq!(fault(RoomOptions::history().age(wrong)), Some("age"), "{wrong:?}");
        }
        for wrong in [nano, year_and_more] {
            assert_eq!(fault(RoomOptions::history().linger(wrong)), Some("linger"), "{wrong:?}");
        }
        for right in [Duration::ZERO, Duration::MAX] {
            assert_eq!(fault(RoomOptions::history().linger(right)), None, "{right:?}");
        }
        assert_eq!(fault(RoomOptions::history().messages(usize::MAX)), Some("messages"));
        assert_eq!(fault(RoomOptions::history().bytes((1 << 30) + 1)), Some("bytes"));
        assert_eq!(fault(RoomOptions::state().state_keys(usize::MAX)), Some("state_keys"));
        assert_eq!(fault(RoomOptions::state().state_bytes(usize::MAX)), Some("state_bytes"));
        assert_eq!(fault(RoomOptions::history().rewind(101)), Some("rewind"));
        assert_eq!(fault(RoomOptions::state().rewind(1)), Some("rewind"));
        assert_eq!(fault(RoomOptions::state().state_keys(0)), Some("state_keys"));
        assert_eq!(fault(RoomOptions::state().state_bytes(0)), Some("state_bytes"));
        assert_eq!(fault(RoomOptions::state().at_most(1001)), Some("at_most"));
        assert_eq!(fault(RoomOptions::history().at_most(1)), Some("at_most"));
        let long = RoomOptions::members().member_linger(Duration::from_secs(24 * 3600 + 1));
        assert_eq!(fault(long), Some("member_linger"));
        let error = RoomOptions::history().rewind(101).validate().unwrap_err();
        assert_eq!(error.to_string(), "rewind 101 must not exceed messages 100");
        for pattern in ["", &"x".repeat(257)] {
            let mut patterns = Patterns::default();
            patterns.add(pattern, RoomOptions::history());
            assert_eq!(patterns.validate().err().map(|e| e.field()), Some("rooms"));
        }
    }
}
