//! ListGroups: the groups that this broker coordinates.

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::owned;
use crate::group::{Ask, Error, OFFSETS_TOPIC, Reply};
use crate::limits::REQUEST_TIMEOUT_MS;
use crate::protocol::{ErrorCode, ResponseBody};
use crate::shard::Shard;
use crate::shard::groups::{Gather, error_code};
use crate::shard::requests::Origin;
use crate::types::{Deadline, Now};

/// Partitions that are not answered yet.
struct Gathering {
    missing: usize,
    response: ListGroupsResponse,
}

impl Gather for Gathering {
    fn take(&mut self, _part: usize, result: Result<Reply, Error>) {
        self.missing -= 1;
        match result {
            Ok(Reply::Listed(groups)) => {
                let listed = groups.into_iter().map(|group| {
                    ListedGroup::default()
                        .with_group_id(GroupId(StrBytes::from_string(group.group)))
                        .with_protocol_type(StrBytes::from_string(group.protocol_type))
                        .with_group_state(StrBytes::from_static_str(group.state))
                        .with_group_type(StrBytes::from_static_str(group.group_type))
                });
                self.response.groups.extend(listed);
            }
            Ok(other) => unreachable!("a list is not answered with {other:?}"),
            // Those are another broker's to list.
            Err(Error::NotCoordinator) => {}
            Err(error) => self.response.error_code = error_code(error).code(),
        }
    }

    fn finish(mut self: Box<Self>) -> ResponseBody {
        if self.missing > 0 {
            self.response.error_code = ErrorCode::CoordinatorNotAvailable.code();
        }
        if self.response.error_code != 0 {
            self.response.groups.clear();
        }
        self.response.into()
    }
}

impl Shard {
    pub(in crate::shard) fn list_groups(&mut self, now: Now, origin: Origin, request: ListGroupsRequest) {
        let topic = self.state.topic(OFFSETS_TOPIC).cloned();
        let types: Vec<String> = request.types_filter.iter().map(|name| owned(name)).collect();
        let states: Vec<String> = request.states_filter.iter().map(|state| owned(state)).collect();
        let partitions = topic.iter().flat_map(|topic| topic.partitions.iter());
        let asks: Vec<_> = partitions
            .map(|partition| (Some(partition.log), Ask::List { states: states.clone(), types: types.clone() }))
            .collect();
        let gathering = Box::new(Gathering { missing: asks.len(), response: ListGroupsResponse::default() });
        let deadline = Deadline::after_millis(now, REQUEST_TIMEOUT_MS);
        self.ask_groups(now, origin, deadline, gathering, asks);
    }
}
