//! What the broker advertises is what it does: every API at every version.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::api_versions_response::ApiVersionsResponse;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    AddRaftVoterRequest, AlterPartitionReassignmentsRequest, ApiKey, ApiVersionsRequest, BrokerId,
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, CreateTopicsRequest, DeleteGroupsRequest,
    DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, DescribeQuorumRequest,
    ElectLeadersRequest, FetchRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, InitProducerIdRequest,
    JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest, ListPartitionReassignmentsRequest,
    MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
    RemoveRaftVoterRequest, RequestKind, ResponseKind, SyncGroupRequest, UnregisterBrokerRequest,
};
use kafka_protocol::protocol::Decodable;
use uuid::Uuid;

use crate::common::fresh;
use crate::common::process::{external, shared};
use crate::common::records::{batch, values};
use crate::common::wire::{Wire, code, produce_request, text, topic_name};

fn api_versions_request() -> ApiVersionsRequest {
    ApiVersionsRequest::default().with_client_software_name(text("tests")).with_client_software_version(text("1.0"))
}

/// The versions of each API that the broker names.
pub(crate) fn advertised(wire: &mut Wire) -> BTreeMap<i16, (i16, i16)> {
    let response = wire.call(3, &api_versions_request());
    assert_eq!(response.error_code, 0);
    response.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect()
}

/// The topic that a round of requests works on, with one record `"first"` in partition 0.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: Uuid,
}

