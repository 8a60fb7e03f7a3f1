//! The table of keys: flags, environment, file, help and the example file all follow it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::PeerAddress;
use crate::limits;
use crate::types::BrokerId;

/// A setting that a user can give, in each of the three ways that its name spells.
#[derive(Debug)]
pub struct Key {
    /// The name in the configuration file; Kafka's where Kafka has such a setting.
    pub name: &'static str,
    /// A word for the value, for `--help`.
    pub value: &'static str,
    /// What the value must look like.
    pub kind: Kind,
    /// What holds when nobody gives a value.
    pub default: Default,
    /// What it does, for `--help` and the example file.
    pub help: &'static str,
}

/// The form of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// `IP:PORT`, or `localhost:PORT`.
    Listen,
    /// `HOST:PORT`, or `HOST` with the port of `listen`.
    Advertise,
    /// A whole number between two bounds, both included.
    Integer {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
    },
    /// Bytes: a plain number or one with a unit.
    Size {
        /// The least value, in bytes.
        min: u64,
        /// The greatest value, in bytes.
        max: u64,
    },
    /// `true` or `false`.
    Bool,
    /// A name: letters, digits, dots, hyphens and underscores, up to so many.
    Name {
        /// The greatest number of characters.
        max: usize,
    },
    /// `ID@HOST:PORT` of each voter, with commas between them.
    Voters,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// What holds when nobody gives a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Default {
    /// This value.
    Is(&'static str),
    /// A value found at start; the words say which.
    Found(&'static str),
}

/// Least `memory`, in bytes: below it the shares of the tail, the caches and the frames get too small to be useful.
pub const MIN_MEMORY_BYTES: u64 = 128 << 20;

/// Every key, in the order of the help and of the example file.
pub const KEYS: &[Key] = &[
    Key {
        name: "data.dir",
        value: "DIR",
        kind: Kind::Text,
        default: Default::Is("./data"),
        help: "Directory that holds everything the broker keeps; made if it does not exist",
    },
    Key {
        name: "listen",
        value: "IP:PORT",
        kind: Kind::Listen,
        default: Default::Is("127.0.0.1:9092"),
        help: "IP address and port to accept clients on; port 0 takes a free one",
    },
    Key {
        name: "advertise",
        value: "HOST:PORT",
        kind: Kind::Advertise,
        default: Default::Found("the listen address, or the host name where that is 0.0.0.0 or [::]"),
        help: "Address that clients are told to connect to",
    },
    Key {
        name: "http",
        value: "IP:PORT",
        kind: Kind::Listen,
        default: Default::Found("off"),
        help: "IP address and port of the console page, /metrics, /health and /v1, which ask nobody for a password",
    },
    Key {
        name: "shards",
        value: "N",
        kind: Kind::Integer { min: 1, max: limits::MAX_SHARDS as i64 },
        default: Default::Found("one for each core that the process may use"),
        help: "Executors that serve clients, each pinned to a core",
    },
    Key {
        name: "memory",
        value: "SIZE",
        kind: Kind::Size { min: MIN_MEMORY_BYTES, max: 1 << 50 },
        default: Default::Found("half of the machine's memory, or of the cgroup's limit where that is less"),
        help: "Memory that the broker may use for records, caches and requests",
    },
    Key {
        name: "node.id",
        value: "N",
        kind: Kind::Integer { min: 0, max: i32::MAX as i64 },
        default: Default::Is("1"),
        help: "The broker's number in its cluster",
    },
    Key {
        name: "controller.quorum.voters",
        value: "ID@HOST:PORT,...",
        kind: Kind::Voters,
        default: Default::Found("none, this broker is a cluster of its own"),
        help: "The brokers that the cluster begins with, each with the address that it listens on for the others",
    },
    Key {
        name: "inter.broker.listener",
        value: "HOST:PORT",
        kind: Kind::Advertise,
        default: Default::Found("as in controller.quorum.voters"),
        help: "Where this broker listens for the others; needed where it joins a cluster later",
    },
    Key {
        name: "cluster.id",
        value: "ID",
        kind: Kind::Name { max: limits::MAX_CLUSTER_ID_BYTES },
        default: Default::Found(
            "made from controller.quorum.voters, or at random without it, and kept in the data directory",
        ),
        help: "The cluster's id, the same on all its brokers; must be given once controller.quorum.voters has changed",
    },
    Key {
        name: "broker.rack",
        value: "RACK",
        kind: Kind::Text,
        default: Default::Found("none"),
        help: "Rack of this broker, shown to clients",
    },
    Key {
        name: "auto.create.topics.enable",
        value: "BOOL",
        kind: Kind::Bool,
        default: Default::Is("true"),
        help: "Whether a topic is created when a client first asks for it",
    },
    Key {
        name: "num.partitions",
        value: "N",
        kind: Kind::Integer { min: 1, max: 10_000 },
        default: Default::Is("1"),
        help: "Partitions of a topic whose creation names no number",
    },
    Key {
        name: "message.max.bytes",
        value: "SIZE",
        kind: Kind::Size { min: 1, max: limits::MAX_BATCH_BYTES as u64 },
        default: Default::Is("1048588"),
        help: "Largest record batch, where the topic's max.message.bytes does not say otherwise",
    },
    Key {
        name: "socket.request.max.bytes",
        value: "SIZE",
        kind: Kind::Size { min: 64 << 10, max: limits::MAX_REQUEST_BYTES as u64 },
        default: Default::Is("104857600"),
        help: "Largest request; never more than an eighth of `memory`",
    },
    Key {
        name: "max.connections",
        value: "N",
        kind: Kind::Integer { min: 1, max: i32::MAX as i64 },
        default: Default::Found("half of the files that the process may have open"),
        help: "Most connections of clients; further ones are closed at once",
    },
    Key {
        name: "max.connections.per.ip",
        value: "N",
        kind: Kind::Integer { min: 1, max: i32::MAX as i64 },
        default: Default::Is("2147483647"),
        help: "Most connections from one address",
    },
    Key {
        name: "connections.max.idle.ms",
        value: "MS",
        kind: Kind::Integer { min: 1_000, max: i32::MAX as i64 },
        default: Default::Is("600000"),
        help: "Time after which a connection that is not used is closed",
    },
    Key {
        name: "offsets.topic.num.partitions",
        value: "N",
        kind: Kind::Integer { min: 1, max: limits::MAX_OFFSETS_PARTITIONS as i64 },
        default: Default::Is("16"),
        help: "Partitions of the topic that keeps consumer groups, when it is created (in Kafka 50)",
    },
    Key {
        name: "group.initial.rebalance.delay.ms",
        value: "MS",
        kind: Kind::Integer { min: 0, max: 600_000 },
        default: Default::Is("3000"),
        help: "Time that a consumer group which was empty waits for further members",
    },
    Key {
        name: "group.min.session.timeout.ms",
        value: "MS",
        kind: Kind::Integer { min: 1, max: i32::MAX as i64 },
        default: Default::Is("6000"),
        help: "Least session timeout that a consumer may ask for",
    },
    Key {
        name: "group.max.session.timeout.ms",
        value: "MS",
        kind: Kind::Integer { min: 1, max: i32::MAX as i64 },
        default: Default::Is("1800000"),
        help: "Greatest session timeout that a consumer may ask for",
    },
    Key {
        name: "group.max.size",
        value: "N",
        kind: Kind::Integer { min: 1, max: limits::MAX_GROUP_MEMBERS as i64 },
        default: Default::Is("5000"),
        help: "Most members of a consumer group",
    },
    Key {
        name: "group.consumer.session.timeout.ms",
        value: "MS",
        kind: Kind::Integer { min: 1, max: i32::MAX as i64 },
        default: Default::Is("45000"),
        help: "Time after which a silent member of a group of the consumer protocol is given up",
    },
    Key {
        name: "group.consumer.min.session.timeout.ms",
        value: "MS",
        kind: Kind::Integer { min: 1, max: i32::MAX as i64 },
        default: Default::Is("45000"),
        help: "Least session timeout of a group of the consumer protocol",
    },
    Key {
        name: "group.consumer.max.session.timeout.ms",
        value: "MS",
        kind: Kind::Integer { min: 1, max: i32::MAX as i64 },
        default: Default::Is("60000"),
        help: "Greatest session timeout of a group of the consumer protocol",
    },
    Key {
        name: "group.consumer.heartbeat.interval.ms",
        value: "MS",
        kind: Kind::Integer { min: 1, max: i32::MAX as i64 },
        default: Default::Is("5000"),
        help: "Time between two heartbeats of a member of a group of the consumer protocol",
    },
    Key {
        name: "group.consumer.min.heartbeat.interval.ms",
        value: "MS",
        kind: Kind::Integer { min: 1, max: i32::MAX as i64 },
        default: Default::Is("5000"),
        help: "Least heartbeat interval of a group of the consumer protocol",
    },
    Key {
        name: "group.consumer.max.heartbeat.interval.ms",
        value: "MS",
        kind: Kind::Integer { min: 1, max: i32::MAX as i64 },
        default: Default::Is("15000"),
        help: "Greatest heartbeat interval of a group of the consumer protocol",
    },
    Key {
        name: "group.consumer.assignment.interval.ms",
        value: "MS",
        kind: Kind::Integer { min: 0, max: i32::MAX as i64 },
        default: Default::Is("1000"),
        help: "Least time between two assignments of a group of the consumer protocol",
    },
    Key {
        name: "group.consumer.max.size",
        value: "N",
        kind: Kind::Integer { min: 1, max: limits::MAX_GROUP_MEMBERS as i64 },
        default: Default::Is("5000"),
        help: "Most members of a group of the consumer protocol",
    },
    Key {
        name: "group.consumer.assignors",
        value: "NAMES",
        kind: Kind::Choice(&["uniform,range", "range,uniform", "uniform", "range"]),
        default: Default::Is("uniform,range"),
        help: "Assignors of the consumer protocol; the first is used where members want none",
    },
    Key {
        name: "group.consumer.migration.policy",
        value: "POLICY",
        kind: Kind::Choice(&["bidirectional", "upgrade", "downgrade", "disabled"]),
        default: Default::Is("bidirectional"),
        help: "Ways between the classic and the consumer protocol that a group with members may take",
    },
    Key {
        name: "offsets.retention.minutes",
        value: "N",
        kind: Kind::Integer { min: 1, max: i32::MAX as i64 },
        default: Default::Is("10080"),
        help: "Time that committed offsets are kept after their consumer group has become empty",
    },
    Key {
        name: "log.retention.check.interval.ms",
        value: "MS",
        kind: Kind::Integer { min: 1, max: i64::MAX },
        default: Default::Is("300000"),
        help: "Time between two searches for records that are to be deleted or compacted",
    },
    Key {
        name: "follower.replication.throttled.rate",
        value: "SIZE",
        kind: Kind::Size { min: 1 << 20, max: 1 << 40 },
        default: Default::Is("100MiB"),
        help: "Bytes a second that new replicas on this broker fetch of records which their leaders hold in segments",
    },
    Key {
        name: "log.format",
        value: "FORMAT",
        kind: Kind::Choice(&["human", "json"]),
        default: Default::Is("human"),
        help: "Form of the log lines on standard error",
    },
    Key {
        name: "log.level",
        value: "LEVEL",
        kind: Kind::Text,
        default: Default::Is("info"),
        help: "Least level to log: error, warn, info, debug, trace, or a filter such as info,ringlog::io=debug",
    },
];

impl Key {
    /// The key of this name.
    pub fn named(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The name that is nearest to `name`, where one is near enough to be what was meant.
    pub fn nearest(name: &str) -> Option<&'static str> {
        KEYS.iter()
            .map(|key| (strsim::jaro_winkler(key.name, name), key.name))
            .filter(|(likeness, _)| *likeness >= 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, name)| name)
    }

    /// The flag's name, without its dashes.
    pub fn flag(&self) -> String {
        self.name.replace('.', "-")
    }

    /// The environment variable's name.
    pub fn variable(&self) -> String {
        format!("RINGLOG_{}", self.name.replace('.', "_").to_uppercase())
    }
}

