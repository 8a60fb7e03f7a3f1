//! The broker's configuration, parsed and validated once and passed on explicitly.
//!
//! [`Settings`] gathers what was given as flags, in the environment and in a file, and [`Settings::resolve`] makes a
//! [`Config`] of it. Nothing here reads a file, the environment or the machine: callers hand all three in.

pub mod file;
pub mod keys;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::limits;
pub use crate::types::PeerAddress;

use crate::types::BrokerId;
use keys::{Default, Key, Kind, show_size};

/// Room that a produce request of one batch needs beside the batch, in bytes.
const REQUEST_OVERHEAD_BYTES: u64 = 64 << 10;

/// All that a broker is told from outside.
#[derive(Clone, Debug)]
pub struct Config {
    /// `data.dir`.
    pub data_dir: PathBuf,
    /// `listen`. Port 0 stands for any free one: the driver then puts the port it got into
    /// `broker.advertised_port`, if that is 0 too.
    pub listen: SocketAddr,
    /// `http`: where the console page, metrics and health are served, if at all. Port 0 takes a free one.
    pub http: Option<SocketAddr>,
    /// `shards`: at least 1.
    pub shards: u16,
    /// `memory`, in bytes. What follows are shares of it.
    pub memory_bytes: u64,
    /// Bytes of request frames that may be held at once, by all connections together.
    pub frame_bytes: u64,
    /// Largest request frame that is accepted, in bytes: `socket.request.max.bytes`, or half of `frame_bytes` where
    /// that is less, so that any frame that is accepted can be charged.
    pub max_request_bytes: usize,
    /// `connections.max.idle.ms`.
    pub connections_max_idle_ms: u64,
    /// `cluster.id`.
    pub cluster_id: ClusterId,
    /// Bytes of other brokers' frames that may be held at once; nothing where there are none.
    pub peer_frame_bytes: u64,
    /// `log.format`.
    pub log_format: LogFormat,
    /// `log.level`: a level, or a filter in the syntax of tracing's `EnvFilter`.
    pub log_level: String,
    /// The part that the core knows.
    pub broker: BrokerConfig,
}

/// The part of the configuration that the core knows.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// The cluster's id, as clients see it. It is kept in the data directory, wherever it came from at first: empty
    /// until the driver, which reads it there, fills it in before the shards start.
    pub cluster_id: String,
    /// `node.id`.
    pub broker_id: BrokerId,
    /// `controller.quorum.voters`: the brokers that the cluster began with, in the order of their ids; none where this one
    /// is to stay alone.
    pub peers: Vec<PeerAddress>,
    /// Where this one listens for others: `inter.broker.listener`, or as the voters' list says. None where it is to stay
    /// alone.
    pub peer_address: Option<PeerAddress>,
    /// Made at random with the data directory, so that a broker that has lost its disk is not taken for the one that
    /// it was. Zeros until the driver fills it in.
    pub directory_id: [u8; 16],
    /// The data directory's full path, as clients see it. Empty until the driver fills it in.
    pub log_dir: String,
    /// Rises each time that the broker starts on its data directory. Zero until the driver fills it in.
    pub incarnation: u64,
    /// Host that clients are told to connect to.
    pub advertised_host: String,
    /// Port that clients are told to connect to.
    pub advertised_port: u16,
    /// `follower.replication.throttled.rate`, in bytes a second, of all shards together.
    pub follower_throttled_rate: u64,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `num.partitions`: partitions of a topic that names no number.
    pub num_partitions: i32,
    /// `message.max.bytes`: largest batch where the topic's `max.message.bytes` does not say otherwise.
    pub message_max_bytes: i32,
    /// `max.connections`. Zero, where it is not given, until the driver fills it in.
    pub max_connections: i32,
    /// `max.connections.per.ip`.
    pub max_connections_per_ip: i32,
    /// `log.retention.check.interval.ms`.
    pub retention_check_ms: u64,
    /// What concerns consumer groups.
    pub groups: GroupConfig,
    /// Bytes of records that may be held in memory by all shards together: those not yet in segments, and a cache of the newest.
    pub tail_bytes: u64,
    /// Bytes of read cache and read-ahead of all shards together.
    pub read_cache_bytes: u64,
    /// Memory for the last entries of the metadata's log that a checkpoint has passed, in bytes.
    pub metadata_kept_bytes: u64,
}

