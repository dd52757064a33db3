use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn key(name: &str) -> Arc<str> {
    name.into()
}

/// What a reader of all changes knows.
fn apply(known: &mut BTreeMap<Arc<str>, Option<Json>>, changes: Vec<MemberChange>) {
    for change in changes {
        match change {
            MemberChange::Joined(member) => assert!(known.insert(member.id, member.metadata).is_none(), "joined twice"),
            MemberChange::Updated { member, .. } => {
                assert!(known.insert(member.id, member.metadata).is_some(), "updated nobody");
            }
            MemberChange::Left(member) => assert!(known.remove(&member.id).is_some(), "left twice"),
        }
    }
}

fn listed(table: &Table) -> BTreeMap<Arc<str>, Option<Json>> {
    table.list().into_iter().map(|member| (member.id, member.metadata)).collect()
}

#[test]
fn a_user_with_three_tabs_is_one_member() {
    let (mut table, ann, now) = (Table::default(), key("ann"), Instant::now());
    let tabs = [ClientId::random(), ClientId::random(), ClientId::random()];
    tabs.iter().for_each(|tab| table.join(&ann, *tab, None));
    assert_eq!(table.take_changes(), [MemberChange::Joined(Member { id: ann.clone(), metadata: None })]);
    table.update(&ann, tabs[1], Some("1".into()));
    let member = Member { id: ann.clone(), metadata: Some("1".into()) };
    assert_eq!(table.take_changes(), [MemberChange::Updated { member: member.clone(), before: None }]);
    table.leave(&ann, tabs[0], SECOND, now);
    table.leave(&ann, tabs[2], SECOND, now);
    assert_eq!(table.take_changes(), []);
    table.leave(&ann, tabs[1], SECOND, now);
    assert_eq!((table.take_changes(), table.list().len(), table.expire(now)), (vec![], 1, Some(now + SECOND)));
    // Back in time: nobody noticed.
    table.join(&ann, tabs[0], Some("1".into()));
    assert_eq!((table.expire(now + SECOND * 2), table.take_changes()), (None, vec![]));
    table.leave(&ann, tabs[0], SECOND, now);
    table.expire(now + SECOND);
    assert_eq!(table.take_changes(), [MemberChange::Left(member)]);
    assert_eq!(table.take_untold().len(), 1);
    assert!(table.is_over());
}

#[test]
fn a_member_on_two_nodes_joins_once_and_leaves_once() {
    let (mut table, ann, tab, now) = (Table::default(), key("ann"), ClientId::random(), Instant::now());
    assert!(table.hear_changes("b", 0, 1, vec![("ann".into(), Some(None))]));
    table.join(&ann, tab, None);
    assert_eq!(table.take_changes().len(), 1);
    table.leave(&ann, tab, Duration::ZERO, now);
    assert_eq!(table.take_changes(), []);
    table.forget_node("b");
    assert_eq!(table.take_changes().len(), 1);
    assert!(!table.hear_changes("b", 4, 5, vec![]), "what came before is missing");
}

/// A room that begins anew on its node, or on a successor of its node, is known at once; what is late changes nothing.
#[test]
fn what_begins_anew_replaces_what_was_known() {
    let (mut table, now) = (Table::default(), Instant::now());
    let names = |table: &Table| table.list().iter().map(|member| member.id.to_string()).collect::<Vec<_>>();
    let come = |name: &str| (name.to_owned(), Some(None));
    assert!(table.hear_changes("b", 0, 7, vec![come("ann"), come("bob")]));
    assert!(table.hear_changes("b", 0, 9, vec![come("eve"), ("zoe".into(), None)]));
    assert_eq!(names(&table), ["eve"]);
    assert!(table.hear_changes("b", 7, 8, vec![come("late")]) && table.hear_changes("b", 0, 9, vec![]));
    table.hear_list("b", List { version: 8, index: 0, of: 1, members: vec![("late".into(), None)] });
    assert_eq!(names(&table), ["eve"]);
    // Its clock is behind: its heartbeat counts nevertheless.
    assert!(table.hear_changes("b", 0, 3, vec![come("new")]));
    assert!(table.hear_digest("b", Some((3, 0)), now));
    table.hear_list("b", List { version: 3, index: 0, of: 1, members: vec![("new".into(), None)] });
    assert_eq!(names(&table), ["new"]);
}

/// A part of another list does not complete a list, and members that a list does not name have left.
#[test]
fn a_list_is_made_of_its_own_parts_and_replaces_what_was_known() {
    let mut table = Table::default();
    let mut hear = |version, index, of, names: &[&str]| {
        let members = names.iter().map(|name| ((*name).to_owned(), None)).collect();
        table.hear_list("b", List { version, index, of, members });
        table.take_changes()
    };
    let joined = |name: &str| MemberChange::Joined(Member { id: key(name), metadata: None });
    assert_eq!(hear(3, 0, 2, &["ann"]), []);
    assert_eq!(hear(4, 1, 2, &["bob"]), [], "the first part is of an older list");
    assert_eq!(hear(4, 0, 2, &["eve"]), [joined("bob"), joined("eve")]);
    assert_eq!(hear(5, 0, 1, &["eve"]), [MemberChange::Left(Member { id: key("bob"), metadata: None })]);
}

