//! Who is in a Raft group, and how a change of that lies in its log.
//!
//! A broker that lost its replica and gets another has forgotten what the first one promised. To Raft the new one is somebody
//! else: its id holds the number of the move that made it (its life), so that nothing which is meant for the one, or was
//! said by it, counts for the other.

use bytes::Bytes;
use raft::eraftpb as pb;

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
    /// Those who get every entry and have no vote, or none any more once `outgoing` is empty.
    pub learners: Vec<BrokerId>,
    /// The lives of those whose replicas were made by a move; the others are there since the log was made.
    pub lives: Vec<(BrokerId, u32)>,
    /// The number of the last move on whose behalf they were changed.
    pub number: u32,
}

/// The Raft id of a broker's replica: Raft has no use for 0, Kafka numbers brokers from 0.
pub(super) fn raft_id(broker: BrokerId, life: u32) -> u64 {
    u64::from(life) << 32 | (broker.0 as u64 + 1)
}

/// The broker of a Raft id.
pub(super) fn broker_of(raft_id: u64) -> BrokerId {
    BrokerId((raft_id as u32 - 1) as i32)
}

/// The life of a Raft id.
pub(super) fn life_of(raft_id: u64) -> u32 {
    (raft_id >> 32) as u32
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

    /// Whether the others make the majorities that are needed, without this broker's vote.
    pub fn can_do_without(&self, broker: BrokerId) -> bool {
        [&self.voters, &self.outgoing].into_iter().all(|voters| {
            let others = voters.iter().filter(|voter| **voter != broker).count();
            voters.is_empty() || others > voters.len() / 2
        })
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

    /// The life of a broker's replica; 0 where it is there since the log was made, or is not there.
    pub fn life(&self, broker: BrokerId) -> u32 {
        self.lives.iter().find(|(known, _)| *known == broker).map_or(0, |(_, life)| *life)
    }

    /// The Raft id of a broker's replica.
    pub(super) fn id(&self, broker: BrokerId) -> u64 {
        raft_id(broker, self.life(broker))
    }

    /// The Raft ids of replicas of these brokers.
    fn ids(&self, brokers: &[BrokerId]) -> Vec<u64> {
        brokers.iter().map(|broker| self.id(*broker)).collect()
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
        let mut state = pb::ConfState::default();
        state.set_voters(self.ids(&self.voters));
        state.set_voters_outgoing(self.ids(&self.outgoing));
        let (later, now): (Vec<BrokerId>, _) = self.learners.iter().partition(|one| self.outgoing.contains(one));
        state.set_learners(self.ids(&now));
        state.set_learners_next(self.ids(&later));
        state
    }

    /// As raft-rs knows them. It knows no numbers of moves.
    pub(super) fn from_conf_state(state: &pb::ConfState, number: u32) -> Members {
        let (voters, outgoing) = (state.get_voters(), state.get_voters_outgoing());
        let learners = &[state.get_learners(), state.get_learners_next()].concat();
        let brokers = |ids: &[u64]| ids.iter().copied().map(broker_of).collect();
        let all = voters.iter().chain(outgoing).chain(learners);
        let mut lives: Vec<(BrokerId, u32)> =
            all.filter(|id| life_of(**id) > 0).map(|id| (broker_of(*id), life_of(*id))).collect();
        lives.sort_unstable();
        lives.dedup();
        Members { voters: brokers(voters), outgoing: brokers(outgoing), learners: brokers(learners), lives, number }
    }

    /// Whether they are the same replicas with the same votes, in whatever order.
    pub(super) fn equals(&self, other: &Members) -> bool {
        let ids = |members: &Members, brokers: &[BrokerId]| {
            let mut ids = members.ids(brokers);
            ids.sort_unstable();
            ids
        };
        ids(self, &self.voters) == ids(other, &other.voters)
            && ids(self, &self.outgoing) == ids(other, &other.outgoing)
            && ids(self, &self.learners) == ids(other, &other.learners)
    }

    /// Whether a replica of this Raft id is among them.
    pub(super) fn has(&self, id: u64) -> bool {
        self.all().into_iter().any(|broker| self.id(broker) == id)
    }

    /// The change that leads from these members to `wanted`, which are one step away: one learner more or less, a second
    /// set of voters, the end of the first one, or another number alone.
    ///
    /// # Panics
    /// Where they are further away.
    pub(super) fn change_to(&self, wanted: &Members) -> pb::ConfChangeV2 {
        let mut change = pb::ConfChangeV2::default();
        let mut singles = self.difference(wanted);
        let one_step = match (self.is_joint(), wanted.is_joint()) {
            (true, joint) => !joint && singles.is_empty(),
            (false, true) => self.voters.iter().all(|broker| wanted.outgoing.contains(broker)),
            (false, false) => singles.len() <= 1,
        };
        assert!(one_step, "{self:?} to {wanted:?} is not one step");
        if wanted.is_joint() {
            change.set_transition(pb::ConfChangeTransition::Explicit);
        } else if !self.is_joint() && singles.is_empty() {
            // raft-rs knows no change of nothing.
            singles.push(single(pb::ConfChangeType::AddNode, self.id(self.voters[0])));
        }
        change.set_changes(singles.into());
        change
    }

    /// Who is to be added and removed on the way to `wanted`, in which nobody votes from before.
    fn difference(&self, wanted: &Members) -> Vec<pb::ConfChangeSingle> {
        let (voters, learners) = (self.ids(&self.voters), self.ids(&self.learners));
        let (to_vote, to_learn) = (wanted.ids(&wanted.voters), wanted.ids(&wanted.learners));
        let votes = to_vote.iter().filter(|id| !voters.contains(id)).map(|id| single(pb::ConfChangeType::AddNode, *id));
        let learns = to_learn.iter().filter(|id| !learners.contains(id));
        let learns = learns.map(|id| single(pb::ConfChangeType::AddLearnerNode, *id));
        let goes = voters.iter().chain(&learners).filter(|id| !to_vote.contains(id) && !to_learn.contains(id));
        votes.chain(learns).chain(goes.map(|id| single(pb::ConfChangeType::RemoveNode, *id))).collect()
    }
}

fn single(kind: pb::ConfChangeType, id: u64) -> pb::ConfChangeSingle {
    let mut single = pb::ConfChangeSingle::default();
    single.set_change_type(kind);
    single.node_id = id;
    single
}

/// Whether two lists name the same brokers, in whatever order.
pub fn same(one: &[BrokerId], other: &[BrokerId]) -> bool {
    one.len() == other.len() && one.iter().all(|broker| other.contains(broker))
}
