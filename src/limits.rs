//! Every bound of the broker, in one place, with the relations between them asserted.

/// Bytes of a direct-I/O block: every position and length on the device is a multiple of it.
pub const BLOCK: usize = 4096;

/// Longest time between two ticks of a shard with work under way, in milliseconds.
pub const TICK_MS: u64 = 10;

/// Longest time between two ticks of an idle shard, in milliseconds.
pub const IDLE_TICK_MS: u64 = 100;

/// An answer may come this much after its deadline, in milliseconds (invariant L1).
pub const DEADLINE_SLACK_MS: u64 = 50;

/// Largest request frame, in bytes (Kafka's `socket.request.max.bytes`).
pub const MAX_REQUEST_BYTES: usize = 100 * 1024 * 1024;

/// Most elements of arrays, and tagged fields, in one request. Decoded, an element takes up to some 150 bytes, and a
/// tagged field that is alone in its structure some 450.
pub const MAX_REQUEST_ELEMENTS: usize = 250_000;

/// Largest batch that `max.message.bytes` can allow: with its frame it must fit a WAL segment.
pub const MAX_BATCH_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of a WAL segment.
pub const WAL_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// The usual most of one WAL write; a single larger frame gets a larger write of its own.
pub const WAL_WRITE_BYTES: usize = 1024 * 1024;

/// Most WAL writes in flight at once.
pub const WAL_WRITES_IN_FLIGHT: usize = 4;

/// Bytes accepted by a WAL and not durable yet, above which appends wait.
pub const WAL_PENDING_BYTES: u64 = 64 * 1024 * 1024;

/// Logs that are asked in one tick to let go of the oldest segment of a WAL: each writes a checkpoint, and what clients
/// wait for goes on in between.
pub const RELEASE_LOGS: usize = 1_024;

/// Bytes of its entries that a log writes again, at most, when the WAL wants its oldest segment, rather than move them to
/// files of its own.
pub const AGAIN_BYTES: u64 = 16 * 1024;

/// Age of the oldest append that is not durable yet, above which shards refuse produces, in milliseconds.
pub const WAL_STALLED_MS: u64 = 1_000;

/// Log lines that may wait for standard error; further ones are dropped and counted.
pub const LOG_QUEUE: usize = 4_096;

/// Most shards of a broker.
pub const MAX_SHARDS: u16 = 256;

/// The usual most of one write to a segment file.
pub const SEGMENT_CHUNK_BYTES: usize = 1024 * 1024;

/// Operations that write segment files which may be in flight at once on a disk: few, so that the WAL's latency does
/// not suffer.
pub const SEGMENT_WRITES_IN_FLIGHT: usize = 4;

/// Reads of segment files that may be in flight at once on a disk; further ones wait.
pub const SEGMENT_READS_IN_FLIGHT: usize = 32;

/// Removals of segments or logs that may be in flight at once on a disk.
pub const SEGMENT_REMOVALS_IN_FLIGHT: usize = 4;

/// Threads that look for segment files at a start. Where the system remembers nothing of the folders, each is a read of the
/// device: so many are under way at once.
pub const LISTING_THREADS: usize = 16;

/// Segment files whose last block is kept in memory while nothing is written to them.
pub const SEGMENT_FILES_KNOWN: usize = 4_096;

/// Messages that may wait in one direction between two shards, or between a shard and a disk.
pub const MESH_QUEUE: usize = 8_192;

/// Requests of one connection that may be under way at once; further ones wait in the socket.
pub const MAX_IN_FLIGHT_PER_CONN: usize = 64;

/// Bytes of responses that may wait for a client to read them, above which no further requests of it are read.
pub const CONN_UNSENT_BYTES: usize = 8 * 1024 * 1024;

/// A connection whose frame is not complete after this many milliseconds is closed: its client waits for no answer any
/// more. So is one whose client takes fewer than [`CONN_LEAST_BYTES`] of what is sent to it in that time.
pub const CONN_STALLED_MS: u64 = 60_000;

/// See [`CONN_STALLED_MS`].
pub const CONN_LEAST_BYTES: u64 = 64 * 1024;

