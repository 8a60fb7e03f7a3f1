//! Batches to the leaders of their partitions, again where that may help, until each is acknowledged or refused.

use std::collections::{BTreeMap, VecDeque};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ApiKey, InitProducerIdRequest, ProduceRequest, ProducerId};

use super::super::client::{Cluster, Failure, check, leaders, of_key, topic_name};
use super::super::setting::Setting;
use super::Acks;
use super::batch::{Producer, encode};
use super::input::Input;
use crate::record::{Compression, advance_sequence};

/// The pause before a batch is sent again.
const PAUSE: Duration = Duration::from_millis(100);

/// The versions of Produce that are spoken; from 13 on topics go by their ids.
const VERSIONS: std::ops::RangeInclusive<i16> = 3..=12;

/// A producer for one topic. Of each partition one batch is under way at a time, so that records stay in order.
pub(super) struct Sender {
    topic: String,
    acks: Acks,
    compression: Compression,
    headers: Vec<Setting>,
    producer: Option<Producer>,
    leaders: BTreeMap<i32, Option<i32>>,
    /// What waits to be sent, by partition, in batches.
    waiting: BTreeMap<i32, VecDeque<Vec<Input>>>,
    /// The sequence number of each partition's next record.
    sequences: BTreeMap<i32, i32>,
    /// Where records without a key go, until the next batch.
    turn: usize,
    taken: u64,
}

impl Sender {
    /// Finds the topic, and a producer id where `acks` and the broker allow for one.
    ///
    /// # Errors
    /// A topic that is not there, other refusals, nobody to reach.
    pub(super) fn new(
        cluster: &mut Cluster,
        topic: &str,
        acks: Acks,
        compression: Compression,
        headers: &[Setting],
    ) -> Result<Sender, Failure> {
        let leaders = cluster.insist(|cluster| leaders(cluster, topic))?;
        let producer = match acks == Acks::All && cluster.answers(ApiKey::InitProducerId)? {
            true => Some(cluster.insist(producer)?),
            false => None,
        };
        // Not the same partition for the first batch of every run.
        let turn = now_ms() as usize;
        Ok(Sender {
            topic: topic.to_owned(),
            acks,
            compression,
            headers: headers.to_vec(),
            producer,
            leaders,
            waiting: BTreeMap::new(),
            sequences: BTreeMap::new(),
            turn,
            taken: 0,
        })
    }

    /// Records that were acknowledged, or sent where nobody is to acknowledge.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Puts a record to those that are sent next.
    ///
    /// # Errors
    /// A partition that the topic does not have.
    pub(super) fn add(&mut self, input: Input, partition: Option<i32>) -> Result<(), Failure> {
        let numbers: Vec<i32> = self.leaders.keys().copied().collect();
        let to = match (partition, &input.key) {
            (Some(partition), _) if self.leaders.contains_key(&partition) => partition,
            (Some(partition), _) => {
                let why = format!("line {}: {} has no partition {partition}", input.line, self.topic);
                return Err(Failure::Failed(why));
            }
            (None, Some(key)) => numbers[of_key(key, numbers.len())],
            (None, None) => numbers[self.turn % numbers.len()],
        };
        let batches = self.waiting.entry(to).or_default();
        match batches.back_mut() {
            Some(batch) => batch.push(input),
            None => batches.push_back(vec![input]),
        }
        Ok(())
    }

    /// Sends what waits until all of it is acknowledged or refused. What is refused goes to `failures`.
    ///
    /// # Errors
    /// What ends the whole: what is no use to try again, or no answer until the cluster's time is up. Nobody knows then whether the batches that were
    /// under way are written.
    pub(super) fn flush(&mut self, cluster: &mut Cluster, failures: &mut Vec<Failure>) -> Result<(), Failure> {
        self.turn = self.turn.wrapping_add(1);
        loop {
            self.waiting.retain(|_, batches| !batches.is_empty());
            if self.waiting.is_empty() {
                return Ok(());
            }
            if let Err(failure) = self.round(cluster, failures) {
                if !failure.is_retriable() || Instant::now() + PAUSE >= cluster.deadline() {
                    return Err(failure);
                }
                thread::sleep(PAUSE);
                // Leaders may be others by now; that nobody can say so yet is no reason to give up.
                if let Ok(leaders) = leaders(cluster, &self.topic) {
                    self.leaders = leaders;
                }
            }
        }
    }

