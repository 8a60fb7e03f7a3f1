//! Which metrics there are, and where their values come from. All are described in `docs/metrics.md`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::Sources;
use super::exposition::{Page, Times};
use crate::limits::LAG_SERIES;
use crate::logging;
use crate::metrics::{ApiMetrics, Counter, Gauge, STAGES, ShardMetrics, Stage};
use crate::shard::view::{Counts, GroupView};

/// What shards were asked for. Those that have not answered in time have no part in it.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// By shard.
    pub(super) counts: BTreeMap<u16, Counts>,
    /// Groups of this broker with their lag, if all shards have answered.
    pub(super) groups: Vec<GroupView>,
}

impl Sources {
    /// A histogram of all shards together.
    pub(super) fn times(&self, of: impl Fn(&ShardMetrics) -> &crate::metrics::Histogram) -> Times {
        Times::of(self.shards.iter().map(|shard| of(&shard.metrics)))
    }

    /// A counter of all shards together.
    pub(super) fn sum(&self, of: impl Fn(&ShardMetrics) -> &Counter) -> u64 {
        self.shards.iter().map(|shard| of(&shard.metrics).get()).sum()
    }

    /// A gauge of all shards together.
    pub(super) fn held(&self, of: impl Fn(&crate::metrics::Held) -> &Gauge) -> u64 {
        self.shards.iter().map(|shard| of(&shard.metrics.held).get()).sum()
    }

    /// The greatest of a gauge of all shards.
    pub(super) fn most(&self, of: impl Fn(&crate::metrics::Held) -> &Gauge) -> u64 {
        self.shards.iter().map(|shard| of(&shard.metrics.held).get()).max().unwrap_or(0)
    }

    /// The least of a gauge of all shards.
    pub(super) fn least(&self, of: impl Fn(&crate::metrics::Held) -> &Gauge) -> u64 {
        self.shards.iter().map(|shard| of(&shard.metrics.held).get()).min().unwrap_or(0)
    }

    /// The APIs, as each shard has them.
    pub(super) fn apis(&self) -> &[ApiMetrics] {
        &self.shards[0].metrics.apis
    }

    /// All metrics.
    pub(super) fn page(&self, asked: &Asked) -> Page {
        let mut page = Page::default();
        self.put_requests(&mut page);
        self.put_topics(&mut page);
        self.put_wals(&mut page);
        self.put_partitions(&mut page, asked);
        self.put_groups(&mut page, asked);
        self.put_memory(&mut page);
        self.put_threads(&mut page, asked);
        page
    }

