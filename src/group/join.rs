//! JoinGroup: a member comes, or comes again.

use super::ask::{Join, Then};
use super::members::Member;
use super::members::PROTOCOL_OVERHEAD;
use super::state::{Group, State};
use super::{Cx, Error, Reply, Waiter};
use crate::limits::{MAX_GROUP_BYTES, NEW_MEMBER_JOIN_MS};

impl Group {
    /// A member wants to be in the next generation.
    pub(super) fn join(&mut self, cx: &mut Cx<'_>, waiter: Waiter, join: Join) {
        if let Some(group) = &self.consumer {
            if !group.is_empty() {
                return self.classic_joins(cx, waiter, join);
            }
            // Nobody is left of it. Should this not be taken by the log, the first generation's record overrules it.
            let records = self.end_records();
            (self.consumer, self.watch) = Default::default();
            self.write(cx, records, Then::Nothing);
        }
        if !self.accepts(cx, &join) {
            // Whoever holds the id will not come again with it.
            self.pending.remove(&join.member_id);
            self.complete_if_all_joined(cx);
            return cx.answer(waiter, Err(Error::MaxSizeReached));
        }
        if !self.supports(&join.protocol_type, &join.protocols) {
            return cx.answer(waiter, Err(Error::InconsistentProtocol));
        }
        tracing::debug!(group = &*self.id, member = join.member_id, reason = join.reason, "a member joins");
        if join.member_id.is_empty() { self.join_new(cx, waiter, join) } else { self.join_again(cx, waiter, join) }
    }

    /// Whether there is room for one more.
    fn accepts(&self, cx: &Cx<'_>, join: &Join) -> bool {
        let known = self.members.get(&join.member_id);
        let most = cx.settings.max_size;
        let room = match self.state {
            State::Empty => true,
            State::PreparingRebalance => known.is_some_and(|member| member.joining.is_some()) || self.joining < most,
            State::CompletingRebalance | State::Stable => known.is_some() || self.members.len() < most,
        };
        let size: usize =
            join.protocols.iter().map(|(name, metadata)| name.len() + metadata.len() + PROTOCOL_OVERHEAD).sum();
        // Ids that nobody comes back with must not pile up either.
        let ids = join.member_id.is_empty() && self.pending.len() >= most;
        room && !ids && self.members_bytes + size <= MAX_GROUP_BYTES
    }

    fn join_new(&mut self, cx: &mut Cx<'_>, waiter: Waiter, join: Join) {
        let id = join.fresh_id.clone();
        match join.instance.as_ref().map(|instance| self.statics.get(instance).cloned()) {
            Some(Some(before)) => self.replace_static(cx, waiter, &before, join),
            Some(None) => self.add_member(cx, waiter, id, join),
            None if join.id_required => {
                let until = cx.now().mono.plus_millis(join.session_ms);
                self.pending.insert(id.clone(), until);
                self.watch_silence(until);
                cx.answer(waiter, Ok(Reply::IdRequired(id)));
            }
            None => self.add_member(cx, waiter, id, join),
        }
    }

    fn join_again(&mut self, cx: &mut Cx<'_>, waiter: Waiter, join: Join) {
        let id = join.member_id.clone();
        if self.pending.contains_key(&id) {
            // Static members are given no id to come again with.
            if join.instance.is_some() {
                return cx.answer(waiter, Err(Error::UnknownMember));
            }
            return self.add_member(cx, waiter, id, join);
        }
        if let Err(error) = self.check_member(&id, join.instance.as_deref()) {
            return cx.answer(waiter, Err(error));
        }
        let same = self.members.get(&id).is_some_and(|member| member.protocols == join.protocols);
        match self.state {
            State::Empty => cx.answer(waiter, Err(Error::UnknownMember)),
            // Its answer was lost: the generation is as good as it was.
            State::CompletingRebalance if same => {
                let joined = self.joined(&id, self.leads(&id));
                cx.answer(waiter, Ok(Reply::Joined(Box::new(joined))));
            }
            State::Stable if same && !self.leads(&id) => {
                let joined = self.joined(&id, false);
                cx.answer(waiter, Ok(Reply::Joined(Box::new(joined))));
            }
            // A leader that joins again wants a rebalance, and so does whoever has something new to say.
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                self.update_member(cx, waiter, &id, join);
                self.rebalance_or_complete(cx);
            }
        }
    }

    fn add_member(&mut self, cx: &mut Cx<'_>, waiter: Waiter, id: String, join: Join) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        let member = Member {
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            session_ms: join.session_ms,
            rebalance_ms: join.rebalance_ms,
            protocols: join.protocols,
            assignment: Default::default(),
            joining: Some(waiter),
            syncing: None,
            synced: false,
            is_new: true,
            expires: cx.now().mono.plus_millis(NEW_MEMBER_JOIN_MS),
        };
        if let Some(gathering) = &mut self.gathering {
            gathering.grew = true;
        }
        self.insert_member(id, member);
        self.rebalance_or_complete(cx);
    }

    fn update_member(&mut self, cx: &mut Cx<'_>, waiter: Waiter, id: &str, join: Join) {
        // A client has one join under way: it has given up the one before.
        self.answer_join(cx, id, Err(Error::RebalanceInProgress));
        self.change_member(id, |member| {
            member.protocols = join.protocols;
            member.session_ms = join.session_ms;
            member.rebalance_ms = join.rebalance_ms;
            member.joining = Some(waiter);
        });
    }

    /// A static member is back under a new id: whoever still uses the old one is fenced.
    fn replace_static(&mut self, cx: &mut Cx<'_>, waiter: Waiter, before: &str, join: Join) {
        let id = join.fresh_id.clone();
        let can_skip_assignment = join.can_skip_assignment;
        let leader = self.leader.clone().unwrap_or_default();
        self.answer_join(cx, before, Err(Error::FencedInstance));
        self.answer_sync(cx, before, Err(Error::FencedInstance));
        let led = self.leads(before);
        let Some(member) = self.remove_member(before) else { return };
        self.insert_member(id.clone(), member);
        if led {
            self.leader = Some(id.clone());
        }
        self.update_member(cx, waiter, &id, join);
        self.keep_alive(cx.now(), &id);
        match self.state {
            State::Stable if self.protocol == self.select_protocol() => {
                let record = self.record(|_, member| member.assignment.clone());
                let generation = self.generation;
                let then = Then::Return { generation, member_id: id, waiter, leader, can_skip_assignment };
                self.write(cx, vec![record], then);
            }
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(cx),
            State::PreparingRebalance | State::Empty => self.complete_if_all_joined(cx),
        }
    }
}
