"""100,000 partitions on one node: what they take to be created, to be there, and to be started again."""

import signal
import struct
import time

import busy
from broker import Broker
from records import batch
from wire import PRODUCE, Connection, blob, create_topics, frame, text


def options(parser):
    parser.add_argument("--topics", type=int, default=999, help="topics; the offsets of groups have partitions too, and the cluster 100,000 at most (default 999)")
    parser.add_argument("--partitions", type=int, default=100, help="partitions of each (default 100)")
    parser.add_argument("--at-once", type=int, default=10, help="topics in one CreateTopics request (default 10)")
    parser.add_argument("--rate", type=float, default=3_000, help="records a second to a few busy partitions (default 3000)")
    parser.add_argument("--record-size", type=int, default=16_384, help="their bytes; so much that the WAL comes around (default 16384)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a measurement of these (default 20)")
    parser.add_argument("--each", type=int, default=2, help="records that each partition is given in the end, of 1 KB (default 2)")
    parser.add_argument("--idle-seconds", type=float, default=10.0, help="time for which the idle broker is watched (default 10)")


def run(settings):
    broker = Broker(settings, *settings.broker_arguments)
    count = settings.topics * settings.partitions
    try:
        print(f"empty      ready after {broker.start():.2f} s, CPU of its start {broker.used().cpu_s():.2f} s")
        idle = broker.cpu_share(settings.idle_seconds)
        empty = broker.used().resident_mb()
        print(f"empty      {empty:.0f} MB resident, idle {100 * idle:.2f} % of a core")
        connection, took = Connection(broker.address), []
        produce(broker, settings, "empty")
        # Its tails are full now, as they will be later.
        empty, cpu = broker.used().resident_mb(), broker.used().cpu_s()
        names = [f"idle-{number}" for number in range(settings.topics)]
        for first in range(0, len(names), settings.at_once):
            begin = time.monotonic()
            create_topics(connection, names[first : first + settings.at_once], settings.partitions)
            took.append(time.monotonic() - begin)
        cpu = broker.used().cpu_s() - cpu
        each = settings.at_once * settings.partitions
        print(f"created    {count:,} partitions in {sum(took):.2f} s, {cpu:.2f} s CPU")
        ordered = sorted(took)
        print(f"created    {each:,} a request: median {1e3 * ordered[len(took) // 2]:.0f} ms, most {1e3 * ordered[-1]:.0f} ms, last {1e3 * took[-1]:.0f} ms")
        told(broker, settings, "created", empty, count)
        produce(broker, settings, "created")
        told(broker, settings, "produced", empty, count)
        print(f"stopped    in {broker.stop():.2f} s")
        print(f"restart    ready after {broker.start():.2f} s, CPU {broker.used().cpu_s():.2f} s")
        told(broker, settings, "restart", empty, count)
        broker.stop(signal.SIGKILL)
        print(f"killed     ready after {broker.start():.2f} s, CPU {broker.used().cpu_s():.2f} s")
        told(broker, settings, "killed", empty, count)
        if settings.each:
            fill(broker, settings, names)
            told(broker, settings, "filled", empty, count)
            broker.stop(signal.SIGKILL)
            print(f"filled     killed, ready after {broker.start():.2f} s, CPU {broker.used().cpu_s():.2f} s")
            told(broker, settings, "filled", empty, count)
    finally:
        broker.clean()


def fill(broker, settings, names):
    """Gives each partition so many records, ten topics in a request."""
    connection, begin, longest, cpu = Connection(broker.address), time.monotonic(), 0, broker.used().cpu_s()
    data = blob(batch(0, 1, 1_000))
    each = struct.pack(">i", settings.partitions) + b"".join(struct.pack(">i", number) + data for number in range(settings.partitions))
    for _ in range(settings.each):
        for first in range(0, len(names), 10):
            asked = names[first : first + 10]
            body = struct.pack(">hhii", -1, -1, 30_000, len(asked)) + b"".join(text(name) + each for name in asked)
            sent = time.monotonic()
            answer, at = connection.call(frame(PRODUCE, 7, body)), 4
            longest = max(longest, time.monotonic() - sent)
            for name in asked:
                at += 2 + len(name) + 4
                for _ in range(settings.partitions):
                    error = struct.unpack_from(">h", answer, at + 4)[0]
                    if error:
                        raise SystemExit(f"Produce: error {error}")
                    at += 4 + 2 + 8 + 8 + 8
    took, cpu = time.monotonic() - begin, broker.used().cpu_s() - cpu
    print(f"filled     {settings.each} records in each partition in {took:.2f} s, {cpu:.2f} s CPU, longest request {1e3 * longest:.0f} ms")


def produce(broker, settings, when):
    arguments = ["--rate", settings.rate, "--record-size", settings.record_size, "--seconds", settings.seconds, "--linger-ms", 0]
    late = broker.late_ticks()
    outcome = busy.latency(settings, broker, *arguments)
    late = [after - before for before, after in zip(late, broker.late_ticks())]
    print(f"{when:<10} busy: {busy.shown(outcome['acknowledged'])}; turns of a shard beyond 10, 50 and 150 ms: {late}")


def told(broker, settings, when, empty, count):
    idle = broker.cpu_share(settings.idle_seconds)
    resident = broker.used().resident_mb()
    print(f"{when:<10} {resident:.0f} MB resident, {1e3 * (resident - empty) / count:.2f} KB a partition, idle {100 * idle:.2f} % of a core")
