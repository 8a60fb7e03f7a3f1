"""What a client notices of a broker whose disk is frozen: see scripts/stall-demo.sh."""

import argparse
import contextlib
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
    parser.add_argument("--many", action="store_true", help="also create 1,000 topics in one request, and one by one")
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


def partitions(cluster, *options):
    """What a broker says of the partitions of all topics."""
    command = [RINGLOG, "topic", "describe", "--bootstrap-server", cluster.brokers[0], "--format", "json", *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def epochs(cluster):
    """The leader epochs of all partitions."""
    return {(row["topic"], row["partition"]): row["epoch"] for row in partitions(cluster)}


def heal(cluster):
    """Seconds until every replica is in sync, a minute at most."""
    began = time.monotonic()
    while time.monotonic() - began < 60:
        # A cluster that does not answer is not healed.
        with contextlib.suppress(subprocess.CalledProcessError):
            if not partitions(cluster, "--unhealthy"):
                return round(time.monotonic() - began, 2)
        time.sleep(0.02)
    return None


def at_rest(cluster, seconds=10):
    """The part of a core that all brokers together take while nothing happens, in percent."""
    def used():
        stats = (Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in cluster.pids())
        return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")
    before = used()
    time.sleep(seconds)
    return round((used() - before) / seconds * 100, 1)


def create(cluster, topics):
    """Creates topics of three partitions, each replicated to all, one after the other."""
    # Deleting them would be measured neither here nor by the next row.
    args = ["topics", "--brokers", ",".join(cluster.brokers), "--replication-factor", "3", "--keep"]
    if cluster.name == "ringlog":
        return [bench(*args, "--count", str(topics))]
    # One that fails is not to take the others with it.
    return [bench(*args, "--count", "1") for _ in range(topics)]


def creations(cluster, setup, frozen):
    """Creates topics, one after the other and in parallel, while a disk is frozen or none."""
    topics = setup.topics if cluster.name == "ringlog" else setup.kafka_topics
    row = {}
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
    if frozen:
        row["healed_s"] = heal(cluster)
    return row


def producing(cluster, setup, begin, end):
    """Produces to partitions led everywhere; what happens meanwhile begins after some seconds, and ends."""
    before = epochs(cluster)
    # What a record waits longest is the gap.
    seconds = min(setup.freeze_s, 10)
    with ThreadPoolExecutor(1) as pool:
        args = ["latency", "--brokers", ",".join(cluster.brokers), "--replication-factor", "3", "--partitions", "6"]
        args += ["--idempotence", "--rate", str(setup.rate), "--seconds", str(seconds + 4), "--warmup", "2"]
        producer = pool.submit(bench, *args)
        time.sleep(4)
        begin()
        time.sleep(seconds)
        changes = [epoch - before[which] for which, epoch in epochs(cluster).items() if which in before]
        end()
        healed = heal(cluster)
        return {"produce": producer.result(), "healed_s": healed, "leader_changes_at_most": max(changes, default=0)}


def situation(cluster, name, setup, frozen):
    """One row: creations, then a producer while the same disk freezes once more."""
    row = {"cluster": cluster.name, "situation": name} | creations(cluster, setup, frozen)
    time.sleep(2)
    if frozen:
        row |= producing(cluster, setup, lambda: cluster.freeze(frozen), lambda: cluster.thaw(frozen))
    else:
        row |= producing(cluster, setup, lambda: None, lambda: None)
    time.sleep(2)
    return row


def killed(cluster, setup, node):
    """A row without creations: a broker is killed under the producer, and started again."""
    row = {"cluster": cluster.name, "situation": f"broker {node} is killed (SIGKILL), and started again 10 s later"}
    return row | producing(cluster, setup, lambda: cluster.kill(node), lambda: cluster.start(node))


def many(cluster):
    """1,000 topics of three partitions, in one request and one after the other."""
    args = ["topics", "--brokers", ",".join(cluster.brokers), "--replication-factor", "3", "--count", "1000", "--keep"]
    in_one_request, began = bench(*args, "--in-one-request"), time.monotonic()
    return {
        "in_one_request": in_one_request,
        "one_by_one": bench(*args, "--no-write") | {"seconds": time.monotonic() - began},
    }


def throughput(cluster):
    """Producing to replicated topics as fast as it goes, everything read back."""
    args = ["produce", "--brokers", ",".join(cluster.brokers), "--replication-factor", "3", "--idempotence"]
    args += ["--seconds", "8", "--warmup", "4"]
    return {str(count): bench(*args, "--partitions", str(count)) for count in (16, 1000)}


def measure(cluster, setup):
    """All rows of one cluster."""
    try:
        cluster.up()
        time.sleep(2)
        rest = at_rest(cluster)
        rows = [situation(cluster, "all is well", setup, None)]
        for node in NODES:
            leads = metadata_leader(cluster.brokers[0]) == node
            name = f"broker {node}'s disk is frozen" + (", which leads the metadata" if leads else "")
            rows.append(situation(cluster, name, setup, node))
        rows.append(killed(cluster, setup, 2))
        result = {"cluster": cluster.name, "settings": cluster.settings, "cpu_at_rest": rest, "rows": rows}
        if setup.many:
            result["many"] = many(cluster)
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


def shown(in_one_request, one_by_one):
    """What became of the thousand topics."""
    one = in_one_request.get("error") or (
        f"answered after {in_one_request['answered_s']:.2f} s, all written after {in_one_request['writable_s']:.2f} s"
    )
    by_one = one_by_one.get("error") or f"{one_by_one['seconds']:.1f} s, p99 {one_by_one['answered']['p99_ms']:.1f} ms"
    return [f"1,000 topics in one request: {one}", f"1,000 topics one by one: {by_one}"]


def table(results):
    lines = [f"{'ms':40}{'p50':>9} {'p99':>9} {'max':>9}"]
    for result in results:
        for row in result["rows"]:
            lines.append(f"{result['cluster']}: {row['situation']}")
            if "sequential" in row:
                lines.append(f"{'  created, one after the other':40}{percentiles(row['sequential'], 'answered')}")
                lines.append(f"{'  until all three take a record':40}{percentiles(row['sequential'], 'writable')}")
                lines.append(f"{'  the same, several clients at once':40}{percentiles(row['parallel'], 'writable')}")
            lines.append(f"{'  a record acknowledged (acks=all)':40}{percentiles([row['produce']], 'acknowledged')}")
            healed = "not within a minute" if row["healed_s"] is None else f"after {row['healed_s']} s"
            lines.append(f"  leaders changed at most {row['leader_changes_at_most']} times; all in sync again {healed}")
        if "many" in result:
            lines += [f"{result['cluster']}: {line}" for line in shown(**result["many"])]
        lines.append(f"{result['cluster']}: {result['cpu_at_rest']} % of a core at rest, before any topic")
        for count, figures in result.get("throughput", {}).items():
            said = figures.get("error") or f"{figures['mb_per_s']:.1f} MB/s, {figures['records_per_s']:,.0f} records/s"
            lines.append(f"{result['cluster']}: 1 KiB x {count} partitions, RF 3, acks=all, idempotent: {said}")
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
