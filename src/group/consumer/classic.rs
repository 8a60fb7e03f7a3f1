//! Members that speak the classic protocol in a group of the consumer protocol: they come again when there is something
//! new for them, and what they are assigned they hear in the form that they know.

use std::sync::Arc;

use bytes::Bytes;

use super::draft::Draft;
use super::records::{ClassicMember, MemberState, Metadata, Partitions};
use super::{ConsumerGroup, Member, Timers};
use crate::group::ask::{Identity, Join, Joined, Leaver, Sync, Synced};
use crate::group::state::Group;
use crate::group::{Cx, Error, Outside, Record, Reply, Waiter, subscription};
use crate::limits::MAX_GROUP_BYTES;

impl Group {
    /// JoinGroup.
    pub(in crate::group) fn classic_joins(&mut self, cx: &mut Cx<'_>, waiter: Waiter, join: Join) {
        let id = if join.member_id.is_empty() { &join.fresh_id } else { &join.member_id };
        let id: Arc<str> = id.as_str().into();
        match self.classic_joined(cx, &id, &join) {
            Ok((records, reply)) => {
                if matches!(reply, Reply::Joined(_)) {
                    let session = cx.now().mono.plus_millis(join.session_ms);
                    let sync = Some(cx.now().mono.plus_millis(join.rebalance_ms));
                    self.watch.timers.insert(id.clone(), Timers { session, revoke: None, join: None, sync });
                    self.watch.set(&id, |_| {});
                }
                self.change(cx, records, waiter, reply);
            }
            Err(error) => cx.answer(waiter, Err(error)),
        }
    }

    fn classic_joined(&self, cx: &Cx<'_>, id: &Arc<str>, join: &Join) -> Result<(Vec<Record>, Reply), Error> {
        let group = self.consumer.as_deref().expect("the group is one of the consumer protocol");
        if !group.members.contains_key(id) && group.members.size() >= cx.settings.consumer_max_size {
            return Err(Error::MaxSizeReached);
        }
        if !group.supports(join) {
            return Err(Error::InconsistentProtocol);
        }
        if join.member_id.is_empty() && join.id_required && join.instance.is_none() {
            return Ok((Vec::new(), Reply::IdRequired(join.fresh_id.clone())));
        }
        let said = subscription::parse(&join.protocols[0].1).ok_or(Error::InconsistentProtocol)?;
        let owned = by_id(cx.outside, &said.owned);
        let mut draft = Draft::of(group, cx.outside, cx.settings);
        if let Some(instance) = &join.instance {
            match draft.state.statics.get(instance).cloned() {
                Some(holder) if holder == *id => {}
                Some(holder) if join.member_id.is_empty() => draft.replace(&holder, id),
                Some(_) => return Err(Error::FencedInstance),
                None if join.member_id.is_empty() => {}
                None => return Err(Error::UnknownMember),
            }
        }
        let before = draft.member(id).map(|member| member.metadata.clone()).unwrap_or_default();
        let protocols = join.protocols.clone();
        let metadata = Metadata {
            instance: join.instance.clone().or(before.instance),
            rack: said.rack.or(before.rack),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            topics: said.topics,
            regex: None,
            rebalance_ms: millis(join.rebalance_ms),
            assignor: before.assignor,
            classic: Some(ClassicMember { session_ms: millis(join.session_ms), protocols }),
        };
        if draft.state.bytes() + metadata.bytes() > MAX_GROUP_BYTES {
            return Err(Error::MaxSizeReached);
        }
        draft.advance(id, metadata, Some(&owned), &self.watch)?;
        let joined = Joined {
            generation: draft.member(id).expect("it was led on").current.epoch,
            protocol_type: Some(subscription::CONSUMER.to_owned()),
            protocol: Some(join.protocols[0].0.clone()),
            // The coordinator assigns: nobody is told that it leads.
            leader: String::new(),
            member_id: id.to_string(),
            skip_assignment: false,
            members: Vec::new(),
        };
        // It may have taken the place of the last member of the consumer protocol.
        let records = self
            .downgraded(cx, &draft)
            .unwrap_or_else(|| draft.parts.into_iter().map(|part| self.consumer_record(part)).collect());
        Ok((records, Reply::Joined(Box::new(joined))))
    }

