//! What must be true of the answers, whatever the disk and the process did: the model that clients report to.
//!
//! A broken rule is a panic whose message begins with the invariant's name. The model holds no more than what an
//! answer has promised: an answer that never came, or came as a time-out, promises nothing, and a refusal promises
//! that nothing was done.

use std::collections::{BTreeMap, BTreeSet};

use super::wire;

/// The number of a value, unique in a run.
pub(super) type ValueId = u64;

/// A point in the order of what clients do and see.
pub(super) type Stamp = u64;

/// A partition of a topic.
pub(super) type Part = (String, i32);

/// A record that some producer has made.
struct Value {
    producer: u32,
    idempotent: bool,
    /// Its place among those of its producer in this partition.
    order: u64,
    part: Part,
    /// How often it was sent, and how many of these were refused.
    sent: u32,
    refused: u32,
    acked: bool,
    seen_at: Vec<i64>,
}

/// What a topic keeps of its records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keeping {
    /// All but what clients delete.
    All,
    /// The newest, as its configuration says.
    Newest,
    /// The last of each key, as its configuration says.
    LastOfKey,
}

/// What is known of a topic.
struct Topic {
    partitions: i32,
    keeping: Keeping,
    /// The CreateTopics request it was in, one entry of the metadata's log.
    group: u64,
    create_sent: u32,
    create_refused: u32,
    created: Option<Stamp>,
    delete_sent: Option<Stamp>,
    deleted: Option<Stamp>,
    /// How many partitions it had at first.
    at_first: i32,
    /// How many CreatePartitions requests have asked for.
    grows_to: Option<i32>,
    grow_sent: u32,
    grown: Option<Stamp>,
}

impl Topic {
    /// The numbers of partitions that an answer to a request sent at `sent` may show: the new ones come all at once.
    fn may_have(&self, sent: Stamp, disturbed: bool) -> [i32; 2] {
        let known = self.grown.is_some_and(|at| at < sent) && !disturbed;
        let asked = self.grows_to.filter(|_| self.grow_sent > 0);
        [asked.unwrap_or(self.partitions), if known { self.partitions } else { self.at_first }]
    }

    fn may_exist(&self) -> bool {
        self.create_sent > self.create_refused
    }

    /// Whether every answer to a request that was sent at `sent` must show it.
    fn must_show(&self, sent: Stamp) -> bool {
        self.created.is_some_and(|at| at < sent) && self.delete_sent.is_none()
    }
}

/// What is known of a partition's log.
#[derive(Default)]
struct Log {
    values: BTreeMap<i64, ValueId>,
    /// Offsets below it were shown as committed, by an acknowledgement or a high watermark.
    committed: i64,
    /// The highest high watermark that was shown in each epoch of a leader.
    watermarks: BTreeMap<i32, i64>,
    /// The furthest start of the log that was shown in each epoch of a leader.
    starts: BTreeMap<i32, i64>,
    /// How far requests may have moved the start, and how far they have.
    may_start: i64,
    deleted: i64,
    /// What the reader at the end has found: offsets that are still there.
    kept: BTreeSet<i64>,
}

/// Kafka's error codes that the checks know.
pub(super) mod code {
    pub(in crate::sim) const NONE: i16 = 0;
    pub(in crate::sim) const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub(in crate::sim) const CORRUPT_MESSAGE: i16 = 2;
    pub(in crate::sim) const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub(in crate::sim) const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    pub(in crate::sim) const REQUEST_TIMED_OUT: i16 = 7;
    pub(in crate::sim) const MESSAGE_TOO_LARGE: i16 = 10;
    pub(in crate::sim) const NOT_ENOUGH_REPLICAS: i16 = 19;
    pub(in crate::sim) const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
    pub(in crate::sim) const TOPIC_ALREADY_EXISTS: i16 = 36;
    pub(in crate::sim) const INVALID_PARTITIONS: i16 = 37;
    pub(in crate::sim) const POLICY_VIOLATION: i16 = 44;
    pub(in crate::sim) const OUT_OF_ORDER_SEQUENCE: i16 = 45;
    pub(in crate::sim) const DUPLICATE_SEQUENCE: i16 = 46;
    pub(in crate::sim) const INVALID_PRODUCER_EPOCH: i16 = 47;
    pub(in crate::sim) const KAFKA_STORAGE_ERROR: i16 = 56;

