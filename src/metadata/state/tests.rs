use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::limits::{MAX_OWN_CONFIG_BYTES, MAX_QUOTA_BYTES};
use crate::metadata::codec::{decode_snapshot, encode_snapshot};
use crate::metadata::command::{Configs, MorePartitions, NewPartition, OwnerConfigs, Placed, TopicConfigs};
use crate::metadata::quotas::{QuotaChange, Scope};

fn topic(name: &str, id: u128, partitions: usize) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        id: Uuid::from_u128(id),
        partitions: vec![NewPartition { replicas: vec![BrokerId(1)] }; partitions],
        configs: BTreeMap::new(),
    }
}

fn create(topics: &[NewTopic]) -> Command {
    Command::CreateTopics { topics: topics.to_vec() }
}

fn delete(ids: &[u128]) -> Command {
    Command::DeleteTopics { ids: ids.iter().copied().map(Uuid::from_u128).collect() }
}

fn broker(id: i32, port: u16) -> NewBroker {
    NewBroker {
        id: BrokerId(id),
        host: "localhost".to_owned(),
        port,
        rack: None,
        incarnation: 7,
        directory_id: [id as u8; 16],
    }
}

fn logs(state: &State, name: &str) -> Vec<u64> {
    state.topic(name).unwrap().partitions.iter().map(|partition| partition.log.0).collect()
}

/// What holds in every state, whatever led to it.
fn check(state: &State) {
    let mut logs = std::collections::BTreeSet::new();
    let mut folded = std::collections::BTreeSet::new();
    for topic in state.topics() {
        assert_eq!(state.topic(&topic.name), Some(topic));
        assert_eq!(state.topic_by_id(topic.id), Some(topic));
        assert!(folded.insert(names::folded(&topic.name)));
        for partition in &topic.partitions {
            assert!(logs.insert(partition.log));
            assert!(partition.log >= LogId(1) && partition.log < state.next_log_id());
        }
    }
    assert_eq!(state.partitions(), logs.len());
    assert_eq!(state.by_id.len(), state.topics.len());
    let mut weight = Weight::default();
    state.topics().for_each(|topic| weight.add(Weight::of(&**topic)));
    assert_eq!(weight, state.topics_weight);
    let moving = state.moves.iter().filter(|(_, moved)| moved.target.is_some());
    assert!(moving.map(|(log, _)| log).eq(&state.moving));
    assert_eq!(state.by_folded.len(), state.topics().filter(|topic| names::can_collide(&topic.name)).count());
}

#[test]
fn logs_are_consecutive_and_never_used_twice() {
    let mut state = State::default();
    state.apply(1, &create(&[topic("a", 1, 3), topic("b", 2, 2)]));
    assert_eq!((logs(&state, "a"), logs(&state, "b")), (vec![1, 2, 3], vec![4, 5]));
    let changes = state.apply(2, &delete(&[2]));
    assert!(matches!(&changes[..], [Change::TopicDeleted { topic }] if topic.partitions[1].log == LogId(5)));
    assert_eq!(state.partitions(), 3);
    state.apply(3, &create(&[topic("b", 3, 1)]));
    assert_eq!(logs(&state, "b"), [6]);
    check(&state);
}

