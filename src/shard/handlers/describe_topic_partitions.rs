//! DescribeTopicPartitions: where the partitions of topics are, so many in an answer, and where the next answer begins.

use std::collections::BTreeSet;

use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use kafka_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::TOPIC_OPERATIONS;
use super::metadata::{Seen, placed};
use crate::limits::MAX_DESCRIBED_PARTITIONS;
use crate::metadata::{State, Topic, names};
use crate::protocol::ErrorCode;

/// The answer. Topics ordered by name, those that are named or all, from the cursor on.
pub fn respond(
    state: &State,
    request: &DescribeTopicPartitionsRequest,
    seen: &Seen<'_>,
) -> DescribeTopicPartitionsResponse {
    let cursor = request.cursor.as_ref().map(|cursor| (&**cursor.topic_name, cursor.partition_index));
    let first = match cursor.map(|(_, partition)| usize::try_from(partition)) {
        None => 0,
        Some(Ok(first)) => first,
        // There is no error of the whole answer in it.
        Some(Err(_)) => return failed(request, ErrorCode::InvalidRequest),
    };
    let from = cursor.map_or("", |(topic, _)| topic);
    let named: BTreeSet<&str> = request.topics.iter().map(|topic| &**topic.name).collect();
    // All topics are not gathered first: there may be very many, and an answer tells of few.
    let all = state.topics().take_while(|_| named.is_empty()).map(|topic| &*topic.name).skip_while(|name| *name < from);
    let mut room = (request.response_partition_limit.max(1) as usize).min(MAX_DESCRIBED_PARTITIONS);
    let mut response = DescribeTopicPartitionsResponse::default().with_next_cursor(None);
    for name in all.chain(named.range(from..).copied()) {
        let begin = if cursor.is_some_and(|(topic, _)| topic == name) { first } else { 0 };
        if room == 0 {
            response.next_cursor = Some(at(name, 0));
            break;
        }
        let Some(topic) = state.topic(name) else {
            response.topics.push(missing(name));
            continue;
        };
        let end = topic.partitions.len().min(begin.saturating_add(room));
        response.topics.push(described(state, topic, begin.min(end)..end, seen));
        if end < topic.partitions.len() {
            response.next_cursor = Some(at(name, end));
            break;
        }
        room -= end.saturating_sub(begin);
    }
    response
}

fn at(topic: &str, partition: usize) -> Cursor {
    let topic_name = TopicName(StrBytes::from_string(topic.to_owned()));
    Cursor::default().with_topic_name(topic_name).with_partition_index(partition as i32)
}

fn described(
    state: &State,
    topic: &Topic,
    range: std::ops::Range<usize>,
    seen: &Seen<'_>,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = topic.partitions[range.clone()].iter().zip(range.start as i32..);
    let partitions = partitions.map(|(partition, index)| converted(placed(state, partition, index, seen)));
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_topic_id(topic.id)
        .with_is_internal(names::is_internal(&topic.name))
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}

/// A partition as Metadata tells it. There are no eligible replicas beside those in sync: an election never asks which
/// replicas once were.
fn converted(partition: MetadataResponsePartition) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition::default()
        .with_error_code(partition.error_code)
        .with_partition_index(partition.partition_index)
        .with_leader_id(partition.leader_id)
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(partition.replica_nodes)
        .with_isr_nodes(partition.isr_nodes)
        .with_eligible_leader_replicas(Some(Vec::new()))
        .with_last_known_elr(Some(Vec::new()))
        .with_offline_replicas(partition.offline_replicas)
}

fn missing(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = match names::validate(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    };
    refused(&TopicName(StrBytes::from_string(name.to_owned())), error)
}

fn refused(name: &TopicName, error: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(name.clone()))
        .with_topic_id(Uuid::nil())
        .with_is_internal(names::is_internal(name))
}

