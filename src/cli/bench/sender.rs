//! The producing side: numbered records out, delivery reports in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::ClientArgs;
use super::client::{PATIENCE, producer_config};
use super::payload::{Payloads, Trailer, now_ns};

/// What became of the records that a producer was given.
#[derive(Default)]
pub struct Deliveries {
    acknowledged: AtomicU64,
    last_ns: AtomicU64,
    failed: Mutex<Vec<(u64, RDKafkaErrorCode)>>,
    latency: Option<Mutex<Latency>>,
}

/// Latencies from the intended send time, in microseconds.
pub struct Latency {
    from_ns: u64,
    histogram: Histogram<u64>,
}

impl Latency {
    /// Takes records that were meant to be sent at `from_ns` or later; the earlier ones warm up.
    pub fn from(from_ns: u64) -> Latency {
        let histogram = Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are in order");
        Latency { from_ns, histogram }
    }

    /// Takes a record that has just arrived.
    pub fn record(&mut self, intended_ns: u64) {
        if intended_ns >= self.from_ns {
            self.histogram.saturating_record(now_ns().saturating_sub(intended_ns) / 1_000);
        }
    }

    /// The latencies so far.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }
}

impl Deliveries {
    /// Deliveries that are timed, once [`Deliveries::time_from`] was called.
    pub fn timed() -> Deliveries {
        Deliveries { latency: Some(Mutex::new(Latency::from(u64::MAX))), ..Deliveries::default() }
    }

    /// Times the records that are meant to be sent at `from_ns` or later.
    pub fn time_from(&self, from_ns: u64) {
        if let Some(latency) = &self.latency {
            *latency.lock().unwrap_or_else(PoisonError::into_inner) = Latency::from(from_ns);
        }
    }

    /// Number of records acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// When the latest record was acknowledged, on the clock of [`now_ns`].
    pub fn last_ns(&self) -> u64 {
        self.last_ns.load(Ordering::Relaxed)
    }

    /// Numbers of the records that failed, with the reasons.
    pub fn failed(&self) -> Vec<(u64, RDKafkaErrorCode)> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn settled(&self) -> u64 {
        self.acknowledged() + self.failed.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// Ends the timing and gives its histogram.
    pub fn latencies(&self) -> Option<Histogram<u64>> {
        let latency = self.latency.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(latency.histogram.clone())
    }
}

/// The context of a producer: a shared [`Deliveries`].
#[derive(Clone)]
pub struct Reports(pub Arc<Deliveries>);

impl ClientContext for Reports {
    /// What librdkafka has to say: nothing while all is well, much with `-X debug=...`.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        eprintln!("librdkafka: {level:?} {facility} {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        eprintln!("librdkafka: {error}: {reason}");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let deliveries = &*self.0;
        match result {
            Ok(message) => {
                if let Some(latency) = &deliveries.latency
                    && let Some(trailer) = message.payload().and_then(Trailer::peek)
                {
                    latency.lock().unwrap_or_else(PoisonError::into_inner).record(trailer.intended_ns);
                }
                deliveries.last_ns.store(now_ns(), Ordering::Relaxed);
                deliveries.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, message)) => {
                let number = message.payload().and_then(Trailer::peek).map_or(u64::MAX, |trailer| trailer.number);
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                deliveries.failed.lock().unwrap_or_else(PoisonError::into_inner).push((number, code));
            }
        }
    }
}

/// Sends the numbered records of one run to one topic.
pub struct Sender {
    producer: Arc<BaseProducer<Reports>>,
    reporter: Option<Reporter>,
    payloads: Payloads,
    topic: String,
    partitions: u64,
    next: u64,
    deliveries: Arc<Deliveries>,
}

/// Sends between two looks at the delivery reports.
const POLL_EVERY: u64 = 256;

impl Sender {
    /// A producer of its own for `topic`.
    pub fn new(args: &ClientArgs, topic: &str, run: u32, deliveries: Deliveries) -> Result<Sender> {
        let deliveries = Arc::new(deliveries);
        let producer =
            producer_config(args).create_with_context(Reports(deliveries.clone())).context("cannot make a producer")?;
        Ok(Sender {
            producer: Arc::new(producer),
            reporter: None,
            payloads: Payloads::new(args.record_size, run),
            topic: topic.to_owned(),
            partitions: args.partitions as u64,
            next: 0,
            deliveries,
        })
    }

    /// What became of the records so far.
    pub fn deliveries(&self) -> &Arc<Deliveries> {
        &self.deliveries
    }

    /// Sends what follows to another topic of as many partitions.
    pub fn retarget(&mut self, topic: &str) {
        topic.clone_into(&mut self.topic);
    }

    /// Number of records handed over.
    pub fn sent(&self) -> u64 {
        self.next
    }

    /// Hands the next record to librdkafka, waiting for room in its queue where that is full.
    pub fn send(&mut self, intended_ns: u64) -> Result<()> {
        let value = self.payloads.value(self.next, intended_ns);
        let partition = (self.next % self.partitions) as i32;
        let mut record = BaseRecord::<(), [u8]>::to(&self.topic).partition(partition).payload(value);
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error).context("cannot send"),
            }
        }
        self.next += 1;
        if self.next.is_multiple_of(POLL_EVERY) {
            self.producer.poll(Duration::ZERO);
        }
        Ok(())
    }

    /// Serves delivery reports as they come, on a thread of their own: a sender that sleeps between records would
    /// hear of them late. One that never sleeps is better off without.
    pub fn serve_reports(&mut self) {
        let (producer, stop) = (self.producer.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                producer.poll(Duration::from_millis(20));
            }
        });
        self.reporter = Some(Reporter { stop, thread: Some(thread) });
    }

    /// Waits until every record is acknowledged or has failed.
    pub fn finish(&self) -> Result<()> {
        let mut settled = self.deliveries.settled();
        let mut moved = Instant::now();
        while settled < self.next {
            self.producer.poll(Duration::from_millis(1));
            let now = self.deliveries.settled();
            if now != settled {
                settled = now;
                moved = Instant::now();
            }
            // Past the message timeout librdkafka itself must have given a verdict on each record.
            ensure!(moved.elapsed() < PATIENCE * 2, "{} records without a verdict", self.next - settled);
        }
        Ok(())
    }

    /// Sends one record to every partition and waits for all: the connections are open then, and every partition has
    /// shown that it takes records. A broker may still refuse the first ones of a new topic, and when those are tried
    /// again behind their successors, that is no fault of order to count against it.
    pub fn prime(&mut self) -> Result<()> {
        for _ in 0..self.partitions {
            self.send(now_ns())?;
        }
        self.finish()
    }

    /// Fetches what the producer must know of all topics at once: it would ask for each by itself otherwise. Returns
    /// the number of topics whose names start with `prefix` and whose partitions are all led.
    pub fn learn_all(&self, prefix: &str) -> Result<usize> {
        let metadata = self.producer.client().fetch_metadata(None, PATIENCE).context("cannot reach the broker")?;
        let led = |topic: &&MetadataTopic| {
            topic.name().starts_with(prefix) && topic.partitions().iter().all(|partition| partition.leader() >= 0)
        };
        Ok(metadata.topics().iter().filter(led).count())
    }
}

/// The thread that serves delivery reports; it ends with its owner.
struct Reporter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic on that thread has been printed; there is nothing to add while dropping.
            let _ = thread.join();
        }
    }
}