/// A connection whose frame finds no room in the frame budget is closed after this many milliseconds.
pub const CONN_STARVED_MS: u64 = 30_000;

/// Silence of a disk's thread, in milliseconds, after which its shards take it to be stuck in the kernel.
pub const DISK_SILENT_MS: u64 = 500;

/// Most brokers of a cluster: each keeps connections to all others.
pub const MAX_BROKERS: usize = 15;

/// Bytes of a cluster's id, at most.
pub const MAX_CLUSTER_ID_BYTES: usize = 64;

/// Largest frame between brokers, in bytes: one holds the largest batch, or a snapshot of the metadata.
pub const PEER_FRAME_BYTES: usize = 36 * 1024 * 1024;

/// Bytes of a frame between brokers above which further messages begin a new one: a frame is looked at only when all of
/// it is there.
pub const PEER_FRAME_FULL_BYTES: usize = 1024 * 1024;

/// Bytes that may wait to be sent to another broker by one shard; above it the connection is given up.
pub const PEER_UNSENT_BYTES: usize = 64 * 1024 * 1024;

/// Time for a connection to another broker to come about, in milliseconds.
pub const PEER_CONNECT_MS: u64 = 1_000;

/// Time for the greeting on a connection between brokers, in milliseconds.
pub const PEER_HELLO_MS: u64 = 2_000;

/// Pause before a lost connection to another broker is made again, at first and at most, in milliseconds.
pub const PEER_RETRY_MS: u64 = 100;
/// See [`PEER_RETRY_MS`].
pub const PEER_RETRY_MOST_MS: u64 = 1_000;

/// Time for which bytes sent to another broker may stay unacknowledged, in milliseconds; then the connection is given up.
pub const PEER_UNACKED_MS: u64 = 5_000;

/// Connections of other brokers that may be in their greeting at once; further ones wait to be accepted.
pub const PEER_GREETINGS: usize = 256;

/// Longest time that a broker which is asked to stop takes to hand what it leads to others, in milliseconds.
pub const LEAVE_MS: u64 = 2_000;

/// Longest time that a stopping broker then waits for what is in flight, in milliseconds. `docker stop` kills after 10 s.
pub const STOP_MS: u64 = 6_000;

/// Bytes of log between two entries of a segment's sparse index.
pub const INDEX_INTERVAL_BYTES: u64 = 64 * 1024;

/// Entries that gather in memory before they are appended to a segment's index file.
pub const INDEX_WRITE_ENTRIES: usize = 64;

/// Most bytes of records in one write to a segment.
pub const FLUSH_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes that a read of a segment asks for at most, where a single batch is not larger.
pub const READ_CHUNK_BYTES: usize = 1024 * 1024;

/// Bytes of chunks that readers have passed, which one shard keeps for those that follow closely. Memory that is used
/// again at once costs less than fresh memory.
pub const SPENT_CHUNK_BYTES: u64 = 16 * 1024 * 1024;

/// A Fetch of many partitions takes at least so many bytes of each, where the client allows it.
pub const FETCH_SHARE_BYTES: usize = 64 * 1024;

/// Bytes of a segment of the metadata's WAL.
pub const METADATA_WAL_SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Largest metadata command, in bytes.
pub const MAX_METADATA_COMMAND_BYTES: usize = 4 * 1024 * 1024;

/// Largest snapshot of the metadata, in bytes: it is one frame of the metadata's WAL.
pub const MAX_METADATA_SNAPSHOT_BYTES: usize = 14 * 1024 * 1024;

/// Bytes of a snapshot that topics may take, so that there is always room for the brokers. Every broker of a cluster
/// must agree on it, as it decides whether a topic is created.
pub const MAX_TOPIC_METADATA_BYTES: usize = 12 * 1024 * 1024;

/// Bytes of a snapshot that quotas may take; every broker must agree on it too.
pub const MAX_QUOTA_BYTES: usize = 1024 * 1024;

/// Bytes of a snapshot that the configs of single brokers and of groups may take; every broker must agree on it too.
pub const MAX_OWN_CONFIG_BYTES: usize = 512 * 1024;

/// Quotas whose use a shard keeps in mind, each for one client or for those that share it; further clients share one.
pub const MAX_METERS: usize = 10_000;

