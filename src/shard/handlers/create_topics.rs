//! CreateTopics: which topics of a request are to be created, and what the client is told.

use std::collections::BTreeMap;

use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::describe_configs::broker_values;
use crate::config::BrokerConfig;
use crate::group::OFFSETS_TOPIC;
use crate::limits::{MAX_PARTITIONS, MAX_PARTITIONS_PER_REQUEST};
use crate::metadata::command::{NewPartition, NewTopic};
use crate::metadata::configs::{self, Kind};
use crate::metadata::placement::Placement;
use crate::metadata::state::{Partition, Rejection};
use crate::metadata::{Change, Command, State, names};
use crate::protocol::ErrorCode;
use crate::types::{BrokerId, LogId, Map, Set};

/// The log of the metadata in systems that make it a topic: clients may not create one of that name.
pub(super) const METADATA_TOPIC: &str = "__cluster_metadata";

/// What to do about a request.
#[derive(Debug)]
pub struct Plan {
    /// The command to propose; none where nothing is to be created.
    pub command: Option<Command>,
    /// The answer once the command is applied (see [`note_rejections`]), or at once where there is none.
    pub response: CreateTopicsResponse,
}

/// First version whose answer lists the configs of a new topic.
const FIRST_WITH_CONFIGS: i16 = 5;

/// Why a topic is not created, with the message for the client.
pub(super) type Refusal = (ErrorCode, String);

/// Checks the request against the state, and places the partitions of the topics that pass, with regard to those of
/// commands that are `under_way`. `new_id` gives the id of the
/// topic at a place in the request: one that was never used in the cluster, but by an earlier try of this request.
pub fn plan(
    state: &State,
    config: &BrokerConfig,
    under_way: &[NewPartition],
    request: &CreateTopicsRequest,
    version: i16,
    new_id: &dyn Fn(usize) -> Uuid,
) -> Plan {
    let requested = requested_in_all(request, config);
    if requested > MAX_PARTITIONS_PER_REQUEST as u64 {
        let message = format!(
            "The request would create {requested} partitions, at most {MAX_PARTITIONS_PER_REQUEST} are allowed."
        );
        let results = super::distinct(&request.topics, |topic| &topic.name)
            .into_iter()
            .map(|(topic, _)| refused(&topic.name, ErrorCode::PolicyViolation, Some(message.clone())));
        return Plan { command: None, response: CreateTopicsResponse::default().with_topics(results.collect()) };
    }
    let mut planner = Planner {
        state,
        config,
        placement: Placement::new(state, under_way.iter()),
        partitions: 0,
        folded: Set::default(),
    };
    let mut topics = Vec::new();
    let mut results = Vec::with_capacity(request.topics.len());
    for (place, (topic, times)) in super::distinct(&request.topics, |topic| &topic.name).into_iter().enumerate() {
        let planned = if times > 1 {
            Err((ErrorCode::InvalidRequest, "Duplicate topic name.".to_owned()))
        } else {
            planner.topic(topic)
        };
        results.push(match planned {
            Ok((partitions, configs)) => {
                // A topic that is only validated gets no id: there will be none of that id.
                let id = if request.validate_only { Uuid::nil() } else { new_id(place) };
                let new = NewTopic { name: topic.name.to_string(), id, partitions, configs };
                let result = success(&topic.name, &new, (state, config), version);
                topics.push(new);
                result
            }
            Err((error, message)) => refused(&topic.name, error, Some(message)),
        });
    }
    let command = (!topics.is_empty() && !request.validate_only).then_some(Command::CreateTopics { topics });
    Plan { command, response: CreateTopicsResponse::default().with_topics(results) }
}

