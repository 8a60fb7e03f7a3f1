use std::collections::VecDeque;

use super::super::tests::{Disk, batch, config, consume, now};
use super::*;
use crate::consensus::Members;
use crate::partition::{Acks, AppendError, FlushOutcome, FlushStep};
use crate::record::Batch;
use crate::types::{LogId, Mono, Offset};

const BROKERS: [BrokerId; 3] = [BrokerId(1), BrokerId(2), BrokerId(3)];

pub(in crate::partition) struct Node {
    pub(in crate::partition) partition: Partition,
    pub(in crate::partition) disk: Disk,
    /// Writes to the WAL do not end.
    stalled: bool,
    /// There is no room for segments.
    full: bool,
    /// How often it asked for records.
    asked: usize,
    written: Option<u64>,
    /// The life of its replica.
    life: u32,
}

/// Three replicas with a network that loses nothing, but what goes to or comes from a broker that is cut off.
pub(in crate::partition) struct Cluster {
    pub(in crate::partition) nodes: Vec<Node>,
    wires: VecDeque<(usize, usize, Message, Vec<Chunk>)>,
    cut: Option<usize>,
    millis: u64,
    /// The brokers that the partition was made on.
    first: &'static [BrokerId],
}

fn open(disk: &Disk, replica: (BrokerId, u32), first: &[BrokerId]) -> Partition {
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let recovered = (!disk.frames.is_empty()).then(|| disk.recovered());
    Partition::open(LogId(1), replica, first, config(), recovered, &logger).unwrap()
}

impl Node {
    fn of(partition: Partition, disk: Disk, life: u32) -> Node {
        Node { partition, disk, stalled: false, full: false, asked: 0, written: None, life }
    }
}

impl Cluster {
    /// Replica 0 leads.
    pub(in crate::partition) fn new() -> Cluster {
        Cluster::made_on(&BROKERS)
    }

    /// The same, on some of the brokers at first.
    fn made_on(first: &'static [BrokerId]) -> Cluster {
        let node = |broker: &BrokerId| {
            let disk = Disk::default();
            let partition = open(&disk, (*broker, 0), first);
            Node::of(partition, disk, 0)
        };
        let nodes = BROKERS.iter().map(node).collect();
        let mut cluster = Cluster { nodes, wires: VecDeque::new(), cut: None, millis: 0, first };
        cluster.nodes[0].partition.campaign();
        cluster.run();
        assert!(cluster.nodes[0].partition.is_up());
        cluster
    }

    fn leader(&self) -> usize {
        (0..3).find(|at| self.nodes[*at].partition.is_up() && self.cut != Some(*at)).expect("somebody leads")
    }

    fn send(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        if let Some(ready) = node.partition.take_frames(&mut node.disk.frames) {
            node.written = Some(ready.number);
        }
        let mut moved = false;
        if !node.stalled
            && let Some(number) = node.written.take()
        {
            node.partition.persisted(number);
            moved = true;
        }
        for (to, message, beside) in node.partition.take_messages() {
            let beside = beside.into_iter().map(joined).collect();
            let to = BROKERS.iter().position(|broker| *broker == to).unwrap();
            self.wires.push_back((at, to, message, beside));
        }
        moved
    }

    /// Runs until nothing moves any more; no time passes.
    pub(in crate::partition) fn run(&mut self) {
        loop {
            let mut moved = false;
            for at in 0..3 {
                moved |= self.send(at);
            }
            let now = Now { mono: Mono(self.millis * 1_000), wall_ms: 0 };
            while let Some((from, to, message, beside)) = self.wires.pop_front() {
                if self.cut == Some(from) || self.cut == Some(to) {
                    continue;
                }
                moved = true;
                self.nodes[to].partition.step(now, BROKERS[from], message, beside).unwrap();
            }
            moved |= self.fetch(now);
            if !moved && (0..3).all(|at| !self.send(at)) && self.wires.is_empty() {
                return;
            }
        }
    }