#[test]
fn a_stale_create_is_rejected_topic_by_topic() {
    let mut state = State::default();
    state.apply(1, &create(&[topic("a.b", 1, 1)]));
    let wanted = [topic("a.b", 2, 1), topic("a_b", 3, 1), topic("new", 1, 1), topic("other", 4, 2)];
    let changes = state.apply(2, &create(&wanted));
    let reasons: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Change::CreateRejected { why, .. } => Some(why.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(
        reasons,
        [Some(Rejection::NameTaken), Some(Rejection::NameCollides("a.b".into())), Some(Rejection::IdTaken), None]
    );
    assert_eq!(logs(&state, "other"), [2, 3]);
    check(&state);
}

#[test]
fn a_stale_delete_is_reported() {
    let mut state = State::default();
    state.apply(1, &create(&[topic("a.b", 1, 1)]));
    let changes = state.apply(2, &delete(&[1, 1]));
    assert!(matches!(&changes[0], Change::TopicDeleted { .. }));
    assert_eq!(changes[1], Change::DeleteRejected { id: Uuid::from_u128(1) });
    assert_eq!(state.topics().len(), 0);
    let changes = state.apply(3, &create(&[topic("a_b", 2, 1)]));
    assert!(matches!(&changes[..], [Change::TopicCreated { .. }]), "the deleted name collides with nothing");
    check(&state);
}

#[test]
fn producer_ids_come_in_blocks_until_there_are_none() {
    let mut state = State::default();
    let allocate = |count| Command::AllocateProducerIds { broker: BrokerId(1), count };
    let ids = |first, count| vec![Change::ProducerIds { broker: BrokerId(1), first, count }];
    assert_eq!(state.apply(1, &allocate(1000)), ids(0, 1000));
    assert_eq!(state.apply(2, &allocate(500)), ids(1000, 500));
    state.next_producer_id = i64::MAX - 10;
    assert_eq!(state.apply(3, &allocate(11)), ids(i64::MAX - 10, 0));
    assert_eq!(state.apply(4, &allocate(10)), ids(i64::MAX - 10, 10));
}

#[test]
fn a_broker_registers_again_with_another_address() {
    let mut state = State::default();
    state.apply(1, &Command::RegisterBroker(broker(1, 9092)));
    let before = state.hash();
    state.apply(2, &Command::RegisterBroker(broker(1, 9093)));
    assert_eq!(state.brokers().count(), 1);
    assert_eq!(state.broker(BrokerId(1)).unwrap().port, 9093);
    assert_ne!(state.hash(), before);
}

#[test]
#[should_panic(expected = "applied once and in order")]
fn an_entry_is_not_applied_twice() {
    let mut state = State::default();
    state.apply(5, &delete(&[]));
    state.apply(5, &delete(&[]));
}

#[test]
fn the_hash_tells_states_and_indexes_apart() {
    let mut one = State::default();
    let mut other = State::default();
    one.apply(1, &create(&[topic("a", 1, 1)]));
    other.apply(1, &create(&[topic("a", 1, 2)]));
    assert_ne!(one.hash(), other.hash());
    let before = one.hash();
    one.skip_to(2);
    assert_ne!(one.hash(), before);
}

#[test]
fn a_snapshot_that_no_state_made_is_refused() {
    let mut state = State::default();
    state.apply(1, &Command::RegisterBroker(broker(1, 1)));
    state.apply(2, &create(&[topic("a", 1, 1), topic("b_c", 2, 1)]));
    let good = state.snapshot();
    let refused = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = good.clone();
        change(&mut snapshot);
        State::from_snapshot(snapshot).unwrap_err()
    };
    assert_eq!(refused(&|snapshot| snapshot.brokers.push(broker(1, 2))), SnapshotError::DuplicateBroker(BrokerId(1)));
    let twice = |name: &str| SnapshotError::DuplicateTopic(name.into());
    assert_eq!(refused(&|snapshot| snapshot.topics.push(snapshot.topics[0].clone())), twice("a"));
    assert_eq!(refused(&|snapshot| snapshot.topics[1].id = snapshot.topics[0].id), twice("b_c"));
    assert_eq!(refused(&|snapshot| snapshot.topics[0].name = "b.c".into()), twice("b_c"));
    let wrong_log = |log| SnapshotError::Log { topic: "b_c".into(), log: LogId(log) };
    for log in [0, 1, 3] {
        assert_eq!(refused(&|snapshot| snapshot.topics[1].partitions[0].log = LogId(log)), wrong_log(log));
    }
    let empty = SnapshotError::Empty("a".into());
    assert_eq!(refused(&|snapshot| snapshot.topics[0].partitions = Box::default()), empty);
    assert_eq!(refused(&|snapshot| snapshot.topics[0].partitions[0].replicas = Box::default()), empty);
}

