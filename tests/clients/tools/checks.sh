#!/usr/bin/env bash
# Apache Kafka's own programs: checks.sh HOST:PORT[,HOST:PORT] [CHECK ...], with their jars in $KAFKA_LIBS.
# Each check is a function below, its result one line on standard output.
brokers=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

java_() { timeout 60 java -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$KAFKA_LIBS/*" "$@"; }
tool() { java_ "org.apache.kafka.tools.$1" --bootstrap-server "$brokers" "${@:2}" 2>&1; }
produce() { java_ org.apache.kafka.tools.ConsoleProducer --bootstrap-server "$brokers" "$@"; }
consume() { java_ org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$brokers" --timeout-ms 30000 "$@"; }
groups() { tool consumer.group.ConsumerGroupCommand "$@"; }
configs() { java_ kafka.admin.ConfigCommand --bootstrap-server "$brokers" "$@" 2>&1; }
fresh() { echo "$1-$RANDOM$RANDOM$RANDOM"; }

# expect TEXT PATTERN: fails with the text where the pattern is not in it. Where the broker does not know an API, that
# is said with the status 77.
expect() {
    grep -qE -- "$2" <<<"$1" && return
    echo "no '$2' in: $1" | head -c 2000
    if grep -qE 'does not support|not supported by the cluster' <<<"$1"; then exit 77; fi
    exit 1
}

# there_and_back CODEC: lines with keys, by the console producer and consumer.
there_and_back() {
    local topic file=$work/lines
    topic=$(fresh console)
    seq 1 500 | sed 's/.*/key &:value &/' >"$file"
    produce --topic "$topic" --compression-codec "$1" --reader-property parse.key=true \
        --reader-property key.separator=: <"$file"
    consume --topic "$topic" --from-beginning --max-messages 500 --group "$topic" \
        --formatter-property print.key=true --formatter-property key.separator=: 2>"$work/errors" >"$work/read"
    diff "$file" "$work/read"
    grep -q 'Processed a total of 500 messages' "$work/errors"
}

console() { there_and_back lz4; }

codecs() {
    for codec in none gzip snappy zstd; do there_and_back "$codec"; done
}

topics() {
    local topic
    topic=$(fresh topics)
    expect "$(tool TopicCommand --create --topic "$topic" --partitions 3 --config retention.ms=3600000)" 'Created topic'
    expect "$(tool TopicCommand --create --topic "$topic")" "already exists"
    expect "$(tool TopicCommand --describe --topic "$topic")" 'PartitionCount: 3.*retention.ms=3600000'
    expect "$(tool TopicCommand --list)" "^$topic\$"
    expect "$(tool TopicCommand --delete --topic "$topic" && tool TopicCommand --describe --topic "$topic")" 'does not exist'
}

partitions() {
    local topic
    topic=$(fresh partitions)
    tool TopicCommand --create --topic "$topic" --partitions 2
    expect "$(tool TopicCommand --alter --topic "$topic" --partitions 5; tool TopicCommand --describe --topic "$topic")" \
        'PartitionCount: 5|does not support'
    expect "$(tool TopicCommand --alter --topic "$topic" --partitions 4)" 'currently has 5 partition'
}

configs_() {
    local topic
    topic=$(fresh configs)
    tool TopicCommand --create --topic "$topic" --config max.message.bytes=100000
    expect "$(configs --describe --entity-type topics --entity-name "$topic")" 'max.message.bytes=100000'
    expect "$(configs --describe --all --entity-type topics --entity-name "$topic")" 'cleanup.policy=delete'
    expect "$(configs --describe --all --entity-type brokers --entity-name 1)" 'num.partitions=1'
}

