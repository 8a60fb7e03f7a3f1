//! Quotas of clients: what a client has used, and for how long it must wait.
//!
//! A client's connections may be on all shards, and none waits for another: each shard charges what it serves, tells
//! the others at its next tick, and goes by what they told it.
//!
//! Time (`request_percentage`) is charged by the events that a shard takes for a client: its requests, what other shards
//! ask for it and answer, its responses. It is known when the answer has gone, so that a client hears with its next
//! one that it used too much.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use super::Shard;
use super::handlers::{create_partitions, create_topics, delete_topics};
use super::mesh::ShardMessage;
use super::requests::Origin;
use crate::limits::{MAX_METERS, MAX_REQUEST_THROTTLE_MS, QUOTA_WINDOW_S};
use crate::metadata::quotas::{self, Quota};
use crate::protocol::request::RequestBody;
use crate::protocol::{ErrorCode, ResponseBody};
use crate::types::{ConnId, Map, Mono, Now, ShardId};

/// The user of a connection on which nobody has authenticated (Kafka's name for it).
const ANONYMOUS: &str = "ANONYMOUS";

/// What a client has used of a quota is kept under this number, together with all who share the quota.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metered {
    /// A hash of the quota and of those who share it. The names are as long as clients make them.
    key: u64,
    /// The quota, so many a second.
    per_second: f64,
}

/// What was used of a quota.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Used {
    /// Of which.
    pub(super) metered: Metered,
    /// How much.
    pub(super) amount: f64,
}

/// What is left of a quota: it fills up at the quota's rate, to what may be used at once.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Below zero where more was used.
    left: f64,
    per_second: f64,
    at: Mono,
}

impl Bucket {
    fn fill(&mut self, now: Now, per_second: f64) {
        let passed = now.mono.micros_since(self.at) as f64 / 1e6;
        self.at = now.mono;
        self.per_second = per_second;
        self.left = (self.left + passed * per_second).min(per_second * QUOTA_WINDOW_S as f64);
    }

    /// Milliseconds until nothing is owed any more.
    fn wait_ms(&self) -> i32 {
        if self.left >= 0.0 { 0 } else { (-self.left / self.per_second * 1e3).ceil().min(f64::from(i32::MAX)) as i32 }
    }
}

/// All that a shard knows of what was used.
#[derive(Default)]
pub(super) struct Meters {
    buckets: Map<u64, Bucket>,
    /// What the other shards were not told yet.
    untold: BTreeMap<u64, Used>,
    /// Those that the event that is being taken is work for, as far as their time is limited.
    working_for: Vec<Metered>,
}

impl Meters {
    fn bucket(&mut self, now: Now, metered: Metered) -> &mut Bucket {
        let Metered { key, per_second } = metered;
        if !self.buckets.contains_key(&key) && self.buckets.len() >= MAX_METERS {
            // One that is full is as good as none.
            self.buckets.retain(|_, bucket| {
                let per_second = bucket.per_second;
                bucket.fill(now, per_second);
                bucket.left < per_second * QUOTA_WINDOW_S as f64
            });
        }
        // More clients than there is memory for share what is left.
        let key = if self.buckets.len() < MAX_METERS || self.buckets.contains_key(&key) { key } else { 0 };
        let full = Bucket { left: per_second * QUOTA_WINDOW_S as f64, per_second, at: now.mono };
        let bucket = self.buckets.entry(key).or_insert(full);
        bucket.fill(now, per_second);
        bucket
    }

    /// Milliseconds for which a client must wait before it may use more.
    fn owed_ms(&mut self, now: Now, metered: Metered) -> i32 {
        self.bucket(now, metered).wait_ms()
    }

    /// Takes what a client has used here; milliseconds for which it must wait now.
    fn charge(&mut self, now: Now, metered: Metered, amount: f64) -> i32 {
        self.untold.entry(metered.key).or_insert(Used { metered, amount: 0.0 }).amount += amount;
        self.take(now, Used { metered, amount })
    }

    fn take(&mut self, now: Now, used: Used) -> i32 {
        let bucket = self.bucket(now, used.metered);
        bucket.left -= used.amount;
        bucket.wait_ms()
    }

    /// An event is being taken that is work for nobody as yet.
    pub(super) fn works_for_nobody(&mut self) {
        self.working_for.clear();
    }

    /// It is work for a client, where the client's time is limited.
    pub(super) fn works_for(&mut self, timed: Option<Metered>) {
        self.working_for.extend(timed.filter(|timed| !self.working_for.contains(timed)));
    }

