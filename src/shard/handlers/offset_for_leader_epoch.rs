//! OffsetForLeaderEpoch: each partition's owner says where an epoch ends.

use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::limits::REQUEST_TIMEOUT_MS;
use crate::protocol::ErrorCode;
use crate::shard::Shard;
use crate::shard::mesh::{Op, OpKind, RequestId};
use crate::shard::requests::{Kind, Origin, Pending};
use crate::types::{Deadline, LeaderEpoch, Now, Offset};

/// A request whose look-ups are under way. Parts that are not answered yet stand as timed out.
pub(in crate::shard) struct Gathering {
    response: OffsetForLeaderEpochResponse,
    /// Topic and partition of each op in the response.
    places: Vec<(usize, usize)>,
    open: usize,
}

impl Gathering {
    /// Takes the outcome of a look-up; whether it was the last.
    pub(in crate::shard) fn answered(&mut self, part: usize, result: Result<(LeaderEpoch, Offset), ErrorCode>) -> bool {
        let (topic, partition) = self.places[part];
        let place = &mut self.response.topics[topic].partitions[partition];
        match result {
            Ok((epoch, end)) => {
                place.error_code = 0;
                place.leader_epoch = epoch;
                place.end_offset = end;
            }
            Err(error) => place.error_code = error.code(),
        }
        self.open -= 1;
        self.open == 0
    }

    pub(in crate::shard) fn finish(self) -> OffsetForLeaderEpochResponse {
        self.response
    }
}

impl Shard {
    pub(in crate::shard) fn offset_for_leader_epoch(
        &mut self,
        now: Now,
        origin: Origin,
        request: OffsetForLeaderEpochRequest,
    ) {
        let mut response = OffsetForLeaderEpochResponse::default();
        let (mut ops, mut places) = (Vec::new(), Vec::new());
        for (t, topic) in request.topics.iter().enumerate() {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (p, wanted) in topic.partitions.iter().enumerate() {
                let mut place = EpochEndOffset::default()
                    .with_partition(wanted.partition)
                    .with_error_code(ErrorCode::RequestTimedOut.code())
                    .with_leader_epoch(-1)
                    .with_end_offset(-1);
                match self.log_by_name(&topic.topic, wanted.partition) {
                    Ok(log) => {
                        let (epoch, wanted) = (wanted.current_leader_epoch, wanted.leader_epoch);
                        ops.push((log, OpKind::EpochEnd { wanted, epoch }));
                        places.push((t, p));
                    }
                    Err(error) => place.error_code = error.code(),
                }
                partitions.push(place);
            }
            let topic =
                OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions);
            response.topics.push(topic);
        }
        if ops.is_empty() {
            return self.respond(origin, &response.into());
        }
        let deadline = Deadline::after_millis(now, REQUEST_TIMEOUT_MS);
        let kind = Kind::EpochEnds(Gathering { response, places, open: ops.len() });
        let number = self.requests.insert(Pending { origin, deadline, kind });
        let request = RequestId { shard: self.id, number };
        for (part, (log, kind)) in ops.into_iter().enumerate() {
            self.send_op(now, Op { request, part: part as u32, log, kind });
        }
    }
}
