//! The way from one protocol to the other, while the members go on: up with the first member of the consumer protocol,
//! down when the last of them has gone.

use std::sync::Arc;

use super::classic::{by_id, by_name};
use super::draft::Draft;
use super::records::{ClassicMember, Current, MemberState, Metadata, Part};
use super::{ConsumerGroup, JOINING};
use crate::group::records::{Generation, GenerationMember};
use crate::group::state::{Group, State};
use crate::group::{Cx, Error, Record, subscription};

impl Group {
    /// The group as one of the consumer protocol, and the records that make it one. A member that does not come to join
    /// changes nothing.
    pub(super) fn upgraded(&self, cx: &Cx<'_>, epoch: i32) -> Result<(Vec<Record>, ConsumerGroup), Error> {
        let consumers = self.protocol_type.as_deref() == Some(subscription::CONSUMER);
        if epoch != JOINING {
            return Err(if consumers { Error::UnknownMember } else { Error::GroupIdNotFound });
        }
        let ended = self.recorded.then(|| Record::Group { group: self.id.clone(), value: None });
        if self.state == State::Empty {
            return Ok((ended.into_iter().collect(), ConsumerGroup::default()));
        }
        if !cx.settings.upgrade || !consumers || self.members.len() >= cx.settings.consumer_max_size {
            return Err(Error::GroupIdNotFound);
        }
        let parts = self.as_consumers(cx).ok_or(Error::GroupIdNotFound)?;
        let mut group = ConsumerGroup::default();
        parts.iter().for_each(|part| group.apply(part));
        tracing::info!(group = &*self.id, members = self.members.len(), "the group goes over to the consumer protocol");
        let records = parts.into_iter().map(|part| self.consumer_record(part));
        Ok((ended.into_iter().chain(records).collect(), group))
    }

    /// The members with what they have; nothing where one of them cannot be understood, or two have the same.
    fn as_consumers(&self, cx: &Cx<'_>) -> Option<Vec<Part>> {
        let mut parts = Vec::new();
        let mut taken = std::collections::BTreeSet::new();
        for (id, member) in &self.members {
            let id: Arc<str> = id.as_str().into();
            let said = subscription::parse(&member.protocols.first()?.1)?;
            let assigned = by_id(cx.outside, &subscription::parse_assignment(&member.assignment)?);
            let alone =
                assigned.iter().all(|(topic, numbers)| numbers.iter().all(|number| taken.insert((*topic, *number))));
            if !alone {
                return None;
            }
            let metadata = Metadata {
                instance: member.instance.clone(),
                rack: said.rack,
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                topics: said.topics,
                regex: None,
                rebalance_ms: i32::try_from(member.rebalance_ms).unwrap_or(i32::MAX),
                assignor: None,
                classic: Some(ClassicMember {
                    session_ms: i32::try_from(member.session_ms).unwrap_or(i32::MAX),
                    protocols: member.protocols.clone(),
                }),
            };
            let current = Current {
                epoch: self.generation,
                previous_epoch: self.generation,
                state: MemberState::Stable,
                assigned: assigned.clone(),
                revoking: Default::default(),
            };
            parts.push(Part::Member(id.clone(), Some(metadata)));
            parts.push(Part::Target(id.clone(), Some(assigned)));
            parts.push(Part::Current(id, Some(current)));
        }
        parts.push(Part::Epoch(Some((self.generation, 0))));
        parts.push(Part::TargetEpoch(Some(self.generation)));
        Some(parts)
    }

    /// The records with which the group goes back to the classic protocol, where a change leaves members of that
    /// protocol only.
    pub(super) fn downgraded(&self, cx: &Cx<'_>, draft: &Draft<'_>) -> Option<Vec<Record>> {
        let members = &draft.state.members;
        let classic = !members.is_empty() && members.values().all(|member| member.is_classic());
        if !cx.settings.downgrade || !classic || members.size() > cx.settings.max_size {
            return None;
        }
        let all = || members.values().filter_map(|member| member.metadata.classic.as_ref());
        let (first, _) = members.first()?;
        let mut known = all().next()?.protocols.iter().map(|(name, _)| name);
        let knows = |classic: &ClassicMember, name: &String| classic.protocols.iter().any(|(known, _)| known == name);
        let protocol = known.find(|name| all().all(|classic| knows(classic, name)))?.clone();
        let generation = Generation {
            protocol_type: subscription::CONSUMER.to_owned(),
            generation: draft.state.epoch,
            leader: Some(first.to_string()),
            since_ms: cx.now().wall_ms,
            members: members
                .iter()
                .filter_map(|(id, member)| {
                    let classic = member.metadata.classic.as_ref()?;
                    let said = classic.protocols.iter().find(|(name, _)| *name == protocol)?.1.clone();
                    Some(GenerationMember {
                        member_id: id.to_string(),
                        instance: member.metadata.instance.clone(),
                        client_id: member.metadata.client_id.clone(),
                        client_host: member.metadata.client_host.clone(),
                        rebalance_ms: member.metadata.rebalance_ms,
                        session_ms: classic.session_ms,
                        assignment: by_name(cx.outside, &member.current.assigned, subscription::version(&said)),
                        subscription: said,
                    })
                })
                .collect(),
            protocol: Some(protocol),
        };
        tracing::info!(group = &*self.id, members = members.size(), "the group goes back to the classic protocol");
        let parts = draft.parts.iter().cloned().chain(draft.state.last_parts());
        let mut records: Vec<Record> = parts.map(|part| self.consumer_record(part)).collect();
        records.push(Record::Group { group: self.id.clone(), value: Some(generation) });
        Some(records)
    }
}

impl ConsumerGroup {
    /// The records that end the group.
    pub(in crate::group) fn last_parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        for id in self.members.keys() {
            parts.push(Part::Current(id.clone(), None));
        }
        parts.extend(self.targets.keys().map(|id| Part::Target(id.clone(), None)));
        parts.extend(self.members.keys().map(|id| Part::Member(id.clone(), None)));
        parts.extend(self.regexes.keys().map(|regex| Part::Regex(regex.clone(), None)));
        parts.push(Part::TargetEpoch(None));
        parts.push(Part::Epoch(None));
        parts
    }
}
