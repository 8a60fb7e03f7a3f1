//! AlterPartitionReassignments: which partitions' replicas are to be moved, and what the client is told.
//!
//! A move that is taken back goes on in the other direction, to the replicas that the partition had.

use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::metadata::command::Placed;
use crate::metadata::{Command, State};
use crate::protocol::ErrorCode;
use crate::types::BrokerId;

/// What to do about a request.
#[derive(Debug)]
pub struct Plan {
    /// The command to propose; none where nothing is to be moved.
    pub command: Option<Command>,
    /// The answer once the command is applied, or at once where there is none.
    pub response: AlterPartitionReassignmentsResponse,
}

/// Checks the request against the state. Where an earlier try of it may have been carried out (`again`), it is no error
/// that there is nothing to take back.
pub fn plan(state: &State, request: &AlterPartitionReassignmentsRequest, again: bool) -> Plan {
    let mut moves = Vec::new();
    let response = each(request, |topic, partition| {
        let placed = place(state, topic, partition, request.allow_replication_factor_change, again)?;
        moves.push(placed);
        Ok(())
    });
    let command = (!moves.is_empty()).then_some(Command::MoveReplicas { moves });
    Plan { command, response: response.with_allow_replication_factor_change(request.allow_replication_factor_change) }
}

/// The answer that refuses everything for one reason.
pub fn failed(error: ErrorCode) -> AlterPartitionReassignmentsResponse {
    AlterPartitionReassignmentsResponse::default().with_error_code(error.code()).with_error_message(None)
}

/// The answer in a form that `version` has room for: it comes from the coordinator in the newest.
pub fn for_version(response: AlterPartitionReassignmentsResponse, version: i16) -> AlterPartitionReassignmentsResponse {
    // Before there was such a field it was always allowed.
    if version < 1 { response.with_allow_replication_factor_change(true) } else { response }
}

type Refusal = (ErrorCode, String);

fn each(
    request: &AlterPartitionReassignmentsRequest,
    mut act: impl FnMut(&TopicName, &ReassignablePartition) -> Result<(), Refusal>,
) -> AlterPartitionReassignmentsResponse {
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let result = ReassignablePartitionResponse::default().with_partition_index(partition.partition_index);
            partitions.push(match act(&topic.name, partition) {
                Ok(()) => result.with_error_message(None),
                Err((error, message)) => {
                    result.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(message)))
                }
            });
        }
        responses.push(ReassignableTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions));
    }
    AlterPartitionReassignmentsResponse::default().with_error_message(None).with_responses(responses)
}

/// Where the replicas of a partition are to go.
fn place(
    state: &State,
    topic: &TopicName,
    wanted: &ReassignablePartition,
    may_change_factor: bool,
    again: bool,
) -> Result<Placed, Refusal> {
    let unknown = || (ErrorCode::UnknownTopicOrPartition, "The topic or partition does not exist.".to_owned());
    let topic = state.topic(topic).ok_or_else(unknown)?;
    let number = u32::try_from(wanted.partition_index).map_err(|_| unknown())?;
    let partition = topic.partitions.get(number as usize).ok_or_else(unknown)?;
    let moving = state.moved(partition.log).is_some_and(|moved| moved.target.is_some());
    let replicas: Vec<BrokerId> = match &wanted.replicas {
        Some(replicas) => replicas.iter().map(|broker| BrokerId(broker.0)).collect(),
        None if moving || again => partition.replicas.to_vec(),
        None => {
            let message = "The partition's replicas are not being moved.".to_owned();
            return Err((ErrorCode::NoReassignmentInProgress, message));
        }
    };
    let wrong = |message: String| Err((ErrorCode::InvalidReplicaAssignment, message));
    if replicas.is_empty() {
        return wrong("A partition needs a replica.".to_owned());
    }
    for (place, broker) in replicas.iter().enumerate() {
        if replicas[..place].contains(broker) {
            return wrong(format!("Broker {} is named more than once.", broker.0));
        }
        if state.broker(*broker).is_none() {
            return wrong(format!("No broker {} is registered.", broker.0));
        }
    }
    if !may_change_factor && replicas.len() != partition.replicas.len() {
        let message = format!(
            "The replication factor would change from {} to {}, which the request does not allow.",
            partition.replicas.len(),
            replicas.len()
        );
        return Err((ErrorCode::InvalidReplicationFactor, message));
    }
    Ok(Placed { topic: topic.id, partition: number, replicas })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::alter_partition_reassignments_request::ReassignableTopic;

    use super::super::admin_tests::{assert_encodable, name, state};
    use super::*;

    fn request(partitions: &[(i32, Option<&[i32]>)]) -> AlterPartitionReassignmentsRequest {
        let partition = |&(index, replicas): &(i32, Option<&[i32]>)| {
            let replicas = replicas.map(|ids| ids.iter().map(|id| (*id).into()).collect());
            ReassignablePartition::default().with_partition_index(index).with_replicas(replicas)
        };
        let topic = ReassignableTopic::default()
            .with_name(name("a"))
            .with_partitions(partitions.iter().map(partition).collect());
        AlterPartitionReassignmentsRequest::default().with_topics(vec![topic])
    }

    fn codes(plan: &Plan) -> Vec<i16> {
        for version in 0..=1 {
            assert_encodable(&for_version(plan.response.clone(), version), version..=version);
        }
        plan.response.responses[0].partitions.iter().map(|partition| partition.error_code).collect()
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_partition() {
        let state = state(3, &[("a", 2)]);
        let plan = plan(
            &state,
            &request(&[
                (0, Some(&[2, 3])),
                (1, Some(&[2, 2])),
                (1, Some(&[9])),
                (1, Some(&[])),
                (7, Some(&[1])),
                (1, None),
            ]),
            false,
        );
        assert_eq!(codes(&plan), [0, 39, 39, 39, 3, 85]);
        let Some(Command::MoveReplicas { moves }) = &plan.command else { panic!("{:?}", plan.command) };
        assert_eq!((moves.len(), moves[0].partition, &moves[0].replicas[..]), (1, 0, &[BrokerId(2), BrokerId(3)][..]));
    }

    #[test]
    fn the_number_of_replicas_stays_where_the_client_wants_it_to() {
        let wanted = request(&[(0, Some(&[2, 3])), (0, Some(&[2]))]).with_allow_replication_factor_change(false);
        assert_eq!(codes(&plan(&state(3, &[("a", 1)]), &wanted, false)), [38, 0]);
    }

    #[test]
    fn a_move_is_taken_back() {
        let mut state = state(3, &[("a", 1)]);
        let there = plan(&state, &request(&[(0, Some(&[3]))]), false).command.expect("a move");
        state.apply(101, &there);
        let back = plan(&state, &request(&[(0, None)]), false);
        let Some(Command::MoveReplicas { moves }) = &back.command else { panic!("{:?}", back.command) };
        assert_eq!(moves[0].replicas, [BrokerId(1)]);
    }
}
