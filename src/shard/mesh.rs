//! What the shards of one broker say to each other.

use std::sync::Arc;

use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeQuorumRequest,
    DescribeQuorumResponse, InitProducerIdRequest, InitProducerIdResponse,
};

use super::creation::Stages;
use super::quotas::{Metered, Used};
use crate::group;
use crate::log::Space;
use crate::metadata::command::{NewBroker, Placed};
use crate::metadata::{Command, State};
use crate::partition::{Acks, ActiveProducer, Records};
use crate::peer::{DiskState, Lagging, PeerMessage};
use crate::protocol::request::RequestBody;
use crate::protocol::{ErrorCode, ResponseBody};
use crate::record::Batch;
use crate::types::{BrokerId, Deadline, LeaderEpoch, LogId, Mono, Offset, PeerAddress, ShardId};

/// A message from one shard to another.
#[derive(Debug)]
pub enum ShardMessage {
    /// Work for the shard that owns a log, and the quota that the time for it is charged to.
    Op(Op, Option<Metered>),
    /// The answer to an [`Op`].
    Answer {
        /// The request it belongs to.
        request: RequestId,
        /// Which of the request's ops.
        part: u32,
        /// The answer.
        answer: Answer,
    },
    /// The ops of a request that still wait on this log are needed no longer.
    Cancel {
        /// The request.
        request: RequestId,
        /// The log.
        log: LogId,
    },
    /// Work for the coordinator, which is shard 0's.
    Ask {
        /// The request it belongs to.
        request: RequestId,
        /// When the request must have been answered.
        deadline: Deadline,
        /// The work.
        question: Question,
    },
    /// The coordinator's answer.
    Told {
        /// The request it belongs to.
        request: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// The metadata that a starting broker goes on from. Comes once, before any [`ShardMessage::Committed`].
    Metadata(Box<State>),
    /// A command that a majority holds durably: apply it. Comes in index order.
    Committed {
        /// Its index in the metadata's log.
        index: u64,
        /// The command.
        command: Arc<Command>,
    },
    /// The commands that came before hold all that was committed before this start of the broker.
    Current,
    /// This shard has applied the command at `index`, and knows a leader for each partition that it made.
    Applied {
        /// The command's index.
        index: u64,
    },
    /// Leaders that came up on the sender, or that another broker told it of.
    Leaders(Vec<Leader>),
    /// Replicas that are not in sync, as the leaders of their logs see it.
    Lagging(Vec<Lagging>),
    /// A message of another broker that came to the sender and is for this shard.
    Peer {
        /// The broker.
        from: BrokerId,
        /// The message.
        message: Box<PeerMessage>,
    },
    /// The sender has seen that the disk is slow, or takes no writes.
    DiskIs(DiskState),
    /// What clients have used of their quotas on the sender.
    Used(Vec<Used>),
}

/// Who leads a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The log.
    pub log: LogId,
    /// Its leader.
    pub broker: BrokerId,
    /// The leader's epoch.
    pub epoch: LeaderEpoch,
}

/// A request under way, unique on the shard of its connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId {
    /// The shard of the connection.
    pub shard: ShardId,
    /// The shard's number for it.
    pub number: u64,
}

/// One partition's part of a request.
#[derive(Debug)]
pub struct Op {
    /// The request.
    pub request: RequestId,
    /// Which of its ops.
    pub part: u32,
    /// The partition's log.
    pub log: LogId,
    /// What to do.
    pub kind: OpKind,
}

/// What to do to a partition.
#[derive(Debug)]
pub enum OpKind {
    /// Append a checked batch.
    Append {
        /// The batch.
        batch: Batch,
        /// When it is answered.
        acks: Acks,
        /// When the request must have been answered: after that the batch is not appended any more.
        deadline: Deadline,
        /// When the request's frame was there.
        since: Mono,
    },
    /// Read committed records.
    Read {
        /// First offset wanted.
        offset: Offset,
        /// Most bytes, but at least one batch.
        max_bytes: usize,
        /// The leader epoch that the client believes in, or -1.
        epoch: LeaderEpoch,
        /// Wait until there are more bytes than this; `None` answers at once with what there is.
        more_than: Option<usize>,
        /// Whether a replica that follows may answer too.
        from_follower: bool,
    },
    /// Look an offset up.
    ListOffset {
        /// A time in milliseconds since the Unix epoch, or one of Kafka's special values.
        timestamp: i64,
        /// The leader epoch that the client believes in, or -1.
        epoch: LeaderEpoch,
    },
    /// Send records to a follower that lacks the entries before them; nobody waits for an answer.
    Copy {
        /// The follower.
        to: BrokerId,
        /// First record wanted.
        offset: Offset,
        /// The offset after the last.
        end: Offset,
    },
    /// Delete the records before an offset; answered once that is durable.
    DeleteRecords {
        /// The offset, or -1 for the high watermark.
        before: Offset,
        /// When the request must have been answered: after that nothing is deleted any more.
        deadline: Deadline,
    },
    /// Look up where an epoch ends.
    EpochEnd {
        /// The epoch asked about.
        wanted: LeaderEpoch,
        /// The leader epoch that the client believes in, or -1.
        epoch: LeaderEpoch,
    },
    /// Tell the sizes of logs of one shard; that of the op is any of them.
    Sizes(Vec<LogId>),
    /// Tell of the idempotent producers.
    Producers,
    /// Ask a group whose records the log keeps.
    Group {
        /// What.
        ask: Box<group::Ask>,
        /// When the request must have been answered: after that it is not begun any more.
        deadline: Deadline,
    },
}

