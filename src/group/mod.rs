//! Consumer groups: who is a member, who reads what, how far each partition was read.
//!
//! The groups of one partition of the groups' topic are a [`Groups`]: a machine without clock, I/O or randomness. It
//! is asked ([`Groups::ask`]), told that time has passed ([`Groups::tick`]) and what became of its writes
//! ([`Groups::written`], [`Groups::failed`]), and hands out [`Output`]s: answers, and records to be made durable.
//!
//! What a client can see of committed offsets is durable: a commit changes the state when its record has become so,
//! and is answered then (invariant S9). Of the members only a whole generation is recorded, with its assignments,
//! and each member is given its assignment when that record is durable. [`Groups::replay`] rebuilds both.

mod admin;
mod ask;
mod consumer;
mod expiry;
mod join;
mod leave;
mod members;
mod offsets;
mod placement;
mod rebalance;
mod records;
mod state;
mod subscription;
mod sync;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

pub use admin::Surveyed;
pub use ask::{
    Ask, Commit, CommittedTopic, ConsumerDescribed, ConsumerMember, Described, DescribedMember, Error, Identity, Join,
    Joined, JoinedMember, Leaver, Listed, NamedPartitions, Output, Reply, Sync, Synced, Then, Waiter, Write,
};
pub use consumer::{Assigned, Assignor, ConsumerHeartbeat, Partitions};
pub use placement::{OFFSETS_TOPIC, partition_of};
pub use records::{Committed, FormatError, Generation, GenerationMember, Record};
pub use state::State;

use crate::limits::{MAX_GROUPS, MAX_GROUPS_BYTES};
use crate::types::{Mono, Now};
use state::Group;
use uuid::Uuid;

/// What the machine is told from outside, the same for all groups.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: u64,
    /// `group.max.size`, at most [`crate::limits::MAX_GROUP_MEMBERS`].
    pub max_size: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `group.consumer.session.timeout.ms`.
    pub consumer_session_ms: u64,
    /// `group.consumer.heartbeat.interval.ms`.
    pub consumer_heartbeat_ms: u64,
    /// `group.consumer.assignment.interval.ms`.
    pub consumer_assignment_ms: u64,
    /// `group.consumer.max.size`, at most [`crate::limits::MAX_GROUP_MEMBERS`].
    pub consumer_max_size: usize,
    /// `group.consumer.assignors`: at least one, the one first that is used where members want none.
    pub assignors: Vec<Assignor>,
    /// Whether `group.consumer.migration.policy` lets a classic group go over to the consumer protocol.
    pub upgrade: bool,
    /// Whether it lets a group of the consumer protocol go back to the classic one.
    pub downgrade: bool,
}

impl Settings {
    /// What a group goes by.
    fn of(&self, at: Outside<'_>, group: &str) -> Cow<'_, Settings> {
        let GroupTimes { session_ms, heartbeat_ms } = at.overrides.of(group);
        if session_ms.is_none() && heartbeat_ms.is_none() {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Settings {
            consumer_session_ms: session_ms.unwrap_or(self.consumer_session_ms),
            consumer_heartbeat_ms: heartbeat_ms.unwrap_or(self.consumer_heartbeat_ms),
            ..self.clone()
        })
    }

    /// The assignor of a name, where it may be used.
    fn assignor(&self, name: &str) -> Option<Assignor> {
        Assignor::named(name).filter(|assignor| self.assignors.contains(assignor))
    }
}

/// A topic, as groups must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTopic {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: Arc<str>,
    /// How many partitions it has.
    pub partitions: i32,
}

/// The topics that there are.
pub trait Topics {
    /// A number that is another after every change.
    fn version(&self) -> u64;
    /// The topic of a name.
    fn by_name(&self, name: &str) -> Option<KnownTopic>;
    /// The topic of an id.
    fn by_id(&self, id: Uuid) -> Option<KnownTopic>;
    /// Goes over all names.
    fn each_name(&self, each: &mut dyn FnMut(&str));
}

/// The times of a group of the consumer protocol that were set for it, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupTimes {
    /// `consumer.session.timeout.ms`.
    pub session_ms: Option<u64>,
    /// `consumer.heartbeat.interval.ms`.
    pub heartbeat_ms: Option<u64>,
}

