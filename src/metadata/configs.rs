//! The configs that can be changed while brokers run, of topics above all: Kafka's names, types, defaults and bounds, and which of them have an effect here.
//!
//! A value that would have no effect is taken where ignoring it loses nothing that a client relies on (its
//! documentation says so), and refused where it does: a topic that was asked to be compacted and is not would lie.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::str::FromStr;

use super::config_table::{BROKER_CONFIGS, GROUP_CONFIGS, TOPIC_CONFIGS};
use crate::limits::MAX_BATCH_BYTES;
use crate::record::TimestampType;

/// Whose configs they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A topic's.
    Topic,
    /// A broker's, or those that all brokers have in common.
    Broker,
    /// A group's.
    Group,
}

/// A config.
#[derive(Debug)]
pub struct ConfigKey {
    /// Kafka's name.
    pub name: &'static str,
    /// What values it takes.
    pub values: Values,
    /// The value where nobody says otherwise.
    pub default: &'static str,
    /// The broker's config that gives the default, where Kafka has one.
    pub synonym: Option<&'static str>,
    /// What it does, and what it does not do here.
    pub doc: &'static str,
}

/// The values that a config takes.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// `true` or `false`.
    Bool,
    /// `false`; `true` is refused for the reason given.
    OnlyFalse(&'static str),
    /// A 32-bit number from the first to the last.
    Int(i32, i32),
    /// A 64-bit number from the first up.
    Long(i64),
    /// A number from 0 to 1.
    Ratio,
    /// One of some words.
    Word(&'static [Choice]),
    /// A list of some words, with commas between them.
    List(&'static [Choice]),
}

/// A word that is a value of a config.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// The word.
    pub word: &'static str,
    /// Why it is refused, where it is one of Kafka's that the broker does not honour.
    pub refused: Option<&'static str>,
}

/// The type of a config's values, with Kafka's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    String = 2,
    /// A 32-bit number.
    Int = 3,
    /// A 64-bit number.
    Long = 5,
    /// A fraction.
    Double = 6,
    /// Texts with commas between them.
    List = 7,
}

/// Where a config's value comes from, with Kafka's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
pub enum ConfigSource {
    /// Set for the topic.
    Topic = 1,
    /// Set for the broker while it runs.
    DynamicBroker = 2,
    /// Set for all brokers while they run.
    DynamicDefault = 3,
    /// The broker's configuration.
    StaticBroker = 4,
    /// Built in.
    Default = 5,
    /// Set for the group.
    Group = 8,
}

/// A config is refused. The text is for the client.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(pub String);

/// What a broker goes by, and gives to topics that set nothing of their own.
#[derive(Clone, Copy, Debug)]
pub struct BrokerValues<'a> {
    /// Set for it while it runs, under the names of [`super::State::defaults`].
    pub own: &'a BTreeMap<String, String>,
    /// Set for all brokers while they run: see [`super::State::defaults`].
    pub defaults: &'a BTreeMap<String, String>,
    /// What it was started with.
    pub started: Started,
}

/// What of a broker's configuration can be changed while it runs.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// `message.max.bytes`.
    pub message_max_bytes: i32,
    /// `max.connections`.
    pub max_connections: i32,
    /// `max.connections.per.ip`.
    pub max_connections_per_ip: i32,
}

impl Started {
    /// The value of a config, if this has it.
    fn value(&self, key: &ConfigKey) -> Option<i32> {
        match key.name {
            "max.message.bytes" => Some(self.message_max_bytes),
            "max.connections" => Some(self.max_connections),
            "max.connections.per.ip" => Some(self.max_connections_per_ip),
            _ => None,
        }
    }
}

/// The value of a config that a topic goes by.
#[derive(Debug)]
pub struct Effective<'a> {
    /// The config.
    pub key: &'static ConfigKey,
    /// Its value.
    pub value: Cow<'a, str>,
    /// Where the value comes from.
    pub source: ConfigSource,
}

/// What becomes of old records (`cleanup.policy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cleanup {
    /// They are deleted by time and size.
    pub delete: bool,
    /// Of each key the last one is kept.
    pub compact: bool,
}

/// What of a topic's configs the broker's work depends on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TopicConfig {
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `cleanup.policy`.
    pub cleanup: Cleanup,
    /// `retention.ms`; negative for no bound.
    pub retention_ms: i64,
    /// `retention.bytes`; negative for no bound.
    pub retention_bytes: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_ratio: f64,
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `min.insync.replicas`; at least 1.
    pub min_insync_replicas: usize,
}

