"""What a client notices of a broker whose disk is frozen: see scripts/stall-demo.sh."""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chart
from clusters import KINDS, NODES, metadata_leader

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RINGLOG = Path(os.environ.get("RINGLOG", REPOSITORY / "target" / "release" / "ringlog"))


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/stall-demo.sh", description=__doc__)
    parser.add_argument("--topics", type=int, default=100, help="topics created one after the other (default 100)")
    parser.add_argument("--parallel", type=int, default=4, help="clients that create topics at once (default 4)")
    parser.add_argument("--freeze-s", type=float, default=60.0, help="how long each disk stays frozen at most (default 60)")
    parser.add_argument("--against", action="store_true", help="do the same with three brokers of Apache Kafka")
    parser.add_argument("--kafka-topics", type=int, default=3, help="topics that Kafka is to create in each row (default 3)")
    parser.add_argument("--throughput", action="store_true", help="also produce as fast as the clusters take it")
    parser.add_argument("--kafka-version", default="[4.0,5.0)", help="a Maven version or range (default: the newest 4.x)")
    parser.add_argument("--rate", type=int, default=600, help="records a second of the producer (default 600)")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--svg", type=Path, help="write a picture of them here")
    setup = parser.parse_args()
    setup.work_dir = REPOSITORY / "target" / "stall-demo"
    return setup


def bench(*args):
    """Runs `ringlog bench` and returns its result, or why there is none."""
    done = subprocess.run([RINGLOG, "bench", *args, "--format", "json"], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip() or str(json.loads(done.stdout).get("counts", done.stdout))
        return {"error": said.splitlines()[-1]}
    return json.loads(done.stdout)["result"]


def create(cluster, topics):
    """Creates topics of three partitions, each replicated to all, one after the other."""
    # Deleting them would be measured neither here nor by the next row.
    args = ["topics", "--brokers", ",".join(cluster.brokers), "--replication-factor", "3", "--keep"]
    if cluster.name == "ringlog":
        return [bench(*args, "--count", str(topics))]
    # One that fails is not to take the others with it.
    return [bench(*args, "--count", "1") for _ in range(topics)]


def situation(cluster, name, setup, frozen):
    """One row: creations one after the other and in parallel, then a producer on partitions led everywhere."""
    topics = setup.topics if cluster.name == "ringlog" else setup.kafka_topics
    row = {"cluster": cluster.name, "situation": name}
    if frozen:
        cluster.freeze(frozen)
    began = time.monotonic()
    try:
        row["sequential"] = create(cluster, topics)
        with ThreadPoolExecutor(setup.parallel) as pool:
            share = max(1, topics // setup.parallel)
            row["parallel"] = sum(pool.map(lambda _: create(cluster, share), range(setup.parallel)), [])
    finally:
        row["frozen_s"] = round(time.monotonic() - began, 1)
        if frozen:
            cluster.thaw(frozen)
    time.sleep(2)
    # The disk freezes while the producer runs: what it waits longest is the gap.
    seconds = min(setup.freeze_s, 10)
    with ThreadPoolExecutor(1) as pool:
        args = ["latency", "--brokers", ",".join(cluster.brokers), "--replication-factor", "3", "--partitions", "6"]
        args += ["--idempotence", "--rate", str(setup.rate), "--seconds", str(seconds + 4), "--warmup", "2"]
        producer = pool.submit(bench, *args)
        time.sleep(4)
        if frozen:
            cluster.freeze(frozen)
        time.sleep(seconds)
        if frozen:
            cluster.thaw(frozen)
        row["produce"] = producer.result()
    time.sleep(2)
    return row


def throughput(cluster):
    """Producing to replicated topics as fast as it goes, everything read back."""
    args = ["produce", "--brokers", ",".join(cluster.brokers), "--replication-factor", "3", "--idempotence"]
    args += ["--seconds", "8", "--warmup", "4"]
    return {str(partitions): bench(*args, "--partitions", str(partitions)) for partitions in (16, 1000)}


def measure(cluster, setup):
    """All rows of one cluster."""
    try:
        cluster.up()
        rows = [situation(cluster, "all is well", setup, None)]
        for node in NODES:
            leads = metadata_leader(cluster.brokers[0]) == node
            name = f"broker {node}'s disk is frozen" + (", which leads the metadata" if leads else "")
            rows.append(situation(cluster, name, setup, node))
        result = {"cluster": cluster.name, "settings": cluster.settings, "rows": rows}
        if setup.throughput:
            result["throughput"] = throughput(cluster)
        return result
    finally:
        cluster.down()


def percentiles(results, key):
    """The figures of a run; of several single creations their least, middle and greatest, and how many failed."""
    good = [result[key] for result in results if "error" not in result]
    failed = len(results) - len(good)
    if not good:
        return f"{'all failed':>28}  ({results[0]['error']})"
    times = sorted(figure["max_ms"] for figure in good)
    p50, p99 = (good[0]["p50_ms"], good[0]["p99_ms"]) if len(good) == 1 else (times[len(times) // 2], times[-1])
    return f"{p50:9.1f} {p99:9.1f} {times[-1]:9.1f}" + (f"  {failed} of {len(results)} failed" if failed else "")


def table(results):
    lines = [f"{'ms':40}{'p50':>9} {'p99':>9} {'max':>9}"]
    for result in results:
        for row in result["rows"]:
            lines.append(f"{result['cluster']}: {row['situation']}")
            lines.append(f"{'  created, one after the other':40}{percentiles(row['sequential'], 'answered')}")
            lines.append(f"{'  until all three take a record':40}{percentiles(row['sequential'], 'writable')}")
            lines.append(f"{'  the same, several clients at once':40}{percentiles(row['parallel'], 'writable')}")
            lines.append(f"{'  a record acknowledged (acks=all)':40}{percentiles([row['produce']], 'acknowledged')}")
        for partitions, figures in result.get("throughput", {}).items():
            shown = figures.get("error") or f"{figures['mb_per_s']:.1f} MB/s, {figures['records_per_s']:,.0f} records/s"
            lines.append(f"{result['cluster']}: 1 KiB x {partitions} partitions, RF 3, acks=all, idempotent: {shown}")
    return "\n".join(lines)


def main():
    setup = arguments()
    kinds = ["ringlog"] + (["kafka"] if setup.against else [])
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(setup).items()}
    results = []
    for kind in kinds:
        results.append(measure(KINDS[kind](setup), setup))
        print(table(results[-1:]), flush=True)
        if setup.out:
            found = {"settings": settings, "cores": os.cpu_count(), "results": results}
            setup.out.write_text(json.dumps(found, indent=1))
        if setup.svg:
            setup.svg.write_text(chart.svg(results))
    print(f"3 brokers on one machine of {os.cpu_count()} cores, each on a loop-mounted ext4 of its own; topics of 3 partitions")
    print(f"with 3 replicas; {json.dumps(settings)}")
    for result in results:
        print(f"{result['cluster']}: {result['settings']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
