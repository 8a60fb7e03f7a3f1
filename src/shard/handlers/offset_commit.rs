//! OffsetCommit: how far a group has read, kept durably.

use std::sync::Arc;

use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::{identity, owned};
use crate::group::{Ask, Commit, Committed, Error, Reply};
use crate::limits::{GROUP_COMMIT_MS, MAX_OFFSET_METADATA_BYTES};
use crate::protocol::{ErrorCode, ResponseBody};
use crate::shard::Shard;
use crate::shard::groups::{Gather, error_code};
use crate::shard::requests::Origin;
use crate::types::{Deadline, Now};

/// A client knows the consumer protocol, and may be told that the group is not there, from this version on.
const MODERN_VERSION: i16 = 9;

/// Partitions that wait for the group stand as late, the others have their errors.
struct Gathering {
    response: OffsetCommitResponse,
    /// Topic and partition in the response of those that wait.
    places: Vec<(usize, usize)>,
}

impl Gather for Gathering {
    fn take(&mut self, _part: usize, result: Result<Reply, Error>) {
        let code = ErrorCode::code_of(result.err().map(error_code));
        for (topic, partition) in &self.places {
            self.response.topics[*topic].partitions[*partition].error_code = code;
        }
    }

    fn finish(self: Box<Self>) -> ResponseBody {
        self.response.into()
    }
}

impl Shard {
    pub(in crate::shard) fn offset_commit(&mut self, now: Now, origin: Origin, request: OffsetCommitRequest) {
        let mut response = OffsetCommitResponse::default();
        let (mut offsets, mut places) = (Vec::new(), Vec::new());
        for (t, topic) in request.topics.iter().enumerate() {
            let known = self.state.topic(&topic.name).cloned();
            let name: Option<Arc<str>> = known.as_ref().map(|topic| topic.name.clone());
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (p, wanted) in topic.partitions.iter().enumerate() {
                let index = wanted.partition_index;
                let metadata = wanted.committed_metadata.as_deref().unwrap_or_default();
                let there = known
                    .as_ref()
                    .is_some_and(|topic| usize::try_from(index).is_ok_and(|index| index < topic.partitions.len()));
                let error = match &name {
                    Some(_) if there && metadata.len() > MAX_OFFSET_METADATA_BYTES => ErrorCode::OffsetMetadataTooLarge,
                    Some(name) if there => {
                        let committed = Committed {
                            offset: wanted.committed_offset,
                            epoch: wanted.committed_leader_epoch,
                            metadata: owned(metadata),
                            time_ms: now.wall_ms,
                        };
                        offsets.push((name.clone(), index, committed));
                        places.push((t, p));
                        ErrorCode::CoordinatorNotAvailable
                    }
                    _ => ErrorCode::UnknownTopicOrPartition,
                };
                partitions.push(
                    OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(error.code()),
                );
            }
            response
                .topics
                .push(OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions));
        }
        if offsets.is_empty() {
            return self.respond(origin, &response.into());
        }
        let instance = request.group_instance_id.as_deref();
        let identity = identity(&request.group_id, request.generation_id_or_member_epoch, &request.member_id, instance);
        let log = self.group_log(&identity.group);
        let commit = Commit { identity, is_modern: origin.version >= MODERN_VERSION, offsets };
        let deadline = Deadline::after_millis(now, GROUP_COMMIT_MS);
        let gathering = Box::new(Gathering { response, places });
        self.ask_groups(now, origin, deadline, gathering, vec![(log, Ask::Commit(commit))]);
    }
}
