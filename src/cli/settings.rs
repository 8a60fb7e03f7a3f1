//! The configuration's sources, as a command line sees them: flags made from the table of keys, the environment, a file.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::machine;
use crate::config::keys::{Default, KEYS, show_size};
use crate::config::{Config, Machine, Origin, Settings, file};

/// Flags for every key of the configuration, and `--config`.
#[derive(Clone, Debug)]
pub struct SettingsArgs {
    config: Option<PathBuf>,
    flags: Settings,
}

impl SettingsArgs {
    /// Gathers flags, environment and file and makes the configuration of them. Beside it come warnings, to be logged
    /// once there is a log.
    ///
    /// # Errors
    /// A file that cannot be read, and what [`file::read`] and [`Settings::resolve`] refuse.
    pub fn resolve(&self) -> anyhow::Result<(Config, Vec<String>)> {
        let mut settings = self.flags.clone();
        // A name that is not UTF-8 is none of ours; a value that is not is refused with its replacement characters.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
        let mut warnings = settings.add_environment(variables);
        if let Some(path) = &self.config {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
            file::read(path, &text, &mut settings)?;
        }
        let machine = machine::detect();
        let config = settings.resolve(&machine)?;
        warnings.extend(excesses(&config, &machine));
        Ok((config, warnings))
    }
}

/// What was asked for and exceeds the machine: it is granted, but hardly meant.
fn excesses(config: &Config, machine: &Machine) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.shards > machine.cores {
        warnings.push(format!(
            "{} shards share {} cores: more than one a core wait for each other",
            config.shards, machine.cores
        ));
    }
    if config.memory_bytes > machine.memory_bytes {
        warnings.push(format!(
            "`memory` is {}, more than the {} that this process may use: the kernel may end it",
            show_size(config.memory_bytes),
            show_size(machine.memory_bytes)
        ));
    }
    warnings
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<SettingsArgs, clap::Error> {
        let mut flags = Settings::default();
        for key in KEYS {
            if let Some(text) = matches.get_one::<String>(key.name) {
                flags.set(key, text, Origin::Flag(key.flag()));
            }
        }
        Ok(SettingsArgs { config: matches.get_one::<PathBuf>("config").cloned(), flags })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = SettingsArgs::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for SettingsArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env("RINGLOG_CONFIG")
            .value_parser(clap::value_parser!(PathBuf))
            .help("TOML file with keys as below (data-dir is `data.dir` there)");
        KEYS.iter().fold(command.arg(config), |command, key| {
            let default = match key.default {
                Default::Is(text) | Default::Found(text) => text,
            };
            command.arg(
                Arg::new(key.name)
                    .long(key.flag())
                    .value_name(key.value)
                    .value_parser(NonEmptyStringValueParser::new())
                    .help(format!("{} [default: {default}] [env: {}]", key.help, key.variable())),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        SettingsArgs::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        settings: SettingsArgs,
    }

    fn parse(line: &str) -> Result<SettingsArgs, clap::Error> {
        use clap::Parser;
        Line::try_parse_from(line.split_whitespace()).map(|line| line.settings)
    }

    fn machine() -> Machine {
        Machine { cores: 2, memory_bytes: 4 << 30, hostname: "box".into() }
    }

    #[test]
    fn every_key_has_a_flag() {
        let args =
            parse("x --data-dir /d --listen 0.0.0.0:1 --advertise a:2 --shards 3 --memory 1GiB --node-id 4").unwrap();
        let config = args.flags.resolve(&machine()).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/d"));
        assert_eq!(config.broker.advertised_port, 2);
        assert_eq!(config.shards, 3);
        assert_eq!(config.memory_bytes, 1 << 30);
        assert_eq!(config.broker.broker_id.0, 4);
        assert!(parse("x --broker-rack r --auto-create-topics-enable false --num-partitions 2").is_ok());
        assert!(parse("x --message-max-bytes 1MiB --log-format json --log-level debug --config f").is_ok());
        assert!(parse("x --shard 3").is_err());
        assert!(parse("x --shards").is_err());
    }

    #[test]
    fn a_wrong_value_names_the_flag() {
        let error = parse("x --memory lots").unwrap().flags.resolve(&machine()).unwrap_err();
        assert!(error.to_string().starts_with("--memory: `memory` is `lots`, expected a size"), "{error}");
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"shards = 1\nnode.id = 9\n").unwrap();
        let args = parse(&format!("x --shards 2 --config {}", file.path().display())).unwrap();
        let (config, _) = args.resolve().unwrap();
        assert_eq!((config.shards, config.broker.broker_id.0), (2, 9));
        let error = parse("x --config /nowhere.toml").unwrap().resolve().unwrap_err();
        assert!(error.to_string().contains("cannot read the configuration file /nowhere.toml"));
    }

    #[test]
    fn more_than_the_machine_has_is_warned_about() {
        let config = |line: &str| parse(line).unwrap().flags.resolve(&machine()).unwrap();
        assert_eq!(excesses(&config("x"), &machine()), Vec::<String>::new());
        assert_eq!(excesses(&config("x --shards 3 --memory 5GiB"), &machine()).len(), 2);
    }
}