    fn put_requests(&self, page: &mut Page) {
        // An API that nobody has used would only make the text long.
        let apis = self.apis().iter().enumerate();
        let used = apis.filter(|(at, _)| self.times(|shard| &shard.apis[*at].time).count() > 0);
        let used: Vec<(usize, &str)> = used.map(|(at, api)| (at, api.name)).collect();
        let name = "kafka_network_requestmetrics_requests";
        let mut family = page.counters(name, "Requests that were answered, by API");
        for (at, api) in &used {
            family.count(&[("request", api)], self.times(|shard| &shard.apis[*at].time).count());
        }
        let name = "kafka_network_requestmetrics_errors";
        let mut family =
            page.counters(name, "Errors that responses told of, by API and error; a response may tell of several");
        for (at, api) in &used {
            for (place, error) in self.shards[0].metrics.error_names.iter().enumerate() {
                let count = self.sum(|shard| &shard.apis[*at].errors[place]);
                if count > 0 {
                    family.count(&[("request", api), ("error", error)], count);
                }
            }
        }
        let name = "kafka_network_requestmetrics_totaltime_seconds";
        let mut family = page
            .times(name, "From the whole request to its response, by API; a fetch waits as long as its client wants");
        for (at, api) in &used {
            family.observe(&[("request", api)], self.times(|shard| &shard.apis[*at].time));
        }
        let name = "kafka_network_requestmetrics_responsequeuetime_seconds";
        let mut family = page
            .times(name, "The part of it that a response waited behind those of earlier requests of its connection");
        for (at, api) in &used {
            family.observe(&[("request", api)], self.times(|shard| &shard.apis[*at].line));
        }
        let mut family =
            page.counters("ringlog_deadlines_missed", "Requests that were answered because their time was up, by API");
        for (at, api) in &used {
            family.count(&[("request", api)], self.sum(|shard| &shard.apis[*at].deadlines_missed));
        }
        page.counters("ringlog_malformed_requests", "Frames that were no requests; their connections were closed")
            .count(&[], self.sum(|shard| &shard.malformed));
        page.counters("ringlog_request_bytes", "Bytes of requests").count(&[], self.sum(|shard| &shard.request_bytes));
        page.counters("ringlog_response_bytes", "Bytes of responses")
            .count(&[], self.sum(|shard| &shard.response_bytes));

        let name = "kafka_server_brokertopicmetrics_bytesin";
        page.counters(name, "Bytes of record batches that producers appended")
            .count(&[], self.sum(|shard| &shard.appended_bytes));
        let name = "kafka_server_brokertopicmetrics_messagesin";
        page.counters(name, "Records that producers appended").count(&[], self.sum(|shard| &shard.appended_records));
        page.counters("ringlog_batches_appended", "Record batches that producers appended")
            .count(&[], self.sum(|shard| &shard.appended_batches));
        let name = "kafka_server_brokertopicmetrics_bytesout";
        page.counters(name, "Bytes of record batches that fetches were answered with")
            .count(&[], self.sum(|shard| &shard.fetched_bytes));

        let name = "ringlog_produce_stage_seconds";
        let respond = self.apis().iter().position(|api| api.name == "Produce").expect("the broker answers Produce");
        page.times(name, "Stages of a produce: queue (request to append), wal (append to durable here), commit (append to durable on a majority), respond (answered to sent)")
            .observe(&[("stage", "queue")], self.times(|shard| &shard.produce.queue))
            .observe(&[("stage", "wal")], self.times(|shard| &shard.produce.wal))
            .observe(&[("stage", "commit")], self.times(|shard| &shard.produce.commit))
            .observe(&[("stage", "respond")], self.times(|shard| &shard.apis[respond].line));
    }

    fn put_topics(&self, page: &mut Page) {
        let mut family = page.times(
            "ringlog_topic_creation_stage_seconds",
            "Stages of a topic creation: forward where it was asked for, the others where it was coordinated",
        );
        for stage in STAGES {
            let times = self.times(|shard| &shard.creation.stages[stage as usize]);
            family.observe(&[("stage", stage.name())], times);
        }
        page.times("ringlog_topic_creation_seconds", "From a request to create topics to its answer")
            .observe(&[], self.times(|shard| &shard.creation.total));
        page.plain(
            "topic_creation_timeout_count",
            "Requests to create topics whose time was up before they were answered",
            self.sum(|shard| &shard.creation.timeouts),
        );
        page.plain(
            "partition_assignment_timeout_count",
            "Creations that were committed in time, whose partitions had no leader that all show when their time was up",
            self.sum(|shard| &shard.creation.assignment_timeouts),
        );
    }

    fn put_wals(&self, page: &mut Page) {
        let wals = [("data", &self.disk.data), ("meta", &self.disk.meta)];
        let mut family =
            page.times("ringlog_wal_write_seconds", "Device writes of a WAL, from their start until they were durable");
        for (wal, metrics) in wals {
            family.observe(&[("wal", wal)], Times::of([&metrics.write]));
        }
        let mut family =
            page.times("ringlog_wal_gather_seconds", "From the first frame of a WAL write to the start of the write");
        for (wal, metrics) in wals {
            family.observe(&[("wal", wal)], Times::of([&metrics.gather]));
        }
        let mut family = page.counters("ringlog_wal_written_bytes", "Bytes written to a WAL, padding included");
        for (wal, metrics) in wals {
            family.count(&[("wal", wal)], metrics.written_bytes.get());
        }
        let mut family =
            page.counters("ringlog_wal_write_failures", "Writes to a WAL that failed; the first fences it");
        for (wal, metrics) in wals {
            family.count(&[("wal", wal)], metrics.failures.get());
        }
        let age = self.most(|held| &held.wal_age_ms) as f64 / 1e3;
        page.gauges("ringlog_wal_oldest_append_seconds", "Age of the oldest append that is not durable; 0 below 20 ms")
            .show(&[], age);
        page.gauges("ringlog_wal_pending_bytes", "Bytes that the WAL has accepted and that are not durable")
            .show(&[], self.most(|held| &held.wal_pending_bytes) as f64);
        page.gauges("ringlog_wal_full", "1 where the WAL has no room but its reserve")
            .show(&[], self.most(|held| &held.wal_full) as f64);
        page.gauges("ringlog_wal_failed", "1 where a WAL is fenced after an error: nothing is acknowledged any more")
            .show(&[], self.most(|held| &held.wal_failed) as f64);
        page.gauges(
            "ringlog_disk_well",
            "1 while the disk has room, has failed no write, and makes writes durable within the lease of 150 ms",
        )
        .show(&[], self.least(|held| &held.disk_well) as f64);
        page.gauges("ringlog_lease_held", "1 while this broker may lead: its disk was well for the last 15 s")
            .show(&[], self.least(|held| &held.may_lead) as f64);
        page.counters("ringlog_leases_lost", "Times that a shard saw the lease end and handed leaderships over")
            .count(&[], self.sum(|shard| &shard.leases_lost));
    }

