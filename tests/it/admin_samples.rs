//! A plain request of each administrative API, and what is right of its answer: the part of `versions` that would make
//! that file too long.

use kafka_protocol::messages::alter_configs_request as replace;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::incremental_alter_configs_request as increment;
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, CreatePartitionsRequest, IncrementalAlterConfigsRequest, RequestKind, ResponseKind,
};

use crate::common::wire::{text, topic_name};

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
        _ => return None,
    })
}

/// Checks that an answer is right.
pub fn check(response: ResponseKind, _version: i16, topic: &str) {
    match response {
        ResponseKind::CreatePartitions(response) => {
            let answer = &response.results[0];
            assert_eq!((answer.error_code, answer.name.as_str()), (0, topic), "{:?}", answer.error_message);
        }
        ResponseKind::AlterConfigs(response) => {
            let answer = &response.responses[0];
            assert_eq!((answer.error_code, answer.resource_name.as_str()), (0, topic), "{:?}", answer.error_message);
        }
        ResponseKind::IncrementalAlterConfigs(response) => {
            let answer = &response.responses[0];
            assert_eq!((answer.error_code, answer.resource_name.as_str()), (0, topic), "{:?}", answer.error_message);
        }
        other => panic!("no check for {other:?}"),
    }
}
