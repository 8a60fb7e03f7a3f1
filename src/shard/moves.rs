//! Moving replicas: what the metadata wants becomes, step by step, the members of the partition's Raft group.
//!
//! The leader takes the steps: the new replicas learn first, then they vote together with the old ones (joint
//! consensus), then the old ones leave. Each step is an entry of the log, so whoever leads next goes on from there. When
//! the members are those that are wanted, the metadata is told, and the brokers that lost their replica delete it.

use super::Shard;
use super::in_sync::Followers;
use super::mesh::{Question, RequestId};
use crate::consensus::members::same;
use crate::consensus::{Group, Members};
use crate::limits::{MOVED_AGAIN_MS, REPLICA_LAG_MS};
use crate::metadata::command::Placed;
use crate::metadata::state::{Move, Topic};
use crate::protocol::ErrorCode;
use crate::types::{BrokerId, Deadline, LogId, Mono, Now};

/// A bound on what new replicas of a shard fetch, so that the live traffic has the rest.
pub(super) struct Throttle {
    /// Bytes a second.
    rate: u64,
    /// Bytes that may be fetched now; below zero, what came was more.
    allowed: i64,
    as_of: Mono,
}

impl Throttle {
    pub(super) fn new(rate: u64) -> Throttle {
        Throttle { rate, allowed: 0, as_of: Mono::default() }
    }

    /// Whether more may be asked for.
    pub(super) fn allows(&mut self, now: Mono) -> bool {
        let earned = now.micros_since(self.as_of).saturating_mul(self.rate) / 1_000_000;
        self.as_of = now;
        // What is not used within a second is lost.
        self.allowed = self.allowed.saturating_add_unsigned(earned).min(self.rate as i64);
        self.allowed > 0
    }

    /// So many bytes have come.
    pub(super) fn took(&mut self, bytes: usize) {
        self.allowed -= bytes as i64;
    }
}

/// What the leader of a group does next to bring its members to a target.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait: a change is under way, or the new replicas are behind.
    Wait,
    /// Propose these members.
    Change(Members),
    /// Another must lead to take the last step: one that stays.
    HandOver,
    /// Nothing is left to be done.
    Done,
}

/// What the members are to become.
pub(super) struct Goal<'a> {
    /// Those who are to vote.
    pub(super) brokers: &'a [BrokerId],
    /// Those who are to get every entry without a vote, and stay so.
    pub(super) observers: &'a [BrokerId],
    /// The number of the move.
    pub(super) number: u32,
    pub(super) life: &'a dyn Fn(BrokerId) -> u32,
}

impl Goal<'_> {
    /// The members, changed on behalf of the move. Its number comes last: see [`step`].
    fn change(&self, now: &Members, voters: &[BrokerId], outgoing: &[BrokerId], learners: Vec<BrokerId>) -> Step {
        let (voters, outgoing) = (voters.to_vec(), outgoing.to_vec());
        let mut members = Members { voters, outgoing, learners, lives: Vec::new(), number: now.number };
        let known = now.all();
        let life = |broker| if known.contains(&broker) { now.life(broker) } else { (self.life)(broker) };
        members.lives = members.all().into_iter().map(|broker| (broker, life(broker))).collect();
        members.lives.retain(|(_, life)| *life > 0);
        Step::Change(members)
    }
}

