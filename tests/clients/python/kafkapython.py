"""kafka-python: python3 kafkapython.py HOST:PORT[,HOST:PORT] [CHECK ...]"""

import sys
import threading
import time

from checks import check, equal, eventually, fresh, main
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.errors import (
    InvalidTimestampError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
)

BROKERS = sys.argv[1].split(",")
CODECS = [None, "gzip", "snappy", "lz4", "zstd"]

admin = KafkaAdminClient(bootstrap_servers=BROKERS)


def create(name, partitions=1, **configs):
    topic = fresh(name)
    config = {key.replace("_", "."): value for key, value in configs.items()}
    admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])
    return topic


def produce(topic, records, **settings):
    producer = KafkaProducer(bootstrap_servers=BROKERS, **settings)
    futures = [producer.send(topic, **record) for record in records]
    producer.flush(60)
    try:
        return [future.get(30) for future in futures]
    finally:
        producer.close()


def consumer(*topics, **settings):
    defaults = {"enable_auto_commit": False, "auto_offset_reset": "earliest"}
    return KafkaConsumer(*topics, bootstrap_servers=BROKERS, **(defaults | settings))


def read(client, count, seconds=30.0):
    records, end = [], time.monotonic() + seconds
    while len(records) < count:
        if time.monotonic() > end:
            raise AssertionError(f"{len(records)} of {count} records came")
        for part in client.poll(200, max_records=count - len(records)).values():
            records += part
    return records


def read_from(topic, count, offset=0, **settings):
    client = consumer(**settings)
    client.assign([TopicPartition(topic, 0)])
    client.seek(TopicPartition(topic, 0), offset)
    try:
        return read(client, count)
    finally:
        client.close()


@check
def codecs():
    for codec in CODECS:
        for settings in [{"acks": 0}, {"acks": 1}, {"acks": "all"}, {"enable_idempotence": True}]:
            if "enable_idempotence" not in settings:
                settings["enable_idempotence"] = False
            topic = create("codecs")
            values = [f"value {i} ".encode() * 10 for i in range(300)]
            produce(topic, [{"value": value} for value in values], compression_type=codec, linger_ms=5, **settings)
            equal([record.value for record in read_from(topic, 300)], values)


@check
def shapes():
    topic = create("shapes")
    headers = [("a", b"1"), ("a", b""), ("c" * 300, b"x" * 10_000)]
    records = [
        {"key": None, "value": b""},
        {"key": b"k" * 40_000, "value": b"v", "headers": headers},
        {"key": b"k", "value": None, "timestamp_ms": 1_000},
    ]
    produce(topic, records)
    got = read_from(topic, len(records))
    equal([(r.key, r.value) for r in got], [(r["key"], r["value"]) for r in records])
    equal(list(got[1].headers), headers)
    equal((got[2].timestamp, got[2].timestamp_type), (1_000, 0))
    topic = create("append-time", message_timestamp_type="LogAppendTime")
    produce(topic, [{"value": b"v", "timestamp_ms": 1_000}])
    record = read_from(topic, 1)[0]
    equal(record.timestamp_type, 1)
    assert abs(record.timestamp - time.time() * 1e3) < 60_000, record.timestamp
    try:
        produce(create("future"), [{"value": b"v", "timestamp_ms": int(time.time() * 1e3) + 2 * 3_600_000}])
        raise AssertionError("a record of the future was taken")
    except InvalidTimestampError:
        pass


@check
def sizes():
    topic = create("sizes")
    sizes = [1, 100_000, 1_048_588 - 72]
    for size in sizes:
        produce(topic, [{"value": b"x" * size}], max_request_size=8_000_000)
    try:
        produce(topic, [{"value": b"x" * 1_048_589}], max_request_size=8_000_000)
        raise AssertionError("a batch above max.message.bytes was taken")
    except MessageSizeTooLargeError:
        pass
    got = read_from(topic, 3, max_partition_fetch_bytes=1_000)
    equal([len(record.value) for record in got], sizes)


@check
def times():
    topic = create("times")
    produce(topic, [{"value": b"%d" % i, "timestamp_ms": 1_000 + i * 100} for i in range(20)])
    partition = TopicPartition(topic, 0)
    client = consumer()
    for asked, wanted in [(1_000, 0), (1_001, 1), (2_900, 19)]:
        equal(client.offsets_for_times({partition: asked})[partition].offset, wanted)
    equal(client.offsets_for_times({partition: 2_901})[partition], None)
    equal(client.beginning_offsets([partition]), {partition: 0})
    equal(client.end_offsets([partition]), {partition: 20})
    client.close()


@check
def resets():
    topic = create("resets")
    produce(topic, [{"value": b"%d" % i} for i in range(10)])
    equal(len(read_from(topic, 10, offset=1_000)), 10)
    client = consumer(auto_offset_reset="none")
    client.assign([TopicPartition(topic, 0)])
    client.seek(TopicPartition(topic, 0), 1_000)
    try:
        read(client, 1)
        raise AssertionError("an offset out of range was no error")
    except OffsetOutOfRangeError:
        client.close()