/// What was set for single groups.
pub trait Overrides {
    /// For the group of this name.
    fn of(&self, group: &str) -> GroupTimes;
}

/// How things stand outside of the machine at a call.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    /// The time.
    pub now: Now,
    /// The topics.
    pub topics: &'a dyn Topics,
    /// What was set for single groups.
    pub overrides: &'a dyn Overrides,
}

/// What a group works with while it is asked or told something.
struct Cx<'a> {
    outside: Outside<'a>,
    settings: &'a Settings,
    out: &'a mut Vec<Output>,
}

impl Cx<'_> {
    fn now(&self) -> Now {
        self.outside.now
    }

    fn answer(&mut self, waiter: Waiter, result: Result<Reply, Error>) {
        self.out.push(Output::Answer(waiter, result));
    }

    fn answer_durable(&mut self, waiter: Waiter, result: Result<Reply, Error>) {
        self.out.push(Output::AnswerDurable(waiter, result));
    }
}

/// The groups of one partition of the groups' topic.
pub struct Groups {
    settings: Settings,
    by_id: BTreeMap<Arc<str>, Group>,
    /// When a group must be looked at, at the latest; each group is here at most once.
    alarms: BTreeSet<(Mono, Arc<str>)>,
    /// Memory of all groups, in bytes.
    bytes: usize,
    next_check: Option<Mono>,
    out: Vec<Output>,
}

impl Groups {
    /// No groups yet.
    pub fn new(settings: Settings) -> Groups {
        Groups {
            settings,
            by_id: BTreeMap::new(),
            alarms: BTreeSet::new(),
            bytes: 0,
            next_check: None,
            out: Vec::new(),
        }
    }

    /// What is to be done since the last call, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// Takes a request. The answer comes as an [`Output`], now or later.
    pub fn ask(&mut self, at: Outside<'_>, waiter: Waiter, ask: Ask) {
        let refuse = |this: &mut Groups, error| this.out.push(Output::Answer(waiter, Err(error)));
        match ask {
            Ask::Join(join) => {
                if join.member_id.is_empty() && self.is_full() {
                    return refuse(self, Error::MaxSizeReached);
                }
                // A member that has an id belongs to a group that is there.
                if !join.member_id.is_empty() && !self.by_id.contains_key(&*join.group) {
                    return refuse(self, Error::UnknownMember);
                }
                let id = self.group(&join.group);
                self.with(at, &id, |group, cx| group.join(cx, waiter, join));
            }
            Ask::Sync(sync) => match self.find(&sync.identity.group) {
                Some(id) => self.with(at, &id, |group, cx| group.sync(cx, waiter, sync)),
                None => refuse(self, Error::UnknownMember),
            },
            Ask::Heartbeat(identity) => {
                let Some(group) = self.by_id.get_mut(&*identity.group) else {
                    return refuse(self, Error::UnknownMember);
                };
                if group.consumer.is_none() {
                    // Heartbeats are many and make nothing due earlier: the alarm can stay as it is.
                    let result = group.heartbeat(at.now, &identity);
                    return self.out.push(Output::Answer(waiter, result.map(|()| Reply::Done)));
                }
                let id = group.id.clone();
                self.with(at, &id, |group, cx| {
                    let result = group.classic_lives(cx, &identity);
                    cx.answer_durable(waiter, result.map(|()| Reply::Done));
                });
            }
            Ask::ConsumerHeartbeat(heartbeat) => {
                if let Err(error) = heartbeat.check(&self.settings) {
                    return refuse(self, error);
                }
                let joins = heartbeat.epoch == 0;
                if joins && self.is_full() {
                    return refuse(self, Error::MaxSizeReached);
                }
                match self.find(&heartbeat.group).or_else(|| joins.then(|| self.group(&heartbeat.group))) {
                    Some(id) => self.with(at, &id, |group, cx| group.consumer_heartbeat(cx, waiter, &heartbeat)),
                    None => refuse(self, Error::GroupIdNotFound),
                }
            }
            Ask::Leave { group, members } => match self.find(&group) {
                Some(id) => self.with(at, &id, |group, cx| group.leave(cx, waiter, &members)),
                None => {
                    let unknown = members.iter().map(|_| Err(Error::UnknownMember)).collect();
                    self.out.push(Output::Answer(waiter, Ok(Reply::Left(unknown))));
                }
            },
            Ask::Commit(commit) => self.commit(at, waiter, commit),
            Ask::Fetch { group, member, topics } => {
                let found = self.by_id.get(&*group);
                let admitted = found.map_or(Ok(()), |found| found.check_fetch(member.as_ref()));
                let reply = admitted.map(|()| Reply::Fetched(offsets::fetch(found, topics)));
                self.out.push(Output::Answer(waiter, reply));
            }
            Ask::DeleteOffsets { group, topics } => match self.find(&group) {
                Some(id) => self.with(at, &id, |group, cx| group.delete_offsets(cx, waiter, topics)),
                None => refuse(self, Error::GroupIdNotFound),
            },
            Ask::Delete { group } => match self.find(&group) {
                Some(id) => self.with(at, &id, |group, cx| group.delete(cx, waiter)),
                None => refuse(self, Error::GroupIdNotFound),
            },
            Ask::Describe { group } => {
                let classic = self.by_id.get(&*group).filter(|group| group.consumer.is_none());
                let described = classic.map(|group| Box::new(group.describe()));
                self.out.push(Output::Answer(waiter, Ok(Reply::Described(described))));
            }
            Ask::DescribeConsumers { group } => {
                let group = self.by_id.get(&*group).and_then(|group| group.consumer.as_ref());
                let described = group.map(|group| Box::new(group.describe(at, &self.settings)));
                self.out.push(Output::AnswerDurable(waiter, Ok(Reply::ConsumersDescribed(described))));
            }
            Ask::List { states, types } => {
                let listed = self.by_id.values().filter(|group| admin::is_listed(group, &states, &types));
                let listed = listed.map(Group::list).collect();
                self.out.push(Output::Answer(waiter, Ok(Reply::Listed(listed))));
            }
        }
    }

