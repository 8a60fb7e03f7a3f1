//! Client quotas: what goes beyond one is answered at once, and the client is not listened to for a time.

use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{AlterClientQuotasRequest, CreateTopicsRequest, DescribeClientQuotasRequest};

use crate::common::fresh;
use crate::common::process::shared;
use crate::common::records::batch;
use crate::common::wire::{Wire, code, fetch_request, produce_request, text, topic_name};

/// Sets a quota of a client; `None` removes it.
fn set(client: &str, quota: &str, rate: Option<f64>) {
    let entity = EntityData::default().with_entity_type(text("client-id")).with_entity_name(Some(text(client)));
    let op = OpData::default().with_key(text(quota)).with_value(rate.unwrap_or(0.0)).with_remove(rate.is_none());
    let entry = EntryData::default().with_entity(vec![entity]).with_ops(vec![op]);
    let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
    let answer = Wire::connect(shared().address()).call(1, &request);
    assert_eq!(answer.entries[0].error_code, 0, "{:?}", answer.entries[0].error_message);
}

/// What is set for a client.
fn described(client: &str) -> Vec<(String, f64)> {
    let component =
        ComponentData::default().with_entity_type(text("client-id")).with_match_type(0).with_match(Some(text(client)));
    let request = DescribeClientQuotasRequest::default().with_components(vec![component]).with_strict(true);
    let entries = Wire::connect(shared().address()).call(1, &request).entries.expect("entries");
    let values = entries.into_iter().flat_map(|entry| entry.values);
    values.map(|value| (value.key.to_string(), value.value)).collect()
}

/// How long it takes until the broker answers something simple.
fn answers_after(wire: &mut Wire, topic: &str) -> Duration {
    let begun = Instant::now();
    wire.metadata(topic);
    begun.elapsed()
}

#[test]
fn a_producer_beyond_its_quota_waits() {
    let (client, topic) = (fresh("producer"), fresh("quota"));
    Wire::connect(shared().address()).create_topic(&topic, 1, &[]);
    set(&client, "producer_byte_rate", Some(20_000.0));
    assert_eq!(described(&client), [("producer_byte_rate".to_owned(), 20_000.0)]);
    let mut wire = Wire::connect_as(shared().address(), &client);
    // Ten seconds' worth may come at once.
    let mut produce = |bytes: usize| {
        let begun = Instant::now();
        let request = produce_request(&topic, &[(0, batch(&["x".repeat(bytes)]))], -1, 10_000);
        let answer = wire.call(9, &request);
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        (answer.throttle_time_ms, begun.elapsed())
    };
    assert_eq!((produce(95_000).0, produce(95_000).0), (0, 0));
    let (throttle_ms, took) = produce(30_000);
    assert!((500..=1_100).contains(&throttle_ms), "told to wait {throttle_ms} ms");
    assert!(took < Duration::from_millis(throttle_ms as u64), "the answer itself does not wait: {took:?}");
    let waited = answers_after(&mut wire, &topic);
    assert!(waited > Duration::from_millis(throttle_ms as u64 * 8 / 10), "{waited:?} of {throttle_ms} ms");
    assert!(waited < Duration::from_millis(throttle_ms as u64 + 1_000), "{waited:?} of {throttle_ms} ms");
    // Another connection of the client shares its quota, another client does not.
    let other = Wire::connect_as(shared().address(), &fresh("other"))
        .call(9, &produce_request(&topic, &[(0, batch(&["x".repeat(250_000)]))], -1, 10_000));
    assert_eq!(other.throttle_time_ms, 0);
    set(&client, "producer_byte_rate", None);
    assert_eq!(described(&client), []);
    let mut unbound = Wire::connect_as(shared().address(), &client);
    let again = unbound.call(9, &produce_request(&topic, &[(0, batch(&["x".repeat(250_000)]))], -1, 10_000));
    assert_eq!(again.throttle_time_ms, 0);
}

