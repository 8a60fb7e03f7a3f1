//! Groups of the consumer protocol (KIP-848): the coordinator assigns the partitions, and each member is led towards
//! its assignment by the answers to its heartbeats, at its own pace.
//!
//! The state is what the records say. A change is worked out on a [`Draft`](draft::Draft), as a list of records; they
//! are appended all or none, and the group takes them over ([`ConsumerGroup::apply`]) when they have been, as it does
//! when the log is read back. Only the times at which members are given up are beside that.

mod assign;
mod classic;
mod draft;
mod heartbeat;
mod migrate;
mod reconcile;
mod records;
mod regex;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use assign::Assignor;
pub use heartbeat::{Assigned, ConsumerHeartbeat};
use records::{Current, MemberState, Metadata, Resolved};
pub use records::{Part, Partitions};

use super::ask::{ConsumerDescribed, ConsumerMember, Identity};
use super::{Error, Outside, Settings};
use crate::types::{Mono, Now};

/// What a member takes beyond its texts, for the budget.
const MEMBER_OVERHEAD: usize = 500;

/// What a partition takes, in an assignment or as one that has an owner.
const PARTITION_BYTES: usize = 64;

/// The epoch of a member that is about to join.
const JOINING: i32 = 0;
/// The epoch with which a member leaves.
const LEAVING: i32 = -1;
/// The epoch with which a static member leaves for a while.
const AWAY: i32 = -2;

/// A member, with where it is on its way to its assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Member {
    metadata: Metadata,
    current: Current,
}

impl Member {
    /// Whether it speaks the classic protocol.
    fn is_classic(&self) -> bool {
        self.metadata.classic.is_some()
    }

    fn session_ms(&self, settings: &Settings) -> u64 {
        let classic = self.metadata.classic.as_ref();
        classic.map_or(settings.consumer_session_ms, |classic| classic.session_ms.max(0) as u64)
    }

    fn rebalance_ms(&self) -> u64 {
        self.metadata.rebalance_ms.max(1) as u64
    }

    fn bytes(&self) -> usize {
        let partitions = [&self.current.assigned, &self.current.revoking].map(count).iter().sum::<usize>();
        MEMBER_OVERHEAD + self.metadata.bytes() + 2 * PARTITION_BYTES * partitions
    }
}

/// Until when a member is waited for.
#[derive(Clone, Copy, Debug)]
struct Timers {
    /// That it is heard of.
    session: Mono,
    /// That it gives back what it must.
    revoke: Option<Mono>,
    /// That it joins again, where it speaks the classic protocol.
    join: Option<Mono>,
    /// That it asks for its assignment, likewise.
    sync: Option<Mono>,
}

impl Timers {
    fn next(&self) -> Mono {
        [self.revoke, self.join, self.sync].into_iter().flatten().fold(self.session, Mono::min)
    }
}

/// A map whose copies share what they have in common: each change is worked out on a copy of the group, which may have
/// thousands of members.
type SharedMap<K, V> = rpds::RedBlackTreeMapSync<K, V>;

/// The state of a group of the consumer protocol.
///
/// `owners` has each partition of the members' `assigned` and `revoking`: it is given to nobody else until it is not.
#[derive(Clone, Debug, Default)]
pub(super) struct ConsumerGroup {
    epoch: i32,
    /// Of the topics that are read, as of this epoch: see [`draft`].
    metadata_hash: i64,
    /// The epoch that the targets were made for.
    target_epoch: i32,
    members: SharedMap<Arc<str>, Arc<Member>>,
    /// Where each member is to get to.
    targets: SharedMap<Arc<str>, Arc<Partitions>>,
    owners: SharedMap<(uuid::Uuid, i32), Arc<str>>,
    /// The static members, by their own names.
    statics: SharedMap<String, Arc<str>>,
    /// What the regular expressions of the members stand for.
    regexes: BTreeMap<String, Arc<Resolved>>,
    bytes: usize,
}

/// What is known beside the records.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    timers: BTreeMap<Arc<str>, Timers>,
    /// No timer ends before it. Those that a heartbeat puts off need no new look at all the others.
    next: Option<Mono>,
    /// When the assignment was made last.
    assigned_at: Option<Mono>,
    /// The version of the topics that was looked at last.
    seen: Option<u64>,
}

/// The number of partitions.
fn count(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}

fn contains(partitions: &Partitions, topic: &uuid::Uuid, partition: i32) -> bool {
    partitions.get(topic).is_some_and(|numbers| numbers.contains(&partition))
}