    fn commit(&mut self, at: Outside<'_>, waiter: Waiter, commit: Commit) {
        // What is kept already may be kept anew.
        if self.is_full() && !self.by_id.get(&*commit.identity.group).is_some_and(|group| group.keeps(&commit)) {
            return self.out.push(Output::Answer(waiter, Err(Error::InvalidCommitSize)));
        }
        let id = match self.find(&commit.identity.group) {
            Some(id) => id,
            // Who manages its partitions by itself uses a group only to keep offsets; it is there with the first.
            None if commit.identity.generation < 0 => self.group(&commit.identity.group),
            None => {
                let error = if commit.is_modern { Error::GroupIdNotFound } else { Error::IllegalGeneration };
                return self.out.push(Output::Answer(waiter, Err(error)));
            }
        };
        self.with(at, &id, |group, cx| group.commit(cx, waiter, commit));
    }

    /// Time has passed: whoever was silent for too long leaves, and what was waited for long enough goes on.
    pub fn tick(&mut self, at: Outside<'_>) {
        while let Some((due, id)) = self.alarms.first()
            && *due <= at.now.mono
        {
            let id = id.clone();
            self.with(at, &id, |group, cx| group.expire(cx));
        }
        let due = *self.next_check.get_or_insert(at.now.mono.plus_millis(crate::limits::OFFSETS_CHECK_INTERVAL_MS));
        if due <= at.now.mono {
            self.next_check = None;
            let ids: Vec<Arc<str>> = self.by_id.keys().cloned().collect();
            for id in ids {
                self.with(at, &id, |group, cx| group.expire_offsets(cx));
            }
        }
    }

    /// Some of the records of a write are durable; `then` comes with the last of them.
    pub fn written(&mut self, at: Outside<'_>, group: &Arc<str>, records: Vec<Record>, then: Option<Then>) {
        let id = self.group(group);
        self.with(at, &id, |group, cx| group.written(cx, records, then));
    }

    /// A change is in the log; durable it is when [`Groups::written`] says so. Until this is called nothing of it has
    /// happened.
    pub fn appended(&mut self, at: Outside<'_>, group: &Arc<str>, records: &[Record]) {
        let id = self.group(group);
        self.with(at, &id, |group, cx| group.appended(cx, records));
    }

