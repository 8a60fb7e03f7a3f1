//! What a shard shows of itself to whoever watches the broker from outside: plain values, made for one look and kept by
//! nobody. Their names are those of the JSON under `/v1`.

use serde::Serialize;

use super::creation::Trace;
use crate::partition::Records;
use crate::types::Offset;

/// What is asked of a shard. Each is answered at once, from memory, and says no more than what the shard's own part is.
#[derive(Clone, Debug)]
pub enum Look {
    /// Numbers of partitions and groups.
    Counts,
    /// The cluster as this broker sees it.
    Cluster,
    /// Topics whose names come after one, with what this shard holds of them.
    Topics {
        /// The name.
        after: String,
        /// Most topics.
        limit: usize,
    },
    /// This shard's partitions of a topic.
    Topic(String),
    /// This shard's groups whose ids come after one.
    Groups {
        /// The id.
        after: String,
        /// Most groups.
        limit: usize,
    },
    /// One group, where it is this shard's.
    Group(String),
    /// First and end offset of those of these partitions that this shard has a replica of.
    Offsets(Vec<(String, i32)>),
    /// Committed records of a partition.
    Records {
        /// The topic.
        topic: String,
        /// The partition's number.
        partition: i32,
        /// The first offset; below zero so many records before the end.
        offset: Offset,
        /// Most bytes, but at least one batch.
        max_bytes: usize,
    },
    /// The last creations of topics.
    Creations,
}

/// What a shard answers.
#[derive(Debug)]
pub enum Seen {
    /// To [`Look::Counts`].
    Counts(Counts),
    /// To [`Look::Cluster`].
    Cluster(Box<ClusterView>),
    /// To [`Look::Topics`], in the order of their names.
    Topics(Vec<TopicSummary>),
    /// To [`Look::Topic`]; `None` where there is no such topic.
    Topic(Option<Box<TopicView>>),
    /// To [`Look::Groups`] and [`Look::Group`].
    Groups(GroupPage),
    /// To [`Look::Offsets`].
    Offsets(Vec<Ends>),
    /// To [`Look::Records`].
    Records(RecordsSeen),
    /// To [`Look::Creations`].
    Creations(CreationsSeen),
}

/// Numbers of partitions and groups on a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Replicas of partitions.
    pub partitions: u64,
    /// Those of them that lead.
    pub leaders: u64,
    /// Those that lead and have a replica on a broker that is gone.
    pub under_replicated: u64,
    /// Those whose leader is not known, or gone.
    pub leaderless: u64,
    /// Raft groups that need ticks.
    pub awake: u64,
    /// Consumer groups.
    pub groups: u64,
}

/// The cluster as one broker sees it.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterView {
    /// The cluster's id.
    pub cluster_id: String,
    /// The broker that answers.
    pub broker: i32,
    /// The broker whose coordinator works: what Kafka calls the active controller.
    pub controller: Option<i32>,
    /// The index of the last metadata command that is applied.
    pub metadata_applied: u64,
    /// Number of topics.
    pub topics: usize,
    /// Number of their partitions.
    pub partitions: usize,
    /// All brokers that have registered.
    pub brokers: Vec<BrokerView>,
}

/// A broker.
#[derive(Clone, Debug, Serialize)]
pub struct BrokerView {
    /// Its `node.id`.
    pub id: i32,
    /// Host that clients are told to connect to.
    pub host: String,
    /// Port that clients are told to connect to.
    pub port: u16,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `well`; `recovering`, where its disk hung not long ago and it leads nothing; `disk slow`; `disk hangs`; or `gone`.
    pub state: &'static str,
}

/// A topic in a list. Of the numbers, each shard gives its own part.
#[derive(Clone, Debug, Serialize)]
pub struct TopicSummary {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Number of its partitions.
    pub partitions: usize,
    /// Replicas that its first partition has.
    pub replication_factor: usize,
    /// Whether it is the broker's own.
    pub internal: bool,
    /// Records between the first and the end offsets of the partitions that this broker has a replica of.
    pub records: i64,
    /// Bytes of their records: in segments, and of memory for those that no segment holds yet.
    pub bytes: u64,
    /// Partitions with a replica on a broker that is gone.
    pub under_replicated: usize,
    /// Partitions without a leader.
    pub leaderless: usize,
}

/// A topic. Each shard gives its own partitions.
#[derive(Clone, Debug, Serialize)]
pub struct TopicView {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Whether it is the broker's own.
    pub internal: bool,
    /// Configs that were set for it.
    pub configs: std::collections::BTreeMap<String, String>,
    /// Its partitions.
    pub partitions: Vec<PartitionView>,
}

