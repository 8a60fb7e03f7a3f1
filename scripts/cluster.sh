#!/usr/bin/env bash
# A cluster of three brokers on this machine, each on a file system of its own so that its disk can be frozen.
#
#   scripts/cluster.sh up        builds ringlog, starts nodes 1 to 3, waits until all are ready
#   scripts/cluster.sh down      stops them and removes their data
#   scripts/cluster.sh status    says which run, and which disks are frozen
#   scripts/cluster.sh start N   starts node N again; `stop N` ends it by SIGTERM, `kill N` by SIGKILL
#   scripts/cluster.sh freeze N  freezes the disk of node N; `thaw N` lets it go on
#
# Clients connect to 127.0.0.1:19092, 29092 and 39092. Everything is in $CLUSTER_DIR (default: target/cluster): the data
# in node-N, the process id in node-N.pid, the log in node-N.log. Mounting needs root; CLUSTER_MOUNT=0 does without, and
# nothing can be frozen then. RINGLOG names another binary than the one that is built, CLUSTER_IMAGE_MB (default 4096)
# the size of each file system, CLUSTER_ARGS further arguments of each server.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
# One spelling: a broker is told from other processes by its data directory.
dir=$(realpath -m "${CLUSTER_DIR:-$here/target/cluster}")
mount=${CLUSTER_MOUNT:-1}
image_mb=${CLUSTER_IMAGE_MB:-4096}
read -r -a extra <<<"${CLUSTER_ARGS:-}"
binary=${RINGLOG:-$here/target/release/ringlog}
nodes=(1 2 3)
voters=1@127.0.0.1:19093,2@127.0.0.1:29093,3@127.0.0.1:39093

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

node() {
    case ${1:-} in
        1 | 2 | 3) echo "$1" ;;
        *) usage ;;
    esac
}

running() {
    local pid
    pid=$(cat "$dir/node-$1.pid" 2>/dev/null) || return 1
    # A number may have been given to another process since; the binary may have been built anew.
    grep -qzxF -- "$dir/node-$1/data" "/proc/$pid/cmdline" 2>/dev/null
}

start() {
    running "$1" && return
    "$binary" server --data-dir "$dir/node-$1/data" --listen "127.0.0.1:${1}9092" \
        --node-id "$1" --controller-quorum-voters "$voters" ${extra[@]+"${extra[@]}"} \
        >"$dir/node-$1.out" 2>>"$dir/node-$1.log" </dev/null &
    echo $! >"$dir/node-$1.pid"
}

# await N: until the node says that it is ready.
await() {
    for _ in $(seq 600); do
        grep -q '^ready' "$dir/node-$1.out" 2>/dev/null && return
        running "$1" || break
        sleep 0.05
    done
    echo "node $1 is not ready; the end of $dir/node-$1.log:" >&2
    tail -n 5 "$dir/node-$1.log" >&2
    return 1
}

end() {
    running "$1" || return 0
    local pid
    pid=$(cat "$dir/node-$1.pid")
    kill "-$2" "$pid"
    kill -CONT "$pid" 2>/dev/null || true
    while running "$1"; do sleep 0.05; done
}

frozen() {
    [ -e "$dir/node-$1.frozen" ]
}

thaw() {
    frozen "$1" || return 0
    fsfreeze -u "$dir/node-$1"
    rm "$dir/node-$1.frozen"
}

up() {
    [ -n "${RINGLOG:-}" ] || (cd "$here" && cargo build --release)
    mkdir -p "$dir"
    for n in "${nodes[@]}"; do
        mkdir -p "$dir/node-$n"
        if [ "$mount" = 1 ] && ! mountpoint -q "$dir/node-$n"; then
            "$here/scripts/mount-image.sh" "$dir/node-$n.img" "$image_mb" "$dir/node-$n"
        fi
        start "$n"
    done
    for n in "${nodes[@]}"; do await "$n"; done
    echo "ready 127.0.0.1:19092,127.0.0.1:29092,127.0.0.1:39092"
}

# The kernel lets go of a killed process's rings, and of the files in them, some time after the process is gone.
unmount() {
    for _ in $(seq 100); do
        if ! mountpoint -q "$1" || umount "$1" 2>/dev/null; then return; fi
        sleep 0.1
    done
    umount "$1"
}

down() {
    for n in "${nodes[@]}"; do
        thaw "$n"
        end "$n" KILL
        unmount "$dir/node-$n"
        rm -rf "$dir/node-$n" "$dir/node-$n".*
    done
}

status() {
    for n in "${nodes[@]}"; do
        local state=stopped disk=''
        if running "$n"; then state="running, process $(cat "$dir/node-$n.pid")"; fi
        if frozen "$n"; then disk=', disk frozen'; fi
        echo "node $n: 127.0.0.1:${n}9092, $state$disk"
    done
}

case ${1:-} in
    up) up ;;
    down) down ;;
    status) status ;;
    start)
        n=$(node "${2:-}")
        rm -f "$dir/node-$n.out"
        start "$n"
        await "$n"
        ;;
    stop) end "$(node "${2:-}")" TERM ;;
    kill) end "$(node "${2:-}")" KILL ;;
    freeze)
        n=$(node "${2:-}")
        mountpoint -q "$dir/node-$n" || {
            echo "node $n has no file system of its own: CLUSTER_MOUNT is 0" >&2
            exit 1
        }
        fsfreeze -f "$dir/node-$n"
        touch "$dir/node-$n.frozen"
        ;;
    thaw) thaw "$(node "${2:-}")" ;;
    *) usage ;;
esac
