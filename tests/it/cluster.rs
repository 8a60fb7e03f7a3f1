//! Three brokers: what one of them does to itself is hardly noticed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{CreatePartitionsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use crate::common::librdkafka::{
    RESILIENT, Recorder, admin, assert_exactly_once, create_replicated, keep_producing, read_all,
};
use crate::common::process::{Broker, Launch, data_dir, external, free_port};
use crate::common::records::batch;
use crate::common::wire::{Wire, code, text, topic_name};
use crate::common::{skipped, wait_until};

pub(crate) const NODES: u16 = 3;

/// Three brokers, numbered from 0; their `node.id`s count from 1.
pub(crate) struct Cluster {
    pub(crate) brokers: Vec<Option<Broker>>,
    /// `controller.quorum.voters`.
    pub(crate) voters: String,
    directories: Vec<tempfile::TempDir>,
}

impl Cluster {
    /// Three new brokers; none where the tests run against somebody else's.
    pub(crate) fn start() -> Option<Cluster> {
        Cluster::with(&|_| Vec::new())
    }

    /// The same with further arguments for each.
    pub(crate) fn with(arguments: &dyn Fn(u16) -> Vec<String>) -> Option<Cluster> {
        Cluster::on(&[], arguments)
    }

    /// The same, the first of them on disks of the test's own.
    pub(crate) fn on(disks: &[&Path], arguments: &dyn Fn(u16) -> Vec<String>) -> Option<Cluster> {
        if external().is_some() {
            skipped("the broker is not ours to start");
            return None;
        }
        let peers: Vec<u16> = (0..NODES).map(|_| free_port()).collect();
        let voters: Vec<String> =
            (1..=NODES).zip(&peers).map(|(node, port)| format!("{node}@127.0.0.1:{port}")).collect();
        let directories: Vec<_> = (0..NODES).map(|_| data_dir()).collect();
        let launches: Vec<Launch> = (1..=NODES)
            .zip(&directories)
            .map(|(node, directory)| {
                let own = disks.get(usize::from(node) - 1).map(|disk| disk.join("data"));
                let data = own.unwrap_or_else(|| directory.path().to_owned());
                Launch::new(&data).in_cluster(node, &voters.join(",")).arguments(arguments(node))
            })
            .collect();
        Some(Cluster { brokers: start_all(launches), voters: voters.join(","), directories })
    }

    /// A broker that runs.
    pub(crate) fn broker(&self, node: usize) -> &Broker {
        self.brokers[node].as_ref().expect("the broker runs")
    }

    /// Where one that is on no disk of the test's own has its data.
    pub(crate) fn data_dir(&self, node: usize) -> &Path {
        self.directories[node].path()
    }

    /// Where all of them listen.
    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<String> = self.brokers.iter().flatten().map(Broker::address).collect();
        addresses.join(",")
    }

    /// Kills one; it can be started again.
    pub(crate) fn kill(&mut self, node: usize) -> Launch {
        self.brokers[node].take().expect("the broker runs").kill()
    }

    /// Stops one as it should be stopped; it can be started again.
    pub(crate) fn stop(&mut self, node: usize) -> Launch {
        self.brokers[node].take().expect("the broker runs").stop()
    }

    /// Starts one again that was killed or stopped.
    pub fn put_back(&mut self, node: usize, launch: Launch) {
        self.brokers[node] = Some(launch.start());
    }

    /// Starts all again, of which none runs.
    pub(crate) fn start_all(&mut self, launches: Vec<Launch>) {
        self.brokers = start_all(launches);
    }

    /// Waits until a broker shows all three.
    pub(crate) fn await_all(&self, node: usize) {
        let client = admin(&self.broker(node).address());
        let all = wait_until(Duration::from_secs(20), || {
            let metadata = client.inner().fetch_metadata(None, Duration::from_secs(5));
            metadata.is_ok_and(|metadata| metadata.brokers().len() == NODES as usize)
        });
        assert!(all, "broker {node} does not see the others");
    }
}

/// A broker of a cluster is ready only once a majority is there.
fn start_all(launches: Vec<Launch>) -> Vec<Option<Broker>> {
    thread::scope(|scope| {
        let starts: Vec<_> = launches.into_iter().map(|launch| scope.spawn(|| launch.start())).collect();
        starts.into_iter().map(|start| Some(start.join().expect("the broker starts"))).collect()
    })
}

#[test]
fn a_topic_is_shown_by_every_broker_when_its_creation_is_answered() {
    let Some(cluster) = Cluster::start() else { return };
    (0..NODES as usize).for_each(|node| cluster.await_all(node));
    for node in 0..NODES as usize {
        for n in 0..5 {
            let topic = format!("shown-{node}-{n}");
            create_replicated(&cluster.broker(node).address(), &topic, 3, 3, &[]);
            for shown_by in 0..NODES as usize {
                let client = admin(&cluster.broker(shown_by).address());
                let metadata = client.inner().fetch_metadata(Some(&topic), Duration::from_secs(5)).expect("metadata");
                let partitions = metadata.topics()[0].partitions();
                assert_eq!(partitions.len(), 3, "broker {shown_by} on {topic}");
                assert!(partitions.iter().all(|partition| partition.leader() > 0), "broker {shown_by} on {topic}");
            }
        }
    }
}