/// A partition.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionView {
    /// Its number.
    pub partition: i32,
    /// The number of its log, which names its folder on the disk.
    pub log: u64,
    /// The broker that leads it, where one is known and there.
    pub leader: Option<i32>,
    /// The leader's epoch, or -1.
    pub leader_epoch: i32,
    /// The brokers that have a replica, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those of them that count as in sync, as Metadata answers it.
    pub isr: Vec<i32>,
    /// The replica of the broker that answers, where it has one.
    pub replica: Option<ReplicaView>,
}

/// A replica.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaView {
    /// Whether it leads.
    pub leads: bool,
    /// The first offset that may be read.
    pub log_start: Offset,
    /// The offset after the last committed record that is known here.
    pub high_watermark: Offset,
    /// The offset after the last record, committed or not.
    pub log_end: Offset,
    /// Number of its segments.
    pub segments: usize,
    /// Bytes of records in segments.
    pub segment_bytes: u64,
    /// Memory of records that no segment holds yet, in bytes; the WAL holds them.
    pub unflushed_bytes: u64,
    /// Whether an error of the disk has fenced it.
    pub fenced: bool,
}

/// First and end offset of a partition, as a replica knows them.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The first offset that may be read.
    pub log_start: Offset,
    /// The offset after the last committed record.
    pub high_watermark: Offset,
}

/// Consumer groups, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct GroupPage {
    /// The groups.
    pub groups: Vec<GroupView>,
    /// Whether there are more behind the last.
    pub more: bool,
}

impl GroupPage {
    /// One page of several, of at most `most` groups. It ends where the first of them does that has more.
    pub fn join(parts: impl IntoIterator<Item = GroupPage>, most: usize) -> GroupPage {
        let (mut all, mut end) = (GroupPage::default(), None::<String>);
        for part in parts {
            if let Some(last) = part.groups.last().filter(|_| part.more) {
                end = Some(end.map_or(last.group.clone(), |end| end.min(last.group.clone())));
            }
            all.groups.extend(part.groups);
        }
        let found = all.groups.len();
        all.groups.retain(|group| end.as_ref().is_none_or(|end| group.group <= *end));
        all.groups.sort_unstable_by(|a, b| a.group.cmp(&b.group));
        all.groups.truncate(most);
        all.more = end.is_some() || all.groups.len() < found;
        all
    }
}

/// A consumer group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupView {
    /// Its id.
    pub group: String,
    /// Its state, by Kafka's names.
    pub state: &'static str,
    /// Its type: `consumer` for consumers.
    pub protocol_type: String,
    /// The assignor of a stable generation.
    pub protocol: String,
    /// Its members.
    pub members: Vec<MemberView>,
    /// How far it has read.
    pub offsets: Vec<CommittedView>,
}

/// A member of a group.
#[derive(Clone, Debug, Serialize)]
pub struct MemberView {
    /// Its id.
    pub member_id: String,
    /// The name of a static member.
    pub instance: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
}

/// A committed offset. Its lag is for whoever knows the partition's end.
#[derive(Clone, Debug, Serialize)]
pub struct CommittedView {
    /// The topic.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// The next record to read.
    pub offset: Offset,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub committed_ms: i64,
    /// The partition's high watermark, where this broker has a replica.
    pub high_watermark: Option<Offset>,
    /// Records that are committed and not read yet, where the high watermark is known.
    pub lag: Option<i64>,
}

/// Records of a partition, or why there are none.
#[derive(Debug)]
pub enum RecordsSeen {
    /// Batches from the one on that holds the offset.
    Here {
        /// The first offset that was asked for, or that the end led to.
        offset: Offset,
        /// The first offset that may be read.
        log_start: Offset,
        /// The offset after the last committed record.
        high_watermark: Offset,
        /// The batches.
        records: Records,
    },
    /// The disk is being read: look again.
    Later,
    /// The partition is not this shard's.
    Elsewhere,
    /// There is no such topic or partition.
    Unknown,
    /// This broker has no replica of it; these have.
    NoReplica(Vec<i32>),
    /// The offset lies outside of the log, which has these ends.
    OutOfRange {
        /// The first offset that may be read.
        log_start: Offset,
        /// The offset after the last committed record.
        high_watermark: Offset,
    },
    /// What the disk holds there is damaged, or cannot be read.
    Unreadable,
}

/// The last creations of topics, the oldest first.
#[derive(Debug, Default)]
pub struct CreationsSeen {
    /// Those that clients asked this shard for.
    pub asked: Vec<Trace>,
    /// Those that this broker's coordinator has made.
    pub coordinated: Vec<Trace>,
    /// Those that it has not answered.
    pub under_way: Vec<Trace>,
}
