//! Consumers, which read every partition from its start and then follow it.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse};

use super::{AT_ONCE_MS, Client, Context, Links, topic_name};
use crate::limits::DISK_READ_MS;
use crate::sim::checkers::{Model, Part, Stamp, code};
use crate::sim::rng::Rng;
use crate::sim::wire;

const LIST_OFFSETS_VERSION: i16 = 7;
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// What was asked of a partition, and what was committed of it by then.
struct Asked {
    part: Part,
    from: i64,
    committed: i64,
    /// Where the log began by then.
    start: i64,
    /// The leader's epoch that the request names, or -1.
    epoch: i32,
    /// Whether another broker leads, which may have shown more already.
    from_follower: bool,
}

enum Purpose {
    Fetch(Stamp, Vec<Asked>),
    /// With the timestamp that was asked for.
    Offsets(Stamp, i64, Vec<Asked>),
}

/// A consumer.
pub(in crate::sim) struct Consumer {
    version: i16,
    max_wait_ms: i32,
    min_bytes: i32,
    partition_max_bytes: i32,
    /// Reads from whichever broker it comes to, in a cluster.
    from_followers: bool,
    links: Links<Purpose>,
    positions: BTreeMap<Part, i64>,
    settling: bool,
    /// It reads what is left at the end of a run.
    last: bool,
    retry_at: u64,
}

impl Consumer {
    /// A consumer with habits of its own. In a cluster it names the epoch of the leader that it believes in, so that one
    /// that was deposed cannot tell it of a past.
    pub(in crate::sim) fn new(rng: &mut Rng, brokers: usize) -> Consumer {
        let version = *rng.pick(&[5, 7, 11, 12]);
        Consumer {
            version: if brokers == 1 { version } else { version.max(11) },
            max_wait_ms: *rng.pick(&[0, 50, 500]),
            min_bytes: *rng.pick(&[1, 1, 10_000]),
            partition_max_bytes: *rng.pick(&[1, 2_000, 100_000]),
            from_followers: brokers > 1 && version == 12,
            links: Links::default(),
            positions: BTreeMap::new(),
            settling: false,
            last: false,
            retry_at: 0,
        }
    }

    /// One that reads all there is, at the end of a run.
    pub(in crate::sim) fn verifier(rng: &mut Rng, brokers: usize) -> Consumer {
        let consumer = Consumer::new(rng, brokers);
        Consumer {
            partition_max_bytes: 100_000,
            max_wait_ms: 0,
            from_followers: false,
            settling: true,
            last: true,
            ..consumer
        }
    }

    fn behind(&self, model: &Model) -> bool {
        let position = |part: &Part| self.positions.get(part).copied().unwrap_or(-1);
        model.live_parts().iter().any(|part| position(part) < model.committed(part))
    }

    fn go_on(&mut self, cx: &mut Context<'_>) {
        for broker in 0..cx.brokers {
            if let Some(lost) = self.links.at(broker).give_up(cx, false) {
                self.lost(cx, lost);
            }
        }
        cx.wake_in(20_000);
        if self.settling && !self.behind(cx.model) {
            return;
        }
        for broker in 0..cx.brokers {
            if cx.now >= self.retry_at {
                self.ask(cx, broker);
            }
        }
    }

    fn ask(&mut self, cx: &mut Context<'_>, broker: usize) {
        let link = self.links.at(broker);
        if !link.is_up(cx) || !link.pending.is_empty() {
            return;
        }
        let parts = cx.model.live_parts();
        for part in &parts {
            self.positions.entry(part.clone()).or_insert(0);
        }
        self.positions.retain(|part, _| parts.contains(part));
        if parts.is_empty() {
            return;
        }
        if !self.settling && cx.rng.one_in(40) {
            self.list_offsets(cx, broker);
        } else {
            self.fetch(cx, broker);
        }
    }

    /// What to ask a broker of a partition; `None` where another leads it, which must be asked then.
    fn asked(&self, cx: &Context<'_>, broker: usize, part: &Part, from_followers: bool) -> Option<Asked> {
        let (leader, epoch) = cx.leader(part)?;
        let committed = cx.model.shown_by_epoch(part, epoch);
        let start = cx.model.start_by_epoch(part, epoch);
        let from_follower = leader != broker;
        let from = self.positions[part];
        let asked = || Asked { part: part.clone(), from, committed, start, epoch, from_follower };
        (!from_follower || from_followers).then(asked)
    }

