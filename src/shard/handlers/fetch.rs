//! Fetch: read what is there; where that is too little, wait at the owners until there is more or the time is up.

use kafka_protocol::messages::FetchRequest;
use kafka_protocol::protocol::StrBytes;

use crate::limits::{DISK_READ_MS, FETCH_SHARE_BYTES, MAX_FETCH_BYTES};
use crate::protocol::ErrorCode;
use crate::protocol::fetch::{
    FetchResponse, FetchedPartition, FetchedTopic, LeaderIdAndEpoch, NodeEndpoint, encode_fetch,
};
use crate::shard::Shard;
use crate::shard::mesh::{Op, OpKind, ReadAnswer, RequestId, ShardMessage};
use crate::shard::requests::{Kind, Origin, Pending};
use crate::shard::sessions::{FetchKey, SessionUse, Wanted};
use crate::types::{BrokerId, Deadline, LogId, Now};

/// Topics are named by id from this version on.
const TOPIC_ID_VERSION: i16 = 13;
/// Clients name their rack from this version on, and may be sent to a follower (KIP-392).
const FOLLOWER_VERSION: i16 = 11;
/// Clients are told of the leader that they should have asked from this version on.
const CURRENT_LEADER_VERSION: i16 = 16;

/// A Fetch request under way.
pub(in crate::shard) struct Gathering {
    session: SessionUse,
    parts: Vec<Part>,
    min_bytes: usize,
    max_bytes: usize,
    /// When the client wants an answer even if there is too little.
    patience: Deadline,
    /// Whether the owners wait for more records by now.
    waiting: bool,
    /// Whether replicas that follow may answer too.
    from_follower: bool,
}

struct Part {
    wanted: Wanted,
    log: Option<LogId>,
    /// The replica that the client is sent to instead, as it is in its rack.
    nearer: Option<BrokerId>,
    answer: Option<ReadAnswer>,
    /// Whether an op is under way at the owner.
    open: bool,
}

impl Gathering {
    pub(in crate::shard) fn answered(&mut self, part: usize, answer: ReadAnswer) {
        let part = &mut self.parts[part];
        part.open = false;
        part.answer = Some(answer);
    }

    fn bytes(&self) -> usize {
        self.parts.iter().filter_map(|part| part.answer.as_ref()).map(|answer| answer.records.len).sum()
    }

    /// Whether a client must hear something at once that it does not wait for.
    fn has_news(&self) -> bool {
        let answered = |part: &Part| part.answer.as_ref().is_some_and(|answer| answer.error.is_some());
        self.parts.iter().any(|part| part.nearer.is_some() || answered(part))
    }
}

