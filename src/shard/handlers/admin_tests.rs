//! What the tests of the administrative APIs share.

use std::collections::BTreeMap;

use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

use crate::config::{BrokerConfig, GroupConfig};
use crate::metadata::command::{NewBroker, NewPartition, NewTopic};
use crate::metadata::{Command, State};
use crate::types::BrokerId;

pub(super) fn config() -> BrokerConfig {
    BrokerConfig {
        cluster_id: "a-cluster".to_owned(),
        broker_id: BrokerId(1),
        peers: Vec::new(),
        peer_address: None,
        directory_id: [0; 16],
        log_dir: "/data".to_owned(),
        incarnation: 0,
        advertised_host: "localhost".to_owned(),
        advertised_port: 9092,
        rack: None,
        follower_throttled_rate: 1 << 20,
        auto_create_topics: true,
        num_partitions: 2,
        message_max_bytes: 1_048_588,
        max_connections: 100,
        max_connections_per_ip: i32::MAX,
        retention_check_ms: 300_000,
        groups: GroupConfig::default(),
        tail_bytes: 0,
        read_cache_bytes: 0,
        metadata_kept_bytes: 0,
    }
}

/// A state with brokers 1 up to `brokers`, and topics of these names and numbers of partitions; their ids count from 1.
pub(super) fn state(brokers: i32, topics: &[(&str, usize)]) -> State {
    let mut state = State::default();
    for id in 1..=brokers {
        let broker = NewBroker {
            id: BrokerId(id),
            host: format!("host-{id}"),
            port: 9000 + id as u16,
            rack: (id > 1).then(|| format!("rack-{id}")),
            incarnation: 0,
            directory_id: [id as u8; 16],
        };
        state.apply(id as u64, &Command::RegisterBroker(broker));
    }
    let new_topic = |(&(name, partitions), id): (&(&str, usize), u128)| NewTopic {
        name: name.to_owned(),
        id: Uuid::from_u128(id),
        partitions: vec![NewPartition { replicas: vec![BrokerId(1)] }; partitions],
        configs: BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]),
    };
    let topics = topics.iter().zip(1..).map(new_topic).collect();
    state.apply(100, &Command::CreateTopics { topics });
    state
}

pub(super) fn name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Asserts that the response can be written in each of the versions.
pub(super) fn assert_encodable(response: &impl Encodable, versions: std::ops::RangeInclusive<i16>) {
    for version in versions {
        let mut bytes = Vec::new();
        response.encode(&mut bytes, version).unwrap_or_else(|error| panic!("version {version}: {error}"));
        assert_eq!(response.compute_size(version).unwrap(), bytes.len());
    }
}
