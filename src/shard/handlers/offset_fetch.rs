//! OffsetFetch: how far groups have read, as far as that is durable. There are no transactions whose offsets could be
//! unstable, so that `require_stable` changes nothing.

use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::owned;
use crate::group::{Ask, CommittedTopic, Error, Reply};
use crate::limits::GROUP_COMMIT_MS;
use crate::protocol::{ErrorCode, ResponseBody};
use crate::shard::Shard;
use crate::shard::groups::{Gather, error_code};
use crate::shard::requests::Origin;
use crate::types::{Deadline, Now};

/// Several groups may be asked about from this version on.
const BATCH_VERSION: i16 = 8;
/// The response has an error of its own from this version on; before, each partition has it.
const ERROR_VERSION: i16 = 2;
/// The response has room for the leader epoch from this version on.
const EPOCH_VERSION: i16 = 5;

/// The one group of an older version.
struct Single {
    version: i16,
    topics: Vec<(TopicName, Vec<i32>)>,
    response: OffsetFetchResponse,
}

impl Single {
    fn fail(&mut self, error: ErrorCode) {
        if self.version >= ERROR_VERSION {
            self.response.error_code = error.code();
            return;
        }
        let failed = |number: &i32| nothing_kept(*number).with_error_code(error.code());
        let topics = self.topics.iter().map(|(name, partitions)| {
            OffsetFetchResponseTopic::default()
                .with_name(name.clone())
                .with_partitions(partitions.iter().map(failed).collect())
        });
        self.response.topics = topics.collect();
    }
}

impl Gather for Single {
    fn take(&mut self, _part: usize, result: Result<Reply, Error>) {
        match result {
            Ok(Reply::Fetched(topics)) => {
                self.response.error_code = 0;
                self.response.topics = topics.into_iter().map(|topic| single_topic(topic, self.version)).collect();
            }
            Ok(other) => unreachable!("a fetch of offsets is not answered with {other:?}"),
            Err(error) => self.fail(error_code(error)),
        }
    }

    fn finish(self: Box<Self>) -> ResponseBody {
        self.response.into()
    }
}

fn nothing_kept(partition: i32) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition::default().with_partition_index(partition).with_committed_offset(-1)
}

fn single_topic((name, partitions): CommittedTopic, version: i16) -> OffsetFetchResponseTopic {
    let partitions = partitions.into_iter().map(|(number, kept)| match kept {
        Some(kept) => OffsetFetchResponsePartition::default()
            .with_partition_index(number)
            .with_committed_offset(kept.offset)
            .with_committed_leader_epoch(if version >= EPOCH_VERSION { kept.epoch } else { -1 })
            .with_metadata(Some(StrBytes::from_string(kept.metadata))),
        None => nothing_kept(number),
    });
    OffsetFetchResponseTopic::default()
        .with_name(TopicName(StrBytes::from_string(name)))
        .with_partitions(partitions.collect())
}

/// The groups of a newer version. Those that are not answered yet stand as late.
struct Several(OffsetFetchResponse);

impl Gather for Several {
    fn take(&mut self, part: usize, result: Result<Reply, Error>) {
        let group = &mut self.0.groups[part];
        match result {
            Ok(Reply::Fetched(topics)) => {
                group.error_code = 0;
                group.topics = topics.into_iter().map(group_topic).collect();
            }
            Ok(other) => unreachable!("a fetch of offsets is not answered with {other:?}"),
            Err(error) => group.error_code = error_code(error).code(),
        }
    }

    fn finish(self: Box<Self>) -> ResponseBody {
        self.0.into()
    }
}

fn group_topic((name, partitions): CommittedTopic) -> OffsetFetchResponseTopics {
    let partitions = partitions.into_iter().map(|(number, kept)| {
        let partition = OffsetFetchResponsePartitions::default().with_partition_index(number);
        match kept {
            Some(kept) => partition
                .with_committed_offset(kept.offset)
                .with_committed_leader_epoch(kept.epoch)
                .with_metadata(Some(StrBytes::from_string(kept.metadata))),
            None => partition.with_committed_offset(-1),
        }
    });
    OffsetFetchResponseTopics::default()
        .with_name(TopicName(StrBytes::from_string(name)))
        .with_partitions(partitions.collect())
}

impl Shard {
    pub(in crate::shard) fn offset_fetch(&mut self, now: Now, origin: Origin, request: OffsetFetchRequest) {
        let deadline = Deadline::after_millis(now, GROUP_COMMIT_MS);
        let late = ErrorCode::NotCoordinator;
        if origin.version >= BATCH_VERSION {
            let (mut asks, mut groups) = (Vec::new(), Vec::new());
            for wanted in &request.groups {
                let topics = wanted.topics.as_ref().map(|topics| {
                    topics.iter().map(|topic| (owned(&topic.name), topic.partition_indexes.clone())).collect()
                });
                let group = owned(&wanted.group_id);
                let member = wanted.member_id.as_deref().filter(|id| !id.is_empty() || wanted.member_epoch >= 0);
                let member = member.map(|id| (owned(id), wanted.member_epoch));
                asks.push((self.group_log(&group), Ask::Fetch { group, member, topics }));
                groups.push(
                    OffsetFetchResponseGroup::default()
                        .with_group_id(wanted.group_id.clone())
                        .with_error_code(late.code()),
                );
            }
            let gathering = Box::new(Several(OffsetFetchResponse::default().with_groups(groups)));
            return self.ask_groups(now, origin, deadline, gathering, asks);
        }
        let topics = request
            .topics
            .as_ref()
            .map(|topics| topics.iter().map(|topic| (owned(&topic.name), topic.partition_indexes.clone())).collect());
        let group = owned(&request.group_id);
        let log = self.group_log(&group);
        let named = request.topics.into_iter().flatten().map(|topic| (topic.name, topic.partition_indexes)).collect();
        let mut gathering = Single { version: origin.version, topics: named, response: OffsetFetchResponse::default() };
        gathering.fail(late);
        self.ask_groups(
            now,
            origin,
            deadline,
            Box::new(gathering),
            vec![(log, Ask::Fetch { group, member: None, topics })],
        );
    }
}
