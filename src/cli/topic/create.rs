//! `ringlog topic create`.

use std::process::ExitCode;

use clap::Args;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::CreateTopicsRequest;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use serde_json::Value;

use super::super::client::{Cluster, Failure, Shown, check, complain, finish, text, topic_name};
use super::super::rows::{Format, Row};
use super::super::setting::{Setting, setting};
use super::super::trace;

/// The arguments of `ringlog topic create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ringlog topic create orders --partitions 12 --config retention.ms=86400000
  ringlog topic create orders --if-not-exists
  ringlog topic create orders --trace --http 127.0.0.1:9644")]
pub struct CreateArgs {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// Partitions of each; the broker's default where it is not given
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Replicas of each partition; the broker's default where it is not given
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A config of the topics; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = setting)]
    config: Vec<Setting>,
    /// A topic that is there already is no error
    #[arg(long)]
    if_not_exists: bool,
    /// Ask only whether they could be created
    #[arg(long, conflicts_with = "trace")]
    validate_only: bool,
    /// Print how long each stage of the creation took, as a ringlog broker tells by HTTP
    #[arg(long, requires = "http")]
    trace: bool,
    /// The HTTP port of the broker that is asked (`ringlog server --http`)
    #[arg(long, value_name = "HOST:PORT", env = "RINGLOG_HTTP")]
    http: Option<String>,
}

/// Creates the topics, in one request.
///
/// # Errors
/// Output that cannot be written.
pub fn run(cluster: &mut Cluster, args: &CreateArgs, format: Format) -> anyhow::Result<ExitCode> {
    let shown = create(cluster, args);
    let created = shown.as_ref().is_ok_and(|shown| !shown.rows.is_empty());
    let code = finish(format, shown)?;
    let (true, true, Some(http)) = (created, args.trace, &args.http) else { return Ok(code) };
    match trace::of_creation(http, &args.names[0], cluster.deadline()) {
        Ok(stages) => trace::print(&stages, format)?,
        // The topic is there all the same, but what was asked for is not done.
        Err(failure) => {
            complain(format, std::slice::from_ref(&failure));
            return Ok(failure.exit_code().into());
        }
    }
    Ok(code)
}

fn create(cluster: &mut Cluster, args: &CreateArgs) -> Result<Shown, Failure> {
    let configs: Vec<_> = args
        .config
        .iter()
        .map(|set| CreatableTopicConfig::default().with_name(text(&set.name)).with_value(Some(text(&set.value))))
        .collect();
    let topics = args.names.iter().map(|name| {
        CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(args.partitions.unwrap_or(-1))
            .with_replication_factor(args.replication_factor.unwrap_or(-1))
            .with_configs(configs.clone())
    });
    let mut request =
        CreateTopicsRequest::default().with_topics(topics.collect()).with_validate_only(args.validate_only);
    cluster.retry(|cluster| {
        request.timeout_ms = cluster.left_ms();
        let mut shown = Shown::default();
        // The broker's defaults can be asked for from version 4 on.
        for topic in cluster.admin(&(4..=7), &request)?.topics {
            let refused = check(topic.error_code, topic.error_message.as_deref(), || format!("topic {}", topic.name.0));
            let outcome = match &refused {
                Ok(()) if args.validate_only => "could be created",
                Ok(()) => "created",
                Err(failure) if args.if_not_exists && failure.code() == Some(ResponseError::TopicAlreadyExists) => {
                    "there already"
                }
                Err(failure) if failure.passes() => return Err(failure.clone()),
                Err(failure) => {
                    shown.failures.push(failure.clone());
                    continue;
                }
            };
            shown.rows.push(row(&topic, outcome));
        }
        Ok(shown)
    })
}

fn row(topic: &CreatableTopicResult, outcome: &str) -> Row {
    // Brokers before version 5 do not say, and one that refuses knows nothing.
    let known = |number: i64| if number > 0 { Value::from(number) } else { Value::Null };
    let id = if topic.topic_id.is_nil() { Value::Null } else { topic.topic_id.to_string().into() };
    vec![
        ("topic", topic.name.0.as_str().into()),
        ("outcome", outcome.into()),
        ("partitions", known(topic.num_partitions.into())),
        ("replicas", known(topic.replication_factor.into())),
        ("id", id),
    ]
}
