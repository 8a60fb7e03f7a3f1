//! DeleteRecords: each partition's leader moves the start of its log, and answers when that is durable.

use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use crate::metadata::names;
use crate::protocol::ErrorCode;
use crate::shard::Shard;
use crate::shard::mesh::{Op, OpKind, RequestId};
use crate::shard::requests::{Kind, Origin, Pending};
use crate::types::{Deadline, Now, Offset};

/// A DeleteRecords request under way. Parts that are not answered yet stand as timed out.
pub(in crate::shard) struct Gathering {
    response: DeleteRecordsResponse,
    /// Topic and partition of each op in the response.
    places: Vec<(usize, usize)>,
    open: usize,
}

impl Gathering {
    /// Takes the start of a partition's log, or why it did not move; whether it was the last.
    pub(in crate::shard) fn answered(&mut self, part: usize, result: Result<Offset, ErrorCode>) -> bool {
        let (topic, partition) = self.places[part];
        let place = &mut self.response.topics[topic].partitions[partition];
        match result {
            Ok(start) => {
                place.error_code = 0;
                place.low_watermark = start;
            }
            Err(error) => place.error_code = error.code(),
        }
        self.open -= 1;
        self.open == 0
    }

    pub(in crate::shard) fn finish(self) -> DeleteRecordsResponse {
        self.response
    }
}

impl Shard {
    pub(in crate::shard) fn delete_records(&mut self, now: Now, origin: Origin, request: DeleteRecordsRequest) {
        let deadline = Deadline::after_millis(now, i64::from(request.timeout_ms));
        let mut response = DeleteRecordsResponse::default();
        let (mut ops, mut places) = (Vec::new(), Vec::new());
        for (t, topic) in request.topics.iter().enumerate() {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (p, wanted) in topic.partitions.iter().enumerate() {
                let mut place = DeleteRecordsPartitionResult::default()
                    .with_partition_index(wanted.partition_index)
                    .with_error_code(ErrorCode::RequestTimedOut.code())
                    .with_low_watermark(-1);
                let log = match names::is_internal(&topic.name) {
                    // The broker itself needs what it keeps there.
                    true => Err(ErrorCode::InvalidTopicException),
                    false => self.log_by_name(&topic.name, wanted.partition_index),
                };
                match log {
                    Ok(log) => {
                        ops.push((log, OpKind::DeleteRecords { before: wanted.offset, deadline }));
                        places.push((t, p));
                    }
                    Err(error) => place.error_code = error.code(),
                }
                partitions.push(place);
            }
            let topic = DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions);
            response.topics.push(topic);
        }
        if ops.is_empty() {
            return self.respond(origin, &response.into());
        }
        let kind = Kind::DeleteRecords(Gathering { response, places, open: ops.len() });
        let number = self.requests.insert(Pending { origin, deadline, kind });
        let request = RequestId { shard: self.id, number };
        for (part, (log, kind)) in ops.into_iter().enumerate() {
            self.send_op(now, Op { request, part: part as u32, log, kind });
        }
    }
}
