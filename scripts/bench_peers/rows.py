"""The rows of the table: what is run against each broker, and the figures that it gives.

A group's rows share one start of the broker in each round. A row is a function of the broker and the setup that
returns its figures by name; `None` where the broker cannot do it."""

import json
import subprocess
import time
from dataclasses import dataclass, field
from typing import Callable

import device
from brokers import Failed
from machine import Process, await_quiet, drop_caches


@dataclass
class Figure:
    """One line of the table."""

    title: str
    unit: str
    higher_is_better: bool = False
    # Goals for the paired ratio, by the side that it is taken against: ringlog must be at most (or at least) this.
    goals: dict = field(default_factory=dict)
    # Whether more or less of it is better at all: where not, there is no ratio.
    compared: bool = True


@dataclass
class Row:
    name: str
    figures: dict
    run: Callable
    # Partitions to start a broker with that cannot create topics; None: such a broker is left out.
    partitions: int | None = None
    # The same figures without a broker, by fio; None: there are none.
    device: Callable | None = None
    # The only broker that has such a thing; None: all have.
    only: str | None = None


def produce(size, partitions, goals, extra=()):
    def run(broker, setup):
        args = ["produce", "--record-size", str(size), "--partitions", str(partitions)]
        args += ["--seconds", str(setup.seconds), "--warmup", str(setup.warmup), *extra]
        result = broker.client(args)["result"]
        return {
            "rate": result["mb_per_s"] if size >= 1000 else result["records_per_s"] / 1e6,
            "cpu_record": result["broker_cpu_us_per_record"],
            "cpu_gb": result["broker_cpu_s_per_gb"],
            "written": result["written_per_accepted"],
        }

    title = f"produce {'1 KiB' if size == 1024 else f'{size} B'} x {partitions:,}"
    figures = {
        "rate": Figure(title, "MB/s" if size >= 1000 else "M records/s", True, goals.get("rate", {})),
        "cpu_record": Figure(f"{title}: CPU", "µs/record", goals=goals.get("cpu", {})),
        "cpu_gb": Figure(f"{title}: CPU", "s/GB"),
        "written": Figure(f"{title}: written/accepted", ""),
    }
    return Row(f"produce-{size}-{partitions}", figures, run, partitions)


PERCENTILES = (("p50_ms", "p50"), ("p99_ms", "p99"), ("p999_ms", "p99.9"))


def latency(name, title, rate, end_to_end, goals=None, extra=(), partitions=3, cost=False, device=None):
    section = "end_to_end" if end_to_end else "acknowledged"

    def run(broker, setup):
        args = ["latency", "--rate", str(rate), "--partitions", str(partitions), "--seconds", str(setup.seconds * 2)]
        args += ["--warmup", str(setup.warmup + 1), *extra] + (["--end-to-end"] if end_to_end else [])
        result = broker.client(args)["result"]
        figures = {key: result[section][key] for key, _ in PERCENTILES}
        if cost:
            figures["cpu_record"] = result["broker_cpu_us_per_record"]
            figures["flushes"] = result["device_flushes_per_record"]
        return figures

    goals = goals or {}
    figures = {key: Figure(f"{title}, {short}", "ms", goals=goals.get(key, {})) for key, short in PERCENTILES}
    if cost:
        figures["cpu_record"] = Figure(f"{title}: CPU", "µs/record", goals=goals.get("cpu", {}))
        figures["flushes"] = Figure(f"{title}: device flushes", "per record", compared=False)
    return Row(name, figures, run, partitions, device)


def wal(broker, setup):
    """The broker's engine writes beside the broker, which is idle."""
    await_quiet(setup.others_limit, setup.quiet_s)
    command = [str(setup.ringlog), "bench", "wal", "--dir", str(broker.dir), "--format", "json"]
    command += ["--seconds", str(setup.seconds), "--warmup", str(setup.warmup)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"bench wal: {done.stderr.strip()}")
    return {"rate": json.loads(done.stdout)["result"]["mb_per_s"]}


def fill(broker, setup):
    """Produces the records of a consume row; returns the arguments that read them back."""
    args = ["produce", "--records", str(setup.fill_records), "--warmup", "0", "--no-read-back"]
    result = broker.client(args)["result"]
    return ["--topic", result["topic"], "--run", str(result["run"]), "--expect", str(result["sent_with_warmup"])]