    fn fetch(&mut self, cx: &mut Context<'_>, broker: usize) {
        let mut topics: BTreeMap<String, Vec<FetchPartition>> = BTreeMap::new();
        let mut asked = Vec::new();
        for part in self.positions.keys() {
            if !self.settling && cx.rng.one_in(3) {
                continue;
            }
            let Some(one) = self.asked(cx, broker, part, self.from_followers) else { continue };
            let partition = FetchPartition::default()
                .with_partition(part.1)
                .with_current_leader_epoch(one.epoch)
                .with_last_fetched_epoch(-1)
                .with_log_start_offset(-1)
                .with_fetch_offset(one.from)
                .with_partition_max_bytes(self.partition_max_bytes);
            topics.entry(part.0.clone()).or_default().push(partition);
            asked.push(one);
        }
        if asked.is_empty() {
            return;
        }
        let topics = topics
            .into_iter()
            .map(|(name, partitions)| FetchTopic::default().with_topic(topic_name(&name)).with_partitions(partitions))
            .collect();
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(self.max_wait_ms)
            .with_min_bytes(self.min_bytes)
            .with_max_bytes(500_000)
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(topics);
        let stamp = cx.model.stamp();
        let within = i64::from(self.max_wait_ms).max(DISK_READ_MS);
        self.links.at(broker).send(cx, self.version, &request, within, Purpose::Fetch(stamp, asked));
    }

