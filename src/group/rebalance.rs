//! The way from one generation to the next, and what time brings.

use super::members::Member;
use super::state::{Gathering, Group, State};
use super::{Cx, Error, Reply, Then};

impl Group {
    /// Someone came or went: a rebalance begins, or goes on where everybody is there now.
    pub(super) fn rebalance_or_complete(&mut self, cx: &mut Cx<'_>) {
        match self.state {
            State::PreparingRebalance => self.complete_if_all_joined(cx),
            State::Empty | State::CompletingRebalance | State::Stable => self.prepare_rebalance(cx),
        }
    }

    /// Members are told, by the answers to their heartbeats, to join again.
    pub(super) fn prepare_rebalance(&mut self, cx: &mut Cx<'_>) {
        if self.state == State::CompletingRebalance {
            self.reset_assignments(cx, Error::RebalanceInProgress);
        }
        self.sync_by = None;
        let empty = self.state == State::Empty;
        self.enter(cx.now(), State::PreparingRebalance);
        if empty {
            let delay_ms = cx.settings.initial_rebalance_delay_ms;
            let left_ms = self.rebalance_ms().saturating_sub(delay_ms);
            self.gathering = Some(Gathering { delay_ms, left_ms, grew: false });
            self.join_by = Some(cx.now().mono.plus_millis(delay_ms));
            return;
        }
        self.join_by = Some(cx.now().mono.plus_millis(self.rebalance_ms()));
        self.complete_if_all_joined(cx);
    }

    /// Ends the wait where nobody is missing. A group that was empty waits for its time all the same.
    pub(super) fn complete_if_all_joined(&mut self, cx: &mut Cx<'_>) {
        if self.state == State::PreparingRebalance && self.gathering.is_none() && self.all_joined() {
            self.complete_join(cx);
        }
    }

    /// Begins the next generation with those who are there.
    fn complete_join(&mut self, cx: &mut Cx<'_>) {
        let missing = |member: &Member| member.joining.is_none() && member.instance.is_none();
        let gone: Vec<String> =
            self.members.iter().filter(|(_, member)| missing(member)).map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.remove_member(id);
        }
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        if leader.is_none_or(|leader| leader.joining.is_none()) {
            let other = self.members.iter().find(|(_, member)| member.joining.is_some()).map(|(id, _)| id.clone());
            if other.is_none() && !self.members.is_empty() {
                // Static members keep their places while they are away: there is nobody to go on with.
                self.join_by = Some(cx.now().mono.plus_millis(self.rebalance_ms()));
                return;
            }
            self.leader = other;
        }
        (self.join_by, self.gathering, self.storing) = (None, None, false);
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.protocol = None;
            self.topics = self.read_topics();
            self.enter(cx.now(), State::Empty);
            let record = self.record(|_, _| Default::default());
            return self.write(cx, vec![record], Then::Nothing);
        }
        self.protocol = self.select_protocol();
        self.topics = self.read_topics();
        self.enter(cx.now(), State::CompletingRebalance);
        self.sync_by = Some(cx.now().mono.plus_millis(self.rebalance_ms()));
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id, self.leads(&id));
            self.keep_alive(cx.now(), &id);
            self.answer_join(cx, &id, Ok(Reply::Joined(Box::new(joined))));
            let member = self.members.get_mut(&id).expect("it was there");
            (member.is_new, member.synced) = (false, false);
        }
    }

    /// What has become due is done. Afterwards nothing is due any more.
    pub(super) fn expire(&mut self, cx: &mut Cx<'_>) {
        if self.consumer.is_some() {
            return self.expire_consumers(cx);
        }
        let now = cx.now().mono;
        if self.join_by.is_some_and(|at| at <= now) {
            self.join_time_up(cx);
        }
        if self.sync_by.is_some_and(|at| at <= now) {
            self.sync_time_up(cx);
        }
        let before = self.pending.len();
        self.pending.retain(|_, until| *until > now);
        if self.pending.len() < before && self.state == State::PreparingRebalance && self.all_joined() {
            self.complete_join(cx);
        }
        let silent = |member: &Member| member.can_expire() && member.expires <= now;
        let gone: Vec<String> =
            self.members.iter().filter(|(_, member)| silent(member)).map(|(id, _)| id.clone()).collect();
        for id in gone {
            // A generation that began without the one before has heard of those who were waiting.
            if !self.members.get(&id).is_some_and(silent) {
                continue;
            }
            tracing::info!(group = &*self.id, member = id, "a member was silent for longer than its session timeout");
            self.dismiss(cx, &id);
            match self.state {
                State::PreparingRebalance if self.all_joined() => self.complete_join(cx),
                State::PreparingRebalance | State::Empty => {}
                State::CompletingRebalance | State::Stable => self.prepare_rebalance(cx),
            }
        }
        self.watch_silence_anew();
    }

    fn join_time_up(&mut self, cx: &mut Cx<'_>) {
        match &mut self.gathering {
            // Members still come: the group waits on, as long as they would in a rebalance.
            Some(gathering) if gathering.grew && gathering.left_ms > 0 => {
                let delay_ms = cx.settings.initial_rebalance_delay_ms.min(gathering.left_ms);
                let left_ms = gathering.left_ms.saturating_sub(gathering.delay_ms);
                *gathering = Gathering { delay_ms, left_ms, grew: false };
                self.join_by = Some(cx.now().mono.plus_millis(delay_ms));
            }
            _ => self.complete_join(cx),
        }
    }

    fn sync_time_up(&mut self, cx: &mut Cx<'_>) {
        self.sync_by = None;
        let missing: Vec<String> =
            self.members.iter().filter(|(_, member)| !member.synced).map(|(id, _)| id.clone()).collect();
        if missing.is_empty() {
            return;
        }
        tracing::info!(group = &*self.id, members = missing.len(), "members did not ask for their assignments");
        for id in &missing {
            self.dismiss(cx, id);
        }
        self.prepare_rebalance(cx);
    }
}