/// A plain request of an API at a version; nothing for an API that this test knows none of.
pub(crate) fn request(api: ApiKey, version: i16, topic: &Topic, spare: &str) -> Option<RequestKind> {
    let name = topic_name(&topic.name);
    Some(match api {
        ApiKey::ApiVersions => match version {
            0..=2 => RequestKind::ApiVersions(ApiVersionsRequest::default()),
            _ => RequestKind::ApiVersions(api_versions_request()),
        },
        ApiKey::Metadata => {
            let asked = MetadataRequestTopic::default().with_name(Some(name));
            RequestKind::Metadata(MetadataRequest::default().with_topics(Some(vec![asked])))
        }
        ApiKey::Produce => {
            let mut produce = produce_request(&topic.name, &[(0, batch(&["sample"]))], -1, 5_000);
            if version >= 13 {
                produce.topic_data[0].name = Default::default();
                produce.topic_data[0].topic_id = topic.id;
            }
            RequestKind::Produce(produce)
        }
        ApiKey::Fetch => {
            let partition = FetchPartition::default().with_fetch_offset(0).with_partition_max_bytes(1 << 20);
            let fetched = match version {
                0..=12 => FetchTopic::default().with_topic(name),
                _ => FetchTopic::default().with_topic_id(topic.id),
            };
            let mut fetch = FetchRequest::default()
                .with_max_wait_ms(100)
                .with_min_bytes(1)
                .with_max_bytes(1 << 20)
                .with_topics(vec![fetched.with_partitions(vec![partition])]);
            if version <= 14 {
                fetch.replica_id = BrokerId(-1);
            }
            RequestKind::Fetch(fetch)
        }
        ApiKey::ListOffsets => {
            let partition = ListOffsetsPartition::default().with_timestamp(-1);
            let listed = ListOffsetsTopic::default().with_name(name).with_partitions(vec![partition]);
            let mut list = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![listed]);
            if version >= 10 {
                list.timeout_ms = 5_000;
            }
            RequestKind::ListOffsets(list)
        }
        ApiKey::CreateTopics => {
            let created = CreatableTopic::default()
                .with_name(topic_name(spare))
                .with_num_partitions(2)
                .with_replication_factor(1);
            RequestKind::CreateTopics(CreateTopicsRequest::default().with_topics(vec![created]).with_timeout_ms(5_000))
        }
        ApiKey::DeleteTopics => {
            let delete = DeleteTopicsRequest::default().with_timeout_ms(5_000);
            RequestKind::DeleteTopics(match version {
                0..=5 => delete.with_topic_names(vec![topic_name(spare)]),
                _ => delete.with_topics(vec![DeleteTopicState::default().with_name(Some(topic_name(spare)))]),
            })
        }
        ApiKey::InitProducerId => RequestKind::InitProducerId(
            InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(60_000)
                .with_producer_id((-1).into())
                .with_producer_epoch(-1),
        ),
        ApiKey::OffsetForLeaderEpoch => {
            let partition = OffsetForLeaderPartition::default().with_leader_epoch(1_000);
            let asked = OffsetForLeaderTopic::default().with_topic(name).with_partitions(vec![partition]);
            RequestKind::OffsetForLeaderEpoch(
                OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]),
            )
        }
        ApiKey::DescribeConfigs => {
            let resource =
                DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text(&topic.name));
            RequestKind::DescribeConfigs(DescribeConfigsRequest::default().with_resources(vec![resource]))
        }
        ApiKey::DescribeCluster => RequestKind::DescribeCluster(DescribeClusterRequest::default()),
        ApiKey::ElectLeaders => {
            let partitions = TopicPartitions::default().with_topic(topic_name(&topic.name)).with_partitions(vec![0]);
            let elect = ElectLeadersRequest::default().with_timeout_ms(5_000);
            RequestKind::ElectLeaders(elect.with_topic_partitions(Some(vec![partitions])))
        }
        ApiKey::AlterPartitionReassignments => {
            let partitions = vec![ReassignablePartition::default().with_replicas(None)];
            let moved = ReassignableTopic::default().with_name(topic_name(&topic.name)).with_partitions(partitions);
            let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![moved]);
            RequestKind::AlterPartitionReassignments(request.with_timeout_ms(5_000))
        }
        // Of a broker that there is not.
        ApiKey::UnregisterBroker => {
            RequestKind::UnregisterBroker(UnregisterBrokerRequest::default().with_broker_id(BrokerId(77)))
        }
        ApiKey::AddRaftVoter => {
            let request = AddRaftVoterRequest::default().with_cluster_id(None).with_voter_id(77);
            RequestKind::AddRaftVoter(request.with_timeout_ms(5_000))
        }
        ApiKey::RemoveRaftVoter => {
            RequestKind::RemoveRaftVoter(RemoveRaftVoterRequest::default().with_cluster_id(None).with_voter_id(77))
        }
        ApiKey::ListPartitionReassignments => {
            let request = ListPartitionReassignmentsRequest::default().with_topics(None);
            RequestKind::ListPartitionReassignments(request.with_timeout_ms(5_000))
        }
        ApiKey::DescribeQuorum => {
            let metadata = TopicData::default().with_topic_name(topic_name("__cluster_metadata"));
            let metadata = metadata.with_partitions(vec![PartitionData::default()]);
            RequestKind::DescribeQuorum(DescribeQuorumRequest::default().with_topics(vec![metadata]))
        }
        _ => return group_request(api, version, topic, spare),
    })
}

