//! What groups are asked, what they answer, and what they want done.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::consumer::{Assigned, ConsumerHeartbeat};
use super::records::{Committed, Record};
use super::state::State;
use crate::types::ShardId;

/// Who waits for an answer: a part of a request under way on a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    /// The shard of the request.
    pub shard: ShardId,
    /// The shard's number for it.
    pub number: u64,
    /// The part.
    pub part: u32,
}

/// A request to a group.
#[derive(Debug)]
pub enum Ask {
    /// Become a member, or take part in a rebalance.
    Join(Join),
    /// Bring (the leader) or get (everyone) the assignment of a generation.
    Sync(Sync),
    /// Stay a member.
    Heartbeat(Identity),
    /// Become a member of a group of the consumer protocol, stay one, or leave.
    ConsumerHeartbeat(Box<ConsumerHeartbeat>),
    /// Members leave.
    Leave {
        /// The group.
        group: String,
        /// The members.
        members: Vec<Leaver>,
    },
    /// Keep offsets.
    Commit(Commit),
    /// Tell the offsets that were kept.
    Fetch {
        /// The group.
        group: String,
        /// The member that asks, with its epoch, where it says so.
        member: Option<(String, i32)>,
        /// Partitions by topic, in the order of the answer; everything that there is where this is none.
        topics: Option<Vec<(String, Vec<i32>)>>,
    },
    /// Forget offsets.
    DeleteOffsets {
        /// The group.
        group: String,
        /// Partitions by topic.
        topics: Vec<(String, Vec<i32>)>,
    },
    /// Forget a group that has no members.
    Delete {
        /// The group.
        group: String,
    },
    /// Tell all about a classic group.
    Describe {
        /// The group.
        group: String,
    },
    /// Tell all about a group of the consumer protocol.
    DescribeConsumers {
        /// The group.
        group: String,
    },
    /// Name the groups.
    List {
        /// The states that are asked for; all where there are none.
        states: Vec<String>,
        /// The types of groups that are asked for; all where there are none.
        types: Vec<String>,
    },
}

/// Who a member says it is.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The group.
    pub group: String,
    /// The generation, or -1.
    pub generation: i32,
    /// The member, or empty.
    pub member_id: String,
    /// The static member's own name.
    pub instance: Option<String>,
}

/// A JoinGroup request.
#[derive(Debug)]
pub struct Join {
    /// The group.
    pub group: String,
    /// The member, or empty for one that is new.
    pub member_id: String,
    /// The id that a new member gets: never used before.
    pub fresh_id: String,
    /// Whether a new member is given its id first, and must come again with it (KIP-394).
    pub id_required: bool,
    /// Whether the client knows the field that tells a leader to leave the assignment as it is (KIP-814).
    pub can_skip_assignment: bool,
    /// The static member's own name.
    pub instance: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// After such a silence it is no member any more, in milliseconds.
    pub session_ms: u64,
    /// So long it may take to come to a rebalance, in milliseconds.
    pub rebalance_ms: u64,
    /// What kind of group it is: `consumer` for consumers.
    pub protocol_type: String,
    /// The ways to assign that it knows, the best first, with what it has to say for each.
    pub protocols: Vec<(String, Bytes)>,
    /// Why it joins, for the log.
    pub reason: Option<String>,
}

/// A SyncGroup request.
#[derive(Debug)]
pub struct Sync {
    /// Who asks.
    pub identity: Identity,
    /// The type of the group, where the client says which it believes in.
    pub protocol_type: Option<String>,
    /// The protocol that was selected, likewise.
    pub protocol: Option<String>,
    /// From the leader: what each member is assigned.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member that leaves, or is made to.
#[derive(Clone, Debug)]
pub struct Leaver {
    /// The member; empty where only the instance is known.
    pub member_id: String,
    /// The static member's own name.
    pub instance: Option<String>,
}

/// An OffsetCommit request.
#[derive(Debug)]
pub struct Commit {
    /// Who asks.
    pub identity: Identity,
    /// Whether the client knows the consumer protocol, and with it the error that a group is not there.
    pub is_modern: bool,
    /// Topic, partition and what to keep.
    pub offsets: Vec<(Arc<str>, i32, Committed)>,
}

/// A topic with the offset of each partition that was asked for.
pub type CommittedTopic = (String, Vec<(i32, Option<Committed>)>);

/// An answer of a group.
#[derive(Debug)]
pub enum Reply {
    /// It is so: to [`Ask::Heartbeat`], [`Ask::Commit`] and [`Ask::Delete`].
    Done,
    /// To [`Ask::Join`]: come again, as this member.
    IdRequired(String),
    /// To [`Ask::Join`].
    Joined(Box<Joined>),
    /// To [`Ask::Sync`].
    Synced(Synced),
    /// To [`Ask::ConsumerHeartbeat`].
    Assigned(Box<Assigned>),
    /// To [`Ask::Leave`], one for each member.
    Left(Vec<Result<(), Error>>),
    /// To [`Ask::Fetch`].
    Fetched(Vec<CommittedTopic>),
    /// To [`Ask::DeleteOffsets`], one for each topic.
    OffsetsDeleted(Vec<Result<(), Error>>),
    /// To [`Ask::Describe`]; nothing where there is no such group.
    Described(Option<Box<Described>>),
    /// To [`Ask::DescribeConsumers`]; nothing where there is no such group.
    ConsumersDescribed(Option<Box<ConsumerDescribed>>),
    /// To [`Ask::List`].
    Listed(Vec<Listed>),
}

/// A generation, as a member is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its number.
    pub generation: i32,
    /// The type of the group.
    pub protocol_type: Option<String>,
    /// The protocol that all members know.
    pub protocol: Option<String>,
    /// The member that assigns.
    pub leader: String,
    /// The member that is answered.
    pub member_id: String,
    /// Whether the leader is to leave the assignment as it is.
    pub skip_assignment: bool,
    /// All members, for the leader alone.
    pub members: Vec<JoinedMember>,
}

