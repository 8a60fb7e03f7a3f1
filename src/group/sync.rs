//! SyncGroup and Heartbeat: a member gets its assignment, and says that it is alive.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::ask::{Identity, Sync, Synced, Then};
use super::state::{Group, State};
use super::{Cx, Error, Reply, Waiter};
use crate::limits::MAX_GROUP_BATCH_BYTES;

impl Group {
    /// A member of the generation wants its assignment; the leader brings them all.
    pub(super) fn sync(&mut self, cx: &mut Cx<'_>, waiter: Waiter, sync: Sync) {
        if self.consumer.is_some() {
            return self.classic_syncs(cx, waiter, &sync);
        }
        if let Err(error) = self.check_sync(&sync) {
            return cx.answer(waiter, Err(error));
        }
        let id = sync.identity.member_id;
        match self.state {
            State::Empty | State::PreparingRebalance => cx.answer(waiter, Err(Error::RebalanceInProgress)),
            State::Stable => {
                self.note_synced(&id);
                let synced = self.synced(&id);
                cx.answer(waiter, Ok(Reply::Synced(synced)));
            }
            State::CompletingRebalance => {
                self.answer_sync(cx, &id, Err(Error::RebalanceInProgress));
                if let Some(member) = self.members.get_mut(&id) {
                    member.syncing = Some(waiter);
                }
                self.note_synced(&id);
                if self.leads(&id) && !self.storing {
                    self.store(cx, sync.assignments);
                }
            }
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), Error> {
        self.check_member(&sync.identity.member_id, sync.identity.instance.as_deref())?;
        if sync.identity.generation != self.generation {
            return Err(Error::IllegalGeneration);
        }
        let differs = |said: &Option<String>, known: &Option<String>| said.is_some() && said != known;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(Error::InconsistentProtocol);
        }
        Ok(())
    }

    fn note_synced(&mut self, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.synced = true;
        }
        if self.members.values().all(|member| member.synced) {
            self.sync_by = None;
        }
    }

    /// The leader's assignments are made durable before any member is told of its own.
    fn store(&mut self, cx: &mut Cx<'_>, assignments: Vec<(String, Bytes)>) {
        let size: usize = assignments.iter().map(|(_, assignment)| assignment.len()).sum();
        if size > MAX_GROUP_BATCH_BYTES {
            return self.assign_failed(cx, self.generation, Error::TooLarge);
        }
        let mut known: BTreeMap<String, Bytes> = BTreeMap::new();
        for (id, assignment) in assignments {
            if self.members.contains_key(&id) {
                known.insert(id, assignment);
            }
        }
        let record = self.record(|id, _| known.get(id).cloned().unwrap_or_default());
        self.storing = true;
        let then = Then::Assign { generation: self.generation, assignments: known };
        self.write(cx, vec![record], then);
    }

    /// The assignments of a generation are durable.
    pub(super) fn assign(&mut self, cx: &mut Cx<'_>, generation: i32, mut assignments: BTreeMap<String, Bytes>) {
        if self.state != State::CompletingRebalance || self.generation != generation {
            return;
        }
        self.storing = false;
        self.enter(cx.now(), State::Stable);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let assignment = assignments.remove(&id).unwrap_or_default();
            self.change_member(&id, |member| member.assignment = assignment);
            self.answer_assigned(cx, &id);
        }
    }

    fn answer_assigned(&mut self, cx: &mut Cx<'_>, id: &str) {
        if self.members.get(id).is_some_and(|member| member.syncing.is_some()) {
            let synced = self.synced(id);
            self.keep_alive(cx.now(), id);
            self.answer_sync(cx, id, Ok(Reply::Synced(synced)));
        }
    }

    /// The assignments of a generation cannot be made durable: its members must come again.
    pub(super) fn assign_failed(&mut self, cx: &mut Cx<'_>, generation: i32, error: Error) {
        if self.state == State::CompletingRebalance && self.generation == generation {
            self.reset_assignments(cx, error);
            self.prepare_rebalance(cx);
        }
    }

    /// Answers those who wait for an assignment with an error.
    pub(super) fn reset_assignments(&mut self, cx: &mut Cx<'_>, error: Error) {
        self.storing = false;
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.change_member(&id, |member| member.assignment = Bytes::new());
            if self.members.get(&id).is_some_and(|member| member.syncing.is_some()) {
                self.keep_alive(cx.now(), &id);
                self.answer_sync(cx, &id, Err(error));
            }
        }
    }

    fn synced(&self, id: &str) -> Synced {
        let assignment = self.members.get(id).map(|member| member.assignment.clone()).unwrap_or_default();
        Synced { protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }

    /// A member is alive, and is told whether it must join again.
    pub(super) fn heartbeat(&mut self, now: crate::types::Now, identity: &Identity) -> Result<(), Error> {
        self.check_member(&identity.member_id, identity.instance.as_deref())?;
        if identity.generation != self.generation {
            return Err(Error::IllegalGeneration);
        }
        self.keep_alive(now, &identity.member_id);
        match self.state {
            State::Empty => Err(Error::UnknownMember),
            State::PreparingRebalance => Err(Error::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }
}