#[test]
fn a_snapshot_never_outgrows_its_bound() {
    let mut state = State::default();
    let mut large = topic("", 0, 1);
    large.configs.insert("config".to_owned(), "x".repeat(1024 * 1024));
    let fit = MAX_TOPIC_METADATA_BYTES / (1024 * 1024) - 1;
    for number in 1..=20 {
        let wanted = NewTopic { name: format!("topic-{number}"), id: Uuid::from_u128(number as u128), ..large.clone() };
        let changes = state.apply(number as u64, &create(&[wanted]));
        let rejected = matches!(changes[..], [Change::CreateRejected { why: Rejection::Full, .. }]);
        assert_eq!(rejected, number > fit, "topic {number}");
    }
    assert_eq!(state.next_log_id(), LogId(fit as u64 + 1), "a topic that is rejected takes no logs");
    assert!(encode_snapshot(&state.snapshot()).unwrap().len() <= state.topics_weight.bytes + 64);
    state.apply(21, &delete(&[1]));
    let changes = state.apply(22, &create(&[topic("small", 30, 1)]));
    assert!(matches!(&changes[..], [Change::TopicCreated { .. }]));
}

#[test]
fn a_hundred_thousand_partitions_apply_in_one_go() {
    let mut state = State::default();
    let topics: Vec<_> = (0..1_000).map(|number| topic(&format!("topic-{number}"), number, 100)).collect();
    state.apply(1, &create(&topics));
    assert_eq!(state.partitions(), 100_000);
    let restored = State::from_snapshot(decode_snapshot(&encode_snapshot(&state.snapshot()).unwrap()).unwrap());
    assert_eq!(restored.unwrap().hash(), state.hash());
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let name = prop::sample::select(vec!["a", "b", "a.b", "a_b", "b-a", "a.b_c", "a_b.c"]);
    let config = prop::collection::btree_map("[a-c]{1,2}", "[0-9]{1,3}", 0..3);
    let partitions = prop::collection::vec(prop::collection::vec(0..3, 1..3), 1..4);
    let new_topic = (name, 1..12u128, partitions, config).prop_map(|(name, id, partitions, configs)| NewTopic {
        name: name.to_owned(),
        id: Uuid::from_u128(id),
        partitions: partitions
            .into_iter()
            .map(|replicas| NewPartition { replicas: replicas.into_iter().map(BrokerId).collect() })
            .collect(),
        configs,
    });
    let command = prop_oneof![
        (0..3, 1..9u16).prop_map(|(id, port)| Command::RegisterBroker(broker(id, port))),
        prop::collection::vec(new_topic, 0..4).prop_map(|topics| Command::CreateTopics { topics }),
        prop::collection::vec(1..12u128, 0..4).prop_map(|ids| delete(&ids)),
        (1..5000u32).prop_map(|count| Command::AllocateProducerIds { broker: BrokerId(1), count }),
        ("[a-c]", prop::option::of(1..9u32)).prop_map(|(name, rate)| {
            let change = quota_change(&name, rate.map(f64::from));
            Command::AlterQuotas { changes: vec![change] }
        }),
        (1..12u128, 1..5u32, 1..3usize)
            .prop_map(|(id, before, count)| Command::CreatePartitions { topics: vec![more(id, before, count)] }),
        (1..12u128, 0..2usize, prop::bool::ANY).prop_map(|(id, before, defaults)| {
            let [before, after] = [before, 1 - before].map(|value| set(&[("c", "5")][..value]));
            let configs = Configs { before, after };
            let topics = vec![TopicConfigs { id: Uuid::from_u128(id), configs: configs.clone() }];
            Command::AlterConfigs { topics, defaults: defaults.then_some(configs) }
        }),
        (0..4i32, 0..2usize).prop_map(|(number, before)| {
            let [before, after] = [before, 1 - before].map(|value| set(&[("c", "5")][..value]));
            let owner = match number < 2 {
                true => Owner::Broker(BrokerId(number)),
                false => Owner::Group(number.to_string()),
            };
            let owners = vec![OwnerConfigs { owner, configs: Configs { before, after } }];
            Command::AlterOwnConfigs { topics: Vec::new(), defaults: None, owners }
        }),
    ];
    prop::collection::vec(command, 0..24)
}