    /// Whether the same batch may be taken a moment later.
    pub(in crate::sim) fn is_for_a_time(code: i16) -> bool {
        matches!(code, NOT_LEADER_OR_FOLLOWER | REQUEST_TIMED_OUT | NOT_ENOUGH_REPLICAS | KAFKA_STORAGE_ERROR)
    }
}

/// A topic as a Metadata answer shows it.
pub(super) struct Shown {
    /// Its name.
    pub(super) name: String,
    /// The error code of the topic.
    pub(super) error: i16,
    /// The partitions' numbers, and their leaders with their epochs where they have one.
    pub(super) partitions: Vec<(i32, Option<(usize, i32)>)>,
}

/// All that clients were promised.
#[derive(Default)]
pub(super) struct Model {
    stamp: Stamp,
    groups: u64,
    topics: BTreeMap<String, Topic>,
    values: Vec<Value>,
    orders: BTreeMap<(u32, Part), u64>,
    producer_ids: BTreeSet<i64>,
    logs: BTreeMap<Part, Log>,
    /// The last epoch that a broker has shown of a partition, and the life of its process then.
    epochs: BTreeMap<(usize, Part), (u64, i32)>,
    /// The newest leaders that any broker has shown, with their epochs.
    leaders: BTreeMap<Part, (usize, i32)>,
    /// Who led a partition in an epoch.
    led: BTreeMap<(Part, i32), usize>,
    /// Counts the starts of each broker's process.
    pub(super) lives: Vec<u64>,
    /// There are several brokers.
    pub(super) cluster: bool,
    /// Faults may keep a broker from knowing what others know already.
    pub(super) disturbed: bool,
    /// One broker's disk stalls or is full, and all else is well.
    pub(super) frozen: bool,
    /// Every topic has a replica on each broker.
    pub(super) everywhere: bool,
    /// Something on the disk is damaged or fenced: errors are allowed where there would be none.
    pub(super) impaired: bool,
    /// Batches that were acknowledged.
    pub(super) acked_batches: u64,
    /// Records that consumers have read.
    pub(super) records_read: u64,
}

impl Model {
    /// What is known of so many brokers at first: nothing.
    pub(super) fn of(brokers: usize) -> Model {
        Model { cluster: brokers > 1, lives: vec![0; brokers], ..Model::default() }
    }

    /// The next point in the order of things.
    pub(super) fn stamp(&mut self) -> Stamp {
        self.stamp += 1;
        self.stamp
    }

    /// Whether an answer with this code leaves open if the request was carried out. A leader that is deposed does not
    /// know what its successor makes of what it has appended.
    pub(super) fn is_indeterminate(&self, code: i16) -> bool {
        matches!(code, code::REQUEST_TIMED_OUT | code::NOT_ENOUGH_REPLICAS_AFTER_APPEND)
            || self.cluster && code == code::NOT_LEADER_OR_FOLLOWER
    }

    /// The newest leader of a partition that any broker has shown, and its epoch.
    pub(super) fn leader(&self, part: &Part) -> Option<(usize, i32)> {
        self.leaders.get(part).copied()
    }

    /// Whether errors are allowed where there would be none.
    fn excused(&self) -> bool {
        self.impaired || self.disturbed
    }

    // Topics.

    /// Names for the topics of a new CreateTopics request with these numbers of partitions.
    pub(super) fn new_topics(&mut self, partitions: &[i32], keeping: Keeping) -> Vec<String> {
        self.groups += 1;
        let mut names = Vec::new();
        for partitions in partitions {
            let name = format!("t{}", self.topics.len());
            let topic = Topic {
                partitions: *partitions,
                keeping,
                group: self.groups,
                create_sent: 0,
                create_refused: 0,
                created: None,
                delete_sent: None,
                deleted: None,
                at_first: *partitions,
                grows_to: None,
                grow_sent: 0,
                grown: None,
            };
            self.topics.insert(name.clone(), topic);
            names.push(name);
        }
        names
    }

