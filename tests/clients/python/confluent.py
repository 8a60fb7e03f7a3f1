"""confluent-kafka, and so librdkafka: python3 confluent.py HOST:PORT[,HOST:PORT] [CHECK ...]"""

import sys
import threading
import time

from checks import check, equal, eventually, fresh, main
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

BROKERS = sys.argv[1]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
COMMON = {"bootstrap.servers": BROKERS, "broker.address.family": "v4"}

admin = AdminClient(COMMON)


def create(name, partitions=1, **configs):
    topic = fresh(name)
    config = {key.replace("_", "."): value for key, value in configs.items()}
    admin.create_topics([NewTopic(topic, partitions, config=config)])[topic].result()
    return topic


def produce(topic, records, **settings):
    """Sends the records, each a dict of produce()'s arguments; returns what was acknowledged, or the first error."""
    producer = Producer(COMMON | {key.replace("_", "."): value for key, value in settings.items()})
    reports, errors = [], []

    def report(error, message):
        if error:
            errors.append(error)
        else:
            reports.append((message.partition(), message.offset()))

    for record in records:
        while True:
            try:
                producer.produce(topic, on_delivery=report, **record)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    if producer.flush(60):
        raise AssertionError("not everything was delivered in a minute")
    if errors:
        raise KafkaException(errors[0])
    return reports


