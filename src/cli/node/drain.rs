//! `ringlog node drain`.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use clap::Args;
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, BrokerId, MetadataResponse};

use super::super::client::{Cluster, Failure, Shown, check, topic_name};
use super::super::progress::Progress;
use super::{Placed, moving, partitions};

/// The pause before the cluster is asked again what still moves.
const PAUSE: Duration = Duration::from_millis(200);

/// The arguments of `ringlog node drain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each replica goes to the broker that has the fewest, in a rack without another replica of the partition where there is one.
The brokers move them within follower.replication.throttled.rate, and go on if this command is ended. A partition that has a
replica on every broker stays. --timeout is the time for each answer, not for the moves.")]
pub struct DrainArgs {
    /// The broker's number
    broker: i32,
    /// Do not wait until the replicas have moved
    #[arg(long)]
    no_wait: bool,
}

/// Where a partition's replicas go.
struct Step {
    topic: String,
    partition: i32,
    replicas: Vec<i32>,
}

/// Moves the replicas away, and shows the partitions with the brokers that have them then.
///
/// # Errors
/// As [`Cluster::metadata`] and what the controller refuses; partitions that cannot move are in what it shows.
pub fn run(cluster: &mut Cluster, args: &DrainArgs) -> Result<Shown, Failure> {
    let (metadata, placed) = partitions(cluster)?;
    if !metadata.brokers.iter().any(|broker| broker.node_id.0 == args.broker)
        && !placed.iter().any(|placed| placed.replicas.contains(&args.broker))
    {
        return Err(Failure::Usage(format!("the cluster has no broker {}", args.broker)));
    }
    let (steps, failures) = plan(&metadata, &placed, args.broker);
    let mut shown = Shown { rows: Vec::new(), failures };
    if steps.is_empty() {
        return Ok(shown);
    }
    let refused = ask(cluster, &steps)?;
    let accepted: BTreeMap<(String, i32), &Step> = steps
        .iter()
        .map(|step| ((step.topic.clone(), step.partition), step))
        .filter(|(at, _)| !refused.contains_key(at))
        .collect();
    shown.failures.extend(refused.into_values());
    if !args.no_wait {
        wait(cluster, accepted.keys().cloned().collect())?;
    }
    for ((topic, partition), step) in accepted {
        shown.rows.push(vec![
            ("topic", topic.into()),
            ("partition", partition.into()),
            ("replicas", step.replicas.clone().into()),
            ("outcome", if args.no_wait { "moves" } else { "moved" }.into()),
        ]);
    }
    Ok(shown)
}

/// Where the replicas of a broker go, and the partitions that have nowhere to go.
fn plan(metadata: &MetadataResponse, placed: &[Placed], drained: i32) -> (Vec<Step>, Vec<Failure>) {
    let racks: BTreeMap<i32, Option<&str>> =
        metadata.brokers.iter().map(|broker| (broker.node_id.0, broker.rack.as_deref())).collect();
    let mut load: BTreeMap<i32, usize> = racks.keys().map(|broker| (*broker, 0)).collect();
    for broker in placed.iter().flat_map(Placed::wanted) {
        *load.entry(broker).or_default() += 1;
    }
    let (mut steps, mut failures) = (Vec::new(), Vec::new());
    for partition in placed {
        let mut replicas = partition.wanted();
        let Some(at) = replicas.iter().position(|broker| *broker == drained) else { continue };
        let taken: BTreeSet<&str> = (replicas.iter().filter(|broker| **broker != drained))
            .filter_map(|broker| racks.get(broker).copied().flatten())
            .collect();
        let free = racks.iter().filter(|(broker, _)| !replicas.contains(broker));
        let best =
            free.min_by_key(|(broker, rack)| (rack.is_some_and(|rack| taken.contains(rack)), load[broker], **broker));
        let Some((to, _)) = best else {
            let name = format!("{}-{}", partition.topic, partition.partition);
            failures.push(Failure::Failed(format!("{name}: every broker that is there has a replica already")));
            continue;
        };
        replicas[at] = *to;
        *load.get_mut(to).expect("it is a broker that is there") += 1;
        steps.push(Step { topic: partition.topic.clone(), partition: partition.partition, replicas });
    }
    (steps, failures)
}