alter() {
    local topic
    topic=$(fresh alter)
    tool TopicCommand --create --topic "$topic"
    expect "$(configs --alter --entity-type topics --entity-name "$topic" --add-config retention.ms=7200000)" \
        'Completed updating config'
    expect "$(configs --describe --entity-type topics --entity-name "$topic")" 'retention.ms=7200000'
    expect "$(configs --alter --entity-type topics --entity-name "$topic" --delete-config retention.ms)" \
        'Completed updating config'
    expect "$(configs --alter --entity-type topics --entity-name "$topic" --add-config no.such=1)" 'Unknown topic config'
}

# Configs of one broker and of all, by Kafka's precedence, and of a group.
dynamic() {
    local group of="--describe --entity-type brokers"
    group=$(fresh dynamic)
    alter_() { configs --alter --entity-type "$@"; }
    expect "$(alter_ brokers --entity-default --add-config max.connections.per.ip=900)" 'Completed updating default config'
    expect "$(alter_ brokers --entity-name 1 --add-config max.connections.per.ip=800)" 'Completed updating config'
    # shellcheck disable=SC2086
    expect "$(configs $of --entity-name 1)" 'DYNAMIC_BROKER_CONFIG:max.connections.per.ip=800, DYNAMIC_DEFAULT_BROKER_CONFIG:max.connections.per.ip=900, DEFAULT_CONFIG:max.connections.per.ip=2147483647'
    # shellcheck disable=SC2086
    expect "$(configs $of --entity-default)" 'max.connections.per.ip=900 sensitive=false'
    expect "$(alter_ brokers --entity-name 1 --delete-config max.connections.per.ip)" 'Completed'
    expect "$(alter_ brokers --entity-default --delete-config max.connections.per.ip)" 'Completed'
    expect "$(alter_ brokers --entity-name 1 --add-config num.partitions=3)" 'Cannot update these configs dynamically'
    expect "$(alter_ groups --entity-name "$group" --add-config consumer.session.timeout.ms=50000)" 'Completed updating config'
    expect "$(configs --describe --entity-type groups --entity-name "$group")" \
        'consumer.session.timeout.ms=50000 .*DYNAMIC_GROUP_CONFIG:consumer.session.timeout.ms=50000'
    expect "$(configs --describe --entity-type groups)" "$group"
    expect "$(alter_ groups --entity-name "$group" --add-config consumer.session.timeout.ms=1)" 'greater than or equal'
    expect "$(alter_ groups --entity-name "$group" --delete-config consumer.session.timeout.ms)" 'Completed updating config'
}

groups_() {
    local topic
    topic=$(fresh groups)
    seq 1 10 | produce --topic "$topic"
    consume --topic "$topic" --from-beginning --max-messages 10 --group "$topic" >/dev/null 2>&1
    expect "$(groups --list)" "^$topic\$"
    expect "$(groups --list --state)" "^$topic +Empty"
    expect "$(groups --describe --group "$topic")" "$topic +$topic +0 +10 +10 +0 "
    expect "$(groups --describe --state --group "$topic")" 'Empty +0'
    expect "$(groups --reset-offsets --to-offset 4 --group "$topic" --topic "$topic" --execute)" "$topic +0 +4"
    expect "$(groups --reset-offsets --shift-by 2 --group "$topic" --topic "$topic" --execute)" "$topic +0 +6"
    expect "$(groups --describe --group "$topic")" "$topic +$topic +0 +6 +10 +4 "
    expect "$(groups --reset-offsets --to-datetime 2020-01-01T00:00:00.000 --group "$topic" --topic "$topic" --dry-run)" \
        "$topic +0 +0"
    expect "$(groups --delete-offsets --group "$topic" --topic "$topic")" 'Successful'
    expect "$(groups --delete --group "$topic")" 'was successful'
    expect "$(groups --describe --group "$topic")" 'not found'
    expect "$(tool GroupsCommand --list)" 'GROUP'
}

offsets() {
    local topic
    topic=$(fresh offsets)
    seq 1 10 | produce --topic "$topic"
    expect "$(tool GetOffsetShell --topic "$topic")" "^$topic:0:10\$"
    expect "$(tool GetOffsetShell --topic "$topic" --time earliest)" "^$topic:0:0\$"
    expect "$(tool GetOffsetShell --topic "$topic" --time max-timestamp)" "^$topic:0:[0-9]\$"
    expect "$(tool GetOffsetShell --topic "$topic" --time 1000)" "^$topic:0:0\$"
}