    /// Whether it is work for anybody whose time is limited.
    pub(super) fn is_timed(&self) -> bool {
        !self.working_for.is_empty()
    }

    /// It took so long: whom it was for is charged, all alike.
    pub(super) fn worked(&mut self, now: Now, micros: u64) {
        let percent = micros as f64 / 1e6 * 100.0;
        let clients = std::mem::take(&mut self.working_for);
        for &timed in &clients {
            self.charge(now, timed, percent / clients.len() as f64);
        }
    }

    /// Whether there is anything to tell the other shards.
    pub(super) fn busy(&self) -> bool {
        !self.untold.is_empty()
    }
}

impl Shard {
    /// The quota that a client goes by, if there is one.
    fn metered(&self, quota: Quota, client_id: Option<&str>) -> Option<Metered> {
        let applied = quotas::applied(self.state.quotas(), quota, ANONYMOUS, client_id.unwrap_or_default())?;
        let mut hasher = FxHasher::default();
        (quota, applied.user, applied.client_id).hash(&mut hasher);
        Some(Metered { key: hasher.finish(), per_second: applied.rate.per_second() })
    }

    /// Charges a client with a request of so many bytes, and mutes it where that is beyond its quota, or where it has used
    /// too much time before; the answer where the request is refused for it.
    pub(super) fn meter(
        &mut self,
        now: Now,
        origin: &mut Origin,
        client_id: Option<&str>,
        request: &RequestBody,
        bytes: usize,
    ) -> Option<ResponseBody> {
        if self.state.quotas().is_empty() {
            return None;
        }
        origin.timed = self.metered(Quota::RequestPercentage, client_id);
        self.meters.works_for(origin.timed);
        let owed_ms = origin.timed.map_or(0, |timed| self.meters.owed_ms(now, timed)).min(MAX_REQUEST_THROTTLE_MS);
        let refused = match request {
            RequestBody::Produce(_) => {
                if let Some(metered) = self.metered(Quota::ProducerByteRate, client_id) {
                    origin.throttle_ms = self.meters.charge(now, metered, bytes as f64);
                }
                None
            }
            RequestBody::Fetch(_) => {
                origin.metered = self.metered(Quota::ConsumerByteRate, client_id);
                None
            }
            _ => self.meter_mutations(now, origin, client_id, request),
        };
        origin.throttle_ms = origin.throttle_ms.max(owed_ms);
        self.mute(now, origin.slot.conn, origin.throttle_ms);
        refused
    }

    /// Charges a client with partitions that its request creates or deletes; the answer where that is refused.
    fn meter_mutations(
        &mut self,
        now: Now,
        origin: &mut Origin,
        client_id: Option<&str>,
        request: &RequestBody,
    ) -> Option<ResponseBody> {
        let (partitions, refusal) = self.mutations(request, origin.version)?;
        let metered = self.metered(Quota::ControllerMutationRate, client_id)?;
        let owed_ms = self.meters.owed_ms(now, metered);
        if owed_ms > 0 && refusal.is_some() {
            origin.throttle_ms = owed_ms;
            return refusal;
        }
        origin.throttle_ms = self.meters.charge(now, metered, partitions as f64);
        None
    }

    /// Charges a client with the bytes of its answer, and mutes it where that is beyond its quota; milliseconds for which
    /// it is.
    pub(super) fn meter_answer(&mut self, now: Now, origin: Origin, bytes: usize) -> i32 {
        let Some(metered) = origin.metered else { return 0 };
        let throttle_ms = self.meters.charge(now, metered, bytes as f64);
        self.mute(now, origin.slot.conn, throttle_ms);
        throttle_ms
    }

    fn mute(&mut self, now: Now, conn: ConnId, throttle_ms: i32) {
        if throttle_ms > 0 {
            self.connections.mute(conn, now.mono.plus_millis(throttle_ms as u64));
        }
    }

    /// Partitions that a request creates or deletes, and the answer to it where its client owes something; older clients
    /// do not know that answer, and are made to wait afterwards. None where it is no such request.
    fn mutations(&self, request: &RequestBody, version: i16) -> Option<(u64, Option<ResponseBody>)> {
        let error = ErrorCode::ThrottlingQuotaExceeded;
        let (partitions, known_since, refusal): (_, _, ResponseBody) = match request {
            RequestBody::CreateTopics(request) if !request.validate_only => {
                let partitions = create_topics::requested_in_all(request, &self.config);
                (partitions, 6, create_topics::failed(request, error).into())
            }
            RequestBody::DeleteTopics(request) => {
                let partitions = delete_topics::requested_partitions(&self.state, request);
                (partitions as u64, 5, delete_topics::failed(request, error).into())
            }
            RequestBody::CreatePartitions(request) if !request.validate_only => {
                let partitions = create_partitions::requested_partitions(&self.state, request);
                (partitions as u64, 3, create_partitions::failed(request, error).into())
            }
            _ => return None,
        };
        Some((partitions, (version >= known_since).then_some(refusal)))
    }

