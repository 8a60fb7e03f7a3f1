//! Three brokers, each on a disk and in a network of its own, under everything that can be done to them from outside:
//! kills, pauses, frozen disks, cut networks, power cuts. An idempotent producer never stops, and all that it sent is
//! there in the end, once and in order.
//!
//! Needs root, loop devices, network namespaces and iptables. Two minutes; `scripts/chaos.sh` runs it for longer.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::{DescribeProducersRequest, describe_producers_request};

use crate::common::disk::{Disk, run};
use crate::common::librdkafka::{RESILIENT, Recorder, assert_exactly_once, create_replicated};
use crate::common::process::{Broker, Launch, external, free_port, spawner};
use crate::common::wire::{Wire, topic_name};
use crate::common::{skipped, wait_until};

const NODES: usize = 3;
const PARTITIONS: usize = 6;

/// Records that are sent in a second.
const PACE: u64 = 2_000;

/// Records that must be acknowledged for each second of a round, faults included: a broker that only survives is not
/// enough.
const LEAST_PER_SECOND: f64 = 200.0;

/// A network of the test's own: a bridge in one namespace, where clients are, and a namespace for each broker.
struct Network {
    name: String,
}

impl Network {
    fn new() -> Result<Network, String> {
        let network = Network { name: format!("ringlog{}", std::process::id()) };
        let hub = network.hub();
        run("ip", &["netns", "add", &hub])?;
        run("ip", &["-n", &hub, "link", "set", "lo", "up"])?;
        run("ip", &["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        run("ip", &["-n", &hub, "addr", "add", "10.213.0.254/24", "dev", "bridge"])?;
        run("ip", &["-n", &hub, "link", "set", "bridge", "up"])?;
        for node in 0..NODES {
            let (space, port) = (network.of(node), format!("port{node}"));
            run("ip", &["netns", "add", &space])?;
            run("ip", &["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            run("ip", &["-n", &hub, "link", "set", &port, "master", "bridge", "up"])?;
            let address = format!("{}/24", Network::address(node));
            run("ip", &["-n", &space, "addr", "add", &address, "dev", "eth0"])?;
            run("ip", &["-n", &space, "link", "set", "eth0", "up"])?;
            run("ip", &["-n", &space, "link", "set", "lo", "up"])?;
            run("ip", &["netns", "exec", &space, "iptables", "-L", "-n"])?;
        }
        Ok(network)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn of(&self, node: usize) -> String {
        format!("{}-{node}", self.name)
    }

    fn address(node: usize) -> String {
        format!("10.213.0.{}", node + 1)
    }

    /// Brings this thread, and those that it starts, to where the clients are.
    fn enter(&self) -> Result<(), String> {
        let space = File::open(format!("/run/netns/{}", self.hub())).map_err(|error| error.to_string())?;
        // SAFETY: a plain system call on an open descriptor; it concerns the network of this thread alone.
        match unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error().to_string()),
        }
    }

    /// Cuts a broker off from everybody, or ends that.
    fn cut(&self, node: usize, cut: bool) {
        let state = if cut { "down" } else { "up" };
        run("ip", &["-n", &self.hub(), "link", "set", &format!("port{node}"), state]).expect("a link that is there");
    }

    /// Has one broker hear nothing of another, or ends that. The other way stays open.
    fn deafen(&self, node: usize, to: usize, deaf: bool) {
        let action = if deaf { "-A" } else { "-D" };
        let (space, from) = (self.of(node), Network::address(to));
        run("ip", &["netns", "exec", &space, "iptables", action, "INPUT", "-s", &from, "-j", "DROP"]).expect("a rule");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for space in (0..NODES).map(|node| self.of(node)).chain([self.hub()]) {
            let _ = run("ip", &["netns", "del", &space]);
        }
    }
}

/// The brokers are dropped first, then what they stand on.
struct Cluster {
    brokers: Vec<Option<Broker>>,
    disks: Vec<Disk>,
    network: Network,
}

impl Cluster {
    fn start() -> Result<Cluster, String> {
        let network = Network::new()?;
        let disks: Vec<Disk> = (0..NODES).map(|_| Disk::new()).collect::<Result<_, _>>()?;
        disks[0].freeze().map(drop)?;
        // Other tests of this process must not get their brokers from a thread in there.
        spawner();
        network.enter()?;
        let peer = free_port();
        let voters: Vec<String> =
            (0..NODES).map(|node| format!("{}@{}:{peer}", node + 1, Network::address(node))).collect();
        let launches = (0..NODES).map(|node| {
            Launch::new(&disks[node].root().join("data"))
                .in_namespace(&network.of(node), &Network::address(node))
                .in_cluster(node as u16 + 1, &voters.join(","))
        });
        Ok(Cluster { brokers: start_all(launches.collect()), disks, network })
    }

    fn addresses(&self) -> String {
        self.brokers.iter().flatten().map(Broker::address).collect::<Vec<_>>().join(",")
    }

    fn broker(&self, node: usize) -> &Broker {
        self.brokers[node].as_ref().expect("the broker runs")
    }

    /// Does something to the cluster for a time, and undoes it.
    fn suffer(&mut self, fault: Fault, time: Duration) {
        match fault {
            Fault::Kill(node) => {
                let launch = self.brokers[node].take().expect("the broker runs").kill();
                thread::sleep(time);
                self.brokers[node] = Some(launch.start());
            }
            Fault::Pause(node) => {
                self.broker(node).signal(libc::SIGSTOP);
                thread::sleep(time);
                self.broker(node).signal(libc::SIGCONT);
            }
            Fault::Freeze(node) => {
                let frozen = self.disks[node].freeze().expect("it could be frozen before");
                thread::sleep(time);
                drop(frozen);
            }
            Fault::CutOff(node) => {
                self.network.cut(node, true);
                thread::sleep(time);
                self.network.cut(node, false);
            }
            Fault::Deafen(node, to) => {
                self.network.deafen(node, to, true);
                thread::sleep(time);
                self.network.deafen(node, to, false);
            }
            Fault::Power => {
                let launches: Vec<Launch> =
                    self.brokers.iter_mut().map(|broker| broker.take().expect("the broker runs").kill()).collect();
                for disk in &mut self.disks {
                    disk.cut_power().expect("an ext4 can be shut down and mounted again");
                }
                self.brokers = start_all(launches);
            }
        }
    }
}

/// A broker of a cluster is ready only once a majority is there.
fn start_all(launches: Vec<Launch>) -> Vec<Option<Broker>> {
    thread::scope(|scope| {
        let starts: Vec<_> = launches.into_iter().map(|launch| scope.spawn(|| launch.start())).collect();
        starts.into_iter().map(|start| Some(start.join().expect("the broker starts"))).collect()
    })
}

/// What is done to the cluster. Never more than one broker suffers at once, but for the power cut.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill(usize),
    Pause(usize),
    Freeze(usize),
    CutOff(usize),
    /// The first hears nothing of the second.
    Deafen(usize, usize),
    /// All are killed at once, and their file systems lose what they had not flushed.
    Power,
}

/// The faults in turn, each time on another broker, for a time between a fifth of a second and six seconds.
fn faults(seed: u64) -> impl Iterator<Item = (Fault, Duration)> {
    let mut state = seed;
    (0..).map(move |turn: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let dice = (state >> 33) as usize;
        let node = (turn / 6 + dice) % NODES;
        let fault = match turn % 6 {
            0 => Fault::Kill(node),
            1 => Fault::Freeze(node),
            2 => Fault::CutOff(node),
            3 => Fault::Pause(node),
            4 => Fault::Deafen(node, (node + 1 + dice / 7 % 2) % NODES),
            _ => Fault::Power,
        };
        (fault, Duration::from_millis(200 + (dice / 11 % 5_800) as u64))
    })
}

/// Sends record `n` with the value `n` to partition `n % PARTITIONS`, at a pace.
fn keep_producing(recorder: &Recorder, stop: &AtomicBool, sent: &AtomicU64) {
    let began = Instant::now();
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let due = began.elapsed().as_millis() as u64 * PACE / 1_000;
        // What could not be sent in time is not made up for all at once.
        for _ in 0..(due.saturating_sub(number)).min(200) {
            let partition = (number % PARTITIONS as u64) as i32;
            recorder.send("chaos", partition, number as usize, None, number.to_string().as_bytes()).expect("taken");
            number += 1;
        }
        sent.store(number, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(5));
    }
}

