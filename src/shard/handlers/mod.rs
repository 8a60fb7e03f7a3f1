//! What each API means, one file per API.

pub mod acls;
pub mod alter_configs;
pub mod alter_partition_reassignments;
pub mod api_versions;
pub mod client_quotas;
pub mod consumer_group_describe;
pub mod consumer_group_heartbeat;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_quorum;
pub mod describe_topic_partitions;
pub mod elect_leaders;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod list_partition_reassignments;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod raft_voters;
pub mod sync_group;

use crate::group::Identity;
use crate::types::Map;

/// The operations that a client may do to a topic, as Kafka's bits: without ACLs, all there are (Read, Write, Create,
/// Delete, Alter, Describe, DescribeConfigs, AlterConfigs).
const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

/// The operations that a client may do to the cluster, as Kafka's bits: without ACLs, all there are (Create, Alter,
/// Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite).
const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// The operations that a client may do to a group, as Kafka's bits: without ACLs, all there are (Read, Delete, Describe,
/// DescribeConfigs, AlterConfigs).
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// The operations where the client did not ask for them.
const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

/// A text of a request that outlives the request: a slice would keep the memory of its whole frame.
fn owned(text: &str) -> String {
    text.to_owned()
}

/// A member as the requests of members name it.
fn identity(group: &str, generation: i32, member_id: &str, instance: Option<&str>) -> Identity {
    let instance = instance.map(owned);
    Identity { group: owned(group), generation, member_id: owned(member_id), instance }
}

/// The elements of a request in their order, each name once, with how often it is there.
fn distinct<'a, T>(elements: &'a [T], name: impl Fn(&'a T) -> &'a str) -> Vec<(&'a T, usize)> {
    let mut places: Map<&str, usize> = Map::default();
    let mut found: Vec<(&T, usize)> = Vec::with_capacity(elements.len());
    for element in elements {
        let place = *places.entry(name(element)).or_insert(found.len());
        match found.get_mut(place) {
            Some((_, times)) => *times += 1,
            None => found.push((element, 1)),
        }
    }
    found
}

#[cfg(test)]
mod admin_tests;