/// Seconds for which a client may save up its quota, to use it at once (in Kafka ten samples of a second).
pub const QUOTA_WINDOW_S: u64 = 10;

/// Longest time that a client is told to wait for having used too much of the shards' time, in milliseconds (a sample, in
/// Kafka): it is told again as long as it owes more.
pub const MAX_REQUEST_THROTTLE_MS: i32 = 1_000;

/// Most partitions that one CreateTopics request may create.
pub const MAX_PARTITIONS_PER_REQUEST: usize = 10_000;

/// Most resources that one DescribeConfigs request may ask about.
pub const MAX_DESCRIBED_RESOURCES: usize = 2_000;

/// Most partitions in one DescribeTopicPartitions response (Kafka's `max.request.partition.size.limit`).
pub const MAX_DESCRIBED_PARTITIONS: usize = 2_000;

/// Most partitions in a cluster.
pub const MAX_PARTITIONS: usize = 100_000;

/// Flushes of partitions to segments that one shard has under way at once.
pub const FLUSHES_IN_FLIGHT: usize = 4;

/// Time between two tries to move records to a segment on a disk without room, in milliseconds.
pub const FLUSH_RETRY_MS: u64 = 1_000;

/// Most bytes that the records of a compressed batch are opened to, where the broker must look inside. It is one step of
/// a shard's thread, so it must not take long; a larger batch is kept as it is.
pub const MAX_DECOMPRESSED_BYTES: usize = 16 * 1024 * 1024;

/// Most bytes that each byte of a compressed batch may become, where those are more than [`MIN_DECOMPRESSED_BYTES`].
pub const MAX_DECOMPRESSION_RATIO: usize = 1_000;

/// Bytes that a compressed batch may always become.
pub const MIN_DECOMPRESSED_BYTES: usize = 1024 * 1024;

/// Largest window of Zstandard that is opened, in bytes: memory that decompression takes beside its output.
pub const ZSTD_WINDOW_BYTES: u64 = 16 * 1024 * 1024;

/// Keys that one pass of compaction remembers, with 24 bytes each; more dirty records are left for the next pass. A full
/// hash map, so that none of its memory is in vain.
pub const MAX_COMPACTION_KEYS: usize = 7 << 16;

/// Bytes of a segment that compaction reads at once, where a single batch is not larger, and writes at once, about.
pub const COMPACTION_CHUNK_BYTES: usize = 512 * 1024;

/// Bytes that compaction reads and writes in a second on each shard, at most.
pub const COMPACTION_BYTES_PER_SECOND: u64 = 256 * 1024 * 1024;

/// Logs that a shard looks at in one tick for records to delete.
pub const RETENTION_LOGS_PER_TICK: usize = 64;

/// Fetch sessions that one connection may hold.
pub const FETCH_SESSIONS_PER_CONN: usize = 4;

/// Most bytes of records in one Fetch response, whatever the client allows (Kafka's `fetch.max.bytes`).
pub const MAX_FETCH_BYTES: usize = 55 * 1024 * 1024;

/// Time for requests that bring none of their own (Kafka's `request.timeout.ms`), in milliseconds.
pub const REQUEST_TIMEOUT_MS: i64 = 30_000;

/// Time that a fetch whose records lie on the disk waits for them, where its own wait is shorter, in milliseconds.
pub const DISK_READ_MS: i64 = 1_000;

/// Time that a Metadata request waits for the topics that it creates, in milliseconds.
pub const AUTO_CREATE_MS: i64 = 1_000;

/// Producer ids that are taken from the metadata at once.
pub const PRODUCER_ID_BLOCK: u32 = 1_000;

/// Time after which a silent idempotent producer is forgotten (Kafka's `producer.id.expiration.ms`), in milliseconds.
pub const PRODUCER_ID_EXPIRATION_MS: u64 = 86_400_000;

/// Time between two ticks of the Raft groups, in milliseconds. A follower that hears nothing for ten of them stands for
/// election.
pub const RAFT_TICK_MS: u64 = 50;

/// Raft ticks after which a replica that has lost a part of its log asks the others again where they stand.
pub const INQUIRY_TICKS: u32 = 4;