perf() {
    local topic
    topic=$(fresh perf)
    tool TopicCommand --create --topic "$topic" --partitions 6
    expect "$(tool ProducerPerformance --topic "$topic" --num-records 50000 --record-size 512 --throughput -1)" \
        '^50000 records sent'
    expect "$(tool ConsumerPerformance --topic "$topic" --num-records 50000)" ', 50000, '
}

verifiable() {
    local topic
    topic=$(fresh verifiable)
    expect "$(tool VerifiableProducer --topic "$topic" --max-messages 1000)" '"sent":1000.*"acked":1000'
    expect "$(tool VerifiableConsumer --topic "$topic" --group-id "$topic" --max-messages 1000 --reset-policy earliest)" \
        'offsets_committed.*"offset":1000.*"success":true'
}

cluster() {
    expect "$(java_ org.apache.kafka.tools.ClusterTool cluster-id --bootstrap-server "$brokers")" 'Cluster ID: .{22}'
    expect "$(tool BrokerApiVersionsCommand)" 'Produce\(0\): 0 to 13'
}

delete_records() {
    local topic
    topic=$(fresh delete-records)
    seq 1 10 | produce --topic "$topic"
    echo "{\"partitions\":[{\"topic\":\"$topic\",\"partition\":0,\"offset\":4}],\"version\":1}" >"$work/offsets.json"
    expect "$(tool DeleteRecordsCommand --offset-json-file "$work/offsets.json")" 'low_watermark: 4'
    expect "$(consume --topic "$topic" --from-beginning --max-messages 6 2>/dev/null | tr '\n' ' ')" '^5 6 7 8 9 10 $'
}

log_dirs() {
    local topic
    topic=$(fresh log-dirs)
    seq 1 10 | produce --topic "$topic"
    expect "$(tool LogDirsCommand --describe --topic-list "$topic")" "\"partition\":\"$topic-0\",\"size\":[1-9]"
}

# worker PORT: what both kinds of a worker of Kafka Connect are told, with the file connectors as their plugins.
worker() {
    mkdir "$work/plugins"
    cp "$KAFKA_LIBS"/connect-file-*.jar "$work/plugins"
    cat <<END
bootstrap.servers=$brokers
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
offset.flush.interval.ms=500
listeners=http://127.0.0.1:$1
plugin.discovery=service_load
plugin.path=$work/plugins
END
}