    fn put_partitions(&self, page: &mut Page, asked: &Asked) {
        type Part = (&'static str, &'static str, fn(&Counts) -> u64);
        let parts: [Part; 5] = [
            ("kafka_server_replicamanager_partitioncount", "Replicas of partitions on this broker", |counts| {
                counts.partitions
            }),
            ("kafka_server_replicamanager_leadercount", "Partitions that this broker leads", |counts| counts.leaders),
            (
                "kafka_server_replicamanager_underreplicatedpartitions",
                "Partitions that this broker leads and that have a replica on a broker that is gone",
                |counts| counts.under_replicated,
            ),
            (
                "ringlog_partitions_without_leader",
                "Partitions with a replica here whose leader is not known, or gone",
                |counts| counts.leaderless,
            ),
            ("ringlog_raft_groups_awake", "Raft groups of partitions that need ticks", |counts| counts.awake),
        ];
        for (name, help, part) in parts {
            let mut family = page.gauges(name, help);
            // A sum that lacks a shard would look like partitions that went.
            if asked.counts.len() == self.shards.len() {
                family.show(&[], asked.counts.values().map(part).sum::<u64>() as f64);
            }
        }
        page.counters("ringlog_leaderships_taken", "Times that a partition came up to lead here")
            .count(&[], self.sum(|shard| &shard.leaderships_taken));
        page.counters("ringlog_leaderships_lost", "Times that a partition that led here did so no longer")
            .count(&[], self.sum(|shard| &shard.leaderships_lost));
        page.gauges(
            "kafka_controller_kafkacontroller_activecontrollercount",
            "1 where this broker's coordinator is the one that works",
        )
        .show(&[], self.most(|held| &held.coordinates) as f64);
        page.gauges(
            "ringlog_metadata_applied_index",
            "Index of the last metadata command that every shard has applied",
        )
        .show(&[], self.least(|held| &held.metadata_applied) as f64);
    }

    fn put_groups(&self, page: &mut Page, asked: &Asked) {
        let name = "kafka_coordinator_group_groupmetadatamanager_numgroups";
        let mut family = page.gauges(name, "Consumer groups that this broker coordinates");
        if asked.counts.len() == self.shards.len() {
            family.show(&[], asked.counts.values().map(|counts| counts.groups).sum::<u64>() as f64);
        }
        let mut family =
            page.gauges("kafka_consumergroup_members", "Members of a consumer group that this broker coordinates");
        for group in &asked.groups {
            family.show(&[("consumergroup", &group.group)], group.members.len() as f64);
        }
        let mut family = page.gauges(
            "kafka_consumergroup_lag",
            "Committed records that a consumer group has not read, of partitions that this broker has a replica of",
        );
        let offsets = asked.groups.iter().flat_map(|group| group.offsets.iter().map(move |offset| (group, offset)));
        let lags = offsets.filter_map(|(group, offset)| Some((group, offset, offset.lag?)));
        let mut left_out = 0_u64;
        for (n, (group, offset, lag)) in lags.enumerate() {
            if n >= LAG_SERIES {
                left_out += 1;
                continue;
            }
            let partition = offset.partition.to_string();
            let labels = [("consumergroup", &*group.group), ("topic", &*offset.topic), ("partition", &*partition)];
            family.show(&labels, lag as f64);
        }
        page.gauges("ringlog_lag_series_left_out", "Partitions whose lag is not shown, because there are too many")
            .show(&[], left_out as f64);
    }

