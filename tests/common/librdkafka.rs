//! librdkafka, through crate rdkafka, with no async runtime.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, FromClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

/// Settings that every client of the tests has.
pub fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("broker.address.family", "v4");
    // A client whose broker is killed says so at length.
    config.set_log_level(RDKafkaLogLevel::Emerg);
    config
}

/// Runs a future on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// An admin client.
pub fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    AdminClient::from_config(&config(brokers)).expect("an admin client")
}

/// Options that leave the broker ten seconds.
pub fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(Duration::from_secs(15))).operation_timeout(Some(Duration::from_secs(10)))
}

/// Creates a topic of one replica with settings.
pub fn create_topic(brokers: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    create_replicated(brokers, name, partitions, 1, settings);
}

/// Creates a topic with settings.
pub fn create_replicated(brokers: &str, name: &str, partitions: i32, replicas: i32, settings: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let results = block_on(admin(brokers).create_topics([&topic], &admin_options())).expect("an answer");
    assert_eq!(results, [Ok(name.to_owned())]);
}

/// What became of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// Acknowledged, with this partition and offset.
    Acknowledged(i32, i64),
    /// Given up, with this error.
    Failed(RDKafkaErrorCode),
}

/// Collects the delivery reports of a producer, by the number that each record was sent with.
#[derive(Clone, Default)]
pub struct Reports(Arc<Mutex<BTreeMap<usize, Delivery>>>);

impl Reports {
    /// All reports so far.
    pub fn all(&self) -> BTreeMap<usize, Delivery> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Reports {
    // The default prints to the log that nobody set up; errors reach a test by its delivery reports.
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let delivery = match result {
            Ok(message) => Delivery::Acknowledged(message.partition(), message.offset()),
            Err((error, _)) => Delivery::Failed(error.rdkafka_error_code().expect("an error of librdkafka")),
        };
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, delivery);
        assert_eq!(before, None, "record {number} is reported twice");
    }
}

/// A producer that remembers what became of each record.
pub struct Recorder {
    producer: ThreadedProducer<Reports>,
    reports: Reports,
}

impl Recorder {
    /// A producer with some settings.
    pub fn new(brokers: &str, settings: &[(&str, &str)]) -> Recorder {
        let mut config = config(brokers);
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let reports = Reports::default();
        let producer = ThreadedProducer::from_config_and_context(&config, reports.clone()).expect("a producer");
        Recorder { producer, reports }
    }

    /// Hands one record over; waits while the client's own queue is full. The error is the client's own refusal.
    pub fn send(
        &self,
        topic: &str,
        partition: i32,
        number: usize,
        timestamp: Option<i64>,
        value: &[u8],
    ) -> Result<(), RDKafkaErrorCode> {
        loop {
            let mut record =
                BaseRecord::<(), [u8], usize>::with_opaque_to(topic, number).partition(partition).payload(value);
            record.timestamp = timestamp;
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error.rdkafka_error_code().expect("an error of librdkafka")),
            }
        }
    }

    /// Records that are acknowledged or given up so far.
    pub fn reported(&self) -> usize {
        self.reports.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until so many records more than now are acknowledged or given up.
    pub fn wait_for(&self, records: usize) {
        let wanted = self.reports.all().len() + records;
        let came = super::wait_until(Duration::from_secs(60), || self.reports.all().len() >= wanted);
        assert!(came, "{records} records were not reported within a minute");
    }

    /// Waits until every record is acknowledged or given up, and returns the reports.
    pub fn finish(&self) -> BTreeMap<usize, Delivery> {
        self.producer.flush(Duration::from_secs(60)).expect("all records are reported within a minute");
        self.reports.all()
    }
}

/// A consumer of these partitions, without a group, from `offset` on.
pub fn consumer(
    brokers: &str,
    topic: &str,
    partitions: i32,
    offset: Offset,
    settings: &[(&str, &str)],
) -> BaseConsumer {
    let mut config = config(brokers);
    // librdkafka asks for a group's name even where no group is used.
    config.set("group.id", "unused").set("enable.auto.commit", "false").set("enable.partition.eof", "false");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    let consumer: BaseConsumer = BaseConsumer::from_config(&config).expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, offset).expect("an assignment");
    }
    consumer.assign(&assignment).expect("an assignment");
    consumer
}

