//! DeleteTopics: which topics of a request are to be deleted, and what the client is told.

use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::metadata::{Change, Command, State, Topic};
use crate::protocol::ErrorCode;
use crate::types::{Map, Set};

/// What to do about a request.
#[derive(Debug)]
pub struct Plan {
    /// The command to propose; none where nothing is to be deleted.
    pub command: Option<Command>,
    /// The answer once the command is applied (see [`note_rejections`]), or at once where there is none.
    pub response: DeleteTopicsResponse,
}

/// One topic, as the client named it.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Target<'a> {
    Name(&'a TopicName),
    Id(Uuid),
    Neither,
    Both(&'a TopicName, Uuid),
}

/// Looks the topics of the request up.
pub fn plan(state: &State, request: &DeleteTopicsRequest) -> Plan {
    let mut ids = Vec::new();
    let mut planned = Set::default();
    let mut results = Vec::new();
    for (target, times) in targets(request) {
        let found = match &target {
            Target::Neither => Err((ErrorCode::InvalidRequest, "Neither topic name nor id were specified.")),
            Target::Both(..) => Err((ErrorCode::InvalidRequest, "You may not specify both topic name and topic id.")),
            Target::Name(_) if times > 1 => Err((ErrorCode::InvalidRequest, "Duplicate topic name.")),
            Target::Id(_) if times > 1 => Err((ErrorCode::InvalidRequest, "Duplicate topic id.")),
            Target::Name(name) => state
                .topic(name)
                .ok_or((ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.")),
            Target::Id(id) => {
                state.topic_by_id(*id).ok_or((ErrorCode::UnknownTopicId, "This server does not host this topic ID."))
            }
        };
        results.push(match found {
            // The same topic by its name and by its id is deleted once, and answered twice.
            Ok(topic) => {
                if planned.insert(topic.id) {
                    ids.push(topic.id);
                }
                success(topic)
            }
            Err((error, message)) => refused(&target, error, Some(message)),
        });
    }
    let command = (!ids.is_empty()).then_some(Command::DeleteTopics { ids });
    Plan { command, response: DeleteTopicsResponse::default().with_responses(results) }
}

/// Corrects a planned answer by what its command did: topics that another request had deleted are errors.
pub fn note_rejections(response: &mut DeleteTopicsResponse, changes: &[Change]) {
    let rejected: Set<Uuid> = changes
        .iter()
        .filter_map(|change| match change {
            Change::DeleteRejected { id } => Some(*id),
            _ => None,
        })
        .collect();
    for result in response.responses.iter_mut().filter(|result| result.error_code == 0) {
        if rejected.contains(&result.topic_id) {
            result.error_code = ErrorCode::UnknownTopicId.code();
            result.error_message = Some(StrBytes::from_static_str("The topic was deleted meanwhile."));
        }
    }
}

/// The answer that refuses every topic of the request for one reason.
pub fn failed(request: &DeleteTopicsRequest, error: ErrorCode) -> DeleteTopicsResponse {
    let results = targets(request).into_iter().map(|(target, _)| refused(&target, error, None));
    DeleteTopicsResponse::default().with_responses(results.collect())
}

/// Partitions of the topics that a request names.
pub fn requested_partitions(state: &State, request: &DeleteTopicsRequest) -> usize {
    let partitions = |(target, _): (Target<'_>, usize)| match target {
        Target::Name(name) => state.topic(name).map(|topic| topic.partitions.len()),
        Target::Id(id) => state.topic_by_id(id).map(|topic| topic.partitions.len()),
        Target::Neither | Target::Both(..) => None,
    };
    targets(request).into_iter().filter_map(partitions).sum()
}

/// The topics of a request in their order, each once, with how often it is there. A request has only one of its two
/// lists: names up to version 5, names or ids from then on.
fn targets(request: &DeleteTopicsRequest) -> Vec<(Target<'_>, usize)> {
    let named = request.topic_names.iter().map(Target::Name);
    let either = request.topics.iter().map(|topic| match &topic.name {
        Some(name) if topic.topic_id.is_nil() => Target::Name(name),
        Some(name) => Target::Both(name, topic.topic_id),
        None if topic.topic_id.is_nil() => Target::Neither,
        None => Target::Id(topic.topic_id),
    });
    let mut places: Map<Target, usize> = Map::default();
    let mut targets: Vec<(Target, usize)> = Vec::new();
    for target in named.chain(either) {
        let place = *places.entry(target.clone()).or_insert(targets.len());
        match targets.get_mut(place) {
            Some((_, times)) => *times += 1,
            None => targets.push((target, 1)),
        }
    }
    targets
}

fn success(topic: &Topic) -> DeletableTopicResult {
    DeletableTopicResult::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_topic_id(topic.id)
        .with_error_message(None)
}

fn refused(target: &Target, error: ErrorCode, message: Option<&'static str>) -> DeletableTopicResult {
    let (name, id) = match target {
        Target::Name(name) => (Some(*name), Uuid::nil()),
        Target::Id(id) => (None, *id),
        Target::Neither => (None, Uuid::nil()),
        Target::Both(name, id) => (Some(*name), *id),
    };
    DeletableTopicResult::default()
        .with_name(name.cloned())
        .with_topic_id(id)
        .with_error_code(error.code())
        .with_error_message(message.map(StrBytes::from_static_str))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::delete_topics_request::DeleteTopicState;

    use super::super::admin_tests::{assert_encodable, name, state, text};
    use super::*;

    fn by_names(names: &[&str]) -> DeleteTopicsRequest {
        DeleteTopicsRequest::default().with_topic_names(names.iter().map(|topic| name(topic)).collect())
    }

    fn either(topics: &[(Option<&str>, u128)]) -> DeleteTopicsRequest {
        let topics = topics.iter().map(|&(topic, id)| {
            DeleteTopicState::default().with_name(topic.map(name)).with_topic_id(Uuid::from_u128(id))
        });
        DeleteTopicsRequest::default().with_topics(topics.collect())
    }

    /// Name, id and error code of each topic of an answer.
    fn results(response: &DeleteTopicsResponse) -> Vec<(Option<&str>, u128, i16)> {
        let shown = |result: &DeletableTopicResult| (result.topic_id.as_u128(), result.error_code);
        let results = response.responses.iter();
        results
            .map(|result| (result.name.as_ref().map(|name| name.as_str()), shown(result).0, shown(result).1))
            .collect()
    }

    fn deleted(plan: &Plan) -> Vec<u128> {
        match &plan.command {
            Some(Command::DeleteTopics { ids }) => ids.iter().map(Uuid::as_u128).collect(),
            None => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn by_name() {
        let plan = plan(&state(1, &[("a", 1), ("b", 1)]), &by_names(&["b", "no", "a", "twice", "twice"]));
        assert_eq!(deleted(&plan), [2, 1]);
        assert_encodable(&plan.response, 1..=6);
        assert_eq!(
            results(&plan.response),
            [
                (Some("b"), 2, 0),
                (Some("no"), 0, ErrorCode::UnknownTopicOrPartition.code()),
                (Some("a"), 1, 0),
                (Some("twice"), 0, ErrorCode::InvalidRequest.code()),
            ]
        );
    }

    #[test]
    fn by_name_or_id() {
        let wanted = either(&[(None, 1), (Some("b"), 0), (None, 9), (None, 0), (Some("a"), 1), (None, 8), (None, 8)]);
        let plan = plan(&state(1, &[("a", 1), ("b", 1)]), &wanted);
        assert_eq!(deleted(&plan), [1, 2]);
        assert_encodable(&plan.response, 6..=6);
        assert_eq!(
            results(&plan.response),
            [
                (Some("a"), 1, 0),
                (Some("b"), 2, 0),
                (None, 9, ErrorCode::UnknownTopicId.code()),
                (None, 0, ErrorCode::InvalidRequest.code()),
                (Some("a"), 1, ErrorCode::InvalidRequest.code()),
                (None, 8, ErrorCode::InvalidRequest.code()),
            ]
        );
    }

    #[test]
    fn a_topic_by_its_name_and_by_its_id_is_deleted_once() {
        let plan = plan(&state(1, &[("a", 1)]), &either(&[(None, 1), (Some("a"), 0)]));
        assert_eq!(deleted(&plan), [1]);
        assert_eq!(results(&plan.response), [(Some("a"), 1, 0); 2]);
    }

    #[test]
    fn nothing_to_delete_is_no_command() {
        assert!(plan(&state(1, &[]), &by_names(&["a"])).command.is_none());
        assert!(plan(&state(1, &[]), &by_names(&[])).command.is_none());
    }

    #[test]
    fn what_another_request_had_deleted_is_told() {
        let mut state = state(1, &[("a", 1), ("b", 1)]);
        let first = plan(&state, &by_names(&["a"]));
        let mut second = plan(&state, &by_names(&["a", "b"]));
        state.apply(101, &first.command.unwrap());
        let changes = state.apply(102, second.command.as_ref().unwrap());
        note_rejections(&mut second.response, &changes);
        assert_eq!(results(&second.response), [(Some("a"), 1, ErrorCode::UnknownTopicId.code()), (Some("b"), 2, 0)]);
        assert_eq!(second.response.responses[0].error_message, Some(text("The topic was deleted meanwhile.")));
    }

    #[test]
    fn a_request_fails_as_a_whole() {
        let response = failed(&either(&[(None, 7), (Some("a"), 0)]), ErrorCode::RequestTimedOut);
        assert_encodable(&response, 6..=6);
        let late = ErrorCode::RequestTimedOut.code();
        assert_eq!(results(&response), [(None, 7, late), (Some("a"), 0, late)]);
    }
}
