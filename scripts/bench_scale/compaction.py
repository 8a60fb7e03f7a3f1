"""Compaction: how many bytes it goes over in a second of CPU, and what a produce's p99 is while it runs."""

import struct
import threading
import time

import busy
from broker import Broker
from records import batch
from wire import PRODUCE, Connection, blob, create_topics, frame, text

TOPIC = "compacted"
INCREMENTAL_ALTER_CONFIGS = 44


def options(parser):
    parser.add_argument("--megabytes", type=int, default=2_000, help="bytes of the log (default 2000)")
    parser.add_argument("--keys", type=int, default=4_096, help="different keys in it (default 4096)")
    parser.add_argument("--value", type=int, default=1_024, help="bytes of a value (default 1024)")
    parser.add_argument("--rate", type=float, default=2_000, help="records a second of 1 KiB to another topic meanwhile (default 2000)")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each measurement of these (default 8)")


def run(settings):
    broker = Broker(settings, "--log-retention-check-interval-ms", "200", "--log-level", "debug", *settings.broker_arguments)
    try:
        broker.start()
        connection = Connection(broker.address)
        configs = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "1"), ("segment.bytes", "67108864")]
        create_topics(connection, [TOPIC], 1, configs)
        fill(connection, settings)
        alone = measure(broker, settings)
        print(f"alone      {busy.shown(alone)}", flush=True)
        measured = []
        during = threading.Thread(target=lambda: measured.append(measure(broker, settings)))
        during.start()
        time.sleep(2)  # The measurement has begun.
        cpu, begin = broker.used().cpu_s(), time.monotonic()
        alter(connection, "min.cleanable.dirty.ratio", "0")
        before, after = compacted(broker)
        took, cpu = time.monotonic() - begin, broker.used().cpu_s() - cpu
        during.join()
        print(f"compacted  {before / 1e6:,.0f} MB to {after / 1e6:,.1f} MB in {took:.2f} s: {before / 1e6 / took:,.0f} MB/s; the broker had {cpu:.2f} s of CPU, producers' included: {before / 1e6 / cpu:,.0f} MB a second of it")
        print(f"meanwhile  {busy.shown(measured[0])}; p99 {measured[0]['p99_ms'] / alone['p99_ms']:.2f} x")
    finally:
        broker.clean()


def measure(broker, settings):
    arguments = ["--rate", settings.rate, "--seconds", settings.seconds, "--linger-ms", 0, "--warmup", 1]
    return busy.latency(settings, broker, *arguments)["acknowledged"]


def compacted(broker, limit=120):
    """The bytes before and after the compaction, of the line with which the broker logs its end."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        for line in (broker.dir / "broker.log").read_text().splitlines():
            if "a log was compacted" in line:
                fields = dict(field.split("=", 1) for field in line.split() if "=" in field)
                return int(fields["before"]), int(fields["after"])
        time.sleep(0.02)
    raise SystemExit(f"nothing was compacted within {limit} s")


def alter(connection, name, value):
    body = struct.pack(">ib", 1, 2) + text(TOPIC) + struct.pack(">i", 1) + text(name) + b"\0" + text(value) + b"\0"
    error = struct.unpack_from(">h", connection.call(frame(INCREMENTAL_ALTER_CONFIGS, 0, body)), 8)[0]
    if error:
        raise SystemExit(f"IncrementalAlterConfigs: error {error}")


def fill(connection, settings):
    """Produces the same few batches again and again: their checksums take Python long."""
    in_batch = max(1, 500_000 // settings.value)
    batches = [batch(first, min(in_batch, settings.keys - first), settings.value) for first in range(0, settings.keys, in_batch)]
    sent = 0
    while sent < settings.megabytes * 1_000_000:
        for data in batches:
            body = struct.pack(">hhii", -1, -1, 30_000, 1) + text(TOPIC) + struct.pack(">ii", 1, 0) + blob(data)
            answer = connection.call(frame(PRODUCE, 7, body))
            error = struct.unpack_from(">h", answer, 4 + 2 + len(TOPIC) + 4 + 4)[0]
            if error:
                raise SystemExit(f"Produce: error {error}")
            sent += len(data)