impl Kind {
    /// The config that is set under this name. What brokers give to topics is kept under the topic config's name.
    pub fn key(self, name: &str) -> Option<&'static ConfigKey> {
        match self {
            Kind::Topic => ConfigKey::named(name),
            Kind::Broker => {
                let given = TOPIC_CONFIGS.iter().find(|key| key.synonym == Some(name));
                given.or_else(|| BROKER_CONFIGS.iter().find(|key| key.name == name))
            }
            Kind::Group => GROUP_CONFIGS.iter().find(|key| key.name == name),
        }
    }

    /// The config that is kept under this name.
    fn kept_as(self, name: &str) -> Option<&'static ConfigKey> {
        match self {
            Kind::Broker => ConfigKey::named(name).or_else(|| self.key(name)),
            Kind::Topic | Kind::Group => self.key(name),
        }
    }

    /// Why a name is refused.
    pub fn unknown(self, name: &str) -> InvalidConfig {
        let shown: String = name.chars().take(64).collect();
        let kind = match self {
            Kind::Topic => "topic",
            Kind::Broker => "broker",
            Kind::Group => "group",
        };
        InvalidConfig(format!("Unknown {kind} config name: {}", shown.escape_debug()))
    }
}

impl ConfigKey {
    /// The topic config of this name.
    pub fn named(name: &str) -> Option<&'static ConfigKey> {
        TOPIC_CONFIGS.binary_search_by_key(&name, |key| key.name).ok().map(|found| &TOPIC_CONFIGS[found])
    }

    /// The value in its canonical form.
    ///
    /// # Errors
    /// Where it is of the wrong type, out of bounds, or not honoured here.
    pub fn check(&self, value: &str) -> Result<String, InvalidConfig> {
        let value = value.trim();
        let wrong = |why: String| {
            let shown: String = value.chars().take(64).collect();
            InvalidConfig(format!("Invalid value {} for configuration {}: {why}", shown.escape_debug(), self.name))
        };
        match self.values {
            Values::Bool => parse_bool(value).map_err(wrong).map(|value| value.to_string()),
            Values::OnlyFalse(why) => match parse_bool(value).map_err(wrong)? {
                true => Err(wrong(why.to_owned())),
                false => Ok("false".to_owned()),
            },
            Values::Int(min, max) => {
                let number: i32 = value.parse().map_err(|_| wrong("Not a number of type INT".to_owned()))?;
                if number < min {
                    return Err(wrong(format!("Value must be at least {min}")));
                }
                if number > max {
                    return Err(wrong(format!("Value must be no more than {max}")));
                }
                Ok(number.to_string())
            }
            Values::Long(min) => {
                let number: i64 = value.parse().map_err(|_| wrong("Not a number of type LONG".to_owned()))?;
                if number < min {
                    return Err(wrong(format!("Value must be at least {min}")));
                }
                Ok(number.to_string())
            }
            Values::Ratio => {
                let number: f64 = value.parse().map_err(|_| wrong("Not a number of type DOUBLE".to_owned()))?;
                if !(0.0..=1.0).contains(&number) {
                    return Err(wrong("Value must be between 0 and 1".to_owned()));
                }
                Ok(format!("{number:?}"))
            }
            Values::Word(choices) => choose(value, choices).map_err(wrong).map(str::to_owned),
            Values::List(choices) => {
                let words: Result<Vec<_>, _> = value.split(',').map(|word| choose(word.trim(), choices)).collect();
                words.map_err(wrong).map(|words| words.join(","))
            }
        }
    }

    /// The type of its values.
    pub fn config_type(&self) -> ConfigType {
        match self.values {
            Values::Bool | Values::OnlyFalse(_) => ConfigType::Boolean,
            Values::Int(..) => ConfigType::Int,
            Values::Long(_) => ConfigType::Long,
            Values::Ratio => ConfigType::Double,
            Values::Word(_) => ConfigType::String,
            Values::List(_) => ConfigType::List,
        }
    }

    /// The values that a broker has, for a topic that sets none where it is a topic's, with where each comes from; the
    /// first is the one that counts.
    pub fn broker_values<'a>(&self, broker: BrokerValues<'a>) -> Vec<(Cow<'a, str>, ConfigSource)> {
        let mut values = Vec::new();
        if let Some(value) = broker.own.get(self.name) {
            values.push((value.into(), ConfigSource::DynamicBroker));
        }
        if let Some(value) = broker.defaults.get(self.name) {
            values.push((value.into(), ConfigSource::DynamicDefault));
        }
        // What equals the default cannot be told from it.
        if let Some(value) = broker.started.value(self).map(|value| value.to_string())
            && value != self.default
        {
            values.push((value.into(), ConfigSource::StaticBroker));
        }
        values.push((self.default.into(), ConfigSource::Default));
        values
    }
}

