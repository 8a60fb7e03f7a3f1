//! What the metadata's log consists of.
//!
//! A variant keeps its place and its fields for ever, as they are in logs on disk; what is new gets a new variant
//! at the end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::nodes::Voters;
use super::own::Owner;
use super::quotas::QuotaChange;
use crate::types::{BrokerId, PeerAddress};

/// A change of the metadata: one entry of the metadata's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A broker started, or its address changed.
    RegisterBroker(NewBroker),
    /// All topics of one CreateTopics request that passed its checks.
    CreateTopics {
        /// The topics, in the order of the request.
        topics: Vec<NewTopic>,
    },
    /// Topics to delete, for good.
    DeleteTopics {
        /// Their ids; a name would also hit a topic that was created again meanwhile.
        #[serde(with = "uuids_as_bytes")]
        ids: Vec<Uuid>,
    },
    /// A block of producer ids for one broker to hand out.
    AllocateProducerIds {
        /// The broker.
        broker: BrokerId,
        /// How many; at least 1.
        count: u32,
    },
    /// Further partitions of topics, all that passed the checks of one CreatePartitions request.
    CreatePartitions {
        /// The topics, each once.
        topics: Vec<MorePartitions>,
    },
    /// Other configs, all that passed the checks of one AlterConfigs or IncrementalAlterConfigs request.
    AlterConfigs {
        /// Of topics, each once.
        topics: Vec<TopicConfigs>,
        /// Of all brokers: what they give to topics that set nothing of their own.
        defaults: Option<Configs>,
    },
    /// Quotas that are set or removed, all that passed the checks of one AlterClientQuotas request.
    AlterQuotas {
        /// Each entity's quota once.
        changes: Vec<QuotaChange>,
    },
    /// Partitions whose replicas are to be moved, or moved back.
    MoveReplicas {
        /// The partitions, each with the brokers that are to have its replicas in the end.
        moves: Vec<Placed>,
    },
    /// The replicas of a partition have arrived where they were to be moved.
    ReplicasMoved {
        /// The partition, and the brokers that have its replicas now.
        placed: Placed,
        /// The number of the move: see [`super::state::Move::number`].
        number: u32,
    },
    /// As `AlterConfigs`, where single brokers or groups are among what it is about.
    AlterOwnConfigs {
        /// Of topics, each once.
        topics: Vec<TopicConfigs>,
        /// Of all brokers.
        defaults: Option<Configs>,
        /// Of single brokers and of groups, each once.
        owners: Vec<OwnerConfigs>,
    },
    /// As `RegisterBroker`, of a broker of a cluster that may have others.
    RegisterPeer {
        /// The broker.
        broker: NewBroker,
        /// Where it listens for the others.
        address: PeerAddress,
    },
    /// Others are to vote on the metadata.
    AlterVoters(Voters),
    /// A broker goes for good, and its number with it.
    UnregisterBroker {
        /// The broker.
        id: BrokerId,
    },
}

/// Further partitions of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MorePartitions {
    /// The topic.
    #[serde(with = "uuid_as_bytes")]
    pub id: Uuid,
    /// How many partitions it has: where that has changed, the command does nothing, and is to be planned again.
    pub before: u32,
    /// Those that are added, in the order of their numbers.
    pub partitions: Vec<NewPartition>,
}

/// Other configs of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfigs {
    /// The topic.
    #[serde(with = "uuid_as_bytes")]
    pub id: Uuid,
    /// The configs.
    pub configs: Configs,
}

/// Other configs of a broker or of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerConfigs {
    /// Whose.
    pub owner: Owner,
    /// The configs.
    pub configs: Configs,
}

/// One set of configs in the place of another, checked by [`super::configs`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configs {
    /// What was set: where that has changed, the command does nothing, and is to be planned again.
    pub before: BTreeMap<String, String>,
    /// What is set from now on.
    pub after: BTreeMap<String, String>,
}

/// A partition, and the brokers that have or are to have its replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Its topic.
    #[serde(with = "uuid_as_bytes")]
    pub topic: Uuid,
    /// Its number.
    pub partition: u32,
    /// The brokers, the preferred leader first.
    pub replicas: Vec<BrokerId>,
}

/// A broker as it registers itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBroker {
    /// `node.id`.
    pub id: BrokerId,
    /// Host that clients are told to connect to.
    pub host: String,
    /// Port that clients are told to connect to.
    pub port: u16,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Drawn anew at every start of the broker.
    pub incarnation: u64,
    /// Drawn when its data directory was made.
    pub directory_id: [u8; 16],
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Its id, drawn by whoever proposes the command.
    #[serde(with = "uuid_as_bytes")]
    pub id: Uuid,
    /// Its partitions, in the order of their numbers. Their logs get their ids when the command is applied, so that
    /// two commands on their way at once cannot claim the same.
    pub partitions: Vec<NewPartition>,
    /// Configs that differ from the broker's, by Kafka's names; checked by [`super::configs`].
    pub configs: BTreeMap<String, String>,
}

/// A partition to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPartition {
    /// The brokers that get a copy, the preferred leader first.
    pub replicas: Vec<BrokerId>,
}

/// An id as its 16 bytes.
pub(super) mod uuid_as_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use uuid::Uuid;

    pub fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        id.as_bytes().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        <[u8; 16]>::deserialize(deserializer).map(Uuid::from_bytes)
    }
}

/// Ids as their number, then 16 bytes each.
mod uuids_as_bytes {
    use serde::{Deserialize, Deserializer, Serializer};
    use uuid::Uuid;

    pub fn serialize<S: Serializer>(ids: &[Uuid], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ids.iter().map(Uuid::as_bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Uuid>, D::Error> {
        let ids = Vec::<[u8; 16]>::deserialize(deserializer)?;
        Ok(ids.into_iter().map(Uuid::from_bytes).collect())
    }
}
