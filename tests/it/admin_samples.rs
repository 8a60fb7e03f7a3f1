//! A plain request of each administrative API, and what is right of its answer: the part of `versions` that would make
//! that file too long.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_request as replace;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::incremental_alter_configs_request as increment;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterConfigsRequest, ApiKey, CreateAclsRequest, CreatePartitionsRequest,
    DeleteAclsRequest, DeleteRecordsRequest, DescribeAclsRequest, DescribeClientQuotasRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeTopicPartitionsRequest, IncrementalAlterConfigsRequest,
    ListConfigResourcesRequest, RequestKind, ResponseKind, alter_client_quotas_request, describe_producers_request,
    describe_topic_partitions_request,
};

use crate::common::wire::{code, text, topic_name};

/// A request about a topic of one partition; nothing for an API that this test knows none of.
pub fn request(api: ApiKey, topic: &str) -> Option<RequestKind> {
    Some(match api {
        ApiKey::CreatePartitions => {
            let more =
                CreatePartitionsTopic::default().with_name(topic_name(topic)).with_count(2).with_assignments(None);
            let request = CreatePartitionsRequest::default().with_topics(vec![more]).with_timeout_ms(5_000);
            // The other requests expect one partition.
            RequestKind::CreatePartitions(request.with_validate_only(true))
        }
        ApiKey::DeleteRecords => {
            // The other requests read from the first record on.
            let partition = DeleteRecordsPartition::default().with_offset(0);
            let topic = DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
            let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
            RequestKind::DeleteRecords(request)
        }
        ApiKey::AlterConfigs => {
            let config =
                replace::AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("86400000")));
            let resource = replace::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text(topic))
                .with_configs(vec![config]);
            RequestKind::AlterConfigs(AlterConfigsRequest::default().with_resources(vec![resource]))
        }
        ApiKey::IncrementalAlterConfigs => {
            let config = increment::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("86400000")));
            let resource = increment::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text(topic))
                .with_configs(vec![config]);
            let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
            RequestKind::IncrementalAlterConfigs(request)
        }
        ApiKey::DescribeLogDirs => {
            let asked = DescribableLogDirTopic::default().with_topic(topic_name(topic)).with_partitions(vec![0]);
            RequestKind::DescribeLogDirs(DescribeLogDirsRequest::default().with_topics(Some(vec![asked])))
        }
        ApiKey::DescribeProducers => {
            let asked = describe_producers_request::TopicRequest::default()
                .with_name(topic_name(topic))
                .with_partition_indexes(vec![0]);
            RequestKind::DescribeProducers(DescribeProducersRequest::default().with_topics(vec![asked]))
        }
        ApiKey::DescribeTopicPartitions => {
            let asked = describe_topic_partitions_request::TopicRequest::default().with_name(topic_name(topic));
            let request = DescribeTopicPartitionsRequest::default().with_topics(vec![asked]);
            RequestKind::DescribeTopicPartitions(request.with_response_partition_limit(10).with_cursor(None))
        }
        ApiKey::DescribeAcls => RequestKind::DescribeAcls(DescribeAclsRequest::default()),
        ApiKey::CreateAcls => {
            RequestKind::CreateAcls(CreateAclsRequest::default().with_creations(vec![AclCreation::default(); 2]))
        }
        ApiKey::DeleteAcls => {
            RequestKind::DeleteAcls(DeleteAclsRequest::default().with_filters(vec![DeleteAclsFilter::default(); 3]))
        }
        ApiKey::ListConfigResources => RequestKind::ListConfigResources(ListConfigResourcesRequest::default()),
        ApiKey::DescribeClientQuotas => RequestKind::DescribeClientQuotas(DescribeClientQuotasRequest::default()),
        ApiKey::AlterClientQuotas => {
            let entity = alter_client_quotas_request::EntityData::default()
                .with_entity_type(text("client-id"))
                .with_entity_name(Some(text(topic)));
            let op =
                alter_client_quotas_request::OpData::default().with_key(text("producer_byte_rate")).with_value(1e9);
            let entry = alter_client_quotas_request::EntryData::default().with_entity(vec![entity]).with_ops(vec![op]);
            RequestKind::AlterClientQuotas(AlterClientQuotasRequest::default().with_entries(vec![entry]))
        }
        _ => return None,
    })
}

