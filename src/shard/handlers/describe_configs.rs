//! DescribeConfigs: the configs of topics, of groups and of this broker.

use std::borrow::Cow;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::config::BrokerConfig;
use crate::config::keys::{self, Key};
use crate::limits::{MAX_DESCRIBED_RESOURCES, MAX_REQUEST_BYTES};
use crate::metadata::configs::ConfigSource::DynamicDefault;
use crate::metadata::configs::{self, BrokerValues, ConfigSource, ConfigType, Started};
use crate::metadata::{State, Topic, names};
use crate::protocol::ErrorCode;
use crate::types::Set;

/// Kafka's numbers of the kinds of resources that have configs.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const GROUP: i8 = 32;

/// A config of the broker.
struct BrokerKey<'a> {
    name: &'static str,
    config_type: ConfigType,
    /// Its values, the one that counts first; none where the broker has none.
    values: Vec<(Cow<'a, str>, ConfigSource)>,
    /// Whether it can be changed while the broker runs.
    dynamic: bool,
    doc: &'static str,
}

/// Why a resource is not described, with the message for the client.
type Refusal = (ErrorCode, Option<String>);

/// The answer: each resource of the request once, in its order. An answer is many times as large as its request, hence
/// the bound.
pub fn respond(state: &State, config: &BrokerConfig, request: &DescribeConfigsRequest) -> DescribeConfigsResponse {
    let mut seen = Set::default();
    let resources = request
        .resources
        .iter()
        .filter(|resource| seen.insert((resource.resource_type, resource.resource_name.as_str())));
    let results = resources.enumerate().map(|(place, resource)| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let described = if place < MAX_DESCRIBED_RESOURCES {
            describe(state, config, request, resource)
        } else {
            let message = format!("One request may ask about at most {MAX_DESCRIBED_RESOURCES} resources.");
            Err((ErrorCode::PolicyViolation, Some(message)))
        };
        match described {
            Ok(configs) => result.with_error_message(None).with_configs(configs),
            Err((error, message)) => {
                result.with_error_code(error.code()).with_error_message(message.map(StrBytes::from_string))
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(
    state: &State,
    config: &BrokerConfig,
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let (values, registered) = (broker_values(state, config), state.brokers().len());
    match resource.resource_type {
        TOPIC => {
            let name = resource.resource_name.as_str();
            names::validate(name).map_err(|message| (ErrorCode::InvalidTopicException, Some(message)))?;
            let topic = state.topic(name).ok_or((ErrorCode::UnknownTopicOrPartition, None))?;
            Ok(topic_configs(topic, values, request, resource))
        }
        BROKER if resource.resource_name.is_empty() => {
            // Of all brokers together only what was set for all of them is told.
            let mut keys = broker_keys(config, values, registered);
            keys.iter_mut().for_each(|key| key.values.retain(|(_, source)| *source == DynamicDefault));
            Ok(broker_configs(keys.into_iter().filter(|key| !key.values.is_empty()), request, resource))
        }
        BROKER => {
            let name = resource.resource_name.as_str();
            let id: i32 = name.parse().map_err(|_| {
                let message = format!("Broker id must be an integer, but it is: {}", name.escape_debug());
                (ErrorCode::InvalidRequest, Some(message))
            })?;
            let own = config.broker_id.0;
            if id != own {
                let message = format!("Unexpected broker id, expected {own} or empty string, but received {id}");
                return Err((ErrorCode::InvalidRequest, Some(message)));
            }
            Ok(broker_configs(broker_keys(config, values, registered).into_iter(), request, resource))
        }
        GROUP if resource.resource_name.is_empty() => {
            Err((ErrorCode::InvalidRequest, Some("Group name must not be empty".to_owned())))
        }
        GROUP => Ok(group_configs(state, config, request, resource)),
        other => Err((ErrorCode::InvalidRequest, Some(format!("Unsupported resource type: {other}")))),
    }
}

/// What this broker goes by.
pub(in crate::shard) fn broker_values<'a>(state: &'a State, config: &BrokerConfig) -> BrokerValues<'a> {
    BrokerValues {
        own: state.own().of_broker(config.broker_id),
        defaults: state.defaults(),
        started: Started {
            message_max_bytes: config.message_max_bytes,
            max_connections: config.max_connections,
            max_connections_per_ip: config.max_connections_per_ip,
        },
    }
}

/// Whether the client asked for this config: by name, or for all by none.
fn wanted(resource: &DescribeConfigsResource, name: &str) -> bool {
    match &resource.configuration_keys {
        None => true,
        Some(keys) => keys.is_empty() || keys.iter().any(|key| **key == *name),
    }
}

fn topic_configs(
    topic: &Topic,
    values: BrokerValues<'_>,
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
) -> Vec<DescribeConfigsResourceResult> {
    configs::effective(&topic.configs, values)
        .filter(|effective| wanted(resource, effective.key.name))
        .map(|effective| {
            let mut synonyms = Vec::new();
            if request.include_synonyms {
                if effective.source == ConfigSource::Topic {
                    synonyms.push(synonym(effective.key.name, &effective.value, ConfigSource::Topic));
                }
                if let Some(name) = effective.key.synonym {
                    let given = effective.key.broker_values(values);
                    synonyms.extend(given.iter().map(|(value, source)| synonym(name, value, *source)));
                }
            }
            DescribeConfigsResourceResult::default()
                .with_name(StrBytes::from_static_str(effective.key.name))
                .with_value(Some(StrBytes::from_string(effective.value.into_owned())))
                .with_read_only(false)
                .with_config_source(effective.source as i8)
                .with_synonyms(synonyms)
                .with_config_type(effective.key.config_type() as i8)
                .with_documentation(documentation(request, effective.key.doc))
        })
        .collect()
}

/// The configs of a group, whether it is there or not. What it does not set is the broker's.
fn group_configs(
    state: &State,
    config: &BrokerConfig,
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
) -> Vec<DescribeConfigsResourceResult> {
    let set = state.own().of_group(&resource.resource_name);
    let keys = configs::group_keys().iter().filter(|key| wanted(resource, key.name));
    keys.map(|key| {
        let broker = match key.name {
            "consumer.session.timeout.ms" => config.groups.consumer_session_timeout_ms,
            _ => config.groups.consumer_heartbeat_interval_ms,
        };
        let broker = broker.to_string();
        let mut values: Vec<(&str, &str, ConfigSource)> = Vec::new();
        values.extend(set.get(key.name).map(|value| (key.name, value.as_str(), ConfigSource::Group)));
        if let Some(name) = key.synonym {
            // What equals the default cannot be told from it: the core is not told who set it.
            if broker != key.default {
                values.push((name, &broker, ConfigSource::StaticBroker));
            }
            values.push((name, key.default, ConfigSource::Default));
        }
        let (_, value, source) = values[0];
        let synonyms = values.iter().filter(|_| request.include_synonyms);
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(key.name))
            .with_value(Some(StrBytes::from_string(value.to_owned())))
            .with_read_only(false)
            .with_config_source(source as i8)
            .with_synonyms(synonyms.map(|(name, value, source)| synonym(name, value, *source)).collect())
            .with_config_type(key.config_type() as i8)
            .with_documentation(documentation(request, key.doc))
    })
    .collect()
}

fn broker_configs<'a>(
    keys: impl Iterator<Item = BrokerKey<'a>>,
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
) -> Vec<DescribeConfigsResourceResult> {
    keys.filter(|key| wanted(resource, key.name))
        .map(|key| {
            let source = key.values.first().map_or(ConfigSource::Default, |(_, source)| *source);
            let asked = key.values.iter().filter(|_| request.include_synonyms);
            let synonyms = asked.map(|(value, source)| synonym(key.name, value, *source)).collect();
            let value = key.values.into_iter().next().map(|(value, _)| StrBytes::from_string(value.into_owned()));
            DescribeConfigsResourceResult::default()
                .with_name(StrBytes::from_static_str(key.name))
                .with_value(value)
                .with_read_only(!key.dynamic)
                .with_config_source(source as i8)
                .with_synonyms(synonyms)
                .with_config_type(key.config_type as i8)
                .with_documentation(documentation(request, key.doc))
        })
        .collect()
}

