//! The members of a group, and the protocols that they have in common.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::state::{Group, State};
use super::{Cx, Error, Joined, JoinedMember, Reply, Waiter};
use crate::types::{Mono, Now};

/// What a member takes beyond its texts and bytes, for the budget.
const MEMBER_OVERHEAD: usize = 400;

/// What one of its protocols takes beyond its bytes.
pub(super) const PROTOCOL_OVERHEAD: usize = 64;

/// A member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_ms: u64,
    pub(super) rebalance_ms: u64,
    /// The best first.
    pub(super) protocols: Vec<(String, Bytes)>,
    pub(super) assignment: Bytes,
    /// Its waiting JoinGroup.
    pub(super) joining: Option<Waiter>,
    /// Its waiting SyncGroup.
    pub(super) syncing: Option<Waiter>,
    /// Whether it has asked for its assignment in this generation.
    pub(super) synced: bool,
    /// Whether it was in no generation yet.
    pub(super) is_new: bool,
    /// When it is given up, unless it is heard of.
    pub(super) expires: Mono,
}

impl Member {
    /// What it says for a protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// Whether silence counts: whoever waits for the group cannot be heard of. Only a new member is given up then.
    pub(super) fn can_expire(&self) -> bool {
        self.is_new || (self.joining.is_none() && self.syncing.is_none())
    }

    fn bytes(&self) -> usize {
        let protocols = self.protocols.iter().map(|(name, metadata)| name.len() + metadata.len() + PROTOCOL_OVERHEAD);
        let instance = self.instance.as_ref().map_or(0, String::len);
        MEMBER_OVERHEAD
            + protocols.sum::<usize>()
            + self.assignment.len()
            + self.client_id.len()
            + self.client_host.len()
            + 2 * instance
    }
}

impl Group {
    /// Adds a member; the first is the leader, and gives the group its type by [`Group::protocol_type`].
    pub(super) fn insert_member(&mut self, id: String, member: Member) {
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.pending.remove(&id);
        self.joining += usize::from(member.joining.is_some());
        self.members_bytes += member.bytes() + 2 * id.len();
        self.count_votes(&member, true);
        if member.can_expire() {
            self.watch_silence(member.expires);
        }
        let before = self.members.insert(id, member);
        assert!(before.is_none(), "a member is added once");
    }

    /// Takes a member out; where it led, another does.
    pub(super) fn remove_member(&mut self, id: &str) -> Option<Member> {
        self.pending.remove(id);
        let member = self.members.remove(id)?;
        self.count_votes(&member, false);
        self.members_bytes -= member.bytes() + 2 * id.len();
        self.joining -= usize::from(member.joining.is_some());
        if let Some(instance) = &member.instance {
            self.statics.remove(instance);
        }
        if self.leads(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Lets a member change, and counts anew what depends on it.
    pub(super) fn change_member(&mut self, id: &str, change: impl FnOnce(&mut Member)) {
        let Some(mut member) = self.members.remove(id) else { return };
        self.count_votes(&member, false);
        self.members_bytes -= member.bytes();
        self.joining -= usize::from(member.joining.is_some());
        change(&mut member);
        self.joining += usize::from(member.joining.is_some());
        self.members_bytes += member.bytes();
        self.count_votes(&member, true);
        if member.can_expire() {
            self.watch_silence(member.expires);
        }
        self.members.insert(id.to_owned(), member);
    }

    fn count_votes(&mut self, member: &Member, more: bool) {
        for (name, _) in &member.protocols {
            if more {
                *self.votes.entry(name.clone()).or_insert(0) += 1;
            } else if let Some(votes) = self.votes.get_mut(name) {
                *votes -= 1;
                if *votes == 0 {
                    self.votes.remove(name);
                }
            }
        }
    }

    /// Whether `id` leads the group.
    pub(super) fn leads(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    /// Whether a member of this type with these protocols can be one of the group.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let all = self.members.len();
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| self.votes.get(name).copied().unwrap_or(0) == all)
    }

    /// The protocol that most members like best, of those that all know.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let all = self.members.len();
        let mut liked: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let best = member.protocols.iter().find(|(name, _)| self.votes.get(name) == Some(&all));
            if let Some((name, _)) = best {
                *liked.entry(name).or_insert(0) += 1;
            }
        }
        let most = liked.values().copied().max()?;
        liked.into_iter().find(|(_, votes)| *votes == most).map(|(name, _)| name.to_owned())
    }

    /// The longest that any member may take to come to a rebalance; never nothing, so that whatever is waited for lies
    /// ahead.
    pub(super) fn rebalance_ms(&self) -> u64 {
        self.members.values().map(|member| member.rebalance_ms).max().unwrap_or(0).max(1)
    }

    pub(super) fn all_joined(&self) -> bool {
        self.joining == self.members.len() && self.pending.is_empty()
    }

    /// A member was heard of.
    pub(super) fn keep_alive(&mut self, now: Now, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.expires = now.mono.plus_millis(member.session_ms);
            let (until, counts) = (member.expires, member.can_expire());
            if counts {
                self.watch_silence(until);
            }
        }
    }

    /// Whether who asks is who it says.
    pub(super) fn check_member(&self, id: &str, instance: Option<&str>) -> Result<(), Error> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(Error::UnknownMember),
                Some(known) if known != id => return Err(Error::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(Error::UnknownMember) }
    }

    /// The generation as a member is told of it, with all members where it is the leader.
    pub(super) fn joined(&self, id: &str, with_members: bool) -> Joined {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter().filter(|_| with_members).map(|(id, member)| JoinedMember {
            member_id: id.clone(),
            instance: member.instance.clone(),
            metadata: member.metadata(protocol),
        });
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            skip_assignment: false,
            members: members.collect(),
        }
    }

    /// Answers a member's waiting JoinGroup, if there is one.
    pub(super) fn answer_join(&mut self, cx: &mut Cx<'_>, id: &str, result: Result<Reply, Error>) {
        if let Some(member) = self.members.get_mut(id)
            && let Some(waiter) = member.joining.take()
        {
            let until = member.expires;
            self.joining -= 1;
            self.watch_silence(until);
            cx.answer(waiter, result);
        }
    }

    /// Answers a member's waiting SyncGroup, if there is one.
    pub(super) fn answer_sync(&mut self, cx: &mut Cx<'_>, id: &str, result: Result<Reply, Error>) {
        if let Some(member) = self.members.get_mut(id)
            && let Some(waiter) = member.syncing.take()
        {
            let until = member.expires;
            self.watch_silence(until);
            cx.answer(waiter, result);
        }
    }

    /// Takes a member out that has gone, and tells it so where it waits.
    pub(super) fn dismiss(&mut self, cx: &mut Cx<'_>, id: &str) {
        self.answer_join(cx, id, Err(Error::UnknownMember));
        self.answer_sync(cx, id, Err(Error::UnknownMember));
        self.remove_member(id);
    }
}
