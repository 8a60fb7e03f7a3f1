//! The bandwidth of the WAL alone, to be held against what the device can do.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::report::{Format, Outcome};
use crate::io::wal_bandwidth;

/// Arguments of `ringlog bench wal`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct WalArgs {
    /// Directory on the disk that is measured; the WAL lies in a scratch directory in it, which is removed again
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// Length of the measurement
    #[arg(long, default_value_t = 5.0, value_name = "S")]
    seconds: f64,

    /// Seconds before it; the first segments are made in this time
    #[arg(long, default_value_t = 2.0, value_name = "S")]
    warmup: f64,

    /// How to print the outcome
    #[arg(long, value_enum, default_value_t = Format::Text)]
    #[serde(skip)]
    pub(super) format: Format,
}

/// Runs it.
pub fn run(args: &WalArgs) -> Result<Outcome> {
    let (warm_up, time) = (Duration::try_from_secs_f64(args.warmup)?, Duration::try_from_secs_f64(args.seconds)?);
    let scratch = args.dir.join(format!("ringlog-bench-wal-{}", std::process::id()));
    // Never a directory that is there: it might hold a broker's data.
    fs::create_dir(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let done = wal_bandwidth(&scratch, warm_up, time);
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    let done = done?;
    let seconds = done.time.as_secs_f64();
    Ok(Outcome::new("wal", args).with_result(json!({
        "bytes": done.bytes,
        "seconds": seconds,
        "mb_per_s": done.bytes as f64 / 1e6 / seconds,
    })))
}
