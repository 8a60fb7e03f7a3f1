//! Offsets of partitions, asked of their leaders.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest};

use super::cluster::{Cluster, topic_name};
use super::failure::{Failure, check};

/// A partition: its topic's name and its number.
pub type Partition = (String, i32);

/// ListOffsets takes it for the end of a partition.
pub const END: i64 = -1;
/// ListOffsets takes it for the first offset of a partition.
pub const BEGIN: i64 = -2;

/// What a topic's metadata refuses.
///
/// # Errors
/// The topic's error, such as UNKNOWN_TOPIC_OR_PARTITION.
pub fn checked(topic: &MetadataResponseTopic) -> Result<(String, &MetadataResponseTopic), Failure> {
    let name = topic.name.as_ref().map(|name| name.0.to_string()).unwrap_or_default();
    check(topic.error_code, None, || format!("topic {name}"))?;
    Ok((name, topic))
}

/// The partitions of one topic, at least one, with their leaders, in order; a partition without a leader has none.
///
/// # Errors
/// The topic's error, and as [`Cluster::metadata`].
pub fn leaders(cluster: &mut Cluster, topic: &str) -> Result<BTreeMap<i32, Option<i32>>, Failure> {
    let answer = cluster.metadata(Some(&[topic]))?;
    let unknown = || Failure::Unreachable(format!("the broker says nothing of topic {topic}"));
    let (_, topic) = checked(answer.topics.first().ok_or_else(unknown)?)?;
    if topic.partitions.is_empty() {
        return Err(unknown());
    }
    Ok(topic.partitions.iter().map(|of| (of.partition_index, led(of.leader_id))).collect())
}

fn led(broker: BrokerId) -> Option<i32> {
    (broker.0 >= 0).then_some(broker.0)
}

/// The offset in each partition of the first record whose time is at least the given one, in milliseconds since the
/// Unix epoch, or what [`BEGIN`] and [`END`] stand for; `None` where no record is as new. Leaders that move are followed.
///
/// # Errors
/// The first partition's refusal, and as [`Cluster::any`].
pub fn look_up(
    cluster: &mut Cluster,
    wanted: &BTreeMap<Partition, i64>,
) -> Result<BTreeMap<Partition, Option<i64>>, Failure> {
    cluster.insist(|cluster| once(cluster, wanted))
}

fn once(cluster: &mut Cluster, wanted: &BTreeMap<Partition, i64>) -> Result<BTreeMap<Partition, Option<i64>>, Failure> {
    let mut names: Vec<&str> = wanted.keys().map(|(topic, _)| topic.as_str()).collect();
    names.dedup();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let metadata = cluster.metadata(Some(&names))?;
    let mut leaders = BTreeMap::new();
    for topic in &metadata.topics {
        let (name, topic) = checked(topic)?;
        for of in &topic.partitions {
            leaders.insert((name.clone(), of.partition_index), led(of.leader_id));
        }
    }
    let mut asked: BTreeMap<i32, BTreeMap<&str, Vec<ListOffsetsPartition>>> = BTreeMap::new();
    for (partition, time) in wanted {
        let refused =
            |error: ResponseError| Failure::Refused { what: shown(partition), code: error.code(), message: None };
        let leader = leaders.get(partition).ok_or_else(|| refused(ResponseError::UnknownTopicOrPartition))?;
        let leader = leader.ok_or_else(|| refused(ResponseError::LeaderNotAvailable))?;
        let question = ListOffsetsPartition::default().with_partition_index(partition.1).with_timestamp(*time);
        asked.entry(leader).or_default().entry(&partition.0).or_default().push(question);
    }
    let mut found = BTreeMap::new();
    for (leader, topics) in asked {
        let topics = topics.into_iter().map(|(name, partitions)| {
            ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(partitions)
        });
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.collect());
        for topic in cluster.at(leader, &(1..=7), &request)?.topics {
            for answer in topic.partitions {
                let partition = (topic.name.0.to_string(), answer.partition_index);
                check(answer.error_code, None, || shown(&partition))?;
                found.insert(partition, (answer.offset >= 0).then_some(answer.offset));
            }
        }
    }
    match wanted.keys().find(|partition| !found.contains_key(*partition)) {
        Some(partition) => Err(Failure::Unreachable(format!("the broker says nothing of {}", shown(partition)))),
        None => Ok(found),
    }
}

/// A partition as Kafka writes it.
pub fn shown((topic, number): &Partition) -> String {
    format!("{topic}-{number}")
}

/// The ends of these partitions, or where they begin: `time` is [`END`] or [`BEGIN`].
///
/// # Errors
/// As [`look_up`].
pub fn edges<'a>(
    cluster: &mut Cluster,
    partitions: impl IntoIterator<Item = &'a Partition>,
    time: i64,
) -> Result<BTreeMap<Partition, i64>, Failure> {
    let wanted = partitions.into_iter().map(|partition| (partition.clone(), time)).collect();
    Ok(look_up(cluster, &wanted)?.into_iter().map(|(partition, offset)| (partition, offset.unwrap_or(0))).collect())
}
