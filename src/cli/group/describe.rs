//! `ringlog group describe`, and what a group is like.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, Bytes};
use clap::Args;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    ApiKey, ConsumerGroupDescribeRequest, ConsumerProtocolAssignment, DescribeGroupsRequest, GroupId,
    OffsetFetchRequest,
};
use kafka_protocol::protocol::Decodable;
use serde_json::Value;

use super::super::client::{Cluster, END, Failure, Partition, Shown, check, edges, shown, text};

/// The arguments of `ringlog group describe`.
#[derive(Debug, Args)]
#[command(after_help = "\
`committed` is the offset that the group goes on from, `end` the one that the partition's next record gets, `lag` what lies
between them.")]
pub struct DescribeArgs {
    /// Name of the group
    #[arg(value_name = "GROUP")]
    name: String,
    /// Show its members instead, with the partitions of each
    #[arg(long)]
    members: bool,
}

/// What a group is like, of whichever protocol.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) state: String,
    pub(super) members: Vec<Member>,
}

#[derive(Debug)]
pub(super) struct Member {
    id: String,
    instance: Option<String>,
    client: String,
    host: String,
    partitions: BTreeSet<Partition>,
}

/// Shows the group's offsets, or its members.
///
/// # Errors
/// A group that is not there (GROUP_ID_NOT_FOUND), other refusals, and as [`Cluster::any`].
pub(super) fn run(cluster: &mut Cluster, args: &DescribeArgs) -> Result<Shown, Failure> {
    let group = cluster.insist(|cluster| find(cluster, &args.name))?;
    if args.members {
        return Ok(Shown {
            rows: group.members.iter().map(|member| row(&group, member)).collect(),
            failures: Vec::new(),
        });
    }
    let committed = cluster.insist(|cluster| committed(cluster, &args.name))?;
    let mut owners: BTreeMap<&Partition, &Member> = BTreeMap::new();
    for member in &group.members {
        owners.extend(member.partitions.iter().map(|partition| (partition, member)));
    }
    let all: BTreeSet<&Partition> = committed.keys().chain(owners.keys().copied()).collect();
    let mut shown_rows = Shown::default();
    // By topic: one that was deleted has offsets left, and must not hide the lag in the others.
    let topics: BTreeSet<&str> = all.iter().map(|(topic, _)| topic.as_str()).collect();
    for topic in topics {
        let of_topic: Vec<&Partition> = all.iter().copied().filter(|(name, _)| name == topic).collect();
        let ends = match edges(cluster, of_topic.iter().copied(), END) {
            Ok(ends) => ends,
            Err(failure @ Failure::Refused { .. }) => {
                shown_rows.failures.push(failure);
                BTreeMap::new()
            }
            Err(other) => return Err(other),
        };
        for partition in of_topic {
            let (at, end) = (committed.get(partition).copied(), ends.get(partition).copied());
            let lag = at.zip(end).map(|(at, end)| (end - at).max(0));
            let owner = owners.get(partition);
            shown_rows.rows.push(vec![
                ("topic", topic.into()),
                ("partition", partition.1.into()),
                ("committed", at.into()),
                ("end", end.into()),
                ("lag", lag.into()),
                ("member", owner.map(|member| member.id.as_str()).into()),
                ("client", owner.map(|member| member.client.as_str()).into()),
                ("host", owner.map(|member| member.host.as_str()).into()),
            ]);
        }
    }
    Ok(shown_rows)
}

fn row(group: &Group, member: &Member) -> Vec<(&'static str, Value)> {
    vec![
        ("member", member.id.as_str().into()),
        ("instance", member.instance.as_deref().into()),
        ("client", member.client.as_str().into()),
        ("host", member.host.as_str().into()),
        ("partitions", member.partitions.iter().map(shown).collect::<Vec<_>>().into()),
        ("group_state", group.state.as_str().into()),
    ]
}

/// What its coordinator says of a group: asked as one of the consumer protocol first, as one of the classic protocol
/// where it is none of that.
///
/// # Errors
/// GROUP_ID_NOT_FOUND where there is none, other refusals, and as [`Cluster::any`].
pub(super) fn find(cluster: &mut Cluster, name: &str) -> Result<Group, Failure> {
    let coordinator = cluster.coordinator(name)?;
    if cluster.answers(ApiKey::ConsumerGroupDescribe)? {
        match of_consumer_protocol(cluster, coordinator, name) {
            Err(failure) if failure.code() == Some(ResponseError::GroupIdNotFound) => {}
            result => return result,
        }
    }
    of_classic_protocol(cluster, coordinator, name)
}

