use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::*;

#[allow(clippy::unnecessary_wraps, reason = "as a loader gives them")]
fn names(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|&name| name.to_owned()).collect())
}

fn devices(subscriptions: &Subscriptions, user: &str) -> Vec<String> {
    let mut devices: Vec<String> = subscriptions.devices_of(user).iter().map(ToString::to_string).collect();
    devices.sort();
    devices
}

fn is_empty(subscriptions: &Subscriptions) -> bool {
    let state = subscriptions.0.lock();
    state.by_user.is_empty() && state.by_device.is_empty()
}

#[test]
fn both_directions_agree() {
    let subscriptions = Subscriptions::default();
    subscriptions.load("ann", |_| names(&["a", "b", "a"]));
    subscriptions.load("bob", |_| names(&["b"]));
    assert_eq!(devices(&subscriptions, "ann"), ["a", "b"]);
    assert_eq!((subscriptions.users_of("a").len(), subscriptions.users_of("b").len()), (1, 2));
    subscriptions.reload("ann", |_| names(&["c"]));
    assert!(subscriptions.contains("ann", "c") && !subscriptions.contains("ann", "a"));
    let mark = subscriptions.mark();
    subscriptions.load_missing("ann", |_| panic!("it is there"));
    assert!(!subscriptions.remove_unless_touched("ann", mark), "a connection has asked for it since");
    assert!(subscriptions.contains("ann", "c"));
    assert!(subscriptions.remove_unless_touched("ann", subscriptions.mark()));
    subscriptions.remove("bob");
    subscriptions.remove("nobody");
    subscriptions.reload("nobody", |_| panic!("nobody has loaded it"));
    assert!(is_empty(&subscriptions));
}

#[test]
fn a_connection_that_finds_nothing_keeps_what_it_loads() {
    let subscriptions = Subscriptions::default();
    let mark = subscriptions.mark();
    subscriptions.load_missing("ann", |_| {
        assert!(!subscriptions.remove_unless_touched("ann", mark), "while it loads");
        names(&["a"])
    });
    assert!(!subscriptions.remove_unless_touched("ann", mark), "after it has loaded");
    assert_eq!(devices(&subscriptions, "ann"), ["a"]);
}

#[test]
fn a_load_that_an_invalidation_overtakes_is_thrown_away() {
    let subscriptions = Subscriptions::default();
    subscriptions.load("ann", |_| {
        let touched = subscriptions.touched_by("new");
        assert_eq!(touched.len(), 1, "it may turn out to be subscribed");
        subscriptions.reload("ann", |_| names(&["new"]));
        names(&["old"])
    });
    assert_eq!(devices(&subscriptions, "ann"), ["new"]);
}

#[test]
fn of_two_loads_the_one_that_began_later_counts() {
    let subscriptions = Subscriptions::default();
    subscriptions.load("ann", |_| {
        subscriptions.load("ann", |_| names(&["later"]));
        names(&["earlier"])
    });
    assert_eq!(devices(&subscriptions, "ann"), ["later"]);
}

#[test]
fn a_load_that_a_removal_overtakes_leaves_nothing() {
    let subscriptions = Subscriptions::default();
    subscriptions.load("ann", |_| {
        subscriptions.remove("ann");
        names(&["old"])
    });
    assert!(is_empty(&subscriptions));
}

#[test]
fn an_invalidation_in_an_invalidation_counts() {
    let subscriptions = Subscriptions::default();
    subscriptions.load("ann", |_| names(&["first"]));
    subscriptions.reload("ann", |_| {
        subscriptions.reload("ann", |_| names(&["third"]));
        names(&["second"])
    });
    assert_eq!(devices(&subscriptions, "ann"), ["third"]);
}

#[test]
fn a_reload_that_fails_leaves_nothing_unless_a_later_load_succeeds() {
    let subscriptions = Subscriptions::default();
    subscriptions.load("ann", |_| names(&["a"]));
    subscriptions.load("ann", |_| None);
    assert_eq!(devices(&subscriptions, "ann"), ["a"], "nothing has been invalidated");
    subscriptions.reload("ann", |_| None);
    assert!(is_empty(&subscriptions));
    subscriptions.load("ann", |_| names(&["a"]));
    let reload = || subscriptions.reload("ann", |_| panic!("no database"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(reload)).is_err());
    assert!(is_empty(&subscriptions));
    subscriptions.load("ann", |_| names(&["a"]));
    subscriptions.reload("ann", |_| {
        subscriptions.load("ann", |_| names(&["b"]));
        None
    });
    assert_eq!(devices(&subscriptions, "ann"), ["b"]);
}

#[test]
fn a_loader_that_panics_leaves_what_was_there() {
    let subscriptions = Subscriptions::default();
    let load = |user: &str| {
        let panics = || subscriptions.load(user, |_| panic!("no database"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    };
    load("ann");
    assert!(is_empty(&subscriptions));
    subscriptions.load("ann", |_| names(&["a"]));
    load("ann");
    assert_eq!(devices(&subscriptions, "ann"), ["a"]);
}

/// The source changes constantly: after each change and its invalidation, no older result may remain.
#[test]
fn races_never_leave_what_is_stale() {
    const CHANGES: usize = 3000;
    let (subscriptions, version, is_over) = (Subscriptions::default(), AtomicUsize::new(0), AtomicBool::new(false));
    let read = |_: &str| {
        let read = version.load(Ordering::SeqCst);
        thread::yield_now();
        Some(vec![read.to_string()])
    };
    subscriptions.load("ann", read);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    subscriptions.load("ann", read);
                }
            });
        }
        for change in 1..=CHANGES {
            version.store(change, Ordering::SeqCst);
            subscriptions.reload("ann", read);
            let found = devices(&subscriptions, "ann");
            if found != [change.to_string()] {
                is_over.store(true, Ordering::SeqCst);
                panic!("{found:?} after change {change}");
            }
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert_eq!(devices(&subscriptions, "ann"), [CHANGES.to_string()]);
}