impl ConsumerGroup {
    /// Takes a record over.
    pub(super) fn apply(&mut self, part: &Part) {
        match part {
            Part::Epoch(Some((epoch, hash))) => (self.epoch, self.metadata_hash) = (*epoch, *hash),
            Part::Epoch(None) => *self = ConsumerGroup::default(),
            Part::TargetEpoch(epoch) => self.target_epoch = epoch.unwrap_or(0),
            Part::Member(id, Some(metadata)) => {
                if let Some(instance) = &metadata.instance {
                    self.statics.insert_mut(instance.clone(), id.clone());
                }
                self.change(id, |member| member.metadata = metadata.clone());
            }
            Part::Member(id, None) => self.remove(id),
            Part::Target(id, target) => {
                let before = self.targets.get(id).map_or(0, |target| PARTITION_BYTES * count(target));
                match target {
                    Some(target) => {
                        self.bytes += PARTITION_BYTES * count(target);
                        self.targets.insert_mut(id.clone(), Arc::new(target.clone()));
                    }
                    None => {
                        self.targets.remove_mut(id);
                    }
                }
                self.bytes -= before;
            }
            Part::Current(id, Some(current)) => self.change(id, |member| member.current = current.clone()),
            Part::Current(id, None) if self.members.contains_key(id) => {
                self.change(id, |member| member.current = Current::default());
            }
            // The member itself may have gone first.
            Part::Current(_, None) => {}
            Part::Regex(text, Some(resolved)) => {
                self.bytes += resolved.bytes() + text.len();
                if let Some(before) = self.regexes.insert(text.clone(), Arc::new(resolved.clone())) {
                    self.bytes -= before.bytes() + text.len();
                }
            }
            Part::Regex(text, None) => {
                self.bytes -= self.regexes.remove(text).map_or(0, |before| before.bytes() + text.len());
            }
        }
    }

    /// Lets a member change, which need not be there before, and with it who owns what.
    fn change(&mut self, id: &Arc<str>, change: impl FnOnce(&mut Member)) {
        let mut member = self.members.get(id).map(|member| Member::clone(member)).unwrap_or_default();
        if self.members.contains_key(id) {
            self.bytes -= member.bytes();
        }
        let before = member.current.clone();
        change(&mut member);
        self.bytes += member.bytes();
        if member.current != before {
            self.release(id, &before);
            for (topic, numbers) in member.current.assigned.iter().chain(&member.current.revoking) {
                numbers.iter().for_each(|number| self.owners.insert_mut((*topic, *number), id.clone()));
            }
        }
        self.members.insert_mut(id.clone(), Arc::new(member));
    }

    fn release(&mut self, id: &str, current: &Current) {
        for (topic, numbers) in current.assigned.iter().chain(&current.revoking) {
            for number in numbers {
                if self.owners.get(&(*topic, *number)).is_some_and(|owner| **owner == *id) {
                    self.owners.remove_mut(&(*topic, *number));
                }
            }
        }
    }

    fn remove(&mut self, id: &str) {
        let Some(member) = self.members.get(id).cloned() else { return };
        self.members.remove_mut(id);
        self.bytes -= member.bytes();
        self.release(id, &member.current);
        // Under its name there may be another by now.
        if let Some(instance) = &member.metadata.instance
            && self.statics.get(instance).is_some_and(|known| **known == *id)
        {
            self.statics.remove_mut(instance);
        }
    }