    /// Carries what installing replicas want from the leader.
    fn fetch(&mut self, now: Now) -> bool {
        let mut moved = false;
        for at in 0..3 {
            let Some(wanted) = self.nodes[at].partition.wanted(now) else {
                if self.nodes[at].partition.is_installing() {
                    // Raft goes on from another point, and any message may come before that is written.
                    self.nodes[at].partition.step(now, BROKERS[(at + 1) % 3], late_vote(), Vec::new()).unwrap();
                }
                continue;
            };
            let from = BROKERS.iter().position(|broker| *broker == wanted.from).unwrap();
            if self.cut == Some(at) || self.cut == Some(from) {
                continue;
            }
            moved = true;
            let Node { partition, disk, .. } = &mut self.nodes[from];
            let mut whole = Vec::new();
            let start = partition.log_start();
            let first = wanted.offset.max(start);
            for batch in consume(partition, disk, first) {
                if batch.header.last_offset() < wanted.end {
                    whole.extend_from_slice(batch.header.as_bytes());
                    whole.extend_from_slice(&batch.body);
                }
                if whole.len() > 5_000 {
                    break;
                }
            }
            let Node { partition, disk, full, asked, .. } = &mut self.nodes[at];
            *asked += 1;
            assert!(*asked < 1_000, "it asks again and again");
            let chunk = Chunk { head: SmallVec::new(), body: whole.into() };
            let mut step = match chunk.body.is_empty() {
                true => partition.fetched(wanted.end, start, &[]),
                false => partition.fetched(wanted.offset, start, &[chunk]),
            };
            while let FlushStep::Write(write) = step {
                if !*full {
                    disk.write(&write);
                }
                let outcome = if *full { FlushOutcome::NoSpace } else { FlushOutcome::Durable };
                (step, _) = partition.flush_written(outcome);
            }
        }
        moved
    }

    /// Lets Raft's time pass until there is a leader other than `not`.
    fn elect(&mut self, not: usize) -> usize {
        for _ in 0..100 {
            self.millis += 50;
            for node in &mut self.nodes {
                node.partition.tick();
            }
            self.run();
            if let Some(led) = (0..3).find(|at| *at != not && self.nodes[*at].partition.is_up()) {
                return led;
            }
        }
        panic!("nobody was elected");
    }

    pub(in crate::partition) fn pass(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.millis += 50;
            self.nodes.iter_mut().for_each(|node| node.partition.tick());
            self.run();
        }
    }

    pub(in crate::partition) fn append(&mut self, at: usize, values: &[&[u8]]) -> Offset {
        self.nodes[at].partition.append(now(1), batch(values, 1)).unwrap().base_offset
    }

    /// The batches of a replica up to its high watermark, as bytes.
    /// Replica 0 gets so much that what is in its segments is in memory no more: whoever lacks it has to fetch it.
    fn fill_segments(&mut self) {
        for n in 0..300u32 {
            self.append(0, &[&[n as u8; 700]]);
        }
        self.run();
        let Node { partition, disk, .. } = &mut self.nodes[0];
        (0..3).for_each(|_| disk.flush(partition));
        while partition.evict_one().is_some() {}
    }

    fn log(&mut self, at: usize) -> Vec<Vec<u8>> {
        let Node { partition, disk, .. } = &mut self.nodes[at];
        let bytes = |batch: Batch| [batch.header.as_bytes(), &batch.body].concat();
        consume(partition, disk, partition.log_start()).into_iter().map(bytes).collect()
    }

    pub(in crate::partition) fn assert_equal(&mut self) {
        let logs: Vec<_> = (0..3).map(|at| self.log(at)).collect();
        assert!(logs[0] == logs[1] && logs[1] == logs[2], "the replicas differ");
    }

    pub(in crate::partition) fn restart(&mut self, at: usize) {
        let Node { disk, life, .. } = &self.nodes[at];
        self.nodes[at].partition = open(disk, (BROKERS[at], *life), self.first);
        self.nodes[at].written = None;
    }
}

fn produced_by(mut batch: Batch, producer: i64, sequence: i32) -> Batch {
    batch.header.producer_id.set(producer);
    batch.header.producer_epoch.set(0);
    batch.header.base_sequence.set(sequence);
    batch.stamp(1);
    batch
}

/// As it comes off the wire.
fn joined(chunk: Chunk) -> Chunk {
    let body = [&chunk.head[..], &chunk.body[..]].concat().into();
    Chunk { head: SmallVec::new(), body }
}

