//! ConsumerGroupHeartbeat: a member comes, stays, gives back and gets partitions, and leaves.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::draft::Draft;
use super::records::{Current, Metadata, Part, Partitions};
use super::{AWAY, ConsumerGroup, JOINING, LEAVING, Member, contains};
use crate::group::state::Group;
use crate::group::{Cx, Error, Record, Reply, Settings, Then, Waiter};
use crate::limits::MAX_GROUP_BYTES;

/// A ConsumerGroupHeartbeat request. What is not there has not changed.
#[derive(Debug, Default)]
pub struct ConsumerHeartbeat {
    /// The group.
    pub group: String,
    /// The member; where it may be empty, that of a new one.
    pub member_id: String,
    /// Its epoch; 0 to join, -1 to leave, -2 to leave for a while.
    pub epoch: i32,
    /// The static member's own name.
    pub instance: Option<String>,
    /// Where its client stands.
    pub rack: Option<String>,
    /// So long it may take to give partitions back, in milliseconds.
    pub rebalance_ms: Option<i32>,
    /// The topics that it reads.
    pub topics: Option<BTreeSet<String>>,
    /// The regular expression for the topics that it reads; empty where it has none any more.
    pub regex: Option<String>,
    /// The assignor that it wants.
    pub assignor: Option<String>,
    /// The partitions that it reads.
    pub owned: Option<Partitions>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
}

/// What a member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The member.
    pub member_id: String,
    /// Its epoch.
    pub epoch: i32,
    /// After so many milliseconds it is to come again.
    pub interval_ms: u64,
    /// What it may read; nothing where that is as it was.
    pub partitions: Option<Partitions>,
}

impl ConsumerHeartbeat {
    fn is_whole(&self) -> bool {
        let subscribes = self.topics.is_some() || self.regex.is_some();
        self.epoch == JOINING || (self.rebalance_ms.is_some() && subscribes && self.owned.is_some())
    }

    /// What the request contradicts itself in.
    pub(in crate::group) fn check(&self, settings: &Settings) -> Result<(), Error> {
        let empty = |text: &Option<String>| text.as_ref().is_some_and(String::is_empty);
        if empty(&self.instance) || empty(&self.rack) || self.member_id.is_empty() {
            return Err(Error::InvalidRequest);
        }
        let fits = match self.epoch {
            JOINING => {
                let subscribes = self.topics.is_some() || self.regex.is_some();
                self.rebalance_ms.is_some() && subscribes && self.owned.as_ref().is_some_and(Partitions::is_empty)
            }
            AWAY => self.instance.is_some(),
            epoch => epoch > 0 || epoch == LEAVING,
        };
        if !fits {
            return Err(Error::InvalidRequest);
        }
        match &self.assignor {
            Some(name) if settings.assignor(name).is_none() => Err(Error::UnsupportedAssignor),
            _ => Ok(()),
        }
    }

    /// What the member says of itself, of which `before` is known.
    fn metadata(&self, before: Option<&Member>) -> Metadata {
        let before = before.map(|member| member.metadata.clone()).unwrap_or_default();
        let regex = match &self.regex {
            Some(regex) => Some(regex.clone()).filter(|regex| !regex.is_empty()),
            None => before.regex,
        };
        Metadata {
            instance: self.instance.clone().or(before.instance),
            rack: self.rack.clone().or(before.rack),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            topics: self.topics.clone().unwrap_or(before.topics),
            regex,
            rebalance_ms: self.rebalance_ms.unwrap_or(before.rebalance_ms),
            assignor: self.assignor.clone().or(before.assignor),
            classic: None,
        }
    }
}

impl Group {
    /// A heartbeat of a member of the consumer protocol. It is answered when all that it changes is durable.
    pub(in crate::group) fn consumer_heartbeat(
        &mut self,
        cx: &mut Cx<'_>,
        waiter: Waiter,
        heartbeat: &ConsumerHeartbeat,
    ) {
        let leaves = heartbeat.epoch < JOINING;
        let outcome = if leaves { self.consumer_leaves(cx, heartbeat) } else { self.consumer_lives(cx, heartbeat) };
        match outcome {
            Ok((records, assigned)) => self.change(cx, records, waiter, Reply::Assigned(Box::new(assigned))),
            Err(error) => cx.answer(waiter, Err(error)),
        }
    }

    fn consumer_lives(&mut self, cx: &Cx<'_>, heartbeat: &ConsumerHeartbeat) -> Result<(Vec<Record>, Assigned), Error> {
        let id: Arc<str> = heartbeat.member_id.as_str().into();
        let (mut records, migrated) = match &self.consumer {
            Some(_) => (Vec::new(), None),
            None => {
                let (records, group) = self.upgraded(cx, heartbeat.epoch)?;
                (records, Some(group))
            }
        };
        let group = migrated.as_ref().or(self.consumer.as_deref()).expect("one of the two is there");
        let mut draft = Draft::of(group, cx.outside, cx.settings);
        let known = draft.member(&id).is_some();
        if !known && group.members.size() >= cx.settings.consumer_max_size {
            return Err(Error::MaxSizeReached);
        }
        admit(&mut draft, &id, heartbeat)?;
        let before = draft.member(&id).cloned();
        let metadata = heartbeat.metadata(before.as_deref());
        let is_new = before.as_ref().is_none_or(|before| before.metadata != metadata);
        if is_new && draft.state.bytes() + metadata.bytes() > MAX_GROUP_BYTES {
            return Err(Error::MaxSizeReached);
        }
        draft.advance(&id, metadata, heartbeat.owned.as_ref(), &self.watch)?;
        let usual = cx.settings.consumer_heartbeat_ms;
        let interval_ms = match draft.state.epoch > draft.state.target_epoch {
            // There is an assignment to come for sooner.
            true => self.watch.assignment_wait_ms(cx.now(), cx.settings).clamp(1, usual),
            false => usual,
        };
        let member = draft.member(&id).expect("it was led on").clone();
        let changed = before.is_none_or(|before| before.current.assigned != member.current.assigned);
        let assigned = Assigned {
            member_id: heartbeat.member_id.clone(),
            epoch: member.current.epoch,
            interval_ms,
            partitions: (heartbeat.is_whole() || changed).then(|| member.current.assigned.clone()),
        };
        records.extend(draft.parts.into_iter().map(|part| self.consumer_record(part)));
        if migrated.is_none() {
            self.watch.seen = Some(cx.outside.topics.version());
        }
        self.watch.keep_alive(cx.now(), cx.settings, &id, &member);
        Ok((records, assigned))
    }

