//! DescribeQuorum: how the metadata's Raft group stands, as its leader sees it.

use kafka_protocol::messages::describe_quorum_request::DescribeQuorumRequest;
use kafka_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use kafka_protocol::messages::{DescribeQuorumResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::create_topics::METADATA_TOPIC;
use crate::protocol::ErrorCode;
use crate::types::{BrokerId, LeaderEpoch, PeerAddress};

/// A member of the metadata's group.
#[derive(Clone, Copy, Debug)]
pub struct Replica {
    /// Its broker.
    pub id: BrokerId,
    /// The broker's data directory, nil where it never registered.
    pub directory_id: Uuid,
    /// How far its log is known to agree: the index after that of the last entry.
    pub log_end: i64,
    /// When something came from it last, in milliseconds since the Unix epoch, -1 where nothing did.
    pub heard_ms: i64,
    /// When it was known last to hold all of the leader's log, in milliseconds since the Unix epoch, -1 where it never was.
    pub caught_up_ms: i64,
}

/// The group as its leader sees it.
#[derive(Debug)]
pub struct Quorum {
    /// The leader.
    pub leader: BrokerId,
    /// Its term.
    pub epoch: LeaderEpoch,
    /// The index after that of the last committed entry.
    pub high_watermark: i64,
    /// All voters.
    pub voters: Vec<Replica>,
    /// Those who have no vote.
    pub observers: Vec<Replica>,
    /// Where they listen for each other.
    pub addresses: Vec<PeerAddress>,
}

/// The answer of the leader: only the metadata's log has a quorum to describe.
pub fn respond(quorum: &Quorum, request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let state = |replica: &Replica| {
        ReplicaState::default()
            .with_replica_id(replica.id.0.into())
            .with_replica_directory_id(replica.directory_id)
            .with_log_end_offset(replica.log_end)
            .with_last_fetch_timestamp(replica.heard_ms)
            .with_last_caught_up_timestamp(replica.caught_up_ms)
    };
    let partition = |topic: &TopicName, index: i32| {
        let partition = PartitionData::default().with_partition_index(index);
        if topic.as_str() != METADATA_TOPIC || index != 0 {
            return partition.with_error_code(ErrorCode::UnknownTopicOrPartition.code());
        }
        partition
            .with_leader_id(quorum.leader.0.into())
            .with_leader_epoch(quorum.epoch)
            .with_high_watermark(quorum.high_watermark)
            .with_current_voters(quorum.voters.iter().map(state).collect())
            .with_observers(quorum.observers.iter().map(state).collect())
    };
    let topic = |topic: &kafka_protocol::messages::describe_quorum_request::TopicData| {
        let partitions = topic.partitions.iter().map(|wanted| partition(&topic.topic_name, wanted.partition_index));
        TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions.collect())
    };
    let node = |address: &PeerAddress| {
        let listener = Listener::default()
            .with_name(StrBytes::from_static_str("CONTROLLER"))
            .with_host(StrBytes::from_string(address.host.clone()))
            .with_port(address.port);
        Node::default().with_node_id(address.id.0.into()).with_listeners(vec![listener])
    };
    DescribeQuorumResponse::default()
        .with_topics(request.topics.iter().map(topic).collect())
        .with_nodes(quorum.addresses.iter().map(node).collect())
}

/// The answer without a quorum.
pub fn failed(error: ErrorCode) -> DescribeQuorumResponse {
    DescribeQuorumResponse::default().with_error_code(error.code())
}

/// The answer in a form that `version` has room for: it comes from the leader in the newest.
pub fn for_version(mut response: DescribeQuorumResponse, version: i16) -> DescribeQuorumResponse {
    if version < 2 {
        response.nodes.clear();
    }
    let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for replica in partitions.flat_map(|partition| partition.current_voters.iter_mut().chain(&mut partition.observers))
    {
        if version < 2 {
            replica.replica_directory_id = Uuid::nil();
        }
        if version < 1 {
            (replica.last_fetch_timestamp, replica.last_caught_up_timestamp) = (-1, -1);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_quorum_request as kafka;

    use super::super::admin_tests::{assert_encodable, name};
    use super::*;

    #[test]
    fn only_the_metadata_has_a_quorum() {
        let asked = |topic: &str, index| {
            kafka::TopicData::default()
                .with_topic_name(name(topic))
                .with_partitions(vec![kafka::PartitionData::default().with_partition_index(index)])
        };
        let request = DescribeQuorumRequest::default().with_topics(vec![
            asked(METADATA_TOPIC, 0),
            asked(METADATA_TOPIC, 1),
            asked("a", 0),
        ]);
        let voter = Replica {
            id: BrokerId(2),
            directory_id: Uuid::from_u128(7),
            log_end: 11,
            heard_ms: 1_000,
            caught_up_ms: 900,
        };
        let address = PeerAddress { id: BrokerId(2), host: "two".into(), port: 9093 };
        let quorum = Quorum {
            leader: BrokerId(1),
            epoch: 3,
            high_watermark: 11,
            voters: vec![voter],
            observers: vec![Replica { id: BrokerId(4), ..voter }],
            addresses: vec![address],
        };
        let response = respond(&quorum, &request);
        for version in 0..=2 {
            assert_encodable(&for_version(response.clone(), version), version..=version);
        }
        let codes: Vec<i16> = response.topics.iter().map(|topic| topic.partitions[0].error_code).collect();
        assert_eq!(codes, [0, 3, 3]);
        let described = &response.topics[0].partitions[0];
        assert_eq!((described.leader_id.0, described.leader_epoch, described.high_watermark), (1, 3, 11));
        let voter = &described.current_voters[0];
        assert_eq!((voter.replica_id.0, voter.log_end_offset, voter.last_caught_up_timestamp), (2, 11, 900));
        assert_eq!((described.observers.len(), described.observers[0].replica_id.0), (1, 4));
        assert_eq!((response.nodes[0].node_id.0, response.nodes[0].listeners[0].port), (2, 9093));
    }
}
