#!/usr/bin/env bash
# kcat: checks.sh HOST:PORT[,HOST:PORT] [CHECK ...]. Each check is a function below, its result one line on standard
# output.
brokers=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

kc() { timeout 60 kcat -b "$brokers" -X broker.address.family=v4 "$@"; }
fresh() { echo "$1-$RANDOM$RANDOM$RANDOM"; }

codecs() {
    seq 1 2000 >"$work/in"
    for codec in none gzip snappy lz4 zstd; do
        for settings in acks=0 acks=1 acks=all enable.idempotence=true; do
            local topic
            topic=$(fresh codecs)
            kc -P -t "$topic" -p 0 -z "$codec" -X "$settings" <"$work/in"
            kc -C -t "$topic" -p 0 -o beginning -c 2000 -q | diff "$work/in" -
        done
    done
}

shapes() {
    local topic
    topic=$(fresh shapes)
    printf 'key:value\n:empty key\nlast:\n' | kc -P -t "$topic" -p 0 -K : -Z -H a=1 -H a=2
    kc -C -t "$topic" -p 0 -o beginning -c 3 -q -Z -f '%k|%s|%h|%S\n' >"$work/read"
    printf 'key|value|a=1,a=2|5\nNULL|empty key|a=1,a=2|9\nlast|NULL|a=1,a=2|-1\n' | diff - "$work/read"
}

times() {
    local topic
    topic=$(fresh times)
    seq 1 10 | kc -P -t "$topic" -p 0
    [ "$(kc -Q -t "$topic:0:1000")" = "$topic [0] offset 0" ]
    [ "$(kc -C -t "$topic" -p 0 -o s@1000 -c 1 -q)" = 1 ]
    [ "$(kc -C -t "$topic" -p 0 -o -2 -c 2 -q | tr '\n' ' ')" = '9 10 ' ]
}

eager() {
    local topic
    topic=$(fresh eager)
    seq 1 100 | kc -P -t "$topic"
    kc -G "$topic" -X auto.offset.reset=earliest -X topic.auto.offset.reset=earliest -c 100 -q "$topic" |
        diff <(seq 1 100) -
}

administration() {
    local topic
    topic=$(fresh administration)
    seq 1 10 | kc -P -t "$topic"
    kc -L | grep -q "topic \"$topic\" with 1 partitions"
    kc -L -J | grep -q "$topic"
}

all='codecs shapes times eager administration'
status=0
for check in ${*:-$all}; do
    SECONDS=0
    (
        set -euo pipefail
        "$check"
    ) >"$work/output" 2>&1
    result=$?
    if [ "$result" = 0 ]; then
        echo "ok $check ${SECONDS}s"
    else
        status=1
        echo "FAIL $check $(tr '\n' ' ' <"$work/output" | head -c 600)"
    fi
done
exit $status
