//! LeaveGroup: members leave a group, one (up to version 2) or several.

use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::owned;
use crate::group::{Ask, Error, Leaver, Reply};
use crate::limits::GROUP_COMMIT_MS;
use crate::protocol::{ErrorCode, ResponseBody};
use crate::shard::Shard;
use crate::shard::groups::{Gather, error_code};
use crate::shard::requests::Origin;
use crate::types::{Deadline, Now};

/// Several members may leave at once from this version on.
const BATCH_VERSION: i16 = 3;

struct Gathering {
    batched: bool,
    /// The answer to each member, as far as its error is not known.
    members: Vec<MemberResponse>,
    response: LeaveGroupResponse,
}

impl Gather for Gathering {
    fn take(&mut self, _part: usize, result: Result<Reply, Error>) {
        let results = match result {
            Ok(Reply::Left(results)) => results,
            Ok(other) => unreachable!("a leave is not answered with {other:?}"),
            Err(error) => {
                self.response.error_code = error_code(error).code();
                return;
            }
        };
        let codes = results.into_iter().map(|result| ErrorCode::code_of(result.err().map(error_code)));
        if self.batched {
            self.response.error_code = 0;
            self.response.members = std::mem::take(&mut self.members);
            for (member, code) in self.response.members.iter_mut().zip(codes) {
                member.error_code = code;
            }
        } else {
            self.response.error_code = codes.into_iter().next().unwrap_or(0);
        }
    }

    fn finish(self: Box<Self>) -> ResponseBody {
        self.response.into()
    }
}

impl Shard {
    pub(in crate::shard) fn leave_group(&mut self, now: Now, origin: Origin, request: LeaveGroupRequest) {
        let failed = |error: ErrorCode| LeaveGroupResponse::default().with_error_code(error.code());
        if request.group_id.is_empty() {
            return self.respond(origin, &failed(ErrorCode::InvalidGroupId).into());
        }
        let batched = origin.version >= BATCH_VERSION;
        let (mut leavers, mut members) = (Vec::new(), Vec::new());
        if batched {
            for member in &request.members {
                let instance = member.group_instance_id.as_deref().map(owned);
                leavers.push(Leaver { member_id: owned(&member.member_id), instance });
                members.push(
                    MemberResponse::default()
                        .with_member_id(member.member_id.clone())
                        .with_group_instance_id(member.group_instance_id.clone()),
                );
            }
        } else {
            leavers.push(Leaver { member_id: owned(&request.member_id), instance: None });
        }
        let group = owned(&request.group_id);
        let log = self.group_log(&group);
        let late = failed(ErrorCode::CoordinatorNotAvailable);
        let gathering = Box::new(Gathering { batched, members, response: late });
        let deadline = Deadline::after_millis(now, GROUP_COMMIT_MS);
        self.ask_groups(now, origin, deadline, gathering, vec![(log, Ask::Leave { group, members: leavers })]);
    }
}