/// Time between two words that a broker gives the others of itself, in milliseconds.
pub const STATUS_MS: u64 = 100;

/// A broker that was not heard for this long counts as gone, in milliseconds.
pub const PEER_SILENT_MS: u64 = 500;

/// Age of the oldest write that is not durable above which a broker leads nothing, in milliseconds.
pub const LEASE_MS: u64 = 150;

/// Age of the oldest write that is not durable above which a broker is given no leaderships, in milliseconds.
pub const DISK_SLOW_MS: u64 = LEASE_MS / 2;

/// Time for which a disk must have been well before its broker leads again, in milliseconds.
pub const LEASE_BACK_MS: u64 = 15_000;

/// Time between two looks for leaderships that others should have, in milliseconds.
pub const BALANCE_MS: u64 = 5_000;

/// So long after a batch was refused for a time those that its producer had sent behind it are refused alike, in
/// milliseconds.
pub const REFUSED_MS: u64 = 10_000;

/// Producers of a partition whose refused batches are remembered at once.
pub const REFUSED_PRODUCERS: usize = 1_000;

/// A follower that did not hold for this long what its leader held before counts as out of sync, in milliseconds
/// (Kafka's `replica.lag.time.max.ms`).
pub const REPLICA_LAG_MS: u64 = 2_000;

/// Time after which a leader is asked once more to hand over, in milliseconds: longer than Raft takes to give up a
/// hand-over.
pub const ELECT_AGAIN_MS: u64 = 1_000;

/// Time between two tries to tell the metadata that replicas have moved, in milliseconds.
pub const MOVED_AGAIN_MS: u64 = 300;

/// A shard that did not run for this long judges nobody by what it did not hear meanwhile, in milliseconds.
pub const AWAY_MS: u64 = 250;

/// Raft ticks without anything new after which a leader whose followers hold everything lets the group rest.
pub const REST_TICKS: u32 = 20;

/// The usual most of the batches in one message to a follower; a single larger batch gets a message of its own.
pub const APPEND_BYTES: usize = 1024 * 1024;

/// Most such messages on their way to one follower of one log.
pub const APPENDS_IN_FLIGHT: usize = 64;

/// The same for the metadata's log: a follower whose disk hangs for a minute is to hear of all that is created meanwhile.
pub const METADATA_APPENDS_IN_FLIGHT: usize = 4_096;

/// A replica of a new partition stands for election this much after the one before it in the list, if nobody leads by
/// then, in milliseconds.
pub const STAND_NEXT_MS: u64 = 100;

/// With nothing else to write, a write of this much later shows that the disk still takes any, in milliseconds.
pub const CANARY_MS: u64 = 100;

/// How long ago something may have come from a broker for it to be named to clients without more ado, in milliseconds.
pub const WORD_FRESH_MS: u64 = 5;

/// How long a client waits at most until brokers that were silent longer have given word, in milliseconds.
pub const WORD_MS: i64 = 20;

/// Time after which a follower asks once more for records that did not come, in milliseconds.
pub const INSTALL_AGAIN_MS: u64 = 1_000;

/// Time after which a damaged segment that could not be mended is tried again, where it is read, in milliseconds.
pub const MEND_AGAIN_MS: u64 = 10_000;

/// How often other brokers are asked for records that are damaged here, before that is given up for the time being.
pub const MEND_QUESTIONS: usize = 6;

/// Most bytes of records that a follower is sent at once, unless a single batch has more.
pub const INSTALL_BYTES: usize = 1024 * 1024;

/// Leaders in one message to another broker.
pub const LEADERS_PER_MESSAGE: usize = 1_024;

/// Messages for logs that this broker has not heard of yet, which a shard keeps until it has.
pub const UNBORN_MESSAGES: usize = 16_384;

/// Memory for the last entries of the metadata's log that a checkpoint has passed, in bytes. A broker whose disk hangs is sent
/// entries and hears of all that is committed; a snapshot it could not take before its disk is back.
pub const METADATA_KEPT_BYTES: u64 = 4 * 1024 * 1024;

/// Time between two tries of a starting broker to register, in milliseconds.
pub const REGISTER_AGAIN_MS: u64 = 300;