def consumer(**settings):
    defaults = {"group.id": "none", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    return Consumer(COMMON | defaults | {key.replace("_", "."): value for key, value in settings.items()})


def read(client, count, seconds=30.0):
    """The next `count` messages; fails at an error and when they do not come."""
    messages, end = [], time.monotonic() + seconds
    while len(messages) < count:
        if time.monotonic() > end:
            raise AssertionError(f"{len(messages)} of {count} messages came")
        for message in client.consume(min(1000, count - len(messages)), 0.2):
            if message.error():
                raise KafkaException(message.error())
            messages.append(message)
    return messages


def read_from(topic, count, partition=0, offset=OFFSET_BEGINNING, **settings):
    client = consumer(**settings)
    client.assign([TopicPartition(topic, partition, offset)])
    try:
        return read(client, count)
    finally:
        client.close()


@check
def codecs():
    for codec in CODECS:
        for settings in [{"acks": 0}, {"acks": 1}, {"acks": "all"}, {"enable_idempotence": True}]:
            topic = create("codecs")
            values = [f"value {i} ".encode() * 10 for i in range(500)]
            produce(topic, [{"value": value} for value in values], compression_type=codec, linger_ms=5, **settings)
            equal([message.value() for message in read_from(topic, 500)], values)


@check
def shapes():
    topic = create("shapes")
    long_key = b"k" * 40_000
    headers = [("a", b"1"), ("a", b""), ("b", None), ("c" * 300, b"x" * 10_000)]
    records = [
        {"key": None, "value": None},
        {"key": b"", "value": b""},
        {"key": long_key, "value": b"v", "headers": headers},
        {"key": b"k", "value": None, "timestamp": 1_000},
        {"key": None, "value": b"v", "timestamp": 1_700_000_000_000},
    ]
    produce(topic, records)
    got = read_from(topic, len(records))
    equal([(m.key(), m.value()) for m in got], [(r["key"], r["value"]) for r in records])
    equal(got[2].headers(), headers)
    equal(got[3].timestamp(), (TIMESTAMP_CREATE_TIME, 1_000))
    equal(got[4].timestamp(), (TIMESTAMP_CREATE_TIME, 1_700_000_000_000))
    try:
        # message.timestamp.after.max.ms is an hour, as in Kafka 4.
        produce(topic, [{"value": b"v", "timestamp": int(time.time() * 1e3) + 2 * 3_600_000}])
        raise AssertionError("a record of the future was taken")
    except KafkaException as error:
        equal(error.args[0].code(), KafkaError.INVALID_TIMESTAMP)
    topic = create("append-time", message_timestamp_type="LogAppendTime")
    begin = time.time() * 1e3 - 1e3
    produce(topic, [{"value": b"v", "timestamp": 1_000}])
    kind, stamp = read_from(topic, 1)[0].timestamp()
    equal(kind, TIMESTAMP_LOG_APPEND_TIME)
    assert begin < stamp < time.time() * 1e3 + 1e3, stamp


@check
def sizes():
    topic = create("sizes")
    limit = 1_048_588
    # A batch of one record without key and headers has 61 bytes of its own, and the record up to 11 around its value.
    largest = limit - 61 - 11
    for size in [1, 100_000, largest]:
        produce(topic, [{"value": b"x" * size}], message_max_bytes=8_000_000)
    try:
        produce(topic, [{"value": b"x" * (limit + 1)}], message_max_bytes=8_000_000)
        raise AssertionError("a batch above max.message.bytes was taken")
    except KafkaException as error:
        equal(error.args[0].code(), KafkaError.MSG_SIZE_TOO_LARGE)
    produce(topic, [{"value": b"after"}])
    got = read_from(topic, 4, fetch_message_max_bytes=1_000)
    equal([len(message.value()) for message in got], [1, 100_000, largest, 5])
    tiny = create("tiny")
    produce(tiny, [{"value": b"%d" % i} for i in range(50_000)], linger_ms=5)
    equal([message.value() for message in read_from(tiny, 50_000)], [b"%d" % i for i in range(50_000)])
    small = create("small", max_message_bytes="1000")
    try:
        produce(small, [{"value": b"x" * 2_000}])
        raise AssertionError("a batch above the topic's max.message.bytes was taken")
    except KafkaException as error:
        equal(error.args[0].code(), KafkaError.MSG_SIZE_TOO_LARGE)


@check
def times():
    topic = create("times")
    for stamp in range(0, 2_000, 100):
        produce(topic, [{"value": b"%d" % stamp, "timestamp": stamp + 1_000}])
    client = consumer()
    for asked, wanted in [(1_000, 0), (1_001, 1), (1_950, 10), (2_900, 19), (2_901, OFFSET_END), (0, 0)]:
        found = client.offsets_for_times([TopicPartition(topic, 0, asked)], timeout=10)
        equal(found[0].offset, wanted)
    equal(client.get_watermark_offsets(TopicPartition(topic, 0), timeout=10), (0, 20))
    client.assign([TopicPartition(topic, 0, 15)])
    equal(read(client, 1)[0].value(), b"1500")
    client.seek(TopicPartition(topic, 0, 3))
    equal(read(client, 1)[0].value(), b"300")
    client.close()
    specs = {OffsetSpec.earliest(): 0, OffsetSpec.latest(): 20, OffsetSpec.max_timestamp(): 19}
    for spec, wanted in specs.items():
        asked = {TopicPartition(topic, 0): spec}
        equal(list(admin.list_offsets(asked).values())[0].result().offset, wanted)


@check
def resets():
    topic = create("resets")
    produce(topic, [{"value": b"%d" % i} for i in range(10)])
    equal([m.value() for m in read_from(topic, 10, offset=1_000)], [b"%d" % i for i in range(10)])
    client = consumer(auto_offset_reset="latest")
    client.assign([TopicPartition(topic, 0, 1_000)])
    equal(client.consume(1, 2.0), [])
    produce(topic, [{"value": b"new"}])
    equal(read(client, 1)[0].value(), b"new")
    client.close()
    client = consumer(auto_offset_reset="error")
    client.assign([TopicPartition(topic, 0, 1_000)])
    try:
        read(client, 1)
        raise AssertionError("an offset out of range was no error")
    except KafkaException as error:
        equal(error.args[0].code(), KafkaError._AUTO_OFFSET_RESET)
    client.close()


@check
def pausing():
    topic = create("pausing", 2)
    for partition in range(2):
        produce(topic, [{"value": b"%d" % i, "partition": partition} for i in range(100)])
    client = consumer(fetch_message_max_bytes=200)
    both = [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(2)]
    client.assign(both)
    read(client, 200)
    client.pause([both[0]])
    produce(topic, [{"value": b"more", "partition": partition} for partition in range(2)])
    equal([(m.partition(), m.value()) for m in read(client, 1)], [(1, b"more")])
    equal(client.consume(1, 1.0), [])
    client.resume([both[0]])
    equal([(m.partition(), m.value()) for m in read(client, 1)], [(0, b"more")])
    client.close()


def drain(members, wanted, seconds=60.0):
    """Polls all members until `wanted` different values have come; each member's values."""
    values, end = [set() for _ in members], time.monotonic() + seconds
    while len(set().union(*values)) < wanted:
        if time.monotonic() > end:
            raise AssertionError(f"{len(set().union(*values))} of {wanted} values came")
        for place, member in enumerate(members):
            for message in member.consume(500, 0.05):
                if message.error():
                    raise KafkaException(message.error())
                values[place].add(message.value())
    return values


def group_with(strategy):
    topic, group = create("group", 6), fresh("group")
    stop = threading.Event()
    sent = []

    def feed():
        producer = Producer(COMMON | {"enable.idempotence": True})
        while not stop.is_set():
            value = b"%d" % len(sent)
            producer.produce(topic, value=value, partition=len(sent) % 6)
            sent.append(value)
            producer.poll(0.002)
        assert producer.flush(30) == 0

    feeder = threading.Thread(target=feed)
    feeder.start()
    settings = {"group_id": group, "partition_assignment_strategy": strategy, "session_timeout_ms": 6_000}
    members = [consumer(**settings)]
    members[0].subscribe([topic])
    drain(members, 100)
    for _ in range(2):
        members.append(consumer(**settings))
        members[-1].subscribe([topic])

    def balanced(size):
        for member in members:
            member.consume(500, 0.05)
        return sorted(len(member.assignment()) for member in members) == [6 // size] * size

    eventually(lambda: balanced(3))
    described = admin.describe_consumer_groups([group])[group].result()
    equal(len(described.members), 3)
    equal(described.partition_assignor, strategy)
    members.pop().close()
    members.pop().close()
    eventually(lambda: balanced(1))
    stop.set()
    feeder.join()
    members[0].close()
    # What a group of its own reads is all that was sent, once.
    client = consumer(group_id=fresh("all"))
    client.subscribe([topic])
    equal(sorted(message.value() for message in read(client, len(sent))), sorted(sent))
    client.commit(asynchronous=False)
    equal(sum(o.offset for o in client.committed([TopicPartition(topic, p) for p in range(6)])), len(sent))
    client.close()


@check
def eager():
    for strategy in ["range", "roundrobin"]:
        group_with(strategy)


@check
def cooperative():
    group_with("cooperative-sticky")


@check
def static():
    topic, group = create("static", 4), fresh("static")
    produce(topic, [{"value": b"%d" % i, "partition": i % 4} for i in range(40)])

    def member(number):
        client = consumer(group_id=group, group_instance_id=f"member-{number}", session_timeout_ms=10_000)
        client.subscribe([topic])
        return client

    members = [member(0), member(1)]
    drain(members, 40)
    eventually(lambda: [m.consume(10, 0.1) for m in members] and all(len(m.assignment()) == 2 for m in members))
    before = {p.partition for p in members[1].assignment()}
    members[1].commit(asynchronous=False)
    members[1].close()
    members[1] = member(1)
    eventually(lambda: [m.consume(10, 0.1) for m in members] and len(members[1].assignment()) == 2)
    equal({p.partition for p in members[1].assignment()}, before)
    # A second one with the same instance id fences the first.
    twin = member(1)
    errors = []

    def fenced():
        twin.consume(10, 0.1)
        errors.extend(m.error().code() for m in members[1].consume(10, 0.1) if m.error())
        return KafkaError._FATAL in errors or KafkaError.FENCED_INSTANCE_ID in errors

    eventually(fenced)
    members[1].close()
    twin.close()
    members[0].close()


@check
def offsets():
    topic, group = create("offsets", 2), fresh("offsets")
    produce(topic, [{"value": b"v", "partition": i % 2} for i in range(20)])
    client = consumer(group_id=group)
    both = [TopicPartition(topic, 0, 3, metadata="three"), TopicPartition(topic, 1, 7)]
    client.commit(offsets=both, asynchronous=False)
    equal([(o.offset, o.metadata) for o in client.committed(both, timeout=10)], [(3, "three"), (7, None)])
    client.close()
    listed = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result()
    equal(sorted(o.offset for o in listed.topic_partitions), [3, 7])
    change = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 9)])
    admin.alter_consumer_group_offsets([change])[group].result()
    client = consumer(group_id=group)
    client.subscribe([topic])
    got = read(client, 4)
    equal(sorted((m.partition(), m.offset()) for m in got), [(0, 9), (1, 7), (1, 8), (1, 9)])
    client.close()
    assert group in [g.group_id for g in admin.list_consumer_groups().result().valid]
    admin.delete_consumer_groups([group])[group].result()
    eventually(lambda: group not in [g.group_id for g in admin.list_consumer_groups().result().valid])


