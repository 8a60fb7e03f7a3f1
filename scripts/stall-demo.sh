#!/bin/sh
# Creates topics, and produces, on a cluster of three brokers on this machine while all is well and while the disk of one
# broker is frozen, and prints what a client notices of it. Needs root (loop mounts, fsfreeze), cargo and Python 3.
#
#   scripts/stall-demo.sh [--topics N] [--freeze-s S] [--out results.json] [--svg picture.svg]
#   scripts/stall-demo.sh --against      does the same with Apache Kafka beside it; needs a JDK and Maven
#   scripts/stall-demo.sh --throughput   also produces as fast as the clusters take it
#   scripts/stall-demo.sh --many         also creates 1,000 topics in one request, and one by one
#
# The cluster is scripts/cluster.sh's; CLUSTER_DIR and RINGLOG mean what they mean there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec python3 "$here/stall_demo" "$@"
