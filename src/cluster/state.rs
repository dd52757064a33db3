//! The state of the link to the bus, derived from the reports of its two threads.

use super::adapter::AdapterState;

/// One of the two connections to the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Publish,
    Subscribe,
}

/// | publishing | subscription | state |
/// | --- | --- | --- |
/// | works | works | connected |
/// | failed | any | disconnected |
/// | any | failed | disconnected |
/// | otherwise | | connecting |
///
/// The state is `closed` once the link has ended, whatever the halves report.
#[derive(Debug, Default)]
pub(super) struct Halves {
    publish: Option<bool>,
    subscribe: Option<bool>,
    closed: bool,
}

impl Halves {
    pub(super) fn state(&self) -> AdapterState {
        match (self.closed, self.publish, self.subscribe) {
            (true, ..) => AdapterState::Closed,
            (_, Some(true), Some(true)) => AdapterState::Connected,
            (_, Some(false), _) | (_, _, Some(false)) => AdapterState::Disconnected,
            _ => AdapterState::Connecting,
        }
    }

    /// Sets a half and returns whether it has changed. A closed link no longer changes.
    pub(super) fn set(&mut self, half: Half, works: bool) -> bool {
        let field = match half {
            Half::Publish => &mut self.publish,
            Half::Subscribe => &mut self.subscribe,
        };
        !self.closed && field.replace(works) != Some(works)
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.subscribe == Some(true)
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_make_a_connection_and_one_breaks_it() {
        let mut halves = Halves::default();
        assert_eq!(halves.state(), AdapterState::Connecting);
        assert!(halves.set(Half::Publish, true));
        assert_eq!(halves.state(), AdapterState::Connecting);
        assert!(halves.set(Half::Subscribe, true));
        assert_eq!(halves.state(), AdapterState::Connected);
        assert!(!halves.set(Half::Subscribe, true));
        assert!(halves.set(Half::Publish, false));
        assert_eq!(halves.state(), AdapterState::Disconnected);
        halves.close();
        assert_eq!(halves.state(), AdapterState::Closed);
        assert!(!halves.set(Half::Publish, true));
    }
}
