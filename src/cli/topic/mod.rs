//! `ringlog topic`: topics are created, listed, described, deleted and altered.

mod alter;
mod create;
mod delete;
mod describe;

use std::process::ExitCode;

use clap::Subcommand;

use super::client::{AdminArgs, Cluster, finish};

/// What `ringlog topic` does.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Create topics; all partitions have leaders when it is done
    Create(create::CreateArgs),
    /// List the topics
    List(describe::ListArgs),
    /// Show the partitions of topics: leader, replicas, those in sync, first and next offset
    Describe(describe::DescribeArgs),
    /// Delete topics with all their records
    Delete(delete::DeleteArgs),
    /// Give a topic more partitions or other configs
    Alter(alter::AlterArgs),
}

/// Does what was asked, and shows it.
///
/// # Errors
/// Output that cannot be written.
pub fn run(args: &AdminArgs<What>) -> anyhow::Result<ExitCode> {
    let mut cluster = Cluster::new(&args.brokers);
    let format = args.format;
    match &args.what {
        What::Create(create) => create::run(&mut cluster, create, format),
        What::List(list) => finish(format, describe::list(&mut cluster, list)),
        What::Describe(describe) => finish(format, describe::describe(&mut cluster, describe)),
        What::Delete(delete) => finish(format, delete::run(&mut cluster, delete)),
        What::Alter(alter) => finish(format, alter::run(&mut cluster, alter)),
    }
}