@check
def administration():
    topic = create("admin", 3, retention_ms="3600000")
    meta = admin.list_topics(topic, timeout=10)
    equal(len(meta.topics[topic].partitions), 3)
    described = admin.describe_topics(TopicCollection([topic]))[topic].result()
    equal(len(described.partitions), 3)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    config = admin.describe_configs([resource])[resource].result()
    equal(config["retention.ms"].value, "3600000")
    broker = ConfigResource(ResourceType.BROKER, str(next(iter(meta.brokers))))
    assert admin.describe_configs([broker])[broker].result()
    cluster = admin.describe_cluster().result()
    equal(len(cluster.nodes), len(BROKERS.split(",")))
    for name, code in [(topic, KafkaError.TOPIC_ALREADY_EXISTS), ("no/slash", KafkaError.TOPIC_EXCEPTION)]:
        try:
            admin.create_topics([NewTopic(name, 1)])[name].result()
            raise AssertionError("a topic that cannot be was created")
        except KafkaException as error:
            equal(error.args[0].code(), code)
    admin.delete_topics([topic])[topic].result()
    assert topic not in admin.list_topics(timeout=10).topics


@check
def recreation():
    topic = create("again", 2)
    producer = Producer(COMMON | {"topic.metadata.refresh.interval.ms": 500})
    client = consumer(group_id=fresh("again"), topic_metadata_refresh_interval_ms=500)
    client.subscribe([topic])
    producer.produce(topic, value=b"old", partition=0)
    equal(producer.flush(20), 0)
    equal(read(client, 1)[0].value(), b"old")
    admin.delete_topics([topic])[topic].result()
    admin.create_topics([NewTopic(topic, 2)])[topic].result()
    for value in [b"new", b"newer"]:
        # The consumer may stay at the offset that it had come to.
        producer.produce(topic, value=value, partition=0)
        equal(producer.flush(30), 0)
    # An idempotent one begins anew: the running one's sequence numbers mean nothing to the new topic.
    produce(topic, [{"value": b"newest", "partition": 0}], enable_idempotence=True)
    values = set()

    def newest():
        values.update(m.value() for m in client.consume(10, 0.5) if not m.error())
        return {b"newer", b"newest"} <= values

    eventually(newest)
    client.close()