fn of_consumer_protocol(cluster: &mut Cluster, coordinator: i32, name: &str) -> Result<Group, Failure> {
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(name))]);
    let answer = cluster.at(coordinator, &(0..=1), &request)?;
    let group = answer.groups.into_iter().next().ok_or_else(|| nothing_of(name))?;
    check(group.error_code, group.error_message.as_deref(), || format!("group {name}"))?;
    let members = group.members.into_iter().map(|member| Member {
        id: member.member_id.to_string(),
        instance: member.instance_id.map(|id| id.to_string()),
        client: member.client_id.to_string(),
        host: member.client_host.to_string(),
        partitions: member
            .assignment
            .topic_partitions
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|number| (topic.topic_name.0.to_string(), *number)))
            .collect(),
    });
    Ok(Group { state: group.group_state.to_string(), members: members.collect() })
}

fn of_classic_protocol(cluster: &mut Cluster, coordinator: i32, name: &str) -> Result<Group, Failure> {
    let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(name))]);
    let answer = cluster.at(coordinator, &(0..=6), &request)?;
    let group = answer.groups.into_iter().next().ok_or_else(|| nothing_of(name))?;
    check(group.error_code, group.error_message.as_deref(), || format!("group {name}"))?;
    // Before version 6 a group that is not there is a dead one.
    if group.group_state.as_str() == "Dead" {
        check(ResponseError::GroupIdNotFound.code(), None, || format!("group {name}"))?;
    }
    let consumers = group.protocol_type.as_str() == "consumer";
    let mut members = Vec::new();
    for member in group.members {
        // What other kinds of groups, such as Connect's, give to their members is known to them alone.
        let partitions = if consumers { assigned(&member.member_assignment)? } else { BTreeSet::new() };
        members.push(Member {
            id: member.member_id.to_string(),
            instance: member.group_instance_id.map(|id| id.to_string()),
            client: member.client_id.to_string(),
            host: member.client_host.to_string(),
            partitions,
        });
    }
    Ok(Group { state: group.group_state.to_string(), members })
}

/// The partitions in an assignment of the classic protocol; none while the group rebalances.
fn assigned(bytes: &Bytes) -> Result<BTreeSet<Partition>, Failure> {
    let mut bytes = bytes.clone();
    if bytes.len() < 2 {
        return Ok(BTreeSet::new());
    }
    let damaged = |error| Failure::Failed(format!("a member's assignment cannot be read: {error:#}"));
    // Later versions add fields behind those of the ones before.
    let version = bytes.get_i16().clamp(0, 3);
    let assignment = ConsumerProtocolAssignment::decode(&mut bytes, version).map_err(damaged)?;
    Ok(assignment
        .assigned_partitions
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|number| (topic.topic.0.to_string(), *number)))
        .collect())
}

fn nothing_of(group: &str) -> Failure {
    Failure::Unreachable(format!("the coordinator says nothing of group {group}"))
}

/// The offsets that a group has committed.
///
/// # Errors
/// Refusals, and as [`Cluster::any`].
pub(super) fn committed(cluster: &mut Cluster, name: &str) -> Result<BTreeMap<Partition, i64>, Failure> {
    let coordinator = cluster.coordinator(name)?;
    let request = OffsetFetchRequest::default().with_group_id(GroupId(text(name))).with_topics(None);
    // All topics can be asked for from version 2 on; version 8 begins to ask for several groups.
    let answer = cluster.at(coordinator, &(2..=7), &request)?;
    check(answer.error_code, None, || format!("group {name}"))?;
    let mut offsets = BTreeMap::new();
    for topic in answer.topics {
        for of in topic.partitions {
            let partition = (topic.name.0.to_string(), of.partition_index);
            check(of.error_code, None, || format!("group {name}, {}", shown(&partition)))?;
            if of.committed_offset >= 0 {
                offsets.insert(partition, of.committed_offset);
            }
        }
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
    use kafka_protocol::protocol::Encodable;

    use super::super::super::client::topic_name;
    use super::*;

    #[test]
    fn assignments_of_every_version_are_read() {
        let partitions = TopicPartition::default().with_topic(topic_name("a")).with_partitions(vec![0, 2]);
        let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(vec![partitions]);
        for version in [0i16, 3, 9] {
            let mut bytes = BytesMut::new();
            bytes.put_i16(version);
            assignment.encode(&mut bytes, version.min(3)).unwrap();
            let read = assigned(&bytes.freeze()).unwrap();
            assert_eq!(read.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 0), ("a".to_owned(), 2)]);
        }
        assert!(assigned(&Bytes::new()).unwrap().is_empty(), "a member that has nothing yet");
        assert!(assigned(&Bytes::from_static(&[0, 0, 0, 0, 0, 9])).is_err());
    }
}