fn parse_bool(value: &str) -> Result<bool, String> {
    if value.eq_ignore_ascii_case("true") {
        Ok(true)
    } else if value.eq_ignore_ascii_case("false") {
        Ok(false)
    } else {
        Err("Expected value to be either true or false".to_owned())
    }
}

fn choose(value: &str, choices: &'static [Choice]) -> Result<&'static str, String> {
    let Some(choice) = choices.iter().find(|choice| choice.word == value) else {
        let words: Vec<_> = choices.iter().map(|choice| choice.word).collect();
        return Err(format!("Value must be one of {}", words.join(", ")));
    };
    match choice.refused {
        Some(why) => Err(why.to_owned()),
        None => Ok(choice.word),
    }
}

/// Configs, by the names under which they are kept, in their canonical form.
///
/// # Errors
/// The first that is unknown or whose value is refused, or two that contradict each other.
pub fn check_all<'a>(
    kind: Kind,
    configs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<BTreeMap<String, String>, InvalidConfig> {
    let mut checked = BTreeMap::new();
    for (name, value) in configs {
        let key = kind.kept_as(name).ok_or_else(|| kind.unknown(name))?;
        checked.insert(key.name.to_owned(), key.check(value)?);
    }
    let lag = |name| number::<i64>(&checked, name);
    let (min, max) = (lag("min.compaction.lag.ms")?, lag("max.compaction.lag.ms")?);
    if min > max {
        return Err(InvalidConfig(format!(
            "min.compaction.lag.ms ({min}) is larger than max.compaction.lag.ms ({max})"
        )));
    }
    Ok(checked)
}

/// All topic configs, ordered by name.
pub fn keys() -> &'static [ConfigKey] {
    TOPIC_CONFIGS
}

/// The configs of brokers that can be changed while they run, beside those that they give to topics, ordered by name.
pub fn broker_keys() -> &'static [ConfigKey] {
    BROKER_CONFIGS
}

/// All group configs, ordered by name.
pub fn group_keys() -> &'static [ConfigKey] {
    GROUP_CONFIGS
}

/// All configs that a topic goes by, ordered by name. `overrides` are those set for it.
pub fn effective<'a>(
    overrides: &'a BTreeMap<String, String>,
    broker: BrokerValues<'a>,
) -> impl Iterator<Item = Effective<'a>> {
    TOPIC_CONFIGS.iter().map(move |key| match overrides.get(key.name) {
        Some(value) => Effective { key, value: value.into(), source: ConfigSource::Topic },
        None => {
            let (value, source) = key.broker_values(broker).swap_remove(0);
            Effective { key, value, source }
        }
    })
}

/// The value of a number, set or by default.
///
/// # Errors
/// Where what is set is no number.
///
/// # Panics
/// Where there is no such config with a number by default.
fn number<N: FromStr<Err: Debug>>(overrides: &BTreeMap<String, String>, name: &str) -> Result<N, InvalidConfig> {
    if let Some(value) = overrides.get(name) {
        return value.parse().map_err(|_| InvalidConfig(format!("{name} is {value}, which is no number")));
    }
    let key = ConfigKey::named(name).expect("callers ask for configs in the table");
    Ok(key.default.parse().expect("the table's defaults pass their own checks, which a test shows"))
}

/// The least number of replicas that `min.insync.replicas` asks for.
///
/// # Errors
/// Where what is set is no number.
pub fn min_insync_replicas(overrides: &BTreeMap<String, String>) -> Result<i64, InvalidConfig> {
    number(overrides, "min.insync.replicas")
}

