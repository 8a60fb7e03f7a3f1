//! Replicas that lose what they wrote, over and over, under everything that a network and disks can do.

use super::super::tests::logger;
use super::super::{GroupState, Ready, SnapshotPoint};
use super::*;
use crate::types::LogId;

const BROKERS: usize = 5;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn broker(&mut self) -> usize {
        self.below(BROKERS as u64) as usize
    }
}

struct Replica {
    group: Group,
    /// What is durable.
    disk: GroupState,
    /// What is not yet.
    writing: Vec<Ready>,
}

struct Cluster {
    replicas: Vec<Replica>,
    /// What one says to another, in order.
    wires: BTreeMap<(usize, usize), Vec<Message>>,
    /// What goes to this one, and comes from it, waits.
    cut: Option<usize>,
    random: Random,
    /// The terms of all entries that were ever known to be committed.
    committed: BTreeMap<u64, u64>,
    starts: u64,
}

fn broker(at: usize) -> BrokerId {
    BrokerId(at as i32)
}

fn open(at: usize, disk: &GroupState) -> Group {
    let voters = [broker(0), broker(1), broker(2)];
    let mut group = Group::new(LogId(1), (broker(at), 0), &voters, disk.clone(), |_| 1, &logger());
    let (index, term) = disk.compacted;
    if index > 0 {
        group.offer_snapshot(SnapshotPoint { index, term, data: Bytes::new() });
    }
    group
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let disk =
            GroupState { members: Some(Members::of(&[broker(0), broker(1), broker(2)])), ..GroupState::default() };
        let replica = |at| Replica { group: open(at, &disk), disk: disk.clone(), writing: Vec::new() };
        let replicas = (0..BROKERS).map(replica).collect();
        let (wires, committed) = (BTreeMap::new(), BTreeMap::new());
        Cluster { replicas, wires, cut: None, random: Random(seed), committed, starts: 0 }
    }

    /// Takes what a group has to say and to write, and looks at what it takes for committed.
    fn turn(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        replica.writing.extend(std::iter::from_fn(|| replica.group.take_ready()));
        for (to, message) in replica.group.take_messages() {
            self.wires.entry((at, to.0 as usize)).or_default().push(message);
        }
        for index in replica.group.compacted() + 1..=replica.group.committed() {
            let term = replica.group.term_at(index).expect("it is in the log");
            let known = *self.committed.entry(index).or_insert(term);
            assert_eq!(term, known, "entry {index} was committed with another term, says {at}");
        }
    }

    /// The oldest write of a replica becomes durable.
    fn write(&mut self, at: usize) {
        let Replica { group, disk, writing } = &mut self.replicas[at];
        if writing.is_empty() {
            return;
        }
        let ready = writing.remove(0);
        if let Some(point) = ready.snapshot {
            disk.compacted = (point.index, point.term);
            disk.members = Some(group.members_at(point.index).clone());
            disk.entries.clear();
            disk.hard_state = group.hard_state();
            group.offer_snapshot(point);
        }
        disk.hard_state = ready.hard_state.unwrap_or(disk.hard_state);
        if let Some(first) = ready.entries.first() {
            disk.entries.retain(|entry| entry.index < first.index);
            disk.entries.extend(ready.entries);
        }
        group.persisted(ready.number);
        self.turn(at);
    }

    /// Something that was sent comes, or is lost.
    fn deliver(&mut self) {
        let open = |(from, to): &(usize, usize)| self.cut != Some(*from) && self.cut != Some(*to);
        let waiting = self.wires.iter().filter(|(way, wire)| !wire.is_empty() && open(way));
        let waiting: Vec<_> = waiting.map(|(way, _)| *way).collect();
        if waiting.is_empty() {
            return;
        }
        let (from, to) = waiting[self.random.below(waiting.len() as u64) as usize];
        let message = self.wires.get_mut(&(from, to)).expect("it waits").remove(0);
        if self.random.below(50) == 0 {
            self.replicas[from].group.unreachable(broker(to));
        } else {
            self.replicas[to].group.step(broker(from), message);
            self.turn(to);
        }
        self.turn(from);
    }

    /// A process ends and begins again. Where its log is damaged, all that is left is a point that was committed.
    fn restart(&mut self, at: usize, damaged: bool) {
        self.wires.retain(|(_, to), _| *to != at);
        self.starts += 1;
        let Replica { group, disk, writing } = &mut self.replicas[at];
        writing.clear();
        if damaged {
            let reach = group.committed().min(disk.entries.last().map_or(disk.compacted.0, |entry| entry.index));
            let index = disk.compacted.0 + self.random.below(reach.saturating_sub(disk.compacted.0) + 1);
            let term = group.term_at(index).expect("it is committed");
            let members = Some(group.members_at(index).clone());
            let hard_state = HardState { term, vote: 0, commit: index };
            *disk = GroupState { hard_state, compacted: (index, term), members, entries: Vec::new() };
        }
        *group = open(at, disk);
        if damaged || !group.is_whole() {
            group.begin_repair(self.starts);
            disk.hard_state = group.hard_state();
        }
        self.turn(at);
    }

    /// The leader takes a step towards other members, as the owners of groups do.
    fn change(&mut self, at: usize) {
        let now = self.replicas[at].group.members().clone();
        let mut next = now.clone();
        let unknown = broker(self.random.broker());
        if now.is_joint() {
            if !now.voters.contains(&broker(at)) {
                self.replicas[at].group.hand_over(|_| true);
                return;
            }
            next.outgoing.clear();
        } else if now.number % 2 == 1 {
            next.number += 1;
        } else if now.learners.is_empty() {
            if now.voters.contains(&unknown) {
                return;
            }
            next.learners.push(unknown);
        } else {
            next.outgoing = now.voters.clone();
            next.voters.append(&mut next.learners);
            let kept = 3 + self.random.below(2) as usize;
            while next.voters.len() > kept {
                let over = self.random.below(next.voters.len() as u64 - 1) as usize;
                next.voters.remove(over);
            }
            next.number += 1;
        }
        let _ = self.replicas[at].group.change_members(&next);
    }

    /// Something happens.
    fn step(&mut self, moves: bool) {
        let at = self.random.broker();
        let leads = self.replicas[at].group.is_leader();
        match self.random.below(1_000) {
            0 => self.restart(at, false),
            // With two damaged logs of three nothing goes on, which is right but shows little.
            1 => {
                let others_whole = self.replicas.iter().all(|replica| replica.group.is_whole());
                let damaged = others_whole || self.random.below(30) == 0;
                self.restart(at, damaged);
            }
            2 => self.replicas[at].group.campaign(),
            3 if leads => drop(self.replicas[at].group.hand_over(|_| true)),
            4..8 if leads && moves => self.change(at),
            4..8 => self.cut = Some(self.random.broker()).filter(|at| *at < 3),
            8..60 if leads => drop(self.replicas[at].group.propose(b"entry".to_vec())),
            60..130 => self.replicas[at].group.tick(),
            130..500 => self.write(at),
            _ => self.deliver(),
        }
        self.turn(at);
    }
}