/// Corrects a planned answer by what its command did: topics that could not be created any more are errors.
pub fn note_rejections(response: &mut CreateTopicsResponse, changes: &[Change]) {
    let rejections: Map<&str, &Rejection> = changes
        .iter()
        .filter_map(|change| match change {
            Change::CreateRejected { name, why, .. } => Some((name.as_str(), why)),
            _ => None,
        })
        .collect();
    for result in response.topics.iter_mut().filter(|result| result.error_code == 0) {
        let Some(why) = rejections.get(result.name.as_str()) else {
            continue;
        };
        let (error, message) = match why {
            Rejection::NameTaken => (ErrorCode::TopicAlreadyExists, exists(&result.name)),
            Rejection::NameCollides(other) => (ErrorCode::InvalidTopicException, collides(&result.name, other)),
            Rejection::BrokerRemoved => {
                (ErrorCode::InvalidReplicaAssignment, "A broker was removed that was to have a replica.".to_owned())
            }
            Rejection::Full => (ErrorCode::PolicyViolation, "The cluster's metadata is full.".to_owned()),
            // An earlier try of this very request has made it.
            Rejection::IdTaken => continue,
        };
        *result = refused(&result.name, error, Some(message));
    }
}

/// Turns the errors of topics that an earlier try of the same request has made into successes; returns their logs.
pub fn note_made_before(
    response: &mut CreateTopicsResponse,
    state: &State,
    config: &BrokerConfig,
    request: &CreateTopicsRequest,
    version: i16,
    new_id: &dyn Fn(usize) -> Uuid,
) -> Vec<LogId> {
    let mut logs = Vec::new();
    for (place, (wanted, _)) in super::distinct(&request.topics, |topic| &topic.name).into_iter().enumerate() {
        let made = state.topic(&wanted.name).filter(|topic| !request.validate_only && topic.id == new_id(place));
        let (Some(topic), Some(result)) = (made, response.topics.get_mut(place)) else { continue };
        let replicas = |partition: &Partition| NewPartition { replicas: partition.replicas.to_vec() };
        let new = NewTopic {
            name: topic.name.to_string(),
            id: topic.id,
            partitions: topic.partitions.iter().map(replicas).collect(),
            configs: topic.configs.clone(),
        };
        *result = success(&wanted.name, &new, (state, config), version);
        logs.extend(topic.partitions.iter().map(|partition| partition.log));
    }
    logs
}

/// The answer that refuses every topic of the request for one reason.
pub fn failed(request: &CreateTopicsRequest, error: ErrorCode) -> CreateTopicsResponse {
    let results = super::distinct(&request.topics, |topic| &topic.name)
        .into_iter()
        .map(|(topic, _)| refused(&topic.name, error, None));
    CreateTopicsResponse::default().with_topics(results.collect())
}

/// How many partitions a topic asks for; 0 where its number is not a legal one.
fn requested_partitions(topic: &CreatableTopic, config: &BrokerConfig) -> u64 {
    match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) if &*topic.name.0 == OFFSETS_TOPIC => u64::from(config.groups.offsets_partitions),
        (0, -1) => config.num_partitions.max(0) as u64,
        (0, partitions) => partitions.max(0) as u64,
        (assigned, _) => assigned as u64,
    }
}

/// How many partitions a request asks for.
pub fn requested_in_all(request: &CreateTopicsRequest, config: &BrokerConfig) -> u64 {
    request.topics.iter().map(|topic| requested_partitions(topic, config)).sum()
}

/// Goes through the topics of one request.
struct Planner<'a> {
    state: &'a State,
    config: &'a BrokerConfig,
    placement: Placement,
    /// Partitions of the topics that passed so far.
    partitions: usize,
    /// The folded names of those of them that another name could collide with.
    folded: Set<String>,
}

