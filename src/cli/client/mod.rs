//! A small blocking client of the Kafka protocol: what the commands reach brokers with. Any broker of the protocol will
//! do, this program's or another's.

mod cluster;
mod connection;
mod failure;
mod offsets;
mod partitioner;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

pub use cluster::{Cluster, text, topic_name};
pub use failure::{Failure, check, exit_code};
pub use offsets::{BEGIN, END, Partition, checked, edges, leaders, look_up, shown};
pub use partitioner::of_key;

use super::rows::{self, Format, Row};
use failure::EXIT_CODES;

/// How brokers are reached.
#[derive(Clone, Debug, Args)]
pub struct BrokerArgs {
    /// Brokers to ask first; the others of the cluster are found through them
    #[arg(
        short,
        long,
        value_name = "HOST:PORT,..",
        env = "RINGLOG_BOOTSTRAP_SERVER",
        default_value = "127.0.0.1:9092",
        value_delimiter = ',',
        global = true,
        help_heading = "Brokers"
    )]
    pub bootstrap_server: Vec<String>,
    /// Time for all of it, such as 500ms or 30s; `produce` and `consume` have it for each answer
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        value_parser = humantime::parse_duration,
        global = true,
        help_heading = "Brokers"
    )]
    pub timeout: Duration,
}

/// The arguments of every command that asks and shows, of which it does one of several things.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct AdminArgs<W: Subcommand> {
    #[command(subcommand)]
    pub what: W,
    #[command(flatten)]
    pub brokers: BrokerArgs,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t = Format::Table, global = true)]
    pub format: Format,
}

/// What a command shows: what it found or did, and what it could not.
#[derive(Debug, Default)]
pub struct Shown {
    /// Goes to standard output.
    pub rows: Vec<Row>,
    /// Go to standard error and decide the exit code.
    pub failures: Vec<Failure>,
}

impl Shown {
    /// Takes the row, or the failure.
    pub fn add(&mut self, result: Result<Row, Failure>) {
        match result {
            Ok(row) => self.rows.push(row),
            Err(failure) => self.failures.push(failure),
        }
    }
}

/// Prints what a command has come to and gives its exit code.
///
/// # Errors
/// Output that cannot be written, unless it is a pipe whose reader has seen enough.
pub fn finish(format: Format, result: Result<Shown, Failure>) -> anyhow::Result<ExitCode> {
    let shown = result.unwrap_or_else(|failure| Shown { rows: Vec::new(), failures: vec![failure] });
    if !shown.rows.is_empty() || shown.failures.is_empty() {
        let mut out = BufWriter::new(io::stdout().lock());
        match rows::print(&shown.rows, format, &mut out).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    complain(format, &shown.failures);
    Ok(exit_code(&shown.failures))
}

/// Prints failures to standard error.
pub fn complain(format: Format, failures: &[Failure]) {
    for failure in failures {
        match format {
            Format::Table => eprintln!("ringlog: {failure}"),
            Format::Json => eprintln!("{}", failure.json()),
        }
    }
}