    fn list_offsets(&mut self, cx: &mut Context<'_>, broker: usize) {
        let timestamp = *cx.rng.pick(&[EARLIEST, LATEST]);
        let mut topics = Vec::new();
        let mut asked = Vec::new();
        for part in self.positions.keys() {
            let Some(one) = self.asked(cx, broker, part, false) else { continue };
            let partition = ListOffsetsPartition::default()
                .with_partition_index(part.1)
                .with_current_leader_epoch(one.epoch)
                .with_timestamp(timestamp);
            topics.push(ListOffsetsTopic::default().with_name(topic_name(&part.0)).with_partitions(vec![partition]));
            asked.push(one);
        }
        if asked.is_empty() {
            return;
        }
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics);
        let stamp = cx.model.stamp();
        self.links.at(broker).send(
            cx,
            LIST_OFFSETS_VERSION,
            &request,
            AT_ONCE_MS,
            Purpose::Offsets(stamp, timestamp, asked),
        );
    }

    fn lost(&mut self, cx: &mut Context<'_>, _purposes: Vec<Purpose>) {
        self.retry_at = cx.now + cx.rng.between(1_000, 100_000);
        if cx.rng.one_in(2) {
            // Somebody else reads on, from the start.
            self.positions.clear();
        }
    }

    fn refused(&mut self, cx: &mut Context<'_>, stamp: Stamp, asked: &Asked, error: i16) {
        let part = &asked.part;
        self.retry_at = cx.now + 20_000;
        match error {
            code::UNKNOWN_TOPIC_OR_PARTITION => cx.model.unknown_topic(part, stamp),
            code::CORRUPT_MESSAGE | code::KAFKA_STORAGE_ERROR => {
                let allowed = cx.model.impaired || cx.model.is_doomed(&part.0);
                assert!(allowed, "S1: {part:?} cannot be read at {} (error {error})", asked.from);
            }
            _ => {}
        }
    }

    fn fetched(&mut self, cx: &mut Context<'_>, frame: Bytes, stamp: Stamp, asked: Vec<Asked>) {
        let response: FetchResponse = wire::response(self.version, frame);
        assert_eq!(response.error_code, code::NONE, "protocol: a fetch without a session was refused");
        let mut answers = BTreeMap::new();
        for topic in response.responses {
            for partition in topic.partitions {
                answers.insert((topic.topic.to_string(), partition.partition_index), partition);
            }
        }
        for asked in asked {
            let part = &asked.part;
            let answer = answers.remove(part).unwrap_or_else(|| panic!("protocol: no answer for {part:?}"));
            let start = answer.log_start_offset;
            if answer.error_code == code::OFFSET_OUT_OF_RANGE {
                let gone = start > asked.from || cx.model.is_doomed(&part.0);
                assert!(gone, "S1: offset {} of {part:?} is out of range and the log begins at {start}", asked.from);
                if !asked.from_follower {
                    cx.model.log_start(part, asked.start, asked.epoch, start);
                }
                if let Some(position) = self.positions.get_mut(part) {
                    *position = start.max(*position);
                }
                continue;
            }
            if answer.error_code != code::NONE {
                self.refused(cx, stamp, &asked, answer.error_code);
                continue;
            }
            let high_watermark = answer.high_watermark;
            if high_watermark < 0 && answer.records.as_ref().is_none_or(Bytes::is_empty) {
                // The disk takes its time, and so does the partition.
                continue;
            }
            if !asked.from_follower {
                cx.model.high_watermark(part, asked.committed, asked.epoch, high_watermark);
                cx.model.log_start(part, asked.start, asked.epoch, start);
            }
            let Some(values) = wire::values(&answer.records.unwrap_or_default()) else {
                assert!(cx.model.impaired, "S1: what {part:?} holds at {} is damaged", asked.from);
                continue;
            };
            let Some(position) = self.positions.get_mut(part) else { continue };
            if asked.from > *position {
                // Another connection was lost meanwhile, and with it the place.
                continue;
            }
            let whole = !cx.model.keeping(part).is_compacted();
            let first = values.first().map_or(*position, |(offset, _)| *offset);
            assert!(
                first <= *position || !whole,
                "S1: {part:?} was read at {position} and answers with offset {first}"
            );
            for (expected, (offset, value)) in (first..).zip(&values) {
                assert!(*offset == expected || !whole, "S1: {part:?} has a hole at {expected}");
                assert!(*offset < high_watermark, "S2: {part:?} shows {offset}, beyond its high watermark");
                cx.model.read(part, *offset, *value);
                if self.last {
                    cx.model.kept(part, *offset);
                }
                *position = (*position).max(offset + 1);
            }
        }
    }

    fn offsets(&mut self, cx: &mut Context<'_>, frame: Bytes, stamp: Stamp, timestamp: i64, asked: Vec<Asked>) {
        let response: ListOffsetsResponse = wire::response(LIST_OFFSETS_VERSION, frame);
        for (topic, asked) in response.topics.iter().zip(asked) {
            assert_eq!(topic.name.as_str(), asked.part.0, "protocol: topics in another order");
            let answer = &topic.partitions[0];
            if answer.error_code != code::NONE {
                self.refused(cx, stamp, &asked, answer.error_code);
            } else if timestamp == EARLIEST {
                cx.model.log_start(&asked.part, asked.start, asked.epoch, answer.offset);
            } else {
                cx.model.high_watermark(&asked.part, asked.committed, asked.epoch, answer.offset);
            }
        }
    }
}

impl Client for Consumer {
    fn wake(&mut self, cx: &mut Context<'_>) {
        self.go_on(cx);
    }

    fn connected(&mut self, cx: &mut Context<'_>, broker: usize) {
        self.links.at(broker).connected();
        self.go_on(cx);
    }

    fn answered(&mut self, cx: &mut Context<'_>, broker: usize, frame: Bytes) {
        match self.links.at(broker).answered(&frame) {
            Purpose::Fetch(stamp, asked) => self.fetched(cx, frame, stamp, asked),
            Purpose::Offsets(stamp, timestamp, asked) => self.offsets(cx, frame, stamp, timestamp, asked),
        }
        if self.max_wait_ms > 0 {
            self.go_on(cx);
        }
    }

    fn closed(&mut self, cx: &mut Context<'_>, broker: usize) {
        let lost = self.links.at(broker).closed();
        self.lost(cx, lost);
        cx.wake_in(10_000);
    }

    fn settle(&mut self, _now: u64) {
        self.settling = true;
        // What is left is to be read in the time that is left.
        self.partition_max_bytes = 100_000;
        self.min_bytes = 1;
    }

    fn is_settled(&self, model: &Model) -> bool {
        !self.behind(model)
    }

    fn state(&self) -> String {
        format!("consumer v{} at {:?}, {} requests under way", self.version, self.positions, self.links.pending())
    }
}