impl Planner<'_> {
    /// The partitions and the configs of a topic that can be created.
    fn topic(&mut self, topic: &CreatableTopic) -> Result<(Vec<NewPartition>, BTreeMap<String, String>), Refusal> {
        self.check_name(&topic.name)?;
        let configs = check_configs(topic)?;
        let partitions = if topic.assignments.is_empty() { self.place(topic)? } else { self.assigned(topic)? };
        check_min_insync(&configs, partitions[0].replicas.len())?;
        if self.state.partitions() + self.partitions + partitions.len() > MAX_PARTITIONS {
            let message = format!("The cluster would have more than {MAX_PARTITIONS} partitions.");
            return Err((ErrorCode::PolicyViolation, message));
        }
        self.partitions += partitions.len();
        if names::can_collide(&topic.name) {
            self.folded.insert(names::folded(&topic.name));
        }
        Ok((partitions, configs))
    }

    fn check_name(&self, name: &str) -> Result<(), Refusal> {
        if name == METADATA_TOPIC {
            let message = format!("Creation of internal topic {METADATA_TOPIC} is prohibited.");
            return Err((ErrorCode::InvalidRequest, message));
        }
        names::validate(name).map_err(|message| (ErrorCode::InvalidTopicException, message))?;
        if self.state.topic(name).is_some() {
            return Err((ErrorCode::TopicAlreadyExists, exists(name)));
        }
        if let Some(other) = self.state.colliding(name) {
            return Err((ErrorCode::InvalidTopicException, collides(name, &other.name)));
        }
        if names::can_collide(name) && self.folded.contains(&names::folded(name)) {
            let message = format!("Topic '{name}' collides with another topic of the request.");
            return Err((ErrorCode::InvalidTopicException, message));
        }
        Ok(())
    }

    /// Partitions by number, where the broker chooses the replicas.
    fn place(&mut self, topic: &CreatableTopic) -> Result<Vec<NewPartition>, Refusal> {
        if topic.replication_factor < -1 || topic.replication_factor == 0 {
            let message = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err((ErrorCode::InvalidReplicationFactor, message.to_owned()));
        }
        if topic.num_partitions < -1 || topic.num_partitions == 0 {
            let message = "Number of partitions must be larger than 0, or -1 to use the default value.";
            return Err((ErrorCode::InvalidPartitions, message.to_owned()));
        }
        let partitions = requested_partitions(topic, self.config) as usize;
        let replication = match topic.replication_factor {
            -1 => self.config.default_replication_factor(self.placement.brokers()),
            replication => replication,
        } as usize;
        if replication > self.placement.brokers() {
            let message = format!(
                "Unable to replicate the partition {replication} time(s): The target replication factor of \
                 {replication} cannot be reached because only {} broker(s) are registered.",
                self.placement.brokers()
            );
            return Err((ErrorCode::InvalidReplicationFactor, message));
        }
        let first_log = LogId(self.state.next_log_id().0 + self.partitions as u64);
        Ok(self.placement.place(first_log, partitions, replication))
    }

    /// Partitions whose replicas the client chose.
    fn assigned(&mut self, topic: &CreatableTopic) -> Result<Vec<NewPartition>, Refusal> {
        for (value, what) in [
            (i32::from(topic.replication_factor), "replication factor"),
            (topic.num_partitions, "number of partitions"),
        ] {
            if value != -1 {
                let message = format!("With a manual partition assignment, the {what} must be -1.");
                return Err((ErrorCode::InvalidRequest, message));
            }
        }
        let wrong = |message: String| (ErrorCode::InvalidReplicaAssignment, message);
        let mut by_index: BTreeMap<i32, &CreatableReplicaAssignment> = BTreeMap::new();
        for assignment in &topic.assignments {
            let index = assignment.partition_index;
            if by_index.insert(index, assignment).is_some() {
                return Err(wrong(format!("Found multiple manual partition assignments for partition {index}.")));
            }
        }
        if by_index.keys().zip(0..).any(|(&index, wanted)| index != wanted) {
            return Err(wrong("Partitions should be a consecutive 0-based integer sequence.".to_owned()));
        }
        let replication = topic.assignments[0].broker_ids.len();
        let mut partitions = Vec::with_capacity(by_index.len());
        for (index, assignment) in by_index {
            let partition = check_assignment(self.state, index, &assignment.broker_ids, replication)?;
            self.placement.add(&partition.replicas);
            partitions.push(partition);
        }
        Ok(partitions)
    }
}