pub(super) fn step(own: BrokerId, now: &Members, goal: &Goal<'_>, has_learned: impl Fn(BrokerId) -> bool) -> Step {
    // An earlier leader knew of a later move. What it has reached may be what brokers delete their replicas by.
    if now.number > goal.number {
        return Step::Wait;
    }
    if now.is_joint() {
        return match now.voters.contains(&own) {
            true => goal.change(now, &now.voters, &[], now.learners.clone()),
            false => Step::HandOver,
        };
    }
    let wanted = |broker: &BrokerId| goal.brokers.contains(broker) || goal.observers.contains(broker);
    let new = |broker: &&BrokerId| wanted(broker) && !now.voters.contains(broker);
    let right = |broker: &&BrokerId| new(broker) && now.life(**broker) == (goal.life)(**broker);
    if let Some(over) = now.learners.iter().find(|learner| !right(learner)) {
        let learners = now.learners.iter().copied().filter(|learner| learner != over).collect();
        return goal.change(now, &now.voters, &[], learners);
    }
    if let Some(next) =
        goal.brokers.iter().chain(goal.observers).filter(new).find(|broker| !now.learners.contains(broker))
    {
        let learners = now.learners.iter().chain([next]).copied().collect();
        return goal.change(now, &now.voters, &[], learners);
    }
    if same(&now.voters, goal.brokers) {
        return match now.number == goal.number {
            true => Step::Done,
            // From now on no leader that knows only of earlier moves leads away from here. And who has this change in its
            // log knows that those who voted before have no say any more: after a start it may not know more than its log
            // says of what is committed, and they are gone.
            false => Step::Change(Members { number: goal.number, ..now.clone() }),
        };
    }
    let (to_vote, to_observe): (Vec<BrokerId>, _) = now.learners.iter().partition(|one| goal.brokers.contains(one));
    if !to_vote.into_iter().all(has_learned) {
        return Step::Wait;
    }
    // Who votes no more and stays as an observer misses nothing in between.
    let lose = now.voters.iter().filter(|voter| goal.observers.contains(voter));
    let observers = to_observe.into_iter().chain(lose.copied()).collect();
    goal.change(now, goal.brokers, &now.voters, observers)
}

impl Shard {
    /// The replicas of a partition are to be moved, or have moved.
    pub(super) fn replicas_move(&mut self, now: Now, topic: &Topic, number: usize) {
        let partition = &topic.partitions[number];
        let log = partition.log;
        if log.shard(self.shards) != self.id {
            return;
        }
        if self.unsure.contains_key(&log) {
            return;
        }
        let own = self.config.broker_id;
        let hosts = self.state.hosts(partition).any(|host| host == own);
        let life = self.state.life(log, own);
        match self.owned.get_mut(&log) {
            None if hosts => {
                self.elsewhere.remove(&log);
                let recovered = self.recovered.remove(&log);
                self.open_partition(now, topic, partition, recovered);
            }
            None => {}
            Some(owned) if hosts && owned.partition.life() == life => {
                let target = self.state.moved(log).and_then(|moved| moved.target.as_deref());
                owned.partition.place_on(target.unwrap_or(&partition.replicas));
                self.wake(log);
            }
            // It was moved away, and perhaps back again while this broker was not told.
            Some(_) => {
                self.disown(now, log, ErrorCode::NotLeaderOrFollower);
                self.end_log(log);
                self.rising.remove(&log);
                if !hosts {
                    self.elsewhere.insert(log);
                }
            }
        }
    }

    /// The files of a log are gone; it may be wanted here again by now.
    pub(super) fn log_removed(&mut self, now: Now, log: LogId) {
        self.ending.remove(&log);
        let Some(moved) = self.state.moved(log).filter(|_| self.opened) else { return };
        let Some(topic) = self.state.topic_by_id(moved.topic).cloned() else { return };
        self.replicas_move(now, &topic, moved.partition as usize);
    }