/// Checks that an answer is right.
pub fn check(response: ResponseKind, version: i16, topic: &str) {
    match response {
        ResponseKind::CreatePartitions(response) => {
            let answer = &response.results[0];
            assert_eq!((answer.error_code, answer.name.as_str()), (0, topic), "{:?}", answer.error_message);
        }
        ResponseKind::DeleteRecords(response) => {
            let answer = &response.topics[0].partitions[0];
            assert_eq!((answer.error_code, answer.low_watermark), (0, 0));
        }
        ResponseKind::AlterConfigs(response) => {
            let answer = &response.responses[0];
            assert_eq!((answer.error_code, answer.resource_name.as_str()), (0, topic), "{:?}", answer.error_message);
        }
        ResponseKind::IncrementalAlterConfigs(response) => {
            let answer = &response.responses[0];
            assert_eq!((answer.error_code, answer.resource_name.as_str()), (0, topic), "{:?}", answer.error_message);
        }
        ResponseKind::DescribeLogDirs(response) => {
            let result = &response.results[0];
            assert_eq!(result.error_code, 0);
            assert!(result.log_dir.starts_with('/'), "{}", &*result.log_dir);
            let answer = &result.topics[0];
            assert_eq!((answer.name.as_str(), answer.partitions.len()), (topic, 1));
            assert!(answer.partitions[0].partition_size > 60, "a batch");
            if version >= 4 {
                assert!(result.total_bytes >= result.usable_bytes && result.usable_bytes > 0);
            }
        }
        ResponseKind::DescribeProducers(response) => {
            let answer = &response.topics[0].partitions[0];
            assert_eq!((answer.error_code, answer.active_producers.len()), (0, 0), "nobody was idempotent");
        }
        ResponseKind::DescribeTopicPartitions(response) => {
            let answer = &response.topics[0];
            assert_eq!((answer.error_code, answer.partitions.len()), (0, 1));
            assert_eq!((answer.partitions[0].error_code, answer.partitions[0].replica_nodes.len()), (0, 1));
            assert!(response.next_cursor.is_none());
        }
        ResponseKind::DescribeAcls(response) => {
            assert_eq!((response.error_code, response.resources.len()), (code(ResponseError::SecurityDisabled), 0));
        }
        ResponseKind::CreateAcls(response) => {
            let codes: Vec<i16> = response.results.iter().map(|result| result.error_code).collect();
            assert_eq!(codes, [code(ResponseError::SecurityDisabled); 2]);
        }
        ResponseKind::DeleteAcls(response) => {
            let codes: Vec<i16> = response.filter_results.iter().map(|result| result.error_code).collect();
            assert_eq!(codes, [code(ResponseError::SecurityDisabled); 3]);
        }
        ResponseKind::ListConfigResources(response) => {
            assert_eq!(response.error_code, 0);
            let listed = response.config_resources.iter().any(|found| &*found.resource_name == topic);
            assert_eq!(listed, version >= 1, "the first version lists subscriptions to metrics");
        }
        ResponseKind::DescribeClientQuotas(response) => {
            assert_eq!(response.error_code, 0);
            assert!(response.entries.is_some());
        }
        ResponseKind::AlterClientQuotas(response) => {
            assert_eq!(response.entries[0].error_code, 0, "{:?}", response.entries[0].error_message);
            assert_eq!(response.entries[0].entity[0].entity_name.as_deref(), Some(topic));
        }
        other => panic!("no check for {other:?}"),
    }
}
