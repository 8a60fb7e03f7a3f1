//! DescribeGroups: all about some groups.

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{GROUP_OPERATIONS, OPERATIONS_NOT_ASKED, owned};
use crate::group::{Ask, Described, DescribedMember, Error, Reply};
use crate::limits::REQUEST_TIMEOUT_MS;
use crate::protocol::{ErrorCode, ResponseBody};
use crate::shard::Shard;
use crate::shard::groups::{Gather, error_code};
use crate::shard::requests::Origin;
use crate::types::{Deadline, Now};

/// That a group is not there is an error from this version on (KIP-1043); before, it is dead.
const MISSING_GROUP_VERSION: i16 = 6;
/// The state of a group that is not there.
const DEAD: &str = "Dead";

/// Groups that are not answered yet stand as late.
struct Gathering {
    version: i16,
    operations: i32,
    response: DescribeGroupsResponse,
}

impl Gather for Gathering {
    fn take(&mut self, part: usize, result: Result<Reply, Error>) {
        let group = &mut self.response.groups[part];
        let described = match result {
            Ok(Reply::Described(described)) => described,
            Ok(other) => unreachable!("a description is not answered with {other:?}"),
            Err(error) => {
                group.error_code = error_code(error).code();
                return;
            }
        };
        group.error_code = 0;
        group.authorized_operations = self.operations;
        match described {
            Some(described) => describe(group, *described),
            None => {
                group.group_state = StrBytes::from_static_str(DEAD);
                if self.version >= MISSING_GROUP_VERSION {
                    group.error_code = ErrorCode::GroupIdNotFound.code();
                    let message = format!("Group {} not found, or not a classic group.", group.group_id.as_str());
                    group.error_message = Some(StrBytes::from_string(message));
                    group.authorized_operations = OPERATIONS_NOT_ASKED;
                }
            }
        }
    }

    fn finish(self: Box<Self>) -> ResponseBody {
        self.response.into()
    }
}

fn describe(group: &mut DescribedGroup, described: Described) {
    group.group_state = StrBytes::from_static_str(described.state.name());
    group.protocol_type = StrBytes::from_string(described.protocol_type);
    group.protocol_data = StrBytes::from_string(described.protocol);
    let member = |member: DescribedMember| {
        DescribedGroupMember::default()
            .with_member_id(StrBytes::from_string(member.member_id))
            .with_group_instance_id(member.instance.map(StrBytes::from_string))
            .with_client_id(StrBytes::from_string(member.client_id))
            .with_client_host(StrBytes::from_string(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    };
    group.members = described.members.into_iter().map(member).collect();
}

impl Shard {
    pub(in crate::shard) fn describe_groups(&mut self, now: Now, origin: Origin, request: DescribeGroupsRequest) {
        let operations = match request.include_authorized_operations {
            true => GROUP_OPERATIONS,
            false => OPERATIONS_NOT_ASKED,
        };
        let (mut asks, mut groups) = (Vec::new(), Vec::new());
        for id in &request.groups {
            let group = owned(id);
            asks.push((self.group_log(&group), Ask::Describe { group }));
            groups.push(
                DescribedGroup::default()
                    .with_group_id(id.clone())
                    .with_error_code(ErrorCode::CoordinatorNotAvailable.code()),
            );
        }
        let response = DescribeGroupsResponse::default().with_groups(groups);
        let gathering = Box::new(Gathering { version: origin.version, operations, response });
        let deadline = Deadline::after_millis(now, REQUEST_TIMEOUT_MS);
        self.ask_groups(now, origin, deadline, gathering, asks);
    }
}