    fn topic(&mut self, name: &str) -> &mut Topic {
        self.topics.get_mut(name).unwrap_or_else(|| panic!("S5: topic {name} was never asked for"))
    }

    /// A CreateTopics request with this topic goes out.
    pub(super) fn create_sent(&mut self, name: &str) {
        self.topic(name).create_sent += 1;
    }

    /// It was answered.
    pub(super) fn create_answered(&mut self, name: &str, error: i16) {
        let stamp = self.stamp();
        let topic = self.topic(name);
        match error {
            code::NONE | code::TOPIC_ALREADY_EXISTS => {
                assert!(
                    error == code::NONE || topic.create_sent > 1,
                    "S5: {name} was created by one request and is said to have existed before it"
                );
                topic.created.get_or_insert(stamp);
            }
            code::REQUEST_TIMED_OUT => {}
            _ => {
                topic.create_refused += 1;
                assert!(topic.may_exist() || topic.created.is_none(), "S5: {name} was refused and created");
            }
        }
    }

    /// A DeleteTopics request with this topic goes out.
    pub(super) fn delete_sent(&mut self, name: &str) {
        let stamp = self.stamp();
        self.topic(name).delete_sent.get_or_insert(stamp);
    }

    /// It was answered: whether the topic is gone now.
    pub(super) fn delete_answered(&mut self, name: &str, error: i16) -> bool {
        let stamp = self.stamp();
        let topic = self.topic(name);
        let gone = matches!(error, code::NONE | code::UNKNOWN_TOPIC_OR_PARTITION);
        if gone {
            topic.deleted.get_or_insert(stamp);
        }
        gone
    }

    /// Chooses a topic that lives and has as many partitions as at first, to have `more`; its name and their number.
    pub(super) fn choose_growing(&mut self, at: u64, more: i32) -> Option<(String, i32)> {
        let live = |topic: &Topic| topic.created.is_some() && topic.delete_sent.is_none() && topic.grows_to.is_none();
        let mut topics: Vec<_> = self.topics.iter_mut().filter(|(_, topic)| live(topic)).collect();
        let at = at as usize % topics.len().max(1);
        let (name, topic) = topics.get_mut(at)?;
        topic.grows_to = Some(topic.partitions + more);
        Some(((*name).clone(), topic.partitions + more))
    }

    /// A CreatePartitions request for the topic goes out.
    pub(super) fn grow_sent(&mut self, name: &str) {
        self.topic(name).grow_sent += 1;
    }

    /// It was answered: whether there is no more to ask for.
    pub(super) fn grow_answered(&mut self, name: &str, error: i16) -> bool {
        let stamp = self.stamp();
        let excused = self.excused();
        let topic = self.topic(name);
        match error {
            code::NONE | code::INVALID_PARTITIONS => {
                assert!(error == code::NONE || topic.grow_sent > 1, "S5: {name} has partitions nobody asked for");
                topic.partitions = topic.grows_to.expect("it was asked for");
                topic.grown.get_or_insert(stamp);
                true
            }
            code::UNKNOWN_TOPIC_OR_PARTITION => {
                assert!(topic.delete_sent.is_some() || excused, "S5: {name} is gone and nobody wanted it deleted");
                topic.delete_sent.is_some()
            }
            _ => false,
        }
    }

    /// The partitions of topics that were created for certain and that nobody wanted deleted.
    pub(super) fn live_parts(&self) -> Vec<Part> {
        let live = self.topics.iter().filter(|(_, topic)| topic.created.is_some() && topic.delete_sent.is_none());
        live.flat_map(|(name, topic)| (0..topic.partitions).map(|index| (name.clone(), index))).collect()
    }

    /// The names of topics that were created for certain and that nobody wanted deleted.
    pub(super) fn live_topics(&self) -> Vec<String> {
        let live = self.topics.iter().filter(|(_, topic)| topic.created.is_some() && topic.delete_sent.is_none());
        live.map(|(name, _)| name.clone()).collect()
    }

