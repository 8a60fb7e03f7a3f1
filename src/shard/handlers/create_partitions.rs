//! CreatePartitions: which topics of a request get further partitions, and what the client is told.

use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::create_topics::{Refusal, check_assignment};
use crate::group::OFFSETS_TOPIC;
use crate::limits::{MAX_PARTITIONS, MAX_PARTITIONS_PER_REQUEST};
use crate::metadata::command::MorePartitions;
use crate::metadata::placement::Placement;
use crate::metadata::{Command, State};
use crate::protocol::ErrorCode;
use crate::types::LogId;

/// What to do about a request.
#[derive(Debug)]
pub struct Plan {
    /// The command to propose; none where nothing is to be created.
    pub command: Option<Command>,
    /// The answer once the command is applied, or at once where there is none.
    pub response: CreatePartitionsResponse,
    /// Logs that an earlier try of the request may have made: they must have leaders before it is answered.
    pub made_before: Vec<LogId>,
}

/// Checks the request against the state, and places the new partitions. Where an earlier try of it may have been carried
/// out (`again`), a topic that has the wanted number of partitions is no error.
pub fn plan(state: &State, request: &CreatePartitionsRequest, again: bool) -> Plan {
    let topics = super::distinct(&request.topics, |topic| &topic.name);
    let requested = requested_partitions(state, request);
    if requested > MAX_PARTITIONS_PER_REQUEST {
        let message = format!(
            "The request would create {requested} partitions, at most {MAX_PARTITIONS_PER_REQUEST} are allowed."
        );
        let refused = topics.iter().map(|(topic, _)| refused(&topic.name, ErrorCode::PolicyViolation, Some(&message)));
        let response = CreatePartitionsResponse::default().with_results(refused.collect());
        return Plan { command: None, response, made_before: Vec::new() };
    }
    let mut placement = Placement::new(state, std::iter::empty());
    let (mut planned, mut results, mut made_before) = (Vec::new(), Vec::with_capacity(topics.len()), Vec::new());
    let mut partitions = 0;
    for (topic, times) in topics {
        let found = state.topic(&topic.name);
        if let Some(found) = found.filter(|found| again && times == 1 && found.partitions.len() as i32 == topic.count) {
            made_before.extend(found.partitions.iter().map(|partition| partition.log));
            results.push(success(&topic.name));
            continue;
        }
        results.push(match one(state, &mut placement, partitions, (topic, times)) {
            Ok(more) => {
                partitions += more.partitions.len();
                planned.push(more);
                success(&topic.name)
            }
            Err((error, message)) => refused(&topic.name, error, Some(&message)),
        });
    }
    let command =
        (!planned.is_empty() && !request.validate_only).then_some(Command::CreatePartitions { topics: planned });
    Plan { command, response: CreatePartitionsResponse::default().with_results(results), made_before }
}

