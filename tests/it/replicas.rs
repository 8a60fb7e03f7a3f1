//! What clients are told of the replicas of a partition, and what each of these does for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, DescribeQuorumRequest, ElectLeadersRequest, FetchRequest, FetchResponse,
    ListPartitionReassignmentsRequest, TopicName,
};
use rdkafka::Offset;
use rdkafka::message::Message;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::commands;
use crate::common::librdkafka::{
    RESILIENT, Recorder, assert_exactly_once, consumer, create_replicated, keep_producing,
};
use crate::common::records::{batch, values};
use crate::common::wait_until;
use crate::common::wire::{
    Wire, code, fetch_request, only_partition, partition_answer, produce_request, text, topic_name,
};

const SECONDS: Duration = Duration::from_secs(1);

fn partition(cluster: &Cluster, node: usize, topic: &str) -> MetadataResponsePartition {
    let mut response = Wire::connect(&cluster.broker(node).address()).metadata(topic);
    response.topics.remove(0).partitions.remove(0)
}

/// The place of a partition's leader among the brokers.
fn leader(cluster: &Cluster, topic: &str) -> usize {
    usize::try_from(partition(cluster, 0, topic).leader_id.0).expect("a leader") - 1
}

fn topic_id(cluster: &Cluster, topic: &str) -> Uuid {
    Wire::connect(&cluster.broker(0).address()).metadata(topic).topics[0].topic_id
}

/// A fetch of partition 0 by the topic's id, outside of any session.
fn fetch_by_id(id: Uuid, offset: i64, epoch: i32) -> FetchRequest {
    let mut request = fetch_request("", &[(0, offset)], 0, 0);
    request.topics[0].topic = TopicName::default();
    request.topics[0].topic_id = id;
    request.topics[0].partitions[0].current_leader_epoch = epoch;
    request
}

#[test]
fn who_asks_the_wrong_broker_is_told_the_right_one() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.await_all(0);
    create_replicated(&cluster.addresses(), "led", 1, 3, &[]);
    let led_by = leader(&cluster, "led");
    let (address, id) = (cluster.broker(led_by).address(), topic_id(&cluster, "led"));
    let follower = (led_by + 1) % 3;
    let mut wire = Wire::connect(&cluster.broker(follower).address());

    let produce = produce_request("led", &[(0, batch(&["a"]))], -1, 5_000);
    let response = wire.call(11, &produce);
    let endpoint = response.node_endpoints[0].clone();
    assert_eq!(format!("{}:{}", endpoint.host.as_str(), endpoint.port), address);
    assert_eq!(endpoint.node_id.0 as usize, led_by + 1);
    let answer = partition_answer(response);
    assert_eq!(answer.error_code, code(ResponseError::NotLeaderOrFollower));
    assert_eq!(answer.current_leader.leader_id.0 as usize, led_by + 1);
    let epoch = answer.current_leader.leader_epoch;
    assert!(epoch > 0);
    let older = wire.call(9, &produce);
    assert_eq!((older.node_endpoints.len(), partition_answer(older).current_leader.leader_id.0), (0, -1));

    // The leader itself tells of its epoch whoever believes in an older one.
    let mut wire = Wire::connect(&address);
    let response: FetchResponse = wire.call(16, &fetch_by_id(id, 0, epoch - 1));
    let answer = &response.responses[0].partitions[0];
    assert_eq!(answer.error_code, code(ResponseError::FencedLeaderEpoch));
    assert_eq!((answer.current_leader.leader_id.0 as usize, answer.current_leader.leader_epoch), (led_by + 1, epoch));
    assert_eq!(response.node_endpoints.len(), 1);
    let response: FetchResponse = wire.call(15, &fetch_by_id(id, 0, epoch - 1));
    assert_eq!(response.node_endpoints.len(), 0);
}

#[test]
fn a_dead_replica_leaves_the_isr_and_comes_back() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.await_all(0);
    create_replicated(&cluster.addresses(), "careful", 1, 3, &[("min.insync.replicas", "3")]);
    let led_by = leader(&cluster, "careful");
    let mut wire = Wire::connect(&cluster.broker(led_by).address());
    let mut produce =
        |acks| partition_answer(wire.call(9, &produce_request("careful", &[(0, batch(&["a"]))], acks, 5_000)));
    assert_eq!(produce(-1).error_code, 0);
    assert_eq!(partition(&cluster, led_by, "careful").isr_nodes.len(), 3);

    let dead = (led_by + 1) % 3;
    let launch = cluster.kill(dead);
    let noticed = wait_until(10 * SECONDS, || partition(&cluster, led_by, "careful").isr_nodes.len() == 2);
    assert!(noticed, "the dead replica stays in the ISR");
    let shown = partition(&cluster, led_by, "careful");
    assert_eq!((shown.replica_nodes.len(), shown.offline_replicas.len()), (3, 1));
    assert_eq!(shown.offline_replicas[0].0 as usize, dead + 1);
    assert_eq!(produce(-1).error_code, code(ResponseError::NotEnoughReplicas));
    assert_eq!(produce(1).error_code, 0, "the leader alone is enough for acks=1");

    cluster.put_back(dead, launch);
    let back = wait_until(20 * SECONDS, || partition(&cluster, led_by, "careful").isr_nodes.len() == 3);
    assert!(back, "the replica that is back does not join the ISR");
    assert_eq!(produce(-1).error_code, 0);
}

