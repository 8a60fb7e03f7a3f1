//! The consuming side: all partitions of one topic, by assignment, each record counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ClientArgs;
use super::client::{PATIENCE, consumer_config, retriable};
use super::payload::Trailer;
use super::tally::Tally;

/// Reads one topic by assignment, without a group.
pub struct Reader {
    consumer: BaseConsumer,
    partitions: i32,
}

/// What [`Reader::read_to_end`] found, beside the tally.
pub struct ReadBack {
    /// From the request for records to the first of them.
    pub first: Duration,
    /// From the first record to the last.
    pub seconds: f64,
    /// Bytes of values.
    pub bytes: u64,
}

impl Reader {
    /// Starts to read all partitions of `topic` from their beginning.
    pub fn new(args: &ClientArgs, topic: &str) -> Result<Reader> {
        let consumer: BaseConsumer = consumer_config(args).create().context("cannot make a consumer")?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..args.partitions {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).context("cannot assign")?;
        }
        consumer.assign(&assignment).context("cannot assign")?;
        Ok(Reader { consumer, partitions: args.partitions })
    }

    /// Waits up to `time` for the next event and gives it to `each`: a record, or the end of a partition.
    /// Returns whether there was one.
    fn next(&self, time: Duration, mut each: impl FnMut(Found<'_>)) -> Result<bool> {
        match self.consumer.poll(time) {
            None => Ok(false),
            Some(Ok(message)) => {
                each(Found::Record { partition: message.partition(), value: message.payload().unwrap_or_default() });
                Ok(true)
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                each(Found::End { partition });
                Ok(true)
            }
            Some(Err(error)) if retriable(&error) => Ok(false),
            Some(Err(error)) => Err(error).context("cannot read"),
        }
    }

    /// Reads every partition to its end once, counting into `tally`.
    pub fn read_to_end(&self, tally: &mut Tally) -> Result<ReadBack> {
        let start = Instant::now();
        let mut ends = vec![false; self.partitions as usize];
        let mut open = ends.len();
        let (mut first, mut last, mut bytes) = (None, start, 0);
        let mut moved = Instant::now();
        while open > 0 {
            let mut seen_record = false;
            let any = self.next(Duration::from_millis(100), |found| match found {
                Found::Record { partition, value } => {
                    tally.take(partition, value);
                    bytes += value.len() as u64;
                    seen_record = true;
                }
                Found::End { partition } => {
                    if let Some(end) = ends.get_mut(partition as usize)
                        && !std::mem::replace(end, true)
                    {
                        open -= 1;
                    }
                }
            })?;
            if any {
                moved = Instant::now();
                if seen_record {
                    first.get_or_insert(moved);
                    last = moved;
                }
            }
            ensure!(
                moved.elapsed() < PATIENCE,
                "{open} partitions did not come to an end, {} records read",
                tally.read()
            );
        }
        let first = first.unwrap_or(start);
        Ok(ReadBack { first: first - start, seconds: (last - first).as_secs_f64(), bytes })
    }

    /// Reads until all that `end` announces has come, giving each good record to `each` as it comes; also ends when
    /// nothing has come for long after the announcement, which leaves it to the tally to say what is missing.
    pub fn follow(&self, tally: &mut Tally, end: &Announced, mut each: impl FnMut(Trailer)) -> Result<()> {
        let mut moved = Instant::now();
        loop {
            let expected = end.0.load(Ordering::Relaxed);
            let given_up = expected != Announced::NOTHING && moved.elapsed() > PATIENCE / 4;
            if tally.read() >= expected || given_up {
                return Ok(());
            }
            self.next(Duration::from_millis(20), |found| {
                if let Found::Record { partition, value } = found {
                    moved = Instant::now();
                    if let Some(trailer) = tally.take(partition, value) {
                        each(trailer);
                    }
                }
            })?;
        }
    }
}

/// How many records there will be to read, once the sending side knows.
pub struct Announced(AtomicU64);

impl Announced {
    const NOTHING: u64 = u64::MAX;

    /// Nothing is announced yet.
    pub fn not_yet() -> Announced {
        Announced(AtomicU64::new(Announced::NOTHING))
    }

    /// There will be `records`.
    pub fn tell(&self, records: u64) {
        self.0.store(records, Ordering::Relaxed);
    }
}

/// One thing that a [`Reader`] found.
enum Found<'a> {
    Record { partition: i32, value: &'a [u8] },
    End { partition: i32 },
}