impl TopicConfig {
    /// What a topic goes by for which `overrides` were set, on a broker with this `message.max.bytes`.
    ///
    /// # Errors
    /// Where an override would not have passed [`check_all`], which a command made by another version may hold.
    pub fn resolve(overrides: &BTreeMap<String, String>, message_max_bytes: i32) -> Result<TopicConfig, InvalidConfig> {
        let unsigned = |name, number: i64| {
            usize::try_from(number).map_err(|_| InvalidConfig(format!("{name} is {number}, which is out of bounds")))
        };
        let max_message_bytes = match overrides.contains_key("max.message.bytes") {
            true => number(overrides, "max.message.bytes")?,
            false => i64::from(message_max_bytes),
        };
        let timestamp_type = match overrides.get("message.timestamp.type").map(String::as_str) {
            None | Some("CreateTime") => TimestampType::CreateTime,
            Some("LogAppendTime") => TimestampType::LogAppendTime,
            Some(other) => return Err(InvalidConfig(format!("message.timestamp.type is {other}"))),
        };
        let policies = overrides.get("cleanup.policy").map_or("delete", String::as_str);
        let cleanup = Cleanup {
            delete: policies.split(',').any(|policy| policy == "delete"),
            compact: policies.split(',').any(|policy| policy == "compact"),
        };
        if !cleanup.delete && !cleanup.compact {
            return Err(InvalidConfig(format!("cleanup.policy is {policies}")));
        }
        Ok(TopicConfig {
            segment_bytes: unsigned("segment.bytes", number(overrides, "segment.bytes")?)? as u64,
            segment_ms: number(overrides, "segment.ms")?,
            cleanup,
            retention_ms: number(overrides, "retention.ms")?,
            retention_bytes: number(overrides, "retention.bytes")?,
            delete_retention_ms: number(overrides, "delete.retention.ms")?,
            min_compaction_lag_ms: number(overrides, "min.compaction.lag.ms")?,
            max_compaction_lag_ms: number(overrides, "max.compaction.lag.ms")?,
            min_cleanable_ratio: number(overrides, "min.cleanable.dirty.ratio")?,
            max_message_bytes: unsigned("max.message.bytes", max_message_bytes)?.min(MAX_BATCH_BYTES),
            timestamp_type,
            timestamp_before_max_ms: number(overrides, "message.timestamp.before.max.ms")?,
            timestamp_after_max_ms: number(overrides, "message.timestamp.after.max.ms")?,
            min_insync_replicas: unsigned("min.insync.replicas", min_insync_replicas(overrides)?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, value: &str) -> Result<String, String> {
        check_all(Kind::Topic, [(name, value)]).map(|configs| configs[name].clone()).map_err(|error| error.0)
    }

    #[test]
    fn the_table_is_in_order_and_its_defaults_are_legal() {
        for keys in [keys(), broker_keys(), group_keys()] {
            assert!(keys.windows(2).all(|two| two[0].name < two[1].name));
        }
        for key in keys().iter().chain(broker_keys()).chain(group_keys()) {
            assert_eq!(key.check(key.default).as_deref(), Ok(key.default), "{}", key.name);
            assert!(key.doc.ends_with('.'), "{}", key.name);
        }
    }

    #[test]
    fn values_are_canonical() {
        for (name, value, canonical) in [
            ("retention.ms", " 0010 ", "10"),
            ("retention.ms", "-1", "-1"),
            ("retention.bytes", "-5", "-5"),
            ("preallocate", "TRUE", "true"),
            ("remote.storage.enable", "False", "false"),
            ("cleanup.policy", "compact, delete", "compact,delete"),
            ("min.cleanable.dirty.ratio", "1", "1.0"),
            ("compression.type", "producer", "producer"),
        ] {
            assert_eq!(checked(name, value).as_deref(), Ok(canonical), "{name}={value}");
        }
    }

    #[test]
    fn refused_values_say_why() {
        for (name, value, why) in [
            ("no.such", "1", "Unknown topic config name: no.such"),
            ("retention.ms", "week", "Invalid value week for configuration retention.ms: Not a number of type LONG"),
            ("retention.ms", "-2", "Value must be at least -1"),
            ("segment.bytes", "1", "Value must be at least 1048576"),
            ("segment.bytes", "4294967296", "Not a number of type INT"),
            ("max.message.bytes", "99999999", "Value must be no more than"),
            ("preallocate", "yes", "Expected value to be either true or false"),
            ("min.cleanable.dirty.ratio", "NaN", "between 0 and 1"),
            ("message.timestamp.type", "createtime", "Value must be one of CreateTime, LogAppendTime"),
            ("cleanup.policy", "", "Value must be one of"),
            ("compression.type", "zstd", "stored compressed as their producer sent them"),
            ("unclean.leader.election.enable", "true", "never elected"),
            ("remote.storage.enable", "true", "no remote storage"),
        ] {
            let message = checked(name, value).unwrap_err();
            assert!(message.contains(why), "{name}={value}: {message}");
        }
    }

    #[test]
    fn configs_that_contradict_each_other_are_refused() {
        let lags = [("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "9")];
        assert!(check_all(Kind::Topic, lags).is_err());
        assert!(check_all(Kind::Topic, [lags[0]]).is_ok());
    }

    #[test]
    fn a_topic_goes_by_its_own_then_by_the_brokers_then_by_the_default() {
        let none = BTreeMap::new();
        let set = |value: &str| check_all(Kind::Topic, [("max.message.bytes", value)]).unwrap();
        let (own, of_broker, of_all) = (set("7"), set("8"), set("9"));
        let source = |overrides, own, defaults, message_max_bytes| {
            let started = Started { message_max_bytes, max_connections: 1, max_connections_per_ip: 1 };
            let mut all = effective(overrides, BrokerValues { own, defaults, started });
            let found = all.find(|effective| effective.key.name == "max.message.bytes").unwrap();
            (found.value.into_owned(), found.source)
        };
        let (value, default) = (|value: &str, source| (value.to_owned(), source), 1_048_588);
        assert_eq!(source(&none, &none, &none, default), value("1048588", ConfigSource::Default));
        assert_eq!(source(&none, &none, &none, 5), value("5", ConfigSource::StaticBroker));
        assert_eq!(source(&none, &none, &of_all, 5), value("9", ConfigSource::DynamicDefault));
        assert_eq!(source(&none, &of_broker, &of_all, 5), value("8", ConfigSource::DynamicBroker));
        assert_eq!(source(&own, &of_broker, &of_all, 5), value("7", ConfigSource::Topic));
        assert_eq!(TopicConfig::resolve(&none, 5).unwrap().max_message_bytes, 5);
        assert_eq!(TopicConfig::resolve(&own, 5).unwrap().max_message_bytes, 7);
    }

    #[test]
    fn each_kind_has_its_names() {
        let kept = |kind: Kind, name| kind.key(name).map(|key| key.name);
        assert_eq!(kept(Kind::Broker, "message.max.bytes"), Some("max.message.bytes"));
        assert_eq!(kept(Kind::Broker, "max.connections"), Some("max.connections"));
        assert_eq!(kept(Kind::Group, "consumer.session.timeout.ms"), Some("consumer.session.timeout.ms"));
        for (kind, name) in
            [(Kind::Broker, "max.message.bytes"), (Kind::Topic, "max.connections"), (Kind::Group, "retention.ms")]
        {
            assert_eq!(kept(kind, name), None, "{name}");
        }
        let all = [("max.message.bytes", "7"), ("max.connections", "8")];
        assert_eq!(check_all(Kind::Broker, all).map(|checked| checked.len()), Ok(2));
        assert!(check_all(Kind::Broker, [("consumer.session.timeout.ms", "1")]).is_err());
    }

    #[test]
    fn what_is_set_is_resolved() {
        let set = [
            ("segment.bytes", "1048576"),
            ("retention.bytes", "77"),
            ("min.cleanable.dirty.ratio", "0.25"),
            ("message.timestamp.type", "LogAppendTime"),
            ("message.timestamp.before.max.ms", "1"),
            ("message.timestamp.after.max.ms", "2"),
            ("min.insync.replicas", "2"),
        ];
        assert_eq!(
            TopicConfig::resolve(&check_all(Kind::Topic, set).unwrap(), 3),
            Ok(TopicConfig {
                segment_bytes: 1_048_576,
                segment_ms: 604_800_000,
                cleanup: Cleanup { delete: true, compact: false },
                retention_ms: 604_800_000,
                retention_bytes: 77,
                delete_retention_ms: 86_400_000,
                min_compaction_lag_ms: 0,
                max_compaction_lag_ms: i64::MAX,
                min_cleanable_ratio: 0.25,
                max_message_bytes: 3,
                timestamp_type: TimestampType::LogAppendTime,
                timestamp_before_max_ms: 1,
                timestamp_after_max_ms: 2,
                min_insync_replicas: 2,
            })
        );
        let defaults = TopicConfig::resolve(&BTreeMap::new(), 3).unwrap();
        assert_eq!((defaults.segment_bytes, defaults.timestamp_after_max_ms), (1 << 30, 3_600_000));
    }

    #[test]
    fn overrides_that_never_passed_the_checks_do_not_resolve() {
        for (name, value) in [("segment.bytes", "x"), ("segment.bytes", "-1"), ("message.timestamp.type", "x")] {
            let overrides = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            assert!(TopicConfig::resolve(&overrides, 3).is_err(), "{name}={value}");
        }
    }
}
