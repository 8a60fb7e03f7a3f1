//! ConsumerGroupDescribe: all about groups of the consumer protocol.

use kafka_protocol::messages::consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{GROUP_OPERATIONS, OPERATIONS_NOT_ASKED, owned};
use crate::group::{Ask, ConsumerDescribed, ConsumerMember, Error, NamedPartitions, Reply};
use crate::limits::REQUEST_TIMEOUT_MS;
use crate::protocol::{ErrorCode, ResponseBody};
use crate::shard::Shard;
use crate::shard::groups::{Gather, error_code};
use crate::shard::requests::Origin;
use crate::types::{Deadline, Now};

/// The response tells the protocol of each member from this version on.
const MEMBER_TYPE_VERSION: i16 = 1;

/// Kafka's numbers for the protocols of members, and for that it is not told.
const CLASSIC: i8 = 0;
const CONSUMER: i8 = 1;
const UNKNOWN: i8 = -1;

/// Groups that are not answered yet stand as late.
struct Gathering {
    version: i16,
    operations: i32,
    response: ConsumerGroupDescribeResponse,
}

impl Gather for Gathering {
    fn take(&mut self, part: usize, result: Result<Reply, Error>) {
        let group = &mut self.response.groups[part];
        match result {
            Ok(Reply::ConsumersDescribed(Some(described))) => {
                group.error_code = 0;
                group.authorized_operations = self.operations;
                describe(group, *described, self.version);
            }
            Ok(Reply::ConsumersDescribed(None)) => {
                group.error_code = ErrorCode::GroupIdNotFound.code();
                let message = format!("Group {} is not a consumer group.", group.group_id.as_str());
                group.error_message = Some(StrBytes::from_string(message));
            }
            Ok(other) => unreachable!("a description is not answered with {other:?}"),
            Err(error) => group.error_code = error_code(error).code(),
        }
    }

    fn finish(self: Box<Self>) -> ResponseBody {
        self.response.into()
    }
}

fn describe(group: &mut DescribedGroup, described: ConsumerDescribed, version: i16) {
    group.group_state = StrBytes::from_static_str(described.state);
    group.group_epoch = described.epoch;
    group.assignment_epoch = described.target_epoch;
    group.assignor_name = StrBytes::from_static_str(described.assignor);
    group.members = described.members.into_iter().map(|described| member(described, version)).collect();
}

fn member(member: ConsumerMember, version: i16) -> Member {
    let member_type = match member.is_classic {
        _ if version < MEMBER_TYPE_VERSION => UNKNOWN,
        true => CLASSIC,
        false => CONSUMER,
    };
    Member::default()
        .with_member_id(StrBytes::from_string(member.member_id))
        .with_instance_id(member.instance.map(StrBytes::from_string))
        .with_rack_id(member.rack.map(StrBytes::from_string))
        .with_member_epoch(member.epoch)
        .with_client_id(StrBytes::from_string(member.client_id))
        .with_client_host(StrBytes::from_string(member.client_host))
        .with_subscribed_topic_names(
            member.topics.into_iter().map(|topic| TopicName(StrBytes::from_string(topic))).collect(),
        )
        .with_subscribed_topic_regex(member.regex.map(StrBytes::from_string))
        .with_assignment(assignment(member.assignment))
        .with_target_assignment(assignment(member.target))
        .with_member_type(member_type)
}

fn assignment(partitions: NamedPartitions) -> Assignment {
    let topics = partitions.into_iter().map(|(id, name, numbers)| {
        TopicPartitions::default()
            .with_topic_id(id)
            .with_topic_name(TopicName(StrBytes::from_string(name)))
            .with_partitions(numbers)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}

impl Shard {
    pub(in crate::shard) fn consumer_group_describe(
        &mut self,
        now: Now,
        origin: Origin,
        request: ConsumerGroupDescribeRequest,
    ) {
        let operations = match request.include_authorized_operations {
            true => GROUP_OPERATIONS,
            false => OPERATIONS_NOT_ASKED,
        };
        let (mut asks, mut groups) = (Vec::new(), Vec::new());
        for id in &request.group_ids {
            let group = owned(id);
            asks.push((self.group_log(&group), Ask::DescribeConsumers { group }));
            groups.push(
                DescribedGroup::default()
                    .with_group_id(id.clone())
                    .with_error_code(ErrorCode::CoordinatorNotAvailable.code()),
            );
        }
        let response = ConsumerGroupDescribeResponse::default().with_groups(groups);
        let gathering = Box::new(Gathering { version: origin.version, operations, response });
        let deadline = Deadline::after_millis(now, REQUEST_TIMEOUT_MS);
        self.ask_groups(now, origin, deadline, gathering, asks);
    }
}