def consume(broker, setup):
    read = fill(broker, setup)
    warm = broker.client(["consume", "--keep", *read])["result"]
    figures = {"warm": warm["mb_per_s"], "warm_cpu": warm["broker_cpu_us_per_record"]}
    if broker.keeps_data:
        # What is to be read cold must be on the disk in its last place first.
        broker.stop()
        drop_caches()
        broker.start(fresh=False, probe="first-ack")
        cold = broker.client(["consume", *read])["result"]
        figures |= {"cold": cold["mb_per_s"], "cold_cpu": cold["broker_cpu_us_per_record"]}
    return figures


def tail(broker, setup):
    args = ["tail", "--consumers", "8", "--rate", "20000", "--seconds", str(setup.seconds)]
    result = broker.client(args)["result"]
    return {"rate": result["read_mb_per_s"], "cpu_gb": result["broker_cpu_s_per_gb"]}


def topics_one_by_one(broker, setup):
    broker.client(["topics", "--count", "20"], measured=False)
    result = broker.client(["topics", "--count", "100"])["result"]
    return {
        "p50": result["writable"]["p50_ms"],
        "p99": result["writable"]["p99_ms"],
        "cpu": result["broker_cpu_ms_per_topic"],
    }


def topics_in_one_request(broker, setup):
    result = broker.client(["topics", "--count", "1000", "--in-one-request"])["result"]
    return {"answered": result["answered_s"], "visible": result["visible_s"], "writable": result["writable_s"]}


def start(broker, setup):
    return {"first_ack": broker.first_ack_ms}


