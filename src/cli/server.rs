//! `ringlog server`.

use std::process::ExitCode;

use clap::Args;

use super::settings::SettingsArgs;
use crate::io;
use crate::logging;

/// The arguments of `ringlog server`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ServerArgs {
    #[command(flatten)]
    settings: SettingsArgs,
}

const AFTER_HELP: &str = "\
A flag wins over the environment, the environment over the file, the file over the default.
Sizes: plain bytes, or 512MiB, 8GiB, 1GB.

The line `ready HOST:PORT` on standard output says that clients can connect. SIGTERM and SIGINT stop the broker
once everything accepted is durable; a second one stops it at once.";

/// Runs the broker until it is told to stop.
///
/// # Errors
/// A configuration that cannot be used, or a machine on which the broker cannot run.
pub fn run(args: &ServerArgs) -> anyhow::Result<ExitCode> {
    let (config, warnings) = args.settings.resolve()?;
    logging::start(config.log_format, &config.log_level)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    io::run(config)?;
    Ok(ExitCode::SUCCESS)
}
