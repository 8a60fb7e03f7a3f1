//! Offsets: kept, told, forgotten.

use super::*;

/// Topics, partitions, offsets.
type Kept = Vec<(String, Vec<(i32, Option<i64>)>)>;

fn fetched(rig: &mut Rig, topics: Option<&[(&str, &[i32])]>) -> Kept {
    let topics = topics.map(|topics| {
        topics.iter().map(|(topic, partitions)| ((*topic).to_owned(), partitions.to_vec())).collect::<Vec<_>>()
    });
    let request = rig.ask(Ask::Fetch { group: "g".into(), member: None, topics });
    let Ok(Reply::Fetched(found)) = rig.answer(request) else { panic!("no offsets") };
    found
        .into_iter()
        .map(|(topic, partitions)| {
            (topic, partitions.into_iter().map(|(number, kept)| (number, kept.map(|kept| kept.offset))).collect())
        })
        .collect()
}

fn simple(offsets: &[(&str, i32, i64)]) -> Ask {
    commit(identity(-1, ""), offsets)
}

#[test]
fn an_offset_is_there_when_it_is_durable() {
    let mut rig = Rig::new();
    rig.durable = false;
    let request = rig.ask(simple(&[("t", 0, 5), ("t", 2, 7)]));
    assert!(rig.waits(request));
    assert_eq!(fetched(&mut rig, None), []);
    rig.write();
    assert!(matches!(rig.answer(request), Ok(Reply::Done)));
    assert_eq!(fetched(&mut rig, None), [("t".to_owned(), vec![(0, Some(5)), (2, Some(7))])]);
    assert_eq!(
        fetched(&mut rig, Some(&[("u", &[0]), ("t", &[2, 1])])),
        [("u".to_owned(), vec![(0, None)]), ("t".to_owned(), vec![(2, Some(7)), (1, None)])]
    );
}

#[test]
fn a_refused_commit_changes_nothing() {
    let mut rig = Rig::new();
    let request = rig.ask(simple(&[("t", 0, 5)]));
    rig.answer(request).unwrap();
    rig.durable = false;
    let request = rig.ask(simple(&[("t", 0, 6)]));
    rig.refuse();
    assert_eq!(rig.answer(request).unwrap_err(), Error::NotAvailable);
    assert_eq!(fetched(&mut rig, None), [("t".to_owned(), vec![(0, Some(5))])]);
}

#[test]
fn only_members_of_the_generation_commit() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    let request = rig.ask(commit(identity(generation, "a"), &[("t", 0, 1)]));
    rig.answer(request).unwrap();
    assert_eq!(rig.refused(commit(identity(generation + 1, "a"), &[("t", 0, 9)])), Error::IllegalGeneration);
    assert_eq!(rig.refused(commit(identity(generation, "z"), &[("t", 0, 9)])), Error::UnknownMember);
    assert_eq!(rig.refused(simple(&[("t", 0, 9)])), Error::UnknownMember, "the group has members");
    // While members are waited for they may still commit what they have read.
    let a = rig.ask(Ask::Join(member("a")));
    let request = rig.ask(commit(identity(generation, "b"), &[("t", 1, 2)]));
    rig.answer(request).unwrap();
    let b = rig.ask(Ask::Join(member("b")));
    let (a, _) = (rig.joined(a), rig.joined(b));
    assert_eq!(rig.refused(commit(identity(a.generation, "a"), &[("t", 0, 9)])), Error::RebalanceInProgress);
    assert_eq!(fetched(&mut rig, None), [("t".to_owned(), vec![(0, Some(1)), (1, Some(2))])]);
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a"]);
    for offset in 0..4 {
        rig.pass(SESSION_MS - 1);
        let request = rig.ask(commit(identity(generation, "a"), &[("t", 0, offset)]));
        rig.answer(request).unwrap();
    }
    assert_eq!(rig.heartbeat(generation, "a"), Ok(()));
}

#[test]
fn offsets_of_topics_that_are_read_are_not_deleted() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a"]);
    let request = rig.ask(commit(identity(generation, "a"), &[("t", 0, 1), ("u", 0, 2), ("u", 1, 3)]));
    rig.answer(request).unwrap();
    let topics = vec![("t".to_owned(), vec![0]), ("u".to_owned(), vec![1, 5]), ("v".to_owned(), vec![0])];
    let request = rig.ask(Ask::DeleteOffsets { group: "g".into(), topics });
    let Ok(Reply::OffsetsDeleted(results)) = rig.answer(request) else { panic!("no answer to each") };
    assert_eq!(results, [Err(Error::SubscribedToTopic), Ok(()), Ok(())]);
    let left = [("t".to_owned(), vec![(0, Some(1))]), ("u".to_owned(), vec![(0, Some(2))])];
    assert_eq!(fetched(&mut rig, None), left);
    let mut rig = rig.restart();
    assert_eq!(fetched(&mut rig, None), left);
}

