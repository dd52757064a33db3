//! Hooks report levels, not edges: the last reported level is compared with the current one, and the difference is
//! reported, in order.
//!
//! A level is `None` (absent) or `Some` (present, with a value). Code that changes a level calls
//! [`changed`](Levels::changed) under the lock that guards it. If that returns a ticket, the caller reports without a
//! lock: it takes [`next`](Levels::next) under the same lock and calls the hook, until nothing is left. If another
//! thread holds the ticket, that thread reports the change. So the hooks of one key alternate and never overlap, and
//! any number of changes while a hook runs costs one entry.

use std::borrow::Borrow;
use std::collections::BTreeMap;

/// Keys whose hooks run or wait, each with the last reported level. For any other key, the current level is reported.
///
/// When empty, it allocates nothing.
#[derive(Debug)]
pub(crate) struct Levels<K, L = ()>(BTreeMap<K, Option<L>>);

/// A change to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// Present: joined, online, connected.
    Up,
    /// Absent: left, offline, disconnected.
    Down,
}

impl<K, L> Default for Levels<K, L> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, L: Copy + Eq> Levels<K, L> {
    /// Records that the key's level has changed from `before`. Returns true if the caller now has the key's ticket.
    #[must_use = "the hooks of this key wait for the ticket's holder"]
    pub(crate) fn changed(&mut self, key: K, before: Option<L>) -> bool {
        let mut has_ticket = false;
        self.0.entry(key).or_insert_with(|| {
            has_ticket = true;
            before
        });
        has_ticket
    }

    /// Called by the ticket's holder. Returns the next change to report, which then counts as reported. Returns `None`
    /// if the last report equals `is`; the ticket is then released. A change between two present levels is reported as
    /// absent first.
    pub(crate) fn next<Q: Ord + ?Sized>(&mut self, key: &Q, is: Option<L>) -> Option<Edge>
    where
        K: Borrow<Q>,
    {
        let told = self.0.get_mut(key)?;
        if *told == is {
            self.0.remove(key);
            return None;
        }
        *told = if told.is_some() { None } else { is };
        Some(if told.is_some() { Edge::Up } else { Edge::Down })
    }

    /// Called by the ticket's holder. Releases the ticket if the last report equals `is`. Returns false if there is
    /// more to report.
    pub(crate) fn give_back<Q: Ord + ?Sized>(&mut self, key: &Q, is: Option<L>) -> bool
    where
        K: Borrow<Q>,
    {
        let is_settled = self.0.get(key).is_none_or(|told| *told == is);
        if is_settled {
            self.0.remove(key);
        }
        is_settled
    }
}

impl<K, L> Levels<K, L> {
    /// Whether no hook runs or waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_thread_has_the_ticket_and_tells_the_difference() {
        let mut levels = Levels::<&str>::default();
        assert!(levels.changed("ann", None), "came");
        assert_eq!(levels.next("ann", Some(())), Some(Edge::Up));
        assert!(!levels.changed("ann", Some(())), "went");
        assert!(!levels.changed("ann", None), "came again");
        assert!(levels.changed("bob", None), "another key has its own ticket");
        assert_eq!(levels.next("ann", Some(())), None, "nothing has changed in the end");
        assert!(levels.changed("ann", Some(())), "a new ticket");
        assert!(!levels.give_back("ann", None), "there is something to tell");
        assert_eq!(levels.next("ann", None), Some(Edge::Down));
        assert!(levels.give_back("ann", None));
        assert!(levels.changed("ann", None), "given back");
    }

    #[test]
    fn a_replacement_is_told_as_gone_and_then_come() {
        let mut levels = Levels::<&str, u64>::default();
        assert!(levels.changed("lock", Some(1)));
        assert_eq!(levels.next("lock", Some(2)), Some(Edge::Down));
        assert_eq!(levels.next("lock", Some(3)), Some(Edge::Up));
        assert_eq!(levels.next("lock", Some(3)), None);
    }

    /// One step of one of several threads.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// The level becomes this.
        Set(Option<u8>),
        /// The holder's hook returns, and it asks for more.
        Tell,
        /// The holder's hook returns, and it stops unless there is more.
        GiveBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        let level = prop_oneof![Just(None), (1_u8..4).prop_map(Some)];
        prop_oneof![level.prop_map(Step::Set), Just(Step::Tell), Just(Step::GiveBack)]
    }

    proptest! {
        /// Whatever the order of changes and of hooks that return: the hooks alternate, begin with `Up`, have one
        /// holder at a time, and end with what is.
        #[test]
        fn told_follows_what_is(steps in prop::collection::vec(step(), 0..200)) {
            let mut levels = Levels::<&str, u8>::default();
            let (mut is, mut told, mut holders) = (None, Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Set(level) if level != is => {
                        let has_ticket = levels.changed("k", is);
                        is = level;
                        prop_assert_eq!(has_ticket, holders == 0);
                        holders += u32::from(has_ticket);
                    }
                    Step::Tell if holders == 1 => match levels.next("k", is) {
                        Some(edge) => told.push(edge),
                        None => holders = 0,
                    },
                    Step::GiveBack if holders == 1 => holders -= u32::from(levels.give_back("k", is)),
                    _ => {}
                }
                prop_assert!(holders <= 1);
            }
            while holders == 1 {
                match levels.next("k", is) {
                    Some(edge) => told.push(edge),
                    None => holders = 0,
                }
            }
            for (at, edge) in told.iter().enumerate() {
                prop_assert_eq!(*edge, if at % 2 == 0 { Edge::Up } else { Edge::Down });
            }
            prop_assert_eq!(told.last() == Some(&Edge::Up), is.is_some());
            prop_assert!(levels.0.is_empty(), "settled keys cost nothing");
        }
    }
}
