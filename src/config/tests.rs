use std::path::Path;

use super::*;

fn machine() -> Machine {
    Machine { cores: 6, memory_bytes: 16 << 30, hostname: "box".into() }
}

fn resolve(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut settings = Settings::default();
    for (name, text) in pairs {
        settings.set(Key::named(name).unwrap(), *text, Origin::Flag((*name).into()));
    }
    settings.resolve(&machine())
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    let mut settings = Settings::default();
    file::read(Path::new("x.toml"), text, &mut settings)?;
    settings.resolve(&machine())
}

fn refusal(text: &str) -> String {
    from_file(text).unwrap_err().to_string()
}

#[test]
fn nothing_given_is_a_configuration() {
    let config = resolve(&[]).unwrap();
    assert_eq!(config.data_dir, Path::new("./data"));
    assert_eq!(config.listen, "127.0.0.1:9092".parse().unwrap());
    assert_eq!(config.shards, 6);
    assert_eq!(config.memory_bytes, 8 << 30);
    assert_eq!(config.frame_bytes, 1 << 30);
    assert_eq!(config.max_request_bytes, limits::MAX_REQUEST_BYTES);
    assert_eq!(config.broker.tail_bytes, 256 << 20);
    assert_eq!(config.broker.advertised_host, "127.0.0.1");
    assert_eq!(config.broker.advertised_port, 9092);
    assert_eq!(config.broker.rack, None);
    assert!(config.broker.auto_create_topics);
}

