//! Fetches from the leaders of partitions, again where that may help.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse};

use super::super::client::{Cluster, Failure, check, leaders, topic_name};
use crate::record::{Batch, RecordHeader, records, split_batches};

/// How long a broker may hold a fetch that it has nothing for.
const WAIT_MS: i32 = 500;
/// Most bytes of one fetch, and of one partition in it. A batch that is larger comes all the same.
const MOST_BYTES: i32 = 16 * 1024 * 1024;
const MOST_BYTES_OF_PARTITION: i32 = 2 * 1024 * 1024;
/// The pause before a fetch that failed is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// The versions of Fetch that are spoken; from 13 on topics go by their ids.
const VERSIONS: std::ops::RangeInclusive<i16> = 4..=12;

/// A record to be shown.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Milliseconds since the Unix epoch.
    pub(super) timestamp: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Vec<RecordHeader<'a>>,
}

/// The positions of a consumer in one topic, and who leads its partitions.
pub(super) struct Fetcher {
    topic: String,
    positions: BTreeMap<i32, i64>,
    /// The partitions that are still to be read.
    reading: BTreeSet<i32>,
    leaders: BTreeMap<i32, Option<i32>>,
}

/// What came of a partition.
pub(super) type Fetched = Vec<(i32, Vec<Batch>)>;

impl Fetcher {
    /// A consumer that begins at these offsets.
    pub(super) fn new(topic: &str, positions: BTreeMap<i32, i64>) -> Fetcher {
        let reading = positions.keys().copied().collect();
        Fetcher { topic: topic.to_owned(), positions, reading, leaders: BTreeMap::new() }
    }

    /// The offset of the next record of each partition, of those that are read no further too.
    pub(super) fn positions(&self) -> &BTreeMap<i32, i64> {
        &self.positions
    }

    /// Goes on with those partitions that `wanted` says yes to, by number and position. False where there are none.
    pub(super) fn keep(&mut self, wanted: impl Fn(i32, i64) -> bool) -> bool {
        self.reading.retain(|partition| wanted(*partition, self.positions[partition]));
        !self.reading.is_empty()
    }

    /// What the leaders have from the positions on; nothing, where nothing came within [`WAIT_MS`].
    ///
    /// # Errors
    /// What is refused for good, such as OFFSET_OUT_OF_RANGE, and what did not pass within the cluster's time.
    pub(super) fn fetch(&mut self, cluster: &mut Cluster) -> Result<Fetched, Failure> {
        cluster.renew();
        loop {
            match self.round(cluster) {
                Err(failure) if passes(&failure) && Instant::now() + PAUSE < cluster.deadline() => {
                    thread::sleep(PAUSE);
                    self.leaders.clear();
                }
                result => return result,
            }
        }
    }

