//! ListPartitionReassignments: the partitions whose replicas are being moved.

use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{
    BrokerId as KafkaBroker, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::metadata::State;
use crate::metadata::state::{Move, Partition};
use crate::types::BrokerId;

/// The answer, as of the last command that is applied here; topics in the order of their names.
pub fn respond(state: &State, request: &ListPartitionReassignmentsRequest) -> ListPartitionReassignmentsResponse {
    let asked = |name: &str, index: usize| {
        request.topics.as_ref().is_none_or(|topics| {
            let mut named = topics.iter().filter(|topic| topic.name.as_str() == name);
            named.any(|topic| topic.partition_indexes.iter().any(|wanted| *wanted as usize == index))
        })
    };
    let mut topics = Vec::new();
    for topic in state.topics() {
        let moving = topic.partitions.iter().enumerate().filter(|(index, _)| asked(&topic.name, *index));
        let partitions: Vec<_> =
            moving.filter_map(|(index, partition)| ongoing(index, partition, state.moved(partition.log)?)).collect();
        if !partitions.is_empty() {
            let name = TopicName(StrBytes::from_string(topic.name.to_string()));
            topics.push(OngoingTopicReassignment::default().with_name(name).with_partitions(partitions));
        }
    }
    ListPartitionReassignmentsResponse::default().with_error_message(None).with_topics(topics)
}

/// A move that goes on; none where it is over, or on its way back.
fn ongoing(index: usize, partition: &Partition, moved: &Move) -> Option<OngoingPartitionReassignment> {
    let target = moved.target.as_ref()?;
    let before = &partition.replicas;
    let ids = |brokers: &mut dyn Iterator<Item = &BrokerId>| brokers.map(|broker| KafkaBroker(broker.0)).collect();
    let adding: Vec<KafkaBroker> = ids(&mut target.iter().filter(|broker| !before.contains(broker)));
    let removing: Vec<KafkaBroker> = ids(&mut before.iter().filter(|broker| !target.contains(broker)));
    let all = ids(&mut target.iter().chain(before.iter().filter(|broker| !target.contains(broker))));
    (!adding.is_empty() || !removing.is_empty()).then(|| {
        OngoingPartitionReassignment::default()
            .with_partition_index(index as i32)
            .with_replicas(all)
            .with_adding_replicas(adding)
            .with_removing_replicas(removing)
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;

    use super::super::admin_tests::{assert_encodable, name, state};
    use super::*;
    use crate::metadata::Command;
    use crate::metadata::command::Placed;

    #[test]
    fn moves_are_listed_until_they_are_over() {
        let mut state = state(3, &[("a", 2), ("b", 1)]);
        let topic = state.topic("a").unwrap().id;
        let placed = Placed { topic, partition: 1, replicas: vec![BrokerId(2), BrokerId(3)] };
        state.apply(101, &Command::MoveReplicas { moves: vec![placed.clone()] });
        let all = ListPartitionReassignmentsRequest::default().with_topics(None);
        let response = respond(&state, &all);
        assert_encodable(&response, 0..=0);
        let moved = &response.topics[0].partitions[0];
        let ids = |brokers: &[KafkaBroker]| brokers.iter().map(|broker| broker.0).collect::<Vec<_>>();
        assert_eq!((response.topics.len(), moved.partition_index, ids(&moved.replicas)), (1, 1, vec![2, 3, 1]));
        assert_eq!((ids(&moved.adding_replicas), ids(&moved.removing_replicas)), (vec![2, 3], vec![1]));
        let other = ListPartitionReassignmentsTopics::default().with_name(name("a")).with_partition_indexes(vec![0]);
        assert!(respond(&state, &all.clone().with_topics(Some(vec![other]))).topics.is_empty());
        state.apply(102, &Command::ReplicasMoved { placed, number: 1 });
        assert!(respond(&state, &all).topics.is_empty());
        assert_eq!(*state.topic("a").unwrap().partitions[1].replicas, [BrokerId(2), BrokerId(3)]);
    }
}