/// Asks for the moves, in one request, and gives those that were refused.
fn ask(cluster: &mut Cluster, steps: &[Step]) -> Result<BTreeMap<(String, i32), Failure>, Failure> {
    let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
    for step in steps {
        let replicas = step.replicas.iter().copied().map(BrokerId).collect();
        let partition =
            ReassignablePartition::default().with_partition_index(step.partition).with_replicas(Some(replicas));
        topics.entry(&step.topic).or_default().push(partition);
    }
    let topic =
        |(name, partitions)| ReassignableTopic::default().with_name(topic_name(name)).with_partitions(partitions);
    let mut request =
        AlterPartitionReassignmentsRequest::default().with_topics(topics.into_iter().map(topic).collect());
    cluster.insist(|cluster| {
        request.timeout_ms = cluster.left_ms();
        let answer = cluster.admin(&(0..=0), &request)?;
        check(answer.error_code, answer.error_message.as_deref(), || "the moves".into())?;
        let mut refused = BTreeMap::new();
        for topic in &answer.responses {
            for partition in &topic.partitions {
                let at = (topic.name.0.to_string(), partition.partition_index);
                let name = || format!("{}-{}", at.0, at.1);
                match check(partition.error_code, partition.error_message.as_deref(), name) {
                    Ok(()) => {}
                    Err(failure) if failure.passes() => return Err(failure),
                    Err(failure) => drop(refused.insert(at, failure)),
                }
            }
        }
        Ok(refused)
    })
}

/// Waits until none of these moves.
fn wait(cluster: &mut Cluster, partitions: BTreeSet<(String, i32)>) -> Result<(), Failure> {
    let bar = Progress::partitions(partitions.len() as u64);
    let mut arrived = 0;
    loop {
        cluster.renew();
        let moving = moving(cluster)?;
        let left = partitions.iter().filter(|partition| moving.contains_key(*partition)).count();
        bar.advance((partitions.len() - left).saturating_sub(arrived) as u64);
        arrived = partitions.len() - left;
        if left == 0 {
            bar.finish();
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_response::MetadataResponseBroker;

    use super::*;

    fn cluster(racks: &[(i32, &'static str)]) -> MetadataResponse {
        let broker = |(id, rack): &(i32, &'static str)| {
            let rack = (!rack.is_empty()).then(|| (*rack).into());
            MetadataResponseBroker::default().with_node_id(BrokerId(*id)).with_rack(rack)
        };
        MetadataResponse::default().with_brokers(racks.iter().map(broker).collect())
    }

    fn placed(partition: i32, replicas: &[i32], removing: &[i32]) -> Placed {
        let replicas = replicas.to_vec();
        let (in_sync, adding, removing) = (replicas.clone(), Vec::new(), removing.to_vec());
        Placed { topic: "t".into(), partition, leader: replicas[0], replicas, in_sync, adding, removing }
    }

    fn moves(metadata: &MetadataResponse, placed: &[Placed]) -> Vec<(i32, Vec<i32>)> {
        plan(metadata, placed, 3).0.into_iter().map(|step| (step.partition, step.replicas)).collect()
    }

    #[test]
    fn replicas_go_to_those_that_have_the_fewest() {
        let four = cluster(&[(1, ""), (2, ""), (3, ""), (4, "")]);
        let all = [placed(0, &[3], &[]), placed(1, &[3], &[]), placed(2, &[1, 3], &[]), placed(3, &[1, 2], &[])];
        assert_eq!(moves(&four, &all), [(0, vec![4]), (1, vec![2]), (2, vec![1, 4])]);
    }

    #[test]
    fn a_rack_that_has_none_comes_first() {
        let racks = cluster(&[(1, "a"), (2, "a"), (3, "b"), (4, "b")]);
        assert_eq!(moves(&racks, &[placed(0, &[1, 3], &[]), placed(1, &[4], &[])]), [(0, vec![1, 4])]);
    }

    #[test]
    fn what_goes_already_and_what_cannot_go_stay() {
        let three = cluster(&[(1, ""), (2, ""), (3, "")]);
        let all = [placed(0, &[1, 2, 3], &[]), placed(1, &[1, 3], &[3])];
        let (steps, failures) = plan(&three, &all, 3);
        assert!(steps.is_empty());
        assert_eq!(failures.len(), 1);
        assert!(failures[0].to_string().starts_with("t-0: "), "{}", failures[0]);
    }
}
