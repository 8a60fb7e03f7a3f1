//! `ringlog node`: the brokers of a cluster, giving one a vote, moving everything off one, and removing it.

mod drain;
mod status;
mod voters;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Subcommand;
use kafka_protocol::messages::{BrokerId, ListPartitionReassignmentsRequest, MetadataResponse};

use super::client::{AdminArgs, Cluster, Failure, check, finish};

/// What `ringlog node` does.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Show the brokers: what each leads and holds, and what moves to it and away
    Status,
    /// Move all replicas off a broker, and wait until they have moved
    Drain(drain::DrainArgs),
    /// Give a broker that has joined the cluster a vote on its metadata
    Add(voters::AddArgs),
    /// Take a broker that has no replicas out of the cluster, for good
    Remove(voters::RemoveArgs),
}

/// Does what was asked, and shows it.
///
/// # Errors
/// Output that cannot be written.
pub fn run(args: &AdminArgs<What>) -> anyhow::Result<ExitCode> {
    let mut cluster = Cluster::new(&args.brokers);
    let shown = match &args.what {
        What::Status => status::run(&mut cluster),
        What::Drain(drain) => drain::run(&mut cluster, drain),
        What::Add(add) => voters::add(&mut cluster, add),
        What::Remove(remove) => voters::remove(&mut cluster, remove),
    };
    finish(args.format, shown)
}

/// A partition as its replicas are placed.
struct Placed {
    topic: String,
    partition: i32,
    leader: i32,
    /// Those who have a replica, the preferred leader first.
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
    /// Those of `replicas` that get theirs only now.
    adding: Vec<i32>,
    /// Those of `replicas` that lose theirs.
    removing: Vec<i32>,
}

impl Placed {
    /// Those who will have a replica when nothing moves any more.
    fn wanted(&self) -> Vec<i32> {
        self.replicas.iter().copied().filter(|broker| !self.removing.contains(broker)).collect()
    }
}

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

/// All partitions of the cluster, and what moves.
fn partitions(cluster: &mut Cluster) -> Result<(MetadataResponse, Vec<Placed>), Failure> {
    let mut moving = moving(cluster)?;
    let metadata = cluster.metadata(None)?;
    let mut placed = Vec::new();
    for topic in &metadata.topics {
        let name = topic.name.as_ref().map_or("", |name| name.0.as_str());
        check(topic.error_code, None, || format!("topic {name}"))?;
        for partition in &topic.partitions {
            let (adding, removing) = moving.remove(&(name.to_owned(), partition.partition_index)).unwrap_or_default();
            placed.push(Placed {
                topic: name.to_owned(),
                partition: partition.partition_index,
                leader: partition.leader_id.0,
                replicas: ids(&partition.replica_nodes),
                in_sync: ids(&partition.isr_nodes),
                adding,
                removing,
            });
        }
    }
    placed.sort_by(|one, other| (&one.topic, one.partition).cmp(&(&other.topic, other.partition)));
    Ok((metadata, placed))
}

/// The partitions whose replicas move, each with the brokers that get one and those that lose theirs.
type Moving = BTreeMap<(String, i32), (Vec<i32>, Vec<i32>)>;

fn moving(cluster: &mut Cluster) -> Result<Moving, Failure> {
    let mut request = ListPartitionReassignmentsRequest::default();
    cluster.insist(|cluster| {
        request.timeout_ms = cluster.left_ms();
        let answer = cluster.admin(&(0..=0), &request)?;
        check(answer.error_code, answer.error_message.as_deref(), || "the moves under way".into())?;
        let topics = answer.topics.iter();
        let parts = topics.flat_map(|topic| topic.partitions.iter().map(|part| (topic.name.0.to_string(), part)));
        Ok(parts
            .map(|(name, part)| {
                ((name, part.partition_index), (ids(&part.adding_replicas), ids(&part.removing_replicas)))
            })
            .collect())
    })
}
