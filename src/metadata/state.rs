//! The state that the metadata's log leads to.

mod alter;
mod brokers;
mod moves;

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::Bound;
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, checksum};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use brokers::RegisterRefusal;

use super::command::{Command, NewBroker, NewTopic, uuid_as_bytes};
use super::names;
use super::nodes::Nodes;
use super::own::{OwnConfigs, Owner};
use super::quotas::{Entity, Quota, Quotas, Rate};
use crate::codec;
use crate::limits::MAX_TOPIC_METADATA_BYTES;
use crate::types::{BrokerId, LogId, Map};

/// Brokers, topics and counters as of one index of the metadata's log.
///
/// Applying the same commands gives an equal state everywhere: nothing but the commands goes into it.
#[derive(Clone, Debug)]
pub struct State {
    applied: u64,
    next_log_id: u64,
    next_producer_id: i64,
    brokers: BTreeMap<BrokerId, NewBroker>,
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: Map<Uuid, Arc<Topic>>,
    /// Topics with '.' or '_' in their names, by [`names::folded`]: no two may share one.
    by_folded: Map<String, Arc<Topic>>,
    partitions: usize,
    /// The partitions whose replicas were ever moved.
    moves: BTreeMap<LogId, Move>,
    /// Those of them that are being moved: leaders look for them all the time, and most have arrived long since.
    moving: BTreeSet<LogId>,
    moves_weight: Weight,
    /// What all topics weigh together.
    topics_weight: Weight,
    /// What all brokers weigh together.
    brokers_weight: Weight,
    /// Configs of all brokers, whatever a broker's file says: those that they give to topics under the topic config's
    /// name, others under their own.
    defaults: BTreeMap<String, String>,
    quotas: Quotas,
    /// What all quotas weigh together.
    quotas_weight: Weight,
    own: OwnConfigs,
    /// What the configs of single brokers and of groups weigh together.
    own_weight: Weight,
    nodes: Nodes,
    nodes_weight: Weight,
}

/// The bytes of a part of the state in a snapshot: how many, and a checksum. It can be added up in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weight {
    bytes: usize,
    checksum: u64,
}

impl Weight {
    /// The checksum is a CRC, because its value must be the same in every build of every version that may be in one
    /// cluster.
    fn of<T: Serialize>(part: &T) -> Weight {
        let bytes = codec::encode(part);
        Weight { bytes: bytes.len(), checksum: checksum(CrcAlgorithm::Crc64Nvme, &bytes) }
    }

    fn add(&mut self, part: Weight) {
        self.bytes += part.bytes;
        self.checksum = self.checksum.wrapping_add(part.checksum);
    }

    fn remove(&mut self, part: Weight) {
        self.bytes -= part.bytes;
        self.checksum = self.checksum.wrapping_sub(part.checksum);
    }
}

/// A topic. It does not change: what will is put in its place as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its name.
    #[serde(with = "str_in_arc")]
    pub name: Arc<str>,
    /// Its id; a topic that is created again under its name has another.
    #[serde(with = "uuid_as_bytes")]
    pub id: Uuid,
    /// Its partitions, by number.
    pub partitions: Box<[Partition]>,
    /// Configs that were set for it, by Kafka's names; see [`super::configs::TopicConfig::resolve`].
    pub configs: BTreeMap<String, String>,
}

/// Where a partition's records are. Its leader and epoch are not metadata: they are its Raft group's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its log.
    pub log: LogId,
    /// The brokers that hold a copy, the preferred leader first; never empty.
    pub replicas: Box<[BrokerId]>,
}

/// What became of the replicas of a partition since it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Its topic.
    #[serde(with = "uuid_as_bytes")]
    pub topic: Uuid,
    /// Its number.
    pub partition: u32,
    /// The brokers that it was made on: the members of its Raft group before the first change in its log.
    pub first: Vec<BrokerId>,
    /// How many times it was said where its replicas are to go.
    pub number: u32,
    /// The lives of the replicas that moves have made: the number of the move that did. A broker that lost its replica and
    /// gets another remembers nothing of what the first one promised, so to Raft it is another member.
    pub lives: Vec<(BrokerId, u32)>,
    /// The brokers that may have a replica beside those that the partition names; none when nothing is moved.
    pub beside: Vec<BrokerId>,
    /// The brokers that are to have its replicas in the end; none when nothing is moved.
    pub target: Option<Vec<BrokerId>>,
}