/// A member, as the leader is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// The member.
    pub member_id: String,
    /// The static member's own name.
    pub instance: Option<String>,
    /// What it said for the protocol that was selected.
    pub metadata: Bytes,
}

/// What a member is assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The type of the group.
    pub protocol_type: Option<String>,
    /// The protocol of the generation.
    pub protocol: Option<String>,
    /// The assignment.
    pub assignment: Bytes,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub group: String,
    /// Its type; empty where nobody has said.
    pub protocol_type: String,
    /// The name of its state.
    pub state: &'static str,
    /// Whether it is one of the consumer protocol: `classic` or `consumer`.
    pub group_type: &'static str,
}

/// All about a group of the consumer protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerDescribed {
    /// The name of its state.
    pub state: &'static str,
    /// Its epoch.
    pub epoch: i32,
    /// The epoch of the target assignment.
    pub target_epoch: i32,
    /// The assignor that is used.
    pub assignor: &'static str,
    /// Its members.
    pub members: Vec<ConsumerMember>,
}

/// Partitions of a topic: its id, its name and their numbers.
pub type NamedPartitions = Vec<(Uuid, String, Vec<i32>)>;

/// All about a member of a group of the consumer protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerMember {
    /// The member.
    pub member_id: String,
    /// The static member's own name.
    pub instance: Option<String>,
    /// Where its client stands.
    pub rack: Option<String>,
    /// Its epoch.
    pub epoch: i32,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// The topics that it reads by their names.
    pub topics: Vec<String>,
    /// The regular expression for the topics that it reads.
    pub regex: Option<String>,
    /// What it has.
    pub assignment: NamedPartitions,
    /// What it is to have.
    pub target: NamedPartitions,
    /// Whether it speaks the classic protocol.
    pub is_classic: bool,
}

/// All about a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its state.
    pub state: State,
    /// Its type; empty where nobody has said.
    pub protocol_type: String,
    /// The protocol of a stable generation.
    pub protocol: String,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// All about a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// The member.
    pub member_id: String,
    /// The static member's own name.
    pub instance: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// What it said for the protocol, in a stable generation.
    pub metadata: Bytes,
    /// What it is assigned, in a stable generation.
    pub assignment: Bytes,
}

/// Why a group does not do what it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// It has no such member.
    UnknownMember,
    /// It is at another generation.
    IllegalGeneration,
    /// Members must join again first.
    RebalanceInProgress,
    /// There is no protocol that all members know, or the group is of another type.
    InconsistentProtocol,
    /// No further member is taken.
    MaxSizeReached,
    /// Another member has this instance's name.
    FencedInstance,
    /// There is no such group.
    GroupIdNotFound,
    /// It has members, or someone just uses it.
    NonEmptyGroup,
    /// It reads this topic.
    SubscribedToTopic,
    /// There is no room for the offsets.
    InvalidCommitSize,
    /// The groups are not here.
    NotCoordinator,
    /// The groups cannot be used just now.
    NotAvailable,
    /// The groups are still being read back.
    Loading,
    /// The record of the group is larger than any may be.
    TooLarge,
    /// The request contradicts itself.
    InvalidRequest,
    /// The member must give up all that it has, and join again.
    FencedMemberEpoch,
    /// The member is at another epoch.
    StaleMemberEpoch,
    /// Another member has this instance's name, and has not left.
    UnreleasedInstance,
    /// There is no such assignor, or it may not be used.
    UnsupportedAssignor,
    /// This is no regular expression.
    InvalidRegex,
    /// The request's version is too old for a member of the consumer protocol.
    UnsupportedVersion,
}

/// Something that groups want done.
#[derive(Debug)]
pub enum Output {
    /// Give an answer.
    Answer(Waiter, Result<Reply, Error>),
    /// Give an answer once all that was to be written up to now is durable.
    AnswerDurable(Waiter, Result<Reply, Error>),
    /// Append records to the groups' topic.
    Write(Write),
    /// Append records, all in one batch, and call [`super::Groups::appended`] before anything else is asked.
    Change(Write),
}

/// Records to be made durable, in their order; then [`super::Groups::written`], or [`super::Groups::failed`].
#[derive(Debug)]
pub struct Write {
    /// The group that wants it.
    pub group: Arc<str>,
    /// The records, of which there is at least one.
    pub records: Vec<Record>,
    /// What follows.
    pub then: Then,
}

/// What follows when a write is durable.
#[derive(Debug)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// Someone is given this answer.
    Answer(Waiter, Reply),
    /// The members of this generation are given their assignments.
    Assign {
        /// The generation.
        generation: i32,
        /// The assignments by member.
        assignments: BTreeMap<String, Bytes>,
    },
    /// A static member that came back under a new id goes on with its assignment.
    Return {
        /// The generation that it came back to.
        generation: i32,
        /// Its new id.
        member_id: String,
        /// Its request.
        waiter: Waiter,
        /// The leader at that time.
        leader: String,
        /// See [`Join::can_skip_assignment`].
        can_skip_assignment: bool,
    },
}
