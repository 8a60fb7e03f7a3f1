//! ListConfigResources: what there is that has configs.

use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use kafka_protocol::protocol::StrBytes;

use super::describe_configs::{BROKER, GROUP, TOPIC};
use crate::metadata::State;
use crate::protocol::ErrorCode;
use crate::types::Set;

/// Kafka's numbers of the kinds of resources that can be asked for and have no configs here: loggers of brokers,
/// subscriptions of clients to metrics.
const WITHOUT: [i8; 2] = [8, 16];

/// First version that names kinds of resources; before, it is about subscriptions to metrics alone.
const FIRST_WITH_TYPES: i16 = 1;

/// The answer: all topics and brokers, and the groups that have configs of their own, or those of the kinds that are named.
pub fn respond(state: &State, version: i16, request: &ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    let response = ListConfigResourcesResponse::default();
    if version < FIRST_WITH_TYPES {
        return response;
    }
    let wanted: Set<i8> = request.resource_types.iter().copied().collect();
    if wanted.iter().any(|kind| ![TOPIC, BROKER, GROUP].contains(kind) && !WITHOUT.contains(kind)) {
        return response.with_error_code(ErrorCode::UnsupportedVersion.code());
    }
    let asked = |kind: i8| wanted.is_empty() || wanted.contains(&kind);
    let resource = |kind: i8, name: String| {
        ConfigResource::default().with_resource_type(kind).with_resource_name(StrBytes::from_string(name))
    };
    let topics = state.topics().filter(|_| asked(TOPIC)).map(|topic| resource(TOPIC, topic.name.to_string()));
    let brokers = state.brokers().filter(|_| asked(BROKER)).map(|broker| resource(BROKER, broker.id.0.to_string()));
    let groups = state.own().groups().filter(|_| asked(GROUP)).map(|group| resource(GROUP, group.to_owned()));
    response.with_config_resources(topics.chain(brokers).chain(groups).collect())
}

#[cfg(test)]
mod tests {
    use super::super::admin_tests::{assert_encodable, state};
    use super::*;
    use crate::metadata::Command;
    use crate::metadata::command::{Configs, OwnerConfigs};
    use crate::metadata::own::Owner;

    fn listed(version: i16, kinds: &[i8]) -> (i16, Vec<(i8, String)>) {
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec());
        let mut state = state(2, &[("b", 1), ("a", 1)]);
        let after = [("consumer.session.timeout.ms".to_owned(), "50000".to_owned())].into();
        let configs = Configs { before: Default::default(), after };
        let owners = vec![OwnerConfigs { owner: Owner::Group("g".to_owned()), configs }];
        state.apply(101, &Command::AlterOwnConfigs { topics: Vec::new(), defaults: None, owners });
        let response = respond(&state, version, &request);
        assert_encodable(&response, version..=version);
        let resources = response.config_resources.iter();
        (
            response.error_code,
            resources.map(|resource| (resource.resource_type, resource.resource_name.to_string())).collect(),
        )
    }

    #[test]
    fn topics_brokers_and_groups_have_configs() {
        let topics = vec![(TOPIC, "a".to_owned()), (TOPIC, "b".to_owned())];
        let brokers = vec![(BROKER, "1".to_owned()), (BROKER, "2".to_owned())];
        let groups = vec![(GROUP, "g".to_owned())];
        assert_eq!(listed(1, &[]), (0, [topics.clone(), brokers.clone(), groups.clone()].concat()));
        assert_eq!(listed(1, &[BROKER, BROKER]), (0, brokers));
        assert_eq!(listed(1, &[16, TOPIC]), (0, topics));
        assert_eq!(listed(1, &[GROUP, 8]), (0, groups));
        assert_eq!(listed(0, &[]), (0, vec![]), "subscriptions to metrics, of which there are none");
        assert_eq!(listed(1, &[TOPIC, 3]), (ErrorCode::UnsupportedVersion.code(), vec![]));
    }
}