#[test]
fn what_is_appended_and_then_lacks_replicas_is_told_so() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.await_all(0);
    create_replicated(&cluster.addresses(), "lonely", 1, 3, &[("min.insync.replicas", "3")]);
    let led_by = leader(&cluster, "lonely");
    let mut wire = Wire::connect(&cluster.broker(led_by).address());
    assert_eq!(wire.produce("lonely", 0, batch(&["with all three"])).error_code, 0);
    // The leader does not know yet that this one is gone when it appends, and does when its own majority is durable.
    let stopped = cluster.broker((led_by + 1) % 3);
    stopped.signal(libc::SIGSTOP);
    let answer = wire.produce("lonely", 0, batch(&["with two"]));
    stopped.signal(libc::SIGCONT);
    assert_eq!(answer.error_code, code(ResponseError::NotEnoughReplicasAfterAppend));
    // It was appended: a client that tries again may have it twice.
    let mut read = Vec::new();
    let whole = wait_until(10 * SECONDS, || {
        read = wire.fetch("lonely", 0, 0).records.map_or_else(Vec::new, values);
        read.len() == 2
    });
    assert!(whole, "{read:?}");
}

#[test]
fn a_client_reads_from_the_replica_in_its_rack() {
    let rack = |node: u16| vec!["--broker-rack".to_owned(), format!("rack-{node}")];
    let Some(cluster) = Cluster::with(&rack) else { return };
    cluster.await_all(0);
    create_replicated(&cluster.addresses(), "near", 1, 3, &[]);
    let led_by = leader(&cluster, "near");
    let near = (led_by + 1) % 3;
    let mut wire = Wire::connect(&cluster.broker(led_by).address());
    assert_eq!(wire.produce("near", 0, batch(&["a", "b"])).error_code, 0);

    let fetch = |offset, wait_ms, rack: usize| {
        fetch_request("near", &[(0, offset)], 1, wait_ms).with_rack_id(text(&format!("rack-{}", rack + 1)))
    };
    let answer = only_partition(wire.call(11, &fetch(0, 500, near)));
    assert_eq!((answer.error_code, answer.preferred_read_replica.0 as usize), (0, near + 1));
    assert_eq!((answer.high_watermark, answer.records.map_or(0, |records| records.len())), (2, 0));
    let own = only_partition(wire.call(11, &fetch(0, 500, led_by)));
    assert_eq!(
        (own.preferred_read_replica.0, values(own.records.expect("records"))),
        (-1, vec!["a".into(), "b".into()])
    );
    let nowhere = only_partition(wire.call(11, &fetch(0, 500, 7)));
    assert_eq!(nowhere.preferred_read_replica.0, -1);

    // The follower hears of what is committed a moment later.
    let mut follower = Wire::connect(&cluster.broker(near).address());
    let read = only_partition(follower.call(11, &fetch(0, 5_000, near)));
    assert_eq!((read.error_code, values(read.records.expect("records"))), (0, vec!["a".to_owned(), "b".into()]));
    follower.send(11, &fetch(2, 10_000, near));
    assert_eq!(wire.produce("near", 0, batch(&["c"])).error_code, 0);
    let waited = only_partition(follower.receive::<FetchRequest>(11).1);
    assert_eq!((waited.error_code, values(waited.records.expect("records"))), (0, vec!["c".to_owned()]));
    let beyond = only_partition(follower.call(11, &fetch(50, 500, near)));
    assert_eq!(beyond.error_code, code(ResponseError::OffsetNotAvailable));
    // A client that does not know of such reads is sent to the leader.
    let older = only_partition(follower.call(10, &fetch_request("near", &[(0, 0)], 1, 500)));
    assert_eq!(older.error_code, code(ResponseError::NotLeaderOrFollower));

    let rack = format!("rack-{}", near + 1);
    let near_consumer = consumer(&cluster.addresses(), "near", 1, Offset::Beginning, &[("client.rack", &rack)]);
    let mut read = Vec::new();
    let whole = wait_until(20 * SECONDS, || {
        if let Some(Ok(message)) = near_consumer.poll(Duration::from_millis(100)) {
            read.push(message.offset());
        }
        read.len() == 3
    });
    assert!(whole && read == [0, 1, 2], "{read:?}");
}