/// The same for the APIs of groups. The topic's name is that of a group too, without members.
fn group_request(api: ApiKey, version: i16, topic: &Topic, spare: &str) -> Option<RequestKind> {
    let group = GroupId(text(&topic.name));
    Some(match api {
        ApiKey::FindCoordinator => RequestKind::FindCoordinator(match version {
            0..=3 => FindCoordinatorRequest::default().with_key(group.0),
            _ => FindCoordinatorRequest::default().with_coordinator_keys(vec![group.0, text(spare)]),
        }),
        ApiKey::OffsetCommit => {
            let partition = OffsetCommitRequestPartition::default()
                .with_committed_offset(7)
                .with_committed_metadata(Some(text("sample")));
            let kept = OffsetCommitRequestTopic::default().with_name(topic_name(&topic.name));
            let commit = OffsetCommitRequest::default().with_group_id(group).with_generation_id_or_member_epoch(-1);
            RequestKind::OffsetCommit(commit.with_topics(vec![kept.with_partitions(vec![partition])]))
        }
        ApiKey::OffsetFetch => {
            let name = topic_name(&topic.name);
            RequestKind::OffsetFetch(match version {
                0..=7 => {
                    let asked = OffsetFetchRequestTopic::default().with_name(name).with_partition_indexes(vec![0]);
                    OffsetFetchRequest::default().with_group_id(group).with_topics(Some(vec![asked]))
                }
                _ => {
                    let asked = OffsetFetchRequestTopics::default().with_name(name).with_partition_indexes(vec![0]);
                    let one = OffsetFetchRequestGroup::default().with_group_id(group).with_topics(Some(vec![asked]));
                    let other = OffsetFetchRequestGroup::default().with_group_id(text(spare).into()).with_topics(None);
                    OffsetFetchRequest::default().with_groups(vec![one, other]).with_require_stable(true)
                }
            })
        }
        ApiKey::JoinGroup => {
            let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
            RequestKind::JoinGroup(
                JoinGroupRequest::default()
                    .with_group_id(text(spare).into())
                    .with_session_timeout_ms(10_000)
                    .with_rebalance_timeout_ms(10_000)
                    .with_protocol_type(text("consumer"))
                    .with_protocols(vec![protocol]),
            )
        }
        ApiKey::SyncGroup => RequestKind::SyncGroup(
            SyncGroupRequest::default().with_group_id(group).with_generation_id(1).with_member_id(text("nobody")),
        ),
        ApiKey::Heartbeat => RequestKind::Heartbeat(
            HeartbeatRequest::default().with_group_id(group).with_generation_id(1).with_member_id(text("nobody")),
        ),
        ApiKey::LeaveGroup => RequestKind::LeaveGroup(match version {
            0..=2 => LeaveGroupRequest::default().with_group_id(group).with_member_id(text("nobody")),
            _ => LeaveGroupRequest::default()
                .with_group_id(group)
                .with_members(vec![MemberIdentity::default().with_member_id(text("nobody"))]),
        }),
        ApiKey::DescribeGroups => {
            RequestKind::DescribeGroups(DescribeGroupsRequest::default().with_groups(vec![group, text(spare).into()]))
        }
        ApiKey::ListGroups => RequestKind::ListGroups(ListGroupsRequest::default()),
        ApiKey::DeleteGroups => {
            RequestKind::DeleteGroups(DeleteGroupsRequest::default().with_groups_names(vec![text(spare).into()]))
        }
        ApiKey::OffsetDelete => {
            let partition = OffsetDeleteRequestPartition::default();
            let forgotten = OffsetDeleteRequestTopic::default().with_name(topic_name(&topic.name));
            let topics = vec![forgotten.with_partitions(vec![partition])];
            RequestKind::OffsetDelete(OffsetDeleteRequest::default().with_group_id(group).with_topics(topics))
        }
        ApiKey::ConsumerGroupHeartbeat => RequestKind::ConsumerGroupHeartbeat(
            ConsumerGroupHeartbeatRequest::default()
                .with_group_id(text(spare).into())
                .with_member_id(text("member"))
                .with_rebalance_timeout_ms(10_000)
                .with_subscribed_topic_names(Some(vec![topic_name(&topic.name)]))
                .with_topic_partitions(Some(Vec::new())),
        ),
        ApiKey::ConsumerGroupDescribe => RequestKind::ConsumerGroupDescribe(
            ConsumerGroupDescribeRequest::default().with_group_ids(vec![text(spare).into()]),
        ),
        _ => return crate::admin_samples::request(api, &topic.name),
    })
}