def idle(partitions):
    def run(broker, setup):
        if partitions:
            args = ["topics", "--count", str(partitions // 100), "--partitions", "100", "--in-one-request"]
            broker.client([*args, "--no-write", "--keep"], measured=False)
        process = Process(broker.pid)
        time.sleep(10)
        cpu, begin = process.cpu_s(), time.monotonic()
        time.sleep(15)
        share = (process.cpu_s() - cpu) / (time.monotonic() - begin)
        return {"cpu": share * 100, "rss": process.resident_mb()}

    title = f"idle, {partitions:,} partitions"
    # The goal for CPU is absolute and so no ratio; the figure itself shows it.
    goals = {"kafka": 0.1} if partitions == 0 else {}
    figures = {"cpu": Figure(f"{title}: CPU", "% of a core"), "rss": Figure(f"{title}: resident", "MB", goals=goals)}
    return Row(f"idle-{partitions}", figures, run)


def recovery(broker, setup):
    read = fill(broker, setup)
    broker.stop(how=9)
    broker.start(fresh=False, probe="first-ack")
    figures = {"first_ack": broker.first_ack_ms}
    # Every acknowledged record must be there, or the figure is worth nothing.
    broker.client(["consume", *read])
    return figures


FIGURES_TOPICS = {
    "p50": Figure("create a topic x 3 until writable, p50", "ms", goals={"kafka": 0.1}),
    "p99": Figure("create a topic x 3 until writable, p99", "ms", goals={"kafka": 0.1}),
    "cpu": Figure("create a topic x 3: CPU", "ms/topic", goals={"kafka": 0.1}),
}
FIGURES_MANY = {
    "answered": Figure("1,000 topics x 3 in one request, answered", "s", goals={"kafka": 0.2}),
    "visible": Figure("1,000 topics x 3 in one request, all led", "s"),
    "writable": Figure("1,000 topics x 3 in one request, all written", "s"),
}
FIGURES_CONSUME = {
    "warm": Figure("consume 1 KiB, just written", "MB/s", True, {"kafka": 1.0}),
    "warm_cpu": Figure("consume 1 KiB, just written: CPU", "µs/record", goals={"kafka": 1.0}),
    "cold": Figure("consume 1 KiB, cold", "MB/s", True, {"kafka": 1.0}),
    "cold_cpu": Figure("consume 1 KiB, cold: CPU", "µs/record", goals={"kafka": 1.0}),
}
FIGURES_TAIL = {
    "rate": Figure("8 consumers tailing 20,000 records/s", "MB/s", True),
    "cpu_gb": Figure("8 consumers tailing: CPU", "s/GB read"),
}
GOALS_1K = {"rate": {"kafka": 2.0, "floor": 0.85}, "cpu": {"kafka": 0.35, "floor": 1.5}}
GOALS_100 = {"rate": {"kafka": 1.4}, "cpu": {"kafka": 0.3, "floor": 2.0}}
GOALS_LATENCY = {
    "p50_ms": {"kafka": 0.9, "kafka-flush": 0.4},
    "p99_ms": {"kafka": 0.6, "kafka-flush": 0.05},
    "p999_ms": {"kafka": 0.6, "kafka-flush": 0.05},
}

GROUPS = {
    "produce-1k": [produce(1024, partitions, GOALS_1K) for partitions in (1, 3, 16)],
    "produce-1k-many": [produce(1024, 1000, {"rate": {"kafka": 4.0}})],
    "produce-100": [produce(100, partitions, GOALS_100) for partitions in (3, 16)],
    "latency": [
        latency("ack-2000", "acknowledged, 2,000/s x 1 KiB", 2_000, False, GOALS_LATENCY),
        latency("ack-20000", "acknowledged, 20 MB/s", 20_000, False),
    ],
    "end-to-end": [
        latency("e2e-2000", "end to end, 2,000/s x 1 KiB", 2_000, True),
        latency("e2e-20000", "end to end, 20 MB/s", 20_000, True),
    ],
    "lone": [
        latency(
            "lone",
            "lone 1 KiB record, no linger",
            300,
            False,
            {"cpu": {"kafka": 0.2}, "p50_ms": {"fio": 1.5}},
            ("--linger-ms", "0"),
            partitions=1,
            cost=True,
            # A request with such a record, and its response.
            device=lambda fio: device.write_and_round_trip(fio, 1_163, 73),
        )
    ],
    "wal": [
        Row(
            "wal",
            {"rate": Figure("WAL alone, 1 MiB writes, 4 at a time", "MB/s", True, {"fio": 0.8})},
            wal,
            device=lambda fio: device.bandwidth(fio, "1M", 4),
            only="ringlog",
        )
    ],
    "consume": [Row("consume", FIGURES_CONSUME, consume, 3)],
    "tail": [Row("tail", FIGURES_TAIL, tail, 3)],
    "topics": [
        Row("topics-one-by-one", FIGURES_TOPICS, topics_one_by_one),
        Row("topics-in-one-request", FIGURES_MANY, topics_in_one_request),
    ],
    "start": [
        Row("start", {"first_ack": Figure("start to first acknowledged record", "ms", goals={"kafka": 0.03})}, start, 1)
    ],
    "idle-0": [idle(0)],
    "idle-1000": [idle(1_000)],
    "idle-10000": [idle(10_000)],
    "recovery": [
        Row("recovery", {"first_ack": Figure("after kill -9 to first acknowledged record", "ms")}, recovery)
    ],
}


def select(names):
    """The groups, or the single rows, that were asked for; all where none were."""
    chosen = {}
    for group, rows in GROUPS.items():
        wanted = [row for row in rows if not names or group in names or row.name in names]
        if wanted:
            chosen[group] = wanted
    known = set(GROUPS) | {row.name for rows in GROUPS.values() for row in rows}
    if unknown := set(names) - known:
        raise SystemExit(f"no such row: {', '.join(sorted(unknown))}; there are: {', '.join(sorted(known))}")
    return chosen


def run_on_device(fio, rows):
    """Yields the figures that there are without a broker, as [`run_group`] does those of a broker."""
    for row in rows:
        if row.device is None:
            continue
        try:
            yield row, row.device(fio), None
        except Failed as failure:
            yield row, None, str(failure)


def run_group(broker, rows, setup):
    """Starts the broker, runs the rows and stops it; yields each row with its figures or why it has none."""
    try:
        for row in rows:
            if (broker.fixed_partitions and row.partitions is None) or row.only not in (None, broker.name):
                continue
            try:
                if broker.fixed_partitions:
                    broker.clean()
                if broker.process is None:
                    broker.start(partitions=row.partitions or 1)
                figures = row.run(broker, setup)
                yield row, figures, None
            except Failed as failure:
                yield row, None, str(failure)
                # Whatever state it is in, the next row gets a fresh one.
                broker.clean()
    finally:
        broker.clean()