#[test]
fn a_consumer_beyond_its_quota_waits() {
    let (client, topic) = (fresh("consumer"), fresh("quota"));
    let mut wire = Wire::connect(shared().address());
    wire.create_topic(&topic, 1, &[]);
    assert_eq!(wire.produce(&topic, 0, batch(&["x".repeat(110_000)])).error_code, 0);
    set(&client, "consumer_byte_rate", Some(30_000.0));
    // Its connections may be on all shards, which tell each other.
    let fetch = |wire: &mut Wire| {
        let answer = wire.call(12, &fetch_request(&topic, &[(0, 0)], 0, 0));
        assert!(answer.responses[0].partitions[0].records.as_ref().is_some_and(|records| records.len() > 110_000));
        answer.throttle_time_ms
    };
    for _ in 0..2 {
        assert_eq!(fetch(&mut Wire::connect_as(shared().address(), &client)), 0);
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut wire = Wire::connect_as(shared().address(), &client);
    let throttle_ms = fetch(&mut wire);
    assert!((300..=1_200).contains(&throttle_ms), "told to wait {throttle_ms} ms");
    let waited = answers_after(&mut wire, &topic);
    assert!(waited > Duration::from_millis(throttle_ms as u64 * 8 / 10), "{waited:?} of {throttle_ms} ms");
    set(&client, "consumer_byte_rate", None);
}

#[test]
fn who_creates_too_many_partitions_is_refused() {
    let client = fresh("creator");
    set(&client, "controller_mutation_rate", Some(1.0));
    let create = |version: i16, partitions: i32| {
        let name = fresh("mutation");
        let topic = CreatableTopic::default()
            .with_name(topic_name(&name))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        // A connection that was told to wait would not be listened to.
        let answer = Wire::connect_as(shared().address(), &client).call(version, &request);
        (name, answer.topics[0].error_code, answer.throttle_time_ms)
    };
    let (_, error, throttle_ms) = create(7, 13);
    assert_eq!(error, 0, "what is owed afterwards counts, not what is asked for");
    assert!((2_000..=3_000).contains(&throttle_ms), "told to wait {throttle_ms} ms");
    std::thread::sleep(Duration::from_millis(100));
    let (name, error, throttle_ms) = create(7, 1);
    assert_eq!(error, code(ResponseError::ThrottlingQuotaExceeded));
    assert!(throttle_ms > 1_000, "told to wait {throttle_ms} ms");
    let unknown = code(ResponseError::UnknownTopicOrPartition);
    assert_eq!(Wire::connect(shared().address()).metadata(&name).topics[0].error_code, unknown);
    let (_, error, throttle_ms) = create(5, 1);
    assert_eq!(error, 0, "an older client would not know the error");
    assert!(throttle_ms > 2_000, "told to wait {throttle_ms} ms");
    set(&client, "controller_mutation_rate", None);
}

#[test]
fn who_takes_too_much_of_the_shards_time_waits() {
    let (client, topic) = (fresh("busy"), fresh("quota"));
    Wire::connect(shared().address()).create_topic(&topic, 1, &[]);
    // A hundredth of a percent is a millisecond in ten seconds.
    set(&client, "request_percentage", Some(0.01));
    assert_eq!(described(&client), [("request_percentage".to_owned(), 0.01)]);
    let mut wire = Wire::connect_as(shared().address(), &client);
    let mut requests = 0;
    let throttle_ms = loop {
        requests += 1;
        assert!(requests < 10_000, "a millisecond is enough for all of it");
        match wire.metadata(&topic).throttle_time_ms {
            0 => {}
            throttle_ms => break throttle_ms,
        }
    };
    assert!(requests > 1 && throttle_ms <= 1_000, "told to wait {throttle_ms} ms after {requests} requests");
    let waited = answers_after(&mut wire, &topic);
    assert!(waited > Duration::from_millis(throttle_ms as u64 * 8 / 10), "{waited:?} of {throttle_ms} ms");
    // What is told in one kind of answer is told in another.
    set(&client, "request_percentage", Some(0.000_001));
    let mut again = Wire::connect_as(shared().address(), &client);
    let mut fetch = || again.call(12, &fetch_request(&topic, &[(0, 0)], 0, 0)).throttle_time_ms;
    let told = (0..10).map(|_| fetch()).find(|throttle_ms| *throttle_ms > 0);
    assert_eq!(told, Some(1_000), "no more than a second at a time");
    set(&client, "request_percentage", None);
    assert_eq!(Wire::connect_as(shared().address(), &client).metadata(&topic).throttle_time_ms, 0);
}
