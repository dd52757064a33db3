use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::history::publication::{OVERHEAD, Publish, Subject};

fn ring(options: &RoomOptions) -> Ring {
    Ring::new(options, Arc::default())
}

fn append(ring: &mut Ring, text: &str, now: Instant) -> Vec<u64> {
    let publication = Publication::new(&"r".into(), ring.next_position(), Subject::Message, Publish::new(text));
    ring.append(publication, now).iter().map(Publication::offset).collect()
}

fn offsets<'a>(publications: impl IntoIterator<Item = &'a Publication>) -> Vec<u64> {
    publications.into_iter().map(Publication::offset).collect()
}

#[test]
fn ages_are_bounded_and_the_top_stays_known() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut ring = ring(&RoomOptions::history().age(Duration::from_millis(100)));
    append(&mut ring, "a", at(0));
    append(&mut ring, "b", at(60));
    assert!(ring.trim(at(99)).is_empty());
    assert_eq!(offsets(&ring.trim(at(100))), [1]);
    assert_eq!((ring.first_held(), ring.len()), (2, 1));
    assert_eq!(offsets(&ring.trim(at(1000))), [2]);
    assert_eq!((ring.position().offset(), ring.first_held(), ring.bytes()), (2, 3, 0));
    let epoch = ring.position().epoch();
    let recovered = ring.recover(Some(Position::new(epoch, 2)), 0);
    assert_eq!((recovered.recovery, recovered.replayed), (Recovery::Complete, 0));
    let recovered = ring.recover(Some(Position::new(epoch, 1)), 0);
    assert_eq!((recovered.recovery, recovered.cursor), (Recovery::Gap { first_held: 3 }, 2));
}

#[test]
fn a_message_larger_than_the_history_is_not_held() {
    let now = Instant::now();
    let mut ring = ring(&RoomOptions::history().bytes(OVERHEAD + 10));
    assert!(append(&mut ring, "0123456789", now).is_empty());
    assert_eq!(append(&mut ring, "0123456789a", now), [1, 2]);
    assert_eq!((ring.position().offset(), ring.len(), ring.bytes()), (2, 0, 0));
}

#[test]
fn positions_of_other_histories_are_told_apart() {
    let now = Instant::now();
    let mut ring = ring(&RoomOptions::history());
    append(&mut ring, "a", now);
    let (old, epoch) = (ring.position(), ring.position().epoch());
    let recovered = |ring: &Ring, position| ring.recover(Some(position), 0).recovery;
    assert_eq!(recovered(&ring, old), Recovery::Complete);
    assert_eq!(recovered(&ring, Position::new(epoch, 2)), Recovery::OtherEpoch, "beyond the top");
    assert_eq!(recovered(&ring, Position::new(epoch, u64::MAX)), Recovery::OtherEpoch);
    assert_eq!(recovered(&ring, Position::new(Epoch::random(), 1)), Recovery::OtherEpoch);
    assert_eq!(recovered(&ring, Position::new(epoch, 0)), Recovery::Complete, "before the first");
    append(&mut ring, "b", now);
    assert_eq!(offsets(&ring.clear()), [1, 2]);
    assert_eq!((recovered(&ring, old), ring.position().offset()), (Recovery::Gap { first_held: 3 }, 2));
}

#[test]
fn pages_go_both_ways() {
    let now = Instant::now();
    let mut ring = ring(&RoomOptions::history().messages(5));
    (1..=8).for_each(|n| drop(append(&mut ring, &n.to_string(), now)));
    let epoch = ring.position().epoch();
    let page = |range| {
        let page = ring.page(range);
        (page.recovery, offsets(&page.publications))
    };
    let at = |offset| Position::new(epoch, offset);
    assert_eq!(page(Range::oldest_first()), (Recovery::None, vec![4, 5, 6, 7, 8]));
    assert_eq!(page(Range::oldest_first().limit(2)), (Recovery::None, vec![4, 5]));
    assert_eq!(page(Range::oldest_first().since(at(5)).limit(2)), (Recovery::Complete, vec![6, 7]));
    assert_eq!(page(Range::oldest_first().since(at(1))), (Recovery::Gap { first_held: 4 }, vec![4, 5, 6, 7, 8]));
    assert_eq!(page(Range::newest_first().limit(3)), (Recovery::None, vec![8, 7, 6]));
    assert_eq!(page(Range::newest_first().since(at(6)).limit(3)), (Recovery::None, vec![5, 4]));
    assert_eq!(page(Range::newest_first().since(at(2))), (Recovery::None, vec![]));
    assert_eq!(page(Range::oldest_first().limit(0)), (Recovery::None, vec![]));
    let other = Position::new(Epoch::random(), 5);
    assert_eq!(page(Range::newest_first().since(other)), (Recovery::OtherEpoch, vec![]));
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Wait(u64),
    Recover(u64, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_usize..600).prop_map(Step::Append),
        1 => (0_u64..80).prop_map(Step::Wait),
        2 => (0_u64..60, 0_usize..10).prop_map(|(offset, rewind)| Step::Recover(offset, rewind)),
    ]
}

proptest! {
    /// Compares with a list that never forgets: the held messages are the newest run that fits all limits, and a reader
    /// is told exactly what it does not get.
    #[test]
    fn what_is_held_is_the_newest_that_fits(
        messages in 1_usize..8,
        bytes in 300_usize..4000,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let options = RoomOptions::history().messages(messages).bytes(bytes).age(Duration::from_millis(100));
        let mut ring = ring(&options);
        let mut all: Vec<(Instant, usize)> = Vec::new();
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Append(size) => {
                    append(&mut ring, &"x".repeat(size), now);
                    all.push((now, size + OVERHEAD));
                }
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::Recover(offset, rewind) => {
                    drop(ring.trim(now));
                    let since = Position::new(ring.position().epoch(), offset);
                    let top = all.len() as u64;
                    let recovered = ring.recover(Some(since), 0);
                    let expected = if offset > top {
                        Recovery::OtherEpoch
                    } else if offset == top || offset + 1 >= ring.first_held() {
                        Recovery::Complete
                    } else {
                        Recovery::Gap { first_held: ring.first_held() }
                    };
                    prop_assert_eq!(recovered.recovery, expected);
                    let replayed = offsets(ring.after(recovered.cursor));
                    prop_assert_eq!(&replayed, &(recovered.cursor + 1..=top).collect::<Vec<_>>());
                    prop_assert_eq!(replayed.len(), recovered.replayed);
                    if expected == Recovery::Complete {
                        prop_assert_eq!(recovered.cursor, offset, "complete has no hole");
                    }
                    let anew = ring.recover(None, rewind);
                    prop_assert_eq!(anew.replayed, rewind.min(ring.len()));
                }
            }
            drop(ring.trim(now));
            let mut sum = 0;
            let fits = |(at, size): &&(Instant, usize)| {
                sum += size;
                sum <= bytes && now.saturating_duration_since(*at) < Duration::from_millis(100)
            };
            // Nothing remains before a dropped message, even if there is room again.
            let most = all.iter().rev().take(messages).take_while(fits).count();
            prop_assert!(ring.len() <= most, "{} held of {most}", ring.len());
            prop_assert!(ring.bytes() <= bytes && ring.len() <= messages);
            prop_assert_eq!(ring.first_held() + ring.len() as u64, all.len() as u64 + 1);
        }
    }
}