/// The producer never had to take a new epoch. A client does that when a batch is called out of order, and sends under new
/// numbers what it does not know to be written: then it may be there twice.
fn assert_one_epoch(cluster: &Cluster) {
    let topic = describe_producers_request::TopicRequest::default()
        .with_name(topic_name("chaos"))
        .with_partition_indexes((0..PARTITIONS as i32).collect());
    let asked = DescribeProducersRequest::default().with_topics(vec![topic]);
    let told = || {
        let answers = cluster.brokers.iter().flatten().map(|broker| Wire::connect(&broker.address()).call(0, &asked));
        let partitions = answers.flat_map(|answer| answer.topics).flat_map(|topic| topic.partitions);
        partitions.filter(|partition| partition.error_code == 0).collect::<Vec<_>>()
    };
    // A leadership may be on its way to another broker just now.
    assert!(wait_until(Duration::from_secs(10), || told().len() == PARTITIONS), "each partition has one leader");
    for partition in told() {
        let [producer] = &partition.active_producers[..] else { panic!("{partition:?}") };
        assert_eq!(producer.producer_epoch, 0, "partition {}", partition.partition_index);
    }
}

#[test]
#[ignore = "takes minutes, root, and programs from outside"]
fn nothing_that_is_done_to_one_broker_at_a_time_or_to_all_loses_a_record() {
    if external().is_some() {
        return skipped("the brokers are not ours to break");
    }
    let seconds = std::env::var("RINGLOG_CHAOS_SECONDS").map_or(120, |text| text.parse().expect("a number of seconds"));
    let seed = std::env::var("RINGLOG_CHAOS_SEED").map_or(1, |text| text.parse().expect("a number"));
    let mut cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(error) => return skipped(&format!("no cluster to break: {error}")),
    };
    let addresses = cluster.addresses();
    create_replicated(&addresses, "chaos", PARTITIONS as i32, NODES as i32, &[]);
    let recorder = Arc::new(Recorder::new(&addresses, &RESILIENT));
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let producer = {
        let (recorder, stop, sent) = (recorder.clone(), stop.clone(), sent.clone());
        thread::spawn(move || keep_producing(&recorder, &stop, &sent))
    };
    recorder.wait_for(1_000);

    let began = Instant::now();
    let mut rounds: BTreeMap<String, u32> = BTreeMap::new();
    for (fault, time) in faults(seed) {
        if began.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        let (round, before) = (Instant::now(), recorder.reported());
        println!("{:7.1} s: {fault:?} for {time:?}", began.elapsed().as_secs_f64());
        cluster.suffer(fault, time);
        let during = recorder.reported() - before;
        // All that was sent until now is acknowledged again, and the brokers run.
        let due = sent.load(Ordering::Relaxed) as usize;
        let caught_up = wait_until(Duration::from_secs(60), || recorder.reported() >= due);
        assert!(caught_up, "{due} records were sent, {} are reported a minute after {fault:?}", recorder.reported());
        assert!(cluster.brokers.iter_mut().flatten().all(Broker::is_alive), "a broker ended after {fault:?}");
        // A client must be given the time to go through with what a fault has left behind.
        let quiet = Duration::from_secs(2);
        thread::sleep(quiet);
        let (records, took) = (recorder.reported() - before, round.elapsed());
        println!("           {during} acknowledged meanwhile, {records} until all was well, {took:.1?}");
        let rate = records as f64 / took.as_secs_f64();
        assert!(rate >= LEAST_PER_SECOND, "only {rate:.0} records a second around {fault:?}");
        *rounds.entry(format!("{fault:?}").chars().take_while(|c| c.is_alphabetic()).collect()).or_default() += 1;
    }
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer");
    assert_one_epoch(&cluster);
    let acknowledged = assert_exactly_once(&addresses, "chaos", PARTITIONS, &recorder);
    println!("{acknowledged} records, all there once and in order, after {rounds:?}");
}
