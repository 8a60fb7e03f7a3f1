//! ConsumerGroupHeartbeat: a member of a group of the consumer protocol comes, lives and leaves (KIP-848).

use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_protocol::protocol::StrBytes;

use super::owned;
use crate::group::{Ask, ConsumerHeartbeat, Error, Partitions, Reply};
use crate::limits::{GROUP_COMMIT_MS, MAX_JOIN_BYTES};
use crate::protocol::{ErrorCode, ResponseBody};
use crate::shard::Shard;
use crate::shard::groups::{Gather, error_code};
use crate::shard::requests::Origin;
use crate::types::{Deadline, Now};

/// Clients make the ids of their members themselves from this version on.
const OWN_ID_VERSION: i16 = 1;

/// What a topic takes at least, however short its name.
const TOPIC_BYTES: usize = 64;

struct Gathering(ConsumerGroupHeartbeatResponse);

impl Gather for Gathering {
    fn take(&mut self, _part: usize, result: Result<Reply, Error>) {
        self.0 = match result {
            Ok(Reply::Assigned(assigned)) => ConsumerGroupHeartbeatResponse::default()
                .with_member_id(Some(StrBytes::from_string(assigned.member_id)))
                .with_member_epoch(assigned.epoch)
                .with_heartbeat_interval_ms(i32::try_from(assigned.interval_ms).unwrap_or(i32::MAX))
                .with_assignment(assigned.partitions.map(assignment)),
            Ok(other) => unreachable!("a heartbeat is not answered with {other:?}"),
            Err(error) => failed(error_code(error), message(error)),
        };
    }

    fn finish(self: Box<Self>) -> ResponseBody {
        self.0.into()
    }
}

fn assignment(partitions: Partitions) -> Assignment {
    let topics = partitions.into_iter().map(|(topic, numbers)| {
        TopicPartitions::default().with_topic_id(topic).with_partitions(numbers.into_iter().collect())
    });
    Assignment::default().with_topic_partitions(topics.collect())
}

fn failed(error: ErrorCode, message: Option<&'static str>) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse::default()
        .with_error_code(error.code())
        .with_error_message(message.map(StrBytes::from_static_str))
}

/// What a person should know of an error beyond its name.
fn message(error: Error) -> Option<&'static str> {
    match error {
        Error::FencedMemberEpoch => Some(
            "The member is at another epoch than the coordinator knows. It must give up all that it has and rejoin.",
        ),
        Error::UnreleasedInstance => Some("Another member with this instance id has not left."),
        Error::UnsupportedAssignor => Some("The assignor is not one of group.consumer.assignors."),
        Error::InvalidRegex => Some("The regular expression is not one of RE2's syntax, or is too large."),
        Error::MaxSizeReached => Some("The group takes no further member."),
        Error::GroupIdNotFound => {
            Some("There is no such group, or it is one that cannot go over to the consumer protocol.")
        }
        Error::InvalidRequest => Some(
            "A member that joins names itself, its rebalance timeout and what it subscribes to, and has no partitions; \
             one that leaves for a while has an instance id; a name is not empty.",
        ),
        _ => None,
    }
}

impl Shard {
    pub(in crate::shard) fn consumer_group_heartbeat(
        &mut self,
        now: Now,
        origin: Origin,
        client_id: Option<StrBytes>,
        request: ConsumerGroupHeartbeatRequest,
    ) {
        let named: usize = request.subscribed_topic_names.iter().flatten().map(|name| name.len() + TOPIC_BYTES).sum();
        let refused = if request.group_id.is_empty() {
            Some(ErrorCode::InvalidGroupId)
        } else if named > MAX_JOIN_BYTES {
            Some(ErrorCode::InvalidRequest)
        } else {
            None
        };
        if let Some(error) = refused {
            return self.respond(origin, &failed(error, None).into());
        }
        let mut member_id = owned(&request.member_id);
        if member_id.is_empty() && origin.version < OWN_ID_VERSION && request.member_epoch == 0 {
            member_id = self.rng.uuid().to_string();
        }
        let partitions = request.topic_partitions.as_ref().map(|topics| {
            let mut partitions = Partitions::new();
            for topic in topics.iter().filter(|topic| !topic.partitions.is_empty()) {
                partitions.entry(topic.topic_id).or_default().extend(topic.partitions.iter().copied());
            }
            partitions
        });
        let topics = request.subscribed_topic_names.as_ref();
        let heartbeat = ConsumerHeartbeat {
            group: owned(&request.group_id),
            member_id,
            epoch: request.member_epoch,
            instance: request.instance_id.as_deref().map(owned),
            rack: request.rack_id.as_deref().map(owned),
            rebalance_ms: (request.rebalance_timeout_ms != -1).then_some(request.rebalance_timeout_ms),
            topics: topics.map(|topics| topics.iter().map(|name| owned(name)).collect()),
            regex: request.subscribed_topic_regex.as_deref().map(owned),
            assignor: request.server_assignor.as_deref().map(owned),
            owned: partitions,
            client_id: owned(client_id.as_deref().unwrap_or_default()),
            client_host: self.connections.host(origin.slot.conn),
        };
        let log = self.group_log(&heartbeat.group);
        let late = Box::new(Gathering(failed(ErrorCode::CoordinatorNotAvailable, None)));
        let deadline = Deadline::after_millis(now, GROUP_COMMIT_MS);
        let ask = Ask::ConsumerHeartbeat(Box::new(heartbeat));
        self.ask_groups(now, origin, deadline, late, vec![(log, ask)]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::admin_tests::assert_encodable;
    use super::*;
    use crate::group::Assigned;

    #[test]
    fn every_version_has_room_for_the_answer() {
        let partitions = Partitions::from([(uuid::Uuid::from_u128(1), [0, 1].into())]);
        for partitions in [None, Some(Partitions::new()), Some(partitions)] {
            let mut gathering = Gathering(failed(ErrorCode::CoordinatorNotAvailable, None));
            let assigned = Assigned { member_id: "m".into(), epoch: 3, interval_ms: 5_000, partitions };
            gathering.take(0, Ok(Reply::Assigned(Box::new(assigned))));
            assert_encodable(&gathering.0, 0..=1);
            assert_eq!((gathering.0.error_code, gathering.0.member_epoch), (0, 3));
        }
        let mut gathering = Gathering(ConsumerGroupHeartbeatResponse::default());
        gathering.take(0, Err(Error::FencedMemberEpoch));
        assert_encodable(&gathering.0, 0..=1);
        assert_eq!(gathering.0.error_code, ErrorCode::FencedMemberEpoch.code());
    }
}
