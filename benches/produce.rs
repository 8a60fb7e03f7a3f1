//! What a produce and a fetch cost a shard, piece by piece: the frame taken apart, the batch checked, the append driven
//! through Raft into WAL frames, the records put into a response. No device, no socket.

// `criterion_group!` makes a public function without a comment.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest, RequestHeader, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType as ClientTimestamp,
};
use ringlog::metadata::configs::TopicConfig;
use ringlog::partition::Partition;
use ringlog::protocol::fetch::{FetchResponse, FetchedPartition, FetchedTopic, encode_fetch};
use ringlog::protocol::request;
use ringlog::record::Batch;
use ringlog::types::{BrokerId, LogId, Mono, Now};

/// The version of Produce that current clients send.
const PRODUCE_VERSION: i16 = 12;
const WALL_MS: i64 = 1_700_000_000_000;

/// A batch of `count` records of `len` bytes, as a client sends it.
fn batch(count: usize, len: usize) -> Bytes {
    let value = Bytes::from(vec![7; len]);
    let record = |number: usize| Record {
        transactional: false,
        control: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: ClientTimestamp::Creation,
        delete_horizon: false,
        offset: number as i64,
        sequence: number as i32,
        timestamp: WALL_MS,
        key: None,
        value: Some(value.clone()),
        headers: Default::default(),
    };
    let records: Vec<Record> = (0..count).map(record).collect();
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut out, records.iter(), &options).expect("a batch encodes");
    out.freeze()
}

/// The frame of a Produce request that carries `records` for each of `partitions`.
fn produce_frame(records: &Bytes, partitions: i32) -> Bytes {
    let data = (0..partitions)
        .map(|index| PartitionProduceData::default().with_index(index).with_records(Some(records.clone())))
        .collect();
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str("a-topic")))
        .with_partition_data(data);
    let body = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    let header = RequestHeader::default()
        .with_request_api_key(ApiKey::Produce as i16)
        .with_request_api_version(PRODUCE_VERSION)
        .with_correlation_id(1);
    let mut out = BytesMut::new();
    header.encode(&mut out, ApiKey::Produce.request_header_version(PRODUCE_VERSION)).expect("a header encodes");
    body.encode(&mut out, PRODUCE_VERSION).expect("a request encodes");
    out.freeze()
}

/// Batches as librdkafka makes them at full speed, and the lone record.
const BATCHES: [(&str, usize, usize); 3] =
    [("1 x 1 KiB", 1, 1_024), ("900 x 1 KiB", 900, 1_024), ("9,000 x 100 B", 9_000, 100)];

fn check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch check");
    for (name, count, len) in BATCHES {
        let bytes = batch(count, len);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| Batch::parse_produced(black_box(&bytes)).expect("the batch is good"));
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("produce decode");
    for partitions in [1, 100] {
        let frame = produce_frame(&batch(1, 1_024), partitions);
        group.throughput(Throughput::Elements(partitions as u64));
        group.bench_function(format!("{partitions} partitions"), |bencher| {
            bencher.iter(|| request::decode(black_box(frame.clone())).expect("the frame is good"));
        });
    }
    group.finish();
}

/// A new partition that leads.
fn leader() -> Partition {
    let config = TopicConfig::resolve(&BTreeMap::new(), 1 << 20).expect("the defaults are good");
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let broker = BrokerId(1);
    let mut partition =
        Partition::open(LogId(1), (broker, 0), &[broker], config, None, &logger).expect("nothing is there");
    partition.campaign();
    let mut frames = Vec::new();
    while let Some(ready) = partition.take_frames(&mut frames) {
        partition.persisted(ready.number);
    }
    assert!(partition.is_up(), "a lone replica leads at once");
    partition
}

fn append(criterion: &mut Criterion) {
    const BATCHES: u64 = 512;
    let now = Now { mono: Mono(0), wall_ms: WALL_MS };
    let batch = Batch::parse_produced(&batch(1, 1_024)).expect("the batch is good");
    let mut group = criterion.benchmark_group("partition append");
    group.throughput(Throughput::Elements(BATCHES));
    for per_write in [1, 32] {
        group.bench_function(format!("{per_write} batches a write"), |bencher| {
            bencher.iter_batched_ref(
                leader,
                |partition| {
                    let mut frames = Vec::new();
                    for _ in 0..BATCHES / per_write {
                        for _ in 0..per_write {
                            partition.append(now, batch.clone()).expect("the leader takes it");
                        }
                        while let Some(ready) = partition.take_frames(&mut frames) {
                            partition.persisted(ready.number);
                        }
                        frames.clear();
                    }
                    assert_eq!(partition.high_watermark(), BATCHES as i64);
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn fetch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fetch encode");
    let records = batch(900, 1_024);
    for partitions in [1, 100] {
        let fetched =
            |partition| FetchedPartition { records: vec![records.clone()], ..FetchedPartition::new(partition) };
        let topic = FetchedTopic { partitions: (0..partitions).map(fetched).collect(), ..FetchedTopic::default() };
        let response = FetchResponse { topics: vec![topic], ..FetchResponse::default() };
        group.throughput(Throughput::Elements(partitions as u64));
        group.bench_function(format!("{partitions} partitions"), |bencher| {
            bencher.iter(|| encode_fetch(1, 16, black_box(&response)).expect("the response encodes"));
        });
    }
    group.finish();
}

criterion_group!(benches, check, decode, append, fetch);
criterion_main!(benches);
