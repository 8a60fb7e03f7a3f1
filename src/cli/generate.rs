//! `ringlog completions` and `ringlog man`: made from the arguments themselves.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;

/// The arguments of `ringlog completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ringlog completions bash > /etc/bash_completion.d/ringlog
  ringlog completions zsh > \"${fpath[1]}/_ringlog\"
  ringlog completions fish > ~/.config/fish/completions/ringlog.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// The arguments of `ringlog man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ringlog man /usr/local/share/man/man1 && man ringlog-topic-create")]
pub struct ManArgs {
    /// Directory to write to, which must be there
    directory: PathBuf,
}

/// Prints the completions of all commands for a shell.
///
/// # Errors
/// Output that cannot be written, unless it is a pipe whose reader has seen enough.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "ringlog", &mut text);
    match io::Write::write_all(&mut io::stdout(), &text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Writes a manual page for each command.
///
/// # Errors
/// A directory that is not there, or cannot be written to.
pub fn man(args: &ManArgs, command: Command) -> Result<ExitCode> {
    write_pages(&args.directory, command)
        .with_context(|| format!("cannot write manual pages to {}", args.directory.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn write_pages(directory: &Path, command: Command) -> io::Result<()> {
    clap_mangen::generate_to(command.disable_help_subcommand(true), directory)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;
    use super::*;

    #[test]
    fn every_command_has_a_page_that_says_how_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        write_pages(directory.path(), Cli::command()).unwrap();
        for name in ["ringlog", "ringlog-server", "ringlog-topic-create", "ringlog-group-reset", "ringlog-consume"] {
            let page = std::fs::read_to_string(directory.path().join(format!("{name}.1"))).unwrap();
            assert!(page.contains("SYNOPSIS"), "{name}");
        }
        let page = std::fs::read_to_string(directory.path().join("ringlog-topic.1")).unwrap();
        assert!(page.contains("Exit codes"), "{page}");
        assert!(write_pages(Path::new("/nowhere/at/all"), Cli::command()).is_err());
    }

    #[test]
    fn completions_know_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ringlog", &mut text);
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("consume") && text.contains("if-not-exists"), "{shell}");
        }
    }
}
