//! OffsetCommit, OffsetFetch and OffsetDelete: how far a group has read.

use std::sync::Arc;

use super::ask::{Commit, CommittedTopic, Then};
use super::records::{Committed, Record};
use super::state::{Group, State};
use super::{Cx, Error, Reply, Waiter, subscription};

/// What a committed offset takes beyond its texts, for the budget.
const OFFSET_OVERHEAD: usize = 96;

fn cost(committed: &Committed) -> usize {
    OFFSET_OVERHEAD + committed.metadata.len()
}

impl Group {
    /// Offsets are to be kept. They are there, and the client is answered, when they are durable.
    pub(super) fn commit(&mut self, cx: &mut Cx<'_>, waiter: Waiter, commit: Commit) {
        if let Err(error) = self.check_commit(&commit) {
            return cx.answer(waiter, Err(error));
        }
        if matches!(self.state, State::Stable | State::PreparingRebalance) {
            self.keep_alive(cx.now(), &commit.identity.member_id);
        }
        if commit.offsets.is_empty() {
            return cx.answer(waiter, Ok(Reply::Done));
        }
        let group = &self.id;
        let record =
            |(topic, partition, value)| Record::Offset { group: group.clone(), topic, partition, value: Some(value) };
        let records = commit.offsets.into_iter().map(record).collect();
        self.write(cx, records, Then::Answer(waiter, Reply::Done));
    }

    /// Whether the group keeps an offset of every partition of a commit.
    pub(super) fn keeps(&self, commit: &Commit) -> bool {
        let known = |topic: &Arc<str>, partition: &i32| {
            self.offsets.get(topic).is_some_and(|partitions| partitions.contains_key(partition))
        };
        commit.offsets.iter().all(|(topic, partition, _)| known(topic, partition))
    }

    fn check_commit(&self, commit: &Commit) -> Result<(), Error> {
        let identity = &commit.identity;
        if let Some(group) = &self.consumer {
            let empty = group.is_empty() && identity.generation < 0;
            return if empty { Ok(()) } else { group.check_commit(identity, commit.is_modern) };
        }
        if identity.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if identity.generation < 0 && identity.member_id.is_empty() && identity.instance.is_none() {
            // Whoever is no member must not meddle with those who are.
            return Err(Error::UnknownMember);
        }
        self.check_member(&identity.member_id, identity.instance.as_deref())?;
        if identity.generation != self.generation {
            return Err(Error::IllegalGeneration);
        }
        // The member commits for partitions that it may not have any more in this generation.
        if self.state == State::CompletingRebalance { Err(Error::RebalanceInProgress) } else { Ok(()) }
    }

    /// Whether a member may ask for offsets. Who does not say that it is one may always.
    pub(super) fn check_fetch(&self, member: Option<&(String, i32)>) -> Result<(), Error> {
        match (&self.consumer, member) {
            (Some(group), Some((id, epoch))) => group.check_epoch(id, *epoch),
            _ => Ok(()),
        }
    }

    /// Offsets are to be forgotten, of topics that the group does not read.
    pub(super) fn delete_offsets(&mut self, cx: &mut Cx<'_>, waiter: Waiter, topics: Vec<(String, Vec<i32>)>) {
        let consumers = self.consumer.is_some() || self.protocol_type.as_deref() == Some(subscription::CONSUMER);
        if self.state != State::Empty && !consumers {
            return cx.answer(waiter, Err(Error::NonEmptyGroup));
        }
        let mut records = Vec::new();
        let mut results = Vec::with_capacity(topics.len());
        for (topic, partitions) in topics {
            if self.reads(&topic) {
                results.push(Err(Error::SubscribedToTopic));
                continue;
            }
            results.push(Ok(()));
            let Some((topic, known)) = self.offsets.get_key_value(&*topic) else { continue };
            let known = partitions.into_iter().filter(|partition| known.contains_key(partition));
            records.extend(known.map(|partition| self.forgotten(topic, partition)));
        }
        let reply = Reply::OffsetsDeleted(results);
        if records.is_empty() {
            return cx.answer(waiter, Ok(reply));
        }
        self.write(cx, records, Then::Answer(waiter, reply));
    }

    /// The offsets of topics that are gone are forgotten.
    pub(super) fn forget_topics(&mut self, cx: &mut Cx<'_>, gone: impl Fn(&str) -> bool) {
        let mut records = Vec::new();
        for (topic, partitions) in self.offsets.iter().filter(|(topic, _)| gone(topic)) {
            records.extend(partitions.keys().map(|partition| self.forgotten(topic, *partition)));
        }
        self.write(cx, records, Then::Nothing);
    }

    /// The record that ends an offset.
    pub(super) fn forgotten(&self, topic: &Arc<str>, partition: i32) -> Record {
        Record::Offset { group: self.id.clone(), topic: topic.clone(), partition, value: None }
    }

    pub(super) fn set_offset(&mut self, topic: Arc<str>, partition: i32, value: Option<Committed>) {
        match value {
            Some(value) => {
                self.offsets_bytes += cost(&value);
                let partitions = self.offsets.entry(topic).or_insert_with_key(|topic| {
                    self.offsets_bytes += OFFSET_OVERHEAD + topic.len();
                    Default::default()
                });
                if let Some(before) = partitions.insert(partition, value) {
                    self.offsets_bytes -= cost(&before);
                }
            }
            None => {
                let Some(partitions) = self.offsets.get_mut(&topic) else { return };
                if let Some(before) = partitions.remove(&partition) {
                    self.offsets_bytes -= cost(&before);
                }
                if partitions.is_empty() {
                    self.offsets.remove(&topic);
                    self.offsets_bytes -= OFFSET_OVERHEAD + topic.len();
                }
            }
        }
    }
}

/// The offsets of a group, which need not be there: of the partitions that are asked for, or all.
pub(super) fn fetch(group: Option<&Group>, topics: Option<Vec<(String, Vec<i32>)>>) -> Vec<CommittedTopic> {
    let Some(topics) = topics else {
        let Some(group) = group else { return Vec::new() };
        let known = group.offsets.iter();
        return known
            .map(|(topic, partitions)| {
                (topic.to_string(), partitions.iter().map(|(number, kept)| (*number, Some(kept.clone()))).collect())
            })
            .collect();
    };
    let asked = topics.into_iter();
    asked
        .map(|(topic, partitions)| {
            let known = group.and_then(|group| group.offsets.get(&*topic));
            let find = |number| (number, known.and_then(|known| known.get(&number)).cloned());
            let found = partitions.into_iter().map(find).collect();
            (topic, found)
        })
        .collect()
}