    /// Takes the next step of every move of a partition that is led here.
    pub(super) fn tick_moves(&mut self, now: Now) {
        let led = |log: &LogId| self.owned.get(log).is_some_and(|owned| owned.partition.is_up());
        let moving = self.state.moving().filter(|(log, _)| led(log));
        let moving: Vec<(LogId, Move)> = moving.map(|(log, moved)| (log, moved.clone())).collect();
        let mut done = Vec::new();
        for (log, moved) in moving {
            let peers = &self.peers;
            let owned = self.owned.get_mut(&log).expect("it is led here");
            let (partition, followers) = (&mut owned.partition, &owned.followers);
            let members = partition.members().clone();
            let brokers = moved.target.clone().unwrap_or_default();
            let life = |broker| moved.life(broker);
            let goal = Goal { brokers: &brokers, observers: &[], number: moved.number, life: &life };
            let next = match partition.group().is_changing() {
                true => Step::Wait,
                false => step(self.config.broker_id, &members, &goal, |broker| {
                    has_learned(partition.group(), followers, broker, now.mono)
                }),
            };
            match next {
                Step::Wait => {}
                Step::Change(wanted) => {
                    if partition.change_members(&wanted).is_ok() {
                        tracing::info!(%log, ?wanted, "the members of a partition's group change");
                    }
                }
                Step::HandOver => {
                    partition.hand_over(|broker| peers.may_lead(broker));
                }
                Step::Done => {
                    let placed = Placed { topic: moved.topic, partition: moved.partition, replicas: brokers };
                    done.push(Question::ReplicasMoved { placed, number: moved.number });
                }
            }
            self.wake(log);
            self.touch(log);
        }
        if !done.is_empty() && now.mono >= self.next_moved {
            self.next_moved = now.mono.plus_millis(MOVED_AGAIN_MS);
            for question in done {
                let request = RequestId { shard: self.id, number: 0 };
                self.ask(now, request, Deadline(self.next_moved), question);
            }
        }
    }
}