    fn consumer_leaves(&self, cx: &Cx<'_>, heartbeat: &ConsumerHeartbeat) -> Result<(Vec<Record>, Assigned), Error> {
        let group = self.consumer.as_deref().ok_or(Error::GroupIdNotFound)?;
        let id = leaver(group, heartbeat)?;
        let left = Assigned {
            member_id: heartbeat.member_id.clone(),
            epoch: heartbeat.epoch,
            interval_ms: cx.settings.consumer_heartbeat_ms,
            partitions: None,
        };
        if heartbeat.epoch == LEAVING {
            tracing::debug!(group = &*self.id, member = &*id, "a member leaves");
            return Ok((self.without(cx, &[id]), left));
        }
        let before = group.members[&id].current.clone();
        let away = Current { epoch: AWAY, revoking: Partitions::new(), ..before };
        Ok((vec![self.consumer_record(Part::Current(id, Some(away)))], left))
    }

    /// Members whose time is up are taken out.
    pub(in crate::group) fn expire_consumers(&mut self, cx: &mut Cx<'_>) {
        let group = self.consumer.as_deref().expect("the group is one of the consumer protocol");
        let overdue = self.watch.overdue(cx.now(), cx.settings, group);
        if !overdue.is_empty() {
            tracing::info!(group = &*self.id, members = ?overdue, "members were silent, or did not give back, for too long");
            let records = self.without(cx, &overdue);
            self.append_change(cx, records, Then::Nothing);
        }
    }

    /// The records that take members out.
    pub(super) fn without(&self, cx: &Cx<'_>, ids: &[Arc<str>]) -> Vec<Record> {
        let group = self.consumer.as_deref().expect("only a group of the consumer protocol has such members");
        let mut draft = Draft::of(group, cx.outside, cx.settings);
        ids.iter().for_each(|id| draft.remove(id));
        if let Some(records) = self.downgraded(cx, &draft) {
            return records;
        }
        draft.members_left();
        draft.parts.into_iter().map(|part| self.consumer_record(part)).collect()
    }

    pub(super) fn consumer_record(&self, part: Part) -> Record {
        Record::Consumer { group: self.id.clone(), part }
    }
}

/// Whether a member may speak for itself, as which epochs and names it gives; a static one that is back takes its
/// place again.
fn admit(draft: &mut Draft<'_>, id: &Arc<str>, heartbeat: &ConsumerHeartbeat) -> Result<(), Error> {
    if let Some(instance) = &heartbeat.instance {
        let holder = draft.state.statics.get(instance).cloned();
        match holder {
            None if heartbeat.epoch == JOINING => return Ok(()),
            None => return Err(Error::UnknownMember),
            Some(holder) if holder == *id => {}
            Some(_) if heartbeat.epoch != JOINING => return Err(Error::FencedInstance),
            Some(holder) => {
                let member = draft.member(&holder).cloned();
                // A member of the classic protocol is replaced at once, as in that protocol.
                let gone = member.is_none_or(|member| member.is_classic() || member.current.epoch == AWAY);
                if !gone {
                    return Err(Error::UnreleasedInstance);
                }
                draft.replace(&holder, id);
                return Ok(());
            }
        }
    }
    match draft.member(id) {
        None if heartbeat.epoch == JOINING => Ok(()),
        None => Err(Error::UnknownMember),
        Some(member) => check_epoch(&member.current, heartbeat),
    }
}

/// A member may join again at any time. Else it knows its epoch, or, where the answer that told it was lost, the one
/// before, and reads nothing that is not its own.
fn check_epoch(current: &Current, heartbeat: &ConsumerHeartbeat) -> Result<(), Error> {
    if heartbeat.epoch == JOINING || heartbeat.epoch == current.epoch {
        return Ok(());
    }
    let own = heartbeat.owned.as_ref().is_some_and(|owned| {
        owned.iter().all(|(topic, numbers)| numbers.iter().all(|number| contains(&current.assigned, topic, *number)))
    });
    if heartbeat.epoch < current.epoch && heartbeat.epoch == current.previous_epoch && own {
        return Ok(());
    }
    Err(Error::FencedMemberEpoch)
}

/// The member that leaves.
fn leaver(group: &ConsumerGroup, heartbeat: &ConsumerHeartbeat) -> Result<Arc<str>, Error> {
    let id = match &heartbeat.instance {
        None => group.members.get_key_value(&*heartbeat.member_id).map(|(id, _)| id.clone()),
        Some(instance) => group.statics.get(instance).cloned(),
    };
    let id = id.ok_or(Error::UnknownMember)?;
    if *id == *heartbeat.member_id { Ok(id) } else { Err(Error::FencedInstance) }
}
