//! A replica that has lost a part of its log, and what it was: how it gets its place back from the others.
//!
//! What was lost may have held votes, and acknowledgements of entries that were committed with their help. A replica that
//! went on without them could vote twice in a term, or help a leader to win that lacks what is committed. So:
//!
//! 1. It asks all other replicas for their terms. Until all have answered it takes no message, votes for nobody and stands
//!    for nothing. Whoever it voted for, or acknowledged entries to, had that term durably: none of these terms is above
//!    the highest that it is told of, and if a leader has that one, all votes of the term are counted.
//! 2. It takes that leader's term, its vote given to the leader, who forgets how far this replica's log reached. From then
//!    on it follows, whoever leads, and acknowledges what it holds.
//! 3. It votes and stands again once its durable log is at least as up to date as that leader's was when it answered: all
//!    that was committed with this replica's help is in it. A later term's leader has it too.
//!
//! That it is not whole is in its hard state, so that a restart on the way begins with the first step again.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Group, HardState, Message, MessageKind, raft_id};
use crate::limits::INQUIRY_TICKS;
use crate::types::BrokerId;

/// In the place of the vote in a hard state: the replica has lost a part of its log, and of its votes. No broker's Raft id.
pub(super) const NOT_WHOLE: u64 = u64::MAX;

/// A replica that is not whole.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Comes back with the answers: those to an earlier process do not count.
    nonce: u64,
    /// Raft ticks until the others are asked again.
    ask_in: u32,
    /// The terms of the others; with the last index, where they lead.
    answers: BTreeMap<BrokerId, (u64, Option<u64>)>,
    /// Term and index of the last entry of the leader that is followed since; the log must reach as far.
    goal: Option<(u64, u64)>,
}

impl Repair {
    /// Whether a message may be taken already.
    pub(super) fn takes(&self, kind: MessageKind) -> bool {
        self.goal.is_some() && matches!(kind, MessageKind::Append | MessageKind::Heartbeat | MessageKind::Snapshot)
    }
}

impl HardState {
    /// Whether the replica has lost a part of its log and was not repaired.
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
        assert!(
            self.majority() < self.raw.store().voters().len(),
            "nobody else can lead, so nobody can repair the log"
        );
        self.repair = Some(Repair { nonce, ..Repair::default() });
    }

    /// Raft's time has passed for a replica that is not whole.
    pub(super) fn tick_repair(&mut self) {
        let Some(repair) = &mut self.repair else { return };
        if repair.goal.is_some() {
            return;
        }
        repair.ask_in = repair.ask_in.checked_sub(1).unwrap_or(INQUIRY_TICKS);
        if repair.ask_in == INQUIRY_TICKS {
            let context = Bytes::copy_from_slice(&repair.nonce.to_le_bytes());
            let inquiry = Message { context, ..self.early(MessageKind::Inquiry) };
            let others: Vec<BrokerId> = self.followers().collect();
            self.outbox.extend(others.into_iter().map(|other| (other, inquiry.clone())));
        }
    }

    /// Another replica is not whole, and asks. One that is not whole itself does not know.
    pub(super) fn answer_inquiry(&mut self, from: BrokerId, inquiry: &Message) {
        if self.repair.is_some() || !self.followers().any(|other| other == from) {
            return;
        }
        let next = self.last_index() + 1;
        let leads = self.is_leader();
        if let Some(progress) = self.raw.raft.mut_prs().get_mut(raft_id(from)).filter(|_| leads) {
            progress.matched = 0;
            progress.become_probe();
            progress.next_idx = next;
        }
        let context = inquiry.context.clone();
        let answer = Message { context, index: next - 1, reject: !leads, ..self.early(MessageKind::Standing) };
        self.outbox.push((from, answer));
    }

    /// Another replica says where it stands.
    pub(super) fn hear_standing(&mut self, from: BrokerId, standing: &Message) {
        let known = self.followers().any(|other| other == from);
        let others = self.followers().count();
        let own = self.term();
        let Some(repair) = self.repair.as_mut().filter(|repair| known && repair.goal.is_none()) else { return };
        if standing.context[..] != repair.nonce.to_le_bytes() {
            return;
        }
        repair.answers.insert(from, (standing.term, (!standing.reject).then_some(standing.index)));
        if repair.answers.len() < others {
            return;
        }
        let highest = repair.answers.values().map(|(term, _)| *term).max().unwrap_or(0).max(own);
        let leads = |(broker, (term, last)): (&BrokerId, &(u64, Option<u64>))| {
            last.filter(|_| *term == highest).map(|last| (*broker, last))
        };
        let Some((leader, last)) = repair.answers.iter().find_map(leads) else { return };
        repair.goal = Some((highest, last));
        self.raw.raft.become_follower(highest, raft_id(leader));
        self.raw.raft.vote = raft_id(leader);
    }

    /// Looks whether the durable log reaches far enough.
    pub(super) fn settle_repair(&mut self) {
        let Some(goal) = self.repair.as_ref().and_then(|repair| repair.goal) else { return };
        let durable = self.durable();
        if self.restoring.is_none() && self.term_at(durable).is_some_and(|term| (term, durable) >= goal) {
            self.repair = None;
        }
    }

    /// A hard state as it is to be written.
    pub(super) fn marked(&self, state: HardState) -> HardState {
        match self.repair {
            Some(_) => HardState { vote: NOT_WHOLE, ..state },
            None => state,
        }
    }
}