impl Kind {
    /// The text, where this is a text, a name or a choice and allows it.
    pub fn text(self, text: &str) -> Option<String> {
        match self {
            Kind::Name { max } => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                ((1..=max).contains(&text.len()) && text.chars().all(plain)).then(|| text.into())
            }
            Kind::Text => (!text.trim().is_empty()).then(|| text.into()),
            Kind::Choice(words) => words.contains(&text).then(|| text.into()),
            _ => None,
        }
    }

    /// The number, where this is an integer and allows it.
    pub fn integer(self, text: &str) -> Option<i64> {
        match self {
            Kind::Integer { min, max } => text.trim().parse().ok().filter(|n| (min..=max).contains(n)),
            _ => None,
        }
    }

    /// The bytes, where this is a size and allows them.
    pub fn size(self, text: &str) -> Option<u64> {
        match self {
            Kind::Size { min, max } => parse_size(text).filter(|n| (min..=max).contains(n)),
            _ => None,
        }
    }

    /// The truth value, where this is one.
    pub fn bool(self, text: &str) -> Option<bool> {
        match self {
            Kind::Bool => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The address to bind, where this is one.
    pub fn listen(self, text: &str) -> Option<SocketAddr> {
        match (self, text.trim().strip_prefix("localhost:")) {
            (Kind::Listen, Some(port)) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?))),
            (Kind::Listen, None) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The host, without the brackets of an IPv6 address, and the port if one is there.
    pub fn advertise(self, text: &str) -> Option<(String, Option<u16>)> {
        if self == Kind::Advertise { parse_address(text) } else { None }
    }

    /// The voters in the order in which they are given, where this is a list of them. That each is there once is for
    /// the caller to see.
    pub fn voters(self, text: &str) -> Option<Vec<PeerAddress>> {
        let voter = |text: &str| {
            let (id, address) = text.trim().split_once('@')?;
            let id = id.parse().ok().filter(|id: &i32| *id >= 0)?;
            let (host, port) = parse_address(address)?;
            Some(PeerAddress { id: BrokerId(id), host, port: port? })
        };
        if self == Kind::Voters { text.split(',').map(voter).collect() } else { None }
    }

    /// What the value should have been, for an error's text.
    pub fn expected(self) -> String {
        match self {
            Kind::Text => "a text that is not empty".into(),
            Kind::Listen => "an IP address and a port, such as 0.0.0.0:9092 or [::1]:9092".into(),
            Kind::Advertise => "a host and a port, such as broker-1.example:9092".into(),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Size { min, max } => {
                format!("a size such as 512MiB, 1GB or plain bytes, from {} to {}", show_size(min), show_size(max))
            }
            Kind::Bool => "true or false".into(),
            Kind::Choice(words) => words.join(" or "),
            Kind::Name { max } => format!("up to {max} letters, digits, dots, hyphens and underscores"),
            Kind::Voters => {
                "the voters' ids and addresses, such as 1@broker-1:9093,2@broker-2:9093,3@broker-3:9093".into()
            }
        }
    }
}

/// Parses a host and a port, if one is there; the host without the brackets of an IPv6 address.
fn parse_address(text: &str) -> Option<(String, Option<u16>)> {
    let text = text.trim();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            (!host.is_empty() && host.chars().all(plain)).then_some((host, port))?
        }
    };
    let port = match port.strip_prefix(':') {
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0)?),
        None if port.is_empty() => None,
        None => return None,
    };
    Some((host.into(), port))
}

/// Parses bytes with an optional unit. `KB`, `MB`, `GB`, `TB` count in thousands; `KiB` and so on, and the bare
/// letters as the kernel and container tools use them, in 1024s. Case does not matter.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Bytes in the largest unit of 1024s that shows them exactly.
pub fn show_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift)) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}
