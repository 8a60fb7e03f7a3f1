//! A client that deletes records.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::{Client, Context, Links, topic_name};
use crate::sim::checkers::{Model, Part, Stamp, code};
use crate::sim::wire;

const VERSION: i16 = 2;
const TIMEOUT_MS: i32 = 2_000;
const TO_HIGH_WATERMARK: i64 = -1;

/// What was asked of a partition.
struct Asked {
    stamp: Stamp,
    part: Part,
    before: i64,
}

/// Deletes the records of some partition up to some offset, now and then. What was not answered is left at that.
#[derive(Default)]
pub(in crate::sim) struct Deleter {
    links: Links<Asked>,
    /// What was answered: requests by their error.
    answers: BTreeMap<i16, u64>,
    settling: bool,
    next_at: u64,
}

impl Deleter {
    fn go_on(&mut self, cx: &mut Context<'_>) {
        for broker in 0..cx.brokers {
            self.links.at(broker).give_up(cx, false);
        }
        if self.settling {
            return;
        }
        cx.wake_in(50_000);
        let parts = cx.model.live_parts();
        if cx.now < self.next_at || parts.is_empty() {
            return;
        }
        let part = cx.rng.pick(&parts).clone();
        let Some((broker, _)) = cx.leader(&part) else { return };
        if !self.links.at(broker).is_up(cx) || self.links.pending() > 0 {
            return;
        }
        self.next_at = cx.now + cx.rng.between(50_000, 2_000_000);
        let committed = cx.model.committed(&part);
        let before = match cx.rng.below(8) {
            0 => TO_HIGH_WATERMARK,
            1 => committed + 1 + cx.rng.below(50) as i64,
            2 => committed,
            _ => cx.rng.below(committed.max(1) as u64) as i64,
        };
        let furthest = if before == TO_HIGH_WATERMARK { i64::MAX } else { before };
        cx.model.delete_records_sent(&part, furthest);
        let partition = DeleteRecordsPartition::default().with_partition_index(part.1).with_offset(before);
        let topic = DeleteRecordsTopic::default().with_name(topic_name(&part.0)).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
        let stamp = cx.model.stamp();
        let asked = Asked { stamp, part, before };
        self.links.at(broker).send(cx, VERSION, &request, i64::from(TIMEOUT_MS), asked);
    }
}

impl Client for Deleter {
    fn wake(&mut self, cx: &mut Context<'_>) {
        self.go_on(cx);
    }

    fn connected(&mut self, cx: &mut Context<'_>, broker: usize) {
        self.links.at(broker).connected();
        self.go_on(cx);
    }

    fn answered(&mut self, cx: &mut Context<'_>, broker: usize, frame: Bytes) {
        let Asked { stamp, part, before } = self.links.at(broker).answered(&frame);
        let response: DeleteRecordsResponse = wire::response(VERSION, frame);
        let answer = &response.topics[0].partitions[0];
        *self.answers.entry(answer.error_code).or_default() += 1;
        match answer.error_code {
            code::NONE => {
                let start = answer.low_watermark;
                assert!(start >= before, "S1: {part:?} was to begin at {before} and begins at {start}");
                cx.model.records_deleted(&part, start);
            }
            code::UNKNOWN_TOPIC_OR_PARTITION => cx.model.unknown_topic(&part, stamp),
            code::POLICY_VIOLATION => {
                let compacted = cx.model.keeping(&part).is_compacted();
                assert!(compacted, "protocol: {part:?} deletes its records and refuses to");
            }
            _ => {}
        }
        self.go_on(cx);
    }

    fn closed(&mut self, cx: &mut Context<'_>, broker: usize) {
        self.links.at(broker).closed();
        cx.wake_in(10_000);
    }

    fn settle(&mut self, _now: u64) {
        self.settling = true;
    }

    fn is_settled(&self, _model: &Model) -> bool {
        true
    }

    fn state(&self) -> String {
        format!("deleter with answers {:?}", self.answers)
    }
}