impl Cluster {
    /// Nothing goes wrong any more: what was lost is made up for, where one log of the three is left without.
    fn heal(&mut self) {
        for at in 0..3 {
            self.restart(at, false);
        }
        let lost = self.replicas[..3].iter().filter(|replica| !replica.group.is_whole()).count();
        for _ in 0..400 {
            (0..3).for_each(|at| self.replicas[at].group.tick());
            loop {
                for at in 0..3 {
                    self.turn(at);
                    while !self.replicas[at].writing.is_empty() {
                        self.write(at);
                    }
                }
                let wires: Vec<_> = std::mem::take(&mut self.wires).into_iter().collect();
                if wires.is_empty() {
                    break;
                }
                for ((from, to), messages) in wires {
                    messages.into_iter().for_each(|message| self.replicas[to].group.step(broker(from), message));
                }
            }
        }
        let groups = || self.replicas[..3].iter().map(|replica| &replica.group);
        if lost <= 1 {
            assert!(groups().all(Group::is_whole), "a replica is not made whole");
            assert_eq!(groups().filter(|group| group.is_leader()).count(), 1);
            let highest = *self.committed.keys().last().expect("something was committed");
            assert!(groups().all(|group| group.committed() == highest), "a replica stays behind");
        } else {
            assert!(groups().all(|group| !group.is_leader()), "what two of three have lost may be committed");
        }
    }
}

fn run(seed: u64, moves: bool) -> u64 {
    let mut cluster = Cluster::new(seed);
    cluster.replicas[0].group.campaign();
    for _ in 0..10_000 {
        cluster.step(moves);
    }
    if !moves {
        cluster.heal();
    }
    cluster.committed.len() as u64
}

#[test]
fn nothing_that_was_committed_is_replaced_whoever_loses_what() {
    let runs = std::env::var("RINGLOG_REPAIR_RUNS").ok().map_or(40, |runs| runs.parse().expect("a number"));
    let mut committed = 0;
    for seed in 0..runs {
        committed += std::panic::catch_unwind(|| run(seed, seed % 2 == 1)).unwrap_or_else(|_| panic!("run {seed}"));
    }
    assert!(committed > runs * 40, "{committed} entries were committed");
}
