//! OffsetDelete: offsets of a group are forgotten.

use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::owned;
use crate::group::{Ask, Error, Reply};
use crate::limits::GROUP_COMMIT_MS;
use crate::protocol::{ErrorCode, ResponseBody};
use crate::shard::Shard;
use crate::shard::groups::{Gather, error_code};
use crate::shard::requests::Origin;
use crate::types::{Deadline, Now};

/// Topics that are not known have their errors already.
struct Gathering {
    topics: Vec<OffsetDeleteResponseTopic>,
    /// For each topic of the ask, the one of the response.
    places: Vec<usize>,
    response: OffsetDeleteResponse,
}

impl Gather for Gathering {
    fn take(&mut self, _part: usize, result: Result<Reply, Error>) {
        let results = match result {
            Ok(Reply::OffsetsDeleted(results)) => results,
            Ok(other) => unreachable!("a deletion of offsets is not answered with {other:?}"),
            Err(error) => {
                self.response.error_code = error_code(error).code();
                return;
            }
        };
        self.response.error_code = 0;
        self.response.topics = std::mem::take(&mut self.topics);
        for (place, result) in self.places.iter().zip(results) {
            let code = ErrorCode::code_of(result.err().map(error_code));
            let partitions = self.response.topics[*place].partitions.iter_mut();
            for partition in partitions.filter(|partition| partition.error_code == 0) {
                partition.error_code = code;
            }
        }
    }

    fn finish(self: Box<Self>) -> ResponseBody {
        self.response.into()
    }
}

impl Shard {
    pub(in crate::shard) fn offset_delete(&mut self, now: Now, origin: Origin, request: OffsetDeleteRequest) {
        let failed = |error: ErrorCode| OffsetDeleteResponse::default().with_error_code(error.code());
        if request.group_id.is_empty() {
            return self.respond(origin, &failed(ErrorCode::InvalidGroupId).into());
        }
        let (mut topics, mut places, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for topic in &request.topics {
            let mut known = Vec::new();
            let partitions = topic.partitions.iter().map(|partition| {
                let index = partition.partition_index;
                let error = self.log_by_name(&topic.name, index).err();
                if error.is_none() {
                    known.push(index);
                }
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(ErrorCode::code_of(error))
            });
            let answer = OffsetDeleteResponseTopic::default().with_name(topic.name.clone());
            let answer = answer.with_partitions(partitions.collect());
            if !known.is_empty() {
                wanted.push((owned(&topic.name), known));
                places.push(topics.len());
            }
            topics.push(answer);
        }
        let group = owned(&request.group_id);
        let log = self.group_log(&group);
        let late = failed(ErrorCode::CoordinatorNotAvailable);
        let gathering = Box::new(Gathering { topics, places, response: late });
        let deadline = Deadline::after_millis(now, GROUP_COMMIT_MS);
        let ask = Ask::DeleteOffsets { group, topics: wanted };
        self.ask_groups(now, origin, deadline, gathering, vec![(log, ask)]);
    }
}
