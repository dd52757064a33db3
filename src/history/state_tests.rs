use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::history::publication::{OVERHEAD, Publish, Subject};

fn state(options: &RoomOptions) -> RoomState {
    RoomState::new(options, Arc::default())
}

fn set(state: &mut RoomState, key: &str, text: &str, expires: Option<Instant>) -> Result<(), StateError> {
    let subject = Subject::Value(key.into());
    let change = Publication::new(&"r".into(), state.next_position(), subject, Publish::new(text));
    state.check(key, change.held())?;
    drop(state.apply(&change, expires));
    Ok(())
}

fn unset(state: &mut RoomState, key: &str) {
    let subject = Subject::Removal(key.into());
    let change = Publication::new(&"r".into(), state.next_position(), subject, Publish::new(""));
    drop(state.apply(&change, None));
}

fn shown(publications: &[Publication]) -> Vec<(String, Option<String>)> {
    let text = |p: &Publication| (!p.is_removal()).then(|| p.message().as_text().expect("text").to_owned());
    publications.iter().map(|p| (p.key().expect("key").to_owned(), text(p))).collect()
}

#[test]
fn over_its_bounds_nothing_changes() {
    let mut state = state(&RoomOptions::state().state_keys(2).state_bytes(3 * OVERHEAD));
    assert_eq!(set(&mut state, "a", "1", None), Ok(()));
    assert_eq!(set(&mut state, "b", "2", None), Ok(()));
    assert_eq!(set(&mut state, "c", "3", None), Err(StateError::TooManyKeys { limit: 2 }));
    assert_eq!(set(&mut state, "b", "3", None), Ok(()), "a key that is there is no new one");
    let large = "x".repeat(OVERHEAD);
    assert_eq!(set(&mut state, "a", &large, None), Err(StateError::TooLarge { limit: 3 * OVERHEAD }));
    assert_eq!(shown(&state.values()), [("a".into(), Some("1".into())), ("b".into(), Some("3".into()))]);
    unset(&mut state, "a");
    assert_eq!((state.len(), state.has("a"), state.has("b")), (1, false, true));
    assert_eq!(set(&mut state, "c", "3", None), Ok(()), "there is room again");
}

#[test]
fn values_expire_in_the_order_of_their_times() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut state = state(&RoomOptions::state());
    set(&mut state, "late", "1", Some(at(30))).expect("fits");
    set(&mut state, "early", "1", Some(at(10))).expect("fits");
    set(&mut state, "never", "1", None).expect("fits");
    assert_eq!((state.next_expiry(), state.expired(at(9))), (Some(at(10)), None));
    assert_eq!(state.expired(at(10)).as_deref(), Some("early"));
    set(&mut state, "early", "2", Some(at(50))).expect("fits");
    assert_eq!(state.expired(at(10)), None, "a new value has its own time");
    assert_eq!(state.expired(at(30)).as_deref(), Some("late"));
    unset(&mut state, "late");
    assert_eq!((state.expired(at(30)), state.next_expiry()), (None, Some(at(50))));
    set(&mut state, "early", "3", None).expect("fits");
    assert_eq!(state.next_expiry(), None);
}

#[test]
fn removals_are_bounded_and_a_reader_behind_them_starts_again() {
    let mut state = state(&RoomOptions::state().state_keys(2));
    for key in ["a", "b", "c", "d"] {
        set(&mut state, key, "1", None).expect("fits");
        unset(&mut state, key);
    }
    assert_eq!(shown(&state.after(1).cloned().collect::<Vec<_>>()), [("c".into(), None), ("d".into(), None)]);
    assert!(state.is_too_old(3) && !state.is_too_old(4), "b's removal had version 4");
    assert_eq!(state.values().len(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Set(u8, u8),
    Unset(u8),
    /// A reader takes at most this many changes.
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u8..6, any::<u8>()).prop_map(|(key, value)| Step::Set(key, value)),
        1 => (0_u8..6).prop_map(Step::Unset),
        2 => (1_usize..5).prop_map(Step::Read),
    ]
}

proptest! {
    /// Compares with a map: the reader's own map, updated from what it reads, ends equal to the state; versions only
    /// rise; and a reader never needs more than one change for each key.
    #[test]
    fn a_reader_ends_up_with_the_last_values(steps in proptest::collection::vec(step(), 1..80), keys in 1_usize..7) {
        let mut state = state(&RoomOptions::state().state_keys(keys));
        let mut oracle: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut reader: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut cursor = 0;
        let read = |state: &RoomState, reader: &mut BTreeMap<_, _>, cursor: &mut u64, limit: usize| {
            if state.is_too_old(*cursor) {
                reader.clear();
                *cursor = 0;
            }
            let owed: Vec<Publication> = state.after(*cursor).cloned().collect();
            assert!(owed.len() <= 2 * keys, "{} owed", owed.len());
            for publication in owed.into_iter().take(limit) {
                assert!(publication.offset() > *cursor);
                *cursor = publication.offset();
                reader.extend(shown(&[publication]));
            }
        };
        for step in steps {
            match step {
                Step::Set(key, value) => {
                    let (key, value) = (key.to_string(), value.to_string());
                    if set(&mut state, &key, &value, None).is_ok() {
                        oracle.insert(key, Some(value));
                    }
                }
                Step::Unset(key) if state.has(&key.to_string()) => {
                    unset(&mut state, &key.to_string());
                    oracle.remove(&key.to_string());
                }
                Step::Unset(_) => {}
                Step::Read(limit) => read(&state, &mut reader, &mut cursor, limit),
            }
            prop_assert!(state.len() <= keys);
        }
        // This also checks a partial read of a state from the beginning, followed by a removal before the cursor.
        read(&state, &mut reader, &mut cursor, usize::MAX);
        reader.retain(|_, value| value.is_some());
        prop_assert_eq!(reader, oracle);
    }
}