    fn put_memory(&self, page: &mut Page) {
        let peers = self.peer_frames();
        let parts = [
            ("tail", self.held(|held| &held.tail_bytes), self.held(|held| &held.tail_limit_bytes)),
            ("read_cache", self.held(|held| &held.cache_bytes), self.held(|held| &held.cache_limit_bytes)),
            ("request_frames", self.frames.charged(), self.frames.limit()),
            ("peer_frames", peers.map_or(0, |frames| frames.charged()), peers.map_or(0, |frames| frames.limit())),
        ];
        let mut family = page.gauges("ringlog_memory_used_bytes", "Memory in use, by what it is for");
        for (part, used, _) in parts {
            family.show(&[("part", part)], used as f64);
        }
        let mut family = page.gauges("ringlog_memory_limit_bytes", "Most memory, by what it is for");
        for (part, _, limit) in parts {
            family.show(&[("part", part)], limit as f64);
        }
        page.gauges("ringlog_memory_budget_bytes", "The setting memory").show(&[], self.memory_bytes as f64);
        page.gauges("ringlog_tail_unflushed_bytes", "The part of the tail that no segment holds")
            .show(&[], self.held(|held| &held.unflushed_bytes) as f64);
        let process = super::process::usage();
        page.gauges("process_resident_memory_bytes", "Resident memory of the process")
            .show(&[], process.resident_bytes as f64);
        page.counters("process_cpu_seconds", "User and system time of the process").seconds(process.cpu_seconds);
    }

    fn put_threads(&self, page: &mut Page, asked: &Asked) {
        let now = self.clock.mono();
        let names: Vec<String> = (0..self.shards.len()).map(|shard| shard.to_string()).collect();
        let shards: Vec<_> = names.iter().zip(&self.shards).collect();
        let mut family = page.gauges("ringlog_connections", "Connections of clients, by shard");
        for (shard, source) in &shards {
            family.show(&[("shard", shard)], source.metrics.held.connections.get() as f64);
        }
        let mut family = page.gauges("ringlog_requests_under_way", "Requests that are not answered, by shard");
        for (shard, source) in &shards {
            family.show(&[("shard", shard)], source.metrics.held.requests.get() as f64);
        }
        let mut family =
            page.gauges("ringlog_waiting_appends", "Appends that wait for memory or for room in the WAL, by shard");
        for (shard, source) in &shards {
            family.show(&[("shard", shard)], source.metrics.held.backlog.get() as f64);
        }
        let mut family = page.gauges("ringlog_mailbox_messages", "Messages that wait for a thread");
        for (shard, source) in &shards {
            family.show(&[("thread", &format!("shard-{shard}"))], source.mailbox.queued() as f64);
        }
        family.show(&[("thread", "disk")], self.disk_mailbox.queued() as f64);
        let mut family = page.times(
            "ringlog_tick_delay_seconds",
            "How late the ticks of a shard came: the longest turns of its executor",
        );
        for (shard, source) in &shards {
            family.observe(&[("shard", shard)], Times::of([&source.metrics.tick_delay]));
        }
        let mut family = page.gauges("ringlog_thread_silent_seconds", "Time since a thread was last seen at work");
        for (shard, source) in &shards {
            let silent = source.pulse.silent_ms(now) as f64 / 1e3;
            family.show(&[("thread", &format!("shard-{shard}"))], silent);
        }
        family.show(&[("thread", "disk")], self.disk_pulse.silent_ms(now) as f64 / 1e3);
        let mut family = page.gauges("ringlog_shard_answered", "1 where the shard has answered in time for this page");
        for (n, (shard, _)) in (0..).zip(&shards) {
            family.show(&[("shard", shard)], f64::from(u8::from(asked.counts.contains_key(&n))));
        }
        page.counters("ringlog_log_lines_lost", "Log lines that standard error did not take")
            .count(&[], logging::lost());
        page.gauges("ringlog_ready", "1 while the broker serves clients")
            .show(&[], f64::from(u8::from(self.is_ready())));
        page.gauges("ringlog_build_info", "1; the version is in its label")
            .show(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    }

    /// Whether clients are served.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && !self.stop.load(Ordering::Relaxed) && self.silent_shards().is_empty()
    }
}

const _: () = assert!(Stage::Forward as usize == 0 && Stage::Show as usize + 1 == STAGES.len());
