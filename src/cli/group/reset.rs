//! `ringlog group reset`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest};

use super::super::client::{
    BEGIN, Cluster, END, Failure, Partition, Shown, check, edges, leaders, look_up, shown, text, topic_name,
};
use super::super::when::time_ms;
use super::describe::{committed, find};

/// The arguments of `ringlog group reset`.
#[derive(Debug, Args)]
#[command(after_help = "\
The group must have no members: stop its consumers first. Offsets are kept within what the partitions have.

Examples:
  ringlog group reset billing --to-begin --topic orders
  ringlog group reset billing --to-time 2026-01-31T12:00:00Z --dry-run
  ringlog group reset billing --by=-100 --topic orders:0,3")]
pub struct ResetArgs {
    /// Name of the group; it need not exist
    #[arg(value_name = "GROUP")]
    name: String,
    #[command(flatten)]
    to: To,
    /// Topic to reset, or some partitions of it; what the group has offsets of where none is given
    #[arg(long, value_name = "TOPIC[:N,..]", value_parser = chosen)]
    topic: Vec<Chosen>,
    /// Only show what the offsets would be
    #[arg(long)]
    dry_run: bool,
}

/// Where to.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct To {
    /// To the first record that is kept
    #[arg(long)]
    to_begin: bool,
    /// To the end: only what comes from now on is read
    #[arg(long)]
    to_end: bool,
    /// To this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// To the first record that is not older than this time
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    to_time: Option<i64>,
    /// By so many records; fewer than none goes back
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    by: Option<i64>,
}

/// A topic, and its partitions where not all are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chosen {
    topic: String,
    partitions: Option<Vec<i32>>,
}

fn chosen(text: &str) -> Result<Chosen, String> {
    match text.split_once(':') {
        None => Ok(Chosen { topic: text.into(), partitions: None }),
        Some((topic, numbers)) => {
            let numbers: Result<Vec<i32>, _> = numbers.split(',').map(str::parse).collect();
            let partitions = Some(numbers.map_err(|_| "expected TOPIC or TOPIC:N,N".to_owned())?);
            Ok(Chosen { topic: topic.into(), partitions })
        }
    }
}

/// Commits the new offsets for the group, and shows the old and the new ones.
///
/// # Errors
/// A group with members (NON_EMPTY_GROUP), other refusals, and as [`Cluster::any`].
pub(super) fn run(cluster: &mut Cluster, args: &ResetArgs) -> Result<Shown, Failure> {
    let name = &args.name;
    match cluster.insist(|cluster| find(cluster, name)) {
        // Brokers refuse the commit too, but with an error that says less.
        Ok(group) if !group.members.is_empty() => {
            let message = format!("{} members read in it: stop them first", group.members.len());
            check(ResponseError::NonEmptyGroup.code(), Some(&message), || format!("group {name}"))?;
        }
        Err(failure) if failure.code() != Some(ResponseError::GroupIdNotFound) => return Err(failure),
        Ok(_) | Err(_) => {}
    }
    let before = cluster.insist(|cluster| committed(cluster, name))?;
    let partitions = partitions(cluster, args, &before)?;
    if partitions.is_empty() {
        return Err(Failure::Usage(format!("group {name} has no offsets: say with --topic what to reset")));
    }
    let after = targets(cluster, &args.to, &partitions, &before)?;
    if !args.dry_run {
        cluster.insist(|cluster| commit(cluster, name, &after))?;
    }
    let rows = after.iter().map(|(partition, offset)| {
        vec![
            ("topic", partition.0.as_str().into()),
            ("partition", partition.1.into()),
            ("before", before.get(partition).copied().into()),
            ("after", (*offset).into()),
            ("done", (!args.dry_run).into()),
        ]
    });
    Ok(Shown { rows: rows.collect(), failures: Vec::new() })
}

/// The partitions that are meant.
fn partitions(
    cluster: &mut Cluster,
    args: &ResetArgs,
    before: &BTreeMap<Partition, i64>,
) -> Result<BTreeSet<Partition>, Failure> {
    if args.topic.is_empty() {
        return Ok(before.keys().cloned().collect());
    }
    let mut all = BTreeSet::new();
    for Chosen { topic, partitions } in &args.topic {
        let numbers = match partitions {
            Some(numbers) => numbers.clone(),
            None => leaders(cluster, topic)?.into_keys().collect(),
        };
        all.extend(numbers.into_iter().map(|number| (topic.clone(), number)));
    }
    Ok(all)
}

/// Where each partition is to go on from, within what it has.
fn targets(
    cluster: &mut Cluster,
    to: &To,
    partitions: &BTreeSet<Partition>,
    before: &BTreeMap<Partition, i64>,
) -> Result<BTreeMap<Partition, i64>, Failure> {
    let (begin, end) = (edges(cluster, partitions, BEGIN)?, edges(cluster, partitions, END)?);
    let by_time = match to.to_time {
        Some(time) => look_up(cluster, &partitions.iter().map(|partition| (partition.clone(), time)).collect())?,
        None => BTreeMap::new(),
    };
    let mut targets = BTreeMap::new();
    for partition in partitions {
        let (begin, end) = (begin[partition], end[partition]);
        let target = match (to.to_offset, to.by) {
            (Some(offset), _) => offset,
            (_, Some(by)) => {
                let no_offset = || Failure::Usage(format!("the group has no offset of {} to go by", shown(partition)));
                before.get(partition).ok_or_else(no_offset)?.saturating_add(by)
            }
            _ if to.to_begin => begin,
            _ if to.to_end => end,
            // No record as new as that: what comes is.
            _ => by_time.get(partition).copied().flatten().unwrap_or(end),
        };
        targets.insert(partition.clone(), target.clamp(begin, end));
    }
    Ok(targets)
}

/// Commits offsets from outside of the group.
fn commit(cluster: &mut Cluster, name: &str, offsets: &BTreeMap<Partition, i64>) -> Result<(), Failure> {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, number), offset) in offsets {
        topics.entry(topic).or_default().push(
            OffsetCommitRequestPartition::default()
                .with_partition_index(*number)
                .with_committed_offset(*offset)
                .with_committed_metadata(Some(text(""))),
        );
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions)
    });
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(name)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics.collect());
    let coordinator = cluster.coordinator(name)?;
    for topic in cluster.at(coordinator, &(2..=8), &request)?.topics {
        for of in topic.partitions {
            let partition = (topic.name.0.to_string(), of.partition_index);
            check(of.error_code, None, || format!("group {name}, {}", shown(&partition)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_chosen_by_number_or_all() {
        assert_eq!(chosen("a"), Ok(Chosen { topic: "a".into(), partitions: None }));
        assert_eq!(chosen("a:0,3"), Ok(Chosen { topic: "a".into(), partitions: Some(vec![0, 3]) }));
        assert!(chosen("a:").is_err() && chosen("a:x").is_err());
    }
}