# One worker of Kafka Connect with a file as source and another as sink.
connect() {
    local topic port=$((20000 + RANDOM % 1000)) pid
    topic=$(fresh connect)
    worker "$port" >"$work/worker"
    echo "offset.storage.file.filename=$work/offsets" >>"$work/worker"
    printf '%s\n' name=source connector.class=FileStreamSource tasks.max=1 "file=$work/in" "topic=$topic" >"$work/source"
    printf '%s\n' name=sink connector.class=FileStreamSink tasks.max=1 "file=$work/out" "topics=$topic" >"$work/sink"
    seq 1 1000 >"$work/in"
    : >"$work/out"
    java -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$KAFKA_LIBS/*" org.apache.kafka.connect.cli.ConnectStandalone \
        "$work/worker" "$work/source" "$work/sink" >"$work/connect.log" 2>&1 &
    pid=$!
    for _ in $(seq 300); do
        if [ "$(wc -l <"$work/out")" = 1000 ]; then break; fi
        sleep 0.2
    done
    seq 1001 1100 >>"$work/in"
    for _ in $(seq 150); do
        if [ "$(wc -l <"$work/out")" = 1100 ]; then break; fi
        sleep 0.2
    done
    kill "$pid"
    wait "$pid" || true
    diff "$work/in" "$work/out"
}

# A worker of Kafka Connect that keeps what it knows in topics, and is told its connectors by HTTP.
distributed() {
    local topic name port=$((20000 + RANDOM % 1000)) pid connectors
    topic=$(fresh distributed)
    name=$(fresh workers)
    connectors=http://127.0.0.1:$port/connectors
    worker "$port" >"$work/worker"
    cat >>"$work/worker" <<END
group.id=$name
offset.storage.topic=$name-offsets
config.storage.topic=$name-configs
status.storage.topic=$name-status
offset.storage.replication.factor=1
config.storage.replication.factor=1
status.storage.replication.factor=1
END
    seq 1 1000 >"$work/in"
    : >"$work/out"
    java -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$KAFKA_LIBS/*" \
        org.apache.kafka.connect.cli.ConnectDistributed "$work/worker" >"$work/connect.log" 2>&1 &
    pid=$!
    for _ in $(seq 150); do
        if curl -sf "$connectors" >/dev/null; then break; fi
        sleep 0.2
    done
    told() { curl -sf -X PUT -H 'Content-Type: application/json' "$connectors/$1/config" -d "$2" >/dev/null; }
    told source '{"connector.class":"FileStreamSource","file":"'"$work"'/in","topic":"'"$topic"'"}'
    told sink '{"connector.class":"FileStreamSink","file":"'"$work"'/out","topics":"'"$topic"'"}'
    for _ in $(seq 300); do
        if [ "$(wc -l <"$work/out")" = 1000 ]; then break; fi
        sleep 0.2
    done
    kill "$pid"
    wait "$pid" || true
    diff "$work/in" "$work/out"
}

# MirrorMaker 2 from the cluster to itself: records and a group's offsets.
mirror() {
    local topic pid there=
    topic=$(fresh mirror)
    seq 1 1000 | produce --topic "$topic"
    consume --topic "$topic" --from-beginning --max-messages 1000 --group "$topic" >/dev/null 2>&1
    cat >"$work/mirrors" <<END
clusters=A, B
A.bootstrap.servers=$brokers
B.bootstrap.servers=$brokers
A->B.enabled=true
A->B.topics=$topic
A->B.groups=$topic
B->A.enabled=false
replication.factor=1
checkpoints.topic.replication.factor=1
heartbeats.topic.replication.factor=1
offset-syncs.topic.replication.factor=1
offset.storage.replication.factor=1
status.storage.replication.factor=1
config.storage.replication.factor=1
emit.checkpoints.interval.seconds=1
sync.group.offsets.enabled=true
sync.group.offsets.interval.seconds=1
dedicated.mode.enable.internal.rest=false
END
    java -Xmx384m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$KAFKA_LIBS/*" \
        org.apache.kafka.connect.mirror.MirrorMaker "$work/mirrors" >"$work/mirror.log" 2>&1 &
    pid=$!
    for _ in $(seq 20); do
        there=$(groups --describe --group "$topic" --offsets || true)
        if grep -q "A\.$topic" <<<"$there"; then break; fi
        sleep 1
    done
    kill "$pid"
    wait "$pid" || true
    expect "$there" "A\.$topic"
    diff <(seq 1 1000) <(consume --topic "A.$topic" --from-beginning --max-messages 1000 2>/dev/null)
}

all='console codecs topics partitions configs alter dynamic groups offsets perf verifiable cluster delete_records log_dirs connect distributed mirror'
status=0
for check in ${*:-$all}; do
    function=$check
    case $check in configs | groups) function=${check}_ ;; esac
    SECONDS=0
    (
        set -euo pipefail
        "$function"
    ) >"$work/output" 2>&1
    case $? in
        0) echo "ok $check ${SECONDS}s" ;;
        77) echo "missing $check $(tr '\n' ' ' <"$work/output" | head -c 300)" ;;
        *)
            status=1
            echo "FAIL $check $(tr '\n' ' ' <"$work/output" | head -c 600)"
            ;;
    esac
done
exit $status
