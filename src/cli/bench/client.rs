//! The neutral client: librdkafka with its defaults, except where the settings say otherwise.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::ClientArgs;

/// How long a request of ours may take before a run is given up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What all clients of a run have in common. A broker that is not up yet is tried again at once, so that a
/// start-up is measured and not the client's back-off; caches that would hide a new topic are kept short.
pub fn config(args: &ClientArgs) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &args.brokers)
        .set("client.id", "ringlog-bench")
        .set("reconnect.backoff.ms", "5")
        .set("reconnect.backoff.max.ms", "5")
        .set("topic.metadata.refresh.fast.interval.ms", "5")
        .set("topic.metadata.propagation.max.ms", "60000");
    for (name, value) in &args.property {
        config.set(name, value);
    }
    config
}

/// The settings of a producer.
pub fn producer_config(args: &ClientArgs) -> ClientConfig {
    let mut config = config(args);
    config
        .set("acks", &args.acks)
        .set("linger.ms", args.linger_ms.to_string())
        .set("compression.type", &args.compression)
        .set("enable.idempotence", args.idempotence.to_string())
        .set("message.timeout.ms", PATIENCE.as_millis().to_string());
    if let Some(records) = args.batch_records {
        config.set("batch.num.messages", records.to_string());
    }
    config
}

/// The settings of a consumer: the group is a name that librdkafka insists on, nothing is ever committed to it.
pub fn consumer_config(args: &ClientArgs) -> ClientConfig {
    let mut config = config(args);
    config
        .set("group.id", "ringlog-bench")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        // Its default waits a whole second after the prefetch queue was full once, which measures nothing but itself.
        .set("fetch.queue.backoff.ms", "5");
    config
}

/// Runs a future to its end on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = TaskContext::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Creates, finds and deletes topics.
pub struct Admin {
    client: AdminClient<DefaultClientContext>,
    partitions: i32,
    replication: i32,
}

impl Admin {
    /// A client of its own, with the partitions and replicas of `args`.
    pub fn new(args: &ClientArgs) -> Result<Admin> {
        Ok(Admin {
            client: config(args).create().context("cannot make an admin client")?,
            partitions: args.partitions,
            replication: args.replication_factor,
        })
    }

    /// Opens the connection, so that the first request is not charged for it.
    pub fn connect(&self) -> Result<()> {
        // All topics: a name that no topic has would be a topic afterwards.
        self.client.inner().fetch_metadata(None, PATIENCE).context("cannot reach the broker")?;
        Ok(())
    }

    /// Creates the topics in one request; done when the broker answered that all exist.
    pub fn create(&self, names: &[&str]) -> Result<()> {
        let topics: Vec<_> = names
            .iter()
            .map(|name| NewTopic::new(name, self.partitions, TopicReplication::Fixed(self.replication)))
            .collect();
        let answers = block_on(self.client.create_topics(&topics, &options())).context("cannot create topics")?;
        for answer in answers {
            answer.map_err(|(topic, code)| anyhow!("cannot create {topic}: {code}"))?;
        }
        Ok(())
    }

    /// Deletes the topics in one request.
    pub fn delete(&self, names: &[&str]) -> Result<()> {
        let answers = block_on(self.client.delete_topics(names, &options())).context("cannot delete topics")?;
        for answer in answers {
            answer.map_err(|(topic, code)| anyhow!("cannot delete {topic}: {code}"))?;
        }
        Ok(())
    }

    /// Waits until the topic is seen with all its partitions led, and checks their number.
    pub fn await_topic(&self, name: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let seen = self.partitions_led(name);
            match seen {
                Ok(Some(led)) => {
                    ensure!(
                        led == self.partitions as usize,
                        "{name} has {led} partitions, not {}: see --partitions",
                        self.partitions
                    );
                    return Ok(());
                }
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
                Ok(None) => bail!("{name} has partitions without a leader, or does not exist"),
                Err(error) if Instant::now() < until && retriable(&error) => thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(error).with_context(|| format!("cannot ask for {name}")),
            }
        }
    }

    /// The number of partitions of a topic that are all led; `None` while some are not, or there is no such topic.
    fn partitions_led(&self, name: &str) -> Result<Option<usize>, KafkaError> {
        let metadata = self.client.inner().fetch_metadata(Some(name), Duration::from_secs(5))?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(None) };
        let led = topic.partitions().iter().all(|partition| partition.leader() >= 0 && partition.error().is_none());
        Ok((topic.error().is_none() && led && !topic.partitions().is_empty()).then_some(topic.partitions().len()))
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE / 2))
}

/// Whether trying again may help: the broker is away or still starting.
pub fn retriable(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}
