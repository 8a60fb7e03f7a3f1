use super::*;

pub(super) fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

fn group(state: GroupState) -> Group {
    Group::new(LogId(1), (BrokerId(0), 0), &[BrokerId(0)], state, |data| data.len() as u64, &logger())
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

/// Three replicas of the metadata that hear each other at once. The disk of the last hangs when it is told to.
struct Three {
    groups: Vec<Group>,
    hangs: bool,
    /// What goes to these is lost.
    cut: &'static [i32],
}

impl Three {
    fn new() -> Three {
        let voters = [BrokerId(0), BrokerId(1), BrokerId(2)];
        let group = |broker| {
            Group::new(
                LogId::METADATA,
                (broker, 0),
                &voters,
                GroupState::default(),
                |data| data.len() as u64,
                &logger(),
            )
        };
        let mut three = Three { groups: voters.map(group).into(), hangs: false, cut: &[] };
        three.groups[0].campaign();
        three.settle();
        assert!(three.groups[0].is_leader());
        three
    }

    /// Lets messages go back and forth until there are none.
    fn settle(&mut self) {
        loop {
            let mut messages = Vec::new();
            for (at, group) in self.groups.iter_mut().enumerate() {
                let written: Vec<u64> = drain(group).iter().map(|ready| ready.number).collect();
                if let Some(last) = written.last().filter(|_| !(self.hangs && at == 2)) {
                    group.persisted(*last);
                    drain(group);
                }
                messages
                    .extend(group.take_messages().into_iter().map(|(to, message)| (BrokerId(at as i32), to, message)));
            }
            if messages.is_empty() {
                return;
            }
            for (from, to, message) in messages {
                if !self.cut.contains(&to.0) {
                    self.groups[to.0 as usize].step(from, message);
                }
            }
        }
    }

    fn tick(&mut self) {
        for at in 0..3 {
            self.groups[at].set_hangs(self.hangs && at == 2);
            self.groups[at].tick();
        }
        self.settle();
    }

    fn leader(&mut self) -> &mut Group {
        self.groups.iter_mut().find(|group| group.is_leader()).expect("there is a leader")
    }

    fn propose(&mut self, entries: usize) {
        for _ in 0..entries {
            self.leader().propose(b"entry".to_vec()).expect("it leads");
            self.settle();
        }
    }

    /// The last replica lacks entries, which the first one leads.
    fn leave_last_behind(&mut self, entries: usize) {
        self.cut = &[2];
        self.propose(entries);
        self.cut = &[];
    }

    /// The first forgets its entries and is to send the last this point in their place; it has until its next heartbeat.
    fn offer_to_last(&mut self, index: u64) {
        let first = &mut self.groups[0];
        first.unreachable(BrokerId(2));
        first.offer_snapshot(SnapshotPoint { index, term: 1, data: Bytes::new() });
        first.compact(5);
        for _ in 0..HEARTBEAT_TICKS {
            first.tick();
        }
        drain(first);
    }

    /// The last replica hears of what is committed without the help of time.
    fn hears_at_once(&mut self, durable: u64) {
        for _ in 0..20 {
            self.propose(1);
            self.assert_last_knows_all(durable);
        }
    }

    /// The last replica has heard of all that is committed, and nobody believes that more than this is durable there.
    fn assert_last_knows_all(&mut self, durable: u64) {
        let committed = self.leader().committed();
        assert_eq!(self.groups[2].committed(), committed);
        assert_eq!(self.groups[2].durable(), durable);
        assert!(self.leader().matched(BrokerId(2)) <= Some(durable));
    }
}

#[test]
fn a_replica_whose_disk_hangs_hears_of_all_that_is_committed() {
    let mut three = Three::new();
    three.propose(3);
    let durable = three.groups[2].durable();
    three.hangs = true;
    three.propose(20);
    three.tick();
    three.assert_last_knows_all(durable);
    // Some of it is lost on the way.
    three.cut = &[2];
    three.propose(5);
    three.leader().unreachable(BrokerId(2));
    three.cut = &[];
    for _ in 0..50 {
        three.propose(1);
        three.tick();
        three.tick();
        three.assert_last_knows_all(durable);
    }
    three.hears_at_once(durable);
    // Another leads, who knows nothing of how far this log goes.
    assert!(three.leader().hand_over(|broker| broker == BrokerId(1)));
    three.settle();
    assert!(three.groups[1].is_leader());
    three.cut = &[2];
    three.propose(5);
    three.leader().unreachable(BrokerId(2));
    three.cut = &[];
    for _ in 0..20 {
        three.propose(1);
        for _ in 0..4 {
            three.tick();
        }
        three.assert_last_knows_all(durable);
    }
    three.hears_at_once(durable);
    three.hangs = false;
    let number = u64::MAX - 1;
    three.groups[2].persisted(number);
    for _ in 0..4 {
        three.tick();
    }
    let last = three.leader().last_index();
    three.assert_last_knows_all(last);
    assert_eq!(three.leader().matched(BrokerId(2)), Some(last));
}

#[test]
fn a_follower_gets_a_snapshot_though_a_later_one_takes_the_place_of_the_first() {
    let mut three = Three::new();
    three.leave_last_behind(5);
    let (leader, last) = (BrokerId(0), BrokerId(2));
    three.offer_to_last(4);
    for (to, message) in three.groups[0].take_messages() {
        three.groups[to.0 as usize].step(leader, message);
    }
    drain(&mut three.groups[2]);
    for (_, message) in three.groups[2].take_messages() {
        // By this answer Raft takes the point at 4.
        three.groups[0].step(last, message);
    }
    three.groups[0].offer_snapshot(SnapshotPoint { index: 5, term: 1, data: Bytes::new() });
    for _ in 0..2 * HEARTBEAT_TICKS {
        three.tick();
    }
    let end = three.leader().last_index();
    assert_eq!(three.leader().matched(last), Some(end));
    three.assert_last_knows_all(end);
}

#[test]
fn a_follower_whose_answer_to_a_snapshot_is_lost_is_sent_what_is_after_it() {
    let mut three = Three::new();
    three.leave_last_behind(5);
    three.offer_to_last(5);
    let mut written = 0;
    // Heartbeats and their answers, and then the point.
    for (from, to) in [(0, 2), (2, 0), (0, 2)] {
        let sent = three.groups[from].take_messages().into_iter().filter(|(at, _)| at.0 as usize == to);
        sent.for_each(|(_, message)| three.groups[to].step(BrokerId(from as i32), message));
        written = drain(&mut three.groups[to]).last().map_or(written, |ready| ready.number);
    }
    three.groups[2].persisted(written);
    drain(&mut three.groups[2]);
    assert_eq!(three.groups[2].committed(), 5);
    let lost = three.groups[2].take_messages();
    assert!(lost.iter().any(|(_, message)| message.kind == MessageKind::AppendResponse && message.index == 5));
    for _ in 0..2 * HEARTBEAT_TICKS {
        three.tick();
    }
    let end = three.leader().last_index();
    assert_eq!(three.leader().matched(BrokerId(2)), Some(end));
    three.assert_last_knows_all(end);
}

#[test]
fn the_last_entries_that_a_checkpoint_has_passed_stay() {
    let mut three = Three::new();
    three.propose(6);
    let leader = three.leader();
    let (last, bytes) = (leader.last_index(), b"entry".len() as u64);
    leader.compact_but(last - 1, 2 * bytes + 1);
    assert_eq!(leader.compacted(), last - 3);
    leader.compact_but(last, 0);
    assert_eq!(leader.compacted(), last);
}

#[test]
fn a_follower_that_went_on_from_an_earlier_point_is_sent_what_is_after_it() {
    let mut three = Three::new();
    three.leave_last_behind(5);
    let (leader, last) = (BrokerId(0), BrokerId(2));
    let mut offers = Vec::new();
    for index in [4, 5] {
        three.offer_to_last(index);
        let sent = three.groups[0].take_messages().into_iter().filter(|(to, _)| *to == last);
        for (_, message) in sent {
            match message.snapshot {
                Some(_) => offers.push(message),
                None => three.groups[2].step(leader, message),
            }
        }
        drain(&mut three.groups[2]);
        for (_, message) in three.groups[2].take_messages() {
            three.groups[0].step(last, message);
        }
        drain(&mut three.groups[0]);
        let sent = three.groups[0].take_messages().into_iter();
        offers.extend(sent.map(|(_, message)| message).filter(|message| message.snapshot.is_some()));
    }
    let points: Vec<u64> = offers.iter().filter_map(|offer| Some(offer.snapshot.as_ref()?.index)).collect();
    assert_eq!(points, [4, 5]);
    // It takes its time with the first, so it does not look at the second.
    three.groups[2].step(leader, offers.remove(0));
    three.settle();
    for _ in 0..2 * HEARTBEAT_TICKS {
        three.tick();
    }
    let end = three.leader().last_index();
    assert_eq!(three.leader().matched(last), Some(end));
}

#[test]
fn a_leader_that_is_no_member_any_more_leads_no_more() {
    let mut three = Three::new();
    assert!(three.leader().hand_over(|broker| broker == BrokerId(2)));
    three.settle();
    assert!(three.groups[2].is_leader());
    let rest = Members { number: 1, ..Members::of(&[BrokerId(0), BrokerId(1)]) };
    let joint = Members { outgoing: three.leader().members().voters.clone(), ..rest.clone() };
    three.leader().change_members(&joint).expect("it leads");
    three.settle();
    // It hears that it is out while its disk has still to write what comes after that.
    three.hangs = true;
    three.leader().change_members(&rest).expect("it leads");
    three.settle();
    three.propose(1);
    let first = three.groups[2].unsynced[0];
    three.groups[2].persisted(first);
    three.settle();
    let leads: Vec<bool> = three.groups.iter().map(Group::is_leader).collect();
    assert_eq!(leads, [false; 3]);
    assert_eq!(three.groups[2].members(), &rest);
    three.groups[2].persisted(u64::MAX - 1);
    three.hangs = false;
    three.settle();
    for _ in 0..100 {
        three.tick();
    }
    assert!(!three.groups[2].is_leader());
    three.propose(1);
    assert_eq!(three.groups[1].committed(), three.groups[0].committed());
}

/// The first replica leads and is lost with what only the first and the last hold; `heard` says in which order the others
/// hear of that. Whether one of them leads then, before any time has passed.
fn another_leads(entries: usize, heard: [usize; 2]) -> bool {
    let mut three = Three::new();
    three.cut = &[1];
    three.propose(entries);
    three.cut = &[0];
    for at in heard {
        three.groups[at].lost(BrokerId(0));
        if at == 1 {
            three.groups[1].campaign();
        }
        three.settle();
    }
    three.groups[1..].iter().any(Group::is_leader)
}

#[test]
fn a_lost_leader_is_replaced_at_once_whoever_hears_of_it_first() {
    assert!(another_leads(0, [1, 2]));
    assert!(another_leads(0, [2, 1]));
}

#[test]
fn a_candidate_that_lacks_entries_is_outbid_at_once() {
    assert!(another_leads(3, [1, 2]));
    assert!(another_leads(3, [2, 1]));
}
