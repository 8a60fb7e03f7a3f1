#!/bin/sh
# Measures a broker of its own with very much of something, and prints settings and figures. Needs cargo and Python 3.11.
#
#   scripts/bench-scale.sh partitions    100,000 partitions: creation, start, memory, what busy ones notice of them
#   scripts/bench-scale.sh groups        rebalances of 1,000 members in either protocol; commits a second
#   scripts/bench-scale.sh tail          end-to-end latency of a consumer that follows
#   scripts/bench-scale.sh compaction    its speed, and a produce's latency while it runs
#
# See scripts/bench-scale.sh --help, and KIND --help.
set -eu
here=$(dirname "$0")
exec python3 "$here/bench_scale" --repository "$here/.." "$@"
