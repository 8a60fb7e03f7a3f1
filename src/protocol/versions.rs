//! Which requests the broker answers, and in which versions: one table, everything else follows from it.
//!
//! The ranges are those of Kafka 4.x, as far as the broker does all that a version can ask for.

use super::schema::{self, Schema};
use kafka_protocol::messages::ApiKey;

/// Hands the table of APIs to the macro `$then`: API, request and response message, versions, request schema.
macro_rules! for_each_api {
    ($then:ident) => {
        $then! {
            Produce: ProduceRequest, ProduceResponse, 3..=13, PRODUCE;
            // Version 18 adds nothing but the high watermark that a Kafka follower tells its leader.
            Fetch: FetchRequest, FetchResponse, 4..=17, FETCH;
            // Version 11 adds a special timestamp of tiered storage.
            ListOffsets: ListOffsetsRequest, ListOffsetsResponse, 1..=10, LIST_OFFSETS;
            Metadata: MetadataRequest, MetadataResponse, 0..=13, METADATA;
            // Version 10 names topics by their ids.
            OffsetCommit: OffsetCommitRequest, OffsetCommitResponse, 2..=9, OFFSET_COMMIT;
            OffsetFetch: OffsetFetchRequest, OffsetFetchResponse, 1..=9, OFFSET_FETCH;
            FindCoordinator: FindCoordinatorRequest, FindCoordinatorResponse, 0..=6, FIND_COORDINATOR;
            JoinGroup: JoinGroupRequest, JoinGroupResponse, 0..=9, JOIN_GROUP;
            Heartbeat: HeartbeatRequest, HeartbeatResponse, 0..=4, HEARTBEAT;
            LeaveGroup: LeaveGroupRequest, LeaveGroupResponse, 0..=5, LEAVE_GROUP;
            SyncGroup: SyncGroupRequest, SyncGroupResponse, 0..=5, SYNC_GROUP;
            DescribeGroups: DescribeGroupsRequest, DescribeGroupsResponse, 0..=6, DESCRIBE_GROUPS;
            ListGroups: ListGroupsRequest, ListGroupsResponse, 0..=5, LIST_GROUPS;
            ApiVersions: ApiVersionsRequest, ApiVersionsResponse, 0..=4, API_VERSIONS;
            CreateTopics: CreateTopicsRequest, CreateTopicsResponse, 2..=7, CREATE_TOPICS;
            DeleteTopics: DeleteTopicsRequest, DeleteTopicsResponse, 1..=6, DELETE_TOPICS;
            DeleteRecords: DeleteRecordsRequest, DeleteRecordsResponse, 0..=2, DELETE_RECORDS;
            // Version 6 adds two-phase commit, which the broker does not do.
            InitProducerId: InitProducerIdRequest, InitProducerIdResponse, 0..=5, INIT_PRODUCER_ID;
            OffsetForLeaderEpoch: OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, 2..=4, OFFSET_FOR_LEADER_EPOCH;
            // No broker without an authorizer keeps any: all three say so.
            DescribeAcls: DescribeAclsRequest, DescribeAclsResponse, 1..=3, DESCRIBE_ACLS;
            CreateAcls: CreateAclsRequest, CreateAclsResponse, 1..=3, CREATE_ACLS;
            DeleteAcls: DeleteAclsRequest, DeleteAclsResponse, 1..=3, DELETE_ACLS;
            DescribeConfigs: DescribeConfigsRequest, DescribeConfigsResponse, 1..=4, DESCRIBE_CONFIGS;
            AlterConfigs: AlterConfigsRequest, AlterConfigsResponse, 0..=2, ALTER_CONFIGS;
            DescribeLogDirs: DescribeLogDirsRequest, DescribeLogDirsResponse, 1..=4, DESCRIBE_LOG_DIRS;
            CreatePartitions: CreatePartitionsRequest, CreatePartitionsResponse, 0..=3, CREATE_PARTITIONS;
            DeleteGroups: DeleteGroupsRequest, DeleteGroupsResponse, 0..=2, DELETE_GROUPS;
            ElectLeaders: ElectLeadersRequest, ElectLeadersResponse, 0..=2, ELECT_LEADERS;
            IncrementalAlterConfigs: IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, 0..=1, INCREMENTAL_ALTER_CONFIGS;
            AlterPartitionReassignments: AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, 0..=1, ALTER_PARTITION_REASSIGNMENTS;
            ListPartitionReassignments: ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, 0..=0, LIST_PARTITION_REASSIGNMENTS;
            OffsetDelete: OffsetDeleteRequest, OffsetDeleteResponse, 0..=0, OFFSET_DELETE;
            DescribeClientQuotas: DescribeClientQuotasRequest, DescribeClientQuotasResponse, 0..=1, DESCRIBE_CLIENT_QUOTAS;
            AlterClientQuotas: AlterClientQuotasRequest, AlterClientQuotasResponse, 0..=1, ALTER_CLIENT_QUOTAS;
            DescribeQuorum: DescribeQuorumRequest, DescribeQuorumResponse, 0..=2, DESCRIBE_QUORUM;
            DescribeCluster: DescribeClusterRequest, DescribeClusterResponse, 0..=2, DESCRIBE_CLUSTER;
            DescribeProducers: DescribeProducersRequest, DescribeProducersResponse, 0..=0, DESCRIBE_PRODUCERS;
            UnregisterBroker: UnregisterBrokerRequest, UnregisterBrokerResponse, 0..=0, UNREGISTER_BROKER;
            ConsumerGroupHeartbeat: ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, 0..=1, CONSUMER_GROUP_HEARTBEAT;
            ConsumerGroupDescribe: ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, 0..=1, CONSUMER_GROUP_DESCRIBE;
            ListConfigResources: ListConfigResourcesRequest, ListConfigResourcesResponse, 0..=1, LIST_CONFIG_RESOURCES;
            DescribeTopicPartitions: DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, 0..=0, DESCRIBE_TOPIC_PARTITIONS;
            AddRaftVoter: AddRaftVoterRequest, AddRaftVoterResponse, 0..=0, ADD_RAFT_VOTER;
            RemoveRaftVoter: RemoveRaftVoterRequest, RemoveRaftVoterResponse, 0..=0, REMOVE_RAFT_VOTER;
        }
    };
}
pub(super) use for_each_api;

