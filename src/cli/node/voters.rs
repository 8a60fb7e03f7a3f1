//! `ringlog node add` and `ringlog node remove`.

use std::thread;
use std::time::Duration;

use clap::Args;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::{
    AddRaftVoterRequest, BrokerId, DescribeQuorumRequest, RemoveRaftVoterRequest, UnregisterBrokerRequest,
};

use super::super::client::{Cluster, Failure, Shown, check, topic_name};
use super::partitions;

/// The pause before the cluster is asked again who votes.
const PAUSE: Duration = Duration::from_millis(200);

/// The arguments of `ringlog node add`.
#[derive(Debug, Args)]
#[command(after_help = "\
The broker has joined the cluster already: it was started with its own node.id, the cluster's controller.quorum.voters and an
inter.broker.listener. It is given its vote when it has all of the metadata. --timeout is the time for each answer, not for
that.")]
pub struct AddArgs {
    /// The broker's number
    broker: i32,
}

/// The arguments of `ringlog node remove`.
#[derive(Debug, Args)]
#[command(after_help = "\
The broker must have no replicas: `ringlog node drain` moves them off it. Its vote on the metadata is taken, if it has one, and
then it is of the cluster no more; its number is not given again. It need not run, if a majority of the others does.")]
pub struct RemoveArgs {
    /// The broker's number
    broker: i32,
}

/// Makes a broker a voter of the metadata, and waits until it is one.
///
/// # Errors
/// As [`Cluster::admin`], and what the controller refuses.
pub fn add(cluster: &mut Cluster, args: &AddArgs) -> Result<Shown, Failure> {
    let mut request = AddRaftVoterRequest::default().with_cluster_id(None).with_voter_id(args.broker);
    cluster.insist(|cluster| {
        request.timeout_ms = cluster.left_ms();
        let answer = cluster.admin(&(0..=0), &request)?;
        check(answer.error_code, answer.error_message.as_deref(), || of(args.broker))
    })?;
    while !voters(cluster)?.contains(&args.broker) {
        thread::sleep(PAUSE);
        cluster.renew();
    }
    Ok(outcome(args.broker, "votes"))
}

/// Takes a broker's vote, if it has one, and takes it out of the cluster.
///
/// # Errors
/// As [`Cluster::admin`], what the controller refuses, and a broker that has replicas.
pub fn remove(cluster: &mut Cluster, args: &RemoveArgs) -> Result<Shown, Failure> {
    let (_, placed) = partitions(cluster)?;
    let held = placed.iter().filter(|placed| placed.replicas.contains(&args.broker)).count();
    if held > 0 {
        let id = args.broker;
        let why = format!("broker {id} has replicas of {held} partitions: `ringlog node drain {id}` moves them off it");
        return Err(Failure::Failed(why));
    }
    if voters(cluster)?.contains(&args.broker) {
        let request = RemoveRaftVoterRequest::default().with_cluster_id(None).with_voter_id(args.broker);
        cluster.insist(|cluster| {
            let answer = cluster.admin(&(0..=0), &request)?;
            check(answer.error_code, answer.error_message.as_deref(), || of(args.broker))
        })?;
        while voters(cluster)?.contains(&args.broker) {
            thread::sleep(PAUSE);
            cluster.renew();
        }
    }
    let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(args.broker));
    loop {
        let answer = cluster.insist(|cluster| {
            let answer = cluster.admin(&(0..=0), &request)?;
            check(answer.error_code, answer.error_message.as_deref(), || of(args.broker))
        });
        match answer {
            // The last step of the change of the voters is under way.
            Err(failure) if failure.code() == Some(ResponseError::RequestTimedOut) => {
                thread::sleep(PAUSE);
            }
            answer => return answer.map(|()| outcome(args.broker, "removed")),
        }
    }
}

fn of(broker: i32) -> String {
    format!("broker {broker}")
}

fn outcome(broker: i32, outcome: &str) -> Shown {
    Shown { rows: vec![vec![("broker", broker.into()), ("outcome", outcome.into())]], failures: Vec::new() }
}

/// Who votes on the metadata.
fn voters(cluster: &mut Cluster) -> Result<Vec<i32>, Failure> {
    let metadata = TopicData::default().with_topic_name(topic_name("__cluster_metadata"));
    let metadata = metadata.with_partitions(vec![PartitionData::default()]);
    let request = DescribeQuorumRequest::default().with_topics(vec![metadata]);
    cluster.insist(|cluster| {
        let answer = cluster.admin(&(0..=2), &request)?;
        check(answer.error_code, answer.error_message.as_deref(), || "the voters".into())?;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        partitions
            .map(|partition| {
                check(partition.error_code, partition.error_message.as_deref(), || "the voters".into())?;
                Ok(partition.current_voters.iter().map(|voter| voter.replica_id.0).collect())
            })
            .next()
            .unwrap_or_else(|| Ok(Vec::new()))
    })
}
