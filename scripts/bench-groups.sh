#!/usr/bin/env bash
# Measures consumer groups of a running broker: how long a rebalance of 1,000 members takes in either protocol, and how
# many commits it takes in a second. Usage: scripts/bench-groups.sh --broker HOST:PORT [--help for the rest]
set -euo pipefail
exec python3 "$(dirname "$0")/bench_groups.py" "$@"