    /// How many partitions may exist at most.
    pub(super) fn partitions_that_may_exist(&self) -> usize {
        let may = self.topics.values().filter(|topic| topic.may_exist() && topic.deleted.is_none());
        may.map(|topic| topic.grows_to.unwrap_or(topic.partitions) as usize).sum()
    }

    /// Whether somebody wanted the topic deleted.
    pub(super) fn is_doomed(&self, name: &str) -> bool {
        self.topics[name].delete_sent.is_some()
    }

    /// A request that was sent at `sent` was told that there is no such partition.
    pub(super) fn unknown_topic(&mut self, part: &Part, sent: Stamp) {
        let excused = self.excused();
        let topic = self.topic(&part.0);
        let there = part.1 < topic.at_first || topic.grown.is_some_and(|at| at < sent);
        assert!(
            !(topic.must_show(sent) && there) || excused,
            "S5: {part:?} is unknown after its creation was answered"
        );
    }

    /// A Metadata request to a broker for all topics, sent at `sent`, was answered.
    pub(super) fn metadata_answered(&mut self, broker: usize, shown: &[Shown], sent: Stamp) {
        let current_life = self.lives[broker];
        let mut groups: BTreeMap<u64, bool> = BTreeMap::new();
        // The topic of all groups is the broker's own.
        for topic in shown.iter().filter(|topic| topic.name != crate::group::OFFSETS_TOPIC) {
            let known = self.topics.get(&topic.name);
            let known = known.unwrap_or_else(|| panic!("S5: {} is shown and was never asked for", topic.name));
            let name = &topic.name;
            assert!(known.may_exist(), "S5: {name} was refused and is shown");
            assert!(known.deleted.is_none_or(|at| at > sent) || self.disturbed, "S5: {name} was deleted and is shown");
            let numbers: Vec<i32> = topic.partitions.iter().map(|(number, _)| *number).collect();
            let all = known.may_have(sent, self.disturbed).iter().any(|most| numbers.iter().copied().eq(0..*most));
            assert!(all, "S5: {name} is shown with partitions {numbers:?}, which are others than it was given");
            let growing = known.grow_sent > 0 && known.grown.is_none_or(|at| at >= sent);
            if known.must_show(sent) && !growing && !self.excused() {
                let led = topic.error == code::NONE && topic.partitions.iter().all(|(_, epoch)| epoch.is_some());
                assert!(led, "S5: {name} has partitions without a leader after its creation was answered");
            }
            groups.insert(known.group, true);
            for (number, leader) in &topic.partitions {
                let Some((leader, epoch)) = *leader else { continue };
                let part = (name.clone(), *number);
                let first = *self.led.entry((part.clone(), epoch)).or_insert(leader);
                assert_eq!(first, leader, "S6: {part:?} is led by two brokers in epoch {epoch}");
                if self.leaders.get(&part).is_none_or(|(_, known)| *known < epoch) {
                    self.leaders.insert(part.clone(), (leader, epoch));
                }
                let before = self.epochs.insert((broker, part), (current_life, epoch));
                let Some((life, older)) = before else { continue };
                // A broker of several that starts anew may hear of an older leader first.
                let newer = match life == current_life {
                    true => epoch >= older,
                    false => epoch > older || self.cluster,
                };
                assert!(newer, "S6: {name}-{number} has epoch {epoch} after a restart, and had {older} before");
            }
        }
        let is_shown = |name: &str| shown.iter().any(|topic| topic.name == name);
        for (name, known) in &self.topics {
            if known.must_show(sent) && !self.disturbed {
                assert!(is_shown(name), "S5: {name} is not shown after its creation was answered");
            }
            let whole = known.may_exist() && known.create_refused == 0 && known.delete_sent.is_none();
            if whole && groups.contains_key(&known.group) {
                assert!(is_shown(name), "S5: {name} is missing and another topic of its request is shown");
            }
        }
    }

    // Records.

    /// A producer was given this id.
    pub(super) fn producer_id(&mut self, id: i64) {
        assert!(self.producer_ids.insert(id), "S3: producer id {id} was given out twice");
    }

