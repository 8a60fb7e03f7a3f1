//! Three brokers: what one of them does to itself is hardly noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::librdkafka::{
    RESILIENT, Recorder, admin, assert_exactly_once, create_replicated, keep_producing, read_all,
};
use crate::common::process::{Broker, Launch, data_dir, external, free_port};
use crate::common::{skipped, wait_until};

pub(crate) const NODES: u16 = 3;

/// Three brokers, numbered from 0; their `node.id`s count from 1.
pub(crate) struct Cluster {
    pub(crate) brokers: Vec<Option<Broker>>,
    _directories: Vec<tempfile::TempDir>,
}

impl Cluster {
    /// Three new brokers; none where the tests run against somebody else's.
    pub(crate) fn start() -> Option<Cluster> {
        Cluster::with(&|_| Vec::new())
    }

    /// The same with further arguments for each.
    pub(crate) fn with(arguments: &dyn Fn(u16) -> Vec<String>) -> Option<Cluster> {
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
                Launch::new(directory.path()).in_cluster(node, &voters.join(",")).arguments(arguments(node))
            })
            .collect();
        Some(Cluster { brokers: start_all(launches), _directories: directories })
    }

    /// A broker that runs.
    pub(crate) fn broker(&self, node: usize) -> &Broker {
        self.brokers[node].as_ref().expect("the broker runs")
    }

    /// Where all of them listen.
    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<String> = (0..NODES as usize).map(|node| self.broker(node).address()).collect();
        addresses.join(",")
    }

    /// Kills one; it can be started again.
    pub(crate) fn kill(&mut self, node: usize) -> Launch {
        self.brokers[node].take().expect("the broker runs").kill()
    }

    /// Starts one again that was killed.
    pub fn put_back(&mut self, node: usize, launch: Launch) {
        self.brokers[node] = Some(launch.start());
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
