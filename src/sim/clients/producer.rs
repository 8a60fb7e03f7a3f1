//! Producers, which send again what was not answered, as the Java client does.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId,
};

use super::{Client, Context, Links, topic_name};
use crate::limits::REQUEST_TIMEOUT_MS;
use crate::sim::checkers::{Model, Part, Stamp, ValueId, code};
use crate::sim::rng::Rng;
use crate::sim::wire;

/// Requests under way at once, the Java client's most for an idempotent producer.
const IN_FLIGHT: usize = 5;

/// After this long a batch that could not be delivered is given up, in microseconds.
const DELIVERY_TIMEOUT: u64 = 12_000_000;

/// Microseconds after which a batch must be in the log where nothing is wrong but one broker's disk.
const NOTICED_AFTER: u64 = 4_000_000;

/// How a producer goes about it.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Manner {
    /// Idempotent, and so with acks=all and several requests under way.
    idempotent: bool,
    acks: i16,
    timeout_ms: i32,
    version: i16,
    /// Whether a batch that was not answered, or refused for now, is sent again.
    retries: bool,
    /// Microseconds between two new batches, about.
    pause: u64,
}

impl Manner {
    /// One of the many ways to produce.
    pub(in crate::sim) fn draw(rng: &mut Rng, idempotent: bool) -> Manner {
        Manner {
            idempotent,
            acks: if idempotent { -1 } else { *rng.pick(&[-1, -1, 1, 1, 0]) },
            timeout_ms: *rng.pick(&[50, 300, 1_500, 5_000]),
            version: *rng.pick(&[3, 7, 8, 9, 11, 12]),
            retries: idempotent || rng.one_in(2),
            pause: *rng.pick(&[2_000, 20_000, 100_000]),
        }
    }

    /// The same for a run that is long and quick, which would be nearly all of the work of all runs.
    pub(in crate::sim) fn calmer(self) -> Manner {
        Manner { pause: self.pause.max(20_000), ..self }
    }
}

/// What was sent in one request.
enum Purpose {
    Init,
    Produce(Stamp, Vec<(Part, u64)>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting,
    InFlight,
}

struct Batch {
    number: u64,
    values: Vec<ValueId>,
    sequence: i32,
    state: State,
    attempts: u32,
    /// An attempt has ended without a clear answer: the batch may be in the log.
    maybe: bool,
    /// What the last attempt was answered with, if it was.
    answer: Option<i16>,
    /// It is damaged on purpose: it must be refused.
    spoilt: bool,
    born: u64,
    /// Not to be sent again before.
    not_before: u64,
}

#[derive(Default)]
struct Lane {
    batches: VecDeque<Batch>,
    next_sequence: i32,
    /// The broker that those in flight were sent to.
    sent_to: usize,
    /// What an attempt was answered with last.
    last_error: i16,
}

/// A producer.
pub(in crate::sim) struct Producer {
    number: u32,
    manner: Manner,
    links: Links<Purpose>,
    /// The broker that is asked for a producer id.
    init_at: usize,
    /// Producer id and epoch.
    identity: Option<(i64, i16)>,
    /// A batch was given up: go on with a new epoch once nothing is in flight.
    bump: bool,
    lanes: BTreeMap<Part, Lane>,
    next_batch: u64,
    next_new_at: u64,
    /// Since when nothing new is begun, in microseconds of virtual time.
    settling: Option<u64>,
    retry_at: u64,
}

impl Producer {
    /// A producer with a number of its own.
    pub(in crate::sim) fn new(number: u32, manner: Manner) -> Producer {
        Producer {
            number,
            manner,
            links: Links::default(),
            init_at: 0,
            identity: None,
            bump: false,
            lanes: BTreeMap::new(),
            next_batch: 0,
            next_new_at: 0,
            settling: None,
            retry_at: 0,
        }
    }

    fn backlog(&self) -> usize {
        self.lanes.values().map(|lane| lane.batches.len()).sum()
    }

