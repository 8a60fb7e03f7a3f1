//! JoinGroup: a member comes to a group, and waits until all are there.

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::owned;
use crate::group::{Ask, Error, Join, Joined, Reply};
use crate::limits::{JOIN_SLACK_MS, MAX_JOIN_BYTES, MAX_REBALANCE_TIMEOUT_MS};
use crate::protocol::{ErrorCode, ResponseBody};
use crate::shard::Shard;
use crate::shard::groups::{Gather, error_code};
use crate::shard::requests::Origin;
use crate::types::{Deadline, Now, Set};

/// A new member must come with an id from this version on (KIP-394).
const ID_REQUIRED_VERSION: i16 = 4;
/// The response tells the group's type, and the protocol may be null, from this version on.
const PROTOCOL_TYPE_VERSION: i16 = 7;
/// A leader can be told to leave the assignment as it is from this version on (KIP-814).
const SKIP_ASSIGNMENT_VERSION: i16 = 9;

/// What a protocol takes at least, however short its name.
const PROTOCOL_BYTES: usize = 64;

/// Characters of a client's name that go into the ids of its members.
const NAME_CHARS: usize = 255;

struct Gathering {
    version: i16,
    response: JoinGroupResponse,
}

impl Gather for Gathering {
    fn take(&mut self, _part: usize, result: Result<Reply, Error>) {
        match result {
            Ok(Reply::Joined(joined)) => self.response = response(self.version, *joined),
            Ok(Reply::IdRequired(id)) => {
                let id = StrBytes::from_string(id);
                self.response = failed(self.version, ErrorCode::MemberIdRequired, id);
            }
            Ok(other) => unreachable!("a join is not answered with {other:?}"),
            Err(error) => self.response.error_code = error_code(error).code(),
        }
    }

    fn finish(self: Box<Self>) -> ResponseBody {
        self.response.into()
    }
}

fn failed(version: i16, error: ErrorCode, member_id: StrBytes) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_generation_id(-1)
        .with_protocol_name((version < PROTOCOL_TYPE_VERSION).then(StrBytes::default))
        .with_member_id(member_id)
}

fn response(version: i16, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(StrBytes::from_string(member.member_id))
            .with_group_instance_id(member.instance.map(StrBytes::from_string))
            .with_metadata(member.metadata)
    });
    let mut response = JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_name(Some(StrBytes::from_string(joined.protocol.unwrap_or_default())))
        .with_leader(StrBytes::from_string(joined.leader))
        .with_member_id(StrBytes::from_string(joined.member_id))
        .with_skip_assignment(joined.skip_assignment)
        .with_members(members.collect());
    if version >= PROTOCOL_TYPE_VERSION {
        response.protocol_type = joined.protocol_type.map(StrBytes::from_string);
    }
    response
}

impl Shard {
    pub(in crate::shard) fn join_group(
        &mut self,
        now: Now,
        origin: Origin,
        client_id: Option<StrBytes>,
        request: JoinGroupRequest,
    ) {
        let version = origin.version;
        // Version 0 has one timeout for both.
        let rebalance_ms = if version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms };
        let rebalance_ms = (rebalance_ms.max(1) as u64).min(MAX_REBALANCE_TIMEOUT_MS);
        let groups = &self.config.groups;
        let session = i64::from(request.session_timeout_ms);
        let sizes = request.protocols.iter().map(|protocol| protocol.name.len() + protocol.metadata.len());
        let size: usize = sizes.map(|size| size + PROTOCOL_BYTES).sum();
        let refused = if request.group_id.is_empty() {
            Some(ErrorCode::InvalidGroupId)
        } else if !(groups.min_session_timeout_ms..=groups.max_session_timeout_ms).contains(&session) {
            Some(ErrorCode::InvalidSessionTimeout)
        } else if size > MAX_JOIN_BYTES {
            Some(ErrorCode::InvalidRequest)
        } else {
            None
        };
        if let Some(error) = refused {
            return self.respond(origin, &failed(version, error, request.member_id).into());
        }
        let client_id = client_id.as_deref().unwrap_or_default();
        let name: String = request.group_instance_id.as_deref().unwrap_or(client_id).chars().take(NAME_CHARS).collect();
        // A protocol that is named twice has one vote.
        let mut named = Set::default();
        let protocols = request.protocols.iter().filter(|protocol| named.insert(protocol.name.clone()));
        let join = Join {
            group: owned(&request.group_id),
            member_id: owned(&request.member_id),
            fresh_id: format!("{name}-{}", self.rng.uuid()),
            id_required: version >= ID_REQUIRED_VERSION,
            can_skip_assignment: version >= SKIP_ASSIGNMENT_VERSION,
            instance: request.group_instance_id.as_deref().map(owned),
            client_id: owned(client_id),
            client_host: self.connections.host(origin.slot.conn),
            session_ms: session.max(0) as u64,
            rebalance_ms,
            protocol_type: owned(&request.protocol_type),
            // Copies: a slice would keep the whole request's memory for as long as the member lives.
            protocols: protocols
                .map(|protocol| (owned(&protocol.name), Bytes::copy_from_slice(&protocol.metadata)))
                .collect(),
            reason: request.reason.as_deref().map(owned),
        };
        let log = self.group_log(&join.group);
        let late = failed(version, ErrorCode::RebalanceInProgress, request.member_id);
        let deadline = Deadline::after_millis(now, rebalance_ms as i64 + JOIN_SLACK_MS);
        let gathering = Box::new(Gathering { version, response: late });
        self.ask_groups(now, origin, deadline, gathering, vec![(log, Ask::Join(join))]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::admin_tests::assert_encodable;
    use super::*;
    use crate::group::JoinedMember;

    #[test]
    fn every_version_has_room_for_the_answer() {
        for version in 0..=9 {
            let member = JoinedMember { member_id: "m".into(), instance: Some("i".into()), metadata: Bytes::new() };
            let joined = Joined {
                generation: 3,
                protocol_type: Some("consumer".into()),
                protocol: Some("range".into()),
                leader: "m".into(),
                member_id: "m".into(),
                skip_assignment: version >= SKIP_ASSIGNMENT_VERSION,
                members: vec![member],
            };
            let late = failed(version, ErrorCode::RebalanceInProgress, StrBytes::from_static_str("m"));
            assert_encodable(&late, version..=version);
            let mut gathering = Box::new(Gathering { version, response: late });
            gathering.take(0, Ok(Reply::Joined(Box::new(joined))));
            assert_encodable(&gathering.response, version..=version);
            assert_eq!((gathering.response.error_code, gathering.response.generation_id), (0, 3));
            gathering.take(0, Ok(Reply::IdRequired("n".into())));
            assert_encodable(&gathering.response, version..=version);
            assert_eq!(gathering.response.error_code, ErrorCode::MemberIdRequired.code());
        }
    }
}
