//! ListOffsets: each partition's owner looks the offset up.

use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use crate::limits::REQUEST_TIMEOUT_MS;
use crate::protocol::ErrorCode;
use crate::shard::Shard;
use crate::shard::mesh::{OffsetAnswer, Op, OpKind, RequestId};
use crate::shard::requests::{Kind, Origin, Pending};
use crate::types::{Deadline, Now};

/// The response has room for the leader epoch from this version on.
const EPOCH_VERSION: i16 = 4;
/// The request brings a timeout from this version on.
const TIMEOUT_VERSION: i16 = 10;

/// A ListOffsets request whose look-ups are under way. Parts that are not answered yet stand as timed out.
pub(in crate::shard) struct Gathering {
    response: ListOffsetsResponse,
    /// Topic and partition of each op in the response.
    places: Vec<(usize, usize)>,
    open: usize,
    version: i16,
}

impl Gathering {
    /// Takes the outcome of a look-up; whether it was the last.
    pub(in crate::shard) fn answered(&mut self, part: usize, result: Result<OffsetAnswer, ErrorCode>) -> bool {
        let (topic, partition) = self.places[part];
        let place = &mut self.response.topics[topic].partitions[partition];
        match result {
            Ok(answer) => {
                place.error_code = 0;
                place.offset = answer.offset;
                place.timestamp = answer.timestamp;
                if self.version >= EPOCH_VERSION {
                    place.leader_epoch = answer.epoch;
                }
            }
            Err(error) => place.error_code = error.code(),
        }
        self.open -= 1;
        self.open == 0
    }

    pub(in crate::shard) fn finish(self) -> ListOffsetsResponse {
        self.response
    }
}

impl Shard {
    pub(in crate::shard) fn list_offsets(&mut self, now: Now, origin: Origin, request: ListOffsetsRequest) {
        let timeout =
            if origin.version >= TIMEOUT_VERSION { i64::from(request.timeout_ms) } else { REQUEST_TIMEOUT_MS };
        let deadline = Deadline::after_millis(now, timeout);
        let mut response = ListOffsetsResponse::default();
        let (mut ops, mut places) = (Vec::new(), Vec::new());
        for (t, topic) in request.topics.iter().enumerate() {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (p, wanted) in topic.partitions.iter().enumerate() {
                let mut place = ListOffsetsPartitionResponse::default()
                    .with_partition_index(wanted.partition_index)
                    .with_error_code(ErrorCode::RequestTimedOut.code())
                    .with_offset(-1)
                    .with_timestamp(-1);
                match self.log_by_name(&topic.name, wanted.partition_index) {
                    Ok(log) => {
                        let kind =
                            OpKind::ListOffset { timestamp: wanted.timestamp, epoch: wanted.current_leader_epoch };
                        ops.push((log, kind));
                        places.push((t, p));
                    }
                    Err(error) => place.error_code = error.code(),
                }
                partitions.push(place);
            }
            let topic = ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions);
            response.topics.push(topic);
        }
        if ops.is_empty() {
            return self.respond(origin, &response.into());
        }
        let kind = Kind::ListOffsets(Gathering { response, places, open: ops.len(), version: origin.version });
        let number = self.requests.insert(Pending { origin, deadline, kind });
        let request = RequestId { shard: self.id, number };
        for (part, (log, kind)) in ops.into_iter().enumerate() {
            self.send_op(now, Op { request, part: part as u32, log, kind });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ApiKey;
    use crate::protocol::response;
    use crate::protocol::versions::Api;

    #[test]
    fn every_version_has_room_for_the_answer() {
        let api = Api::by_key(ApiKey::ListOffsets as i16).expect("in the table");
        for version in api.min..=api.max {
            let topic = ListOffsetsTopicResponse::default().with_partitions(vec![Default::default()]);
            let response = ListOffsetsResponse::default().with_topics(vec![topic]);
            let mut gathering = Gathering { response, places: vec![(0, 0)], open: 1, version };
            assert!(gathering.answered(0, Ok(OffsetAnswer { offset: 5, timestamp: 6, epoch: 7 })));
            let response = gathering.finish();
            let place = &response.topics[0].partitions[0];
            let epoch = if version < EPOCH_VERSION { -1 } else { 7 };
            assert_eq!((place.offset, place.timestamp, place.leader_epoch), (5, 6, epoch));
            response::encode(1, version, &response.into()).expect("it fits");
        }
    }
}
