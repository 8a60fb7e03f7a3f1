//! A group: its state, and what is known of it from its records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::consumer::{ConsumerGroup, Part, Watch};
use super::members::Member;
use super::records::{Committed, Generation, GenerationMember, Record};
use super::{Cx, Error, Output, Reply, Then, Waiter, Write, subscription};
use crate::types::{Mono, Now};

/// What a group is doing, by Kafka's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It has no members.
    Empty,
    /// Its members are waited for.
    PreparingRebalance,
    /// Its members are there, their assignments are not.
    CompletingRebalance,
    /// Every member has its assignment.
    Stable,
}

impl State {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// The first rebalance of a group that was empty: it waits a while for members that start at the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathering {
    /// How long it waits this time.
    pub(super) delay_ms: u64,
    /// How long it may wait again in all.
    pub(super) left_ms: u64,
    /// Whether someone came meanwhile.
    pub(super) grew: bool,
}

/// A group.
///
/// `joining` counts the members with a waiting JoinGroup. While the state is `PreparingRebalance` there is a `join_by`,
/// and in no other.
pub(super) struct Group {
    pub(super) id: Arc<str>,
    pub(super) state: State,
    /// Since when, milliseconds since the Unix epoch.
    pub(super) since_ms: i64,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) generation: i32,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// The members with an instance's name, by that name.
    pub(super) statics: BTreeMap<String, String>,
    /// Ids that were given out to clients that must come again with them, and until when.
    pub(super) pending: BTreeMap<String, Mono>,
    /// How many members know each protocol.
    pub(super) votes: BTreeMap<String, usize>,
    pub(super) joining: usize,
    /// Before this no member is silent for too long, and no id in `pending` given up; `None` where there is nothing to wait
    /// for. It may be too early, which [`Group::expire`] sets right, so that nobody looks at all members at every join.
    quiet_until: Option<Mono>,
    /// When the members that have not come are given up.
    pub(super) join_by: Option<Mono>,
    /// There while the group, empty before, prepares its first generation.
    pub(super) gathering: Option<Gathering>,
    /// When the members that have not asked for their assignment are given up.
    pub(super) sync_by: Option<Mono>,
    /// Whether the assignments of this generation are on their way to the disk.
    pub(super) storing: bool,
    /// The topics that the members read, where they are consumers and say so.
    pub(super) topics: Option<BTreeSet<String>>,
    pub(super) offsets: BTreeMap<Arc<str>, BTreeMap<i32, Committed>>,
    /// Memory of the offsets, in bytes.
    pub(super) offsets_bytes: usize,
    /// Memory of the members, in bytes.
    pub(super) members_bytes: usize,
    /// Writes under way.
    pub(super) in_flight: usize,
    /// Whether the log has a record of the group itself.
    pub(super) recorded: bool,
    /// There while the group is one of the consumer protocol; it has nothing of the classic one then but its offsets.
    pub(super) consumer: Option<Box<ConsumerGroup>>,
    /// What is known of its members beside.
    pub(super) watch: Watch,
    /// What the container has noted: the memory, and when to look again.
    pub(super) counted: usize,
    pub(super) alarm: Option<Mono>,
}

impl Group {
    pub(super) fn new(id: Arc<str>) -> Group {
        Group {
            id,
            state: State::Empty,
            since_ms: -1,
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            votes: BTreeMap::new(),
            joining: 0,
            quiet_until: None,
            join_by: None,
            gathering: None,
            sync_by: None,
            storing: false,
            topics: None,
            offsets: BTreeMap::new(),
            offsets_bytes: 0,
            members_bytes: 0,
            in_flight: 0,
            recorded: false,
            consumer: None,
            watch: Watch::default(),
            counted: 0,
            alarm: None,
        }
    }

    /// Memory, in bytes; about.
    pub(super) fn bytes(&self) -> usize {
        let consumers = self.consumer.as_ref().map_or(0, |group| group.bytes());
        512 + 3 * self.id.len() + consumers + self.members_bytes + self.offsets_bytes + 128 * self.pending.len()
    }

    /// Whether nothing would be lost if it were forgotten.
    pub(super) fn is_disposable(&self) -> bool {
        self.state == State::Empty
            && !self.recorded
            && self.consumer.is_none()
            && self.in_flight == 0
            && self.members.is_empty()
            && self.pending.is_empty()
            && self.offsets.is_empty()
    }

    /// When [`Group::expire`] may have something to do.
    pub(super) fn next_alarm(&self) -> Option<Mono> {
        if self.consumer.is_some() {
            return self.watch.next_alarm();
        }
        debug_assert!(
            self.first_silence().is_none_or(|due| self.quiet_until.is_some_and(|until| until <= due)),
            "somebody is given up before anyone looks"
        );
        self.sync_by.into_iter().chain(self.join_by).chain(self.quiet_until).min()
    }

