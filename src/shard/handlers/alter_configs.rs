//! IncrementalAlterConfigs and AlterConfigs: which configs of a request change, and what the client is told.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as ReplacedResponse;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::create_topics::{Refusal, check_min_insync, invalid_config};
use super::describe_configs::{BROKER, GROUP, TOPIC};
use crate::config::BrokerConfig;
use crate::config::keys::Key;
use crate::metadata::command::{Configs, OwnerConfigs, TopicConfigs};
use crate::metadata::configs::{self, ConfigKey, ConfigType, InvalidConfig, Kind};
use crate::metadata::own::Owner;
use crate::metadata::{Command, State, names};
use crate::protocol::ErrorCode;
use crate::types::{BrokerId, Map};

/// What becomes of a resource, in either form of the request.
struct Wanted<'a> {
    resource_type: i8,
    name: &'a StrBytes,
    /// Whether what is not named is unset.
    replaces: bool,
    configs: Vec<(&'a str, Op, Option<&'a str>)>,
}

/// What to do to a config, with Kafka's numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Set = 0,
    Delete = 1,
    Append = 2,
    Subtract = 3,
    Unknown = -1,
}

impl Op {
    fn of(number: i8) -> Op {
        [Op::Set, Op::Delete, Op::Append, Op::Subtract]
            .into_iter()
            .find(|op| *op as i8 == number)
            .unwrap_or(Op::Unknown)
    }
}

/// What was decided about each resource of a request, in its order.
#[derive(Debug)]
pub struct Outcome(Vec<(i8, StrBytes, Option<Refusal>)>);

/// What to do about a request of either form, and what to answer.
#[derive(Debug)]
pub struct Plan {
    /// The command to propose; none where nothing is to be changed.
    pub command: Option<Command>,
    /// What the answer is made of.
    pub outcome: Outcome,
}

/// Plans IncrementalAlterConfigs. `receiver` is the broker that the client asked: only its own configs can be altered
/// there. `config` is the coordinator's, by whose bounds groups go.
pub fn plan(
    state: &State,
    config: &BrokerConfig,
    request: &IncrementalAlterConfigsRequest,
    receiver: BrokerId,
) -> Plan {
    plan_all(state, config, receiver, request.validate_only, incremental(request))
}

/// Plans AlterConfigs.
pub fn plan_replace(state: &State, config: &BrokerConfig, request: &AlterConfigsRequest, receiver: BrokerId) -> Plan {
    plan_all(state, config, receiver, request.validate_only, replacing(request))
}

/// The outcome where every resource of an IncrementalAlterConfigs request is refused for one reason.
pub fn failed(request: &IncrementalAlterConfigsRequest, error: ErrorCode) -> Outcome {
    fail_all(&incremental(request), error)
}

/// The same for an AlterConfigs request.
pub fn failed_replace(request: &AlterConfigsRequest, error: ErrorCode) -> Outcome {
    fail_all(&replacing(request), error)
}

impl Outcome {
    /// The answer to IncrementalAlterConfigs.
    pub fn incremental(self) -> IncrementalAlterConfigsResponse {
        let responses = self.0.into_iter().map(|(resource_type, name, refusal)| {
            let (code, message) = told(refusal);
            AlterConfigsResourceResponse::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(resource_type)
                .with_resource_name(name)
        });
        IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
    }

    /// The answer to AlterConfigs.
    pub fn replaced(self) -> AlterConfigsResponse {
        let responses = self.0.into_iter().map(|(resource_type, name, refusal)| {
            let (code, message) = told(refusal);
            ReplacedResponse::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(resource_type)
                .with_resource_name(name)
        });
        AlterConfigsResponse::default().with_responses(responses.collect())
    }
}

fn told(refusal: Option<Refusal>) -> (i16, Option<StrBytes>) {
    match refusal {
        None => (0, None),
        Some((error, message)) => (error.code(), (!message.is_empty()).then(|| StrBytes::from_string(message))),
    }
}

fn incremental(request: &IncrementalAlterConfigsRequest) -> Vec<Wanted<'_>> {
    let resources = request.resources.iter().map(|resource| Wanted {
        resource_type: resource.resource_type,
        name: &resource.resource_name,
        replaces: false,
        configs: (resource.configs.iter())
            .map(|config| (config.name.as_str(), Op::of(config.config_operation), config.value.as_deref()))
            .collect(),
    });
    resources.collect()
}

fn replacing(request: &AlterConfigsRequest) -> Vec<Wanted<'_>> {
    let resources = request.resources.iter().map(|resource| Wanted {
        resource_type: resource.resource_type,
        name: &resource.resource_name,
        replaces: true,
        configs: (resource.configs.iter())
            .map(|config| (config.name.as_str(), Op::Set, config.value.as_deref()))
            .collect(),
    });
    resources.collect()
}

