//! IncrementalAlterConfigs and AlterConfigs: which configs of a request change, and what the client is told.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as ReplacedResponse;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::create_topics::{Refusal, check_min_insync, invalid_config};
use super::describe_configs::{BROKER, TOPIC};
use crate::config::keys::Key;
use crate::metadata::command::{Configs, TopicConfigs};
use crate::metadata::configs::{self, ConfigKey, ConfigType};
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
/// there.
pub fn plan(state: &State, request: &IncrementalAlterConfigsRequest, receiver: BrokerId) -> Plan {
    plan_all(state, receiver, request.validate_only, incremental(request))
}

/// Plans AlterConfigs.
pub fn plan_replace(state: &State, request: &AlterConfigsRequest, receiver: BrokerId) -> Plan {
    plan_all(state, receiver, request.validate_only, replacing(request))
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

fn plan_all(state: &State, receiver: BrokerId, validate_only: bool, resources: Vec<Wanted<'_>>) -> Plan {
    let mut times: Map<(i8, &str), usize> = Map::default();
    for resource in &resources {
        *times.entry((resource.resource_type, resource.name)).or_insert(0) += 1;
    }
    let (mut topics, mut defaults) = (Vec::new(), None);
    let mut outcome = Vec::with_capacity(resources.len());
    for resource in &resources {
        let planned = if times[&(resource.resource_type, resource.name.as_str())] > 1 {
            Err((ErrorCode::InvalidRequest, "Each resource must appear at most once.".to_owned()))
        } else {
            check_form(resource).and_then(|()| match resource.resource_type {
                TOPIC => topic(state, resource).map(|changed| topics.extend(changed)),
                BROKER if resource.name.is_empty() => all_brokers(state, resource).map(|changed| defaults = changed),
                BROKER => one_broker(receiver, resource),
                other => Err((ErrorCode::InvalidRequest, format!("Unsupported resource type: {other}"))),
            })
        };
        outcome.push((resource.resource_type, resource.name.clone(), planned.err()));
    }
    let changes = !validate_only && (!topics.is_empty() || defaults.is_some());
    Plan { command: changes.then_some(Command::AlterConfigs { topics, defaults }), outcome: Outcome(outcome) }
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
    let wanted = resource.configs.iter().map(|(name, op, value)| (*name, ConfigKey::named(name), *op, *value));
    let after = altered(&topic.configs, state.defaults(), resource.replaces, wanted).map_err(invalid_config)?;
    check_min_insync(&after, topic.partitions[0].replicas.len())?;
    let before = topic.configs.clone();
    Ok((before != after).then_some(TopicConfigs { id: topic.id, configs: Configs { before, after } }))
}

/// The change of what all brokers give to topics; none where it is so already.
fn all_brokers(state: &State, resource: &Wanted<'_>) -> Result<Option<Configs>, Refusal> {
    let refused = |message: String| (ErrorCode::InvalidRequest, message);
    for (name, op, _) in &resource.configs {
        match ConfigKey::given_as(name) {
            // It is checked against the replicas of each topic, and those differ.
            Some(key) if key.name == "min.insync.replicas" && *op != Op::Delete => {
                return Err(refused("min.insync.replicas cannot be set for all topics at once.".to_owned()));
            }
            Some(_) => {}
            None => return Err(refused(not_dynamic(name))),
        }
    }
    let wanted = resource.configs.iter().map(|(name, op, value)| (*name, ConfigKey::given_as(name), *op, *value));
    let none = BTreeMap::new();
    let after = altered(state.defaults(), &none, resource.replaces, wanted).map_err(|error| refused(error.0))?;
    let before = state.defaults().clone();
    Ok((before != after).then_some(Configs { before, after }))
}

/// No config of a single broker can be changed while it runs, so that there is none to delete either.
fn one_broker(receiver: BrokerId, resource: &Wanted<'_>) -> Result<(), Refusal> {
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
    match resource.configs.iter().find(|(_, op, _)| *op != Op::Delete) {
        None => Ok(()),
        Some((name, ..)) if ConfigKey::given_as(name).is_some() => {
            refused(format!("{name} cannot be set for one broker, only for all of them: leave the broker's id empty."))
        }
        Some((name, ..)) => refused(not_dynamic(name)),
    }
}

fn not_dynamic(name: &str) -> String {
    let shown: String = name.chars().take(64).collect();
    match Key::named(name) {
        Some(_) => format!("{shown} cannot be changed while the broker runs: give it at its next start."),
        None => format!("Unknown broker config name: {}", shown.escape_debug()),
    }
}

/// The configs after a change. `below` gives the values that hold where none is set, beside the built-in ones.
fn altered<'a>(
    before: &BTreeMap<String, String>,
    below: &BTreeMap<String, String>,
    replaces: bool,
    wanted: impl Iterator<Item = (&'a str, Option<&'static ConfigKey>, Op, Option<&'a str>)>,
) -> Result<BTreeMap<String, String>, configs::InvalidConfig> {
    let mut after = if replaces { BTreeMap::new() } else { before.clone() };
    for (name, key, op, value) in wanted {
        // What is unknown cannot be set, so there is nothing to delete.
        let (Some(key), Some(value)) = (key, value.filter(|_| op != Op::Delete)) else {
            match (key, op) {
                (Some(key), _) => after.remove(key.name),
                (None, Op::Delete) => None,
                (None, _) => {
                    configs::check_all([(name, "")])?;
                    None
                }
            };
            continue;
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
    configs::check_all(after.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// A list with elements added or taken away.
fn combined(key: &ConfigKey, current: &str, op: Op, value: &str) -> Result<String, configs::InvalidConfig> {
    if key.config_type() != ConfigType::List {
        return Err(configs::InvalidConfig(format!(
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
