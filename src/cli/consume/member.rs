//! A member of a consumer group: it joins, is given partitions, says that it is there, commits, and leaves. Here is what
//! the classic protocol has of it, and what both have in common.

mod modern;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use clap::ValueEnum;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, GroupId, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::super::client::{Cluster, Failure, check, leaders, text, topic_name};
use modern::Modern;

/// How long the coordinator waits for a sign of life.
const SESSION: Duration = Duration::from_secs(30);
/// How often it is given one.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(3);
/// How often offsets are committed.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// Kafka's name for the way in which partitions are shared out here.
const RANGE: &str = "range";

/// A member of a group that reads one topic.
pub(super) struct Member {
    group: String,
    topic: String,
    /// What is different in the consumer protocol, where that is spoken.
    modern: Option<Modern>,
    /// In the classic protocol empty until the coordinator has given one.
    id: StrBytes,
    /// In the consumer protocol the member's epoch.
    generation: i32,
    last_heartbeat: Instant,
    last_commit: Instant,
    /// What was committed last, by partition.
    committed: BTreeMap<i32, i64>,
}

/// How a group is spoken to (Kafka's `group.protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum GroupProtocol {
    /// The members share the partitions out
    Classic,
    /// The coordinator does (KIP-848)
    Consumer,
}

/// What a member's standing in its group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has its partitions.
    Stable,
    /// It must join again: partitions are shared out anew, or the group has gone on without it.
    JoinAgain,
}

impl Member {
    /// A member that has not joined yet.
    ///
    /// # Errors
    /// A kernel that gives no random bytes.
    pub(super) fn new(group: &str, topic: &str, protocol: GroupProtocol) -> Result<Member, Failure> {
        let now = Instant::now();
        let (modern, id, generation) = match protocol {
            GroupProtocol::Classic => (None, StrBytes::default(), -1),
            GroupProtocol::Consumer => (Some(Modern::default()), modern::fresh_id()?, modern::JOINING),
        };
        Ok(Member {
            group: group.to_owned(),
            topic: topic.to_owned(),
            modern,
            id,
            generation,
            last_heartbeat: now,
            last_commit: now,
            committed: BTreeMap::new(),
        })
    }

    /// Joins the group and gives the partitions that are the member's now, with the offsets that the group has committed;
    /// a partition that it has committed nothing of has none.
    ///
    /// # Errors
    /// What the coordinator refuses, and as [`Cluster::any`]. The time for it is that of a rebalance, in which all members
    /// have to join again.
    pub(super) fn join(&mut self, cluster: &mut Cluster) -> Result<BTreeMap<i32, Option<i64>>, Failure> {
        loop {
            cluster.renew();
            let joined = match self.modern {
                None => cluster.insist(|cluster| self.try_join(cluster)),
                Some(_) => self.join_modern(cluster),
            };
            match joined {
                Err(failure) if self.must_join_again(&failure) => {}
                Err(failure) => return Err(failure),
                Ok(partitions) => {
                    let offsets = cluster.insist(|cluster| self.fetch_offsets(cluster, &partitions))?;
                    self.committed = offsets.iter().filter_map(|(at, offset)| Some((*at, (*offset)?))).collect();
                    self.last_commit = Instant::now();
                    return Ok(offsets);
                }
            }
        }
    }

