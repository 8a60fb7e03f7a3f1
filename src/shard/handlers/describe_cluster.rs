//! DescribeCluster: who is in the cluster.

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use super::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED};
use crate::config::BrokerConfig;
use crate::metadata::State;
use crate::protocol::ErrorCode;

/// The endpoints of brokers, and those of controllers.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// The answer. The broker names itself as the controller: whatever is for the controller may be sent to any broker.
/// Every registered broker is unfenced, so that asking
/// for the fenced ones too (version 2) adds none.
pub fn respond(state: &State, config: &BrokerConfig, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    let refusal = match request.endpoint_type {
        BROKERS => None,
        CONTROLLERS => {
            Some((ErrorCode::MismatchedEndpointType, "The request was sent to an endpoint of the wrong type."))
        }
        _ => Some((ErrorCode::UnsupportedEndpointType, "This endpoint type is not supported yet.")),
    };
    if let Some((error, message)) = refusal {
        return DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(message)))
            .with_endpoint_type(request.endpoint_type);
    }
    let brokers = state.brokers().map(|broker| {
        DescribeClusterBroker::default()
            .with_broker_id(broker.id.0.into())
            .with_host(StrBytes::from_string(broker.host.clone()))
            .with_port(i32::from(broker.port))
            .with_rack(broker.rack.clone().map(StrBytes::from_string))
    });
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(config.cluster_id.clone()))
        .with_controller_id(config.broker_id.0.into())
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(match request.include_cluster_authorized_operations {
            true => CLUSTER_OPERATIONS,
            false => OPERATIONS_NOT_ASKED,
        })
}

#[cfg(test)]
mod tests {
    use super::super::admin_tests::{assert_encodable, config, state};
    use super::*;

    #[test]
    fn the_brokers_and_their_cluster() {
        let response = respond(&state(2, &[]), &config(), &DescribeClusterRequest::default());
        assert_encodable(&response, 0..=2);
        assert_eq!((response.error_code, response.error_message), (0, None));
        assert_eq!((&*response.cluster_id, response.controller_id.0), ("a-cluster", 1));
        assert_eq!(response.cluster_authorized_operations, i32::MIN);
        let brokers: Vec<_> = response
            .brokers
            .iter()
            .map(|broker| (broker.broker_id.0, &*broker.host, broker.port, broker.rack.as_deref(), broker.is_fenced))
            .collect();
        assert_eq!(brokers, [(1, "host-1", 9001, None, false), (2, "host-2", 9002, Some("rack-2"), false)]);
    }

    #[test]
    fn operations_where_asked_for() {
        let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let response = respond(&state(1, &[]), &config(), &request);
        assert_eq!(response.cluster_authorized_operations, 8096, "the number that Kafka gives without ACLs");
    }

    #[test]
    fn other_endpoints_are_refused() {
        for (endpoint, error) in [(2, ErrorCode::MismatchedEndpointType), (7, ErrorCode::UnsupportedEndpointType)] {
            let request = DescribeClusterRequest::default().with_endpoint_type(endpoint);
            let response = respond(&state(1, &[]), &config(), &request);
            assert_encodable(&response, 1..=2);
            assert_eq!((response.error_code, response.endpoint_type), (error.code(), endpoint));
            assert!(response.brokers.is_empty());
        }
    }
}
