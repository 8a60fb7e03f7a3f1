//! DescribeLogDirs: what the partitions of this broker take on its disk, and what room there is.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::limits::DISK_READ_MS;
use crate::log::Space;
use crate::metadata::{State, Topic};
use crate::protocol::ErrorCode;
use crate::shard::Shard;
use crate::shard::mesh::{Op, OpKind, RequestId};
use crate::shard::requests::{Kind, Origin, Pending};
use crate::types::{BrokerId, Deadline, LogId, Now, ShardId};

/// Kafka's number for a volume of unknown size.
const UNKNOWN_BYTES: i64 = -1;

/// A request that waits for the shards and for the disk.
pub(in crate::shard) struct Gathering {
    result: DescribeLogDirsResult,
    /// Topic and partition in the result of each log, by shard's part.
    places: Vec<Vec<(usize, usize)>>,
    /// Shards that have not told yet.
    open: usize,
    /// Whether the disk has not.
    open_space: bool,
}

/// What is asked of one shard.
#[derive(Default)]
struct Asked {
    logs: Vec<LogId>,
    /// Topic and partition in the result of each.
    places: Vec<(usize, usize)>,
}

impl Gathering {
    /// Takes the sizes of a shard's logs; whether that was all. A log that is not open there is not on this broker's
    /// disk any more, or not yet.
    pub(in crate::shard) fn sizes(&mut self, part: usize, sizes: Vec<Option<u64>>) -> bool {
        for ((topic, partition), size) in self.places[part].iter().zip(sizes) {
            let place = &mut self.result.topics[*topic].partitions[*partition];
            place.partition_size = size.map_or(UNKNOWN_BYTES, |size| size as i64);
        }
        self.open -= 1;
        self.open == 0 && !self.open_space
    }

    /// Takes what the disk says of its room; whether that was all.
    pub(in crate::shard) fn space(&mut self, space: Option<Space>) -> bool {
        if let Some(Space { total, usable }) = space {
            self.result.total_bytes = total as i64;
            self.result.usable_bytes = usable as i64;
        }
        self.open_space = false;
        self.open == 0
    }

    /// The answer. A disk that does not tell its room in time is of unknown size; a shard that does not tell the sizes
    /// of its logs makes the answer an error.
    pub(in crate::shard) fn finish(self) -> DescribeLogDirsResponse {
        let mut result = self.result;
        if self.open > 0 {
            result.error_code = ErrorCode::RequestTimedOut.code();
            result.topics.clear();
        }
        for topic in &mut result.topics {
            topic.partitions.retain(|partition| partition.partition_size != UNKNOWN_BYTES);
        }
        result.topics.retain(|topic| !topic.partitions.is_empty());
        DescribeLogDirsResponse::default().with_results(vec![result])
    }
}

impl Shard {
    pub(in crate::shard) fn describe_log_dirs(&mut self, now: Now, origin: Origin, request: &DescribeLogDirsRequest) {
        let mut result = DescribeLogDirsResult::default()
            .with_log_dir(StrBytes::from_string(self.config.log_dir.clone()))
            .with_total_bytes(UNKNOWN_BYTES)
            .with_usable_bytes(UNKNOWN_BYTES);
        if self.storage.data.failed || self.storage.meta.failed {
            result.error_code = ErrorCode::KafkaStorageError.code();
            return self.respond(origin, &DescribeLogDirsResponse::default().with_results(vec![result]).into());
        }
        let mut by_shard: BTreeMap<ShardId, Asked> = BTreeMap::new();
        for (topic, partitions) in wanted(&self.state, self.config.broker_id, request) {
            let t = result.topics.len();
            let mut shown = Vec::with_capacity(partitions.len());
            for index in partitions {
                let log = topic.partitions[index].log;
                let asked = by_shard.entry(log.shard(self.shards)).or_default();
                asked.logs.push(log);
                asked.places.push((t, shown.len()));
                shown.push(DescribeLogDirsPartition::default().with_partition_index(index as i32));
            }
            let name = TopicName(StrBytes::from_string(topic.name.to_string()));
            result.topics.push(DescribeLogDirsTopic::default().with_name(name).with_partitions(shown));
        }
        let (asked, places): (Vec<Vec<LogId>>, Vec<_>) =
            by_shard.into_values().map(|asked| (asked.logs, asked.places)).unzip();
        let kind = Kind::LogDirs(Box::new(Gathering { result, places, open: asked.len(), open_space: true }));
        // A disk that hangs is no reason to wait for long.
        let deadline = Deadline::after_millis(now, DISK_READ_MS);
        let number = self.requests.insert(Pending { origin, deadline, kind });
        let request = RequestId { shard: self.id, number };
        let look = self.storage.space(request, asked.len() as u32);
        self.out.push(crate::shard::Effect::Disk { request: look });
        for (part, logs) in asked.into_iter().enumerate() {
            let log = logs[0];
            self.send_op(now, Op { request, part: part as u32, log, kind: OpKind::Sizes(logs) });
        }
    }
}

