//! What the broker tells of itself: partitions page by page, sizes on its disk, idempotent producers, resources.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_topic_partitions_request::Cursor;
use kafka_protocol::messages::{
    DescribeLogDirsRequest, DescribeProducersRequest, DescribeTopicPartitionsRequest, ListConfigResourcesRequest,
    describe_producers_request, describe_topic_partitions_request,
};

use crate::common::process::{data_dir, external, shared};
use crate::common::records::{Batch, batch};
use crate::common::wire::{Wire, code, text, topic_name};
use crate::common::{fresh, skipped};

fn connect() -> Wire {
    Wire::connect(shared().address())
}

#[test]
fn partitions_are_told_page_by_page() {
    let mut wire = connect();
    let prefix = fresh("paged");
    let names: Vec<String> = (0..4).map(|number| format!("{prefix}-{number}")).collect();
    for (name, partitions) in names.iter().zip([3, 1, 7, 2]) {
        wire.create_topic(name, partitions, &[]);
    }
    let topic = |name: &String| describe_topic_partitions_request::TopicRequest::default().with_name(topic_name(name));
    let mut seen = Vec::new();
    let mut cursor: Option<(String, i32)> = None;
    for page in 1.. {
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(names.iter().rev().map(topic).collect())
            .with_response_partition_limit(4)
            .with_cursor(cursor.as_ref().map(|(name, partition)| {
                Cursor::default().with_topic_name(topic_name(name)).with_partition_index(*partition)
            }));
        let answer = wire.call(0, &request);
        let before = seen.len();
        for topic in &answer.topics {
            assert_eq!(topic.error_code, 0);
            let name = topic.name.as_ref().expect("a name").to_string();
            seen.extend(topic.partitions.iter().map(|partition| {
                assert_eq!((partition.error_code, partition.isr_nodes.len()), (0, 1));
                (name.clone(), partition.partition_index)
            }));
        }
        assert!(seen.len() - before <= 4, "page {page}");
        match answer.next_cursor {
            Some(next) => cursor = Some((next.topic_name.to_string(), next.partition_index)),
            None => break,
        }
    }
    let all = names.iter().zip([3, 1, 7, 2]).flat_map(|(name, count)| (0..count).map(move |part| (name.clone(), part)));
    assert_eq!(seen, all.collect::<Vec<_>>());
    let nowhere = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![topic(&fresh("nowhere"))])
        .with_response_partition_limit(4)
        .with_cursor(None);
    assert_eq!(wire.call(0, &nowhere).topics[0].error_code, code(ResponseError::UnknownTopicOrPartition));
}

#[test]
fn sizes_are_those_of_what_was_written() {
    let mut wire = connect();
    let name = fresh("sizes");
    wire.create_topic(&name, 2, &[]);
    let record = batch(&[&"x".repeat(10_000)]);
    for _ in 0..5 {
        assert_eq!(wire.produce(&name, 1, record.clone()).error_code, 0);
    }
    let asked = |partitions: &[i32]| {
        let topic =
            DescribableLogDirTopic::default().with_topic(topic_name(&name)).with_partitions(partitions.to_vec());
        let nowhere =
            DescribableLogDirTopic::default().with_topic(topic_name(&fresh("nowhere"))).with_partitions(vec![0]);
        DescribeLogDirsRequest::default().with_topics(Some(vec![nowhere, topic]))
    };
    let mut result = wire.call(4, &asked(&[0, 1, 7])).results.remove(0);
    assert_eq!((result.error_code, result.topics.len()), (0, 1), "what is not here is left out");
    assert!(result.usable_bytes > 0 && result.usable_bytes <= result.total_bytes);
    let mut partitions = result.topics.remove(0).partitions;
    partitions.sort_by_key(|partition| partition.partition_index);
    let sizes: Vec<i64> = partitions.iter().map(|partition| partition.partition_size).collect();
    assert_eq!(sizes, [0, 5 * record.len() as i64]);
    assert!(partitions.iter().all(|partition| partition.offset_lag == 0 && !partition.is_future_key));
    let all = wire.call(4, &DescribeLogDirsRequest::default().with_topics(None)).results.remove(0);
    assert!(all.topics.iter().any(|topic| topic.name.as_str() == name));
    let none = wire.call(4, &DescribeLogDirsRequest::default().with_topics(Some(vec![]))).results.remove(0);
    assert!(none.topics.is_empty() && none.total_bytes == all.total_bytes);
}

