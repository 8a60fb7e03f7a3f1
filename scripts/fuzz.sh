#!/usr/bin/env bash
# Fuzzes what reads bytes from outside: requests, batches, what other brokers send, and what lies on the disk.
#
#   scripts/fuzz.sh [SECONDS [TARGET...]]     default: each target for an hour
#
# Takes a nightly toolchain; brings cargo-fuzz where it is missing. What it finds is in fuzz/artifacts, and makes the exit
# status other than zero. The corpus, in fuzz/corpus, is kept for the next run.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-3600}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=(request batch recovery snapshot peer)
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
status=0
for target in "${targets[@]}"; do
    echo "== $target for $seconds s"
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -rss_limit_mb=2048 -malloc_limit_mb=256 \
        -timeout=10 -max_len=65536 -print_final_stats=1 || status=1
done
exit "$status"