/// The topics that are asked for, each once, with the numbers of those of their partitions that this broker has a
/// replica of; what is not here is left out.
fn wanted<'a>(
    state: &'a State,
    own: BrokerId,
    request: &DescribeLogDirsRequest,
) -> impl Iterator<Item = (&'a Topic, Vec<usize>)> {
    let mut asked: BTreeMap<&'a str, (&'a Topic, Vec<usize>)> = BTreeMap::new();
    match &request.topics {
        None => asked.extend(
            state.topics().map(|topic| (&*topic.name, (&**topic, (0..topic.partitions.len()).collect::<Vec<_>>()))),
        ),
        Some(topics) => {
            for entry in topics {
                let Some(topic) = state.topic(&entry.topic) else { continue };
                let (_, partitions) = asked.entry(&topic.name).or_insert((topic, Vec::new()));
                partitions.extend(entry.partitions.iter().filter_map(|index| usize::try_from(*index).ok()));
            }
        }
    }
    asked.into_values().filter_map(move |(topic, mut partitions)| {
        partitions.sort_unstable();
        partitions.dedup();
        let here = |index: &usize| topic.partitions.get(*index).is_some_and(|found| found.replicas.contains(&own));
        partitions.retain(here);
        (!partitions.is_empty()).then_some((topic, partitions))
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;

    use super::super::admin_tests::{assert_encodable, name, state};
    use super::*;

    fn ask(own: i32, topics: Option<&[(&str, &[i32])]>) -> Vec<(String, Vec<usize>)> {
        let topic = |(topic, partitions): &(&str, &[i32])| {
            DescribableLogDirTopic::default().with_topic(name(topic)).with_partitions(partitions.to_vec())
        };
        let request =
            DescribeLogDirsRequest::default().with_topics(topics.map(|topics| topics.iter().map(topic).collect()));
        let state = state(2, &[("b", 3), ("a", 1)]);
        wanted(&state, BrokerId(own), &request)
            .map(|(topic, partitions)| (topic.name.to_string(), partitions))
            .collect()
    }

    #[test]
    fn what_is_here_and_asked_for() {
        assert_eq!(ask(1, None), [("a".to_owned(), vec![0]), ("b".to_owned(), vec![0, 1, 2])]);
        assert_eq!(ask(1, Some(&[])), []);
        let some: &[(&str, &[i32])] = &[("b", &[2, 0, 2, 7, -1]), ("no", &[0]), ("a", &[]), ("b", &[1])];
        assert_eq!(ask(1, Some(some)), [("b".to_owned(), vec![0, 1, 2])]);
        assert_eq!(ask(2, None), [], "it has no replicas");
    }

    fn gathering() -> Gathering {
        let partition = |index| DescribeLogDirsPartition::default().with_partition_index(index);
        let topic = |partitions| DescribeLogDirsTopic::default().with_partitions(partitions);
        let topics = vec![topic(vec![partition(0), partition(1)]), topic(vec![partition(0)])];
        let result = DescribeLogDirsResult::default()
            .with_topics(topics)
            .with_total_bytes(UNKNOWN_BYTES)
            .with_usable_bytes(UNKNOWN_BYTES);
        Gathering { result, places: vec![vec![(0, 1)], vec![(0, 0), (1, 0)]], open: 2, open_space: true }
    }

    #[test]
    fn sizes_come_from_the_shards_and_room_from_the_disk() {
        let mut whole = gathering();
        assert!(!whole.sizes(1, vec![Some(5), None]));
        assert!(!whole.space(Some(Space { total: 9, usable: 4 })));
        assert!(whole.sizes(0, vec![Some(7)]));
        let response = whole.finish();
        assert_encodable(&response, 1..=4);
        let result = &response.results[0];
        assert_eq!((result.error_code, result.total_bytes, result.usable_bytes), (0, 9, 4));
        assert_eq!(result.topics.len(), 1, "what is not open is not on the disk");
        let sizes: Vec<i64> = result.topics[0].partitions.iter().map(|partition| partition.partition_size).collect();
        assert_eq!(sizes, [5, 7]);
    }

    #[test]
    fn a_disk_that_is_silent_is_of_unknown_size_and_a_shard_is_an_error() {
        let mut without_space = gathering();
        without_space.sizes(0, vec![Some(1)]);
        without_space.sizes(1, vec![Some(1), Some(1)]);
        let result = without_space.finish().results.remove(0);
        assert_eq!((result.error_code, result.total_bytes, result.topics.len()), (0, -1, 2));
        let mut without_sizes = gathering();
        without_sizes.sizes(0, vec![Some(1)]);
        let result = without_sizes.finish().results.remove(0);
        assert_eq!((result.error_code, result.topics.len()), (ErrorCode::RequestTimedOut.code(), 0));
    }
}
