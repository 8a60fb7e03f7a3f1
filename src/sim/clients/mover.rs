//! A client that moves replicas from broker to broker while everything else goes on.

use bytes::Bytes;
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, BrokerId};

use super::errand::Errand;
use super::{Client, Context, topic_name};
use crate::sim::checkers::Model;
use crate::sim::rng::Rng;
use crate::sim::wire;

const VERSION: i16 = 1;
const TIMEOUT_MS: i32 = 1_000;

/// Moves replicas, and takes some of its moves back.
pub(in crate::sim) struct Mover {
    errand: Errand<()>,
}

impl Mover {
    /// One with so many moves to make.
    pub(in crate::sim) fn new(rng: &mut Rng) -> Mover {
        Mover { errand: Errand::new(rng.between(2, 12)) }
    }

    fn go_on(&mut self, cx: &mut Context<'_>) {
        if !self.errand.is_due(cx) {
            return;
        }
        let parts = cx.model.live_parts();
        if parts.is_empty() {
            return;
        }
        self.errand.take_one(cx, 2_000_000);
        let (topic, partition) = cx.rng.pick(&parts).clone();
        let mut brokers: Vec<i32> = (1..=cx.brokers as i32).collect();
        let mut target = Vec::new();
        // With fewer replicas one frozen disk would be one too many, also for what is asked for together with them.
        let fewest = if cx.model.frozen { cx.brokers } else { 1 };
        for _ in 0..cx.rng.between(fewest as u64, cx.brokers as u64) {
            let at = cx.rng.below(brokers.len() as u64) as usize;
            target.push(BrokerId(brokers.remove(at)));
        }
        let back = cx.rng.one_in(4);
        let partition =
            ReassignablePartition::default().with_partition_index(partition).with_replicas((!back).then_some(target));
        let topic = ReassignableTopic::default().with_name(topic_name(&topic)).with_partitions(vec![partition]);
        let request =
            AlterPartitionReassignmentsRequest::default().with_timeout_ms(TIMEOUT_MS).with_topics(vec![topic]);
        self.errand.link.send(cx, VERSION, &request, i64::from(TIMEOUT_MS), ());
    }
}

impl Client for Mover {
    fn wake(&mut self, cx: &mut Context<'_>) {
        self.go_on(cx);
    }

    fn connected(&mut self, cx: &mut Context<'_>, _broker: usize) {
        self.errand.link.connected();
        self.go_on(cx);
    }

    fn answered(&mut self, cx: &mut Context<'_>, _broker: usize, frame: Bytes) {
        self.errand.link.answered(&frame);
        let _: AlterPartitionReassignmentsResponse = wire::response(VERSION, frame);
        self.go_on(cx);
    }

    fn closed(&mut self, cx: &mut Context<'_>, _broker: usize) {
        self.errand.closed(cx);
    }

    fn settle(&mut self, _now: u64) {
        self.errand.settling = true;
    }

    fn is_settled(&self, _model: &Model) -> bool {
        self.errand.link.pending.is_empty()
    }

    fn state(&self) -> String {
        format!("mover with {} moves left, {} requests under way", self.errand.left, self.errand.link.pending.len())
    }
}