/// More replicas than there are will never have a record.
pub(super) fn check_min_insync(configs: &BTreeMap<String, String>, replicas: usize) -> Result<(), Refusal> {
    let wanted = configs::min_insync_replicas(configs).map_err(invalid_config)?;
    if wanted > replicas as i64 {
        let message = format!("min.insync.replicas is {wanted}, but there are only {replicas} replica(s).");
        return Err((ErrorCode::InvalidConfig, message));
    }
    Ok(())
}

/// The replicas that a client chose for one partition of a topic whose others have `replication` each.
pub(super) fn check_assignment(
    state: &State,
    index: i32,
    brokers: &[kafka_protocol::messages::BrokerId],
    replication: usize,
) -> Result<NewPartition, Refusal> {
    let wrong = |what: String| {
        let message = format!("The manual partition assignment of partition {index} {what}.");
        Err((ErrorCode::InvalidReplicaAssignment, message))
    };
    let mut replicas = Vec::with_capacity(brokers.len());
    for broker in brokers {
        let broker = BrokerId(broker.0);
        if state.broker(broker).is_none() {
            return wrong(format!("includes broker {}, but no such broker is registered", broker.0));
        }
        if replicas.contains(&broker) {
            return wrong(format!("includes broker {} more than once", broker.0));
        }
        replicas.push(broker);
    }
    if replicas.is_empty() {
        return wrong("is empty".to_owned());
    }
    if replicas.len() != replication {
        return wrong(format!("has {} replica(s), but that of others has {replication}", replicas.len()));
    }
    Ok(NewPartition { replicas })
}

fn check_configs(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Refusal> {
    let without_value: Vec<_> =
        topic.configs.iter().filter(|config| config.value.is_none()).map(|config| config.name.as_str()).collect();
    if !without_value.is_empty() {
        let message = format!("Null value not supported for topic configs: {}", without_value.join(","));
        return Err((ErrorCode::InvalidConfig, message));
    }
    let set = topic.configs.iter().filter_map(|config| Some((config.name.as_str(), config.value.as_deref()?)));
    configs::check_all(Kind::Topic, set).map_err(invalid_config)
}

pub(super) fn invalid_config(error: configs::InvalidConfig) -> Refusal {
    (ErrorCode::InvalidConfig, error.0)
}

fn exists(name: &str) -> String {
    format!("Topic '{name}' already exists.")
}

fn collides(name: &str, other: &str) -> String {
    format!("Topic '{name}' collides with existing topic: {other}")
}

fn success(
    name: &TopicName,
    topic: &NewTopic,
    (state, config): (&State, &BrokerConfig),
    version: i16,
) -> CreatableTopicResult {
    let broker = broker_values(state, config);
    let configs = (version >= FIRST_WITH_CONFIGS).then(|| configs::effective(&topic.configs, broker));
    let configs = configs.into_iter().flatten().map(|effective| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(effective.key.name))
            .with_value(Some(StrBytes::from_string(effective.value.into_owned())))
            .with_read_only(false)
            .with_config_source(effective.source as i8)
            .with_is_sensitive(false)
    });
    CreatableTopicResult::default()
        .with_name(name.clone())
        .with_topic_id(topic.id)
        .with_error_message(None)
        .with_num_partitions(topic.partitions.len() as i32)
        .with_replication_factor(topic.partitions[0].replicas.len() as i16)
        .with_configs(Some(configs.collect()))
}

fn refused(name: &TopicName, error: ErrorCode, message: Option<String>) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name.clone())
        .with_error_code(error.code())
        .with_error_message(message.map(StrBytes::from_string))
}

#[cfg(test)]
mod tests;
