//! SyncGroup: a member gets its assignment, once the leader has brought it and it is durable.

use bytes::Bytes;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::{identity, owned};
use crate::group::{Ask, Error, Reply, Sync};
use crate::limits::REQUEST_TIMEOUT_MS;
use crate::protocol::{ErrorCode, ResponseBody};
use crate::shard::Shard;
use crate::shard::groups::{Gather, error_code};
use crate::shard::requests::Origin;
use crate::types::{Deadline, Now};

struct Gathering(SyncGroupResponse);

impl Gather for Gathering {
    fn take(&mut self, _part: usize, result: Result<Reply, Error>) {
        match result {
            Ok(Reply::Synced(synced)) => {
                self.0 = SyncGroupResponse::default()
                    .with_protocol_type(synced.protocol_type.map(StrBytes::from_string))
                    .with_protocol_name(synced.protocol.map(StrBytes::from_string))
                    .with_assignment(synced.assignment);
            }
            Ok(other) => unreachable!("a sync is not answered with {other:?}"),
            Err(error) => self.0.error_code = error_code(error).code(),
        }
    }

    fn finish(self: Box<Self>) -> ResponseBody {
        self.0.into()
    }
}

fn failed(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse::default().with_error_code(error.code())
}

impl Shard {
    pub(in crate::shard) fn sync_group(&mut self, now: Now, origin: Origin, request: SyncGroupRequest) {
        if request.group_id.is_empty() {
            return self.respond(origin, &failed(ErrorCode::InvalidGroupId).into());
        }
        let instance = request.group_instance_id.as_deref();
        let identity = identity(&request.group_id, request.generation_id, &request.member_id, instance);
        let log = self.group_log(&identity.group);
        let assignments = request.assignments.iter();
        let sync = Sync {
            identity,
            protocol_type: request.protocol_type.as_deref().map(owned),
            protocol: request.protocol_name.as_deref().map(owned),
            assignments: assignments
                .map(|given| (owned(&given.member_id), Bytes::copy_from_slice(&given.assignment)))
                .collect(),
        };
        // Late is whoever waits for a leader that does not come.
        let late = Box::new(Gathering(failed(ErrorCode::RebalanceInProgress)));
        let deadline = Deadline::after_millis(now, REQUEST_TIMEOUT_MS);
        self.ask_groups(now, origin, deadline, late, vec![(log, Ask::Sync(sync))]);
    }
}