#[test]
fn every_default_is_of_its_keys_form_and_every_name_is_there_once() {
    for (position, key) in keys::KEYS.iter().enumerate() {
        if let Default::Is(text) = key.default {
            let read = key.kind.text(text).is_some()
                || key.kind.integer(text).is_some()
                || key.kind.size(text).is_some()
                || key.kind.bool(text).is_some()
                || key.kind.listen(text).is_some();
            assert!(read, "{} has the default {text}", key.name);
        }
        assert!(keys::KEYS[..position].iter().all(|other| other.variable() != key.variable()), "{}", key.name);
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file_in_any_order() {
    let key = Key::named("shards").unwrap();
    let variable = || [("RINGLOG_SHARDS".to_string(), "2".to_string())];
    let mut settings = Settings::default();
    settings.set(key, "3", Origin::Flag("shards".into()));
    settings.add_environment(variable());
    file::read(Path::new("x.toml"), "shards = 1", &mut settings).unwrap();
    assert_eq!(settings.resolve(&machine()).unwrap().shards, 3);

    let mut settings = Settings::default();
    file::read(Path::new("x.toml"), "shards = 1", &mut settings).unwrap();
    assert_eq!(settings.resolve(&machine()).unwrap().shards, 1);
    settings.add_environment(variable());
    assert_eq!(settings.resolve(&machine()).unwrap().shards, 2);
}

#[test]
fn foreign_variables_are_left_alone_and_likely_slips_warned_about() {
    let mut settings = Settings::default();
    let names = ["HOME", "RINGLOG_CONFIG", "RINGLOG_SERVICE_HOST", "RINGLOG_DATADIR"];
    let warnings = settings.add_environment(names.map(|name| (name.into(), "x".into())));
    assert_eq!(warnings, ["environment variable RINGLOG_DATADIR means nothing, did you mean RINGLOG_DATA_DIR?"]);
    assert!(settings.resolve(&machine()).is_ok());
}

#[test]
fn dotted_quoted_and_nested_names_are_the_same_key() {
    for text in ["node.id = 7", "\"node.id\" = 7", "[node]\nid = 7", "node = { id = 7 }"] {
        assert_eq!(from_file(text).unwrap().broker.broker_id, BrokerId(7), "{text}");
    }
}

#[test]
fn a_file_is_refused_with_place_and_reason() {
    assert_eq!(
        refusal("shards = 2\n\nnum.partition = 3\n"),
        "x.toml:3: unknown key `num.partition`, did you mean `num.partitions`?"
    );
    assert_eq!(refusal("# new\n[colour]\nred = 1\n"), "x.toml:3: unknown key `colour.red`");
    assert_eq!(refusal("colour = {}"), "x.toml:1: unknown key `colour`");
    assert_eq!(
        refusal("num.partitions = \"3\""),
        "x.toml:1: `num.partitions` is the text \"3\", expected a whole number from 1 to 10000"
    );
    assert_eq!(
        refusal("num.partitions = 0"),
        "x.toml:1: `num.partitions` is `0`, expected a whole number from 1 to 10000"
    );
    assert_eq!(
        refusal("auto.create.topics.enable = 1"),
        "x.toml:1: `auto.create.topics.enable` is the number 1, expected true or false"
    );
    assert_eq!(refusal("log.format = \"xml\""), "x.toml:1: `log.format` is `xml`, expected human or json");
    assert_eq!(refusal("data.dir = \"\""), "x.toml:1: `data.dir` is ``, expected a text that is not empty");
    assert!(refusal("shards = 1\nshards = 2").starts_with("x.toml:2: "));
    assert_eq!(refusal("\"node.id\" = 1\nnode.id = 2"), "x.toml:1: `node.id` is given twice, also on line 2");
    assert!(refusal("shards = \n").starts_with("x.toml:1: "));
}

#[test]
fn sizes_have_units() {
    let memory = |text: &str| resolve(&[("memory", text)]).map(|config| config.memory_bytes);
    assert_eq!(memory("512MiB"), Ok(512 << 20));
    assert_eq!(memory("1GB"), Ok(1_000_000_000));
    assert_eq!(memory("2g"), Ok(2 << 30));
    assert_eq!(memory("268435456"), Ok(256 << 20));
    assert_eq!(from_file("memory = 268435456").unwrap().memory_bytes, 256 << 20);
    assert_eq!(from_file("memory = \"1 GiB\"").unwrap().memory_bytes, 1 << 30);
    for text in ["", "GiB", "1.5GiB", "-1", "1XB", "99999999999TiB"] {
        let error = memory(text).unwrap_err().to_string();
        assert!(error.contains("expected a size such as 512MiB, 1GB or plain bytes, from 128MiB to"), "{error}");
    }
}

#[test]
fn with_the_least_memory_the_shares_still_fit() {
    let config = resolve(&[("memory", "128MiB")]).unwrap();
    assert_eq!(config.frame_bytes, 32 << 20);
    assert_eq!(config.max_request_bytes, 16 << 20);
    assert!(resolve(&[("memory", "127MiB")]).is_err());
    let error = resolve(&[("memory", "128MiB"), ("message.max.bytes", "16MiB")]).unwrap_err();
    assert!(error.to_string().contains("`message.max.bytes` is 16MiB, but with `memory` at 128MiB"), "{error}");
    assert!(resolve(&[("memory", "1GiB"), ("message.max.bytes", "32MiB")]).is_ok());
}

#[test]
fn a_small_machine_is_told_so() {
    let small = Machine { memory_bytes: 200 << 20, ..machine() };
    let error = Settings::default().resolve(&small).unwrap_err();
    assert!(error.to_string().contains("100MiB, less than the 128MiB"), "{error}");
}

#[test]
fn clients_are_told_an_address_that_they_can_use() {
    let told = |pairs: &[(&str, &str)]| {
        let broker = resolve(pairs).unwrap().broker;
        (broker.advertised_host, broker.advertised_port)
    };
    assert_eq!(told(&[("listen", "0.0.0.0:1")]), ("box".into(), 1));
    assert_eq!(told(&[("listen", "[::]:1")]), ("box".into(), 1));
    assert_eq!(told(&[("listen", "[::1]:1")]), ("::1".into(), 1));
    assert_eq!(told(&[("listen", "localhost:1")]), ("127.0.0.1".into(), 1));
    assert_eq!(told(&[("advertise", "a.example:2")]), ("a.example".into(), 2));
    assert_eq!(told(&[("advertise", "a.example")]), ("a.example".into(), 9092));
    assert_eq!(told(&[("advertise", "[2001:db8::1]:2")]), ("2001:db8::1".into(), 2));
    for text in ["", ":2", "a b:2", "a:0", "a:70000", "a:2:3", "[::1", "[x]:2", "[::1]2", "::1"] {
        assert!(resolve(&[("advertise", text)]).is_err(), "{text}");
    }
    for text in ["", "9092", "broker:9092", "1.2.3.4", "1.2.3.4:x"] {
        let error = resolve(&[("listen", text)]).unwrap_err().to_string();
        assert!(error.ends_with("expected an IP address and a port, such as 0.0.0.0:9092 or [::1]:9092"), "{error}");
    }
    let nameless = Machine { hostname: String::new(), ..machine() };
    let mut settings = Settings::default();
    settings.set(Key::named("listen").unwrap(), "0.0.0.0:9092", Origin::Flag("listen".into()));
    assert!(settings.resolve(&nameless).unwrap_err().to_string().contains("set `advertise`"));
}

fn voters(node: &str, list: &str) -> Result<Config, ConfigError> {
    resolve(&[("node.id", node), ("controller.quorum.voters", list)])
}

#[test]
fn voters_are_ordered_and_agree_on_their_cluster() {
    let config = voters("2", "3@c.example:9093, 1@127.0.0.1:1,2@[::1]:9").unwrap();
    let shown: Vec<_> = config.broker.peers.iter().map(|p| (p.id.0, &*p.host, p.port)).collect();
    assert_eq!(shown, [(1, "127.0.0.1", 1), (2, "::1", 9), (3, "c.example", 9093)]);
    // The id is kept in data directories: it must never be made in another way.
    let id = ClusterId::Derived("R-4aZrUZagfNsqiBbO4Aww".into());
    assert_eq!(config.cluster_id, id);
    assert_eq!(voters("3", "1@127.0.0.1:1,2@[::1]:9,3@c.example:9093").unwrap().cluster_id, id);
    assert_ne!(voters("3", "1@127.0.0.1:1,2@[::1]:9,3@c.example:9094").unwrap().cluster_id, id);
    assert!(config.peer_frame_bytes >= 3 * limits::PEER_FRAME_BYTES as u64);

    let given = [("node.id", "1"), ("controller.quorum.voters", "1@a:1,2@b:1"), ("cluster.id", "blue")];
    assert_eq!(resolve(&given).unwrap().cluster_id, ClusterId::Given("blue".into()));
}

#[test]
fn a_broker_without_others_is_alone() {
    let config = resolve(&[]).unwrap();
    assert_eq!((config.broker.peers.len(), config.cluster_id, config.peer_frame_bytes), (0, ClusterId::Any, 0));
    assert_eq!(config.broker.peer_address, None);
    assert_eq!(resolve(&[("cluster.id", "red")]).unwrap().cluster_id, ClusterId::Given("red".into()));
}

#[test]
fn a_broker_joins_a_cluster_that_knows_it_not() {
    let joining = |list, listener| {
        resolve(&[("node.id", "4"), ("controller.quorum.voters", list), ("inter.broker.listener", listener)])
    };
    let config = joining("2@a:1,1@b:1", "[::1]:9").unwrap();
    let address = PeerAddress { id: BrokerId(4), host: "::1".into(), port: 9 };
    assert_eq!((config.broker.first_voters().len(), config.broker.peer_address), (2, Some(address)));
    // It is told the same list as the others, and so knows the cluster's id.
    assert_eq!(config.cluster_id, voters("1", "1@b:1,2@a:1").unwrap().cluster_id);
    let one = voters("7", "7@a:1").unwrap();
    assert_eq!((one.broker.peers.len(), one.broker.peer_address.map(|own| own.port)), (1, Some(1)));

    let error = |list, listener| joining(list, listener).unwrap_err().to_string();
    let moved = joining("1@b:1,4@a:1", "c:9").unwrap();
    assert_eq!(moved.broker.peer_address.map(|own| own.host).as_deref(), Some("c"));
    assert_eq!(error("1@b:1", "c"), "`inter.broker.listener` names no port");
    let alone = resolve(&[("inter.broker.listener", "c:9")]).unwrap_err().to_string();
    assert!(alone.starts_with("`controller.quorum.voters` is not set"), "{alone}");
}

#[test]
fn voters_that_make_no_sense_are_refused() {
    let error = |list: &str| voters("1", list).unwrap_err().to_string();
    for list in ["", "1", "1@a", "a:1", "1@a:0", "1@a:70000", "1@:1", "-1@a:1", "x@a:1", "1@a:1,", "1@a:1;2@b:1"] {
        assert!(error(list).contains("expected the voters' ids and addresses"), "{list}: {}", error(list));
    }
    assert_eq!(error("1@a:1,2@b:1,1@c:1"), "`controller.quorum.voters` names broker 1 twice");
    let same = "`controller.quorum.voters` gives brokers 1 and 2 the same address, a:1";
    assert_eq!(error("1@a:1,2@a:1"), same);
    let missing = "`controller.quorum.voters` does not name this broker, whose `node.id` is 1";
    assert!(error("2@a:1,3@b:1").starts_with(missing));
    let many: Vec<String> = (1..=16).map(|n| format!("{n}@h{n}:1")).collect();
    assert_eq!(error(&many.join(",")), "`controller.quorum.voters` names 16 brokers, more than the 15 there may be");
    for id in ["", "a b", "a/b", &"x".repeat(65)] {
        let error = resolve(&[("cluster.id", id)]).unwrap_err().to_string();
        assert!(error.ends_with("expected up to 64 letters, digits, dots, hyphens and underscores"), "{error}");
    }
}

/// The example file shows every key, commented out, each with its default or with a value of its form.
#[test]
fn the_example_file_follows_the_table() {
    let example = include_str!("../../ringlog.example.toml");
    assert!(from_file(example).is_ok());
    let mut bare = String::new();
    let mut shown = Vec::new();
    for line in example.lines() {
        if let Some(setting) = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ') && !rest.is_empty()) {
            bare.push_str(setting);
            let (name, value) = setting.split_once(" = ").unwrap();
            let name = name.trim_matches('"');
            shown.push(name);
            let key = Key::named(name).unwrap_or_else(|| panic!("{name} is no key"));
            if let Default::Is(text) = key.default {
                assert_eq!(value.trim_matches('"'), text, "{name}");
            }
        }
        bare.push('\n');
    }
    from_file(&bare).unwrap();
    assert_eq!(shown, keys::KEYS.iter().map(|key| key.name).collect::<Vec<_>>());
    for key in keys::KEYS {
        assert!(example.contains(&format!("# {}.", key.help)), "{} is not explained as in the table", key.name);
    }
}

#[test]
fn times_of_groups_must_be_within_their_bounds() {
    let session = "group.consumer.session.timeout.ms";
    let refused = resolve(&[(session, "44999")]).unwrap_err().to_string();
    assert!(refused.contains("`group.consumer.min.session.timeout.ms`"), "{refused}");
    let groups = resolve(&[(session, "44999"), ("group.consumer.min.session.timeout.ms", "44999")]).unwrap();
    assert_eq!(groups.broker.groups.consumer_session_timeouts_ms, 44_999..=60_000);
    assert!(resolve(&[("group.consumer.heartbeat.interval.ms", "15001")]).is_err());
}