/// Checks that an answer is not just well-formed but right.
fn check(response: ResponseKind, version: i16, topic: &Topic, spare: &str) {
    match response {
        ResponseKind::ApiVersions(response) => {
            assert_eq!(response.error_code, 0);
            assert!(!response.api_keys.is_empty());
        }
        ResponseKind::Metadata(response) => {
            assert_eq!(response.brokers.len(), 1);
            let answer = &response.topics[0];
            assert_eq!(answer.error_code, 0);
            assert_eq!(answer.name.as_ref().map(|name| name.as_str()), Some(topic.name.as_str()));
            assert_eq!(answer.partitions.len(), 1);
            assert_eq!(answer.partitions[0].replica_nodes.len(), 1);
            if version >= 10 {
                assert_eq!(answer.topic_id, topic.id);
            }
        }
        ResponseKind::Produce(response) => {
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
            assert!(answer.base_offset >= 1);
        }
        ResponseKind::Fetch(response) => {
            assert_eq!(response.error_code, 0);
            let answer = &response.responses[0].partitions[0];
            assert_eq!(answer.error_code, 0);
            assert!(answer.high_watermark >= 1);
            assert_eq!(values(answer.records.clone().expect("records"))[0], "first");
        }
        ResponseKind::ListOffsets(response) => {
            let answer = &response.topics[0].partitions[0];
            assert_eq!(answer.error_code, 0);
            assert!(answer.offset >= 1);
        }
        ResponseKind::CreateTopics(response) => {
            let answer = &response.topics[0];
            assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
            assert_eq!(answer.name.as_str(), spare);
            if version >= 5 {
                assert_eq!((answer.num_partitions, answer.replication_factor), (2, 1));
                assert!(answer.configs.as_ref().is_some_and(|configs| !configs.is_empty()));
            }
            if version >= 7 {
                assert_ne!(answer.topic_id, Uuid::nil());
            }
        }
        ResponseKind::DeleteTopics(response) => {
            assert_eq!(response.responses[0].error_code, 0);
            assert_eq!(response.responses[0].name.as_ref().map(|name| name.as_str()), Some(spare));
        }
        ResponseKind::InitProducerId(response) => {
            assert_eq!(response.error_code, 0);
            assert!(response.producer_id.0 >= 0);
            assert_eq!(response.producer_epoch, 0);
        }
        ResponseKind::OffsetForLeaderEpoch(response) => {
            // An epoch that lies ahead of the leader's is answered as unknown.
            let answer = &response.topics[0].partitions[0];
            assert_eq!((answer.error_code, answer.leader_epoch, answer.end_offset), (0, -1, -1));
        }
        ResponseKind::DescribeConfigs(response) => {
            assert_eq!(response.results[0].error_code, 0);
            assert!(response.results[0].configs.iter().any(|config| config.name.as_str() == "max.message.bytes"));
        }
        ResponseKind::ElectLeaders(response) => {
            let answer = &response.replica_election_results[0].partition_result[0];
            assert_eq!(answer.error_code, code(ResponseError::ElectionNotNeeded));
        }
        ResponseKind::AlterPartitionReassignments(response) => {
            let answer = &response.responses[0].partitions[0];
            assert_eq!(answer.error_code, code(ResponseError::NoReassignmentInProgress));
        }
        ResponseKind::UnregisterBroker(response) => {
            assert_eq!(response.error_code, code(ResponseError::BrokerIdNotRegistered));
        }
        ResponseKind::AddRaftVoter(response) => {
            assert_eq!(response.error_code, code(ResponseError::BrokerIdNotRegistered));
        }
        ResponseKind::RemoveRaftVoter(response) => {
            assert_eq!(response.error_code, code(ResponseError::VoterNotFound));
        }
        ResponseKind::ListPartitionReassignments(response) => {
            assert_eq!((response.error_code, response.topics.len()), (0, 0));
        }
        ResponseKind::DescribeQuorum(response) => {
            let answer = &response.topics[0].partitions[0];
            assert_eq!((response.error_code, answer.error_code), (0, 0));
            assert_eq!(answer.current_voters[0].replica_id, answer.leader_id);
        }
        ResponseKind::DescribeCluster(response) => {
            assert_eq!(response.error_code, 0);
            assert_eq!(response.brokers.len(), 1);
            assert!(!response.cluster_id.is_empty());
        }
        other => check_group(other, version, topic, spare),
    }
}