/// What a broker that starts knows of its cluster's id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClusterId {
    /// `cluster.id`: the data directory must have this one.
    Given(String),
    /// Made from the list of voters, so that brokers that are started with the same list agree: the data directory
    /// must have this one.
    Derived(String),
    /// Whatever the data directory has; a new one gets an id at random.
    Any,
}

/// An id of 128 bits in 22 letters, spelled as Kafka spells its ids.
pub fn spell_id(bits: u128) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 22 letters hold 132 bits: the four lowest stay zero.
    let letter = |i: u32| match 122_u32.checked_sub(6 * i) {
        Some(shift) => bits >> shift,
        None => bits << 4,
    };
    (0..22).map(|i| char::from(LETTERS[(letter(i) & 63) as usize])).collect()
}

/// The id of the cluster of these voters, which are ordered by their ids: a hash (FNV-1a) of their list.
fn derived_cluster_id(voters: &[PeerAddress]) -> String {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;
    const START: u128 = 0x6C62_272E_07BB_0142_62B8_2175_6295_C58D;
    let list: Vec<String> = voters.iter().map(|v| format!("{}@{}:{}", v.id.0, v.host, v.port)).collect();
    let hash = list.join(",").bytes().fold(START, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    let id = spell_id(hash);
    // A leading hyphen would look like a flag on a command line.
    if id.starts_with('-') { spell_id(hash ^ (1 << 127)) } else { id }
}

impl BrokerConfig {
    /// The brokers that had a vote on the metadata when the cluster began.
    pub fn first_voters(&self) -> Vec<BrokerId> {
        match self.peers.is_empty() {
            true => vec![self.broker_id],
            false => self.peers.iter().map(|peer| peer.id).collect(),
        }
    }

    /// Replicas of a partition whose creation names no number: three, or as many as there are brokers, of which so many
    /// are registered.
    pub fn default_replication_factor(&self, registered: usize) -> i16 {
        self.first_voters().len().max(registered).min(3) as i16
    }
}

/// The configuration of consumer groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupConfig {
    /// `offsets.topic.num.partitions`.
    pub offsets_partitions: u32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: u64,
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i64,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i64,
    /// `group.max.size`.
    pub max_size: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `group.consumer.session.timeout.ms`.
    pub consumer_session_timeout_ms: u64,
    /// `group.consumer.min.session.timeout.ms` and `group.consumer.max.session.timeout.ms`.
    pub consumer_session_timeouts_ms: RangeInclusive<u64>,
    /// `group.consumer.heartbeat.interval.ms`.
    pub consumer_heartbeat_interval_ms: u64,
    /// `group.consumer.min.heartbeat.interval.ms` and `group.consumer.max.heartbeat.interval.ms`.
    pub consumer_heartbeat_intervals_ms: RangeInclusive<u64>,
    /// `group.consumer.assignment.interval.ms`.
    pub consumer_assignment_interval_ms: u64,
    /// `group.consumer.max.size`.
    pub consumer_max_size: usize,
    /// `group.consumer.assignors`, with commas between them.
    pub consumer_assignors: String,
    /// `group.consumer.migration.policy`.
    pub consumer_migration_policy: String,
}

impl std::default::Default for GroupConfig {
    fn default() -> GroupConfig {
        Settings::default().groups().expect("the defaults are a configuration")
    }
}

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What the defaults depend on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Cores that the process may use; at least 1.
    pub cores: u16,
    /// Memory that the process may use, in bytes: the machine's, or the cgroup's limit where that is less.
    pub memory_bytes: u64,
    /// The host's name; empty where it has none.
    pub hostname: String,
}

/// Where a value came from. A greater one wins over a lesser one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// A file's line, counted from 1.
    File(PathBuf, usize),
    /// The environment variable of this name.
    Environment(String),
    /// The flag of this name, without its dashes.
    Flag(String),
}

