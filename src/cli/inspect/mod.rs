//! `ringlog inspect`: what lies in the data directory of a stopped broker. It changes nothing.

mod logs;
mod mapped;
mod segment;
mod wal;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::rows::{self, Format};
use mapped::DataDir;

/// The arguments of `ringlog inspect`.
#[derive(Debug, Args)]
#[command(
    after_help = "It reads through memory maps and changes nothing. While a broker runs on the directory it refuses to."
)]
pub struct InspectArgs {
    #[command(subcommand)]
    what: What,
    /// Directory that the broker keeps its data in
    #[arg(long, value_name = "DIR", env = "RINGLOG_DATA_DIR", default_value = "./data", global = true)]
    data_dir: PathBuf,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t = Format::Table, global = true)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The logs that a start would find, with their partitions
    Logs,
    /// Topics and partitions as of the last entry of the metadata's log, which need not be committed
    Metadata,
    /// The segments of the write-ahead logs
    Wal {
        /// Every frame in them instead
        #[arg(long)]
        frames: bool,
    },
    /// The batches of a segment (`partitions/LOG/BASE.log`)
    Segment {
        /// The file
        file: PathBuf,
    },
    /// The entries of a segment's index (`partitions/LOG/BASE.index`)
    Index {
        /// The file
        file: PathBuf,
    },
}

/// Prints what was asked for.
///
/// # Errors
/// A broker that runs, files that cannot be read, damage: which, and where.
pub fn run(args: &InspectArgs) -> Result<ExitCode> {
    let dir = || DataDir::open(&args.data_dir);
    let rows = match &args.what {
        What::Logs => logs::logs(&dir()?)?,
        What::Metadata => logs::metadata(&dir()?)?,
        What::Wal { frames: false } => wal::segments(&dir()?)?,
        What::Wal { frames: true } => wal::frames(&dir()?)?,
        What::Segment { file } => segment::batches(file)?,
        What::Index { file } => segment::index(file)?,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    match rows::print(&rows, args.format, &mut out).and_then(|()| out.flush()) {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        result => result.map(|()| ExitCode::SUCCESS).map_err(Into::into),
    }
}