/// The same for the APIs of groups.
fn check_group(response: ResponseKind, version: i16, topic: &Topic, spare: &str) {
    match response {
        ResponseKind::FindCoordinator(response) if version < 4 => {
            assert_eq!(response.error_code, 0);
            assert!(response.node_id.0 >= 0 && response.port > 0);
        }
        ResponseKind::FindCoordinator(response) => {
            let keys: Vec<&str> = response.coordinators.iter().map(|found| found.key.as_str()).collect();
            assert_eq!(keys, [topic.name.as_str(), spare]);
            assert!(response.coordinators.iter().all(|found| found.error_code == 0 && found.port > 0));
        }
        ResponseKind::OffsetCommit(response) => assert_eq!(response.topics[0].partitions[0].error_code, 0),
        ResponseKind::OffsetFetch(response) if version < 8 => {
            let answer = &response.topics[0].partitions[0];
            assert_eq!((response.error_code, answer.error_code, answer.committed_offset), (0, 0, 7));
            assert_eq!(answer.metadata.as_deref(), Some("sample"));
        }
        ResponseKind::OffsetFetch(response) => {
            let answer = &response.groups[0].topics[0].partitions[0];
            assert_eq!((response.groups[0].error_code, answer.error_code, answer.committed_offset), (0, 0, 7));
            assert_eq!((response.groups[1].error_code, response.groups[1].topics.len()), (0, 0));
        }
        ResponseKind::JoinGroup(response) if version < 4 => {
            assert_eq!((response.error_code, response.generation_id, response.members.len()), (0, 1, 1));
            assert_eq!(response.leader, response.member_id);
        }
        ResponseKind::JoinGroup(response) => {
            assert_eq!(response.error_code, code(ResponseError::MemberIdRequired));
            assert!(!response.member_id.is_empty());
        }
        ResponseKind::SyncGroup(response) => assert_eq!(response.error_code, code(ResponseError::UnknownMemberId)),
        ResponseKind::Heartbeat(response) => assert_eq!(response.error_code, code(ResponseError::UnknownMemberId)),
        ResponseKind::LeaveGroup(response) => {
            let error = if version < 3 { response.error_code } else { response.members[0].error_code };
            assert_eq!(error, code(ResponseError::UnknownMemberId));
        }
        ResponseKind::DescribeGroups(response) => {
            assert_eq!((response.groups[0].error_code, response.groups[0].group_state.as_str()), (0, "Empty"));
            let missing = if version < 6 { 0 } else { code(ResponseError::GroupIdNotFound) };
            assert_eq!((response.groups[1].error_code, response.groups[1].group_state.as_str()), (missing, "Dead"));
        }
        ResponseKind::ListGroups(response) => {
            assert_eq!(response.error_code, 0);
            assert!(response.groups.iter().any(|group| group.group_id.as_str() == topic.name));
        }
        ResponseKind::DeleteGroups(response) => {
            assert_eq!(response.results[0].error_code, code(ResponseError::GroupIdNotFound));
        }
        ResponseKind::OffsetDelete(response) => {
            assert_eq!((response.error_code, response.topics[0].partitions[0].error_code), (0, 0));
        }
        ResponseKind::ConsumerGroupHeartbeat(response) => {
            assert_eq!((response.error_code, response.member_epoch), (0, 1), "{:?}", response.error_message);
            let assignment = response.assignment.expect("who joins is told what it has");
            assert_eq!((assignment.topic_partitions[0].topic_id, assignment.topic_partitions.len()), (topic.id, 1));
        }
        ResponseKind::ConsumerGroupDescribe(response) => {
            assert_eq!(response.groups[0].error_code, code(ResponseError::GroupIdNotFound));
        }
        other => crate::admin_samples::check(other, version, &topic.name),
    }
}

