//! Heartbeat: a member is alive, and hears whether it must join again.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::identity;
use crate::group::{Ask, Error, Reply};
use crate::limits::REQUEST_TIMEOUT_MS;
use crate::protocol::{ErrorCode, ResponseBody};
use crate::shard::Shard;
use crate::shard::groups::{Gather, error_code};
use crate::shard::requests::Origin;
use crate::types::{Deadline, Now};

struct Gathering(HeartbeatResponse);

impl Gather for Gathering {
    fn take(&mut self, _part: usize, result: Result<Reply, Error>) {
        self.0.error_code = ErrorCode::code_of(result.err().map(error_code));
    }

    fn finish(self: Box<Self>) -> ResponseBody {
        self.0.into()
    }
}

fn failed(error: ErrorCode) -> HeartbeatResponse {
    HeartbeatResponse::default().with_error_code(error.code())
}

impl Shard {
    pub(in crate::shard) fn heartbeat(&mut self, now: Now, origin: Origin, request: HeartbeatRequest) {
        if request.group_id.is_empty() {
            return self.respond(origin, &failed(ErrorCode::InvalidGroupId).into());
        }
        let instance = request.group_instance_id.as_deref();
        let identity = identity(&request.group_id, request.generation_id, &request.member_id, instance);
        let log = self.group_log(&identity.group);
        let late = Box::new(Gathering(failed(ErrorCode::CoordinatorNotAvailable)));
        let deadline = Deadline::after_millis(now, REQUEST_TIMEOUT_MS);
        self.ask_groups(now, origin, deadline, late, vec![(log, Ask::Heartbeat(identity))]);
    }
}