    fn try_join(&mut self, cluster: &mut Cluster) -> Result<Vec<i32>, Failure> {
        let coordinator = cluster.coordinator(&self.group)?;
        let subscription = ConsumerProtocolSubscription::default().with_topics(vec![text(&self.topic)]);
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str(RANGE))
            .with_metadata(with_version(&subscription)?);
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_session_timeout_ms(SESSION.as_millis() as i32)
            .with_rebalance_timeout_ms(cluster.left_ms())
            .with_member_id(self.id.clone())
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        let joined = cluster.at(coordinator, &(2..=7), &request)?;
        // The member comes again with the id that it is given so.
        if joined.error_code == ResponseError::MemberIdRequired.code() {
            self.id = joined.member_id.clone();
        }
        check(joined.error_code, None, || self.shown())?;
        self.id = joined.member_id.clone();
        self.generation = joined.generation_id;
        let assignments = match joined.leader == joined.member_id {
            true => self.share_out(cluster, &joined)?,
            false => Vec::new(),
        };
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_protocol_type(Some(StrBytes::from_static_str("consumer")))
            .with_protocol_name(Some(StrBytes::from_static_str(RANGE)))
            .with_assignments(assignments);
        let synced = cluster.at(coordinator, &(0..=5), &request)?;
        check(synced.error_code, None, || self.shown())?;
        self.last_heartbeat = Instant::now();
        assigned(synced.assignment, &self.topic)
    }

    /// The leader of a group says who reads what. Members may read topics of which this one knows nothing but the name.
    fn share_out(
        &self,
        cluster: &mut Cluster,
        joined: &JoinGroupResponse,
    ) -> Result<Vec<SyncGroupRequestAssignment>, Failure> {
        let mut readers: BTreeMap<String, Vec<StrBytes>> = BTreeMap::new();
        for member in &joined.members {
            let mut bytes = member.metadata.clone();
            let subscription = without_version::<ConsumerProtocolSubscription>(&mut bytes)?;
            for topic in subscription.topics {
                readers.entry(topic.to_string()).or_default().push(member.member_id.clone());
            }
        }
        let mut given: BTreeMap<StrBytes, Vec<TopicPartition>> = BTreeMap::new();
        for (topic, mut readers) in readers {
            readers.sort();
            let partitions: Vec<i32> = match leaders(cluster, &topic) {
                Ok(leaders) => leaders.into_keys().collect(),
                // A topic that another member waits for.
                Err(failure) if failure.code() == Some(ResponseError::UnknownTopicOrPartition) => continue,
                Err(failure) => return Err(failure),
            };
            for (reader, partitions) in readers.iter().zip(ranges(&partitions, readers.len())) {
                let part =
                    TopicPartition::default().with_topic(topic_name(&topic)).with_partitions(partitions.to_vec());
                given.entry(reader.clone()).or_default().push(part);
            }
        }
        joined
            .members
            .iter()
            .map(|member| {
                let partitions = given.remove(&member.member_id).unwrap_or_default();
                let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(partitions);
                Ok(SyncGroupRequestAssignment::default()
                    .with_member_id(member.member_id.clone())
                    .with_assignment(with_version(&assignment)?))
            })
            .collect()
    }

    fn fetch_offsets(&self, cluster: &mut Cluster, partitions: &[i32]) -> Result<BTreeMap<i32, Option<i64>>, Failure> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic_name(&self.topic))
            .with_partition_indexes(partitions.to_vec());
        let request =
            OffsetFetchRequest::default().with_group_id(GroupId(text(&self.group))).with_topics(Some(vec![topic]));
        let coordinator = cluster.coordinator(&self.group)?;
        let answer = cluster.at(coordinator, &(2..=7), &request)?;
        check(answer.error_code, None, || self.shown())?;
        let mut offsets: BTreeMap<i32, Option<i64>> = partitions.iter().map(|partition| (*partition, None)).collect();
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            check(partition.error_code, None, || self.shown())?;
            let offset = (partition.committed_offset >= 0).then_some(partition.committed_offset);
            offsets.insert(partition.partition_index, offset);
        }
        Ok(offsets)
    }

    /// Says that the member is there, and commits, each when its time has come.
    ///
    /// # Errors
    /// What the coordinator refuses for another reason than a rebalance, and as [`Cluster::any`].
    pub(super) fn turn(&mut self, cluster: &mut Cluster, positions: &BTreeMap<i32, i64>) -> Result<Standing, Failure> {
        cluster.renew();
        if self.last_commit.elapsed() >= COMMIT_EVERY && self.commit(cluster, positions)? == Standing::JoinAgain {
            return Ok(Standing::JoinAgain);
        }
        if self.last_heartbeat.elapsed() < self.modern.as_ref().map_or(HEARTBEAT_EVERY, |modern| modern.interval) {
            return Ok(Standing::Stable);
        }
        if self.modern.is_some() {
            return self.turn_modern(cluster);
        }
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        let result = cluster.insist(|cluster| {
            let coordinator = cluster.coordinator(&self.group)?;
            let answer = cluster.at(coordinator, &(0..=4), &request)?;
            check(answer.error_code, None, || self.shown())
        });
        self.last_heartbeat = Instant::now();
        if let Err(failure) = result {
            // What was read so far is this member's to commit until it joins again.
            if failure.code() == Some(ResponseError::RebalanceInProgress) {
                self.commit(cluster, positions)?;
            }
            return if self.must_join_again(&failure) { Ok(Standing::JoinAgain) } else { Err(failure) };
        }
        Ok(Standing::Stable)
    }

    /// Commits the positions that have moved.
    ///
    /// # Errors
    /// As [`Member::turn`].
    pub(super) fn commit(
        &mut self,
        cluster: &mut Cluster,
        positions: &BTreeMap<i32, i64>,
    ) -> Result<Standing, Failure> {
        self.last_commit = Instant::now();
        let moved: BTreeMap<i32, i64> = positions
            .iter()
            .filter(|(partition, offset)| self.committed.get(partition) != Some(offset))
            .map(|(partition, offset)| (*partition, *offset))
            .collect();
        if moved.is_empty() {
            return Ok(Standing::Stable);
        }
        let partitions = moved.iter().map(|(partition, offset)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(*offset)
                .with_committed_metadata(Some(StrBytes::default()))
        });
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(&self.topic))
            .with_partitions(partitions.collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_topics(vec![topic]);
        // The first version in which members of the consumer protocol may commit.
        let versions = if self.modern.is_some() { 9..=9 } else { 2..=8 };
        let result = cluster.insist(|cluster| {
            let coordinator = cluster.coordinator(&self.group)?;
            let answer = cluster.at(coordinator, &versions, &request)?;
            let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.try_for_each(|partition| check(partition.error_code, None, || self.shown()))
        });
        match result {
            Ok(()) => {
                self.committed.extend(moved);
                Ok(Standing::Stable)
            }
            Err(failure) if self.must_join_again(&failure) => Ok(Standing::JoinAgain),
            Err(failure) => Err(failure),
        }
    }

    /// Leaves, so that the others need not wait for the session to end.
    ///
    /// # Errors
    /// As [`Cluster::any`], and what is refused.
    pub(super) fn leave(mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        if self.modern.is_some() {
            return self.beat(cluster, modern::LEAVING);
        }
        let request = LeaveGroupRequest::default().with_group_id(GroupId(text(&self.group)));
        let coordinator = cluster.coordinator(&self.group)?;
        // From version 3 on several members may leave at once.
        let version = cluster.connection(coordinator)?.version::<LeaveGroupRequest>(&(0..=5))?;
        let request = match version {
            0..=2 => request.with_member_id(self.id.clone()),
            _ => request.with_members(vec![MemberIdentity::default().with_member_id(self.id.clone())]),
        };
        let answer = cluster.at(coordinator, &(version..=version), &request)?;
        let own = answer.members.first().map_or(0, |member| member.error_code);
        check(answer.error_code, None, || self.shown())?;
        check(own, None, || self.shown())
    }

    fn shown(&self) -> String {
        format!("group {}", self.group)
    }

    /// Whether joining again is the answer to a failure; the id is given up where the coordinator does not know it.
    fn must_join_again(&mut self, failure: &Failure) -> bool {
        if self.modern.is_some() {
            return self.must_begin_again(failure);
        }
        match failure.code() {
            Some(ResponseError::UnknownMemberId) => {
                self.id = StrBytes::default();
                true
            }
            Some(
                ResponseError::RebalanceInProgress | ResponseError::IllegalGeneration | ResponseError::MemberIdRequired,
            ) => true,
            _ => false,
        }
    }
}

