//! What each API means, one file per API.

pub mod api_versions;
pub mod create_topics;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod fetch;
pub mod list_offsets;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod produce;

/// The operations that a client may do to a topic, as Kafka's bits: without ACLs, all there are (Read, Write, Create,
/// Delete, Alter, Describe, DescribeConfigs, AlterConfigs).
const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

/// The operations that a client may do to the cluster, as Kafka's bits: without ACLs, all there are (Create, Alter,
/// Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite).
const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// The operations where the client did not ask for them.
const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

#[cfg(test)]
mod admin_tests;
