//! What administrators ask: which groups there are, what they are, and that one be deleted.

use std::sync::Arc;

use super::ask::{Described, DescribedMember, Listed, Then};
use super::records::Committed;
use super::state::{Group, State};
use super::{Cx, Error, Record, Reply, Waiter, subscription};

/// The types of groups, by Kafka's names.
const CLASSIC: &str = "classic";
const CONSUMER: &str = "consumer";

/// Whether a list of groups in these states and of these types has the group; without any, all are asked for.
pub(super) fn is_listed(group: &Group, states: &[String], types: &[String]) -> bool {
    let group = group.list();
    let asked = |names: &[String], name: &str| {
        names.is_empty() || names.iter().any(|asked| asked.trim().eq_ignore_ascii_case(name))
    };
    asked(states, group.state) && asked(types, group.group_type)
}

/// All about a group, with how far it has read.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// Its id.
    pub group: Arc<str>,
    /// Its state and its members.
    pub described: Described,
    /// Its committed offsets, by topic and partition.
    pub offsets: Vec<(Arc<str>, i32, Committed)>,
}

impl Group {
    /// All about the group, with its offsets.
    pub(super) fn survey(&self) -> Surveyed {
        let offsets = self.offsets.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, committed)| (topic.clone(), *partition, committed.clone()))
        });
        Surveyed { group: self.id.clone(), described: self.describe(), offsets: offsets.collect() }
    }

    /// The group in a list.
    pub(super) fn list(&self) -> Listed {
        let group = self.id.to_string();
        match &self.consumer {
            Some(consumers) => Listed {
                group,
                protocol_type: subscription::CONSUMER.to_owned(),
                state: consumers.state(),
                group_type: CONSUMER,
            },
            None => Listed {
                group,
                protocol_type: self.protocol_type.clone().unwrap_or_default(),
                state: self.state.name(),
                group_type: CLASSIC,
            },
        }
    }

    /// All about the group. What members say and have is that of a stable generation.
    pub(super) fn describe(&self) -> Described {
        let stable = self.state == State::Stable;
        let protocol = self.protocol.clone().filter(|_| stable).unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| DescribedMember {
            member_id: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if stable { member.metadata(&protocol) } else { Default::default() },
            assignment: if stable { member.assignment.clone() } else { Default::default() },
        });
        Described {
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol,
        }
    }

    /// The group is to be forgotten with all its offsets.
    pub(super) fn delete(&mut self, cx: &mut Cx<'_>, waiter: Waiter) {
        // A group with a commit on its way is in use: what that commit keeps would outlive the group.
        let empty = self.state == State::Empty && self.consumer.as_ref().is_none_or(|group| group.is_empty());
        if !empty || self.in_flight > 0 {
            return cx.answer(waiter, Err(Error::NonEmptyGroup));
        }
        let offsets = self.last_offsets();
        let answer = Then::Answer(waiter, Reply::Done);
        if self.consumer.is_none() {
            return self.write(cx, offsets.into_iter().chain(self.end_records()).collect(), answer);
        }
        // Should the log take the first only, the group is there with its offsets, and can be deleted again.
        if offsets.is_empty() {
            return self.append_change(cx, self.end_records(), answer);
        }
        self.append_change(cx, self.end_records(), Then::Nothing);
        self.write(cx, offsets, answer);
    }

    /// The records that end all offsets.
    fn last_offsets(&self) -> Vec<Record> {
        let offsets = self
            .offsets
            .iter()
            .flat_map(|(topic, partitions)| partitions.keys().map(move |partition| self.forgotten(topic, *partition)));
        offsets.collect()
    }

    /// The records that end the group itself.
    pub(super) fn end_records(&self) -> Vec<Record> {
        match &self.consumer {
            Some(consumers) => consumers
                .last_parts()
                .into_iter()
                .map(|part| Record::Consumer { group: self.id.clone(), part })
                .collect(),
            None => vec![Record::Group { group: self.id.clone(), value: None }],
        }
    }
}