    fn make_batches(&mut self, cx: &mut Context<'_>) {
        if self.settling.is_some() || cx.now < self.next_new_at || self.backlog() > 60 {
            return;
        }
        self.next_new_at = cx.now + cx.rng.between(self.manner.pause / 2, self.manner.pause * 2);
        let parts = cx.model.live_parts();
        if parts.is_empty() {
            return;
        }
        let spoilt = !self.manner.idempotent && self.manner.acks != 0 && cx.rng.one_in(50);
        for _ in 0..cx.rng.between(1, 3) {
            let part = cx.rng.pick(&parts).clone();
            let count = cx.rng.between(1, 6);
            let values: Vec<ValueId> =
                (0..count).map(|_| cx.model.new_value(self.number, self.manner.idempotent, &part)).collect();
            let lane = self.lanes.entry(part).or_default();
            lane.batches.push_back(Batch {
                number: self.next_batch,
                values,
                sequence: lane.next_sequence,
                state: State::Waiting,
                attempts: 0,
                maybe: false,
                answer: None,
                spoilt,
                born: cx.now,
                not_before: 0,
            });
            lane.next_sequence += count as i32;
            self.next_batch += 1;
        }
    }

    /// Drops what is too old, or whose topic nobody wants any more.
    fn expire(&mut self, cx: &mut Context<'_>) {
        for (part, lane) in &mut self.lanes {
            if cx.model.is_doomed(&part.0) {
                lane.batches.retain(|batch| batch.state == State::InFlight);
                continue;
            }
            let waits = lane.batches.iter().any(|batch| cx.now > batch.born + NOTICED_AFTER);
            assert!(!(waits && cx.model.frozen), "L2: {part:?} takes nothing though only one disk is frozen or full");
            let before = lane.batches.len();
            lane.batches.retain(|batch| batch.state == State::InFlight || cx.now < batch.born + DELIVERY_TIMEOUT);
            let dropped = lane.batches.len() < before;
            let healthy = self.settling.is_some_and(|since| since + DELIVERY_TIMEOUT < cx.now);
            let last_error = lane.last_error;
            assert!(
                !(dropped && healthy),
                "L4: {part:?} takes nothing though the disk is well again, but error {last_error}"
            );
            self.bump |= self.manner.idempotent && dropped;
        }
        if self.bump && self.links.pending() == 0 {
            self.bump = false;
            if let Some((_, epoch)) = &mut self.identity {
                *epoch += 1;
            }
            for lane in self.lanes.values_mut() {
                // What may be in the log must not be sent under another sequence.
                lane.batches.retain(|batch| !batch.maybe);
                lane.next_sequence = 0;
                for batch in &mut lane.batches {
                    batch.sequence = lane.next_sequence;
                    lane.next_sequence += batch.values.len() as i32;
                }
            }
        }
    }

    fn go_on(&mut self, cx: &mut Context<'_>) {
        for broker in 0..cx.brokers {
            if let Some(lost) = self.links.at(broker).give_up(cx, false) {
                self.lost(cx, lost);
            }
        }
        self.make_batches(cx);
        self.expire(cx);
        let idle = self.backlog() == 0;
        if !idle && cx.now >= self.retry_at {
            if self.manner.idempotent && self.identity.is_none() {
                let link = self.links.at(self.init_at);
                if link.is_up(cx) && link.pending.is_empty() {
                    let request = InitProducerIdRequest::default()
                        .with_transactional_id(None)
                        .with_transaction_timeout_ms(60_000)
                        .with_producer_id(ProducerId(-1))
                        .with_producer_epoch(-1);
                    link.send(cx, 4, &request, REQUEST_TIMEOUT_MS, Purpose::Init);
                }
            } else {
                for broker in 0..cx.brokers {
                    let mut parts = self.lanes.iter().filter(|(_, lane)| !lane.batches.is_empty());
                    let wanted = cx.brokers == 1
                        || parts.any(|(part, _)| cx.leader(part).is_some_and(|(leader, _)| leader == broker));
                    if !wanted || !self.links.at(broker).is_up(cx) {
                        continue;
                    }
                    while !self.bump && self.links.at(broker).pending.len() < IN_FLIGHT && self.send_one(cx, broker) {}
                }
            }
        }
        if !(self.settling.is_some() && idle) {
            cx.wake_in(self.manner.pause.min(20_000));
        }
    }

