//! `ringlog bench`: measures any broker that speaks the Kafka protocol, with librdkafka as the client.
//!
//! The client is the same whatever it measures, and knows nothing of ringlog (but for [`wal`], which has none). Each run
//! that sends records reads all of them back and counts; a run whose count is wrong has no result, and neither has one
//! during which the machine was busy with something else.

mod all;
mod client;
mod consume;
mod first_ack;
mod latency;
mod payload;
mod produce;
mod reader;
mod report;
mod sender;
mod tally;
mod topics;
mod usage;
mod wal;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;

use report::{Format, Outcome};

/// Arguments of `ringlog bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Produce as fast as the broker takes it, then read everything back and count
    Produce(produce::ProduceArgs),
    /// Read a topic from its start to its end with one or more consumers
    Consume(consume::ConsumeArgs),
    /// Consumers that follow a topic while it is written
    Tail(consume::TailArgs),
    /// Latency at a fixed rate, from the intended send time until acknowledged, or until consumed
    Latency(latency::LatencyArgs),
    /// Create topics until every partition has taken a record: one after the other, or all in one request
    Topics(topics::TopicsArgs),
    /// Wait for a broker that is starting, until it has acknowledged one record
    FirstAck(first_ack::FirstAckArgs),
    /// Append to a WAL as fast as it takes it, without a broker: the engine's part of produce's bandwidth
    Wal(wal::WalArgs),
    /// A short run of each kind, as one table
    All(all::AllArgs),
}

/// What every measurement needs to know: the broker, the topic, the client's settings.
#[derive(Clone, Debug, Args, Serialize)]
pub struct ClientArgs {
    /// Where the broker listens
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "HOST:PORT,...")]
    brokers: String,

    /// The topic [default: a new one of the run's own]
    #[arg(long)]
    topic: Option<String>,

    /// Partitions of the topic
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    partitions: i32,

    /// Replicas of each partition
    #[arg(long, default_value_t = 1, value_name = "N")]
    replication_factor: i32,

    /// Do not create the topic, it is there (or the broker makes it when asked for it)
    #[arg(long)]
    existing: bool,

    /// Do not delete the topic at the end
    #[arg(long)]
    keep: bool,

    /// Bytes of a record's value
    #[arg(long, default_value_t = 1024, value_parser = record_size, value_name = "BYTES")]
    record_size: usize,

    /// Acknowledgements that the producer asks for
    #[arg(long, default_value = "all", value_parser = ["all", "-1", "1", "0"])]
    acks: String,

    /// How long the producer gathers a batch
    #[arg(long, default_value_t = 5, value_name = "MS")]
    linger_ms: u32,

    /// Most records in a batch [default: librdkafka's]
    #[arg(long, value_name = "N")]
    batch_records: Option<u32>,

    /// Codec of the batches
    #[arg(long, default_value = "none", value_parser = ["none", "gzip", "snappy", "lz4", "zstd"])]
    compression: String,

    /// Use an idempotent producer
    #[arg(long)]
    idempotence: bool,

    /// Set a property of librdkafka; may be repeated
    #[arg(short = 'X', value_parser = property, value_name = "NAME=VALUE")]
    property: Vec<(String, String)>,

    /// The broker's process, to read its CPU, memory and writes
    #[arg(long)]
    pid: Option<u32>,

    /// A path on the broker's disk, to count the device's flushes
    #[arg(long, value_name = "PATH")]
    disk: Option<PathBuf>,

    /// Share of the machine's CPU, gone to neither client nor broker, from which a run is discarded; needs --pid
    #[arg(long, default_value_t = 0.30, value_name = "SHARE")]
    others_limit: f64,

    /// How to print the outcome
    #[arg(long, value_enum, default_value_t = Format::Text)]
    #[serde(skip)]
    format: Format,
}

fn record_size(text: &str) -> Result<usize, String> {
    let size = text.parse().map_err(|error| format!("{error}"))?;
    if size < payload::MIN_RECORD {
        return Err(format!("a record needs at least {} bytes for its number and its sum", payload::MIN_RECORD));
    }
    Ok(size)
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a property is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl ClientArgs {
    /// The topic that was named, or one that only `run` has.
    fn topic_of(&self, run: u32) -> String {
        self.topic.clone().unwrap_or_else(|| format!("ringlog-bench-{run:08x}"))
    }

    /// A meter of the broker and the disk that were named.
    fn meter(&self) -> Result<usage::Meter> {
        usage::Meter::new(self.pid, self.disk.as_deref(), self.others_limit)
    }

    /// Makes the topic unless it is there, and waits until it can be written.
    fn prepare(&self, topic: &str) -> Result<client::Admin> {
        let admin = client::Admin::new(self)?;
        if !self.existing {
            admin.create(&[topic])?;
        }
        admin.await_topic(topic)?;
        Ok(admin)
    }

    /// Deletes the topic if it was made for this run.
    fn clean_up(&self, admin: &client::Admin, topic: &str) -> Result<()> {
        if self.existing || self.keep { Ok(()) } else { admin.delete(&[topic]) }
    }
}

/// A number that tells the records of this run from those of others.
fn new_run() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(20)) as u32
}

/// Runs the measurement and prints its outcome.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    let (outcome, format): (Outcome, Format) = match &args.command {
        Command::Produce(args) => (produce::run(args)?, args.client.format),
        Command::Consume(args) => (consume::run(args)?, args.client.format),
        Command::Tail(args) => (consume::tail(args)?, args.client.format),
        Command::Latency(args) => (latency::run(args)?, args.client.format),
        Command::Topics(args) => (topics::run(args)?, args.client.format),
        Command::FirstAck(args) => (first_ack::run(args)?, args.client.format),
        Command::Wal(args) => (wal::run(args)?, args.format),
        Command::All(args) => return all::run(args),
    };
    outcome.print(format);
    Ok(outcome.exit_code())
}