/// Consecutive parts of the partitions for so many readers, as even as can be, the larger ones first.
fn ranges(partitions: &[i32], readers: usize) -> impl Iterator<Item = &[i32]> {
    let (each, more) = (partitions.len() / readers, partitions.len() % readers);
    (0..readers).map(move |reader| {
        let begin = reader * each + reader.min(more);
        &partitions[begin..begin + each + usize::from(reader < more)]
    })
}

/// The consumer protocol's bytes: the version, 0 here, which every client reads, and then the message.
fn with_version(message: &impl Encodable) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    message
        .encode(&mut bytes, 0)
        .map_err(|error| Failure::Failed(format!("what the group is told cannot be encoded: {error:#}")))?;
    Ok(bytes.freeze())
}

/// Reads such bytes in whichever version: what later ones add is behind the rest.
fn without_version<M: Decodable>(bytes: &mut Bytes) -> Result<M, Failure> {
    let damaged = |why: String| Failure::Failed(format!("what the group says cannot be read: {why}"));
    let version = bytes.try_get_i16().map_err(|error| damaged(error.to_string()))?;
    M::decode(bytes, version.clamp(0, 3)).map_err(|error| damaged(format!("{error:#}")))
}

/// The partitions of the topic in an assignment; one without bytes gives none.
fn assigned(mut bytes: Bytes, topic: &str) -> Result<Vec<i32>, Failure> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let assignment = without_version::<ConsumerProtocolAssignment>(&mut bytes)?;
    let own = assignment.assigned_partitions.into_iter().filter(|part| part.topic.0.as_str() == topic);
    Ok(own.flat_map(|part| part.partitions).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_even_and_leave_nothing_out() {
        let of = |count: i32, readers| {
            let partitions: Vec<i32> = (0..count).collect();
            ranges(&partitions, readers).map(<[i32]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(of(7, 3), [vec![0, 1, 2], vec![3, 4], vec![5, 6]]);
        assert_eq!(of(2, 3), [vec![0], vec![1], vec![]]);
        assert_eq!(of(4, 1), [vec![0, 1, 2, 3]]);
    }

    #[test]
    fn an_assignment_is_read_as_it_was_written() {
        let part = |name: &str, partitions: &[i32]| {
            TopicPartition::default().with_topic(topic_name(name)).with_partitions(partitions.to_vec())
        };
        let parts = vec![part("other", &[5]), part("own", &[1, 2])];
        let bytes = with_version(&ConsumerProtocolAssignment::default().with_assigned_partitions(parts)).unwrap();
        assert_eq!(assigned(bytes, "own"), Ok(vec![1, 2]));
        assert_eq!(assigned(Bytes::new(), "own"), Ok(vec![]));
        assert!(assigned(Bytes::from_static(&[0]), "own").is_err());
    }
}