proptest! {
    #[test]
    fn a_snapshot_stands_for_the_commands_before_it(commands in commands(), cut in 0..24usize) {
        let mut whole = State::default();
        let mut resumed = State::default();
        for (at, command) in commands.iter().enumerate() {
            if at == cut {
                let bytes = encode_snapshot(&resumed.snapshot()).unwrap();
                resumed = State::from_snapshot(decode_snapshot(&bytes).unwrap()).unwrap();
            }
            let index = at as u64 + 1;
            prop_assert_eq!(whole.apply(index, command), resumed.apply(index, command));
            prop_assert_eq!(whole.hash(), resumed.hash());
            check(&whole);
        }
        prop_assert_eq!(whole.snapshot(), resumed.snapshot());
        check(&resumed);
    }

    #[test]
    fn topics_that_come_and_go_leave_no_trace_but_the_counters(commands in commands()) {
        let mut state = State::default();
        for (at, command) in commands.iter().enumerate() {
            state.apply(at as u64 + 1, command);
        }
        let ids: Vec<_> = state.topics().map(|topic| topic.id).collect();
        state.apply(100, &Command::DeleteTopics { ids });
        let mut brokers_alone = State {
            next_log_id: state.next_log_id,
            next_producer_id: state.next_producer_id,
            applied: 99,
            defaults: state.defaults.clone(),
            ..State::default()
        };
        brokers_alone.set_quotas(state.quotas.clone());
        brokers_alone.set_own(state.own.clone());
        for registered in state.brokers() {
            brokers_alone.insert_broker(registered.clone());
        }
        brokers_alone.skip_to(100);
        prop_assert_eq!(state.hash(), brokers_alone.hash());
    }
}

fn more(id: u128, before: u32, partitions: usize) -> MorePartitions {
    let partitions = vec![NewPartition { replicas: vec![BrokerId(1)] }; partitions];
    MorePartitions { id: Uuid::from_u128(id), before, partitions }
}

