"""aiokafka: python3 aio.py HOST:PORT[,HOST:PORT] [CHECK ...]"""

import asyncio
import functools
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import MessageSizeTooLargeError, OffsetOutOfRangeError
from checks import check, equal, fresh, main

BROKERS = sys.argv[1]


def run(function):
    """Registers a coroutine as a check."""

    @check
    @functools.wraps(function)
    def checked():
        asyncio.run(function())

    return checked


async def create(name, partitions=1, **configs):
    topic = fresh(name)
    config = {key.replace("_", "."): value for key, value in configs.items()}
    admin = AIOKafkaAdminClient(bootstrap_servers=BROKERS)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])
        equal([error[1] for error in answer.topic_errors], [0])
    finally:
        await admin.close()
    return topic


async def produce(topic, records, **settings):
    async with AIOKafkaProducer(bootstrap_servers=BROKERS, **settings) as producer:
        return await asyncio.gather(*[await producer.send(topic, **record) for record in records])


def consumer(*topics, **settings):
    defaults = {"enable_auto_commit": False, "auto_offset_reset": "earliest"}
    return AIOKafkaConsumer(*topics, bootstrap_servers=BROKERS, **(defaults | settings))


async def read(client, count, seconds=30.0):
    records, end = [], time.monotonic() + seconds
    while len(records) < count:
        if time.monotonic() > end:
            raise AssertionError(f"{len(records)} of {count} records came")
        for part in (await client.getmany(timeout_ms=200, max_records=count - len(records))).values():
            records += part
    return records


async def read_from(topic, count, offset=0, **settings):
    async with consumer(**settings) as client:
        client.assign([TopicPartition(topic, 0)])
        client.seek(TopicPartition(topic, 0), offset)
        return await read(client, count)


@run
async def codecs():
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        for settings in [{"acks": 0}, {"acks": 1}, {"acks": "all"}, {"enable_idempotence": True}]:
            topic = await create("codecs")
            values = [f"value {i} ".encode() * 10 for i in range(300)]
            await produce(topic, [{"value": v} for v in values], compression_type=codec, linger_ms=5, **settings)
            equal([record.value for record in await read_from(topic, 300)], values)


@run
async def shapes():
    topic = await create("shapes")
    headers = (("a", b"1"), ("a", b""), ("c" * 300, b"x" * 10_000))
    records = [
        {"key": b"k" * 40_000, "value": b"v", "headers": list(headers)},
        {"key": b"k", "value": None, "timestamp_ms": 1_000},
    ]
    await produce(topic, records)
    got = await read_from(topic, len(records))
    equal([(r.key, r.value) for r in got], [(r["key"], r["value"]) for r in records])
    equal(got[0].headers, headers)
    equal((got[1].timestamp, got[1].timestamp_type), (1_000, 0))


@run
async def sizes():
    topic = await create("sizes")
    sizes = [1, 100_000, 1_048_588 - 72]
    for size in sizes:
        await produce(topic, [{"value": b"x" * size}], max_request_size=8_000_000)
    try:
        await produce(topic, [{"value": b"x" * 1_048_589}], max_request_size=8_000_000)
        raise AssertionError("a batch above max.message.bytes was taken")
    except MessageSizeTooLargeError:
        pass
    got = await read_from(topic, 3, max_partition_fetch_bytes=1_000)
    equal([len(record.value) for record in got], sizes)


@run
async def times():
    topic = await create("times")
    await produce(topic, [{"value": b"%d" % i, "timestamp_ms": 1_000 + i * 100} for i in range(20)])
    partition = TopicPartition(topic, 0)
    async with consumer() as client:
        for asked, wanted in [(1_000, 0), (1_001, 1), (2_900, 19)]:
            equal((await client.offsets_for_times({partition: asked}))[partition].offset, wanted)
        equal((await client.offsets_for_times({partition: 2_901}))[partition], None)
        equal(await client.beginning_offsets([partition]), {partition: 0})
        equal(await client.end_offsets([partition]), {partition: 20})


@run
async def resets():
    topic = await create("resets")
    await produce(topic, [{"value": b"%d" % i} for i in range(10)])
    equal(len(await read_from(topic, 10, offset=1_000)), 10)
    try:
        await read_from(topic, 1, offset=1_000, auto_offset_reset="none")
        raise AssertionError("an offset out of range was no error")
    except OffsetOutOfRangeError:
        pass


@run
async def eager():
    for assignor in [RoundRobinPartitionAssignor, StickyPartitionAssignor]:
        topic, group = await create("group", 6), fresh("group")
        stop, sent, seen = asyncio.Event(), [], set()

        async def feed():
            async with AIOKafkaProducer(bootstrap_servers=BROKERS, enable_idempotence=True) as producer:
                while not stop.is_set():
                    sent.append(b"%d" % len(sent))
                    await producer.send(topic, value=sent[-1], partition=len(sent) % 6)
                    await asyncio.sleep(0.005)

        def member():
            return consumer(
                topic, group_id=group, partition_assignment_strategy=[assignor], heartbeat_interval_ms=500
            )

        async def poll_until(members, condition):
            end = time.monotonic() + 60
            while not condition():
                assert time.monotonic() < end, "did not come true in time"
                for client in members:
                    for records in (await client.getmany(timeout_ms=50)).values():
                        seen.update(record.value for record in records)

        feeder = asyncio.create_task(feed())
        members = []
        for size in range(1, 4):
            members.append(member())
            await members[-1].start()
            await poll_until(members, lambda: [len(m.assignment()) for m in members] == [6 // size] * size)
        await members.pop().stop()
        await members.pop().stop()
        await poll_until(members, lambda: len(members[0].assignment()) == 6)
        stop.set()
        await feeder
        await poll_until(members, lambda: len(seen) == len(sent))
        await members[0].commit()
        offsets = [await members[0].committed(TopicPartition(topic, p)) for p in range(6)]
        equal(sum(offset or 0 for offset in offsets), len(sent))
        await members[0].stop()


@run
async def creation():
    topic = fresh("auto")
    async with consumer(topic, group_id=fresh("auto"), metadata_max_age_ms=500) as client:
        await produce(topic, [{"value": b"v"}])
        equal((await read(client, 1))[0].value, b"v")


@run
async def pattern():
    prefix = fresh("pattern")
    async with consumer(group_id=fresh("pattern"), metadata_max_age_ms=500) as client:
        client.subscribe(pattern=f"^{prefix}.*")
        for i in range(3):
            await produce(f"{prefix}-{i}", [{"value": b"%d" % i}])
        equal(sorted(record.value for record in await read(client, 3)), [b"0", b"1", b"2"])


@run
async def restart():
    """Sends for eight seconds; the brokers may be stopped and started meanwhile, one at a time."""
    topic = await create("restart", 3)
    print("running restart", flush=True)
    async with AIOKafkaProducer(bootstrap_servers=BROKERS, enable_idempotence=True) as producer:
        futures, end = [], time.monotonic() + 8
        while time.monotonic() < end:
            futures.append(await producer.send(topic, value=b"%d" % len(futures), partition=len(futures) % 3))
            await asyncio.sleep(0.002)
        await asyncio.gather(*futures)
    async with consumer(topic, group_id=fresh("restart")) as client:
        values = [record.value for record in await read(client, len(futures), 60)]
        equal(len(set(values)), len(futures))


main()
