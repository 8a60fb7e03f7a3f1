//! `ringlog config`: the configs of topics, brokers and groups.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use serde_json::Value;

use super::client::{AdminArgs, Cluster, Failure, Shown, check, finish, text};
use super::rows::Row;
use super::setting::{Setting, setting};

/// Kafka's numbers for kinds of resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;

/// Kafka's numbers for what is done to a config.
const SET: i8 = 0;
const UNSET: i8 = 1;

/// What `ringlog config` does.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Show configs, and where each value comes from
    Get(GetArgs),
    /// Set configs
    Set {
        #[command(flatten)]
        of: Of,
        /// What to set
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = setting)]
        settings: Vec<Setting>,
    },
    /// Give configs back their defaults
    Unset {
        #[command(flatten)]
        of: Of,
        /// What to unset
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ringlog config get --topic orders
  ringlog config get --topic orders retention.ms cleanup.policy
  ringlog config set --topic orders retention.ms=3600000
  ringlog config unset --topic orders retention.ms
  ringlog config set --all-brokers log.retention.ms=86400000
  ringlog config set --group billing consumer.session.timeout.ms=60000")]
pub struct GetArgs {
    #[command(flatten)]
    of: Of,
    /// Only configs that were set, and so differ from the default
    #[arg(long)]
    changed: bool,
    /// Names of configs; all where there are none
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Whose configs.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Of {
    /// Those of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Those of the broker with this number
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,
    /// Those that all brokers have in common
    #[arg(long)]
    all_brokers: bool,
    /// Those of this group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
}

/// Something that has configs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A broker.
    Broker(i32),
    /// What all brokers have in common.
    AllBrokers,
    /// A group.
    Group(String),
}

/// A change of a config.
#[derive(Clone, Debug)]
pub enum Change {
    /// It has this value from now on.
    Set(Setting),
    /// It has its default again.
    Unset(String),
}

impl Of {
    fn resource(&self) -> Resource {
        match (&self.topic, self.broker, &self.group) {
            (Some(topic), ..) => Resource::Topic(topic.clone()),
            (None, Some(broker), _) => Resource::Broker(broker),
            (None, None, Some(group)) => Resource::Group(group.clone()),
            (None, None, None) => Resource::AllBrokers,
        }
    }
}

impl Resource {
    fn kind_and_name(&self) -> (i8, String) {
        match self {
            Resource::Topic(name) => (TOPIC, name.clone()),
            Resource::Broker(id) => (BROKER, id.to_string()),
            // Kafka's way to mean all brokers.
            Resource::AllBrokers => (BROKER, String::new()),
            Resource::Group(name) => (GROUP, name.clone()),
        }
    }

    fn shown(&self) -> String {
        match self {
            Resource::Topic(name) => format!("topic {name}"),
            Resource::Broker(id) => format!("broker {id}"),
            Resource::AllBrokers => "all brokers".into(),
            Resource::Group(name) => format!("group {name}"),
        }
    }
}

/// Does what was asked, and shows it.
///
/// # Errors
/// Output that cannot be written.
pub fn run(args: &AdminArgs<What>) -> anyhow::Result<ExitCode> {
    let mut cluster = Cluster::new(&args.brokers);
    let altered = |cluster: &mut Cluster, of: &Of, changes: &[Change]| {
        alter(cluster, &of.resource(), changes).map(|rows| Shown { rows, failures: Vec::new() })
    };
    let shown = match &args.what {
        What::Get(get) => self::get(&mut cluster, get),
        What::Set { of, settings } => {
            altered(&mut cluster, of, &settings.iter().cloned().map(Change::Set).collect::<Vec<_>>())
        }
        What::Unset { of, names } => {
            altered(&mut cluster, of, &names.iter().cloned().map(Change::Unset).collect::<Vec<_>>())
        }
    };
    finish(args.format, shown)
}

fn get(cluster: &mut Cluster, args: &GetArgs) -> Result<Shown, Failure> {
    let resource = args.of.resource();
    let (kind, name) = resource.kind_and_name();
    let names = (!args.names.is_empty()).then(|| args.names.iter().map(|name| text(name)).collect());
    let asked = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(&name))
        .with_configuration_keys(names);
    let request = DescribeConfigsRequest::default().with_resources(vec![asked]);
    // A broker tells its own configs, and nobody else does.
    let answer = match resource {
        Resource::Broker(id) => cluster.at(id, &(1..=4), &request)?,
        Resource::Topic(_) | Resource::AllBrokers | Resource::Group(_) => cluster.any(&(1..=4), &request)?,
    };
    let mut shown = Shown::default();
    for result in answer.results {
        check(result.error_code, result.error_message.as_deref(), || resource.shown())?;
        let mut configs = result.configs;
        configs.sort_by(|a, b| a.name.cmp(&b.name));
        for config in configs.iter().filter(|config| !args.changed || is_set(config.config_source)) {
            shown.rows.push(vec![
                ("name", config.name.as_str().into()),
                ("value", config.value.as_ref().map(|value| value.as_str()).into()),
                ("source", source(config.config_source).into()),
                ("read_only", config.read_only.into()),
                ("sensitive", config.is_sensitive.into()),
            ]);
        }
        for name in args.names.iter().filter(|name| configs.iter().all(|config| config.name.as_str() != name.as_str()))
        {
            shown.failures.push(Failure::Failed(format!("{} has no config {name}", resource.shown())));
        }
    }
    Ok(shown)
}

/// Kafka's numbers for where a value comes from.
fn source(number: i8) -> &'static str {
    match number {
        1 => "topic",
        2 => "broker",
        3 => "all brokers",
        4 => "start of the broker",
        5 => "default",
        8 => "group",
        _ => "unknown",
    }
}

/// Whether somebody set a value that comes from there.
fn is_set(source: i8) -> bool {
    (1..=4).contains(&source) || source == 8
}

/// Makes the changes, all or none, and gives a row for each.
///
/// # Errors
/// What the broker refuses, and as [`Cluster::admin`].
pub fn alter(cluster: &mut Cluster, resource: &Resource, changes: &[Change]) -> Result<Vec<Row>, Failure> {
    let (kind, name) = resource.kind_and_name();
    let configs = changes.iter().map(|change| match change {
        Change::Set(set) => AlterableConfig::default()
            .with_name(text(&set.name))
            .with_config_operation(SET)
            .with_value(Some(text(&set.value))),
        Change::Unset(name) => {
            AlterableConfig::default().with_name(text(name)).with_config_operation(UNSET).with_value(None)
        }
    });
    let altered = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(&name))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![altered]);
    cluster.retry(|cluster| {
        let answer = match resource {
            Resource::Broker(id) => cluster.at(*id, &(0..=1), &request)?,
            Resource::Topic(_) | Resource::AllBrokers | Resource::Group(_) => cluster.admin(&(0..=1), &request)?,
        };
        answer
            .responses
            .iter()
            .try_for_each(|response| check(response.error_code, response.error_message.as_deref(), || resource.shown()))
    })?;
    Ok(changes
        .iter()
        .map(|change| match change {
            Change::Set(set) => vec![("changed", set.name.as_str().into()), ("value", set.value.as_str().into())],
            Change::Unset(name) => vec![("changed", name.as_str().into()), ("value", Value::Null)],
        })
        .collect())
}