/// A record as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds.
    pub timestamp: Option<i64>,
    /// Its value.
    pub value: Vec<u8>,
}

impl From<&BorrowedMessage<'_>> for Read {
    fn from(message: &BorrowedMessage<'_>) -> Read {
        Read {
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            value: message.payload().unwrap_or_default().to_vec(),
        }
    }
}

/// Reads every partition of a topic from its beginning to the end that it has now. Asserts that offsets have no gap.
pub fn read_all(brokers: &str, topic: &str, partitions: i32) -> Vec<Vec<Read>> {
    let consumer = consumer(brokers, topic, partitions, Offset::Beginning, &[]);
    let ends: Vec<i64> = (0..partitions)
        .map(|partition| {
            consumer.fetch_watermarks(topic, partition, Duration::from_secs(20)).expect("the watermarks").1
        })
        .collect();
    let mut read: Vec<Vec<Read>> = vec![Vec::new(); partitions as usize];
    let mut missing: i64 = ends.iter().sum();
    let mut last = Instant::now();
    while missing > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                last = Instant::now();
                let partition = &mut read[message.partition() as usize];
                assert_eq!(message.offset(), partition.len() as i64, "partition {}", message.partition());
                if message.offset() < ends[message.partition() as usize] {
                    missing -= 1;
                }
                partition.push(Read::from(&message));
            }
            // A broker that is starting is called again by the client.
            Some(Err(_)) | None => assert!(
                last.elapsed() < Duration::from_secs(30),
                "{missing} of {} records did not come",
                ends.iter().sum::<i64>()
            ),
        }
    }
    read
}

/// Produces until it is told to stop, record `n` with the value `n` to partition `n % partitions`.
pub fn keep_producing(
    recorder: &Arc<Recorder>,
    topic: &str,
    partitions: usize,
    stop: &Arc<AtomicBool>,
) -> thread::JoinHandle<()> {
    let (recorder, topic, stop) = (recorder.clone(), topic.to_owned(), stop.clone());
    thread::spawn(move || {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            let partition = (number % partitions) as i32;
            recorder.send(&topic, partition, number, None, number.to_string().as_bytes()).expect("taken");
            number += 1;
            // A pace that keeps requests in flight all the time without filling the disk.
            if number % 50 == 0 {
                thread::sleep(Duration::from_millis(2));
            }
        }
    })
}

/// Everything that an idempotent producer sent is there once, in order, where its acknowledgement says.
pub fn assert_exactly_once(address: &str, topic: &str, partitions: usize, recorder: &Recorder) -> usize {
    let reports = recorder.finish();
    let read = read_all(address, topic, partitions as i32);
    for (number, delivery) in &reports {
        match delivery {
            // librdkafka does not know the offset of a batch that the broker told it is a repetition.
            Delivery::Acknowledged(_, -1) => {}
            Delivery::Acknowledged(partition, offset) => {
                let record = &read[*partition as usize][*offset as usize];
                assert_eq!(record.value, number.to_string().as_bytes(), "partition {partition}, offset {offset}");
            }
            Delivery::Failed(error) => panic!("record {number} was given up: {error}"),
        }
    }
    for (partition, records) in read.iter().enumerate() {
        for (index, record) in records.iter().enumerate() {
            let expected = (index * partitions + partition).to_string();
            assert_eq!(record.value, expected.as_bytes(), "partition {partition}, offset {index}");
        }
    }
    assert_eq!(read.iter().map(Vec::len).sum::<usize>(), reports.len(), "lost or doubled records");
    reports.len()
}

/// Settings of an idempotent producer that outlives its broker's deaths and pauses.
pub const RESILIENT: [(&str, &str); 7] = [
    ("enable.idempotence", "true"),
    ("message.timeout.ms", "120000"),
    ("request.timeout.ms", "2000"),
    // A stopped broker keeps its connections open. The client asks whichever of its connections is up for new leaders, and
    // where that is the only one it waits this long (by default a minute) before it asks somebody else.
    ("socket.timeout.ms", "3000"),
    ("reconnect.backoff.ms", "20"),
    ("reconnect.backoff.max.ms", "200"),
    ("queue.buffering.max.messages", "20000"),
];