/// Whether a learner keeps up, so that its vote holds nobody up: it would be in sync.
pub(super) fn has_learned(group: &Group, followers: &Followers, learner: BrokerId, now: Mono) -> bool {
    let has_any = group.matched(learner).is_some_and(|matched| matched > 0);
    has_any && followers.caught_up(learner).is_some_and(|at| now <= at.plus_millis(REPLICA_LAG_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: fn(&[i32]) -> Vec<BrokerId> = |ids| ids.iter().copied().map(BrokerId).collect();

    fn members(voters: &[i32], outgoing: &[i32], learners: &[i32]) -> Members {
        let lives = Vec::new();
        Members { voters: IDS(voters), outgoing: IDS(outgoing), learners: IDS(learners), lives, number: 0 }
    }

    /// They have arrived.
    fn arrived(voters: &[i32]) -> Members {
        Members { number: 1, ..members(voters, &[], &[]) }
    }

    fn next(now: &Members, target: &[i32], learned: bool) -> Step {
        let goal = Goal { brokers: &IDS(target), observers: &[], number: 1, life: &|_| 0 };
        step(BrokerId(1), now, &goal, |_| learned)
    }

    #[test]
    fn a_leader_that_knows_of_an_earlier_move_only_does_nothing() {
        let now = Members { number: 2, ..members(&[1, 2], &[], &[]) };
        assert_eq!(next(&now, &[1, 3], true), Step::Wait);
        assert_eq!(next(&now, &[1, 2], true), Step::Wait);
    }

    #[test]
    fn who_is_there_already_says_for_which_move() {
        assert_eq!(next(&members(&[1, 2], &[], &[]), &[2, 1], true), Step::Change(arrived(&[1, 2])));
    }

    #[test]
    fn a_replica_of_an_earlier_life_makes_room_for_the_new_one() {
        let goal = |life| Goal { brokers: &[BrokerId(1), BrokerId(2)], observers: &[], number: 3, life };
        let old = Members { lives: vec![(BrokerId(2), 1)], ..members(&[1], &[], &[2]) };
        let gone = members(&[1], &[], &[]);
        let life: &dyn Fn(BrokerId) -> u32 = &|broker| if broker == BrokerId(2) { 3 } else { 0 };
        assert_eq!(step(BrokerId(1), &old, &goal(life), |_| true), Step::Change(gone.clone()));
        let new = Members { lives: vec![(BrokerId(2), 3)], ..members(&[1], &[], &[2]) };
        assert_eq!(step(BrokerId(1), &gone, &goal(life), |_| true), Step::Change(new));
    }

    #[test]
    fn new_replicas_learn_then_vote_with_the_old_then_alone() {
        let target = [1, 4, 5];
        let one = members(&[1, 2, 3], &[], &[4]);
        assert_eq!(next(&members(&[1, 2, 3], &[], &[]), &target, false), Step::Change(one.clone()));
        assert_eq!(next(&one, &target, false), Step::Change(members(&[1, 2, 3], &[], &[4, 5])));
        assert_eq!(next(&members(&[1, 2, 3], &[], &[4, 5]), &target, false), Step::Wait);
        let joint = members(&[1, 4, 5], &[1, 2, 3], &[]);
        assert_eq!(next(&members(&[1, 2, 3], &[], &[4, 5]), &target, true), Step::Change(joint.clone()));
        assert_eq!(next(&joint, &target, true), Step::Change(members(&[1, 4, 5], &[], &[])));
        assert_eq!(next(&members(&[1, 4, 5], &[], &[]), &target, true), Step::Change(arrived(&[1, 4, 5])));
        assert_eq!(next(&arrived(&[1, 4, 5]), &target, true), Step::Done);
    }

    #[test]
    fn observers_come_without_a_vote_and_stay_while_others_get_one() {
        let next = |now: &Members, brokers: &[i32], observers: &[i32]| {
            let (brokers, observers) = (&IDS(brokers), &IDS(observers));
            step(BrokerId(1), now, &Goal { brokers, observers, number: 1, life: &|_| 0 }, |broker| {
                broker == BrokerId(5)
            })
        };
        let four = Members { number: 1, ..members(&[1, 2, 3], &[], &[4]) };
        let five = Members { learners: IDS(&[4, 5]), ..four.clone() };
        assert_eq!(next(&arrived(&[1, 2, 3]), &[1, 2, 3], &[4, 5]), Step::Change(four.clone()));
        assert_eq!(next(&four, &[1, 2, 3], &[4, 5]), Step::Change(five.clone()));
        assert_eq!(next(&five, &[1, 2, 3], &[4, 5]), Step::Done);
        assert_eq!(next(&five, &[1, 2, 3], &[4]), Step::Change(four));
        // The vote of 5 does not wait for 4, which stays as it is.
        let joint = Members { number: 1, ..members(&[1, 2, 5], &[1, 2, 3], &[4]) };
        assert_eq!(next(&five, &[1, 2, 5], &[4]), Step::Change(joint.clone()));
        let left = Members { outgoing: Vec::new(), ..joint.clone() };
        assert_eq!(next(&joint, &[1, 2, 5], &[4]), Step::Change(left));
        assert_eq!(next(&five, &[1, 2, 4], &[5]), Step::Wait);
        let lost = Members { number: 1, ..members(&[1, 2, 5], &[1, 2, 3], &[4, 3]) };
        assert_eq!(next(&five, &[1, 2, 5], &[3, 4]), Step::Change(lost));
    }

    #[test]
    fn a_throttle_lets_through_its_rate() {
        let mut throttle = Throttle::new(1_000_000);
        let mut bytes = 0;
        for millis in 0..10_000 {
            if throttle.allows(Mono::default().plus_millis(millis)) {
                throttle.took(300_000);
                bytes += 300_000;
            }
        }
        assert!((9_900_000..=10_300_000).contains(&bytes), "{bytes} bytes in ten seconds");
    }

    #[test]
    fn a_leader_that_goes_hands_over_first() {
        assert_eq!(next(&members(&[2, 3], &[1, 2, 3], &[]), &[2, 3], true), Step::HandOver);
    }

    #[test]
    fn a_move_that_is_taken_back_ends_where_it_began() {
        let back = [1, 2];
        assert_eq!(next(&members(&[1, 2], &[], &[3]), &back, true), Step::Change(members(&[1, 2], &[], &[])));
        // Too late to go straight back: the new voters take over first, and give back.
        assert_eq!(next(&members(&[1, 3], &[1, 2], &[]), &back, true), Step::Change(members(&[1, 3], &[], &[])));
        assert_eq!(next(&members(&[1, 3], &[], &[]), &back, true), Step::Change(members(&[1, 3], &[], &[2])));
    }
}
