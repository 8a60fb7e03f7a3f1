use super::*;

fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

fn group(state: GroupState) -> Group {
    Group::new(LogId(1), BrokerId(0), &[BrokerId(0)], state, |data| data.len() as u64, &logger())
}

fn drain(group: &mut Group) -> Vec<Ready> {
    std::iter::from_fn(|| group.take_ready()).collect()
}

#[test]
fn one_voter_leads_at_once_and_commits_what_is_durable() {
    let mut group = group(GroupState::default());
    group.campaign();
    let readies = drain(&mut group);
    assert!(group.is_leader());
    assert_eq!(group.committed(), 0, "nothing is durable yet");
    assert!(readies.iter().any(|ready| ready.hard_state.is_some_and(|state| state.term == 1)));
    let index = group.propose(b"a".to_vec()).unwrap();
    assert_eq!(index, 2, "the leader's own first entry has index 1");
    let second = drain(&mut group).pop().unwrap();
    assert_eq!(second.entries.last().unwrap().data, &b"a"[..]);
    group.persisted(readies.last().unwrap().number);
    assert!(drain(&mut group).is_empty());
    assert_eq!(group.committed(), 1);
    group.persisted(second.number);
    assert_eq!(group.committed(), 2);
}

#[test]
fn a_restart_finds_term_and_entries_and_commits_them_in_a_new_term() {
    let entries = vec![Entry { index: 4, term: 2, data: Bytes::from_static(b"d") }];
    let state =
        GroupState { hard_state: HardState { term: 2, vote: 1, commit: 3 }, compacted: (3, 2), members: None, entries };
    let mut group = group(state);
    assert!(!group.is_leader());
    assert_eq!(group.propose(b"x".to_vec()), Err(NotLeader));
    group.campaign();
    let readies = drain(&mut group);
    assert_eq!(group.term(), 3);
    group.persisted(readies.last().unwrap().number);
    drain(&mut group);
    assert_eq!(group.committed(), 5, "the old entry and the one that opens the term");
    assert_eq!(group.term_at(4), Some(2));
    group.compact(4);
    assert_eq!(group.term_at(4), Some(2), "the term of the last compacted entry is kept");
    assert_eq!(group.entries(5, 6).len(), 1);
}

#[test]
fn hard_states_round_trip() {
    let state = HardState { term: 3, vote: 1, commit: 9 };
    assert_eq!(HardState::from_bytes(&state.to_bytes()), Some(state));
    assert_eq!(HardState::from_bytes(&[0; 23]), None);
}