#[test]
fn every_advertised_api_works_at_every_advertised_version() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let name = fresh("versions");
    let topic = Topic { id: wire.create_topic(&name, 1, &[]), name };
    wire.produce(&topic.name, 0, batch(&["first"]));
    wire.await_coordinator(&topic.name);
    // Topics are deleted by the names under which a lower API number has created them: CreateTopics is 19,
    // DeleteTopics is 20, and each deletes what it made.
    for (key, (min, max)) in advertised(&mut wire) {
        let api = match ApiKey::try_from(key) {
            Ok(api) => api,
            Err(()) if external().is_some() => continue,
            Err(()) => panic!("API {key} is advertised and not known"),
        };
        let known = api.valid_versions();
        if external().is_none() {
            assert!(min <= max && max <= known.max, "{api:?}: {min}..={max} is advertised, {known} exist");
        }
        for version in min.max(known.min)..=max.min(known.max) {
            let spare = fresh("spare");
            if api == ApiKey::DeleteTopics {
                wire.create_topic(&spare, 1, &[]);
            }
            let Some(request) = request(api, version, &topic, &spare) else {
                assert!(external().is_some(), "{api:?} is advertised and has no sample here");
                continue;
            };
            check(wire.call_kind(api, version, &request), version, &topic, &spare);
        }
    }
}

#[test]
fn the_baseline_of_apis_is_advertised() {
    let broker = shared();
    let advertised = advertised(&mut Wire::connect(broker.address()));
    for (api, most) in [
        (ApiKey::Produce, 12),
        (ApiKey::Fetch, 17),
        (ApiKey::ListOffsets, 9),
        (ApiKey::Metadata, 13),
        (ApiKey::OffsetCommit, 9),
        (ApiKey::OffsetFetch, 9),
        (ApiKey::FindCoordinator, 6),
        (ApiKey::JoinGroup, 9),
        (ApiKey::Heartbeat, 4),
        (ApiKey::LeaveGroup, 5),
        (ApiKey::SyncGroup, 5),
        (ApiKey::DescribeGroups, 5),
        (ApiKey::ListGroups, 5),
        (ApiKey::DeleteGroups, 2),
        (ApiKey::OffsetDelete, 0),
        (ApiKey::ApiVersions, 4),
        (ApiKey::CreateTopics, 7),
        (ApiKey::DeleteTopics, 6),
        (ApiKey::InitProducerId, 5),
        (ApiKey::OffsetForLeaderEpoch, 4),
        (ApiKey::DescribeConfigs, 4),
        (ApiKey::CreatePartitions, 3),
        (ApiKey::DescribeLogDirs, 4),
        (ApiKey::DescribeProducers, 0),
        (ApiKey::DescribeTopicPartitions, 0),
        (ApiKey::DescribeAcls, 3),
        (ApiKey::CreateAcls, 3),
        (ApiKey::DeleteAcls, 3),
        (ApiKey::ListConfigResources, 1),
        (ApiKey::DescribeClientQuotas, 1),
        (ApiKey::AlterClientQuotas, 1),
        (ApiKey::AlterConfigs, 2),
        (ApiKey::IncrementalAlterConfigs, 1),
        (ApiKey::DescribeCluster, 1),
        (ApiKey::ConsumerGroupHeartbeat, 1),
        (ApiKey::ConsumerGroupDescribe, 1),
        (ApiKey::ElectLeaders, 2),
        (ApiKey::AlterPartitionReassignments, 1),
        (ApiKey::ListPartitionReassignments, 0),
        (ApiKey::DescribeQuorum, 2),
        (ApiKey::UnregisterBroker, 0),
        (ApiKey::AddRaftVoter, 0),
        (ApiKey::RemoveRaftVoter, 0),
    ] {
        let (_, max) = advertised.get(&(api as i16)).unwrap_or_else(|| panic!("{api:?} is not advertised"));
        assert!(*max >= most, "{api:?} goes up to {max}");
    }
}

