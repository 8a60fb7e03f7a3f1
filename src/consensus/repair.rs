//! A replica that has lost a part of its log, and what it was: how it gets its place back from the others.
//!
//! What was lost may have held votes, and acknowledgements of entries that were committed with their help. A replica that
//! went on without them could vote twice in a term, or help a leader to win that lacks what is committed. So:
//!
//! 1. It asks the others for their terms, and takes no message, votes for nobody and stands for nothing until one that leads
//!    has answered, and all who vote with that one, none of them with a higher term. Whoever it voted for, or acknowledged
//!    entries to, had that term durably before; so none of these terms is above the leader's, and the leader's log holds
//!    all that was committed with this replica's help.
//! 2. It takes that leader's term, its vote given to the leader, who forgets how far this replica's log reached. From then
//!    on it follows, whoever leads, and acknowledges what it holds.
//! 3. It votes and stands again once its durable log is at least as up to date as that leader's was when it answered: all
//!    that was committed with this replica's help is in it. A later term's leader has it too, since it was elected without
//!    this vote, by a majority of which one at least holds what is committed.
//!
//! That it is not whole is in its hard state, so that a restart on the way begins with the first step again. Who is not whole
//! answers nobody: two such replicas of three stay without a leader, as what was committed may have been on these two.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::members::{Members, broker_of};
use super::{Group, HardState, Message, MessageKind};
use crate::limits::INQUIRY_TICKS;
use crate::types::BrokerId;

/// In the place of the vote in a hard state: the replica has lost a part of its log, and of its votes. No broker's Raft id.
pub(super) const NOT_WHOLE: u64 = u64::MAX;

/// Length of the number that comes back with the answers.
const NONCE_LEN: usize = 8;

/// A replica that is not whole.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Comes back with the answers: those to an earlier process do not count.
    nonce: u64,
    /// Raft ticks until the others are asked again.
    ask_in: u32,
    /// Who is asked: the members as far as they are known, and whoever spoke to this replica.
    asked: BTreeSet<BrokerId>,
    /// What they answered last.
    answers: BTreeMap<BrokerId, Answer>,
    /// Term and index of the last entry of the leader that is followed since; the log must reach as far.
    goal: Option<(u64, u64)>,
}

/// Where another replica stands.
#[derive(Debug)]
struct Answer {
    life: u32,
    term: u64,
    /// Of a leader: the last index, and the members.
    leads: Option<(u64, Members)>,
}

impl Repair {
    /// Whether a message may be taken already.
    pub(super) fn takes(&self, kind: MessageKind) -> bool {
        self.goal.is_some() && matches!(kind, MessageKind::Append | MessageKind::Heartbeat | MessageKind::Snapshot)
    }

    /// The leader to follow by its Raft id, with its term and last index, for the replica of `own`.
    fn leader(&self, own: BrokerId) -> Option<(u64, u64, u64)> {
        let leaders = self.answers.iter().filter_map(|(leader, answer)| {
            let (last, members) = answer.leads.as_ref()?;
            let follows = |voter: &BrokerId| {
                let known = self.answers.get(voter).filter(|known| known.life == members.life(*voter));
                *voter == own || known.is_some_and(|known| known.term <= answer.term)
            };
            let all_follow = members.voters.iter().chain(&members.outgoing).all(follows);
            all_follow.then(|| (members.id(*leader), answer.term, *last))
        });
        leaders.max_by_key(|(_, term, _)| *term)
    }
}

impl HardState {
    /// Whether the replica has lost nothing of its log, or was repaired since.
    pub fn is_whole(&self) -> bool {
        self.vote != NOT_WHOLE
    }
}

impl Group {
    /// Whether the log is known to hold all that this replica ever acknowledged.
    pub fn is_whole(&self) -> bool {
        self.repair.is_none()
    }

    /// Whether no message of a leader may be taken yet.
    pub fn is_deaf(&self) -> bool {
        self.repair.as_ref().is_some_and(|repair| repair.goal.is_none())
    }

    /// The log has lost entries, votes or both; `nonce` must not have been used before. Called before anything else
    /// happens to the group. The hard state says so from now on, which must become durable before the loss is forgotten.
    pub fn begin_repair(&mut self, nonce: u64) {
        self.repair = Some(Repair { nonce, asked: self.followers().collect(), ..Repair::default() });
    }

