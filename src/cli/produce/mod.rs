//! `ringlog produce`: lines of standard input, or of a file, become records.

mod batch;
mod input;
mod sender;

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::client::{BrokerArgs, Cluster, Failure, complain, exit_code};
use super::progress::Progress;
use super::rows::Format;
use super::setting::{Setting, setting};
use crate::record::Compression;
use input::{Input, Parser};
use sender::Sender;

/// Lines that may wait for the broker.
const LINES_AHEAD: usize = 4_096;

/// Most bytes of keys and values that are sent at once: well below what brokers take by default in one batch.
const MOST_AT_ONCE: usize = 256 * 1024;

/// The arguments of `ringlog produce`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ProduceArgs {
    /// Topic to write to, which must be there
    topic: String,
    #[command(flatten)]
    brokers: BrokerArgs,
    /// File to read; standard input where there is none
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What is between key and value in each line (\t is a tab); without it records have no key
    #[arg(short, long, value_name = "TEXT", value_parser = input::separator)]
    key_separator: Option<String>,
    /// A value that stands for none: with a key, such a record is a tombstone
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,
    /// A header of every record; may be given several times
    #[arg(short = 'H', long, value_name = "NAME=VALUE", value_parser = setting)]
    header: Vec<Setting>,
    /// Partition to write to, whatever the key
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t = Kind::None)]
    compression: Kind,
    /// Whose acknowledgement to wait for
    #[arg(long, value_enum, default_value_t = Acks::All)]
    acks: Acks,
    /// Form of what is said in the end
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

const AFTER_HELP: &str = "\
Every line is a record. Records with a key go to the partition that Kafka's clients would choose; others go batch by batch to
one partition after the other. With `--acks all` each record is written once, whatever is sent again on the way (an
idempotent producer), where the broker can do that. A record that the broker refuses is named by its line, and does not keep
the others from being sent.

Examples:
  echo hello | ringlog produce greetings
  ringlog produce orders --file orders.tsv --key-separator '\\t' --compression zstd
  seq 1000 | ringlog produce numbers --header source=seq --partition 0

Exit codes: 0 all records are acknowledged; 1 some were refused; 2 the arguments make no sense; 3 no broker answers within
the time, and nobody knows whether the last records were written.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<Kind> for Compression {
    fn from(kind: Kind) -> Compression {
        match kind {
            Kind::None => Compression::None,
            Kind::Gzip => Compression::Gzip,
            Kind::Snappy => Compression::Snappy,
            Kind::Lz4 => Compression::Lz4,
            Kind::Zstd => Compression::Zstd,
        }
    }
}

/// Whose acknowledgement a producer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Acks {
    /// That of all replicas in sync
    All,
    /// That of the leader
    #[value(name = "1")]
    Leader,
    /// Nobody's: what is lost is not noticed
    #[value(name = "0")]
    None,
}

impl Acks {
    fn number(self) -> i16 {
        match self {
            Acks::All => -1,
            Acks::Leader => 1,
            Acks::None => 0,
        }
    }
}

/// Sends everything, and says how much was acknowledged.
///
/// # Errors
/// A file that cannot be opened. What brokers refuse is printed and decides the exit code.
pub fn run(args: &ProduceArgs) -> Result<ExitCode> {
    let mut progress = Progress::hidden();
    let input: Box<dyn BufRead + Send> = match &args.file {
        None => Box::new(BufReader::new(io::stdin())),
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            let bytes = file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
            if io::stderr().is_terminal() {
                progress = Progress::bytes(bytes);
            }
            Box::new(BufReader::new(file))
        }
    };
    let parser = Parser::new(args.key_separator.clone(), args.null.clone());
    let (lines, read) = sync_channel(LINES_AHEAD);
    // A thread of its own reads: while a batch is under way the next one gathers.
    thread::spawn(move || input::read(input, &parser, &lines));
    let mut failures = Vec::new();
    let acknowledged = send(args, &read, &mut failures, &progress);
    progress.finish();
    complain(args.format, &failures);
    match args.format {
        Format::Table if args.acks == Acks::None => eprintln!("{acknowledged} records sent, none acknowledged"),
        Format::Table => eprintln!("{acknowledged} records acknowledged"),
        Format::Json => println!("{}", json!({ "topic": args.topic, "records": acknowledged })),
    }
    Ok(exit_code(&failures))
}

/// Sends what is read until there is no more, or no broker takes it. Gives the number of records that were taken.
fn send(
    args: &ProduceArgs,
    read: &Receiver<Result<Input, Failure>>,
    failures: &mut Vec<Failure>,
    progress: &Progress,
) -> u64 {
    let mut cluster = Cluster::new(&args.brokers);
    let mut sender = match Sender::new(&mut cluster, &args.topic, args.acks, args.compression.into(), &args.header) {
        Ok(sender) => sender,
        Err(failure) => {
            failures.push(failure);
            return 0;
        }
    };
    // The first line is waited for, those behind it are taken as far as they are there.
    while let Ok(first) = read.recv() {
        let (mut bytes, mut gathered) = (0, 0);
        let mut next = Some(first);
        while let Some(line) = next {
            match line.and_then(|input| {
                bytes += input.bytes();
                gathered += input.bytes_read;
                sender.add(input, args.partition)
            }) {
                Ok(()) => {}
                Err(failure) => failures.push(failure),
            }
            next = if bytes < MOST_AT_ONCE { read.try_recv().ok() } else { None };
        }
        cluster.renew();
        if let Err(failure) = sender.flush(&mut cluster, failures) {
            failures.push(failure);
            break;
        }
        progress.advance(gathered);
    }
    sender.taken()
}