/// The answer to an op.
#[derive(Debug)]
pub enum Answer {
    /// To [`OpKind::Append`].
    Append(Result<AppendAnswer, ErrorCode>),
    /// To [`OpKind::Read`].
    Read(ReadAnswer),
    /// To [`OpKind::ListOffset`].
    ListOffset(Result<OffsetAnswer, ErrorCode>),
    /// To [`OpKind::DeleteRecords`]: the first offset that may be read.
    DeleteRecords(Result<Offset, ErrorCode>),
    /// To [`OpKind::EpochEnd`]: the epoch and its end, -1 for both where it is not known.
    EpochEnd(Result<(LeaderEpoch, Offset), ErrorCode>),
    /// To [`OpKind::Sizes`], in bytes: none for a log that is not open.
    Sizes(Vec<Option<u64>>),
    /// What a shard asked the disk for beside its ops: none where the disk does not tell.
    Space(Option<Space>),
    /// To [`OpKind::Producers`].
    Producers(Result<Vec<ActiveProducer>, ErrorCode>),
    /// To [`OpKind::Group`].
    Group(Result<group::Reply, group::Error>),
}

/// A durable append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendAnswer {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// The broker's time that the batch was stamped with, or -1.
    pub log_append_time: i64,
    /// The first offset that may be read.
    pub log_start: Offset,
}

/// What a read found.
#[derive(Debug)]
pub struct ReadAnswer {
    /// Why there are no records, where that is not just the end of the log.
    pub error: Option<ErrorCode>,
    /// The offset after the last committed record, -1 where it is not known.
    pub high_watermark: Offset,
    /// The first offset that may be read, -1 where it is not known.
    pub log_start: Offset,
    /// The records.
    pub records: Records,
}

impl ReadAnswer {
    /// Nothing but an error.
    pub fn failed(error: ErrorCode) -> ReadAnswer {
        ReadAnswer { error: Some(error), high_watermark: -1, log_start: -1, records: Records::default() }
    }
}

/// An offset that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAnswer {
    /// The offset, or -1 where there is none.
    pub offset: Offset,
    /// Its record's timestamp, or -1.
    pub timestamp: i64,
    /// The epoch of the record, or of the leader for the log's end.
    pub epoch: LeaderEpoch,
}

/// What the coordinator is asked.
#[derive(Clone, Debug)]
pub enum Question {
    /// Create topics.
    CreateTopics {
        /// The request.
        request: Box<CreateTopicsRequest>,
        /// Its version.
        version: i16,
        /// Drawn once for the request: tries of it again create topics with the same ids.
        token: u64,
    },
    /// Delete topics.
    DeleteTopics {
        /// The request.
        request: Box<DeleteTopicsRequest>,
        /// Its version.
        version: i16,
    },
    /// Hand out a producer id.
    InitProducerId {
        /// The request.
        request: Box<InitProducerIdRequest>,
    },
    /// Change what is there already.
    Change {
        /// The request: one of those that [`super::changes`] knows.
        request: Box<RequestBody>,
        /// Whether an earlier try of it may have been carried out.
        again: bool,
    },
    /// Note that a partition's replicas have moved; nobody waits for an answer.
    ReplicasMoved {
        /// The partition, and the brokers that have its replicas now.
        placed: Placed,
        /// The number of the move.
        number: u32,
    },
    /// Describe the metadata's Raft group.
    DescribeQuorum(Box<DescribeQuorumRequest>),
    /// Register a broker that has started, and where it listens for others; the metadata itself is the answer.
    Register(Box<NewBroker>, Option<PeerAddress>),
}

/// What the coordinator answers.
#[derive(Debug)]
pub enum Reply {
    /// To [`Question::CreateTopics`], with the time that the coordinator's stages took.
    CreateTopics(Box<CreateTopicsResponse>, Stages),
    /// To [`Question::DeleteTopics`].
    DeleteTopics(Box<DeleteTopicsResponse>),
    /// To [`Question::InitProducerId`].
    InitProducerId(Box<InitProducerIdResponse>),
    /// To [`Question::Change`].
    Change(Box<ResponseBody>),
    /// To [`Question::DescribeQuorum`].
    DescribeQuorum(Box<DescribeQuorumResponse>),
}