    /// Memory, in bytes; about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it has no members.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What the group is doing, by Kafka's names.
    pub(super) fn state(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.values().all(|member| member.current.is_reconciled_to(self.target_epoch)) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// Whether a member reads a topic.
    pub(super) fn reads(&self, topic: &str) -> bool {
        let by_name = self.members.values().any(|member| member.metadata.topics.contains(topic));
        by_name || self.regexes.values().any(|resolved| resolved.topics.contains(topic))
    }

    /// The names of all topics that are read.
    fn subscribed(&self) -> BTreeSet<&str> {
        let named = self.members.values().flat_map(|member| &member.metadata.topics);
        named.chain(self.regexes.values().flat_map(|resolved| &resolved.topics)).map(String::as_str).collect()
    }

    /// Whether a member may commit.
    pub(super) fn check_commit(&self, identity: &Identity, is_modern: bool) -> Result<(), Error> {
        let member = self.members.get(&*identity.member_id).ok_or(Error::UnknownMember)?;
        if !member.is_classic() && !is_modern {
            return Err(Error::UnsupportedVersion);
        }
        self.check_epoch(&identity.member_id, identity.generation)
    }

    /// Whether a member is at the epoch that it names.
    pub(super) fn check_epoch(&self, id: &str, epoch: i32) -> Result<(), Error> {
        let member = self.members.get(id).ok_or(Error::UnknownMember)?;
        match member.current.epoch == epoch {
            true => Ok(()),
            false if member.is_classic() => Err(Error::IllegalGeneration),
            false => Err(Error::StaleMemberEpoch),
        }
    }

    /// How many members read what a regular expression stands for.
    fn readers_of(&self, regex: &str) -> usize {
        self.members.values().filter(|member| member.metadata.regex.as_deref() == Some(regex)).count()
    }

    /// The assignor that most members want, or the first of the settings.
    fn assignor(&self, settings: &Settings) -> Assignor {
        let wanted = self.members.values().filter_map(|member| member.metadata.assignor.as_deref());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        wanted.for_each(|name| *votes.entry(name).or_insert(0) += 1);
        let most = votes.into_iter().max_by_key(|(_, votes)| *votes);
        most.and_then(|(name, _)| settings.assignor(name)).unwrap_or(settings.assignors[0])
    }

    /// All about the group.
    pub(super) fn describe(&self, outside: Outside<'_>, settings: &Settings) -> ConsumerDescribed {
        let named = |partitions: &Partitions| {
            let topics = partitions.iter().filter_map(|(id, numbers)| {
                let topic = outside.topics.by_id(*id)?;
                Some((*id, topic.name.to_string(), numbers.iter().copied().collect()))
            });
            topics.collect()
        };
        let members = self.members.iter().map(|(id, member)| ConsumerMember {
            member_id: id.to_string(),
            instance: member.metadata.instance.clone(),
            rack: member.metadata.rack.clone(),
            epoch: member.current.epoch,
            client_id: member.metadata.client_id.clone(),
            client_host: member.metadata.client_host.clone(),
            topics: member.metadata.topics.iter().cloned().collect(),
            regex: member.metadata.regex.clone(),
            assignment: named(&member.current.assigned),
            target: self.targets.get(id).map(|target| named(target)).unwrap_or_default(),
            is_classic: member.is_classic(),
        });
        ConsumerDescribed {
            state: self.state(),
            epoch: self.epoch,
            target_epoch: self.target_epoch,
            assignor: self.assignor(settings).name(),
            members: members.collect(),
        }
    }
}

impl Watch {
    /// When a member may have to be given up, at the earliest.
    pub(super) fn next_alarm(&self) -> Option<Mono> {
        self.next.filter(|_| !self.timers.is_empty())
    }

    /// Lets the timers of a member be others.
    fn set(&mut self, id: &str, change: impl FnOnce(&mut Timers)) {
        if let Some(timers) = self.timers.get_mut(id) {
            change(timers);
            let next = timers.next();
            self.next = Some(self.next.map_or(next, |earliest| earliest.min(next)));
        }
    }

    /// So many milliseconds the group waits with its next assignment (`group.consumer.assignment.interval.ms`): a
    /// thousand members that come one after the other are assigned to a few times and not each time.
    fn assignment_wait_ms(&self, now: Now, settings: &Settings) -> u64 {
        let due = self.assigned_at.map(|at| at.plus_millis(settings.consumer_assignment_ms));
        due.map_or(0, |due| due.micros_since(now.mono).div_ceil(1_000))
    }

    /// Follows a record that the group has taken over.
    pub(super) fn follow(&mut self, now: Now, settings: &Settings, group: &ConsumerGroup, part: &Part) {
        if let Part::TargetEpoch(Some(_)) = part {
            self.assigned_at = Some(now.mono);
        }
        let (Part::Member(id, _) | Part::Current(id, _)) = part else { return };
        let Some(member) = group.members.get(id) else {
            self.timers.remove(id);
            return;
        };
        let session = now.mono.plus_millis(member.session_ms(settings));
        let fresh = Timers { session, revoke: None, join: None, sync: None };
        self.timers.entry(id.clone()).or_insert(fresh);
        self.set(id, |timers| {
            if matches!(part, Part::Member(..)) && member.is_classic() {
                timers.session = timers.session.max(session);
            }
            // Members of the classic protocol give partitions back by joining again.
            let revokes = member.current.state == MemberState::UnrevokedPartitions && !member.is_classic();
            if matches!(part, Part::Current(..)) {
                timers.revoke = revokes.then(|| now.mono.plus_millis(member.rebalance_ms()));
            }
        });
    }

    /// The topics are to be looked at again.
    pub(super) fn forget_topics(&mut self) {
        self.seen = None;
    }

    /// A member was heard of.
    fn keep_alive(&mut self, now: Now, settings: &Settings, id: &str, member: &Member) {
        self.set(id, |timers| timers.session = now.mono.plus_millis(member.session_ms(settings)));
    }

    /// The members whose time is up. They are looked at again after a while, should their end not be taken by the log.
    fn overdue(&mut self, now: Now, settings: &Settings, group: &ConsumerGroup) -> Vec<Arc<str>> {
        self.timers.retain(|id, _| group.members.contains_key(id));
        let again = now.mono.plus_millis(settings.consumer_heartbeat_ms);
        let due = self.timers.iter_mut().filter(|(_, timers)| timers.next() <= now.mono);
        let due: Vec<Arc<str>> = due
            .map(|(id, timers)| {
                *timers = Timers { session: again, revoke: None, join: None, sync: None };
                id.clone()
            })
            .collect();
        self.next = self.timers.values().map(Timers::next).min();
        due
    }
}
