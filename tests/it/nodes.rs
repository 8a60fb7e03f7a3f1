//! Brokers come to a cluster that runs, get votes, and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::describe_quorum_response::PartitionData as Quorum;
use kafka_protocol::messages::{DescribeClusterRequest, DescribeQuorumRequest};

use crate::cluster::Cluster;
use crate::commands;
use crate::common::librdkafka::{RESILIENT, Recorder, assert_exactly_once, create_replicated, keep_producing};
use crate::common::process::{Broker, Launch, data_dir, free_port};
use crate::common::wait_until;
use crate::common::wire::{Wire, topic_name};
use crate::replicas::{alter, await_moved};

const SECONDS: Duration = Duration::from_secs(1);
const PARTITIONS: usize = 2;

/// Starts a broker that joins the cluster.
fn join(cluster: &Cluster, node: u16, directory: &tempfile::TempDir) -> Broker {
    let listener = format!("127.0.0.1:{}", free_port());
    let arguments = vec!["--inter-broker-listener".to_owned(), listener];
    Launch::new(directory.path()).in_cluster(node, &cluster.voters).arguments(arguments).start()
}

/// The brokers that this one shows.
fn shown(broker: &Broker) -> Vec<i32> {
    let described = Wire::connect(&broker.address()).call(1, &DescribeClusterRequest::default());
    described.brokers.iter().map(|broker| broker.broker_id.0).collect()
}

fn await_shown(brokers: &[&Broker], expected: &[i32]) {
    let all = wait_until(20 * SECONDS, || brokers.iter().all(|broker| shown(broker) == expected));
    assert!(all, "not all brokers show {expected:?}: {:?}", brokers.iter().map(|one| shown(one)).collect::<Vec<_>>());
}

/// How this broker describes the metadata's group.
fn quorum(broker: &Broker) -> Quorum {
    let metadata = TopicData::default().with_topic_name(topic_name("__cluster_metadata"));
    let metadata = metadata.with_partitions(vec![PartitionData::default()]);
    let request = DescribeQuorumRequest::default().with_topics(vec![metadata]);
    let mut response = Wire::connect(&broker.address()).call(2, &request);
    response.topics.remove(0).partitions.remove(0)
}

/// The ids of voters and of observers.
fn members(broker: &Broker) -> (Vec<i32>, Vec<i32>) {
    let quorum = quorum(broker);
    let ids = |replicas: Vec<kafka_protocol::messages::describe_quorum_response::ReplicaState>| {
        let mut ids: Vec<i32> = replicas.iter().map(|replica| replica.replica_id.0).collect();
        ids.sort_unstable();
        ids
    };
    (ids(quorum.current_voters), ids(quorum.observers))
}

#[test]
fn a_fourth_broker_joins_three_and_takes_its_share() {
    let Some(mut cluster) = Cluster::start() else { return };
    (0..3).for_each(|node| cluster.await_all(node));
    let addresses = cluster.addresses();
    create_replicated(&addresses, "shared", PARTITIONS as i32, 3, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Arc::new(Recorder::new(&addresses, &RESILIENT));
    let producer = keep_producing(&recorder, "shared", PARTITIONS, &stop);
    recorder.wait_for(300);

    let directory = data_dir();
    cluster.brokers.push(Some(join(&cluster, 4, &directory)));
    let all: Vec<&Broker> = cluster.brokers.iter().flatten().collect();
    await_shown(&all, &[1, 2, 3, 4]);
    for broker in &all {
        assert_eq!(members(broker), (vec![1, 2, 3], vec![4]));
    }
    assert_eq!(alter(&cluster, 3, "shared", PARTITIONS, Some(&[4, 2, 3])), [0; PARTITIONS]);
    await_moved(&cluster, "shared", &[4, 2, 3]);
    recorder.wait_for(300);
    create_replicated(&cluster.broker(3).address(), "by-the-fourth", 4, 4, &[]);

    // It is one of them: it goes and comes back at another address, and all go at once.
    cluster.kill(3);
    recorder.wait_for(300);
    cluster.brokers[3] = Some(join(&cluster, 4, &directory));
    await_moved(&cluster, "shared", &[4, 2, 3]);
    let launches: Vec<Launch> = (0..4).map(|node| cluster.kill(node)).collect();
    cluster.start_all(launches);
    await_shown(&cluster.brokers.iter().flatten().collect::<Vec<_>>(), &[1, 2, 3, 4]);
    await_moved(&cluster, "shared", &[4, 2, 3]);
    recorder.wait_for(300);
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer");
    assert_exactly_once(&cluster.addresses(), "shared", PARTITIONS, &recorder);
}

#[test]
fn one_of_three_is_replaced_under_a_producer() {
    let Some(mut cluster) = Cluster::start() else { return };
    (0..3).for_each(|node| cluster.await_all(node));
    let addresses = cluster.addresses();
    create_replicated(&addresses, "stays", PARTITIONS as i32, 3, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Arc::new(Recorder::new(&addresses, &RESILIENT));
    let producer = keep_producing(&recorder, "stays", PARTITIONS, &stop);
    recorder.wait_for(300);
    let directory = data_dir();
    cluster.brokers.push(Some(join(&cluster, 4, &directory)));
    await_shown(&cluster.brokers.iter().flatten().collect::<Vec<_>>(), &[1, 2, 3, 4]);

    assert_eq!(commands::rows(&addresses, &["node", "add", "4"])[0]["outcome"], "votes");
    assert_eq!(members(cluster.broker(1)), (vec![1, 2, 3, 4], vec![]));
    let (code, said) = commands::failure(&addresses, &["node", "add", "4"]);
    assert!(code == Some(1) && said.contains("DUPLICATE_VOTER"), "{said}");
    let (code, said) = commands::failure(&addresses, &["node", "remove", "1"]);
    assert!(code == Some(1) && said.contains("node drain 1"), "{said}");

    // The first may lead the metadata, and partitions.
    commands::rows(&addresses, &["node", "drain", "1"]);
    recorder.wait_for(300);
    let others = cluster.broker(1).address();
    assert_eq!(commands::rows(&others, &["node", "remove", "1"])[0]["outcome"], "removed");
    await_shown(&cluster.brokers[1..].iter().flatten().collect::<Vec<_>>(), &[2, 3, 4]);
    let gone = wait_until(20 * SECONDS, || members(cluster.broker(2)) == (vec![2, 3, 4], vec![]));
    assert!(gone, "the metadata's group is {:?}", members(cluster.broker(2)));
    let (code, said) = commands::failure(&others, &["node", "remove", "1"]);
    assert!(code == Some(1) && said.contains("BROKER_ID_NOT_REGISTERED"), "{said}");
    recorder.wait_for(300);

    // What is left is a cluster of three: one may go, and all at once, with nobody of the first broker's place.
    drop(cluster.brokers.remove(0));
    let launch = cluster.kill(0);
    recorder.wait_for(300);
    cluster.put_back(0, launch);
    let launches: Vec<Launch> = (0..3).map(|node| cluster.kill(node)).collect();
    cluster.start_all(launches);
    await_shown(&cluster.brokers.iter().flatten().collect::<Vec<_>>(), &[2, 3, 4]);
    recorder.wait_for(300);
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer");
    assert_exactly_once(&cluster.addresses(), "stays", PARTITIONS, &recorder);
}