impl Shard {
    pub(in crate::shard) fn fetch(&mut self, now: Now, origin: Origin, request: FetchRequest) {
        let Some(sessions) = self.connections.sessions(origin.slot.conn) else { return };
        let rng = &mut self.rng;
        let (session, wanted) = match sessions.begin(&request, || rng.positive_i32()) {
            Ok(begun) => begun,
            Err(error) => {
                self.count_error(origin, error.code());
                let response = FetchResponse { error: Some(error), ..FetchResponse::default() };
                return self.respond_encoded(origin, encode_fetch(origin.correlation_id, origin.version, &response));
            }
        };
        let max_bytes = (request.max_bytes.max(0) as usize).min(MAX_FETCH_BYTES);
        let from_follower = origin.version >= FOLLOWER_VERSION;
        let rack = Some(&*request.rack_id).filter(|rack| from_follower && !rack.is_empty());
        let mut parts = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let key = &wanted.key;
            let log = if origin.version >= TOPIC_ID_VERSION {
                self.log_by_id(key.topic_id, key.partition)
            } else {
                self.log_by_name(&key.topic, key.partition)
            };
            let open = log.is_ok();
            parts.push(match log {
                Ok(log) => {
                    let nearer = rack.and_then(|rack| self.nearer_replica(&wanted.key, origin.version, log, rack));
                    Part { wanted, log: Some(log), nearer, answer: None, open }
                }
                Err(error) => Part { wanted, log: None, nearer: None, answer: Some(ReadAnswer::failed(error)), open },
            });
        }
        let max_wait = i64::from(request.max_wait_ms.max(0));
        let gathering = Gathering {
            session,
            parts,
            min_bytes: request.min_bytes.max(0) as usize,
            max_bytes,
            patience: Deadline::after_millis(now, max_wait),
            from_follower,
            waiting: false,
        };
        // What lies on the disk is worth waiting for even where the client would not wait for new records.
        let deadline = Deadline::after_millis(now, max_wait.max(DISK_READ_MS));
        let ops = gathering.ops(|part| part.open.then_some(None));
        let number = self.requests.insert(Pending { origin, deadline, kind: Kind::Fetch(Box::new(gathering)) });
        self.send_reads(now, number, ops);
        self.fetch_progress(now, number);
    }

    /// The replica that a client in `rack` should read a log from, where that is not the leader, which is here.
    fn nearer_replica(&self, key: &FetchKey, version: i16, log: LogId, rack: &str) -> Option<BrokerId> {
        let own = self.config.broker_id;
        let leads = self.leaders.get(&log).is_some_and(|leader| leader.broker == own);
        if !leads || self.config.rack.as_deref() == Some(rack) {
            return None;
        }
        let topic = match version >= TOPIC_ID_VERSION {
            true => self.state.topic_by_id(key.topic_id),
            false => self.state.topic(&key.topic),
        };
        let partition = topic?.partitions.get(usize::try_from(key.partition).ok()?)?;
        partition.replicas.iter().copied().find(|replica| {
            let broker = self.state.broker(*replica);
            broker.is_some_and(|broker| broker.rack.as_deref() == Some(rack))
                && self.peers.is_prompt(*replica)
                && self.is_in_sync(log, *replica)
        })
    }

    fn send_reads(&mut self, now: Now, number: u64, ops: Vec<(u32, LogId, OpKind)>) {
        let request = RequestId { shard: self.id, number };
        for (part, log, kind) in ops {
            self.send_op(now, Op { request, part, log, kind });
        }
    }

    /// Looks whether a fetch can be answered, or has to wait for more.
    pub(in crate::shard) fn fetch_progress(&mut self, now: Now, number: u64) {
        let Some(Pending { kind: Kind::Fetch(gathering), .. }) = self.requests.get_mut(number) else { return };
        let enough = gathering.bytes() >= gathering.min_bytes || gathering.has_news() || gathering.parts.is_empty();
        if !gathering.waiting {
            if gathering.parts.iter().any(|part| part.open) {
                return;
            }
            if enough || gathering.patience.passed(now) {
                return self.finish(now, number);
            }
            gathering.waiting = true;
            let patience = gathering.patience;
            self.requests.reschedule(number, patience);
        } else if enough {
            return self.finish(now, number);
        }
        let Some(Pending { kind: Kind::Fetch(gathering), .. }) = self.requests.get_mut(number) else { return };
        let seen = |part: &Part| part.answer.as_ref().map_or(0, |answer| answer.records.len);
        let ops = gathering.ops(|part| (!part.open).then(|| Some(seen(part))));
        for (part, _, _) in &ops {
            gathering.parts[*part as usize].open = true;
        }
        self.send_reads(now, number, ops);
    }

    pub(in crate::shard) fn finish_fetch(&mut self, now: Now, origin: Origin, number: u64, gathering: Gathering) {
        let request = RequestId { shard: self.id, number };
        for part in &gathering.parts {
            if let (true, Some(log)) = (part.open, part.log) {
                let owner = log.shard(self.shards);
                if owner == self.id {
                    self.cancel_ops(request, log);
                } else {
                    self.send(owner, ShardMessage::Cancel { request, log });
                }
            }
        }
        let session_id = match gathering.session {
            SessionUse::None => 0,
            SessionUse::Full(id) | SessionUse::Incremental(id) => id,
        };
        let incremental = matches!(gathering.session, SessionUse::Incremental(_));
        let tells_leaders = origin.version >= CURRENT_LEADER_VERSION;
        let mut response = FetchResponse { session_id, ..FetchResponse::default() };
        let mut told = Vec::new();
        let mut room = gathering.max_bytes;
        let (mut some, mut bytes) = (false, 0);
        for part in gathering.parts {
            let mut fetched = FetchedPartition::new(part.wanted.key.partition);
            // A part without an answer is on a disk that takes its time: the client asks again.
            if let Some(answer) = part.answer {
                fetched.error = answer.error;
                if let (true, Some(log), Some(error)) = (tells_leaders, part.log, answer.error)
                    && let Some((leader, broker)) = self.leader_to_tell(log, error)
                {
                    let (leader_id, leader_epoch) = (leader.broker.0, leader.epoch);
                    fetched.current_leader = Some(LeaderIdAndEpoch { leader_id, leader_epoch });
                    let endpoint = NodeEndpoint {
                        node_id: leader_id,
                        host: StrBytes::from_string(broker.host.clone()),
                        port: i32::from(broker.port),
                        rack: broker.rack.clone().map(StrBytes::from_string),
                    };
                    if !response.node_endpoints.contains(&endpoint) {
                        response.node_endpoints.push(endpoint);
                    }
                }
                fetched.high_watermark = answer.high_watermark;
                fetched.last_stable_offset = answer.high_watermark;
                fetched.log_start_offset = answer.log_start;
                // Only the first batch of all comes whole whatever the limits say.
                if !some || answer.records.len <= room.min(part.wanted.max_bytes.max(0) as usize) {
                    some |= answer.records.len > 0;
                    bytes += answer.records.len;
                    self.metrics.fetched_bytes.add(answer.records.len as u64);
                    room = room.saturating_sub(answer.records.len);
                    fetched.records = answer.records.chunks;
                }
            }
            self.count_error(origin, ErrorCode::code_of(fetched.error));
            if let (Some(nearer), None) = (part.nearer, fetched.error) {
                fetched.preferred_read_replica = nearer.0;
            }
            let now_told = (fetched.high_watermark, fetched.log_start_offset);
            let sent_elsewhere = fetched.preferred_read_replica >= 0;
            let news = sent_elsewhere
                || fetched.error.is_some()
                || !fetched.records.is_empty()
                || part.wanted.told != Some(now_told);
            if session_id != 0 {
                told.push((part.wanted.key.clone(), now_told, !fetched.records.is_empty()));
            }
            if news || !incremental {
                push(&mut response, &part.wanted, fetched);
            }
        }
        if let Some(sessions) = self.connections.sessions(origin.slot.conn) {
            sessions.told(session_id, &told);
        }
        response.throttle_time_ms = self.meter_answer(now, origin, bytes).max(origin.throttle_ms);
        self.respond_encoded(origin, encode_fetch(origin.correlation_id, origin.version, &response));
    }
}