#[test]
fn the_page_of_apis_is_what_is_advertised() {
    if external().is_some() {
        return crate::common::skipped("the page is about ringlog");
    }
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
        let (min, max) = cells.get(2)?.split_once('-')?;
        Some((cells[0].parse().ok()?, (min.parse().ok()?, max.parse().ok()?)))
    };
    let page: BTreeMap<i16, (i16, i16)> = include_str!("../../docs/apis.md").lines().filter_map(row).collect();
    assert_eq!(advertised(&mut Wire::connect(shared().address())), page);
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0_with_the_ranges() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    // Header version 2, as a client of the future would send it, with a body that nobody can read.
    let mut frame = vec![0, 18, 0x7f, 0xff, 0, 0, 0, 77, 0, 1, b'c', 0];
    frame.extend_from_slice(b"what a future version holds");
    wire.send_bytes(&(frame.len() as u32).to_be_bytes());
    wire.send_bytes(&frame);
    let mut answer = wire.frame_in().expect("an answer");
    assert_eq!(answer.split_to(4)[..], 77i32.to_be_bytes(), "the correlation id, in a header of version 0");
    let response = ApiVersionsResponse::decode(&mut answer, 0).expect("a body of version 0");
    assert!(answer.is_empty());
    assert_eq!(response.error_code, code(ResponseError::UnsupportedVersion));
    let own = response.api_keys.iter().find(|api| api.api_key == ApiKey::ApiVersions as i16).expect("its own range");
    assert!(own.max_version >= 3);
    // The connection goes on: the client asks again with a version from the range.
    assert_eq!(wire.call(own.max_version.min(4), &api_versions_request()).error_code, 0);
}

#[test]
fn a_client_name_that_is_none_is_refused() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let request = api_versions_request().with_client_software_name(text("not a name!"));
    assert_eq!(wire.call(3, &request).error_code, code(ResponseError::InvalidRequest));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let name = fresh("pipeline");
    wire.create_topic(&name, 8, &[]);
    // Slow ones (a produce waits for the disk, a fetch for data) stand in front of quick ones.
    let mut sent = Vec::new();
    for round in 0..20 {
        let produce = produce_request(&name, &[(round % 8, batch(&["x"]))], -1, 5_000);
        sent.push((ApiKey::Produce, wire.send(9, &produce)));
        if round % 5 == 0 {
            let fetch = crate::common::wire::fetch_request(&name, &[(0, 1_000_000)], 1, 50);
            sent.push((ApiKey::Fetch, wire.send(12, &fetch)));
        }
        sent.push((ApiKey::ApiVersions, wire.send(3, &api_versions_request())));
        sent.push((ApiKey::Metadata, wire.send(9, &MetadataRequest::default().with_topics(Some(vec![])))));
    }
    for (api, correlation) in sent {
        let answered = match api {
            ApiKey::Produce => wire.receive::<kafka_protocol::messages::ProduceRequest>(9).0,
            ApiKey::Fetch => wire.receive::<FetchRequest>(12).0,
            ApiKey::ApiVersions => wire.receive::<ApiVersionsRequest>(3).0,
            _ => wire.receive::<MetadataRequest>(9).0,
        };
        assert_eq!(answered, correlation, "{api:?}");
    }
}

#[test]
fn frames_may_arrive_byte_by_byte_and_many_at_once() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let one = wire.encode(3, &api_versions_request());
    for byte in one.chunks(1) {
        wire.send_bytes(byte);
    }
    assert_eq!(wire.receive::<ApiVersionsRequest>(3).1.error_code, 0);
    let mut many = Vec::new();
    for _ in 0..500 {
        many.extend_from_slice(&wire.encode(3, &api_versions_request()));
    }
    let mut writer = wire.stream().try_clone().expect("a second handle");
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &many));
    for _ in 0..500 {
        assert_eq!(wire.receive::<ApiVersionsRequest>(3).1.error_code, 0);
    }
    sender.join().expect("the sender").expect("all is sent");
}
