//! What the replicas of a group say to each other.

use bytes::Bytes;
use raft::eraftpb as pb;

use super::Entry;
use super::members::{Members, broker_of, life_of, raft_id};
use crate::types::BrokerId;

/// The kind of a [`Message`]. The numbers are on the wire, and raft-rs's own but for the last two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum MessageKind {
    /// Entries, and what is committed.
    Append = 3,
    /// How far the log of a follower agrees, all of it durable there.
    AppendResponse = 4,
    /// A candidate asks for a vote.
    Vote = 5,
    /// The vote, durable where it was given.
    VoteResponse = 6,
    /// The point that a follower goes on from when the leader's log begins behind its own end.
    Snapshot = 7,
    /// The leader is there.
    Heartbeat = 8,
    /// So is the follower.
    HeartbeatResponse = 9,
    /// A follower asks the leader to hand over.
    TransferLeader = 13,
    /// The leader asks a follower to stand for election at once.
    TimeoutNow = 14,
    /// Would a vote be given? Binds nobody.
    PreVote = 17,
    /// It would, or not.
    PreVoteResponse = 18,
    /// A replica that has lost a part of its log asks where the others stand. Not Raft's.
    Inquiry = 100,
    /// The answer: the term, whether the sender leads, and where its log ends. Not Raft's.
    Standing = 101,
}

impl MessageKind {
    const ALL: [MessageKind; 13] = [
        MessageKind::Append,
        MessageKind::AppendResponse,
        MessageKind::Vote,
        MessageKind::VoteResponse,
        MessageKind::Snapshot,
        MessageKind::Heartbeat,
        MessageKind::HeartbeatResponse,
        MessageKind::TransferLeader,
        MessageKind::TimeoutNow,
        MessageKind::PreVote,
        MessageKind::PreVoteResponse,
        MessageKind::Inquiry,
        MessageKind::Standing,
    ];

    /// The kind of this number; `None` where there is none, or none that goes between brokers.
    pub fn from_number(number: u8) -> Option<MessageKind> {
        MessageKind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// The state that a follower takes instead of entries that the leader has no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotPoint {
    /// The index of the last entry in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// What the log's owner put into it.
    pub data: Bytes,
}

/// A message of one replica to another. Which brokers send and receive it is known from its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// What it is.
    pub kind: MessageKind,
    /// The life of the sender's replica: see [`super::members`].
    pub from_life: u32,
    /// The life of the replica that it is for.
    pub to_life: u32,
    /// The sender's term.
    pub term: u64,
    /// Raft's `log_term`.
    pub log_term: u64,
    /// Raft's `index`.
    pub index: u64,
    /// What the sender knows to be committed.
    pub commit: u64,
    /// The term of that entry, where the kind carries it.
    pub commit_term: u64,
    /// Whether it says no.
    pub reject: bool,
    /// Where the sender's log ends instead.
    pub reject_hint: u64,
    /// The index from which a snapshot is asked for, 0 for none.
    pub request_snapshot: u64,
    /// Raft's `context`; with a snapshot, the members as of it.
    pub context: Bytes,
    /// The entries of an [`MessageKind::Append`].
    pub entries: Vec<Entry>,
    /// The point of a [`MessageKind::Snapshot`].
    pub snapshot: Option<SnapshotPoint>,
}

impl Message {
    /// From raft-rs: the receiver and the message. `None` for kinds that stay on a broker.
    pub(super) fn from_raft(message: pb::Message) -> Option<(BrokerId, Message)> {
        let kind = MessageKind::from_number(message.msg_type as u8)?;
        let to = broker_of(message.to);
        let snapshot = message.snapshot.into_option().map(|snapshot| {
            let metadata = snapshot.metadata.unwrap_or_default();
            SnapshotPoint { index: metadata.index, term: metadata.term, data: snapshot.data }
        });
        Some((
            to,
            Message {
                kind,
                from_life: life_of(message.from),
                to_life: life_of(message.to),
                term: message.term,
                log_term: message.log_term,
                index: message.index,
                commit: message.commit,
                commit_term: message.commit_term,
                reject: message.reject,
                reject_hint: message.reject_hint,
                request_snapshot: message.request_snapshot,
                context: message.context,
                entries: message.entries.into_iter().map(Entry::from_raft).collect(),
                snapshot,
            },
        ))
    }

    /// For raft-rs.
    pub(super) fn into_raft(self, from: BrokerId, to: BrokerId) -> pb::Message {
        let mut message = pb::Message {
            from: raft_id(from, self.from_life),
            to: raft_id(to, self.to_life),
            term: self.term,
            log_term: self.log_term,
            index: self.index,
            commit: self.commit,
            commit_term: self.commit_term,
            reject: self.reject,
            reject_hint: self.reject_hint,
            request_snapshot: self.request_snapshot,
            context: self.context,
            ..pb::Message::default()
        };
        message.set_msg_type(match self.kind {
            MessageKind::Append => pb::MessageType::MsgAppend,
            MessageKind::AppendResponse => pb::MessageType::MsgAppendResponse,
            MessageKind::Vote => pb::MessageType::MsgRequestVote,
            MessageKind::VoteResponse => pb::MessageType::MsgRequestVoteResponse,
            MessageKind::Snapshot => pb::MessageType::MsgSnapshot,
            MessageKind::Heartbeat => pb::MessageType::MsgHeartbeat,
            MessageKind::HeartbeatResponse => pb::MessageType::MsgHeartbeatResponse,
            MessageKind::TransferLeader => pb::MessageType::MsgTransferLeader,
            MessageKind::TimeoutNow => pb::MessageType::MsgTimeoutNow,
            MessageKind::PreVote => pb::MessageType::MsgRequestPreVote,
            MessageKind::PreVoteResponse => pb::MessageType::MsgRequestPreVoteResponse,
            MessageKind::Inquiry | MessageKind::Standing => unreachable!("Raft does not hear of repairs"),
        });
        message.set_entries(self.entries.into_iter().map(Entry::into_raft).collect());
        if let Some(point) = self.snapshot {
            let mut snapshot = pb::Snapshot { data: point.data, ..pb::Snapshot::default() };
            let metadata = snapshot.mut_metadata();
            metadata.index = point.index;
            metadata.term = point.term;
            *metadata.mut_conf_state() = Members::decode(&message.context).unwrap_or_default().conf_state();
            message.set_snapshot(snapshot);
        }
        message
    }
}
