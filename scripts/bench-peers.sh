#!/bin/sh
# Measures Apache Kafka and ringlog on this machine, one after the other, with the same client, and prints a table.
# Needs cargo, Python 3.11, a JDK (17 or later) and Maven; fio for the rows that compare with the bare device. See
# scripts/bench-peers.sh --help.
#
#   scripts/bench-peers.sh                                  every row, 5 rounds (hours)
#   scripts/bench-peers.sh --rows produce-1k --rounds 3     one group of rows
#   scripts/bench-peers.sh --report results.json            print the table of an earlier run again
set -eu
here=$(dirname "$0")
exec python3 "$here/bench_peers" --repository "$here/.." "$@"