    /// Sends a request with the next batch of some partitions that the broker leads; says whether there was one.
    fn send_one(&mut self, cx: &mut Context<'_>, broker: usize) -> bool {
        let mut topics: BTreeMap<String, Vec<PartitionProduceData>> = BTreeMap::new();
        let mut sent = Vec::new();
        let most = cx.rng.between(1, 4) as usize;
        for (part, lane) in &mut self.lanes {
            if sent.len() == most {
                break;
            }
            let idempotent = self.manner.idempotent;
            if cx.leader(part).is_none_or(|(leader, _)| leader != broker) {
                continue;
            }
            let Some(at) = lane.batches.iter().position(|batch| batch.state == State::Waiting) else { continue };
            let in_flight = lane.batches.iter().any(|batch| batch.state == State::InFlight);
            let batch = &mut lane.batches[at];
            // What is sent again goes alone, so that the order of sequences is kept.
            if batch.not_before > cx.now || (idempotent && in_flight && batch.attempts > 0) {
                continue;
            }
            // Two brokers would not keep the order.
            if idempotent && in_flight && lane.sent_to != broker {
                continue;
            }
            if idempotent && lane.batches.iter().take(at).any(|earlier| earlier.attempts > 1) {
                continue;
            }
            lane.sent_to = broker;
            let batch = &mut lane.batches[at];
            batch.state = State::InFlight;
            batch.answer = None;
            batch.attempts += 1;
            let identity = self.identity.map(|(id, epoch)| (id, epoch, batch.sequence));
            let mut records = wire::batch(&batch.values, identity.filter(|_| idempotent), cx.wall_ms);
            if batch.spoilt {
                let mut bytes = records.to_vec();
                let at = bytes.len() - 1;
                bytes[at] ^= 1 << cx.rng.below(8);
                records = bytes.into();
            }
            cx.model.produce_sent(&batch.values);
            sent.push((part.clone(), batch.number));
            let data = PartitionProduceData::default().with_index(part.1).with_records(Some(records));
            topics.entry(part.0.clone()).or_default().push(data);
        }
        if sent.is_empty() {
            return false;
        }
        let topic_data = topics
            .into_iter()
            .map(|(name, data)| TopicProduceData::default().with_name(topic_name(&name)).with_partition_data(data))
            .collect();
        let request = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(self.manner.acks)
            .with_timeout_ms(self.manner.timeout_ms)
            .with_topic_data(topic_data);
        if self.manner.acks == 0 {
            self.links.at(broker).send_only(cx, self.manner.version, &request);
            for (part, number) in sent {
                self.lanes.get_mut(&part).expect("it was sent from there").batches.retain(|b| b.number != number);
            }
        } else {
            let stamp = cx.model.stamp();
            let within = i64::from(self.manner.timeout_ms);
            self.links.at(broker).send(cx, self.manner.version, &request, within, Purpose::Produce(stamp, sent));
        }
        true
    }

    /// Nobody knows what became of these requests.
    fn lost(&mut self, cx: &mut Context<'_>, purposes: Vec<Purpose>) {
        self.retry_at = cx.now + cx.rng.between(1_000, 200_000);
        for purpose in purposes {
            let Purpose::Produce(_, sent) = purpose else {
                self.init_at = cx.any_broker();
                continue;
            };
            for (part, number) in sent {
                self.again(cx, &part, number, true);
            }
        }
    }

    /// An attempt has ended without an acknowledgement; with `maybe` it may have been appended.
    fn again(&mut self, cx: &mut Context<'_>, part: &Part, number: u64, maybe: bool) {
        let lane = self.lanes.get_mut(part).expect("a lane is never removed");
        let Some(at) = lane.batches.iter().position(|batch| batch.number == number) else { return };
        let batch = &mut lane.batches[at];
        batch.state = State::Waiting;
        batch.maybe |= maybe;
        batch.not_before = cx.now + cx.rng.between(1_000, 100_000);
        if !self.manner.retries || batch.spoilt {
            lane.batches.remove(at);
        }
    }

