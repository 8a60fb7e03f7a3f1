"""What a client notices of a broker whose disk is frozen: see scripts/stall-demo.sh."""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
BROKERS = ["127.0.0.1:19092", "127.0.0.1:29092", "127.0.0.1:39092"]


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/stall-demo.sh", description=__doc__)
    parser.add_argument("--topics", type=int, default=100, help="topics created one after the other (default 100)")
    parser.add_argument("--parallel", type=int, default=4, help="clients that create topics at once (default 4)")
    parser.add_argument("--freeze-s", type=float, default=60.0, help="how long each disk stays frozen at most (default 60)")
    parser.add_argument("--rate", type=int, default=600, help="records a second of the producer (default 600)")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    return parser.parse_args()


def cluster(*args):
    subprocess.run([HERE / "cluster.sh", *args], check=True, stdout=subprocess.DEVNULL)


def bench(*args):
    """Runs `ringlog bench` and returns its result, or why there is none."""
    binary = os.environ.get("RINGLOG", HERE.parent / "target" / "release" / "ringlog")
    done = subprocess.run([binary, "bench", *args, "--format", "json"], capture_output=True, text=True)
    if done.returncode:
        return {"error": (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]}
    return json.loads(done.stdout)["result"]


def create(topics, brokers):
    # Deleting them would be measured neither here nor by the next row.
    return bench("topics", "--brokers", brokers, "--replication-factor", "3", "--count", str(topics), "--keep")


def situation(name, setup, frozen):
    """One row: creations one after the other and in parallel, then a producer on partitions led everywhere."""
    brokers = ",".join(BROKERS)
    if frozen:
        cluster("freeze", str(frozen))
    began = time.monotonic()
    try:
        row = {"situation": name, "sequential": create(setup.topics, brokers)}
        with ThreadPoolExecutor(setup.parallel) as pool:
            share = max(1, setup.topics // setup.parallel)
            row["parallel"] = list(pool.map(lambda _: create(share, brokers), range(setup.parallel)))
    finally:
        row["frozen_s"] = round(time.monotonic() - began, 1)
        if frozen:
            cluster("thaw", str(frozen))
    time.sleep(2)
    # The disk freezes while the producer runs: what it waits longest is the gap.
    seconds = min(setup.freeze_s, 10)
    with ThreadPoolExecutor(1) as pool:
        args = ["latency", "--brokers", brokers, "--replication-factor", "3", "--partitions", "6", "--idempotence"]
        run = pool.submit(bench, *args, "--rate", str(setup.rate), "--seconds", str(seconds + 4), "--warmup", "2")
        time.sleep(4)
        if frozen:
            cluster("freeze", str(frozen))
        time.sleep(seconds)
        if frozen:
            cluster("thaw", str(frozen))
        row["produce"] = run.result()
    time.sleep(2)
    return row


def percentiles(result, key):
    if "error" in result:
        return f"failed: {result['error']}"
    figures = result[key]
    return f"{figures['p50_ms']:8.1f} {figures['p99_ms']:8.1f} {figures['max_ms']:8.1f}"


def worst(results, key):
    failed = [result for result in results if "error" in result]
    return failed[0] if failed else max(results, key=lambda result: result[key]["max_ms"])


def table(rows):
    lines = [f"{'ms':34}{'p50':>8} {'p99':>8} {'max':>8}"]
    for row in rows:
        lines.append(row["situation"])
        lines.append(f"{'  created, one after the other':34}{percentiles(row['sequential'], 'answered')}")
        lines.append(f"{'  until all three take a record':34}{percentiles(row['sequential'], 'writable')}")
        lines.append(f"{'  the same, by the slowest of several':34}{percentiles(worst(row['parallel'], 'writable'), 'writable')}")
        lines.append(f"{'  a record acknowledged (acks=all)':34}{percentiles(row['produce'], 'acknowledged')}")
    return "\n".join(lines)


def main():
    setup = arguments()
    cluster("up")
    try:
        rows = [situation("all is well", setup, None)]
        for node in (1, 2, 3):
            rows.append(situation(f"the disk of broker {node} is frozen", setup, node))
    finally:
        cluster("down")
    if setup.out:
        setup.out.write_text(json.dumps({"settings": vars(setup) | {"out": str(setup.out)}, "rows": rows}, indent=1))
    print(table(rows))
    print(f"3 brokers on one machine, {os.cpu_count()} cores; topics of 3 partitions and 3 replicas; the broker of each row leads a third.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