/// The error of partition 0 in the answer to an ElectLeaders request of this kind.
fn elect(cluster: &Cluster, node: usize, topic: &str, kind: i8) -> i16 {
    let wanted = TopicPartitions::default().with_topic(topic_name(topic)).with_partitions(vec![0]);
    let request = ElectLeadersRequest::default()
        .with_election_type(kind)
        .with_topic_partitions(Some(vec![wanted]))
        .with_timeout_ms(10_000);
    let response = Wire::connect(&cluster.broker(node).address()).call(2, &request);
    assert_eq!(response.error_code, 0);
    response.replica_election_results[0].partition_result[0].error_code
}

#[test]
fn the_preferred_replica_is_elected_again() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.await_all(0);
    create_replicated(&cluster.addresses(), "elected", 1, 3, &[]);
    let preferred = partition(&cluster, 0, "elected").replica_nodes[0].0 as usize - 1;
    assert_eq!(leader(&cluster, "elected"), preferred);
    assert_eq!(elect(&cluster, 0, "elected", 0), code(ResponseError::ElectionNotNeeded));
    assert_eq!(elect(&cluster, 0, "elected", 1), code(ResponseError::ElectionNotNeeded));

    let launch = cluster.kill(preferred);
    let other = (preferred + 1) % 3;
    let led_by = |cluster: &Cluster| partition(cluster, other, "elected").leader_id.0 - 1;
    let taken_over = wait_until(10 * SECONDS, || ![-2, preferred as i32].contains(&led_by(&cluster)));
    assert!(taken_over, "nobody leads in the place of the dead broker");
    assert_eq!(elect(&cluster, other, "elected", 0), code(ResponseError::PreferredLeaderNotAvailable));

    cluster.put_back(preferred, launch);
    let back = wait_until(10 * SECONDS, || partition(&cluster, other, "elected").isr_nodes.len() == 3);
    assert!(back, "the broker that is back is not seen");
    let error = elect(&cluster, other, "elected", 0);
    // The brokers may have seen to it by themselves.
    assert!([0, code(ResponseError::ElectionNotNeeded)].contains(&error), "error {error}");
    assert_eq!(led_by(&cluster), preferred as i32);
}

#[test]
fn any_broker_describes_the_quorum() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.await_all(0);
    let mut leaders = Vec::new();
    for node in 0..3 {
        let metadata = TopicData::default().with_topic_name(topic_name("__cluster_metadata"));
        let metadata = metadata.with_partitions(vec![PartitionData::default()]);
        let request = DescribeQuorumRequest::default().with_topics(vec![metadata]);
        let mut response = Wire::connect(&cluster.broker(node).address()).call(2, &request);
        assert_eq!((response.error_code, response.nodes.len()), (0, 3));
        let quorum = response.topics.remove(0).partitions.remove(0);
        leaders.push((quorum.leader_id, quorum.leader_epoch));
        let voters: Vec<i32> = quorum.current_voters.iter().map(|voter| voter.replica_id.0).collect();
        assert_eq!(voters, [1, 2, 3]);
        for voter in quorum.current_voters {
            assert!(!voter.replica_directory_id.is_nil());
            assert!(voter.log_end_offset > 0 && voter.log_end_offset >= quorum.high_watermark - 1);
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
            let ago = now.as_millis() as i64 - voter.last_caught_up_timestamp;
            assert!((-1_000..10_000).contains(&ago), "broker {} has caught up {ago} ms ago", voter.replica_id.0);
        }
    }
    assert!(leaders.windows(2).all(|two| two[0] == two[1]), "{leaders:?}");
}

/// Wants the replicas of all partitions of a topic on these brokers.
pub(crate) fn alter(
    cluster: &Cluster,
    node: usize,
    topic: &str,
    partitions: usize,
    target: Option<&[i32]>,
) -> Vec<i16> {
    let target = target.map(|brokers| brokers.iter().map(|broker| (*broker).into()).collect::<Vec<_>>());
    let partition =
        |index| ReassignablePartition::default().with_partition_index(index as i32).with_replicas(target.clone());
    let wanted = ReassignableTopic::default()
        .with_name(topic_name(topic))
        .with_partitions((0..partitions).map(partition).collect());
    let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
    let response = Wire::connect(&cluster.broker(node).address()).call(1, &request);
    assert_eq!(response.error_code, 0);
    response.responses[0].partitions.iter().map(|partition| partition.error_code).collect()
}