/// The configs of this broker: what it was given, what is built in, and what it gives to topics.
fn broker_keys<'a>(config: &BrokerConfig, given: BrokerValues<'a>, registered: usize) -> Vec<BrokerKey<'a>> {
    let mut keys = Vec::new();
    let mut configured = |name, config_type, default: Option<&'static str>, value: Option<String>, doc| {
        let mut values = Vec::new();
        // What equals the default cannot be told from it: the core is not told who set it.
        if let Some(value) = value.filter(|value| Some(value.as_str()) != default) {
            values.push((Cow::from(value), ConfigSource::StaticBroker));
        }
        values.extend(default.map(|default| (default.into(), ConfigSource::Default)));
        keys.push(BrokerKey { name, config_type, values, dynamic: false, doc });
    };
    let advertised = format!("PLAINTEXT://{}:{}", bracketed(&config.advertised_host), config.advertised_port);
    let auto_create = config.auto_create_topics.to_string();
    configured(
        "advertised.listeners",
        ConfigType::String,
        None,
        Some(advertised),
        "Address that clients are told to connect to.",
    );
    configured(
        "auto.create.topics.enable",
        ConfigType::Boolean,
        Some("true"),
        Some(auto_create),
        "Whether a topic is created when a client first asks for it.",
    );
    configured("broker.rack", ConfigType::String, None, config.rack.clone(), "Rack of this broker, shown to clients.");
    configured(
        "node.id",
        ConfigType::Int,
        None,
        Some(config.broker_id.0.to_string()),
        "The broker's number in its cluster.",
    );
    configured(
        "num.partitions",
        ConfigType::Int,
        Some("1"),
        Some(config.num_partitions.to_string()),
        "Partitions of a topic whose creation names no number.",
    );
    let groups = &config.groups;
    for (name, config_type, value) in [
        ("group.initial.rebalance.delay.ms", ConfigType::Int, groups.initial_rebalance_delay_ms.to_string()),
        ("group.max.session.timeout.ms", ConfigType::Int, groups.max_session_timeout_ms.to_string()),
        ("group.max.size", ConfigType::Int, groups.max_size.to_string()),
        ("group.min.session.timeout.ms", ConfigType::Int, groups.min_session_timeout_ms.to_string()),
        ("group.consumer.assignment.interval.ms", ConfigType::Int, groups.consumer_assignment_interval_ms.to_string()),
        ("group.consumer.heartbeat.interval.ms", ConfigType::Int, groups.consumer_heartbeat_interval_ms.to_string()),
        (
            "group.consumer.max.heartbeat.interval.ms",
            ConfigType::Int,
            groups.consumer_heartbeat_intervals_ms.end().to_string(),
        ),
        (
            "group.consumer.max.session.timeout.ms",
            ConfigType::Int,
            groups.consumer_session_timeouts_ms.end().to_string(),
        ),
        ("group.consumer.max.size", ConfigType::Int, groups.consumer_max_size.to_string()),
        (
            "group.consumer.min.heartbeat.interval.ms",
            ConfigType::Int,
            groups.consumer_heartbeat_intervals_ms.start().to_string(),
        ),
        (
            "group.consumer.min.session.timeout.ms",
            ConfigType::Int,
            groups.consumer_session_timeouts_ms.start().to_string(),
        ),
        ("group.consumer.session.timeout.ms", ConfigType::Int, groups.consumer_session_timeout_ms.to_string()),
        ("log.retention.check.interval.ms", ConfigType::Long, config.retention_check_ms.to_string()),
        ("offsets.retention.minutes", ConfigType::Int, (groups.offsets_retention_ms / 60_000).to_string()),
        ("offsets.topic.num.partitions", ConfigType::Int, groups.offsets_partitions.to_string()),
    ] {
        let key = Key::named(name).expect("a key of the broker");
        let keys::Default::Is(default) = key.default else { unreachable!("{name} has a default") };
        configured(key.name, config_type, Some(default), Some(value), key.help);
    }
    for (name, config_type, value) in [
        ("group.consumer.assignors", ConfigType::List, &groups.consumer_assignors),
        ("group.consumer.migration.policy", ConfigType::String, &groups.consumer_migration_policy),
    ] {
        let key = Key::named(name).expect("a key of the broker");
        let keys::Default::Is(default) = key.default else { unreachable!("{name} has a default") };
        configured(key.name, config_type, Some(default), Some(value.clone()), key.help);
    }
    let mut built_in = |name, config_type, value: String, doc| {
        let values = vec![(value.into(), ConfigSource::Default)];
        keys.push(BrokerKey { name, config_type, values, dynamic: false, doc });
    };
    built_in(
        "default.replication.factor",
        ConfigType::Int,
        config.default_replication_factor(registered).to_string(),
        "Replicas of a partition whose creation names no number.",
    );
    built_in("delete.topic.enable", ConfigType::Boolean, true.to_string(), "Whether clients may delete topics.");
    built_in("socket.request.max.bytes", ConfigType::Int, MAX_REQUEST_BYTES.to_string(), "Largest request, in bytes.");
    let given_to_topics = configs::keys().iter().filter_map(|key| Some((key.synonym?, key)));
    let own = configs::broker_keys().iter().map(|key| (key.name, key));
    keys.extend(given_to_topics.chain(own).map(|(name, key)| BrokerKey {
        name,
        config_type: key.config_type(),
        values: key.broker_values(given),
        dynamic: true,
        doc: key.doc,
    }));
    keys.sort_by_key(|key| key.name);
    keys
}

