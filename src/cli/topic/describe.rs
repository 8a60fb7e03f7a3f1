//! `ringlog topic list` and `ringlog topic describe`.

use std::collections::BTreeMap;

use clap::Args;
use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use serde_json::Value;

use super::super::client::{BEGIN, Cluster, END, Failure, Partition, Shown, check, checked, edges};
use super::super::rows::Row;

/// The arguments of `ringlog topic list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Topics of the brokers' own too, such as __consumer_offsets
    #[arg(long)]
    internal: bool,
}

/// The arguments of `ringlog topic describe`.
#[derive(Debug, Args)]
#[command(after_help = "\
`begin` is the first offset that is kept, `end` the one that the next record gets. `ringlog config get --topic NAME` shows
a topic's configs.")]
pub struct DescribeArgs {
    /// Names of the topics; all but the brokers' own where there are none
    #[arg(value_name = "TOPIC")]
    names: Vec<String>,
    /// Only partitions without a leader, or with replicas that are not in sync
    #[arg(long)]
    unhealthy: bool,
}

/// The topics, a row each, in the order of their names.
///
/// # Errors
/// As [`Cluster::metadata`].
pub fn list(cluster: &mut Cluster, args: &ListArgs) -> Result<Shown, Failure> {
    let metadata = cluster.metadata(None)?;
    let mut rows = BTreeMap::new();
    for topic in metadata.topics.iter().filter(|topic| args.internal || !topic.is_internal) {
        let name = topic.name.as_ref().map_or("", |name| name.0.as_str());
        let replicas = topic.partitions.iter().map(|partition| partition.replica_nodes.len()).max().unwrap_or(0);
        let leaderless = topic.partitions.iter().filter(|partition| partition.leader_id.0 < 0).count();
        let row: Row = vec![
            ("topic", name.into()),
            ("partitions", topic.partitions.len().into()),
            ("replicas", replicas.into()),
            ("leaderless", leaderless.into()),
            ("internal", topic.is_internal.into()),
            ("id", if topic.topic_id.is_nil() { Value::Null } else { topic.topic_id.to_string().into() }),
        ];
        rows.insert(name.to_owned(), row);
    }
    Ok(Shown { rows: rows.into_values().collect(), failures: Vec::new() })
}

/// The partitions of the topics, a row each.
///
/// # Errors
/// As [`Cluster::metadata`] and [`edges`]; topics that are not there are in what it shows.
pub fn describe(cluster: &mut Cluster, args: &DescribeArgs) -> Result<Shown, Failure> {
    let names: Vec<&str> = args.names.iter().map(String::as_str).collect();
    let metadata = cluster.metadata((!names.is_empty()).then_some(&names))?;
    let mut shown = Shown::default();
    let mut topics: BTreeMap<String, &MetadataResponseTopic> = BTreeMap::new();
    for topic in metadata.topics.iter().filter(|topic| !names.is_empty() || !topic.is_internal) {
        match checked(topic) {
            Ok((name, topic)) => drop(topics.insert(name, topic)),
            Err(failure) => shown.failures.push(failure),
        }
    }
    // A partition without a leader has nobody to ask.
    let led: Vec<Partition> = topics
        .iter()
        .flat_map(|(name, topic)| topic.partitions.iter().map(move |partition| (name, partition)))
        .filter(|(_, partition)| partition.leader_id.0 >= 0)
        .map(|(name, partition)| (name.clone(), partition.partition_index))
        .collect();
    let (begin, end) = (edges(cluster, &led, BEGIN)?, edges(cluster, &led, END)?);
    for (name, topic) in topics {
        let mut partitions: Vec<_> = topic.partitions.iter().collect();
        partitions.sort_by_key(|partition| partition.partition_index);
        for partition in partitions {
            let whole = partition.leader_id.0 >= 0 && partition.isr_nodes.len() == partition.replica_nodes.len();
            if args.unhealthy && whole {
                continue;
            }
            let at = (name.clone(), partition.partition_index);
            let error = check(partition.error_code, None, String::new).err();
            shown.rows.push(vec![
                ("topic", name.as_str().into()),
                ("partition", partition.partition_index.into()),
                ("leader", if partition.leader_id.0 < 0 { Value::Null } else { partition.leader_id.0.into() }),
                ("epoch", partition.leader_epoch.into()),
                ("replicas", numbers(&partition.replica_nodes)),
                ("in_sync", numbers(&partition.isr_nodes)),
                ("begin", begin.get(&at).copied().into()),
                ("end", end.get(&at).copied().into()),
                ("error", error.map_or(Value::Null, |failure| failure.json()["error"].clone())),
            ]);
        }
    }
    Ok(shown)
}

fn numbers(brokers: &[BrokerId]) -> Value {
    brokers.iter().map(|broker| broker.0).collect::<Vec<_>>().into()
}