@check
def pausing():
    topic = create("pausing", 2)
    client = consumer()
    both = [TopicPartition(topic, partition) for partition in range(2)]
    client.assign(both)
    client.seek_to_beginning(*both)
    client.pause(both[0])
    produce(topic, [{"value": b"v", "partition": partition} for partition in range(2)])
    equal([record.partition for record in read(client, 1)], [1])
    equal(client.poll(1_000), {})
    client.resume(both[0])
    equal([record.partition for record in read(client, 1)], [0])
    client.close()


def group_with(assignor):
    """Three members, one after the other, while records are sent; each record is read."""
    topic, group = create("group", 6), fresh("group")
    stop, sent, seen = threading.Event(), [], set()

    def feed():
        producer = KafkaProducer(bootstrap_servers=BROKERS)
        while not stop.wait(0.005):
            sent.append(b"%d" % len(sent))
            producer.send(topic, value=sent[-1], partition=len(sent) % 6)
        producer.flush(30)
        producer.close()

    ends, members, assigned = [threading.Event() for _ in range(3)], [], [set() for _ in range(3)]

    def member(place):
        client = consumer(
            topic, group_id=group, partition_assignment_strategy=[assignor], session_timeout_ms=10_000,
            heartbeat_interval_ms=500,
        )
        while not ends[place].is_set():
            for records in client.poll(100).values():
                seen.update(record.value for record in records)
            assigned[place] = client.assignment()
        client.commit()
        client.close()
        assigned[place] = set()

    feeder = threading.Thread(target=feed)
    feeder.start()
    for place in range(3):
        members.append(threading.Thread(target=member, args=(place,)))
        members[-1].start()
        size = place + 1
        eventually(lambda: sorted(len(a) for a in assigned)[-size:] == [6 // size] * size, 60)
    described = admin.describe_groups([group])
    assert group in str(described), described
    for place in range(2):
        ends[place].set()
        members[place].join()
    eventually(lambda: len(assigned[2]) == 6, 60)
    stop.set()
    feeder.join()
    eventually(lambda: len(seen) == len(sent))
    ends[2].set()
    members[2].join()
    client = consumer(group_id=group)
    equal(sum(client.committed(TopicPartition(topic, p)) or 0 for p in range(6)), len(sent))
    client.close()


@check
def eager():
    for assignor in [RangePartitionAssignor, RoundRobinPartitionAssignor, StickyPartitionAssignor]:
        group_with(assignor)


@check
def administration():
    topic = create("admin", 3, retention_ms="3600000")
    equal(len(admin.describe_topics([topic])[0]["partitions"]), 3)
    configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    assert "3600000" in str(configs), configs
    assert admin.describe_cluster()
    try:
        admin.create_topics([NewTopic(topic, 1, 1)])
        raise AssertionError("a topic was created twice")
    except TopicAlreadyExistsError:
        pass
    admin.delete_topics([topic])
    assert topic not in admin.list_topics()


@check
def creation():
    topic = fresh("auto")
    client = consumer(topic, group_id=fresh("auto"), metadata_max_age_ms=500)
    client.poll(500)
    produce(topic, [{"value": b"v"}])
    equal(read(client, 1)[0].value, b"v")
    client.close()


@check
def pattern():
    prefix = fresh("pattern")
    client = consumer(group_id=fresh("pattern"), metadata_max_age_ms=500)
    client.subscribe(pattern=f"^{prefix}.*")
    client.poll(500)
    for i in range(3):
        produce(f"{prefix}-{i}", [{"value": b"%d" % i}])
    equal(sorted(record.value for record in read(client, 3)), [b"0", b"1", b"2"])
    client.close()


@check
def old():
    """The oldest protocol that Kafka 4 takes is that of 2.1."""
    for version in [(2, 1), (2, 6), (3, 9)]:
        topic = create("old")
        produce(topic, [{"value": b"%d" % i} for i in range(100)], api_version=version, compression_type="gzip")
        client = consumer(topic, group_id=fresh("old"), api_version=version)
        equal([record.value for record in read(client, 100)], [b"%d" % i for i in range(100)])
        client.commit()
        equal(client.committed(TopicPartition(topic, 0)), 100)
        client.close()


@check
def partitions():
    topic = create("wide", 1_000)
    produce(topic, [{"value": b"%d" % i, "partition": i % 1_000} for i in range(2_000)], linger_ms=20)
    client = consumer(topic, group_id=fresh("wide"))
    equal(len({record.value for record in read(client, 2_000, 60)}), 2_000)
    client.commit()
    client.close()
    admin.delete_topics([topic])


@check
def restart():
    """Sends for eight seconds; the brokers may be stopped and started meanwhile, one at a time."""
    topic = create("restart", 3)
    print("running restart", flush=True)
    producer = KafkaProducer(bootstrap_servers=BROKERS, enable_idempotence=True, delivery_timeout_ms=60_000)
    futures, end = [], time.monotonic() + 8
    while time.monotonic() < end:
        futures.append(producer.send(topic, value=b"%d" % len(futures), partition=len(futures) % 3))
        time.sleep(0.002)
    producer.flush(60)
    for future in futures:
        future.get(60)
    producer.close()
    client = consumer(topic, group_id=fresh("restart"))
    values = [record.value for record in read(client, len(futures), 60)]
    equal(len(set(values)), len(futures))
    client.close()


main()