/// A broker that others wait for to show a new topic is waited for no longer than this, in milliseconds.
pub const SHOWN_MS: u64 = 200;

/// The same for a broker whose disk hangs.
pub const SHOWN_HUNG_MS: u64 = 50;

const _: () = assert!(ELECT_AGAIN_MS > 10 * RAFT_TICK_MS);
const _: () = assert!(AWAY_MS > 2 * IDLE_TICK_MS && AWAY_MS + IDLE_TICK_MS < PEER_SILENT_MS);
const _: () = assert!(STATUS_MS * 3 <= PEER_SILENT_MS && CANARY_MS < LEASE_MS);

/// Most members of a group, those included that were given an id and have not joined yet.
pub const MAX_GROUP_MEMBERS: usize = 5_000;

/// Bytes of the protocols that one JoinGroup request may bring: what a member tells the others of itself.
pub const MAX_JOIN_BYTES: usize = 1024 * 1024;

/// Bytes of memory that the members of one group may take: their protocols and assignments.
pub const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Largest batch of a partition of the groups' topic: a group with its members is one record.
pub const MAX_GROUP_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of records that are gathered into one batch of the groups' topic, where there are more than one.
pub const GROUP_BATCH_BYTES: usize = 256 * 1024;

/// Most groups that one partition of the groups' topic may hold in memory.
pub const MAX_GROUPS: usize = 20_000;

/// Bytes of memory that all groups of one partition of the groups' topic may take, committed offsets included.
pub const MAX_GROUPS_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of a group's records on their way to the disk, of one shard, above which further ones are refused.
pub const GROUP_WRITES_IN_FLIGHT_BYTES: usize = 32 * 1024 * 1024;

/// Largest text that a client may commit with an offset (Kafka's `offset.metadata.max.bytes`), in bytes.
pub const MAX_OFFSET_METADATA_BYTES: usize = 4096;

/// Time within which a commit must be durable (Kafka's `offsets.commit.timeout.ms`), in milliseconds.
pub const GROUP_COMMIT_MS: i64 = 5_000;

/// Time that a member which has just been added is waited for in its first join (Kafka's number), in milliseconds.
pub const NEW_MEMBER_JOIN_MS: u64 = 300_000;

/// Longest time that a group waits for its members to join again, whatever they ask for, in milliseconds.
pub const MAX_REBALANCE_TIMEOUT_MS: u64 = 86_400_000;

/// Time beyond its rebalance timeout that a JoinGroup request is kept: clients wait for five seconds more.
pub const JOIN_SLACK_MS: i64 = 4_000;

/// Longest regular expression for topics that a consumer may subscribe with, in bytes.
pub const MAX_TOPIC_REGEX_BYTES: usize = 4096;

/// Bytes that such a regular expression may take when it is compiled.
pub const MAX_TOPIC_REGEX_PROGRAM_BYTES: usize = 1024 * 1024;

/// Least time between two looks at what the regular expressions of a group stand for (Kafka's number), in milliseconds.
pub const REGEX_REFRESH_MIN_MS: i64 = 10_000;

/// Bytes of the groups' topic that are read back in one turn when a partition of it is taken over.
pub const GROUP_LOAD_BYTES: usize = 1024 * 1024;

/// Most partitions of the groups' topic.
pub const MAX_OFFSETS_PARTITIONS: usize = 1_000;

/// Time between two searches for committed offsets that nobody needs any more, in milliseconds (Kafka's
/// `offsets.retention.check.interval.ms`).
pub const OFFSETS_CHECK_INTERVAL_MS: u64 = 600_000;

/// Threads of the HTTP port: so many connections are served at once, further ones wait.
pub const HTTP_THREADS: usize = 8;

/// Bytes of the head of an HTTP request, at most.
pub const HTTP_HEAD_BYTES: usize = 8 * 1024;

/// Headers of an HTTP request, at most.
pub const HTTP_HEADERS: usize = 64;

/// Time for the head of an HTTP request to come, in milliseconds.
pub const HTTP_REQUEST_MS: u64 = 1_000;

/// Time for an HTTP request to come and its answer to be taken, in milliseconds.
pub const HTTP_CONNECTION_MS: u64 = 5_000;