fn fail_all(resources: &[Wanted<'_>], error: ErrorCode) -> Outcome {
    let failed = |resource: &Wanted<'_>| (resource.resource_type, resource.name.clone(), Some((error, String::new())));
    Outcome(resources.iter().map(failed).collect())
}

fn plan_all(
    state: &State,
    config: &BrokerConfig,
    receiver: BrokerId,
    validate_only: bool,
    resources: Vec<Wanted<'_>>,
) -> Plan {
    let mut times: Map<(i8, &str), usize> = Map::default();
    for resource in &resources {
        *times.entry((resource.resource_type, resource.name)).or_insert(0) += 1;
    }
    let (mut topics, mut defaults, mut owners) = (Vec::new(), None, Vec::new());
    let mut outcome = Vec::with_capacity(resources.len());
    for resource in &resources {
        let planned = if times[&(resource.resource_type, resource.name.as_str())] > 1 {
            Err((ErrorCode::InvalidRequest, "Each resource must appear at most once.".to_owned()))
        } else {
            check_form(resource).and_then(|()| match resource.resource_type {
                TOPIC => topic(state, resource).map(|changed| topics.extend(changed)),
                BROKER if resource.name.is_empty() => all_brokers(state, resource).map(|changed| defaults = changed),
                BROKER => one_broker(state, receiver, resource).map(|changed| owners.extend(changed)),
                GROUP => group(state, config, resource).map(|changed| owners.extend(changed)),
                other => Err((ErrorCode::InvalidRequest, format!("Unsupported resource type: {other}"))),
            })
        };
        outcome.push((resource.resource_type, resource.name.clone(), planned.err()));
    }
    let command = match owners.is_empty() {
        // Brokers of earlier versions know this one.
        true => {
            let changes = !topics.is_empty() || defaults.is_some();
            changes.then_some(Command::AlterConfigs { topics, defaults })
        }
        false => Some(Command::AlterOwnConfigs { topics, defaults, owners }),
    };
    Plan { command: command.filter(|_| !validate_only), outcome: Outcome(outcome) }
}

/// What must hold whatever the configs are.
fn check_form(resource: &Wanted<'_>) -> Result<(), Refusal> {
    let refused = |message: String| Err((ErrorCode::InvalidRequest, message));
    let mut names: Vec<&str> = resource.configs.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    if names.windows(2).any(|two| two[0] == two[1]) {
        return refused("A config is named more than once.".to_owned());
    }
    if resource.configs.iter().any(|(_, op, _)| *op == Op::Unknown) {
        return refused("Unknown operation: it is none of SET, DELETE, APPEND and SUBTRACT.".to_owned());
    }
    let without = resource.configs.iter().filter(|(_, op, value)| *op != Op::Delete && value.is_none());
    let without: Vec<&str> = without.map(|(name, ..)| *name).collect();
    if !without.is_empty() {
        return refused(format!("Null value not supported for: {}", without.join(",")));
    }
    Ok(())
}

/// The change of a topic's configs; none where they are so already.
fn topic(state: &State, resource: &Wanted<'_>) -> Result<Option<TopicConfigs>, Refusal> {
    names::validate(resource.name).map_err(|message| (ErrorCode::InvalidTopicException, message))?;
    let unknown = || (ErrorCode::UnknownTopicOrPartition, format!("The topic '{}' does not exist.", &**resource.name));
    let topic = state.topic(resource.name).ok_or_else(unknown)?;
    let after = altered(Kind::Topic, &topic.configs, state.defaults(), resource).map_err(invalid_config)?;
    check_min_insync(&after, topic.partitions[0].replicas.len())?;
    let before = topic.configs.clone();
    Ok((before != after).then_some(TopicConfigs { id: topic.id, configs: Configs { before, after } }))
}

/// The change of what all brokers have in common; none where it is so already.
fn all_brokers(state: &State, resource: &Wanted<'_>) -> Result<Option<Configs>, Refusal> {
    brokers(state.defaults(), &BTreeMap::new(), resource)
}

/// The change of a broker's configs; none where they are so already.
fn one_broker(state: &State, receiver: BrokerId, resource: &Wanted<'_>) -> Result<Option<OwnerConfigs>, Refusal> {
    let refused = |message: String| Err((ErrorCode::InvalidRequest, message));
    let id: i32 = match resource.name.parse() {
        Ok(id) => id,
        Err(_) => {
            return refused(format!("Broker id must be an integer, but it is: {}", resource.name.escape_debug()));
        }
    };
    if id != receiver.0 {
        return refused(format!("Unexpected broker id, expected {} or empty string, but received {id}", receiver.0));
    }
    let configs = brokers(state.own().of_broker(receiver), state.defaults(), resource)?;
    Ok(configs.map(|configs| OwnerConfigs { owner: Owner::Broker(receiver), configs }))
}

/// The change of configs of brokers, under which are those of `below`.
fn brokers(
    before: &BTreeMap<String, String>,
    below: &BTreeMap<String, String>,
    resource: &Wanted<'_>,
) -> Result<Option<Configs>, Refusal> {
    let refused = |message: String| (ErrorCode::InvalidRequest, message);
    for (name, ..) in resource.configs.iter().filter(|(_, op, _)| *op != Op::Delete) {
        match Kind::Broker.key(name) {
            // It is checked against the replicas of each topic, and those differ.
            Some(key) if key.name == "min.insync.replicas" => {
                return Err(refused("min.insync.replicas cannot be set for all topics at once.".to_owned()));
            }
            Some(_) => {}
            None if Key::named(name).is_some() => {
                return Err(refused(format!("Cannot update these configs dynamically: {name}")));
            }
            None => return Err(refused(Kind::Broker.unknown(name).0)),
        }
    }
    let after = altered(Kind::Broker, before, below, resource).map_err(|error| refused(error.0))?;
    Ok((*before != after).then(|| Configs { before: before.clone(), after }))
}

/// The change of a group's configs; none where they are so already. The group need not be there.
fn group(state: &State, config: &BrokerConfig, resource: &Wanted<'_>) -> Result<Option<OwnerConfigs>, Refusal> {
    if resource.name.is_empty() {
        return Err((ErrorCode::InvalidRequest, "Default group resources are not allowed.".to_owned()));
    }
    let before = state.own().of_group(resource.name);
    let after = altered(Kind::Group, before, &BTreeMap::new(), resource).map_err(invalid_config)?;
    check_group(config, &after).map_err(invalid_config)?;
    let owner = Owner::Group(resource.name.to_string());
    Ok((*before != after).then(|| OwnerConfigs { owner, configs: Configs { before: before.clone(), after } }))
}

/// Whether a group's configs are within the broker's bounds, and go together.
fn check_group(config: &BrokerConfig, configs: &BTreeMap<String, String>) -> Result<(), InvalidConfig> {
    let groups = &config.groups;
    let value = |name: &str, usual| configs.get(name).map_or(usual, |value| value.parse().unwrap_or(usual));
    let (session, heartbeat) = ("consumer.session.timeout.ms", "consumer.heartbeat.interval.ms");
    let session_ms = value(session, groups.consumer_session_timeout_ms);
    let heartbeat_ms = value(heartbeat, groups.consumer_heartbeat_interval_ms);
    for (name, value, bounds) in [
        (session, session_ms, &groups.consumer_session_timeouts_ms),
        (heartbeat, heartbeat_ms, &groups.consumer_heartbeat_intervals_ms),
    ] {
        let rest = name.trim_start_matches("consumer.");
        if value < *bounds.start() {
            return Err(InvalidConfig(format!("{name} must be greater than or equal to group.consumer.min.{rest}")));
        }
        if value > *bounds.end() {
            return Err(InvalidConfig(format!("{name} must be less than or equal to group.consumer.max.{rest}")));
        }
    }
    match session_ms > heartbeat_ms {
        true => Ok(()),
        false => Err(InvalidConfig(format!("{session} must be greater than {heartbeat}"))),
    }
}

/// The configs after a change. `below` gives the values that hold where none is set, beside the built-in ones.
fn altered(
    kind: Kind,
    before: &BTreeMap<String, String>,
    below: &BTreeMap<String, String>,
    resource: &Wanted<'_>,
) -> Result<BTreeMap<String, String>, InvalidConfig> {
    let mut after = if resource.replaces { BTreeMap::new() } else { before.clone() };
    for &(name, op, value) in &resource.configs {
        let (key, value) = match (kind.key(name), value.filter(|_| op != Op::Delete)) {
            (Some(key), Some(value)) => (key, value),
            (Some(key), None) => {
                after.remove(key.name);
                continue;
            }
            // What is unknown cannot be set, so there is nothing to delete.
            (None, _) if op == Op::Delete => continue,
            (None, _) => return Err(kind.unknown(name)),
        };
        let value = match op {
            Op::Append | Op::Subtract => {
                let current = after.get(key.name).or_else(|| below.get(key.name));
                combined(key, current.map_or(key.default, String::as_str), op, value)?
            }
            _ => value.to_owned(),
        };
        after.insert(key.name.to_owned(), value);
    }
    configs::check_all(kind, after.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// A list with elements added or taken away.
fn combined(key: &ConfigKey, current: &str, op: Op, value: &str) -> Result<String, InvalidConfig> {
    if key.config_type() != ConfigType::List {
        return Err(InvalidConfig(format!(
            "Nothing can be appended to {} or subtracted from it: it is no list.",
            key.name
        )));
    }
    fn parts(list: &str) -> Vec<&str> {
        list.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
    }
    let mut list = parts(current);
    for part in parts(value) {
        match op {
            Op::Subtract => list.retain(|other| *other != part),
            _ if !list.contains(&part) => list.push(part),
            _ => {}
        }
    }
    Ok(list.join(","))
}

#[cfg(test)]
mod tests;
