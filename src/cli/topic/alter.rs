//! `ringlog topic alter`.

use clap::Args;
use kafka_protocol::messages::CreatePartitionsRequest;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;

use super::super::client::{Cluster, Failure, Shown, check, topic_name};
use super::super::config::{self, Change, Resource};
use super::super::setting::{Setting, setting};

/// The arguments of `ringlog topic alter`.
#[derive(Debug, Args)]
#[command(after_help = "\
Partitions can be added but not taken away. Keys go to other partitions afterwards, as in every Kafka.

Examples:
  ringlog topic alter orders --partitions 24
  ringlog topic alter orders --set retention.ms=3600000 --unset max.message.bytes")]
pub struct AlterArgs {
    /// Name of the topic
    #[arg(value_name = "TOPIC")]
    name: String,
    /// Partitions that it shall have in total
    #[arg(short, long, value_name = "N", required_unless_present_any = ["set", "unset"])]
    partitions: Option<i32>,
    /// A config to set; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<Setting>,
    /// A config to give back its default; may be given several times
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
}

/// Alters the configs, then the partitions.
///
/// # Errors
/// As [`Cluster::admin`], and what is refused; partitions are not added where the configs were refused.
pub fn run(cluster: &mut Cluster, args: &AlterArgs) -> Result<Shown, Failure> {
    let mut shown = Shown::default();
    let changes: Vec<Change> = args
        .set
        .iter()
        .map(|set| Change::Set(set.clone()))
        .chain(args.unset.iter().map(|name| Change::Unset(name.clone())))
        .collect();
    if !changes.is_empty() {
        shown.rows.extend(config::alter(cluster, &Resource::Topic(args.name.clone()), &changes)?);
    }
    if let Some(count) = args.partitions {
        let topic =
            CreatePartitionsTopic::default().with_name(topic_name(&args.name)).with_count(count).with_assignments(None);
        let mut request = CreatePartitionsRequest::default().with_topics(vec![topic]);
        shown.add(cluster.retry(|cluster| {
            request.timeout_ms = cluster.left_ms();
            for result in cluster.admin(&(0..=3), &request)?.results {
                let what = || format!("topic {}", args.name);
                check(result.error_code, result.error_message.as_deref(), what)?;
            }
            Ok(vec![("changed", "partitions".into()), ("value", count.to_string().into())])
        }));
    }
    Ok(shown)
}
