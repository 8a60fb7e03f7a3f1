#!/usr/bin/env bash
# Builds ringlog in the release profile, with what the build needs, and runs a broker: all arguments go to
# `ringlog server`. Without any it listens on 127.0.0.1:9092 and keeps its data in ./data.
set -euo pipefail
cd "$(dirname "$0")/.."

# librdkafka, the client behind `ringlog bench`, is C.
# shellcheck source=scripts/install.sh
source scripts/install.sh
need cc build-essential
need make build-essential
install_needed
command -v cargo >/dev/null || {
    echo "please install a Rust toolchain first: https://rustup.rs" >&2
    exit 1
}

exec cargo run --release -- server "$@"