#[test]
fn a_size_is_the_same_before_and_after_a_restart() {
    if external().is_some() {
        return skipped("the broker is not ours to restart");
    }
    let directory = data_dir();
    let broker = crate::common::process::Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    let name = fresh("kept");
    wire.create_topic(&name, 1, &[("segment.bytes", "1048576")]);
    let record = batch(&[&"x".repeat(100_000)]);
    for _ in 0..30 {
        assert_eq!(wire.produce(&name, 0, record.clone()).error_code, 0);
    }
    let size = |wire: &mut Wire| {
        let result = wire.call(4, &DescribeLogDirsRequest::default().with_topics(None)).results.remove(0);
        let topic = result.topics.iter().find(|topic| topic.name.as_str() == name)?;
        assert!(std::path::Path::new(&*result.log_dir).is_absolute());
        Some(topic.partitions[0].partition_size)
    };
    assert_eq!(size(&mut wire), Some(30 * record.len() as i64));
    let broker = broker.kill().start();
    let mut wire = Wire::connect(&broker.address());
    assert_eq!(size(&mut wire), Some(30 * record.len() as i64));
}

#[test]
fn idempotent_producers_are_told() {
    let mut wire = connect();
    let name = fresh("producers");
    wire.create_topic(&name, 1, &[]);
    let (id, epoch) = wire.producer_id();
    for sequence in 0..3 {
        assert_eq!(wire.produce(&name, 0, Batch::of(&["a"]).by(id, epoch, sequence).bytes()).error_code, 0);
    }
    let asked = |name: &str, partitions: &[i32]| {
        let topic = describe_producers_request::TopicRequest::default()
            .with_name(topic_name(name))
            .with_partition_indexes(partitions.to_vec());
        DescribeProducersRequest::default().with_topics(vec![topic])
    };
    let answer = wire.call(0, &asked(&name, &[0, 1]));
    let [known, unknown] = &answer.topics[0].partitions[..] else { panic!("{answer:?}") };
    assert_eq!(unknown.error_code, code(ResponseError::UnknownTopicOrPartition));
    let [producer] = &known.active_producers[..] else { panic!("{known:?}") };
    assert_eq!((producer.producer_id.0, producer.producer_epoch, producer.last_sequence), (id, i32::from(epoch), 2));
    assert!(producer.last_timestamp > 1_600_000_000_000, "{}", producer.last_timestamp);
    assert_eq!((producer.coordinator_epoch, producer.current_txn_start_offset), (-1, -1));
}

#[test]
fn resources_with_configs_are_listed() {
    let mut wire = connect();
    let name = fresh("listed");
    wire.create_topic(&name, 1, &[]);
    let list = |wire: &mut Wire, kinds: &[i8]| {
        wire.call(1, &ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec()))
    };
    let topics = list(&mut wire, &[2]);
    assert!(topics.config_resources.iter().all(|resource| resource.resource_type == 2));
    assert!(topics.config_resources.iter().any(|resource| resource.resource_name == text(&name)));
    let node = wire.metadata(&name).brokers[0].node_id.0.to_string();
    let brokers = list(&mut wire, &[4]);
    assert_eq!(brokers.config_resources[0].resource_name, text(&node));
    assert_eq!(list(&mut wire, &[3]).error_code, code(ResponseError::UnsupportedVersion));
    assert!(list(&mut wire, &[16]).config_resources.is_empty(), "nobody subscribes to metrics");
}
