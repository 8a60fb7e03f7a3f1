//! The tables of configs that can be changed while brokers run, as of Kafka 4: of topics, brokers and groups.

use super::configs::{Choice, ConfigKey, Values};
use crate::limits::MAX_BATCH_BYTES;

const COMPRESSION: &str =
    "batches are stored compressed as their producer sent them; set the producer's compression.type instead";
const UNCLEAN: &str =
    "a replica that lacks acknowledged records is never elected, so there is no unclean election to enable";
const REMOTE: &str = "there is no remote storage";

const fn taken(word: &'static str) -> Choice {
    Choice { word, refused: None }
}

const fn refused(word: &'static str, why: &'static str) -> Choice {
    Choice { word, refused: Some(why) }
}

/// Every topic config, ordered by name.
pub(super) static TOPIC_CONFIGS: &[ConfigKey] = &[
    ConfigKey {
        name: "cleanup.policy",
        values: Values::List(&[taken("delete"), taken("compact")]),
        default: "delete",
        synonym: Some("log.cleanup.policy"),
        doc: "What becomes of old records: `delete` removes them by time and size, `compact` keeps the last one of each key, both do both.",
    },
    ConfigKey {
        name: "compression.gzip.level",
        values: Values::Int(-1, 9),
        default: "-1",
        synonym: Some("compression.gzip.level"),
        doc: "Level of gzip where the broker compresses. No effect: the broker compresses nothing.",
    },
    ConfigKey {
        name: "compression.lz4.level",
        values: Values::Int(1, 17),
        default: "9",
        synonym: Some("compression.lz4.level"),
        doc: "Level of lz4 where the broker compresses. No effect: the broker compresses nothing.",
    },
    ConfigKey {
        name: "compression.type",
        values: Values::Word(&[
            taken("producer"),
            refused("uncompressed", COMPRESSION),
            refused("zstd", COMPRESSION),
            refused("lz4", COMPRESSION),
            refused("snappy", COMPRESSION),
            refused("gzip", COMPRESSION),
        ]),
        default: "producer",
        synonym: Some("compression.type"),
        doc: "How stored batches are compressed. Only `producer` is taken: as the producer compressed them.",
    },
    ConfigKey {
        name: "compression.zstd.level",
        values: Values::Int(-131_072, 22),
        default: "3",
        synonym: Some("compression.zstd.level"),
        doc: "Level of zstd where the broker compresses. No effect: the broker compresses nothing.",
    },
    ConfigKey {
        name: "delete.retention.ms",
        values: Values::Long(0),
        default: "86400000",
        synonym: Some("log.cleaner.delete.retention.ms"),
        doc: "How long a compacted topic keeps the record that ends a key, from the compaction on that has removed those before it.",
    },
    ConfigKey {
        name: "file.delete.delay.ms",
        values: Values::Long(0),
        default: "60000",
        synonym: Some("log.segment.delete.delay.ms"),
        doc: "How long the file of a deleted segment is kept. No effect: files are deleted once nothing reads them.",
    },
    ConfigKey {
        name: "flush.messages",
        values: Values::Long(1),
        default: "9223372036854775807",
        synonym: Some("log.flush.interval.messages"),
        doc: "Flush after so many records. No effect: every record is on disk before it is acknowledged.",
    },
    ConfigKey {
        name: "flush.ms",
        values: Values::Long(0),
        default: "9223372036854775807",
        synonym: Some("log.flush.interval.ms"),
        doc: "Flush after so many milliseconds. No effect: every record is on disk before it is acknowledged.",
    },
    ConfigKey {
        name: "index.interval.bytes",
        values: Values::Int(0, i32::MAX),
        default: "4096",
        synonym: Some("log.index.interval.bytes"),
        doc: "Bytes between two entries of the offset index. No effect: the broker's index has a spacing of its own.",
    },
    ConfigKey {
        name: "local.retention.bytes",
        values: Values::Long(-2),
        default: "-2",
        synonym: Some("log.local.retention.bytes"),
        doc: "Bytes kept locally of a topic in remote storage. No effect: there is no remote storage.",
    },
    ConfigKey {
        name: "local.retention.ms",
        values: Values::Long(-2),
        default: "-2",
        synonym: Some("log.local.retention.ms"),
        doc: "How long a topic in remote storage is kept locally. No effect: there is no remote storage.",
    },
    ConfigKey {
        name: "max.compaction.lag.ms",
        values: Values::Long(1),
        default: "9223372036854775807",
        synonym: Some("log.cleaner.max.compaction.lag.ms"),
        doc: "Longest time until a record may be compacted: its segment is closed, and compacted however little is dirty.",
    },
    ConfigKey {
        name: "max.message.bytes",
        values: Values::Int(0, MAX_BATCH_BYTES as i32),
        default: "1048588",
        synonym: Some("message.max.bytes"),
        doc: "Largest record batch, in bytes, as it is sent (that is, compressed).",
    },
    ConfigKey {
        name: "message.timestamp.after.max.ms",
        values: Values::Long(0),
        default: "3600000",
        synonym: Some("log.message.timestamp.after.max.ms"),
        doc: "How far a record's timestamp may lie ahead of the broker's clock. Ignored with LogAppendTime.",
    },
    ConfigKey {
        name: "message.timestamp.before.max.ms",
        values: Values::Long(0),
        default: "9223372036854775807",
        synonym: Some("log.message.timestamp.before.max.ms"),
        doc: "How far a record's timestamp may lie behind the broker's clock. Ignored with LogAppendTime.",
    },
    ConfigKey {
        name: "message.timestamp.type",
        values: Values::Word(&[taken("CreateTime"), taken("LogAppendTime")]),
        default: "CreateTime",
        synonym: Some("log.message.timestamp.type"),
        doc: "Whether a record's timestamp is its producer's or that of its append.",
    },
    ConfigKey {
        name: "min.cleanable.dirty.ratio",
        values: Values::Ratio,
        default: "0.5",
        synonym: Some("log.cleaner.min.cleanable.ratio"),
        doc: "Share of a log, by bytes, that was never compacted and makes compaction worth while.",
    },
    ConfigKey {
        name: "min.compaction.lag.ms",
        values: Values::Long(0),
        default: "0",
        synonym: Some("log.cleaner.min.compaction.lag.ms"),
        doc: "Shortest time until a record is compacted.",
    },
    ConfigKey {
        name: "min.insync.replicas",
        values: Values::Int(1, i32::MAX),
        default: "1",
        synonym: Some("min.insync.replicas"),
        doc: "Replicas that must have a record before it is acknowledged to acks=all. A majority of them always must, whatever is set; while fewer than this are in sync, acks=all is refused.",
    },
    ConfigKey {
        name: "preallocate",
        values: Values::Bool,
        default: "false",
        synonym: Some("log.preallocate"),
        doc: "Whether segments are allocated ahead of use. No effect: what is written before an acknowledgement always is.",
    },
    ConfigKey {
        name: "remote.log.copy.disable",
        values: Values::OnlyFalse(REMOTE),
        default: "false",
        synonym: None,
        doc: "Whether to copy nothing more to remote storage. Only `false` is taken: there is no remote storage.",
    },
    ConfigKey {
        name: "remote.log.delete.on.disable",
        values: Values::OnlyFalse(REMOTE),
        default: "false",
        synonym: None,
        doc: "Whether to delete from remote storage when it is disabled. Only `false` is taken: there is no remote storage.",
    },
    ConfigKey {
        name: "remote.storage.enable",
        values: Values::OnlyFalse(REMOTE),
        default: "false",
        synonym: None,
        doc: "Whether to keep records in remote storage. Only `false` is taken: there is no remote storage.",
    },
    ConfigKey {
        name: "retention.bytes",
        values: Values::Long(i64::MIN),
        default: "-1",
        synonym: Some("log.retention.bytes"),
        doc: "Bytes that a partition may have before its oldest segments are deleted; -1 for no bound.",
    },
    ConfigKey {
        name: "retention.ms",
        values: Values::Long(-1),
        default: "604800000",
        synonym: Some("log.retention.ms"),
        doc: "Age, by the newest record's timestamp, at which segments are deleted; -1 for never.",
    },
    ConfigKey {
        name: "segment.bytes",
        values: Values::Int(1024 * 1024, i32::MAX),
        default: "1073741824",
        synonym: Some("log.segment.bytes"),
        doc: "Largest segment, in bytes; one batch alone may be larger.",
    },
    ConfigKey {
        name: "segment.index.bytes",
        values: Values::Int(4, i32::MAX),
        default: "10485760",
        synonym: Some("log.index.size.max.bytes"),
        doc: "Largest index of a segment, in bytes. No effect: an index grows with its segment.",
    },
    ConfigKey {
        name: "segment.jitter.ms",
        values: Values::Long(0),
        default: "0",
        synonym: Some("log.roll.jitter.ms"),
        doc: "Most that segment.ms is shortened at random. No effect: all partitions share one log on the disk, so that there is nothing to spread.",
    },
    ConfigKey {
        name: "segment.ms",
        values: Values::Long(1),
        default: "604800000",
        synonym: Some("log.roll.ms"),
        doc: "Age, from its first record to the one that does not go into it any more, at which a segment is closed.",
    },
    ConfigKey {
        name: "unclean.leader.election.enable",
        values: Values::OnlyFalse(UNCLEAN),
        default: "false",
        synonym: Some("unclean.leader.election.enable"),
        doc: "Whether a replica that lacks acknowledged records may lead. Only `false` is taken: none ever does.",
    },
];