/// A request that the broker answers.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// Its key.
    pub key: ApiKey,
    /// Its name.
    pub name: &'static str,
    /// The oldest version answered.
    pub min: i16,
    /// The newest version answered.
    pub max: i16,
    /// What the request looks like on the wire.
    pub(super) schema: &'static Schema,
}

macro_rules! table {
    ($($name:ident: $request:ident, $response:ident, $min:literal..=$max:literal, $schema:ident;)*) => {
        /// Every API that the broker answers, in the order of its key.
        pub static APIS: &[Api] = &[
            $(Api { key: ApiKey::$name, name: stringify!($name), min: $min, max: $max, schema: &schema::$schema },)*
        ];
    };
}
for_each_api!(table);

impl Api {
    /// The API with the key `key`, when the broker answers it.
    pub fn by_key(key: i16) -> Option<&'static Api> {
        APIS.iter().find(|api| api.key as i16 == key)
    }

    /// The place of the API with this key in [`APIS`]; it is there.
    pub fn place(key: ApiKey) -> usize {
        APIS.iter().position(|api| api.key == key).expect("the broker answers the API")
    }

    /// Whether `version` is answered.
    pub fn supports(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// The oldest version that ApiVersions announces.
    ///
    /// Produce is announced from version 0 although the oldest answered is 3, as Kafka 4 does: librdkafka compresses
    /// only for brokers that announce version 0 (KAFKA-18659), and sends the newest version all the same.
    pub fn announced_min(&self) -> i16 {
        match self.key {
            ApiKey::Produce => 0,
            _ => self.min,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// `docs/apis.md` as the table of APIs makes it.
    fn documented() -> String {
        let mut text = "# The APIs that ringlog answers\n\n\
            Made from the table in `src/protocol/versions.rs`; `scripts/docs.sh` writes this page anew, and a test compares\n\
            the two, and with what ApiVersions says. A request of any other API or version ends its connection, as in Kafka;\n\
            clients find out before, by ApiVersions.\n\n\
            | key | API | versions answered | versions there are |\n|--:|---|---|---|\n"
            .to_owned();
        for api in APIS {
            let known = api.key.valid_versions();
            let range = format!("{}-{}", api.announced_min(), api.max);
            writeln!(text, "| {} | {:?} | {range} | {}-{} |", api.key as i16, api.key, known.min, known.max).unwrap();
        }
        let missing = ApiKey::iter().filter(|key| Api::by_key(*key as i16).is_none());
        let missing: Vec<String> = missing.map(|key| format!("{key:?} ({})", key as i16)).collect();
        writeln!(text, "\nNot answered: {}.", missing.join(", ")).unwrap();
        text
    }

    #[test]
    fn the_page_of_apis_is_that_of_the_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/apis.md");
        if std::env::var_os("RINGLOG_WRITE_DOCS").is_some() {
            std::fs::write(page, documented()).unwrap();
        }
        let written = std::fs::read_to_string(page).unwrap();
        assert_eq!(written, documented(), "run scripts/docs.sh");
    }

    #[test]
    fn the_table_is_in_the_order_of_its_keys() {
        assert!(APIS.windows(2).all(|two| (two[0].key as i16) < two[1].key as i16));
    }
}