#[test]
fn what_a_majority_holds_is_committed_everywhere() {
    let mut cluster = Cluster::new();
    for n in 0..20u8 {
        cluster.append(0, &[&[n; 10], &[n; 20]]);
    }
    cluster.run();
    cluster.pass(3);
    assert_eq!(cluster.nodes[0].partition.high_watermark(), 40);
    assert_eq!(cluster.nodes[2].partition.high_watermark(), 40);
    cluster.assert_equal();
}

#[test]
fn a_leader_commits_through_its_followers_while_its_own_disk_hangs() {
    let mut cluster = Cluster::new();
    cluster.nodes[0].stalled = true;
    cluster.append(0, &[b"a"]);
    cluster.run();
    assert_eq!(cluster.nodes[0].partition.high_watermark(), 1);
    cluster.nodes[1].stalled = true;
    cluster.append(0, &[b"b"]);
    cluster.run();
    assert_eq!(cluster.nodes[0].partition.high_watermark(), 1, "one durable copy of three is not enough");
    cluster.nodes[1].stalled = false;
    cluster.run();
    assert_eq!(cluster.nodes[0].partition.high_watermark(), 2);
}

#[test]
fn a_leader_hands_over_although_its_disk_hangs() {
    let mut cluster = Cluster::new();
    cluster.append(0, &[b"a"]);
    cluster.run();
    cluster.nodes[0].stalled = true;
    assert!(cluster.nodes[0].partition.hand_over(|_| true));
    cluster.run();
    assert!(!cluster.nodes[0].partition.leads());
    let led = cluster.leader();
    cluster.append(led, &[b"b"]);
    cluster.run();
    assert_eq!(cluster.nodes[led].partition.high_watermark(), 2);
    cluster.nodes[0].stalled = false;
    cluster.run();
    cluster.pass(5);
    cluster.assert_equal();
}

#[test]
fn what_was_not_committed_is_cut_off_with_its_producers() {
    let mut cluster = Cluster::new();
    cluster.append(0, &[b"a"]);
    cluster.run();
    cluster.cut = Some(0);
    let lost = produced_by(batch(&[b"lost"], 1), 7, 0);
    cluster.nodes[0].partition.append(now(1), lost.clone()).unwrap();
    cluster.run();
    let led = cluster.elect(0);
    cluster.append(led, &[b"b"]);
    cluster.append(led, &[b"c"]);
    cluster.run();
    cluster.cut = None;
    cluster.pass(30);
    cluster.assert_equal();
    assert_eq!(cluster.log(0).len(), 3);
    // The producer's batch was never in the log, so it is the next one.
    let led = cluster.leader();
    assert_eq!(cluster.nodes[led].partition.append(now(1), lost).unwrap().base_offset, 3);
}

#[test]
fn a_replica_that_was_away_long_fetches_the_records_and_keeps_the_producers() {
    let mut cluster = Cluster::new();
    cluster.append(0, &[b"first"]);
    cluster.run();
    cluster.cut = Some(2);
    let known = produced_by(batch(&[b"idempotent"], 1), 9, 0);
    cluster.nodes[0].partition.append(now(1), known.clone()).unwrap();
    cluster.fill_segments();
    cluster.cut = None;
    cluster.pass(60);
    assert!(!cluster.nodes[2].partition.is_installing());
    assert_eq!(cluster.nodes[2].partition.high_watermark(), 302);
    cluster.assert_equal();
    // It has kept what it fetched, and what it knows of producers, over a restart.
    cluster.restart(2);
    cluster.append(0, &[b"later"]);
    cluster.run();
    cluster.pass(5);
    cluster.assert_equal();
    assert!(cluster.nodes[0].partition.hand_over(|broker| broker == BROKERS[2]));
    cluster.run();
    assert!(cluster.nodes[2].partition.is_up());
    assert_eq!(cluster.nodes[2].partition.append(now(1), known).unwrap().base_offset, 1, "a duplicate is known");
}

#[test]
fn a_replica_without_room_asks_for_what_it_cannot_keep_once_a_second() {
    let mut cluster = Cluster::new();
    cluster.cut = Some(2);
    cluster.fill_segments();
    (cluster.cut, cluster.nodes[2].full) = (None, true);
    let before = cluster.millis;
    cluster.pass(100);
    assert!(cluster.nodes[2].partition.is_installing());
    let seconds = ((cluster.millis - before) / 1_000) as usize;
    assert!((seconds / 2..=seconds + 1).contains(&cluster.nodes[2].asked), "{} times", cluster.nodes[2].asked);
    // With room it goes on by itself, at full speed.
    cluster.nodes[2].full = false;
    cluster.pass(25);
    assert!(!cluster.nodes[2].partition.is_installing());
    cluster.assert_equal();
}