/// The configs of brokers beside those that they give to topics.
pub(super) static BROKER_CONFIGS: &[ConfigKey] = &[
    ConfigKey {
        name: "max.connections",
        values: Values::Int(1, i32::MAX),
        default: "2147483647",
        synonym: None,
        doc: "Most connections of clients; further ones are closed at once.",
    },
    ConfigKey {
        name: "max.connections.per.ip",
        values: Values::Int(1, i32::MAX),
        default: "2147483647",
        synonym: None,
        doc: "Most connections from one address.",
    },
];

/// The configs of groups. What holds for a group that sets none is the broker's synonym.
pub(super) static GROUP_CONFIGS: &[ConfigKey] = &[
    ConfigKey {
        name: "consumer.heartbeat.interval.ms",
        values: Values::Int(1, i32::MAX),
        default: "5000",
        synonym: Some("group.consumer.heartbeat.interval.ms"),
        doc: "Time between two heartbeats of a member of the group, where it is one of the consumer protocol.",
    },
    ConfigKey {
        name: "consumer.session.timeout.ms",
        values: Values::Int(1, i32::MAX),
        default: "45000",
        synonym: Some("group.consumer.session.timeout.ms"),
        doc: "Time after which a silent member of the group is given up, where it is one of the consumer protocol.",
    },
];