#[test]
fn a_group_with_members_is_not_deleted() {
    let mut rig = Rig::new();
    rig.stable(&["a"]);
    let delete = || Ask::Delete { group: "g".into() };
    assert_eq!(rig.refused(delete()), Error::NonEmptyGroup);
    rig.ask(leave(&["a"]));
    rig.durable = false;
    let committing = rig.ask(simple(&[("t", 0, 5)]));
    assert_eq!(rig.refused(delete()), Error::NonEmptyGroup, "someone is using it");
    rig.write();
    rig.answer(committing).unwrap();
    let request = rig.ask(delete());
    assert!(rig.waits(request));
    rig.write();
    assert!(matches!(rig.answer(request), Ok(Reply::Done)));
    assert!(rig.groups.is_empty());
    assert_eq!(rig.refused(delete()), Error::GroupIdNotFound);
    assert!(rig.restart().groups.is_empty());
}

#[test]
fn old_offsets_of_empty_groups_go() {
    let retention = settings().offsets_retention_ms as u64;
    let check = crate::limits::OFFSETS_CHECK_INTERVAL_MS;
    assert!(retention < check);
    let mut rig = Rig::new();
    rig.pass(1);
    let generation = rig.stable(&["a"]);
    let request = rig.ask(commit(identity(generation, "a"), &[("t", 0, 1)]));
    rig.answer(request).unwrap();
    rig.pass_alive(2 * check, generation, &["a"]);
    assert_eq!(fetched(&mut rig, None).len(), 1, "the group reads the topic");
    rig.ask(leave(&["a"]));
    rig.pass(check);
    rig.pass(check);
    rig.pass(check);
    assert!(rig.groups.is_empty());
    assert!(rig.restart().groups.is_empty());
}

#[test]
fn offsets_of_a_topic_that_is_gone_are_forgotten() {
    let mut rig = Rig::new();
    for request in [simple(&[("t", 0, 1), ("u", 0, 2)]), simple(&[("t", 1, 3)])] {
        let request = rig.ask(request);
        rig.answer(request).unwrap();
    }
    rig.groups
        .forget_topics(Outside { now: rig.now, topics: &rig.topics, overrides: &rig.overrides }, |topic| topic == "t");
    rig.carry_out();
    assert_eq!(fetched(&mut rig, None), [("u".to_owned(), vec![(0, Some(2))])]);
    rig.groups.forget_topics(Outside { now: rig.now, topics: &rig.topics, overrides: &rig.overrides }, |_| true);
    rig.carry_out();
    assert!(rig.groups.is_empty() && rig.restart().groups.is_empty());
}

#[test]
fn memory_is_counted_and_given_back() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a"]);
    let before = rig.groups.bytes;
    let request = rig.ask(commit(identity(generation, "a"), &[("t", 0, 1), ("u", 0, 1)]));
    rig.answer(request).unwrap();
    let with = rig.groups.bytes;
    assert!(with > before);
    let request = rig.ask(commit(identity(generation, "a"), &[("u", 0, 2)]));
    rig.answer(request).unwrap();
    assert_eq!(rig.groups.bytes, with);
    rig.ask(leave(&["a"]));
    let request = rig.ask(Ask::Delete { group: "g".into() });
    rig.answer(request).unwrap();
    assert_eq!(rig.groups.bytes, 0);
}

#[test]
fn a_survey_of_groups_comes_in_pages() {
    let mut rig = Rig::new();
    for group in ["c", "a", "b"] {
        let identity = Identity { group: group.into(), ..identity(-1, "") };
        let request = rig.ask(commit(identity, &[("t", 0, 5), ("t", 1, 6)]));
        rig.answer(request).unwrap();
    }
    let page = |after: &str, most, room| {
        let (found, more) = rig.groups.survey(after, most, room);
        (found.iter().map(|group| &*group.group).collect::<Vec<_>>().join(""), more)
    };
    assert_eq!(page("", 10, 1_000), ("abc".to_owned(), false));
    assert_eq!(page("", 2, 1_000), ("ab".to_owned(), true));
    assert_eq!(page("b", 2, 1_000), ("c".to_owned(), false));
    // A group and its two offsets take up all the room, and one is always there.
    assert_eq!(page("", 10, 1), ("a".to_owned(), true));
    assert_eq!(page("", 10, 4), ("ab".to_owned(), true));
    let found = rig.groups.survey_one("b").unwrap();
    let offsets: Vec<_> =
        found.offsets.iter().map(|(topic, partition, kept)| (&**topic, *partition, kept.offset)).collect();
    assert_eq!(offsets, [("t", 0, 5), ("t", 1, 6)]);
    assert!(rig.groups.survey_one("d").is_none());
}
