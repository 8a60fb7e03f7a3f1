//! The command line: a module for each command, and what they share.

#[cfg(feature = "bench")]
mod bench;
mod client;
mod config;
mod consume;
mod doctor;
mod generate;
mod group;
mod health;
mod inspect;
mod interrupt;
mod machine;
mod node;
mod produce;
mod progress;
mod rows;
mod server;
mod setting;
mod settings;
mod topic;
mod trace;
mod when;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use client::AdminArgs;

/// A single-binary broker that speaks the Kafka protocol and flushes before it acknowledges.
#[derive(Debug, Parser)]
#[command(name = "ringlog", version = version(), after_help = AFTER_HELP, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker
    Server(server::ServerArgs),
    /// Create, list, describe, delete and alter topics
    #[command(subcommand_required = true)]
    Topic(AdminArgs<topic::What>),
    /// Write lines as records
    Produce(produce::ProduceArgs),
    /// Print records
    Consume(consume::ConsumeArgs),
    /// List, describe, delete and reset consumer groups
    #[command(subcommand_required = true)]
    Group(AdminArgs<group::What>),
    /// Show and change configs of topics, brokers and groups
    #[command(subcommand_required = true)]
    Config(AdminArgs<config::What>),
    /// Show the brokers of a cluster, and move all replicas off one
    #[command(subcommand_required = true)]
    Node(AdminArgs<node::What>),
    /// Measure a broker that speaks the Kafka protocol, this one or another
    #[cfg(feature = "bench")]
    #[command(subcommand_required = true)]
    Bench(bench::BenchArgs),
    /// Check whether the broker can run on this machine, and measure its disk
    Doctor(doctor::DoctorArgs),
    /// Show what lies in the data directory of a stopped broker
    #[command(subcommand_required = true)]
    Inspect(inspect::InspectArgs),
    /// Ask the broker on this machine whether it answers
    Health(health::HealthArgs),
    /// Print completions for a shell
    Completions(generate::CompletionsArgs),
    /// Write manual pages
    Man(generate::ManArgs),
}

const AFTER_HELP: &str = "\
Examples:
  ringlog server                      Listen on 127.0.0.1:9092, keep data in ./data
  ringlog server --listen 0.0.0.0:9092 --advertise broker-1.example:9092 --data-dir /var/lib/ringlog
  ringlog topic create orders --partitions 12
                                      Create a topic; `ringlog topic list` shows it
  echo hello | ringlog produce orders
  ringlog consume orders --from-beginning --exit-at-end
                                      Write a record, and read it back
  ringlog node drain 3                Move every replica off broker 3
  ringlog doctor --data-dir /var/lib/ringlog
                                      Check whether this machine can run the broker, and how well
  ringlog inspect logs --data-dir /var/lib/ringlog
                                      Show what a stopped broker's data directory holds
  ringlog bench all --brokers 127.0.0.1:9092
                                      Measure a broker, this one or another, and count what is read back";

/// How long the end of the program may wait for its last log lines.
const FLUSH_LOG_WITHIN: Duration = Duration::from_secs(1);

/// The program's version, with the commit where the build was told it.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    match option_env!("RINGLOG_COMMIT") {
        Some(commit) => format!("{version} ({commit})"),
        None => version.into(),
    }
}

/// Runs the program with the arguments and the environment of this process.
pub fn main() -> ExitCode {
    crate::io::probe::raise_limits();
    let result = match Cli::parse().command {
        Command::Server(args) => server::run(&args),
        Command::Topic(args) => topic::run(&args),
        Command::Produce(args) => produce::run(&args),
        Command::Consume(args) => consume::run(&args),
        Command::Group(args) => group::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Node(args) => node::run(&args),
        #[cfg(feature = "bench")]
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Completions(args) => generate::completions(&args, Cli::command()),
        Command::Man(args) => generate::man(&args, Cli::command()),
    };
    crate::logging::flush(FLUSH_LOG_WITHIN);
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringlog: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_every_key_with_its_variable() {
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("server").unwrap().render_long_help().to_string();
        for key in crate::config::keys::KEYS {
            assert!(help.contains(&format!("--{} <{}>", key.flag(), key.value)), "{}", key.name);
            assert!(help.contains(&format!("[env: {}]", key.variable())), "{}", key.name);
        }
    }

    #[test]
    fn doctor_takes_a_directory_and_a_format() {
        assert!(Cli::try_parse_from(["ringlog", "doctor", "--data-dir", "/d", "--format", "json"]).is_ok());
        assert!(Cli::try_parse_from(["ringlog", "doctor", "--format", "xml"]).is_err());
        assert!(Cli::try_parse_from(["ringlog", "serve"]).is_err());
    }
}