    /// A new value of a producer for a partition.
    pub(super) fn new_value(&mut self, producer: u32, idempotent: bool, part: &Part) -> ValueId {
        let order = self.orders.entry((producer, part.clone())).or_default();
        *order += 1;
        let value = Value {
            producer,
            idempotent,
            order: *order,
            part: part.clone(),
            sent: 0,
            refused: 0,
            acked: false,
            seen_at: Vec::new(),
        };
        self.values.push(value);
        self.values.len() as ValueId - 1
    }

    /// A produce request with these values goes out.
    pub(super) fn produce_sent(&mut self, values: &[ValueId]) {
        for value in values {
            self.values[*value as usize].sent += 1;
        }
    }

    /// They were acknowledged, from `offset` on.
    pub(super) fn produce_acked(&mut self, values: &[ValueId], offset: i64) {
        self.acked_batches += 1;
        assert!(offset >= 0, "S1: acknowledged without an offset");
        for (at, value) in values.iter().enumerate() {
            let part = self.values[*value as usize].part.clone();
            self.place(&part, offset + at as i64, *value, "acknowledged");
            self.values[*value as usize].acked = true;
            let log = self.logs.entry(part).or_default();
            log.committed = log.committed.max(offset + at as i64 + 1);
        }
    }

    /// They were refused: this attempt appended nothing.
    pub(super) fn produce_refused(&mut self, values: &[ValueId], error: i16) {
        for id in values {
            self.values[*id as usize].refused += 1;
            self.check_places(*id, &format!("refused with error {error}"));
        }
    }

    fn check_places(&self, id: ValueId, how: &str) {
        let value = &self.values[id as usize];
        let mut most = value.sent - value.refused;
        if value.idempotent {
            most = most.min(1);
        }
        let rule = if value.idempotent && value.sent > value.refused { "S3" } else { "refused is absent" };
        assert!(
            value.seen_at.len() <= most as usize,
            "{rule}: value {id} ({how}) of producer {} in {:?} lies at {:?}, sent {} times, refused {} times",
            value.producer,
            value.part,
            value.seen_at,
            value.sent,
            value.refused
        );
    }

    /// The value `id` is said to lie at `offset`.
    fn place(&mut self, part: &Part, offset: i64, id: ValueId, how: &str) {
        let log = self.logs.entry(part.clone()).or_default();
        if let Some(known) = log.values.get(&offset) {
            assert_eq!(*known, id, "S2: offset {offset} of {part:?} has two values ({how})");
            return;
        }
        log.values.insert(offset, id);
        let value = &mut self.values[id as usize];
        assert_eq!(value.part, *part, "S1: value {id} lies in another partition");
        value.seen_at.push(offset);
        self.check_places(id, how);
        let value = &self.values[id as usize];
        if !value.idempotent {
            return;
        }
        let log = &self.logs[part];
        let same = |other: &&ValueId| self.values[**other as usize].producer == value.producer;
        let before = log.values.range(..offset).next_back().map(|(_, other)| other).filter(same);
        let after = log.values.range(offset + 1..).next().map(|(_, other)| other).filter(same);
        for (other, is_before) in [(before, true), (after, false)] {
            let Some(other) = other else { continue };
            let lower = self.values[*other as usize].order < value.order;
            assert_eq!(lower, is_before, "S3: values {other} and {id} of one producer are in the wrong order");
        }
    }

    /// Offsets below this one are known to be committed.
    pub(super) fn committed(&self, part: &Part) -> i64 {
        self.logs.get(part).map_or(0, |log| log.committed)
    }

    /// What a leader of this epoch must show at least: all that was committed, or in a cluster all that leaders of this
    /// or an earlier epoch have shown, as one that was deposed and does not know it yet is behind.
    pub(super) fn shown_by_epoch(&self, part: &Part, epoch: i32) -> i64 {
        let Some(log) = self.logs.get(part) else { return 0 };
        if !self.cluster {
            return log.committed;
        }
        log.watermarks.range(..=epoch).map(|(_, watermark)| *watermark).max().unwrap_or(0)
    }