    /// Raft's time has passed for a replica that is not whole.
    pub(super) fn tick_repair(&mut self) {
        let Some(repair) = self.repair.as_mut().filter(|repair| repair.goal.is_none()) else { return };
        repair.ask_in = repair.ask_in.checked_sub(1).unwrap_or(INQUIRY_TICKS);
        if repair.ask_in == INQUIRY_TICKS {
            let context = Bytes::copy_from_slice(&repair.nonce.to_le_bytes());
            let asked: Vec<BrokerId> = repair.asked.iter().copied().collect();
            let inquiry = Message { context, ..self.early(MessageKind::Inquiry) };
            self.outbox.extend(asked.into_iter().map(|other| (other, inquiry.clone())));
        }
    }

    /// A message came that is not taken. Who sends it may be a member that this replica has forgotten.
    pub(super) fn note_sender(&mut self, from: BrokerId) {
        if let Some(repair) = &mut self.repair {
            repair.asked.insert(from);
        }
    }

    /// Another replica is not whole, and asks. One that is not whole itself does not know. The asker may not know which
    /// replicas there are now, so it is answered whatever life it takes this one to be of.
    pub(super) fn answer_inquiry(&mut self, from: BrokerId, inquiry: &Message) {
        let Some(nonce) = inquiry.context.get(..NONCE_LEN).filter(|_| self.repair.is_none()) else { return };
        let mut context = nonce.to_vec();
        let leads = self.is_leader();
        let last = self.last_index();
        if leads {
            let id = super::raft_id(from, inquiry.from_life);
            // Not a member, or not this life of it: it is told nothing that it could go by.
            let Some(progress) = self.raw.raft.mut_prs().get_mut(id) else { return };
            progress.matched = 0;
            progress.become_probe();
            progress.next_idx = last + 1;
            context.extend(self.members().encode());
        }
        let mut answer = self.early(MessageKind::Standing);
        (answer.to_life, answer.index, answer.reject) = (inquiry.from_life, last, !leads);
        answer.context = context.into();
        self.outbox.push((from, answer));
    }

    /// Another replica says where it stands.
    pub(super) fn hear_standing(&mut self, from: BrokerId, standing: &Message) {
        let (own, own_term) = (self.broker, self.term());
        let Some(repair) = self.repair.as_mut().filter(|repair| repair.goal.is_none()) else { return };
        let Some((nonce, members)) = standing.context.split_at_checked(NONCE_LEN) else { return };
        if nonce != repair.nonce.to_le_bytes() || standing.to_life != self.life {
            return;
        }
        let leads = match standing.reject {
            true => None,
            false => {
                let Some(members) = Members::decode(members) else { return };
                repair.asked.extend(members.all().into_iter().filter(|broker| *broker != own));
                Some((standing.index, members))
            }
        };
        repair.answers.insert(from, Answer { life: standing.from_life, term: standing.term, leads });
        let Some((leader, term, last)) = repair.leader(own).filter(|(_, term, _)| *term >= own_term) else { return };
        repair.goal = Some((term, last));
        self.raw.raft.become_follower(term, leader);
        self.raw.raft.vote = leader;
        tracing::info!(leader = broker_of(leader).0, term, last, "a replica that lost a part of its log follows again");
        // Its newest checkpoint may reach as far already.
        self.settle_repair();
    }

    /// Looks whether the durable log reaches far enough.
    pub(super) fn settle_repair(&mut self) {
        let Some(goal) = self.repair.as_ref().and_then(|repair| repair.goal) else { return };
        let durable = self.durable();
        if self.restoring.is_none() && self.term_at(durable).is_some_and(|term| (term, durable) >= goal) {
            self.repair = None;
            self.made_whole = true;
        }
    }

    /// Whether the log was made whole since the last call. That becomes durable with the next hard state or checkpoint.
    pub fn takes_made_whole(&mut self) -> bool {
        std::mem::take(&mut self.made_whole)
    }

    /// A hard state as it is to be written.
    pub(super) fn marked(&self, state: HardState) -> HardState {
        match self.repair {
            Some(_) => HardState { vote: NOT_WHOLE, ..state },
            None => state,
        }
    }
}

#[cfg(test)]
mod tests;
