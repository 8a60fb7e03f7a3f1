"""Compares brokers on one machine, in rounds: each round runs every row against every side in turn."""

import argparse
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import chart
import machine
import rows
import table
from brokers import sides
from device import Fio


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench-peers.sh", description=__doc__)
    parser.add_argument("--repository", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rows", default="", metavar="A,B", help="groups or single rows; default all: " + ", ".join(rows.GROUPS))
    parser.add_argument("--sides", default="", metavar="A,B", help="kafka, kafka-flush, ringlog, floor, fio; default all there are")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs (default 5)")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a throughput run; latency takes twice that")
    parser.add_argument("--warmup", type=float, default=3.0, help="seconds before each measurement (JIT, caches)")
    parser.add_argument("--fill-records", type=int, default=1_000_000, help="1 KiB records of the consume and recovery rows")
    parser.add_argument("--others-limit", type=float, default=0.3, help="discard a run when more of the CPU went elsewhere")
    parser.add_argument("--quiet-s", type=float, default=60.0, help="wait up to this long for a quiet machine")
    parser.add_argument("--pretouch-gib", type=float, default=6.0, help="memory to touch before each start")
    parser.add_argument("--port", type=int, default=21210, help="first port; each side takes ten")
    parser.add_argument("--kafka-version", default="[4.0,5.0)", help="a Maven version or range (default: the newest 4.x)")
    parser.add_argument("--ringlog", type=Path, help="a ringlog binary (default: build one)")
    parser.add_argument("--work-dir", type=Path, help="jars, data, results (default: target/bench-peers)")
    parser.add_argument("--out", type=Path, help="results file; what an earlier run left there is added to")
    parser.add_argument("--svg", type=Path, help="write the chart here")
    parser.add_argument("--report", type=Path, metavar="FILE", help="only print the table of a results file")
    return parser.parse_args()


def run(command, **options):
    return subprocess.run(command, check=True, text=True, **options)


def commit(repository):
    asked = {"cwd": repository, "capture_output": True}
    head = run(["git", "rev-parse", "--short=12", "HEAD"], **asked).stdout.strip()
    changed = run(["git", "status", "--porcelain", "--untracked-files=no"], **asked).stdout.strip()
    return head + (" with changes" if changed else "")


def prepare(setup):
    """Builds what is missing and makes the paths absolute."""
    setup.repository = setup.repository.resolve()
    target = Path(os.environ.get("CARGO_TARGET_DIR", setup.repository / "target"))
    if setup.ringlog is None:
        run(["cargo", "build", "--release"], cwd=setup.repository)
        setup.ringlog = target / "release" / "ringlog"
    setup.ringlog = setup.ringlog.resolve()
    setup.work_dir = (setup.work_dir or target / "bench-peers").resolve()
    setup.data_dir = setup.work_dir / "data"
    setup.data_dir.mkdir(parents=True, exist_ok=True)
    setup.out = setup.out or setup.work_dir / "results.json"
    setup.say = lambda text: print(text, file=sys.stderr, flush=True)


def save(setup, results):
    """Writes the results so far: a long run that is ended early keeps what it has."""
    results["table"] = table.evaluate(results["samples"])
    part = setup.out.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1))
    part.replace(setup.out)


def device_side(setup, names, chosen):
    """fio, where it is wanted and any row compares with it; nothing, and a word of it, where it is not installed."""
    wanted = (not names or "fio" in names) and any(row.device for rows in chosen.values() for row in rows)
    if wanted and shutil.which("fio") is None:
        setup.say("fio is not installed (apt-get install fio): the rows that compare with the device lack that side")
    return Fio(setup) if wanted and shutil.which("fio") else None


def measure(setup):
    chosen = rows.select([name for name in setup.rows.split(",") if name])
    names = [name for name in setup.sides.split(",") if name]
    brokers = sides(setup, names)
    fio = device_side(setup, names, chosen)
    all_sides = brokers + ([fio] if fio else [])
    results = {"samples": [], "failures": []}
    if setup.out.exists():
        results = json.loads(setup.out.read_text())
    first = 1 + max((sample["round"] for sample in results["samples"]), default=0)
    results["about"] = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(setup.repository),
        "machine": machine.describe(setup.data_dir),
        "rounds": first + setup.rounds - 1,
        "client": "librdkafka, linger 5 ms, default batches, acks=all, no compression; every record read back",
        "seconds": setup.seconds,
        "warmup": setup.warmup,
        "others_limit": setup.others_limit,
        "versions": {side.name: side.version() for side in all_sides},
        "settings": {side.name: side.settings() for side in all_sides},
    }
    try:
        for number in range(first, first + setup.rounds):
            for group, wanted in chosen.items():
                for side in all_sides:
                    on_device = side is fio
                    done = rows.run_on_device(fio, wanted) if on_device else rows.run_group(side, wanted, setup)
                    for row, figures, reason in done:
                        entry = {"round": number, "row": row.name, "side": side.name}
                        if figures is None:
                            results["failures"].append(entry | {"reason": reason})
                            setup.say(f"round {number} {row.name} {side.name}: NO RESULT: {reason}")
                        else:
                            results["samples"].append(entry | {"figures": figures})
                            shown = ", ".join(f"{key} {table.number(value)}" for key, value in figures.items())
                            setup.say(f"round {number} {row.name} {side.name}: {shown}")
                        save(setup, results)
    except KeyboardInterrupt:
        setup.say("ended early")
    return results


def main():
    setup = arguments()
    # A terminated run stops its brokers and keeps what it has, as an interrupted one does, also in the background
    # where a shell has the interrupt ignored.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    if setup.report:
        results = json.loads(setup.report.read_text())
    else:
        prepare(setup)
        results = measure(setup)
        setup.say(f"results in {setup.out}")
    print(table.text(results))
    if setup.svg:
        setup.svg.write_text(chart.svg(results))
    return 1 if results["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