#[derive(Debug, Clone)]
enum Step {
    Join(u8, u8),
    Leave(u8, u8),
    Update(u8, u8, u8),
    Expire,
    Tell,
    /// Changes to the other node; lost if true.
    Sync(bool),
    Digest,
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..4, 0u8..3).prop_map(|(user, tab)| Step::Join(user, tab)),
        (0u8..4, 0u8..3).prop_map(|(user, tab)| Step::Leave(user, tab)),
        (0u8..4, 0u8..3, 0u8..3).prop_map(|(user, tab, value)| Step::Update(user, tab, value)),
        Just(Step::Expire),
        Just(Step::Tell),
        any::<bool>().prop_map(Step::Sync),
        Just(Step::Digest),
        Just(Step::Forget),
    ]
}

proptest! {
    /// Two nodes with one room: whatever happens and gets lost, changes add up to what is, and a digest heals.
    #[test]
    fn changes_add_up_and_nodes_converge(steps in proptest::collection::vec((any::<bool>(), step()), 0..80)) {
        let tabs: Vec<ClientId> = (0..24).map(|_| ClientId::random()).collect();
        let mut nodes = [Table::default(), Table::default()];
        let mut known = [BTreeMap::new(), BTreeMap::new()];
        let mut joined = BTreeSet::new();
        let mut now = Instant::now();
        for (which, step) in steps {
            let at = usize::from(which);
            now += SECOND;
            match step {
                Step::Join(user, tab) => {
                    if joined.insert((at, user, tab)) {
                        nodes[at].join(&key(&user.to_string()), tabs[at * 12 + usize::from(user * 3 + tab)], None);
                    }
                }
                Step::Leave(user, tab) => {
                    if joined.remove(&(at, user, tab)) {
                        let tab = tabs[at * 12 + usize::from(user * 3 + tab)];
                        nodes[at].leave(&key(&user.to_string()), tab, SECOND * u32::from(user), now);
                    }
                }
                Step::Update(user, tab, value) => {
                    if joined.contains(&(at, user, tab)) {
                        let tab = tabs[at * 12 + usize::from(user * 3 + tab)];
                        nodes[at].update(&key(&user.to_string()), tab, Some(value.to_string().into()));
                    }
                }
                Step::Expire => _ = nodes[at].expire(now),
                Step::Tell => apply(&mut known[at], nodes[at].take_changes()),
                Step::Sync(is_lost) => sync(&mut nodes, at, is_lost),
                Step::Digest => digest(&mut nodes, at, now),
                Step::Forget => nodes[1 - at].forget_node("other"),
            }
            apply(&mut known[at], nodes[at].take_changes());
            prop_assert_eq!(&known[at], &listed(&nodes[at]));
        }
        for at in [0, 1] {
            sync(&mut nodes, at, false);
            digest(&mut nodes, at, now + SECOND);
        }
        for at in [0, 1] {
            apply(&mut known[at], nodes[at].take_changes());
        }
        prop_assert_eq!(known[0].keys().collect::<Vec<_>>(), known[1].keys().collect::<Vec<_>>());
    }

    #[test]
    fn lists_in_parts_count_when_they_are_whole(count in 0usize..50, parts in 1u32..6, order in any::<u64>()) {
        let mut table = Table::default();
        let members: Vec<(String, Option<Json>)> = (0..count).map(|n| (n.to_string(), None)).collect();
        let mut indices: Vec<u32> = (0..parts).collect();
        indices.rotate_left(usize::try_from(order % u64::from(parts)).unwrap_or(0));
        for (n, index) in indices.iter().enumerate() {
            let own = members.iter().skip(*index as usize).step_by(parts as usize).cloned().collect();
            table.hear_list("b", List { version: 3, index: *index, of: parts, members: own });
            if n + 1 < indices.len() {
                prop_assert_eq!(table.list().len(), 0);
            }
        }
        prop_assert_eq!(table.list().len(), count);
        prop_assert!(table.hear_changes("b", 3, 4, vec![]));
    }
}

/// Node `at` tells the other of its changes.
fn sync(nodes: &mut [Table; 2], at: usize, is_lost: bool) {
    let untold = nodes[at].take_untold();
    if untold.is_empty() {
        return;
    }
    let version = nodes[at].version() + 1;
    let since = nodes[at].tell(version);
    let changes = untold.into_iter().map(|(key, told)| (key.to_string(), told)).collect();
    if !is_lost && !nodes[1 - at].hear_changes("other", since, version, changes) {
        list(nodes, at);
    }
}

/// Node `at` sends its heartbeat.
fn digest(nodes: &mut [Table; 2], at: usize, now: Instant) {
    sync(nodes, at, false);
    let digest = nodes[at].digest();
    if nodes[1 - at].hear_digest("other", digest, now) {
        list(nodes, at);
    }
}

fn list(nodes: &mut [Table; 2], at: usize) {
    let (version, members) = (nodes[at].version(), nodes[at].here());
    let members = members.into_iter().map(|(key, metadata)| (key.to_string(), metadata)).collect();
    nodes[1 - at].hear_list("other", List { version, index: 0, of: 1, members });
}