    /// A write was not, or not wholly, taken; nothing of the rest will ever be in the log.
    pub fn failed(&mut self, at: Outside<'_>, group: &Arc<str>, then: Then, error: Error) {
        let id = self.group(group);
        self.with(at, &id, |group, cx| group.failed(cx, then, error));
    }

    /// Applies a record that the log holds. Members that it brings back are given their session timeout from now on.
    pub fn replay(&mut self, at: Outside<'_>, record: Record) {
        let id = self.group(record.group());
        self.with(at, &id, |group, cx| group.replay(cx, record));
    }

    /// Topics are gone, those for which `gone` says so: their offsets mean nothing any more, and must not be taken for
    /// those of topics that are created under their names.
    pub fn forget_topics(&mut self, at: Outside<'_>, gone: impl Fn(&str) -> bool) {
        let concerned = self.by_id.values().filter(|group| group.offsets.keys().any(|topic| gone(topic)));
        let ids: Vec<Arc<str>> = concerned.map(|group| group.id.clone()).collect();
        for id in ids {
            self.with(at, &id, |group, cx| group.forget_topics(cx, &gone));
        }
    }

    /// Answers everyone who waits: the groups are not here any more.
    pub fn release(&mut self, error: Error) {
        for group in self.by_id.values_mut() {
            let waiters = group.members.values_mut().flat_map(|member| [member.joining.take(), member.syncing.take()]);
            self.out.extend(waiters.flatten().map(|waiter| Output::Answer(waiter, Err(error))));
            group.joining = 0;
        }
    }

    /// All about the groups whose ids come after `after`: at most `most` of them, and so many that they have `room`
    /// members and offsets together, but at least one. Whether there are more.
    pub fn survey(&self, after: &str, most: usize, mut room: usize) -> (Vec<Surveyed>, bool) {
        let mut groups = self.by_id.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        let mut surveyed = Vec::new();
        while surveyed.len() < most && room > 0 {
            let Some((_, group)) = groups.next() else { return (surveyed, false) };
            let found = group.survey();
            room = room.saturating_sub(1 + found.described.members.len() + found.offsets.len());
            surveyed.push(found);
        }
        (surveyed, groups.next().is_some())
    }

    /// All about a group; `None` where it is not there.
    pub fn survey_one(&self, id: &str) -> Option<Surveyed> {
        self.by_id.get(id).map(Group::survey)
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn is_full(&self) -> bool {
        self.by_id.len() >= MAX_GROUPS || self.bytes >= MAX_GROUPS_BYTES
    }

    fn find(&self, id: &str) -> Option<Arc<str>> {
        self.by_id.get_key_value(id).map(|(id, _)| id.clone())
    }

    /// The id of a group that is there from now on, should it not have been.
    fn group(&mut self, id: &str) -> Arc<str> {
        self.find(id).unwrap_or_else(|| {
            let id: Arc<str> = id.into();
            self.by_id.insert(id.clone(), Group::new(id.clone()));
            id
        })
    }

    /// Lets a group do something, and notes what follows for its memory and its next alarm. A group that nothing is
    /// known of any more goes.
    fn with(&mut self, at: Outside<'_>, id: &Arc<str>, act: impl FnOnce(&mut Group, &mut Cx<'_>)) {
        let Some(group) = self.by_id.get_mut(id) else { return };
        let settings = self.settings.of(at, id);
        let mut cx = Cx { outside: at, settings: &settings, out: &mut self.out };
        act(group, &mut cx);
        let bytes = group.bytes();
        self.bytes = self.bytes + bytes - std::mem::replace(&mut group.counted, bytes);
        let disposable = group.is_disposable();
        let wanted = if disposable { None } else { group.next_alarm() };
        if group.alarm != wanted {
            if let Some(before) = group.alarm.take() {
                self.alarms.remove(&(before, id.clone()));
            }
            group.alarm = wanted;
            if let Some(at) = wanted {
                self.alarms.insert((at, id.clone()));
            }
        }
        if disposable {
            self.bytes -= group.counted;
            self.by_id.remove(id);
        }
    }
}