/// Waits until the replicas of all partitions are on these brokers, in sync, and nowhere else.
pub(crate) fn await_moved(cluster: &Cluster, topic: &str, target: &[i32]) {
    let mut last = String::new();
    // A broker whose disk was slow takes no leaderships for 15 s, and a move may wait for one.
    let moved = wait_until(90 * SECONDS, || {
        cluster.brokers.iter().flatten().enumerate().all(|(node, broker)| {
            let mut wire = Wire::connect(&broker.address());
            let list = ListPartitionReassignmentsRequest::default().with_topics(None).with_timeout_ms(5_000);
            let moving = wire.call(0, &list).topics.len();
            let shown = wire.metadata(topic).topics.remove(0).partitions;
            last = format!("broker {node}: {moving} topics are moving, {shown:?}");
            let there = |partition: &MetadataResponsePartition| {
                let replicas: Vec<i32> = partition.replica_nodes.iter().map(|broker| broker.0).collect();
                replicas == target && partition.isr_nodes.len() == target.len()
            };
            moving == 0 && shown.iter().all(there)
        })
    });
    assert!(moved, "the replicas of {topic} do not come to {target:?}: {last}");
}

#[test]
fn replicas_move_under_a_producer_and_lose_nothing() {
    let Some(mut cluster) = Cluster::start() else { return };
    const PARTITIONS: usize = 2;
    (0..3).for_each(|node| cluster.await_all(node));
    let addresses = cluster.addresses();
    create_replicated(&addresses, "moves", PARTITIONS as i32, 1, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Arc::new(Recorder::new(&addresses, &RESILIENT));
    let producer = keep_producing(&recorder, "moves", PARTITIONS, &stop);
    recorder.wait_for(300);
    for target in [&[1, 2, 3][..], &[2, 3], &[1], &[3], &[3, 1, 2]] {
        assert_eq!(alter(&cluster, 0, "moves", PARTITIONS, Some(target)), [0; PARTITIONS]);
        await_moved(&cluster, "moves", target);
        recorder.wait_for(300);
    }
    // A broker dies and comes back while replicas leave it.
    assert_eq!(alter(&cluster, 0, "moves", PARTITIONS, Some(&[1, 2])), [0; PARTITIONS]);
    let launch = cluster.kill(2);
    recorder.wait_for(300);
    cluster.put_back(2, launch);
    await_moved(&cluster, "moves", &[1, 2]);
    // A move that waits for a dead broker is taken back.
    let launch = cluster.kill(2);
    assert_eq!(alter(&cluster, 0, "moves", PARTITIONS, Some(&[1, 3])), [0; PARTITIONS]);
    recorder.wait_for(300);
    assert_eq!(alter(&cluster, 0, "moves", PARTITIONS, None), [0; PARTITIONS]);
    recorder.wait_for(300);
    cluster.put_back(2, launch);
    await_moved(&cluster, "moves", &[1, 2]);
    let nothing = code(ResponseError::NoReassignmentInProgress);
    assert_eq!(alter(&cluster, 1, "moves", PARTITIONS, None), [nothing; PARTITIONS]);
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer");
    assert_exactly_once(&cluster.addresses(), "moves", PARTITIONS, &recorder);
}

#[test]
fn a_broker_is_drained_by_one_command() {
    let Some(cluster) = Cluster::start() else { return };
    (0..3).for_each(|node| cluster.await_all(node));
    let addresses = cluster.addresses();
    create_replicated(&addresses, "two", 4, 2, &[]);
    create_replicated(&addresses, "one", 3, 1, &[]);
    for row in commands::rows(&addresses, &["node", "drain", "3"]) {
        assert_eq!(row["outcome"], "moved", "{row}");
        assert!(!row["replicas"].as_array().expect("brokers").contains(&3.into()), "{row}");
    }
    for topic in ["one", "two"] {
        let partitions = Wire::connect(&cluster.broker(0).address()).metadata(topic).topics.remove(0).partitions;
        assert!(partitions.iter().all(|partition| !partition.replica_nodes.contains(&3.into())), "{partitions:?}");
    }
    let status = commands::rows(&addresses, &["node", "status"]);
    let shown = |name: &str| status.iter().map(|row| row[name].as_i64().expect("a number")).collect::<Vec<i64>>();
    assert_eq!(shown("broker"), [1, 2, 3]);
    assert_eq!(shown("replicas")[2], 0);
    assert_eq!(shown("leads").iter().sum::<i64>(), 7);
    assert!(status.iter().all(|row| row["there"] == true && row["coming"] == 0 && row["going"] == 0), "{status:?}");

    create_replicated(&addresses, "everywhere", 1, 3, &[]);
    let (code, said) = commands::failure(&addresses, &["node", "drain", "3"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("everywhere-0: every broker that is there has a replica already"), "{said}");
    assert_eq!(commands::failure(&addresses, &["node", "drain", "7"]).0, Some(2));
}