#[test]
fn the_start_of_the_log_is_agreed_on_and_outlives_its_leader() {
    let mut cluster = Cluster::new();
    for n in 0..10u8 {
        cluster.append(0, &[&[n; 10]]);
    }
    cluster.run();
    cluster.nodes[1].stalled = true;
    cluster.nodes[2].stalled = true;
    assert_eq!(cluster.nodes[0].partition.delete_records(4), Ok(4));
    cluster.run();
    assert_eq!(cluster.nodes[0].partition.log_start(), 0, "one durable copy of three is not enough");
    cluster.nodes[1].stalled = false;
    cluster.run();
    assert_eq!(cluster.nodes[0].partition.log_start(), 4);
    cluster.nodes[2].stalled = false;
    cluster.run();
    cluster.pass(3);
    // A start that only the leader knows of is forgotten with it.
    cluster.cut = Some(0);
    assert_eq!(cluster.nodes[0].partition.delete_records(9), Ok(9));
    cluster.run();
    let led = cluster.elect(0);
    assert_eq!(cluster.nodes[led].partition.log_start(), 4);
    cluster.append(led, &[b"b"]);
    cluster.cut = None;
    cluster.pass(30);
    for at in 0..3 {
        assert_eq!(cluster.nodes[at].partition.log_start(), 4, "replica {at}");
        cluster.restart(at);
        cluster.pass(30);
        assert_eq!(cluster.nodes[at].partition.log_start(), 4, "replica {at} after a restart");
    }
    cluster.assert_equal();
}

#[test]
fn a_replica_that_was_away_does_not_get_what_was_deleted_meanwhile() {
    for deleted in [150, 301] {
        let mut cluster = Cluster::new();
        cluster.append(0, &[b"first"]);
        cluster.run();
        let Node { partition, disk, .. } = &mut cluster.nodes[2];
        disk.flush(partition);
        cluster.cut = Some(2);
        for n in 0..300u32 {
            cluster.append(0, &[&[n as u8; 700]]);
        }
        cluster.run();
        let Node { partition, disk, .. } = &mut cluster.nodes[0];
        for _ in 0..4 {
            disk.flush(partition);
        }
        partition.delete_records(deleted).unwrap();
        cluster.run();
        let Node { partition, disk, .. } = &mut cluster.nodes[0];
        disk.flush(partition);
        while partition.evict_one().is_some() {}
        cluster.cut = None;
        cluster.pass(60);
        for at in [0, 2] {
            let partition = &cluster.nodes[at].partition;
            assert_eq!((partition.log_start(), partition.high_watermark()), (deleted, 301), "replica {at}");
        }
        cluster.assert_equal();
        cluster.restart(2);
        cluster.append(0, &[b"later"]);
        cluster.run();
        cluster.pass(5);
        assert_eq!(cluster.nodes[2].partition.log_start(), deleted);
        cluster.assert_equal();
        let Node { partition, disk, .. } = &mut cluster.nodes[2];
        disk.flush(partition);
        assert!(partition.segments.iter().all(|segment| !segment.is_before(deleted)));
    }
}

#[test]
fn a_damaged_entry_is_not_taken() {
    let mut cluster = Cluster::new();
    cluster.append(0, &[b"abc"]);
    cluster.send(0);
    let (from, to, message, mut beside) = cluster.wires.pop_front().unwrap();
    let mut bytes = beside[0].body.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    beside[0].body = bytes.into();
    let damaged = cluster.nodes[to].partition.step(now(1), BROKERS[from], message, beside);
    assert!(damaged.is_err());
    assert_eq!(cluster.nodes[to].partition.next_offset, 0);
}

#[test]
fn a_follower_takes_no_appends() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.nodes[1].partition.append(now(1), batch(&[b"x"], 1)), Err(AppendError::NotLeader));
}