@check
def creation():
    # By producing; the consumer was there before.
    topic = fresh("auto")
    client = consumer(group_id=fresh("auto"), topic_metadata_refresh_interval_ms=500, allow_auto_create_topics=False)
    client.subscribe([topic])
    got = client.consume(1, 1.0)
    assert not got or got[0].error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART, got
    produce(topic, [{"value": b"v"}])
    eventually(lambda: b"v" in [m.value() for m in client.consume(10, 0.5) if not m.error()])
    client.close()


@check
def pattern():
    prefix = fresh("pattern")
    client = consumer(group_id=fresh("pattern"), topic_metadata_refresh_interval_ms=500)
    client.subscribe([f"^{prefix}.*"])
    client.consume(1, 0.5)
    for i in range(3):
        produce(f"{prefix}-{i}", [{"value": b"%d" % i}])
    equal(sorted(drain([client], 3)[0]), [b"0", b"1", b"2"])
    client.close()


@check
def partitions():
    topic = create("wide", 1_000)
    produce(topic, [{"value": b"%d" % i, "partition": i % 1_000} for i in range(3_000)], linger_ms=20)
    client = consumer(group_id=fresh("wide"))
    client.subscribe([topic])
    equal(len({m.value() for m in read(client, 3_000, 60)}), 3_000)
    client.commit(asynchronous=False)
    client.close()
    admin.delete_topics([topic])[topic].result()


@check
def topics():
    names = [fresh("many") for _ in range(3_000)]
    for future in admin.create_topics([NewTopic(name, 1) for name in names], request_timeout=60).values():
        future.result()
    listed = admin.list_topics(timeout=20).topics
    assert all(name in listed and len(listed[name].partitions) == 1 for name in names)
    for future in admin.delete_topics(names, request_timeout=60).values():
        future.result()


@check
def restart():
    """Sends and reads for eight seconds; the brokers may be stopped and started meanwhile, one at a time."""
    topic, acknowledged, errors = create("restart", 3), [], []
    producer = Producer(COMMON | {"enable.idempotence": True, "delivery.timeout.ms": 60_000})
    client = consumer(group_id=fresh("restart"))
    client.subscribe([topic])

    def report(error, message):
        if error:
            errors.append(error)
        else:
            acknowledged.append(message.value())

    print("running restart", flush=True)
    seen, end, i = [], time.monotonic() + 8, 0
    while time.monotonic() < end:
        producer.produce(topic, value=b"%d" % i, partition=i % 3, on_delivery=report)
        i += 1
        producer.poll(0.001)
        seen += [m.value() for m in client.consume(100, 0.001) if not m.error()]
    equal(producer.flush(60), 0)
    equal(errors, [])
    equal(len(acknowledged), i)
    end = time.monotonic() + 60
    while len(set(seen)) < i and time.monotonic() < end:
        seen += [m.value() for m in client.consume(1_000, 0.2) if not m.error()]
    equal(len(set(seen)), i)
    equal(len(seen), i)
    client.commit(asynchronous=False)
    client.close()


main()
