//! DescribeProducers: each partition's owner tells of its idempotent producers.

use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};

use crate::limits::REQUEST_TIMEOUT_MS;
use crate::partition::ActiveProducer;
use crate::protocol::ErrorCode;
use crate::shard::Shard;
use crate::shard::mesh::{Op, OpKind, RequestId};
use crate::shard::requests::{Kind, Origin, Pending};
use crate::types::{Deadline, Now};

/// A request whose look-ups are under way. Parts that are not answered yet stand as timed out.
pub(in crate::shard) struct Gathering {
    response: DescribeProducersResponse,
    /// Topic and partition of each op in the response.
    places: Vec<(usize, usize)>,
    open: usize,
}

impl Gathering {
    /// Takes the outcome of a look-up; whether it was the last.
    pub(in crate::shard) fn answered(&mut self, part: usize, result: Result<Vec<ActiveProducer>, ErrorCode>) -> bool {
        let (topic, partition) = self.places[part];
        let place = &mut self.response.topics[topic].partitions[partition];
        match result {
            Ok(producers) => {
                place.error_code = 0;
                place.active_producers = producers.into_iter().map(told).collect();
            }
            Err(error) => place.error_code = error.code(),
        }
        self.open -= 1;
        self.open == 0
    }

    pub(in crate::shard) fn finish(self) -> DescribeProducersResponse {
        self.response
    }
}

/// There are no transactions, so that no producer has one open.
fn told(producer: ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(producer.id.into())
        .with_producer_epoch(i32::from(producer.epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_append_ms)
        .with_coordinator_epoch(-1)
        .with_current_txn_start_offset(-1)
}

impl Shard {
    pub(in crate::shard) fn describe_producers(
        &mut self,
        now: Now,
        origin: Origin,
        request: &DescribeProducersRequest,
    ) {
        let mut response = DescribeProducersResponse::default();
        let (mut logs, mut places) = (Vec::new(), Vec::new());
        for (t, topic) in request.topics.iter().enumerate() {
            let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
            for (p, index) in topic.partition_indexes.iter().enumerate() {
                let mut place = PartitionResponse::default()
                    .with_partition_index(*index)
                    .with_error_code(ErrorCode::RequestTimedOut.code())
                    .with_error_message(None);
                match self.log_by_name(&topic.name, *index) {
                    Ok(log) => {
                        logs.push(log);
                        places.push((t, p));
                    }
                    Err(error) => place.error_code = error.code(),
                }
                partitions.push(place);
            }
            response.topics.push(TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions));
        }
        if logs.is_empty() {
            return self.respond(origin, &response.into());
        }
        let deadline = Deadline::after_millis(now, REQUEST_TIMEOUT_MS);
        let kind = Kind::Producers(Gathering { response, places, open: logs.len() });
        let number = self.requests.insert(Pending { origin, deadline, kind });
        let request = RequestId { shard: self.id, number };
        for (part, log) in logs.into_iter().enumerate() {
            self.send_op(now, Op { request, part: part as u32, log, kind: OpKind::Producers });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::response;

    #[test]
    fn producers_are_told_without_transactions() {
        let topic = TopicResponse::default().with_partitions(vec![Default::default(), Default::default()]);
        let response = DescribeProducersResponse::default().with_topics(vec![topic]);
        let mut gathering = Gathering { response, places: vec![(0, 0), (0, 1)], open: 2 };
        let producer = ActiveProducer { id: 7, epoch: 2, last_sequence: 9, last_append_ms: 5 };
        assert!(!gathering.answered(1, Err(ErrorCode::NotLeaderOrFollower)));
        assert!(gathering.answered(0, Ok(vec![producer])));
        let response = gathering.finish();
        let partitions = &response.topics[0].partitions;
        let shown = &partitions[0].active_producers[0];
        assert_eq!((shown.producer_id.0, shown.producer_epoch, shown.last_sequence), (7, 2, 9));
        assert_eq!((shown.last_timestamp, shown.current_txn_start_offset), (5, -1));
        assert_eq!(partitions[1].error_code, ErrorCode::NotLeaderOrFollower.code());
        response::encode(1, 0, &response.into()).expect("it fits");
    }
}