/// Time that shards have to answer whoever looks at them from outside, in milliseconds.
pub const LOOK_MS: u64 = 1_000;

/// The same for `/metrics`, which can do without.
pub const LOOK_FOR_METRICS_MS: u64 = 250;

/// An executor that did not turn for this long is not alive, in milliseconds.
pub const EXECUTOR_SILENT_MS: u64 = 5_000;

/// Topics or groups in one answer under `/v1`, at most.
pub const LOOK_ITEMS: usize = 1_000;

/// Bytes of batches that a look at the records of a partition gets, unless a single batch has more.
pub const LOOK_BYTES: usize = 256 * 1024;

/// Records in one answer under `/v1`, at most.
pub const LOOK_RECORDS: usize = 500;

/// Bytes of a key or value that are shown of a record, at most.
pub const SHOWN_BYTES: usize = 2 * 1024;

/// Partitions whose lag `/metrics` shows, at most.
pub const LAG_SERIES: usize = 10_000;

/// Partitions that a shard looks at for one page of a list of topics, but for the last topic of the page.
pub const LOOK_PARTITIONS: usize = 10_000;

/// Creations of topics that a shard remembers, stage by stage.
pub const CREATION_TRACES: usize = 64;

/// Names of topics that are kept of one of them.
pub const TRACED_TOPICS: usize = 16;

const _: () =
    assert!(LOOK_MS < HTTP_CONNECTION_MS && HTTP_REQUEST_MS < HTTP_CONNECTION_MS && LOOK_FOR_METRICS_MS <= LOOK_MS);
const _: () = assert!(EXECUTOR_SILENT_MS > 10 * IDLE_TICK_MS);
const _: () = assert!(MAX_JOIN_BYTES < MAX_GROUP_BATCH_BYTES && MAX_GROUP_BATCH_BYTES <= MAX_BATCH_BYTES);
const _: () = assert!(MAX_GROUP_BYTES < MAX_GROUPS_BYTES && MAX_GROUP_BATCH_BYTES < GROUP_WRITES_IN_FLIGHT_BYTES);
const _: () = assert!(MAX_OFFSET_METADATA_BYTES < GROUP_BATCH_BYTES && GROUP_BATCH_BYTES < MAX_GROUP_BATCH_BYTES);
const _: () =
    assert!(MIN_DECOMPRESSED_BYTES <= MAX_DECOMPRESSED_BYTES && ZSTD_WINDOW_BYTES <= MAX_DECOMPRESSED_BYTES as u64);
const _: () = assert!(DISK_SILENT_MS > 2 * IDLE_TICK_MS && DISK_SILENT_MS < WAL_STALLED_MS);
const _: () = assert!(TICK_MS * 2 <= DEADLINE_SLACK_MS);
const _: () = assert!(MAX_BATCH_BYTES + 2 * BLOCK <= WAL_SEGMENT_BYTES as usize);
const _: () = assert!(WAL_WRITE_BYTES.is_multiple_of(BLOCK));
const _: () = assert!(MAX_BATCH_BYTES < MAX_REQUEST_BYTES);
const _: () = assert!(MAX_BATCH_BYTES + PEER_FRAME_FULL_BYTES <= PEER_FRAME_BYTES);
const _: () = assert!(MAX_METADATA_SNAPSHOT_BYTES + PEER_FRAME_FULL_BYTES <= PEER_FRAME_BYTES);
const _: () = assert!(PEER_FRAME_BYTES < PEER_UNSENT_BYTES);
const _: () = assert!(MAX_METADATA_COMMAND_BYTES <= MAX_METADATA_SNAPSHOT_BYTES);
const _: () = assert!(MAX_METADATA_SNAPSHOT_BYTES + 16 * BLOCK <= METADATA_WAL_SEGMENT_BYTES as usize);
const _: () = assert!(MAX_TOPIC_METADATA_BYTES + MAX_QUOTA_BYTES + MAX_OWN_CONFIG_BYTES < MAX_METADATA_SNAPSHOT_BYTES);
const _: () = assert!(MAX_PARTITIONS_PER_REQUEST <= MAX_PARTITIONS);