/// The further partitions of one topic; the request has `before` of other topics already.
fn one(
    state: &State,
    placement: &mut Placement,
    before: usize,
    (wanted, times): (&CreatePartitionsTopic, usize),
) -> Result<MorePartitions, Refusal> {
    if times > 1 {
        return Err((ErrorCode::InvalidRequest, "Duplicate topic name.".to_owned()));
    }
    let unknown = || (ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.".to_owned());
    let topic = state.topic(&wanted.name).ok_or_else(unknown)?;
    if &*topic.name == OFFSETS_TOPIC {
        let message = format!("{OFFSETS_TOPIC} keeps its partitions: groups would no longer be found in them.");
        return Err((ErrorCode::PolicyViolation, message));
    }
    let has = topic.partitions.len();
    let additional = match usize::try_from(wanted.count).ok().and_then(|count| count.checked_sub(has)) {
        Some(0) => return Err((ErrorCode::InvalidPartitions, format!("Topic already has {has} partition(s)."))),
        Some(additional) => additional,
        None => {
            let message = format!("Topic currently has {has} partition(s), {} would not be an increase.", wanted.count);
            return Err((ErrorCode::InvalidPartitions, message));
        }
    };
    if state.partitions() + before + additional > MAX_PARTITIONS {
        let message = format!("The cluster would have more than {MAX_PARTITIONS} partitions.");
        return Err((ErrorCode::PolicyViolation, message));
    }
    let partitions = match &wanted.assignments {
        None => {
            let replication = topic.partitions[0].replicas.len();
            if replication > placement.brokers() {
                let message = format!(
                    "The topic has {replication} replicas of each partition, but only {} broker(s) are registered.",
                    placement.brokers()
                );
                return Err((ErrorCode::InvalidReplicationFactor, message));
            }
            placement.place(LogId(state.next_log_id().0 + before as u64), additional, replication)
        }
        Some(assignments) => {
            if assignments.len() != additional {
                let message =
                    format!("{additional} partition(s) are to be added, but {} are assigned.", assignments.len());
                return Err((ErrorCode::InvalidReplicaAssignment, message));
            }
            let replication = topic.partitions[0].replicas.len();
            let check = |(assignment, index): (&CreatePartitionsAssignment, i32)| {
                check_assignment(state, index, &assignment.broker_ids, replication)
            };
            assignments.iter().zip(has as i32..).map(check).collect::<Result<_, _>>()?
        }
    };
    Ok(MorePartitions { id: topic.id, before: has as u32, partitions })
}

/// The answer that refuses every topic of the request for one reason.
pub fn failed(request: &CreatePartitionsRequest, error: ErrorCode) -> CreatePartitionsResponse {
    let results = super::distinct(&request.topics, |topic| &topic.name)
        .into_iter()
        .map(|(topic, _)| refused(&topic.name, error, None));
    CreatePartitionsResponse::default().with_results(results.collect())
}

/// Partitions that the request asks for beyond those that its topics have.
pub fn requested_partitions(state: &State, request: &CreatePartitionsRequest) -> usize {
    let more = |(topic, _): (&CreatePartitionsTopic, usize)| {
        let has = state.topic(&topic.name)?.partitions.len();
        Some((topic.count.max(0) as usize).saturating_sub(has))
    };
    super::distinct(&request.topics, |topic| &topic.name).into_iter().filter_map(more).sum()
}

fn success(name: &TopicName) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult::default().with_name(name.clone()).with_error_message(None)
}