#[test]
fn acks_of_the_leader_come_with_its_own_write_or_with_the_majority() {
    let mut cluster = Cluster::new();
    let acknowledged = |cluster: &Cluster, acks| cluster.nodes[0].partition.acknowledged(acks);
    for at in 1..3 {
        cluster.nodes[at].stalled = true;
    }
    cluster.append(0, &[b"a", b"b"]);
    assert_eq!(acknowledged(&cluster, Acks::Leader), 0);
    cluster.run();
    assert_eq!((acknowledged(&cluster, Acks::Leader), acknowledged(&cluster, Acks::All)), (2, 0));
    for at in 1..3 {
        cluster.nodes[at].stalled = false;
    }
    cluster.run();
    assert_eq!(acknowledged(&cluster, Acks::All), 2);
    cluster.nodes[0].stalled = true;
    cluster.append(0, &[b"c"]);
    cluster.run();
    assert_eq!((acknowledged(&cluster, Acks::Leader), acknowledged(&cluster, Acks::All)), (3, 3));
}

#[test]
fn acks_of_all_wait_for_as_many_replicas_as_the_topic_asks_for() {
    let mut cluster = Cluster::new();
    cluster.nodes[0].partition.config.min_insync_replicas = 3;
    cluster.nodes[2].stalled = true;
    cluster.append(0, &[b"a"]);
    cluster.run();
    let leader = &cluster.nodes[0].partition;
    assert_eq!((leader.high_watermark(), leader.acknowledged(Acks::All)), (1, 0));
    cluster.nodes[2].stalled = false;
    cluster.run();
    assert_eq!(cluster.nodes[0].partition.acknowledged(Acks::All), 1);
}

fn members(voters: &[BrokerId], outgoing: &[BrokerId], learners: &[BrokerId]) -> Members {
    let (voters, outgoing, learners) = (voters.to_vec(), outgoing.to_vec(), learners.to_vec());
    Members { voters, outgoing, learners, ..Members::default() }
}

impl Cluster {
    fn change(&mut self, at: usize, wanted: &Members) {
        self.nodes[at].partition.change_members(wanted).expect("no change is under way");
        self.run();
        self.pass(3);
        assert_eq!(self.nodes[at].partition.members(), wanted);
    }
}

#[test]
fn a_partition_moves_from_one_broker_to_two_others() {
    let [one, two, three] = BROKERS;
    let mut cluster = Cluster::made_on(&BROKERS[..1]);
    cluster.append(0, &[b"a", b"b"]);
    cluster.run();
    cluster.change(0, &members(&[one], &[], &[two]));
    cluster.change(0, &members(&[one], &[], &[two, three]));
    assert_eq!(cluster.nodes[2].partition.high_watermark(), 2, "who learns gets everything");
    cluster.change(0, &members(&[two, three], &[one], &[]));
    cluster.nodes[1].stalled = true;
    cluster.nodes[2].stalled = true;
    cluster.append(0, &[b"c"]);
    cluster.run();
    assert_eq!(cluster.nodes[0].partition.high_watermark(), 2, "both sets of voters must have it");
    cluster.nodes[1].stalled = false;
    cluster.nodes[2].stalled = false;
    cluster.run();
    assert_eq!(cluster.nodes[0].partition.high_watermark(), 3);
    assert!(cluster.nodes[0].partition.hand_over(|broker| broker == two));
    cluster.run();
    assert_eq!(cluster.leader(), 1);
    cluster.pass(3);
    cluster.change(1, &members(&[two, three], &[], &[]));
    cluster.cut = Some(0);
    assert_eq!(cluster.append(1, &[b"d"]), 3);
    cluster.run();
    assert_eq!(cluster.nodes[2].partition.high_watermark(), 4, "the two of them are enough");
}