    /// SyncGroup.
    pub(in crate::group) fn classic_syncs(&mut self, cx: &mut Cx<'_>, waiter: Waiter, sync: &Sync) {
        let result = self.classic_synced(cx, sync);
        cx.answer_durable(waiter, result.map(Reply::Synced));
    }

    fn classic_synced(&mut self, cx: &Cx<'_>, sync: &Sync) -> Result<Synced, Error> {
        let group = self.consumer.as_deref().expect("the group is one of the consumer protocol");
        let (id, member) = group.classic_member(&sync.identity)?;
        let classic = member.metadata.classic.as_ref().expect("it speaks the classic protocol");
        let protocol = &classic.protocols[0];
        let differs = |said: &Option<String>, known: &str| said.as_deref().is_some_and(|said| said != known);
        if differs(&sync.protocol_type, subscription::CONSUMER) || differs(&sync.protocol, &protocol.0) {
            return Err(Error::InconsistentProtocol);
        }
        // One that is to give back hears so only from its assignment.
        let behind = group.is_ahead_of(&member, self.watch.assignment_wait_ms(cx.now(), cx.settings));
        if behind && member.current.state != MemberState::UnrevokedPartitions {
            self.watch.await_join(cx, &id, &member);
            return Err(Error::RebalanceInProgress);
        }
        let assignment = by_name(cx.outside, &member.current.assigned, subscription::version(&protocol.1));
        self.watch.set(&id, |timers| timers.sync = None);
        self.watch.keep_alive(cx.now(), cx.settings, &id, &member);
        Ok(Synced { protocol_type: sync.protocol_type.clone(), protocol: sync.protocol.clone(), assignment })
    }

    /// Heartbeat: whoever is behind the group, must give back, or can get what it waits for, is to join again.
    pub(in crate::group) fn classic_lives(&mut self, cx: &Cx<'_>, identity: &Identity) -> Result<(), Error> {
        let group = self.consumer.as_deref().expect("the group is one of the consumer protocol");
        let (id, member) = group.classic_member(identity)?;
        let behind = group.is_ahead_of(&member, self.watch.assignment_wait_ms(cx.now(), cx.settings))
            || match member.current.state {
                MemberState::Stable => false,
                MemberState::UnrevokedPartitions => true,
                MemberState::UnreleasedPartitions => !group.waits_for_others(&id, &member),
            };
        self.watch.keep_alive(cx.now(), cx.settings, &id, &member);
        if !behind {
            return Ok(());
        }
        self.watch.await_join(cx, &id, &member);
        Err(Error::RebalanceInProgress)
    }

    /// LeaveGroup.
    pub(in crate::group) fn classic_leaves(&mut self, cx: &mut Cx<'_>, waiter: Waiter, leavers: &[Leaver]) {
        let group = self.consumer.as_deref().expect("the group is one of the consumer protocol");
        let mut gone: Vec<Arc<str>> = Vec::new();
        let mut results = Vec::with_capacity(leavers.len());
        for leaver in leavers {
            let result = group
                .classic_leaver(leaver)
                .and_then(|id| if gone.contains(&id) { Err(Error::UnknownMember) } else { Ok(id) });
            results.push(result.map(|id| gone.push(id)));
        }
        let records = if gone.is_empty() { Vec::new() } else { self.without(cx, &gone) };
        self.change(cx, records, waiter, Reply::Left(results));
    }
}