fn refused(name: &TopicName, error: ErrorCode, message: Option<&str>) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult::default()
        .with_name(name.clone())
        .with_error_code(error.code())
        .with_error_message(message.map(|message| StrBytes::from_string(message.to_owned())))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::BrokerId as WireBrokerId;

    use super::super::admin_tests::{assert_encodable, name, state};
    use super::*;

    fn wanted(topic: &str, count: i32) -> CreatePartitionsTopic {
        CreatePartitionsTopic::default().with_name(name(topic)).with_count(count).with_assignments(None)
    }

    fn assigned(topic: &str, count: i32, replicas: &[&[i32]]) -> CreatePartitionsTopic {
        let assignment = |brokers: &&[i32]| {
            CreatePartitionsAssignment::default()
                .with_broker_ids(brokers.iter().map(|broker| WireBrokerId(*broker)).collect())
        };
        wanted(topic, count).with_assignments(Some(replicas.iter().map(assignment).collect()))
    }

    fn request(topics: Vec<CreatePartitionsTopic>) -> CreatePartitionsRequest {
        CreatePartitionsRequest::default().with_topics(topics)
    }

    fn codes(response: &CreatePartitionsResponse) -> Vec<(&str, i16)> {
        assert_encodable(response, 0..=3);
        let named = response.results.iter();
        named
            .map(|result| {
                assert_eq!(result.error_code == 0, result.error_message.is_none());
                (result.name.as_str(), result.error_code)
            })
            .collect()
    }

    fn replicas(plan: &Plan) -> Vec<Vec<i32>> {
        let Some(Command::CreatePartitions { topics }) = &plan.command else { panic!("{plan:?}") };
        let partitions = topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|partition| partition.replicas.iter().map(|broker| broker.0).collect()).collect()
    }

    #[test]
    fn partitions_are_added_and_placed() {
        let mut state = state(3, &[("a", 2), ("b", 1)]);
        let plan = plan(&state, &request(vec![wanted("a", 4), wanted("b", 2)]), false);
        assert_eq!(codes(&plan.response), [("a", 0), ("b", 0)]);
        assert_eq!(replicas(&plan), [[3], [2], [3]], "broker 1 leads the others already");
        state.apply(101, &plan.command.unwrap());
        assert_eq!((state.topic("a").unwrap().partitions.len(), state.topic("b").unwrap().partitions.len()), (4, 2));
    }

    #[test]
    fn replicas_can_be_assigned() {
        let plan = plan(&state(3, &[("a", 2)]), &request(vec![assigned("a", 4, &[&[3], &[2]])]), false);
        assert_eq!(codes(&plan.response), [("a", 0)]);
        assert_eq!(replicas(&plan), [[3], [2]]);
    }

    #[test]
    fn what_cannot_be_added_says_why() {
        let state = state(3, &[("a", 2), (OFFSETS_TOPIC, 1)]);
        let too_many = MAX_PARTITIONS_PER_REQUEST as i32 + 3;
        for (topic, error) in [
            (wanted("no", 3), ErrorCode::UnknownTopicOrPartition),
            (wanted("a", 2), ErrorCode::InvalidPartitions),
            (wanted("a", 1), ErrorCode::InvalidPartitions),
            (wanted("a", 0), ErrorCode::InvalidPartitions),
            (wanted("a", -1), ErrorCode::InvalidPartitions),
            (wanted("a", too_many), ErrorCode::PolicyViolation),
            (wanted("a", i32::MAX), ErrorCode::PolicyViolation),
            (wanted(OFFSETS_TOPIC, 2), ErrorCode::PolicyViolation),
            (assigned("a", 4, &[&[1]]), ErrorCode::InvalidReplicaAssignment),
            (assigned("a", 3, &[]), ErrorCode::InvalidReplicaAssignment),
            (assigned("a", 3, &[&[]]), ErrorCode::InvalidReplicaAssignment),
            (assigned("a", 3, &[&[1, 2]]), ErrorCode::InvalidReplicaAssignment),
            (assigned("a", 3, &[&[1, 1]]), ErrorCode::InvalidReplicaAssignment),
            (assigned("a", 3, &[&[9]]), ErrorCode::InvalidReplicaAssignment),
        ] {
            let what = format!("{topic:?}");
            let plan = plan(&state, &request(vec![topic.clone()]), false);
            assert!(plan.command.is_none(), "{what}");
            assert_eq!(codes(&plan.response), [(topic.name.as_str(), error.code())], "{what}");
        }
    }

    #[test]
    fn each_topic_has_its_own_result_and_a_name_given_twice_is_refused() {
        let topics = vec![wanted("a", 3), wanted("b", 2), wanted("a", 4), wanted("no", 1)];
        let plan = plan(&state(1, &[("a", 2), ("b", 1)]), &request(topics), false);
        let (twice, unknown) = (ErrorCode::InvalidRequest.code(), ErrorCode::UnknownTopicOrPartition.code());
        assert_eq!(codes(&plan.response), [("a", twice), ("b", 0), ("no", unknown)]);
        assert_eq!(replicas(&plan).len(), 1);
    }

    #[test]
    fn validation_alone_is_no_command() {
        let request = request(vec![wanted("a", 3)]).with_validate_only(true);
        let plan = plan(&state(1, &[("a", 2)]), &request, false);
        assert!(plan.command.is_none());
        assert_eq!(codes(&plan.response), [("a", 0)]);
    }

    #[test]
    fn another_try_finds_what_the_first_has_made() {
        let state = state(1, &[("a", 3), ("b", 1)]);
        let again = plan(&state, &request(vec![wanted("a", 3), wanted("b", 2)]), true);
        assert_eq!(codes(&again.response), [("a", 0), ("b", 0)]);
        assert_eq!(again.made_before.len(), 3);
        assert_eq!(replicas(&again).len(), 1);
    }

    #[test]
    fn a_request_fails_as_a_whole() {
        let response = failed(&request(vec![wanted("a", 3), wanted("a", 3)]), ErrorCode::RequestTimedOut);
        assert_eq!(response.results.len(), 1);
        assert_eq!(response.results[0].error_code, ErrorCode::RequestTimedOut.code());
        assert_encodable(&response, 0..=3);
    }
}
