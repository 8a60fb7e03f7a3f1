//! What the paths under `/v1` answer, from what the shards have shown. `docs/http.md` describes it.

use serde_json::{Value, json};

use super::Sources;
use super::exposition::Times;
use crate::metrics::{BOUNDS_MICROS, STAGES};
use crate::shard::creation::Trace;
use crate::shard::view::{TopicSummary, TopicView};

/// Joins what the shards have shown of the same page of topics. A topic that one of them does not have yet is there as
/// the others have it.
pub(super) fn join_summaries(parts: Vec<Vec<TopicSummary>>, limit: usize) -> Vec<TopicSummary> {
    let mut all: Vec<TopicSummary> = parts.into_iter().flatten().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.dedup_by(|next, kept| {
        let same = next.name == kept.name;
        if same {
            kept.records += next.records;
            kept.bytes += next.bytes;
            kept.under_replicated += next.under_replicated;
            kept.leaderless += next.leaderless;
        }
        same
    });
    all.truncate(limit);
    all
}

/// Joins what the shards have shown of a topic; `None` where none of them has it.
pub(super) fn join_topic(parts: impl IntoIterator<Item = Option<Box<TopicView>>>) -> Option<Box<TopicView>> {
    let mut topic = parts.into_iter().flatten().reduce(|mut topic, part| {
        topic.partitions.extend(part.partitions);
        topic
    })?;
    topic.partitions.sort_by_key(|partition| partition.partition);
    Some(topic)
}

/// A creation. The stages are in their order, those that have ended.
pub(super) fn trace(trace: &Trace) -> Value {
    let stages: Vec<Value> =
        trace.stages.iter().map(|(stage, micros)| json!({ "stage": stage.name(), "us": micros })).collect();
    json!({
        "began_ms": trace.began_ms,
        "total_us": trace.total_micros,
        "stages": stages,
        "topics": trace.topics,
        "topic_count": trace.topic_count,
        "error": trace.error,
    })
}

fn times(times: &Times) -> Value {
    json!({ "count": times.count(), "sum_us": times.sum_micros, "counts": times.counts })
}

impl Sources {
    /// What was counted since the start, for a page that shows what is new since it looked last.
    pub(super) fn stats(&self) -> Value {
        let apis = self.apis().iter().enumerate().filter_map(|(at, api)| {
            let time = self.times(|shard| &shard.apis[at].time);
            let errors: u64 = (0..api.errors.len()).map(|e| self.sum(|shard| &shard.apis[at].errors[e])).sum();
            let missed = self.sum(|shard| &shard.apis[at].deadlines_missed);
            (time.count() > 0).then(|| {
                json!({
                    "api": api.name, "errors": errors, "deadlines_missed": missed, "time": times(&time),
                })
            })
        });
        let creation = STAGES.map(|stage| {
            json!({ "stage": stage.name(), "time": times(&self.times(|shard| &shard.creation.stages[stage as usize])) })
        });
        let wal = |wal: &crate::metrics::WalMetrics| {
            json!({
                "write": times(&Times::of([&wal.write])),
                "gather": times(&Times::of([&wal.gather])),
                "written_bytes": wal.written_bytes.get(),
                "failures": wal.failures.get(),
            })
        };
        let process = super::process::usage();
        let produce = |stage: &'static str, of: Times| json!({ "stage": stage, "time": times(&of) });
        json!({
            "uptime_ms": self.clock.mono().0 / 1_000,
            "ready": self.is_ready(),
            "bounds_us": BOUNDS_MICROS,
            "apis": apis.collect::<Vec<_>>(),
            "produce": [
                produce("queue", self.times(|shard| &shard.produce.queue)),
                produce("wal", self.times(|shard| &shard.produce.wal)),
                produce("commit", self.times(|shard| &shard.produce.commit)),
            ],
            "creation": creation,
            "creation_timeouts": self.sum(|shard| &shard.creation.timeouts),
            "assignment_timeouts": self.sum(|shard| &shard.creation.assignment_timeouts),
            "disk": {
                "data": wal(&self.disk.data),
                "meta": wal(&self.disk.meta),
                "well": self.least(|held| &held.disk_well) == 1,
                "lease_held": self.least(|held| &held.may_lead) == 1,
                "oldest_append_ms": self.most(|held| &held.wal_age_ms),
                "pending_bytes": self.most(|held| &held.wal_pending_bytes),
                "full": self.most(|held| &held.wal_full) == 1,
                "failed": self.most(|held| &held.wal_failed) == 1,
                "silent_ms": self.disk_pulse.silent_ms(self.clock.mono()),
            },
            "appended_bytes": self.sum(|shard| &shard.appended_bytes),
            "appended_records": self.sum(|shard| &shard.appended_records),
            "fetched_bytes": self.sum(|shard| &shard.fetched_bytes),
            "connections": self.held(|held| &held.connections),
            "requests_under_way": self.held(|held| &held.requests),
            "waiting_appends": self.held(|held| &held.backlog),
            "memory": {
                "budget_bytes": self.memory_bytes,
                "resident_bytes": process.resident_bytes,
                "tail_bytes": self.held(|held| &held.tail_bytes),
                "tail_limit_bytes": self.held(|held| &held.tail_limit_bytes),
                "cache_bytes": self.held(|held| &held.cache_bytes),
                "cache_limit_bytes": self.held(|held| &held.cache_limit_bytes),
                "frame_bytes": self.frames.charged(),
                "frame_limit_bytes": self.frames.limit(),
            },
            "cpu_seconds": process.cpu_seconds,
        })
    }
}