    /// When the first of those whose silence counts is given up.
    fn first_silence(&self) -> Option<Mono> {
        let silent = self.members.values().filter(|member| member.can_expire()).map(|member| member.expires);
        silent.chain(self.pending.values().copied()).min()
    }

    /// Somebody is given up at this time, unless heard of before.
    pub(super) fn watch_silence(&mut self, until: Mono) {
        self.quiet_until = Some(self.quiet_until.map_or(until, |known| known.min(until)));
    }

    /// Looks at all whose silence counts for when the first of them is given up.
    pub(super) fn watch_silence_anew(&mut self) {
        self.quiet_until = self.first_silence();
    }

    pub(super) fn enter(&mut self, now: Now, state: State) {
        self.state = state;
        self.since_ms = now.wall_ms;
    }

    /// Hands records over to be written.
    pub(super) fn write(&mut self, cx: &mut Cx<'_>, records: Vec<Record>, then: Then) {
        self.in_flight += 1;
        cx.out.push(Output::Write(Write { group: self.id.clone(), records, then }));
    }

    /// Hands the records of a change over, all or none of which are to be taken. The change is made by
    /// [`Group::appended`].
    pub(super) fn append_change(&mut self, cx: &mut Cx<'_>, records: Vec<Record>, then: Then) {
        self.in_flight += 1;
        cx.out.push(Output::Change(Write { group: self.id.clone(), records, then }));
    }

    /// The same for a change that someone waits for, and that may be none: then what came before is waited for.
    pub(super) fn change(&mut self, cx: &mut Cx<'_>, records: Vec<Record>, waiter: Waiter, reply: Reply) {
        if records.is_empty() {
            return cx.answer_durable(waiter, Ok(reply));
        }
        self.append_change(cx, records, Then::Answer(waiter, reply));
    }

    /// The records of a change are in the log.
    pub(super) fn appended(&mut self, cx: &mut Cx<'_>, records: &[Record]) {
        let consumers = self.consumer.is_some();
        // Where there are members of a classic group, what they wait for will not come.
        for id in self.members.keys().cloned().collect::<Vec<String>>() {
            self.answer_join(cx, &id, Err(Error::RebalanceInProgress));
            self.answer_sync(cx, &id, Err(Error::RebalanceInProgress));
        }
        records.iter().for_each(|record| self.follow(cx, record));
        if consumers && self.consumer.is_none() && !self.members.is_empty() {
            self.prepare_rebalance(cx);
        }
    }

    /// The record of this generation. `assigned` gives a member's assignment.
    pub(super) fn record(&self, assigned: impl Fn(&str, &Member) -> bytes::Bytes) -> Record {
        let protocol = self.protocol.as_deref();
        let members = self.members.iter().map(|(id, member)| GenerationMember {
            member_id: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_ms: i32::try_from(member.rebalance_ms).unwrap_or(i32::MAX),
            session_ms: i32::try_from(member.session_ms).unwrap_or(i32::MAX),
            subscription: protocol.map(|protocol| member.metadata(protocol)).unwrap_or_default(),
            assignment: assigned(id, member),
        });
        let generation = Generation {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            since_ms: self.since_ms,
            members: members.collect(),
        };
        Record::Group { group: self.id.clone(), value: Some(generation) }
    }

    /// Applies what the log holds, without knowing what came of it then.
    pub(super) fn replay(&mut self, cx: &Cx<'_>, record: Record) {
        match record {
            Record::Offset { topic, partition, value, .. } => self.set_offset(topic, partition, value),
            Record::Group { .. } | Record::Consumer { .. } => self.follow(cx, &record),
        }
    }

    /// Becomes what a record says of the group itself. Which protocol it has is what the last one says.
    fn follow(&mut self, cx: &Cx<'_>, record: &Record) {
        match record {
            Record::Offset { .. } => {}
            Record::Group { value: None, .. } if self.consumer.is_some() => self.recorded = false,
            Record::Group { value, .. } => self.restore(cx.now(), value.clone()),
            Record::Consumer { part, .. } => {
                if self.consumer.is_none() {
                    if part.is_end() {
                        return;
                    }
                    self.restore(cx.now(), None);
                }
                let group = self.consumer.get_or_insert_default();
                group.apply(part);
                self.watch.follow(cx.now(), cx.settings, group, part);
                if matches!(part, Part::Epoch(None)) {
                    (self.consumer, self.watch) = (None, Watch::default());
                }
            }
        }
    }

