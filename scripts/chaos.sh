#!/usr/bin/env bash
# Breaks a cluster of three brokers in every way that can be done from outside, for so many seconds (default: 1200), under
# an idempotent producer, and reads back every acknowledged record. Takes root.
#
#   scripts/chaos.sh [SECONDS [SEED]]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/install.sh
source scripts/install.sh
need ip iproute2
need iptables iptables
need fsfreeze util-linux
need mkfs.ext4 e2fsprogs
install_needed
export RINGLOG_CHAOS_SECONDS=${1:-1200} RINGLOG_CHAOS_SEED=${2:-1}
exec cargo test --release --test it -- --ignored --exact --nocapture \
    chaos::nothing_that_is_done_to_one_broker_at_a_time_or_to_all_loses_a_record
