#!/usr/bin/env bash
# Runs the simulator. One seed with every step printed, or many:
#   scripts/sim.sh [--cluster|--joined] SEED
#   scripts/sim.sh [--cluster|--joined] [--seeds N] [--from SEED] [--jobs N]
# With --cluster a run is of three brokers, with --joined of three that a fourth joins, otherwise of one; the seeds of these
# have nothing to do with each other.
set -euo pipefail
cd "$(dirname "$0")/.."
while [ $# -gt 0 ]; do
  case "$1" in
    --joined) export RINGLOG_SIM_JOINED=1; shift ;;
    --cluster) export RINGLOG_SIM_CLUSTER=1; shift ;;
    --seeds) export RINGLOG_SIM_SEEDS="$2"; shift 2 ;;
    --from) export RINGLOG_SIM_FROM="$2"; shift 2 ;;
    --jobs) export RINGLOG_SIM_JOBS="$2"; shift 2 ;;
    [0-9]*) export RINGLOG_SIM_SEED="$1"; shift ;;
    *) sed -n '2,6p' "$0" >&2; exit 2 ;;
  esac
done
exec cargo test --release --lib -- --ignored --exact sim::tests::asked_for --nocapture