    fn restore(&mut self, now: Now, value: Option<Generation>) {
        let bare = Group::new(self.id.clone());
        let offsets = std::mem::take(&mut self.offsets);
        let before = std::mem::replace(self, bare);
        (self.offsets, self.offsets_bytes) = (offsets, before.offsets_bytes);
        (self.counted, self.alarm, self.in_flight) = (before.counted, before.alarm, before.in_flight);
        let Some(value) = value else { return };
        self.recorded = true;
        self.since_ms = value.since_ms;
        self.generation = value.generation;
        self.protocol_type = (!value.protocol_type.is_empty()).then_some(value.protocol_type);
        let protocol = value.protocol.clone().unwrap_or_default();
        self.protocol = value.protocol;
        self.leader = value.leader;
        for member in value.members {
            let session_ms = member.session_ms.max(0) as u64;
            let restored = Member {
                instance: member.instance,
                client_id: member.client_id,
                client_host: member.client_host,
                session_ms,
                rebalance_ms: if member.rebalance_ms < 0 { session_ms } else { member.rebalance_ms as u64 },
                protocols: vec![(protocol.clone(), member.subscription)],
                assignment: member.assignment,
                joining: None,
                syncing: None,
                synced: true,
                is_new: false,
                expires: now.mono.plus_millis(session_ms),
            };
            if !self.members.contains_key(&member.member_id) {
                self.insert_member(member.member_id, restored);
            }
        }
        if !self.members.is_empty() {
            self.state = State::Stable;
        }
        self.topics = self.read_topics();
    }

    /// Records are durable.
    pub(super) fn written(&mut self, cx: &mut Cx<'_>, records: Vec<Record>, then: Option<Then>) {
        for record in records {
            match record {
                Record::Offset { topic, partition, value, .. } => self.set_offset(topic, partition, value),
                // The group itself is ahead of its record.
                Record::Group { value, .. } => self.recorded = value.is_some(),
                Record::Consumer { .. } => {}
            }
        }
        let Some(then) = then else { return };
        self.in_flight -= 1;
        match then {
            Then::Nothing => {}
            Then::Answer(waiter, reply) => cx.answer(waiter, Ok(reply)),
            Then::Assign { generation, assignments } => self.assign(cx, generation, assignments),
            Then::Return { generation, member_id, waiter, leader, can_skip_assignment } => {
                let here = self.members.get(&member_id).is_some_and(|member| member.joining == Some(waiter));
                // Where a rebalance has begun meanwhile, the member takes part in it as one that has joined.
                if here && self.state == State::Stable && self.generation == generation {
                    let leads = self.leads(&member_id);
                    let mut joined = self.joined(&member_id, can_skip_assignment && leads);
                    if can_skip_assignment {
                        joined.skip_assignment = leads;
                    } else {
                        // Told that another leads, it takes its assignment and does not make new ones.
                        joined.leader = leader;
                    }
                    self.keep_alive(cx.now(), &member_id);
                    self.answer_join(cx, &member_id, Ok(Reply::Joined(Box::new(joined))));
                }
            }
        }
    }

    /// Records will not be durable.
    pub(super) fn failed(&mut self, cx: &mut Cx<'_>, then: Then, error: Error) {
        self.in_flight -= 1;
        // What was seen of the topics may have been part of it.
        self.watch.forget_topics();
        match then {
            Then::Nothing => {}
            Then::Answer(waiter, _) => cx.answer(waiter, Err(error)),
            Then::Assign { generation, .. } => self.assign_failed(cx, generation, error),
            // Its name is the newcomer's all the same: when it asks again it replaces itself.
            Then::Return { member_id, waiter, .. } => {
                if self.members.get(&member_id).is_some_and(|member| member.joining == Some(waiter)) {
                    self.keep_alive(cx.now(), &member_id);
                    self.answer_join(cx, &member_id, Err(error));
                }
            }
        }
    }

    /// The topics that the members read, as far as they say so in a way that is understood.
    pub(super) fn read_topics(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(subscription::CONSUMER) {
            return None;
        }
        let mut all = BTreeSet::new();
        for member in self.members.values() {
            let protocol = self.protocol.as_deref()?;
            all.append(&mut subscription::topics(&member.metadata(protocol))?);
        }
        Some(all)
    }

    /// Whether the group reads a topic, or may.
    pub(super) fn reads(&self, topic: &str) -> bool {
        if let Some(group) = &self.consumer {
            return group.reads(topic);
        }
        match &self.topics {
            Some(topics) => topics.contains(topic),
            None => self.protocol_type.as_deref() == Some(subscription::CONSUMER),
        }
    }
}