    /// Sends the first batch of each partition once. Fails where some are to be sent again.
    fn round(&mut self, cluster: &mut Cluster, failures: &mut Vec<Failure>) -> Result<(), Failure> {
        let mut again = None;
        let mut by_leader: BTreeMap<i32, Vec<PartitionProduceData>> = BTreeMap::new();
        for (partition, batches) in &self.waiting {
            match self.leaders.get(partition).copied().flatten() {
                None => {
                    let what = || format!("{}-{partition}", self.topic);
                    again = check(ResponseError::LeaderNotAvailable.code(), None, what).err();
                }
                Some(leader) => {
                    let sequence = self.sequences.get(partition).copied().unwrap_or(0);
                    let producer = self.producer.map(|producer| (producer, sequence));
                    let bytes = encode(&batches[0], &self.headers, now_ms(), self.compression, producer)?;
                    let data = PartitionProduceData::default().with_index(*partition).with_records(Some(bytes));
                    by_leader.entry(leader).or_default().push(data);
                }
            }
        }
        let mut under_way = Vec::new();
        for (leader, data) in by_leader {
            let partitions: Vec<i32> = data.iter().map(|data| data.index).collect();
            match self.send(cluster, leader, data) {
                Err(failure) => again = Some(failure),
                Ok(_) if self.acks == Acks::None => partitions.iter().for_each(|partition| self.done(*partition)),
                Ok(sent) => under_way.push((leader, sent)),
            }
        }
        for (leader, (version, correlation)) in under_way {
            let deadline = cluster.deadline();
            let answer = cluster
                .connection(leader)
                .and_then(|connection| connection.receive::<ProduceRequest>(version, correlation, deadline));
            match answer {
                Err(failure) => {
                    cluster.disconnect(leader);
                    again = Some(failure);
                }
                Ok(answer) => {
                    for response in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
                        again = self.answered(response, failures).or(again);
                    }
                }
            }
        }
        again.map_or(Ok(()), Err)
    }

    fn send(&self, cluster: &mut Cluster, leader: i32, data: Vec<PartitionProduceData>) -> Result<(i16, i32), Failure> {
        let topic = TopicProduceData::default().with_name(topic_name(&self.topic)).with_partition_data(data);
        let request = ProduceRequest::default()
            .with_acks(self.acks.number())
            .with_timeout_ms(cluster.left_ms())
            .with_topic_data(vec![topic]);
        let deadline = cluster.deadline();
        let connection = cluster.connection(leader)?;
        let version = connection.version::<ProduceRequest>(&VERSIONS)?;
        let sent = connection.send(version, &request, deadline);
        if sent.is_err() {
            cluster.disconnect(leader);
        }
        Ok((version, sent?))
    }

    /// Takes the answer to a partition's batch. Gives the failure where the batch is to be sent again.
    fn answered(&mut self, response: &PartitionProduceResponse, failures: &mut Vec<Failure>) -> Option<Failure> {
        let partition = response.index;
        let what = || format!("{}-{partition}", self.topic);
        let message = response.error_message.as_deref();
        let Err(failure) = check(response.error_code, message, what) else {
            self.done(partition);
            return None;
        };
        let code = failure.code();
        if code == Some(ResponseError::DuplicateSequenceNumber) {
            // It was written when it was sent before.
            self.done(partition);
            return None;
        }
        if code.is_some_and(|code| code.is_retriable()) {
            return Some(failure);
        }
        let batches = self.waiting.get_mut(&partition)?;
        let mut batch = batches.pop_front()?;
        if code == Some(ResponseError::MessageTooLarge) && batch.len() > 1 {
            // Which record it is shows in halves.
            let behind = batch.split_off(batch.len() / 2);
            batches.push_front(behind);
            batches.push_front(batch);
            return None;
        }
        let message = message.map(str::to_owned);
        for (at, input) in batch.iter().enumerate() {
            let own = response.record_errors.iter().find(|error| error.batch_index == at as i32);
            let own = own.and_then(|error| error.batch_index_error_message.as_ref()).map(|text| text.to_string());
            let what = format!("line {} (partition {partition})", input.line);
            let message = own.or_else(|| message.clone());
            failures.push(Failure::Refused { what, code: response.error_code, message });
        }
        None
    }

    /// The first batch of a partition is taken.
    fn done(&mut self, partition: i32) {
        let Some(batch) = self.waiting.get_mut(&partition).and_then(VecDeque::pop_front) else { return };
        self.taken += batch.len() as u64;
        let sequence = self.sequences.entry(partition).or_insert(0);
        *sequence = advance_sequence(*sequence, batch.len() as i32);
    }
}

/// A new producer id.
fn producer(cluster: &mut Cluster) -> Result<Producer, Failure> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let answer = cluster.any(&(0..=4), &request)?;
    check(answer.error_code, None, || "a producer id".into())?;
    Ok(Producer { id: answer.producer_id.0, epoch: answer.producer_epoch })
}

/// The time in milliseconds since the Unix epoch; a clock before that counts as it.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