impl Move {
    /// The life of a broker's replica.
    pub fn life(&self, broker: BrokerId) -> u32 {
        self.lives.iter().find(|(known, _)| *known == broker).map_or(0, |(_, life)| *life)
    }
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A broker is new, or its address or incarnation is.
    BrokerRegistered {
        /// The broker.
        id: BrokerId,
    },
    /// A broker is not let in; [`State::refuses`] says why.
    RegisterRejected {
        /// The broker.
        id: BrokerId,
    },
    /// A broker is not of the cluster any more.
    BrokerUnregistered {
        /// The broker.
        id: BrokerId,
    },
    /// Others are to vote on the metadata.
    VotersAltered,
    /// A topic is there, with all its partitions.
    TopicCreated {
        /// The topic.
        topic: Arc<Topic>,
    },
    /// A topic is gone; its logs are to be deleted.
    TopicDeleted {
        /// The topic as it was.
        topic: Arc<Topic>,
    },
    /// The replicas of a partition are to be moved, or have moved.
    ReplicasMove {
        /// The topic as it is now.
        topic: Arc<Topic>,
        /// The partition's number.
        partition: usize,
    },
    /// A topic of a CreateTopics command was not created.
    CreateRejected {
        /// Its name.
        name: String,
        /// The id it would have had.
        id: Uuid,
        /// Why.
        why: Rejection,
    },
    /// A topic of a DeleteTopics command was not there any more.
    DeleteRejected {
        /// Its id.
        id: Uuid,
    },
    /// Producer ids `first..first + count` are the broker's to hand out.
    ProducerIds {
        /// The broker.
        broker: BrokerId,
        /// The first.
        first: i64,
        /// How many; 0 where none are left.
        count: u32,
    },
    /// A topic has further partitions.
    PartitionsCreated {
        /// The topic as it is.
        topic: Arc<Topic>,
        /// The number of the first that is new.
        first: usize,
    },
    /// A topic has other configs.
    ConfigsAltered {
        /// The topic as it is.
        topic: Arc<Topic>,
    },
    /// What all brokers have in common is another.
    DefaultsAltered,
    /// A broker or a group has other configs.
    OwnConfigsAltered {
        /// Whose they are.
        owner: Owner,
    },
    /// Quotas were set or removed.
    QuotasAltered,
    /// The command has done nothing, because another one came before it after it had been planned.
    Overtaken,
    /// The command has done nothing, because the topics would have more than [`MAX_TOPIC_METADATA_BYTES`], or the
    /// quotas more than [`crate::limits::MAX_QUOTA_BYTES`], or the configs of brokers and groups more than
    /// [`crate::limits::MAX_OWN_CONFIG_BYTES`].
    Full,
}

/// Why a topic could not be created: something came before its command, after the command had been planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A topic has its name.
    NameTaken,
    /// A topic has its id: an earlier try of the same request has made it.
    IdTaken,
    /// This topic's name differs in nothing but '.' and '_'.
    NameCollides(Arc<str>),
    /// The topics would have more than [`MAX_TOPIC_METADATA_BYTES`].
    Full,
    /// A broker that was to have a replica was removed.
    BrokerRemoved,
}

/// All of a [`State`], to be kept in place of the log before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The index of the last command in it.
    pub applied: u64,
    next_log_id: u64,
    next_producer_id: i64,
    brokers: Vec<NewBroker>,
    topics: Vec<Topic>,
    defaults: BTreeMap<String, String>,
    quotas: Vec<(Entity, BTreeMap<Quota, Rate>)>,
    moves: Vec<(LogId, Move)>,
    own: OwnConfigs,
    nodes: Nodes,
}

/// Why a snapshot is no state: it was not made by [`State::snapshot`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Two brokers share an id.
    #[error("broker {} is there twice", .0.0)]
    DuplicateBroker(BrokerId),
    /// Two topics share a name or an id, or their names collide.
    #[error("topic '{0}' is there twice")]
    DuplicateTopic(Arc<str>),
    /// A log belongs to no partition yet, or to two.
    #[error("topic '{topic}' has log {log}, which is not its own")]
    Log {
        /// The topic.
        topic: Arc<str>,
        /// The log.
        log: LogId,
    },
    /// The replicas of a log were moved that belongs to no partition.
    #[error("the replicas of log {0} were moved, which is no partition's")]
    Move(LogId),
    /// A partition without replicas, or a topic without partitions.
    #[error("topic '{0}' has no partitions, or one of them no replicas")]
    Empty(Arc<str>),
}

impl Default for State {
    fn default() -> State {
        State {
            applied: 0,
            next_log_id: LogId::METADATA.0 + 1,
            next_producer_id: 0,
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            by_id: Map::default(),
            by_folded: Map::default(),
            partitions: 0,
            moves: BTreeMap::new(),
            moving: BTreeSet::new(),
            moves_weight: Weight::default(),
            topics_weight: Weight::default(),
            brokers_weight: Weight::default(),
            defaults: BTreeMap::new(),
            quotas: Quotas::new(),
            quotas_weight: Weight::default(),
            own: OwnConfigs::default(),
            own_weight: Weight::default(),
            nodes: Nodes::default(),
            nodes_weight: Weight::of(&Nodes::default()),
        }
    }
}