/// The host, in brackets where it is an IPv6 address.
fn bracketed(host: &str) -> Cow<'_, str> {
    if host.contains(':') { format!("[{host}]").into() } else { host.into() }
}

fn synonym(name: &str, value: &str, source: ConfigSource) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default()
        .with_name(StrBytes::from_string(name.to_owned()))
        .with_value(Some(StrBytes::from_string(value.to_owned())))
        .with_source(source as i8)
}

fn documentation(request: &DescribeConfigsRequest, doc: &'static str) -> Option<StrBytes> {
    request.include_documentation.then(|| StrBytes::from_static_str(doc))
}

#[cfg(test)]
mod tests {
    use super::super::admin_tests::{assert_encodable, config, state, text};
    use super::*;
    use crate::metadata::Command;
    use crate::metadata::command::{Configs, OwnerConfigs};
    use crate::metadata::own::Owner;
    use crate::types::BrokerId;

    fn resource(resource_type: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResource {
        DescribeConfigsResource::default()
            .with_resource_type(resource_type)
            .with_resource_name(text(name))
            .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()))
    }

    fn describe_one(config: &BrokerConfig, resource: DescribeConfigsResource) -> DescribeConfigsResult {
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![resource])
            .with_include_synonyms(true)
            .with_include_documentation(true);
        let mut response = respond(&state(1, &[("a", 1)]), config, &request);
        assert_encodable(&response, 1..=4);
        response.results.remove(0)
    }

    fn synonyms(config: &DescribeConfigsResourceResult) -> Vec<(&str, Option<&str>, i8)> {
        config.synonyms.iter().map(|synonym| (&*synonym.name, synonym.value.as_deref(), synonym.source)).collect()
    }

    #[test]
    fn all_configs_of_a_topic() {
        for keys in [None, Some(&[][..])] {
            let result = describe_one(&config(), resource(TOPIC, "a", keys));
            assert_eq!((result.error_code, result.error_message), (0, None));
            assert_eq!((result.resource_type, &*result.resource_name), (TOPIC, "a"));
            assert_eq!(result.configs.len(), configs::keys().len());
        }
    }

    #[test]
    fn sources_synonyms_types_and_documentation_of_a_topics_configs() {
        let broker = BrokerConfig { message_max_bytes: 7, ..config() };
        let keys = ["retention.ms", "max.message.bytes", "segment.bytes", "remote.storage.enable", "no.such"];
        let result = describe_one(&broker, resource(TOPIC, "a", Some(&keys)));
        let [max, remote, retention, segment] = &result.configs[..] else { panic!("{result:?}") };
        assert_eq!((retention.value.as_deref(), retention.config_source, retention.config_type), (Some("5"), 1, 5));
        assert_eq!(synonyms(retention), [("retention.ms", Some("5"), 1), ("log.retention.ms", Some("604800000"), 5)]);
        assert_eq!((max.value.as_deref(), max.config_source), (Some("7"), 4));
        assert_eq!(synonyms(max), [("message.max.bytes", Some("7"), 4), ("message.max.bytes", Some("1048588"), 5)]);
        assert_eq!((segment.value.as_deref(), segment.config_source, segment.config_type), (Some("1073741824"), 5, 3));
        assert_eq!((remote.config_source, synonyms(remote), remote.config_type), (5, vec![], 1));
        assert!(result.configs.iter().all(|config| !config.read_only && !config.is_sensitive));
        assert!(result.configs.iter().all(|config| config.documentation.is_some()));
    }

    #[test]
    fn extras_only_where_asked_for() {
        let request = DescribeConfigsRequest::default().with_resources(vec![resource(TOPIC, "a", None)]);
        let response = respond(&state(1, &[("a", 1)]), &config(), &request);
        let configs = &response.results[0].configs;
        assert!(configs.iter().all(|config| config.synonyms.is_empty() && config.documentation.is_none()));
    }

    #[test]
    fn the_configs_of_this_broker() {
        let broker = BrokerConfig { num_partitions: 3, advertised_host: "::1".to_owned(), ..config() };
        let result = describe_one(&broker, resource(BROKER, "1", None));
        assert_eq!(result.error_code, 0);
        assert!(result.configs.windows(2).all(|two| *two[0].name < *two[1].name), "each once, in order");
        let named = |name: &str| result.configs.iter().find(|config| &*config.name == name).unwrap();
        let shown = |name: &str| (named(name).value.as_deref(), named(name).config_source);
        assert_eq!(shown("node.id"), (Some("1"), 4));
        assert_eq!(shown("advertised.listeners"), (Some("PLAINTEXT://[::1]:9092"), 4));
        assert_eq!(shown("num.partitions"), (Some("3"), 4));
        assert_eq!(
            synonyms(named("num.partitions")),
            [("num.partitions", Some("3"), 4), ("num.partitions", Some("1"), 5)]
        );
        assert_eq!(shown("broker.rack"), (None, 5));
        assert_eq!(shown("auto.create.topics.enable"), (Some("true"), 5));
        assert_eq!(shown("message.max.bytes"), (Some("1048588"), 5));
        assert_eq!(shown("log.retention.ms"), (Some("604800000"), 5));
        let fixed = |name: &str| named(name).read_only;
        assert!(
            fixed("node.id") && fixed("num.partitions") && !fixed("message.max.bytes") && !fixed("log.retention.ms")
        );
    }

    #[test]
    fn each_resource_once_and_not_too_many() {
        let one = resource(TOPIC, "a", None);
        let mut resources = vec![one; 3];
        resources.extend((0..MAX_DESCRIBED_RESOURCES).map(|number| resource(TOPIC, &format!("no-{number}"), None)));
        let request = DescribeConfigsRequest::default().with_resources(resources);
        let results = respond(&state(1, &[("a", 1)]), &config(), &request).results;
        assert_eq!(results.len(), MAX_DESCRIBED_RESOURCES + 1);
        let codes: Vec<_> = results.iter().rev().take(2).map(|result| result.error_code).collect();
        assert_eq!(codes, [ErrorCode::PolicyViolation.code(), ErrorCode::UnknownTopicOrPartition.code()]);
    }

    #[test]
    fn what_is_set_for_all_brokers_comes_before_their_files() {
        let broker = BrokerConfig { message_max_bytes: 7, ..config() };
        let mut state = state(1, &[("a", 1)]);
        let resources = ["", "1"].map(|name| resource(BROKER, name, None));
        let topic = resource(TOPIC, "a", Some(&["max.message.bytes"]));
        let request = DescribeConfigsRequest::default()
            .with_resources([&resources[..], &[topic]].concat())
            .with_include_synonyms(true);
        let before = respond(&state, &broker, &request).results;
        assert_eq!((before[0].error_code, before[0].configs.len()), (0, 0));
        let set = |value: &str| [("max.message.bytes".to_owned(), value.to_owned())].into();
        let defaults = Configs { before: Default::default(), after: set("9") };
        state.apply(101, &Command::AlterConfigs { topics: Vec::new(), defaults: Some(defaults) });
        let after = respond(&state, &broker, &request).results;
        let names: Vec<&str> = after[0].configs.iter().map(|config| &*config.name).collect();
        assert_eq!(names, ["message.max.bytes"]);
        let all = [
            ("message.max.bytes", Some("9"), 3),
            ("message.max.bytes", Some("7"), 4),
            ("message.max.bytes", Some("1048588"), 5),
        ];
        for (result, all) in after.iter().zip([&all[..1], &all, &all]) {
            let max = result.configs.iter().find(|config| {
                config.name.contains("max") && config.name.contains("message.") && config.name.ends_with("bytes")
            });
            let max = max.unwrap();
            assert_eq!((max.value.as_deref(), max.config_source, max.read_only), (Some("9"), 3, false));
            assert_eq!(synonyms(max), all);
        }
    }

    fn alter(state: &mut State, owner: Owner, name: &str, value: &str) {
        let after = [(name.to_owned(), value.to_owned())].into();
        let owners = vec![OwnerConfigs { owner, configs: Configs { before: Default::default(), after } }];
        state.apply(101, &Command::AlterOwnConfigs { topics: Vec::new(), defaults: None, owners });
    }

    #[test]
    fn what_is_set_for_this_broker_comes_first() {
        let mut state = state(2, &[]);
        alter(&mut state, Owner::Broker(BrokerId(1)), "max.connections", "9");
        let resource = resource(BROKER, "1", Some(&["max.connections"]));
        let request =
            DescribeConfigsRequest::default().with_resources(vec![resource.clone()]).with_include_synonyms(true);
        let result = respond(&state, &config(), &request).results.remove(0);
        let max = &result.configs[0];
        assert_eq!((max.value.as_deref(), max.config_source, max.read_only), (Some("9"), 2, false));
        let [own, started, built_in] = [("9", 2), ("100", 4), ("2147483647", 5)];
        let all = [own, started, built_in].map(|(value, source)| ("max.connections", Some(value), source));
        assert_eq!(synonyms(max), all);
        let other = BrokerConfig { broker_id: BrokerId(2), ..config() };
        let request = DescribeConfigsRequest::default().with_resources(vec![resource.with_resource_name(text("2"))]);
        let max = &respond(&state, &other, &request).results[0].configs[0];
        assert_eq!((max.value.as_deref(), max.config_source), (Some("100"), 4));
    }

    #[test]
    fn a_group_goes_by_the_broker_where_it_sets_nothing() {
        let mut state = state(1, &[]);
        alter(&mut state, Owner::Group("g".to_owned()), "consumer.session.timeout.ms", "50000");
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![resource(GROUP, "g", None)])
            .with_include_synonyms(true);
        let response = respond(&state, &config(), &request);
        assert_encodable(&response, 1..=4);
        let [heartbeat, session] = &response.results[0].configs[..] else { panic!("{response:?}") };
        assert_eq!((session.value.as_deref(), session.config_source, session.read_only), (Some("50000"), 8, false));
        let broker = "group.consumer.session.timeout.ms";
        assert_eq!(synonyms(session), [("consumer.session.timeout.ms", Some("50000"), 8), (broker, Some("45000"), 5)]);
        assert_eq!((heartbeat.value.as_deref(), heartbeat.config_source), (Some("5000"), 5));
    }

    #[test]
    fn what_cannot_be_described_says_why() {
        let cases = [
            (TOPIC, "no", ErrorCode::UnknownTopicOrPartition, None),
            (TOPIC, "a/b", ErrorCode::InvalidTopicException, Some("Topic name is invalid")),
            (BROKER, "2", ErrorCode::InvalidRequest, Some("Unexpected broker id, expected 1")),
            (BROKER, "x", ErrorCode::InvalidRequest, Some("must be an integer")),
            (GROUP, "", ErrorCode::InvalidRequest, Some("Group name must not be empty")),
            (8, "1", ErrorCode::InvalidRequest, Some("Unsupported resource type: 8")),
            (0, "", ErrorCode::InvalidRequest, Some("Unsupported resource type: 0")),
        ];
        for (resource_type, name, error, message) in cases {
            let result = describe_one(&config(), resource(resource_type, name, None));
            assert_eq!((result.error_code, result.configs.len()), (error.code(), 0), "{resource_type} {name}");
            assert_eq!((result.resource_type, &*result.resource_name), (resource_type, name));
            match message {
                Some(message) => assert!(result.error_message.unwrap().contains(message)),
                None => assert_eq!(result.error_message, None),
            }
        }
    }
}