impl super::Watch {
    /// From now on it is waited for that a member joins again.
    fn await_join(&mut self, cx: &Cx<'_>, id: &str, member: &Member) {
        self.set(id, |timers| {
            timers.join.get_or_insert(cx.now().mono.plus_millis(member.rebalance_ms()));
        });
    }
}

impl ConsumerGroup {
    /// Whether a member of the classic protocol can be one of the group: of its protocols there is one that all such
    /// members know.
    fn supports(&self, join: &Join) -> bool {
        let classics = || self.members.values().filter_map(|member| member.metadata.classic.as_ref());
        let known = |name: &str| classics().all(|classic| classic.protocols.iter().any(|(known, _)| known == name));
        join.protocol_type == subscription::CONSUMER && join.protocols.iter().any(|(name, _)| known(name))
    }

    /// The member that speaks, if it is who it says and may.
    fn classic_member(&self, identity: &Identity) -> Result<(Arc<str>, Arc<Member>), Error> {
        let id = match &identity.instance {
            Some(instance) => match self.statics.get(instance) {
                Some(id) if **id == *identity.member_id => id,
                Some(_) => return Err(Error::FencedInstance),
                None => return Err(Error::UnknownMember),
            },
            None => match self.members.get_key_value(&*identity.member_id) {
                Some((id, _)) => id,
                None => return Err(Error::UnknownMember),
            },
        };
        let member = self.members.get(id).filter(|member| member.is_classic()).ok_or(Error::UnknownMember)?;
        if member.current.epoch != identity.generation {
            return Err(Error::IllegalGeneration);
        }
        Ok((id.clone(), member.clone()))
    }

    fn classic_leaver(&self, leaver: &Leaver) -> Result<Arc<str>, Error> {
        let id = match &leaver.instance {
            Some(instance) => self.statics.get(instance).cloned().ok_or(Error::UnknownMember)?,
            None => Arc::from(leaver.member_id.as_str()),
        };
        if leaver.instance.is_some() && !leaver.member_id.is_empty() && *id != *leaver.member_id {
            return Err(Error::FencedInstance);
        }
        self.members.get(&id).filter(|member| member.is_classic()).map(|_| id.clone()).ok_or(Error::UnknownMember)
    }

    /// Whether a member has something new to come for: an assignment, or one that it may have made because the group
    /// need not wait with it any more.
    fn is_ahead_of(&self, member: &Member, wait_ms: u64) -> bool {
        member.current.epoch < self.target_epoch || (wait_ms == 0 && member.current.epoch < self.epoch)
    }

    /// Whether others still have something that a member is to get.
    fn waits_for_others(&self, id: &str, member: &Member) -> bool {
        let Some(target) = self.targets.get(id) else { return false };
        target.iter().any(|(topic, numbers)| {
            numbers.iter().any(|number| {
                let missing = !super::contains(&member.current.assigned, topic, *number);
                missing && self.owners.contains_key(&(*topic, *number))
            })
        })
    }
}

fn millis(millis: u64) -> i32 {
    i32::try_from(millis).unwrap_or(i32::MAX)
}

/// Partitions of topics that are named, as far as there are such topics.
pub(super) fn by_id(outside: Outside<'_>, named: &[(String, Vec<i32>)]) -> Partitions {
    let mut partitions = Partitions::new();
    for (name, numbers) in named {
        if let Some(topic) = outside.topics.by_name(name) {
            partitions.entry(topic.id).or_default().extend(numbers.iter().copied());
        }
    }
    partitions.retain(|_, numbers| !numbers.is_empty());
    partitions
}

/// An assignment as a client of the classic protocol reads it.
pub(super) fn by_name(outside: Outside<'_>, partitions: &Partitions, version: i16) -> Bytes {
    let named = partitions.iter().filter_map(|(id, numbers)| {
        let topic = outside.topics.by_id(*id)?;
        Some((topic.name, numbers.iter().copied().collect()))
    });
    subscription::assignment(version, &named.collect::<Vec<(Arc<str>, Vec<i32>)>>())
}
