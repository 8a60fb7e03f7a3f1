"""Measures a broker of its own with very much of something: partitions, members, commits, keys to compact."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "bench_peers"))

import compaction
import groups
import machine
import partitions
import tail

KINDS = {"partitions": partitions, "groups": groups, "tail": tail, "compaction": compaction}


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench-scale.sh", description=__doc__)
    parser.add_argument("--repository", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ringlog", type=Path, help="the program (default: target/release/ringlog, built where that is not up to date)")
    parser.add_argument("--data-dir", type=Path, default=Path("/tmp/ringlog-scale"), help="emptied before and after (default /tmp/ringlog-scale)")
    parser.add_argument("--port", type=int, default=26_092, help="port of the broker (default 26092)")
    parser.add_argument("--broker-arguments", type=lambda value: value.split(), default=[], metavar="'--memory 2GiB'", help="flags of the broker")
    kinds = parser.add_subparsers(dest="kind", required=True)
    for name, module in KINDS.items():
        module.options(kinds.add_parser(name, help=module.__doc__, description=module.__doc__))
    settings = parser.parse_args()
    if settings.ringlog is None:
        settings.ringlog = settings.repository / "target/release/ringlog"
        subprocess.run(["cargo", "build", "--release", "--quiet", "--locked"], cwd=settings.repository, check=True)
    shown = {name: str(value) for name, value in vars(settings).items() if name not in ("repository", "kind")}
    print(f"settings   {settings.kind}: {shown}")
    print(f"machine    {machine.describe(settings.data_dir.parent)}, load {os.getloadavg()[0]:.2f}", flush=True)
    # A terminated run stops its broker too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    KINDS[settings.kind].run(settings)


if __name__ == "__main__":
    main()