impl Gathering {
    /// Reads for the parts for which `more_than` says so.
    fn ops(&self, more_than: impl Fn(&Part) -> Option<Option<usize>>) -> Vec<(u32, LogId, OpKind)> {
        // Of many partitions the response could not take all that each may give: what is left over would have been read
        // for nothing. One alone must still be able to make up the least that the client waits for.
        let share = (self.max_bytes / self.parts.len().max(1)).max(self.min_bytes).max(FETCH_SHARE_BYTES);
        let parts = self.parts.iter().enumerate();
        parts
            .filter_map(|(number, part)| {
                let kind = OpKind::Read {
                    offset: part.wanted.offset,
                    max_bytes: match part.nearer {
                        // Who is sent elsewhere gets no records here.
                        Some(_) => 0,
                        None => (part.wanted.max_bytes.max(0) as usize).min(self.max_bytes).min(share),
                    },
                    epoch: part.wanted.epoch,
                    more_than: more_than(part)?,
                    from_follower: self.from_follower,
                };
                Some((number as u32, part.log?, kind))
            })
            .collect()
    }
}

/// Adds a partition to its topic, or begins a new one: partitions of a topic stand together where they were asked so.
fn push(response: &mut FetchResponse, wanted: &Wanted, partition: FetchedPartition) {
    let key = &wanted.key;
    match response.topics.last_mut() {
        Some(topic) if (&topic.name, topic.topic_id) == (&key.topic, key.topic_id) => topic.partitions.push(partition),
        _ => response.topics.push(FetchedTopic {
            name: key.topic.clone(),
            topic_id: key.topic_id,
            partitions: vec![partition],
        }),
    }
}
