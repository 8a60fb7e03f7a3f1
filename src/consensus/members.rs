//! Who is in a Raft group, and how a change of that lies in its log.

use bytes::Bytes;
use raft::eraftpb as pb;

use super::{broker_of, raft_id};
use crate::codec;
use crate::types::BrokerId;

/// The members of a group.
///
/// While `outgoing` is not empty, an entry needs a majority of `voters` and one of `outgoing` (joint consensus).
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Members {
    /// Those who vote.
    pub voters: Vec<BrokerId>,
    /// Those who voted before, and still do.
    pub outgoing: Vec<BrokerId>,
    /// Those who get every entry and have no vote.
    pub learners: Vec<BrokerId>,
}

/// Begins the data of an entry that changes the members. No other entry begins like this: as a record's offset it would
/// be negative, and no format of [`codec`] has this number.
const MARK: [u8; 8] = [0xFF; 8];

/// Whether the data is that of an entry which changes the members.
pub fn is_change(data: &[u8]) -> bool {
    data.starts_with(&MARK)
}

impl Members {
    /// A group of these voters.
    pub fn of(voters: &[BrokerId]) -> Members {
        Members { voters: voters.to_vec(), ..Members::default() }
    }

    /// Whether two majorities are needed.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// All members, each once, those who vote from now on first.
    pub fn all(&self) -> Vec<BrokerId> {
        let mut all = self.voters.clone();
        for broker in self.outgoing.iter().chain(&self.learners) {
            if !all.contains(broker) {
                all.push(*broker);
            }
        }
        all
    }

    /// As the data of an entry.
    pub(super) fn to_data(&self) -> Bytes {
        [&MARK[..], &codec::encode(self)].concat().into()
    }

    /// Reads what [`Members::to_data`] wrote.
    pub(super) fn from_data(data: &[u8]) -> Option<Members> {
        Members::decode(data.strip_prefix(&MARK)?)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Members> {
        codec::decode(bytes).ok()
    }

    pub(super) fn conf_state(&self) -> pb::ConfState {
        let ids = |brokers: &[BrokerId]| brokers.iter().copied().map(raft_id).collect::<Vec<u64>>();
        let mut state = pb::ConfState::default();
        state.set_voters(ids(&self.voters));
        state.set_voters_outgoing(ids(&self.outgoing));
        state.set_learners(ids(&self.learners));
        state
    }

    pub(super) fn from_conf_state(state: &pb::ConfState) -> Members {
        let brokers = |ids: &[u64]| ids.iter().copied().map(broker_of).collect();
        Members {
            voters: brokers(state.get_voters()),
            outgoing: brokers(state.get_voters_outgoing()),
            learners: brokers(state.get_learners()),
        }
    }

    /// The changes that lead from these members to `wanted`, one after the other: a single one where an entry of the log
    /// leads there, more where this replica has skipped some.
    pub(super) fn changes_to(&self, wanted: &Members) -> Vec<pb::ConfChangeV2> {
        let mut changes = Vec::new();
        let mut now = self.clone();
        if now.is_joint() && !(same(&now.voters, &wanted.voters) && same(&now.outgoing, &wanted.outgoing)) {
            now.outgoing.clear();
            changes.push(pb::ConfChangeV2::default());
        }
        if !now.is_joint() {
            if wanted.is_joint() && !same(&now.voters, &wanted.outgoing) {
                let outgoing = Members { voters: wanted.outgoing.clone(), ..Members::default() };
                changes.push(now.difference(&outgoing, true));
                changes.push(pb::ConfChangeV2::default());
                now = outgoing;
            }
            let voters_change = !same(&now.voters, &wanted.voters) || wanted.is_joint();
            if !voters_change {
                // raft-rs takes several changes in one for the beginning of a joint configuration.
                let all = now.difference(wanted, false).changes;
                changes.extend(all.into_iter().map(|one| {
                    let mut change = pb::ConfChangeV2::default();
                    change.set_changes(vec![one].into());
                    change
                }));
                return changes;
            }
            changes.push(now.difference(wanted, true));
            if !wanted.is_joint() {
                changes.push(pb::ConfChangeV2::default());
            }
        }
        changes
    }

    /// The change from these members, which are not joint, to the voters and learners that are wanted.
    fn difference(&self, wanted: &Members, joint: bool) -> pb::ConfChangeV2 {
        let mut change = pb::ConfChangeV2::default();
        if joint {
            change.set_transition(pb::ConfChangeTransition::Explicit);
        }
        let mut singles = Vec::new();
        let mut add = |kind, broker: &BrokerId| {
            let mut single = pb::ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = raft_id(*broker);
            singles.push(single);
        };
        let keeps = |broker: &&BrokerId| wanted.voters.contains(broker) || wanted.learners.contains(broker);
        wanted.voters.iter().filter(|b| !self.voters.contains(b)).for_each(|b| add(pb::ConfChangeType::AddNode, b));
        let new_learners = wanted.learners.iter().filter(|broker| !self.learners.contains(broker));
        new_learners.for_each(|broker| add(pb::ConfChangeType::AddLearnerNode, broker));
        let gone = self.voters.iter().chain(&self.learners).filter(|broker| !keeps(broker));
        gone.for_each(|broker| add(pb::ConfChangeType::RemoveNode, broker));
        change.set_changes(singles.into());
        change
    }
}

/// Whether two lists name the same brokers, in whatever order.
pub fn same(one: &[BrokerId], other: &[BrokerId]) -> bool {
    one.len() == other.len() && one.iter().all(|broker| other.contains(broker))
}