    /// A request that was sent when `floor` was shown by leaders of this or an earlier epoch was told this high
    /// watermark.
    pub(super) fn high_watermark(&mut self, part: &Part, floor: i64, epoch: i32, high_watermark: i64) {
        assert!(
            high_watermark >= floor,
            "S2: the high watermark of {part:?} went back from {floor} to {high_watermark}"
        );
        let log = self.logs.entry(part.clone()).or_default();
        log.committed = log.committed.max(high_watermark);
        let known = log.watermarks.entry(epoch).or_default();
        *known = high_watermark.max(*known);
    }

    /// What a partition keeps.
    pub(super) fn keeping(&self, part: &Part) -> Keeping {
        self.topics[&part.0].keeping
    }

    /// A request goes out that deletes the records before this offset.
    pub(super) fn delete_records_sent(&mut self, part: &Part, before: i64) {
        let log = self.logs.entry(part.clone()).or_default();
        log.may_start = log.may_start.max(before);
    }

    /// It was answered: the log begins here, or later, whoever leads.
    pub(super) fn records_deleted(&mut self, part: &Part, start: i64) {
        let log = self.logs.entry(part.clone()).or_default();
        log.deleted = log.deleted.max(start);
    }

    /// The start that a leader of this epoch must show at least.
    pub(super) fn start_by_epoch(&self, part: &Part, epoch: i32) -> i64 {
        let starts = self.logs.get(part).map(|log| &log.starts);
        starts.and_then(|starts| starts.range(..=epoch).map(|(_, start)| *start).max()).unwrap_or(0)
    }

    /// A request that was sent when leaders of this or an earlier epoch had shown the start `floor` was told this one.
    pub(super) fn log_start(&mut self, part: &Part, floor: i64, epoch: i32, start: i64) {
        let keeping = self.keeping(part);
        let log = self.logs.entry(part.clone()).or_default();
        assert!(start >= floor, "S1: the start of {part:?} went back from {floor} to {start}");
        let allowed = keeping == Keeping::Newest || start <= log.may_start;
        assert!(allowed, "S1: the start of {part:?} has moved to {start}, {} was asked for", log.may_start);
        let known = log.starts.entry(epoch).or_default();
        *known = start.max(*known);
    }

    /// The reader at the end has found the record at `offset`.
    pub(super) fn kept(&mut self, part: &Part, offset: i64) {
        self.logs.entry(part.clone()).or_default().kept.insert(offset);
    }

    /// A consumer has read the record at `offset`.
    pub(super) fn read(&mut self, part: &Part, offset: i64, id: ValueId) {
        self.records_read += 1;
        assert!((id as usize) < self.values.len(), "S1: {part:?} holds value {id} at {offset}, which nobody has sent");
        self.place(part, offset, id, "read");
    }

    /// At the end, when the logs of all live partitions were read whole: nothing that was promised is missing.
    pub(super) fn check_complete(&self) {
        for part in self.live_parts() {
            let Some(log) = self.logs.get(&part) else { continue };
            let start = log.starts.values().copied().max().unwrap_or(0);
            assert!(
                start >= log.deleted,
                "S1: {part:?} begins at {start}, its records before {} are back",
                log.deleted
            );
            if self.keeping(&part) == Keeping::LastOfKey {
                let last: BTreeMap<u8, i64> =
                    log.values.range(start..log.committed).map(|(offset, id)| (wire::key(*id), *offset)).collect();
                for (key, offset) in last {
                    assert!(log.kept.contains(&offset), "S1: {part:?} has lost offset {offset}, the last of key {key}");
                }
                continue;
            }
            let offsets: Vec<i64> = log.values.range(start..).map(|(offset, _)| *offset).collect();
            let all: Vec<i64> = (start..log.committed.max(start)).collect();
            assert!(
                offsets == all,
                "S1: {part:?} has holes: {} values from {start} up to {}",
                offsets.len(),
                log.committed
            );
            let missing = all.iter().find(|offset| !log.kept.contains(offset));
            assert_eq!(missing, None, "S1: {part:?} was not read whole at the end");
        }
        for (id, value) in self.values.iter().enumerate() {
            assert!(!value.acked || !value.seen_at.is_empty(), "S1: value {id} was acknowledged and never seen");
        }
    }
}
