//! DeleteGroups: groups without members are forgotten, with their offsets.

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::owned;
use crate::group::{Ask, Error, Reply};
use crate::limits::GROUP_COMMIT_MS;
use crate::protocol::{ErrorCode, ResponseBody};
use crate::shard::Shard;
use crate::shard::groups::{Gather, error_code};
use crate::shard::requests::Origin;
use crate::types::{Deadline, Now, Set};

/// Groups that are not answered yet stand as late.
struct Gathering(DeleteGroupsResponse);

impl Gather for Gathering {
    fn take(&mut self, part: usize, result: Result<Reply, Error>) {
        self.0.results[part].error_code = ErrorCode::code_of(result.err().map(error_code));
    }

    fn finish(self: Box<Self>) -> ResponseBody {
        self.0.into()
    }
}

impl Shard {
    pub(in crate::shard) fn delete_groups(&mut self, now: Now, origin: Origin, request: DeleteGroupsRequest) {
        let (mut asks, mut results) = (Vec::new(), Vec::new());
        // A group that is named twice is deleted, and answered, once.
        let mut seen = Set::default();
        for id in request.groups_names.iter().filter(|id| seen.insert((*id).clone())) {
            let group = owned(id);
            asks.push((self.group_log(&group), Ask::Delete { group }));
            results.push(
                DeletableGroupResult::default()
                    .with_group_id(id.clone())
                    .with_error_code(ErrorCode::CoordinatorNotAvailable.code()),
            );
        }
        let gathering = Box::new(Gathering(DeleteGroupsResponse::default().with_results(results)));
        let deadline = Deadline::after_millis(now, GROUP_COMMIT_MS);
        self.ask_groups(now, origin, deadline, gathering, asks);
    }
}