impl State {
    /// The index of the last command applied; 0 before the first.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The log that the next partition will get.
    pub fn next_log_id(&self) -> LogId {
        LogId(self.next_log_id)
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The topic of this id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics, ordered by name.
    pub fn topics(&self) -> btree_map::Values<'_, Arc<str>, Arc<Topic>> {
        self.topics.values()
    }

    /// The topics whose names come after `name`, in their order.
    pub fn topics_after(&self, name: &str) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.range::<str, _>((Bound::Excluded(name), Bound::Unbounded)).map(|(_, topic)| topic)
    }

    /// Number of partitions of all topics.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// The broker of this id.
    pub fn broker(&self, id: BrokerId) -> Option<&NewBroker> {
        self.brokers.get(&id)
    }

    /// All brokers, ordered by id.
    pub fn brokers(&self) -> btree_map::Values<'_, BrokerId, NewBroker> {
        self.brokers.values()
    }

    /// The topic whose name differs from `name` in nothing but '.' and '_', or not at all.
    pub fn colliding(&self, name: &str) -> Option<&Arc<Topic>> {
        if !names::can_collide(name) {
            return None;
        }
        self.by_folded.get(&names::folded(name))
    }

    /// Applies the entry at `index` of the metadata's log, and says what it did, in the order of the command.
    ///
    /// Total: what became impossible since the command was planned is left out and reported.
    pub fn apply(&mut self, index: u64, command: &Command) -> Vec<Change> {
        self.skip_to(index);
        match command {
            Command::RegisterBroker(broker) => vec![self.register(broker, None)],
            Command::RegisterPeer { broker, address } => vec![self.register(broker, Some(address))],
            Command::AlterVoters(voters) => vec![self.alter_voters(voters)],
            Command::UnregisterBroker { id } => vec![self.unregister(*id)],
            Command::CreateTopics { topics } => topics.iter().map(|topic| self.create(topic)).collect(),
            Command::DeleteTopics { ids } => ids.iter().map(|&id| self.delete(id)).collect(),
            Command::AllocateProducerIds { broker, count } => vec![self.allocate_producer_ids(*broker, *count)],
            Command::CreatePartitions { topics } => self.create_partitions(topics),
            Command::AlterQuotas { changes } => vec![self.alter_quotas(changes)],
            Command::AlterConfigs { topics, defaults } => self.alter_configs(topics, defaults.as_ref(), &[]),
            Command::MoveReplicas { moves } => self.move_all(moves),
            Command::ReplicasMoved { placed, number } => self.replicas_moved(placed, *number).into_iter().collect(),
            Command::AlterOwnConfigs { topics, defaults, owners } => {
                self.alter_configs(topics, defaults.as_ref(), owners)
            }
        }
    }

    /// Notes that the log's entry at `index` carries no command (Raft's own entries).
    pub fn skip_to(&mut self, index: u64) {
        assert!(
            index > self.applied,
            "metadata entry {index} after {}: entries are applied once and in order",
            self.applied
        );
        self.applied = index;
    }

    fn create(&mut self, new: &NewTopic) -> Change {
        let rejection = if self.by_id.contains_key(&new.id) {
            Some(Rejection::IdTaken)
        } else if new.partitions.iter().any(|partition| self.any_removed(&partition.replicas)) {
            Some(Rejection::BrokerRemoved)
        } else if self.topics.contains_key(new.name.as_str()) {
            Some(Rejection::NameTaken)
        } else {
            self.colliding(&new.name).map(|topic| Rejection::NameCollides(topic.name.clone()))
        };
        if let Some(why) = rejection {
            return Change::CreateRejected { name: new.name.clone(), id: new.id, why };
        }
        let partitions = new
            .partitions
            .iter()
            .zip(self.next_log_id..)
            .map(|(partition, log)| Partition { log: LogId(log), replicas: partition.replicas.as_slice().into() });
        let topic = Arc::new(Topic {
            name: new.name.as_str().into(),
            id: new.id,
            partitions: partitions.collect(),
            configs: new.configs.clone(),
        });
        let weight = Weight::of(&*topic);
        if self.topics_weight.bytes + self.moves_weight.bytes + weight.bytes > MAX_TOPIC_METADATA_BYTES {
            return Change::CreateRejected { name: new.name.clone(), id: new.id, why: Rejection::Full };
        }
        self.next_log_id += topic.partitions.len() as u64;
        self.insert_topic(&topic, weight);
        Change::TopicCreated { topic }
    }

    fn delete(&mut self, id: Uuid) -> Change {
        let Some(topic) = self.take_topic(id) else {
            return Change::DeleteRejected { id };
        };
        for partition in &topic.partitions {
            self.set_move(partition.log, None);
        }
        Change::TopicDeleted { topic }
    }

    /// Takes a topic out, to be deleted or to come back changed: what its replicas have been through stays known.
    fn take_topic(&mut self, id: Uuid) -> Option<Arc<Topic>> {
        let topic = self.by_id.remove(&id)?;
        self.topics.remove(&topic.name);
        if names::can_collide(&topic.name) {
            self.by_folded.remove(&names::folded(&topic.name));
        }
        self.partitions -= topic.partitions.len();
        self.topics_weight.remove(Weight::of(&*topic));
        Some(topic)
    }

    fn allocate_producer_ids(&mut self, broker: BrokerId, count: u32) -> Change {
        let first = self.next_producer_id;
        match first.checked_add(i64::from(count)) {
            Some(next) => {
                self.next_producer_id = next;
                Change::ProducerIds { broker, first, count }
            }
            None => Change::ProducerIds { broker, first, count: 0 },
        }
    }

    fn insert_topic(&mut self, topic: &Arc<Topic>, weight: Weight) {
        self.topics_weight.add(weight);
        self.partitions += topic.partitions.len();
        if names::can_collide(&topic.name) {
            self.by_folded.insert(names::folded(&topic.name), topic.clone());
        }
        self.topics.insert(topic.name.clone(), topic.clone());
        self.by_id.insert(topic.id, topic.clone());
    }

    /// A number that is equal wherever the same commands were applied up to the same index, and all but surely
    /// another where the states differ. Costs the same however large the state is.
    pub fn hash(&self) -> u64 {
        let (topics, brokers) = (self.topics_weight.checksum, self.brokers_weight.checksum);
        let (defaults, quotas) = (Weight::of(&self.defaults).checksum, self.quotas_weight.checksum);
        let counters = (self.applied, self.next_log_id, self.next_producer_id);
        let (moves, own, nodes) = (self.moves_weight.checksum, self.own_weight.checksum, self.nodes_weight.checksum);
        Weight::of(&(counters, topics, brokers, defaults, quotas, moves, own, nodes)).checksum
    }

    /// All of the state, to go on from at the next index.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            applied: self.applied,
            next_log_id: self.next_log_id,
            next_producer_id: self.next_producer_id,
            brokers: self.brokers.values().cloned().collect(),
            topics: self.topics.values().map(|topic| Topic::clone(topic)).collect(),
            defaults: self.defaults.clone(),
            quotas: self.quotas.clone().into_iter().collect(),
            moves: self.moves.iter().map(|(log, moved)| (*log, moved.clone())).collect(),
            own: self.own.clone(),
            nodes: self.nodes.clone(),
        }
    }

    /// The state that the snapshot was made of.
    ///
    /// # Errors
    /// Where the snapshot breaks what holds in every state.
    pub fn from_snapshot(snapshot: Snapshot) -> Result<State, SnapshotError> {
        let mut state = State {
            applied: snapshot.applied,
            next_log_id: snapshot.next_log_id,
            next_producer_id: snapshot.next_producer_id,
            defaults: snapshot.defaults,
            nodes_weight: Weight::of(&snapshot.nodes),
            nodes: snapshot.nodes,
            ..State::default()
        };
        state.set_quotas(snapshot.quotas.into_iter().collect());
        state.set_own(snapshot.own);
        for broker in snapshot.brokers {
            if state.brokers.contains_key(&broker.id) {
                return Err(SnapshotError::DuplicateBroker(broker.id));
            }
            state.insert_broker(broker);
        }
        let mut logs = crate::types::Set::default();
        for topic in snapshot.topics {
            let topic = Arc::new(topic);
            let taken = state.topics.contains_key(&topic.name)
                || state.by_id.contains_key(&topic.id)
                || state.colliding(&topic.name).is_some();
            if taken {
                return Err(SnapshotError::DuplicateTopic(topic.name.clone()));
            }
            if topic.partitions.is_empty() || topic.partitions.iter().any(|partition| partition.replicas.is_empty()) {
                return Err(SnapshotError::Empty(topic.name.clone()));
            }
            for partition in &topic.partitions {
                let log = partition.log;
                if log == LogId::METADATA || log.0 >= state.next_log_id || !logs.insert(log) {
                    return Err(SnapshotError::Log { topic: topic.name.clone(), log });
                }
            }
            let weight = Weight::of(&*topic);
            state.insert_topic(&topic, weight);
        }
        for (log, moved) in snapshot.moves {
            if !logs.contains(&log) {
                return Err(SnapshotError::Move(log));
            }
            state.set_move(log, Some(moved));
        }
        Ok(state)
    }
}

/// A shared string as its bytes.
mod str_in_arc {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Arc::from)
    }
}

#[cfg(test)]
mod tests;