    fn produce_answered(&mut self, cx: &mut Context<'_>, frame: Bytes, stamp: Stamp, sent: Vec<(Part, u64)>) {
        let response: ProduceResponse = wire::response(self.manner.version, frame);
        let mut answers: BTreeMap<Part, (i16, i64)> = BTreeMap::new();
        for topic in &response.responses {
            for partition in &topic.partition_responses {
                let part = (topic.name.to_string(), partition.index);
                answers.insert(part, (partition.error_code, partition.base_offset));
            }
        }
        for (part, number) in sent {
            let (error, offset) =
                answers.remove(&part).unwrap_or_else(|| panic!("protocol: no answer for partition {part:?}"));
            let lane = self.lanes.get_mut(&part).expect("a lane is never removed");
            let at = lane.batches.iter().position(|batch| batch.number == number).expect("what is in flight is kept");
            lane.last_error = error;
            lane.batches[at].answer = Some(error);
            let batch = &lane.batches[at];
            let values = batch.values.clone();
            match error {
                code::NONE => {
                    assert!(!batch.spoilt, "S1: a damaged batch was acknowledged");
                    let all_before = lane.batches.iter().take(at).all(|earlier| earlier.maybe);
                    assert!(!self.manner.idempotent || all_before, "S3: acknowledged after a batch that was refused");
                    lane.batches.remove(at);
                    // Of several brokers, one that has answered acks=1 may be deposed before the others have the batch.
                    if self.manner.acks == -1 || cx.brokers == 1 {
                        cx.model.produce_acked(&values, offset);
                    }
                }
                _ if cx.model.is_indeterminate(error) => self.again(cx, &part, number, true),
                code::DUPLICATE_SEQUENCE => panic!("S3: a duplicate was not answered with its first offset"),
                code::INVALID_PRODUCER_EPOCH => panic!("S3: the newest epoch of {part:?} is refused"),
                _ => {
                    cx.model.produce_refused(&values, error);
                    let batch = &lane.batches[at];
                    match error {
                        code::OUT_OF_ORDER_SEQUENCE => {
                            let first = at == 0 && self.manner.idempotent && !self.bump;
                            assert!(!first, "S3: sequence {} of {part:?} is the next and is refused", batch.sequence);
                            let earlier = || lane.batches.iter().take(at).map(|batch| batch.answer);
                            // librdkafka would take a new epoch now, and double what it sent to others meanwhile.
                            assert!(
                                !earlier().all(|answer| answer.is_some_and(code::is_for_a_time)),
                                "S3: the batches before it were refused for a time ({:?}), it for ever",
                                earlier().collect::<Vec<_>>()
                            );
                        }
                        code::UNKNOWN_TOPIC_OR_PARTITION => cx.model.unknown_topic(&part, stamp),
                        code::CORRUPT_MESSAGE | code::MESSAGE_TOO_LARGE => {
                            assert!(batch.spoilt, "protocol: a sound batch was refused with error {error}");
                        }
                        _ => {}
                    }
                    self.again(cx, &part, number, false);
                }
            }
        }
    }
}

impl Client for Producer {
    fn wake(&mut self, cx: &mut Context<'_>) {
        self.go_on(cx);
    }

    fn connected(&mut self, cx: &mut Context<'_>, broker: usize) {
        self.links.at(broker).connected();
        self.go_on(cx);
    }

    fn answered(&mut self, cx: &mut Context<'_>, broker: usize, frame: Bytes) {
        match self.links.at(broker).answered(&frame) {
            Purpose::Init => {
                let response: InitProducerIdResponse = wire::response(4, frame);
                if response.error_code == code::NONE {
                    self.identity = Some((response.producer_id.0, response.producer_epoch));
                    cx.model.producer_id(response.producer_id.0);
                } else {
                    self.retry_at = cx.now + 50_000;
                    self.init_at = cx.any_broker();
                }
            }
            Purpose::Produce(stamp, sent) => self.produce_answered(cx, frame, stamp, sent),
        }
        self.go_on(cx);
    }

    fn closed(&mut self, cx: &mut Context<'_>, broker: usize) {
        let lost = self.links.at(broker).closed();
        if self.identity.is_none() {
            self.init_at = cx.any_broker();
        }
        self.lost(cx, lost);
        cx.wake_in(10_000);
    }

    fn asks_for_no_answer(&self) -> bool {
        self.manner.acks == 0
    }

    fn settle(&mut self, now: u64) {
        self.settling = Some(now);
    }

    fn is_settled(&self, _model: &Model) -> bool {
        self.backlog() == 0
    }

    fn state(&self) -> String {
        let lanes: Vec<_> = (self.lanes.iter())
            .filter_map(|(part, lane)| lane.batches.front().map(|batch| (part, batch.state, batch.attempts)))
            .collect();
        format!("producer {} ({:?}): {lanes:?}", self.number, self.manner)
    }
}