fn set(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn alter(id: u128, before: &[(&str, &str)], after: &[(&str, &str)]) -> TopicConfigs {
    TopicConfigs { id: Uuid::from_u128(id), configs: Configs { before: set(before), after: set(after) } }
}

#[test]
fn further_partitions_get_logs_of_their_own() {
    let mut state = State::default();
    state.apply(1, &create(&[topic("a.b", 1, 2), topic("c", 2, 1)]));
    let changes = state.apply(2, &Command::CreatePartitions { topics: vec![more(1, 2, 2), more(2, 1, 1)] });
    let firsts: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Change::PartitionsCreated { topic, first } => (topic.partitions.len(), *first),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(firsts, [(4, 2), (2, 1)]);
    assert_eq!((logs(&state, "a.b"), logs(&state, "c")), (vec![1, 2, 4, 5], vec![3, 6]));
    check(&state);
}

#[test]
fn a_change_that_was_overtaken_does_nothing() {
    let mut state = State::default();
    state.apply(1, &create(&[topic("a", 1, 2), topic("b", 2, 1)]));
    state.apply(2, &Command::CreatePartitions { topics: vec![more(1, 2, 1)] });
    let overtaken = [
        Command::CreatePartitions { topics: vec![more(2, 1, 1), more(1, 2, 1)] },
        Command::CreatePartitions { topics: vec![more(9, 2, 1)] },
        Command::AlterConfigs {
            topics: vec![alter(2, &[], &[("x", "1")]), alter(1, &[("x", "2")], &[])],
            defaults: None,
        },
        Command::AlterConfigs {
            topics: vec![alter(2, &[], &[("x", "1")])],
            defaults: Some(Configs { before: set(&[("x", "1")]), after: set(&[]) }),
        },
    ];
    for (index, command) in (3..).zip(overtaken) {
        assert_eq!(state.apply(index, &command), [Change::Overtaken]);
    }
    assert_eq!((logs(&state, "a"), logs(&state, "b")), (vec![1, 2, 4], vec![3]));
    assert!(state.topics().all(|topic| topic.configs.is_empty()) && state.defaults().is_empty());
    assert_eq!(state.next_log_id(), LogId(5));
    check(&state);
}

#[test]
fn configs_take_the_place_of_others() {
    let mut state = State::default();
    state.apply(1, &create(&[topic("a_b", 1, 1)]));
    let hash = state.hash();
    let defaults = Configs { before: set(&[]), after: set(&[("x", "0"), ("y", "9")]) };
    let topics = vec![alter(1, &[], &[("x", "1")])];
    let changes = state.apply(2, &Command::AlterConfigs { topics, defaults: Some(defaults) });
    assert!(
        matches!(&changes[..], [Change::ConfigsAltered { topic }, Change::DefaultsAltered] if topic.id.as_u128() == 1)
    );
    let topic = state.topic("a_b").unwrap();
    assert_eq!(topic.configs, set(&[("x", "1")]));
    assert_eq!(*state.configs_of(topic, BrokerId(1)), set(&[("x", "1"), ("y", "9")]));
    let mut other = state.clone();
    assert_eq!(
        State::from_snapshot(decode_snapshot(&encode_snapshot(&state.snapshot()).unwrap()).unwrap()).unwrap().hash(),
        state.hash()
    );
    other.defaults.clear();
    assert_ne!(other.hash(), state.hash());
    assert_ne!(hash, state.hash());
    check(&state);
}

fn own(owner: Owner, before: &[(&str, &str)], after: &[(&str, &str)]) -> Command {
    let configs = Configs { before: set(before), after: set(after) };
    Command::AlterOwnConfigs { topics: Vec::new(), defaults: None, owners: vec![OwnerConfigs { owner, configs }] }
}

#[test]
fn a_brokers_own_configs_come_before_those_of_all() {
    let mut state = State::default();
    let of_broker = || Owner::Broker(BrokerId(1));
    state.apply(1, &create(&[topic("a", 1, 1)]));
    let defaults = Configs { before: set(&[]), after: set(&[("x", "0"), ("y", "9")]) };
    state.apply(2, &Command::AlterConfigs { topics: vec![alter(1, &[], &[("z", "1")])], defaults: Some(defaults) });
    let altered = Change::OwnConfigsAltered { owner: of_broker() };
    assert_eq!(state.apply(3, &own(of_broker(), &[], &[("x", "1"), ("z", "2")])), [altered]);
    assert_eq!(*state.given_by(BrokerId(1)), set(&[("x", "1"), ("y", "9"), ("z", "2")]));
    let topic = state.topic("a").unwrap();
    assert_eq!(*state.configs_of(topic, BrokerId(1)), set(&[("x", "1"), ("y", "9"), ("z", "1")]));
    assert_eq!(*state.configs_of(topic, BrokerId(2)), set(&[("x", "0"), ("y", "9"), ("z", "1")]));
    assert_eq!(state.apply(4, &own(of_broker(), &[], &[])), [Change::Overtaken]);
}

#[test]
fn configs_of_groups_do_not_outgrow_a_snapshot() {
    let mut state = State::default();
    let hash = state.hash();
    let half = "v".repeat(MAX_OWN_CONFIG_BYTES / 2);
    let group = |name: &str| Owner::Group(name.to_owned());
    state.apply(1, &own(group("a"), &[], &[("x", &half)]));
    assert_ne!(state.hash(), hash);
    assert_eq!(state.apply(2, &own(group("b"), &[], &[("x", &half)])), [Change::Full]);
    assert_eq!(state.own().groups().collect::<Vec<_>>(), ["a"]);
    state.apply(3, &own(group("a"), &[("x", &half)], &[]));
    assert_eq!(state.own().groups().next(), None);
}

fn quota_change(client: &str, rate: Option<f64>) -> QuotaChange {
    let entity = Entity { user: None, client_id: Some(Scope::Named(client.to_owned())) };
    QuotaChange { entity, quota: Quota::ProducerByteRate, rate: rate.map(|rate| Rate::new(rate).unwrap()) }
}

#[test]
fn quotas_are_set_and_removed_and_do_not_outgrow_a_snapshot() {
    let mut state = State::default();
    let hash = state.hash();
    let set = |client: &str, rate| Command::AlterQuotas { changes: vec![quota_change(client, rate)] };
    assert_eq!(state.apply(1, &set("a", Some(5.0))), [Change::QuotasAltered]);
    assert_eq!(state.quotas().len(), 1);
    assert_ne!(state.hash(), hash);
    let large = "x".repeat(MAX_QUOTA_BYTES / 2);
    assert_eq!(state.apply(2, &set(&large, Some(5.0))), [Change::QuotasAltered]);
    let restored = State::from_snapshot(decode_snapshot(&encode_snapshot(&state.snapshot()).unwrap()).unwrap());
    assert_eq!(restored.unwrap().hash(), state.hash());
    let larger = "y".repeat(MAX_QUOTA_BYTES / 2);
    assert_eq!(state.apply(3, &set(&larger, Some(5.0))), [Change::Full]);
    assert_eq!(state.apply(4, &set(&large, None)), [Change::QuotasAltered]);
    assert_eq!(state.apply(5, &set(&larger, Some(5.0))), [Change::QuotasAltered]);
    assert_eq!(state.quotas().len(), 2);
}

#[test]
fn topics_do_not_outgrow_a_snapshot() {
    let mut state = State::default();
    state.apply(1, &create(&[topic("a", 1, 1)]));
    let large = set(&[("x", &"v".repeat(MAX_TOPIC_METADATA_BYTES))]);
    let configs = Configs { before: set(&[]), after: large };
    let change = TopicConfigs { id: Uuid::from_u128(1), configs };
    let before = state.topic("a").unwrap().clone();
    assert_eq!(state.apply(2, &Command::AlterConfigs { topics: vec![change], defaults: None }), [Change::Full]);
    let more = more(1, 1, MAX_TOPIC_METADATA_BYTES / 2);
    assert_eq!(state.apply(3, &Command::CreatePartitions { topics: vec![more] }), [Change::Full]);
    assert_eq!((state.topic("a"), state.next_log_id()), (Some(&before), LogId(2)));
    check(&state);
}

#[test]
fn replicas_move_and_are_taken_back() {
    let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
    let placed = |brokers: &[i32]| Placed { topic: Uuid::from_u128(1), partition: 0, replicas: ids(brokers) };
    let mut state = State::default();
    state.apply(1, &create(&[topic("a", 1, 1)]));
    let partition = |state: &State| state.topic("a").unwrap().partitions[0].clone();
    let hosts = |state: &State| state.hosts(&partition(state)).collect::<Vec<_>>();
    let before = partition(&state).replicas.to_vec();
    let (log, first) = (partition(&state).log, before[0].0);
    let elsewhere = [first + 1, first + 2];
    let there = state.apply(2, &Command::MoveReplicas { moves: vec![placed(&elsewhere)] });
    assert!(matches!(&there[..], [Change::ReplicasMove { partition: 0, .. }]));
    assert_eq!(hosts(&state), ids(&[first, first + 1, first + 2]));
    assert_eq!(state.moved(log).unwrap().first, before);
    check(&state);

    // Those where it would have gone may have replicas already.
    state.apply(3, &Command::MoveReplicas { moves: vec![placed(&[first])] });
    assert_eq!(hosts(&state), ids(&[first, first + 1, first + 2]));
    assert!(
        state.apply(4, &Command::ReplicasMoved { placed: placed(&elsewhere), number: 1 }).is_empty(),
        "nobody wants them there any more"
    );
    state.apply(5, &Command::ReplicasMoved { placed: placed(&[first]), number: 2 });
    assert_eq!((hosts(&state), state.moving().count()), (before, 0));
    check(&state);

    state.apply(6, &delete(&[1]));
    assert_eq!(state.moved(log), None);
    check(&state);
}

#[test]
fn what_changes_a_topic_leaves_its_moves_alone() {
    let mut state = State::default();
    state.apply(1, &create(&[topic("a", 1, 1)]));
    let log = state.topic("a").unwrap().partitions[0].log;
    let placed = Placed { topic: Uuid::from_u128(1), partition: 0, replicas: vec![BrokerId(8), BrokerId(9)] };
    state.apply(2, &Command::MoveReplicas { moves: vec![placed] });
    let moved = state.moved(log).cloned();
    assert!(moved.is_some());
    let grown = state.apply(3, &Command::CreatePartitions { topics: vec![more(1, 1, 2)] });
    assert!(matches!(grown[..], [Change::PartitionsCreated { .. }]));
    let altered = Command::AlterConfigs { topics: vec![alter(1, &[], &[("retention.ms", "1")])], defaults: None };
    assert!(matches!(state.apply(4, &altered)[..], [Change::ConfigsAltered { .. }]));
    assert_eq!(state.moved(log).cloned(), moved);
    check(&state);
}