#[test]
fn members_outlive_restarts_and_checkpoints() {
    let [one, two, three] = BROKERS;
    let mut cluster = Cluster::made_on(&BROKERS[..1]);
    cluster.append(0, &[b"a"]);
    cluster.run();
    cluster.change(0, &members(&[one], &[], &[two]));
    cluster.change(0, &members(&[one], &[], &[two, three]));
    let joint = members(&[one, two, three], &[one], &[]);
    cluster.change(0, &joint);
    // What comes after this change was proposed by somebody who knew it to be committed.
    cluster.change(0, &members(&BROKERS, &[], &[]));
    for at in 0..3 {
        cluster.restart(at);
        assert!(
            [&joint, &members(&BROKERS, &[], &[])].contains(&cluster.nodes[at].partition.members()),
            "replica {at}"
        );
    }
    let led = cluster.elect(usize::MAX);
    cluster.append(led, &[b"b"]);
    cluster.pass(3);
    for at in 0..3 {
        assert_eq!(cluster.nodes[at].partition.members(), &members(&BROKERS, &[], &[]), "replica {at}");
        assert_eq!(cluster.nodes[at].partition.high_watermark(), 2);
        let Node { partition, disk, .. } = &mut cluster.nodes[at];
        let mut step = partition.flush(true);
        while let FlushStep::Write(write) = step {
            disk.write(&write);
            (step, _) = partition.flush_written(FlushOutcome::Durable);
        }
        let FlushStep::Checkpoint { frames, .. } = step else { panic!("a checkpoint was wanted") };
        disk.frames.extend(frames);
        cluster.restart(at);
        assert_eq!(cluster.nodes[at].partition.members(), &members(&BROKERS, &[], &[]), "replica {at}");
    }
}

#[test]
fn a_broker_that_gets_its_replica_again_is_another_member() {
    let [one, two, _] = BROKERS;
    let mut cluster = Cluster::made_on(&BROKERS[..1]);
    cluster.append(0, &[b"a"]);
    cluster.run();
    cluster.change(0, &members(&[one], &[], &[two]));
    cluster.change(0, &members(&[two], &[one], &[]));
    assert!(cluster.nodes[0].partition.hand_over(|broker| broker == two));
    cluster.run();
    cluster.pass(3);
    cluster.change(1, &members(&[two], &[], &[]));
    cluster.append(1, &[b"b"]);
    cluster.run();

    // What the log was made on would let the new one lead alone, were it the old one.
    let mut disk = Disk::default();
    let partition = open(&disk, (one, 5), &BROKERS[..1]);
    disk.frames.push(partition.first_frame());
    cluster.nodes[0] = Node::of(partition, disk, 5);
    cluster.nodes[0].partition.campaign();
    cluster.run();
    assert!(!cluster.nodes[0].partition.leads() && cluster.nodes[0].partition.is_replicated());
    let now = Now { mono: Mono(0), wall_ms: 0 };
    cluster.nodes[0].partition.step(now, BROKERS[2], Message { term: 90, ..vote() }, Vec::new()).unwrap();
    assert_eq!(cluster.nodes[0].partition.group().term(), 0, "it was for the replica that is gone");
    cluster.restart(0);
    assert_eq!(Partition::life_of(&cluster.nodes[0].disk.recovered()), 5);

    let again = |members| Members { lives: vec![(one, 5)], number: 5, ..members };
    cluster.change(1, &again(members(&[two], &[], &[one])));
    assert_eq!(cluster.nodes[0].partition.high_watermark(), 2);
    cluster.change(1, &again(members(&[one, two], &[two], &[])));
    cluster.change(1, &again(members(&[one, two], &[], &[])));
    cluster.nodes[0].stalled = true;
    cluster.append(1, &[b"c"]);
    cluster.run();
    assert_eq!(cluster.nodes[1].partition.high_watermark(), 2, "its vote counts now");
    cluster.nodes[0].stalled = false;
    cluster.run();
    assert_eq!(cluster.nodes[1].partition.high_watermark(), 3);
}

#[test]
fn another_number_alone_is_a_change() {
    let mut cluster = Cluster::made_on(&BROKERS);
    cluster.change(0, &Members { number: 7, ..members(&BROKERS, &[], &[]) });
    assert!((0..3).all(|at| cluster.nodes[at].partition.members().number == 7));
}

/// An answer for which nobody waits.
fn late_vote() -> Message {
    Message { kind: MessageKind::VoteResponse, term: 1, reject: true, ..vote() }
}

/// A question for the vote of a broker's first replica.
fn vote() -> Message {
    Message {
        kind: MessageKind::Vote,
        from_life: 0,
        to_life: 0,
        term: 0,
        log_term: 0,
        index: 0,
        commit: 0,
        commit_term: 0,
        reject: false,
        reject_hint: 0,
        request_snapshot: 0,
        context: Default::default(),
        entries: Vec::new(),
        snapshot: None,
    }
}