fn failed(request: &DescribeTopicPartitionsRequest, error: ErrorCode) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|topic| refused(&topic.name, error));
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect()).with_next_cursor(None)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_topic_partitions_request as request;

    use super::super::admin_tests::{assert_encodable, name, state};
    use super::*;
    use crate::types::{BrokerId, LeaderEpoch, LogId};

    /// Broker 1 leads every log but the second.
    fn leaders(log: LogId) -> Option<(BrokerId, LeaderEpoch)> {
        (log != LogId(2)).then_some((BrokerId(1), 5))
    }

    const SEEN: Seen<'static> = Seen { leaders: &leaders, alive: &|_| true, in_sync: &|_, _| true };

    /// Name, error and numbers of the partitions of each topic.
    type Shown = Vec<(String, i16, Vec<i32>)>;

    fn ask(topics: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> (Shown, Option<(String, i32)>) {
        let topic = |topic: &&str| request::TopicRequest::default().with_name(name(topic));
        let cursor = cursor.map(|(topic, partition)| {
            request::Cursor::default().with_topic_name(name(topic)).with_partition_index(partition)
        });
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(topics.iter().map(topic).collect())
            .with_response_partition_limit(limit)
            .with_cursor(cursor);
        let state = state(1, &[("b", 3), ("a", 2), ("c", 1)]);
        let response = respond(&state, &request, &SEEN);
        assert_encodable(&response, 0..=0);
        let shown = response.topics.iter().map(|topic| {
            let numbers = topic.partitions.iter().map(|partition| partition.partition_index);
            (topic.name.as_ref().unwrap().to_string(), topic.error_code, numbers.collect())
        });
        let next = response.next_cursor.map(|next| (next.topic_name.to_string(), next.partition_index));
        (shown.collect(), next)
    }

    fn whole(name: &str, partitions: i32) -> (String, i16, Vec<i32>) {
        (name.to_owned(), 0, (0..partitions).collect())
    }

    #[test]
    fn all_topics_or_those_that_are_named_in_order() {
        assert_eq!(ask(&[], 2_000, None), (vec![whole("a", 2), whole("b", 3), whole("c", 1)], None));
        let unknown = ("no".to_owned(), ErrorCode::UnknownTopicOrPartition.code(), vec![]);
        let invalid = ("x/y".to_owned(), ErrorCode::InvalidTopicException.code(), vec![]);
        assert_eq!(
            ask(&["x/y", "no", "c", "a", "c"], 2_000, None),
            (vec![whole("a", 2), whole("c", 1), unknown, invalid], None)
        );
    }

    #[test]
    fn pages_put_together_are_the_whole() {
        for limit in 1..=7 {
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let (topics, next) =
                    ask(&[], limit, cursor.as_ref().map(|(name, at): &(String, i32)| (name.as_str(), *at)));
                let parts: Vec<_> = topics
                    .into_iter()
                    .flat_map(|(name, _, parts)| parts.into_iter().map(move |part| (name.clone(), part)))
                    .collect();
                assert!(!parts.is_empty() && parts.len() <= limit as usize);
                seen.extend(parts);
                match next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            let all =
                [("a", 2), ("b", 3), ("c", 1)].map(|(name, count)| (0..count).map(move |part| (name.to_owned(), part)));
            assert_eq!(seen, all.into_iter().flatten().collect::<Vec<_>>(), "pages of {limit}");
        }
    }

    #[test]
    fn a_cursor_may_name_what_is_not_there_any_more() {
        assert_eq!(ask(&[], 2_000, Some(("aa", 7))), (vec![whole("b", 3), whole("c", 1)], None));
        assert_eq!(ask(&[], 2_000, Some(("z", 0))), (vec![], None));
        assert_eq!(ask(&["a", "c"], 0, Some(("a", 9))).0[0], ("a".to_owned(), 0, vec![]), "past its end");
        let invalid = ErrorCode::InvalidRequest.code();
        assert_eq!(ask(&["a"], 9, Some(("a", -1))), (vec![("a".to_owned(), invalid, vec![])], None));
    }

    #[test]
    fn partitions_as_metadata_tells_them() {
        let request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(9);
        let response = respond(&state(1, &[("a", 2)]), &request, &SEEN);
        let topic = &response.topics[0];
        assert_eq!((topic.topic_id.as_u128(), topic.topic_authorized_operations), (1, TOPIC_OPERATIONS));
        let led = &topic.partitions[0];
        assert_eq!((led.error_code, led.leader_id.0, led.leader_epoch), (0, 1, 5));
        assert_eq!((&led.replica_nodes, &led.isr_nodes), (&vec![1.into()], &vec![1.into()]));
        assert_eq!(led.eligible_leader_replicas, Some(vec![]));
        let orphan = &topic.partitions[1];
        assert_eq!((orphan.error_code, orphan.leader_id.0), (ErrorCode::LeaderNotAvailable.code(), -1));
    }
}