    /// Tells the other shards what clients have used here.
    pub(super) fn tell_used(&mut self) {
        let untold = std::mem::take(&mut self.meters.untold);
        if untold.is_empty() {
            return;
        }
        let used: Vec<Used> = untold.into_values().collect();
        for shard in (0..self.shards).map(ShardId).filter(|shard| *shard != self.id) {
            self.out.push(super::Effect::Mesh { to: shard, message: ShardMessage::Used(used.clone()) });
        }
    }

    /// Another shard tells what clients have used there.
    pub(super) fn used_elsewhere(&mut self, now: Now, used: Vec<Used>) {
        for used in used {
            self.meters.take(now, used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { mono: Mono(seconds * 1_000_000), wall_ms: 0 }
    }

    const QUOTA: Metered = Metered { key: 7, per_second: 100.0 };

    #[test]
    fn a_client_waits_for_what_it_used_beyond_a_windows_worth() {
        let mut meters = Meters::default();
        assert_eq!(meters.charge(at(1), QUOTA, 1_000.0), 0, "what a whole window allows");
        assert_eq!(meters.charge(at(1), QUOTA, 50.0), 500);
        assert_eq!(meters.owed_ms(at(1), QUOTA), 500);
        assert_eq!(meters.owed_ms(at(2), QUOTA), 0);
        assert_eq!(meters.charge(at(2), QUOTA, 150.0), 1_000);
        assert_eq!(meters.charge(at(100), QUOTA, 1_000.0), 0, "it never holds more than a window's worth");
        assert_eq!(meters.charge(at(100), QUOTA, 1.0), 10);
    }

    #[test]
    fn the_time_of_an_event_is_charged_to_those_whom_it_was_work_for() {
        let mut meters = Meters::default();
        let (one, other) = (Metered { key: 1, per_second: 1.0 }, Metered { key: 2, per_second: 1.0 });
        assert!(!meters.is_timed());
        [Some(one), None, Some(other), Some(one)].into_iter().for_each(|timed| meters.works_for(timed));
        assert!(meters.is_timed());
        meters.worked(at(1), 240_000);
        assert!(!meters.is_timed(), "charged once");
        // A percent of a second is 10 ms, and ten seconds' worth may be used at once.
        assert_eq!((meters.owed_ms(at(1), one), meters.owed_ms(at(1), other)), (2_000, 2_000));
        meters.works_for(Some(one));
        meters.works_for_nobody();
        meters.worked(at(1), 1_000_000);
        assert_eq!(meters.owed_ms(at(1), one), 2_000);
    }

    #[test]
    fn another_rate_holds_at_once() {
        let mut meters = Meters::default();
        meters.charge(at(1), QUOTA, 1_100.0);
        assert_eq!(meters.owed_ms(at(1), Metered { per_second: 10.0, ..QUOTA }), 10_000);
    }

    #[test]
    fn what_other_shards_tell_counts_and_is_not_told_again() {
        let mut meters = Meters::default();
        assert_eq!(meters.take(at(1), Used { metered: QUOTA, amount: 1_100.0 }), 1_000);
        assert!(!meters.busy());
        meters.charge(at(1), QUOTA, 1.0);
        meters.charge(at(1), QUOTA, 2.0);
        let told: Vec<Used> = meters.untold.values().copied().collect();
        assert_eq!(told, [Used { metered: QUOTA, amount: 3.0 }]);
    }

    #[test]
    fn more_clients_than_there_is_memory_for_share_what_is_left() {
        let mut meters = Meters::default();
        for key in 1..=MAX_METERS as u64 {
            meters.charge(at(1), Metered { key, ..QUOTA }, 1.0);
        }
        meters.charge(at(1), Metered { key: u64::MAX, ..QUOTA }, 1_000.0);
        assert_eq!(meters.charge(at(1), Metered { key: u64::MAX - 1, ..QUOTA }, 100.0), 1_000);
        assert!(meters.buckets.len() <= MAX_METERS + 1);
        assert_eq!(meters.charge(at(60), Metered { key: u64::MAX, ..QUOTA }, 1_000.0), 0);
        assert!(meters.buckets.len() < 5, "those that are full again are forgotten");
    }
}