#[test]
fn what_is_there_is_changed_through_any_broker() {
    let Some(cluster) = Cluster::start() else { return };
    let nodes = 0..NODES as usize;
    nodes.clone().for_each(|node| cluster.await_all(node));
    create_replicated(&cluster.broker(0).address(), "changes", 1, 3, &[]);
    for (node, count) in nodes.clone().zip(2..) {
        let mut wire = Wire::connect(&cluster.broker(node).address());
        let more = CreatePartitionsTopic::default().with_name(topic_name("changes")).with_count(count);
        let more = CreatePartitionsRequest::default().with_topics(vec![more.with_assignments(None)]);
        let result = wire.call(3, &more.with_timeout_ms(10_000)).results.remove(0);
        assert_eq!(result.error_code, 0, "by broker {node}: {:?}", result.error_message);
        let bytes = (1_000 + node).to_string();
        let config = AlterableConfig::default().with_name(text("max.message.bytes")).with_value(Some(text(&bytes)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("changes"))
            .with_configs(vec![config]);
        let altered = wire.call(1, &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]));
        assert_eq!(altered.responses[0].error_code, 0, "by broker {node}: {:?}", altered.responses[0].error_message);
        for shown_by in nodes.clone() {
            let mut wire = Wire::connect(&cluster.broker(shown_by).address());
            let partitions = wire.metadata("changes").topics.remove(0).partitions;
            assert_eq!(partitions.len(), count as usize, "broker {shown_by}");
            assert!(partitions.iter().all(|partition| partition.leader_id.0 > 0 && partition.replica_nodes.len() == 3));
            let asked = DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("changes"))
                .with_configuration_keys(Some(vec![text("max.message.bytes")]));
            let described = wire.call(4, &DescribeConfigsRequest::default().with_resources(vec![asked]));
            assert_eq!(described.results[0].configs[0].value.as_deref(), Some(&*bytes), "broker {shown_by}");
            for partition in partitions.iter().filter(|partition| partition.leader_id.0 == shown_by as i32 + 1) {
                let index = partition.partition_index;
                assert_eq!(wire.produce("changes", index, batch(&["small"])).error_code, 0);
                let large = wire.produce("changes", index, batch(&["x".repeat(2_000)]));
                assert_eq!(large.error_code, code(ResponseError::MessageTooLarge), "broker {shown_by}");
            }
        }
    }
}

#[test]
fn kills_and_pauses_of_one_broker_after_the_other_lose_nothing() {
    let Some(mut cluster) = Cluster::start() else { return };
    const PARTITIONS: usize = 6;
    let addresses = cluster.addresses();
    create_replicated(&addresses, "chaos", PARTITIONS as i32, 3, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Arc::new(Recorder::new(&addresses, &RESILIENT));
    let producer = keep_producing(&recorder, "chaos", PARTITIONS, &stop);
    recorder.wait_for(500);
    for node in 0..NODES as usize {
        let launch = cluster.kill(node);
        recorder.wait_for(500);
        cluster.put_back(node, launch);
        cluster.await_all(node);
        recorder.wait_for(500);
        let paused = (node + 1) % NODES as usize;
        cluster.broker(paused).signal(libc::SIGSTOP);
        recorder.wait_for(500);
        cluster.broker(paused).signal(libc::SIGCONT);
        cluster.await_all(paused);
        recorder.wait_for(500);
    }
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer");
    assert_exactly_once(&addresses, "chaos", PARTITIONS, &recorder);
}

#[test]
fn one_broker_after_the_other_stops_and_starts_under_load() {
    let Some(mut cluster) = Cluster::start() else { return };
    const PARTITIONS: usize = 6;
    // It has 2 s to hand over what it leads, and then as long as it takes to end what is in flight.
    const WITHIN: Duration = Duration::from_secs(4);
    let addresses = cluster.addresses();
    create_replicated(&addresses, "rolling", PARTITIONS as i32, 3, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Arc::new(Recorder::new(&addresses, &RESILIENT));
    let producer = keep_producing(&recorder, "rolling", PARTITIONS, &stop);
    recorder.wait_for(500);
    for node in 0..NODES as usize {
        let began = Instant::now();
        let launch = cluster.stop(node);
        assert!(began.elapsed() < WITHIN, "broker {node} stopped after {:?}", began.elapsed());
        recorder.wait_for(500);
        cluster.put_back(node, launch);
        cluster.await_all(node);
        recorder.wait_for(500);
    }
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer");
    assert_exactly_once(&addresses, "rolling", PARTITIONS, &recorder);
}

#[test]
fn a_power_cut_of_all_brokers_loses_nothing() {
    let Some(mut cluster) = Cluster::start() else { return };
    const PARTITIONS: usize = 3;
    let addresses = cluster.addresses();
    create_replicated(&addresses, "cut", PARTITIONS as i32, 3, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Arc::new(Recorder::new(&addresses, &RESILIENT));
    let producer = keep_producing(&recorder, "cut", PARTITIONS, &stop);
    for _ in 0..3 {
        recorder.wait_for(500);
        let launches = (0..NODES as usize).map(|node| cluster.kill(node)).collect();
        cluster.brokers = start_all(launches);
    }
    recorder.wait_for(500);
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer");
    assert_exactly_once(&addresses, "cut", PARTITIONS, &recorder);
    assert_eq!(read_all(&cluster.broker(1).address(), "cut", PARTITIONS as i32).len(), PARTITIONS);
}