    /// Asks every leader at once, and then waits for the answers, so that no partition waits for another's records.
    fn round(&mut self, cluster: &mut Cluster) -> Result<Fetched, Failure> {
        if self.leaders.is_empty() {
            self.leaders = leaders(cluster, &self.topic)?;
        }
        let mut asked: BTreeMap<i32, Vec<FetchPartition>> = BTreeMap::new();
        for partition in &self.reading {
            let leader = self.leaders.get(partition).copied().flatten();
            let none =
                || check(ResponseError::LeaderNotAvailable.code(), None, || format!("{}-{partition}", self.topic));
            let Some(leader) = leader else { return none().map(|()| Vec::new()) };
            asked.entry(leader).or_default().push(
                FetchPartition::default()
                    .with_partition(*partition)
                    .with_current_leader_epoch(-1)
                    .with_fetch_offset(self.positions[partition])
                    .with_partition_max_bytes(MOST_BYTES_OF_PARTITION),
            );
        }
        let deadline = cluster.deadline();
        let mut under_way = Vec::new();
        for (leader, partitions) in asked {
            let topic = FetchTopic::default().with_topic(topic_name(&self.topic)).with_partitions(partitions);
            let request = FetchRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_max_wait_ms(WAIT_MS)
                .with_min_bytes(1)
                .with_max_bytes(MOST_BYTES)
                .with_session_epoch(-1)
                .with_topics(vec![topic]);
            let connection = cluster.connection(leader)?;
            let version = connection.version::<FetchRequest>(&VERSIONS)?;
            let sent = connection.send(version, &request, deadline);
            under_way.push((leader, sent.map(|correlation| (version, correlation))));
        }
        // Every answer is taken off its connection, whatever another one says.
        let answers: Vec<Result<FetchResponse, Failure>> = under_way
            .into_iter()
            .map(|(leader, sent)| {
                let answer = sent.and_then(|(version, correlation)| {
                    cluster.connection(leader)?.receive::<FetchRequest>(version, correlation, deadline)
                });
                if answer.is_err() {
                    cluster.disconnect(leader);
                }
                answer
            })
            .collect();
        let mut fetched = Vec::new();
        let mut first = None;
        for answer in answers {
            match answer.and_then(|answer| self.taken(answer, &mut fetched)) {
                Ok(()) => {}
                Err(failure) => first = first.or(Some(failure)),
            }
        }
        match first {
            // What others have brought is shown first; the failure comes again if it stays.
            Some(failure) if fetched.is_empty() => Err(failure),
            Some(_) => {
                self.leaders.clear();
                Ok(fetched)
            }
            None => Ok(fetched),
        }
    }

    fn taken(&self, answer: FetchResponse, fetched: &mut Fetched) -> Result<(), Failure> {
        check(answer.error_code, None, || format!("topic {}", self.topic))?;
        let mut first = Ok(());
        for partition in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            let number = partition.partition_index;
            let position = self.positions.get(&number).copied().unwrap_or(0);
            let refused = check(partition.error_code, None, || format!("{}-{number} at offset {position}", self.topic));
            if let Err(failure) = refused {
                first = first.and(Err(failure));
                continue;
            }
            let bytes = partition.records.unwrap_or_default();
            let batches: Vec<Batch> = split_batches(&bytes).map(|(_, batch)| batch).collect();
            if batches.is_empty() && !bytes.is_empty() {
                let why =
                    format!("{}-{number} at offset {position}: the broker sends no batch of version 2", self.topic);
                first = first.and(Err(Failure::Failed(why)));
            } else if !batches.is_empty() {
                fetched.push((number, batches));
            }
        }
        first
    }

    /// Gives `show` each record of a batch from the partition's position on, until it says no, and moves the position
    /// behind the last one that it took.
    ///
    /// # Errors
    /// A batch that is damaged, or too large to be opened.
    pub(super) fn each(
        &mut self,
        partition: i32,
        batch: &Batch,
        mut show: impl FnMut(Shown<'_>) -> bool,
    ) -> Result<(), Failure> {
        let header = &batch.header;
        let Some(position) = self.positions.get_mut(&partition) else { return Ok(()) };
        let what = format!("{}-{partition}, batch at offset {}", self.topic, header.base_offset.get());
        batch.check_crc().map_err(|error| Failure::Failed(format!("{what}: {error}")))?;
        // What transactions end with is no record.
        if !header.is_control() {
            let body = batch.open().ok_or_else(|| {
                Failure::Failed(format!("{what}: its records are damaged, or larger than can be decompressed"))
            })?;
            let mut count = 0;
            for record in records(header, &body) {
                count += 1;
                if record.offset < *position {
                    continue;
                }
                let (value, headers) = record.contents();
                let (offset, timestamp) = (record.offset, record.timestamp(header));
                if !show(Shown { partition, offset, timestamp, key: record.key, value, headers }) {
                    return Ok(());
                }
                *position = offset + 1;
            }
            if count != header.record_count.get() {
                return Err(Failure::Failed(format!("{what}: its records are damaged")));
            }
        }
        *position = (*position).max(header.last_offset() + 1);
        Ok(())
    }
}

/// Whether a fetch may go well in a moment. A topic that is gone does not come back as the same.
fn passes(failure: &Failure) -> bool {
    failure.is_retriable() && failure.code() != Some(ResponseError::UnknownTopicOrPartition)
}
