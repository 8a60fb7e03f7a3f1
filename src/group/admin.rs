//! What administrators ask: which groups there are, what they are, and that one be deleted.

use std::sync::Arc;

use super::ask::{Described, DescribedMember, Listed, Then};
use super::records::Committed;
use super::state::{Group, State};
use super::{Cx, Error, Record, Reply, Waiter};

/// Whether a list of groups in these states, in small letters, has the group; without states all are asked for.
pub(super) fn is_listed(group: &Group, states: &[String]) -> bool {
    states.is_empty() || states.iter().any(|state| group.state.name().eq_ignore_ascii_case(state.trim()))
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
        Listed {
            group: self.id.to_string(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.state,
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
        if self.state != State::Empty || self.in_flight > 0 {
            return cx.answer(waiter, Err(Error::NonEmptyGroup));
        }
        let records = self.last_records();
        self.write(cx, records, Then::Answer(waiter, Reply::Done));
    }

    /// The records that end the group and its offsets.
    pub(super) fn last_records(&self) -> Vec<Record> {
        let offsets = self
            .offsets
            .iter()
            .flat_map(|(topic, partitions)| partitions.keys().map(move |partition| self.forgotten(topic, *partition)));
        let mut records: Vec<Record> = offsets.collect();
        records.push(Record::Group { group: self.id.clone(), value: None });
        records
    }
}
