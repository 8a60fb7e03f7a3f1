#!/usr/bin/env bash
# Shows that the simulator finds bugs: puts those of scripts/mutants/ back by hand, one at a time, and runs seeds until
# each is found. One patch a bug; all are applied to a copy of the sources in $MUTANTS_DIR (default: target/mutants), which
# is built once, and RINGLOG_MUTANT says which one is on.
#
#   scripts/mutants.sh                  all of them, and writes docs/mutants.md
#   scripts/mutants.sh NAME...          these, by the names of their patches without number
#
# BOUND (default 200) is the number of seeds after which a bug counts as not found; FIRST (default 1) the first seed.
# The exit status is zero when all were found.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
dir=${MUTANTS_DIR:-target/mutants}
bound=${BOUND:-200}
first=${FIRST:-1}

mkdir -p "$dir/source"
dir=$(cd "$dir" && pwd)
rm -rf "$dir/patched"
mkdir "$dir/patched"
git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$dir/patched"
for patch in scripts/mutants/*.patch; do
    # Fuzz would put a bug in another place than the one it is about.
    patch --quiet --fuzz=0 --no-backup-if-mismatch -d "$dir/patched" -p1 <"$patch" || {
        echo "$patch does not fit the sources any more: make it anew" >&2
        exit 1
    }
done
# Files that are the same keep their times, so that little is built again.
(cd "$dir/patched" && find . -type f) | while read -r file; do
    cmp -s "$dir/patched/$file" "$dir/source/$file" || install -m 644 -D "$dir/patched/$file" "$dir/source/$file"
done

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$dir/target} CARGO_PROFILE_DEV_OPT_LEVEL=1
echo "building" >&2
binary=$(cd "$dir/source" && cargo test --locked --lib --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -n "$binary" ] || {
    (cd "$dir/source" && cargo test --locked --lib --no-run) >&2
    exit 1
}

# hunt NAME RUNS: prints the seed that finds the bug, how many were run, and what was found.
hunt() {
    local seed output=$dir/output
    for ((seed = first; seed < first + bound; seed++)); do
        export RINGLOG_MUTANT=$1 RINGLOG_SIM_FROM=$seed RINGLOG_SIM_SEEDS=1
        if [ "$2" = cluster ]; then export RINGLOG_SIM_CLUSTER=1; else unset RINGLOG_SIM_CLUSTER; fi
        RUST_BACKTRACE=0 "$binary" --ignored --exact sim::tests::asked_for --nocapture >"$output" 2>&1 && continue
        printf '| %s | %s | ' "$seed" "$((seed - first + 1))"
        sed -n 's/^seed [0-9]* failed at step [0-9]*, [0-9]* ms: //p' "$output" | head -n 1 | cut -c1-140 | tr '|\n' '/ '
        echo '|'
        return 0
    done
    echo "| — | $bound | **not found** |"
    return 1
}

table=$dir/table
printf '| bug | runs of | found by seed | after | what was broken |\n|---|---|---|---|---|\n' >"$table"
status=0
for patch in scripts/mutants/*.patch; do
    name=$(basename "$patch" .patch)
    name=${name#*-}
    [ "$name" != switch ] || continue
    [ $# -eq 0 ] || printf '%s\n' "$@" | grep -qxF "$name" || continue
    bug=$(sed -n 's/^Bug: //p' "$patch")
    runs=$(sed -n 's/^Runs: //p' "$patch")
    row=$(hunt "$name" "$runs") || status=1
    echo "| \`$name\`: $bug | $runs $row" | tee -a "$table"
done

if [ $# -eq 0 ]; then
    {
        cat <<'TEXT'
# Bugs that the simulator finds

Written by `scripts/mutants.sh`, which puts each of these bugs back and runs seeds until one finds it. `one` is a run of a
single broker, `cluster` one of three. The numbers of seeds include the one that found it.

TEXT
        cat "$table"
    } >"$here/docs/mutants.md"
fi
exit $status
