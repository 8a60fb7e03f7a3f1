#!/usr/bin/env bash
# Builds ringlog in the release profile and runs all of its tests.
#
#   scripts/test.sh          everything; installs kcat, Chromium, a JDK, Maven and Python with apt where they are missing,
#                            and further clients with scripts/clients.sh
#   scripts/test.sh --core   only what needs nothing but cargo (and the C compiler and make that the build needs)
#   scripts/test.sh --long   everything, with a longer freeze of the disk and more kills
#
# The last line says `N passed, N failed`; the exit status is zero when nothing failed.
set -euo pipefail
cd "$(dirname "$0")/.."

core=false
for argument in "$@"; do
    case $argument in
        --core) core=true ;;
        --long) export RINGLOG_FREEZE_SECONDS=30 RINGLOG_KILL_ROUNDS=100 ;;
        *)
            echo "usage: scripts/test.sh [--core | --long]" >&2
            exit 2
            ;;
    esac
done

# shellcheck source=scripts/install.sh
source scripts/install.sh
need cc build-essential
need make build-essential
if ! $core; then
    need kcat kcat
    need chromium chromium
    need javac default-jdk-headless
    need mvn maven
    need fsfreeze util-linux
    need mkfs.ext4 e2fsprogs
    need ip iproute2
    need iptables iptables
fi
install_needed
# The clients of the tests in tests/it/clients.rs.
if ! $core; then scripts/clients.sh --install confluent-kafka kafka-python franz-go kafkajs kafka-tools; fi

output=$(mktemp)
trap 'rm -f "$output"' EXIT
status=0
cargo test --release --no-fail-fast 2>&1 | tee "$output" || status=$?
if ! $core; then
    # The tests that were ignored above because they call a program from outside.
    cargo test --release --no-fail-fast --test it -- --ignored 2>&1 | tee -a "$output" || status=$?
fi

read -r passed failed < <(awk '
    /^test result:/ { for (i = 1; i < NF; i++) { if ($(i + 1) == "passed;") p += $i; if ($(i + 1) == "failed;") f += $i } }
    END { print p + 0, f + 0 }' "$output")
# A build that fails, or a test program that dies, has no result of its own.
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then failed=1; fi
echo "$passed passed, $failed failed"
exit "$status"