/// Why there is no configuration; the text names the place, the value and what was expected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is no TOML.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown key `{key}`{}", did_you_mean(*nearest))]
    UnknownKey {
        /// Where it was given.
        origin: Origin,
        /// The key.
        key: String,
        /// The key that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A key that a file gives twice.
    #[error("{origin}: `{key}` is given twice, also on line {other}")]
    Twice {
        /// One place.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// The line of the other.
        other: usize,
    },
    /// A value of the wrong form, or outside of its bounds.
    #[error("{origin}: `{key}` is {text}, expected {expected}")]
    Value {
        /// Where it was given.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// The value.
        text: String,
        /// What it should have been.
        expected: String,
    },
    /// Values that are right one by one and do not go together.
    #[error("{0}")]
    Together(String),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!(", did you mean `{name}`?"),
        None => String::new(),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// What was given, by key, the highest origin's value each.
#[derive(Clone, std::default::Default, Debug)]
pub struct Settings {
    given: BTreeMap<&'static str, (Origin, String)>,
}

impl Settings {
    /// Takes a value for `key`, unless there is one of a higher origin. The value is checked by
    /// [`Settings::resolve`].
    pub fn set(&mut self, key: &'static Key, text: impl Into<String>, origin: Origin) {
        match self.given.get(key.name) {
            Some((known, _)) if *known > origin => {}
            _ => {
                self.given.insert(key.name, (origin, text.into()));
            }
        }
    }

    /// Takes what `variables` has for the keys. A variable that looks like a misspelt key is answered with a warning
    /// and no more: environments carry names that others put there.
    pub fn add_environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix("RINGLOG_") else { continue };
            if rest == "CONFIG" {
                continue;
            }
            match keys::KEYS.iter().find(|key| key.variable() == name) {
                Some(key) => self.set(key, value, Origin::Environment(name)),
                None => {
                    let spelt = rest.to_lowercase().replace('_', ".");
                    if let Some(near) = Key::nearest(&spelt).and_then(Key::named) {
                        warnings.push(format!(
                            "environment variable {name} means nothing, did you mean {}?",
                            near.variable()
                        ));
                    }
                }
            }
        }
        warnings
    }

    /// Checks every value and makes the configuration of them.
    ///
    /// # Errors
    /// A value that is not of its key's form, or that does not go together with another.
    pub fn resolve(&self, machine: &Machine) -> Result<Config, ConfigError> {
        let memory_bytes = self.get("memory", Kind::size)?.unwrap_or(machine.memory_bytes / 2);
        if memory_bytes < keys::MIN_MEMORY_BYTES {
            return Err(ConfigError::Together(format!(
                "half of the memory that this process may use is {}, less than the {} that a broker needs at least; \
                 raise the limit, or set `memory`",
                show_size(memory_bytes),
                show_size(keys::MIN_MEMORY_BYTES),
            )));
        }
        let frame_bytes = (memory_bytes / 4).min(1 << 30);
        let max_request_bytes = (frame_bytes / 2).min(self.need("socket.request.max.bytes", Kind::size)?);
        let tail_bytes = (memory_bytes / 8).min(256 << 20);
        let read_cache_bytes = (memory_bytes / 8).min(256 << 20);
        assert!(
            frame_bytes + tail_bytes + read_cache_bytes <= memory_bytes / 2,
            "the shares exceed half of the memory"
        );

        let message_max_bytes = self.need("message.max.bytes", Kind::size)?;
        if message_max_bytes + REQUEST_OVERHEAD_BYTES > max_request_bytes {
            return Err(ConfigError::Together(format!(
                "`message.max.bytes` is {}, but with `memory` at {}, and by `socket.request.max.bytes`, a whole request may \
                 have no more than {}",
                show_size(message_max_bytes),
                show_size(memory_bytes),
                show_size(max_request_bytes),
            )));
        }
        let listen = self.need("listen", Kind::listen)?;
        let broker_id = BrokerId(self.need("node.id", Kind::integer)? as i32);
        let (voters, peer_address) = self.voters(broker_id)?;
        let cluster_id = match self.get("cluster.id", Kind::text)? {
            Some(id) => ClusterId::Given(id),
            None if voters.is_empty() => ClusterId::Any,
            None => ClusterId::Derived(derived_cluster_id(&voters)),
        };
        // What came from a leader stays in its frame until it lies in a segment, as with requests. Below three of the
        // largest frames a single one could hold all others up.
        let least = 3 * limits::PEER_FRAME_BYTES as u64;
        let peer_frame_bytes = if voters.is_empty() { 0 } else { (memory_bytes / 4).clamp(least, 1 << 30) };
        let (advertised_host, advertised_port) = match self.get("advertise", Kind::advertise)? {
            Some((host, port)) => (host, port.unwrap_or(listen.port())),
            None if !listen.ip().is_unspecified() => (listen.ip().to_string(), listen.port()),
            None if !machine.hostname.is_empty() => (machine.hostname.clone(), listen.port()),
            None => {
                return Err(ConfigError::Together(format!(
                    "`listen` is {listen} and this host has no name: set `advertise` to the address that clients reach it by"
                )));
            }
        };
        Ok(Config {
            data_dir: self.need("data.dir", Kind::text)?.into(),
            listen,
            http: self.get("http", Kind::listen)?,
            shards: match self.get("shards", Kind::integer)? {
                Some(shards) => shards as u16,
                None => machine.cores.clamp(1, limits::MAX_SHARDS),
            },
            memory_bytes,
            frame_bytes,
            max_request_bytes: max_request_bytes as usize,
            connections_max_idle_ms: self.need("connections.max.idle.ms", Kind::integer)? as u64,
            cluster_id,
            peer_frame_bytes,
            log_format: match self.need("log.format", Kind::text)?.as_str() {
                "json" => LogFormat::Json,
                _ => LogFormat::Human,
            },
            log_level: self.need("log.level", Kind::text)?,
            broker: BrokerConfig {
                cluster_id: String::new(),
                broker_id,
                peers: voters,
                peer_address,
                directory_id: [0; 16],
                log_dir: String::new(),
                incarnation: 0,
                advertised_host,
                advertised_port,
                follower_throttled_rate: self.need("follower.replication.throttled.rate", Kind::size)?,
                rack: self.get("broker.rack", Kind::text)?,
                auto_create_topics: self.need("auto.create.topics.enable", Kind::bool)?,
                num_partitions: self.need("num.partitions", Kind::integer)? as i32,
                message_max_bytes: message_max_bytes as i32,
                max_connections: self.get("max.connections", Kind::integer)?.unwrap_or(0) as i32,
                max_connections_per_ip: self.need("max.connections.per.ip", Kind::integer)? as i32,
                retention_check_ms: self.need("log.retention.check.interval.ms", Kind::integer)? as u64,
                groups: self.groups()?,
                tail_bytes,
                read_cache_bytes,
                metadata_kept_bytes: limits::METADATA_KEPT_BYTES,
            },
        })
    }

    /// The voters in the order of their ids, none where the key is not given; and where this broker listens for the others.
    fn voters(&self, own: BrokerId) -> Result<(Vec<PeerAddress>, Option<PeerAddress>), ConfigError> {
        let mut voters = self.get("controller.quorum.voters", Kind::voters)?.unwrap_or_default();
        let refuse = |why: String| Err(ConfigError::Together(format!("`controller.quorum.voters` {why}")));
        voters.sort_by_key(|voter| voter.id);
        if let Some(two) = voters.windows(2).find(|two| two[0].id == two[1].id) {
            return refuse(format!("names broker {} twice", two[0].id.0));
        }
        for (n, voter) in voters.iter().enumerate() {
            if let Some(other) = voters[..n].iter().find(|o| (&o.host, o.port) == (&voter.host, voter.port)) {
                let (a, b) = (other.id.0, voter.id.0);
                return refuse(format!("gives brokers {a} and {b} the same address, {}:{}", voter.host, voter.port));
            }
        }
        if voters.len() > limits::MAX_BROKERS {
            return refuse(format!(
                "names {} brokers, more than the {} there may be",
                voters.len(),
                limits::MAX_BROKERS
            ));
        }
        let among_them = voters.iter().find(|voter| voter.id == own).cloned();
        let address = match self.get("inter.broker.listener", Kind::advertise)? {
            None if voters.is_empty() || among_them.is_some() => among_them,
            None => {
                return refuse(format!(
                    "does not name this broker, whose `node.id` is {}: to join the brokers that it names, set \
                     `inter.broker.listener` to the address that this one listens on for them",
                    own.0
                ));
            }
            Some(_) if voters.is_empty() => {
                return refuse("is not set, and says which brokers one with an `inter.broker.listener` joins".into());
            }
            Some((_, None)) => {
                return Err(ConfigError::Together("`inter.broker.listener` names no port".into()));
            }
            Some((host, Some(port))) => Some(PeerAddress { id: own, host, port }),
        };
        Ok((voters, address))
    }

    fn groups(&self) -> Result<GroupConfig, ConfigError> {
        let integer = |name| self.need(name, Kind::integer);
        let range = |min, max| Ok(integer(min)? as u64..=integer(max)? as u64);
        let groups = GroupConfig {
            offsets_partitions: integer("offsets.topic.num.partitions")? as u32,
            initial_rebalance_delay_ms: integer("group.initial.rebalance.delay.ms")? as u64,
            min_session_timeout_ms: integer("group.min.session.timeout.ms")?,
            max_session_timeout_ms: integer("group.max.session.timeout.ms")?,
            max_size: integer("group.max.size")? as usize,
            offsets_retention_ms: integer("offsets.retention.minutes")? * 60_000,
            consumer_session_timeout_ms: integer("group.consumer.session.timeout.ms")? as u64,
            consumer_session_timeouts_ms: range(
                "group.consumer.min.session.timeout.ms",
                "group.consumer.max.session.timeout.ms",
            )?,
            consumer_heartbeat_interval_ms: integer("group.consumer.heartbeat.interval.ms")? as u64,
            consumer_heartbeat_intervals_ms: range(
                "group.consumer.min.heartbeat.interval.ms",
                "group.consumer.max.heartbeat.interval.ms",
            )?,
            consumer_assignment_interval_ms: integer("group.consumer.assignment.interval.ms")? as u64,
            consumer_max_size: integer("group.consumer.max.size")? as usize,
            consumer_assignors: self.need("group.consumer.assignors", Kind::text)?,
            consumer_migration_policy: self.need("group.consumer.migration.policy", Kind::text)?,
        };
        if groups.consumer_heartbeat_interval_ms >= groups.consumer_session_timeout_ms {
            return Err(ConfigError::Together(format!(
                "`group.consumer.heartbeat.interval.ms` is {}, not less than the {} of `group.consumer.session.timeout.ms`",
                groups.consumer_heartbeat_interval_ms, groups.consumer_session_timeout_ms,
            )));
        }
        for (name, value, range) in [
            ("session.timeout.ms", groups.consumer_session_timeout_ms, &groups.consumer_session_timeouts_ms),
            ("heartbeat.interval.ms", groups.consumer_heartbeat_interval_ms, &groups.consumer_heartbeat_intervals_ms),
        ] {
            if !range.contains(&value) {
                return Err(ConfigError::Together(format!(
                    "`group.consumer.{name}` is {value}, which is not from the {} of `group.consumer.min.{name}` to the {} \
                     of `group.consumer.max.{name}`",
                    range.start(),
                    range.end(),
                )));
            }
        }
        if groups.min_session_timeout_ms > groups.max_session_timeout_ms {
            return Err(ConfigError::Together(format!(
                "`group.min.session.timeout.ms` is {}, more than the {} of `group.max.session.timeout.ms`",
                groups.min_session_timeout_ms, groups.max_session_timeout_ms,
            )));
        }
        Ok(groups)
    }

    /// The value that was given for the key `name`, or its default, read by `read`; none where neither is there.
    fn get<T>(&self, name: &str, read: impl Fn(Kind, &str) -> Option<T>) -> Result<Option<T>, ConfigError> {
        let key = Key::named(name).expect("resolve asks for keys of the table only");
        let Some((origin, text)) = self.given.get(key.name) else {
            return Ok(match key.default {
                Default::Is(text) => Some(read(key.kind, text).expect("a default is of its key's form")),
                Default::Found(_) => None,
            });
        };
        match read(key.kind, text) {
            Some(value) => Ok(Some(value)),
            None => Err(ConfigError::Value {
                origin: origin.clone(),
                key: key.name,
                text: format!("`{text}`"),
                expected: key.kind.expected(),
            }),
        }
    }

    /// The same, for a key whose default is a value.
    fn need<T>(&self, name: &str, read: impl Fn(Kind, &str) -> Option<T>) -> Result<T, ConfigError> {
        Ok(self.get(name, read)?.expect("the key has a default"))
    }
}

#[cfg(test)]
mod tests;
